//! What a node can say of itself and its cluster.

use quorate_consensus::{NodeId, Role, Term};

use super::api::{MemberStatus, Status};
use super::member::Member;
use super::message::Standing;
use super::roster::Roster;
use super::{Replica, Stage};
use crate::reason::QuorumReason;

impl Replica {
    /// What the node knows of its cluster at this moment.
    pub fn status(&self) -> Status {
        let member = match &self.stage {
            Stage::Member(member) => Some(member.as_ref()),
            _ => None,
        };
        let waiting_for = self.waiting_for(member);
        Status {
            phase: self.phase(),
            role: member.map_or(Role::Follower, |member| member.core().role()),
            term: member.map_or(Term(0), |member| member.core().term()),
            leader: member.and_then(|member| member.core().leader()).map(|leader| leader.node),
            quorum: member.is_some_and(|member| member.may_commit(&self.node)),
            members: self.member_statuses(member),
            ready: member.is_some() && waiting_for.is_empty(),
            waiting_for,
        }
    }

    /// The member's consensus core, for checkers; none while the node holds no state.
    pub fn core(&self) -> Option<&quorate_consensus::Core> {
        match &self.stage {
            Stage::Member(member) => Some(member.core()),
            _ => None,
        }
    }

    /// The roster as of the newest transaction applied here; none while the node holds no state.
    pub fn roster(&self) -> Option<&Roster> {
        matches!(self.stage, Stage::Member(_)).then_some(&self.node.roster)
    }

    fn member_statuses(&self, member: Option<&Member>) -> Vec<MemberStatus> {
        self.node.roster.iter().map(|(node, _)| self.member_status(member, node)).collect()
    }

    fn member_status(&self, member: Option<&Member>, node: NodeId) -> MemberStatus {
        let config = member.map(|member| &member.config().current);
        let entry = config.and_then(|members| {
            members.iter().filter(|m| m.identity.node == node).max_by_key(|m| m.rank)
        });
        let listed = self.node.roster.get(node);
        MemberStatus {
            node,
            addr: listed.filter(|listed| listed.revised).map(|listed| listed.addr.clone()),
            wanted_rank: listed.map_or(0, |listed| listed.rank),
            rank: entry.map_or(0, |entry| entry.rank),
            joined: entry.is_some(),
            connected: node == self.node_id() || self.node.links.contains_key(&node),
        }
    }

    fn waiting_for(&self, member: Option<&Member>) -> Vec<(NodeId, String)> {
        let own = self.node_id();
        let mut reasons = Vec::new();
        match &self.stage {
            Stage::Blank(_) => {
                let nodes = (0..self.node.settings.ranks.len() as u32).map(NodeId);
                for node in nodes.filter(|node| *node != own) {
                    let reason = match self.node.links.get(&node).map(|link| &link.standing) {
                        None => "not connected",
                        Some(Some(Standing::Joining { .. })) => "it joins another cluster",
                        Some(_) if node.0 == 0 => "connected; it forms the cluster",
                        Some(_) => continue,
                    };
                    reasons.push((node, reason.to_string()));
                }
                if reasons.is_empty() {
                    reasons.push((own, "the promises of the other nodes".to_string()));
                }
            }
            Stage::Joining(joining) if joining.unlisted => {
                let reason = "the cluster does not list this node: add it there first";
                reasons.push((own, reason.to_string()));
            }
            Stage::Joining(_) => {
                reasons.push((own, "the cluster's leader to send its state".to_string()));
            }
            Stage::Member(_) | Stage::Ended => {}
        }
        let Some(member) = member else { return reasons };
        if !member.may_commit(&self.node) {
            let nodes = self.node.roster.iter().filter(|(_, listed)| listed.rank > 0);
            let absent = |node: &NodeId| *node != own && !self.node.links.contains_key(node);
            for node in nodes.map(|(node, _)| node).filter(absent) {
                reasons.push((node, "not connected, and its rank may be needed".to_string()));
            }
            if let reason @ QuorumReason::Disputed { .. } = member.quorum_reason(&self.node) {
                reasons.push((own, format!("an end of the dispute: {reason}")));
            }
            if self.node.vetoed {
                reasons.push((own, "its quorum callback, which forbids commits".to_string()));
            }
        }
        if !member.is_current() {
            reasons.push((own, "a leader, and its newest entries".to_string()));
        }
        if member.wants_rank(&self.node) {
            reasons.push((own, "its rank, which the leader gives back last".to_string()));
        }
        reasons
    }
}
