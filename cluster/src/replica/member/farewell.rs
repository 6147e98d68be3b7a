//! The orderly end of a cluster, and leaving it alone.
//!
//! A node that stops has its stop put into the log. When every member of the configuration has
//! one there (or a departure, which the leader writes for members silent beyond the limit while
//! others stop), the cluster has ended, and every node sees that at the same entry. It says
//! goodbye, and goes when every other member has said its own, or has been away for so long that it
//! counts as gone: until then it votes, stores and acknowledges, so that the last one too can see
//! the end in its log.
//!
//! An incarnation that asked to leave, or a voter that was taken out and left its node's place
//! empty, is never taken in again, whatever old message or leftover says so. Who was taken out
//! because another self of its node came or went did not ask: it may come again.

use std::collections::{BTreeMap, BTreeSet};

use quorate_consensus::{Config, Identity, Ticks};

use super::super::api::{ClusterEvent, Output};
use super::super::message::{PeerMessage, Request};
use super::super::node::{Ending, Node};
use super::super::window::Item;
use super::Member;
use crate::error::ClusterError;

/// How long a node waits for goodbyes once the cluster has ended, ms.
const LINGER_MS: Ticks = 2_000;

/// Who has ended, as far as the log tells.
#[derive(Debug, Default)]
pub(super) struct Farewell {
    /// Stopped or departed, in the applied log.
    in_log: BTreeSet<Identity>,
    /// Incarnations that asked to be taken out, or were and left their node's place empty. None of
    /// them ever comes back; what asks to be taken in was said before.
    leaving: BTreeSet<Identity>,
    /// Peers that saw the end.
    goodbyes: BTreeSet<Identity>,
    /// Since when a peer is not linked, and that it once was or was missed.
    unlinked_since: BTreeMap<Identity, Ticks>,
    /// Every member of the configuration at one entry had ended: so has the cluster, at that entry,
    /// whatever follows it.
    complete: bool,
    /// When this node saw the end.
    ended_at: Option<Ticks>,
    /// Since when nobody is linked.
    alone_since: Option<Ticks>,
}

impl Farewell {
    pub(super) fn new(stopped: Vec<Identity>) -> Self {
        Self { in_log: stopped.into_iter().collect(), ..Self::default() }
    }

    pub(super) fn stopped(&mut self, identity: Identity) {
        self.in_log.insert(identity);
    }

    pub(super) fn departed(&mut self, node: &mut Node, identity: Identity) {
        self.in_log.insert(identity);
        node.event(ClusterEvent::Departed(identity.node));
    }

    pub(super) fn goodbye_from(&mut self, peer: Identity) {
        self.goodbyes.insert(peer);
    }

    pub(super) fn has(&self, identity: Identity) -> bool {
        self.in_log.contains(&identity)
    }

    /// The configuration became another one. A voter that is out left, if its place is empty.
    /// Whoever had no rank yet, or lost its place to another incarnation of its node, did not ask
    /// for that and may be the one that lives: it may ask to be taken in again.
    pub(super) fn configured(&mut self, before: &Config, config: &Config) {
        let members = config.identities();
        let has_place = |who: &Identity| members.iter().any(|member| member.node == who.node);
        let voters = before.identities().into_iter().filter(|who| before.rank_of(*who) > 0);
        self.leaving.extend(voters.filter(|who| !has_place(who)));
    }

    pub(super) fn wants_out(&self, identity: Identity) -> bool {
        self.leaving.contains(&identity)
    }

    /// For images.
    pub(super) fn in_log(&self) -> Vec<Identity> {
        self.in_log.iter().copied().collect()
    }

    pub(super) fn set_in_log(&mut self, stopped: Vec<Identity>) {
        self.in_log = stopped.into_iter().collect();
    }

    /// True while nobody stops.
    pub(super) fn is_quiet(&self) -> bool {
        self.in_log.is_empty()
    }

    /// Keeps since when each peer has been without a link.
    pub(super) fn note_links(&mut self, node: &Node) {
        self.unlinked_since.retain(|peer, _| !node.is_linked(*peer));
    }

