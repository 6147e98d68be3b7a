//! Values to record images: inserting and updating. The layout itself is described in `layout`.

use crate::error::{Site, ValueError};
use crate::item;
use crate::layout::{Layout, MAX_VARIABLE_BYTES, Patch, Place, Slot};
use crate::plain::{AUTOID_UNASSIGNED, Plain};
use crate::{ClassDef, Dictionary, FieldDef, FieldId, Type, Value};

/// A record image and what the applier has still to put into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedRecord {
    /// The canonical image; provisional ids stand where patches go.
    pub image: Vec<u8>,
    /// The patches, by offset: exactly [`Layout::patches`] of the image.
    pub patches: Vec<Patch>,
}

impl Layout {
    /// The image of a new record with one value for each field of the class, in order.
    ///
    /// The value of an `autoid` field must be null or 0: the applier fills it. A reference with a
    /// provisional number is patched, too. Errors name the field; nothing is kept of a record
    /// that has one.
    ///
    /// # Panics
    ///
    /// If `dictionary` is not the one this layout was made with.
    pub fn encode(
        &self,
        dictionary: &Dictionary,
        values: &[Value],
    ) -> Result<EncodedRecord, ValueError> {
        let class = self.class_def(dictionary);
        let site = Site::root(&class.name);
        item::expect_length(class.fields.len(), values.len(), &site)?;
        let mut encoder = Encoder::new(dictionary, self);
        for ((slot, field), value) in self.slots.iter().zip(&class.fields).zip(values) {
            encoder.field(slot, field, value, &site.child(&field.name))?;
        }
        encoder.finish(&site)
    }

    /// The image of a record after some of its fields were changed; of several changes of one
    /// field the last counts.
    ///
    /// `old_image` may itself await patches: they are found again in what stays. An `autoid` field
    /// may be among the changes only with the value it has.
    ///
    /// # Panics
    ///
    /// If `old_image` has not passed [`Layout::check`], or `dictionary` is not the layout's own.
    pub fn update(
        &self,
        dictionary: &Dictionary,
        old_image: &[u8],
        changes: &[(FieldId, Value)],
    ) -> Result<EncodedRecord, ValueError> {
        let class = self.class_def(dictionary);
        let site = Site::root(&class.name);
        let mut changed: Vec<Option<&Value>> = vec![None; class.fields.len()];
        for (field, value) in changes {
            let unknown = || ValueError::UnknownField {
                class: class.name.clone(),
                field: format!("#{}", field.0),
            };
            *changed.get_mut(field.0 as usize).ok_or_else(unknown)? = Some(value);
        }
        let mut encoder = Encoder::new(dictionary, self);
        for ((slot, field), value) in self.slots.iter().zip(&class.fields).zip(changed) {
            match value {
                Some(value) if slot.ty == Type::Autoid => {
                    let old = Plain::read(&slot.ty, slot.fixed(old_image)).to_value();
                    if *value != old {
                        let place = site.child(&field.name).path();
                        return Err(ValueError::AutoidGiven { place, got: value.describe() });
                    }
                    encoder.copy(slot, old_image);
                }
                Some(value) => encoder.field(slot, field, value, &site.child(&field.name))?,
                None => encoder.copy(slot, old_image),
            }
        }
        encoder.finish(&site)
    }

    fn class_def<'d>(&self, dictionary: &'d Dictionary) -> &'d ClassDef {
        let class = &dictionary.classes[self.class.0 as usize];
        assert_eq!(class.fields.len(), self.slots.len(), "a layout of another dictionary");
        class
    }
}

/// An image under construction: slots come in order, so the variable part only grows.
struct Encoder<'a> {
    dictionary: &'a Dictionary,
    layout: &'a Layout,
    image: Vec<u8>,
}

impl<'a> Encoder<'a> {
    fn new(dictionary: &'a Dictionary, layout: &'a Layout) -> Self {
        let mut image = Vec::with_capacity(layout.header_bytes() + 32);
        image.resize(layout.header_bytes(), 0);
        Encoder { dictionary, layout, image }
    }

