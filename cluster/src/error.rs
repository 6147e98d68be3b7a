//! Errors of the cluster's public face, one enum per operation.
//!
//! Each says what happened, what state the data is in and what to do next. Errors of transactions
//! (`Conflict`, `NoQuorum`, `InDoubt`, ...) are the engine's.

use std::io;

use quorate_consensus::NodeId;
use quorate_engine::{CommitError, ImageError, Index, TransactionId};
use thiserror::Error;

use crate::epoch::Epoch;

/// [`ClusterParams`](crate::ClusterParams) that cannot work. Nothing was opened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParamsError {
    /// `nodes` is empty.
    #[error("ClusterParams.nodes is empty; list every node of the cluster, this one included")]
    NoNodes,
    /// `nodes` is too long.
    #[error("ClusterParams.nodes has {nodes} nodes but at most {limit} are supported")]
    TooManyNodes {
        /// How many are listed.
        nodes: usize,
        /// How many may be.
        limit: usize,
    },
    /// `node_id` is not a position in `nodes`.
    #[error(
        "ClusterParams.node_id is {node_id}, outside the list of {nodes} nodes; \
         it is this node's position in ClusterParams.nodes, from 0"
    )]
    NodeIdOutsideList {
        /// The id given.
        node_id: u32,
        /// How many nodes are listed.
        nodes: usize,
    },
    /// An address cannot be understood.
    #[error(
        "ClusterParams.nodes[{node}].addr is {addr:?}: {why}; \
         give host:port, [ipv6]:port or unix:/path"
    )]
    MalformedAddress {
        /// Whose.
        node: NodeId,
        /// The address given.
        addr: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Two nodes have the same address.
    #[error("ClusterParams.nodes[{second}].addr is {addr:?}, which node {first} has already")]
    DuplicateAddress {
        /// The address.
        addr: String,
        /// Who has it.
        first: NodeId,
        /// Who has it again.
        second: NodeId,
    },
    /// Plain TCP would leave this machine.
    #[error(
        "ClusterParams.nodes[{node}].addr is {addr:?}, beyond loopback, where plain TCP is open to \
         anyone; set ClusterParams.insecure if the network is trusted"
    )]
    InsecureAddress {
        /// Whose.
        node: NodeId,
        /// The address given.
        addr: String,
    },
    /// All ranks are zero.
    #[error("ClusterParams.nodes: every qrank is 0, so no quorum can exist; give one node a rank")]
    NoRank,
    /// The ranks add up to too much.
    #[error("ClusterParams.nodes: the ranks add up to {total}, more than {limit}; lower them")]
    RankOverflow {
        /// Their sum.
        total: u64,
        /// The limit.
        limit: u64,
    },
    /// A number is outside its range.
    #[error("ClusterParams.{field} is {value}, outside {min} to {max}")]
    OutOfRange {
        /// The field, with its unit.
        field: &'static str,
        /// The value given.
        value: u64,
        /// The smallest value allowed.
        min: u64,
        /// The greatest value allowed.
        max: u64,
    },
    /// Two numbers do not fit together.
    #[error("ClusterParams.{field} is {value} but must be at least {min}: {why}")]
    Inconsistent {
        /// The field, with its unit.
        field: &'static str,
        /// The value given.
        value: u64,
        /// What it must be at least.
        min: u64,
        /// Why.
        why: &'static str,
    },
}

/// Why the outcome of a transaction is not known. Asking again is always allowed and harmless.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OutcomeError {
    /// Nothing can be logged now, so nothing can be made final.
    #[error("no quorum: {reason}; the outcome stays open, ask again")]
    NoQuorum {
        /// Why, for people.
        reason: String,
    },
    /// The question did not get through in time. It may yet, and then the transaction, if it has
    /// not committed by then, never will.
    #[error("the outcome is not known in time; the transaction may still commit, ask again")]
    TimedOut,
    /// The cluster remembers as many outcomes of that origin as it may.
    #[error(
        "{reason}; the outcome stays open: ask again when that node has committed other \
         transactions"
    )]
    Refused {
        /// Why, for people.
        reason: String,
    },
    /// No transaction has such an id.
    #[error("no transaction has the id {0}")]
    NoSuchId(TransactionId),
    /// Nobody runs the listener, which alone could ask others.
    #[error("no listener is running; call listen() in a thread, or spawn_listener(), first")]
    NotListening,
    /// The node is stopped.
    #[error("the node is stopped; ask another node, or this one when it takes part again")]
    Stopped,
}

