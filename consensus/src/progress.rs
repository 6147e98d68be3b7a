//! What a leader knows of one follower and how fast it may send to it. Must never decide what is
//! committed.

use std::collections::VecDeque;

use crate::types::{EntryIndex, Ticks};

/// How a leader sends to a follower.
///
/// ```text
///            accepted                       rejected, connection broke, no answer for long
///   Probe ------------> Replicate ---------------------------------------> Probe
///     |                     |
///     +---------------------+--- entries it needs are forgotten --> Image --- installed --> Probe
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pace {
    /// Where its log agrees is unknown: one append at a time.
    Probe {
        /// Whether that one is on its way.
        asked: bool,
    },
    /// Appends are sent without waiting, up to a limit.
    Replicate,
    /// Only heartbeats until an image was installed.
    Image,
}

/// Invariants: `matched < next`; `in_flight` rises and is empty unless the pace is `Replicate`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Progress {
    /// The newest entry known to match and to be durable there. Counts in quorums.
    pub(crate) matched: EntryIndex,
    /// The next entry to send.
    pub(crate) next: EntryIndex,
    pub(crate) pace: Pace,
    /// The last entry of each append that awaits its answer.
    pub(crate) in_flight: VecDeque<EntryIndex>,
    /// When `matched` last grew or the pipeline was last empty.
    pub(crate) moved_at: Ticks,
    /// When it last answered in this term.
    pub(crate) last_heard: Ticks,
    /// The newest round it answered.
    pub(crate) round: u64,
    /// The newest commit and durable index that were sent to it.
    pub(crate) commit_sent: EntryIndex,
    pub(crate) durable_sent: EntryIndex,
}

impl Progress {
    /// A follower of whom nothing is known; `next` is where the probing begins.
    pub(crate) fn new(next: EntryIndex, now: Ticks) -> Self {
        assert!(next.0 > 0, "probing begins at an entry");
        Self {
            matched: EntryIndex(0),
            next,
            pace: Pace::Probe { asked: false },
            in_flight: VecDeque::new(),
            moved_at: now,
            last_heard: now,
            round: 0,
            commit_sent: EntryIndex(0),
            durable_sent: EntryIndex(0),
        }
    }

    /// Falls back to one append at a time, from `next` (never at or before what matched).
    pub(crate) fn probe_from(&mut self, next: EntryIndex) {
        self.next = next.max(self.matched.next());
        self.pace = Pace::Probe { asked: false };
        self.in_flight.clear();
    }

    /// Notes that the follower holds everything up to `matched`.
    pub(crate) fn accept(&mut self, matched: EntryIndex, base: EntryIndex, now: Ticks) {
        if matched > self.matched {
            self.matched = matched;
            self.moved_at = now;
        }
        while self.in_flight.front().is_some_and(|&last| last <= self.matched) {
            self.in_flight.pop_front();
        }
        let found = match self.pace {
            Pace::Probe { .. } => self.matched.next() >= self.next,
            Pace::Replicate => false,
            Pace::Image => self.matched >= base,
        };
        if found {
            self.pace = Pace::Replicate;
            self.next = self.matched.next();
        }
        self.next = self.next.max(self.matched.next());
    }

    /// Whether an append awaits its answer without any movement for `limit`.
    pub(crate) fn is_stuck(&self, now: Ticks, limit: Ticks) -> bool {
        !self.in_flight.is_empty() && now.saturating_sub(self.moved_at) >= limit
    }

    pub(crate) fn assert_invariants(&self) {
        assert!(self.matched < self.next, "matched {:?} >= next {:?}", self.matched, self.next);
        assert!(
            self.in_flight.is_empty() || self.pace == Pace::Replicate,
            "in flight at pace {:?}",
            self.pace
        );
        if let Some(last) = self.in_flight.back() {
            assert!(*last < self.next, "in flight {last:?} >= next {:?}", self.next);
        }
    }
}
