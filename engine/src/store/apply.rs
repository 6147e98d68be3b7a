//! Apply: a write set makes a root the next root. Total, and takes no decision.
//!
//! The order of steps is fixed, because ids are given out in it and must be equal on all nodes:
//! 1. changes, in order: deleted places go to the free list, all index keys given up leave;
//! 2. inserts, in order: each takes the place freed last, else a new one, and its autoid;
//! 3. images and keys are patched with these numbers, records and index keys go in;
//! 4. additions, in order, which no index can see.
//!
//! The root is changed in place, as far as nobody else holds it: of what a published root or a
//! snapshot shares, `imbl` copies the nodes that change, once until the next is published. That is
//! most of what a transaction costs, so a root is not cloned for each.
//!
//! What contradicts the root is refused as [`Malformed`]: no correct leader admits it. Each change
//! of a table notes how it is taken back, and a refusal takes all of them back, the last first; so
//! it leaves nothing behind.

use std::sync::Arc;

use imbl::Vector;
use quorate_schema::bytes::Malformed;
use quorate_schema::{ClassDef, ClassId, Dictionary, Key, Patch, PatchWhat, RecordRef};

use super::{ClassTable, Entry, KeyBytes, Place, Root, StoredRecord};
use crate::digest::{free_digest, record_digest};
use crate::keys::{entry_bytes, key_of, record_bytes};
use crate::write_set::{Addition, Change, Insert, WriteSet, operated};
use crate::{Index, Outcome};

/// The lasting numbers of one inserted record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) class: ClassId,
    pub(crate) id: u64,
    pub(crate) creation: u64,
    /// None if the class has none.
    pub(crate) autoid: Option<u64>,
}

/// Mistakes to make on purpose; none without the feature `planted-bugs`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mistakes {
    pub(crate) oldest_free_first: bool,
    pub(crate) outcomes_forgotten: bool,
}

impl Root {
    /// Applies `write_set` of replicated classes at `index`, the one after this root's. On an
    /// error the root is as it was.
    pub(crate) fn apply(
        &mut self,
        dictionary: &Dictionary,
        index: Index,
        write_set: &WriteSet<'_>,
        mistakes: Mistakes,
    ) -> Result<Vec<Given>, Malformed> {
        assert_eq!(index, self.index.next(), "applied out of order, after {}", self.index);
        if self.exactly_once.outcome(write_set.id) != Outcome::Unknown {
            return Err(refused("a transaction that was applied before"));
        }
        let used_bytes = used(self.used_bytes, write_set.byte_delta)?;
        let given = Step::new(self, dictionary, index.0, mistakes).run(write_set)?;
        self.index = index;
        self.used_bytes = used_bytes;
        if !mistakes.outcomes_forgotten {
            self.exactly_once.observe(write_set.id, write_set.low_water, index);
        }
        Ok(given)
    }

    /// Applies `write_set` of local classes. On an error the root is as it was.
    pub(crate) fn apply_local(
        &mut self,
        dictionary: &Dictionary,
        write_set: &WriteSet<'_>,
    ) -> Result<Vec<Given>, Malformed> {
        let local_index = self.local_index.next();
        let used_local_bytes = used(self.used_local_bytes, write_set.byte_delta)?;
        // Local classes are not part of the state that nodes compare.
        let digest = self.digest;
        let step = Step::new(self, dictionary, local_index.0, Mistakes::default());
        let given = step.run(write_set)?;
        self.digest = digest;
        self.local_index = local_index;
        self.used_local_bytes = used_local_bytes;
        Ok(given)
    }
}

fn used(before: u64, byte_delta: i64) -> Result<u64, Malformed> {
    before.checked_add_signed(byte_delta).ok_or(refused("more bytes freed than used"))
}

fn refused(what: &'static str) -> Malformed {
    Malformed { what, offset: 0 }
}

/// One application under way.
struct Step<'r, 'd> {
    root: &'r mut Root,
    dictionary: &'d Dictionary,
    creation: u64,
    mistakes: Mistakes,
    byte_delta: i64,
    done: Vec<Done>,
}

/// One change that was made to a table, with what it takes to take it back.
enum Done {
    EntryRemoved {
        class: ClassId,
        position: usize,
        entry: Entry,
    },
    EntryAdded {
        class: ClassId,
        position: usize,
        entry: Entry,
    },
    RecordRemoved {
        class: ClassId,
        id: u64,
        old: Arc<StoredRecord>,
    },
    /// The record that was there before, if any.
    RecordPut {
        class: ClassId,
        id: u64,
        old: Option<Arc<StoredRecord>>,
    },
    PlaceFreed {
        class: ClassId,
    },
    PlaceTaken {
        class: ClassId,
        id: u64,
    },
    PlaceAdded {
        class: ClassId,
    },
    AutoidGiven {
        class: ClassId,
    },
}

