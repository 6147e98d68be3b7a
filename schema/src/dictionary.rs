//! The dictionary: every class, enum, struct and index of a database, with the numbers by which
//! write sets, keys and images name them.
//!
//! A dictionary is made by [`Dictionary::parse`](crate::Dictionary::parse) from DDL text or by
//! [`DictionaryBuilder`](crate::DictionaryBuilder) from derived classes, is checked as a whole
//! once, and never changes afterwards. Everything downstream may therefore rely on its invariants:
//!
//! * `classes[i].id == ClassId(i)`, and the same for enums, structs and (over all classes) indexes;
//! * names are unique among classes, enums and structs together, and among the fields and indexes
//!   of one class;
//! * every reference by number (type of a field, field of an index) exists;
//! * a replicated class refers to no local one.

use crate::{Layout, Value};

/// The number of a class in its dictionary: its position in declaration order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(pub u32);

/// The number of an enum in its dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnumId(pub u32);

/// The number of a struct in its dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StructId(pub u32);

/// The number of an index, counted over all classes of the dictionary in declaration order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndexId(pub u32);

/// The position of a field in its class or struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldId(pub u32);

/// All that is declared for one database. See the module for the invariants.
#[derive(Clone, Debug, PartialEq)]
pub struct Dictionary {
    pub(crate) name: String,
    pub(crate) classes: Vec<ClassDef>,
    pub(crate) enums: Vec<EnumDef>,
    pub(crate) structs: Vec<StructDef>,
    /// Where each index lives: (class, position in the class), by [`IndexId`].
    pub(crate) indexes: Vec<(ClassId, usize)>,
    /// The record layout of each class, by [`ClassId`].
    layouts: Vec<Layout>,
}

/// One class: what its records hold and how they are found.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassDef {
    /// Its number.
    pub id: ClassId,
    /// Its name.
    pub name: String,
    /// True for a class whose records stay on the node that wrote them.
    pub local: bool,
    /// Its fields, in declaration order. [`FieldId`] is the position here.
    pub fields: Vec<FieldDef>,
    /// Its indexes, in declaration order.
    pub indexes: Vec<IndexDef>,
    /// The field filled from the class's counter when a record is applied, if declared.
    pub autoid: Option<FieldId>,
    /// True if `list` was declared: records can be walked in order of their ids without an index.
    pub list: bool,
    /// Its events, in declaration order.
    pub events: Vec<EventDef>,
}

/// One field of a class or struct.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldDef {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: Type,
    /// True if the field may hold [`Value::Null`] (`nullable` or `optional`).
    pub nullable: bool,
    /// The value a new record gets when none is given. Without one: null if nullable, else the
    /// type's zero (0, false, empty, the first enum member).
    pub default: Option<Value>,
}

/// A kind of change that a class announces under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventDef {
    /// Its name, unique among the events of the class.
    pub name: String,
    /// Which change it announces.
    pub kind: EventKind,
}

/// Which change an event announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// `new`: a record was inserted.
    New,
    /// `update`: any field of a record was changed.
    Update,
    /// `delete`: a record was deleted.
    Delete,
    /// `field update`: this field of a record was changed.
    Field(FieldId),
}

/// The type of a field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// `boolean`
    Boolean,
    /// `signed<bytes>`; bytes is 1, 2, 4 or 8.
    Signed(u8),
    /// `unsigned<bytes>`; bytes is 1, 2, 4 or 8.
    Unsigned(u8),
    /// `float`: IEEE 754 binary32.
    Float,
    /// `double`: IEEE 754 binary64.
    Double,
    /// `char<n>`: UTF-8 text of at most `n` bytes.
    Char(u32),
    /// `string`: UTF-8 text.
    String,
    /// `binary<n>` (at most `n` bytes) or `binary` (any number of bytes).
    Binary(Option<u32>),
    /// `blob`: bytes that cannot be indexed.
    Blob,
    /// `date`: days since 1970-01-01, signed 32 bits.
    Date,
    /// `time`: nanoseconds since midnight, unsigned, below 86 400 000 000 000.
    Time,
    /// `datetime`: nanoseconds since 1970-01-01T00:00:00Z, signed 64 bits.
    DateTime,
    /// A declared enum.
    Enum(EnumId),
    /// A declared struct.
    Struct(StructId),
    /// `ref<Class>`: a record of a class, noticed when it is gone.
    Ref(ClassId),
    /// `autoid`: unsigned 64 bits, given out by the class's counter at apply, never reused.
    Autoid,
    /// `vector<type>`: any number of values of one type.
    Vector(Box<Type>),
    /// `type name[n]`: exactly `n` values of one type.
    Array(Box<Type>, u32),
}

