//! The promises of the two pure functions.

use std::collections::{BTreeMap, BTreeSet};

use insta::assert_snapshot;
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use super::families::FAMILIES;
use super::render::{Configured, Counts, render};
use super::samples::samples;
use super::stored::{Stage, Stored};
use crate::cli::samples as run;
use crate::config::{Credds, IssuerService, NodeName, Service};
use crate::notify::delivery::{Delivery, Recipient};
use crate::steps::world::test_support::service;
use crate::workflow::action::{Class, Failure, Success};
use crate::workflow::code::Code;
use crate::workflow::counters::CounterKey;
use crate::workflow::definition::{CountsAs, ForEach, OnFailure, Per};
use crate::workflow::event::{AttemptOutcome, PlannedStep};
use crate::workflow::id::{StepName, Subject, TargetName, WorkflowName};
use crate::workflow::run::{AttemptRecord, Machine, RunState};
use crate::workflow::status::{MachineStatus, RunStatus, StepStatus};

const HOUR: i64 = 3_600_000;

/// A configured service on these nodes; its credds come from a collector.
fn on(name: &str, nodes: &[&str]) -> Service {
    Service {
        nodes: nodes.iter().map(|node| NodeName::checked(*node)).collect(),
        credds: Credds::Collector { collectors: Vec::new(), constraint: None },
        ..service(name)
    }
}

fn configured(services: &[Service]) -> Configured {
    Configured::new(services, ["token-push", "ferry-refresh"].map(WorkflowName::new))
}

/// The whole text after these runs.
fn text(runs: &[&RunState], services: &[Service]) -> String {
    let stored = runs.iter().fold(Stored::default(), |stored, run| samples(run, &[], &stored));
    render(&stored, &None, &configured(services)).unwrap()
}

/// The value of a series, written as in the text without its namespace.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("managed_tokens_{series} ")));
    line.map(|value| value.parse().unwrap())
}

/// The names and labels of all series.
fn series(text: &str) -> Vec<&str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').expect("name and value").0).collect()
}

fn state(machines: Vec<Machine>) -> RunState {
    run::state(RunStatus::Partial, Some(8_100), machines)
}

/// The same, made an hour later, so many times.
fn later(mut state: RunState, hours: i64) -> RunState {
    let shift = |at: &mut Timestamp| *at += jiff::SignedDuration::from_millis(hours * HOUR);
    state.run.id = run::run_id(&format!("01k4q8v{}", ["t", "v", "w", "x"][usize::try_from(hours).unwrap()]));
    shift(&mut state.run.started_at);
    state.run.ended_at.iter_mut().for_each(shift);
    for session in &mut state.run.sessions {
        shift(&mut session.started_at);
        session.ended_at.iter_mut().for_each(shift);
    }
    for machine in state.machines.values_mut() {
        machine.started_at.iter_mut().chain(&mut machine.ended_at).for_each(shift);
        let targets = machine.steps.iter_mut().flat_map(|step| &mut step.targets);
        for attempt in targets.flat_map(|target| &mut target.attempts) {
            shift(&mut attempt.started_at);
            attempt.ended_at.iter_mut().for_each(shift);
        }
    }
    state
}

fn failure() -> Failure {
    Failure::new(Class::Transient, Code(42), "refused")
}

/// Where one push of two is refused; the token's expiry is known.
fn dune() -> Machine {
    let mut machine = run::healthy("dune_production");
    let detail = json!({"fingerprint": "sha256:0", "expires_at": "2025-11-29T13:58:00Z", "kept": null});
    let success = AttemptOutcome::Succeeded(Success { detail: Some(detail), note: None });
    machine.steps[1] = run::single("get-vault-token", StepStatus::Succeeded, vec![run::attempt(1, 61, 900, success)]);
    machine.steps[4].status = StepStatus::Failed;
    machine.steps[4].targets[1] = run::target(
        "node2.fnal.gov",
        StepStatus::Failed,
        vec![run::bad(1, 2_200, 2_300, failure()), run::bad(2, 4_300, 4_400, failure())],
    );
    machine.status = MachineStatus::Failed;
    machine
}

fn three() -> (RunState, Vec<Service>) {
    let nodes = ["node1.fnal.gov", "node2.fnal.gov"];
    let machines = vec![dune(), run::healthy("mu2e_production"), run::unauthenticated_machine("nova_production")];
    let services = ["dune_production", "mu2e_production", "nova_production"].map(|name| on(name, &nodes));
    (state(machines), services.to_vec())
}

