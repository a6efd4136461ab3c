//! A run of token-push at a large site: what it is made of, for tests that count and measure.

use managed_tokens::workflow::definition::{CountsAs, OnFailure, Per};
use managed_tokens::workflow::event::PlannedStep;
use managed_tokens::workflow::id::{StepName, Subject, TargetName};

pub const SERVICES: usize = 200;
/// Of each service.
pub const NODES: usize = 5;
pub const CREDDS: usize = 3;

/// Name, action, and what the step fans out to.
pub const STEPS: &[(&str, &str, Per)] = &[
    ("kinit", "Kinit", Per::Subject),
    ("get-vault-token", "GetVaultToken", Per::Subject),
    ("store-in-credd", "StoreInCredd", Per::Credd),
    ("ping", "Ping", Per::Node),
    ("push", "Push", Per::Node),
];

pub fn subject(service: usize) -> Subject {
    Subject::new(format!("exp{service:03}_production"))
}

pub fn targets(service: usize, per: Per) -> Vec<TargetName> {
    match per {
        Per::Subject => vec![TargetName::only()],
        Per::Credd => (0..CREDDS).map(|credd| TargetName::new(format!("schedd{credd}.example.org"))).collect(),
        Per::Node => {
            (0..NODES).map(|node| TargetName::new(format!("exp{service:03}gpvm{node:02}.example.org"))).collect()
        }
    }
}

pub fn plan(on_failure: OnFailure) -> Vec<PlannedStep> {
    let planned = |(name, action, per): &(&str, &str, Per)| PlannedStep {
        name: StepName::new(*name),
        action: (*action).to_owned(),
        per: *per,
        counts_as: CountsAs::Nothing,
        on_failure,
    };
    STEPS.iter().map(planned).collect()
}
