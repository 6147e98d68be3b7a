//! Certification: may a transaction, from what it read and wrote since its snapshot, enter the
//! log at the next index?
//!
//! The rule is *first committer wins*. A transaction that ran on snapshot s is refused if anything
//! it depends on was written at an index after s:
//!
//! ```text
//!   log:   1 2 3 4 5 6 | 7 8 9 | <- next
//!          [   base    ] [tail ]       base: applied, kept in generations above the floor
//!            ^ snapshot = 2            tail: in the leader's log, not applied yet
//!          looks at everything written in 3..=9
//! ```
//!
//! What it depends on are *points* (64-bit hashes of a record, of a key of a unique index, of the
//! membership of a class) and, if serializable, *ranges* of index keys, cut to 16 bytes. A
//! collision of hashes or of cut keys costs an unneeded conflict and never hides one.
//!
//! | | is checked against | is remembered as written |
//! | --- | --- | --- |
//! | records updated and deleted, unique keys given and taken | yes, and for adders | yes |
//! | records added to | yes | as adders |
//! | targets of new references | yes | no |
//! | keys of all indexes given and taken, cut | no | yes, as ordered |
//! | membership of classes inserted to or deleted from | no | yes |
//! | points and ranges read, if serializable | yes, points for adders too | no |
//!
//! A record thus has two points: who updates or deletes it writes the one, who only adds to its
//! integers the *adder* point. Adders look for writers, writers and readers for both, and adders
//! not for each other, since in whatever order they are applied each finds what it needs.
//!
//! Architecture invariant: this module is pure and must compile without `store`. A decision is a
//! function of the log up to the last index of the tail and of the configured budget. So a new
//! leader decides as the old one would have.

mod base;
mod footprint;
mod history;
mod reservations;
mod tail;

pub(crate) use base::{BOUNDARY, Base};
pub use footprint::{Footprint, ReadSet};
pub(crate) use footprint::{RangeRead, key_prefix, key_prefix_up_to};
pub(crate) use history::{Generation, History};
pub(crate) use reservations::RESERVE_ATTEMPTS;
pub use reservations::Reservations;
pub use tail::Tail;

use thiserror::Error;

use crate::{CommitError, Index, Isolation, Outcome};

/// Why a transaction may not enter the log. Nothing of it is anywhere.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Something it depends on was written after its snapshot.
    #[error("something it depends on was written after its snapshot")]
    Conflict,
    /// Its snapshot is older than the history kept.
    #[error("its snapshot is older than the history kept, which starts at index {floor}")]
    SnapshotTooOld {
        /// The oldest snapshot that can be certified.
        floor: Index,
    },
    /// Its snapshot is newer than anything in the log: its origin is of another world.
    #[error("its snapshot {snapshot} is newer than the log, which ends at index {last}")]
    SnapshotTooNew {
        /// The snapshot it claims.
        snapshot: Index,
        /// The newest index there is.
        last: Index,
    },
    /// It needs more memory than is left.
    #[error("{used_bytes} of {allowed_bytes} bytes are used and {needed_bytes} more are needed")]
    SegmentFull {
        /// What is used now, the tail included, in bytes.
        used_bytes: u64,
        /// What the transaction would add, in bytes.
        needed_bytes: u64,
        /// What may be used, in bytes.
        allowed_bytes: u64,
    },
    /// A transaction with its id is in the log already, or settled: this is a repeat, and the
    /// first answer counts.
    #[error("a transaction with its id entered the log before: {0:?}")]
    Known(Outcome),
}

impl Refusal {
    /// The error the transaction's program sees, if this node ran it.
    ///
    /// [`Refusal::Known`] and [`Refusal::SnapshotTooNew`] cannot happen to a transaction certified
    /// where it ran, and read as a conflict.
    pub fn into_commit_error(self) -> CommitError {
        match self {
            Refusal::SnapshotTooOld { floor } => CommitError::SnapshotTooOld { floor },
            Refusal::SegmentFull { used_bytes, needed_bytes, allowed_bytes } => {
                CommitError::SegmentFull { used_bytes, needed_bytes, allowed_bytes }
            }
            Refusal::Conflict | Refusal::SnapshotTooNew { .. } | Refusal::Known(_) => {
                CommitError::Conflict
            }
        }
    }
}

/// How much memory is used and may be used, in bytes by the logical formula.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    pub(crate) used_bytes: u64,
    pub(crate) allowed_bytes: u64,
}

/// What is decided about: one transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) snapshot: Index,
    pub(crate) isolation: Isolation,
    pub(crate) footprint: &'a Footprint,
    pub(crate) reads: &'a ReadSet,
}

/// Decides whether `request` may follow everything in `base` and `tail`.
pub(crate) fn certify(
    base: &Base,
    tail: &Tail,
    request: Request<'_>,
    budget: Budget,
) -> Result<(), Refusal> {
    let last = base.last().max(tail.last());
    if request.snapshot > last {
        return Err(Refusal::SnapshotTooNew { snapshot: request.snapshot, last });
    }
    check_reads(base, tail, request.snapshot, request.isolation, request.reads)?;
    let footprint = request.footprint;
    let snapshot = request.snapshot;
    let written =
        |point: &u64| base.written_after(*point, snapshot) || tail.written_after(*point, snapshot);
    let added =
        |point: &u64| base.added_after(*point, snapshot) || tail.added_after(*point, snapshot);
    if footprint.points.iter().any(|point| written(point) || added(point))
        || footprint.dependencies.iter().any(written)
        || footprint.adders.iter().any(written)
    {
        return Err(Refusal::Conflict);
    }
    check_budget(base, tail, footprint.byte_delta, budget)
}

/// Decides about the reads alone: snapshot not forgotten, and if serializable, nothing read was
/// written since.
pub(crate) fn check_reads(
    base: &Base,
    tail: &Tail,
    snapshot: Index,
    isolation: Isolation,
    reads: &ReadSet,
) -> Result<(), Refusal> {
    if snapshot < base.floor() {
        return Err(Refusal::SnapshotTooOld { floor: base.floor() });
    }
    if isolation == Isolation::Snapshot {
        return Ok(());
    }
    let written =
        |point: &u64| base.written_after(*point, snapshot) || tail.written_after(*point, snapshot);
    let added =
        |point: &u64| base.added_after(*point, snapshot) || tail.added_after(*point, snapshot);
    let range_written = |range: &RangeRead| {
        base.range_written_after(range, snapshot) || tail.range_written_after(range, snapshot)
    };
    if reads.points.iter().any(|point| written(point) || added(point))
        || reads.ranges.iter().any(range_written)
    {
        return Err(Refusal::Conflict);
    }
    Ok(())
}

/// A transaction that shrinks is always admitted: deleting must work when the segment is full.
fn check_budget(base: &Base, tail: &Tail, byte_delta: i64, budget: Budget) -> Result<(), Refusal> {
    if byte_delta <= 0 {
        return Ok(());
    }
    let pending = i128::from(budget.used_bytes) + tail.byte_delta_after(base.last());
    if pending + i128::from(byte_delta) <= i128::from(budget.allowed_bytes) {
        return Ok(());
    }
    Err(Refusal::SegmentFull {
        used_bytes: u64::try_from(pending).unwrap_or(0),
        needed_bytes: byte_delta.unsigned_abs(),
        allowed_bytes: budget.allowed_bytes,
    })
}
