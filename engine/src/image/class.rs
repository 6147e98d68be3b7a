//! Building the tables of one class from the pieces of an image.
//!
//! Places come first, so that each record can be checked against them; then records in order of
//! their ids; then, for each index, the ids of all records in order of their keys. An index whose
//! entries ascend strictly, and that has as many as there are records, has each record once; and
//! equal keys stand side by side, so looking at the entry before finds what is not unique.
//!
//! Keys are computed while a record is at hand and wait in a table by id until their turn: finding
//! the record again would follow five pointers to memory that is in no cache, which took longer
//! than everything else together.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_schema::bytes::{Malformed, Reader};
use quorate_schema::{ClassDef, Dictionary, IndexDef, RecordRef};

use super::id_bytes;
use crate::Index;
use crate::digest::{free_digest, record_digest};
use crate::keys::{entry_bytes, key_of, record_bytes};
use crate::store::{ClassTable, Entry, KeyBytes, StoredRecord};

/// The sums over all classes, as `store` keeps them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    pub(super) bytes: u64,
    pub(super) digest: u128,
}

/// The tables of one class, on their way to completeness.
#[derive(Debug)]
pub(super) struct ClassBuilder {
    pub(super) table: ClassTable,
    free: u64,
    records: u64,
    /// The free places that came: a bit for each, by the place divided by 64.
    free_places: BTreeMap<u64, u64>,
    /// The least id the next record may have.
    least: u64,
    /// By position of the index: the keys that are not in it yet.
    keys: Vec<WaitingKeys>,
    /// The last entry of the index that is being built.
    last: Option<Entry>,
}

/// Keys by id, in chunks: growing never moves what is there.
#[derive(Debug, Default)]
struct WaitingKeys {
    chunks: Vec<Vec<Option<KeyBytes>>>,
}

/// How many keys a chunk holds: 96 KiB.
const CHUNK_KEYS: usize = 4096;

impl WaitingKeys {
    /// Adds the key of the next place; none if it is free.
    fn push(&mut self, key: Option<KeyBytes>) {
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK_KEYS => chunk.push(key),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK_KEYS);
                chunk.push(key);
                self.chunks.push(chunk);
            }
        }
    }

    /// The key of place `id`, once.
    fn take(&mut self, id: u64) -> Option<KeyBytes> {
        let at = usize::try_from(id.checked_sub(1)?).ok()?;
        self.chunks.get_mut(at / CHUNK_KEYS)?.get_mut(at % CHUNK_KEYS)?.take()
    }
}

impl ClassBuilder {
    /// Reads the head of a class.
    pub(super) fn start(class: &ClassDef, from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut table = ClassTable::new(class);
        table.next_id = from.u64()?;
        table.next_autoid = from.u64()?;
        let (free, records) = (from.u64()?, from.u64()?);
        // Every place is either free or live: what is distinct and as many as that is all.
        if free.checked_add(records).and_then(|all| all.checked_add(1)) != Some(table.next_id) {
            return Err(from.malformed("places that are neither free nor taken"));
        }
        if table.next_autoid == 0 {
            return Err(from.malformed("autoids count from 1"));
        }
        Ok(ClassBuilder {
            keys: table.indexes.iter().map(|_| WaitingKeys::default()).collect(),
            table,
            free,
            records,
            free_places: BTreeMap::new(),
            least: 1,
            last: None,
        })
    }

    /// How many free places are still to come.
    pub(super) fn missing_free(&self) -> u64 {
        self.free - self.table.free.len() as u64
    }

    /// How many records are still to come.
    pub(super) fn missing_records(&self) -> u64 {
        self.records - self.table.records.len() as u64
    }

    /// How many entries of an index are still to come.
    pub(super) fn missing_entries(&self, position: usize) -> u64 {
        self.records - self.table.indexes[position].len() as u64
    }

    /// Reads one free place.
    pub(super) fn free(
        &mut self,
        class: &ClassDef,
        sums: &mut Sums,
        from: &mut Reader<'_>,
    ) -> Result<(), Malformed> {
        let id = from.u64()?;
        let bit = 1 << (id % 64);
        let places = self.free_places.entry(id / 64).or_default();
        if id == 0 || id >= self.table.next_id || *places & bit != 0 {
            return Err(from.malformed("a free place outside of the class or twice"));
        }
        *places |= bit;
        let digest = free_digest(class.id, self.table.free.len() as u64, id);
        sums.digest = sums.digest.wrapping_add(digest);
        self.table.free.push_back(id);
        Ok(())
    }

