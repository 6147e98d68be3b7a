//! Items of vectors and arrays: values one after the other, each telling its own length.
//!
//! Plain values of fixed size stand as in the fixed part of a record; text and bytes follow their
//! length (four bytes); a vector follows its count (four bytes), an array has none. A struct is a
//! null bit for each field that may be null, in whole bytes, then the fields that are not null.
//! Items themselves are never null. Every item takes at least one byte, so a count from a peer is
//! bounded by the bytes it came with.

use crate::bytes::{Malformed, Reader};
use crate::error::{Site, ValueError};
use crate::plain::{Plain, fixed_bytes};
use crate::{Dictionary, FieldDef, Reference, Type, Value};

/// Told of every reference on the way: its offset and value.
pub(crate) type OnReference<'a> = &'a mut dyn FnMut(usize, Reference);

/// Appends the image of `value` to `out`.
pub(crate) fn encode(
    dictionary: &Dictionary,
    ty: &Type,
    value: &Value,
    site: &Site<'_>,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    if value.is_null() {
        let expected = ty.display(dictionary);
        return Err(ValueError::NotNullable { place: site.path(), expected });
    }
    match (ty, value) {
        (Type::Vector(item), Value::List(values)) => {
            put_length(values.len(), out);
            values.iter().try_for_each(|value| encode(dictionary, item, value, site, out))
        }
        (Type::Array(item, count), Value::List(values)) => {
            expect_length(*count as usize, values.len(), site)?;
            values.iter().try_for_each(|value| encode(dictionary, item, value, site, out))
        }
        (Type::Struct(id), Value::Struct(values)) => {
            let fields = &dictionary.structs[id.0 as usize].fields;
            encode_struct(dictionary, fields, values, site, out)
        }
        _ => {
            let plain = Plain::from_value(dictionary, ty, value, site)?;
            if fixed_bytes(ty).is_some() {
                out.extend_from_slice(plain.fixed_image(ty).as_slice());
                return Ok(());
            }
            let bytes = plain.variable_image();
            check_limit(dictionary, ty, bytes.len(), site)?;
            put_length(bytes.len(), out);
            out.extend_from_slice(bytes);
            Ok(())
        }
    }
}

/// Refuses text or bytes longer than their type allows.
pub(crate) fn check_limit(
    dictionary: &Dictionary,
    ty: &Type,
    got_bytes: usize,
    site: &Site<'_>,
) -> Result<(), ValueError> {
    let limit_bytes = match ty {
        Type::Char(limit) | Type::Binary(Some(limit)) => *limit as usize,
        _ => crate::MAX_VARIABLE_BYTES,
    };
    if got_bytes <= limit_bytes {
        return Ok(());
    }
    Err(ValueError::TooLong { place: site.path(), expected: ty.display(dictionary), got_bytes })
}

/// Refuses another number of values than `expected`.
pub(crate) fn expect_length(
    expected: usize,
    got: usize,
    site: &Site<'_>,
) -> Result<(), ValueError> {
    if expected == got {
        return Ok(());
    }
    Err(ValueError::WrongLength { place: site.path(), expected, got })
}

/// Checks that an image of `ty` comes next, and takes it.
pub(crate) fn check(
    dictionary: &Dictionary,
    ty: &Type,
    reader: &mut Reader<'_>,
    on_reference: OnReference<'_>,
) -> Result<(), Malformed> {
    match ty {
        Type::Vector(item) => {
            for _ in 0..reader.count(1)? {
                check(dictionary, item, reader, on_reference)?;
            }
            Ok(())
        }
        Type::Array(item, count) => {
            for _ in 0..*count {
                check(dictionary, item, reader, on_reference)?;
            }
            Ok(())
        }
        Type::Struct(id) => {
            let fields = &dictionary.structs[id.0 as usize].fields;
            let nulls = check_nulls(fields, reader)?;
            let mut nulls = NullBits::new(nulls);
            for field in fields {
                if !nulls.next(field) {
                    check(dictionary, &field.ty, reader, on_reference)?;
                }
            }
            Ok(())
        }
        _ => {
            let (image, offset) = take_plain(ty, reader)?;
            Plain::check(dictionary, ty, image, offset)?;
            if let Plain::Ref(reference) = Plain::read(ty, image) {
                on_reference(offset, reference);
            }
            Ok(())
        }
    }
}

