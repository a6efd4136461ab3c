//! Table of contents, to be filled.