impl From<CommitError> for OutcomeError {
    /// How the commit of the fence ended, for who asked.
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::NoQuorum { reason } => Self::NoQuorum { reason },
            CommitError::Stopped => Self::Stopped,
            CommitError::NotListening => Self::NotListening,
            CommitError::InDoubt(_) => Self::TimedOut,
            CommitError::Rejected { reason } => Self::Refused { reason },
            other => Self::Refused { reason: other.to_string() },
        }
    }
}

/// Why a peer was refused, or refused us, in the handshake.
///
/// Its values are the other side's, whichever of the two refused: each knows its own.
///
/// A refusal closes that connection and changes nothing else. Some pass by themselves (a node that
/// restarts is refused until its former self is gone), others never do: [`RejectReason::is_final`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum RejectReason {
    /// No common version of the protocol.
    #[error("it speaks protocol versions {min} to {max}; update the older program")]
    VersionUnsupported {
        /// The oldest version the other side speaks.
        min: u16,
        /// The newest.
        max: u16,
    },
    /// It belongs to another cluster.
    #[error("it belongs to cluster {cluster_id:032x}, not to ours; check the addresses")]
    OtherCluster {
        /// The other side's cluster.
        cluster_id: u128,
    },
    /// It belongs to another epoch of the cluster.
    #[error("it is in epoch {epoch} of the cluster; restart the older one without state")]
    OtherEpoch {
        /// The other side's epoch.
        epoch: Epoch,
    },
    /// It is in another epoch of the same count: the cluster was formed again twice.
    #[error(
        "it is in epoch {epoch} of the cluster, which is another than ours though counted the \
         same: the cluster was formed again from two survivors, and the two never meet; choose \
         one, and start the nodes of the other anew without state"
    )]
    ForkedEpoch {
        /// The other side's epoch.
        epoch: Epoch,
    },
    /// It was opened with another dictionary.
    #[error(
        "its dictionary differs (digest {digest:032x}); open all nodes with the same dictionary"
    )]
    OtherDictionary {
        /// Digest of the other side's dictionary.
        digest: u128,
    },
    /// Another process with the same node id is connected and alive.
    #[error("another process takes part under this node id; stop one of the two")]
    DuplicateNode,
    /// The node id is not a position in the node list.
    #[error("its list has {nodes} nodes, which leaves out this node id; check the node lists")]
    UnknownNode {
        /// Length of the other side's list.
        nodes: u32,
    },
    /// The node was removed from the cluster.
    #[error("the node was removed from the cluster; add it again, and open it under its new id")]
    Removed,
    /// The node lists differ in length.
    #[error("its list has {nodes} nodes; give all nodes the same list")]
    NodesDiffer {
        /// Length of the other side's list.
        nodes: u32,
    },
    /// The address leads to another node than the list says.
    #[error("the address dialled leads to node {node}; check the addresses in the node lists")]
    WrongNode {
        /// The node that was reached, which is the refusing side.
        node: NodeId,
    },
    /// The address leads back to the caller.
    #[error("the address leads back to this node itself; check the node list")]
    SelfConnection,
    /// The lower of two ids waits and the higher dials; this one dialled the wrong way.
    #[error("a node dials only lower ids; check that every node has its own id")]
    WrongDirection,
    /// The refusing side is shutting down.
    #[error("it is shutting down")]
    ShuttingDown,
    /// As many admin connections as there may be are open, and all of them wait for an answer.
    #[error("{limit} admin connections wait for answers already; try again in a moment")]
    TooManyConnections {
        /// How many there may be.
        limit: u32,
    },
}

