//! What data looks like: DDL text to [`Dictionary`], record codec, key encoding.
//!
//! * [`Dictionary`] and its parts say which classes, fields and indexes a database has.
//! * [`Layout`], found by [`Dictionary::layout`], turns [`Value`]s into canonical record images;
//!   [`RecordRef`] reads them in place.
//! * [`Dictionary::key`] and [`Dictionary::key_from_values`] make index keys whose order as bytes
//!   is the order of their values.
//! * [`Class`], derived, makes a Rust struct a class; [`Dictionary::builder`] makes a dictionary of
//!   such structs.
//! * [`bytes`] reads and writes the byte forms of everything else.
//!
//! Nothing here knows storage, transactions or nodes.

pub mod bytes;
mod convert;
mod ddl;
mod dictionary;
mod encode;
mod error;
mod item;
mod key;
mod layout;
mod plain;
mod record;
pub mod typed;
mod value;

pub use bytes::Malformed;
pub use ddl::{MAX_DDL_BYTES, SchemaError, SchemaErrors};
pub use dictionary::{
    ClassDef, ClassId, Dictionary, EnumDef, EnumId, EventDef, EventKind, FieldDef, FieldId,
    IndexDef, IndexId, IndexKind, IndexPart, StructDef, StructId, Type,
};
pub use encode::EncodedRecord;
pub use error::ValueError;
pub use key::{Key, prefix_end};
pub use layout::{Layout, MAX_VARIABLE_BYTES, Patch, PatchWhat};
pub use quorate_schema_derive::{Class, Enum, Struct};
pub use record::RecordRef;
pub use typed::{Class, DictionaryBuilder, Ref};
pub use value::{Reference, Value};
