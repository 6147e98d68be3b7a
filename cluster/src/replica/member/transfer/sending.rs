//! The sender's side of one image: which piece goes next, and what the other end holds.
//!
//! Pieces are made from a pinned state only when there is room for them, and stay here until they
//! are confirmed, so that a broken link costs nothing but the time it is broken. Knows neither
//! links nor messages of others; a receiver's word is checked before it moves anything.

use std::collections::VecDeque;

use quorate_consensus::{Payload, Ticks};
use quorate_engine::ImageStream;

use super::super::super::api::NEVER;
use super::super::super::message::{ImageHead, ImageId, ImagePiece};
use super::receiving::EVENT_EVERY_MS;

/// Pieces that may be under way at once, so that small ones cost little memory besides their bytes.
/// Many, since how fast an image comes is what is under way divided by the time to an answer.
pub(super) const PIECES_IN_FLIGHT: usize = 256;

/// So many pieces of full size may be under way at once; one more begins while there is room.
pub(super) const FULL_PIECES_IN_FLIGHT: u64 = 8;

/// Without a word from the other end for this long, it is asked and gets again what it did not
/// confirm, ms. Links lose nothing while they last, so this is not for speed. Doubles up to
/// `1 << ASK_SHIFT_MAX` times itself.
const ASK_AFTER_MS: Ticks = 1_000;

/// See [`ASK_AFTER_MS`].
const ASK_SHIFT_MAX: u32 = 3;

/// Asked in vain so often, the other end gets a newer image.
pub(super) const ASKS_MAX: u32 = 10;

/// Asked so often without a better word, the other end is believed to hold less than it did.
const ASKS_UNTIL_BELIEVED: u32 = 2;

/// A transfer whose link broke goes on if the link is back within this time, ms.
pub(in super::super) const KEEP_MS: Ticks = 10_000;

/// How large pieces may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct PieceLimits {
    pub(super) objects: usize,
    pub(super) bytes: usize,
}

/// An image on its way to a peer.
///
/// Invariants: `confirmed <= next <= confirmed + window.len()`; `window_bytes` is the sum of
/// `window`.
pub(super) struct Sending {
    id: ImageId,
    head: ImageHead,
    stream: ImageStream,
    /// Pieces made and not confirmed; the first one's number is `confirmed`.
    window: VecDeque<Payload>,
    window_bytes: u64,
    confirmed: u64,
    confirmed_bytes: u64,
    /// The number of the next piece to give to the link.
    next: u64,
    /// Every piece is made.
    exhausted: bool,
    /// Since when the link is broken.
    cut_at: Option<Ticks>,
    /// The link is new: nothing is sent before the other end says what it holds.
    awaits_word: bool,
    /// When the other end last moved it on, or was last asked.
    moved_at: Ticks,
    /// How often it was asked since it last moved anything.
    asked: u32,
    /// When the application last heard of it.
    said_at: Option<Ticks>,
}

/// What a receiver's word means for the transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// It holds more than it did, or is back: go on.
    GoOn {
        /// It goes on after its link broke, not at the beginning.
        resumed: bool,
    },
    /// It no longer holds what it confirmed: it needs another image.
    Forgotten,
    /// Nothing new, or nothing a correct receiver says.
    Nothing,
}

/// What time asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// Ask the other end what it holds.
    Ask,
    /// It was asked often enough: another image.
    Restart,
    /// Its link was broken for too long.
    Forget,
}

impl Sending {
    pub(super) fn new(id: ImageId, head: ImageHead, stream: ImageStream, now: Ticks) -> Self {
        Self {
            id,
            head,
            stream,
            window: VecDeque::new(),
            window_bytes: 0,
            confirmed: 0,
            confirmed_bytes: 0,
            next: 0,
            exhausted: false,
            cut_at: None,
            awaits_word: false,
            moved_at: now,
            asked: 0,
            said_at: None,
        }
    }

    pub(super) fn id(&self) -> ImageId {
        self.id
    }

    /// Bytes confirmed, and about how many there are in all; equal only at the end.
    pub(super) fn progress(&self) -> (u64, u64) {
        let done = self.confirmed_bytes;
        if self.is_confirmed() {
            return (done, done);
        }
        (done, self.total_bytes())
    }

    /// About how long the image is; more than what was confirmed, until all is.
    pub(super) fn total_bytes(&self) -> u64 {
        let made = self.confirmed_bytes + self.window_bytes;
        if self.exhausted { made } else { self.stream.total_bytes().max(made + 1) }
    }

