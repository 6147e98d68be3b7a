//! What the real transport does, on simulated streams: handshakes, frames, breaks.
//!
//! Its rules are those of the real one: of two nodes the higher id dials; frames carry the epoch of
//! their connection; whatever is wrong with a frame ends that link; a second process under a node's
//! id is refused while the first is heard from. Frames, stamps and messages are the real code.
//!
//! In the *harsh* mode of some seeds every frame travels alone, may be lost although the link
//! stays, repeated, or delivered after the link broke: worse than TCP on purpose.

use quorate_cluster::replica::{Channel, Input, PeerMessage};
use quorate_cluster::wire::{
    FrameWriter, Incoming, Kind, PAYLOAD_BYTES_MAX, Stamp, decode, encode,
};
use quorate_consensus::Identity;

use crate::bugs::Planted;
use crate::judging::Place;
use crate::network::{LinkId, Path, Segment};
use crate::world::{Event, World};

/// A link as one of its ends sees it.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) peer: Identity,
    pub(crate) slot: usize,
    pub(crate) link: LinkId,
    /// When bytes arrived last.
    heard: u64,
    incoming: [Incoming; 3],
    tainted: [bool; 3],
}

/// A process heard from within this time keeps others from taking its place, ms.
const ALIVE_MS: u64 = 300;

/// How long after a refusal a process dials again, ms.
const REDIAL_MS: u64 = 50;

fn slot_of(channel: Channel) -> usize {
    match channel {
        Channel::Control => 0,
        Channel::Bulk => 1,
        Channel::State => 2,
    }
}

