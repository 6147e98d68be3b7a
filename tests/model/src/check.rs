//! What must hold whatever happens. Looked at where it could break, at the step that would break
//! it; what is broken stays in the state, and each rule is a property of the search. Must never
//! use the core's own quorum function: ranks are added up here once more, as plainly as possible.

use std::sync::Arc;

use quorate_consensus::{Body, Config, Core, Entry, EntryIndex, Identity, Member, Role, Term};

use crate::node::Node;

/// A broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wrong {
    /// Two nodes lead one term.
    TwoLeaders,
    /// One member voted for two candidates in one term.
    VotedTwice,
    /// Two logs have an entry of equal place and term, and differ at or before it.
    LogsDiffer,
    /// A committed entry is another one somewhere, or later.
    CommitChanged,
    /// What a node takes for committed is not held by a quorum of the configuration in force.
    NotOnQuorum,
    /// A leader lacks an entry that was committed in an earlier term.
    LeaderIncomplete,
    /// Two configurations next to each other in a log have quorums without a common member.
    QuorumsApart,
    /// A configuration was put behind one that is not committed.
    TwoChanges,
    /// A confirmed read can miss what was committed before it was asked.
    StaleRead,
}

impl Wrong {
    /// All rules, in the order of the variants.
    pub const ALL: [Self; 9] = [
        Self::TwoLeaders,
        Self::VotedTwice,
        Self::LogsDiffer,
        Self::CommitChanged,
        Self::NotOnQuorum,
        Self::LeaderIncomplete,
        Self::QuorumsApart,
        Self::TwoChanges,
        Self::StaleRead,
    ];

    /// The rule, as reports name it.
    pub const fn rule(self) -> &'static str {
        match self {
            Self::TwoLeaders => "one leader a term",
            Self::VotedTwice => "one vote a member and term",
            Self::LogsDiffer => "logs match",
            Self::CommitChanged => "committed entries never change",
            Self::NotOnQuorum => "committed entries are on a quorum",
            Self::LeaderIncomplete => "leaders have what was committed",
            Self::QuorumsApart => "neighbouring configurations share quorums",
            Self::TwoChanges => "one change of members at a time",
            Self::StaleRead => "confirmed reads are fresh",
        }
    }
}

/// What a life that is over held when it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Dead {
    pub(crate) who: Identity,
    /// The first entry that it had not put away in an image.
    first: EntryIndex,
    held: Vec<(EntryIndex, Term)>,
}

impl Dead {
    pub(crate) fn new(node: &Node) -> Self {
        let entries = node.core.entries_from(EntryIndex(0));
        let held = entries.map(|entry| (entry.index, entry.term)).collect();
        Self { who: node.who(), first: node.core.first(), held }
    }

    /// Whether it held the entry, itself or, as only what is committed is put away, in an image.
    fn held(&self, index: EntryIndex, term: Term) -> bool {
        index < self.first || self.held.contains(&(index, term))
    }
}

/// What is known of the whole cluster's past.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Truth {
    /// The committed entries from the first on, each with the lowest term in which a node took it
    /// for committed.
    committed: Arc<Vec<(Entry, Term)>>,
    /// Who led, by term.
    leaders: Vec<Option<Identity>>,
    pub(crate) dead: Arc<Vec<Dead>>,
    pub(crate) wrong: Option<Wrong>,
}

impl Truth {
    /// Notes the first broken rule; a state in which one is broken is not explored further.
    pub(crate) fn fail(&mut self, wrong: Wrong) {
        self.wrong.get_or_insert(wrong);
    }

    pub(crate) fn committed(&self) -> EntryIndex {
        EntryIndex(self.committed.len() as u64)
    }

    /// The node has become leader of its term.
    pub(crate) fn leads(&mut self, core: &Core) {
        let (who, term) = (core.identity(), core.term());
        let place = term.0 as usize;
        if self.leaders.len() <= place {
            self.leaders.resize(place + 1, None);
        }
        if self.leaders[place].replace(who).is_some_and(|other| other != who) {
            self.fail(Wrong::TwoLeaders);
        }
        self.is_complete(core);
    }

    /// Whether a leader has all that was committed in earlier terms.
    fn is_complete(&mut self, core: &Core) {
        let lacks = self.committed.iter().any(|(entry, at)| {
            *at < core.term()
                && entry.index >= core.first()
                && core.term_at(entry.index) != Some(entry.term)
        });
        if lacks {
            self.fail(Wrong::LeaderIncomplete);
        }
    }

