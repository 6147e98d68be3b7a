//! State transfer: images on their way from a leader to a node that its log does not reach.
//!
//! ```text
//!   leader                                                    receiver
//!   pins its state: O(1)
//!   makes a piece, when there is room  -- Image(piece) ----->  builds it in, beside its own state
//!   forgets it                         <---- Received(n) ----
//!        ...                                                   ...
//!   the log goes on behind the image   <---- Installed ------  switches, in one step
//! ```
//!
//! Each step makes or takes at most one piece, so that a commit waits for one piece at most, and
//! pieces have a connection of their own, so that no heartbeat or window waits for any. While
//! nobody commits, steps follow each other at once. What is under way is bounded by number and
//! bytes: a slow receiver costs nobody else anything.
//!
//! A broken link ends nothing for a while: the leader keeps the pinned state and the pieces not
//! confirmed, the receiver what it built. When the same two are linked again the leader asks
//! (`AskImage`) what is there, and goes on behind it. Another leader, or one that forgot, begins
//! anew with a newer image.
//!
//! The parts: `sending` and `receiving` are the two sides of one image, `pace` says when a piece
//! may be made, `tail` how much of the log is kept meanwhile.

mod pace;
mod receiving;
mod sending;
mod tail;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use quorate_consensus::{EntryIndex, Identity, Input as CoreInput, Ticks};

use super::super::api::{ClusterEvent, NEVER};
use super::super::message::{ImageHead, ImageId, ImagePiece, PeerMessage};
use super::super::node::Node;
use super::Member;
use crate::error::ClusterError;

use pace::Pace;
pub(in super::super) use receiving::{ReceivedImage, Receiving, receive_piece};
pub(super) use sending::KEEP_MS;
use sending::{Due, PieceLimits, Sending, Word};
pub(super) use tail::Hold;
use tail::Tail;

/// The images that a member sends, and the one it gets.
#[derive(Default)]
pub(super) struct Transfers {
    sending: BTreeMap<Identity, Sending>,
    /// What receivers need of the log, from the start of their image until they have caught up.
    tails: BTreeMap<Identity, Tail>,
    receiving: Option<Receiving>,
    /// Images begun by this node: numbers them.
    begun: u64,
    pace: Pace,
    /// Who got the newest piece.
    turn: Option<Identity>,
}

impl Transfers {
    /// Images are the leader's business.
    pub(super) fn stop_sending(&mut self) {
        self.sending.clear();
        self.tails.clear();
    }

    /// True if somebody who can be reached waits for the rest of an image.
    pub(super) fn is_helping(&self, node: &Node) -> bool {
        self.sending.keys().any(|receiver| node.is_linked(*receiver))
    }

    /// A window was applied.
    pub(super) fn note_commit(&mut self, now: Ticks) {
        self.pace.note_commit(now);
    }

    /// True if there is something to look at from time to time.
    pub(super) fn is_busy(&self) -> bool {
        !self.sending.is_empty() || !self.tails.is_empty() || self.receiving.is_some()
    }

    /// When a piece can be sent next.
    pub(super) fn next_piece_at(&self, node: &Node) -> Ticks {
        let limits = limits(node);
        let opens_at = self.pace.next_at(node.now, node.settings.image_rate_bytes_per_s);
        let next = self.sending.values().map(|sending| {
            if sending.has_unsent() {
                node.now
            } else if sending.has_room(limits) {
                opens_at
            } else {
                NEVER
            }
        });
        next.min().unwrap_or(NEVER)
    }

    /// Whose turn it is: who has room, in order of identity.
    fn next_in_turn(&self, limits: PieceLimits) -> Option<Identity> {
        let has_room = |(_, sending): &(&Identity, &Sending)| sending.has_room(limits);
        let behind = self.sending.iter().filter(has_room);
        let after = behind.clone().find(|(who, _)| self.turn.is_none_or(|turn| **who > turn));
        after.or_else(|| behind.clone().next()).map(|(who, _)| *who)
    }
}

fn limits(node: &Node) -> PieceLimits {
    PieceLimits {
        objects: node.settings.image_piece_objects,
        bytes: node.settings.image_piece_bytes,
    }
}

impl Member {
    /// Sends the state as it is applied here now.
    pub(super) fn start_image(&mut self, node: &mut Node, to: Identity) {
        if !node.is_linked(to) || self.transfers.sending.contains_key(&to) {
            return;
        }
        let stream = node.applier.image_stream();
        let last = self.applied_entry;
        let head = ImageHead {
            last_term: self.applied_term,
            config: self.applied_config.clone(),
            genesis: self.genesis.clone(),
            epoch: node.epoch,
            stopped: self.farewell.in_log(),
            roster: node.roster.clone(),
            time_ms: node.logged_time_ms,
        };
        self.transfers.begun += 1;
        let id = ImageId { term: self.core.term(), number: self.transfers.begun, last };
        let sending = Sending::new(id, head, stream, node.now);
        let before = self.transfers.tails.get(&to);
        let tail = Tail::new(last, sending.total_bytes(), before);
        self.transfers.tails.insert(to, tail);
        self.transfers.sending.insert(to, sending);
        node.counters.images_sent += 1;
    }

