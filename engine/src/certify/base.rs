//! The base: who last wrote each point and cut key, of everything applied above the floor.
//!
//! It is kept in *generations*. The newest one is open; it is closed at a multiple of
//! [`BOUNDARY`] indexes, when it spans [`GENERATION_TRANSACTIONS`] or takes its share of the
//! limit in bytes. Closing it drops the oldest ones for as long as all closed ones together are
//! over the limit; the floor is where the oldest one kept starts.
//!
//! ```text
//!   | closed | closed |   closed   | open ...|
//!   ^ floor                        ^ closed at a multiple of 64     ^ last
//! ```
//!
//! All of that is a function of the log and the limit: when a generation is closed and what is
//! dropped depends on indexes and on how much was written, never on time or on who asks. A node
//! that loaded an image has the same generations and goes on closing and dropping at the same
//! places. So all nodes with one limit forget the same at the same place, and nothing but
//! dropping moves the floor.
//!
//! A fresh transaction looks at the newest one or two generations only.
//!
//! Invariants:
//! * each generation starts where the one before it ends, the open one ends at `last`;
//! * starts are multiples of [`BOUNDARY`];
//! * everything written in `floor+1 ..= last` is in a generation;
//! * the newest closed generation is kept whatever it takes: a snapshot that is not older than
//!   [`BOUNDARY`] transactions can always be certified.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::footprint::{Footprint, RangeRead, adder_point, raise};
use super::history::{self, Generation, History, OrderedKey};
use crate::Index;

/// Generations end at multiples of this index. Small, so that big write sets do not make one of
/// them far greater than its share.
pub(crate) const BOUNDARY: u64 = 64;
/// A generation that spans so many indexes is closed: sorting it then takes well below 1 ms.
const GENERATION_TRANSACTIONS: u64 = 4096;
/// A generation that takes this part of the limit is closed.
const GENERATION_SHARE: u64 = 16;

/// The history of what is applied. See the module for the invariants.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    limit_bytes: u64,
    last: Index,
    /// Oldest first.
    closed: VecDeque<Arc<Generation>>,
    /// What all of `closed` take.
    closed_bytes: u64,
    open: Open,
    /// No adder is newer: most databases have none, and need not look for them.
    last_adder: Index,
}

/// The newest generation: everything written after `start`.
#[derive(Clone, Debug, Default)]
struct Open {
    start: Index,
    points: HashMap<u64, Index>,
    ordered: BTreeMap<OrderedKey, Index>,
}

impl Base {
    /// The history of an empty database, to be kept within about `limit_bytes`.
    pub(crate) fn new(limit_bytes: u64) -> Base {
        Base {
            limit_bytes,
            last: Index(0),
            closed: VecDeque::new(),
            closed_bytes: 0,
            open: Open::default(),
            last_adder: Index(0),
        }
    }

    /// Goes on from `history`, within the limit of this base.
    pub(crate) fn restored(&self, history: History) -> Base {
        let mut base = Base::new(self.limit_bytes);
        for generation in history.generations {
            base.last = generation.end;
            base.closed_bytes += generation.bytes();
            base.closed.push_back(generation);
        }
        let newest = base.closed.pop_back().expect("a history has at least one generation");
        base.closed_bytes -= newest.bytes();
        base.open = Open {
            start: newest.start,
            points: newest.points.iter().copied().collect(),
            ordered: newest.ordered.iter().copied().collect(),
        };
        base.last_adder = base.last; // not known better: they are looked for
        base
    }

    /// All that is kept, in the form images carry. Copies the open generation, shares the rest.
    pub(crate) fn history(&self) -> History {
        let mut generations: Vec<_> = self.closed.iter().map(Arc::clone).collect();
        generations.push(Arc::new(self.open.clone().close(self.last)));
        History { generations }
    }

    /// The newest index observed.
    pub(crate) fn last(&self) -> Index {
        self.last
    }

    /// The oldest snapshot that can still be certified.
    pub(crate) fn floor(&self) -> Index {
        self.closed.front().map_or(self.open.start, |oldest| oldest.start)
    }

    /// Adds the footprint of the transaction at `index`, the one after [`Base::last`].
    pub(crate) fn observe(&mut self, index: Index, footprint: &Footprint) {
        self.advance(index);
        if !footprint.adders.is_empty() {
            self.last_adder = index;
        }
        for point in footprint.written() {
            raise(self.open.points.entry(point).or_default(), index);
        }
        for key in &footprint.ordered {
            raise(self.open.ordered.entry(*key).or_default(), index);
        }
    }

