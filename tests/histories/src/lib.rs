//! What clients asked and saw, written down as a [`History`], and checkers that judge it.
//!
//! The checkers know nothing of the engine: no snapshot, index or log, only what clients can see
//! from outside. [`check_linearizable_registers`] judges single registers, [`check_isolation`]
//! transactions, by the cycles of their dependencies (Adya, Weak Consistency, 1999; Cerone and
//! Gotsman, Analysing Snapshot Isolation, 2016; how a history of lists gives away its versions:
//! Kingsbury and Alvaro, Elle, 2020). [`outside`] asks checkers that others wrote the same, so that
//! neither has to be trusted alone.
//!
//! Who records: every client writes one [`Operation`] for each transaction, with the moments it
//! began and ended on one clock for all clients. Every written value is unique for its key.

mod history;
mod isolation;
pub mod outside;
mod registers;

pub use history::{History, HistoryError, Isolation, Key, Operation, Outcome, Step, Value};
pub use isolation::{Anomaly, Checked, Kind, NotIsolated, check_isolation};
pub use registers::{NotLinearizable, check_linearizable_registers};
