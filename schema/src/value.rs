//! Values as programs see them when they do not use a derived class.

use std::cmp::Ordering;

/// One value of any [`Type`](crate::Type).
///
/// Which variant stands for which type: `Date`, `Time` and `DateTime` have their own, an enum is
/// [`Value::Enum`] by number, `autoid` is [`Value::Unsigned`], `char<n>` and `string` are
/// [`Value::Text`], `binary` and `blob` are [`Value::Bytes`], vectors and arrays are
/// [`Value::List`].
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value; only nullable fields and gone references hold it.
    Null,
    /// `boolean`
    Boolean(bool),
    /// `signed<n>`
    Signed(i64),
    /// `unsigned<n>` and `autoid`
    Unsigned(u64),
    /// `float`
    Float(f32),
    /// `double`
    Double(f64),
    /// `char<n>` and `string`
    Text(String),
    /// `binary` and `blob`
    Bytes(Vec<u8>),
    /// Days since 1970-01-01.
    Date(i32),
    /// Nanoseconds since midnight.
    Time(u64),
    /// Nanoseconds since 1970-01-01T00:00:00Z.
    DateTime(i64),
    /// An enum member, by its number.
    Enum(i32),
    /// A struct: its fields in order.
    Struct(Vec<Value>),
    /// A vector or array.
    List(Vec<Value>),
    /// A reference to a record.
    Ref(Reference),
}

/// A reference to a record as a `ref` field stores it: 16 bytes.
///
/// `id` is the record's place in its class, `creation` the index of the transaction that made the
/// record; together they notice that the place was reused. Inside the transaction that inserts
/// the target both are provisional (`creation == PROVISIONAL`), and the applier puts the real ones
/// in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The record's place in its class, or its provisional number.
    pub id: u64,
    /// The index of the transaction that created the record, or [`Reference::PROVISIONAL`].
    pub creation: u64,
}

impl Reference {
    /// The creation index of a record whose transaction has not committed yet.
    pub const PROVISIONAL: u64 = u64::MAX;

    /// True while the target is known only to the transaction that inserts it.
    pub fn is_provisional(&self) -> bool {
        self.creation == Self::PROVISIONAL
    }
}

impl Value {
    /// The order of values in index keys, spelled out plainly: null first, false before true,
    /// numbers by value, -0 equal to +0, NaN after +infinity and equal to itself, text and bytes
    /// by their bytes, enums by number, lists and structs by their first difference.
    ///
    /// It is total; values of different kinds (which no index holds) are ordered by kind. The key
    /// encoding must agree with it, and property tests hold it to that.
    pub fn key_order(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Boolean(a), Value::Boolean(b)) => a.cmp(b),
            (Value::Signed(a), Value::Signed(b)) => a.cmp(b),
            (Value::Unsigned(a), Value::Unsigned(b)) => a.cmp(b),
            (Value::Float(a), Value::Float(b)) => float_order(f64::from(*a), f64::from(*b)),
            (Value::Double(a), Value::Double(b)) => float_order(*a, *b),
            (Value::Text(a), Value::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
            (Value::Date(a), Value::Date(b)) => a.cmp(b),
            (Value::Time(a), Value::Time(b)) => a.cmp(b),
            (Value::DateTime(a), Value::DateTime(b)) => a.cmp(b),
            (Value::Enum(a), Value::Enum(b)) => a.cmp(b),
            (Value::Ref(a), Value::Ref(b)) => a.cmp(b),
            (Value::Struct(a), Value::Struct(b)) | (Value::List(a), Value::List(b)) => {
                let differing = a.iter().zip(b).map(|(a, b)| a.key_order(b)).find(|o| o.is_ne());
                differing.unwrap_or(a.len().cmp(&b.len()))
            }
            _ => self.kind_rank().cmp(&other.kind_rank()),
        }
    }

    /// True for [`Value::Null`].
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The value in a few words, for messages: kind and, if it is short, the value itself.
    pub fn describe(&self) -> String {
        match self {
            Value::Null => "null".to_owned(),
            Value::Boolean(value) => format!("boolean {value}"),
            Value::Signed(value) => format!("signed {value}"),
            Value::Unsigned(value) => format!("unsigned {value}"),
            Value::Float(value) => format!("float {value:?}"),
            Value::Double(value) => format!("double {value:?}"),
            Value::Text(text) if text.chars().count() <= 32 => format!("text {text:?}"),
            Value::Text(text) => format!("text of {} bytes", text.len()),
            Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
            Value::Date(days) => format!("date {days}"),
            Value::Time(nanoseconds) => format!("time {nanoseconds} ns"),
            Value::DateTime(nanoseconds) => format!("datetime {nanoseconds} ns"),
            Value::Enum(number) => format!("enum member {number}"),
            Value::Struct(fields) => format!("struct of {} fields", fields.len()),
            Value::List(items) => format!("list of {} values", items.len()),
            Value::Ref(reference) => {
                format!("reference to record {} of {}", reference.id, reference.creation)
            }
        }
    }

    fn kind_rank(&self) -> u8 {
        match self {
            Value::Null => 0,
            Value::Boolean(_) => 1,
            Value::Signed(_) => 2,
            Value::Unsigned(_) => 3,
            Value::Float(_) => 4,
            Value::Double(_) => 5,
            Value::Text(_) => 6,
            Value::Bytes(_) => 7,
            Value::Date(_) => 8,
            Value::Time(_) => 9,
            Value::DateTime(_) => 10,
            Value::Enum(_) => 11,
            Value::Struct(_) => 12,
            Value::List(_) => 13,
            Value::Ref(_) => 14,
        }
    }
}

fn float_order(a: f64, b: f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => a.partial_cmp(&b).expect("neither is NaN"),
    }
}
