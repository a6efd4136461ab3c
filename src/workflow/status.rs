//! The public statuses, spelled with hyphens in JSON.

use serde::{Deserialize, Serialize};

macro_rules! status {
    ($(#[$doc:meta])* $type:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $type { $($(#[$vdoc])* $variant),* }

        impl $type {
            /// Every status, in the order in which they are declared.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The public spelling.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

status! {
    /// How a run stands.
    RunStatus {
        /// A session works on it.
        Running = "running",
        /// Every machine that was not skipped or gone succeeded.
        Succeeded = "succeeded",
        /// Some machines succeeded, some did not.
        Partial = "partial",
        /// No machine succeeded.
        Failed = "failed",
        /// The deadline struck before every machine had ended.
        TimedOut = "timed-out",
        /// Its last session ended before its machines did. It can be resumed.
        Interrupted = "interrupted",
        /// A person ended it for good.
        Cancelled = "cancelled",
        /// A newer run did all of its work.
        Superseded = "superseded",
        /// Other live runs held all of its subjects.
        Skipped = "skipped",
    }
}

status! {
    /// How a machine stands.
    MachineStatus {
        /// Not begun.
        Pending = "pending",
        /// A session works on it.
        Running = "running",
        /// All its steps succeeded or were not meant to run.
        Succeeded = "succeeded",
        /// At least one step did not succeed.
        Failed = "failed",
        /// The deadline struck while it worked.
        TimedOut = "timed-out",
        /// Its session ended while it worked.
        Interrupted = "interrupted",
        /// Another live run held its subject.
        Skipped = "skipped",
        /// Its subject is no longer configured.
        Gone = "gone",
        /// A newer run of the workflow ended this subject's machine first.
        Superseded = "superseded",
    }
}

status! {
    /// How a step, or one target of a step, stands.
    StepStatus {
        /// Not begun, or cut off before an outcome was recorded.
        Pending = "pending",
        /// An attempt is going on, or waits for its turn.
        Running = "running",
        /// It did what it is for.
        Succeeded = "succeeded",
        /// It failed, and an older product that still serves stands in for the new one.
        Stale = "stale",
        /// It failed.
        Failed = "failed",
        /// It failed, and only a person can mend it.
        NeedsHuman = "needs-human",
        /// It did not end in time.
        TimedOut = "timed-out",
        /// An earlier step failed, so this one was not tried.
        NotAttempted = "not-attempted",
        /// The mode of the run leaves it out.
        Skipped = "skipped",
        /// The target is no longer configured.
        Gone = "gone",
    }
}

impl StepStatus {
    /// Has an outcome that counts as an error.
    pub fn is_failure(self) -> bool {
        match self {
            Self::Stale | Self::Failed | Self::NeedsHuman | Self::TimedOut => true,
            Self::Pending | Self::Running | Self::Succeeded | Self::NotAttempted | Self::Skipped | Self::Gone => false,
        }
    }
}
