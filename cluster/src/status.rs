//! What a node tells about its cluster when asked.

use quorate_consensus::{NodeId, Role};
use quorate_engine::Index;

use crate::epoch::Epoch;
use crate::error::RejectReason;
use crate::event::NodeInfo;
use crate::replica::{Counters, Phase};

/// How the cluster is, as this node sees it at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterStatus {
    /// Version of the program it runs.
    pub version: String,
    /// Its cluster; 0 while it has none.
    pub cluster_id: u128,
    /// The cluster's epoch.
    pub epoch: Epoch,
    /// This node.
    pub node_id: NodeId,
    /// Where it stands: forming, joining, member, stopping, ended.
    pub phase: Phase,
    /// Its role in consensus.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// The leader it follows, if it knows one.
    pub leader: Option<NodeId>,
    /// Whether it and those it is connected to are a quorum by rank, without a veto.
    pub quorum: bool,
    /// Whether it holds the newest state, has its rank, and can commit.
    pub ready: bool,
    /// What keeps `ready` from being true: the node it is about, and why.
    pub waiting_for: Vec<(NodeId, String)>,
    /// The newest transaction that can be read here.
    pub index: Index,
    /// Every node of the list, in order.
    pub members: Vec<ClusterMember>,
    /// Place of the first and the last entry that the log in memory holds; 0 and 0 without state.
    pub log_entries: (u64, u64),
    /// Counts since the database was opened.
    pub counters: Counters,
    /// How many calls of the user's callbacks panicked.
    pub callback_panics: u64,
}

/// One node of a [`ClusterStatus`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterMember {
    /// The node as configured.
    pub info: NodeInfo,
    /// Its rank in the configuration in force; 0 if it is not in it.
    pub rank: u32,
    /// Whether the configuration holds it.
    pub joined: bool,
    /// Whether both connections to it are up (always, for the node itself).
    pub connected: bool,
    /// Why the last attempt to connect it was refused, by either side.
    pub refusal: Option<RejectReason>,
}
