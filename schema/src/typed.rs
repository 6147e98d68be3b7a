//! Rust types as classes: what `#[derive(Class)]`, `#[derive(Struct)]` and `#[derive(Enum)]`
//! implement, and the dictionary made of them.
//!
//! A derived class writes its own DDL. [`DictionaryBuilder`] collects these texts and has them
//! parsed as any other, so a dictionary from Rust types and one from a file are checked by the
//! same code and are equal if they say the same.
//!
//! Which Rust type stands for which type of the dictionary is said by implementations of
//! [`Field`]. Its parameter, one of the [`kind`]s, is chosen by an attribute where one Rust type
//! stands for several: an `i32` is a `signed<4>`, or a `date` where it has `#[class(date)]`.

use std::any::TypeId;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use crate::ddl::quoted;
use crate::{ClassDef, Dictionary, FieldId, RecordRef, Reference, SchemaErrors, Value, ValueError};

/// A Rust struct that is a class of the dictionary. Derive it.
///
/// # Attributes of the struct
///
/// `#[class(..)]`, as often as wanted, with
/// * `name = "Airport"`: the name of the class, if it is not that of the struct;
/// * `local`: records stay on the node that wrote them;
/// * `list`: records can be walked without an index;
/// * `index(unique, hash(icao))`, `index(tree(country, name desc), name = "by_country")`: an
///   index. A part is a field, or a path into structs such as `position.lat`. Without a name it is
///   called `by_` and the names of its parts, joined by `_`;
/// * `crate = "path"`: where generated code finds this crate, `::quorate::schema` by default.
///
/// # Attributes of a field
///
/// `#[class(..)]` with
/// * `name = "type"`: the name of the field, if it is not that of the Rust field;
/// * `autoid`: filled by the class's counter, on a `u64` (0 until it was committed and read
///   again) or an `Option<u64>`;
/// * `char = n` (on a `String`), `binary = n` (on a `Vec<u8>`): text or bytes with a limit;
/// * `blob` (on a `Vec<u8>`), `date` (`i32`, days since 1970-01-01), `time` (`u64`, nanoseconds
///   since midnight), `datetime` (`i64`, nanoseconds since 1970-01-01T00:00:00Z);
/// * `default = ..`: a literal, or the path of a constant or enum member.
///
/// # Types of fields
///
/// `bool`, `i8` to `i64`, `u8` to `u64`, `f32`, `f64`, `String`, `Vec<u8>` (`binary`), structs with
/// `#[derive(Struct)]`, enums with `#[derive(Enum)]`, [`Ref<T>`]; `Option` of these (`nullable`),
/// `Vec` (`vector`) and arrays of them.
///
/// # Example
///
/// ```
/// use quorate_schema::{Class, Dictionary, Enum, Ref, Struct};
///
/// #[derive(Enum)]
/// #[class(crate = "quorate_schema")]
/// enum Surface {
///     Asphalt,
///     Grass,
/// }
///
/// #[derive(Struct)]
/// #[class(crate = "quorate_schema")]
/// struct Position {
///     lat: f64,
///     lon: f64,
/// }
///
/// #[derive(Class)]
/// #[class(crate = "quorate_schema", list)]
/// #[class(index(unique, hash(icao)))]
/// #[class(index(tree(position.lat, icao desc), name = "by_latitude"))]
/// struct Airport {
///     #[class(autoid)]
///     id: u64,
///     #[class(char = 4)]
///     icao: String,
///     iata: Option<String>,
///     position: Position,
///     #[class(default = Surface::Grass)]
///     surface: Surface,
///     alternate: Ref<Airport>,
/// }
///
/// let derived = Dictionary::builder("airports").class::<Airport>().build().unwrap();
/// let parsed = Dictionary::parse(
///     "declare database airports;
///      enum Surface { Asphalt, Grass };
///      struct Position { double lat; double lon; };
///      class Airport {
///          autoid id;
///          char<4> icao;
///          nullable string iata;
///          Position position;
///          Surface surface = Grass;
///          ref<Airport> alternate;
///          unique hash<icao> by_icao;
///          tree<position.lat, icao desc> by_latitude;
///          list;
///      };",
/// );
/// assert_eq!(parsed, Ok(derived));
/// ```
///
/// A type that stands for none of the dictionary does not compile:
///
/// ```compile_fail,E0277
/// #[derive(quorate_schema::Class)]
/// #[class(crate = "quorate_schema")]
/// struct Airport {
///     elevation: usize,
/// }
/// ```
pub trait Class: Sized + 'static {
    /// The name of the class.
    const NAME: &'static str;
    /// The names of its fields, in order.
    const FIELDS: &'static [&'static str];

    /// Adds the class, and the structs and enums its fields need, to a dictionary being built.
    fn definition(builder: &mut DictionaryBuilder);

    /// The values of all fields, in order.
    fn to_values(&self) -> Vec<Value>;

    /// The record as a Rust value. Fields are found by name, so the class may have more of them.
    fn from_record(record: &RecordRef<'_>) -> Result<Self, ValueError>;

    /// Checks that `class` has exactly the fields of this type, in the same order, so that
    /// [`Class::to_values`] are values for its records. Types are checked value by value.
    fn check(class: &ClassDef) -> Result<(), ValueError> {
        let missing = Self::FIELDS.iter().enumerate().find(|(position, name)| {
            class.fields.get(*position).is_none_or(|field| field.name != **name)
        });
        if let Some((_, name)) = missing {
            let (class, field) = (class.name.clone(), (*name).to_owned());
            return Err(ValueError::UnknownField { class, field });
        }
        if class.fields.len() != Self::FIELDS.len() {
            let (expected, got) = (class.fields.len(), Self::FIELDS.len());
            return Err(ValueError::WrongLength { place: class.name.clone(), expected, got });
        }
        Ok(())
    }
}

