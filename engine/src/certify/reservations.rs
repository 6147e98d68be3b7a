//! Reservations: who has lost often gets its turn.
//!
//! The first committer wins, so a long transaction can lose for ever against short ones that write
//! what it uses. `transact` therefore says how often it has lost. From the
//! [`RESERVE_ATTEMPTS`]th loss on, what the loser used is reserved for it for a while: others that
//! would write it are refused as if they had come too late. They run again; it commits first.
//!
//! ```text
//!   loss 4 ---- period ---- loss 5 |------- at most 4 periods ------| reservation over
//!   noted                   reserved, for the time it takes to run again, with room to spare
//! ```
//!
//! How long is learned from the losses themselves: the time between two of them is what one run
//! takes. It is never more than the limit given, so a loser that is never heard of again delays
//! others only a little.
//!
//! Invariants:
//! * a reservation only ever refuses: what is admitted was certified all the same, so nothing here
//!   can make a decision wrong, and two leaders need not agree about it;
//! * no point or range is reserved for two: who would need what another has reserved gets nothing,
//!   and what it had is free, so two losers never wait for each other;
//! * at most [`CLAIMS_MAX`] losers are known, with at most [`USES_MAX`] points and ranges each.
//!
//! Pure: time comes from the caller, in ticks of any unit.

use std::collections::{BTreeMap, HashSet};

use super::footprint::{Footprint, RangeRead, ReadSet, adder_point};
use crate::{Isolation, Submission};

/// Losses after which a loser is taken note of; with the next one it gets its reservation.
pub(crate) const RESERVE_ATTEMPTS: u16 = 4;
/// Losers that are known at once.
const CLAIMS_MAX: usize = 16;
/// What one may reserve: transactions that use more are too long to hold others up for.
const USES_MAX: usize = 1 << 16;
/// A reservation lasts for so many runs of the loser.
const PERIODS: u64 = 4;

/// A run of `transact`: its origin and its number there.
type Series = (u128, u64);

/// What the losers of one leader have reserved. See the module.
#[derive(Clone, Debug)]
pub struct Reservations {
    limit: u64,
    claims: BTreeMap<Series, Claim>,
}

/// One loser.
#[derive(Clone, Debug)]
struct Claim {
    lost_at: u64,
    /// Nothing is reserved from then on.
    until: u64,
    /// What others must not write.
    points: HashSet<u64>,
    /// Where others must not write.
    ranges: Vec<RangeRead>,
}

impl Reservations {
    /// No reservations; those to come last `limit` ticks at most.
    pub fn new(limit: u64) -> Reservations {
        Reservations { limit, claims: BTreeMap::new() }
    }

    /// How many are in force at `now`.
    pub fn count(&self, now: u64) -> usize {
        self.claims.values().filter(|claim| claim.holds(now)).count()
    }

    /// True if nothing that `footprint` writes is reserved for others.
    pub(crate) fn admit(&self, submission: &Submission, footprint: &Footprint, now: u64) -> bool {
        let own = series(submission);
        self.claims
            .iter()
            .all(|(series, claim)| *series == own || !claim.holds(now) || !claim.hinders(footprint))
    }

    /// The transaction was admitted: it needs no reservation any more.
    pub(crate) fn admitted(&mut self, submission: &Submission) {
        if submission.attempts >= RESERVE_ATTEMPTS {
            self.claims.remove(&series(submission));
        }
    }