impl<'r, 'd> Step<'r, 'd> {
    fn new(
        root: &'r mut Root,
        dictionary: &'d Dictionary,
        creation: u64,
        mistakes: Mistakes,
    ) -> Self {
        assert!(creation > 0, "0 is the empty database, no transaction");
        Step { root, dictionary, creation, mistakes, byte_delta: 0, done: Vec::new() }
    }

    fn run(mut self, write_set: &WriteSet<'_>) -> Result<Vec<Given>, Malformed> {
        let digest = self.root.digest;
        let applied = self.apply(write_set);
        if applied.is_err() {
            self.take_back();
            self.root.digest = digest;
        }
        applied
    }

    fn apply(&mut self, write_set: &WriteSet<'_>) -> Result<Vec<Given>, Malformed> {
        for change in &write_set.changes {
            self.give_up(change)?;
        }
        let given: Vec<Given> =
            write_set.inserts.iter().map(|insert| self.give_numbers(insert.class)).collect();
        for change in &write_set.changes {
            self.update(change, &given)?;
        }
        for (insert, own) in write_set.inserts.iter().zip(&given) {
            self.insert(insert, own, &given)?;
        }
        for addition in &write_set.additions {
            self.add(addition)?;
        }
        if self.byte_delta != write_set.byte_delta {
            return Err(refused("a byte delta that is not the sum of its changes"));
        }
        Ok(given)
    }

    /// Takes back every change, the last first.
    fn take_back(&mut self) {
        while let Some(done) = self.done.pop() {
            match done {
                Done::EntryRemoved { class, position, entry } => {
                    self.table(class).indexes[position].insert(entry);
                }
                Done::EntryAdded { class, position, entry } => {
                    self.table(class).indexes[position].remove(&entry);
                }
                Done::RecordRemoved { class, id, old }
                | Done::RecordPut { class, id, old: Some(old) } => {
                    self.table(class).records.insert(id, old);
                }
                Done::RecordPut { class, id, old: None } => {
                    self.table(class).records.remove(&id);
                }
                Done::PlaceFreed { class } => drop(self.table(class).free.pop_back()),
                Done::PlaceTaken { class, id } => {
                    let oldest_first = self.mistakes.oldest_free_first;
                    let free = &mut self.table(class).free;
                    if oldest_first { free.push_front(id) } else { free.push_back(id) }
                }
                Done::PlaceAdded { class } => self.table(class).next_id -= 1,
                Done::AutoidGiven { class } => self.table(class).next_autoid -= 1,
            }
        }
    }

    /// Step 1 of one change: its keys leave, and if it is a delete, its record.
    fn give_up(&mut self, change: &Change<'_>) -> Result<(), Malformed> {
        let class = self.class(change.class);
        let table = table(self.root, change.class);
        let old = match table.records.get(&change.id) {
            Some(old) if old.creation == change.creation => Arc::clone(old),
            _ => return Err(refused("a change of a record that is not there")),
        };
        check_keys(self.dictionary, class, change, &old)?;
        for removed in &change.removed {
            let (place, position) = (Place { key: removed.key, id: change.id }, removed.position);
            let entry = table.indexes[position].remove(&place);
            let entry = entry.expect("the record has this key, so its entry is in the index");
            self.done.push(Done::EntryRemoved { class: class.id, position, entry });
            self.byte_delta -= entry_bytes(removed.key);
        }
        self.byte_delta -= record_bytes(&old.image);
        let mut digest = record_digest(class.id, change.id, old.creation, &old.image);
        if change.image.is_none() {
            table.records.remove(&change.id);
            self.done.push(Done::RecordRemoved { class: class.id, id: change.id, old });
            let position = table.free.len() as u64;
            digest = digest.wrapping_sub(free_digest(class.id, position, change.id));
            table.free.push_back(change.id);
            self.done.push(Done::PlaceFreed { class: class.id });
        }
        self.root.digest = self.root.digest.wrapping_sub(digest);
        Ok(())
    }

    /// Step 2 of one insert.
    fn give_numbers(&mut self, class: ClassId) -> Given {
        let has_autoid = self.class(class).autoid.is_some();
        let table = table(self.root, class);
        let taken = take_free(&mut table.free, self.mistakes.oldest_free_first);
        let id = taken.unwrap_or(table.next_id);
        let autoid = has_autoid.then_some(table.next_autoid);
        if has_autoid {
            table.next_autoid += 1;
            self.done.push(Done::AutoidGiven { class });
        }
        if taken.is_some() {
            let digest = free_digest(class, table.free.len() as u64, id);
            self.root.digest = self.root.digest.wrapping_sub(digest);
            self.done.push(Done::PlaceTaken { class, id });
        } else {
            table.next_id += 1;
            self.done.push(Done::PlaceAdded { class });
        }
        Given { class, id, creation: self.creation, autoid }
    }

    /// Step 3 of an update.
    fn update(&mut self, change: &Change<'_>, given: &[Given]) -> Result<(), Malformed> {
        let Some(image) = change.image else { return Ok(()) };
        let image = patched(image, &change.patches, given, None);
        for (removed, key) in change.removed.iter().zip(&change.added) {
            self.put_key(change.class, removed.position, change.id, key, given, None)?;
        }
        self.put_record(change.class, change.id, change.creation, image);
        Ok(())
    }