/// The bits that both sides agreed on for a connection: any that differ will do.
fn connection_epoch(link: LinkId, channel: Channel) -> u64 {
    ((link << 8) | (slot_of(channel) as u64 + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl End {
    fn new(peer: Identity, slot: usize, link: LinkId, now: u64) -> Self {
        let (incoming, tainted) = (Default::default(), [false; 3]);
        Self { peer, slot, link, heard: now, incoming, tainted }
    }

    /// Takes bytes in: the messages they complete, and what is wrong with them.
    fn read(
        &mut self,
        channel: Channel,
        segment: &Segment,
        stamp: Stamp,
        bug: Option<Planted>,
    ) -> Result<(Vec<PeerMessage>, Option<String>), String> {
        let at = slot_of(channel);
        self.tainted[at] |= segment.tainted;
        self.incoming[at].feed(&segment.bytes);
        let mut messages = Vec::new();
        let wrong = loop {
            let (header, payload) = match self.incoming[at].next_frame(PAYLOAD_BYTES_MAX) {
                Ok(Some(frame)) => frame,
                Ok(None) => break None,
                Err(error) => break Some(error.to_string()),
            };
            let ours = Stamp { connection_epoch: connection_epoch(self.link, channel), ..stamp };
            let careless = bug == Some(Planted::OldConnectionAccepted);
            match header.stamp.check(ours, true) {
                Err(error) if !careless => break Some(error.to_string()),
                _ => {}
            }
            match decode(payload) {
                Ok(message) => messages.push(message),
                Err(error) => break Some(error.to_string()),
            }
            if self.tainted[at] {
                return Err(format!("damaged or old bytes became {:?}", messages.last()));
            }
        };
        Ok((messages, wrong))
    }
}

/// The frame of a message.
fn framed(message: &PeerMessage, stamp: Stamp) -> Vec<u8> {
    let mut frame = FrameWriter::new();
    encode(message, &mut frame);
    let parts = frame.finish(Kind::Message, stamp).expect("messages fit into frames");
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.as_slice().len()).sum());
    parts.iter().for_each(|part| bytes.extend_from_slice(part.as_slice()));
    bytes
}

impl World {
    /// One process dials another, or tries to.
    pub(crate) fn connect(&mut self, a: usize, b: usize) -> Result<(), String> {
        // An address is dialled, not a process: whoever of the node is there gets the call.
        let (a, b) = (self.of_node_there(a), self.of_node_there(b));
        let (low, high) = (self.node_of(a), self.node_of(b));
        let (dialled, dialler) = if low < high { (a, b) } else { (b, a) };
        if low == high || !self.is_there(a) || !self.is_there(b) {
            return Ok(());
        }
        // Whoever listens at a node's address is the one that was there first.
        let is_double = dialled != self.node_of(dialled);
        if is_double && self.nodes[self.node_of(dialled)].is_some() {
            return Ok(());
        }
        let walled = self.network.is_walled(a, b) || self.network.is_walled(b, a);
        let (to, from) = (self.node_of(dialled), self.node_of(dialler));
        let paused = [a, b].iter().any(|slot| self.is_paused(*slot));
        let process = self.nodes[dialler].as_ref().expect("up");
        if walled || paused || process.up.contains_key(&to) {
            return Ok(()); // it dials again when a wall falls or its link breaks
        }
        if process.places.get(to) != Some(&Place::Listed) {
            return Ok(()); // it knows nobody there
        }
        let identity = process.identity;
        if !self.is_welcome(dialled, dialler)? {
            return Ok(());
        }
        let there = self.nodes[dialled].as_ref().expect("up");
        if let Some(end) = there.up.get(&from).filter(|end| end.peer != identity) {
            if self.is_heard(dialled, end) {
                self.report.doubles_refused += 1;
                self.note(|| format!("{identity:?} is refused by {dialled}: a duplicate"));
                self.after(REDIAL_MS, Event::Connect { a, b });
                return Ok(());
            }
            let slot = end.slot;
            self.report.doubles_let_in += u64::from(dialler != slot);
            self.break_link(dialled, slot, 3);
        }
        self.network.disconnect(a, b); // the dialler knows better if it takes it for broken
        let link = self.network.connect(a, b);
        self.replay_old(link, a, b);
        self.link_up(dialled, dialler, link)?;
        self.link_up(dialler, dialled, link)
    }

    fn is_there(&self, slot: usize) -> bool {
        self.nodes[slot].as_ref().is_some_and(|process| !process.ended)
    }

    /// The slot, or that of its node's other process if only that one is there.
    fn of_node_there(&self, slot: usize) -> usize {
        let half = self.nodes.len() / 2;
        let other = (slot + half) % self.nodes.len();
        if !self.is_there(slot) && self.is_there(other) { other } else { slot }
    }

    /// Whether a process would have heard from the other end by now, by pings at least.
    fn is_heard(&self, slot: usize, end: &End) -> bool {
        let reaches = self.nodes[end.slot].as_ref().is_some_and(|p| p.identity == end.peer)
            && self.network.is_up(end.link)
            && !self.is_paused(end.slot)
            && !self.network.is_walled(end.slot, slot);
        reaches || self.now < end.heard + ALIVE_MS
    }

    /// Bytes of an older connection arrive on the new one, at its beginning.
    fn replay_old(&mut self, link: LinkId, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            for channel in Channel::ALL {
                if !self.rng.chance(self.mix.replay) || self.spared(from, to) {
                    continue;
                }
                let Some(bytes) = self.network.remembered(from, to, channel) else { continue };
                self.report.replays += 1;
                self.note(|| format!("old bytes {from} -> {to} on {channel:?}"));
                self.put((link, from, channel), Segment { bytes, tainted: true }, 0);
            }
        }
    }

    fn link_up(&mut self, slot: usize, peer: usize, link: LinkId) -> Result<(), String> {
        let Some(identity) = self.nodes[peer].as_ref().map(|p| p.identity) else { return Ok(()) };
        let (now, node) = (self.now, self.node_of(peer));
        let Some(process) = self.nodes[slot].as_mut() else { return Ok(()) };
        if let Some(old) = process.up.insert(node, End::new(identity, peer, link, now)) {
            self.network.forget(old.link);
            self.step(slot, Input::PeerDown { peer: old.peer })?;
        }
        self.step(slot, Input::PeerUp { peer: identity })
    }

    /// An end notices that its link broke.
    pub(crate) fn link_down(
        &mut self,
        slot: usize,
        peer: usize,
        link: LinkId,
    ) -> Result<(), String> {
        let node = self.node_of(peer);
        let Some(process) = &mut self.nodes[slot] else { return Ok(()) };
        if process.up.get(&node).is_none_or(|end| end.link != link) {
            return Ok(());
        }
        let end = process.up.remove(&node).expect("looked at just now");
        self.report.cut_bytes += self.network.forget(link) as u64;
        let wait = self.rng.between(1, 30);
        self.after(wait, Event::Connect { a: slot, b: peer });
        self.step(slot, Input::PeerDown { peer: end.peer })
    }

    /// The link breaks now; each end notices within the limit, but for one that is left half open.
    pub(crate) fn break_link(&mut self, a: usize, b: usize, notice_ms: u64) {
        let Some(link) = self.network.disconnect(a, b) else { return };
        self.transfers_cut(a, b);
        let half_open = self.rng.chance(self.mix.half_open) && !self.spared(a, b);
        let late = if half_open { self.rng.below(2) } else { 2 };
        self.report.half_open += u64::from(half_open);
        for (at, (slot, peer)) in [(a, b), (b, a)].into_iter().enumerate() {
            let limit = if at as u64 == late { crate::faults::SILENCE_MS } else { notice_ms };
            let wait = self.rng.below(limit);
            self.after(wait, Event::LinkDown { slot, peer, link });
        }
        let wait = self.rng.between(1, 30);
        self.after(wait, Event::Connect { a, b });
    }

    pub(crate) fn send(&mut self, slot: usize, to: Identity, message: &PeerMessage) {
        let Some(process) = &self.nodes[slot] else { return };
        let from = process.identity;
        let Some(end) = process.up.get(&(to.node.0 as usize)) else { return };
        assert_eq!(end.peer, to, "sent to an incarnation that is not linked");
        let (link, peer, channel) = (end.link, end.slot, message.channel());
        let connection_epoch = connection_epoch(link, channel);
        let frame = framed(message, Stamp { connection_epoch, ..process.stamp });
        self.note_transfer(slot, peer, message);
        if self.mix.harsh {
            return self.send_harshly((from, slot), (to, peer), (link, channel), message, frame);
        }
        if self.mix.replay > 0 {
            self.network.remember(slot, peer, channel, &frame);
        }
        let path = (link, slot, channel);
        for mut segment in self.cut_up(frame) {
            if self.rng.chance(self.mix.corrupt) && !self.spared(slot, peer) {
                let bit = self.rng.below(8 * segment.bytes.len() as u64);
                segment.bytes[bit as usize / 8] ^= 1 << (bit % 8);
                segment.tainted = true;
                self.report.corrupted += 1;
                self.note(|| format!("bit {bit} flips {slot} -> {peer} on {channel:?}"));
            }
            let delay = self.network.delay(&mut self.rng, &self.mix, self.now, (slot, peer));
            self.put(path, segment, delay);
        }
    }

    fn cut_up(&mut self, mut frame: Vec<u8>) -> Vec<Segment> {
        let mut segments = Vec::with_capacity(1);
        while frame.len() > 1 && self.rng.chance(self.mix.split) {
            let at = self.rng.between(1, frame.len() as u64 - 1) as usize;
            let rest = frame.split_off(at);
            segments.push(Segment { bytes: std::mem::replace(&mut frame, rest), tainted: false });
        }
        segments.push(Segment { bytes: frame, tainted: false });
        segments
    }

    fn put(&mut self, path: Path, segment: Segment, delay: u64) {
        self.report.segments += 1;
        if let Some(at) = self.network.push(path, segment, self.now + delay) {
            self.at(at, Event::Arrive { path });
        }
    }

    /// The next bytes of a stream arrive.
    pub(crate) fn arrive(&mut self, path: Path) -> Result<(), String> {
        let (link, from, channel) = path;
        let Some(to) = self.network.other_end(link, from) else { return Ok(()) };
        if self.network.is_walled(from, to) {
            self.network.hold(path);
            return Ok(());
        }
        if self.is_paused(to) {
            let at = self.nodes[to].as_ref().map_or(self.now, |process| process.paused_until);
            self.at(at, Event::Arrive { path });
            return Ok(());
        }
        let Some(segment) = self.network.pop(path) else { return Ok(()) };
        let (now, node, bug) = (self.now, self.node_of(from), self.bug());
        let Some(process) = &mut self.nodes[to] else { return Ok(()) };
        let Some(end) = process.up.get_mut(&node).filter(|end| end.link == link) else {
            return Ok(());
        };
        end.heard = now;
        let peer = end.peer;
        let (messages, wrong) = end.read(channel, &segment, process.stamp, bug)?;
        for message in messages {
            let still = self.nodes[to].as_ref().and_then(|process| process.up.get(&node));
            if still.is_none_or(|end| end.link != link) {
                break;
            }
            self.receive(to, peer, message)?;
        }
        if let Some(wrong) = wrong {
            if !segment.tainted && !self.was_tainted(to, node, channel) {
                return Err(format!("{to} cannot read what {from} sent: {wrong}"));
            }
            self.report.links_ended += 1;
            self.note(|| format!("{to} ends its link to {from}: {wrong}"));
            self.break_link(to, from, 3);
            self.link_down(to, from, link)?; // whoever finds it closes the connection at once
        }
        Ok(())
    }

    fn was_tainted(&self, slot: usize, node: usize, channel: Channel) -> bool {
        let end = self.nodes[slot].as_ref().and_then(|process| process.up.get(&node));
        end.is_some_and(|end| end.tainted[slot_of(channel)])
    }

    fn receive(&mut self, slot: usize, from: Identity, message: PeerMessage) -> Result<(), String> {
        self.note(|| format!("{from:?} -> {slot} {message:?}"));
        self.step(slot, Input::Receive { from, message })
    }

    /// One frame, alone: lost, once, or twice.
    fn send_harshly(
        &mut self,
        (from, slot): (Identity, usize),
        (to, peer): (Identity, usize),
        (link, channel): (LinkId, Channel),
        message: &PeerMessage,
        frame: Vec<u8>,
    ) {
        let gone = !self.network.is_up(link) || self.network.is_walled(slot, peer);
        if gone || self.rng.chance(self.mix.loss) {
            self.report.odd_messages += 1;
            return;
        }
        assert_eq!(decode_alone(&frame).as_ref(), Some(message), "encoded and decoded");
        let delay = self.network.delay(&mut self.rng, &self.mix, self.now, (slot, peer));
        let nothing = Segment { bytes: Vec::new(), tainted: false };
        let path = (link, slot, channel);
        let Some(at) = self.network.push(path, nothing, self.now + delay) else { return };
        self.network.pop(path);
        let mut arrivals = vec![at];
        if self.rng.chance(self.mix.repeat) {
            self.report.odd_messages += 1;
            arrivals.push(self.now + self.rng.below(20 * self.mix.delay_ms + 1));
        }
        for at in arrivals {
            let ghost = self.rng.chance(self.mix.ghost);
            let frame = frame.clone();
            self.at(at, Event::Frame { from, to, slot: peer, link, ghost, frame });
        }
    }

    pub(crate) fn frame(&mut self, event: Event) -> Result<(), String> {
        let Event::Frame { from, to, slot, link, ghost, frame } = event else { return Ok(()) };
        let Some(process) = &self.nodes[slot] else { return Ok(()) };
        if process.paused_until > self.now {
            let at = process.paused_until;
            self.at(at, Event::Frame { from, to, slot, link, ghost, frame });
            return Ok(());
        }
        let end = process.up.get(&(from.node.0 as usize));
        let known = end.is_some_and(|end| end.link == link);
        if process.identity != to || (!known && !ghost) {
            return Ok(());
        }
        self.report.odd_messages += u64::from(!known);
        let message = decode_alone(&frame).ok_or("a frame that was good when it was sent")?;
        self.receive(slot, from, message)
    }
}

fn decode_alone(frame: &[u8]) -> Option<PeerMessage> {
    let mut incoming = Incoming::new();
    incoming.feed(frame);
    let (_, payload) = incoming.next_frame(PAYLOAD_BYTES_MAX).ok()??;
    decode(payload).ok()
}
