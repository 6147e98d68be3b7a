//! What must be true after every event, and of the whole history at the end.
//!
//! * *Election safety*: at most one vote of a node and one leader a term, elected by a quorum.
//! * *Committed never changes*: an entry that any node took for committed is the entry that every
//!   node takes for committed at that place (which is log matching, where it matters).
//! * *Committed is held by a quorum*, by rank, at the moment the first node takes it for committed,
//!   and is of that node's term.
//! * *Equal index, equal state hash*, on whichever nodes and whenever.
//! * *Acknowledged is committed*: at the index that was said, on every node that applied it.
//! * *Refused is not committed*, nor is anything committed twice.
//! * *Isolation*: no update is lost, no reader sees half of a transaction, and serializable
//!   transactions never leave nobody on duty (see `clients`).

use std::collections::{BTreeMap, BTreeSet};

use quorate_consensus::{
    Body, Config, Core, Entry, EntryIndex, Identity, Message, MessageBody, Role, Term,
};
use quorate_engine::Index;

/// Everything seen so far.
#[derive(Default)]
pub struct Checker {
    leaders: BTreeMap<Term, Identity>,
    /// For whom each node voted.
    votes: BTreeMap<(Term, Identity), Identity>,
    /// Leaders whose votes were counted.
    elected: BTreeSet<(Term, Identity)>,
    /// Committed entries, as the first node saw them.
    truth: BTreeMap<EntryIndex, (Term, Body)>,
    /// The newest entry that any node took for committed.
    highest: EntryIndex,
    /// Who ever held an entry.
    holders: BTreeMap<(EntryIndex, Term), BTreeSet<Identity>>,
    /// How far an image took the place of entries, by identity.
    images: BTreeMap<Identity, EntryIndex>,
    /// How far each identity's commit was looked at.
    seen: BTreeMap<Identity, EntryIndex>,
    hashes: BTreeMap<Index, (u128, Identity)>,
    /// Nodes may leave now, in the very step in which they acknowledge: who holds what is not
    /// known any more.
    ending: bool,
    /// Entries that a follower committed before its leader.
    pub early_ahead: u64,
}

impl Checker {
    /// A process began anew under this identity; it need not remember what it had committed, but
    /// what was committed must stay.
    pub fn started(&mut self, identity: Identity) {
        self.seen.remove(&identity);
        self.votes.retain(|(_, voter), _| *voter != identity);
    }

    /// The orderly end begins: quorums of holders and voters are not checked any more.
    pub fn end_begins(&mut self) {
        self.ending = true;
    }