    /// A link is up, if only for a moment.
    pub(super) fn linked(&mut self, peer: Identity) {
        self.unlinked_since.remove(&peer);
        self.alone_since = None;
    }

    /// How long nobody has been linked.
    fn alone_for(&mut self, node: &Node) -> Ticks {
        if !node.links.is_empty() {
            self.alone_since = None;
            return 0;
        }
        node.now - *self.alone_since.get_or_insert(node.now)
    }

    /// For how long a peer has not been linked, ms, as far as this node looked.
    pub(super) fn silent_for(&mut self, node: &Node, peer: Identity) -> Ticks {
        if node.is_linked(peer) {
            return 0;
        }
        node.now - *self.unlinked_since.entry(peer).or_insert(node.now)
    }
}

impl Member {
    /// The node's end was asked for: the first step is taken at once.
    pub(in super::super) fn begin_end(&mut self, node: &mut Node) {
        self.say_farewell(node);
    }

    /// Repeats what the end needs, and lets the leader write off the silent.
    pub(super) fn say_farewell(&mut self, node: &mut Node) {
        match node.ending {
            Ending::No => {}
            Ending::Stop { .. } => self.ask_to_stop(node),
            Ending::Detach { .. } => self.ask_to_leave(node),
        }
        if self.is_leading() && !self.farewell.is_quiet() {
            self.write_off_silent(node);
        }
    }

    fn ask_to_stop(&mut self, node: &mut Node) {
        let identity = node.identity();
        if self.farewell.has(identity) {
            return;
        }
        let Some(leader) = self.core.leader() else { return };
        let term = self.core.term();
        let id = node.transaction_id(0);
        if leader == identity {
            self.request_from(node, identity, term, id, Request::Stop);
        } else {
            node.send(leader, PeerMessage::Submit { term, id, request: Request::Stop });
        }
    }

    fn write_off_silent(&mut self, node: &mut Node) {
        let limit = node.settings.departed_after_ms;
        for member in self.applied_config.current.clone() {
            let identity = member.identity;
            if identity == node.identity() || self.farewell.has(identity) {
                continue;
            }
            if self.farewell.silent_for(node, identity) >= limit {
                let term = self.core.term();
                // Refused only if this node leads no longer; the next leader writes it then.
                let _ = self.take_mark(node, term, &Item::Departed(identity));
            }
        }
    }

    fn ask_to_leave(&mut self, node: &mut Node) {
        let identity = node.identity();
        if self.is_leading() {
            self.remove_member(node, identity);
        } else {
            // To all: once out, this node hears of no new leader any more.
            node.broadcast(&PeerMessage::Leave);
        }
    }

    /// The leader takes a member out of the configuration, or says that it is out.
    pub(super) fn remove_member(&mut self, node: &mut Node, leaver: Identity) {
        // On every node: one that leads later must not take in again who wants to leave.
        self.joiners.remove(&leaver);
        self.farewell.leaving.insert(leaver);
        if !self.is_leading() {
            return;
        }
        let config = self.core.config().current.clone();
        if config.iter().all(|member| member.identity != leaver) {
            let committed = !self.core.pending_config() && leaver != node.identity();
            if committed {
                node.send(leaver, PeerMessage::Left);
            }
            return;
        }
        // Another life of the leaver's node, a learner that came and went before it got the rank,
        // is nobody to stay for.
        let forgotten = |identity: Identity, rank| {
            identity.node == leaver.node && rank == 0 && !node.is_linked(identity)
        };
        let mut members = config;
        members.retain(|m| m.identity != leaver && !forgotten(m.identity, m.rank));
        if members.iter().all(|member| member.rank == 0) {
            if leaver == node.identity() && members.is_empty() {
                self.tell_left(node);
                self.end = Some(Ok(()));
            } else if leaver == node.identity() {
                node.ending = Ending::No;
                node.output(Output::EndRefused(ClusterError::LastVoter));
            }
            return;
        }
        self.propose_config(node, members);
    }

