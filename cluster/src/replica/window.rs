//! The payload of a window: the items of one log entry, each with one index.
//!
//! ```text
//! count u32 | count x { length u32 | kind u8 | body }
//! ```
//!
//! A transaction's body is its write set, the same bytes that were certified. A stop or departure
//! names an identity. Nothing here looks inside a write set.

use quorate_consensus::{Identity, Incarnation, NodeId, Payload};
use quorate_engine::TransactionId;
use quorate_schema::bytes::{Malformed, Reader, Writer};

use super::calls::{Line, read_lines, write_lines};
use super::roster::RosterChange;

const KIND_TRANSACTION: u8 = 0;
const KIND_STOPPED: u8 = 1;
const KIND_DEPARTED: u8 = 2;
const KIND_CHANGE: u8 = 3;
const KIND_FENCE: u8 = 4;
const KIND_CALLS: u8 = 5;

/// The smallest item: a kind without a body, and its length.
const ITEM_BYTES_MIN: usize = 5;

/// One item of a window. Each takes one index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// A certified write set.
    Transaction(&'a [u8]),
    /// An orderly stop was asked for on this node.
    Stopped(Identity),
    /// The leader found this node silent beyond the limit while others stop.
    Departed(Identity),
    /// The roster changes.
    Change {
        /// The request that asked for it.
        id: TransactionId,
        /// Sequences of its origin below this are settled.
        low_water: u64,
        /// How.
        change: RosterChange,
    },
    /// A transaction that has not committed up to here never will.
    Fence {
        /// The request that asked for it.
        id: TransactionId,
        /// The transaction.
        fenced: TransactionId,
    },
    /// Calls of procedures that were run one after another.
    Calls {
        /// What they were told is the time, ms since the Unix epoch.
        time_ms: u64,
        /// What became of each.
        lines: Vec<Line>,
        /// What they wrote together, if anything, under the id of one that is done.
        write_set: Option<&'a [u8]>,
    },
}

/// A window that is still open: items are added at the end.
#[derive(Debug, Default)]
pub(super) struct OpenWindow {
    writer: Writer,
    count: u32,
}

impl OpenWindow {
    /// How many items it holds.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// How many bytes they take.
    pub(super) fn bytes(&self) -> usize {
        self.writer.len()
    }

    /// Adds an item at the end.
    pub(super) fn push(&mut self, item: &Item<'_>) {
        self.count += 1;
        match item {
            Item::Transaction(bytes) => self.write(KIND_TRANSACTION, bytes),
            Item::Stopped(identity) => self.write(KIND_STOPPED, &identity_bytes(*identity)),
            Item::Departed(identity) => self.write(KIND_DEPARTED, &identity_bytes(*identity)),
            Item::Change { id, low_water, change } => {
                let mut body = Writer::new();
                write_id(&mut body, *id);
                body.u64(*low_water);
                change.encode(&mut body);
                self.write(KIND_CHANGE, body.as_slice());
            }
            Item::Fence { id, fenced } => {
                let mut body = Writer::new();
                write_id(&mut body, *id);
                write_id(&mut body, *fenced);
                self.write(KIND_FENCE, body.as_slice());
            }
            Item::Calls { time_ms, lines, write_set } => {
                let mut body = Writer::new();
                body.u64(*time_ms);
                write_lines(&mut body, lines);
                body.bytes(write_set.unwrap_or_default());
                self.write(KIND_CALLS, body.as_slice());
            }
        }
    }

    fn write(&mut self, kind: u8, body: &[u8]) {
        let length = u32::try_from(body.len() + 1).expect("bounded by the frame limit");
        self.writer.u32(length);
        self.writer.u8(kind);
        self.writer.raw(body);
    }

    /// Closes it: the payload of its entry and the number of items.
    pub(super) fn close(self) -> (Payload, u32) {
        let mut bytes = self.count.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.writer.finish());
        (bytes.into(), self.count)
    }
}

