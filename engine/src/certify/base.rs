//! The base: who last wrote each point and cut key, of everything applied above the floor.
//!
//! It is kept in *generations* of [`GENERATION_TRANSACTIONS`] indexes each, ending at fixed
//! multiples. A fresh transaction looks at the newest one or two only; forgetting drops the
//! oldest as a whole. Both are functions of the index alone, so all nodes forget the same at
//! the same place, a node that loaded an image included.
//!
//! Invariants:
//! * generations are in order of their numbers, without equal ones, at most
//!   [`GENERATIONS_KEPT`];
//! * each index in a generation is in `(number * GENERATION_TRANSACTIONS, (number + 1) * ..]`;
//! * everything written in `floor+1 ..= last` is in a generation.

use std::collections::{BTreeMap, HashMap, VecDeque};

use quorate_schema::IndexId;
use quorate_schema::bytes::{Malformed, Reader, Writer};

use super::footprint::{Footprint, KeyPrefix, RangeRead, key_prefix, raise};
use crate::Index;

/// Indexes in one generation.
const GENERATION_TRANSACTIONS: u64 = 4096;
/// Generations kept: 65 536 transactions, at some 100 bytes each 6.5 MB.
const GENERATIONS_KEPT: usize = 16;

/// The history of what is applied. See the module for the invariants.
#[derive(Clone, Debug, Default)]
pub(crate) struct Base {
    last: Index,
    floor: Index,
    generations: VecDeque<Generation>,
}

#[derive(Clone, Debug, Default)]
struct Generation {
    number: u64,
    points: HashMap<u64, Index>,
    ordered: BTreeMap<(IndexId, KeyPrefix), Index>,
}

impl Base {
    /// The newest index observed.
    pub(crate) fn last(&self) -> Index {
        self.last
    }

    /// The oldest snapshot that can still be certified.
    pub(crate) fn floor(&self) -> Index {
        self.floor
    }

    /// Adds the footprint of the transaction at `index`, the one after [`Base::last`].
    pub(crate) fn observe(&mut self, index: Index, footprint: &Footprint) {
        self.advance(index);
        let generation = self.generations.back_mut().expect("advance made the generation");
        for point in footprint.written() {
            raise(generation.points.entry(point).or_default(), index);
        }
        for (key_index, prefix) in &footprint.ordered {
            raise(generation.ordered.entry((*key_index, *prefix)).or_default(), index);
        }
    }

    /// Goes on to `index` without a write.
    pub(crate) fn advance(&mut self, index: Index) {
        assert_eq!(index, self.last.next(), "observed out of order, after {}", self.last);
        self.last = index;
        let number = generation_of(index);
        if self.generations.back().is_none_or(|newest| newest.number < number) {
            self.generations.push_back(Generation { number, ..Generation::default() });
        }
        while self.generations.len() > GENERATIONS_KEPT {
            let dropped = self.generations.pop_front().expect("there are more than are kept");
            self.floor = Index((dropped.number + 1) * GENERATION_TRANSACTIONS).max(self.floor);
        }
    }

    /// True if `point` was written after `snapshot`, which is not below the floor.
    pub(crate) fn written_after(&self, point: u64, snapshot: Index) -> bool {
        self.after(snapshot)
            .any(|generation| generation.points.get(&point).is_some_and(|last| *last > snapshot))
    }

    /// True if a key in `range` was written after `snapshot`.
    pub(crate) fn range_written_after(&self, range: &RangeRead, snapshot: Index) -> bool {
        let bounds = (range.index, range.low)..=(range.index, range.high);
        self.after(snapshot).any(|generation| {
            generation.ordered.range(bounds.clone()).any(|(_, last)| *last > snapshot)
        })
    }

    /// The generations that may hold writes after `snapshot`, newest first.
    fn after(&self, snapshot: Index) -> impl Iterator<Item = &Generation> {
        let ends_after = move |generation: &&Generation| {
            (generation.number + 1) * GENERATION_TRANSACTIONS > snapshot.0
        };
        self.generations.iter().rev().take_while(ends_after)
    }

    pub(crate) fn encode(&self, to: &mut Writer) {
        to.u64(self.last.0);
        to.u64(self.floor.0);
        to.u32(u32::try_from(self.generations.len()).expect("at most GENERATIONS_KEPT"));
        for generation in &self.generations {
            to.u64(generation.number);
            let points: BTreeMap<u64, Index> =
                generation.points.iter().map(|(point, index)| (*point, *index)).collect();
            to.u32(u32::try_from(points.len()).expect("bounded by write sets in a generation"));
            for (point, index) in points {
                to.u64(point);
                to.u64(index.0);
            }
            let ordered = &generation.ordered;
            to.u32(u32::try_from(ordered.len()).expect("bounded by write sets in a generation"));
            for ((key_index, prefix), index) in ordered {
                to.u32(key_index.0);
                to.raw(prefix);
                to.u64(index.0);
            }
        }
    }

