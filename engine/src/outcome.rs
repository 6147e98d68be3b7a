//! Exactly once: which transactions of which origin are in the replicated state, and which never
//! will be.
//!
//! An origin that does not hear how its commit ended may ask or submit again; so the state
//! itself remembers, for each origin, the sequences that committed and at which index. It forgets
//! those below the origin's *low water*, a promise (carried by every write set) that nobody will
//! ask about them again.
//!
//! A *fence* is an item of the log that settles a transaction whose fate nobody knows: if it has
//! not committed before the fence, it never will, because whoever decides finds it here. The first
//! that the log says about an id counts: a fence behind the commit changes nothing, and neither
//! does a second one.
//!
//! Invariants:
//! * no remembered sequence is below its origin's low water;
//! * what is remembered of a sequence never changes, until it is forgotten;
//! * at most [`ORIGINS_MAX`] origins are remembered; the one whose newest commit or fence is oldest
//!   is forgotten first. Like everything here that is a function of the log alone.

use imbl::OrdMap;

use crate::{Index, TransactionId};

/// How many origins are remembered. Each start of a diskless node is one more; 1024 starts with
/// commits between the first try and the repeat of one transaction do not happen.
pub(crate) const ORIGINS_MAX: usize = 1024;

/// How many fences of one origin a leader lets into the log before the origin's low water has to
/// forget some; 24 bytes each.
pub(crate) const FENCES_MAX: usize = 4096;

/// What became of a transaction, as far as the replicated state knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It committed at this index.
    Committed(Index),
    /// It did not commit and never will: a fence for it is in the log.
    NotCommitted,
    /// It is below its origin's low water: settled long ago, how is not known any more.
    Forgotten,
    /// It has not committed up to now. It may still be under way.
    Unknown,
}

/// A request of an origin that one log item settled, together with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The request.
    pub id: TransactionId,
    /// Sequences of its origin below this are settled.
    pub low_water: u64,
    /// Whether it committed, or never will.
    pub committed: bool,
}

/// The memory of all origins. See the module for the invariants.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExactlyOnce {
    pub(crate) origins: OrdMap<u128, Origin>,
}

/// What is remembered of one origin.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    pub(crate) low_water: u64,
    /// The index of its newest commit or fence.
    pub(crate) last: Index,
    fates: OrdMap<u64, Fate>,
    /// How many of the fates are fences.
    fences: usize,
}

/// What the log says of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Committed(Index),
    Fenced,
}

impl From<Fate> for Outcome {
    fn from(fate: Fate) -> Outcome {
        match fate {
            Fate::Committed(index) => Outcome::Committed(index),
            Fate::Fenced => Outcome::NotCommitted,
        }
    }
}

impl Fate {
    /// As one number: no transaction has index 0, so that stands for a fence.
    pub(crate) fn to_number(self) -> u64 {
        match self {
            Fate::Committed(index) => index.0,
            Fate::Fenced => 0,
        }
    }

    pub(crate) fn from_number(number: u64) -> Fate {
        if number == 0 { Fate::Fenced } else { Fate::Committed(Index(number)) }
    }
}

impl Origin {
    pub(crate) fn new(low_water: u64, last: Index) -> Origin {
        Origin { low_water, last, ..Origin::default() }
    }

    /// By sequence.
    pub(crate) fn fates(&self) -> &OrdMap<u64, Fate> {
        &self.fates
    }

    /// Remembers the fate of a sequence of which nothing is known.
    pub(crate) fn remember(&mut self, sequence: u64, fate: Fate) {
        let before = self.fates.insert(sequence, fate);
        debug_assert_eq!(before, None, "what is remembered of {sequence} never changes");
        self.fences += usize::from(fate == Fate::Fenced);
    }
}

impl ExactlyOnce {
    pub(crate) fn outcome(&self, id: TransactionId) -> Outcome {
        let Some(origin) = self.origins.get(&id.origin) else { return Outcome::Unknown };
        if id.sequence < origin.low_water {
            return Outcome::Forgotten;
        }
        origin.fates.get(&id.sequence).map_or(Outcome::Unknown, |fate| (*fate).into())
    }

    /// How many fences of `origin` are remembered.
    pub(crate) fn fences(&self, origin: u128) -> usize {
        self.origins.get(&origin).map_or(0, |origin| origin.fences)
    }

