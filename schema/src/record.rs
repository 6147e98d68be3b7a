//! Reading record images: values by field, in place where the type allows it.

use crate::bytes::Reader;
use crate::item;
use crate::layout::{Layout, Place, Slot};
use crate::plain::{AUTOID_UNASSIGNED, Plain};
use crate::{ClassDef, Dictionary, FieldId, IndexPart, Reference, Type, Value};

/// A record image with the means to read it.
///
/// The image has passed [`Layout::check`]; reading any other may panic. Getters for one type give
/// `None` for null and for fields of another type.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    dictionary: &'a Dictionary,
    class: &'a ClassDef,
    layout: &'a Layout,
    image: &'a [u8],
}

impl<'a> RecordRef<'a> {
    /// The record of `class` with this image.
    ///
    /// # Panics
    ///
    /// If `class` is not one of `dictionary`.
    pub fn new(dictionary: &'a Dictionary, class: &'a ClassDef, image: &'a [u8]) -> Self {
        RecordRef { dictionary, class, layout: dictionary.layout(class.id), image }
    }

    /// The class of the record.
    pub fn class(&self) -> &'a ClassDef {
        self.class
    }

    /// The dictionary the record is read with.
    pub fn dictionary(&self) -> &'a Dictionary {
        self.dictionary
    }

    /// The bytes of the record.
    pub fn image(&self) -> &'a [u8] {
        self.image
    }

    /// The value of a field, copied. An `autoid` not given out yet is null.
    ///
    /// # Panics
    ///
    /// If the class has no such field.
    pub fn value(&self, field: FieldId) -> Value {
        self.slot_value(&self.layout.slots[field.0 as usize])
    }

    /// The value of the field with this name, if there is one.
    pub fn value_by_name(&self, name: &str) -> Option<Value> {
        self.class.field(name).map(|(field, _)| self.value(field))
    }

    /// The values of all fields, in order.
    pub fn values(&self) -> Vec<Value> {
        self.layout.slots.iter().map(|slot| self.slot_value(slot)).collect()
    }

    /// True if the field is null; also for an `autoid` not given out yet.
    pub fn is_null(&self, field: FieldId) -> bool {
        let slot = &self.layout.slots[field.0 as usize];
        slot.is_null(self.image) || self.plain(field) == Some(Plain::Autoid(AUTOID_UNASSIGNED))
    }

    /// The value of a `boolean` field.
    pub fn boolean(&self, field: FieldId) -> Option<bool> {
        match self.plain(field)? {
            Plain::Boolean(value) => Some(value),
            _ => None,
        }
    }

    /// The value of a `signed` field.
    pub fn signed(&self, field: FieldId) -> Option<i64> {
        match self.plain(field)? {
            Plain::Signed(value) => Some(value),
            _ => None,
        }
    }

    /// The value of an `unsigned` field, or of an `autoid` that was given out.
    pub fn unsigned(&self, field: FieldId) -> Option<u64> {
        match self.plain(field)? {
            Plain::Autoid(AUTOID_UNASSIGNED) => None,
            Plain::Unsigned(value) | Plain::Autoid(value) => Some(value),
            _ => None,
        }
    }

    /// The value of a `float` field.
    pub fn float(&self, field: FieldId) -> Option<f32> {
        match self.plain(field)? {
            Plain::Float(value) => Some(value),
            _ => None,
        }
    }

    /// The value of a `double` field.
    pub fn double(&self, field: FieldId) -> Option<f64> {
        match self.plain(field)? {
            Plain::Double(value) => Some(value),
            _ => None,
        }
    }

    /// The value of a `char<n>` or `string` field, in place.
    pub fn text(&self, field: FieldId) -> Option<&'a str> {
        match self.plain(field)? {
            Plain::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value of a `binary` or `blob` field, in place.
    pub fn bytes(&self, field: FieldId) -> Option<&'a [u8]> {
        match self.plain(field)? {
            Plain::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The value of a `date` field, in days since 1970-01-01.
    pub fn date(&self, field: FieldId) -> Option<i32> {
        match self.plain(field)? {
            Plain::Date(days) => Some(days),
            _ => None,
        }
    }

    /// The value of a `time` field, in nanoseconds since midnight.
    pub fn time_ns(&self, field: FieldId) -> Option<u64> {
        match self.plain(field)? {
            Plain::Time(time_ns) => Some(time_ns),
            _ => None,
        }
    }

    /// The value of a `datetime` field, in nanoseconds since 1970-01-01T00:00:00Z.
    pub fn datetime_ns(&self, field: FieldId) -> Option<i64> {
        match self.plain(field)? {
            Plain::DateTime(time_ns) => Some(time_ns),
            _ => None,
        }
    }

    /// The value of an enum field, as the number of its member.
    pub fn enumeration(&self, field: FieldId) -> Option<i32> {
        match self.plain(field)? {
            Plain::Enum(number) => Some(number),
            _ => None,
        }
    }

    /// The value of a `ref` field. Whether its target still exists is not looked up.
    pub fn reference(&self, field: FieldId) -> Option<Reference> {
        match self.plain(field)? {
            Plain::Ref(reference) => Some(reference),
            _ => None,
        }
    }

    /// The plain value of a key part with its type; no value if null stands on the way.
    pub(crate) fn part(&self, part: &IndexPart) -> (&'a Type, Option<Plain<'a>>) {
        let (slot, null) = self.layout.slot_at(self.image, &part.path);
        (&slot.ty, if null { None } else { self.slot_plain(slot) })
    }

    fn plain(&self, field: FieldId) -> Option<Plain<'a>> {
        self.slot_plain(&self.layout.slots[field.0 as usize])
    }

    /// The value of a slot, if it is plain and not null.
    fn slot_plain(&self, slot: &'a Slot) -> Option<Plain<'a>> {
        if slot.is_null(self.image) {
            return None;
        }
        match (&slot.place, &slot.ty) {
            (Place::Fixed(_), ty) => Some(Plain::read(ty, slot.fixed(self.image))),
            (_, Type::Vector(_) | Type::Array(..) | Type::Struct(_)) => None,
            (Place::Variable(number), ty) => {
                Some(Plain::read(ty, &self.image[self.layout.variable(self.image, *number)]))
            }
            (Place::Struct(_), _) => None,
        }
    }

    fn slot_value(&self, slot: &'a Slot) -> Value {
        if slot.is_null(self.image) {
            return Value::Null;
        }
        match (&slot.place, &slot.ty) {
            (Place::Struct(slots), _) => {
                Value::Struct(slots.iter().map(|slot| self.slot_value(slot)).collect())
            }
            (Place::Variable(number), Type::Vector(_) | Type::Array(..)) => {
                let range = self.layout.variable(self.image, *number);
                let mut reader = Reader::new(&self.image[range]);
                item::decode(self.dictionary, &slot.ty, &mut reader)
                    .expect("images are checked before they are read")
            }
            _ => self.slot_plain(slot).map_or(Value::Null, Plain::to_value),
        }
    }
}