    /// Step 3 of an insert.
    fn insert(
        &mut self,
        insert: &Insert<'_>,
        own: &Given,
        given: &[Given],
    ) -> Result<(), Malformed> {
        let image = patched(insert.image, &insert.patches, given, own.autoid);
        for (position, key) in insert.added.iter().enumerate() {
            self.put_key(insert.class, position, own.id, key, given, own.autoid)?;
        }
        self.put_record(insert.class, own.id, own.creation, image);
        Ok(())
    }

    /// Step 4 of one record.
    fn add(&mut self, addition: &Addition) -> Result<(), Malformed> {
        let class = self.class(addition.class);
        let old = match self.root.class(class.id).records.get(&addition.id) {
            Some(old) if old.creation == addition.creation => Arc::clone(old),
            _ => return Err(refused("an addition to a record that is not there")),
        };
        let new = operated(self.dictionary, class, &old.image, &addition.operations)
            .ok_or(refused("an addition to null"))?;
        self.byte_delta -= record_bytes(&old.image);
        let digest = record_digest(class.id, addition.id, old.creation, &old.image);
        self.root.digest = self.root.digest.wrapping_sub(digest);
        self.put_record(class.id, addition.id, old.creation, new.image.into());
        Ok(())
    }

    fn put_key(
        &mut self,
        class: ClassId,
        position: usize,
        id: u64,
        key: &Key,
        given: &[Given],
        autoid: Option<u64>,
    ) -> Result<(), Malformed> {
        let unique = self.class(class).indexes[position].unique && !key.has_null;
        let bytes = patched(&key.bytes, &key.patches, given, autoid);
        let table = self.table(class);
        if unique && table.has_key(position, &bytes) {
            return Err(refused("a key that its unique index has already"));
        }
        let entry = Entry { key: KeyBytes::from(&*bytes), id };
        table.indexes[position].insert(entry.clone());
        self.byte_delta += entry_bytes(&bytes);
        self.done.push(Done::EntryAdded { class, position, entry });
        Ok(())
    }

    fn put_record(&mut self, class: ClassId, id: u64, creation: u64, image: Box<[u8]>) {
        self.byte_delta += record_bytes(&image);
        let digest = record_digest(class, id, creation, &image);
        self.root.digest = self.root.digest.wrapping_add(digest);
        let record = Arc::new(StoredRecord { creation, image });
        let old = self.table(class).records.insert(id, record);
        self.done.push(Done::RecordPut { class, id, old });
    }

    fn table(&mut self, class: ClassId) -> &mut ClassTable {
        table(self.root, class)
    }

    fn class(&self, class: ClassId) -> &'d ClassDef {
        &self.dictionary.classes()[class.0 as usize]
    }
}

/// The tables of one class, copied if an older root shares them.
fn table(root: &mut Root, class: ClassId) -> &mut ClassTable {
    Arc::make_mut(&mut root.classes[class.0 as usize])
}

fn take_free(free: &mut Vector<u64>, oldest_first: bool) -> Option<u64> {
    if oldest_first { free.pop_front() } else { free.pop_back() }
}

/// The keys a change gives up are those of the old image, and an update gives up exactly those
/// that its new image does not have; and an autoid stays.
fn check_keys(
    dictionary: &Dictionary,
    class: &ClassDef,
    change: &Change<'_>,
    old: &StoredRecord,
) -> Result<(), Malformed> {
    let mut removed = change.removed.iter().peekable();
    for (position, index) in class.indexes.iter().enumerate() {
        let old_key = key_of(dictionary, index, &old.image);
        if let Some(removed) = removed.next_if(|removed| removed.position == position) {
            if removed.key != old_key.bytes || removed.has_null != old_key.has_null {
                return Err(refused("a key given up that the record does not have"));
            }
        } else if let Some(image) = change.image {
            let key = key_of(dictionary, index, image);
            if !key.patches.is_empty() || key.bytes != old_key.bytes {
                return Err(refused("an update that hides the change of a key"));
            }
        }
    }
    if let (Some(autoid), Some(image)) = (class.autoid, change.image) {
        let value = |image| RecordRef::new(dictionary, class, image).unsigned(autoid);
        if value(image) != value(&old.image) {
            return Err(refused("an update that changes an autoid"));
        }
    }
    Ok(())
}

/// `bytes` with all numbers put in that were not known before.
fn patched(bytes: &[u8], patches: &[Patch], given: &[Given], autoid: Option<u64>) -> Box<[u8]> {
    let mut bytes: Box<[u8]> = bytes.into();
    for patch in patches {
        let value = match patch.what {
            PatchWhat::RecordId(number) => given[number as usize].id,
            PatchWhat::Creation(number) => given[number as usize].creation,
            PatchWhat::Autoid => autoid.expect("decode admits autoids in inserts only"),
        };
        patch.apply(&mut bytes, value);
    }
    bytes
}
