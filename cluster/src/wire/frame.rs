//! Frames: what a connection carries, and how they are told apart.
//!
//! ```text
//! offset bytes
//!      0     4  length of the payload
//!      4     1  kind
//!      5     1  flags, 0
//!      6     2  protocol version
//!      8    16  cluster id, 0 while the sender has none
//!     24    16  epoch of the cluster: counter, random bits
//!     40     8  connection epoch: bits agreed on in the handshake, 0 before
//!     48     4  crc32c of bytes 0 to 47
//!     52     4  crc32c of bytes 0 to 47 and of the payload
//!     56        payload
//! ```
//!
//! The header has a checksum of its own because of the length: a damaged one would make the
//! receiver wait for megabytes that never come, while all that does come keeps the connection
//! alive.
//!
//! Everything is little-endian. The length is compared with a limit before anything is kept for it,
//! and a buffer grows only as bytes really arrive: a header alone costs its receiver nothing.
//! What a payload means is not known here.

use std::io::IoSlice;
use std::sync::Arc;

use quorate_schema::bytes::{Reader, Writer};
use thiserror::Error;

use crate::epoch::Epoch;

/// The version of the protocol that this program speaks best.
pub const VERSION: u16 = 1;

/// The oldest version of the protocol that this program speaks.
pub const VERSION_MIN: u16 = 1;

/// Length of a frame's header, bytes.
pub const HEADER_BYTES: usize = 56;

/// The longest payload once the handshake is done, bytes.
pub const PAYLOAD_BYTES_MAX: usize = 128 << 20;

/// The longest payload before the handshake is done, bytes.
pub const HANDSHAKE_BYTES_MAX: usize = 64 << 10;

/// From this size on bytes that are shared are not copied into the frame.
const SHARE_FROM_BYTES: usize = 16 << 10;

/// An idle connection keeps at most this much memory for what arrives next.
const KEEP_BYTES: usize = 1 << 20;

/// Offset of the checksums in the header.
const CHECKSUM_AT: usize = 48;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A [`Hello`](super::Hello).
    Hello,
    /// A [`Welcome`](super::Welcome).
    Welcome,
    /// A [`RejectReason`](crate::RejectReason).
    Reject,
    /// Nothing: the sender is there.
    Ping,
    /// A [`PeerMessage`](crate::replica::PeerMessage).
    Message,
    /// Nothing: another process claims the receiver's node id.
    Duplicate,
    /// An [`AdminHello`](super::AdminHello).
    AdminHello,
    /// An [`AdminWelcome`](super::AdminWelcome).
    AdminWelcome,
    /// An [`AdminRequest`](crate::AdminRequest).
    AdminRequest,
    /// An [`AdminAnswer`](crate::AdminAnswer).
    AdminAnswer,
}

/// What is said in every frame of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The sender's cluster, 0 while it has none.
    pub cluster_id: u128,
    /// The cluster's epoch.
    pub epoch: Epoch,
    /// The bits both sides agreed on for this connection, 0 before.
    pub connection_epoch: u64,
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Length of the payload, bytes.
    pub length: usize,
    /// What the payload is.
    pub kind: Kind,
    /// What the sender says of itself.
    pub stamp: Stamp,
    /// The checksum it claims.
    checksum: u32,
}

/// Why bytes are not a frame. The connection cannot be read any further and is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The length is beyond the limit.
    #[error("a frame of {length} bytes where at most {limit} are allowed")]
    TooLong {
        /// The length claimed.
        length: usize,
        /// The limit now.
        limit: usize,
    },
    /// No such kind.
    #[error("no frame is of kind {kind}")]
    UnknownKind {
        /// The kind claimed.
        kind: u8,
    },
    /// Flags that this version does not know.
    #[error("flags {flags:#04x} are unknown")]
    UnknownFlags {
        /// The flags.
        flags: u8,
    },
    /// Another version of the protocol.
    #[error("protocol version {version} is not spoken here")]
    UnknownVersion {
        /// The version claimed.
        version: u16,
    },
    /// The bytes changed on their way.
    #[error("the checksum does not match")]
    Checksum,
}

impl Kind {
    const ALL: [Kind; 10] = [
        Kind::Hello,
        Kind::Welcome,
        Kind::Reject,
        Kind::Ping,
        Kind::Message,
        Kind::AdminHello,
        Kind::AdminWelcome,
        Kind::AdminRequest,
        Kind::AdminAnswer,
        Kind::Duplicate,
    ];