    /// The transaction lost against others, once more.
    pub(crate) fn lost(&mut self, submission: &Submission, footprint: &Footprint, now: u64) {
        if submission.attempts < RESERVE_ATTEMPTS {
            return;
        }
        let limit = self.limit;
        let is_recent = |claim: &Claim| now.saturating_sub(claim.lost_at) <= limit;
        self.claims.retain(|_, claim| claim.holds(now) || is_recent(claim));
        let series = series(submission);
        let Some(before) = self.claims.remove(&series) else {
            if self.claims.len() < CLAIMS_MAX {
                self.claims.insert(series, Claim::noted(now));
            }
            return;
        };
        let period = now.saturating_sub(before.lost_at).max(1);
        // One that is in force ends when it would have: nobody is held up by more and more losses.
        let until = match before.holds(now) {
            true => before.until,
            false => now.saturating_add(period.saturating_mul(PERIODS).min(limit)),
        };
        let mut claim = Claim::noted(now);
        if uses(submission, footprint) <= USES_MAX {
            claim.until = until;
            claim.reserve(footprint, &submission.reads, submission.isolation);
        }
        let taken = |other: &Claim| other.holds(now) && other.overlaps(&claim);
        if self.claims.values().any(taken) {
            claim = Claim::noted(now);
        }
        self.claims.insert(series, claim);
    }
}

fn series(submission: &Submission) -> Series {
    (submission.id.origin, submission.series)
}

/// How much it would take to keep others away.
fn uses(submission: &Submission, footprint: &Footprint) -> usize {
    let Footprint { points, dependencies, adders, .. } = footprint;
    let reads = submission.reads.points.len() + submission.reads.ranges.len();
    points.len() + dependencies.len() + adders.len() + reads
}

impl Claim {
    fn noted(now: u64) -> Claim {
        Claim { lost_at: now, until: now, points: HashSet::new(), ranges: Vec::new() }
    }

    fn holds(&self, now: u64) -> bool {
        now < self.until
    }

    /// Reserves everything whose writing would make the transaction lose.
    fn reserve(&mut self, footprint: &Footprint, reads: &ReadSet, isolation: Isolation) {
        let mut alone = footprint.points.clone();
        if isolation == Isolation::Serializable {
            alone.extend(&reads.points);
            self.ranges.clone_from(&reads.ranges);
        }
        self.points.extend(alone.iter().map(|point| adder_point(*point)));
        self.points.extend(alone);
        self.points.extend(footprint.dependencies.iter().chain(&footprint.adders));
    }

    fn hinders(&self, footprint: &Footprint) -> bool {
        let inside = |range: &RangeRead| {
            let key = |(index, key): &(_, _)| {
                *index == range.index && (range.low..=range.high).contains(key)
            };
            footprint.ordered.iter().any(key)
        };
        footprint.written().any(|point| self.points.contains(&point))
            || self.ranges.iter().any(inside)
    }

