//! How much of the log is kept for one who gets an image.
//!
//! An image is of use only if the log goes on behind it when it is installed, and stays until that
//! is sent too. What is written meanwhile must therefore be kept: as many bytes as the image itself
//! has, or twice what is kept anyway if that is more. Then a transfer converges whenever it is
//! faster than the writers: its tail is shorter than the image, the tail's tail shorter again. Who
//! is outrun all the same gets the double the next time, [`DOUBLINGS_MAX`] times at most.

use quorate_consensus::{EntryIndex, Ticks};

use super::super::super::node::Node;
use super::sending::KEEP_MS;

/// How often the allowance doubles, at most: a bound on memory.
const DOUBLINGS_MAX: u32 = 4;

/// So many full windows are kept for every follower that is linked.
const WINDOWS_UNDER_WAY: usize = 4;

/// What one follower needs of the log, from its image on until the log's usual end reaches it.
#[derive(Debug)]
pub(super) struct Tail {
    /// The last entry of its image.
    last: EntryIndex,
    image_bytes: u64,
    /// Images that were of no use, because the log behind them was gone.
    outruns: u32,
    cut_at: Option<Ticks>,
}

/// What must not be forgotten yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Hold {
    /// Entries behind this one.
    pub(in super::super) from: EntryIndex,
    /// As long as no more bytes than this are kept.
    pub(in super::super) limit_bytes: usize,
}

impl Tail {
    /// What an image needs, which follows `before` if that one was outrun.
    pub(super) fn new(last: EntryIndex, image_bytes: u64, before: Option<&Self>) -> Self {
        let outruns = before.map_or(0, |before| before.outruns.saturating_add(1));
        Self { last, image_bytes, outruns, cut_at: None }
    }

    /// What is needed by a follower that holds everything up to `matched`.
    pub(super) fn hold(&self, matched: EntryIndex, log_keep_bytes: usize) -> Hold {
        let image_bytes = usize::try_from(self.image_bytes).unwrap_or(usize::MAX);
        let once = log_keep_bytes.saturating_mul(2).max(image_bytes);
        let limit_bytes = once.saturating_mul(1 << self.outruns.min(DOUBLINGS_MAX));
        Hold { from: matched.max(self.last), limit_bytes }
    }

    /// Notes whether its link is there; true if it was not for too long.
    pub(super) fn is_given_up(&mut self, now: Ticks, linked: bool) -> bool {
        if linked {
            self.cut_at = None;
            return false;
        }
        now >= *self.cut_at.get_or_insert(now) + KEEP_MS
    }
}

impl Hold {
    /// What a linked follower needs that holds everything up to `matched`: a log shorter than what
    /// is under way to it would make it need an image, again and again.
    pub(super) fn of_follower(matched: EntryIndex, log_keep_bytes: usize, node: &Node) -> Self {
        let under_way = node.settings.window_bytes.saturating_mul(WINDOWS_UNDER_WAY);
        Self { from: matched, limit_bytes: log_keep_bytes.max(under_way) }
    }

    /// Both.
    pub(super) fn and(self, other: Option<Self>) -> Self {
        let Some(other) = other else { return self };
        Self {
            from: self.from.min(other.from),
            limit_bytes: self.limit_bytes.max(other.limit_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_grows_with_the_image_and_with_each_one_outrun_and_has_an_end() {
        let limit = |tail: &Tail, keep| tail.hold(EntryIndex(0), keep).limit_bytes;
        let mut tail = Tail::new(EntryIndex(7), 1_000, None);
        assert_eq!((limit(&tail, 1), limit(&tail, 4_000)), (1_000, 8_000));
        for doubled in [2_000, 4_000, 8_000, 16_000, 16_000, 16_000] {
            tail = Tail::new(EntryIndex(7), 1_000, Some(&tail));
            assert_eq!(limit(&tail, 1), doubled);
        }
        assert_eq!(limit(&Tail::new(EntryIndex(7), u64::MAX, Some(&tail)), 1), usize::MAX);
        assert_eq!(tail.hold(EntryIndex(3), 1).from, EntryIndex(7));
        assert_eq!(tail.hold(EntryIndex(9), 1).from, EntryIndex(9));
    }

    #[test]
    fn a_follower_away_is_waited_for_and_not_for_ever() {
        let mut tail = Tail::new(EntryIndex(7), 1_000, None);
        assert!(!tail.is_given_up(5, false));
        assert!(!tail.is_given_up(4 + KEEP_MS, false));
        assert!(!tail.is_given_up(5 + KEEP_MS, true), "it is back");
        assert!(!tail.is_given_up(6 + KEEP_MS, false));
        assert!(tail.is_given_up(6 + 2 * KEEP_MS, false));
    }
}
