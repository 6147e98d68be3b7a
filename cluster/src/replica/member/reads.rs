//! Fresh reads: how a node learns that nothing newer is acknowledged elsewhere.
//!
//! ```text
//!   reader --> next question --AskRead--> leader: index = max(commit, durable), then one round of
//!     ^            (one under way)          |     heartbeats that a quorum answers: it still leads
//!     +-- applied here up to it <-ReadIndex-+
//! ```
//!
//! Why this is linearizable. Whatever was acknowledged before the reader came is an entry that was
//! committed before the question left. The one who committed it was a leader of some term, or a
//! follower by early commit, up to what that leader said it has itself.
//!
//! * The index is taken after the question arrived, so it covers everything that the answering
//!   leader, or followers by its word, had committed by then.
//! * An earlier term's commits are in front of the entry that opens its own term, and before that
//!   one is committed it answers nobody.
//! * A later term had not committed anything: a quorum still followed this one after the index was
//!   taken.
//!
//! So all of it is in front of the index, and the reader begins when this node has applied that
//! far. An entry of a later term serves as well, should the index have been cut off uncommitted.
//!
//! A node whose state is disputed (`digests`) refuses these readers, and a disputed leader answers
//! nobody: the index would be right, and what stands behind it not.
//!
//! Readers who come while a question is under way share the next one. The leader gathers all
//! questions that come while a round is under way into one next round. A question may be asked
//! again, of any leader: every answer to it is of a moment after it first left.
//!
//! Invariants:
//!
//! * a reader is in `readers` and in `deadlines` until it is answered, which happens once;
//! * at most one question of this node and one round of this leader are under way;
//! * `askers` and `round` are empty while this node does not lead.

use std::collections::{BTreeMap, BTreeSet};

use quorate_consensus::{EntryIndex, Identity, Input as CoreInput, Term, Ticks};
use quorate_engine::Index;

use super::super::message::PeerMessage;
use super::super::node::Node;
use super::Member;
use crate::fresh::{FreshError, Freshness};

/// After how long without an answer a question is asked again, ms. Links do not lose messages while
/// they last; this is for leaders who were not ready to answer.
const ASK_AGAIN_MS: Ticks = 40;

/// Somebody who waits.
#[derive(Debug)]
struct Reader {
    deadline: Ticks,
    limit_ms: u64,
    /// The index that must be visible; none for who asked for everything.
    index: Option<Index>,
}

/// The question under way. It leaves again until it is answered.
#[derive(Debug)]
struct Question {
    number: u64,
    readers: Vec<u64>,
    asked_at: Ticks,
}

/// Readers who know how far this node must come.
#[derive(Debug)]
struct Confirmed {
    entry: EntryIndex,
    term: Term,
    readers: Vec<u64>,
}

/// The leader's round under way.
#[derive(Debug)]
struct Round {
    number: u64,
    /// What was committed when it began.
    commit: EntryIndex,
    askers: BTreeMap<Identity, u64>,
}

/// See the module. Bounded by the connections of this node and by the number of nodes.
#[derive(Debug, Default)]
pub(super) struct Reads {
    readers: BTreeMap<u64, Reader>,
    deadlines: BTreeSet<(Ticks, u64)>,
    at_least: BTreeSet<(Index, u64)>,
    /// Readers for whom no question has left.
    next: Vec<u64>,
    question: Option<Question>,
    confirmed: Vec<Confirmed>,
    questions: u64,
    /// Whose questions, and which, wait for the next round.
    askers: BTreeMap<Identity, u64>,
    round: Option<Round>,
    rounds: u64,
}

impl Reads {
    pub(super) fn next_deadline(&self) -> Option<Ticks> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// True while something may have to be asked again.
    pub(super) fn is_asking(&self) -> bool {
        self.question.is_some() || !self.next.is_empty() || !self.askers.is_empty()
    }

    pub(super) fn link_broke(&mut self, peer: Identity) {
        self.askers.remove(&peer);
    }

    /// This node leads no longer: who asked will ask its successor.
    pub(super) fn stop_leading(&mut self) {
        self.askers.clear();
        self.round = None;
    }

    fn insert(&mut self, token: u64, reader: Reader) {
        self.deadlines.insert((reader.deadline, token));
        match reader.index {
            Some(index) => {
                self.at_least.insert((index, token));
            }
            None => self.next.push(token),
        }
        let before = self.readers.insert(token, reader);
        assert!(before.is_none(), "reader {token} came twice");
    }

    /// Takes a reader out of everything but the lists of tokens, which skip who is gone.
    fn remove(&mut self, token: u64) -> Option<Reader> {
        let reader = self.readers.remove(&token)?;
        self.deadlines.remove(&(reader.deadline, token));
        if let Some(index) = reader.index {
            self.at_least.remove(&(index, token));
        }
        Some(reader)
    }

