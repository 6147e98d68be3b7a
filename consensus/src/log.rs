//! The log as the core holds it: the entries it keeps, what was forgotten before them, and which
//! of them are configurations. Must never know of roles, peers or durability.

use std::collections::VecDeque;

use crate::types::{Body, Config, Entry, EntryIndex, Term};

/// Entries behind a base.
///
/// ```text
///   forgotten .... base | base+1 ................ last
///                  term   entries, dense
///                  config as of base, then the configurations among the entries
/// ```
///
/// Invariants:
/// - `entries` are dense from `base + 1`; their terms never fall and start at `base_term` or above.
/// - `configs` lists exactly the indexes of the configurations among `entries`, rising.
/// - `base_config` is in force at `base`; its index is at most `base`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Log {
    base: EntryIndex,
    base_term: Term,
    base_config: (EntryIndex, Config),
    entries: VecDeque<Entry>,
    configs: VecDeque<EntryIndex>,
}

impl Log {
    /// A log that begins behind `base`.
    pub(crate) fn new(base: EntryIndex, base_term: Term, config: Config) -> Self {
        Self {
            base,
            base_term,
            base_config: (base, config),
            entries: VecDeque::new(),
            configs: VecDeque::new(),
        }
    }

    pub(crate) const fn base(&self) -> EntryIndex {
        self.base
    }

    pub(crate) fn last(&self) -> (EntryIndex, Term) {
        self.entries.back().map_or((self.base, self.base_term), |entry| (entry.index, entry.term))
    }

    /// The term of an entry in the log or of the base; none for forgotten and future ones.
    pub(crate) fn term_at(&self, index: EntryIndex) -> Option<Term> {
        if index == self.base {
            return Some(self.base_term);
        }
        self.entry(index).map(|entry| entry.term)
    }

    pub(crate) fn entry(&self, index: EntryIndex) -> Option<&Entry> {
        let place = index.0.checked_sub(self.base.0)?.checked_sub(1)?;
        self.entries.get(usize::try_from(place).ok()?)
    }

    /// The entries from `index`, or from the first kept one if that is later.
    pub(crate) fn from(&self, index: EntryIndex) -> impl Iterator<Item = &Entry> {
        let skipped = index.0.saturating_sub(self.base.0).saturating_sub(1);
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX).min(self.entries.len());
        self.entries.range(skipped..)
    }

    /// The newest configuration and the entry that holds it.
    pub(crate) fn config(&self) -> (EntryIndex, &Config) {
        self.config_as_of(self.last().0)
    }

    /// The configuration in force at `index`: the newest one at or before it. For a forgotten index
    /// the oldest one still known.
    pub(crate) fn config_as_of(&self, index: EntryIndex) -> (EntryIndex, &Config) {
        for &place in self.configs.iter().rev().skip_while(|&&place| place > index) {
            if let Some(Entry { body: Body::Config(config), .. }) = self.entry(place) {
                return (place, config);
            }
        }
        (self.base_config.0, &self.base_config.1)
    }

    /// The configuration in force at `index` and all later ones.
    pub(crate) fn configs_since(&self, index: EntryIndex) -> impl Iterator<Item = &Config> {
        let later = self.configs.iter().filter(move |&&place| place > index);
        let later = later.filter_map(|&place| match self.entry(place) {
            Some(Entry { body: Body::Config(config), .. }) => Some(config),
            _ => None,
        });
        std::iter::once(self.config_as_of(index).1).chain(later)
    }

    /// Appends an entry that must follow the last one.
    pub(crate) fn append(&mut self, entry: Entry) {
        let (last, last_term) = self.last();
        assert!(entry.index == last.next(), "entry {:?} behind {last:?}", entry.index);
        assert!(entry.term >= last_term, "term {:?} behind {last_term:?}", entry.term);
        if matches!(entry.body, Body::Config(_)) {
            self.configs.push_back(entry.index);
        }
        self.entries.push_back(entry);
    }

    /// Drops entries from `from` on. Returns whether a configuration was among them.
    pub(crate) fn truncate(&mut self, from: EntryIndex) -> bool {
        assert!(from > self.base, "truncation from {from:?} into the base {:?}", self.base);
        let kept = usize::try_from(from.0 - self.base.0 - 1).unwrap_or(usize::MAX);
        self.entries.truncate(kept);
        let before = self.configs.len();
        while self.configs.back().is_some_and(|&place| place >= from) {
            self.configs.pop_back();
        }
        self.configs.len() != before
    }

    /// Forgets entries up to `upto`, which must be in the log; keeps its term and configuration.
    pub(crate) fn compact(&mut self, upto: EntryIndex) {
        let Some(term) = self.term_at(upto) else { return };
        let (place, config) = self.config_as_of(upto);
        self.base_config = (place, config.clone());
        while self.configs.front().is_some_and(|&place| place <= upto) {
            self.configs.pop_front();
        }
        let forgotten = usize::try_from(upto.0 - self.base.0).unwrap_or(usize::MAX);
        self.entries.drain(..forgotten.min(self.entries.len()));
        self.base = upto;
        self.base_term = term;
    }

    /// The newest place at or before `index` whose term is not above `term`: where two logs that
    /// differ at `index` can still agree. Never before the base.
    pub(crate) fn agreement(&self, index: EntryIndex, term: Term) -> (EntryIndex, Term) {
        let index = index.min(self.last().0).max(self.base);
        let kept = usize::try_from(index.0 - self.base.0).unwrap_or(usize::MAX);
        // Terms never fall, so the entries with small enough terms are a prefix.
        let within = self.entries.partition_point(|entry| entry.term <= term).min(kept);
        match within.checked_sub(1).and_then(|place| self.entries.get(place)) {
            Some(entry) => (entry.index, entry.term),
            None => (self.base, self.base_term),
        }
    }

    /// Checks the listed invariants; costs as much as the log is long.
    pub(crate) fn assert_invariants(&self) {
        let mut index = self.base;
        let mut term = self.base_term;
        let mut configs = VecDeque::new();
        for entry in &self.entries {
            assert!(entry.index == index.next(), "gap at {:?}", entry.index);
            assert!(entry.term >= term, "term falls at {:?}", entry.index);
            if matches!(entry.body, Body::Config(_)) {
                configs.push_back(entry.index);
            }
            index = entry.index;
            term = entry.term;
        }
        assert!(configs == self.configs, "configurations {:?} != {configs:?}", self.configs);
        assert!(self.base_config.0 <= self.base, "base configuration behind the base");
    }
}