    fn code(self) -> u8 {
        match self {
            Kind::Hello => 1,
            Kind::Welcome => 2,
            Kind::Reject => 3,
            Kind::Ping => 4,
            Kind::Message => 5,
            Kind::AdminHello => 6,
            Kind::AdminWelcome => 7,
            Kind::AdminRequest => 8,
            Kind::AdminAnswer => 9,
            Kind::Duplicate => 10,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Kind::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// True if it carries the versions on offer, or comes before one is agreed on: then every
    /// version can read it.
    fn is_handshake(self) -> bool {
        matches!(
            self,
            Kind::Hello | Kind::Welcome | Kind::Reject | Kind::AdminHello | Kind::AdminWelcome
        )
    }
}

impl Header {
    /// Reads a header and checks what can be checked without the payload.
    pub fn decode(bytes: &[u8; HEADER_BYTES], limit: usize) -> Result<Self, FrameError> {
        let mut reader = Reader::new(bytes);
        let enough = "a header has all its fields";
        let length = reader.u32().expect(enough) as usize;
        let kind = reader.u8().expect(enough);
        let flags = reader.u8().expect(enough);
        let version = reader.u16().expect(enough);
        let cluster_id = reader.u128().expect(enough);
        let counter = reader.u64().expect(enough);
        let bits = reader.u64().expect(enough);
        let epoch = Epoch { counter, bits };
        let connection_epoch = reader.u64().expect(enough);
        let own_checksum = reader.u32().expect(enough);
        let checksum = reader.u32().expect(enough);
        if length > limit {
            return Err(FrameError::TooLong { length, limit });
        }
        if own_checksum != crc32c::crc32c(&bytes[..CHECKSUM_AT]) {
            return Err(FrameError::Checksum);
        }
        let kind = Kind::from_code(kind).ok_or(FrameError::UnknownKind { kind })?;
        if flags != 0 {
            return Err(FrameError::UnknownFlags { flags });
        }
        if !kind.is_handshake() && !(VERSION_MIN..=VERSION).contains(&version) {
            return Err(FrameError::UnknownVersion { version });
        }
        let stamp = Stamp { cluster_id, epoch, connection_epoch };
        Ok(Self { length, kind, stamp, checksum })
    }
}

/// Bytes of a frame, or of several: either its own or shared with other frames.
#[derive(Clone, Debug)]
pub enum Part {
    /// Belongs to this frame alone.
    Own(Vec<u8>),
    /// Shared: a window is encoded once, whomever it goes to.
    Shared(Arc<[u8]>),
}

impl Part {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Part::Own(bytes) => bytes,
            Part::Shared(bytes) => bytes,
        }
    }
}

/// Builds one frame; big shared byte strings are referred to, not copied.
#[derive(Debug)]
pub struct FrameWriter {
    done: Vec<Part>,
    done_bytes: usize,
    open: Writer,
}

impl Default for FrameWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameWriter {
    /// A frame with nothing in it yet.
    pub fn new() -> Self {
        let mut open = Writer::with_capacity(HEADER_BYTES + 128);
        open.raw(&[0; HEADER_BYTES]);
        Self { done: Vec::new(), done_bytes: 0, open }
    }

    /// Where small values are written.
    pub fn writer(&mut self) -> &mut Writer {
        &mut self.open
    }

    /// Appends a length of four bytes and the bytes, shared if they are many.
    pub fn shared(&mut self, bytes: &Arc<[u8]>) {
        if bytes.len() < SHARE_FROM_BYTES {
            self.open.bytes(bytes);
            return;
        }
        let length = u32::try_from(bytes.len()).expect("byte strings are limited below 4 GiB");
        self.open.u32(length);
        let own = std::mem::take(&mut self.open).finish();
        self.done_bytes += own.len() + bytes.len();
        self.done.push(Part::Own(own));
        self.done.push(Part::Shared(Arc::clone(bytes)));
    }

    /// Length of the payload so far, bytes.
    pub fn payload_bytes(&self) -> usize {
        self.done_bytes + self.open.len() - HEADER_BYTES
    }

