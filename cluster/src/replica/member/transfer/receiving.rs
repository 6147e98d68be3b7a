//! The receiver's side of one image.
//!
//! Pieces are built in as they come, beside what the node holds; nothing is switched here. Of two
//! images the one of the newer term, or the later one of the same leader, wins.

use quorate_consensus::{Identity, Ticks};
use quorate_engine::{ImageBuilder, ImageError};

use super::super::super::api::ClusterEvent;
use super::super::super::message::{ImageHead, ImageId, ImagePiece, PeerMessage};
use super::super::super::node::Node;
use super::sending::KEEP_MS;

/// The least time between two events about one transfer, ms.
pub(super) const EVENT_EVERY_MS: Ticks = 100;

/// An image on its way here.
pub(in super::super::super) struct Receiving {
    from: Identity,
    id: ImageId,
    head: ImageHead,
    builder: ImageBuilder,
    /// How many pieces are built in.
    pieces: u64,
    done_bytes: u64,
    /// When the application last heard of it.
    said_at: Option<Ticks>,
    /// Since when nothing more can come from the sender.
    stale_since: Option<Ticks>,
}

/// An image that arrived whole, and where the log goes on behind it.
pub(in super::super::super) struct ReceivedImage {
    pub(in super::super::super) from: Identity,
    pub(in super::super::super) id: ImageId,
    pub(in super::super::super) head: ImageHead,
    pub(in super::super::super) built: ImageBuilder,
}

/// Takes a piece of an image in. `Some` once the image is whole.
///
/// A piece that does not go on where the last one ended is answered with what is here: the sender
/// goes on there, or begins anew if that is less than it was told before.
///
/// # Errors
///
/// [`ImageError`]: the sender's image is wrong. What was built is gone; the node's own state is
/// untouched.
pub(in super::super::super) fn receive_piece(
    node: &mut Node,
    receiving: &mut Option<Receiving>,
    from: Identity,
    piece: ImagePiece,
) -> Result<Option<ReceivedImage>, ImageError> {
    let id = piece.id;
    if receiving.as_ref().is_some_and(|current| current.id > id) {
        return Ok(None); // of a leader that is none any more, or an image given up
    }
    if receiving.as_ref().is_none_or(|current| current.id < id) {
        let Some(head) = piece.head else {
            *receiving = None; // whoever sent it leads no more, or has given up on it
            node.send(from, PeerMessage::Received { image: id, pieces: 0 });
            return Ok(None);
        };
        if piece.number != 0 || head.config.validate().is_err() {
            return Ok(None); // nobody sends that
        }
        node.counters.images_begun += 1;
        *receiving = Some(Receiving::new(node, from, id, *head));
    }
    let Some(current) = receiving.as_mut() else { return Ok(None) };
    if current.from != from {
        return Ok(None); // a term has one leader: nobody sends that
    }
    current.stale_since = None;
    if current.pieces == piece.number {
        if let Err(error) = current.builder.push(&piece.bytes) {
            *receiving = None;
            return Err(error);
        }
        current.pieces += 1;
        current.done_bytes += piece.bytes.len() as u64;
        node.counters.pieces_received += 1;
        current.tell(node, piece.total_bytes);
    }
    node.send(from, PeerMessage::Received { image: id, pieces: current.pieces });
    if !current.builder.is_complete() {
        return Ok(None);
    }
    let whole = receiving.take();
    Ok(whole.map(|Receiving { from, id, head, builder, .. }| ReceivedImage {
        from,
        id,
        head,
        built: builder,
    }))
}

impl Receiving {
    fn new(node: &Node, from: Identity, id: ImageId, head: ImageHead) -> Self {
        Self {
            from,
            id,
            head,
            builder: node.applier.image_builder(),
            pieces: 0,
            done_bytes: 0,
            said_at: None,
            stale_since: None,
        }
    }

    pub(in super::super::super) fn from(&self) -> Identity {
        self.from
    }

    pub(in super::super::super) fn id(&self) -> ImageId {
        self.id
    }

    /// How many pieces of this image are here.
    pub(in super::super::super) fn pieces_of(&self, from: Identity, id: ImageId) -> u64 {
        if self.from == from && self.id == id { self.pieces } else { 0 }
    }

    /// Notes whether its sender can go on, and tells whether it is time to give up on it.
    pub(in super::super::super) fn is_given_up(&mut self, now: Ticks, may_go_on: bool) -> bool {
        if may_go_on {
            self.stale_since = None;
            return false;
        }
        now >= *self.stale_since.get_or_insert(now) + KEEP_MS
    }

    fn tell(&mut self, node: &mut Node, total_bytes: u64) {
        let whole = self.builder.is_complete();
        let due = self.said_at.is_none_or(|said_at| node.now >= said_at + EVENT_EVERY_MS);
        if !whole && !due {
            return;
        }
        self.said_at = Some(node.now);
        let done_bytes = self.done_bytes;
        let total_bytes = if whole { done_bytes } else { total_bytes.max(done_bytes + 1) };
        node.event(ClusterEvent::StateTransfer { node: self.from.node, done_bytes, total_bytes });
    }
}
