//! New incarnations and images.
//!
//! A node that lost its state comes back as a new member: it asks (`Join`), the leader puts its
//! new identity into the configuration with rank 0, sends it an image and then the log, and when
//! it has caught up one change moves the rank from the old incarnation to the new one (joint, by
//! consensus's own rule). Nothing the forgotten self ever said counts towards the new identity,
//! and the new one counts in no quorum before that change.
//!
//! The old incarnation is known to be gone because at most one link a node exists: a peer is
//! linked to the new one only after the old link closed or fell silent.

use quorate_consensus::{
    Config, EntryIndex, Identity, Input as CoreInput, Member as ConfigMember, Payload, Term, Ticks,
};

use super::super::api::ClusterEvent;
use super::super::message::{Genesis, ImageChunk, PeerMessage, Standing};
use super::super::node::{Ending, Node};
use super::Member;
use crate::error::ClusterError;

/// Pieces of an image that may be under way at once.
const CHUNKS_IN_FLIGHT: u64 = 4;

/// A transfer without progress for this long begins anew, with a newer image, ms.
const STALLED_MS: Ticks = 2_000;

/// How often a receiver that has all of an image is asked whether it installed it, before it gets
/// another one.
const ASK_AGAIN_MAX: u32 = 30;

/// An image on its way to a peer.
pub(super) struct Sending {
    last: EntryIndex,
    last_term: Term,
    config: Config,
    stopped: Vec<Identity>,
    bytes: Payload,
    sent_bytes: u64,
    received_bytes: u64,
    /// When it last went on.
    progress_at: Ticks,
    /// How often it was asked again for its word that it installed the image.
    asked: u32,
}

/// An incarnation that asked to be taken in, or to get its rank.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    /// What was committed when it was first seen to hold state: it has caught up once it matches
    /// that, however fast the log goes on.
    target: Option<EntryIndex>,
}

/// An image on its way here.
pub(in super::super) struct Receiving {
    pub(super) from: Identity,
    last: EntryIndex,
    bytes: Vec<u8>,
}

/// An image that arrived whole, and where the log goes on behind it.
pub(in super::super) struct ReceivedImage {
    pub(in super::super) from: Identity,
    pub(in super::super) bytes: Vec<u8>,
    pub(in super::super) last: EntryIndex,
    pub(in super::super) last_term: Term,
    pub(in super::super) config: Config,
    pub(in super::super) genesis: Genesis,
    pub(in super::super) stopped: Vec<Identity>,
}

/// Takes a piece of an image in. `Some` once it is whole.
///
/// Pieces that do not go on where the last one ended are dropped: the sender gives up on a link
/// that breaks and begins anew.
pub(in super::super) fn receive_image(
    node: &mut Node,
    receiving: &mut Option<Receiving>,
    from: Identity,
    chunk: ImageChunk,
) -> Option<ReceivedImage> {
    if chunk.offset == 0 {
        *receiving = Some(Receiving { from, last: chunk.last, bytes: Vec::new() });
    }
    let current = receiving.as_mut()?;
    let goes_on = current.from == from
        && current.last == chunk.last
        && current.bytes.len() as u64 == chunk.offset
        && chunk.offset.saturating_add(chunk.bytes.len() as u64) <= chunk.total_bytes;
    if !goes_on {
        return None;
    }
    current.bytes.extend_from_slice(&chunk.bytes);
    let done_bytes = current.bytes.len() as u64;
    let (last, total_bytes) = (chunk.last, chunk.total_bytes);
    node.send(from, PeerMessage::Received { last, bytes: done_bytes });
    node.event(ClusterEvent::StateTransfer { node: from.node, done_bytes, total_bytes });
    if done_bytes < total_bytes {
        return None;
    }
    let Receiving { bytes, .. } = receiving.take()?;
    let ImageChunk { last, last_term, config, genesis, stopped, .. } = chunk;
    Some(ReceivedImage { from, bytes, last, last_term, config, genesis, stopped })
}

impl Receiving {
    pub(in super::super) fn is_from(&self, peer: Identity) -> bool {
        self.from == peer
    }
}

impl Sending {
    pub(super) fn last(&self) -> EntryIndex {
        self.last
    }

