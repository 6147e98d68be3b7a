//! The bytes of [`PeerMessage`].
//!
//! Decoding is total: whatever a peer sends gives a message or [`Malformed`], and nothing is
//! allocated for a count or a length before it is known to fit what follows. What can be checked
//! without knowing the receiver's state is checked here: configurations are valid, entries are
//! dense (their indexes are not even sent), only the first
//! piece of an image says what the image is of.

use std::ops::RangeInclusive;
use std::sync::Arc;

use quorate_consensus::{EntryIndex, Identity, Incarnation, Member, NodeId, Term};
use quorate_engine::{Index, TransactionId};
use quorate_schema::bytes::{Malformed, Reader, Writer};

use super::core;
use super::frame::FrameWriter;
use crate::epoch::Epoch;
use crate::params::NODES_MAX;
use crate::procedure::CallRequest;
use crate::replica::{
    DeclineReason, Genesis, ImageHead, ImageId, ImagePiece, PeerMessage, RefusalReason, Request,
    Roster, RosterChange, RosterError, Standing,
};

/// The most identities a list of members can hold: every node in several lives.
pub(super) const MEMBERS_MAX: usize = 8 * NODES_MAX;

/// Bytes of an encoded identity.
pub(super) const IDENTITY_BYTES: usize = 4 + 16;

/// Terms and entries, of an image for example: consensus counts no further, and an image of nothing
/// is none.
const COUNTED: RangeInclusive<u64> = 1..=(u64::MAX >> 1);

/// Appends a message to a frame.
pub fn encode(message: &PeerMessage, frame: &mut FrameWriter) {
    match message {
        PeerMessage::Core(message) => {
            frame.writer().u8(1);
            core::encode(message, frame);
        }
        PeerMessage::Standing(standing) => {
            frame.writer().u8(2);
            encode_standing(standing, frame.writer());
        }
        PeerMessage::Form(genesis) => {
            frame.writer().u8(3);
            encode_genesis(genesis, frame.writer());
        }
        PeerMessage::Promised { cluster_id } => {
            frame.writer().u8(4);
            frame.writer().u128(*cluster_id);
        }
        PeerMessage::Declined { reason } => {
            frame.writer().u8(5);
            encode_decline(*reason, frame.writer());
        }
        PeerMessage::Join => frame.writer().u8(6),
        PeerMessage::Leave => frame.writer().u8(7),
        PeerMessage::Left => frame.writer().u8(8),
        PeerMessage::Removed => frame.writer().u8(30),
        PeerMessage::Transfer { to } => {
            frame.writer().u8(31);
            frame.writer().u32(to.0);
        }
        PeerMessage::Submit { term, id, request } => {
            frame.writer().u8(9);
            frame.writer().u64(term.0);
            encode_transaction_id(id, frame.writer());
            encode_request(request, frame);
        }
        PeerMessage::Refused { id, term, reason } => {
            frame.writer().u8(10);
            encode_transaction_id(id, frame.writer());
            frame.writer().u64(term.0);
            encode_refusal(reason, frame.writer());
        }
        PeerMessage::Image(piece) => {
            frame.writer().u8(11);
            encode_piece(piece, frame);
        }
        PeerMessage::Installed { last } => encode_numbers(12, &[last.0], frame),
        PeerMessage::Goodbye => frame.writer().u8(13),
        PeerMessage::Received { image, pieces } => {
            frame.writer().u8(14);
            encode_image_id(image, frame.writer());
            frame.writer().u64(*pieces);
        }
        PeerMessage::AskImage { image } => {
            frame.writer().u8(22);
            encode_image_id(image, frame.writer());
        }
        PeerMessage::AskRead { token } => encode_numbers(20, &[*token], frame),
        PeerMessage::ReadIndex { token, index, term } => {
            encode_numbers(21, &[*token, index.0, term.0], frame);
        }
        PeerMessage::AskApplied { index } => encode_numbers(24, &[index.0], frame),
        PeerMessage::Applied { index } => encode_numbers(25, &[index.0], frame),
        PeerMessage::Digest { epoch, entry, digest } => {
            encode_digest(*epoch, *entry, *digest, frame.writer());
        }
    }
}

