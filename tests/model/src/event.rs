//! What a search must have met to be worth something. Counted outside of the states, so that it
//! splits none of them.

use std::sync::atomic::{AtomicU64, Ordering};

/// Something that makes a search hard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A node became leader of a term after the first.
    LaterLeader,
    /// A follower knew of a commit before any leader did.
    EarlyAhead,
    /// A log lost uncommitted entries.
    Truncated,
    /// A leader met a higher term.
    Deposed,
    /// A leader found that it hears no quorum.
    LostQuorum,
    /// A change of members in one step was committed.
    SimpleChange,
    /// A joint configuration was committed.
    JointEntered,
    /// The configuration that a joint one led to was committed.
    JointLeft,
    /// A leader without rank handed over and stepped down.
    LeftByRank,
    /// A member led because its predecessor asked it to.
    TransferDone,
    /// A crash lost writes that were under way.
    LostWrites,
    /// A node lost its memory.
    LostMemory,
    /// Words of a life that is over arrived.
    OldLifeHeard,
    /// A new life of a node carries rank in a committed configuration.
    Readmitted,
    /// A member without rank committed.
    LearnerCommits,
    /// A read was confirmed.
    ReadReady,
    /// An image was installed.
    ImageInstalled,
}

impl Event {
    /// All of them, in the order of the variants.
    pub const ALL: [Self; 17] = [
        Self::LaterLeader,
        Self::EarlyAhead,
        Self::Truncated,
        Self::Deposed,
        Self::LostQuorum,
        Self::SimpleChange,
        Self::JointEntered,
        Self::JointLeft,
        Self::LeftByRank,
        Self::TransferDone,
        Self::LostWrites,
        Self::LostMemory,
        Self::OldLifeHeard,
        Self::Readmitted,
        Self::LearnerCommits,
        Self::ReadReady,
        Self::ImageInstalled,
    ];
}

/// How often each event was met, by all threads of a search.
#[derive(Debug, Default)]
pub struct Tally([AtomicU64; Event::ALL.len()]);

impl Tally {
    /// One more.
    pub fn note(&self, event: Event) {
        self.0[event as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// On how many steps between states the event happened. A step is counted each time the search
    /// tries it.
    pub fn count(&self, event: Event) -> u64 {
        self.0[event as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_has_its_own_place() {
        let tally = Tally::default();
        for event in Event::ALL {
            tally.note(event);
        }
        assert!(Event::ALL.iter().all(|event| tally.count(*event) == 1));
    }
}
