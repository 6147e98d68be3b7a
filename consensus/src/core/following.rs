//! What a follower stores, and what it can prove by itself.
//!
//! # Early commit
//!
//! An append tells up to where the leader's own log is durable. A follower that holds an entry of
//! the leader's *current* term, durably, knows two holders: the leader and itself. If their ranks
//! are a quorum the entry is committed, and the follower need not wait to be told. Each test is
//! needed:
//! - *current term*: an entry of an earlier term can be replaced although a quorum holds it (the
//!   figure 8 case of the Raft paper).
//! - *verified*: only what equals the leader's log counts; a longer own log may hold a stale
//!   suffix.
//! - *durable on both sides*: a holder that may forget is none.
//! - *quorum by the configuration of the verified prefix*: a stale suffix may hold a configuration
//!   that never was. If the leader's log goes on with a newer configuration, that one's quorums
//!   share a member with these, as for any two neighbouring configurations.
//!
//! Must never send anything but answers.

use super::{Core, State};
use crate::output::Output;
use crate::planted::Bug;
use crate::types::{Entry, EntryIndex, Identity, MessageBody, Term};

/// What an append asks of the own log.
enum Fit {
    /// Something that no leader of this term can have sent.
    Impossible,
    /// The entry before the first one is not the same here.
    Mismatch,
    /// All up to here are there already; those behind must be appended, after dropping what is in
    /// their place.
    Behind(EntryIndex),
}

impl Core {
    pub(super) fn on_append(
        &mut self,
        from: Identity,
        term: Term,
        body: MessageBody,
        out: &mut Vec<Output>,
    ) {
        let MessageBody::Append { previous, previous_term, entries, commit, durable, round } = body
        else {
            return;
        };
        if term < self.term() {
            self.answer(from, (self.commit, Term(0)), false, round, out);
            return;
        }
        if !self.accept_leader(from) {
            return;
        }
        match self.fit(previous, previous_term, &entries) {
            Fit::Impossible => {}
            Fit::Mismatch => {
                let guess = self.log.agreement(EntryIndex(previous.0 - 1), previous_term);
                self.answer(from, guess, false, round, out);
            }
            Fit::Behind(same) => {
                let end = EntryIndex(previous.0 + entries.len() as u64);
                self.store(same, entries, out);
                let following = &mut self.following;
                following.verified = following.verified.max(end);
                following.leader_commit = following.leader_commit.max(commit);
                following.leader_durable = following.leader_durable.max(durable);
                let verified = following.verified;
                let verified_term = self.log.term_at(verified).unwrap_or_default();
                self.answer(from, (verified, verified_term), true, round, out);
                self.commit_as_follower(out);
            }
        }
    }

    /// Commits what the leader told and what this node can prove.
    pub(super) fn commit_as_follower(&mut self, out: &mut Vec<Output>) {
        let told = self.following.leader_commit.min(self.following.verified);
        if told > self.commit {
            self.commit_to(told, false, out);
        }
        if let Some(proven) = self.proven_commit() {
            self.commit_to(proven, true, out);
        }
    }

    /// The newest entry that this node knows to be on a quorum, if commit is behind it.
    fn proven_commit(&self) -> Option<EntryIndex> {
        let verified = self.following.verified;
        let leader = self.following.source?;
        let mut proven = self.following.leader_durable.min(verified).min(self.durable);
        if self.planted(Bug::EarlyCommitBeyondDurable) {
            proven = verified;
        }
        // The own copy counts as an acknowledgement in this term, so the term must be durable too.
        let term_is_durable = self.persisted >= self.hard_sequence;
        let term_is_current = self.log.term_at(proven) == Some(self.term());
        let (_, config) = self.log.config_as_of(verified);
        let is_held = self.is_quorum_by(config, |who| who == leader || who == self.identity);
        let is_proven = proven > self.commit
            && (term_is_durable || self.planted(Bug::EarlyCommitBeyondDurable))
            && (term_is_current || self.planted(Bug::EarlyCommitWithoutTerm))
            && (is_held || self.planted(Bug::EarlyCommitWithoutQuorum));
        is_proven.then_some(proven)
    }

    /// Follows the sender of an append of the own term. False when it cannot be its leader.
    fn accept_leader(&mut self, from: Identity) -> bool {
        // The source of a term that this node led is this node: nobody else can lead it.
        if self.following.source.is_some_and(|source| source != from) {
            return false;
        }
        self.following.source = Some(from);
        self.following.is_asked_in_vain = false;
        if !matches!(self.state, State::Follower) {
            self.wait_as_follower(self.patient_at());
        }
        // What arrives late over a connection that broke shows nothing about the present.
        if self.connected.contains(&from) {
            self.following.leader = Some(from);
            self.following.heard_at = self.now;
            self.election_at = self.patient_at();
        }
        true
    }

    /// Compares an append with the own log. Up to the base everything is committed and so the same
    /// in the log of each leader.
    fn fit(&self, previous: EntryIndex, previous_term: Term, entries: &[Entry]) -> Fit {
        let base = self.log.base();
        if previous >= base && self.log.term_at(previous) != Some(previous_term) {
            let is_committed = previous <= self.commit;
            return if is_committed { Fit::Impossible } else { Fit::Mismatch };
        }
        let mut same = previous.max(base);
        for entry in entries.iter().skip_while(|entry| entry.index < base) {
            match self.log.term_at(entry.index) {
                Some(term) if term == entry.term => same = entry.index,
                Some(_) => {
                    let settled = self.commit.max(self.following.verified);
                    if entry.index <= settled {
                        return Fit::Impossible;
                    }
                    break;
                }
                None => break,
            }
        }
        Fit::Behind(same)
    }

    /// Appends the entries behind `same`, after dropping what differs there.
    fn store(&mut self, same: EntryIndex, entries: Vec<Entry>, out: &mut Vec<Output>) {
        let mut missing = entries.into_iter().skip_while(|entry| entry.index <= same).peekable();
        let Some(first) = missing.peek().map(|entry| entry.index) else { return };
        if first <= self.log.last().0 {
            self.truncate(first, out);
        }
        for entry in missing {
            self.append(entry, out);
        }
    }

    /// Answers an append. What it promises may be staged in this step, so it waits for that.
    fn answer(
        &self,
        to: Identity,
        (matched, matched_term): (EntryIndex, Term),
        accepted: bool,
        round: u64,
        out: &mut Vec<Output>,
    ) {
        let body = MessageBody::AppendAnswer { matched, matched_term, accepted, round };
        self.send(to, self.term(), body, self.sequence, out);
    }
}
