//! Calls of procedures as bytes: requests on the wire, and what became of a batch in the log.

use quorate_engine::{Settled, TransactionId};
use quorate_schema::bytes::{Malformed, Reader, Writer};

use super::window::{is_transaction, read_id, write_id};
use crate::procedure::{
    ANSWER, ARGUMENTS, CALL_BYTES_MAX, CallAnswer, CallError, CallRequest, NAME_BYTES_MAX, WRITES,
};

/// What the log says of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Which.
    pub(super) id: TransactionId,
    /// Sequences of its origin below this are settled.
    pub(super) low_water: u64,
    /// What it answered.
    pub(super) answer: CallAnswer,
}

/// The smallest line: an id, a low water, a kind and an empty text.
const LINE_BYTES_MIN: usize = 16 + 8 + 8 + 1 + 4;

impl Line {
    /// What it says of its id: one that failed will never be done.
    pub(super) fn settled(&self) -> Settled {
        let Line { id, low_water, ref answer } = *self;
        Settled { id, low_water, committed: answer.is_done() }
    }
}

pub(super) fn write_lines(writer: &mut Writer, lines: &[Line]) {
    writer.u32(u32::try_from(lines.len()).expect("a batch is bounded"));
    for Line { id, low_water, answer } in lines {
        write_id(writer, *id);
        writer.u64(*low_water);
        write_answer(writer, answer);
    }
}

pub(super) fn read_lines(reader: &mut Reader<'_>) -> Result<Vec<Line>, Malformed> {
    let count = reader.count(LINE_BYTES_MIN)?;
    let mut lines = Vec::with_capacity(count);
    for _ in 0..count {
        let id = read_id(reader)?;
        if !is_transaction(id) {
            return Err(reader.malformed("a call without an id"));
        }
        let low_water = reader.u64()?;
        lines.push(Line { id, low_water, answer: read_answer(reader)? });
    }
    Ok(lines)
}

fn write_answer(writer: &mut Writer, answer: &CallAnswer) {
    match answer {
        CallAnswer::Done(bytes) => {
            writer.u8(0);
            writer.bytes(bytes);
        }
        CallAnswer::Failed(CallError::Panicked { message }) => {
            writer.u8(2);
            writer.str(message);
        }
        CallAnswer::Failed(CallError::UnknownProcedure { name }) => {
            writer.u8(3);
            writer.str(name);
        }
        CallAnswer::Failed(CallError::TimedOut { limit_ms }) => {
            writer.u8(4);
            writer.u32(*limit_ms);
        }
        CallAnswer::Failed(CallError::TooLarge { what, bytes, limit_bytes }) => {
            writer.u8(5);
            let what = PARTS.iter().position(|part| part == what).unwrap_or(0);
            writer.u8(what as u8);
            writer.u64(*bytes);
            writer.u64(*limit_bytes);
        }
        CallAnswer::Failed(CallError::Failed { message }) => write_failed(writer, message),
        // No run ends with another error; its text says as much.
        CallAnswer::Failed(error) => write_failed(writer, &error.to_string()),
    }
}

fn write_failed(writer: &mut Writer, message: &str) {
    writer.u8(1);
    writer.str(message);
}

/// What can be too large, by number.
const PARTS: [&str; 3] = [ARGUMENTS, ANSWER, WRITES];

fn read_answer(reader: &mut Reader<'_>) -> Result<CallAnswer, Malformed> {
    Ok(CallAnswer::Failed(match reader.u8()? {
        0 => return Ok(CallAnswer::Done(reader.bytes()?.to_vec())),
        1 => CallError::Failed { message: reader.str()?.to_owned() },
        2 => CallError::Panicked { message: reader.str()?.to_owned() },
        3 => CallError::UnknownProcedure { name: reader.str()?.to_owned() },
        4 => CallError::TimedOut { limit_ms: reader.u32()? },
        5 => {
            let what = PARTS.get(usize::from(reader.u8()?)).copied();
            let what = what.ok_or(reader.malformed("no such part of a call"))?;
            CallError::TooLarge { what, bytes: reader.u64()?, limit_bytes: reader.u64()? }
        }
        _ => return Err(reader.malformed("no such answer of a call")),
    }))
}

impl CallRequest {
    /// Refuses what is too large to travel.
    pub(crate) fn check(&self) -> Result<(), CallError> {
        let too_large = |bytes: usize, limit: usize| {
            let (bytes, limit_bytes) = (bytes as u64, limit as u64);
            Err(CallError::TooLarge { what: ARGUMENTS, bytes, limit_bytes })
        };
        if self.name.len() > NAME_BYTES_MAX {
            return too_large(self.name.len(), NAME_BYTES_MAX);
        }
        if self.args.len() > CALL_BYTES_MAX {
            return too_large(self.args.len(), CALL_BYTES_MAX);
        }
        Ok(())
    }

    /// Appends its wire form.
    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.u64(self.low_water);
        writer.u32(self.run_limit_ms);
        writer.str(&self.name);
        writer.bytes(&self.args);
    }

    /// Reads what [`CallRequest::encode`] wrote, of whomever.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (low_water, run_limit_ms) = (reader.u64()?, reader.u32()?);
        let (name, args) = (reader.str()?.to_owned(), reader.bytes()?.to_vec());
        let request = Self { low_water, run_limit_ms, name, args };
        match request.check() {
            Ok(()) => Ok(request),
            Err(_) => Err(reader.malformed("a call that is too large")),
        }
    }
}
