//! Commits that wait until every live node has applied them (`Acknowledge::AllLive`).
//!
//! The members of the applied configuration count, learners too. One is *live* while its link is
//! up, and after it broke for as long as a silent one would be believed: it may still serve
//! readers. So a member leaves the set by silence alone, and the acknowledgement says who had
//! applied it. One that joins enters it when it says that it holds the state, before it gets its
//! rank: the time a transfer takes costs nobody but the joiner.
//!
//! The origin asks each linked member to say how far it has applied until it has the newest index
//! that somebody waits for; one question a member, however many wait. A commit that waits here is
//! over as far as the log and all other commits are concerned.
//!
//! Invariants:
//!
//! * what is in `waiting` is applied and visible here, and its caller has not been answered;
//! * what `applied` says of a member was said by that very incarnation, after it had published.

use std::collections::{BTreeMap, BTreeSet};

use quorate_consensus::{Identity, Ticks};
use quorate_engine::{Acknowledged, CommitError, Index};

use super::super::message::{PeerMessage, Standing};
use super::super::node::Node;
use super::Member;

/// See the module. Bounded by the commits that may wait, and by the number of members.
#[derive(Debug, Default)]
pub(super) struct Everywhere {
    /// Own commits that wait, with their time limits.
    waiting: BTreeMap<(Index, u64), Ticks>,
    /// How far each member said it is.
    applied: BTreeMap<Identity, Index>,
    /// How far each linked member was asked to report.
    asked: BTreeMap<Identity, Index>,
    /// Since when a member is not linked.
    unlinked: BTreeMap<Identity, Ticks>,
    /// Peers that want to hear how far this node is, and until where.
    curious: BTreeMap<Identity, Index>,
}

impl Everywhere {
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn next_deadline(&self) -> Option<Ticks> {
        self.waiting.values().min().copied()
    }

    pub(super) fn link_up(&mut self, peer: Identity) {
        self.unlinked.remove(&peer);
    }

    pub(super) fn link_broke(&mut self, peer: Identity, now: Ticks) {
        self.asked.remove(&peer);
        self.curious.remove(&peer);
        self.unlinked.insert(peer, now);
    }

    /// What was asked may be lost: it is asked again.
    pub(super) fn forget_asked(&mut self) {
        self.asked.clear();
    }

    fn has_applied(&self, member: Identity, index: Index) -> bool {
        self.applied.get(&member).is_some_and(|applied| *applied >= index)
    }

    /// Who of these is linked, or was until a moment ago.
    fn live(&mut self, node: &Node, members: &[Identity]) -> Vec<Identity> {
        let silence = node.settings.silence_ms;
        let mut is_live = |member: &&Identity| {
            node.is_linked(**member) || {
                let since = *self.unlinked.entry(**member).or_insert(node.now);
                node.now < since.saturating_add(silence)
            }
        };
        members.iter().filter(|member| is_live(member)).copied().collect()
    }
}

impl Member {
    /// An own transaction is applied here, and its caller waits for the others.
    pub(super) fn await_everywhere(
        &mut self,
        node: &mut Node,
        (index, sequence): (Index, u64),
        deadline: Ticks,
    ) {
        node.through(sequence);
        self.everywhere.waiting.insert((index, sequence), deadline);
    }

    /// What follows for those who wait from any input.
    pub(super) fn settle_everywhere(&mut self, node: &mut Node) {
        let Some((&(newest, _), _)) = self.everywhere.waiting.last_key_value() else { return };
        let others = self.others(node);
        let live = self.live(node, &others);
        let counted = counted(node, &live);
        while let Some((&(index, sequence), _)) = self.everywhere.waiting.first_key_value() {
            if !counted.iter().all(|member| self.everywhere.has_applied(*member, index)) {
                break;
            }
            self.everywhere.waiting.pop_first();
            let applied_by = Some(self.applied_by(node, &others, index));
            node.complete_with(sequence, Ok(Acknowledged { index, applied_by }));
        }
        if !self.everywhere.is_waiting() {
            return;
        }
        for member in live {
            let asked = self.everywhere.asked.get(&member).is_some_and(|asked| *asked >= newest);
            if !asked && node.is_linked(member) && !self.everywhere.has_applied(member, newest) {
                self.everywhere.asked.insert(member, newest);
                node.send(member, PeerMessage::AskApplied { index: newest });
            }
        }
    }