/// What kind of field a Rust type stands for, where an attribute says so.
pub mod kind {
    /// No attribute: what the Rust type stands for by itself.
    #[derive(Debug)]
    pub enum Natural {}
    /// `#[class(autoid)]`
    #[derive(Debug)]
    pub enum Autoid {}
    /// `#[class(char = N)]`
    #[derive(Debug)]
    pub enum Char<const N: u32> {}
    /// `#[class(binary = N)]`
    #[derive(Debug)]
    pub enum Binary<const N: u32> {}
    /// `#[class(blob)]`
    #[derive(Debug)]
    pub enum Blob {}
    /// `#[class(date)]`
    #[derive(Debug)]
    pub enum Date {}
    /// `#[class(time)]`
    #[derive(Debug)]
    pub enum Time {}
    /// `#[class(datetime)]`
    #[derive(Debug)]
    pub enum DateTime {}
}

/// A Rust type that can be a field of kind `K`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a field of kind `{K}`",
    note = "see the documentation of `Class` for the types and attributes of fields"
)]
pub trait Field<K = kind::Natural>: Sized {
    /// How DDL declares the field; adds what it needs to the dictionary.
    fn shape(builder: &mut DictionaryBuilder) -> Shape;

    /// The value in the record.
    fn to_value(&self) -> Value;

    /// The value from the record; gives back what does not fit.
    fn from_value(value: Value) -> Result<Self, Value>;
}

/// A type whose values are never null, so that `Option` of it is a nullable field.
#[diagnostic::on_unimplemented(message = "`{Self}` cannot stand in an `Option` field")]
pub trait NotNull<K = kind::Natural>: Field<K> {}

/// A type that can be an item of a vector or array.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an item of a vector or array field",
    note = "items are never null, and are no arrays themselves"
)]
pub trait Item<K = kind::Natural>: Field<K> {}

/// How DDL declares a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// True for a nullable field.
    pub nullable: bool,
    /// The type, in DDL.
    pub ty: String,
    /// The number of elements of an array.
    pub count: Option<usize>,
}

impl Shape {
    /// A field of this type, neither nullable nor an array.
    pub fn of(ty: impl Into<String>) -> Shape {
        Shape { nullable: false, ty: ty.into(), count: None }
    }
}

/// A reference to a record of class `T`, or to nothing.
pub struct Ref<T> {
    reference: Option<Reference>,
    class: PhantomData<fn() -> T>,
}

impl<T> Ref<T> {
    /// A reference to nothing.
    pub fn none() -> Self {
        Ref { reference: None, class: PhantomData }
    }

    /// A reference to this record, which is of class `T`.
    pub fn to(reference: Reference) -> Self {
        Ref { reference: Some(reference), class: PhantomData }
    }

    /// What it refers to.
    pub fn get(&self) -> Option<Reference> {
        self.reference
    }
}

