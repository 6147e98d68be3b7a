//! Why a cluster's part of the work failed.

use quorate_consensus::NodeId;
use quorate_engine::ImageError;
use thiserror::Error;

/// Why the listener ended, or an orderly end failed.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ClusterError {
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
    #[error("this node holds all the rank of the cluster; stop the cluster instead")]
    LastVoter,
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
}
