//! The store: all records and indexes of one database, as immutable versions.
//!
//! A [`Root`] is one version of everything. Applying a write set makes the next root and leaves
//! the old one as it was, sharing all that did not change (`imbl` maps share structure), so a
//! snapshot is a counted reference to a root and costs nothing to keep but memory. One writer
//! makes roots, readers never wait.
//!
//! ```text
//!   Root { index, classes: [ClassTable { records: id -> Record, indexes: [{(key, id)}] , .. }] }
//! ```
//!
//! Invariants of every root, checked in full by `check`:
//! * for every index, its entries are exactly (key of r, id of r) for the live records r;
//! * a unique index has no key without a null part twice;
//! * every place below `next_id` is either live or on the free list, once;
//! * places and creation indexes count from 1: `Handle::NOTHING` names no record;
//! * the sums (bytes used, digest) are those of the live records and counters.
//!
//! This module takes no decision: what may be applied is decided by `certify`.

mod apply;
mod check;
mod class;
mod key_bytes;

use std::sync::Arc;

use quorate_schema::{ClassId, Dictionary};

use crate::outcome::ExactlyOnce;
use crate::{Handle, Index};

pub(crate) use apply::{Given, Mistakes};
pub(crate) use class::{ClassTable, Entry, Place, StoredRecord};
pub(crate) use key_bytes::KeyBytes;

/// One version of all data. See the module for the invariants.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    /// The newest transaction on replicated classes in it.
    pub(crate) index: Index,
    /// How many transactions on local classes are in it.
    pub(crate) local_index: Index,
    /// By class id.
    pub(crate) classes: Vec<Arc<ClassTable>>,
    pub(crate) exactly_once: ExactlyOnce,
    /// What replicated classes use, in bytes by the logical formula.
    pub(crate) used_bytes: u64,
    /// What local classes use.
    pub(crate) used_local_bytes: u64,
    /// The sum of the digests of all replicated records and free lists.
    pub(crate) digest: u128,
}

impl Root {
    /// The empty database.
    pub(crate) fn new(dictionary: &Dictionary) -> Root {
        let table = |class: &quorate_schema::ClassDef| Arc::new(ClassTable::new(class));
        Root {
            index: Index(0),
            local_index: Index(0),
            classes: dictionary.classes().iter().map(table).collect(),
            exactly_once: ExactlyOnce::default(),
            used_bytes: 0,
            used_local_bytes: 0,
            digest: 0,
        }
    }

    pub(crate) fn class(&self, class: ClassId) -> &ClassTable {
        &self.classes[class.0 as usize]
    }

    /// The record a handle names, if it is live here.
    pub(crate) fn record(&self, handle: Handle) -> Option<&Arc<StoredRecord>> {
        let record = self.classes.get(handle.class.0 as usize)?.records.get(&handle.id)?;
        (record.creation == handle.creation).then_some(record)
    }

    /// The 128-bit hash of the replicated state: records, free lists and counters.
    pub(crate) fn state_hash(&self, dictionary: &Dictionary) -> u128 {
        let replicated = dictionary.classes().iter().filter(|class| !class.local);
        let counters = replicated.map(|class| {
            let table = self.class(class.id);
            crate::digest::counters_digest(class.id, table.next_id, table.next_autoid)
        });
        counters.fold(self.digest, u128::wrapping_add)
    }
}
