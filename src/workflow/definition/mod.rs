//! A workflow as declared in its RON file: its types, how it is read, what is checked, how it is drawn.
//!
//! | file | subject |
//! |---|---|
//! | `types` | what a workflow is |
//! | `catalog` | what the engine is told about the actions there are |
//! | `read` | pieces of RON text into values, each mistake with the piece it is about |
//! | `source` | the text of a file: lines, columns, and small repairs so that more than one syntax error is named |
//! | `parse` | the text into a draft in which every value may be missing or bad |
//! | `lint` | what is wrong with a draft |
//! | `effective` | values of the configuration laid over those of the file |
//! | `library` | where workflows are found |
//! | `show` | a workflow drawn as text, Mermaid or dot |
//! | `diagnostic` | one mistake, and how a person sees it |
//! | `codes` | the numbers of the mistakes, and what `mt explain` says about them |

mod catalog;
pub mod codes;
mod diagnostic;
mod effective;
mod library;
mod lint;
mod parse;
pub mod read;
mod show;
mod source;
mod types;

pub use catalog::{ActionShape, Arguments, Catalog, Place};
pub use diagnostic::{Diagnostic, Severity, printable, render};
pub use effective::{ActionOverride, Effective, Origin, Origins, Overrides, StepOrigins, effective};
pub use library::{Found, Library, Listed};
pub use parse::{DEFAULT_BACKOFF, DEFAULT_INTERRUPTED, DEFAULT_PARALLEL, MOST_BYTES};
pub use show::{Format, show};
pub use types::*;
