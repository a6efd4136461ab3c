//! The codes of this module's messages.

use crate::workflow::code::Code;

/// No configuration file where one is looked for.
pub const FILE_NOT_FOUND: Code = Code(80);
/// The file cannot be read.
pub const FILE_UNREADABLE: Code = Code(81);
/// The file's name does not say which format it has.
pub const UNKNOWN_FORMAT: Code = Code(82);
/// The text is not JSON, YAML or RON.
pub const SYNTAX: Code = Code(83);
/// `-s` or `-e` names what is not configured.
pub const UNKNOWN_SELECTION: Code = Code(84);
/// A value has the wrong type.
pub const WRONG_TYPE: Code = Code(150);
/// A key that is needed is missing.
pub const MISSING: Code = Code(151);
/// Two keys are the same in lower case.
pub const DUPLICATE_KEY: Code = Code(152);
/// A duration is not one.
pub const BAD_DURATION: Code = Code(153);
/// A value is none of those that are known.
pub const UNKNOWN_VALUE: Code = Code(154);
/// A name holds what a name cannot.
pub const BAD_NAME: Code = Code(155);
/// A template cannot be filled in.
pub const BAD_TEMPLATE: Code = Code(156);
/// Options cannot be split into words.
pub const BAD_OPTIONS: Code = Code(157);
/// A mail address is not one.
pub const BAD_ADDRESS: Code = Code(158);
/// A number is out of range.
pub const OUT_OF_RANGE: Code = Code(159);
/// A path is not one.
pub const BAD_PATH: Code = Code(160);
/// A key that mt does not know (a warning).
pub const UNKNOWN_KEY: Code = Code(161);
/// A key of the Go service that has no effect any more (a warning).
pub const OBSOLETE_KEY: Code = Code(162);
/// A value that works, but hardly as meant (a warning).
pub const ODD_VALUE: Code = Code(163);
/// An environment variable cannot be used.
pub const BAD_ENVIRONMENT: Code = Code(164);
