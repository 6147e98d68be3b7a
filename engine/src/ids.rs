//! The numbers by which transactions and records are named, and the modes a transaction has.
//!
//! Only plain values live here; what they mean is decided where they are used.

use std::fmt;

use quorate_schema::{ClassId, Reference};

/// The place of a transaction in the one order of all replicated transactions: dense, from 1.
///
/// It is also a time: a snapshot is the index it was taken at. 0 is the empty database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(pub u64);

impl Index {
    /// The index after this one.
    #[must_use]
    pub fn next(self) -> Index {
        Index(self.0 + 1)
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names one attempt to commit, for ever.
///
/// `origin` says who ran the transaction and is opaque here; `sequence` counts the commits of that
/// origin densely from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId {
    /// Who ran it.
    pub origin: u128,
    /// Its number at that origin, from 1.
    pub sequence: u64,
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}:{}", self.origin, self.sequence)
    }
}

/// A record as a program holds it: its class, its place there, and when it was created.
///
/// The creation index notices that the place was reused: a handle of a deleted record finds
/// nothing, never another record. A handle from [`Transaction::insert`](crate::Transaction::insert)
/// is *provisional*: good inside its transaction only, until
/// [`Committed::resolve`](crate::Committed::resolve) gives the lasting one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle {
    /// The class of the record.
    pub class: ClassId,
    /// Its place in the class, or its provisional number.
    pub id: u64,
    /// The index that created it, or [`Reference::PROVISIONAL`].
    pub creation: u64,
}

impl Handle {
    /// What an item of a list stores to name no record: null, which a `ref` field has for that,
    /// cannot stand there. Places and indexes count from 1, so no record is ever named so; looked
    /// up, it finds nothing.
    pub const NOTHING: Reference = Reference { id: 0, creation: 0 };

    /// The handle of the record of `class` that a `ref` field names.
    pub fn from_reference(class: ClassId, reference: Reference) -> Handle {
        Handle { class, id: reference.id, creation: reference.creation }
    }

    /// What a `ref` field stores to name this record.
    pub fn reference(&self) -> Reference {
        Reference { id: self.id, creation: self.creation }
    }

    /// True while the record is known only to the transaction that inserted it.
    pub fn is_provisional(&self) -> bool {
        self.creation == Reference::PROVISIONAL
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_provisional() {
            write!(f, "class {} provisional record {}", self.class.0, self.id)
        } else {
            write!(f, "class {} record {} of index {}", self.class.0, self.id, self.creation)
        }
    }
}

/// What a transaction may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Reads only; its commit cannot fail.
    ReadOnly,
    /// Reads and writes.
    ReadWrite,
}

/// Against what a transaction that writes is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// Snapshot isolation: of two concurrent transactions that write the same record or the same
    /// unique key, or where one refers to what the other writes, one fails with a conflict. Write
    /// skew is possible.
    #[default]
    Snapshot,
    /// Strict serializability: it also fails if anything it read, including the absence of
    /// records in a range, was changed since its snapshot. A transaction that wrote nothing
    /// counts as read-only, and sees a consistent prefix.
    Serializable,
}