/// Takes the next image of `ty`, which [`check`] has passed.
pub(crate) fn decode(
    dictionary: &Dictionary,
    ty: &Type,
    reader: &mut Reader<'_>,
) -> Result<Value, Malformed> {
    match ty {
        Type::Vector(item) => {
            let count = reader.count(1)?;
            decode_list(dictionary, item, count, reader)
        }
        Type::Array(item, count) => decode_list(dictionary, item, *count as usize, reader),
        Type::Struct(id) => {
            let fields = &dictionary.structs[id.0 as usize].fields;
            let mut nulls = NullBits::new(check_nulls(fields, reader)?);
            let mut values = Vec::with_capacity(fields.len());
            for field in fields {
                values.push(match nulls.next(field) {
                    true => Value::Null,
                    false => decode(dictionary, &field.ty, reader)?,
                });
            }
            Ok(Value::Struct(values))
        }
        _ => Ok(Plain::read(ty, take_plain(ty, reader)?.0).to_value()),
    }
}

fn decode_list(
    dictionary: &Dictionary,
    item: &Type,
    count: usize,
    reader: &mut Reader<'_>,
) -> Result<Value, Malformed> {
    let mut values = Vec::with_capacity(count.min(reader.remaining()));
    for _ in 0..count {
        values.push(decode(dictionary, item, reader)?);
    }
    Ok(Value::List(values))
}

fn encode_struct(
    dictionary: &Dictionary,
    fields: &[FieldDef],
    values: &[Value],
    site: &Site<'_>,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    expect_length(fields.len(), values.len(), site)?;
    let start = out.len();
    out.resize(start + null_bytes(fields), 0);
    let mut bit = 0;
    for (field, value) in fields.iter().zip(values) {
        if field.accepts_null() {
            if value.is_null() {
                out[start + bit / 8] |= 1 << (bit % 8);
            }
            bit += 1;
            if value.is_null() {
                continue;
            }
        }
        encode(dictionary, &field.ty, value, &site.child(&field.name), out)?;
    }
    Ok(())
}

/// Walks the null bits of a struct in the order of its fields.
struct NullBits<'a> {
    bytes: &'a [u8],
    bit: usize,
}

impl<'a> NullBits<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        NullBits { bytes, bit: 0 }
    }

    /// True if the next field is null.
    fn next(&mut self, field: &FieldDef) -> bool {
        if !field.accepts_null() {
            return false;
        }
        let bit = self.bit;
        self.bit += 1;
        self.bytes[bit / 8] >> (bit % 8) & 1 == 1
    }
}

fn null_bytes(fields: &[FieldDef]) -> usize {
    fields.iter().filter(|field| field.accepts_null()).count().div_ceil(8)
}

fn check_nulls<'a>(fields: &[FieldDef], reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let bits = fields.iter().filter(|field| field.accepts_null()).count();
    let bytes = reader.raw(bits.div_ceil(8))?;
    match bytes.last() {
        Some(last) if bits % 8 != 0 && last >> (bits % 8) != 0 => {
            Err(reader.malformed("null bits of no field"))
        }
        _ => Ok(bytes),
    }
}

fn take_plain<'a>(ty: &Type, reader: &mut Reader<'a>) -> Result<(&'a [u8], usize), Malformed> {
    match fixed_bytes(ty) {
        Some(bytes) => {
            let offset = reader.offset();
            Ok((reader.raw(bytes as usize)?, offset))
        }
        None => {
            let image = reader.bytes()?;
            Ok((image, reader.offset() - image.len()))
        }
    }
}

/// Appends a length; one that does not fit is far over the limit of a record, which is checked
/// when the record is complete.
fn put_length(length: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}