#[test]
fn a_run_with_failures_is_told_with_every_name_type_and_label() {
    let (run, services) = three();
    let sent = |to, success, seconds| {
        let took = std::time::Duration::from_secs_f64(seconds);
        Delivery { to, success, at: run::at(8_050), took }
    };
    let deliveries = [
        sent(Recipient::AdminsByMail, true, 0.25),
        sent(Recipient::AdminsBySlack, false, 1.0),
        sent(Recipient::Service(Subject::new("dune_production")), true, 0.125),
    ];
    let stored = samples(&run, &deliveries, &Stored::default());
    let key = |subject: &str, target: Option<&str>| CounterKey {
        subject: Subject::new(subject),
        target: target.map(TargetName::new),
    };
    let counts: Counts =
        Some(BTreeMap::from([(key("nova_production", None), 2), (key("dune_production", Some("node2.fnal.gov")), 1)]));
    let text = render(&stored, &counts, &configured(&services)).unwrap();
    assert_snapshot!(text);
}

#[test]
fn a_run_for_one_service_changes_that_one_and_leaves_all_others_as_they_were() {
    let (all, services) = three();
    let one = later(state(vec![run::healthy("dune_production")]), 1);
    let (before, after) = (text(&[&all], &services), text(&[&all, &one], &services));
    let others = |text: &str| -> Vec<String> {
        let of_others = |line: &&str| line.contains("mu2e_production") || line.contains("nova_production");
        text.lines().filter(of_others).map(str::to_owned).collect()
    };
    assert!(others(&before).len() > 10);
    assert_eq!(others(&before), others(&after));
    let pushed = r#"last_token_push_timestamp{node="node2.fnal.gov",service="dune_production"}"#;
    assert_eq!(value(&before, pushed), None, "it was refused");
    assert_eq!(value(&after, pushed), Some(run::at(HOUR + 3_100).as_duration().as_secs_f64()));
}

#[test]
fn the_daily_job_leaves_the_hourly_ones_series_and_the_other_way_round() {
    let (hourly, services) = three();
    let daily = accounts(&[("dunepro", true), ("mu2epro", false)]);
    let both = text(&[&hourly, &later(daily.clone(), 1)], &services);
    let other_way_round = text(&[&daily, &later(hourly.clone(), 1)], &services);
    for alone in [text(&[&hourly], &services), text(&[&daily], &services)] {
        let is_kept = |text: &str| {
            let present: BTreeSet<&str> = series(text).into_iter().collect();
            series(&alone).into_iter().filter(|s| !s.contains("run_info")).all(|s| present.contains(s))
        };
        assert!(is_kept(&both) && is_kept(&other_way_round));
    }
}

