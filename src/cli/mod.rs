//! (being written)
pub mod explain;
pub mod workflow;
