//! (being written)
pub mod catalog;
