//! Cursors: walking an index in its order, through the transaction's own writes.
//!
//! A cursor is a place between or at entries; each step looks at the index and the overlay as they
//! are then. So a step reflects all writes made before it: a record whose key is moved ahead of
//! the cursor will be met there again.

use std::ops::Bound;

use quorate_schema::{ClassDef, IndexDef, IndexKind, Value, ValueError, prefix_end};

use super::overlay::{EntryKey, RecordKey};
use super::{Record, Transaction};
use crate::store::KeyBytes;
use crate::{Error, Handle, keys};

/// A place in an index, bounded to a range of keys.
#[derive(Clone, Debug)]
pub struct Cursor<'t> {
    transaction: &'t Transaction<'t>,
    class: &'t ClassDef,
    index: &'t IndexDef,
    position: usize,
    /// The first key in the range.
    low: Vec<u8>,
    /// The first key after it.
    high: Option<Vec<u8>>,
    at: At,
}

#[derive(Clone, Debug)]
enum At {
    Start,
    Entry(EntryKey),
    End,
}

impl Transaction<'_> {
    /// A cursor before the first record in the order of an index.
    ///
    /// A hash index has an order of the engine's own; its cursors cannot seek, and are narrowed to
    /// equal keys only, by [`Cursor::prefix`] with all parts.
    pub fn cursor(&self, class: &str, index: &str) -> Result<Cursor<'_>, Error> {
        let class = self.class(class)?;
        let index = self.index(class, index)?;
        let position = keys::position(self.dictionary(), index);
        let (low, high, at) = (Vec::new(), None, At::Start);
        Ok(Cursor { transaction: self, class, index, position, low, high, at })
    }
}

impl<'t> Cursor<'t> {
    /// The same cursor, before the first key of a range, bounded to it. Bounds are leading parts
    /// of a key; an included bound includes all keys that start with it, an excluded one excludes
    /// them. The order is that of the index: of a descending part, greater values come first.
    pub fn range(mut self, low: Bound<&[Value]>, high: Bound<&[Value]>) -> Result<Self, Error> {
        self.expect_ordered()?;
        self.low = match low {
            Bound::Unbounded => Vec::new(),
            Bound::Included(values) => self.key(values)?,
            Bound::Excluded(values) => match prefix_end(&self.key(values)?) {
                Some(after) => after,
                None => return Ok(self.empty()),
            },
        };
        self.high = match high {
            Bound::Unbounded => None,
            Bound::Included(values) => prefix_end(&self.key(values)?),
            Bound::Excluded(values) => Some(self.key(values)?),
        };
        self.at = At::Start;
        Ok(self)
    }

    /// The same cursor, bounded to the keys whose leading parts are `values`.
    pub fn prefix(mut self, values: &[Value]) -> Result<Self, Error> {
        if values.len() != self.index.parts.len() {
            self.expect_ordered()?;
        }
        self.low = self.key(values)?;
        self.high = prefix_end(&self.low);
        self.at = At::Start;
        Ok(self)
    }

    /// The same cursor, bounded to the keys whose leading parts are `leading` and whose next part
    /// is text that starts with `prefix`.
    pub fn text_prefix(mut self, leading: &[Value], prefix: &str) -> Result<Self, Error> {
        self.expect_ordered()?;
        let dictionary = self.transaction.dictionary();
        (self.low, self.high) = dictionary.text_prefix(self.index, leading, prefix)?;
        self.at = At::Start;
        Ok(self)
    }

    /// Moves to the first record of the range and gives it, or ends.
    pub fn first(&mut self) -> Option<(Handle, Record)> {
        let from = Bound::Included((KeyBytes::from(&self.low[..]), RecordKey::MIN));
        self.forward(from)
    }

    /// Moves to the last record of the range and gives it, or to before the first.
    pub fn last(&mut self) -> Option<(Handle, Record)> {
        let to = self.high.as_ref().map_or(Bound::Unbounded, |high| {
            Bound::Excluded((KeyBytes::from(&high[..]), RecordKey::MIN))
        });
        self.backward(to)
    }

    /// Moves to the next record and gives it. From before the first record that is the first; at
    /// the last it ends, and stays at the end.
    #[allow(clippy::should_implement_trait)] // `Rows` is the iterator; a cursor moves both ways
    pub fn next(&mut self) -> Option<(Handle, Record)> {
        match &self.at {
            At::Start => self.first(),
            At::Entry(entry) => {
                let from = Bound::Excluded(entry.clone());
                self.forward(from)
            }
            At::End => None,
        }
    }