impl<T> Clone for Ref<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ref<T> {}

impl<T> Default for Ref<T> {
    fn default() -> Self {
        Ref::none()
    }
}

impl<T> fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ref").field(&self.reference).finish()
    }
}

impl<T> PartialEq for Ref<T> {
    fn eq(&self, other: &Self) -> bool {
        self.reference == other.reference
    }
}

impl<T> Eq for Ref<T> {}

impl<T> Hash for Ref<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.reference.hash(state);
    }
}

impl<T> From<Reference> for Ref<T> {
    fn from(reference: Reference) -> Self {
        Ref::to(reference)
    }
}

/// Collects classes for a dictionary. Made by [`Dictionary::builder`].
#[derive(Clone, Debug)]
pub struct DictionaryBuilder {
    name: String,
    enums: String,
    structs: String,
    classes: String,
    /// The types whose declaration was begun.
    begun: HashSet<TypeId>,
}

impl Dictionary {
    /// Starts a dictionary of Rust types, for a database of this name.
    pub fn builder(name: impl Into<String>) -> DictionaryBuilder {
        DictionaryBuilder {
            name: name.into(),
            enums: String::new(),
            structs: String::new(),
            classes: String::new(),
            begun: HashSet::new(),
        }
    }
}

impl DictionaryBuilder {
    /// Adds a class, and the structs and enums it needs. Classes it refers to are added by
    /// themselves.
    pub fn class<C: Class>(mut self) -> Self {
        C::definition(&mut self);
        self
    }

    /// The DDL of everything that was added, structs and enums in the order of their first use.
    pub fn to_ddl(&self) -> String {
        let DictionaryBuilder { name, enums, structs, classes, .. } = self;
        format!("declare database {name};\n{enums}{structs}{classes}")
    }

    /// The dictionary, or everything that is wrong with it; the errors show the DDL that the types
    /// came to.
    pub fn build(self) -> Result<Dictionary, SchemaErrors> {
        Dictionary::parse(&self.to_ddl())
    }

    /// Adds class `C` with these members, each in DDL. For generated code.
    pub fn add_class<C: Class>(
        &mut self,
        local: bool,
        members: impl FnOnce(&mut DictionaryBuilder) -> Vec<String>,
    ) {
        if self.begun.insert(TypeId::of::<C>()) {
            let members = members(self).join("\n    ");
            let local = if local { "local " } else { "" };
            self.classes += &format!("\n{local}class {} {{\n    {members}\n}};\n", C::NAME);
        }
    }

    /// Adds the struct that Rust type `S` stands for, with these fields. For generated code.
    pub fn add_struct<S: 'static>(
        &mut self,
        name: &str,
        fields: impl FnOnce(&mut DictionaryBuilder) -> Vec<String>,
    ) {
        if self.begun.insert(TypeId::of::<S>()) {
            let fields = fields(self).join("\n    ");
            self.structs += &format!("\nstruct {name} {{\n    {fields}\n}};\n");
        }
    }

    /// Adds the enum that Rust type `E` stands for. For generated code.
    pub fn add_enum<E: 'static>(&mut self, name: &str, members: &[(&str, i32)]) {
        if self.begun.insert(TypeId::of::<E>()) {
            let members: Vec<String> =
                members.iter().map(|(name, number)| format!("    {name} = {number},\n")).collect();
            self.enums += &format!("\nenum {name} {{\n{}}};\n", members.concat());
        }
    }

    /// The DDL of a field of Rust type `T`. For generated code.
    pub fn field<T: Field<K>, K>(&mut self, name: &str, default: Option<String>) -> String {
        let Shape { nullable, ty, count } = T::shape(self);
        let nullable = if nullable { "nullable " } else { "" };
        let count = count.map(|count| format!("[{count}]")).unwrap_or_default();
        let default = default.map(|default| format!(" = {default}")).unwrap_or_default();
        format!("{nullable}{ty} {name}{count}{default};")
    }
}