    /// Makes the waiting readers a question, unless one is under way.
    fn form_question(&mut self, now: Ticks) -> Option<u64> {
        if self.question.is_some() || self.next.is_empty() {
            return None;
        }
        self.questions += 1;
        let readers = std::mem::take(&mut self.next);
        self.question = Some(Question { number: self.questions, readers, asked_at: now });
        Some(self.questions)
    }

    /// A peer, or this node, asks this leader. Who asks again while its question is in the round
    /// under way gets that answer.
    fn ask(&mut self, from: Identity, number: u64) {
        let in_round = |round: &Round| round.askers.get(&from) == Some(&number);
        if !self.round.as_ref().is_some_and(in_round) {
            self.askers.insert(from, number);
        }
    }

    /// The next round, unless one is under way.
    fn form_round(&mut self, commit: EntryIndex) -> Option<u64> {
        if self.round.is_some() || self.askers.is_empty() {
            return None;
        }
        self.rounds += 1;
        let askers = std::mem::take(&mut self.askers);
        self.round = Some(Round { number: self.rounds, commit, askers });
        Some(self.rounds)
    }

    /// The question is answered; stale answers change nothing.
    fn confirm(&mut self, number: u64, entry: EntryIndex, term: Term) {
        let Some(question) = self.question.take_if(|question| question.number == number) else {
            return;
        };
        self.confirmed.push(Confirmed { entry, term, readers: question.readers });
    }

    /// The readers for whom everything is applied now.
    fn take_ready(&mut self, applied: EntryIndex, term: Term, visible: Index) -> Vec<u64> {
        let is_ready =
            |confirmed: &mut Confirmed| confirmed.entry <= applied || confirmed.term < term;
        let mut ready: Vec<u64> =
            self.confirmed.extract_if(.., is_ready).flat_map(|found| found.readers).collect();
        while let Some(&(index, token)) = self.at_least.first() {
            if index > visible {
                break;
            }
            self.at_least.pop_first();
            ready.push(token);
        }
        ready.retain(|token| self.remove(*token).is_some());
        ready
    }

    /// The readers whose time is over, and whether the leader had answered.
    fn take_expired(&mut self, now: Ticks) -> Vec<(u64, Reader, bool)> {
        let mut expired = Vec::new();
        while let Some(&(deadline, token)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            let reader = self.remove(token).expect("who has a deadline waits");
            let holds = |found: &Confirmed| found.readers.contains(&token);
            let confirmed = self.confirmed.iter().any(holds);
            expired.push((token, reader, confirmed));
        }
        if !expired.is_empty() {
            self.forget_gone();
        }
        expired
    }

    /// The readers who need a leader and have no answer of one.
    fn take_unconfirmed(&mut self) -> Vec<u64> {
        let asked = self.question.take().map_or(Vec::new(), |question| question.readers);
        let mut tokens: Vec<u64> = asked.into_iter().chain(self.next.drain(..)).collect();
        tokens.retain(|token| self.remove(*token).is_some());
        tokens
    }

    /// The readers who want to be sure that nothing newer is elsewhere.
    fn take_linearizable(&mut self) -> Vec<u64> {
        let wants = self.readers.iter().filter(|(_, reader)| reader.index.is_none());
        let mut tokens: Vec<u64> = wants.map(|(token, _)| *token).collect();
        if !tokens.is_empty() {
            tokens.retain(|token| self.remove(*token).is_some());
            self.forget_gone();
        }
        tokens
    }

    fn take_all(&mut self) -> Vec<u64> {
        self.deadlines.clear();
        std::mem::take(&mut self.readers).into_keys().collect()
    }

    /// Who is gone must not pile up in the lists while no leader answers.
    fn forget_gone(&mut self) {
        let waits = |token: &u64| self.readers.contains_key(token);
        self.next.retain(waits);
        for confirmed in &mut self.confirmed {
            confirmed.readers.retain(waits);
        }
        self.confirmed.retain(|confirmed| !confirmed.readers.is_empty());
        if let Some(question) = &mut self.question {
            question.readers.retain(waits);
        }
        self.question.take_if(|question| question.readers.is_empty());
    }
}

impl Member {
    /// A local reader wants to see at least that.
    pub(in super::super) fn fresh(
        &mut self,
        node: &mut Node,
        token: u64,
        freshness: Freshness,
        limit_ms: u64,
    ) {
        let index = match freshness {
            Freshness::Local => return self.answer_reader(node, token),
            Freshness::AtLeast(index) if index <= node.applier.applied() => {
                return self.answer_reader(node, token);
            }
            Freshness::AtLeast(index) => Some(index),
            Freshness::Linearizable => None,
        };
        let deadline = node.now.saturating_add(limit_ms);
        self.reads.insert(token, Reader { deadline, limit_ms, index });
    }

