//! The roster in force: what operators changed, and the leader's work to bring the configuration
//! of consensus into line with it.
//!
//! A change of the roster is a log entry like any transaction, and is never undone. What follows
//! from it, the configuration, is the leader's: it removes who is not listed any more, and moves
//! ranks, one safe step at a time, whenever a quorum of the next configuration is in reach. So a
//! change that is logged takes effect as soon as it safely can, whoever leads by then.

use quorate_consensus::{Identity, Input as CoreInput, Member as ConfigMember, NodeId};

use super::super::api::{ClusterEvent, Output};
use super::super::message::PeerMessage;
use super::super::node::Node;
use super::super::roster::{Roster, RosterChange};
use super::Member;
use super::transfer::KEEP_MS;
use crate::error::ClusterError;
use crate::event::NodeInfo;

impl Member {
    /// An applied entry changes the roster. The leader checked it against the roster behind all
    /// earlier entries, so it can be made here too; one that cannot changes nothing, everywhere.
    pub(super) fn change_roster(&mut self, node: &mut Node, change: &RosterChange) {
        let before = node.roster.clone();
        if node.roster.apply(change).is_ok() {
            self.roster_changed(node, &before);
        }
    }

    /// An image brings the roster along.
    pub(super) fn adopt_roster(&mut self, node: &mut Node, roster: Roster) {
        let before = std::mem::replace(&mut node.roster, roster);
        self.roster_changed(node, &before);
    }

    fn roster_changed(&mut self, node: &mut Node, before: &Roster) {
        self.list_nodes(node);
        for (changed, rank) in node.roster.changed_from(before) {
            node.event(ClusterEvent::RosterChanged { node: changed, rank });
        }
        let removed = |identity: &Identity| node.roster.is_removed(identity.node);
        self.joiners.retain(|joiner, _| !removed(joiner));
    }

    /// Says which nodes there are. Who was removed from the roster stays in reach until it is out
    /// of the configuration too: its vote may be needed for that, and it is to hear of it.
    fn list_nodes(&mut self, node: &mut Node) {
        let members = self.applied_config.identities();
        let mut nodes = node.listed();
        for (id, place) in (0..).map(NodeId).zip(&mut nodes) {
            if place.is_none() && members.iter().any(|member| member.node == id) {
                *place = Some(self.former_place(node, id));
            }
        }
        node.told_nodes.clone_from(&nodes);
        node.output(Output::Nodes(nodes));
    }

    /// Where a removed node was, as far as this node ever knew; an address that is empty is none.
    fn former_place(&self, node: &Node, id: NodeId) -> NodeInfo {
        let place = id.0 as usize;
        if let Some(Some(told)) = node.told_nodes.get(place) {
            return told.clone();
        }
        let known = node.settings.addresses.get(place).filter(|addr| !addr.is_empty());
        let addr = known.or(self.genesis.addresses.get(place)).cloned().unwrap_or_default();
        NodeInfo { node_id: id, addr, qrank: 0 }
    }

    /// Brings the configuration into line with the roster, if it is not and a step is possible.
    ///
    /// Ranks of members that count already are moved at once; who has none yet, or waits for the
    /// state, gets its rank by admission.
    pub(super) fn reconcile(&mut self, node: &mut Node) {
        if !self.is_leading() || !self.core.has_committed_in_term() || self.core.pending_config() {
            return;
        }
        // Entries of the log that are not applied yet may change it again.
        if self.applied_entry < self.core.commit() {
            return;
        }
        let current = self.core.config().current.clone();
        let is_here = |who: Identity| who == node.identity() || node.is_linked(who);
        // A learner came in place of a member that was not heard of, and is gone itself now that
        // the other one is back.
        let overtaken = |learner: &ConfigMember| {
            let former = |other: &ConfigMember| {
                let other = other.identity;
                other.node == learner.identity.node && other != learner.identity && is_here(other)
            };
            learner.rank == 0 && current.iter().any(former)
        };
        let given_up = self.lost_newcomers(node, &current);
        let wanted = |member: &ConfigMember| {
            let rank = node.roster.rank(member.identity.node)?;
            if overtaken(member) || given_up.contains(&member.identity) {
                return None;
            }
            let rank = if member.rank == 0 { 0 } else { rank };
            Some(ConfigMember { identity: member.identity, rank })
        };
        let members: Vec<ConfigMember> = current.iter().filter_map(wanted).collect();
        // All at once if that can be; else a change that has to wait for a node that is away must
        // not hold up the others.
        let one_by_one = current.iter().filter(|member| wanted(member).as_ref() != Some(*member));
        let step = |changed: &ConfigMember| {
            let others = current.iter().filter(|member| *member != changed).cloned();
            others.chain(wanted(changed)).collect()
        };
        let steps: Vec<Vec<ConfigMember>> =
            std::iter::once(members).chain(one_by_one.map(step)).collect();
        let before = self.core.last();
        for members in steps {
            if members != current && members.iter().any(|member| member.rank > 0) {
                self.propose_config(node, members);
            }
            if self.core.last() != before || !self.is_leading() {
                return;
            }
        }
    }

    /// Newcomers that went away before they got their rank. A last voter that wants to leave would
    /// wait for each; one that is back asks anew. None is given up as long as the image that it was
    /// sent could go on: who is out of the configuration begins at its beginning.
    fn lost_newcomers(&mut self, node: &Node, current: &[ConfigMember]) -> Vec<Identity> {
        let limit = node.settings.departed_after_ms.max(KEEP_MS);
        let newcomers = current.iter().filter(|member| {
            member.rank == 0 && node.roster.rank(member.identity.node).is_some_and(|rank| rank > 0)
        });
        newcomers
            .map(|member| member.identity)
            .filter(|who| *who != node.identity() && self.farewell.silent_for(node, *who) >= limit)
            .collect()
    }

    /// An operator wants another node to lead.
    pub(super) fn hand_over(&mut self, node: &mut Node, to: NodeId) {
        let voter = self.core.config().current.iter().find(|m| m.identity.node == to && m.rank > 0);
        if let Some(to) = voter.map(|member| member.identity) {
            self.drive(node, CoreInput::TransferLeadership { to });
        }
    }

    /// True if the sender was taken out of the cluster; it is told so.
    pub(super) fn turned_away(&mut self, node: &mut Node, from: Identity) -> bool {
        let removed = node.roster.is_removed(from.node) && !self.applied_config.contains(from);
        if removed {
            node.send(from, PeerMessage::Removed);
        }
        removed
    }

    /// Members that are out of the configuration and of the roster hear of it: no entry of the log
    /// reaches them any more.
    pub(super) fn tell_removed(&mut self, node: &mut Node, identities: &[Identity]) {
        let own = node.identity();
        for identity in identities.iter().filter(|who| **who != own) {
            if node.roster.is_removed(identity.node) {
                node.send(*identity, PeerMessage::Removed);
            }
        }
        if identities.iter().any(|identity| node.roster.is_removed(identity.node)) {
            self.list_nodes(node);
        }
        self.note_removed(node);
    }

    /// The node itself may be out.
    pub(super) fn note_removed(&mut self, node: &Node) {
        let own = node.identity();
        if node.roster.is_removed(own.node) && !self.applied_config.contains(own) {
            self.removed();
        }
    }

    /// The cluster goes on without this node.
    pub(super) fn removed(&mut self) {
        self.is_removed = true;
        self.end.get_or_insert(Err(ClusterError::Removed));
    }
}
