//! Writing a write set: the parts a transaction gathered, and their encoding.

use quorate_schema::ClassId;
use quorate_schema::bytes::Writer;

use super::{Addition, Kind, Operator, VERSION};
use crate::{Index, Isolation, TransactionId};

/// A write set before it has an id: everything that is checked and refused comes before that.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) kind: Kind,
    pub(crate) isolation: Isolation,
    pub(crate) snapshot: Index,
    pub(crate) byte_delta: i64,
    pub(crate) dependencies: Vec<u64>,
    /// In order of (class, id), each once.
    pub(crate) changes: Vec<DraftChange>,
    pub(crate) inserts: Vec<(ClassId, Vec<u8>)>,
    /// In order of (class, id), each once, none among the changes.
    pub(crate) additions: Vec<Addition>,
}

/// One update or delete.
#[derive(Clone, Debug)]
pub(crate) struct DraftChange {
    pub(crate) class: ClassId,
    pub(crate) id: u64,
    pub(crate) creation: u64,
    /// The new image; none deletes.
    pub(crate) image: Option<Vec<u8>>,
    pub(crate) removed: Vec<RemovedKey>,
}

/// A key given up: the position of its index in the class, its bytes, whether a part is null.
#[derive(Clone, Debug)]
pub(crate) struct RemovedKey {
    pub(crate) position: usize,
    pub(crate) key: Vec<u8>,
    pub(crate) has_null: bool,
}

/// Bytes of the header with the counts of the four lists.
pub(crate) const HEADER_BYTES: usize = 3 + 16 + 8 + 8 + 8 + 8 + 4 * 4;

/// Bytes of one operation of an addition.
pub(super) const OPERATION_BYTES: usize = 4 + 1 + 16;

impl Draft {
    /// The size of the encoding, in bytes; exact.
    pub(crate) fn encoded_bytes(&self) -> usize {
        let key = |removed: &RemovedKey| 4 + 1 + 4 + removed.key.len();
        let change = |change: &DraftChange| {
            let image = change.image.as_ref().map_or(0, |image| 4 + image.len());
            1 + 4 + 8 + 8 + image + 4 + change.removed.iter().map(key).sum::<usize>()
        };
        let addition =
            |addition: &Addition| 4 + 8 + 8 + 4 + OPERATION_BYTES * addition.operations.len();
        HEADER_BYTES
            + 8 * self.dependencies.len()
            + self.changes.iter().map(change).sum::<usize>()
            + self.inserts.iter().map(|(_, image)| 4 + 4 + image.len()).sum::<usize>()
            + self.additions.iter().map(addition).sum::<usize>()
    }

    /// The bytes of the write set, valid but without a name: see [`stamp`].
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = Writer::with_capacity(self.encoded_bytes());
        to.u8(VERSION);
        to.u8(match self.kind {
            Kind::Replicated => 0,
            Kind::Local => 1,
        });
        to.u8(match self.isolation {
            Isolation::Snapshot => 0,
            Isolation::Serializable => 1,
        });
        debug_assert_eq!(to.len(), STAMP_OFFSET, "the name stands elsewhere");
        put_stamp(&mut to, TransactionId { origin: 0, sequence: 1 }, 0);
        to.u64(self.snapshot.0);
        to.i64(self.byte_delta);
        put_count(&mut to, self.dependencies.len());
        self.dependencies.iter().for_each(|point| to.u64(*point));
        put_count(&mut to, self.changes.len());
        self.changes.iter().for_each(|change| change.encode(&mut to));
        put_count(&mut to, self.inserts.len());
        for (class, image) in &self.inserts {
            to.u32(class.0);
            to.bytes(image);
        }
        put_count(&mut to, self.additions.len());
        self.additions.iter().for_each(|addition| addition.encode(&mut to));
        debug_assert_eq!(to.len(), self.encoded_bytes(), "the size was foretold wrongly");
        to.finish()
    }
}

/// Where the id and the low water stand in a write set.
const STAMP_OFFSET: usize = 3;

/// Names an encoded write set. The id is asked for last, after everything that can be refused.
pub(crate) fn stamp(write_set: &mut [u8], id: TransactionId, low_water: u64) {
    let mut to = Writer::with_capacity(32);
    put_stamp(&mut to, id, low_water);
    write_set[STAMP_OFFSET..STAMP_OFFSET + to.len()].copy_from_slice(to.as_slice());
}

fn put_stamp(to: &mut Writer, id: TransactionId, low_water: u64) {
    to.u128(id.origin);
    to.u64(id.sequence);
    to.u64(low_water);
}

impl DraftChange {
    fn encode(&self, to: &mut Writer) {
        to.u8(if self.image.is_some() { super::decode::UPDATE } else { super::decode::DELETE });
        to.u32(self.class.0);
        to.u64(self.id);
        to.u64(self.creation);
        if let Some(image) = &self.image {
            to.bytes(image);
        }
        put_count(to, self.removed.len());
        for removed in &self.removed {
            put_count(to, removed.position);
            to.u8(u8::from(removed.has_null));
            to.bytes(&removed.key);
        }
    }
}

impl Addition {
    fn encode(&self, to: &mut Writer) {
        to.u32(self.class.0);
        to.u64(self.id);
        to.u64(self.creation);
        put_count(to, self.operations.len());
        for operation in &self.operations {
            to.u32(operation.field.0);
            to.u8(match operation.operator {
                Operator::Add => 0,
                Operator::Min => 1,
                Operator::Max => 2,
            });
            to.u128(operation.operand as u128);
        }
    }
}

fn put_count(to: &mut Writer, count: usize) {
    to.u32(u32::try_from(count).expect("bounded by MAX_WRITE_SET_BYTES"));
}