    fn total_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
}

impl Member {
    /// The leader takes in who asked, one configuration change at a time.
    pub(super) fn admit(&mut self, node: &mut Node) {
        if !self.is_leading() || !self.core.has_committed_in_term() {
            return;
        }
        let joiners: Vec<Identity> = self.joiners.keys().copied().collect();
        for joiner in joiners {
            if !node.is_linked(joiner) {
                self.joiners.remove(&joiner);
                continue;
            }
            if self.core.pending_config() {
                return;
            }
            self.admit_one(node, joiner);
        }
    }

    fn admit_one(&mut self, node: &mut Node, joiner: Identity) {
        let config = self.core.config().current.clone();
        match config.iter().find(|member| member.identity == joiner) {
            None => {
                let mut members: Vec<ConfigMember> = config
                    .into_iter()
                    .filter(|member| member.identity.node != joiner.node || member.rank > 0)
                    .collect();
                members.push(ConfigMember { identity: joiner, rank: 0 });
                self.propose_config(node, members);
            }
            Some(member) if member.rank > 0 => {
                self.joiners.remove(&joiner);
            }
            Some(_) => self.bring_up(node, joiner, config),
        }
    }

    /// A learner that asked gets the state first, then its rank.
    fn bring_up(&mut self, node: &mut Node, joiner: Identity, config: Vec<ConfigMember>) {
        let holds_state = matches!(node.standing(joiner), Some(Standing::Member(_)));
        if !holds_state {
            if !self.sending.contains_key(&joiner) {
                self.start_image(node, joiner);
            }
            return;
        }
        let commit = self.core.commit();
        let target = *self.joiners.entry(joiner).or_default().target.get_or_insert(commit);
        let matched = self.core.progress(joiner).map_or(EntryIndex(0), |p| p.matched);
        if matched < target {
            return;
        }
        let predecessor = config
            .iter()
            .filter(|member| member.identity.node == joiner.node && member.identity != joiner)
            .map(|member| member.rank)
            .max();
        let configured = node.settings.ranks.get(joiner.node.0 as usize).copied().unwrap_or(0);
        let rank = predecessor.unwrap_or(configured);
        if rank == 0 && predecessor.is_none() {
            self.joiners.remove(&joiner); // a learner by configuration is all it can be
            return;
        }
        let mut members: Vec<ConfigMember> =
            config.into_iter().filter(|member| member.identity.node != joiner.node).collect();
        members.push(ConfigMember { identity: joiner, rank });
        self.propose_config(node, members);
    }

    pub(super) fn propose_config(&mut self, node: &mut Node, mut members: Vec<ConfigMember>) {
        members.sort_by_key(|member| member.identity);
        self.drive(node, CoreInput::ProposeConfig { members });
    }

    /// Sends the state as it is applied here now.
    pub(super) fn start_image(&mut self, node: &mut Node, to: Identity) {
        if !node.is_linked(to) || self.sending.contains_key(&to) {
            return;
        }
        let image = node.applier.image();
        let sending = Sending {
            last: self.applied_entry,
            last_term: self.applied_term,
            config: self.applied_config.clone(),
            stopped: self.farewell.in_log(),
            bytes: image.bytes,
            sent_bytes: 0,
            received_bytes: 0,
            progress_at: node.now,
            asked: 0,
        };
        node.counters.images_sent += 1;
        self.sending.insert(to, sending);
        self.send_chunks(node, to);
    }

    /// The receiver may have thrown away what it had (another leader's image): then it gets a newer
    /// one. One that has all of it may be installing it, which takes as long as there is data, or
    /// its word that it did is lost: the last piece asks again.
    pub(super) fn restart_stalled_images(&mut self, node: &mut Node) {
        let now = node.now;
        let stalled = |sending: &Sending| now >= sending.progress_at + STALLED_MS;
        let peers: Vec<Identity> =
            self.sending.iter().filter(|(_, s)| stalled(s)).map(|(peer, _)| *peer).collect();
        for peer in peers {
            let Some(sending) = self.sending.get_mut(&peer) else { continue };
            if sending.received_bytes == sending.total_bytes() && sending.asked < ASK_AGAIN_MAX {
                sending.asked += 1;
                sending.progress_at = now;
                let last_piece = node.settings.image_chunk_bytes as u64;
                sending.sent_bytes = sending.total_bytes().saturating_sub(last_piece);
                self.send_chunks(node, peer);
            } else {
                self.sending.remove(&peer);
                self.start_image(node, peer);
            }
        }
    }

