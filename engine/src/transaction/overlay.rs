//! The overlay: a transaction's own writes, as a difference from its snapshot.
//!
//! Invariants:
//! * `changed` names only records of the snapshot, `inserted` only provisional numbers;
//! * for each index, snapshot entries - `removed` + `added` are exactly the entries of the records
//!   as the transaction sees them; `removed` holds only entries of the snapshot, and no entry is
//!   both removed and added.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use quorate_schema::{ClassId, IndexId, Key};

use crate::Handle;
use crate::store::{ClassTable, KeyBytes, Place, StoredRecord};
use crate::write_set::{Kind, Operation};

/// The place of a record as its transaction sees it: committed ones come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RecordKey {
    Committed(u64),
    Provisional(u64),
}

impl RecordKey {
    pub(super) const MIN: RecordKey = RecordKey::Committed(0);

    pub(super) fn of(handle: Handle) -> RecordKey {
        if handle.is_provisional() {
            RecordKey::Provisional(handle.id)
        } else {
            RecordKey::Committed(handle.id)
        }
    }
}

/// A place in an index, in the order of keys, then records.
pub(super) type EntryKey = (KeyBytes, RecordKey);

/// A record with its own image, which may hold provisional numbers, and its keys by position.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) class: ClassId,
    pub(super) stored: Arc<StoredRecord>,
    pub(super) keys: Vec<Key>,
}

/// A record of the snapshot that was written.
#[derive(Clone, Debug)]
pub(super) struct Changed {
    pub(super) old: Arc<StoredRecord>,
    /// None once deleted.
    pub(super) new: Option<Own>,
    /// What was added to it, if nothing else was done to it: then `new` is only how the
    /// transaction sees it.
    pub(super) added: Option<Vec<Operation>>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Overlay {
    /// The kind of classes written so far.
    pub(super) kind: Option<Kind>,
    /// The kind of classes that may be written, if only one may.
    pub(super) only: Option<Kind>,
    pub(super) next_number: u64,
    pub(super) inserted: BTreeMap<u64, Own>,
    pub(super) changed: BTreeMap<(ClassId, u64), Changed>,
    pub(super) dependencies: Vec<u64>,
    added: BTreeMap<IndexId, BTreeSet<EntryKey>>,
    removed: BTreeMap<IndexId, BTreeSet<EntryKey>>,
}

impl Overlay {
    /// True if a commit would change nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.inserted.is_empty() && self.changed.is_empty()
    }

    /// Puts an entry into an index.
    pub(super) fn add(&mut self, index: IndexId, key: KeyBytes, record: RecordKey) {
        let entry = (key, record);
        if self.removed.get_mut(&index).is_some_and(|removed| removed.remove(&entry)) {
            return;
        }
        let new = self.added.entry(index).or_default().insert(entry);
        assert!(new, "record {record:?} was in index {index:?} under this key already");
    }

    /// Takes an entry out of an index.
    pub(super) fn remove(&mut self, index: IndexId, key: KeyBytes, record: RecordKey) {
        let entry = (key, record);
        if self.added.get_mut(&index).is_some_and(|added| added.remove(&entry)) {
            return;
        }
        let of_snapshot = matches!(record, RecordKey::Committed(_));
        assert!(of_snapshot, "own record {record:?} is not in index {index:?} under its key");
        self.removed.entry(index).or_default().insert(entry);
    }

    /// True if an entry of the snapshot is not in the transaction's view.
    fn is_removed(&self, index: IndexId, entry: &EntryKey) -> bool {
        self.removed.get(&index).is_some_and(|removed| removed.contains(entry))
    }

    /// The first entry of the view in `low..`, below `high` if there is one.
    pub(super) fn first_from(
        &self,
        table: &ClassTable,
        index: (IndexId, usize),
        low: Bound<EntryKey>,
        high: Option<&[u8]>,
    ) -> Option<EntryKey> {
        let own = self
            .added
            .get(&index.0)
            .and_then(|added| added.range((low.clone(), Bound::Unbounded)).next().cloned());
        let mut bound = low;
        let committed = loop {
            let found = table.entry_from(index.1, low_place(&bound));
            let Some(entry) = found else { break None };
            let found = (entry.key.clone(), RecordKey::Committed(entry.id));
            if !self.is_removed(index.0, &found) {
                break Some(found);
            }
            bound = Bound::Excluded(found);
        };
        let first = match (own, committed) {
            (Some(own), Some(committed)) => own.min(committed),
            (own, committed) => own.or(committed)?,
        };
        high.is_none_or(|high| &*first.0 < high).then_some(first)
    }

    /// The last entry of the view in `..high`, from `low` on.
    pub(super) fn last_up_to(
        &self,
        table: &ClassTable,
        index: (IndexId, usize),
        low: &[u8],
        high: Bound<EntryKey>,
    ) -> Option<EntryKey> {
        let own = self
            .added
            .get(&index.0)
            .and_then(|added| added.range((Bound::Unbounded, high.clone())).next_back().cloned());
        let mut bound = high;
        let committed = loop {
            let found = table.entry_up_to(index.1, high_place(&bound));
            let Some(entry) = found else { break None };
            let found = (entry.key.clone(), RecordKey::Committed(entry.id));
            if !self.is_removed(index.0, &found) {
                break Some(found);
            }
            bound = Bound::Excluded(found);
        };
        let last = own.max(committed)?;
        (&*last.0 >= low).then_some(last)
    }
}

/// Where the committed entries from `bound` on start: they precede own ones with an equal key.
fn low_place(bound: &Bound<EntryKey>) -> Bound<Place<'_>> {
    match bound {
        Bound::Unbounded => Bound::Unbounded,
        Bound::Included((key, RecordKey::Committed(id))) => Bound::Included(Place { key, id: *id }),
        Bound::Excluded((key, RecordKey::Committed(id))) => Bound::Excluded(Place { key, id: *id }),
        Bound::Included((key, RecordKey::Provisional(_)))
        | Bound::Excluded((key, RecordKey::Provisional(_))) => {
            Bound::Excluded(Place { key, id: u64::MAX })
        }
    }
}

/// Where the committed entries up to `bound` end.
fn high_place(bound: &Bound<EntryKey>) -> Bound<Place<'_>> {
    match bound {
        Bound::Included((key, RecordKey::Provisional(_)))
        | Bound::Excluded((key, RecordKey::Provisional(_))) => {
            Bound::Included(Place { key, id: u64::MAX })
        }
        committed => low_place(committed),
    }
}
