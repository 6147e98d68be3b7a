//! Every error of the engine, one enum for each operation, all convertible to [`Error`].
//!
//! Each message says what happened, what state the data is in, and what to do next. The variants
//! are for programs; strings in them are for people.

use quorate_schema::ValueError;
use quorate_schema::bytes::Malformed;
use thiserror::Error;

use crate::names::did_you_mean;
use crate::{Handle, Index, TransactionId};

/// Why a database was not opened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A parameter is out of its range.
    #[error("parameter {field} {problem}; nothing was opened")]
    InvalidParameter {
        /// The name of the field of [`DatabaseParams`](crate::DatabaseParams).
        field: &'static str,
        /// What it must be.
        problem: &'static str,
    },
}

/// Why no connection was made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// As many connections as allowed are open.
    #[error(
        "all {limit} connections are in use; drop one, or open the database with a greater \
         max_connections"
    )]
    ConnectionLimit {
        /// `max_connections`.
        limit: u32,
    },
    /// The database was closed.
    #[error("the database is closed; open it again")]
    Closed,
}

/// Why a database was not closed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CloseError {
    /// Connections are open. The database goes on working.
    #[error("{open} connections are still open; drop them first, the database goes on working")]
    ConnectionsOpen {
        /// How many.
        open: u32,
    },
}

/// Why no transaction was begun.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BeginError {
    /// The database was closed.
    #[error("the database is closed; open it again")]
    Closed,
    /// The node does not listen yet, so nothing could be committed.
    #[error("the node is not listening; nothing was begun, start its listener first")]
    NotListening,
    /// The node was stopped. Its data can still be read.
    #[error(
        "the node is stopped; nothing was begun, read from it with a read-only transaction, and \
         write on another node or after opening this one again"
    )]
    Stopped,
}

/// Why a transaction did not commit.
///
/// Unless it says otherwise, nothing of the transaction is in the database, now or later.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CommitError {
    /// A concurrent transaction committed first. Running the function again sees its result.
    #[error("a concurrent transaction wrote what this one used; nothing was written, run it again")]
    Conflict,
    /// The snapshot is older than the history that is kept to find conflicts.
    #[error(
        "the snapshot is older than the history kept (from index {floor}); nothing was written, \
         run the transaction again"
    )]
    SnapshotTooOld {
        /// The oldest snapshot that could still be certified.
        floor: Index,
    },
    /// The transaction needs more memory than is left. Deleting makes room.
    #[error(
        "the segment is full: {used_bytes} of {allowed_bytes} bytes are used and {needed_bytes} \
         more are needed; nothing was written, delete records or open with a larger segment"
    )]
    SegmentFull {
        /// What records and indexes use now, in bytes.
        used_bytes: u64,
        /// What the transaction would add, in bytes.
        needed_bytes: u64,
        /// What may be used, in bytes.
        allowed_bytes: u64,
    },
    /// The transaction was open for longer than it may be.
    #[error(
        "the transaction was open for more than {limit_ms} ms; nothing was written, do it quicker \
         on a new snapshot, or open the database with a greater transaction_limit_ms"
    )]
    Expired {
        /// `transaction_limit_ms`.
        limit_ms: u64,
    },
    /// The transaction is larger than one write set may be.
    #[error(
        "the transaction takes {bytes} bytes, more than {limit_bytes}; nothing was written, split \
         it into smaller ones"
    )]
    TooLarge {
        /// Its size, in bytes.
        bytes: u64,
        /// The limit, in bytes.
        limit_bytes: u64,
    },
    /// The order of commits cannot go on now; the transaction was refused before it entered any
    /// log and will not commit.
    #[error(
        "no quorum: {reason}; the transaction entered no log and will not commit, run it again \
         once there is a quorum"
    )]
    NoQuorum {
        /// Why, for people.
        reason: String,
    },
    /// The transaction entered a log, and its outcome was not known in time. It may still commit.
    #[error(
        "transaction {0} entered a log and its outcome is not known; it may have committed or \
         commit yet, so ask for its outcome by its id before running it again"
    )]
    InDoubt(TransactionId),
    /// The transaction committed and is visible here, but not on every live node within the time
    /// limit, as [`Acknowledge::AllLive`](crate::Acknowledge::AllLive) asked.
    #[error(
        "committed at index {index} and visible here, but node(s) {missing:?} had not applied it \
         in time; do not run it again"
    )]
    NotEverywhere {
        /// Its index.
        index: Index,
        /// The live nodes that had not applied it.
        missing: Vec<u32>,
    },
    /// Somebody asked for the outcome of the transaction before it had one, and was told that it
    /// will never commit.
    #[error("{0} was given up by whoever asked for its outcome; nothing was written, run it again")]
    Fenced(TransactionId),
    /// Whoever orders the commits could not read the transaction. It entered no log.
    #[error("{reason}; nothing was written, run the same version on all nodes")]
    Rejected {
        /// Why, for people.
        reason: String,
    },
    /// The node was stopped.
    #[error(
        "the node is stopped; nothing was written, run the transaction on another node or after \
         opening this one again"
    )]
    Stopped,
    /// The node does not listen yet.
    #[error("the node is not listening; nothing was written, start its listener first")]
    NotListening,
}

