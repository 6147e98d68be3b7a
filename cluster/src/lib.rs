//! Many nodes: transport, node runtime, submission, ClusterParams.

mod address;
mod error;
mod event;
mod params;
pub mod replica;
pub mod wire;

pub use error::{ClusterError, ParamsError, RejectReason};
pub use event::{NodeInfo, NotifyCallback, QuorumCallback};
pub use params::{Checked, ClusterNodeParams, ClusterParams, NODES_MAX, RANK_TOTAL_MAX};
pub use replica::ClusterEvent;
