//! The places where a test ends the process, to see that the next one finds everything in order.
//!
//! Without the feature `failpoints`, which no release has, passing a point is nothing at all. With it every point is a
//! fail point of the crate `fail`, and a test says by the environment what is to happen there:
//!
//! | variable | |
//! |---|---|
//! | `MT_CRASH_AT` | `POINT:N`: the process gets SIGKILL when it passes POINT for the N-th time, from 1. `POINT:N:both`: its guardian first. `POINT:N:panic`: it panics |
//! | `MT_CRASH_LOG` | a file to which every point that is passed is appended, one name a line |
//!
//! Worker and guardian each count for themselves, from the fork on.

#[cfg(all(feature = "failpoints", not(debug_assertions)))]
compile_error!("the feature `failpoints` is for tests: a release must not have it");

/// A place where the process may end. The table of all of them is [`CrashPoint::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CrashPoint {
    /// The first store is made beside its place.
    StoreMadeBefore,
    /// The first store is in its place, without its sidecar.
    StoreMadeAfter,
    /// A group commit is made up and nothing of it is written.
    StoreCommitBefore,
    /// A group commit is durable and nobody knows.
    StoreCommitAfter,
    /// The store that is replaced is put aside, and nothing is in its place.
    StoreAsideAfter,
    /// A store that looks damaged is copied, to be tried.
    StoreCopied,
    /// The store is copied, and not yet exchanged with its copy.
    StoreExchangeBefore,
    /// The store is exchanged with its copy, and its sidecar is that of before.
    StoreExchangeAfter,
    /// The store's sidecar is written beside its place.
    SidecarRenameBefore,
    /// The store's sidecar is in its place.
    SidecarRenameAfter,
    /// A child is about to start.
    ChildStartBefore,
    /// A child has started.
    ChildStartAfter,
    /// A child has exited and is not collected.
    ChildEndBefore,
    /// A child is collected, its group gone, and nobody knows how it ended.
    ChildEndAfter,
    /// A token file is written beside its place.
    TokenRenameBefore,
    /// A token file is in its place.
    TokenRenameAfter,
    /// A message is marked as being sent and nothing of it has gone out.
    OutboxSendBefore,
    /// The channel has answered and the message is not marked.
    OutboxSendAfter,
    /// A worker is about to clear after those who died.
    SweepBefore,
    /// A worker has cleared after those who died.
    SweepAfter,
    /// The guardian has seen its worker's end.
    GuardianBefore,
    /// The guardian has ended what the worker left, and removed none of its files.
    GuardianEnded,
    /// The guardian has cleaned up.
    GuardianAfter,
}

impl CrashPoint {
    /// All of them.
    pub const ALL: [Self; 23] = [
        Self::StoreMadeBefore,
        Self::StoreMadeAfter,
        Self::StoreCommitBefore,
        Self::StoreCommitAfter,
        Self::StoreAsideAfter,
        Self::StoreCopied,
        Self::StoreExchangeBefore,
        Self::StoreExchangeAfter,
        Self::SidecarRenameBefore,
        Self::SidecarRenameAfter,
        Self::ChildStartBefore,
        Self::ChildStartAfter,
        Self::ChildEndBefore,
        Self::ChildEndAfter,
        Self::TokenRenameBefore,
        Self::TokenRenameAfter,
        Self::OutboxSendBefore,
        Self::OutboxSendAfter,
        Self::SweepBefore,
        Self::SweepAfter,
        Self::GuardianBefore,
        Self::GuardianEnded,
        Self::GuardianAfter,
    ];

    /// As the environment names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StoreMadeBefore => "store-made-before",
            Self::StoreMadeAfter => "store-made-after",
            Self::StoreCommitBefore => "store-commit-before",
            Self::StoreCommitAfter => "store-commit-after",
            Self::StoreAsideAfter => "store-aside-after",
            Self::StoreCopied => "store-copied",
            Self::StoreExchangeBefore => "store-exchange-before",
            Self::StoreExchangeAfter => "store-exchange-after",
            Self::SidecarRenameBefore => "sidecar-rename-before",
            Self::SidecarRenameAfter => "sidecar-rename-after",
            Self::ChildStartBefore => "child-start-before",
            Self::ChildStartAfter => "child-start-after",
            Self::ChildEndBefore => "child-end-before",
            Self::ChildEndAfter => "child-end-after",
            Self::TokenRenameBefore => "token-rename-before",
            Self::TokenRenameAfter => "token-rename-after",
            Self::OutboxSendBefore => "outbox-send-before",
            Self::OutboxSendAfter => "outbox-send-after",
            Self::SweepBefore => "sweep-before",
            Self::SweepAfter => "sweep-after",
            Self::GuardianBefore => "guardian-before",
            Self::GuardianEnded => "guardian-ended",
            Self::GuardianAfter => "guardian-after",
        }
    }

    /// The point of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|point| point.name() == name)
    }

    /// Is it passed only where there has been no store yet?
    pub const fn is_of_the_first_start(self) -> bool {
        matches!(self, Self::StoreMadeBefore | Self::StoreMadeAfter)
    }

    /// Is it passed only where a store is replaced or compacted, or looks damaged?
    pub const fn is_of_upkeep(self) -> bool {
        matches!(self, Self::StoreAsideAfter | Self::StoreCopied | Self::StoreExchangeBefore | Self::StoreExchangeAfter)
    }

    /// Is it the guardian that passes it?
    pub const fn is_the_guardians(self) -> bool {
        match self {
            Self::GuardianBefore | Self::GuardianEnded | Self::GuardianAfter => true,
            Self::StoreMadeBefore
            | Self::StoreMadeAfter
            | Self::StoreCommitBefore
            | Self::StoreCommitAfter
            | Self::StoreAsideAfter
            | Self::StoreCopied
            | Self::StoreExchangeBefore
            | Self::StoreExchangeAfter
            | Self::SidecarRenameBefore
            | Self::SidecarRenameAfter
            | Self::ChildStartBefore
            | Self::ChildStartAfter
            | Self::ChildEndBefore
            | Self::ChildEndAfter
            | Self::TokenRenameBefore
            | Self::TokenRenameAfter
            | Self::OutboxSendBefore
            | Self::OutboxSendAfter
            | Self::SweepBefore
            | Self::SweepAfter => false,
        }
    }
}

