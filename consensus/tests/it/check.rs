//! What must hold whatever happens. The truth is collected from all nodes of a world as they
//! store, lead and commit; the first contradiction is an error that names what contradicts what.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use quorate_consensus::{Body, Config, Core, Entry, EntryIndex, Identity, Term};

#[derive(Default)]
pub(crate) struct Truth {
    /// Per committed index: its entry, and the term of the node that first committed it.
    committed: BTreeMap<u64, (Entry, Term)>,
    leaders: BTreeMap<Term, Identity>,
    /// Per place and term: the hash of the log up to there.
    chains: BTreeMap<(EntryIndex, Term), u64>,
    /// Who ever held an entry durably.
    held: BTreeMap<(EntryIndex, Term), BTreeSet<Identity>>,
    pub(crate) errors: Vec<String>,
    pub(crate) leader_changes: u64,
    pub(crate) truncations: u64,
    pub(crate) early_ahead: u64,
    pub(crate) images: u64,
    pub(crate) configs_committed: u64,
    pub(crate) joint_committed: u64,
    pub(crate) windows_committed: u64,
}

pub(crate) fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Truth {
    pub(crate) fn fail(&mut self, what: String) {
        self.errors.push(what);
    }

    /// Log matching: equal place and term means an equal log up to there.
    pub(crate) fn appended(
        &mut self,
        core: &Core,
        first: EntryIndex,
        chain_before: u64,
    ) -> Vec<u64> {
        let mut chain = chain_before;
        let mut chains = Vec::new();
        for entry in core.entries_from(first) {
            chain = hash_of(&(chain, entry));
            let known = *self.chains.entry((entry.index, entry.term)).or_insert(chain);
            if known != chain {
                let who = core.identity();
                self.fail(format!("log matching: {who:?} differs at {entry:?}"));
            }
            chains.push(chain);
        }
        chains
    }

    pub(crate) fn stored(&mut self, who: Identity, index: EntryIndex, term: Term) {
        self.held.entry((index, term)).or_default().insert(who);
    }

    pub(crate) fn leads(&mut self, core: &Core) {
        let (who, term) = (core.identity(), core.term());
        let known = *self.leaders.entry(term).or_insert_with(|| {
            self.leader_changes += 1;
            who
        });
        if known != who {
            self.fail(format!("election safety: {known:?} and {who:?} lead {term:?}"));
        }
        let newest = self.committed.values().rev().find(|(_, at)| *at < term);
        if let Some((entry, at)) = newest
            && entry.index >= core.first()
            && core.term_at(entry.index) != Some(entry.term)
        {
            let (index, last) = (entry.index, core.last());
            self.errors.push(format!(
                "leader completeness: {who:?} leads {term:?} with {last:?} without {index:?} \
                 of {:?}, committed in {at:?}",
                entry.term
            ));
        }
    }

    /// State machine safety, and that the commitment rests on a quorum of durable copies.
    pub(crate) fn commits(&mut self, core: &Core, from: EntryIndex, upto: EntryIndex, early: bool) {
        let mut fresh = false;
        for entry in core.entries_from(from.next()).take((upto.0 - from.0) as usize) {
            if let Some((known, _)) = self.committed.get(&entry.index.0) {
                if known != entry {
                    let who = core.identity();
                    self.errors.push(format!("{who:?} commits {entry:?}, before: {known:?}"));
                }
                continue;
            }
            fresh = true;
            self.note_kind(entry);
            self.committed.insert(entry.index.0, (entry.clone(), core.term()));
        }
        if fresh {
            self.early_ahead += u64::from(early);
            self.on_quorum(core, upto);
        }
    }

    fn note_kind(&mut self, entry: &Entry) {
        match &entry.body {
            Body::Noop => {}
            Body::Window { .. } => self.windows_committed += 1,
            Body::Config(config) => {
                self.configs_committed += 1;
                self.joint_committed += u64::from(config.next.is_some());
            }
        }
    }

    fn on_quorum(&mut self, core: &Core, upto: EntryIndex) {
        let Some(term) = core.term_at(upto) else { return };
        let nobody = BTreeSet::new();
        let held = self.held.get(&(upto, term)).unwrap_or(&nobody);
        // The configuration in force at the place, or a later one in the log.
        let mut configs: Vec<Config> = vec![core.committed_config().1.clone()];
        for entry in core.entries_from(core.first()) {
            if let Body::Config(config) = &entry.body {
                configs.push(config.clone());
            }
        }
        if !configs.iter().any(|config| config.is_quorum(|who| held.contains(&who))) {
            let who = core.identity();
            self.errors.push(format!(
                "{who:?} commits {upto:?} of {term:?}, held only by {held:?} ({configs:?})"
            ));
        }
    }
}
