//! Many nodes: transport, node runtime, submission, ClusterParams.
//!
//! ```text
//!   Database, Connection   the public face
//!   runtime                one readiness loop: owns sockets, time and the replica
//!   replica                the node's part of the cluster, a pure state machine
//!   transport, wire        links to the other nodes, and the bytes on them
//! ```
//!
//! Consensus decides the order of the log, the engine what a transaction does; this crate brings
//! both to several machines and never looks inside a record.

mod address;
mod admin;
mod client;
mod cluster;
mod connection;
mod database;
mod epoch;
mod error;
mod event;
mod fresh;
mod params;
mod procedure;
mod reason;
pub mod replica;
mod runtime;
mod status;
mod transport;
mod wall_clock;
pub mod wire;

pub use admin::{AdminAnswer, AdminError, AdminRequest, Recovery};
pub use client::{AdminClient, AdminClientError};
pub use cluster::Cluster;
pub use connection::Connection;
pub use database::{Database, ListenerHandle, OpenError, Options, WaitingFor};
pub use epoch::Epoch;
pub use error::{ClusterError, OutcomeError, ParamsError, RejectReason};
pub use event::{NodeInfo, NotifyCallback, QuorumCallback};
pub use fresh::{FreshError, Freshness};
pub use params::{Checked, ClusterNodeParams, ClusterParams, NODES_MAX, RANK_TOTAL_MAX};
pub use procedure::{
    CALL_BYTES_MAX, CallAnswer, CallBatch, CallContext, CallError, CallOptions, CallRequest,
    CallResult, Clock, Procedure, Procedures, RUN_LIMIT, RanBatch,
};
pub use quorate_consensus::{NodeId, Role};
pub use reason::QuorumReason;
pub use replica::{ClusterEvent, Counters, Phase};
pub use status::{ClusterMember, ClusterStatus};
