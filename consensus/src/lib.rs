//! The order of the log: a pure core of the weighted Raft family.

mod types;

pub use types::*;
