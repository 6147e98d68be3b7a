//! What one transaction touched, as the certifier sees it: points, cut keys, ranges.
//!
//! Only values live here. Footprints are derived from write sets by `write_set`, read sets are
//! gathered by transactions and travel beside the write set, never into the log.

use std::ops::Bound;

use quorate_schema::IndexId;
use quorate_schema::bytes::{Malformed, Reader, Writer};

use crate::{Index, TransactionId};

/// The first bytes of a key, filled with zeros. The order of prefixes follows that of keys,
/// though different keys may have equal ones.
pub(crate) type KeyPrefix = [u8; 16];

/// Cuts a key.
pub(crate) fn key_prefix(key: &[u8]) -> KeyPrefix {
    let mut prefix = [0; 16];
    let length = key.len().min(16);
    prefix[..length].copy_from_slice(&key[..length]);
    prefix
}

/// The greatest prefix a key within `high` can have; none if there is no such key.
///
/// An excluded bound that is not cut excludes its own prefix as well: keys are prefix-free, so
/// none below the bound is equal to it but for zeros.
pub(crate) fn key_prefix_up_to(high: Bound<&[u8]>) -> Option<KeyPrefix> {
    match high {
        Bound::Unbounded => Some([0xFF; 16]),
        Bound::Excluded(key) if key.len() <= 16 => {
            let before = u128::from_be_bytes(key_prefix(key)).checked_sub(1)?;
            Some(before.to_be_bytes())
        }
        Bound::Included(key) | Bound::Excluded(key) => Some(key_prefix(key)),
    }
}

/// What one write set touches. See the table in the module `certify`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Whose footprint it is.
    pub id: TransactionId,
    /// Sequences of its origin below this are settled.
    pub low_water: u64,
    /// Written and checked: records updated and deleted, unique keys given and taken.
    pub points: Vec<u64>,
    /// Written, not checked: membership of classes.
    pub memberships: Vec<u64>,
    /// Written, not checked: cut keys of all indexes.
    pub ordered: Vec<(IndexId, [u8; 16])>,
    /// Checked, not written: targets of new references.
    pub dependencies: Vec<u64>,
    /// Added to: records whose integers are changed without being read. Checked for who wrote
    /// them, and remembered for those who write or read them.
    pub adders: Vec<u64>,
    /// How many bytes records and indexes grow by, by the logical formula.
    pub byte_delta: i64,
}

impl Footprint {
    /// Of who writes nothing.
    pub(crate) fn nothing(id: TransactionId, low_water: u64) -> Footprint {
        Footprint {
            id,
            low_water,
            points: Vec::new(),
            memberships: Vec::new(),
            ordered: Vec::new(),
            dependencies: Vec::new(),
            adders: Vec::new(),
            byte_delta: 0,
        }
    }

    /// All points that count as written.
    pub(crate) fn written(&self) -> impl Iterator<Item = u64> + '_ {
        let adders = self.adders.iter().map(|point| adder_point(*point));
        self.points.iter().chain(&self.memberships).copied().chain(adders)
    }
}

/// The point that is written instead of a record's own by those who only add to it.
pub(crate) fn adder_point(record_point: u64) -> u64 {
    record_point ^ 0x9E37_79B9_7F4A_7C15
}

/// A range of keys of one index that was read: both ends cut, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RangeRead {
    pub(crate) index: IndexId,
    pub(crate) low: KeyPrefix,
    pub(crate) high: KeyPrefix,
}

/// What a serializable transaction read; empty for snapshot isolation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadSet {
    pub(crate) points: Vec<u64>,
    pub(crate) ranges: Vec<RangeRead>,
}

/// The shortest encoding of one range, in bytes.
const RANGE_BYTES: usize = 4 + 16 + 16;