    /// Reads one record.
    pub(super) fn record(
        &mut self,
        dictionary: &Dictionary,
        class: &ClassDef,
        upto: Index,
        sums: &mut Sums,
        from: &mut Reader<'_>,
    ) -> Result<(), Malformed> {
        let (id, creation) = (from.u64()?, from.u64()?);
        let image = from.bytes()?;
        let in_order = id >= self.least && id < self.table.next_id;
        if !in_order || self.is_free(id) || !(1..=upto.0).contains(&creation) {
            return Err(from.malformed("a record out of order"));
        }
        // Places passed over are free: no more of them than came, whatever the id says.
        if id - 1 - self.table.records.len() as u64 > self.free {
            return Err(from.malformed("a record behind places that are not there"));
        }
        check_image(dictionary, class, image, self.table.next_autoid, from)?;
        for (keys, index) in self.keys.iter_mut().zip(&class.indexes) {
            (self.least..id).for_each(|_| keys.push(None));
            let key = key_of(dictionary, index, image);
            sums.bytes = sums.bytes.saturating_add_signed(entry_bytes(&key.bytes));
            keys.push(Some(KeyBytes::from(&*key.bytes)));
        }
        self.least = id + 1;
        sums.bytes = sums.bytes.saturating_add_signed(record_bytes(image));
        sums.digest = sums.digest.wrapping_add(record_digest(class.id, id, creation, image));
        let record = Arc::new(StoredRecord { creation, image: image.into() });
        self.table.records.insert(id, record);
        Ok(())
    }

    fn is_free(&self, id: u64) -> bool {
        !self.free_places.is_empty()
            && self.free_places.get(&(id / 64)).is_some_and(|places| places & (1 << (id % 64)) != 0)
    }

    /// Reads `count` entries of an index: the ids of the records with the next keys.
    pub(super) fn entries(
        &mut self,
        dictionary: &Dictionary,
        class: &ClassDef,
        position: usize,
        count: u64,
        from: &mut Reader<'_>,
    ) -> Result<(), Malformed> {
        // All keys first: the processor waits for many of them at once.
        for entry in self.take_entries(position, count, from)? {
            if let Some(before) = &self.last {
                if *before >= entry {
                    return Err(from.malformed("index entries out of order"));
                }
                let index = &class.indexes[position];
                if index.unique
                    && before.key == entry.key
                    && !self.has_null(dictionary, index, entry.id)
                {
                    return Err(from.malformed("a key that its unique index holds twice"));
                }
            }
            self.last = Some(entry.clone());
            self.table.indexes[position].insert(entry);
        }
        if self.missing_entries(position) == 0 {
            self.last = None;
            self.keys[position] = WaitingKeys::default();
        }
        Ok(())
    }

    fn take_entries(
        &mut self,
        position: usize,
        count: u64,
        from: &mut Reader<'_>,
    ) -> Result<Vec<Entry>, Malformed> {
        let id_bytes = id_bytes(self.table.next_id);
        let room = (from.remaining() / id_bytes).min(usize::try_from(count).unwrap_or(usize::MAX));
        let mut entries = Vec::with_capacity(room);
        for _ in 0..count {
            let mut id = [0; 8];
            id[..id_bytes].copy_from_slice(from.raw(id_bytes)?);
            let id = u64::from_le_bytes(id);
            let Some(key) = self.keys[position].take(id) else {
                return Err(from.malformed("an index entry of no record, or its second"));
            };
            entries.push(Entry { key, id });
        }
        Ok(entries)
    }

    fn has_null(&self, dictionary: &Dictionary, index: &IndexDef, id: u64) -> bool {
        let record = self.table.records.get(&id).expect("its key was waiting");
        key_of(dictionary, index, &record.image).has_null
    }
}

/// An image at rest awaits no patches, and its autoid was given out.
fn check_image(
    dictionary: &Dictionary,
    class: &ClassDef,
    image: &[u8],
    next_autoid: u64,
    from: &Reader<'_>,
) -> Result<(), Malformed> {
    let layout = dictionary.layout(class.id);
    let start = from.offset() - image.len();
    layout
        .check(dictionary, image)
        .map_err(|error| Malformed { offset: start + error.offset, ..error })?;
    if !layout.patches(dictionary, image).is_empty() {
        return Err(from.malformed("a record with numbers not given out"));
    }
    let record = RecordRef::new(dictionary, class, image);
    let autoid = class.autoid.and_then(|field| record.unsigned(field));
    if autoid.is_some_and(|autoid| autoid >= next_autoid) {
        return Err(from.malformed("an autoid not given out yet"));
    }
    Ok(())
}