    /// Remembers that `id` committed at `index`, unless something is known of it, and forgets what
    /// `low_water` allows.
    pub(crate) fn observe(&mut self, id: TransactionId, low_water: u64, index: Index) {
        self.settle(id, Fate::Committed(index), index);
        let origin = self.origins.entry(id.origin).or_default();
        origin.low_water = origin.low_water.max(low_water);
        while let Some((sequence, _)) = origin.fates.get_min() {
            if *sequence >= origin.low_water {
                break;
            }
            let sequence = *sequence;
            let fate = origin.fates.remove(&sequence);
            origin.fences -= usize::from(fate == Some(Fate::Fenced));
        }
    }

    /// Remembers what an item at `index` says of a request, as `observe` and `fence` do.
    pub(crate) fn settle_at(&mut self, settled: Settled, index: Index) {
        if !settled.committed {
            self.fence(settled.id, index);
        }
        self.observe(settled.id, settled.low_water, index);
    }

    /// Remembers that `id` never commits, unless something is known of it. `index` is the fence's.
    pub(crate) fn fence(&mut self, id: TransactionId, index: Index) {
        self.settle(id, Fate::Fenced, index);
    }

    fn settle(&mut self, id: TransactionId, fate: Fate, index: Index) {
        if !self.origins.contains_key(&id.origin) && self.origins.len() >= ORIGINS_MAX {
            let oldest = self.origins.iter().min_by_key(|(_, origin)| origin.last);
            let oldest = *oldest.expect("the table is full, so it is not empty").0;
            self.origins.remove(&oldest);
        }
        let origin = self.origins.entry(id.origin).or_default();
        origin.last = index;
        if id.sequence >= origin.low_water && !origin.fates.contains_key(&id.sequence) {
            origin.remember(id.sequence, fate);
        }
    }

    /// How many rows the table has: origins and what is known of each.
    pub(crate) fn len(&self) -> u64 {
        self.origins.values().map(|origin| 1 + origin.fates.len() as u64).sum()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn id(origin: u128, sequence: u64) -> TransactionId {
        TransactionId { origin, sequence }
    }

    #[test]
    fn commits_are_remembered_until_low_water_passes_them() {
        let mut table = ExactlyOnce::default();
        table.observe(id(7, 1), 1, Index(10));
        table.observe(id(7, 2), 1, Index(11));
        assert_eq!(table.outcome(id(7, 1)), Outcome::Committed(Index(10)));
        assert_eq!(table.outcome(id(7, 3)), Outcome::Unknown);
        assert_eq!(table.outcome(id(8, 1)), Outcome::Unknown);
        table.observe(id(7, 3), 2, Index(12));
        assert_eq!(table.outcome(id(7, 1)), Outcome::Forgotten);
        assert_eq!(table.outcome(id(7, 2)), Outcome::Committed(Index(11)));
    }

    #[test]
    fn the_first_that_the_log_says_counts() {
        let mut table = ExactlyOnce::default();
        table.observe(id(7, 1), 0, Index(10));
        table.fence(id(7, 1), Index(11));
        table.fence(id(7, 2), Index(12));
        table.observe(id(7, 2), 0, Index(13));
        assert_eq!(table.outcome(id(7, 1)), Outcome::Committed(Index(10)));
        assert_eq!(table.outcome(id(7, 2)), Outcome::NotCommitted);
        assert_eq!(table.fences(7), 1);
        table.observe(id(7, 4), 3, Index(14));
        assert_eq!(table.outcome(id(7, 2)), Outcome::Forgotten);
        table.fence(id(7, 2), Index(15));
        assert_eq!(table.outcome(id(7, 2)), Outcome::Forgotten);
        assert_eq!(table.fences(7), 0);
    }

    #[test]
    fn the_oldest_origin_is_forgotten_when_there_are_too_many() {
        let mut table = ExactlyOnce::default();
        for origin in 0..ORIGINS_MAX as u64 {
            table.observe(id(origin.into(), 1), 0, Index(origin + 1));
        }
        table.observe(id(0, 2), 0, Index(5000));
        table.observe(id(9999, 1), 0, Index(5001));
        assert_eq!(table.origins.len(), ORIGINS_MAX);
        assert_eq!(table.outcome(id(1, 1)), Outcome::Unknown);
        assert_eq!(table.outcome(id(0, 1)), Outcome::Committed(Index(1)));
    }
}