/// The items of a payload, in order.
///
/// # Errors
/// [`Malformed`] for bytes that no leader writes; nothing may be applied then.
pub(super) fn items(payload: &[u8]) -> Result<Vec<Item<'_>>, Malformed> {
    let mut reader = Reader::new(payload);
    let count = reader.u32()? as usize;
    if count > reader.remaining() / ITEM_BYTES_MIN {
        return Err(Malformed { what: "window count", offset: 0 });
    }
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        items.push(item(reader.bytes()?)?);
    }
    reader.finish()?;
    Ok(items)
}

/// Whether a transaction can have this id.
pub(super) fn is_transaction(id: TransactionId) -> bool {
    (1..u64::MAX).contains(&id.sequence)
}

fn item(bytes: &[u8]) -> Result<Item<'_>, Malformed> {
    let Some((&kind, body)) = bytes.split_first() else {
        return Err(Malformed { what: "empty window item", offset: 0 });
    };
    if kind == KIND_TRANSACTION {
        return Ok(Item::Transaction(body));
    }
    let mut reader = Reader::new(body);
    let item = match kind {
        KIND_STOPPED => Item::Stopped(read_identity(&mut reader)?),
        KIND_DEPARTED => Item::Departed(read_identity(&mut reader)?),
        KIND_CHANGE => Item::Change {
            id: read_id(&mut reader)?,
            low_water: reader.u64()?,
            change: RosterChange::decode(&mut reader)?,
        },
        KIND_FENCE => {
            let (id, fenced) = (read_id(&mut reader)?, read_id(&mut reader)?);
            if !is_transaction(fenced) {
                return Err(Malformed { what: "a fence for no transaction", offset: 0 });
            }
            Item::Fence { id, fenced }
        }
        KIND_CALLS => {
            let (time_ms, lines) = (reader.u64()?, read_lines(&mut reader)?);
            let write_set = Some(reader.bytes()?).filter(|bytes| !bytes.is_empty());
            Item::Calls { time_ms, lines, write_set }
        }
        _ => return Err(Malformed { what: "window item kind", offset: 0 }),
    };
    reader.finish()?;
    Ok(item)
}

fn identity_bytes(identity: Identity) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u32(identity.node.0);
    writer.u128(identity.incarnation.0);
    writer.finish()
}

fn read_identity(reader: &mut Reader<'_>) -> Result<Identity, Malformed> {
    let node = NodeId(reader.u32()?);
    Ok(Identity { node, incarnation: Incarnation(reader.u128()?) })
}

pub(super) fn write_id(writer: &mut Writer, id: TransactionId) {
    writer.u128(id.origin);
    writer.u64(id.sequence);
}

pub(super) fn read_id(reader: &mut Reader<'_>) -> Result<TransactionId, Malformed> {
    Ok(TransactionId { origin: reader.u128()?, sequence: reader.u64()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_back_as_they_went_in() {
        let identity = Identity::new(3, 77);
        let id = TransactionId { origin: 4, sequence: 9 };
        let change = RosterChange::SetRank { node: NodeId(1), rank: 2 };
        let sent = [
            Item::Transaction(b"abc"),
            Item::Stopped(identity),
            Item::Departed(identity),
            Item::Change { id, low_water: 3, change },
            Item::Fence { id, fenced: TransactionId { origin: 5, sequence: 1 } },
        ];
        let mut window = OpenWindow::default();
        sent.iter().for_each(|item| window.push(item));
        let (payload, count) = window.close();
        assert_eq!(count, 5);
        assert_eq!(items(&payload).expect("well-formed"), sent);
    }

    #[test]
    fn bytes_that_are_no_window_are_refused() {
        let mut window = OpenWindow::default();
        window.push(&Item::Transaction(b"abc"));
        window.push(&Item::Stopped(Identity::new(1, 2)));
        let (payload, _) = window.close();
        for length in 0..payload.len() {
            assert!(items(&payload[..length]).is_err(), "cut at {length} was accepted");
        }
        assert!(items(&u32::MAX.to_le_bytes()).is_err());
        let mut unknown_kind = payload.to_vec();
        unknown_kind[8] = 9;
        assert!(items(&unknown_kind).is_err());
    }
}
