//! What the engine is told about the actions there are. The engine itself knows none.

use std::fmt;

use super::read::Mistake;
use super::types::{ActionSpec, CountsAs, ForEach, Per};
use crate::workflow::action::ActionInfo;
use crate::workflow::id::Product;

/// Where in a workflow an action may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In `steps`: it works for one subject.
    Steps,
    /// In `finally`: it works for the whole run.
    Finally,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Steps => "`steps`",
            Self::Finally => "`finally`",
        })
    }
}

/// Reads the arguments of an action, parentheses included: what it needs and provides, or every mistake in them.
pub type CheckArguments = for<'a> fn(&'a str) -> Result<ActionInfo, Vec<Mistake<'a>>>;

/// Does an action take arguments?
#[derive(Clone, Copy)]
pub enum Arguments {
    /// It takes none; this is what it needs and provides.
    None(fn() -> ActionInfo),
    /// It takes some, and they say what it needs and provides. The text is an example of its use.
    Some(CheckArguments, &'static str),
}

/// The outside of an action: what a workflow file may say about it.
#[derive(Clone, Copy)]
pub struct ActionShape {
    /// Where it may stand.
    pub place: Place,
    /// Over what it may fan out; the first is meant where a step does not say. Never empty.
    pub per: &'static [Per],
    /// For which kind of subject it can work.
    pub for_each: &'static [ForEach],
    /// The counter meant where a step does not say.
    pub counts_as: CountsAs,
    /// Its arguments, needs and products.
    pub arguments: Arguments,
}

/// The actions a program has.
pub trait Catalog {
    /// The action of that name.
    fn action(&self, name: &str) -> Option<ActionShape>;

    /// The names of all actions, in the order in which help lists them.
    fn names(&self) -> Vec<&'static str>;

    /// What is there before the first step.
    fn given(&self) -> Vec<Product>;

    /// What this step needs and provides; `None` if there is no such action or its arguments are wrong.
    fn info(&self, action: &ActionSpec) -> Option<ActionInfo> {
        match (self.action(&action.name)?.arguments, action.arguments.as_deref()) {
            (Arguments::None(info), None) => Some(info()),
            (Arguments::Some(check, _), Some(text)) => check(text).ok(),
            (Arguments::None(_), Some(_)) | (Arguments::Some(..), None) => None,
        }
    }
}
