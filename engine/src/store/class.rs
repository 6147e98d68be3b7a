//! The tables of one class: records by id, free places, counters, indexes.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use equivalent::{Comparable, Equivalent};
use imbl::{OrdMap, OrdSet, Vector};
use quorate_schema::ClassDef;

use super::KeyBytes;

/// One record, immutable.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StoredRecord {
    /// The index that created it; of a local class the local index.
    pub(crate) creation: u64,
    pub(crate) image: Box<[u8]>,
}

/// One class in one root.
#[derive(Clone, Debug)]
pub(crate) struct ClassTable {
    pub(crate) records: OrdMap<u64, Arc<StoredRecord>>,
    /// Places of deleted records; the last is taken first.
    pub(crate) free: Vector<u64>,
    /// The place after all ever used; the first is 1.
    pub(crate) next_id: u64,
    /// The autoid the next record gets; the first is 1.
    pub(crate) next_autoid: u64,
    /// By position in the class.
    pub(crate) indexes: Vec<OrdSet<Entry>>,
}

/// One entry of an index, in order of key, then id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) key: KeyBytes,
    pub(crate) id: u64,
}

/// A place in an index, for looking up without making an [`Entry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) id: u64,
}

impl Equivalent<Entry> for Place<'_> {
    fn equivalent(&self, entry: &Entry) -> bool {
        self.compare(entry) == Ordering::Equal
    }
}

impl Comparable<Entry> for Place<'_> {
    fn compare(&self, entry: &Entry) -> Ordering {
        self.key.cmp(&entry.key).then(self.id.cmp(&entry.id))
    }
}

impl ClassTable {
    pub(crate) fn new(class: &ClassDef) -> ClassTable {
        ClassTable {
            records: OrdMap::new(),
            free: Vector::new(),
            next_id: 1,
            next_autoid: 1,
            indexes: class.indexes.iter().map(|_| OrdSet::new()).collect(),
        }
    }

    /// The first entry of an index from `low` on.
    pub(crate) fn entry_from(&self, position: usize, low: Bound<Place<'_>>) -> Option<&Entry> {
        self.indexes[position].range((low, Bound::Unbounded)).next()
    }

    /// The last entry of an index up to `high`.
    pub(crate) fn entry_up_to(&self, position: usize, high: Bound<Place<'_>>) -> Option<&Entry> {
        self.indexes[position].range((Bound::Unbounded, high)).next_back()
    }

    /// True if a record has exactly this key.
    pub(crate) fn has_key(&self, position: usize, key: &[u8]) -> bool {
        let first = self.entry_from(position, Bound::Included(Place { key, id: 0 }));
        first.is_some_and(|entry| *entry.key == *key)
    }

    /// The ids of the records that have exactly this key, in order.
    pub(crate) fn ids_of<'a>(
        &'a self,
        position: usize,
        key: &'a [u8],
    ) -> impl Iterator<Item = u64> + 'a {
        let range = Place { key, id: 0 }..=Place { key, id: u64::MAX };
        self.indexes[position].range(range).map(|entry| entry.id)
    }
}
