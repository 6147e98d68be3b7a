//! The tail: the leader's transactions that have an index but are not applied yet.
//!
//! A leader certifies faster than its log commits, so what it admitted must count at once. The
//! tail is nobody's but the leader's: rebuilt from its log when it begins to lead, thrown away
//! when it steps down or its log is truncated.
//!
//! Invariants:
//! * entries are in order of their indexes, which several may share, all below `next`;
//! * a point or key is in the maps exactly if an entry wrote it, with the newest such index;
//! * of each id that an entry names the first thing said is known, as in `outcome`.

use std::collections::{BTreeMap, HashMap, VecDeque};

use quorate_schema::IndexId;

use super::footprint::{Footprint, KeyPrefix, RangeRead, adder_point, raise};
use crate::outcome::Fate;
use crate::{Index, Outcome, Settled, TransactionId};

/// The leader's uncommitted part of the history. Pure; see the module for the invariants.
#[derive(Clone, Debug)]
pub struct Tail {
    next: Index,
    entries: VecDeque<(Index, Entry)>,
    /// The sum of all entries' deltas.
    byte_delta: i128,
    points: HashMap<u64, Index>,
    ordered: BTreeMap<(IndexId, KeyPrefix), Index>,
    /// With the index of the entry that settled it.
    known: HashMap<TransactionId, (Index, Fate)>,
    /// The newest index that added to a record, or one after it.
    last_adder: Index,
    /// By origin: its highest low water here, and the newest index that brought one.
    low_waters: HashMap<u128, (u64, Index)>,
}

/// What stands at one index.
#[derive(Clone, Debug)]
enum Entry {
    Transaction(Footprint),
    /// Something of an origin that changes no records.
    Note(TransactionId),
    Fence(TransactionId),
}

impl Tail {
    /// An empty tail whose first transaction will get index `next`: the one after the last index
    /// in the leader's log.
    ///
    /// # Panics
    ///
    /// If `next` is 0, which no transaction gets.
    pub fn new(next: Index) -> Tail {
        assert!(next > Index(0), "index 0 is the empty database");
        Tail {
            next,
            entries: VecDeque::new(),
            byte_delta: 0,
            points: HashMap::new(),
            ordered: BTreeMap::new(),
            known: HashMap::new(),
            last_adder: Index(0),
            low_waters: HashMap::new(),
        }
    }

    /// The index the next transaction will get.
    pub fn next(&self) -> Index {
        self.next
    }

    /// The newest index in it, or the one before its start.
    pub fn last(&self) -> Index {
        Index(self.next.0 - 1)
    }

    /// Adds the transaction that was given `index`, which is [`Tail::next`] or, after log items
    /// without data, greater.
    ///
    /// # Panics
    ///
    /// If `index` is below [`Tail::next`].
    pub fn observe(&mut self, index: Index, footprint: &Footprint) {
        self.skip(index);
        for point in footprint.written() {
            raise(self.points.entry(point).or_default(), index);
        }
        for key in &footprint.ordered {
            raise(self.ordered.entry(*key).or_default(), index);
        }
        if !footprint.adders.is_empty() {
            self.last_adder = index;
        }
        self.commit(index, footprint.id, footprint.low_water);
        self.byte_delta += i128::from(footprint.byte_delta);
        self.entries.push_back((index, Entry::Transaction(footprint.clone())));
    }

    /// Passes over `index`, which a log item got that changes no records but is known by an id,
    /// like a transaction's; with the low water of its origin.
    ///
    /// # Panics
    ///
    /// If `index` is below [`Tail::next`].
    pub fn note(&mut self, index: Index, id: TransactionId, low_water: u64) {
        self.skip(index);
        self.commit(index, id, low_water);
        self.entries.push_back((index, Entry::Note(id)));
    }

    /// Passes over `index`, which a fence got: unless it is known already, `id` can never commit
    /// behind it.
    ///
    /// # Panics
    ///
    /// If `index` is below [`Tail::next`].
    pub fn fence(&mut self, index: Index, id: TransactionId) {
        self.skip(index);
        if self.outcome(id) == Outcome::Unknown {
            self.known.insert(id, (index, Fate::Fenced));
        }
        self.entries.push_back((index, Entry::Fence(id)));
    }

    /// What else the item at [`Tail::last`] says: that a request committed there, or never will.
    ///
    /// # Panics
    ///
    /// If nothing was given an index yet.
    pub fn settles(&mut self, settled: Settled) {
        let index = self.last();
        if !settled.committed && self.outcome(settled.id) == Outcome::Unknown {
            self.known.insert(settled.id, (index, Fate::Fenced));
        }
        self.commit(index, settled.id, settled.low_water);
        self.entries.push_back((index, Entry::Note(settled.id)));
    }

    fn commit(&mut self, index: Index, id: TransactionId, low_water: u64) {
        if self.outcome(id) == Outcome::Unknown {
            self.known.insert(id, (index, Fate::Committed(index)));
        }
        let newest = self.low_waters.entry(id.origin).or_default();
        *newest = (newest.0.max(low_water), index);
    }

    /// Passes over `index`, which a log item without data got.
    ///
    /// # Panics
    ///
    /// If `index` is below [`Tail::next`].
    pub fn skip(&mut self, index: Index) {
        assert!(index >= self.next, "index {index} is given out, the next is {}", self.next);
        self.next = index.next();
    }