/// Passes a point.
#[inline(always)]
pub fn pass(point: CrashPoint) {
    #[cfg(feature = "failpoints")]
    fail::fail_point!(point.name());
    #[cfg(not(feature = "failpoints"))]
    let _ = point;
}

#[cfg(feature = "failpoints")]
pub use armed::arm;

#[cfg(feature = "failpoints")]
mod armed {
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use nix::sys::signal::{Signal, kill, raise};
    use nix::unistd::getppid;

    use super::CrashPoint;

    /// Does what the environment says, from now on. To be called before the guardian forks.
    ///
    /// # Panics
    /// When the environment cannot be understood: a test that sets it must not run undisturbed.
    pub fn arm() {
        let log = std::env::var_os("MT_CRASH_LOG").map(|path| {
            let file = OpenOptions::new().append(true).create(true).open(path);
            Arc::new(file.expect("MT_CRASH_LOG can be opened"))
        });
        let doomed = std::env::var("MT_CRASH_AT").ok().map(|text| Doom::of(&text));
        if log.is_none() && doomed.is_none() {
            return;
        }
        for point in CrashPoint::ALL {
            let (log, doom) = (log.clone(), doomed.filter(|doom| doom.point == point));
            let passed = AtomicUsize::new(0);
            let callback = move || {
                let nth = passed.fetch_add(1, Ordering::SeqCst) + 1;
                if let Some(log) = &log {
                    // One write, so that lines of two threads do not mix.
                    let line = format!("{}\n", point.name());
                    (&**log).write_all(line.as_bytes()).expect("MT_CRASH_LOG can be written");
                }
                if let Some(doom) = doom.filter(|doom| doom.nth == nth) {
                    doom.strike();
                }
            };
            fail::cfg_callback(point.name(), callback).expect("a callback is always taken");
        }
    }

    /// Where the process ends.
    #[derive(Clone, Copy)]
    struct Doom {
        point: CrashPoint,
        nth: usize,
        how: How,
    }

    #[derive(Clone, Copy, PartialEq, Eq)]
    enum How {
        Killed,
        BothKilled,
        Panic,
    }

    impl Doom {
        fn of(text: &str) -> Self {
            let mut words = text.split(':');
            let point = words.next().and_then(CrashPoint::of_name);
            let nth = words.next().and_then(|number| number.parse().ok());
            let how = match words.next() {
                None => Some(How::Killed),
                Some("both") => Some(How::BothKilled),
                Some("panic") => Some(How::Panic),
                Some(_) => None,
            };
            match (point, nth, how) {
                (Some(point), Some(nth), Some(how)) => Self { point, nth, how },
                (_, _, _) => panic!("MT_CRASH_AT={text}: POINT:N, POINT:N:both or POINT:N:panic is wanted"),
            }
        }

        fn strike(self) -> ! {
            // The guardian's own parent has nothing to do with it.
            assert!(self.how != How::Panic, "a panic at {}", self.point.name());
            if self.how == How::BothKilled && !self.point.is_the_guardians() {
                let _ = kill(getppid(), Signal::SIGKILL);
            }
            let _ = raise(Signal::SIGKILL);
            // The signal is for the process; this thread may run on for a moment, and must not.
            loop {
                std::thread::park();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_has_a_name_of_its_own() {
        for point in CrashPoint::ALL {
            assert_eq!(CrashPoint::of_name(point.name()), Some(point));
        }
        let names: std::collections::BTreeSet<_> = CrashPoint::ALL.into_iter().map(CrashPoint::name).collect();
        assert_eq!(names.len(), CrashPoint::ALL.len());
    }
}
