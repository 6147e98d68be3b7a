//! Quorate: an embedded, replicated, in-memory database engine.
//!
//! This crate is the front door: it re-exports what programs use and holds no logic. The parts are
//! [`schema`] (what data looks like), `quorate-engine` (one node's transactions) and
//! `quorate-cluster` (many nodes).

pub use quorate_schema as schema;
pub use quorate_schema::{
    Class, Dictionary, Enum, Ref, Reference, SchemaErrors, Struct, Value, ValueError,
};

pub use quorate_engine::{
    Access, BeginError, CloseError, CommitError, Committed, ConnectError, Cursor, Damage,
    DatabaseParams, Error, Handle, Index, Isolation, Outcome, Record, Rows, Statistics,
    Transaction, TransactionId,
};

pub use quorate_cluster::{
    ClusterError, ClusterEvent, ClusterMember, ClusterNodeParams, ClusterParams, ClusterStatus,
    Connection, Database, ListenerHandle, NodeInfo, OpenError, Options, ParamsError, RejectReason,
    WaitingFor,
};
