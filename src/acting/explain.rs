//! A session that is only thought through: what `mt runs resume --explain` looks at.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::site::Site;
use crate::config::{Config, Service};
use crate::steps::accounts::AccountSetup;
use crate::steps::ferry::AuthMethod;
use crate::steps::{Setup, World, environment::Snapshot};
use crate::workflow::definition::ForEach;
use crate::workflow::event::{Event, Fact, SessionEnd};
use crate::workflow::id::ProcessId;
use crate::workflow::run::RunState;
use crate::workflow::session::open_session;

/// The run as a new session would find it: a session that was cut off has ended.
pub fn as_if_claimed(mut state: RunState) -> RunState {
    if open_session(&state.run).is_some() {
        let session = u32::try_from(state.run.sessions.len()).unwrap_or(u32::MAX);
        let fact = Fact::SessionEnded { how: SessionEnd::Lost };
        let event = Event { seq: state.run.events, at: Timestamp::now(), session, fact };
        if let Err(illegal) = state.apply(&event) {
            tracing::warn!("{illegal}");
        }
    }
    state
}

/// A world that only answers what is known of kept products. It has no private directory: nothing may be started in it.
pub fn world(site: &Site, services: &[Service], for_each: ForEach) -> World {
    World::new(Setup {
        process: ProcessId::generate(),
        private: site.state_dir.join("run"),
        state: site.state_dir.clone(),
        locks: site.state_dir.clone(),
        environment: Snapshot::of_process(),
        own_uid: nix::unistd::geteuid().as_raw(),
        services: services.iter().map(|s| (s.clone(), s.uid_override)).collect(),
        issuer_services: site.config.services.iter().map(|s| s.issuer_service.clone()).collect(),
        expiries: BTreeMap::new(),
        email: None,
        outbox: None,
        accounts: (for_each == ForEach::Account).then(|| AccountSetup {
            accounts: Config::accounts(services),
            ferry: site.config.ferry.clone(),
            method: AuthMethod::default(),
            uids: None,
        }),
    })
}