    fn field(
        &mut self,
        slot: &Slot,
        field: &FieldDef,
        value: &Value,
        site: &Site<'_>,
    ) -> Result<(), ValueError> {
        if slot.ty == Type::Autoid {
            return self.new_autoid(slot, value, site);
        }
        if value.is_null() {
            let Some(bit) = slot.null_bit else {
                let expected = slot.ty.display(self.dictionary);
                return Err(ValueError::NotNullable { place: site.path(), expected });
            };
            self.set_null(bit);
            slot.extent.variables.clone().for_each(|number| self.end_variable(number));
            return Ok(());
        }
        match &slot.place {
            Place::Fixed(_) => {
                let plain = Plain::from_value(self.dictionary, &field.ty, value, site)?;
                self.put_fixed(slot, plain.fixed_image(&field.ty).as_slice());
                Ok(())
            }
            Place::Variable(number) => self.variable(*number, field, value, site),
            Place::Struct(slots) => {
                let (Type::Struct(id), Value::Struct(values)) = (&slot.ty, value) else {
                    return Err(site.wrong_type(slot.ty.display(self.dictionary), value));
                };
                let fields = &self.dictionary.structs[id.0 as usize].fields;
                item::expect_length(fields.len(), values.len(), site)?;
                for ((slot, field), value) in slots.iter().zip(fields).zip(values) {
                    self.field(slot, field, value, &site.child(&field.name))?;
                }
                Ok(())
            }
        }
    }

    fn variable(
        &mut self,
        number: u32,
        field: &FieldDef,
        value: &Value,
        site: &Site<'_>,
    ) -> Result<(), ValueError> {
        if matches!(field.ty, Type::Vector(_) | Type::Array(..)) {
            item::encode(self.dictionary, &field.ty, value, site, &mut self.image)?;
        } else {
            let plain = Plain::from_value(self.dictionary, &field.ty, value, site)?;
            let bytes = plain.variable_image();
            item::check_limit(self.dictionary, &field.ty, bytes.len(), site)?;
            self.image.extend_from_slice(bytes);
        }
        self.end_variable(number);
        Ok(())
    }

    fn new_autoid(
        &mut self,
        slot: &Slot,
        value: &Value,
        site: &Site<'_>,
    ) -> Result<(), ValueError> {
        match value {
            Value::Null | Value::Unsigned(0) => {
                self.put_fixed(slot, &AUTOID_UNASSIGNED.to_be_bytes());
                Ok(())
            }
            Value::Unsigned(_) => {
                Err(ValueError::AutoidGiven { place: site.path(), got: value.describe() })
            }
            _ => Err(site.wrong_type(slot.ty.display(self.dictionary), value)),
        }
    }

    /// Takes a field as it stands in another image.
    fn copy(&mut self, slot: &Slot, from: &[u8]) {
        let fixed = slot.extent.fixed.start as usize..slot.extent.fixed.end as usize;
        self.image[fixed.clone()].copy_from_slice(&from[fixed]);
        for bit in slot.extent.null_bits.clone() {
            if from[bit as usize / 8] >> (bit % 8) & 1 == 1 {
                self.set_null(bit);
            }
        }
        for number in slot.extent.variables.clone() {
            self.image.extend_from_slice(&from[self.layout.variable(from, number)]);
            self.end_variable(number);
        }
    }

    fn put_fixed(&mut self, slot: &Slot, bytes: &[u8]) {
        let fixed = slot.extent.fixed.start as usize..slot.extent.fixed.end as usize;
        self.image[fixed].copy_from_slice(bytes);
    }

    fn set_null(&mut self, bit: u32) {
        self.image[bit as usize / 8] |= 1 << (bit % 8);
    }

    /// Notes that a variable field ends where the image ends now. An end over the limit of a
    /// record may be cut short: `finish` refuses the record by its length.
    fn end_variable(&mut self, number: u32) {
        let end = (self.image.len() - self.layout.header_bytes()) as u32;
        let at = self.layout.ends_offset() + 4 * number as usize;
        self.image[at..at + 4].copy_from_slice(&end.to_le_bytes());
    }

    fn finish(self, site: &Site<'_>) -> Result<EncodedRecord, ValueError> {
        let got_bytes = self.image.len() - self.layout.header_bytes();
        if got_bytes > MAX_VARIABLE_BYTES {
            let expected = format!("a record of {MAX_VARIABLE_BYTES} bytes");
            return Err(ValueError::TooLong { place: site.path(), expected, got_bytes });
        }
        let patches = self.layout.patches(self.dictionary, &self.image);
        Ok(EncodedRecord { image: self.image, patches })
    }
}
