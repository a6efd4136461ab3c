//! Where an effective value came from.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", content = "name", rename_all = "kebab-case")]
pub enum Source {
    /// Nothing names it: what `mt` does by itself.
    Default,
    /// The key of the file, spelled as documented: `keytabPath`, `experiments.dune.roles.production.account`.
    File(String),
    /// A role's `…Override`.
    Override(String),
    /// An environment variable.
    Environment(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.pad("default"),
            Self::File(key) | Self::Override(key) => f.pad(key),
            Self::Environment(name) => f.pad(&format!("environment {name}")),
        }
    }
}

/// The source of every effective value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Of a service's fields, by service and field.
    pub services: BTreeMap<String, BTreeMap<&'static str, Source>>,
    /// Of the global values, by key.
    pub global: BTreeMap<String, Source>,
}
