<<<<<<< HEAD
//! What several test binaries share.
pub mod toy;
=======
//! What several test files share. Every test file is a crate of its own and uses only a part of it.
#![allow(dead_code)]

pub mod lab;
>>>>>>> lab
