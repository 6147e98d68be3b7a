//! How a node tells its user about the cluster: the callbacks, and whom they hear of.
//!
//! Only the types live here; who delivers, and on which thread, is the runtime's business.

use std::fmt;
use std::sync::Arc;

use quorate_consensus::NodeId;

use crate::replica::ClusterEvent;

/// A node as the node list names it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeInfo {
    /// Its position in the node list.
    pub node_id: NodeId,
    /// Its address, as configured.
    pub addr: String,
    /// Its configured rank.
    pub qrank: u32,
}

/// Called with each event and the node it is about (this node, if it is about none other), on the
/// delivery thread, one at a time and in order. It may block: events then wait, and beyond a bound
/// the oldest are dropped and reported by [`ClusterEvent::Lagged`]. A panic in it is caught, traced
/// and counted.
#[derive(Clone)]
pub struct NotifyCallback(pub(crate) Arc<Notify>);

/// Asked with the connected nodes, this one left out, whenever their set changes: may this node
/// take part in commits? `false` is a veto: the node gives up leadership, does not campaign and
/// refuses to commit; it still votes, stores and acknowledges. It can veto, never force. Until its
/// first answer there is no veto.
#[derive(Clone)]
pub struct QuorumCallback(pub(crate) Arc<AskQuorum>);

type Notify = dyn Fn(&ClusterEvent, &NodeInfo) + Send + Sync;
type AskQuorum = dyn Fn(&[NodeInfo]) -> bool + Send + Sync;

impl fmt::Debug for NotifyCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NotifyCallback")
    }
}

impl fmt::Debug for QuorumCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QuorumCallback")
    }
}
