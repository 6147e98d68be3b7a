//! Why a node cannot commit or read fresh: the reason in refusals and events, and what cures it.

use std::fmt;

use quorate_consensus::NodeId;
use quorate_engine::Index;

/// Why this node has no part in a quorum now, or has. Its text says what would cure it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QuorumReason {
    /// This node and the members it is linked to hold too little of the configured rank.
    NotConnected {
        /// The members with a rank that it is not linked to.
        missing: Vec<NodeId>,
        /// The rank of this node and of those it is linked to.
        connected_rank: u64,
        /// The rank of all members. More than half of it is needed.
        total_rank: u64,
    },
    /// Enough rank is linked; an election, if one is under way, will be over soon.
    Connected {
        /// The rank of this node and of those it is linked to.
        connected_rank: u64,
        /// The rank of all members.
        total_rank: u64,
    },
    /// Enough rank is linked, but no leader is known: an election is under way.
    NoLeader {
        /// The term of this node.
        term: u64,
    },
    /// A leader is known, but it is not linked to this node.
    LeaderAway {
        /// The leader.
        leader: NodeId,
    },
    /// A leader is linked, and what it was asked for did not come through in time.
    LeaderSilent {
        /// The leader.
        leader: NodeId,
    },
    /// The quorum callback of this node forbids it.
    Vetoed,
    /// The cluster has not formed yet, or this node does not hold its state yet.
    NoState,
    /// The same log made another state of this node than of others, and no quorum has the same: who
    /// is right is not known.
    Disputed {
        /// Where the nodes compared.
        index: Index,
        /// The members with a rank whose state is another than this node's.
        others: Vec<NodeId>,
    },
    /// As many commits as allowed are under way, and none got through in time.
    Full {
        /// How many.
        in_flight: u32,
    },
}

impl fmt::Display for QuorumReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConnected { missing, connected_rank, total_rank } => {
                let needed = total_rank / 2 + 1;
                write!(
                    f,
                    "this node reaches rank {connected_rank} of {total_rank} and needs {needed}; \
                     not connected: {}; start them or mend the network",
                    Nodes(missing)
                )
            }
            Self::Connected { connected_rank, total_rank } => {
                write!(f, "this node reaches rank {connected_rank} of {total_rank}")
            }
            Self::NoLeader { term } => {
                write!(f, "no leader is known in term {term}, an election is under way; try again")
            }
            Self::LeaderAway { leader } => {
                write!(f, "node {leader} leads and is not connected to this node; try again")
            }
            Self::LeaderSilent { leader } => {
                write!(f, "node {leader} leads and did not get through with it in time; try again")
            }
            Self::Vetoed => f.write_str(
                "the quorum callback of this node forbids it; commit on another node, or once the \
                 callback allows it",
            ),
            Self::NoState => {
                f.write_str("this node does not hold the cluster's state yet; wait until it joined")
            }
            Self::Disputed { index, others } => write!(
                f,
                "the state of this node behind index {index} is not that of {}, and no quorum has \
                 the same, so that nothing may be built on it; reconnect nodes that are cut off, \
                 or find out which node is right, stop the others, recover the cluster from it \
                 and start the others without state",
                Nodes(others)
            ),
            Self::Full { in_flight } => write!(
                f,
                "{in_flight} commits are under way, as many as conn_pool_factor allows, and none \
                 got through in time; try again"
            ),
        }
    }
}

/// A list of nodes for people.
pub(crate) struct Nodes<'a>(pub(crate) &'a [NodeId]);

impl fmt::Display for Nodes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<String> = self.0.iter().map(|node| format!("node {node}")).collect();
        f.write_str(&ids.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_to_refuse_says_what_would_cure_it() {
        let node = NodeId(2);
        let not_connected =
            QuorumReason::NotConnected { missing: vec![node], connected_rank: 1, total_rank: 3 };
        for (reason, cure) in [
            (not_connected, "start them or mend the network"),
            (QuorumReason::NoLeader { term: 4 }, "try again"),
            (QuorumReason::LeaderAway { leader: node }, "try again"),
            (QuorumReason::LeaderSilent { leader: node }, "try again"),
            (QuorumReason::Vetoed, "commit on another node"),
            (QuorumReason::NoState, "wait until it joined"),
            (QuorumReason::Disputed { index: Index(9), others: vec![node] }, "reconnect nodes"),
            (QuorumReason::Full { in_flight: 8 }, "try again"),
        ] {
            let text = reason.to_string();
            let (what, cures) = text.split_once([';', ',']).unwrap();
            assert!(!what.is_empty() && cures.contains(cure), "{text}");
        }
    }
}
