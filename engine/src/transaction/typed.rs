//! Access by derived Rust types: thin forms of the dynamic operations.

use quorate_schema::{Class, ClassDef, FieldId, Ref, Value, ValueError};

use super::{Record, Transaction};
use crate::{Error, Handle};

impl<'c> Transaction<'c> {
    /// Inserts a record; gives a provisional handle. Errors as [`Transaction::insert_values`].
    ///
    /// An `autoid` field must be 0 or `None`.
    pub fn insert<T: Class>(&self, record: &T) -> Result<Handle, Error> {
        let class = self.class_of_type::<T>()?;
        self.insert_all(class, &record.to_values())
    }

    /// Puts all fields of `record` into a record that exists. Errors as
    /// [`Transaction::update_fields`], and [`Error::WrongClass`].
    ///
    /// An `autoid` field must be as it was, or 0 or `None`.
    pub fn update<T: Class>(&self, handle: Handle, record: &T) -> Result<(), Error> {
        let class = self.class_of_type::<T>()?;
        self.expect_class(class, handle)?;
        let fields = record.to_values().into_iter().zip(0..);
        let fields = fields.map(|(value, position)| (FieldId(position), value));
        let kept = |(field, value): &(FieldId, Value)| {
            class.autoid != Some(*field) || !matches!(value, Value::Null | Value::Unsigned(0))
        };
        self.update_changes(class, handle, fields.filter(kept).collect())
    }

    /// The record of a handle, if it exists in the transaction's view.
    ///
    /// Errors: [`Error::WrongClass`]; [`Error::AutoidPending`] if the type holds an autoid that is
    /// given out only at commit, unless in an `Option`; values the type cannot hold.
    pub fn get<T: Class>(&self, handle: Handle) -> Result<Option<T>, Error> {
        let class = self.class_of_type::<T>()?;
        self.expect_class(class, handle)?;
        self.record(handle)?.map(|record| record.to()).transpose()
    }

    /// The first record with exactly this key in an index of the class: see
    /// [`Transaction::find_record`].
    pub fn find<T: Class>(
        &self,
        index: &str,
        values: &[Value],
    ) -> Result<Option<(Handle, T)>, Error> {
        let class = self.class_of_type::<T>()?;
        let index = self.index(class, index)?;
        match self.find_in(class, index, values)? {
            Some((handle, record)) => Ok(Some((handle, record.to()?))),
            None => Ok(None),
        }
    }

    /// The record a reference leads to, with its handle; nothing if it refers to nothing, or its
    /// target is gone.
    pub fn follow<T: Class>(&self, reference: Ref<T>) -> Result<Option<(Handle, T)>, Error> {
        let Some(reference) = reference.get() else { return Ok(None) };
        let class = self.class_of_type::<T>()?;
        let handle = Handle::from_reference(class.id, reference);
        Ok(self.get(handle)?.map(|record| (handle, record)))
    }

    fn class_of_type<T: Class>(&self) -> Result<&'c ClassDef, Error> {
        let class = self.class(T::NAME)?;
        T::check(class)?;
        Ok(class)
    }

    fn expect_class(&self, class: &ClassDef, handle: Handle) -> Result<(), Error> {
        if handle.class == class.id {
            return Ok(());
        }
        let found = self.class_of(handle)?.name.clone();
        Err(Error::WrongClass { expected: class.name.clone(), found })
    }
}

impl Record {
    /// The record as a derived type. Errors as [`Transaction::get`].
    pub fn to<T: Class>(&self) -> Result<T, Error> {
        let class = self.class();
        if class.name != T::NAME {
            let (expected, found) = (T::NAME.to_owned(), class.name.clone());
            return Err(Error::WrongClass { expected, found });
        }
        T::from_record(&self.view()).map_err(|error| match (error, class.autoid) {
            (ValueError::AutoidUnassigned { .. }, Some(field)) => Error::AutoidPending {
                class: class.name.clone(),
                field: class.fields[field.0 as usize].name.clone(),
            },
            (error, _) => error.into(),
        })
    }
}
