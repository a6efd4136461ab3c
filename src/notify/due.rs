//! What people are to be told: counters that have reached the threshold, what works again, what is wrong outside any
//! service.

use jiff::Timestamp;

use crate::workflow::code::Code;
use crate::workflow::counters::CounterKey;
use crate::workflow::id::{Subject, TargetName};

/// Which counter it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The service's own: kinit, token, store, ping.
    Setup,
    /// Of a service and a node.
    Push,
    /// No error and no counter: something that a person should know, such as a UID that has changed.
    News,
}

/// One counter of this run that is at the threshold and that nobody has been told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueCounter {
    /// The service.
    pub subject: Subject,
    /// The node of a push counter; for a setup counter where it failed (`schedd1`), if that is one place.
    pub target: Option<TargetName>,
    /// Errors in a row that nobody has been told of.
    pub value: u32,
    /// Setup or push.
    pub kind: Kind,
    /// What failed last, redacted: `get-vault-token: the vault server … cannot be reached`.
    pub message: String,
    /// What mends it, when that is known.
    pub next: Option<String>,
    /// Runs in the present row of errors, told or not; 0 where nobody counts them.
    pub failing_runs: u32,
    /// When the present row of errors began; `None`: nobody counts it.
    pub failing_since: Option<Timestamp>,
}

impl DueCounter {
    /// The counter's place in the store.
    pub fn key(&self) -> CounterKey {
        let target = match self.kind {
            Kind::Setup => None,
            Kind::Push => self.target.clone(),
            // The name of no node: only tells it apart from an error of the same subject.
            Kind::News => Some(TargetName::new("(news)")),
        };
        CounterKey { subject: self.subject.clone(), target }
    }
}

/// An error outside any service: the configuration, the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What `mt explain` knows about it.
    pub code: Code,
    /// What is wrong.
    pub message: String,
    /// What mends it, when that is known.
    pub next: Option<String>,
}

/// All that one message tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Errors outside any service.
    pub troubles: Vec<Trouble>,
    /// Counters at the threshold.
    pub due: Vec<DueCounter>,
    /// Counters whose errors somebody had been told of, and that are at zero again.
    pub recovered: Vec<CounterKey>,
}

impl News {
    /// Nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.troubles.is_empty() && self.due.is_empty() && self.recovered.is_empty()
    }
}
