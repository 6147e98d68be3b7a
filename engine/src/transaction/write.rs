//! Writing: insert, update, delete, each into the overlay and nowhere else.
//!
//! Everything that can be refused is refused before the first change of the overlay. Unique keys
//! are looked for in the snapshot and the own writes: what is found there is the violation the
//! program hears of. What concurrent transactions do shows at commit, as a conflict.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use quorate_schema::{
    ClassDef, ClassId, EncodedRecord, FieldId, IndexDef, Key, PatchWhat, RecordRef, Reference,
    Type, Value,
};

use super::overlay::{Changed, EntryKey, Own, RecordKey};
use super::{Transaction, kind_of};
use crate::digest::record_point;
use crate::names::nearest;
use crate::store::{KeyBytes, StoredRecord};
use crate::{Access, Error, Handle, keys};

/// A new version of one record, made and not yet put in its place.
struct Replacement<'c> {
    class: &'c ClassDef,
    record: RecordKey,
    current: Own,
    new: Own,
}

/// Each transaction has 2^24 provisional numbers before it uses those of the next.
const NUMBERS_BITS: u32 = 24;

impl<'c> Transaction<'c> {
    /// Inserts a record of the named class from named values; fields not named get their default.
    /// Gives a provisional handle.
    ///
    /// Errors: [`Error::ReadOnlyTransaction`], [`Error::MixedTransaction`], unknown names, values
    /// that do not fit, [`Error::UniqueViolation`], [`Error::Gone`] for a reference to a record
    /// that is not there. Nothing is inserted then.
    pub fn insert_values(&self, class: &str, values: &[(&str, Value)]) -> Result<Handle, Error> {
        let class = self.class(class)?;
        let dictionary = self.dictionary();
        let mut all: Vec<Value> =
            class.fields.iter().map(|field| dictionary.initial_value(field)).collect();
        for (field, value) in self.fields(class, values)? {
            all[field.0 as usize] = value;
        }
        self.insert_all(class, &all)
    }

    /// Changes the named fields of a record.
    ///
    /// An update writes the record even if it changes nothing. Errors as
    /// [`Transaction::insert_values`], and [`Error::Gone`] if the record itself is not there.
    pub fn update_fields(&self, handle: Handle, values: &[(&str, Value)]) -> Result<(), Error> {
        let class = self.class_of(handle)?;
        let changes = self.fields(class, values)?;
        self.update_changes(class, handle, changes)
    }

    /// Deletes a record. References to it stay and lead nowhere; those held by other records this
    /// very transaction inserted or updated become null if the record was its own too, or in lists,
    /// where null cannot stand, [`Handle::NOTHING`].
    ///
    /// Errors: [`Error::ReadOnlyTransaction`], [`Error::MixedTransaction`], [`Error::Gone`].
    pub fn delete(&self, handle: Handle) -> Result<(), Error> {
        let class = self.class_of(handle)?;
        self.expect_writable(class)?;
        let (record, current) = self.current(class, handle)?;
        let cleared = self.without_references_to(handle)?;
        // From here on nothing is refused.
        for replacement in cleared {
            self.replace(replacement, Vec::new());
        }
        let mut state = self.state.borrow_mut();
        let overlay = &mut state.overlay;
        for (index, key) in class.indexes.iter().zip(current.keys) {
            overlay.remove(index.id, KeyBytes::from(&key.bytes[..]), record);
        }
        match record {
            RecordKey::Provisional(number) => {
                overlay.inserted.remove(&number);
            }
            RecordKey::Committed(id) => {
                let changed = overlay.changed.entry((class.id, id));
                let changed =
                    changed.or_insert(Changed { old: current.stored, new: None, added: None });
                changed.new = None;
                changed.added = None;
            }
        }
        overlay.kind = Some(kind_of(class));
        Ok(())
    }

