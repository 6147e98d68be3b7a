//! Plain values: everything that is neither struct, vector nor array.
//!
//! The one place that knows how a plain value stands in a record image, which values of the
//! program it accepts and which bytes are a valid image of it. Keys have their own encoding
//! (`key`), but start from the same [`Plain`], so an image and a search value that mean the same
//! give the same key.
//!
//! Images hold numbers little-endian, except the eight-byte numbers the applier may have to fill
//! in (references and autoids), which are big-endian as in keys. Not a number has one image.

use crate::bytes::Malformed;
use crate::error::{Site, ValueError};
use crate::{Dictionary, Reference, Type, Value};

/// Nanoseconds of a day: the limit of `time`.
pub(crate) const DAY_NS: u64 = 86_400_000_000_000;

/// What stands in the image for an autoid that was not given out yet.
pub(crate) const AUTOID_UNASSIGNED: u64 = u64::MAX;

/// One plain value, without the width its type stores it in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Plain<'a> {
    Boolean(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f32),
    Double(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Date(i32),
    Time(u64),
    DateTime(i64),
    Enum(i32),
    Ref(Reference),
    Autoid(u64),
}

/// The image of a plain value of fixed size.
pub(crate) struct FixedImage {
    bytes: [u8; 16],
    length: usize,
}

