//! One node: a core, and the plainest driver that keeps the core's contract. Outputs are carried
//! out in order, promises wait for durability, a crash keeps what had reached the disk.

use std::collections::VecDeque;

use quorate_consensus::{
    Core, Entry, EntryIndex, HardState, Identity, Input, Message, Role, Settings, Start, Term,
};

use crate::network::hash_of;

/// One `Persist` on its way to the disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Write {
    pub(crate) hard: Option<HardState>,
    pub(crate) truncate_from: Option<EntryIndex>,
    pub(crate) entries: Vec<Entry>,
}

/// A running node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) core: Core,
    /// What a crash leaves, if there is a disk.
    pub(crate) disk: Option<Start>,
    /// Sequences 1, 2, ... of the canonical core.
    pub(crate) writes: VecDeque<Write>,
    /// Messages that wait for a sequence.
    pub(crate) held: Vec<(u64, Identity, Message)>,
    /// Whether anything ever happened to it.
    touched: bool,
    hash: u64,
}

impl Node {
    /// A node that starts from `start`, with a disk or without.
    pub(crate) fn new(settings: &Settings, who: Identity, start: Start, has_disk: bool) -> Self {
        let disk = has_disk.then(|| start.clone());
        let mut core = Core::new(settings.clone(), who, start, 0);
        core.make_canonical();
        let (writes, held) = (VecDeque::new(), Vec::new());
        let mut node = Self { core, disk, writes, held, touched: false, hash: 0 };
        node.rehash();
        node
    }

    /// The node that comes back after a crash; it is touched.
    pub(crate) fn again(settings: &Settings, who: Identity, start: Start, has_disk: bool) -> Self {
        let mut node = Self::new(settings, who, start, has_disk);
        node.touched = true;
        node.rehash();
        node
    }

    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn who(&self) -> Identity {
        self.core.identity()
    }

    /// The term that not even a crash takes back.
    pub(crate) fn durable_term(&self) -> Term {
        self.disk.as_ref().map_or(self.core.term(), |disk| disk.hard.term)
    }

    pub(crate) const fn is_touched(&self) -> bool {
        self.touched
    }

    /// Whether it holds this entry so that a crash that keeps its memory or disk leaves it there.
    pub(crate) fn holds(&self, index: EntryIndex, term: Term) -> bool {
        match &self.disk {
            None => self.core.term_at(index).map_or(index < self.core.first(), |t| t == term),
            Some(disk) => {
                disk.entries.iter().any(|entry| entry.index == index && entry.term == term)
            }
        }
    }

    /// What a step changed that must become durable.
    pub(crate) fn write(&mut self, write: Write) {
        self.writes.push_back(write);
    }

    /// Makes the oldest write durable and returns the word for the core.
    pub(crate) fn sync(&mut self) -> Option<Input> {
        let write = self.writes.pop_front()?;
        if let Some(disk) = &mut self.disk {
            if let Some(hard) = write.hard {
                disk.hard = hard;
            }
            if let Some(from) = write.truncate_from {
                disk.entries.retain(|entry| entry.index < from);
            }
            disk.entries.extend(write.entries);
        }
        Some(Input::Persisted { sequence: 1 })
    }

    /// Brings core, writes and held messages to their canonical form after `sequence` was
    /// answered (0: none was).
    pub(crate) fn settle(&mut self, answered: u64) {
        self.core.make_canonical();
        for (after, _, _) in &mut self.held {
            *after = after.saturating_sub(answered);
        }
        self.rehash();
    }

    fn rehash(&mut self) {
        self.touched |= self.core.term() > Term(0) || self.core.role() != Role::Follower;
        let Self { core, disk, writes, held, touched, .. } = self;
        self.hash = hash_of(&(core, disk, writes, held, touched));
    }
}
