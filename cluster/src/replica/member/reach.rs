//! Why this node cannot commit now, or ask a leader.

use quorate_consensus::{Identity, Member as Voter};

use super::super::node::Node;
use super::Member;
use crate::reason::QuorumReason;

impl Member {
    /// Why nothing can be committed from here.
    pub(in super::super) fn quorum_reason(&self, node: &Node) -> QuorumReason {
        if node.vetoed { QuorumReason::Vetoed } else { self.reach(node) }
    }

    /// What stands between this node and a leader with a quorum.
    pub(super) fn reach(&self, node: &Node) -> QuorumReason {
        let own = node.identity();
        let config = self.core.config();
        let reached = |identity: Identity| identity == own || node.is_linked(identity);
        let halves = std::iter::once(&config.current).chain(&config.next);
        for half in halves {
            let rank_of = |wanted: &dyn Fn(&Voter) -> bool| -> u64 {
                half.iter().filter(|voter| wanted(voter)).map(|voter| u64::from(voter.rank)).sum()
            };
            let total_rank = rank_of(&|_| true);
            let connected_rank = rank_of(&|voter| reached(voter.identity));
            if 2 * connected_rank <= total_rank {
                let absent = |voter: &&Voter| voter.rank > 0 && !reached(voter.identity);
                let missing = half.iter().filter(absent).map(|voter| voter.identity.node).collect();
                return QuorumReason::NotConnected { missing, connected_rank, total_rank };
            }
        }
        match self.core.leader() {
            None => QuorumReason::NoLeader { term: self.core.term().0 },
            Some(leader) if !reached(leader) => QuorumReason::LeaderAway { leader: leader.node },
            Some(leader) => QuorumReason::LeaderSilent { leader: leader.node },
        }
    }
}
