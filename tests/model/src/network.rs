//! Messages on their way: a set that can deliver each of them at any time, any number of times, or
//! never. Must never decide what a message means, except that some can have no effect any more.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use quorate_consensus::{Config, EntryIndex, Identity, Message, MessageBody, Term};

/// What travels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cargo {
    /// What cores say to each other.
    Message(Message),
    /// An image of committed state.
    Image {
        /// The newest entry that it covers.
        last: EntryIndex,
        /// Its term.
        last_term: Term,
        /// The configuration as of `last`.
        config: Config,
    },
    /// "I installed the image up to there": the driver's word to the leader's driver.
    Installed {
        /// The newest entry that the image covered.
        last: EntryIndex,
    },
}

/// A message with its sender and receiver.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Packet {
    /// Who sent it, in which life.
    pub from: Identity,
    /// For whom.
    pub to: Identity,
    /// What it is.
    pub cargo: Cargo,
}

impl Packet {
    /// The message, unless it is an image or about one.
    pub const fn message(&self) -> Option<&Message> {
        match &self.cargo {
            Cargo::Message(message) => Some(message),
            Cargo::Image { .. } | Cargo::Installed { .. } => None,
        }
    }

    /// Whether `older`, which was on its way when this one was sent, says nothing that this one
    /// does not say too. It can go: its receiver could have had it before this one was sent, to the
    /// same end, and after this one it would change nothing.
    fn supersedes(&self, older: &Self) -> bool {
        let (Some(new), Some(old)) = (self.message(), older.message()) else { return false };
        self.from == older.from
            && self.to == older.to
            && new.term == old.term
            && says_as_much(&new.body, &old.body)
    }
}

fn says_as_much(new: &MessageBody, old: &MessageBody) -> bool {
    use MessageBody::{Append, AppendAnswer};
    match (new, old) {
        (
            Append { previous, entries, commit, durable, round, .. },
            Append { previous: p, entries: e, commit: c, durable: d, round: r, .. },
        ) => previous == p && entries.starts_with(e) && commit >= c && durable >= d && round >= r,
        (
            AppendAnswer { accepted: true, matched, round, .. },
            AppendAnswer { accepted: true, matched: m, round: r, .. },
        ) => matched >= m && round >= r,
        _ => false,
    }
}

/// The set, sorted by hash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Network {
    packets: Arc<Vec<(u64, Arc<Packet>)>>,
}

impl Network {
    pub(crate) fn packets(&self) -> impl Iterator<Item = &Arc<Packet>> {
        self.packets.iter().map(|(_, packet)| packet)
    }

    pub(crate) fn insert(&mut self, packet: Packet) {
        let hash = hash_of(&packet);
        let place = self.packets.partition_point(|(other, _)| *other < hash);
        let mut equal = self.packets[place..].iter().take_while(|(other, _)| *other == hash);
        if equal.any(|(_, other)| **other == packet) {
            return;
        }
        self.retain(|other| !packet.supersedes(other));
        let place = self.packets.partition_point(|(other, _)| *other < hash);
        Arc::make_mut(&mut self.packets).insert(place, (hash, Arc::new(packet)));
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&Packet) -> bool) {
        if self.packets().any(|packet| !keep(packet)) {
            Arc::make_mut(&mut self.packets).retain(|(_, packet)| keep(packet));
        }
    }
}

impl Hash for Network {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for (hash, _) in self.packets.iter() {
            state.write_u64(*hash);
        }
    }
}

pub(crate) fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