    pub(super) fn image_received(
        &mut self,
        node: &mut Node,
        from: Identity,
        last: EntryIndex,
        bytes: u64,
    ) {
        let Some(sending) = self.sending.get_mut(&from) else { return };
        if sending.last != last || bytes > sending.sent_bytes {
            return;
        }
        sending.received_bytes = sending.received_bytes.max(bytes);
        sending.progress_at = node.now;
        let (done_bytes, total_bytes) = (sending.received_bytes, sending.total_bytes());
        node.event(ClusterEvent::StateTransfer { node: from.node, done_bytes, total_bytes });
        self.send_chunks(node, from);
    }

    fn send_chunks(&mut self, node: &mut Node, to: Identity) {
        let genesis = self.genesis.clone();
        let Some(sending) = self.sending.get_mut(&to) else { return };
        let chunk_bytes = node.settings.image_chunk_bytes as u64;
        let limit = sending.received_bytes + CHUNKS_IN_FLIGHT * chunk_bytes;
        while sending.sent_bytes < sending.total_bytes().min(limit) {
            let from = sending.sent_bytes as usize;
            let upto = (sending.sent_bytes + chunk_bytes).min(sending.total_bytes()) as usize;
            sending.sent_bytes = upto as u64;
            let chunk = ImageChunk {
                last: sending.last,
                last_term: sending.last_term,
                config: sending.config.clone(),
                genesis: genesis.clone(),
                stopped: sending.stopped.clone(),
                total_bytes: sending.total_bytes(),
                offset: from as u64,
                bytes: Payload::from(&sending.bytes[from..upto]),
            };
            node.send(to, PeerMessage::Image(chunk));
        }
    }

    /// A piece of an image for a member that fell behind the leader's log.
    pub(super) fn image_chunk(&mut self, node: &mut Node, from: Identity, chunk: ImageChunk) {
        if chunk.genesis.cluster_id != self.genesis.cluster_id {
            return;
        }
        if chunk.last <= self.applied_entry {
            // All of it is here already; a leader that does not know would send it for ever.
            node.send(from, PeerMessage::Installed { last: chunk.last });
            return;
        }
        if self.is_leading() {
            return; // nobody else can know more
        }
        let Some(image) = receive_image(node, &mut self.receiving, from, chunk) else { return };
        if image.config.validate().is_err() || image.last <= self.core.commit() {
            return;
        }
        if let Err(error) = node.applier.install(&image.bytes) {
            // Nothing changed here, and another copy would not fit better.
            self.end = Some(Err(ClusterError::Image(error)));
            return;
        }
        node.counters.images_installed += 1;
        let ReceivedImage { last, last_term, config, stopped, .. } = image;
        self.applied_entry = last;
        self.applied_term = last_term;
        self.applied_config = config.clone();
        self.kept.clear();
        self.farewell.set_in_log(stopped);
        self.note_end();
        self.drive(node, CoreInput::InstallImage { last, last_term, config });
        node.send(from, PeerMessage::Installed { last });
        self.answer_from_image(node);
    }

    /// True while this node's own rank is not what its node list says.
    pub(in super::super) fn wants_rank(&self, node: &Node) -> bool {
        if matches!(node.ending, Ending::Detach { .. }) {
            return false;
        }
        let wanted = node.settings.ranks.get(node.identity().node.0 as usize).copied();
        let own = self.applied_config.current.iter().find(|m| m.identity == node.identity());
        match own {
            Some(member) => member.rank == 0 && wanted != Some(0),
            None => true,
        }
    }

    pub(super) fn ask_for_rank(&mut self, node: &mut Node) {
        if self.wants_rank(node) {
            // The leader must know that the state is here; what said so before may be lost.
            node.broadcast(&PeerMessage::Standing(self.standing()));
            node.broadcast(&PeerMessage::Join);
        }
    }
}