    /// Goes on to `index` without a write.
    pub(crate) fn advance(&mut self, index: Index) {
        assert_eq!(index, self.last.next(), "observed out of order, after {}", self.last);
        let span = self.last.0 - self.open.start.0;
        if self.last.0.is_multiple_of(BOUNDARY)
            && span > 0
            && (span >= GENERATION_TRANSACTIONS
                || self.open.bytes() >= self.limit_bytes / GENERATION_SHARE)
        {
            self.close();
        }
        self.last = index;
    }

    /// Closes the open generation at `last` and forgets what is over the limit.
    fn close(&mut self) {
        let start = self.last;
        let full = std::mem::replace(&mut self.open, Open { start, ..Open::default() });
        let full = full.close(self.last);
        self.closed_bytes += full.bytes();
        self.closed.push_back(Arc::new(full));
        while self.closed_bytes > self.limit_bytes && self.closed.len() > 1 {
            let dropped = self.closed.pop_front().expect("there is more than one");
            self.closed_bytes -= dropped.bytes();
        }
    }

    /// Forgets everything and goes on behind `index`: what began before cannot be certified any
    /// more.
    pub(crate) fn restart(&mut self, index: Index) {
        assert!(index >= self.last, "a restart at {index}, before {}", self.last);
        assert!(index.0.is_multiple_of(BOUNDARY), "a restart at {index}, where no generation ends");
        let open = Open { start: index, ..Open::default() };
        *self = Base { last: index, open, ..Base::new(self.limit_bytes) };
    }

    /// True if `point` was written after `snapshot`, which is not below the floor.
    pub(crate) fn written_after(&self, point: u64, snapshot: Index) -> bool {
        self.open.points.get(&point).is_some_and(|last| *last > snapshot)
            || self.after(snapshot).any(|generation| generation.written_after(point, snapshot))
    }

    /// As it would be if nobody had looked for adders.
    #[cfg(feature = "planted-bugs")]
    pub(crate) fn without_adders(&self) -> Base {
        Base { last_adder: Index(0), ..self.clone() }
    }

    /// True if something was added to the record of `point` after `snapshot`.
    pub(crate) fn added_after(&self, point: u64, snapshot: Index) -> bool {
        self.last_adder > snapshot && self.written_after(adder_point(point), snapshot)
    }

    /// True if a key in `range` was written after `snapshot`.
    pub(crate) fn range_written_after(&self, range: &RangeRead, snapshot: Index) -> bool {
        let bounds = (range.index, range.low)..=(range.index, range.high);
        self.open.ordered.range(bounds).any(|(_, last)| *last > snapshot)
            || self.after(snapshot).any(|old| old.range_written_after(range, snapshot))
    }

    /// The closed generations that may hold writes after `snapshot`, newest first.
    fn after(&self, snapshot: Index) -> impl Iterator<Item = &Generation> {
        let newest_first = self.closed.iter().rev().map(|generation| &**generation);
        newest_first.take_while(move |generation| generation.end > snapshot)
    }
}

impl Open {
    fn bytes(&self) -> u64 {
        history::bytes(self.points.len(), self.ordered.len())
    }