    /// Forgets everything up to and including `upto`: it is applied, the base has it now.
    pub fn settle(&mut self, upto: Index) {
        while self.entries.front().is_some_and(|(index, _)| *index <= upto) {
            let (index, entry) = self.entries.pop_front().expect("there is a front");
            if let Entry::Transaction(footprint) = &entry {
                self.settle_writes(index, footprint);
            }
            let id = entry.id();
            remove_if(&mut self.known, &id, |(settled, _)| *settled == index);
            remove_if(&mut self.low_waters, &id.origin, |(_, last)| *last == index);
        }
    }

    fn settle_writes(&mut self, index: Index, footprint: &Footprint) {
        for point in footprint.written() {
            remove_if(&mut self.points, &point, |last| *last == index);
        }
        for key in &footprint.ordered {
            if self.ordered.get(key) == Some(&index) {
                self.ordered.remove(key);
            }
        }
        self.byte_delta -= i128::from(footprint.byte_delta);
    }

    /// What the tail alone knows about the transaction: committed here means that it has an index
    /// in the leader's log, which is not settled yet. What is applied counts before it; see
    /// [`Applier::known`](crate::Applier::known).
    pub fn outcome(&self, id: TransactionId) -> Outcome {
        if self.low_waters.get(&id.origin).is_some_and(|(low_water, _)| id.sequence < *low_water) {
            return Outcome::Forgotten;
        }
        self.known.get(&id).map_or(Outcome::Unknown, |(_, fate)| (*fate).into())
    }

    /// How many fences of `origin` are in it.
    pub(crate) fn fences(&self, origin: u128) -> usize {
        let of_origin = |entry: &Entry| matches!(entry, Entry::Fence(id) if id.origin == origin);
        self.entries.iter().filter(|(_, entry)| of_origin(entry)).count()
    }

    pub(crate) fn written_after(&self, point: u64, snapshot: Index) -> bool {
        self.points.get(&point).is_some_and(|last| *last > snapshot)
    }

    /// As it would be if nobody had looked for adders.
    #[cfg(feature = "planted-bugs")]
    pub(crate) fn without_adders(&self) -> Tail {
        Tail { last_adder: Index(0), ..self.clone() }
    }

    /// True if something was added to the record of `point` after `snapshot`.
    pub(crate) fn added_after(&self, point: u64, snapshot: Index) -> bool {
        self.last_adder > snapshot && self.written_after(adder_point(point), snapshot)
    }

    pub(crate) fn range_written_after(&self, range: &RangeRead, snapshot: Index) -> bool {
        let bounds = (range.index, range.low)..=(range.index, range.high);
        self.ordered.range(bounds).any(|(_, last)| *last > snapshot)
    }

    /// By how much the entries after `applied` change the bytes used.
    pub(crate) fn byte_delta_after(&self, applied: Index) -> i128 {
        let settled = self.entries.iter().take_while(|(index, _)| *index <= applied);
        let settled: i128 = settled.map(|(_, entry)| i128::from(entry.byte_delta())).sum();
        self.byte_delta - settled
    }
}

impl Entry {
    fn id(&self) -> TransactionId {
        match self {
            Entry::Transaction(footprint) => footprint.id,
            Entry::Note(id) | Entry::Fence(id) => *id,
        }
    }

    fn byte_delta(&self) -> i64 {
        match self {
            Entry::Transaction(footprint) => footprint.byte_delta,
            Entry::Note(_) | Entry::Fence(_) => 0,
        }
    }
}

fn remove_if<K: std::hash::Hash + Eq, V>(
    map: &mut HashMap<K, V>,
    key: &K,
    condition: impl FnOnce(&V) -> bool,
) {
    if map.get(key).is_some_and(condition) {
        map.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certify::key_prefix;

    fn footprint(sequence: u64, low_water: u64, point: u64, byte_delta: i64) -> Footprint {
        Footprint {
            id: TransactionId { origin: 5, sequence },
            low_water,
            points: vec![point],
            memberships: Vec::new(),
            ordered: vec![(IndexId(0), key_prefix(&[point as u8]))],
            dependencies: Vec::new(),
            adders: Vec::new(),
            byte_delta,
        }
    }

    #[test]
    fn what_is_settled_is_forgotten_unless_written_again() {
        let mut tail = Tail::new(Index(10));
        tail.observe(Index(10), &footprint(1, 1, 7, 100));
        tail.observe(Index(11), &footprint(2, 1, 8, -30));
        tail.observe(Index(12), &footprint(3, 2, 7, 5));
        assert_eq!(tail.next(), Index(13));
        assert_eq!(tail.byte_delta_after(Index(9)), 75);
        assert_eq!(tail.byte_delta_after(Index(10)), -25);
        assert_eq!(
            tail.outcome(TransactionId { origin: 5, sequence: 2 }),
            Outcome::Committed(Index(11))
        );
        tail.settle(Index(11));
        assert!(tail.written_after(7, Index(11)) && !tail.written_after(8, Index(0)));
        assert_eq!(tail.outcome(TransactionId { origin: 5, sequence: 2 }), Outcome::Unknown);
        assert_eq!(tail.outcome(TransactionId { origin: 5, sequence: 1 }), Outcome::Forgotten);
        tail.settle(Index(12));
        assert!(tail.points.is_empty() && tail.ordered.is_empty());
        assert!(tail.known.is_empty() && tail.low_waters.is_empty());
    }
}
