//! The engine: durable runs of declared workflows.
//!
//! It knows runs, machines, steps and targets; it knows nothing of tokens and imports none of its
//! neighbours. A crate that has never heard of Kerberos can use it: `tests/engine` does.
//!
//! | our word | meaning |
//! |---|---|
//! | workflow | a declared sequence of steps, one RON file |
//! | run | one execution of a workflow |
//! | session | one process working on a run; a resumed run has several |
//! | machine | the state machine of one subject inside a run |
//! | step | one state of the machine |
//! | target | what one step fans out over; `-` for a step that does not |
//! | attempt | one try of a step on a target |
//! | event | one fact appended to a run's history; every status is derived from events |

pub mod action;
pub mod code;
pub mod counters;
pub mod definition;
pub mod diagram;
pub mod driver;
pub mod duration;
pub mod event;
pub mod fold;
pub mod gate;
pub mod id;
pub mod input_file;
pub mod lease;
pub mod machine;
pub mod recorder;
pub mod resume;
pub mod retry;
pub mod run;
pub mod session;
pub mod status;
pub mod store;
