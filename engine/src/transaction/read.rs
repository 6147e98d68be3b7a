//! Reading: by handle, by key, and all records of a class.

use std::ops::Bound;
use std::sync::Arc;

use quorate_schema::{ClassDef, IndexDef, Value, ValueError};

use super::overlay::{EntryKey, RecordKey};
use super::{Record, Transaction};
use crate::certify::{key_prefix, key_prefix_up_to};
use crate::digest::{membership_point, record_point, unique_key_point};
use crate::store::{KeyBytes, StoredRecord};
use crate::{Error, Handle, keys};

impl<'c> Transaction<'c> {
    /// The record of a handle, if it exists in the transaction's view.
    pub fn record(&self, handle: Handle) -> Result<Option<Record>, Error> {
        self.note_record(handle);
        Ok(self.stored(handle).map(|stored| self.to_record(handle, stored)))
    }

    /// The first record, in order of creation, with exactly this key in an index. For a unique
    /// index and no null among `values` that is the only one.
    ///
    /// Errors: unknown names; values of another number or type than the parts of the key.
    pub fn find_record(
        &self,
        class: &str,
        index: &str,
        values: &[Value],
    ) -> Result<Option<(Handle, Record)>, Error> {
        let class = self.class(class)?;
        let index = self.index(class, index)?;
        self.find_in(class, index, values)
    }

    pub(super) fn find_in(
        &self,
        class: &'c ClassDef,
        index: &'c IndexDef,
        values: &[Value],
    ) -> Result<Option<(Handle, Record)>, Error> {
        if values.len() != index.parts.len() {
            let place = format!("{}.{}", class.name, index.name);
            let (expected, got) = (index.parts.len(), values.len());
            return Err(ValueError::WrongLength { place, expected, got }.into());
        }
        let key = self.dictionary().key_from_values(index, values)?;
        let has_null = values.contains(&Value::Null);
        self.note_key(class, index, &key, has_null);
        let place = (index.id, keys::position(self.dictionary(), index));
        let low = Bound::Included((KeyBytes::from(&key[..]), RecordKey::MIN));
        let found = {
            let state = self.state.borrow();
            state.overlay.first_from(self.root.class(class.id), place, low, None)
        };
        match found {
            Some(found) if *found.0 == *key => Ok(Some(self.at_entry(class, &found))),
            _ => Ok(None),
        }
    }

