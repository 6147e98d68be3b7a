//! The cluster as its operators see it, from inside a program: members, leadership, recovery.
//!
//! The same as an [`AdminClient`](crate::AdminClient) does from outside; see there for the words.

use std::sync::Arc;

use quorate_consensus::NodeId;
use quorate_engine::Index;

use crate::admin::{AdminAnswer, AdminError, AdminRequest, Recovery};
use crate::database::Node;
use crate::status::ClusterStatus;

/// What an operator can ask of this node's cluster. Cheap to clone; from
/// [`Database::cluster`](crate::Database::cluster).
///
/// Every call but [`Cluster::status`] needs a running listener and blocks until it is done, refused
/// or late. A change of the members is one entry of the log: it is made once, whoever leads, and
/// stays made; it takes effect by itself as soon as that is safe, one step after another, while
/// transactions go on.
///
/// ```no_run
/// # fn example(db: &quorate_cluster::Database) -> Result<(), Box<dyn std::error::Error>> {
/// let cluster = db.cluster().ok_or("this database is alone")?;
/// let (fourth, _) = cluster.add_node("10.0.0.4:7000", 1)?;
/// // Start a process there with `node_id = fourth` and the list with it at the end: it is taken
/// // in, gets the state, then its rank. Later:
/// cluster.set_rank(fourth, 2)?;
/// cluster.transfer_leadership(fourth)?;
/// cluster.remove_node(quorate_consensus::NodeId(0))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Cluster {
    node: Arc<Node>,
}

impl Cluster {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    /// How the cluster is, as this node sees it now.
    pub fn status(&self) -> Option<ClusterStatus> {
        self.node.status()
    }

    /// Lists a new node under the next id, which is returned with the index of the change. It
    /// counts for nothing until its process is there, holds the state and gets its rank.
    ///
    /// # Errors
    ///
    /// [`AdminError`]: nothing changed, unless it says otherwise.
    pub fn add_node(&self, addr: &str, rank: u32) -> Result<(NodeId, Index), AdminError> {
        self.change(AdminRequest::AddNode { addr: addr.to_string(), rank })
    }

    /// Takes a node out of the list and the configuration: returns when no quorum needs it any
    /// more. Its process, if there is one, ends with
    /// [`ClusterError::Removed`](crate::ClusterError::Removed). Its id is not given out again.
    ///
    /// # Errors
    ///
    /// As [`Cluster::add_node`]; [`AdminError::TimedOut`] when the others cannot take the step now:
    /// it is logged, and made as soon as they can.
    pub fn remove_node(&self, node: NodeId) -> Result<Index, AdminError> {
        self.change(AdminRequest::RemoveNode { node }).map(|(_, index)| index)
    }

    /// Gives a node another quorum rank: returns when it counts. A node that is away gets it when
    /// it is back.
    ///
    /// # Errors
    ///
    /// As [`Cluster::remove_node`].
    pub fn set_rank(&self, node: NodeId, rank: u32) -> Result<Index, AdminError> {
        self.change(AdminRequest::SetRank { node, rank }).map(|(_, index)| index)
    }

    /// Tells all nodes where a node is reached from now on. A link that is up stays up; restart the
    /// node's process at its new address.
    ///
    /// # Errors
    ///
    /// As [`Cluster::add_node`].
    pub fn set_address(&self, node: NodeId, addr: &str) -> Result<Index, AdminError> {
        let request = AdminRequest::SetAddress { node, addr: addr.to_string() };
        self.change(request).map(|(_, index)| index)
    }

    /// Lets another node lead: returns when it does. Commits wait for a round trip or two.
    ///
    /// # Errors
    ///
    /// [`AdminError::CannotLead`] and others: the leader is as before, or somebody else by an
    /// election.
    pub fn transfer_leadership(&self, to: NodeId) -> Result<(), AdminError> {
        match self.request(AdminRequest::TransferLeadership { to }) {
            AdminAnswer::Transferred => Ok(()),
            other => Err(refusal(other)),
        }
    }

    /// Forms the cluster again from this node, because the majority of rank is lost *for good*: in
    /// a new epoch, with what this node holds. Choose the survivor whose status shows the greatest
    /// index. What others acknowledged behind that is lost; [`Recovery`] says what is known. Nodes
    /// of the old epoch that come back give up their state and join.
    ///
    /// # Errors
    ///
    /// [`AdminError::StillQuorum`] if the cluster can go on as it is.
    pub fn recover(&self) -> Result<Recovery, AdminError> {
        match self.request(AdminRequest::Recover) {
            AdminAnswer::Recovered(recovery) => Ok(recovery),
            other => Err(refusal(other)),
        }
    }

    /// Asks what an operator asks, and waits for the answer, at most about `stop_limit_ms`.
    pub fn request(&self, request: AdminRequest) -> AdminAnswer {
        self.node.admin(request)
    }

    fn change(&self, request: AdminRequest) -> Result<(NodeId, Index), AdminError> {
        match self.request(request) {
            AdminAnswer::Changed { index, node } => Ok((node, index)),
            other => Err(refusal(other)),
        }
    }
}

fn refusal(answer: AdminAnswer) -> AdminError {
    match answer {
        AdminAnswer::Refused(error) => error,
        other => AdminError::Unsupported { what: format!("it answered with {other:?}") },
    }
}
