//! What an operator can ask of a node of a running cluster, and what the node answers.
//!
//! The same words serve a call inside the process and an admin connection from outside. Only the
//! words are here: the bytes are the wire's, the deeds the replica's.

use quorate_consensus::NodeId;
use quorate_engine::Index;
use thiserror::Error;

use crate::epoch::Epoch;
use crate::status::ClusterStatus;

/// What an operator can ask of a node of a running cluster.
///
/// Any member takes a change; it goes to the leader and into the log. One change is under way at a
/// time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdminRequest {
    /// How is the cluster, as this node sees it?
    Status,
    /// Add a node to the list, under the next id that was never used. Its process is started
    /// afterwards, with the id of the answer, and is then taken in like any other.
    AddNode {
        /// Where it will listen: `host:port`, `[ipv6]:port` or `unix:/path`.
        addr: String,
        /// Its quorum rank, which it gets when it has caught up; 0 for none.
        rank: u32,
    },
    /// Take a node out of configuration and list. It is refused from then on.
    RemoveNode {
        /// Which.
        node: NodeId,
    },
    /// Give a node another quorum rank.
    SetRank {
        /// Which.
        node: NodeId,
        /// Its new rank; 0 leaves it without a vote.
        rank: u32,
    },
    /// Tell everybody that a node is reached at another address from now on. A link that is up
    /// stays up; the next one is made to the new address.
    SetAddress {
        /// Which.
        node: NodeId,
        /// Where it listens, or will.
        addr: String,
    },
    /// Let another node lead.
    TransferLeadership {
        /// Which.
        to: NodeId,
    },
    /// Form the cluster again from this node, because a majority of rank is lost for good: in a new
    /// epoch, with this node's state and the nodes it is connected to.
    Recover,
}

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdminAnswer {
    /// To [`AdminRequest::Status`].
    Status(Box<ClusterStatus>),
    /// The change is committed and in force.
    Changed {
        /// The newest transaction before the change, as the leader's log orders them.
        index: Index,
        /// The node it is about: the id of a node just added.
        node: NodeId,
    },
    /// The other node leads now.
    Transferred,
    /// The cluster was formed again.
    Recovered(Recovery),
    /// It was not done, or not known to be done in time.
    Refused(AdminError),
}

/// How a cluster was formed again from a survivor.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// The epoch that began.
    pub epoch: Epoch,
    /// The new epoch's first transaction comes right behind this index.
    pub index: Index,
    /// The newest transaction that the survivor held, and that is in the new epoch.
    pub survivor_index: Index,
    /// In words: which acknowledged transactions the new epoch may lack.
    pub may_be_lost: String,
}

impl Recovery {
    /// Describes a recovery.
    pub fn new(epoch: Epoch, index: Index, survivor_index: Index, may_be_lost: String) -> Self {
        Self { epoch, index, survivor_index, may_be_lost }
    }
}

/// Why a node did not do what an operator asked. Unless it says otherwise nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AdminError {
    /// Too little rank is connected to agree on anything.
    #[error("no quorum: {reason}; nothing was changed, ask again when there is one")]
    NoQuorum {
        /// What is missing.
        reason: String,
    },
    /// There is no leader at the moment, or another node is.
    #[error(
        "this node does not lead{}; nothing was changed, ask the leader, or again in a moment",
        match leader { Some(node) => format!(" (node {node} does)"), None => String::new() }
    )]
    NotLeader {
        /// Who leads, if that is known.
        leader: Option<NodeId>,
    },
    /// The node holds no state yet.
    #[error("this node is not a member yet; nothing was changed, ask one that is")]
    NotMember,
    /// The list has no such node.
    #[error("there is no node {node}; nothing was changed, see the member list")]
    UnknownNode {
        /// The id asked for.
        node: NodeId,
    },
    /// Without this node's rank there would be no rank left.
    #[error(
        "node {node} holds all the rank there is; nothing was changed, give another node a rank \
         first, or stop the cluster"
    )]
    LastVoter {
        /// The node.
        node: NodeId,
    },
    /// The list is full.
    #[error("the list holds {limit} nodes, the most there can be; nothing was changed")]
    TooManyNodes {
        /// How many there can be.
        limit: usize,
    },
    /// The address belongs to another node.
    #[error("node {node} has the address {addr:?} already; nothing was changed")]
    AddressTaken {
        /// The address.
        addr: String,
        /// Whose it is.
        node: NodeId,
    },
    /// Another change is under way.
    #[error("another change is under way; nothing was changed, ask again when it is done")]
    Busy,
    /// The node cannot lead.
    #[error("node {node} cannot lead: {reason}; the leader is the same as before")]
    CannotLead {
        /// The node.
        node: NodeId,
        /// Why not.
        reason: String,
    },
    /// The cluster can still agree, so there is nothing to recover from.
    #[error("the cluster has a quorum; nothing was changed, use the member commands")]
    StillQuorum,
    /// The request makes no sense.
    #[error("{what}; nothing was changed")]
    Invalid {
        /// What is wrong with it.
        what: String,
    },
    /// The node's program knows the request but cannot serve it.
    #[error("this node cannot do that: {what}; nothing was changed")]
    Unsupported {
        /// What it cannot do.
        what: String,
    },
    /// It was begun and is not done within the node's time limit.
    #[error("not done within {limit_ms} ms; it may still happen, look at the status")]
    TimedOut {
        /// How long the node waited, milliseconds.
        limit_ms: u64,
    },
    /// The node is stopping, or has stopped.
    #[error("the node has left the cluster or is leaving it; what was asked may still happen")]
    Stopped,
    /// Nobody runs the listener, so nothing would answer.
    #[error("no listener is running; call listen() in a thread, or spawn_listener(), first")]
    NotListening,
}
