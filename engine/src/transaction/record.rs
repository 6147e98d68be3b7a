//! Records as programs read them by name.

use std::sync::Arc;

use quorate_schema::{ClassDef, ClassId, Dictionary, FieldId, RecordRef, Value};

use crate::Error;
use crate::names::nearest;
use crate::store::StoredRecord;

/// One record as it was when it was read. It owns what it shows and outlives its transaction.
#[derive(Clone)]
pub struct Record {
    dictionary: Arc<Dictionary>,
    class: ClassId,
    stored: Arc<StoredRecord>,
}

impl Record {
    pub(crate) fn new(
        dictionary: Arc<Dictionary>,
        class: ClassId,
        stored: Arc<StoredRecord>,
    ) -> Record {
        Record { dictionary, class, stored }
    }

    /// Its class.
    pub fn class(&self) -> &ClassDef {
        &self.dictionary.classes()[self.class.0 as usize]
    }

    /// The value of the field with this name.
    ///
    /// Errors: [`Error::UnknownField`]; [`Error::AutoidPending`] for the autoid of a record that
    /// the transaction itself inserted.
    pub fn value(&self, field: &str) -> Result<Value, Error> {
        let class = self.class();
        let Some((id, _)) = class.field(field) else {
            let known = class.fields.iter().map(|field| field.name.as_str());
            let hint = nearest(field, known).map(str::to_owned);
            let (class, name) = (class.name.clone(), field.to_owned());
            return Err(Error::UnknownField { class, name, hint });
        };
        self.field(id)
    }

    /// The value of the field at this position; errors as [`Record::value`].
    ///
    /// # Panics
    ///
    /// If the class has no such field.
    pub fn field(&self, field: FieldId) -> Result<Value, Error> {
        let view = self.view();
        let class = self.class();
        if class.autoid == Some(field) && view.is_null(field) {
            let field = class.fields[field.0 as usize].name.clone();
            return Err(Error::AutoidPending { class: class.name.clone(), field });
        }
        Ok(view.value(field))
    }

    /// The record for reading in place, by position, without copies. A pending autoid is null.
    pub fn view(&self) -> RecordRef<'_> {
        RecordRef::new(&self.dictionary, self.class(), &self.stored.image)
    }
}

impl PartialEq for Record {
    /// Equal if of one class with equal values.
    fn eq(&self, other: &Record) -> bool {
        self.class == other.class && self.stored.image == other.stored.image
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut fields = f.debug_struct(&self.class().name);
        for (field, value) in self.class().fields.iter().zip(self.view().values()) {
            fields.field(&field.name, &value);
        }
        fields.finish()
    }
}
