//! One picture for all states that differ only in time, for exhaustive exploration. Must never be
//! used by a driver: it forgets how long ago things happened.

use super::{Core, State};
use crate::types::Ticks;

impl Core {
    /// What the clock of a canonical state shows, in ticks: later than any silence lasts.
    pub const fn canonical_now(&self) -> Ticks {
        2 * self.settings.election_timeout
    }

    /// Sets the clock to [`Core::canonical_now`], and brings everything that depends on when
    /// earlier steps happened to one value of the many it could have:
    ///
    /// - no deadline has come, and the next one is an unknown but fixed time ahead; leadership that
    ///   is being handed over is given up with the next tick;
    /// - a follower's leader has been silent for an election timeout, so that it protects nobody
    ///   from a candidate (one that does is like a vote request that was lost);
    /// - a leader has just heard all its followers (the tick after an election timeout finds that
    ///   it heard none of them);
    /// - `Persist` is counted from the newest that was answered, which becomes 0: what the driver
    ///   noted by sequence moves along.
    ///
    /// Terms, votes, log, commit, what peers are known to hold and who is connected stay.
    pub fn make_canonical(&mut self) {
        let now = self.canonical_now();
        let timeout = self.settings.election_timeout;
        self.now = now;
        self.jitter = 0;
        self.election_at = now.saturating_add(2 * timeout);
        self.following.heard_at = 0;
        match &mut self.state {
            State::Follower => {}
            State::PreCandidate(campaign) | State::Candidate(campaign) => {
                campaign.ask_at = now.saturating_add(timeout);
            }
            State::Leader(leading) => {
                leading.heartbeat_at = now.saturating_add(self.settings.heartbeat_interval);
                if let Some(transfer) = &mut leading.transfer {
                    transfer.give_up_at = now.saturating_add(1);
                }
                for progress in leading.progress.values_mut() {
                    progress.moved_at = now;
                    progress.last_heard = now;
                }
            }
        }
        self.count_from_persisted();
        self.assert_invariants();
    }

    fn count_from_persisted(&mut self) {
        let base = self.persisted;
        self.sequence -= base;
        self.hard_sequence = self.hard_sequence.saturating_sub(base);
        for (sequence, _) in &mut self.pending {
            *sequence -= base;
        }
        self.persisted = 0;
    }
}