#[test]
fn what_is_no_longer_configured_has_no_series() {
    let (run, _) = three();
    let left = [on("dune_production", &["node1.fnal.gov"])];
    let text = text(&[&run], &left);
    assert!(!text.contains("mu2e") && !text.contains("node2"), "{text}");
    assert!(text.contains(r#"service="dune_production""#) && text.contains(r#"node="node1.fnal.gov""#));
}

#[test]
fn a_credd_that_the_collector_no_longer_names_is_gone_and_one_that_only_failed_is_not() {
    let (run, services) = three();
    let of = |text: &str, credd: &str| {
        value(text, &format!(r#"failed_vault_token_store_count{{credd="{credd}",service="mu2e_production"}}"#))
    };
    let mut fewer = run::healthy("mu2e_production");
    fewer.steps[2].targets.remove(1);
    let after = text(&[&run, &later(state(vec![fewer]), 1)], &services);
    assert_eq!((of(&after, "schedd1"), of(&after, "schedd2")), (Some(0.0), None));

    let mut unknown = run::healthy("mu2e_production");
    unknown.status = MachineStatus::Failed;
    unknown.steps[2] = run::single("store-in-credd", StepStatus::Failed, vec![run::bad(1, 901, 902, failure())]);
    let after = text(&[&run, &later(state(vec![unknown]), 1)], &services);
    assert_eq!((of(&after, "schedd1"), of(&after, "schedd2")), (Some(1.0), Some(1.0)));
    assert!(!after.contains(r#"credd="-""#), "{after}");

    let fixed = services.into_iter().map(|s| Service { credds: service("x_y").credds, ..s }).collect::<Vec<_>>();
    assert!(!text(&[&run], &fixed).contains("credd="), "configured is another one");
}

#[test]
fn failures_are_of_the_last_run_and_successes_of_the_last_one_that_succeeded() {
    let nodes = ["node1.fnal.gov", "node2.fnal.gov"];
    let services = [on("dune_production", &nodes)];
    let good = state(vec![run::healthy("dune_production")]);
    let bad = later(state(vec![dune()]), 1);
    let again = later(state(vec![run::healthy("dune_production")]), 2);
    let labels = r#"{node="node2.fnal.gov",service="dune_production"}"#;
    let seen = |runs: &[&RunState]| {
        let text = text(runs, &services);
        let value = |name: &str| value(&text, &format!("{name}{labels}"));
        (
            value("failed_token_push_count").unwrap(),
            value("last_token_push_timestamp").unwrap(),
            self::value(&text, "failed_services_push_count").unwrap(),
            self::value(&text, r#"last_success_timestamp{service="dune_production"}"#).unwrap(),
        )
    };
    let at = |milliseconds| run::at(milliseconds).as_duration().as_secs_f64();
    assert_eq!(seen(&[&good]), (0.0, at(3_100), 0.0, at(7_900)));
    assert_eq!(seen(&[&good, &bad]), (1.0, at(3_100), 1.0, at(7_900)));
    assert_eq!(seen(&[&good, &bad, &again]), (0.0, at(2 * HOUR + 3_100), 0.0, at(2 * HOUR + 7_900)));
}

#[test]
fn a_run_that_stopped_before_the_push_counts_as_a_service_whose_push_failed() {
    let services = [on("nova_production", &["node1.fnal.gov"])];
    let text = text(&[&state(vec![run::unauthenticated_machine("nova_production")])], &services);
    assert_eq!(value(&text, "failed_services_push_count"), Some(1.0));
    assert_eq!(value(&text, r#"failed_vault_token_get_count{service="nova_production"}"#), Some(1.0));
    assert_eq!(value(&text, r#"failed_kinit_count{service="nova_production"}"#), Some(0.0));
}

#[test]
fn an_older_run_that_is_resumed_late_does_not_have_the_last_word() {
    let services = [on("dune_production", &["node1.fnal.gov", "node2.fnal.gov"])];
    let old = state(vec![dune()]);
    let new = later(state(vec![run::healthy("dune_production")]), 1);
    assert_eq!(text(&[&new, &old], &services), text(&[&new], &services));
}

#[test]
fn machines_that_did_not_work_in_a_run_change_nothing() {
    let services = [on("dune_production", &["node1.fnal.gov", "node2.fnal.gov"])];
    let good = state(vec![run::healthy("dune_production")]);
    let of_services = |text: String| -> Vec<String> {
        text.lines().filter(|line| line.contains("dune") || line.contains("node")).map(str::to_owned).collect()
    };
    for status in [MachineStatus::Skipped, MachineStatus::Gone, MachineStatus::Superseded, MachineStatus::Interrupted] {
        let idle = later(state(vec![run::without_work("dune_production", status, None)]), 1);
        let (before, after) = (text(&[&good], &services), text(&[&good, &idle], &services));
        assert_eq!(of_services(before), of_services(after), "{status}");
    }
}

#[test]
fn two_services_with_one_issuer_name_are_told_as_one() {
    let shared = |name: &str| Service {
        issuer_service: IssuerService::checked("dune_production"),
        ..on(name, &["node1.fnal.gov", "node2.fnal.gov"])
    };
    let services = [shared("dune_production"), shared("dune-2_production")];
    let mut slower = Machine { subject: Subject::new("dune-2_production"), ..dune() };
    slower.status = MachineStatus::Succeeded;
    slower.steps[0] = run::single("kinit", StepStatus::Succeeded, vec![run::good(20, 2_020)]);
    let text = text(&[&state(vec![dune(), slower])], &services);
    assert_eq!(value(&text, r#"kinit_duration_seconds{service="dune_production"}"#), Some(2.0), "the longer one");
    let node2 = r#"{node="node2.fnal.gov",service="dune_production"}"#;
    assert_eq!(value(&text, &format!("failed_token_push_count{node2}")), Some(2.0), "the sum");
    assert_eq!(value(&text, r#"ping_duration_seconds_count{node="node1.fnal.gov"}"#), Some(2.0));
    assert!(value(&text, r#"last_success_timestamp{service="dune-2_production"}"#).is_some(), "as configured");
    assert_eq!(value(&text, r#"last_success_timestamp{service="dune_production"}"#), None);
}

#[test]
fn a_push_takes_from_its_first_try_to_its_success_and_a_ping_counts_only_when_answered() {
    let mut machine = run::healthy_on("dune_production", &["node1.fnal.gov"]);
    machine.steps[3] = run::step(
        "ping",
        StepStatus::Failed,
        vec![run::target("node1.fnal.gov", StepStatus::Failed, vec![run::bad(1, 2_000, 2_100, failure())])],
    );
    machine.steps[4] = run::step(
        "push",
        StepStatus::Succeeded,
        vec![run::target(
            "node1.fnal.gov",
            StepStatus::Succeeded,
            vec![run::bad(1, 2_000, 2_100, failure()), AttemptRecord { number: 2, ..run::good(4_000, 5_000) }],
        )],
    );
    let text = text(&[&state(vec![machine])], &[on("dune_production", &["node1.fnal.gov"])]);
    let push = r#"token_push_duration_seconds{node="node1.fnal.gov",service="dune_production"}"#;
    assert_eq!(value(&text, push), Some(3.0));
    assert_eq!(value(&text, r#"ping_duration_seconds_count{node="node1.fnal.gov"}"#), Some(0.0));
    assert_eq!(value(&text, r#"failed_ping_count{node="node1.fnal.gov"}"#), Some(1.0));
}

#[test]
fn the_stages_of_a_resumed_run_are_those_of_its_last_session() {
    let services = [on("dune_production", &["node1.fnal.gov", "node2.fnal.gov"])];
    let text = text(&[&run::resumed()], &services);
    let stage = |name| value(&text, &format!(r#"stage_duration_seconds{{executable="token-push",stage="{name}"}}"#));
    assert_eq!(stage("setup"), Some(0.02));
    assert_eq!(stage("getKerberosTickets"), Some(0.04));
    assert!(stage("cleanup").is_some_and(|seconds| seconds < 4.0), "{text}");
    assert_eq!(value(&text, r#"run_duration_seconds{workflow="token-push"}"#), Some(4.0));
}

#[test]
fn a_refresh_of_uids_has_its_old_names() {
    let services = [on("dune_production", &[]), on("mu2e_production", &[])];
    let text = text(&[&accounts(&[("dunepro", true), ("mu2epro", false)])], &services);
    assert_eq!(value(&text, "ferry_request_error_count"), Some(1.0));
    assert_eq!(value(&text, "ferry_request_duration_seconds_count"), Some(1.0));
    assert_eq!(value(&text, "last_ferry_refresh"), Some(run::at(400).as_duration().as_secs_f64()));
    let stage = |name| format!(r#"stage_duration_seconds{{executable="refresh-uids-from-ferry",stage="{name}"}}"#);
    assert_eq!(value(&text, &stage("getFERRYData")), Some(0.2));
    assert_eq!(value(&text, &stage("refreshManagedTokensDB")), Some(0.1));
    assert!(!text.contains("last_success_timestamp"), "an account is no service");
}

/// A run of ferry-refresh over these accounts: which of them FERRY told.
fn accounts(accounts: &[(&str, bool)]) -> RunState {
    let planned = |name: &str, action: &str| PlannedStep {
        name: StepName::new(name),
        action: action.to_owned(),
        per: Per::Subject,
        counts_as: CountsAs::Nothing,
        on_failure: OnFailure::Stop,
    };
    let machines = accounts.iter().map(|(name, told)| {
        let steps = if *told {
            vec![
                run::single("fetch-uid", StepStatus::Succeeded, vec![run::good(100, 300)]),
                run::single("store-uid", StepStatus::Succeeded, vec![run::good(300, 400)]),
            ]
        } else {
            vec![
                run::single("fetch-uid", StepStatus::Failed, vec![run::bad(1, 100, 200, failure())]),
                run::not_attempted("store-uid", "fetch-uid failed"),
            ]
        };
        run::machine(name, if *told { MachineStatus::Succeeded } else { MachineStatus::Failed }, steps)
    });
    let mut state = state(machines.collect());
    state.run.workflow = WorkflowName::new("ferry-refresh");
    state.run.for_each = ForEach::Account;
    state.run.plan = vec![planned("fetch-uid", "FetchUid"), planned("store-uid", "StoreUid")];
    state
}

#[test]
fn what_is_kept_comes_back_from_the_store_as_it_was() {
    let (run, _) = three();
    let stored = samples(&run, &[], &Stored::default());
    for samples in stored.subjects.values() {
        let text = serde_json::to_string(samples).unwrap();
        assert_eq!(&serde_json::from_str::<super::stored::SubjectSamples>(&text).unwrap(), samples, "{text}");
    }
    for samples in stored.workflows.values() {
        let text = serde_json::to_string(samples).unwrap();
        assert_eq!(&serde_json::from_str::<super::stored::WorkflowSamples>(&text).unwrap(), samples, "{text}");
    }
}

#[test]
fn every_action_with_samples_has_one_stage_and_no_name_is_used_twice() {
    assert!(Stage::ALL.iter().all(|stage| Stage::of_action(stage.action()) == Some(*stage)));
    assert_eq!(Stage::of_action("Exec"), None);
    let names: BTreeSet<_> = FAMILIES.iter().map(|family| family.name).collect();
    assert_eq!(names.len(), FAMILIES.len());
    let known = crate::steps::catalog::ShippedActions;
    for stage in Stage::ALL {
        let action = crate::workflow::definition::Catalog::action(&known, stage.action());
        assert!(action.is_some(), "{}", stage.action());
    }
}

const NAMES: &[&str] = &["a_x", "b_x", "c_x", "a_y"];
const PLACES: &[&str] = &["n1", "n2", "quote\"back\\slash"];

prop_compose! {
    fn any_machine()(
        name in proptest::sample::select(NAMES),
        status in proptest::sample::select(MachineStatus::ALL),
        steps in proptest::collection::vec(
            (proptest::sample::select(StepStatus::ALL), proptest::sample::subsequence(PLACES, 0..=3), 0i64..9_000),
            5,
        ),
    ) -> Machine {
        let steps = run::plan().into_iter().zip(steps).map(|(planned, (status, places, start))| {
            let places = match planned.per { Per::Subject => vec!["-"], Per::Node | Per::Credd => places };
            let tries = || match status.is_failure() {
                true => vec![run::bad(1, start, start + 10, failure())],
                false => vec![run::good(start, start + 10)],
            };
            let targets = places.into_iter().map(|place| run::target(place, status, tries())).collect();
            run::step(planned.name.as_str(), status, targets)
        });
        run::machine(name, status, steps.collect())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn whatever_was_run_no_series_comes_twice_and_every_line_has_its_family(
        runs in proptest::collection::vec((proptest::collection::vec(any_machine(), 0..5), 0i64..4, any::<bool>()), 1..4),
        issuers in proptest::collection::vec(0usize..2, NAMES.len()),
    ) {
        let runs: Vec<RunState> = runs
            .into_iter()
            .map(|(machines, hours, other)| {
                let mut run = later(state(machines), hours);
                if other {
                    run.run.workflow = WorkflowName::new("ferry-refresh");
                }
                run
            })
            .collect();
        let services: Vec<Service> = NAMES
            .iter()
            .zip(issuers)
            .map(|(name, issuer)| Service { issuer_service: IssuerService::checked(["a_x", "z_z"][issuer]), ..on(name, PLACES) })
            .collect();
        let text = text(&runs.iter().collect::<Vec<_>>(), &services);
        let all = series(&text);
        let distinct: BTreeSet<_> = all.iter().collect();
        prop_assert_eq!(distinct.len(), all.len(), "{}", &text);
        for one in all {
            let name = one.split('{').next().unwrap_or_default();
            let is_of = |family: &&super::families::Family| {
                ["", "_bucket", "_sum", "_count"].iter().any(|end| name == format!("{}{end}", family.full_name()))
            };
            prop_assert!(FAMILIES.iter().any(|family| is_of(&family)), "{}", one);
        }
        let types: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        prop_assert_eq!(types.iter().collect::<BTreeSet<_>>().len(), types.len());
    }
}