    /// Writes header and checksum: the frame, in pieces to be sent one after another.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLong`] if no receiver would take it.
    pub fn finish(mut self, kind: Kind, stamp: Stamp) -> Result<Vec<Part>, FrameError> {
        let length = self.payload_bytes();
        if length > PAYLOAD_BYTES_MAX {
            return Err(FrameError::TooLong { length, limit: PAYLOAD_BYTES_MAX });
        }
        let mut header = Writer::with_capacity(HEADER_BYTES);
        header.u32(length as u32);
        header.u8(kind.code());
        header.u8(0);
        header.u16(VERSION);
        header.u128(stamp.cluster_id);
        header.u64(stamp.epoch.counter);
        header.u64(stamp.epoch.bits);
        header.u64(stamp.connection_epoch);
        debug_assert_eq!(header.len(), CHECKSUM_AT);
        if !self.open.is_empty() {
            self.done.push(Part::Own(self.open.finish()));
        }
        let own_checksum = crc32c::crc32c(header.as_slice());
        let mut checksum = own_checksum;
        for (at, part) in self.done.iter().enumerate() {
            let skip = if at == 0 { HEADER_BYTES } else { 0 };
            checksum = crc32c::crc32c_append(checksum, &part.as_slice()[skip..]);
        }
        header.u32(own_checksum);
        header.u32(checksum);
        match self.done.first_mut() {
            Some(Part::Own(first)) => first[..HEADER_BYTES].copy_from_slice(header.as_slice()),
            other => unreachable!("a frame starts with its own header, not {other:?}"),
        }
        Ok(self.done)
    }
}

/// Puts frames together from bytes as they arrive.
///
/// Invariants: `taken <= bytes.len()`; what is kept is less than one frame beyond what was fed.
#[derive(Debug, Default)]
pub struct Incoming {
    bytes: Vec<u8>,
    taken: usize,
}

impl Incoming {
    /// Nothing arrived yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over bytes that arrived.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.taken == self.bytes.len() {
            self.bytes.clear();
            self.bytes.shrink_to(KEEP_BYTES);
        } else {
            self.bytes.drain(..self.taken);
        }
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame: header and payload; `None` until more bytes arrive.
    ///
    /// # Errors
    ///
    /// [`FrameError`]: what arrives on this connection makes no sense any more.
    pub fn next_frame(&mut self, limit: usize) -> Result<Option<(Header, &[u8])>, FrameError> {
        let Some(head) = self.bytes[self.taken..].first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let header = Header::decode(head, limit)?;
        let start = self.taken + HEADER_BYTES;
        let Some(payload) = self.bytes.get(start..start + header.length) else {
            return Ok(None);
        };
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&head[..CHECKSUM_AT]), payload);
        if checksum != header.checksum {
            return Err(FrameError::Checksum);
        }
        self.taken = start + header.length;
        Ok(Some((header, payload)))
    }
}

/// Frames that wait to be sent.
///
/// Invariants: `sent` is less than the length of the first part; `bytes` is the length of all
/// parts less `sent`.
#[derive(Debug, Default)]
pub struct Outgoing {
    parts: std::collections::VecDeque<Part>,
    sent: usize,
    bytes: usize,
    /// The largest frame since nothing waited.
    largest: usize,
}

/// Small frames are put together up to this size, so that one system call carries many.
const COALESCE_BYTES: usize = 64 << 10;

impl Outgoing {
    /// Nothing waits.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many bytes wait besides the largest frame: one frame of any size may always be sent, and
    /// what is queued behind it says whether the other side keeps up.
    pub fn backlog_bytes(&self) -> usize {
        self.bytes.saturating_sub(self.largest)
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Adds a frame at the end.
    pub fn push(&mut self, frame: Vec<Part>) {
        if self.parts.is_empty() {
            self.largest = 0;
        }
        let length = frame.iter().map(|part| part.as_slice().len()).sum();
        self.largest = self.largest.max(length);
        for part in frame {
            self.bytes += part.as_slice().len();
            match (self.parts.back_mut(), part) {
                (Some(Part::Own(last)), Part::Own(own))
                    if last.len() + own.len() <= COALESCE_BYTES =>
                {
                    last.extend_from_slice(&own);
                }
                (_, part) => self.parts.push_back(part),
            }
        }
    }

    /// The first bytes that wait, for one vectored write.
    pub fn slices(&self) -> Vec<IoSlice<'_>> {
        const SLICES_MAX: usize = 64;
        let mut slices = Vec::with_capacity(self.parts.len().min(SLICES_MAX));
        let mut skip = self.sent;
        for part in self.parts.iter().take(SLICES_MAX) {
            slices.push(IoSlice::new(&part.as_slice()[skip..]));
            skip = 0;
        }
        slices
    }

