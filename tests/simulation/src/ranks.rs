//! How much rank the cluster can be sure of.
//!
//! A cluster without disks that loses more than it can do without is lost, and says so: that is no
//! finding. With operators about, what it can do without is not what the configuration says alone:
//! a rank that was asked for, or stands in the roster, may be in force a moment later. A rank that
//! is lowered while another voter is down, and nobody has noticed yet, leaves a cluster that only a
//! recovery mends. So faults and operators keep to what holds whichever of all that comes.

use std::collections::BTreeMap;

use quorate_cluster::AdminRequest;
use quorate_cluster::replica::Phase;
use quorate_consensus::{Identity, NodeId};

use crate::node::Process;
use crate::world::World;

/// The ranks that a node has, or may have soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    least: u32,
    most: u32,
}

impl Range {
    fn include(&mut self, rank: u32) {
        self.least = self.least.min(rank);
        self.most = self.most.max(rank);
    }
}

impl World {
    /// Whether those that live are a quorum, also when this one is lost and this is changed, and
    /// whatever becomes of the changes that may be under way.
    pub(crate) fn has_sure_quorum(
        &self,
        victim: Option<usize>,
        change: Option<&AdminRequest>,
    ) -> bool {
        let members = |process: &&Process| process.replica.core().is_some();
        let living = self.nodes.iter().flatten().filter(members);
        let newest = living.max_by_key(|process| process.replica.core().map(|core| core.commit()));
        let Some((core, roster)) =
            newest.and_then(|process| Some((process.replica.core()?, process.replica.roster()?)))
        else {
            return false;
        };
        let config = core.config();
        let mut ranges: BTreeMap<NodeId, Range> = BTreeMap::new();
        let mut voters: Vec<Identity> = Vec::new();
        let mut may_have = |node: NodeId, rank: u32| {
            let range = ranges.entry(node).or_insert(Range { least: rank, most: rank });
            range.include(rank);
        };
        for half in [Some(&config.current), config.next.as_ref()].into_iter().flatten() {
            for member in half.iter().filter(|member| member.rank > 0) {
                may_have(member.identity.node, member.rank);
                voters.push(member.identity);
            }
        }
        roster.iter().for_each(|(node, listed)| may_have(node, listed.rank));
        let asked = self.operators.ranks_asked(self.now);
        asked.into_iter().chain(change.and_then(rank_of)).for_each(|(node, rank)| {
            may_have(node, rank);
        });
        for voter in voters.iter().filter(|voter| roster.is_removed(voter.node)) {
            may_have(voter.node, 0);
        }
        let (mut sure, mut lost) = (0, 0);
        for (node, range) in ranges {
            match self.only_process(node, victim).filter(|process| stays(process)) {
                Some(process) if voters.contains(&process.identity) => sure += range.least,
                // A new self, or one that has no rank yet, votes when it has it.
                Some(_) if voters.iter().all(|voter| voter.node != node) => {}
                _ => lost += range.most,
            }
        }
        sure > lost
    }

    /// Of two processes under one id only one can be reached, and both may be needed.
    fn only_process(&self, node: NodeId, victim: Option<usize>) -> Option<&Process> {
        let slots = [node.0 as usize, node.0 as usize + self.nodes.len() / 2];
        let left = slots.into_iter().filter(|slot| Some(*slot) != victim);
        let mut here = left.filter_map(|slot| self.nodes[slot].as_ref());
        match (here.next(), here.next()) {
            (only, None) => only,
            _ => None,
        }
    }
}

/// Who is leaving may be gone at any moment, and take along what it holds.
fn stays(process: &Process) -> bool {
    !process.ended && process.replica.phase() != Phase::Stopping
}

/// The rank that a request asks for.
pub(crate) fn rank_of(request: &AdminRequest) -> Option<(NodeId, u32)> {
    match request {
        AdminRequest::SetRank { node, rank } => Some((*node, *rank)),
        AdminRequest::RemoveNode { node } => Some((*node, 0)),
        _ => None,
    }
}