impl RejectReason {
    /// True if trying again cannot help until someone changes a configuration.
    pub fn is_final(&self) -> bool {
        match self {
            RejectReason::VersionUnsupported { .. }
            | RejectReason::OtherCluster { .. }
            | RejectReason::OtherEpoch { .. }
            | RejectReason::ForkedEpoch { .. }
            | RejectReason::Removed
            | RejectReason::OtherDictionary { .. }
            | RejectReason::UnknownNode { .. }
            | RejectReason::NodesDiffer { .. }
            | RejectReason::WrongNode { .. }
            | RejectReason::SelfConnection
            | RejectReason::WrongDirection => true,
            RejectReason::DuplicateNode
            | RejectReason::ShuttingDown
            | RejectReason::TooManyConnections { .. } => false,
        }
    }
}

/// Why the cluster part of a node ended, or a call to it failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The database was opened without `ClusterParams`.
    #[error("the database is not part of a cluster; open it with ClusterParams")]
    Alone,
    /// Another thread runs the listener.
    #[error("the listener runs already; one thread is enough")]
    AlreadyListening,
    /// Nobody runs the listener, so nothing would answer.
    #[error("no listener is running; call listen() in a thread, or spawn_listener(), first")]
    NotListening,
    /// The listener has ended, by stop, detach, an error, or because the database was dropped.
    #[error("the node has left the cluster; its data is still readable, reopen to take part again")]
    Ended,
    /// The node lists of two nodes differ.
    #[error(
        "the node lists differ: node {peer} disagrees about node {node} (its rank, or whether it \
         exists); give every node the same list; nothing was formed"
    )]
    NodesDiffer {
        /// Who disagrees.
        peer: NodeId,
        /// About whom.
        node: NodeId,
    },
    /// The orderly end could not be agreed on in time.
    #[error(
        "no quorum within the time limit: the other nodes may go on without this one; its data \
         can still be read, and the database can be closed"
    )]
    NoQuorum,
    /// The node holds all the rank there is: without it nobody could commit.
    #[error(
        "this node holds all the rank of the cluster, which could not go on without it; nothing \
         was changed, stop the cluster instead"
    )]
    LastVoter,
    /// An operator took the node out of the cluster.
    #[error(
        "this node was removed from the cluster; its data can still be read; to take part again it \
         has to be added under a new id"
    )]
    Removed,
    /// An image does not fit this node.
    #[error("the cluster's state cannot be taken over: {0}")]
    Image(#[source] ImageError),
    /// The log holds a window that this node cannot apply.
    #[error(
        "the log holds a window that cannot be applied ({what}); the node stopped before its \
         state could differ; restart it to take the state from the others"
    )]
    CorruptWindow {
        /// What is wrong with it.
        what: &'static str,
    },
    /// This node's state is not what the same log made of it on a quorum of others.
    #[error(
        "the state of this node behind index {index} differs from that of a quorum of the nodes, \
         by a fault of its memory or of its program; it left the cluster, and what it holds can be \
         read but may be wrong; restart it without state, then it takes the others'"
    )]
    Diverged {
        /// Where the nodes compared. What made the difference came earlier, but seldom much.
        index: Index,
    },
    /// A peer refused this node in the handshake, for good.
    #[error("node {node} refuses this node: {reason}")]
    Rejected {
        /// Who refuses.
        node: NodeId,
        /// Why.
        reason: RejectReason,
    },
    /// The listener's thread panicked: a defect of this program, or of the memory it runs in.
    #[error("the listener panicked; this node left the cluster, restart its process")]
    Panicked,
    /// The operating system failed.
    #[error("{doing}: {kind}; this node left the cluster, its data is still readable")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// How it failed.
        kind: io::ErrorKind,
    },
}