    /// Looks at a node after a step of its. `leader_commit`: what the leader of its term has
    /// committed, if that leader lives.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn look(&mut self, core: &Core, leader_commit: Option<EntryIndex>) -> Result<(), String> {
        let identity = core.identity();
        if core.role() == Role::Leader {
            let leader = *self.leaders.entry(core.term()).or_insert(identity);
            if leader != identity {
                return Err(format!("two leaders in {:?}: {leader:?}, {identity:?}", core.term()));
            }
        }
        self.check_votes(core)?;
        self.note_holder(core);
        let commit = core.commit();
        let seen = self.seen.insert(identity, commit).unwrap_or_default();
        if commit < seen {
            return Err(format!("{identity:?} took back its commit {seen:?} to {commit:?}"));
        }
        self.check_rule(core, commit)?;
        self.highest = self.highest.max(commit);
        for place in seen.0 + 1..=commit.0 {
            self.note_committed(core, EntryIndex(place))?;
        }
        if let Some(leader_commit) = leader_commit.filter(|_| core.role() != Role::Leader) {
            self.early_ahead += commit.0.saturating_sub(leader_commit.0.max(seen.0));
        }
        Ok(())
    }

    /// Looks at a node's applied state.
    ///
    /// # Errors
    /// Another node had another hash at this index.
    pub fn look_at_state(
        &mut self,
        identity: Identity,
        index: Index,
        hash: u128,
    ) -> Result<(), String> {
        let (known, who) = *self.hashes.entry(index).or_insert((hash, identity));
        if known == hash {
            return Ok(());
        }
        Err(format!("at {index:?} {identity:?} has state {hash:032x}, {who:?} had {known:032x}"))
    }

    /// One vote a term, and whoever leads it got those of a quorum.
    fn check_votes(&mut self, core: &Core) -> Result<(), String> {
        let (identity, hard) = (core.identity(), core.hard_state());
        if let Some(candidate) = hard.vote {
            self.note_vote(hard.term, identity, candidate)?;
        }
        if core.role() != Role::Leader || !self.elected.insert((hard.term, identity)) {
            return Ok(());
        }
        if self.ending {
            return Ok(()); // who votes and ends in one step shows its vote to nobody
        }
        let voted = |who| self.votes.get(&(hard.term, who)) == Some(&identity);
        if electors(core).is_quorum(voted) {
            return Ok(());
        }
        Err(format!("{identity:?} leads {:?} without the votes of a quorum", hard.term))
    }

    /// Takes a node at its word, which is sent before anybody could look at the node again.
    ///
    /// # Errors
    /// It voted twice.
    pub fn hear(&mut self, from: Identity, to: Identity, said: &Message) -> Result<(), String> {
        match &said.body {
            MessageBody::VoteAnswer { granted: true, .. } => self.note_vote(said.term, from, to)?,
            MessageBody::Append { entries, commit, .. } => {
                for entry in entries {
                    self.holders.entry((entry.index, entry.term)).or_default().insert(from);
                }
                self.highest = self.highest.max(*commit);
            }
            MessageBody::AppendAnswer { matched, accepted: true, .. } => {
                let held = self.images.entry(from).or_default();
                *held = (*held).max(*matched);
            }
            _ => {}
        }
        Ok(())
    }

    fn note_vote(
        &mut self,
        term: Term,
        voter: Identity,
        candidate: Identity,
    ) -> Result<(), String> {
        let first = *self.votes.entry((term, voter)).or_insert(candidate);
        if first == candidate {
            return Ok(());
        }
        Err(format!("in {term:?} {voter:?} voted for {first:?}, then for {candidate:?}"))
    }

    fn note_holder(&mut self, core: &Core) {
        let identity = core.identity();
        let (mut place, mut term) = core.last();
        while place >= core.first() {
            if !self.holders.entry((place, term)).or_default().insert(identity) {
                return;
            }
            place = EntryIndex(place.0 - 1);
            match core.term_at(place) {
                Some(before) => term = before,
                None => break,
            }
        }
        let forgotten = EntryIndex(core.first().0.saturating_sub(1));
        let image = self.images.entry(identity).or_default();
        *image = (*image).max(forgotten);
    }

    fn note_committed(&mut self, core: &Core, place: EntryIndex) -> Result<(), String> {
        let Some(entry) = core.entry(place) else { return Ok(()) }; // came with an image
        match self.truth.get(&place) {
            Some((term, body)) if *term == entry.term && *body == entry.body => Ok(()),
            Some((term, _)) => Err(format!(
                "{:?} committed another entry at {place:?}: of {:?}, not of {term:?}",
                core.identity(),
                entry.term
            )),
            None => {
                self.check_held(core, place, entry.term)?;
                self.truth.insert(place, (entry.term, entry.body.clone()));
                Ok(())
            }
        }
    }

    /// Whoever is the first to commit up to an entry must be in that entry's term: one of an
    /// earlier term can be held by a quorum and be replaced all the same (Raft paper, figure 8).
    fn check_rule(&self, core: &Core, commit: EntryIndex) -> Result<(), String> {
        let (identity, now) = (core.identity(), core.term());
        let Some(entry) = core.entry(commit) else { return Ok(()) };
        if commit <= self.highest || entry.term == now {
            return Ok(());
        }
        let term = entry.term;
        Err(format!("in {now:?} {identity:?} was the first to commit {commit:?}, of {term:?}"))
    }

    /// An entry may be committed only once a quorum holds it, or a later one on top of it.
    fn check_held(&self, core: &Core, place: EntryIndex, term: Term) -> Result<(), String> {
        let has = |place, term, identity| {
            self.holders.get(&(place, term)).is_some_and(|set| set.contains(&identity))
        };
        let holds = |identity: Identity| {
            has(place, term, identity)
                || self.images.get(&identity).is_some_and(|image| *image >= place)
        };
        if self.ending
            || core.config().is_quorum(holds)
            || core.committed_config().1.is_quorum(holds)
        {
            return Ok(());
        }
        let who = self.holders.get(&(place, term));
        Err(format!("{:?} committed {place:?} of {term:?}, held by {who:?} only", core.identity()))
    }
}

/// The configuration that elected a leader. One that needs nobody else may have proposed another
/// one by the end of that very step.
fn electors(core: &Core) -> &Config {
    let kept = || core.entries_from(EntryIndex(0));
    let config = |entry: &'_ Entry| matches!(entry.body, Body::Config(_));
    if !kept().any(|entry| entry.term == core.term() && config(entry)) {
        return core.config();
    }
    let before = kept().filter(|entry| entry.term < core.term());
    let newest = before.filter_map(|entry| match &entry.body {
        Body::Config(config) => Some(config),
        _ => None,
    });
    newest.last().unwrap_or(core.committed_config().1)
}
