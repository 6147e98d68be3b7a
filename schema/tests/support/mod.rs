//! What several test programs share: values of every type, and a small random generator whose
//! runs repeat exactly.

#![allow(dead_code, clippy::unwrap_used)]

use proptest::prelude::*;
use quorate_schema::{ClassDef, Dictionary, FieldDef, Reference, Type, Value};

/// A dictionary with one of everything.
pub(crate) fn airports() -> Dictionary {
    Dictionary::parse(include_str!("../golden/airports.ddl")).unwrap()
}

/// Values equal to the last bit, not-a-number counting as one value.
pub(crate) fn same(a: &[Value], b: &[Value]) -> bool {
    format!("{a:?}") == format!("{b:?}")
}

/// Values for each field of a class, its autoid null.
pub(crate) fn record(dictionary: &Dictionary, class: &ClassDef) -> BoxedStrategy<Vec<Value>> {
    let fields: Vec<_> = class.fields.iter().map(|field| field_value(dictionary, field)).collect();
    fields.boxed()
}

pub(crate) fn field_value(dictionary: &Dictionary, field: &FieldDef) -> BoxedStrategy<Value> {
    let some = value(dictionary, &field.ty);
    if field.accepts_null() { prop_oneof![1 => Just(Value::Null), 3 => some].boxed() } else { some }
}

/// Values of a type, the awkward ones among them.
pub(crate) fn value(dictionary: &Dictionary, ty: &Type) -> BoxedStrategy<Value> {
    match ty {
        Type::Boolean => any::<bool>().prop_map(Value::Boolean).boxed(),
        Type::Signed(bytes) => {
            let shift = 64 - 8 * u32::from(*bytes);
            let near = (-2_i64..3).boxed();
            prop_oneof![near, any::<i64>().prop_map(move |n| n >> shift), Just(i64::MAX >> shift)]
                .prop_map(Value::Signed)
                .boxed()
        }
        Type::Unsigned(bytes) => {
            let shift = 64 - 8 * u32::from(*bytes);
            prop_oneof![0_u64..3, any::<u64>().prop_map(move |n| n >> shift)]
                .prop_map(Value::Unsigned)
                .boxed()
        }
        Type::Float => prop_oneof![
            any::<u32>().prop_map(f32::from_bits),
            prop::sample::select(vec![0.0, -0.0, 1.0, -1.0, f32::NAN, f32::INFINITY, f32::MIN]),
        ]
        .prop_map(Value::Float)
        .boxed(),
        Type::Double => prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            prop::sample::select(vec![0.0, -0.0, 1.0, -1.0, f64::NAN, f64::NEG_INFINITY, 5e-324]),
        ]
        .prop_map(Value::Double)
        .boxed(),
        Type::Char(limit) => {
            let limit = *limit as usize;
            text().prop_map(move |text| Value::Text(cut(text, limit))).boxed()
        }
        Type::String => text().prop_map(Value::Text).boxed(),
        Type::Binary(limit) => {
            let limit = limit.map_or(20, |limit| limit as usize);
            prop::collection::vec(byte(), 0..=limit.min(20)).prop_map(Value::Bytes).boxed()
        }
        Type::Blob => prop::collection::vec(any::<u8>(), 0..50).prop_map(Value::Bytes).boxed(),
        Type::Date => prop_oneof![-1_i32..2, any::<i32>()].prop_map(Value::Date).boxed(),
        Type::Time => (0..86_400_000_000_000_u64).prop_map(Value::Time).boxed(),
        Type::DateTime => prop_oneof![-1_i64..2, any::<i64>()].prop_map(Value::DateTime).boxed(),
        Type::Enum(id) => {
            let members = &dictionary.enumeration(*id).unwrap().members;
            let numbers: Vec<i32> = members.iter().map(|(_, number)| *number).collect();
            prop::sample::select(numbers).prop_map(Value::Enum).boxed()
        }
        Type::Struct(id) => {
            let fields = &dictionary.structure(*id).unwrap().fields;
            let fields: Vec<_> =
                fields.iter().map(|field| field_value(dictionary, field)).collect();
            fields.prop_map(Value::Struct).boxed()
        }
        Type::Ref(_) => (0..3_u64, prop_oneof![0..3_u64, Just(Reference::PROVISIONAL)])
            .prop_map(|(id, creation)| Value::Ref(Reference { id, creation }))
            .boxed(),
        Type::Autoid => Just(Value::Null).boxed(),
        Type::Vector(item) => {
            prop::collection::vec(value(dictionary, item), 0..4).prop_map(Value::List).boxed()
        }
        Type::Array(item, count) => prop::collection::vec(value(dictionary, item), *count as usize)
            .prop_map(Value::List)
            .boxed(),
    }
}

/// Texts that often share prefixes, with NUL, non-ASCII and astral characters.
pub(crate) fn text() -> BoxedStrategy<String> {
    let char = prop::sample::select(vec!['a', 'b', '\0', '\u{1}', '\u{ff}', 'é', '\u{10ffff}']);
    prop::collection::vec(char, 0..6).prop_map(|chars| chars.into_iter().collect()).boxed()
}

fn byte() -> BoxedStrategy<u8> {
    prop_oneof![Just(0_u8), Just(1), Just(0xFE), Just(0xFF), any::<u8>()].boxed()
}

fn cut(mut text: String, limit: usize) -> String {
    while text.len() > limit {
        text.pop();
    }
    text
}

/// Marsaglia's xorshift64: fuzzing that finds the same each time.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    /// Damages bytes in one of the ways that files and networks do, or attackers would.
    pub(crate) fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            match self.below(6) {
                _ if bytes.is_empty() => bytes.push(self.next() as u8),
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF][self.below(5)],
                2 => bytes.truncate(at),
                3 => bytes.insert(at, self.next() as u8),
                4 => {
                    bytes.remove(at);
                }
                _ => {
                    let end = (at + 4).min(bytes.len());
                    let word = (self.next() as u32 >> self.below(32)).to_le_bytes();
                    bytes[at..end].copy_from_slice(&word[..end - at]);
                }
            }
        }
    }
}