impl ReadSet {
    /// True if nothing was read.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty() && self.ranges.is_empty()
    }

    /// The size of its encoding, in bytes.
    pub fn encoded_bytes(&self) -> usize {
        8 + 8 * self.points.len() + RANGE_BYTES * self.ranges.len()
    }

    pub(crate) fn point(&mut self, point: u64) {
        if self.points.last() != Some(&point) {
            self.points.push(point);
        }
    }

    /// Adds a range; one that touches the range added last widens that, so that a cursor's steps
    /// become one range.
    pub(crate) fn range(&mut self, index: IndexId, low: KeyPrefix, high: KeyPrefix) {
        if let Some(last) = self.ranges.last_mut()
            && last.index == index
            && low <= last.high
            && last.low <= high
        {
            last.low = last.low.min(low);
            last.high = last.high.max(high);
            return;
        }
        self.ranges.push(RangeRead { index, low, high });
    }

    /// Brings it into the one form with the fewest points and ranges.
    pub(crate) fn normalise(&mut self) {
        self.points.sort_unstable();
        self.points.dedup();
        let mut ranges = std::mem::take(&mut self.ranges);
        ranges.sort_unstable();
        for range in ranges {
            self.range(range.index, range.low, range.high);
        }
    }

    /// Appends its wire form.
    pub fn encode(&self, to: &mut Writer) {
        to.u32(u32::try_from(self.points.len()).expect("limited by MAX_READS_BYTES"));
        self.points.iter().for_each(|point| to.u64(*point));
        to.u32(u32::try_from(self.ranges.len()).expect("limited by MAX_READS_BYTES"));
        for range in &self.ranges {
            to.u32(range.index.0);
            to.raw(&range.low);
            to.raw(&range.high);
        }
    }

    /// Reads what [`ReadSet::encode`] wrote. Total on any bytes; unknown indexes are harmless here,
    /// nothing is ever written to them.
    pub fn decode(from: &mut Reader<'_>) -> Result<ReadSet, Malformed> {
        let mut reads = ReadSet::default();
        let points = from.count(8)?;
        reads.points.reserve_exact(points);
        for _ in 0..points {
            reads.points.push(from.u64()?);
        }
        let ranges = from.count(RANGE_BYTES)?;
        reads.ranges.reserve_exact(ranges);
        for _ in 0..ranges {
            let index = IndexId(from.u32()?);
            let low = key_prefix(from.raw(16)?);
            let high = key_prefix(from.raw(16)?);
            if low > high {
                return Err(from.malformed("a range read that ends before it starts"));
            }
            reads.ranges.push(RangeRead { index, low, high });
        }
        Ok(reads)
    }
}

/// Notes in `last` that `index` wrote.
pub(crate) fn raise(last: &mut Index, index: Index) {
    *last = (*last).max(index);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_ordered_as_keys_are() {
        let keys: [&[u8]; 5] = [b"", b"a", b"ab", b"abcdefghijklmnopq", b"b"];
        for pair in keys.windows(2) {
            assert!(key_prefix(pair[0]) <= key_prefix(pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn a_bound_is_cut_to_the_safe_side() {
        let excluded = |key| key_prefix_up_to(Bound::Excluded(key));
        assert_eq!(excluded(b""), None);
        assert!(excluded(b"b").is_some_and(|high| high < key_prefix(b"b")));
        assert!(excluded(b"b").is_some_and(|high| high >= key_prefix(b"azzzzzzzzzzzzzzzzz")));
        let long = b"0123456789abcdef!";
        assert_eq!(excluded(long), Some(key_prefix(long)));
        assert_eq!(key_prefix_up_to(Bound::Included(b"b")), Some(key_prefix(b"b")));
        assert_eq!(key_prefix_up_to(Bound::Unbounded), Some([0xFF; 16]));
    }

    #[test]
    fn touching_ranges_become_one() {
        let mut reads = ReadSet::default();
        let at = |byte| key_prefix(&[byte]);
        reads.range(IndexId(0), at(3), at(4));
        reads.range(IndexId(0), at(4), at(6));
        reads.range(IndexId(0), at(9), at(9));
        reads.range(IndexId(1), at(4), at(6));
        reads.range(IndexId(0), at(1), at(3));
        reads.normalise();
        let expected = [(0, 1, 6), (0, 9, 9), (1, 4, 6)];
        let expected = expected.map(|(index, low, high)| RangeRead {
            index: IndexId(index),
            low: at(low),
            high: at(high),
        });
        assert_eq!(reads.ranges, expected);
    }

    #[test]
    fn a_read_set_survives_its_encoding() {
        let mut reads = ReadSet::default();
        reads.point(7);
        reads.point(9);
        reads.range(IndexId(3), [1; 16], [2; 16]);
        let mut writer = Writer::new();
        reads.encode(&mut writer);
        let bytes = writer.finish();
        assert_eq!(bytes.len(), reads.encoded_bytes());
        assert_eq!(ReadSet::decode(&mut Reader::new(&bytes)).unwrap(), reads);
        for cut in 0..bytes.len() {
            assert!(ReadSet::decode(&mut Reader::new(&bytes[..cut])).is_err(), "cut at {cut}");
        }
    }
}