    /// Reads what [`Base::encode`] wrote; refuses whatever breaks an invariant.
    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Base, Malformed> {
        let mut base =
            Base { last: Index(from.u64()?), floor: Index(from.u64()?), ..Base::default() };
        let count = from.count(16)?;
        if base.floor > base.last || base.last.0 == u64::MAX || count > GENERATIONS_KEPT {
            return Err(from.malformed("a history that cannot be"));
        }
        for _ in 0..count {
            let generation = Generation::decode(from, &base)?;
            base.generations.push_back(generation);
        }
        Ok(base)
    }
}

impl Generation {
    fn decode(from: &mut Reader<'_>, base: &Base) -> Result<Generation, Malformed> {
        let mut generation = Generation { number: from.u64()?, ..Generation::default() };
        let number = generation.number;
        let newest = base.generations.back();
        if newest.is_some_and(|newest| newest.number >= number) || number > base.last.0 {
            return Err(from.malformed("generations out of order"));
        }
        let index = |from: &mut Reader<'_>| {
            let index = Index(from.u64()?);
            if index.0 == 0 || index > base.last || generation_of(index) != number {
                return Err(from.malformed("a write outside its generation"));
            }
            Ok(index)
        };
        for _ in 0..from.count(16)? {
            let point = from.u64()?;
            generation.points.insert(point, index(from)?);
        }
        for _ in 0..from.count(28)? {
            let key_index = IndexId(from.u32()?);
            let prefix = key_prefix(from.raw(16)?);
            generation.ordered.insert((key_index, prefix), index(from)?);
        }
        Ok(generation)
    }
}

/// The number of the generation an index belongs to.
fn generation_of(index: Index) -> u64 {
    (index.0 - 1) / GENERATION_TRANSACTIONS
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::TransactionId;

    fn footprint(point: u64) -> Footprint {
        Footprint {
            id: TransactionId { origin: 0, sequence: 1 },
            low_water: 0,
            points: vec![point],
            memberships: Vec::new(),
            ordered: vec![(IndexId(1), key_prefix(&point.to_be_bytes()))],
            dependencies: Vec::new(),
            byte_delta: 0,
        }
    }

    #[test]
    fn a_write_is_seen_by_older_snapshots_only() {
        let mut base = Base::default();
        base.observe(Index(1), &footprint(7));
        base.observe(Index(2), &footprint(8));
        assert!(base.written_after(7, Index(0)));
        assert!(!base.written_after(7, Index(1)));
        assert!(base.written_after(8, Index(1)));
        let range = |low: u64, high: u64| RangeRead {
            index: IndexId(1),
            low: key_prefix(&low.to_be_bytes()),
            high: key_prefix(&high.to_be_bytes()),
        };
        assert!(base.range_written_after(&range(0, 100), Index(1)));
        assert!(!base.range_written_after(&range(0, 7), Index(1)));
        assert!(!base.range_written_after(&range(0, 100), Index(2)));
    }

    #[test]
    fn history_is_forgotten_at_fixed_places_and_the_floor_says_so() {
        let mut base = Base::default();
        let mut joined = None;
        let end = GENERATION_TRANSACTIONS * (GENERATIONS_KEPT as u64 + 2) + 5;
        for index in 1..=end {
            base.observe(Index(index), &footprint(index));
            if index == GENERATION_TRANSACTIONS * 3 + 17 {
                let mut writer = Writer::new();
                base.encode(&mut writer);
                let bytes = writer.finish();
                joined = Some(Base::decode(&mut Reader::new(&bytes)).unwrap());
            } else if let Some(joined) = joined.as_mut() {
                joined.observe(Index(index), &footprint(index));
            }
        }
        let floor = Index(GENERATION_TRANSACTIONS * 3);
        assert_eq!(base.floor(), floor);
        assert!(base.written_after(floor.0 + 1, floor));
        assert!(base.written_after(end, Index(end - 1)));
        let (mut here, mut there) = (Writer::new(), Writer::new());
        base.encode(&mut here);
        joined.unwrap().encode(&mut there);
        assert!(here.finish() == there.finish(), "a node that joined has another history");
    }
}