    /// Forgets the first `count` bytes: they were sent.
    ///
    /// # Panics
    ///
    /// If fewer were waiting.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.bytes, "sent {count} bytes of {}", self.bytes);
        self.bytes -= count;
        self.sent += count;
        while let Some(first) = self.parts.front() {
            let length = first.as_slice().len();
            if self.sent < length {
                break;
            }
            self.sent -= length;
            self.parts.pop_front();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const STAMP: Stamp =
        Stamp { cluster_id: 7, epoch: Epoch { counter: 8, bits: 10 }, connection_epoch: 9 };

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = FrameWriter::new();
        frame.writer().raw(payload);
        joined(&frame.finish(Kind::Message, STAMP).unwrap())
    }

    fn joined(parts: &[Part]) -> Vec<u8> {
        parts.iter().flat_map(|part| part.as_slice().to_vec()).collect()
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let wire: Vec<u8> = [frame(b"one"), frame(b""), frame(&[3; 300])].concat();
        for step in 1..wire.len() {
            let mut incoming = Incoming::new();
            let mut payloads = Vec::new();
            for piece in wire.chunks(step) {
                incoming.feed(piece);
                while let Some((header, payload)) = incoming.next_frame(1_000).unwrap() {
                    assert_eq!(header.stamp, STAMP);
                    payloads.push(payload.to_vec());
                }
            }
            assert_eq!(payloads, [b"one".to_vec(), Vec::new(), vec![3; 300]], "step {step}");
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let wire = frame(b"payload");
        for bit in 0..wire.len() * 8 {
            let mut damaged = wire.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let mut incoming = Incoming::new();
            incoming.feed(&damaged);
            let result = incoming.next_frame(1_000).map(|frame| frame.is_some());
            assert!(result != Ok(true), "bit {bit} went unnoticed");
        }
    }

    #[test]
    fn a_damaged_header_is_noticed_before_the_payload_is_there() {
        let wire = frame(&[7; 100]);
        // All but the checksum that speaks of the payload too.
        for bit in 0..(HEADER_BYTES - 4) * 8 {
            let mut head = wire[..HEADER_BYTES].to_vec();
            head[bit / 8] ^= 1 << (bit % 8);
            let mut incoming = Incoming::new();
            incoming.feed(&head);
            let result = incoming.next_frame(PAYLOAD_BYTES_MAX);
            assert!(result.is_err(), "bit {bit} makes the receiver wait");
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_by_its_header_alone() {
        let mut wire = frame(b"");
        wire[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut incoming = Incoming::new();
        incoming.feed(&wire);
        let (length, limit) = (u32::MAX as usize, PAYLOAD_BYTES_MAX);
        assert_eq!(incoming.next_frame(limit).unwrap_err(), FrameError::TooLong { length, limit });
    }

    #[test]
    fn a_frame_that_nobody_would_take_is_not_sent() {
        let half: Arc<[u8]> = vec![0; PAYLOAD_BYTES_MAX / 2 + 1].into();
        let mut frame = FrameWriter::new();
        frame.shared(&half);
        frame.shared(&half);
        let error = frame.finish(Kind::Message, STAMP).unwrap_err();
        assert!(matches!(error, FrameError::TooLong { .. }));
    }

    #[test]
    fn what_is_shared_is_sent_in_place_and_what_is_small_is_put_together() {
        let big: Arc<[u8]> = (0..100_000u32).map(|i| i as u8).collect();
        let mut outgoing = Outgoing::new();
        let mut expected = Vec::new();
        for _ in 0..3 {
            let mut frame = FrameWriter::new();
            frame.writer().u8(1);
            frame.shared(&big);
            frame.writer().u8(2);
            frame.shared(&big);
            let parts = frame.finish(Kind::Message, STAMP).unwrap();
            expected.extend(joined(&parts));
            outgoing.push(parts);
        }
        // Of each frame: head, shared, middle, shared; no tail.
        assert_eq!(outgoing.slices().len(), 12);
        for step in [1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 1, 99_999] {
            let mut rest = Outgoing { parts: outgoing.parts.clone(), ..Outgoing::new() };
            rest.bytes = outgoing.bytes;
            let mut sent = Vec::new();
            while !rest.is_empty() {
                let all: Vec<u8> = rest.slices().iter().flat_map(|slice| slice.to_vec()).collect();
                let count = step.max(rest.bytes() / 7).min(all.len());
                sent.extend_from_slice(&all[..count]);
                rest.advance(count);
            }
            assert!(sent == expected, "step {step}");
            assert_eq!(rest.bytes(), 0);
        }
        for _ in 0..10 {
            outgoing.push(vec![Part::Own(frame(b"small"))]);
        }
        assert_eq!(outgoing.slices().len(), 13);
    }
}
