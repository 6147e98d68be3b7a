//! Changing a number without reading it: add, min and max.

use super::overlay::{Changed, RecordKey};
use super::{Transaction, kind_of};
use crate::write_set::{Operation, Operator, operated, refusal};
use crate::{Error, Handle};

impl Transaction<'_> {
    /// Adds `delta` to an integer field, without reading it: any number of transactions can add to
    /// one record at the same time, and all of them commit. The sum saturates at the least and
    /// greatest number of the field's type.
    ///
    /// What is added to is the number the field has when the transaction commits; until then the
    /// transaction sees `delta` added to the number of its snapshot. It conflicts with whoever
    /// updated or deleted the record after its snapshot, and a transaction that updates or deletes
    /// the record, or has read it under [`Isolation::Serializable`](crate::Isolation), conflicts
    /// with it. So who reads a counter to decide what to add is protected as ever, and who does
    /// not need to should not read it. Together with an update of the same record in the same
    /// transaction it is part of the update.
    ///
    /// # Errors
    ///
    /// Nothing is written: [`Error::NotAddable`] for a field of another type or part of an index,
    /// [`Error::NullAddend`], and as [`Transaction::update_fields`].
    pub fn add(&self, handle: Handle, field: &str, delta: impl Into<i128>) -> Result<(), Error> {
        self.operate(handle, field, Operator::Add, delta.into())
    }

    /// Lowers an integer field to `bound` if it is greater, without reading it: as
    /// [`Transaction::add`].
    pub fn min(&self, handle: Handle, field: &str, bound: impl Into<i128>) -> Result<(), Error> {
        self.operate(handle, field, Operator::Min, bound.into())
    }

    /// Raises an integer field to `bound` if it is less, without reading it: as
    /// [`Transaction::add`].
    pub fn max(&self, handle: Handle, field: &str, bound: impl Into<i128>) -> Result<(), Error> {
        self.operate(handle, field, Operator::Max, bound.into())
    }

    fn operate(
        &self,
        handle: Handle,
        field: &str,
        operator: Operator,
        operand: i128,
    ) -> Result<(), Error> {
        let class = self.class_of(handle)?;
        self.expect_writable(class)?;
        let id = self.field(class, field)?;
        let named = || (class.name.clone(), field.to_owned());
        if let Some(why) = refusal(class, id) {
            let (class, field) = named();
            return Err(Error::NotAddable { class, field, why });
        }
        // That it works tells no more than certification holds anyway: the record is there. That
        // it does not is something read.
        let Some(stored) = self.stored(handle) else {
            self.note_record(handle);
            return Err(Error::Gone(handle));
        };
        let operation = Operation::new(id, operator, operand);
        let Some(encoded) = operated(self.dictionary(), class, &stored.image, &[operation]) else {
            self.note_record(handle);
            let (class, field) = named();
            return Err(Error::NullAddend { class, field });
        };
        let new = self.own(class, encoded, handle.creation);
        let mut state = self.state.borrow_mut();
        let overlay = &mut state.overlay;
        overlay.kind = Some(kind_of(class));
        match RecordKey::of(handle) {
            RecordKey::Provisional(number) => {
                overlay.inserted.insert(number, new);
            }
            RecordKey::Committed(id) => {
                let changed = overlay.changed.entry((class.id, id));
                let untouched = || Changed { old: stored, new: None, added: Some(Vec::new()) };
                let changed = changed.or_insert_with(untouched);
                changed.new = Some(new);
                if let Some(added) = &mut changed.added {
                    push(added, operation);
                }
            }
        }
        Ok(())
    }
}

/// Adds an operation, as part of the last one if that is the same.
fn push(operations: &mut Vec<Operation>, next: Operation) {
    if let Some(last) = operations.last_mut()
        && let Some(both) = last.then(&next)
    {
        *last = both;
        return;
    }
    operations.push(next);
}