/// A value as DDL writes it, for a default that is a constant or enum member of the program. For
/// generated code. What has no literal becomes text that the parser refuses.
pub fn literal<T: Field>(value: &T) -> String {
    match value.to_value() {
        Value::Null => "null".to_owned(),
        Value::Boolean(value) => value.to_string(),
        Value::Signed(number) | Value::DateTime(number) => number.to_string(),
        Value::Unsigned(number) | Value::Time(number) => number.to_string(),
        Value::Date(number) | Value::Enum(number) => number.to_string(),
        Value::Float(number) => format!("{number:?}"),
        Value::Double(number) => format!("{number:?}"),
        Value::Text(text) => quoted(&text),
        Value::Bytes(bytes) => quoted(&String::from_utf8_lossy(&bytes)),
        other @ (Value::Struct(_) | Value::List(_) | Value::Ref(_)) => {
            format!("[{}]", other.describe())
        }
    }
}

/// Reads the field of a record that is expected at this place under this name. For generated code.
pub fn read_field<T: Field<K>, K>(
    record: &RecordRef<'_>,
    position: u32,
    name: &str,
) -> Result<T, ValueError> {
    let class = record.class();
    let expected = class.fields.get(position as usize).filter(|field| field.name == name);
    let id = match expected {
        Some(_) => FieldId(position),
        None => match class.field(name) {
            Some((id, _)) => id,
            None => {
                let (class, field) = (class.name.clone(), name.to_owned());
                return Err(ValueError::UnknownField { class, field });
            }
        },
    };
    T::from_value(record.value(id)).map_err(|value| {
        let place = format!("{}.{name}", class.name);
        if class.autoid == Some(id) && value.is_null() {
            return ValueError::AutoidUnassigned { place };
        }
        let expected = std::any::type_name::<T>();
        ValueError::NotInProgram { place, expected, got: value.describe() }
    })
}

/// Takes the next field of a struct. For generated code.
pub fn next_field<T: Field<K>, K>(values: &mut impl Iterator<Item = Value>) -> Result<T, Value> {
    T::from_value(values.next().unwrap_or(Value::Null))
}

/// A Rust type that stands for a type by itself: how DDL names it, and which value it is.
macro_rules! plain_field {
    ($rust:ty, $kind:ty, $ddl:expr, $variant:ident $(, $marker:ident)*) => {
        impl Field<$kind> for $rust {
            fn shape(_: &mut DictionaryBuilder) -> Shape {
                Shape::of($ddl)
            }

            fn to_value(&self) -> Value {
                Value::$variant(self.clone().into())
            }

            fn from_value(value: Value) -> Result<Self, Value> {
                match value {
                    Value::$variant(found) => <$rust>::try_from(found).map_err(|_| value),
                    other => Err(other),
                }
            }
        }

        $(impl $marker<$kind> for $rust {})*
    };
}

plain_field!(bool, kind::Natural, "boolean", Boolean, NotNull, Item);
plain_field!(i8, kind::Natural, "signed<1>", Signed, NotNull, Item);
plain_field!(i16, kind::Natural, "signed<2>", Signed, NotNull, Item);
plain_field!(i32, kind::Natural, "signed<4>", Signed, NotNull, Item);
plain_field!(i64, kind::Natural, "signed<8>", Signed, NotNull, Item);
// No item: `Vec<u8>` is `binary`.
plain_field!(u8, kind::Natural, "unsigned<1>", Unsigned, NotNull);
plain_field!(u16, kind::Natural, "unsigned<2>", Unsigned, NotNull, Item);
plain_field!(u32, kind::Natural, "unsigned<4>", Unsigned, NotNull, Item);
plain_field!(u64, kind::Natural, "unsigned<8>", Unsigned, NotNull, Item);
plain_field!(f32, kind::Natural, "float", Float, NotNull, Item);
plain_field!(f64, kind::Natural, "double", Double, NotNull, Item);
plain_field!(u64, kind::Autoid, "autoid", Unsigned);
plain_field!(i32, kind::Date, "date", Date, NotNull, Item);
plain_field!(u64, kind::Time, "time", Time, NotNull, Item);
plain_field!(i64, kind::DateTime, "datetime", DateTime, NotNull, Item);

/// The same for types that hold their values on the heap and have them moved out.
macro_rules! heap_field {
    ([$($limit:tt)*] $rust:ty, $kind:ty, $ddl:expr, $variant:ident) => {
        impl<$($limit)*> Field<$kind> for $rust {
            fn shape(_: &mut DictionaryBuilder) -> Shape {
                Shape::of($ddl)
            }

            fn to_value(&self) -> Value {
                Value::$variant(self.clone())
            }

            fn from_value(value: Value) -> Result<Self, Value> {
                match value {
                    Value::$variant(found) => Ok(found),
                    other => Err(other),
                }
            }
        }

        impl<$($limit)*> NotNull<$kind> for $rust {}
        impl<$($limit)*> Item<$kind> for $rust {}
    };
}