impl FixedImage {
    fn new(bytes: &[u8]) -> Self {
        let mut image = FixedImage { bytes: [0; 16], length: bytes.len() };
        image.bytes[..bytes.len()].copy_from_slice(bytes);
        image
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// How many bytes the image of a type takes; none for types of variable size and for structs.
pub(crate) fn fixed_bytes(ty: &Type) -> Option<u32> {
    match ty {
        Type::Boolean => Some(1),
        Type::Signed(bytes) | Type::Unsigned(bytes) => Some(u32::from(*bytes)),
        Type::Float | Type::Date | Type::Enum(_) => Some(4),
        Type::Double | Type::Time | Type::DateTime | Type::Autoid => Some(8),
        Type::Ref(_) => Some(16),
        Type::Char(_) | Type::String | Type::Binary(_) | Type::Blob => None,
        Type::Struct(_) | Type::Vector(_) | Type::Array(..) => None,
    }
}

impl<'a> Plain<'a> {
    /// The value of a program as one of type `ty`. Signed and unsigned numbers stand for each
    /// other where they fit, and a float for a double; lengths are left to the caller.
    pub(crate) fn from_value(
        dictionary: &Dictionary,
        ty: &Type,
        value: &'a Value,
        site: &Site<'_>,
    ) -> Result<Plain<'a>, ValueError> {
        match (ty, value) {
            (Type::Signed(_) | Type::Unsigned(_), Value::Signed(number)) => {
                let fitting = integer(ty, i128::from(*number));
                fitting.ok_or_else(|| site.out_of_range(ty.display(dictionary), value))
            }
            (Type::Signed(_) | Type::Unsigned(_), Value::Unsigned(number)) => {
                let fitting = integer(ty, i128::from(*number));
                fitting.ok_or_else(|| site.out_of_range(ty.display(dictionary), value))
            }
            (Type::Boolean, Value::Boolean(value)) => Ok(Plain::Boolean(*value)),
            (Type::Float, Value::Float(value)) => Ok(Plain::Float(*value)),
            (Type::Double, Value::Double(value)) => Ok(Plain::Double(*value)),
            (Type::Double, Value::Float(value)) => Ok(Plain::Double(f64::from(*value))),
            (Type::Char(_) | Type::String, Value::Text(text)) => Ok(Plain::Text(text)),
            (Type::Binary(_) | Type::Blob, Value::Bytes(bytes)) => Ok(Plain::Bytes(bytes)),
            (Type::Date, Value::Date(days)) => Ok(Plain::Date(*days)),
            (Type::Time, Value::Time(time_ns)) if *time_ns < DAY_NS => Ok(Plain::Time(*time_ns)),
            (Type::Time, Value::Time(_)) => Err(site.out_of_range(ty.display(dictionary), value)),
            (Type::DateTime, Value::DateTime(time_ns)) => Ok(Plain::DateTime(*time_ns)),
            (Type::Ref(_), Value::Ref(reference)) => Ok(Plain::Ref(*reference)),
            (Type::Autoid, Value::Unsigned(number)) => Ok(Plain::Autoid(*number)),
            (Type::Enum(id), Value::Enum(number)) => {
                let declared = &dictionary.enums[id.0 as usize];
                if declared.member(*number).is_some() {
                    return Ok(Plain::Enum(*number));
                }
                Err(ValueError::UnknownMember {
                    place: site.path(),
                    expected: declared.name.clone(),
                    got: number.to_string(),
                })
            }
            _ => Err(site.wrong_type(ty.display(dictionary), value)),
        }
    }

    /// Reads the image of a value; `image` has passed [`Plain::check`].
    pub(crate) fn read(ty: &Type, image: &'a [u8]) -> Plain<'a> {
        match ty {
            Type::Boolean => Plain::Boolean(image[0] != 0),
            Type::Signed(_) => Plain::Signed(read_signed(image)),
            Type::Unsigned(_) => Plain::Unsigned(read_unsigned(image)),
            Type::Float => Plain::Float(f32::from_bits(read_unsigned(image) as u32)),
            Type::Double => Plain::Double(f64::from_bits(read_unsigned(image))),
            Type::Date => Plain::Date(read_signed(image) as i32),
            Type::Enum(_) => Plain::Enum(read_signed(image) as i32),
            Type::Time => Plain::Time(read_unsigned(image)),
            Type::DateTime => Plain::DateTime(read_signed(image)),
            Type::Autoid => Plain::Autoid(read_big(image)),
            Type::Ref(_) => {
                Plain::Ref(Reference { id: read_big(&image[..8]), creation: read_big(&image[8..]) })
            }
            Type::Char(_) | Type::String => {
                Plain::Text(std::str::from_utf8(image).expect("a checked image holds UTF-8"))
            }
            Type::Binary(_) | Type::Blob => Plain::Bytes(image),
            Type::Struct(_) | Type::Vector(_) | Type::Array(..) => {
                unreachable!("{ty:?} is no plain type: layouts never ask for one here")
            }
        }
    }

    /// Checks that `image`, which starts at `offset` of its record, is one `ty` can have. The
    /// length of a type of fixed size is the caller's promise.
    pub(crate) fn check(
        dictionary: &Dictionary,
        ty: &Type,
        image: &[u8],
        offset: usize,
    ) -> Result<(), Malformed> {
        let wrong = |what| Err(Malformed { what, offset });
        match ty {
            Type::Boolean if image[0] > 1 => wrong("a boolean that is neither 0 nor 1"),
            Type::Time if read_unsigned(image) >= DAY_NS => wrong("a time of more than a day"),
            Type::Enum(id) => {
                let declared = &dictionary.enums[id.0 as usize];
                match declared.member(read_signed(image) as i32) {
                    Some(_) => Ok(()),
                    None => wrong("the number of no enum member"),
                }
            }
            Type::Float | Type::Double => {
                let again = Plain::read(ty, image).fixed_image(ty);
                if again.as_slice() == image {
                    Ok(())
                } else {
                    wrong("not-a-number in another than its one form")
                }
            }
            Type::Char(limit) if image.len() > *limit as usize => wrong("text over its limit"),
            Type::Binary(Some(limit)) if image.len() > *limit as usize => {
                wrong("bytes over their limit")
            }
            Type::Char(_) | Type::String if std::str::from_utf8(image).is_err() => {
                wrong("text that is not UTF-8")
            }
            _ => Ok(()),
        }
    }

    /// The image of a value of fixed size.
    pub(crate) fn fixed_image(&self, ty: &Type) -> FixedImage {
        match *self {
            Plain::Boolean(value) => FixedImage::new(&[u8::from(value)]),
            Plain::Signed(value) => FixedImage::new(&value.to_le_bytes()[..width(ty)]),
            Plain::Unsigned(value) => FixedImage::new(&value.to_le_bytes()[..width(ty)]),
            Plain::Float(value) if value.is_nan() => FixedImage::new(&f32::NAN_IMAGE),
            Plain::Float(value) => FixedImage::new(&value.to_le_bytes()),
            Plain::Double(value) if value.is_nan() => FixedImage::new(&f64::NAN_IMAGE),
            Plain::Double(value) => FixedImage::new(&value.to_le_bytes()),
            Plain::Date(value) | Plain::Enum(value) => FixedImage::new(&value.to_le_bytes()),
            Plain::Time(value) => FixedImage::new(&value.to_le_bytes()),
            Plain::DateTime(value) => FixedImage::new(&value.to_le_bytes()),
            Plain::Autoid(value) => FixedImage::new(&value.to_be_bytes()),
            Plain::Ref(reference) => {
                let mut bytes = [0; 16];
                bytes[..8].copy_from_slice(&reference.id.to_be_bytes());
                bytes[8..].copy_from_slice(&reference.creation.to_be_bytes());
                FixedImage::new(&bytes)
            }
            Plain::Text(_) | Plain::Bytes(_) => {
                unreachable!("text and bytes have no fixed size: layouts give them variable places")
            }
        }
    }

    /// The bytes of a value of variable size.
    pub(crate) fn variable_image(&self) -> &'a [u8] {
        match self {
            Plain::Text(text) => text.as_bytes(),
            Plain::Bytes(bytes) => bytes,
            _ => unreachable!("{self:?} has a fixed size: layouts give it a fixed place"),
        }
    }

    /// The value for a program. An autoid not given out yet is null.
    pub(crate) fn to_value(self) -> Value {
        match self {
            Plain::Boolean(value) => Value::Boolean(value),
            Plain::Signed(value) => Value::Signed(value),
            Plain::Unsigned(value) => Value::Unsigned(value),
            Plain::Float(value) => Value::Float(value),
            Plain::Double(value) => Value::Double(value),
            Plain::Text(text) => Value::Text(text.to_owned()),
            Plain::Bytes(bytes) => Value::Bytes(bytes.to_owned()),
            Plain::Date(days) => Value::Date(days),
            Plain::Time(time_ns) => Value::Time(time_ns),
            Plain::DateTime(time_ns) => Value::DateTime(time_ns),
            Plain::Enum(number) => Value::Enum(number),
            Plain::Ref(reference) => Value::Ref(reference),
            Plain::Autoid(AUTOID_UNASSIGNED) => Value::Null,
            Plain::Autoid(number) => Value::Unsigned(number),
        }
    }
}

/// The one image of not-a-number, whatever sign and payload it came with.
trait NanImage<const N: usize> {
    const NAN_IMAGE: [u8; N];
}

impl NanImage<4> for f32 {
    const NAN_IMAGE: [u8; 4] = 0x7FC0_0000_u32.to_le_bytes();
}

impl NanImage<8> for f64 {
    const NAN_IMAGE: [u8; 8] = 0x7FF8_0000_0000_0000_u64.to_le_bytes();
}

/// The bytes an integer type is stored in.
fn width(ty: &Type) -> usize {
    match ty {
        Type::Signed(bytes) | Type::Unsigned(bytes) => usize::from(*bytes),
        _ => unreachable!("{ty:?} is no integer type"),
    }
}

/// A number as one of an integer type; none if it does not fit.
pub(crate) fn integer<'a>(ty: &Type, number: i128) -> Option<Plain<'a>> {
    match ty {
        Type::Signed(bytes) => {
            let limit = 1_i128 << (u32::from(*bytes) * 8 - 1);
            ((-limit..limit).contains(&number)).then_some(Plain::Signed(number as i64))
        }
        Type::Unsigned(bytes) => {
            let limit = 1_i128 << (u32::from(*bytes) * 8);
            ((0..limit).contains(&number)).then_some(Plain::Unsigned(number as u64))
        }
        _ => None,
    }
}

fn read_unsigned(image: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes[..image.len()].copy_from_slice(image);
    u64::from_le_bytes(bytes)
}

fn read_signed(image: &[u8]) -> i64 {
    let unused_bits = 64 - 8 * image.len() as u32;
    ((read_unsigned(image) << unused_bits) as i64) >> unused_bits
}

fn read_big(image: &[u8]) -> u64 {
    u64::from_be_bytes(image.try_into().expect("ids take eight bytes in every layout"))
}