    /// A peer asks how far it must come. Only the leader can tell; another one says nothing, and
    /// the peer asks again.
    pub(super) fn read_asked(&mut self, from: Identity, number: u64) {
        if self.is_leading() {
            self.reads.ask(from, number);
        }
    }

    /// The leader's answer to this node's question.
    pub(super) fn read_answered(
        &mut self,
        node: &mut Node,
        number: u64,
        entry: EntryIndex,
        term: Term,
    ) {
        self.reads.confirm(number, entry, term);
        self.answer_reads(node);
    }

    /// What follows for readers from any input.
    pub(super) fn settle_reads(&mut self, node: &mut Node) {
        self.refuse_disputed_reads(node);
        if !self.reads.is_asking() {
            return;
        }
        if self.core.leader().is_none() && !self.core.connected_quorum() {
            let reason = self.reach(node);
            for token in self.reads.take_unconfirmed() {
                node.fresh(token, Err(FreshError::NoQuorum { reason: reason.clone() }));
            }
        }
        let reachable = self.core.leader().filter(|leader| self.reaches(node, *leader));
        if let Some(leader) = reachable
            && let Some(number) = self.reads.form_question(node.now)
        {
            self.ask_leader(node, leader, number);
        }
        self.start_read_round(node);
    }

    /// What this node would show may be wrong.
    fn refuse_disputed_reads(&mut self, node: &mut Node) {
        if !self.digests.is_disputed() {
            return;
        }
        for token in self.reads.take_linearizable() {
            let reason = self.quorum_reason(node);
            node.fresh(token, Err(FreshError::NoQuorum { reason }));
        }
    }

    /// Another leader is known, or the same one again: what was asked may be lost.
    pub(super) fn repeat_question(&mut self, node: &mut Node, leader: Identity) {
        let Some(question) = &mut self.reads.question else { return };
        question.asked_at = node.now;
        let number = question.number;
        self.ask_leader(node, leader, number);
    }

    /// Asks again what was asked long ago.
    pub(super) fn repeat_old_question(&mut self, node: &mut Node) {
        let Some(leader) = self.core.leader() else { return };
        let is_old = |question: &Question| node.now >= question.asked_at + ASK_AGAIN_MS;
        if self.reads.question.as_ref().is_some_and(is_old) {
            self.repeat_question(node, leader);
        }
    }

    fn ask_leader(&mut self, node: &mut Node, leader: Identity, number: u64) {
        if leader == node.identity() {
            self.read_asked(leader, number);
        } else {
            node.counters.reads_asked += 1;
            node.send(leader, PeerMessage::AskRead { token: number });
        }
    }

    fn start_read_round(&mut self, node: &mut Node) {
        let disputed = self.digests.is_disputed();
        if !self.is_leading() || !self.core.has_committed_in_term() || disputed {
            return;
        }
        let Some(number) = self.reads.form_round(self.core.commit()) else { return };
        node.counters.read_rounds += 1;
        if without_quorum(node) {
            return self.read_ready(node, number, self.core.last().0);
        }
        self.drive(node, CoreInput::ReadIndex { token: number });
    }

    /// The core confirmed a round: everybody in it gets the index.
    pub(super) fn read_ready(&mut self, node: &mut Node, number: u64, index: EntryIndex) {
        if self.digests.is_disputed() {
            return self.read_refused(number);
        }
        let Some(round) = self.reads.round.take_if(|round| round.number == number) else { return };
        assert!(index >= round.commit, "read index {index:?} is behind {:?}", round.commit);
        let index = if index_is_commit(node) { round.commit } else { index };
        let term = self.core.term();
        for (asker, token) in round.askers {
            if asker == node.identity() {
                self.read_answered(node, token, index, term);
            } else {
                node.send(asker, PeerMessage::ReadIndex { token, index, term });
            }
        }
    }

    /// The core does not serve this round: who asked waits for another.
    pub(super) fn read_refused(&mut self, number: u64) {
        let Some(round) = self.reads.round.take_if(|round| round.number == number) else { return };
        for (asker, token) in round.askers {
            self.reads.askers.entry(asker).or_insert(token);
        }
    }

    /// Something was published, or confirmed.
    pub(super) fn answer_reads(&mut self, node: &mut Node) {
        if self.reads.readers.is_empty() {
            return;
        }
        self.refuse_disputed_reads(node);
        let visible = node.applier.applied();
        for token in self.reads.take_ready(self.applied_entry, self.applied_term, visible) {
            node.fresh(token, Ok(visible));
        }
    }

    fn answer_reader(&mut self, node: &mut Node, token: u64) {
        let visible = node.applier.applied();
        node.fresh(token, Ok(visible));
    }