    fn close(self, end: Index) -> Generation {
        let mut points: Vec<(u64, Index)> = self.points.into_iter().collect();
        points.sort_unstable();
        let ordered = self.ordered.into_iter().collect();
        Generation { start: self.start, end, points, ordered }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::TransactionId;
    use crate::certify::key_prefix;
    use quorate_schema::IndexId;

    fn footprint(points: &[u64]) -> Footprint {
        Footprint {
            id: TransactionId { origin: 0, sequence: 1 },
            low_water: 0,
            points: points.to_vec(),
            memberships: Vec::new(),
            ordered: points.iter().map(|p| (IndexId(1), key_prefix(&p.to_be_bytes()))).collect(),
            dependencies: Vec::new(),
            adders: Vec::new(),
            byte_delta: 0,
        }
    }

    fn range(low: u64, high: u64) -> RangeRead {
        RangeRead {
            index: IndexId(1),
            low: key_prefix(&low.to_be_bytes()),
            high: key_prefix(&high.to_be_bytes()),
        }
    }

    #[test]
    fn a_write_is_seen_by_older_snapshots_only() {
        let mut base = Base::new(1 << 20);
        base.observe(Index(1), &footprint(&[7]));
        base.observe(Index(2), &footprint(&[8]));
        assert!(base.written_after(7, Index(0)));
        assert!(!base.written_after(7, Index(1)));
        assert!(base.written_after(8, Index(1)));
        assert!(base.range_written_after(&range(0, 100), Index(1)));
        assert!(!base.range_written_after(&range(0, 7), Index(1)));
        assert!(!base.range_written_after(&range(0, 100), Index(2)));
    }

    /// Numbers from a seed.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) % limit
        }
    }

    /// Runs a log of writes of very different sizes; one base sees all of it, others start from
    /// the history of the first on the way. All must be the same at each step, and right.
    fn run(seed: u64, limit_bytes: u64, length: u64) -> (Base, u64) {
        let mut chance = Chance(seed);
        let mut base = Base::new(limit_bytes);
        let mut joined: Option<Base> = None;
        let mut last_written: HashMap<u64, Index> = HashMap::new();
        let mut dropped = 0;
        for number in 1..=length {
            let index = Index(number);
            let count = [0, 1, 1, 1, 2, 2, 3, 300][chance.below(8) as usize];
            let points: Vec<u64> = (0..count).map(|_| chance.below(5000)).collect();
            let floor = base.floor();
            for base in [Some(&mut base), joined.as_mut()].into_iter().flatten() {
                match count {
                    0 => base.advance(index),
                    _ => base.observe(index, &footprint(&points)),
                }
            }
            last_written.extend(points.iter().map(|point| (*point, index)));
            assert!(base.floor() >= floor && base.floor().0.is_multiple_of(BOUNDARY));
            dropped += u64::from(base.floor() > floor);
            assert!(base.closed_bytes <= limit_bytes || base.closed.len() == 1);
            let sum: u64 = base.closed.iter().map(|old| old.bytes()).sum();
            assert_eq!(base.closed_bytes, sum, "the sum is wrong at {index}");
            let snapshot = Index(floor.0.max(number.saturating_sub(chance.below(2000))));
            if snapshot < base.floor() {
                continue;
            }
            let point = chance.below(5000);
            let is_new = last_written.get(&point).is_some_and(|last| *last > snapshot);
            assert_eq!(base.written_after(point, snapshot), is_new, "{point} after {snapshot}");
            let own = range(point, point);
            assert_eq!(
                base.range_written_after(&own, snapshot),
                is_new,
                "{point} after {snapshot}"
            );
            if let Some(joined) = &joined {
                assert_eq!(joined.floor(), base.floor(), "another floor at {index}");
                assert_eq!(joined.written_after(point, snapshot), is_new);
                assert_eq!(joined.range_written_after(&own, snapshot), is_new);
                assert_eq!(joined.closed_bytes, base.closed_bytes);
            }
            if chance.below(700) == 0 {
                joined = Some(Base::new(limit_bytes).restored(base.history()));
            }
        }
        let joined = joined.expect("once in 700 over thousands");
        assert!(joined.history() == base.history(), "a node that joined has another history");
        (base, dropped)
    }

    #[test]
    fn history_is_right_above_the_floor_and_the_same_for_who_joined() {
        let dropped: u64 = (1..=8).map(|seed| run(seed, 100 << 10, 6000).1).sum();
        assert!(dropped > 200, "the floor moved {dropped} times only");
    }

    #[test]
    fn within_its_limit_nothing_is_forgotten() {
        let (base, dropped) = run(1, 1 << 30, 3 * GENERATION_TRANSACTIONS);
        assert_eq!((base.floor(), dropped), (Index(0), 0));
        assert_eq!(base.closed.len(), 2, "generations are closed by their number, too");
    }

    #[test]
    fn the_newest_past_is_kept_however_big_it_is() {
        let mut base = Base::new(1000);
        let many: Vec<u64> = (0..1000).collect();
        for number in 1..=10 * BOUNDARY {
            base.observe(Index(number), &footprint(&many));
            assert!(number - base.floor().0 >= BOUNDARY.min(number), "floor {}", base.floor());
            assert!(number - base.floor().0 <= 2 * BOUNDARY, "floor {}", base.floor());
        }
    }
}
