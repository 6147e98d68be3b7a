//! The bytes of consensus messages; see [`message`](super::message) for the rules.

use std::sync::Arc;

use quorate_consensus::{Body, Config, Entry, EntryIndex, Message, MessageBody, Term};
use quorate_schema::bytes::{Malformed, Reader, Writer};

use super::frame::FrameWriter;
use super::message::{decode_members, encode_members};

/// The shortest entry: its term and its kind.
const ENTRY_BYTES_MIN: usize = 8 + 1;

/// The most entries of one append: bounds what a few bytes each can make the receiver allocate.
const ENTRIES_MAX: usize = 1 << 20;

/// Appends a message.
pub(super) fn encode(message: &Message, frame: &mut FrameWriter) {
    let writer = frame.writer();
    writer.u64(message.term.0);
    match &message.body {
        MessageBody::PreVote { last, last_term, transfer } => {
            encode_vote(1, *last, *last_term, *transfer, writer);
        }
        MessageBody::PreVoteAnswer { granted } => {
            writer.u8(2);
            writer.u8(u8::from(*granted));
        }
        MessageBody::Vote { last, last_term, transfer } => {
            encode_vote(3, *last, *last_term, *transfer, writer);
        }
        MessageBody::VoteAnswer { granted } => {
            writer.u8(4);
            writer.u8(u8::from(*granted));
        }
        MessageBody::Append { previous, previous_term, entries, commit, durable, round } => {
            writer.u8(5);
            writer.u64(previous.0);
            writer.u64(previous_term.0);
            writer.u64(commit.0);
            writer.u64(durable.0);
            writer.u64(*round);
            encode_entries(*previous, entries, frame);
        }
        MessageBody::AppendAnswer { matched, matched_term, accepted, round } => {
            writer.u8(6);
            writer.u64(matched.0);
            writer.u64(matched_term.0);
            writer.u8(u8::from(*accepted));
            writer.u64(*round);
        }
        MessageBody::TimeoutNow => writer.u8(7),
    }
}

/// Reads a message.
pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Message, Malformed> {
    let term = Term(reader.u64()?);
    let body = match reader.u8()? {
        1 => {
            let (last, last_term, transfer) = decode_vote(reader)?;
            MessageBody::PreVote { last, last_term, transfer }
        }
        2 => MessageBody::PreVoteAnswer { granted: decode_bool(reader)? },
        3 => {
            let (last, last_term, transfer) = decode_vote(reader)?;
            MessageBody::Vote { last, last_term, transfer }
        }
        4 => MessageBody::VoteAnswer { granted: decode_bool(reader)? },
        5 => {
            let previous = EntryIndex(reader.u64()?);
            MessageBody::Append {
                previous,
                previous_term: Term(reader.u64()?),
                commit: EntryIndex(reader.u64()?),
                durable: EntryIndex(reader.u64()?),
                round: reader.u64()?,
                entries: decode_entries(previous, reader)?,
            }
        }
        6 => MessageBody::AppendAnswer {
            matched: EntryIndex(reader.u64()?),
            matched_term: Term(reader.u64()?),
            accepted: decode_bool(reader)?,
            round: reader.u64()?,
        },
        7 => MessageBody::TimeoutNow,
        _ => return Err(reader.malformed("no such consensus message")),
    };
    Ok(Message { term, body })
}

/// Appends a configuration.
pub(super) fn encode_config(config: &Config, writer: &mut Writer) {
    encode_members(&config.current, writer);
    writer.u8(u8::from(config.next.is_some()));
    if let Some(next) = &config.next {
        encode_members(next, writer);
    }
}

/// Reads a configuration.
pub(super) fn decode_config(reader: &mut Reader<'_>) -> Result<Config, Malformed> {
    let current = decode_members(reader)?;
    let next = if decode_bool(reader)? { Some(decode_members(reader)?) } else { None };
    Ok(Config { current, next })
}

fn encode_vote(kind: u8, last: EntryIndex, last_term: Term, transfer: bool, writer: &mut Writer) {
    writer.u8(kind);
    writer.u64(last.0);
    writer.u64(last_term.0);
    writer.u8(u8::from(transfer));
}

fn decode_vote(reader: &mut Reader<'_>) -> Result<(EntryIndex, Term, bool), Malformed> {
    Ok((EntryIndex(reader.u64()?), Term(reader.u64()?), decode_bool(reader)?))
}

fn encode_entries(previous: EntryIndex, entries: &[Entry], frame: &mut FrameWriter) {
    frame.writer().u32(entries.len() as u32);
    let mut expected = previous;
    for entry in entries {
        expected = expected.next();
        assert_eq!(entry.index, expected, "entries of an append are dense");
        let writer = frame.writer();
        writer.u64(entry.term.0);
        match &entry.body {
            Body::Noop => writer.u8(0),
            Body::Window { first_index, count, payload } => {
                writer.u8(1);
                writer.u64(*first_index);
                writer.u32(*count);
                frame.shared(payload);
            }
            Body::Config(config) => {
                writer.u8(2);
                encode_config(config, writer);
            }
        }
    }
}

fn decode_entries(previous: EntryIndex, reader: &mut Reader<'_>) -> Result<Vec<Entry>, Malformed> {
    let count = reader.count(ENTRY_BYTES_MIN)?;
    if count > ENTRIES_MAX {
        return Err(reader.malformed("more entries than one append can have"));
    }
    if previous.0.checked_add(count as u64).is_none() {
        return Err(reader.malformed("entries beyond the last index"));
    }
    // A count that fits the bytes may still be many small entries; the vector grows as they come.
    let mut entries = Vec::new();
    let mut index = previous;
    for _ in 0..count {
        index = index.next();
        let term = Term(reader.u64()?);
        let body = match reader.u8()? {
            0 => Body::Noop,
            1 => Body::Window {
                first_index: reader.u64()?,
                count: reader.u32()?,
                payload: Arc::from(reader.bytes()?),
            },
            2 => Body::Config(decode_config(reader)?),
            _ => return Err(reader.malformed("no such entry")),
        };
        entries.push(Entry { index, term, body });
    }
    Ok(entries)
}

fn decode_bool(reader: &mut Reader<'_>) -> Result<bool, Malformed> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(reader.malformed("neither yes nor no")),
    }
}
