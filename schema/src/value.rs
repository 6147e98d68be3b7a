//! Values as programs see them when they do not use a derived class.

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
/// the target both are provisional (`creation == PROVISIONAL`), and the applier puts the real ones in.
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
