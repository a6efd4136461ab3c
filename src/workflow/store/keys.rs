//! What the trees are called and how their keys are made.
//!
//! Keys are text, so that an export can be read. Ids stand first and are ULIDs in lower case: they sort by time.

use std::fmt;

use crate::workflow::id::{RunId, Subject};

macro_rules! trees {
    ($($(#[$doc:meta])* $variant:ident = $text:literal),* $(,)?) => {
        /// The trees of the store.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Tree { $($(#[$doc])* $variant),* }

        impl Tree {
            /// Every tree, in the order of its declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name on disk.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

trees! {
    /// The store's id and sequence, definitions, requests to cancel, marks.
    Meta = "meta",
    /// One record per run.
    Runs = "runs",
    /// One record per machine: `run/subject`.
    Machines = "machines",
    /// The histories: `run/seq`.
    Events = "events",
    /// Consecutive errors.
    Counters = "counters",
    /// UIDs of accounts.
    Uids = "uids",
    /// What was last told to the pushgateway.
    Metrics = "metrics",
    /// What people are to be told: `run/...`.
    Outbox = "outbox",
}

/// How many trees there are.
pub(super) const TREES: usize = Tree::ALL.len();

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The trees whose records are their users' own affair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shelf {
    /// Notifications. Keys are made with [`of_run`]: they are pruned with their run.
    Outbox,
    /// Metrics. Never pruned.
    Metrics,
}

impl From<Shelf> for Tree {
    fn from(shelf: Shelf) -> Self {
        match shelf {
            Shelf::Outbox => Self::Outbox,
            Shelf::Metrics => Self::Metrics,
        }
    }
}

pub(super) const STORE_ID: &str = "store-id";
pub(super) const SEQUENCE: &str = "sequence";
pub(super) const DEFINITIONS: &str = "definition/";
pub(super) const CANCELS: &str = "cancel/";
pub(super) const PRUNING: &str = "pruning/";
pub(super) const MARKS: &str = "mark/";

/// The key of something that belongs to a run and is pruned with it; `of_run(run, "")` is the prefix of them all.
pub fn of_run(run: RunId, rest: &str) -> String {
    format!("{run}/{rest}")
}

pub(super) fn run(run: RunId) -> String {
    run.to_string()
}

pub(super) fn machine(run: RunId, subject: &Subject) -> String {
    of_run(run, subject.as_str())
}

/// Ten digits: a history that outgrows them would fill the disk first.
pub(super) fn event(run: RunId, seq: u64) -> String {
    format!("{run}/{seq:010}")
}

pub(super) fn event_seq(key: &[u8]) -> Option<u64> {
    std::str::from_utf8(key).ok()?.rsplit_once('/')?.1.parse().ok()
}

pub(super) fn definition(hash: &str) -> String {
    format!("{DEFINITIONS}{hash}")
}

pub(super) fn cancel(run: RunId) -> String {
    format!("{CANCELS}{run}")
}

pub(super) fn mark(name: &str) -> String {
    format!("{MARKS}{name}")
}

pub(super) fn pruning(run: RunId) -> String {
    format!("{PRUNING}{run}")
}

/// The smallest key behind all that begin with the prefix: no UTF-8 text holds the byte 0xff.
pub(super) fn behind(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    end.push(0xff);
    end
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;

    #[test]
    fn keys_sort_by_time_and_then_by_sequence() {
        let at = |ms| RunId(Ulid::from_parts(ms, 0));
        assert!(run(at(1)) < run(at(2)));
        assert!(run(at(31)) < run(at(32)));
        assert!(event(at(1), 9) < event(at(1), 10));
        assert!(event(at(1), 4_000_000_000) < event(at(2), 0));
        assert_eq!(event_seq(event(at(1), 4_000_000_000).as_bytes()), Some(4_000_000_000));
    }

    #[test]
    fn a_prefix_ends_before_the_next_run() {
        let (a, b) = (RunId(Ulid::from_parts(1, 0)), RunId(Ulid::from_parts(1, 1)));
        let prefix = of_run(a, "");
        let end = behind(prefix.as_bytes());
        assert!(machine(a, &Subject::new("\u{10ffff}")).as_bytes() < end.as_slice());
        assert!(machine(b, &Subject::new("")).as_bytes() > end.as_slice());
    }
}