    fn restart_image(&mut self, node: &mut Node, to: Identity) {
        self.transfers.sending.remove(&to);
        self.start_image(node, to);
    }

    /// See [`Replica::has_piece_due`](crate::replica::Replica::has_piece_due).
    pub(in super::super) fn has_piece_due(&self, node: &Node, now: Ticks) -> bool {
        self.transfers.next_piece_at(node) <= now
    }

    /// Sends what is made, and makes one piece more if there is room.
    pub(super) fn pump_images(&mut self, node: &mut Node) {
        if self.digests.is_disputed() {
            return; // a state that may be wrong goes nowhere
        }
        for (to, sending) in &mut self.transfers.sending {
            while let Some(piece) = sending.take_unsent() {
                node.send(*to, PeerMessage::Image(piece));
            }
        }
        let (limits, rate) = (limits(node), node.settings.image_rate_bytes_per_s);
        if self.transfers.pace.next_at(node.now, rate) > node.now {
            return;
        }
        let Some(to) = self.transfers.next_in_turn(limits) else { return };
        let Some(sending) = self.transfers.sending.get_mut(&to) else { return };
        self.transfers.turn = Some(to);
        if let Some(bytes) = sending.make_piece(limits, node.now) {
            self.transfers.pace.made(bytes, node.now, rate);
            node.counters.pieces_sent += 1;
        } else {
            tell_progress(node, to, sending);
        }
        if let Some(piece) = sending.take_unsent() {
            node.send(to, PeerMessage::Image(piece));
        }
    }

    /// What time asks for: words that may be lost, links that stay broken, logs that went on.
    pub(super) fn look_at_images(&mut self, node: &mut Node) {
        self.look_at_receiving(node);
        if !self.is_leading() {
            return;
        }
        let first_kept = self.core.first();
        let peers: Vec<Identity> = self.transfers.sending.keys().copied().collect();
        for peer in peers {
            let Some(sending) = self.transfers.sending.get_mut(&peer) else { continue };
            let id = sending.id();
            if self.core.progress(peer).is_none() {
                self.transfers.sending.remove(&peer); // not a member any more
                continue;
            }
            match sending.due(node.now) {
                // The log behind it is gone: it would be of no use, however much of it is there.
                Due::Nothing if node.is_linked(peer) && first_kept > id.last.next() => {
                    self.restart_image(node, peer);
                }
                Due::Nothing => {}
                Due::Ask => node.send(peer, PeerMessage::AskImage { image: id }),
                Due::Restart => self.restart_image(node, peer),
                Due::Forget => {
                    self.transfers.sending.remove(&peer);
                }
            }
        }
        self.drop_tails(node);
    }

    /// A receiver needs no more than others once all it still has to be sent would be kept anyway.
    fn drop_tails(&mut self, node: &Node) {
        let oldest = self.kept.oldest_within(node.settings.log_keep_bytes);
        let oldest = oldest.unwrap_or(self.applied_entry.next());
        let (core, sending) = (&self.core, &self.transfers.sending);
        self.transfers.tails.retain(|peer, tail| {
            let Some(progress) = core.progress(*peer) else { return false };
            if sending.contains_key(peer) {
                return true;
            }
            let caught_up = !progress.needs_image && progress.next >= oldest;
            !caught_up && !tail.is_given_up(node.now, node.is_linked(*peer))
        });
    }

    /// What must be kept of the log for those who get an image, or just got one, and for those who
    /// follow it and need none.
    pub(super) fn log_hold(&self, node: &Node) -> Option<Hold> {
        if !self.is_leading() {
            return None;
        }
        let keep_bytes = node.settings.log_keep_bytes;
        let mut hold = None;
        for (peer, tail) in &self.transfers.tails {
            let matched = self.core.progress(*peer).map_or(EntryIndex(0), |p| p.matched);
            hold = Some(tail.hold(matched, keep_bytes).and(hold));
        }
        for link in node.links.values() {
            let progress = self.core.progress(link.identity);
            if let Some(progress) = progress.filter(|p| p.matched > EntryIndex(0)) {
                let follower = Hold::of_follower(progress.matched, keep_bytes, node);
                hold = Some(follower.and(hold));
            }
        }
        hold
    }

