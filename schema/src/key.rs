//! Index keys: bytes whose order, compared as bytes, is the order of the values.
//!
//! `memcmp` is the only comparator of the project, so everything an index must know about order
//! is in these bytes:
//!
//! * a part that may be null starts with 0 (null, nothing follows) or 1; nulls so come first;
//! * unsigned numbers, times, ids: big-endian; signed ones, dates, enum numbers: big-endian with
//!   the sign bit flipped;
//! * floats: big-endian bits, all flipped if negative, else only the sign; -0 is stored as +0 and
//!   every not-a-number as one, after +infinity;
//! * text and bytes: as they are, 0x00 written 0x00 0xFF, closed by 0x00 0x00; so "a" sorts before
//!   "ab", and what follows in a composite key is compared only between equal texts;
//! * references: id and creation, sixteen bytes; autoids eight;
//! * a descending part has all its bytes complemented, its null mark included.
//!
//! No part's bytes are a proper prefix of another value's bytes of the same part. That is what
//! makes composite keys order correctly and lets the bytes of leading parts serve as a prefix.

use crate::bytes::{Malformed, Reader};
use crate::error::{Site, ValueError};
use crate::layout::reference_patches;
use crate::plain::{AUTOID_UNASSIGNED, DAY_NS, Plain};
use crate::{Dictionary, IndexDef, IndexPart, Patch, PatchWhat, RecordRef, Reference, Type, Value};

const NULL: u8 = 0;
const NOT_NULL: u8 = 1;

/// The key of one record in one index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The encoded parts; provisional ids stand where patches go.
    pub bytes: Vec<u8>,
    /// What the applier has still to put in, by offset in `bytes`.
    pub patches: Vec<Patch>,
    /// True if a part is null: such a key equals no other in a unique index.
    pub has_null: bool,
}

/// The smallest bytes greater than everything that starts with `prefix`; `None` if there is no
/// such bound (the prefix is empty or all 0xFF), and the range is open at its end.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xFF)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

impl Dictionary {
    /// The key of `record` in `index`, with the patches its provisional ids need.
    ///
    /// # Panics
    ///
    /// If `record` is not of the index's class.
    pub fn key(&self, index: &IndexDef, record: RecordRef<'_>) -> Key {
        assert_eq!(record.class().id, index.class, "index {} of another class", index.name);
        let mut key = Key { bytes: Vec::with_capacity(32), patches: Vec::new(), has_null: false };
        for part in &index.parts {
            let (ty, plain) = record.part(part);
            let start = key.bytes.len();
            key.has_null |= plain.is_none();
            let at = put_part(self.part_type(index, part).1, ty, plain, part, &mut key.bytes);
            debug_assert!(key.bytes.len() > start, "every part takes at least one byte");
            match plain {
                Some(Plain::Ref(reference)) if reference.is_provisional() => {
                    key.patches.extend(reference_patches(at, reference.id, part.descending));
                }
                Some(Plain::Autoid(AUTOID_UNASSIGNED)) => {
                    let offset = u32::try_from(at).expect("keys are limited below 4 GiB");
                    let (what, inverted) = (PatchWhat::Autoid, part.descending);
                    key.patches.push(Patch { offset, what, inverted });
                }
                _ => {}
            }
        }
        key
    }

    /// The key bytes for a value of each part of `index`; with fewer values, the prefix that
    /// exactly the keys with these leading values have (see [`prefix_end`]).
    ///
    /// Limits on the length of text and bytes do not apply: a bound of a range may be longer than
    /// any value stored.
    pub fn key_from_values(
        &self,
        index: &IndexDef,
        values: &[Value],
    ) -> Result<Vec<u8>, ValueError> {
        let class = &self.classes[index.class.0 as usize];
        let site = Site::root(&class.name);
        let site = site.child(&index.name);
        if values.len() > index.parts.len() {
            let (expected, got) = (index.parts.len(), values.len());
            return Err(ValueError::WrongLength { place: site.path(), expected, got });
        }
        let mut bytes = Vec::with_capacity(32);
        for (part, value) in index.parts.iter().zip(values) {
            let (ty, nullable) = self.part_type(index, part);
            let plain = match value {
                Value::Null if nullable => None,
                Value::Null => {
                    let expected = ty.display(self);
                    return Err(ValueError::NotNullable { place: site.path(), expected });
                }
                value => Some(Plain::from_value(self, ty, value, &site)?),
            };
            put_part(nullable, ty, plain, part, &mut bytes);
        }
        Ok(bytes)
    }

