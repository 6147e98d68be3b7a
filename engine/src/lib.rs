//! One node of Quorate: transactions on snapshots, certification, storage.
//!
//! A [`Database`] holds the records of a [`Dictionary`](quorate_schema::Dictionary) in memory. A
//! [`Transaction`] runs on a snapshot and keeps its writes to itself; its commit turns them into
//! one [`WriteSet`], which is certified against everything ordered before it and applied. Alone,
//! the database orders its write sets itself; with a [`CommitPath`] somebody else does, and
//! feeds the ordered write sets back through the [`Applier`].
//!
//! ```text
//!   Transaction --write set, reads--> CommitPath (or the built-in one)
//!        ^                                 | certify (pure), give an index
//!        | snapshot = one Arc<Root>        v
//!      Root <------ publish ------ Applier: apply in order, decide nothing
//! ```
//!
//! Invariant: the replicated state after index n is a function of the write sets 1..=n alone.
//! Nothing here knows a network or a file; a clock tells only how long a transaction is open.

mod alone;
mod applier;
mod certify;
mod clock;
mod commit_path;
mod connection;
mod database;
mod digest;
mod error;
mod ids;
mod image;
mod keys;
mod names;
mod outcome;
mod params;
mod pending;
mod statistics;
mod store;
mod transact;
mod transaction;
mod write_set;
mod writer;

pub use applier::Applier;
pub use certify::{Footprint, ReadSet, Refusal, Reservations, Tail};
pub use commit_path::{Acknowledge, Acknowledged, CommitOptions, CommitPath, CommitTicket};
pub use connection::Connection;
pub use database::Database;
pub use digest::dictionary_digest;
pub use error::{
    BeginError, CloseError, CommitError, ConnectError, Damage, Error, ImageError, OpenError,
};
pub use ids::{Access, Handle, Index, Isolation, TransactionId};
pub use image::{Image, ImageBuilder, ImageStream};
pub use outcome::{Outcome, Settled};
#[cfg(feature = "planted-bugs")]
pub use params::Bug;
pub use params::DatabaseParams;
pub use quorate_schema::bytes::Malformed;
pub use statistics::{ClassStatistics, Statistics};
pub use transaction::{
    Batch, CommitHandle, Committed, Cursor, Failed, Record, Rows, Scan, Transaction, panic_message,
};
pub use write_set::{MAX_WRITE_SET_BYTES, Submission, WriteSet};