    /// Ends the waits whose time is over.
    pub(super) fn expire_everywhere(&mut self, node: &mut Node) {
        let now = node.now;
        let is_over = |(_, deadline): &(&(Index, u64), &Ticks)| **deadline <= now;
        let over = self.everywhere.waiting.iter().filter(is_over);
        let over: Vec<(Index, u64)> = over.map(|(key, _)| *key).collect();
        self.give_up_everywhere(node, &over);
    }

    /// The node ends: who waits hears that it committed, and where that is not known.
    pub(in super::super) fn end_everywhere(&mut self, node: &mut Node) {
        let all: Vec<(Index, u64)> = self.everywhere.waiting.keys().copied().collect();
        self.give_up_everywhere(node, &all);
    }

    fn give_up_everywhere(&mut self, node: &mut Node, waits: &[(Index, u64)]) {
        if waits.is_empty() {
            return;
        }
        let others = self.others(node);
        let live = self.live(node, &others);
        for &(index, sequence) in waits {
            self.everywhere.waiting.remove(&(index, sequence));
            let lacks = |member: &&Identity| !self.everywhere.has_applied(**member, index);
            let missing = node_ids(live.iter().filter(lacks).copied());
            node.complete_with(sequence, Err(CommitError::NotEverywhere { index, missing }));
        }
    }

    /// A peer wants to hear how far this node is.
    pub(super) fn applied_asked(&mut self, node: &mut Node, from: Identity, index: Index) {
        let until = self.everywhere.curious.entry(from).or_default();
        *until = index.max(*until);
        self.tell_curious(node);
    }

    /// Something was published: whoever is curious hears it.
    pub(super) fn tell_curious(&mut self, node: &mut Node) {
        if self.everywhere.curious.is_empty() {
            return;
        }
        let index = node.applier.applied();
        for peer in self.everywhere.curious.keys() {
            node.send(*peer, PeerMessage::Applied { index });
        }
        self.everywhere.curious.retain(|_, until| *until > index);
    }

    pub(super) fn applied_told(&mut self, from: Identity, index: Index) {
        let applied = self.everywhere.applied.entry(from).or_default();
        *applied = index.max(*applied);
    }

    /// The members changed: who is none any more need not be known.
    pub(super) fn forget_former_members(&mut self) {
        let members: BTreeSet<Identity> = self.applied_config.identities().into_iter().collect();
        self.everywhere.applied.retain(|who, _| members.contains(who));
        self.everywhere.asked.retain(|who, _| members.contains(who));
        self.everywhere.unlinked.retain(|who, _| members.contains(who));
    }

    /// The members that may serve readers now, of these. One without state serves none.
    fn live(&mut self, node: &Node, others: &[Identity]) -> Vec<Identity> {
        let config = &self.applied_config;
        let has_state = |member: &&Identity| {
            let joins =
                matches!(node.standing(**member), Some(Standing::Blank | Standing::Joining { .. }));
            !joins || config.rank_of(**member) > 0
        };
        let with_state: Vec<Identity> = others.iter().filter(has_state).copied().collect();
        self.everywhere.live(node, &with_state)
    }

    fn others(&self, node: &Node) -> Vec<Identity> {
        let mut members = self.applied_config.identities();
        members.retain(|member| *member != node.identity());
        members
    }

    fn applied_by(&self, node: &Node, others: &[Identity], index: Index) -> Vec<u32> {
        let has = |member: &&Identity| self.everywhere.has_applied(**member, index);
        let own = std::iter::once(node.identity());
        node_ids(own.chain(others.iter().filter(has).copied()))
    }
}

fn node_ids(members: impl Iterator<Item = Identity>) -> Vec<u32> {
    let ids: BTreeSet<u32> = members.map(|member| member.node.0).collect();
    ids.into_iter().collect()
}

#[cfg(not(feature = "planted-bugs"))]
fn counted(_: &Node, live: &[Identity]) -> Vec<Identity> {
    live.to_vec()
}

#[cfg(feature = "planted-bugs")]
fn counted(node: &Node, live: &[Identity]) -> Vec<Identity> {
    if node.settings.bug == Some(super::super::api::ReplicaBug::AllLiveIgnoresOne) {
        return live.iter().skip(1).copied().collect();
    }
    live.to_vec()
}