/// Reads a message that fills `bytes`.
///
/// # Errors
///
/// [`Malformed`]: no correct peer sends this.
pub fn decode(bytes: &[u8]) -> Result<PeerMessage, Malformed> {
    let mut reader = Reader::new(bytes);
    let message = decode_message(&mut reader)?;
    reader.finish()?;
    Ok(message)
}

fn decode_message(reader: &mut Reader<'_>) -> Result<PeerMessage, Malformed> {
    Ok(match reader.u8()? {
        1 => PeerMessage::Core(core::decode(reader)?),
        2 => PeerMessage::Standing(decode_standing(reader)?),
        3 => PeerMessage::Form(decode_genesis(reader)?),
        4 => PeerMessage::Promised { cluster_id: reader.u128()? },
        5 => match reader.u8()? {
            1 => {
                let reason = DeclineReason::NodesDiffer { node: NodeId(reader.u32()?) };
                PeerMessage::Declined { reason }
            }
            2 => PeerMessage::Declined { reason: DeclineReason::NotListed },
            _ => return Err(reader.malformed("no such reason to decline")),
        },
        6 => PeerMessage::Join,
        7 => PeerMessage::Leave,
        8 => PeerMessage::Left,
        30 => PeerMessage::Removed,
        31 => PeerMessage::Transfer { to: NodeId(reader.u32()?) },
        9 => PeerMessage::Submit {
            term: Term(reader.u64()?),
            id: decode_transaction_id(reader)?,
            request: decode_request(reader)?,
        },
        10 => PeerMessage::Refused {
            id: decode_transaction_id(reader)?,
            term: Term(reader.u64()?),
            reason: decode_refusal(reader)?,
        },
        11 => PeerMessage::Image(decode_piece(reader)?),
        12 => PeerMessage::Installed { last: EntryIndex(reader.u64()?) },
        13 => PeerMessage::Goodbye,
        14 => PeerMessage::Received { image: decode_image_id(reader)?, pieces: reader.u64()? },
        22 => PeerMessage::AskImage { image: decode_image_id(reader)? },
        20 => PeerMessage::AskRead { token: reader.u64()? },
        21 => PeerMessage::ReadIndex {
            token: reader.u64()?,
            index: EntryIndex(reader.u64()?),
            term: Term(reader.u64()?),
        },
        24 => PeerMessage::AskApplied { index: Index(reader.u64()?) },
        25 => PeerMessage::Applied { index: Index(reader.u64()?) },
        40 => {
            let (epoch, entry) = (decode_epoch(reader)?, reader.u64()?);
            if !COUNTED.contains(&entry) {
                return Err(reader.malformed("no entry has this number"));
            }
            PeerMessage::Digest { epoch, entry: EntryIndex(entry), digest: reader.u128()? }
        }
        _ => return Err(reader.malformed("no such message")),
    })
}

/// A message that is nothing but numbers.
fn encode_numbers(kind: u8, numbers: &[u64], frame: &mut FrameWriter) {
    frame.writer().u8(kind);
    for number in numbers {
        frame.writer().u64(*number);
    }
}

fn encode_digest(epoch: Epoch, entry: EntryIndex, digest: u128, writer: &mut Writer) {
    writer.u8(40);
    encode_epoch(epoch, writer);
    writer.u64(entry.0);
    writer.u128(digest);
}

fn encode_decline(reason: DeclineReason, writer: &mut Writer) {
    match reason {
        DeclineReason::NodesDiffer { node } => {
            writer.u8(1);
            writer.u32(node.0);
        }
        DeclineReason::NotListed => writer.u8(2),
    }
}

fn encode_standing(standing: &Standing, writer: &mut Writer) {
    match standing {
        Standing::Blank => writer.u8(0),
        Standing::Member(genesis, epoch) => {
            writer.u8(1);
            encode_genesis(genesis, writer);
            encode_epoch(*epoch, writer);
        }
        Standing::Joining { cluster_id } => {
            writer.u8(2);
            writer.u128(*cluster_id);
        }
    }
}

fn decode_standing(reader: &mut Reader<'_>) -> Result<Standing, Malformed> {
    Ok(match reader.u8()? {
        0 => Standing::Blank,
        1 => Standing::Member(decode_genesis(reader)?, decode_epoch(reader)?),
        2 => Standing::Joining { cluster_id: reader.u128()? },
        _ => return Err(reader.malformed("no such standing")),
    })
}

