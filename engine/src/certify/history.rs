//! A piece of history that does not change any more: who last wrote each point and cut key in
//! a range of indexes.
//!
//! The base keeps its past as a row of these, images carry them, and a snapshot of the history
//! is a row of counted references to them.

use std::sync::Arc;

use quorate_schema::IndexId;

use super::footprint::{KeyPrefix, RangeRead};
use crate::Index;

/// A cut key of an index.
pub(crate) type OrderedKey = (IndexId, KeyPrefix);

/// What was written in `start+1 ..= end`.
///
/// Invariants: points and keys are in their order, each once; each was written inside the range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Generation {
    pub(crate) start: Index,
    pub(crate) end: Index,
    pub(crate) points: Vec<(u64, Index)>,
    pub(crate) ordered: Vec<(OrderedKey, Index)>,
}

/// All history that is kept, at one moment.
///
/// Invariants: there is at least one generation; each starts where the one before it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct History {
    pub(crate) generations: Vec<Arc<Generation>>,
}

impl Generation {
    pub(crate) fn new(start: Index, end: Index) -> Generation {
        Generation { start, end, points: Vec::new(), ordered: Vec::new() }
    }

    /// What it takes of the limit, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        bytes(self.points.len(), self.ordered.len())
    }

    /// True if `point` was written in it after `snapshot`.
    pub(super) fn written_after(&self, point: u64, snapshot: Index) -> bool {
        let found = self.points.binary_search_by_key(&point, |(point, _)| *point);
        found.is_ok_and(|at| self.points[at].1 > snapshot)
    }

    /// True if a key in `range` was written in it after `snapshot`.
    pub(super) fn range_written_after(&self, range: &RangeRead, snapshot: Index) -> bool {
        let (low, high) = ((range.index, range.low), (range.index, range.high));
        let first = self.ordered.partition_point(|(key, _)| *key < low);
        let inside = self.ordered[first..].iter().take_while(|(key, _)| *key <= high);
        inside.into_iter().any(|(_, last)| *last > snapshot)
    }
}

/// What so many points and keys take of the limit, in bytes.
pub(super) fn bytes(points: usize, ordered: usize) -> u64 {
    let (point, key) = (size_of::<(u64, Index)>(), size_of::<(OrderedKey, Index)>());
    (size_of::<Generation>() + point * points + key * ordered) as u64
}
