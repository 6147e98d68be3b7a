//! The write set: everything one transaction changed, in the one form that certification reads,
//! the log stores, the network carries and every node applies.
//!
//! ```text
//! header        version, kind, isolation, id, low water, snapshot, byte delta
//! dependencies  points of the targets of references newly stored
//! changes       in order of (class, id), each record once:
//!                 update: creation, the new image, the index keys it gives up
//!                 delete: creation, all its index keys
//! inserts       class and image, numbered from 0; images name each other by these numbers
//! additions     in order of (class, id), none of them among the changes: creation, and what is
//!               done to which integer field, whatever it holds by then
//! ```
//!
//! Images are whole and canonical. Keys given up are carried, because the certifier needs them and
//! must not look into the store; keys taken are derived from the images, so they cannot
//! contradict them. Numbers that only the applier knows (record ids, creation indexes, autoids)
//! stand in images and keys as patches.
//!
//! [`WriteSet::decode`] is total on hostile bytes and refuses whatever is wrong in itself. What
//! contradicts the database is refused by `store::apply`.

mod decode;
mod draft;
mod operation;
mod submission;

use quorate_schema::bytes::Malformed;
use quorate_schema::{ClassId, Dictionary, IndexDef, Key, Patch};

use crate::certify::key_prefix;
use crate::digest::{membership_point, record_point, unique_key_point};
use crate::{Footprint, Index, Isolation, TransactionId};

pub(crate) use draft::{Draft, DraftChange, RemovedKey, stamp};
pub(crate) use operation::{Operation, Operator, operated, refusal};
pub(crate) use submission::MAX_READS_BYTES;
pub use submission::Submission;

/// The largest write set, in bytes: 128 MiB, twice the largest record.
pub const MAX_WRITE_SET_BYTES: usize = 128 << 20;

/// The version of the encoding.
const VERSION: u8 = 2;

/// Whether classes that all nodes share are written, or those of this node alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Replicated,
    Local,
}

/// A write set, read. It borrows the bytes.
#[derive(Clone, Debug)]
pub struct WriteSet<'a> {
    pub(crate) id: TransactionId,
    pub(crate) low_water: u64,
    pub(crate) snapshot: Index,
    pub(crate) isolation: Isolation,
    pub(crate) byte_delta: i64,
    pub(crate) dependencies: Vec<u64>,
    pub(crate) changes: Vec<Change<'a>>,
    pub(crate) inserts: Vec<Insert<'a>>,
    pub(crate) additions: Vec<Addition>,
}

/// The update (with an image) or delete (without) of one committed record.
#[derive(Clone, Debug)]
pub(crate) struct Change<'a> {
    pub(crate) class: ClassId,
    pub(crate) id: u64,
    pub(crate) creation: u64,
    pub(crate) image: Option<&'a [u8]>,
    pub(crate) patches: Vec<Patch>,
    /// In order of their positions; of a delete all.
    pub(crate) removed: Vec<Removed<'a>>,
    /// The new keys for the positions in `removed`; of a delete none.
    pub(crate) added: Vec<Key>,
}

/// A key given up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Removed<'a> {
    /// The index, by its position in the class.
    pub(crate) position: usize,
    pub(crate) key: &'a [u8],
    pub(crate) has_null: bool,
}

/// A new record.
#[derive(Clone, Debug)]
pub(crate) struct Insert<'a> {
    pub(crate) class: ClassId,
    pub(crate) image: &'a [u8],
    pub(crate) patches: Vec<Patch>,
    /// One for each index of the class.
    pub(crate) added: Vec<Key>,
}

/// What is done to the integers of one committed record.
#[derive(Clone, Debug)]
pub(crate) struct Addition {
    pub(crate) class: ClassId,
    pub(crate) id: u64,
    pub(crate) creation: u64,
    /// At least one, on fields that have no [`refusal`].
    pub(crate) operations: Vec<Operation>,
}

impl<'a> WriteSet<'a> {
    /// Reads the write set of a transaction on replicated classes.
    ///
    /// Total on any bytes: images, keys, order and numbers are checked, lengths before anything
    /// is allocated.
    pub fn decode(bytes: &'a [u8], dictionary: &Dictionary) -> Result<WriteSet<'a>, Malformed> {
        decode::decode(bytes, dictionary, Kind::Replicated)
    }

    pub(crate) fn decode_local(
        bytes: &'a [u8],
        dictionary: &Dictionary,
    ) -> Result<WriteSet<'a>, Malformed> {
        decode::decode(bytes, dictionary, Kind::Local)
    }

    /// Whose write set these bytes are, from their header alone: for whoever applies it anyway.
    pub fn peek_id(bytes: &[u8]) -> Result<TransactionId, Malformed> {
        decode::peek_id(bytes)
    }

    /// Whose write set it is.
    pub fn id(&self) -> TransactionId {
        self.id
    }

    /// Sequences of its origin below this are settled.
    pub fn low_water(&self) -> u64 {
        self.low_water
    }

    /// The index at which the transaction read.
    pub fn snapshot(&self) -> Index {
        self.snapshot
    }

    /// The isolation the transaction asked for.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// How many records it inserts, updates, deletes or adds to.
    pub fn operation_count(&self) -> usize {
        self.changes.len() + self.inserts.len() + self.additions.len()
    }

    /// What it touches, for the certifier.
    pub fn footprint(&self, dictionary: &Dictionary) -> Footprint {
        let mut footprint = Footprint {
            id: self.id,
            low_water: self.low_water,
            points: Vec::with_capacity(2 * self.operation_count()),
            memberships: Vec::new(),
            ordered: Vec::with_capacity(2 * self.operation_count()),
            dependencies: self.dependencies.clone(),
            adders: Vec::with_capacity(self.additions.len()),
            byte_delta: self.byte_delta,
        };
        for change in &self.changes {
            let indexes = &dictionary.classes()[change.class.0 as usize].indexes;
            footprint.points.push(record_point(change.class, change.id));
            if change.image.is_none() {
                footprint.memberships.push(membership_point(change.class));
            }
            for removed in &change.removed {
                add_key(&mut footprint, &indexes[removed.position], removed.key, removed.has_null);
            }
            for (removed, key) in change.removed.iter().zip(&change.added) {
                add_new_key(&mut footprint, &indexes[removed.position], key);
            }
        }
        for insert in &self.inserts {
            footprint.memberships.push(membership_point(insert.class));
            let indexes = &dictionary.classes()[insert.class.0 as usize].indexes;
            for (index, key) in indexes.iter().zip(&insert.added) {
                add_new_key(&mut footprint, index, key);
            }
        }
        for addition in &self.additions {
            footprint.adders.push(record_point(addition.class, addition.id));
        }
        footprint.memberships.sort_unstable();
        footprint.memberships.dedup();
        footprint
    }
}

fn add_key(footprint: &mut Footprint, index: &IndexDef, key: &[u8], has_null: bool) {
    if index.unique && !has_null {
        footprint.points.push(unique_key_point(index.id, key));
    }
    footprint.ordered.push((index.id, key_prefix(key)));
}

/// A key that awaits patches is not known yet. No other transaction can have the same one, since
/// its number is new, but a range may: such ranges read the membership of the class.
fn add_new_key(footprint: &mut Footprint, index: &IndexDef, key: &Key) {
    if key.patches.is_empty() {
        add_key(footprint, index, &key.bytes, key.has_null);
    } else {
        footprint.memberships.push(membership_point(index.class));
    }
}