impl CommitError {
    /// True if the same transaction, run again on a new snapshot, may well commit, and running it
    /// again cannot commit it twice.
    pub fn is_retryable(&self) -> bool {
        matches!(self, CommitError::Conflict | CommitError::SnapshotTooOld { .. })
    }
}

/// Why an operation of a transaction failed; also everything `transact` can fail with.
///
/// An operation that failed changed nothing, and its transaction goes on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The transaction could not be begun.
    #[error(transparent)]
    Begin(#[from] BeginError),
    /// The transaction could not be committed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// No connection could be made.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// `transact` gave up.
    #[error(
        "gave up after {attempts} attempts, the last one ended with: {last}; raise \
         transact_attempts, or let transactions that run at the same time use less of the same"
    )]
    Exhausted {
        /// How often the function ran.
        attempts: u32,
        /// How the last attempt ended.
        last: CommitError,
    },
    /// An error of the program's own, from the function given to `transact`.
    #[error("{0}")]
    Application(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A value does not fit its field.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// A committed record, or one of this transaction, has this key already.
    #[error(
        "index {index} of class {class} has the key {key} already; nothing was written, take \
         another key or update the record that has this one"
    )]
    UniqueViolation {
        /// The class.
        class: String,
        /// The unique index.
        index: String,
        /// The key, readable.
        key: String,
    },
    /// The record does not exist in the transaction's view.
    #[error("the record ({0}) does not exist (any more); nothing was written, look it up again")]
    Gone(Handle),
    /// Add, min or max of a field that is no integer, or part of an index.
    #[error(
        "{class}.{field} {why}, so it cannot be added to; nothing was written, read the record \
         and update it"
    )]
    NotAddable {
        /// The class.
        class: String,
        /// The field.
        field: String,
        /// Why not.
        why: &'static str,
    },
    /// Add, min or max of a field that is null.
    #[error(
        "{class}.{field} is null, so it cannot be added to; nothing was written, update it to a \
         number first"
    )]
    NullAddend {
        /// The class.
        class: String,
        /// The field.
        field: String,
    },
    /// A transaction that writes replicated classes wrote a local one, or the other way round.
    #[error(
        "a transaction writes either replicated or local classes, and {class} is of the other \
         kind; nothing was written, use two transactions"
    )]
    MixedTransaction {
        /// The class refused.
        class: String,
    },
    /// A write in a read-only transaction.
    #[error("the transaction is read-only; nothing was written, begin one for reading and writing")]
    ReadOnlyTransaction,
    /// The autoid of a record that this transaction inserted.
    #[error("{class}.{field} is given out at commit; ask the commit for it")]
    AutoidPending {
        /// The class.
        class: String,
        /// The field.
        field: String,
    },
    /// The dictionary has no such class.
    #[error("there is no class {name}{}", did_you_mean(hint.as_deref()))]
    UnknownClass {
        /// The name given.
        name: String,
        /// A class it may be meant to be.
        hint: Option<String>,
    },
    /// The class has no such field.
    #[error("class {class} has no field {name}{}", did_you_mean(hint.as_deref()))]
    UnknownField {
        /// The class.
        class: String,
        /// The name given.
        name: String,
        /// A field it may be meant to be.
        hint: Option<String>,
    },
    /// The class has no such index.
    #[error("class {class} has no index {name}{}", did_you_mean(hint.as_deref()))]
    UnknownIndex {
        /// The class.
        class: String,
        /// The name given.
        name: String,
        /// An index it may be meant to be.
        hint: Option<String>,
    },
    /// The record is of another class than the type it was to be read or written as.
    #[error("the record is of class {found}, not {expected}; nothing was written")]
    WrongClass {
        /// The class asked for.
        expected: String,
        /// The class of the record.
        found: String,
    },
    /// An order was asked of an index that has none.
    #[error("index {index} of class {class} is a hash index: it finds equal keys only, use a tree")]
    NotOrdered {
        /// The class.
        class: String,
        /// The hash index.
        index: String,
    },
}

