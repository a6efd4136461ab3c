//! What several test files share. Every test file is a crate of its own and uses only a part of it.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod corner;
pub mod lab;
pub mod large;
pub mod remains;
pub mod session;
pub mod spans;
pub mod terminal;
pub mod unread;