    /// A receiver may have gone on without its image, or its leader may be gone for good.
    fn look_at_receiving(&mut self, node: &mut Node) {
        let applied = self.applied_entry;
        let leader = self.core.leader();
        let Some(receiving) = &mut self.transfers.receiving else { return };
        let may_go_on = node.is_linked(receiving.from()) && leader == Some(receiving.from());
        if receiving.id().last <= applied || receiving.is_given_up(node.now, may_go_on) {
            self.transfers.receiving = None;
        }
    }

    pub(super) fn image_link_up(&mut self, node: &mut Node, peer: Identity) {
        // Another life of that node has nothing of what the old one had.
        self.transfers.sending.retain(|who, _| who.node != peer.node || *who == peer);
        if let Some(sending) = self.transfers.sending.get_mut(&peer) {
            sending.linked_again(node.now);
            node.send(peer, PeerMessage::AskImage { image: sending.id() });
        }
    }

    pub(super) fn image_link_broke(&mut self, node: &Node, peer: Identity) {
        if let Some(sending) = self.transfers.sending.get_mut(&peer) {
            sending.cut(node.now);
        }
    }

    /// A receiver says how much of an image it holds.
    pub(super) fn image_received(
        &mut self,
        node: &mut Node,
        from: Identity,
        image: ImageId,
        pieces: u64,
    ) {
        let Some(sending) = self.transfers.sending.get_mut(&from) else { return };
        if sending.id() != image {
            return;
        }
        match sending.receiver_holds(pieces, node.now) {
            Word::GoOn { resumed } => {
                node.counters.transfers_resumed += u64::from(resumed);
                tell_progress(node, from, sending);
            }
            Word::Forgotten => self.restart_image(node, from),
            Word::Nothing => {}
        }
    }

    /// A leader asks how much of an image is here.
    pub(super) fn image_asked(&mut self, node: &mut Node, from: Identity, image: ImageId) {
        if image.last <= self.applied_entry {
            node.send(from, PeerMessage::Installed { last: image.last });
        } else if !self.is_leading() {
            let receiving = self.transfers.receiving.as_ref();
            let pieces = receiving.map_or(0, |receiving| receiving.pieces_of(from, image));
            node.send(from, PeerMessage::Received { image, pieces });
        }
    }

    /// A receiver installed an image.
    pub(super) fn image_installed(&mut self, node: &mut Node, from: Identity, last: EntryIndex) {
        if self.transfers.sending.get(&from).is_some_and(|sending| sending.id().last == last) {
            self.transfers.sending.remove(&from);
        }
        let standing = self.standing(node);
        if let Some(link) = node.links.get_mut(&from.node) {
            link.standing = Some(standing); // its own word for it may be lost
        }
        self.drive(node, CoreInput::ImageSent { to: from, last });
        self.admit(node);
    }

    /// A piece of an image for a member that fell behind the leader's log.
    pub(super) fn image_piece(&mut self, node: &mut Node, from: Identity, piece: ImagePiece) {
        let cluster_id = self.genesis.cluster_id;
        if piece.head.as_ref().is_some_and(|head| head.genesis.cluster_id != cluster_id) {
            return;
        }
        let last = piece.id.last;
        if last <= self.applied_entry {
            // All of it is here already; a leader that does not know would send it for ever.
            node.send(from, PeerMessage::Installed { last });
            return;
        }
        if self.is_leading() {
            return; // nobody else can know more
        }
        match receive_piece(node, &mut self.transfers.receiving, from, piece) {
            Ok(None) => {}
            Ok(Some(image)) => self.install_image(node, image),
            // Nothing changed here, and another copy would not fit better.
            Err(error) => self.end = Some(Err(ClusterError::Image(error))),
        }
    }

    fn install_image(&mut self, node: &mut Node, image: ReceivedImage) {
        let ReceivedImage { from, id, head, built } = image;
        let last = id.last;
        if last <= self.core.commit() {
            return;
        }
        if let Err(error) = node.applier.install_built(built) {
            self.end = Some(Err(ClusterError::Image(error)));
            return;
        }
        node.counters.images_installed += 1;
        let ImageHead { last_term, config, stopped, roster, time_ms, .. } = head;
        node.logged_time_ms = time_ms;
        self.applied_entry = last;
        self.applied_term = last_term;
        self.applied_config = config.clone();
        self.kept.clear();
        self.digests.replaced();
        self.farewell.set_in_log(stopped);
        self.adopt_roster(node, roster);
        self.note_end();
        self.drive(node, CoreInput::InstallImage { last, last_term, config });
        node.send(from, PeerMessage::Installed { last });
        self.answer_from_image(node);
        self.answer_reads(node);
        self.tell_curious(node);
        self.forget_former_members();
    }
}

fn tell_progress(node: &mut Node, to: Identity, sending: &mut Sending) {
    if sending.is_news(node.now) {
        let (done_bytes, total_bytes) = sending.progress();
        node.event(ClusterEvent::StateTransfer { node: to.node, done_bytes, total_bytes });
    }
}