/// One enum: named numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnumDef {
    /// Its number.
    pub id: EnumId,
    /// Its name.
    pub name: String,
    /// Names and values, in declaration order; both unique.
    pub members: Vec<(String, i32)>,
}

/// One struct: fields that are stored inside the record that holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct StructDef {
    /// Its number.
    pub id: StructId,
    /// Its name.
    pub name: String,
    /// Its fields, in declaration order.
    pub fields: Vec<FieldDef>,
}

/// One index of a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexDef {
    /// Its number, over all classes.
    pub id: IndexId,
    /// The class it belongs to.
    pub class: ClassId,
    /// Its name, unique in the class.
    pub name: String,
    /// Ordered or hashed.
    pub kind: IndexKind,
    /// True if no two records may have equal keys. A key with a null part equals no other.
    pub unique: bool,
    /// The fields of the key, most significant first.
    pub parts: Vec<IndexPart>,
}

/// How an index finds its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IndexKind {
    /// Ordered: ranges, prefixes and both directions.
    Tree,
    /// By equality only.
    Hash,
}

/// One field of an index key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexPart {
    /// The path to the field: one element for a field of the class, more to reach into structs.
    pub path: Vec<FieldId>,
    /// True for `desc`: greater values come first.
    pub descending: bool,
}

impl Dictionary {
    /// Puts declarations together that were checked: every invariant of the module but the
    /// numbering of indexes is the caller's promise.
    pub(crate) fn assemble(
        name: String,
        enums: Vec<EnumDef>,
        structs: Vec<StructDef>,
        mut classes: Vec<ClassDef>,
    ) -> Dictionary {
        let mut indexes = Vec::new();
        for class in &mut classes {
            for (position, index) in class.indexes.iter_mut().enumerate() {
                index.id = IndexId(indexes.len() as u32);
                indexes.push((class.id, position));
            }
        }
        let layouts = classes.iter().map(|class| Layout::new(class, &structs)).collect();
        Dictionary { name, classes, enums, structs, indexes, layouts }
    }

    /// The name in `declare database`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All classes, by id.
    pub fn classes(&self) -> &[ClassDef] {
        &self.classes
    }

    /// All enums, by id.
    pub fn enums(&self) -> &[EnumDef] {
        &self.enums
    }

    /// All structs, by id.
    pub fn structs(&self) -> &[StructDef] {
        &self.structs
    }

    /// The class with this id, if there is one. Ids from peers are checked here.
    pub fn class(&self, id: ClassId) -> Option<&ClassDef> {
        self.classes.get(id.0 as usize)
    }

    /// The class with this name.
    pub fn class_by_name(&self, name: &str) -> Option<&ClassDef> {
        self.classes.iter().find(|class| class.name == name)
    }

    /// The enum with this id.
    pub fn enumeration(&self, id: EnumId) -> Option<&EnumDef> {
        self.enums.get(id.0 as usize)
    }

    /// The struct with this id.
    pub fn structure(&self, id: StructId) -> Option<&StructDef> {
        self.structs.get(id.0 as usize)
    }

    /// The index with this id, if there is one.
    pub fn index(&self, id: IndexId) -> Option<&IndexDef> {
        let (class, position) = self.indexes.get(id.0 as usize)?;
        self.class(*class)?.indexes.get(*position)
    }

    /// Where the fields of a class stand in its record images.
    ///
    /// # Panics
    ///
    /// If there is no such class: ids from peers are checked with [`Dictionary::class`] first.
    pub fn layout(&self, class: ClassId) -> &Layout {
        &self.layouts[class.0 as usize]
    }

    /// The values a new record of `class` has where none are given.
    pub fn initial_values(&self, class: &ClassDef) -> Vec<Value> {
        class.fields.iter().map(|field| self.initial_value(field)).collect()
    }