    /// All records of a class, committed ones in order of their places, then own new ones. The scan
    /// reads the transaction's writes made before each step.
    pub fn scan(&self, class: &str) -> Result<Scan<'_>, Error> {
        let class = self.class(class)?;
        if self.is_certified() {
            self.state.borrow_mut().reads_of(class).point(membership_point(class.id));
        }
        Ok(Scan { transaction: self, class, after: RecordKey::MIN })
    }

    /// The version of a record that the transaction sees.
    pub(super) fn stored(&self, handle: Handle) -> Option<Arc<StoredRecord>> {
        let state = self.state.borrow();
        let overlay = &state.overlay;
        if handle.is_provisional() {
            let own = overlay.inserted.get(&handle.id)?;
            return (own.class == handle.class).then(|| Arc::clone(&own.stored));
        }
        match overlay.changed.get(&(handle.class, handle.id)) {
            Some(changed) if changed.old.creation == handle.creation => {
                changed.new.as_ref().map(|own| Arc::clone(&own.stored))
            }
            Some(_) => None,
            None => self.root.record(handle).cloned(),
        }
    }

    /// The record an index entry of the view stands for.
    pub(super) fn at_entry(&self, class: &ClassDef, entry: &EntryKey) -> (Handle, Record) {
        let handle = self.handle_of(class, entry.1);
        self.note_record(handle);
        let stored = self.stored(handle).expect("index entries of a view are of its records");
        (handle, self.to_record(handle, stored))
    }

    fn handle_of(&self, class: &ClassDef, record: RecordKey) -> Handle {
        let (id, creation) = match record {
            RecordKey::Provisional(number) => (number, quorate_schema::Reference::PROVISIONAL),
            RecordKey::Committed(id) => {
                let stored = self.root.class(class.id).records.get(&id);
                (id, stored.expect("committed entries are of the snapshot's records").creation)
            }
        };
        Handle { class: class.id, id, creation }
    }

    fn to_record(&self, handle: Handle, stored: Arc<StoredRecord>) -> Record {
        Record::new(Arc::clone(&self.shared.dictionary), handle.class, stored)
    }

    /// Notes that a record was read. Of one created after the snapshot, nothing was seen but that
    /// it is not there yet: a matter of the class's membership.
    pub(super) fn note_record(&self, handle: Handle) {
        if !self.is_certified() || handle.is_provisional() {
            return;
        }
        let Some(class) = self.dictionary().class(handle.class) else { return };
        let snapshot = if class.local { self.root.local_index } else { self.root.index };
        let point = if handle.creation > snapshot.0 {
            membership_point(class.id)
        } else {
            record_point(class.id, handle.id)
        };
        self.state.borrow_mut().reads_of(class).point(point);
    }

    /// Notes that exactly this key was looked up.
    pub(super) fn note_key(&self, class: &ClassDef, index: &IndexDef, key: &[u8], has_null: bool) {
        if !self.is_certified() {
            return;
        }
        if !index.unique || has_null {
            self.note_range(class, index, key, Bound::Included(key));
            return;
        }
        let mut state = self.state.borrow_mut();
        let reads = state.reads_of(class);
        reads.point(unique_key_point(index.id, key));
        if keys::may_await_patches(self.dictionary(), index) {
            reads.point(membership_point(class.id));
        }
    }

    /// Notes that the keys from `low`, itself included, up to `high` were looked at.
    pub(super) fn note_range(
        &self,
        class: &ClassDef,
        index: &IndexDef,
        low: &[u8],
        high: Bound<&[u8]>,
    ) {
        if !self.is_certified() {
            return;
        }
        let mut state = self.state.borrow_mut();
        let reads = state.reads_of(class);
        let low = key_prefix(low);
        // In a range that ends before it starts no key could ever be.
        if let Some(high) = key_prefix_up_to(high).filter(|high| low <= *high) {
            reads.range(index.id, low, high);
        }
        if keys::may_await_patches(self.dictionary(), index) {
            reads.point(membership_point(class.id));
        }
    }
}

/// All records of one class: see [`Transaction::scan`].
#[derive(Debug)]
pub struct Scan<'t> {
    transaction: &'t Transaction<'t>,
    class: &'t ClassDef,
    after: RecordKey,
}

impl Iterator for Scan<'_> {
    type Item = (Handle, Record);

    fn next(&mut self) -> Option<(Handle, Record)> {
        let next = self.next_committed().or_else(|| self.next_own())?;
        self.after = next;
        let handle = self.transaction.handle_of(self.class, next);
        self.transaction.note_record(handle);
        let stored = self.transaction.stored(handle).expect("the scan found it in the view");
        Some((handle, self.transaction.to_record(handle, stored)))
    }
}

impl Scan<'_> {
    fn next_committed(&self) -> Option<RecordKey> {
        let RecordKey::Committed(after) = self.after else { return None };
        let state = self.transaction.state.borrow();
        let deleted = |id: u64| {
            let changed = state.overlay.changed.get(&(self.class.id, id));
            changed.is_some_and(|changed| changed.new.is_none())
        };
        let records = &self.transaction.root.class(self.class.id).records;
        let mut rest = records.range((Bound::Excluded(after), Bound::Unbounded));
        rest.find(|(id, _)| !deleted(**id)).map(|(id, _)| RecordKey::Committed(*id))
    }

    fn next_own(&self) -> Option<RecordKey> {
        let low = match self.after {
            RecordKey::Committed(_) => Bound::Unbounded,
            RecordKey::Provisional(number) => Bound::Excluded(number),
        };
        let state = self.transaction.state.borrow();
        let mut rest = state.overlay.inserted.range((low, Bound::Unbounded));
        let own = rest.find(|(_, own)| own.class == self.class.id);
        own.map(|(number, _)| RecordKey::Provisional(*number))
    }
}