    /// Moves to the record before and gives it. From the end that is the last; at the first it
    /// moves before it, and stays there.
    pub fn prev(&mut self) -> Option<(Handle, Record)> {
        match &self.at {
            At::Start => None,
            At::Entry(entry) => {
                let to = Bound::Excluded(entry.clone());
                self.backward(to)
            }
            At::End => self.last(),
        }
    }

    /// Moves to the first record in the range whose key is not before `values`, leading parts of
    /// a key, and gives it, or ends.
    pub fn seek(&mut self, values: &[Value]) -> Result<Option<(Handle, Record)>, Error> {
        self.expect_ordered()?;
        let key = self.key(values)?.max(self.low.clone());
        Ok(self.forward(Bound::Included((KeyBytes::from(&key[..]), RecordKey::MIN))))
    }

    /// The record it is at, as it is now; nothing before the first, at the end, or if the record
    /// has left its place by the transaction's own writes.
    pub fn current(&self) -> Option<(Handle, Record)> {
        let At::Entry(entry) = &self.at else { return None };
        let here = Bound::Included(&*entry.0);
        self.transaction.note_range(self.class, self.index, &entry.0, here);
        let found = self.first_from(Bound::Included(entry.clone()))?;
        (found == *entry).then(|| self.transaction.at_entry(self.class, entry))
    }

    /// The records from the cursor's place to the end of its range.
    pub fn rows(self) -> Rows<'t> {
        Rows { cursor: self }
    }

    fn forward(&mut self, from: Bound<EntryKey>) -> Option<(Handle, Record)> {
        let found = self.first_from(from.clone());
        let (Bound::Included((low, _)) | Bound::Excluded((low, _))) = &from else {
            unreachable!("steps forward start at a key")
        };
        let high = match (&found, &self.high) {
            (Some(found), _) => Bound::Included(&*found.0),
            (None, Some(high)) => Bound::Excluded(&**high),
            (None, None) => Bound::Unbounded,
        };
        self.transaction.note_range(self.class, self.index, low, high);
        self.arrive(found, At::End)
    }

    fn backward(&mut self, to: Bound<EntryKey>) -> Option<(Handle, Record)> {
        let found = {
            let state = self.transaction.state.borrow();
            let table = self.transaction.root.class(self.class.id);
            let index = (self.index.id, self.position);
            state.overlay.last_up_to(table, index, &self.low, to.clone())
        };
        let high = match &to {
            Bound::Included((high, _)) | Bound::Excluded((high, RecordKey::Committed(1..))) => {
                Bound::Included(&**high)
            }
            Bound::Excluded((high, RecordKey::Committed(0))) => Bound::Excluded(&**high),
            Bound::Excluded((high, RecordKey::Provisional(_))) => Bound::Included(&**high),
            Bound::Unbounded => Bound::Unbounded,
        };
        let low = found.as_ref().map_or(&self.low[..], |found| &found.0);
        self.transaction.note_range(self.class, self.index, low, high);
        self.arrive(found, At::Start)
    }

    fn arrive(&mut self, found: Option<EntryKey>, otherwise: At) -> Option<(Handle, Record)> {
        self.at = found.clone().map_or(otherwise, At::Entry);
        found.map(|entry| self.transaction.at_entry(self.class, &entry))
    }

    fn first_from(&self, from: Bound<EntryKey>) -> Option<EntryKey> {
        let state = self.transaction.state.borrow();
        let table = self.transaction.root.class(self.class.id);
        let index = (self.index.id, self.position);
        state.overlay.first_from(table, index, from, self.high.as_deref())
    }

    fn empty(mut self) -> Self {
        self.low = Vec::new();
        self.high = Some(Vec::new());
        self.at = At::Start;
        self
    }

    fn key(&self, values: &[Value]) -> Result<Vec<u8>, ValueError> {
        self.transaction.dictionary().key_from_values(self.index, values)
    }

    fn expect_ordered(&self) -> Result<(), Error> {
        match self.index.kind {
            IndexKind::Tree => Ok(()),
            IndexKind::Hash => Err(Error::NotOrdered {
                class: self.class.name.clone(),
                index: self.index.name.clone(),
            }),
        }
    }
}

/// The records of a cursor's range, in order: see [`Cursor::rows`].
#[derive(Clone, Debug)]
pub struct Rows<'t> {
    cursor: Cursor<'t>,
}

impl Iterator for Rows<'_> {
    type Item = (Handle, Record);

    fn next(&mut self) -> Option<(Handle, Record)> {
        self.cursor.next()
    }
}