    pub(super) fn insert_all(
        &self,
        class: &'c ClassDef,
        values: &[Value],
    ) -> Result<Handle, Error> {
        self.expect_writable(class)?;
        let dictionary = self.dictionary();
        let encoded = dictionary.layout(class.id).encode(dictionary, values)?;
        let number = self.next_number();
        let record = RecordKey::Provisional(number);
        let new = self.own(class, encoded, Reference::PROVISIONAL);
        let targets = self.new_targets(class, values, &[])?;
        self.check_unique(class, &new.keys, &[], record)?;
        let mut state = self.state.borrow_mut();
        let overlay = &mut state.overlay;
        for (index, key) in class.indexes.iter().zip(&new.keys) {
            overlay.add(index.id, KeyBytes::from(&key.bytes[..]), record);
        }
        overlay.next_number = number + 1;
        overlay.dependencies.extend(targets);
        overlay.kind = Some(kind_of(class));
        overlay.inserted.insert(number, new);
        Ok(Handle { class: class.id, id: number, creation: Reference::PROVISIONAL })
    }

    pub(super) fn update_changes(
        &self,
        class: &'c ClassDef,
        handle: Handle,
        changes: Vec<(FieldId, Value)>,
    ) -> Result<(), Error> {
        self.expect_writable(class)?;
        let replacement = self.replacement(class, handle, &changes)?;
        let Replacement { record, current, new, .. } = &replacement;
        let old = RecordRef::new(self.dictionary(), class, &current.stored.image);
        let mut targets = Vec::new();
        for (field, value) in &changes {
            let known = [old.value(*field)];
            let ty = &class.fields[field.0 as usize].ty;
            targets.extend(self.new_targets_of(ty, value, &known)?);
        }
        self.check_unique(class, &new.keys, &current.keys, *record)?;
        self.replace(replacement, targets);
        Ok(())
    }