    /// True if every piece is made and confirmed.
    pub(super) fn is_confirmed(&self) -> bool {
        self.exhausted && self.window.is_empty()
    }

    fn may_send(&self) -> bool {
        self.cut_at.is_none() && !self.awaits_word
    }

    /// True if a piece that is made waits to be given to the link.
    pub(super) fn has_unsent(&self) -> bool {
        self.may_send() && self.next < self.confirmed + self.window.len() as u64
    }

    /// True if another piece can be made and sent.
    pub(super) fn has_room(&self, limits: PieceLimits) -> bool {
        self.may_send()
            && !self.exhausted
            && self.window.len() < PIECES_IN_FLIGHT
            && self.window_bytes < FULL_PIECES_IN_FLIGHT * limits.bytes as u64
    }

    /// Makes the next piece; gives its length, bytes. `None` at the end of the image.
    pub(super) fn make_piece(&mut self, limits: PieceLimits, now: Ticks) -> Option<u64> {
        if self.window.is_empty() {
            self.moved_at = now; // nothing was under way that could have moved
        }
        let Some(piece) = self.stream.next_piece(limits.objects, limits.bytes) else {
            self.exhausted = true;
            return None;
        };
        let bytes = piece.len() as u64;
        self.window_bytes += bytes;
        self.window.push_back(piece);
        Some(bytes)
    }

    /// The next piece for the link, of those that are made.
    pub(super) fn take_unsent(&mut self) -> Option<ImagePiece> {
        if !self.has_unsent() {
            return None;
        }
        let number = self.next;
        let bytes = Payload::clone(self.window.get((number - self.confirmed) as usize)?);
        self.next += 1;
        let head = (number == 0).then(|| Box::new(self.head.clone()));
        Some(ImagePiece { id: self.id, number, total_bytes: self.total_bytes(), head, bytes })
    }

    /// The other end holds the first `pieces` of the image.
    pub(super) fn receiver_holds(&mut self, pieces: u64, now: Ticks) -> Word {
        if self.cut_at.is_some() || pieces > self.confirmed + self.window.len() as u64 {
            return Word::Nothing;
        }
        if pieces < self.confirmed {
            // A word repeated late looks like that too; one that holds nothing says so only then.
            let certain = pieces == 0 || self.asked >= ASKS_UNTIL_BELIEVED;
            return if certain { Word::Forgotten } else { Word::Nothing };
        }
        let resumed = self.awaits_word && pieces > 0;
        if pieces == self.confirmed && !self.awaits_word {
            return Word::Nothing;
        }
        while self.confirmed < pieces {
            let Some(piece) = self.window.pop_front() else { break };
            self.window_bytes -= piece.len() as u64;
            self.confirmed_bytes += piece.len() as u64;
            self.confirmed += 1;
        }
        self.next = if self.awaits_word { self.confirmed } else { self.next.max(self.confirmed) };
        self.awaits_word = false;
        self.moved_at = now;
        self.asked = 0;
        Word::GoOn { resumed }
    }

    /// Whether to tell the application now: the last word always, others now and then.
    pub(super) fn is_news(&mut self, now: Ticks) -> bool {
        let due = self.said_at.is_none_or(|said_at| now >= said_at + EVENT_EVERY_MS);
        if due || self.is_confirmed() {
            self.said_at = Some(now);
            return true;
        }
        false
    }

    /// The link broke: what is not confirmed may be lost.
    pub(super) fn cut(&mut self, now: Ticks) {
        self.cut_at = Some(now);
    }

    /// The link is back. The other end is to be asked what it holds.
    pub(super) fn linked_again(&mut self, now: Ticks) {
        self.cut_at = None;
        self.awaits_word = true;
        self.moved_at = now;
        self.asked = 0;
    }

    /// When [`Sending::due`] is to be looked at.
    pub(super) fn due_at(&self) -> Ticks {
        match self.cut_at {
            Some(cut_at) => cut_at + KEEP_MS,
            None if !self.awaits_word && !self.exhausted && self.window.is_empty() => NEVER,
            None => self.moved_at + (ASK_AFTER_MS << self.asked.min(ASK_SHIFT_MAX)),
        }
    }

    /// What is to be done by now. Who is asked gets again what it did not confirm.
    pub(super) fn due(&mut self, now: Ticks) -> Due {
        if now < self.due_at() {
            return Due::Nothing;
        }
        if self.cut_at.is_some() {
            return Due::Forget;
        }
        if self.asked >= ASKS_MAX {
            return Due::Restart;
        }
        self.asked += 1;
        self.moved_at = now;
        self.next = self.confirmed;
        Due::Ask
    }
}
