//! The link to one peer: connections, one a channel, that live and die together.
//!
//! A link is *up* from the moment all channels are welcomed by the same life of the same process
//! until any breaks. Of two nodes the one with the higher id dials; so there is never a choice
//! between two links.

use std::io;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;

use mio::Token;
use quorate_consensus::{Identity, Ticks};

use super::nodes::Claim;
use super::socket::{Target, resolve};
use crate::address::Address;
use crate::error::RejectReason;
use crate::replica::Channel;

/// The pause before the first attempt after a break, ms; it doubles up to the configured interval.
const FIRST_PAUSE_MS: Ticks = 20;

/// How often a pending name resolution is looked at, ms.
const RESOLVE_POLL_MS: Ticks = 10;

/// How many connections make a link.
const CHANNELS: usize = Channel::ALL.len();

/// Whether a node is listed, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is not: nothing is known of it.
    Unlisted,
    /// It listens there.
    At(Address),
    /// It was removed.
    Removed,
}

/// The link to one peer.
///
/// Invariants: `up` only with all channels `open`; `peer` is known while any channel is open.
#[derive(Debug)]
pub(super) struct Link {
    /// Whether this side dials.
    pub(super) dials: bool,
    /// Where the node is.
    pub(super) place: Place,
    /// The connections, by channel, from the moment they belong to the link.
    pub(super) tokens: [Option<Token>; CHANNELS],
    /// Which of them are welcomed.
    pub(super) open: [bool; CHANNELS],
    /// Who is at the other end: identity and nonce.
    pub(super) peer: Option<(Identity, u128)>,
    /// Whether messages flow.
    pub(super) up: bool,
    /// When its first connection came.
    pub(super) since: Ticks,
    /// The last refusal, by either side; forgotten when the link comes up.
    pub(super) refusal: Option<RejectReason>,
    /// Who else claims the node's id.
    pub(super) claim: Claim,
    /// When to dial next, if this side dials and no connection is there.
    pub(super) dial_at: Ticks,
    pause_ms: Ticks,
    attempts: usize,
    resolving: Option<Receiver<io::Result<Vec<Target>>>>,
}

/// The place of a channel in a link's arrays.
pub(super) fn slot(channel: Channel) -> usize {
    match channel {
        Channel::Control => 0,
        Channel::Bulk => 1,
        Channel::State => 2,
    }
}

impl Link {
    pub(super) fn new(dials: bool, now: Ticks) -> Self {
        Self {
            dials,
            place: Place::Unlisted,
            tokens: [None; CHANNELS],
            open: [false; CHANNELS],
            peer: None,
            up: false,
            since: now,
            refusal: None,
            claim: Claim::default(),
            dial_at: now,
            pause_ms: FIRST_PAUSE_MS,
            attempts: 0,
            resolving: None,
        }
    }

    /// The node is somewhere else from now on. What is known of the old place is forgotten, but for
    /// the connections.
    pub(super) fn move_to(&mut self, place: Place, now: Ticks) {
        if self.place == place {
            return;
        }
        self.place = place;
        self.refusal = None;
        self.resolving = None;
        self.pause_ms = FIRST_PAUSE_MS;
        self.dial_at = now;
    }

    /// When to dial next; `None` if nothing is to be dialled.
    pub(super) fn next_dial(&self) -> Option<Ticks> {
        let dials = self.dials && self.is_idle() && matches!(self.place, Place::At(_));
        dials.then_some(self.dial_at)
    }

    /// True if no connection belongs to the link.
    pub(super) fn is_idle(&self) -> bool {
        self.tokens == [None; CHANNELS]
    }

    /// A channel was welcomed by `peer`. True if the link came up by it.
    pub(super) fn opened(&mut self, channel: Channel, peer: (Identity, u128)) -> bool {
        assert!(self.peer.is_none_or(|known| known == peer), "a link to two processes");
        self.peer = Some(peer);
        self.open[slot(channel)] = true;
        self.up = self.open == [true; CHANNELS];
        if self.up {
            self.refusal = None;
            self.pause_ms = FIRST_PAUSE_MS;
        }
        self.up
    }

    /// Forgets the connections and plans the next attempt: soon after a break, with growing pauses
    /// after failures. The caller closes the connections returned.
    pub(super) fn reset(&mut self, now: Ticks, interval_ms: Ticks) -> [Option<Token>; CHANNELS] {
        self.open = [false; CHANNELS];
        self.up = false;
        self.peer = None;
        let pause = if self.refusal.is_some() { interval_ms } else { self.pause_ms };
        self.dial_at = now + pause.min(interval_ms);
        self.pause_ms = (2 * self.pause_ms).min(interval_ms.max(FIRST_PAUSE_MS));
        std::mem::take(&mut self.tokens)
    }

    /// Where to dial now, if it is time to and the name is resolved. Names are resolved on a thread
    /// of their own, since a name server may take its time.
    pub(super) fn target(&mut self, now: Ticks) -> Option<Target> {
        if self.next_dial().is_none_or(|dial_at| now < dial_at) {
            return None;
        }
        let Place::At(address) = &self.place else { return None };
        let Address::Name(..) = address else {
            return resolve(address).ok().and_then(|targets| targets.into_iter().next());
        };
        let Some(pending) = &self.resolving else {
            let (sender, receiver) = sync_channel(1);
            let address = address.clone();
            let ask = move || {
                let _ = sender.send(resolve(&address)); // the link may be gone
            };
            // Without a thread the sender is gone, which the next look takes for a failure.
            let _ = thread::Builder::new().name("quorate-resolve".into()).spawn(ask);
            self.resolving = Some(receiver);
            self.dial_at = now + RESOLVE_POLL_MS;
            return None;
        };
        let resolved = match pending.try_recv() {
            Err(TryRecvError::Empty) => {
                self.dial_at = now + RESOLVE_POLL_MS;
                return None;
            }
            Err(TryRecvError::Disconnected) => Err(io::ErrorKind::NotFound.into()),
            Ok(resolved) => resolved,
        };
        self.resolving = None;
        self.attempts += 1;
        match resolved {
            // A name may lead to several addresses of which the node listens on one.
            Ok(targets) if !targets.is_empty() => {
                Some(targets[self.attempts % targets.len()].clone())
            }
            _ => {
                self.dial_at = now + self.pause_ms;
                None
            }
        }
    }
}