    /// The record of `handle` with other values. Neither references nor keys are looked at.
    fn replacement(
        &self,
        class: &'c ClassDef,
        handle: Handle,
        changes: &[(FieldId, Value)],
    ) -> Result<Replacement<'c>, Error> {
        let (record, current) = self.current(class, handle)?;
        let dictionary = self.dictionary();
        let old_image = &current.stored.image;
        let encoded = dictionary.layout(class.id).update(dictionary, old_image, changes)?;
        let new = self.own(class, encoded, handle.creation);
        Ok(Replacement { class, record, current, new })
    }

    /// The provisional number for the next insert. Transactions count from different numbers, so
    /// that the provisional handle of one finds nothing in another.
    fn next_number(&self) -> u64 {
        let mut state = self.state.borrow_mut();
        let overlay = &mut state.overlay;
        if overlay.next_number == 0 {
            let serial = self.shared.serials.fetch_add(1, Ordering::Relaxed);
            overlay.next_number = (serial << NUMBERS_BITS) & (u64::MAX >> 1);
        }
        overlay.next_number
    }

    /// Puts the new version of a record in its place; everything was checked.
    fn replace(&self, replacement: Replacement<'c>, targets: Vec<u64>) {
        let Replacement { class, record, current, new } = replacement;
        let mut state = self.state.borrow_mut();
        let overlay = &mut state.overlay;
        for ((index, old), new) in class.indexes.iter().zip(current.keys).zip(&new.keys) {
            if old.bytes != new.bytes {
                overlay.remove(index.id, KeyBytes::from(&old.bytes[..]), record);
                overlay.add(index.id, KeyBytes::from(&new.bytes[..]), record);
            }
        }
        overlay.dependencies.extend(targets);
        overlay.kind = Some(kind_of(class));
        match record {
            RecordKey::Provisional(number) => {
                overlay.inserted.insert(number, new);
            }
            RecordKey::Committed(id) => {
                let changed = overlay.changed.entry((class.id, id));
                let changed =
                    changed.or_insert(Changed { old: current.stored, new: None, added: None });
                changed.new = Some(new);
                changed.added = None;
            }
        }
    }

    /// The record of `handle` as the transaction sees it, with its keys.
    fn current(&self, class: &ClassDef, handle: Handle) -> Result<(RecordKey, Own), Error> {
        self.note_record(handle);
        let stored = self.stored(handle).ok_or(Error::Gone(handle))?;
        let record = RecordKey::of(handle);
        let keys = self.keys(class, &stored.image);
        Ok((record, Own { class: class.id, stored, keys }))
    }

    pub(super) fn own(&self, class: &ClassDef, encoded: EncodedRecord, creation: u64) -> Own {
        let keys = self.keys(class, &encoded.image);
        let stored = Arc::new(StoredRecord { creation, image: encoded.image.into() });
        Own { class: class.id, stored, keys }
    }

    fn keys(&self, class: &ClassDef, image: &[u8]) -> Vec<Key> {
        let key = |index: &IndexDef| keys::key_of(self.dictionary(), index, image);
        class.indexes.iter().map(key).collect()
    }

    /// The own records that refer to `target`, without these references, for when it is deleted. It
    /// is itself not among them; of a committed one there are none, references to it stay.
    fn without_references_to(&self, target: Handle) -> Result<Vec<Replacement<'c>>, Error> {
        if !target.is_provisional() {
            return Ok(Vec::new());
        }
        let holders: Vec<Handle> = {
            let state = self.state.borrow();
            let refers = |own: &Own| {
                let layout = self.dictionary().layout(own.class);
                let patches = layout.patches(self.dictionary(), &own.stored.image);
                patches.iter().any(|patch| patch.what == PatchWhat::RecordId(target.id))
            };
            let overlay = &state.overlay;
            let inserted = overlay.inserted.iter().filter(|(_, own)| refers(own));
            let inserted = inserted.map(|(number, own)| Handle {
                class: own.class,
                id: *number,
                creation: Reference::PROVISIONAL,
            });
            let changed = overlay.changed.iter().filter_map(|((class, id), changed)| {
                let new = changed.new.as_ref().filter(|own| refers(own))?;
                Some(Handle { class: *class, id: *id, creation: new.stored.creation })
            });
            inserted.chain(changed).filter(|holder| *holder != target).collect()
        };
        holders.into_iter().map(|holder| self.without_references(holder, target)).collect()
    }

    /// Of the two checks of an update neither is needed: no reference is new, and a key that
    /// changes gets a null part, as lists are no parts of keys, so nothing stands in its way.
    fn without_references(&self, holder: Handle, target: Handle) -> Result<Replacement<'c>, Error> {
        let class = self.class_of(holder)?;
        let stored = self.stored(holder).ok_or(Error::Gone(holder))?;
        let record = RecordRef::new(self.dictionary(), class, &stored.image);
        let mut changes = Vec::new();
        for (position, value) in record.values().into_iter().enumerate() {
            let cleared = without(value.clone(), target.reference(), false);
            if cleared != value {
                changes.push((FieldId(position as u32), cleared));
            }
        }
        let replacement = self.replacement(class, holder, &changes)?;
        let Replacement { current, new, .. } = &replacement;
        let keys = current.keys.iter().zip(&new.keys);
        for (old, new) in keys {
            let free = old.bytes == new.bytes || new.has_null;
            assert!(free, "clearing a reference changed a key of {holder} to one without null");
        }
        Ok(replacement)
    }

    /// Refuses keys that another record of the view has in a unique index. The keys in `old`, if
    /// any, are the record's own by now.
    fn check_unique(
        &self,
        class: &'c ClassDef,
        new: &[Key],
        old: &[Key],
        record: RecordKey,
    ) -> Result<(), Error> {
        for (position, (index, key)) in class.indexes.iter().zip(new).enumerate() {
            if old.get(position).is_some_and(|old| old.bytes == key.bytes) {
                continue;
            }
            let awaits_autoid = key.patches.iter().any(|patch| patch.what == PatchWhat::Autoid);
            if !index.unique || key.has_null || awaits_autoid {
                continue;
            }
            if self.holder(class, index, &key.bytes, record).is_some() {
                self.note_key(class, index, &key.bytes, false);
                return Err(Error::UniqueViolation {
                    class: class.name.clone(),
                    index: index.name.clone(),
                    key: keys::readable(self.dictionary(), index, &key.bytes),
                });
            }
        }
        Ok(())
    }

    /// A record of the view other than `except` that has exactly this key.
    fn holder(
        &self,
        class: &ClassDef,
        index: &IndexDef,
        key: &[u8],
        except: RecordKey,
    ) -> Option<EntryKey> {
        let state = self.state.borrow();
        let table = self.root.class(class.id);
        let place = (index.id, keys::position(self.dictionary(), index));
        let key = KeyBytes::from(key);
        let mut from = std::ops::Bound::Included((key.clone(), RecordKey::MIN));
        loop {
            let found = state.overlay.first_from(table, place, from, None)?;
            if found.0 != key {
                return None;
            }
            if found.1 != except {
                return Some(found);
            }
            from = std::ops::Bound::Excluded(found);
        }
    }

    pub(super) fn expect_writable(&self, class: &ClassDef) -> Result<(), Error> {
        if self.access == Access::ReadOnly {
            return Err(Error::ReadOnlyTransaction);
        }
        let state = self.state.borrow();
        let overlay = &state.overlay;
        let kind = Some(kind_of(class));
        let other_only = overlay.only.is_some() && overlay.only != kind;
        if other_only || !overlay.is_empty() && overlay.kind != kind {
            return Err(Error::MixedTransaction { class: class.name.clone() });
        }
        Ok(())
    }

    /// The class of a handle; [`Error::Gone`] for one of another dictionary.
    pub(super) fn class_of(&self, handle: Handle) -> Result<&'c ClassDef, Error> {
        self.dictionary().class(handle.class).ok_or(Error::Gone(handle))
    }

    fn fields(
        &self,
        class: &ClassDef,
        values: &[(&str, Value)],
    ) -> Result<Vec<(FieldId, Value)>, Error> {
        let field = |(name, value): &(&str, Value)| Ok((self.field(class, name)?, value.clone()));
        values.iter().map(field).collect()
    }

    pub(super) fn field(&self, class: &ClassDef, name: &str) -> Result<FieldId, Error> {
        class.field(name).map(|(field, _)| field).ok_or_else(|| {
            let known = class.fields.iter().map(|field| field.name.as_str());
            let hint = nearest(name, known).map(str::to_owned);
            Error::UnknownField { class: class.name.clone(), name: name.to_owned(), hint }
        })
    }

    fn new_targets(
        &self,
        class: &ClassDef,
        values: &[Value],
        known: &[Value],
    ) -> Result<Vec<u64>, Error> {
        let mut points = Vec::new();
        for (field, value) in class.fields.iter().zip(values) {
            points.extend(self.new_targets_of(&field.ty, value, known)?);
        }
        Ok(points)
    }

    /// The points of the committed records that `value` refers to and `known` does not. Each target
    /// must be there: a new reference to a record that is not is refused.
    fn new_targets_of(&self, ty: &Type, value: &Value, known: &[Value]) -> Result<Vec<u64>, Error> {
        let mut targets = BTreeSet::new();
        self.references(ty, value, false, &mut targets);
        let mut old = BTreeSet::new();
        known.iter().for_each(|value| self.references(ty, value, false, &mut old));
        let mut points = Vec::new();
        for (class, reference) in targets.difference(&old) {
            let target = Handle::from_reference(*class, *reference);
            if self.stored(target).is_none() {
                self.note_record(target);
                return Err(Error::Gone(target));
            }
            if !target.is_provisional() {
                points.push(record_point(*class, reference.id));
            }
        }
        Ok(points)
    }

    /// What `value` refers to. An item of a list may refer to nothing, a field has null for that.
    fn references(
        &self,
        ty: &Type,
        value: &Value,
        in_list: bool,
        into: &mut BTreeSet<(ClassId, Reference)>,
    ) {
        match (ty, value) {
            (Type::Ref(_), Value::Ref(reference)) if in_list && *reference == Handle::NOTHING => {}
            (Type::Ref(class), Value::Ref(reference)) => {
                into.insert((*class, *reference));
            }
            (Type::Vector(item) | Type::Array(item, _), Value::List(values)) => {
                values.iter().for_each(|value| self.references(item, value, true, into));
            }
            (Type::Struct(id), Value::Struct(values)) => {
                let fields = &self.dictionary().structs()[id.0 as usize].fields;
                for (field, value) in fields.iter().zip(values) {
                    self.references(&field.ty, value, false, into);
                }
            }
            _ => {}
        }
    }
}

/// `value` without references to `target`.
fn without(value: Value, target: Reference, in_list: bool) -> Value {
    match value {
        Value::Ref(reference) if reference == target && in_list => Value::Ref(Handle::NOTHING),
        Value::Ref(reference) if reference == target => Value::Null,
        Value::Struct(values) => {
            Value::Struct(values.into_iter().map(|value| without(value, target, false)).collect())
        }
        Value::List(values) => {
            Value::List(values.into_iter().map(|value| without(value, target, true)).collect())
        }
        other => other,
    }
}