fn encode_epoch(epoch: Epoch, writer: &mut Writer) {
    writer.u64(epoch.counter);
    writer.u64(epoch.bits);
}

fn decode_epoch(reader: &mut Reader<'_>) -> Result<Epoch, Malformed> {
    Ok(Epoch { counter: reader.u64()?, bits: reader.u64()? })
}

fn encode_genesis(genesis: &Genesis, writer: &mut Writer) {
    writer.u128(genesis.cluster_id);
    encode_members(&genesis.members, writer);
    genesis.addresses.iter().for_each(|addr| writer.str(addr));
}

fn decode_genesis(reader: &mut Reader<'_>) -> Result<Genesis, Malformed> {
    let cluster_id = reader.u128()?;
    let members = decode_members(reader)?;
    if members.windows(2).any(|pair| pair[0].identity.node == pair[1].identity.node) {
        return Err(reader.malformed("a cluster begins with one life of each node"));
    }
    let mut addresses = Vec::with_capacity(members.len());
    for _ in &members {
        addresses.push(reader.str()?.to_string());
    }
    Ok(Genesis { cluster_id, members, addresses })
}

/// Appends one half of a configuration.
pub(super) fn encode_members(members: &[Member], writer: &mut Writer) {
    writer.u32(members.len() as u32);
    for member in members {
        encode_identity(&member.identity, writer);
        writer.u32(member.rank);
    }
}

/// Reads one half of a configuration: sorted, without repeats, with a rank in it.
pub(super) fn decode_members(reader: &mut Reader<'_>) -> Result<Vec<Member>, Malformed> {
    let count = reader.count(IDENTITY_BYTES + 4)?;
    if count > MEMBERS_MAX {
        return Err(reader.malformed("more members than a cluster can have"));
    }
    let mut members: Vec<Member> = Vec::with_capacity(count);
    for _ in 0..count {
        let member = Member { identity: decode_identity(reader)?, rank: reader.u32()? };
        if members.last().is_some_and(|last| last.identity >= member.identity) {
            return Err(reader.malformed("members out of order"));
        }
        members.push(member);
    }
    if members.iter().all(|member| member.rank == 0) {
        return Err(reader.malformed("members without any rank"));
    }
    Ok(members)
}

/// Appends an identity.
pub(super) fn encode_identity(identity: &Identity, writer: &mut Writer) {
    writer.u32(identity.node.0);
    writer.u128(identity.incarnation.0);
}

/// Reads an identity.
pub(super) fn decode_identity(reader: &mut Reader<'_>) -> Result<Identity, Malformed> {
    Ok(Identity { node: NodeId(reader.u32()?), incarnation: Incarnation(reader.u128()?) })
}

fn encode_transaction_id(id: &TransactionId, writer: &mut Writer) {
    writer.u128(id.origin);
    writer.u64(id.sequence);
}

fn decode_transaction_id(reader: &mut Reader<'_>) -> Result<TransactionId, Malformed> {
    Ok(TransactionId { origin: reader.u128()?, sequence: reader.u64()? })
}

fn encode_request(request: &Request, frame: &mut FrameWriter) {
    match request {
        Request::Transaction(bytes) => {
            frame.writer().u8(1);
            frame.shared(bytes);
        }
        Request::Stop => frame.writer().u8(2),
        Request::Change { low_water, change } => {
            frame.writer().u8(3);
            frame.writer().u64(*low_water);
            change.encode(frame.writer());
        }
        Request::Fence(fenced) => {
            frame.writer().u8(4);
            encode_transaction_id(fenced, frame.writer());
        }
        Request::Call(request) => {
            frame.writer().u8(5);
            request.encode(frame.writer());
        }
    }
}

fn decode_request(reader: &mut Reader<'_>) -> Result<Request, Malformed> {
    Ok(match reader.u8()? {
        1 => Request::Transaction(Arc::from(reader.bytes()?)),
        2 => Request::Stop,
        3 => Request::Change { low_water: reader.u64()?, change: RosterChange::decode(reader)? },
        4 => Request::Fence(decode_transaction_id(reader)?),
        5 => Request::Call(Arc::new(CallRequest::decode(reader)?)),
        _ => return Err(reader.malformed("no such request")),
    })
}