    /// The value a field has in a new record if none is given: its default, else null if it may
    /// be null, else the zero of its type.
    pub fn initial_value(&self, field: &FieldDef) -> Value {
        match &field.default {
            Some(value) => value.clone(),
            None if field.accepts_null() => Value::Null,
            None => self.zero(&field.ty),
        }
    }

    fn zero(&self, ty: &Type) -> Value {
        match ty {
            Type::Boolean => Value::Boolean(false),
            Type::Signed(_) => Value::Signed(0),
            Type::Unsigned(_) | Type::Autoid => Value::Unsigned(0),
            Type::Float => Value::Float(0.0),
            Type::Double => Value::Double(0.0),
            Type::Char(_) | Type::String => Value::Text(String::new()),
            Type::Binary(_) | Type::Blob => Value::Bytes(Vec::new()),
            Type::Date => Value::Date(0),
            Type::Time => Value::Time(0),
            Type::DateTime => Value::DateTime(0),
            Type::Enum(id) => Value::Enum(self.enums[id.0 as usize].members[0].1),
            Type::Struct(id) => {
                let fields = &self.structs[id.0 as usize].fields;
                Value::Struct(fields.iter().map(|field| self.initial_value(field)).collect())
            }
            Type::Ref(_) => Value::Null,
            Type::Vector(_) => Value::List(Vec::new()),
            Type::Array(item, count) => Value::List(vec![self.zero(item); *count as usize]),
        }
    }

    /// How many indexes all classes have together.
    pub fn index_count(&self) -> usize {
        self.indexes.len()
    }
}

impl ClassDef {
    /// The field with this name and its position.
    pub fn field(&self, name: &str) -> Option<(FieldId, &FieldDef)> {
        let position = self.fields.iter().position(|field| field.name == name)?;
        Some((FieldId(position as u32), &self.fields[position]))
    }

    /// The index with this name.
    pub fn index(&self, name: &str) -> Option<&IndexDef> {
        self.indexes.iter().find(|index| index.name == name)
    }
}

impl FieldDef {
    /// True if null may be stored: the field is nullable, or a `ref`, which may refer to nothing.
    pub fn accepts_null(&self) -> bool {
        self.nullable || matches!(self.ty, Type::Ref(_))
    }
}

impl EnumDef {
    /// The name of the member with this number.
    pub fn member(&self, number: i32) -> Option<&str> {
        let member = self.members.iter().find(|(_, member)| *member == number)?;
        Some(&member.0)
    }

    /// The number of the member with this name.
    pub fn number(&self, name: &str) -> Option<i32> {
        self.members.iter().find(|(member, _)| member == name).map(|(_, number)| *number)
    }
}

impl Type {
    /// The type as DDL spells it; an array as `type[n]`, although DDL puts the count after the
    /// name of the field.
    pub fn display(&self, dictionary: &Dictionary) -> String {
        match self {
            Type::Boolean => "boolean".to_owned(),
            Type::Signed(bytes) => format!("signed<{bytes}>"),
            Type::Unsigned(bytes) => format!("unsigned<{bytes}>"),
            Type::Float => "float".to_owned(),
            Type::Double => "double".to_owned(),
            Type::Char(limit) => format!("char<{limit}>"),
            Type::String => "string".to_owned(),
            Type::Binary(Some(limit)) => format!("binary<{limit}>"),
            Type::Binary(None) => "binary".to_owned(),
            Type::Blob => "blob".to_owned(),
            Type::Date => "date".to_owned(),
            Type::Time => "time".to_owned(),
            Type::DateTime => "datetime".to_owned(),
            Type::Enum(id) => dictionary.enums[id.0 as usize].name.clone(),
            Type::Struct(id) => dictionary.structs[id.0 as usize].name.clone(),
            Type::Ref(id) => format!("ref<{}>", dictionary.classes[id.0 as usize].name),
            Type::Autoid => "autoid".to_owned(),
            Type::Vector(item) => format!("vector<{}>", item.display(dictionary)),
            Type::Array(item, count) => format!("{}[{count}]", item.display(dictionary)),
        }
    }
}