    /// The keys of `index` with the given leading values whose next part is text that starts with
    /// `prefix`: from the first bytes on, up to but without the second if there are any.
    pub fn text_prefix(
        &self,
        index: &IndexDef,
        leading: &[Value],
        prefix: &str,
    ) -> Result<(Vec<u8>, Option<Vec<u8>>), ValueError> {
        let mut start = self.key_from_values(index, leading)?;
        let class = &self.classes[index.class.0 as usize];
        let site = Site::root(&class.name);
        let site = site.child(&index.name);
        let Some(part) = index.parts.get(leading.len()) else {
            let (expected, got) = (index.parts.len(), leading.len() + 1);
            return Err(ValueError::WrongLength { place: site.path(), expected, got });
        };
        let (ty, nullable) = self.part_type(index, part);
        if !matches!(ty, Type::Char(_) | Type::String) {
            let got = Value::Text(prefix.to_owned());
            return Err(site.wrong_type(ty.display(self), &got));
        }
        let part_start = start.len();
        if nullable {
            start.push(NOT_NULL);
        }
        put_escaped(prefix.as_bytes(), &mut start);
        complement_if(part.descending, &mut start[part_start..]);
        let end = prefix_end(&start);
        Ok((start, end))
    }

    /// The values of a key: what [`Dictionary::key_from_values`] was given, with -0 as +0. An
    /// autoid not given out is null. For tests and people.
    ///
    /// Total on any bytes; whatever it accepts is the one key of the values it gives.
    pub fn key_values(&self, index: &IndexDef, bytes: &[u8]) -> Result<Vec<Value>, Malformed> {
        let mut values = Vec::with_capacity(index.parts.len());
        let mut offset = 0;
        for part in &index.parts {
            let (ty, nullable) = self.part_type(index, part);
            let mut rest = bytes[offset..].to_vec();
            complement_if(part.descending, &mut rest);
            let mut reader = Reader::new(&rest);
            let value = take_part(self, nullable, ty, &mut reader)
                .map_err(|error| Malformed { offset: offset + error.offset, ..error })?;
            values.push(value);
            offset += reader.offset();
        }
        if offset != bytes.len() {
            return Err(Malformed { what: "bytes after the key", offset });
        }
        Ok(values)
    }

    /// The type of a key part, and whether null may stand anywhere on the way to it.
    pub fn part_type(&self, index: &IndexDef, part: &IndexPart) -> (&Type, bool) {
        let mut fields = &self.classes[index.class.0 as usize].fields;
        let mut nullable = false;
        let mut ty = &Type::Boolean;
        for field in &part.path {
            let field = &fields[field.0 as usize];
            nullable |= field.accepts_null();
            ty = &field.ty;
            if let Type::Struct(id) = ty {
                fields = &self.structs[id.0 as usize].fields;
            }
        }
        (ty, nullable)
    }
}

/// Appends one part; gives where its value starts.
fn put_part(
    nullable: bool,
    ty: &Type,
    plain: Option<Plain<'_>>,
    part: &IndexPart,
    out: &mut Vec<u8>,
) -> usize {
    let start = out.len();
    if nullable {
        out.push(if plain.is_some() { NOT_NULL } else { NULL });
    }
    let value_start = out.len();
    if let Some(plain) = plain {
        put_plain(ty, plain, out);
    }
    complement_if(part.descending, &mut out[start..]);
    value_start
}

fn put_plain(ty: &Type, plain: Plain<'_>, out: &mut Vec<u8>) {
    match plain {
        Plain::Boolean(value) => out.push(u8::from(value)),
        Plain::Signed(value) => put_signed(value, integer_bytes(ty), out),
        Plain::Unsigned(value) => put_unsigned(value, integer_bytes(ty), out),
        Plain::Float(value) => put_unsigned(u64::from(float_key(value)), 4, out),
        Plain::Double(value) => put_unsigned(double_key(value), 8, out),
        Plain::Text(text) => put_terminated(text.as_bytes(), out),
        Plain::Bytes(bytes) => put_terminated(bytes, out),
        Plain::Date(value) | Plain::Enum(value) => put_signed(i64::from(value), 4, out),
        Plain::Time(value) | Plain::Autoid(value) => put_unsigned(value, 8, out),
        Plain::DateTime(value) => put_signed(value, 8, out),
        Plain::Ref(reference) => {
            put_unsigned(reference.id, 8, out);
            put_unsigned(reference.creation, 8, out);
        }
    }
}