    /// True if both want to have the same for themselves.
    fn overlaps(&self, other: &Claim) -> bool {
        let meets =
            |a: &RangeRead, b: &RangeRead| a.index == b.index && a.low <= b.high && b.low <= a.high;
        let ranges = self.ranges.iter().any(|a| other.ranges.iter().any(|b| meets(a, b)));
        ranges || !self.points.is_disjoint(&other.points)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certify::key_prefix;
    use crate::{Index, TransactionId};
    use quorate_schema::IndexId;

    fn submission(series: u64, attempts: u16) -> Submission {
        Submission {
            id: TransactionId { origin: 1, sequence: 1 },
            low_water: 0,
            snapshot: Index(0),
            isolation: Isolation::Serializable,
            write_set: [].into(),
            reads: ReadSet::default(),
            attempts,
            series,
        }
    }

    fn writes(points: &[u64]) -> Footprint {
        Footprint {
            id: TransactionId { origin: 1, sequence: 1 },
            low_water: 0,
            points: points.to_vec(),
            memberships: Vec::new(),
            ordered: points.iter().map(|p| (IndexId(0), key_prefix(&p.to_be_bytes()))).collect(),
            dependencies: Vec::new(),
            adders: Vec::new(),
            byte_delta: 0,
        }
    }

    /// Reservations in which series 1 lost at 100 and 110, using point 7.
    fn reserved() -> Reservations {
        let mut reservations = Reservations::new(1000);
        reservations.lost(&submission(1, 4), &writes(&[7]), 100);
        assert_eq!(reservations.count(100), 0, "how long it takes is not known yet");
        reservations.lost(&submission(1, 5), &writes(&[7]), 110);
        reservations
    }

    #[test]
    fn what_a_loser_used_is_its_own_for_a_few_of_its_runs() {
        let reservations = reserved();
        let other = submission(2, 0);
        for (now, admitted) in [(110, false), (149, false), (150, true), (1000, true)] {
            assert_eq!(reservations.admit(&other, &writes(&[3, 7]), now), admitted, "at {now}");
            assert!(reservations.admit(&other, &writes(&[8]), now));
            assert!(reservations.admit(&submission(1, 6), &writes(&[7]), now));
        }
        let adds = Footprint { adders: vec![7], ..writes(&[]) };
        assert!(!reservations.admit(&other, &adds, 120), "adding would make it lose too");
    }

    #[test]
    fn who_was_admitted_has_no_reservation_any_more() {
        let mut reservations = reserved();
        reservations.admitted(&submission(1, 6));
        assert!(reservations.admit(&submission(2, 0), &writes(&[7]), 111));
    }

    #[test]
    fn a_slow_loser_gets_no_more_than_the_limit_and_losses_do_not_prolong_it() {
        let mut reservations = Reservations::new(1000);
        for now in [0, 900, 1500] {
            reservations.lost(&submission(1, 9), &writes(&[7]), now);
        }
        let other = submission(2, 0);
        assert!(!reservations.admit(&other, &writes(&[7]), 1899));
        assert!(reservations.admit(&other, &writes(&[7]), 1900));
    }

    #[test]
    fn first_losses_count_for_nothing() {
        let mut reservations = Reservations::new(1000);
        for (attempts, now) in [(0, 1), (1, 2), (2, 3), (3, 4)] {
            reservations.lost(&submission(1, attempts), &writes(&[7]), now);
        }
        assert!(reservations.claims.is_empty());
    }

    #[test]
    fn nothing_is_reserved_for_two() {
        let mut reservations = reserved();
        reservations.lost(&submission(2, 4), &writes(&[7, 9]), 112);
        reservations.lost(&submission(2, 5), &writes(&[7, 9]), 113);
        let third = submission(3, 0);
        assert!(reservations.admit(&third, &writes(&[9]), 114), "half a reservation was made");
        // Who needs what another has by now lets go of what it had.
        reservations.lost(&submission(4, 4), &writes(&[5]), 114);
        reservations.lost(&submission(4, 5), &writes(&[5]), 115);
        assert!(!reservations.admit(&third, &writes(&[5]), 115));
        reservations.lost(&submission(4, 6), &writes(&[5, 7]), 116);
        assert!(reservations.admit(&third, &writes(&[5]), 116));
        assert!(!reservations.admit(&third, &writes(&[7]), 116), "the first has lost its own");
    }

    #[test]
    fn ranges_are_reserved_for_those_that_read_them() {
        let mut reservations = Reservations::new(1000);
        let mut reader = submission(1, 4);
        let key = |point: u64| key_prefix(&point.to_be_bytes());
        reader.reads.range(IndexId(0), key(10), key(20));
        reservations.lost(&reader, &writes(&[1]), 0);
        reservations.lost(&reader, &writes(&[1]), 1);
        let other = submission(2, 0);
        assert!(!reservations.admit(&other, &writes(&[15]), 2));
        assert!(reservations.admit(&other, &writes(&[21]), 2));
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut reservations = Reservations::new(1000);
        for series in 0..10 * CLAIMS_MAX as u64 {
            reservations.lost(&submission(series, 4), &writes(&[series]), series);
            assert!(reservations.claims.len() <= CLAIMS_MAX);
        }
        reservations.lost(&submission(9999, 4), &writes(&[1]), 100_000);
        assert_eq!(reservations.claims.len(), 1, "those that came no more are still known");
        let many: Vec<u64> = (0..=USES_MAX as u64).collect();
        reservations.lost(&submission(9999, 5), &writes(&many), 100_001);
        assert_eq!(reservations.count(100_001), 0, "too much was reserved");
    }
}
