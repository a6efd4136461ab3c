//! The number every message for people carries.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An error code such as `MT0042`: stable, never reused, explained by `mt explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u16);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MT{:04}", self.0)
    }
}

/// The text was not `MT` and four digits.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an error code: expected MT and four digits, as in MT0042")]
pub struct BadCode(String);

impl std::str::FromStr for Code {
    type Err = BadCode;

    fn from_str(text: &str) -> Result<Self, BadCode> {
        let digits = text.strip_prefix("MT").or_else(|| text.strip_prefix("mt")).filter(|d| d.len() == 4);
        match digits.and_then(|d| d.parse().ok()) {
            Some(number) => Ok(Self(number)),
            None => Err(BadCode(text.to_owned())),
        }
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