    pub(super) fn expire_reads(&mut self, node: &mut Node) {
        for (token, reader, confirmed) in self.reads.take_expired(node.now) {
            let error = if confirmed || reader.index.is_some() {
                let visible = node.applier.applied();
                FreshError::TimedOut { limit_ms: reader.limit_ms, visible }
            } else {
                FreshError::NoQuorum { reason: self.reach(node) }
            };
            node.fresh(token, Err(error));
        }
    }

    /// The node ends: nobody is left waiting.
    pub(in super::super) fn end_reads(&mut self, node: &mut Node, error: &FreshError) {
        for token in self.reads.take_all() {
            node.fresh(token, Err(error.clone()));
        }
    }
}

#[cfg(not(feature = "planted-bugs"))]
fn index_is_commit(_: &Node) -> bool {
    false
}

#[cfg(feature = "planted-bugs")]
fn index_is_commit(node: &Node) -> bool {
    node.settings.bug == Some(super::super::api::ReplicaBug::ReadIndexIsCommit)
}

#[cfg(not(feature = "planted-bugs"))]
fn without_quorum(_: &Node) -> bool {
    false
}

#[cfg(feature = "planted-bugs")]
fn without_quorum(node: &Node) -> bool {
    node.settings.bug == Some(super::super::api::ReplicaBug::ReadWithoutQuorum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(tokens: std::ops::Range<u64>) -> Reads {
        let mut reads = Reads::default();
        for token in tokens {
            reads.insert(token, Reader { deadline: 100 + token, limit_ms: 100, index: None });
        }
        reads
    }

    #[test]
    fn who_comes_while_a_question_is_under_way_shares_the_next() {
        let mut reads = reads(0..3);
        assert_eq!(reads.form_question(0), Some(1));
        reads.insert(7, Reader { deadline: 200, limit_ms: 100, index: None });
        assert_eq!(reads.form_question(0), None, "one is under way");
        reads.confirm(9, EntryIndex(4), Term(1));
        assert_eq!(reads.take_ready(EntryIndex(99), Term(1), Index(9)), [], "no such question");
        reads.confirm(1, EntryIndex(4), Term(1));
        assert_eq!(reads.take_ready(EntryIndex(3), Term(1), Index(9)), []);
        assert_eq!(reads.take_ready(EntryIndex(4), Term(1), Index(9)), [0, 1, 2]);
        assert_eq!(reads.form_question(0), Some(2), "for reader 7 alone");
        reads.confirm(1, EntryIndex(1), Term(1));
        assert_eq!(reads.take_ready(EntryIndex(4), Term(1), Index(9)), [], "an old answer");
        reads.confirm(2, EntryIndex(5), Term(1));
        assert_eq!(reads.take_ready(EntryIndex(3), Term(2), Index(9)), [7], "a later term serves");
        assert!(reads.readers.is_empty() && reads.deadlines.is_empty());
    }

    #[test]
    fn a_round_takes_all_askers_once_and_the_next_takes_who_came_meanwhile() {
        let mut reads = Reads::default();
        let (first, second) = (Identity::new(1, 1), Identity::new(2, 2));
        reads.ask(first, 5);
        reads.ask(first, 6);
        assert_eq!(reads.form_round(EntryIndex(1)), Some(1));
        reads.ask(first, 6);
        assert!(reads.askers.is_empty(), "its question is in the round under way");
        reads.ask(second, 1);
        assert_eq!(reads.form_round(EntryIndex(1)), None, "one is under way");
        let round = reads.round.take().expect("under way");
        assert_eq!(round.askers, BTreeMap::from([(first, 6)]));
        assert_eq!(reads.form_round(EntryIndex(1)), Some(2));
        reads.stop_leading();
        assert!(!reads.is_asking());
    }

    #[test]
    fn whose_time_is_over_is_forgotten_everywhere() {
        let mut reads = reads(0..4);
        reads.form_question(0);
        reads.confirm(1, EntryIndex(9), Term(1));
        reads.insert(8, Reader { deadline: 50, limit_ms: 1, index: Some(Index(3)) });
        reads.insert(9, Reader { deadline: 60, limit_ms: 1, index: None });
        let expired = |reads: &mut Reads, now| {
            let found = reads.take_expired(now).into_iter();
            found.map(|(token, _, confirmed)| (token, confirmed)).collect::<Vec<_>>()
        };
        assert_eq!(expired(&mut reads, 60), [(8, false), (9, false)]);
        assert_eq!(expired(&mut reads, 1_000), [(0, true), (1, true), (2, true), (3, true)]);
        assert!(reads.confirmed.is_empty() && reads.next.is_empty() && reads.at_least.is_empty());
        assert_eq!(reads.take_ready(EntryIndex(9), Term(9), Index(9)), []);
    }
}