impl Error {
    /// An error of the program's own, to leave `transact` with.
    pub fn application(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Application(error.into())
    }

    /// True if the same transaction, run again on a new snapshot, may well succeed.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Commit(error) if error.is_retryable())
    }
}

/// Why an image was not installed. The database is as it was.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The checksum is wrong: the bytes were damaged on their way.
    #[error("the image is damaged: its checksum is {found:#010x}, not {expected:#010x}")]
    Checksum {
        /// What the image says.
        expected: u32,
        /// What its bytes give.
        found: u32,
    },
    /// A piece came that is not the next one.
    #[error(
        "piece {found} of an image came where piece {expected} was due; nothing was changed, \
         begin again with the first piece"
    )]
    OutOfOrder {
        /// The number of the piece that was due, from 0.
        expected: u32,
        /// The number of the piece that came.
        found: u32,
    },
    /// A piece came that has the right number, but belongs to another image.
    #[error(
        "piece {piece} belongs to another image than the pieces before; nothing was changed, \
         begin again with the first piece of one image"
    )]
    OtherImage {
        /// The number of the piece, from 0.
        piece: u32,
    },
    /// Not all pieces came before the image was to be installed.
    #[error("the image is not complete; nothing was changed, push all its pieces first")]
    Incomplete,
    /// The image is of another dictionary.
    #[error("the image is of another dictionary; open the database with the same one")]
    OtherDictionary,
    /// The image is older than what the database has.
    #[error("the image is at index {image}, the database already at {applied}")]
    Older {
        /// The index of the image.
        image: Index,
        /// The index of the database.
        applied: Index,
    },
    /// The image is of a version this program does not read.
    #[error("the image has version {0}, which this program does not read")]
    Version(u32),
    /// The bytes are no image, or one that contradicts itself.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// What [`Database::check`](crate::Database::check) found wrong: a defect of the engine or of the
/// memory it runs in, never of a program that uses it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Damage {
    /// An index entry names a record that does not have this key, or is not there.
    #[error("index {index} of class {class} holds an entry for record {id} that is not its key")]
    WrongEntry {
        /// The class.
        class: String,
        /// The index.
        index: String,
        /// The record's place in its class.
        id: u64,
    },
    /// An index has another number of entries than its class has records.
    #[error("index {index} of class {class} holds {entries} entries for {records} records")]
    EntryCount {
        /// The class.
        class: String,
        /// The index.
        index: String,
        /// How many entries the index has.
        entries: u64,
        /// How many records the class has.
        records: u64,
    },
    /// Two records have one key of a unique index.
    #[error("unique index {index} of class {class} holds a key twice, at record {id}")]
    DuplicateKey {
        /// The class.
        class: String,
        /// The index.
        index: String,
        /// The second record with the key.
        id: u64,
    },
    /// A record cannot be read, or its place is outside the class or on its free list.
    #[error("record {id} of class {class} is damaged: {problem}")]
    Record {
        /// The class.
        class: String,
        /// The record's place in its class.
        id: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// The sum kept while applying is not the sum of the records.
    #[error("the {what} of the state is kept as {kept:#x} but is {found:#x}")]
    Sum {
        /// Which sum.
        what: &'static str,
        /// As it was kept.
        kept: u128,
        /// As computed from all records.
        found: u128,
    },
}