heap_field!([] String, kind::Natural, "string", Text);
heap_field!([const N: u32] String, kind::Char<N>, format!("char<{N}>"), Text);
heap_field!([] Vec<u8>, kind::Natural, "binary", Bytes);
heap_field!([const N: u32] Vec<u8>, kind::Binary<N>, format!("binary<{N}>"), Bytes);
heap_field!([] Vec<u8>, kind::Blob, "blob", Bytes);

impl Field<kind::Autoid> for Option<u64> {
    fn shape(_: &mut DictionaryBuilder) -> Shape {
        Shape::of("autoid")
    }

    fn to_value(&self) -> Value {
        self.map_or(Value::Null, Value::Unsigned)
    }

    fn from_value(value: Value) -> Result<Self, Value> {
        match value {
            Value::Null => Ok(None),
            Value::Unsigned(number) => Ok(Some(number)),
            other => Err(other),
        }
    }
}

impl<T: Class> Field for Ref<T> {
    fn shape(_: &mut DictionaryBuilder) -> Shape {
        Shape::of(format!("ref<{}>", T::NAME))
    }

    fn to_value(&self) -> Value {
        self.reference.map_or(Value::Null, Value::Ref)
    }

    fn from_value(value: Value) -> Result<Self, Value> {
        match value {
            Value::Null => Ok(Ref::none()),
            Value::Ref(reference) => Ok(Ref::to(reference)),
            other => Err(other),
        }
    }
}

impl<T: Class> Item for Ref<T> {}

impl<T: NotNull<K>, K> Field<K> for Option<T> {
    fn shape(builder: &mut DictionaryBuilder) -> Shape {
        Shape { nullable: true, ..T::shape(builder) }
    }

    fn to_value(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::to_value)
    }

    fn from_value(value: Value) -> Result<Self, Value> {
        match value {
            Value::Null => Ok(None),
            value => T::from_value(value).map(Some),
        }
    }
}

impl<T: Item<K>, K> Field<K> for Vec<T> {
    fn shape(builder: &mut DictionaryBuilder) -> Shape {
        Shape::of(format!("vector<{}>", T::shape(builder).ty))
    }

    fn to_value(&self) -> Value {
        Value::List(self.iter().map(T::to_value).collect())
    }

    fn from_value(value: Value) -> Result<Self, Value> {
        match value {
            Value::List(values) => values.into_iter().map(T::from_value).collect(),
            other => Err(other),
        }
    }
}

impl<T: Item<K>, K> NotNull<K> for Vec<T> {}
impl<T: Item<K>, K> Item<K> for Vec<T> {}

impl<T: Item<K>, K, const N: usize> Field<K> for [T; N] {
    fn shape(builder: &mut DictionaryBuilder) -> Shape {
        Shape { count: Some(N), ..T::shape(builder) }
    }

    fn to_value(&self) -> Value {
        Value::List(self.iter().map(T::to_value).collect())
    }

    fn from_value(value: Value) -> Result<Self, Value> {
        array_from_value::<T, K, N>(value)
    }
}

impl<T: Item<K>, K, const N: usize> NotNull<K> for [T; N] {}

impl<const N: usize> Field for [u8; N] {
    fn shape(_: &mut DictionaryBuilder) -> Shape {
        Shape { count: Some(N), ..Shape::of("unsigned<1>") }
    }

    fn to_value(&self) -> Value {
        Value::List(self.iter().map(|byte| Value::Unsigned(u64::from(*byte))).collect())
    }

    fn from_value(value: Value) -> Result<Self, Value> {
        array_from_value::<u8, kind::Natural, N>(value)
    }
}

impl<const N: usize> NotNull for [u8; N] {}

fn array_from_value<T: Field<K>, K, const N: usize>(value: Value) -> Result<[T; N], Value> {
    match value {
        Value::List(values) if values.len() == N => {
            let items: Vec<T> =
                values.into_iter().map(T::from_value).collect::<Result<_, Value>>()?;
            match items.try_into() {
                Ok(array) => Ok(array),
                Err(_) => unreachable!("there are {N} items, as was checked"),
            }
        }
        other => Err(other),
    }
}
