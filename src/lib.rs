//! Quorate: an embedded, replicated, in-memory database engine.
//!
//! This crate is the front door: it re-exports what programs use and holds no logic. The parts are
//! [`schema`] (what data looks like), `quorate-engine` (one node's transactions) and
//! `quorate-cluster` (many nodes).
//!
//! # Where to begin
//!
//! * What data looks like: [`Dictionary::parse`] for schema text, [`Class`] with
//!   [`Dictionary::builder`] for Rust structs.
//! * Opening, alone or in a cluster: [`Database::open`], [`Options`], [`DatabaseParams`],
//!   [`ClusterParams`].
//! * Running a node: [`Database::spawn_listener`] or [`Connection::listen`]; [`Connection::stop`],
//!   [`Connection::detach`]; [`Database::cluster`] and [`ClusterEvent`] tell how it is.
//! * Changing data: `transact` of a [`Database`] or a [`Connection`], which tries again after
//!   conflicts; else `begin`, the methods of [`Transaction`], [`Transaction::commit`].
//! * Reading: [`Transaction::find`], [`Transaction::get`], [`Transaction::cursor`]; by name
//!   [`Transaction::find_record`], [`Transaction::record`].
//! * Asking a node from outside, as the `quorate` command does: [`AdminClient`].
//! * What went wrong: [`Error`], [`CommitError`], [`OpenError`], [`ClusterError`].
//!
//! # Example
//!
//! ```
//! use quorate::{Access, Class, Database, Dictionary, Isolation, Options};
//!
//! #[derive(Class)]
//! #[class(index(unique, hash(name), name = "by_name"))]
//! struct Counter {
//!     name: String,
//!     value: u64,
//! }
//!
//! let dictionary = Dictionary::builder("counters").class::<Counter>().build()?;
//! let database = Database::open("counters", dictionary, Options::default())?;
//! let mut connection = database.connect()?;
//!
//! connection.transact(Isolation::Snapshot, |transaction| {
//!     transaction.insert(&Counter { name: "visits".into(), value: 0 })
//! })?;
//! for _ in 0..3 {
//!     connection.transact(Isolation::Snapshot, |transaction| {
//!         if let Some((handle, mut counter)) =
//!             transaction.find::<Counter>("by_name", &["visits".into()])?
//!         {
//!             counter.value += 1;
//!             transaction.update(handle, &counter)?;
//!         }
//!         Ok(())
//!     })?;
//! }
//!
//! let transaction = connection.begin(Access::ReadOnly, Isolation::Snapshot)?;
//! let found = transaction.find::<Counter>("by_name", &["visits".into()])?;
//! assert_eq!(found.map(|(_, counter)| counter.value), Some(3));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How a commit can end
//!
//! * `Ok`: held by a quorum by rank, applied on this node, visible to the next transaction here.
//! * [`CommitError::Conflict`], [`CommitError::SnapshotTooOld`]: nothing was written; run it again,
//!   as `transact` does.
//! * [`CommitError::NoQuorum`]: it entered no log and never will commit.
//! * [`CommitError::InDoubt`]: a leader had it, and how it ended was not known within the commit
//!   limit. It may commit yet; `database.outcome(id)` makes sure and tells.
#![cfg_attr(doctest, doc = include_str!("../README.md"))]

pub use quorate_schema as schema;
pub use quorate_schema::{
    Class, Dictionary, Enum, Ref, Reference, SchemaErrors, Struct, Value, ValueError,
};

pub use quorate_engine::{
    Access, Acknowledge, BeginError, CloseError, CommitError, CommitHandle, CommitOptions,
    Committed, ConnectError, Cursor, Damage, DatabaseParams, Error, Handle, Index, Isolation,
    Outcome, Record, Rows, Statistics, Transaction, TransactionId,
};

pub use quorate_cluster::{
    AdminAnswer, AdminClient, AdminClientError, AdminError, AdminRequest, CALL_BYTES_MAX,
    CallContext, CallError, CallOptions, CallResult, Cluster, ClusterError, ClusterEvent,
    ClusterMember, ClusterNodeParams, ClusterParams, ClusterStatus, Connection, Counters, Database,
    Epoch, FreshError, Freshness, ListenerHandle, NodeId, NodeInfo, OpenError, Options,
    OutcomeError, ParamsError, Phase, QuorumReason, Recovery, RejectReason, Role, WaitingFor,
};
