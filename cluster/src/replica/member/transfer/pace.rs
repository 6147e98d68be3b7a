//! How fast pieces of images are made.
//!
//! Commits come first: who makes a piece certifies and applies nothing meanwhile, and whoever
//! builds it in may share a processor with those who do.

use quorate_consensus::Ticks;

/// A leader on which something was committed within this time counts as busy, ms.
const BUSY_MS: Ticks = 20;

/// Between two pieces a busy leader does nothing for state transfer for this long, ms.
const BUSY_GAP_MS: Ticks = 2;

/// How much time not used for pieces may be made up for, us. The clock's ticks are coarse.
const BURST_US: u64 = 20_000;

/// See the module. One for all images that a node sends.
#[derive(Debug, Default)]
pub(super) struct Pace {
    busy_until: Ticks,
    made_at: Option<Ticks>,
    /// By when, at the rate asked for, everything made so far is sent, us.
    free_at_us: u64,
}

impl Pace {
    /// Something was committed.
    pub(super) fn note_commit(&mut self, now: Ticks) {
        self.busy_until = now + BUSY_MS;
    }

    /// When the next piece may be made; a moment that has passed means now. `rate` is bytes per
    /// second, 0 for as fast as commits allow.
    pub(super) fn next_at(&self, now: Ticks, rate: u64) -> Ticks {
        if rate > 0 {
            return self.free_at_us.div_ceil(1_000);
        }
        match self.made_at {
            Some(made_at) if now < self.busy_until => made_at + BUSY_GAP_MS,
            _ => now,
        }
    }

    /// A piece of so many bytes was made.
    pub(super) fn made(&mut self, bytes: u64, now: Ticks, rate: u64) {
        self.made_at = Some(now);
        if rate > 0 {
            let earliest_us = (now * 1_000).saturating_sub(BURST_US);
            let takes_us = u128::from(bytes) * 1_000_000 / u128::from(rate);
            let takes_us = u64::try_from(takes_us).unwrap_or(u64::MAX);
            self.free_at_us = self.free_at_us.max(earliest_us).saturating_add(takes_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes made within `time_ms`, a piece as often as allowed and at most one a tick.
    fn made_within(time_ms: Ticks, rate: u64, piece_bytes: u64, busy: bool) -> u64 {
        let mut pace = Pace::default();
        let mut bytes = 0;
        for now in 1_000..1_000 + time_ms {
            if busy {
                pace.note_commit(now);
            }
            if pace.next_at(now, rate) <= now {
                pace.made(piece_bytes, now, rate);
                bytes += piece_bytes;
            }
        }
        bytes
    }

    #[test]
    fn a_rate_is_kept_whatever_the_size_of_the_pieces() {
        for piece_bytes in [100, 1_000, 10_000, 3_000_000] {
            let bytes = made_within(60_000, 100_000, piece_bytes, false);
            let most = 60 * 100_000 + 100_000 * BURST_US / 1_000_000 + piece_bytes;
            assert!(bytes <= most, "{bytes} bytes in pieces of {piece_bytes}, at most {most}");
            assert!(bytes + 2 * piece_bytes >= 60 * 100_000, "{bytes} in pieces of {piece_bytes}");
        }
    }

    #[test]
    fn the_slowest_rate_and_the_largest_piece_do_not_overflow() {
        let mut pace = Pace::default();
        pace.made(u64::MAX, 1, 1);
        pace.made(u64::MAX, 1, 1);
        assert!(pace.next_at(1, 1) > Ticks::MAX / 2_000);
    }

    #[test]
    fn commits_slow_pieces_down_and_nothing_else_does() {
        assert_eq!(made_within(1_000, 0, 10, false), 10 * 1_000);
        assert_eq!(made_within(1_000, 0, 10, true), 10 * 1_000 / BUSY_GAP_MS);
        let mut pace = Pace::default();
        pace.note_commit(5);
        assert_eq!(pace.next_at(5, 0), 5, "nothing was made yet");
        pace.made(10, 5, 0);
        assert_eq!(pace.next_at(6, 0), 5 + BUSY_GAP_MS);
        assert_eq!(pace.next_at(5 + BUSY_MS, 0), 5 + BUSY_MS);
    }
}
