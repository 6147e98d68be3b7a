//! Epochs: which of a cluster's lives it is in.
//!
//! A cluster that lost the majority of its rank for good can be formed again from a survivor. What
//! it does from then on is another history than the one the lost nodes may still hold, so it bears
//! another epoch, and the two never mix.

use std::cmp::Ordering;
use std::fmt;

/// Which of its lives a cluster is in: counted, and told apart by random bits from another one that
/// was begun behind its back with the same count.
///
/// The first life is `Epoch::default()`, with both 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// How often the cluster was formed again.
    pub counter: u64,
    /// 64 random bits, drawn when it was; 0 in the first epoch.
    pub bits: u64,
}

impl Epoch {
    /// How this epoch relates to another of the same cluster: a greater one replaces a lesser one;
    /// `None`, equal counters with other bits, is two histories that can never meet.
    pub fn compare(self, other: Self) -> Option<Ordering> {
        match self.counter.cmp(&other.counter) {
            Ordering::Equal if self.bits != other.bits => None,
            ordering => Some(ordering),
        }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:016x}", self.counter, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greater_counter_replaces_and_other_bits_never_meet() {
        let epoch = |counter, bits| Epoch { counter, bits };
        assert_eq!(epoch(2, 9).compare(epoch(1, 10)), Some(Ordering::Greater));
        assert_eq!(epoch(1, 10).compare(epoch(2, 9)), Some(Ordering::Less));
        assert_eq!(epoch(2, 9).compare(epoch(2, 9)), Some(Ordering::Equal));
        assert_eq!(epoch(2, 9).compare(epoch(2, 8)), None);
        assert_eq!(epoch(2, 255).to_string(), "2.00000000000000ff");
    }
}
