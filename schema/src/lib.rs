//! What data looks like: DDL text to [`Dictionary`], record codec, key encoding.
//!
//! Nothing here knows storage, transactions or nodes.

mod dictionary;
mod value;

pub use dictionary::{
    ClassDef, ClassId, Dictionary, EnumDef, EnumId, FieldDef, FieldId, IndexDef, IndexId,
    IndexKind, IndexPart, StructDef, StructId, Type,
};
pub use value::{Reference, Value};