    /// Whoever left before this node may not know it yet, and nobody may be left to say it later.
    fn tell_left(&mut self, node: &mut Node) {
        let config = &self.applied_config;
        let halves = [Some(&config.current), config.next.as_ref()];
        let members: Vec<_> =
            halves.into_iter().flatten().flatten().map(|member| member.identity).collect();
        let linked: Vec<_> = node.links.values().map(|link| link.identity).collect();
        for peer in linked.into_iter().filter(|peer| !members.contains(peer)) {
            node.send(peer, PeerMessage::Left);
        }
    }

    pub(super) fn end_detached(&mut self, node: &Node) {
        if matches!(node.ending, Ending::Detach { .. }) {
            self.end = Some(Ok(()));
        }
    }

    pub(super) fn repeat_goodbye(&mut self, node: &mut Node, peer: Identity) {
        if self.farewell.ended_at.is_some() {
            node.send(peer, PeerMessage::Goodbye);
        }
    }

    /// Ends the node if its end has come.
    pub(super) fn finish(&mut self, node: &mut Node) {
        if self.end.is_some() {
            return;
        }
        match node.ending {
            Ending::No => {}
            Ending::Detach { deadline } => self.finish_detach(node, deadline),
            Ending::Stop { deadline } => self.finish_stop(node, deadline),
        }
    }

    fn finish_detach(&mut self, node: &mut Node, deadline: Ticks) {
        let identity = node.identity();
        let holds =
            |half: &[quorate_consensus::Member]| half.iter().any(|m| m.identity == identity);
        let config = &self.applied_config;
        let out = !holds(&config.current) && !config.next.as_deref().is_some_and(holds);
        // Who says goodbye saw the end of the whole cluster: there is nothing left to leave.
        if out || !self.farewell.goodbyes.is_empty() {
            self.tell_left(node);
            self.end = Some(Ok(()));
        } else if node.now >= deadline {
            self.end = Some(Err(ClusterError::NoQuorum));
        }
    }

    fn finish_stop(&mut self, node: &mut Node, deadline: Ticks) {
        if !self.farewell.complete {
            self.give_up_stop(node, deadline);
            return;
        }
        let ended_at = match self.farewell.ended_at {
            Some(ended_at) => ended_at,
            None => {
                node.broadcast(&PeerMessage::Goodbye);
                *self.farewell.ended_at.insert(node.now)
            }
        };
        // Who is being sent the state has not seen the end yet.
        let helping = self.transfers.is_helping(node) && node.now < deadline;
        let patience = LINGER_MS.max(node.settings.departed_after_ms);
        if self.all_know(node) || node.now >= ended_at + patience && !helping {
            self.end = Some(Ok(()));
        }
    }

    /// Every other member said goodbye, or has been away for so long that it counts as gone: one
    /// whose link broke just now may need this node to see the end in its log.
    fn all_know(&mut self, node: &Node) -> bool {
        let away = node.settings.departed_after_ms;
        let others: Vec<Identity> =
            self.applied_config.current.iter().map(|member| member.identity).collect();
        others.into_iter().filter(|other| *other != node.identity()).all(|other| {
            self.farewell.goodbyes.contains(&other) || self.farewell.silent_for(node, other) >= away
        })
    }

    /// The others may be gone, or unable to agree on anything.
    fn give_up_stop(&mut self, node: &Node, deadline: Ticks) {
        let alone_for = self.farewell.alone_for(node);
        if self.farewell.has(node.identity()) && alone_for >= node.settings.departed_after_ms {
            self.end = Some(Ok(()));
            return;
        }
        // An election under way is no reason to give up.
        let patience = 3 * node.settings.core.election_timeout;
        let unable = self.unable_since.is_some_and(|since| node.now >= since + patience);
        if node.now >= deadline && unable {
            self.end = Some(Err(ClusterError::NoQuorum));
        }
    }

    /// An entry, or an image, is applied: it may be the end.
    pub(super) fn note_end(&mut self) {
        self.farewell.complete |= self.all_ended();
    }

    fn all_ended(&self) -> bool {
        let config = &self.applied_config;
        let halves = [Some(&config.current), config.next.as_ref()];
        halves.into_iter().flatten().flatten().all(|m| self.farewell.has(m.identity))
    }
}
