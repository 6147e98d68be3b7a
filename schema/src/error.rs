//! Errors about values: what a program gave does not fit what the dictionary says.
//!
//! Errors of DDL text live with the parser, errors of bytes in [`bytes`](crate::bytes).

use std::fmt::Write as _;

use thiserror::Error;

use crate::Value;

/// A value that does not fit its field. Nothing was changed.
///
/// `place` names the class and the path to the field, as in `Airport.position.lat`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ValueError {
    /// The value is of another type than the field.
    #[error("{place} is of type {expected} but got {got}; nothing was changed, convert the value")]
    WrongType {
        /// The class and field.
        place: String,
        /// The type of the field, in DDL.
        expected: String,
        /// What was given.
        got: String,
    },
    /// A field of a record does not fit the type that the program has for it.
    #[error(
        "{place} holds {got}, which is no {expected}; nothing was changed, make the program's \
         type and the dictionary agree"
    )]
    NotInProgram {
        /// The class and field.
        place: String,
        /// The program's type.
        expected: &'static str,
        /// What the record holds.
        got: String,
    },
    /// The number does not fit the type of the field.
    #[error("{place}: {got} does not fit {expected}; nothing was changed")]
    OutOfRange {
        /// The class and field.
        place: String,
        /// The type of the field, in DDL.
        expected: String,
        /// The value given.
        got: String,
    },
    /// Null for a field that is not nullable.
    #[error("{place} of type {expected} is not nullable but got null; nothing was changed")]
    NotNullable {
        /// The class and field.
        place: String,
        /// The type of the field, in DDL.
        expected: String,
    },
    /// More bytes than the field, or a record as a whole, can hold.
    #[error("{place}: {got_bytes} bytes are more than {expected} holds; nothing was changed")]
    TooLong {
        /// The class and field.
        place: String,
        /// The type of the field, in DDL, or the limit of a record.
        expected: String,
        /// How many bytes were given.
        got_bytes: usize,
    },
    /// Another number of values than fields, array elements or key parts.
    #[error("{place} takes {expected} values but got {got}; nothing was changed")]
    WrongLength {
        /// The class, field or index.
        place: String,
        /// How many values are expected.
        expected: usize,
        /// How many were given.
        got: usize,
    },
    /// The number of no member of the enum.
    #[error("{place}: {got} is no member of enum {expected}; nothing was changed")]
    UnknownMember {
        /// The class and field.
        place: String,
        /// The name of the enum.
        expected: String,
        /// The value given.
        got: String,
    },
    /// The class has no field with this number or name.
    #[error("class {class} has no field {field}; nothing was changed, see the dictionary")]
    UnknownField {
        /// The class.
        class: String,
        /// The name of the field, or its number as `#n`.
        field: String,
    },
    /// A value for an `autoid` field, which only the class's counter fills.
    #[error(
        "{place} is filled by the counter of its class but got {got}; nothing was changed, \
         leave it out (or 0 or null) on insert and unchanged on update"
    )]
    AutoidGiven {
        /// The class and field.
        place: String,
        /// The value given.
        got: String,
    },
    /// The value of an `autoid` field of a record that is not committed yet.
    #[error("{place} has no value before the record is committed; read it after the commit")]
    AutoidUnassigned {
        /// The class and field.
        place: String,
    },
}

/// Where a value stands while it is encoded: turned into text only when there is an error.
#[derive(Clone, Copy)]
pub(crate) struct Site<'a> {
    parent: Option<&'a Site<'a>>,
    name: &'a str,
}

impl<'a> Site<'a> {
    pub(crate) fn root(name: &'a str) -> Self {
        Site { parent: None, name }
    }

    pub(crate) fn child(&'a self, name: &'a str) -> Site<'a> {
        Site { parent: Some(self), name }
    }

    /// The path from the class, separated by dots.
    pub(crate) fn path(&self) -> String {
        match self.parent {
            None => self.name.to_owned(),
            Some(parent) => {
                let mut path = parent.path();
                let _ = write!(path, ".{}", self.name);
                path
            }
        }
    }

    pub(crate) fn wrong_type(&self, expected: String, got: &Value) -> ValueError {
        ValueError::WrongType { place: self.path(), expected, got: got.describe() }
    }

    pub(crate) fn out_of_range(&self, expected: String, got: &Value) -> ValueError {
        ValueError::OutOfRange { place: self.path(), expected, got: got.describe() }
    }
}