fn encode_refusal(reason: &RefusalReason, writer: &mut Writer) {
    match *reason {
        RefusalReason::WrongTerm => writer.u8(1),
        RefusalReason::Conflict => writer.u8(2),
        RefusalReason::SnapshotTooOld { floor } => {
            writer.u8(3);
            writer.u64(floor);
        }
        RefusalReason::SegmentFull { used_bytes, needed_bytes, allowed_bytes } => {
            writer.u8(4);
            writer.u64(used_bytes);
            writer.u64(needed_bytes);
            writer.u64(allowed_bytes);
        }
        RefusalReason::Malformed => writer.u8(5),
        RefusalReason::Roster(error) => {
            writer.u8(6);
            error.encode(writer);
        }
        RefusalReason::FencesFull => writer.u8(7),
        RefusalReason::Disputed => writer.u8(8),
    }
}

fn decode_refusal(reader: &mut Reader<'_>) -> Result<RefusalReason, Malformed> {
    Ok(match reader.u8()? {
        1 => RefusalReason::WrongTerm,
        2 => RefusalReason::Conflict,
        3 => RefusalReason::SnapshotTooOld { floor: reader.u64()? },
        4 => RefusalReason::SegmentFull {
            used_bytes: reader.u64()?,
            needed_bytes: reader.u64()?,
            allowed_bytes: reader.u64()?,
        },
        5 => RefusalReason::Malformed,
        6 => RefusalReason::Roster(RosterError::decode(reader)?),
        7 => RefusalReason::FencesFull,
        8 => RefusalReason::Disputed,
        _ => return Err(reader.malformed("no such reason to refuse")),
    })
}

fn encode_piece(piece: &ImagePiece, frame: &mut FrameWriter) {
    let writer = frame.writer();
    encode_image_id(&piece.id, writer);
    writer.u64(piece.number);
    writer.u64(piece.total_bytes);
    if let Some(head) = &piece.head {
        encode_head(head, writer);
    }
    frame.shared(&piece.bytes);
}

fn encode_image_id(id: &ImageId, writer: &mut Writer) {
    writer.u64(id.term.0);
    writer.u64(id.number);
    writer.u64(id.last.0);
}

fn encode_head(head: &ImageHead, writer: &mut Writer) {
    writer.u64(head.last_term.0);
    core::encode_config(&head.config, writer);
    encode_genesis(&head.genesis, writer);
    encode_epoch(head.epoch, writer);
    writer.u32(head.stopped.len() as u32);
    for identity in &head.stopped {
        encode_identity(identity, writer);
    }
    head.roster.encode(writer);
    writer.u64(head.time_ms);
}

/// The first piece, and no other, has a head.
fn decode_piece(reader: &mut Reader<'_>) -> Result<ImagePiece, Malformed> {
    let id = decode_image_id(reader)?;
    let number = reader.u64()?;
    let total_bytes = reader.u64()?;
    let head = if number == 0 { Some(Box::new(decode_head(reader)?)) } else { None };
    let bytes = Arc::from(reader.bytes()?);
    Ok(ImagePiece { id, number, total_bytes, head, bytes })
}

fn decode_image_id(reader: &mut Reader<'_>) -> Result<ImageId, Malformed> {
    let (term, number) = (Term(reader.u64()?), reader.u64()?);
    let last = EntryIndex(reader.u64()?);
    if !COUNTED.contains(&last.0) || !COUNTED.contains(&term.0) {
        return Err(reader.malformed("numbers of an image"));
    }
    Ok(ImageId { term, number, last })
}

fn decode_head(reader: &mut Reader<'_>) -> Result<ImageHead, Malformed> {
    let last_term = Term(reader.u64()?);
    let config = core::decode_config(reader)?;
    let genesis = decode_genesis(reader)?;
    let epoch = decode_epoch(reader)?;
    let count = reader.count(IDENTITY_BYTES)?;
    let mut stopped = Vec::with_capacity(count);
    for _ in 0..count {
        stopped.push(decode_identity(reader)?);
    }
    let roster = Roster::decode(reader)?;
    let time_ms = reader.u64()?;
    if !COUNTED.contains(&last_term.0) {
        return Err(reader.malformed("numbers of an image"));
    }
    Ok(ImageHead { last_term, config, genesis, epoch, stopped, roster, time_ms })
}
