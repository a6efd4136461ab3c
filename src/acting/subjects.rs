//! What the machines of a run are made for: services, or the accounts of services.

use std::collections::BTreeSet;

use crate::config::Service;
use crate::workflow::definition::ForEach;
use crate::workflow::id::Subject;

/// The subject that a service gives a run.
pub fn subject_of(for_each: ForEach, service: &Service) -> Subject {
    Subject::new(match for_each {
        ForEach::Service => service.name.as_str(),
        ForEach::Account => service.account.as_str(),
    })
}

/// The subjects of the services, each once.
pub fn subjects(for_each: ForEach, services: &[Service]) -> BTreeSet<Subject> {
    services.iter().map(|service| subject_of(for_each, service)).collect()
}