fn take_part(
    dictionary: &Dictionary,
    nullable: bool,
    ty: &Type,
    reader: &mut Reader<'_>,
) -> Result<Value, Malformed> {
    if nullable {
        match reader.u8()? {
            NULL => return Ok(Value::Null),
            NOT_NULL => {}
            _ => return Err(reader.malformed("a null mark that is neither 0 nor 1")),
        }
    }
    let start = reader.offset();
    let wrong = |what| Err(Malformed { what, offset: start });
    Ok(match ty {
        Type::Boolean => match reader.u8()? {
            0 => Value::Boolean(false),
            1 => Value::Boolean(true),
            _ => return wrong("a boolean that is neither 0 nor 1"),
        },
        Type::Signed(bytes) => Value::Signed(take_signed(reader, *bytes)?),
        Type::Unsigned(bytes) => Value::Unsigned(take_unsigned(reader, *bytes)?),
        Type::Float => match float_value(take_unsigned(reader, 4)? as u32) {
            Some(value) => Value::Float(value),
            None => return wrong("a float in another than its one form"),
        },
        Type::Double => match double_value(take_unsigned(reader, 8)?) {
            Some(value) => Value::Double(value),
            None => return wrong("a double in another than its one form"),
        },
        Type::Char(_) | Type::String => match String::from_utf8(take_terminated(reader)?) {
            Ok(text) => Value::Text(text),
            Err(_) => return wrong("text that is not UTF-8"),
        },
        Type::Binary(_) => Value::Bytes(take_terminated(reader)?),
        Type::Date => Value::Date(take_signed(reader, 4)? as i32),
        Type::Time => match take_unsigned(reader, 8)? {
            time_ns if time_ns < DAY_NS => Value::Time(time_ns),
            _ => return wrong("a time of more than a day"),
        },
        Type::DateTime => Value::DateTime(take_signed(reader, 8)?),
        Type::Enum(id) => {
            let number = take_signed(reader, 4)? as i32;
            if dictionary.enums[id.0 as usize].member(number).is_none() {
                return wrong("the number of no enum member");
            }
            Value::Enum(number)
        }
        Type::Ref(_) => {
            let id = take_unsigned(reader, 8)?;
            Value::Ref(Reference { id, creation: take_unsigned(reader, 8)? })
        }
        Type::Autoid => Plain::Autoid(take_unsigned(reader, 8)?).to_value(),
        Type::Blob | Type::Struct(_) | Type::Vector(_) | Type::Array(..) => {
            return wrong("a part of a type that no key has");
        }
    })
}

fn integer_bytes(ty: &Type) -> u8 {
    match ty {
        Type::Signed(bytes) | Type::Unsigned(bytes) => *bytes,
        _ => unreachable!("{ty:?} is no integer type"),
    }
}

fn put_unsigned(value: u64, bytes: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_be_bytes()[8 - usize::from(bytes)..]);
}

fn put_signed(value: i64, bytes: u8, out: &mut Vec<u8>) {
    let sign_bit = 1_u64 << (u32::from(bytes) * 8 - 1);
    put_unsigned(value as u64 ^ sign_bit, bytes, out);
}

fn take_unsigned(reader: &mut Reader<'_>, bytes: u8) -> Result<u64, Malformed> {
    let taken = reader.raw(usize::from(bytes))?;
    Ok(taken.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn take_signed(reader: &mut Reader<'_>, bytes: u8) -> Result<i64, Malformed> {
    let unused_bits = 64 - 8 * u32::from(bytes);
    let flipped = take_unsigned(reader, bytes)? ^ (1_u64 << (u32::from(bytes) * 8 - 1));
    Ok(((flipped << unused_bits) as i64) >> unused_bits)
}

fn float_key(value: f32) -> u32 {
    let bits = if value.is_nan() {
        0x7FC0_0000
    } else if value == 0.0 {
        0
    } else {
        value.to_bits()
    };
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

fn double_key(value: f64) -> u64 {
    let bits = if value.is_nan() {
        0x7FF8_0000_0000_0000
    } else if value == 0.0 {
        0
    } else {
        value.to_bits()
    };
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

/// The float with this key; none if no float has it.
fn float_value(key: u32) -> Option<f32> {
    let value = f32::from_bits(if key >> 31 == 1 { key & !(1 << 31) } else { !key });
    (float_key(value) == key).then_some(value)
}

/// The double with this key; none if no double has it.
fn double_value(key: u64) -> Option<f64> {
    let value = f64::from_bits(if key >> 63 == 1 { key & !(1 << 63) } else { !key });
    (double_key(value) == key).then_some(value)
}

fn put_escaped(bytes: &[u8], out: &mut Vec<u8>) {
    for piece in bytes.split_inclusive(|byte| *byte == 0) {
        out.extend_from_slice(piece);
        if piece.last() == Some(&0) {
            out.push(0xFF);
        }
    }
}

fn put_terminated(bytes: &[u8], out: &mut Vec<u8>) {
    put_escaped(bytes, out);
    out.extend_from_slice(&[0, 0]);
}

fn take_terminated(reader: &mut Reader<'_>) -> Result<Vec<u8>, Malformed> {
    let mut bytes = Vec::new();
    loop {
        match reader.u8()? {
            0 => match reader.u8()? {
                0 => return Ok(bytes),
                0xFF => bytes.push(0),
                _ => return Err(reader.malformed("an escape that is none")),
            },
            byte => bytes.push(byte),
        }
    }
}

fn complement_if(descending: bool, bytes: &mut [u8]) {
    if descending {
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
    }
}
