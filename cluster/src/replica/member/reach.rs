//! Why this node cannot commit now, or ask a leader.

use quorate_consensus::{Identity, Member as Voter};

use super::super::node::Node;
use super::Member;
use crate::reason::QuorumReason;

impl Member {
    /// Why nothing can be committed from here.
    pub(in super::super) fn quorum_reason(&self, node: &Node) -> QuorumReason {
        if node.vetoed {
            return QuorumReason::Vetoed;
        }
        let reach = self.reach(node);
        match (&reach, self.digests.dispute()) {
            (QuorumReason::NotConnected { .. }, _) | (_, None) => reach,
            (_, Some((index, others))) => QuorumReason::Disputed { index, others },
        }
    }

    /// What stands between this node and a leader with a quorum.
    pub(super) fn reach(&self, node: &Node) -> QuorumReason {
        let config = self.core.config();
        let halves = std::iter::once(&config.current).chain(&config.next);
        for half in halves {
            let (connected_rank, total_rank) = ranks(node, half);
            if 2 * connected_rank <= total_rank {
                let absent = |voter: &&Voter| voter.rank > 0 && !reaches(node, voter.identity);
                let missing = half.iter().filter(absent).map(|voter| voter.identity.node).collect();
                return QuorumReason::NotConnected { missing, connected_rank, total_rank };
            }
        }
        match self.core.leader() {
            None => QuorumReason::NoLeader { term: self.core.term().0 },
            Some(leader) if !reaches(node, leader) => {
                QuorumReason::LeaderAway { leader: leader.node }
            }
            Some(leader) => QuorumReason::LeaderSilent { leader: leader.node },
        }
    }

    /// How much of the rank this node reaches, itself included.
    pub(super) fn connected(&self, node: &Node) -> QuorumReason {
        let (connected_rank, total_rank) = ranks(node, &self.core.config().current);
        QuorumReason::Connected { connected_rank, total_rank }
    }
}

fn reaches(node: &Node, identity: Identity) -> bool {
    identity == node.identity() || node.is_linked(identity)
}

/// The rank that is reached in one half of a configuration, and all of it.
fn ranks(node: &Node, half: &[Voter]) -> (u64, u64) {
    let sum = |wanted: &dyn Fn(&Voter) -> bool| {
        half.iter().filter(|voter| wanted(voter)).map(|voter| u64::from(voter.rank)).sum()
    };
    (sum(&|voter| reaches(node, voter.identity)), sum(&|_| true))
}
