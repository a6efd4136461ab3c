//! Names and ids. Each is a type of its own, so that a node can never be passed where a service is meant.

use std::fmt;

use serde::{Deserialize, Serialize};
use ulid::Ulid;

/// The id of a run: a ULID, so ids sort by the time the run was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub Ulid);

impl RunId {
    /// A new id for a run that starts now.
    pub fn generate() -> Self {
        Self(Ulid::new())
    }

    /// This id, or one with its random part that sorts after `other`.
    pub fn after(self, other: Self) -> Self {
        if self > other { self } else { Self(Ulid::from_parts(other.made_ms() + 1, self.0.random())) }
    }

    /// When it was made, by the clock of that machine: milliseconds since 1970.
    pub fn made_ms(self) -> u64 {
        self.0.timestamp_ms()
    }
}

impl fmt::Display for RunId {
    /// Lower case, 26 characters: what mails, logs and file names show.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string().to_ascii_lowercase())
    }
}

impl std::str::FromStr for RunId {
    type Err = ulid::DecodeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ulid::from_string(text).map(Self)
    }
}

/// The id of one acting process: names its private directory, its owner lock and the mark its children carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProcessId(pub Ulid);

impl ProcessId {
    /// A new id for this process.
    pub fn generate() -> Self {
        Self(Ulid::new())
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string().to_ascii_lowercase())
    }
}

impl std::str::FromStr for ProcessId {
    type Err = ulid::DecodeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ulid::from_string(text).map(Self)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(String);

        impl $type {
            /// Takes the text as it is; whoever reads outside input checks it first.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(/// The name of a workflow: `token-push`.
    WorkflowName);
name!(/// Whom a machine works for: a service or an account, as configured.
    Subject);
name!(/// The name of a step, unique in its workflow: `get-vault-token`.
    StepName);
name!(/// What one step fans out over: a node, a credd, or `-`.
    TargetName);
name!(/// Something a step makes and a later step uses: `Ticket`, `VaultToken`.
    Product);

impl TargetName {
    /// The one target of a step that does not fan out.
    pub fn only() -> Self {
        Self::new("-")
    }

    /// Is this the one target of a step that does not fan out?
    pub fn is_only(&self) -> bool {
        self.0 == "-"
    }
}