    /// The node takes entries behind `from` up to `upto` for committed.
    pub(crate) fn commits<'a>(
        &mut self,
        core: &Core,
        (from, upto): (EntryIndex, EntryIndex),
        others: impl Iterator<Item = &'a Node> + Clone,
    ) {
        for entry in core.entries_from(from.next()).take_while(|entry| entry.index <= upto) {
            let place = entry.index.0 as usize - 1;
            match self.committed.get(place) {
                Some((known, _)) if known != entry => self.fail(Wrong::CommitChanged),
                Some((_, at)) if *at <= core.term() => {}
                Some(_) => Arc::make_mut(&mut self.committed)[place].1 = core.term(),
                None => Arc::make_mut(&mut self.committed).push((entry.clone(), core.term())),
            }
        }
        if !self.is_on_quorum(core, upto, others.clone()) {
            self.fail(Wrong::NotOnQuorum);
        }
        for leader in others.filter(|other| other.core.role() == Role::Leader) {
            self.is_complete(&leader.core);
        }
    }

    /// Whether a quorum of the configuration in force at the place, or of a later one in the log,
    /// holds the entry; the committing node's own copy counts like the others'.
    fn is_on_quorum<'a>(
        &self,
        core: &Core,
        upto: EntryIndex,
        nodes: impl Iterator<Item = &'a Node>,
    ) -> bool {
        let Some(term) = core.term_at(upto) else { return false };
        let mut holders: Vec<_> =
            nodes.filter(|node| node.holds(upto, term)).map(Node::who).collect();
        let dead = self.dead.iter().filter(|dead| dead.held(upto, term));
        holders.extend(dead.map(|dead| dead.who));
        let at_place = core.committed_config().1;
        let later = core.entries_from(core.first()).filter_map(config_of);
        std::iter::once(at_place).chain(later).any(|config| is_quorum(config, &holders))
    }

    /// An entry was appended to the log of `core`: it must match the logs of the others.
    pub(crate) fn matches<'a>(&mut self, core: &Core, others: impl Iterator<Item = &'a Node>) {
        for other in others {
            let equal = |index: &EntryIndex| {
                let term = core.term_at(*index);
                term.is_some() && term == other.core.term_at(*index)
            };
            let last = core.last().0.min(other.core.last().0);
            let first = core.first().max(other.core.first());
            let places = (first.0..=last.0).rev().map(EntryIndex);
            let Some(newest) = places.clone().find(equal) else { continue };
            let differs = |index| core.entry(index) != other.core.entry(index);
            if places.filter(|index| *index <= newest).any(differs) {
                self.fail(Wrong::LogsDiffer);
            }
        }
    }

    /// A leader put a configuration into its log at `index`.
    pub(crate) fn changes(&mut self, core: &Core, index: EntryIndex, compare: bool) {
        // Own copies count once they are durable, so this entry is not committed in this step.
        let mut before = core.committed_config().1;
        for entry in core.entries_from(core.commit().next()) {
            if let Some(uncommitted) = config_of(entry).filter(|_| entry.index < index) {
                before = uncommitted;
                self.fail(Wrong::TwoChanges);
            }
        }
        let new = core.entry(index).and_then(config_of);
        if compare && new.is_some_and(|new| !share_quorums(before, new)) {
            self.fail(Wrong::QuorumsApart);
        }
    }
}

pub(crate) const fn config_of(entry: &Entry) -> Option<&Config> {
    match &entry.body {
        Body::Config(config) => Some(config),
        Body::Noop | Body::Window { .. } => None,
    }
}

fn halves(config: &Config) -> impl Iterator<Item = &Vec<Member>> {
    std::iter::once(&config.current).chain(&config.next)
}

fn is_quorum(config: &Config, holders: &[Identity]) -> bool {
    halves(config).all(|half| {
        let total: u32 = half.iter().map(|member| member.rank).sum();
        let held = half.iter().filter(|member| holders.contains(&member.identity));
        held.map(|member| member.rank).sum::<u32>() > total / 2
    })
}

/// Whether each quorum of one and each of the other have a member in common, by trying all of them.
fn share_quorums(one: &Config, other: &Config) -> bool {
    let mut who: Vec<_> =
        halves(one).chain(halves(other)).flatten().map(|member| member.identity).collect();
    who.sort_unstable();
    who.dedup();
    (0..1_u32 << who.len()).all(|set| {
        let chosen = |wanted| {
            let is_in = move |place: &usize| (set >> place & 1 == 1) == wanted;
            (0..who.len()).filter(is_in).map(|place| who[place]).collect::<Vec<_>>()
        };
        !(is_quorum(one, &chosen(true)) && is_quorum(other, &chosen(false)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(ranks: &[u32]) -> Config {
        let member =
            |(node, &rank): (usize, &u32)| Member { identity: Identity::new(node as u32, 1), rank };
        Config { current: ranks.iter().enumerate().map(member).collect(), next: None }
    }

    #[test]
    fn quorums_of_neighbours_are_compared_by_trying_all() {
        assert!(share_quorums(&config(&[1, 1, 1]), &config(&[1, 1, 0])));
        assert!(share_quorums(&config(&[1, 1, 1]), &config(&[2, 1, 1])));
        assert!(!share_quorums(&config(&[1, 1, 1]), &config(&[3, 1, 1])));
        assert!(!share_quorums(&config(&[1, 0, 0]), &config(&[0, 1, 0])));
        let joint =
            Config { current: config(&[1, 1, 1]).current, next: Some(config(&[3, 1, 1]).current) };
        assert!(share_quorums(&config(&[1, 1, 1]), &joint));
        assert!(share_quorums(&joint, &config(&[3, 1, 1])));
    }

    #[test]
    fn ranks_are_added_up_in_both_halves() {
        let who = |node| Identity::new(node, 1);
        assert!(is_quorum(&config(&[2, 1, 1]), &[who(0), who(1)]));
        assert!(!is_quorum(&config(&[2, 1, 1]), &[who(1), who(2)]));
        let joint =
            Config { current: config(&[1, 1, 1]).current, next: Some(config(&[3, 1, 1]).current) };
        assert!(!is_quorum(&joint, &[who(1), who(2)]));
        assert!(!is_quorum(&joint, &[who(0)]));
        assert!(is_quorum(&joint, &[who(0), who(2)]));
    }
}
