//! State transfer: images on their way from a leader to a node that its log does not reach.

use quorate_consensus::{EntryIndex, Identity, Input as CoreInput, Payload, Ticks};

use super::super::api::ClusterEvent;
use super::super::message::{ImageChunk, ImageHead, PeerMessage};
use super::super::node::Node;
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
    head: ImageHead,
    bytes: Payload,
    sent_bytes: u64,
    received_bytes: u64,
    /// When it last went on.
    progress_at: Ticks,
    /// How often it was asked again for its word that it installed the image.
    asked: u32,
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
    pub(in super::super) head: ImageHead,
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
        *receiving = Some(Receiving { from, last: chunk.head.last, bytes: Vec::new() });
    }
    let current = receiving.as_mut()?;
    let goes_on = current.from == from
        && current.last == chunk.head.last
        && current.bytes.len() as u64 == chunk.offset
        && chunk.offset.saturating_add(chunk.bytes.len() as u64) <= chunk.total_bytes;
    if !goes_on {
        return None;
    }
    current.bytes.extend_from_slice(&chunk.bytes);
    let done_bytes = current.bytes.len() as u64;
    let (last, total_bytes) = (chunk.head.last, chunk.total_bytes);
    node.send(from, PeerMessage::Received { last, bytes: done_bytes });
    node.event(ClusterEvent::StateTransfer { node: from.node, done_bytes, total_bytes });
    if done_bytes < total_bytes {
        return None;
    }
    let Receiving { bytes, .. } = receiving.take()?;
    Some(ReceivedImage { from, bytes, head: chunk.head })
}

impl Receiving {
    pub(in super::super) fn is_from(&self, peer: Identity) -> bool {
        self.from == peer
    }
}

impl Sending {
    pub(super) fn last(&self) -> EntryIndex {
        self.head.last
    }

    fn total_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
}

impl Member {
    /// Sends the state as it is applied here now.
    pub(super) fn start_image(&mut self, node: &mut Node, to: Identity) {
        if !node.is_linked(to) || self.sending.contains_key(&to) {
            return;
        }
        let image = node.applier.image();
        let sending = Sending {
            head: ImageHead {
                last: self.applied_entry,
                last_term: self.applied_term,
                config: self.applied_config.clone(),
                genesis: self.genesis.clone(),
                stopped: self.farewell.in_log(),
                roster: node.roster.clone(),
            },
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
        if sending.head.last != last || bytes > sending.sent_bytes {
            return;
        }
        sending.received_bytes = sending.received_bytes.max(bytes);
        sending.progress_at = node.now;
        let (done_bytes, total_bytes) = (sending.received_bytes, sending.total_bytes());
        node.event(ClusterEvent::StateTransfer { node: from.node, done_bytes, total_bytes });
        self.send_chunks(node, from);
    }

    fn send_chunks(&mut self, node: &mut Node, to: Identity) {
        let Some(sending) = self.sending.get_mut(&to) else { return };
        let chunk_bytes = node.settings.image_chunk_bytes as u64;
        let limit = sending.received_bytes + CHUNKS_IN_FLIGHT * chunk_bytes;
        while sending.sent_bytes < sending.total_bytes().min(limit) {
            let from = sending.sent_bytes as usize;
            let upto = (sending.sent_bytes + chunk_bytes).min(sending.total_bytes()) as usize;
            sending.sent_bytes = upto as u64;
            let chunk = ImageChunk {
                head: sending.head.clone(),
                total_bytes: sending.total_bytes(),
                offset: from as u64,
                bytes: Payload::from(&sending.bytes[from..upto]),
            };
            node.send(to, PeerMessage::Image(chunk));
        }
    }

    /// A piece of an image for a member that fell behind the leader's log.
    pub(super) fn image_chunk(&mut self, node: &mut Node, from: Identity, chunk: ImageChunk) {
        if chunk.head.genesis.cluster_id != self.genesis.cluster_id {
            return;
        }
        if chunk.head.last <= self.applied_entry {
            // All of it is here already; a leader that does not know would send it for ever.
            node.send(from, PeerMessage::Installed { last: chunk.head.last });
            return;
        }
        if self.is_leading() {
            return; // nobody else can know more
        }
        let Some(image) = receive_image(node, &mut self.receiving, from, chunk) else { return };
        if image.head.config.validate().is_err() || image.head.last <= self.core.commit() {
            return;
        }
        if let Err(error) = node.applier.install(&image.bytes) {
            // Nothing changed here, and another copy would not fit better.
            self.end = Some(Err(ClusterError::Image(error)));
            return;
        }
        node.counters.images_installed += 1;
        let ImageHead { last, last_term, config, stopped, roster, .. } = image.head;
        self.applied_entry = last;
        self.applied_term = last_term;
        self.applied_config = config.clone();
        self.kept.clear();
        self.farewell.set_in_log(stopped);
        self.adopt_roster(node, roster);
        self.note_end();
        self.drive(node, CoreInput::InstallImage { last, last_term, config });
        node.send(from, PeerMessage::Installed { last });
        self.answer_from_image(node);
        self.answer_reads(node);
    }
}
