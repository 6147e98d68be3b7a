//! The node's own transactions on their way through the cluster.
//!
//! A request is *waiting* while no leader can put a copy of it into a log, and *asked* from the
//! moment a copy was given to the leader of a term. The fate of an asked request comes from the
//! log alone: its index is applied, or an entry of a later term is applied without it; then it can
//! never enter the log by that copy, and it is given to the new leader. A refusal by the leader of
//! that very term says the same at once, if no other copy is on its way to it: one that hands over
//! refuses what it may take a moment later.
//!
//! Invariants:
//!
//! * every id is answered exactly once (`Complete`), and settled exactly once: by its answer,
//!   unless that was `InDoubt`, else by `Settled`;
//! * an id answered `InDoubt` is never given to the leader of another term; the one that was asked
//!   may get it again after a broken link, which settles it;
//! * `waiting` holds the sequences of the unanswered requests without a term;
//! * `deadlines` holds exactly the unanswered requests.

use std::collections::{BTreeMap, BTreeSet};

use quorate_consensus::{Term, Ticks};
use quorate_engine::TransactionId;

use super::message::Request;

/// One request on its way.
#[derive(Debug)]
struct Waiting {
    /// What the leader is asked for.
    request: Request,
    /// The term whose leader got a copy that may still enter the log.
    asked: Option<Term>,
    /// Copies that this leader may answer yet: given over the link that is up, and not refused.
    copies: u32,
    /// What the caller wants.
    wish: Wish,
    /// The caller got `InDoubt`.
    answered: bool,
}

/// What the caller of a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// When it wants an answer.
    pub(super) deadline: Ticks,
    /// It wants to know that all live nodes have applied it.
    pub(super) everywhere: bool,
}

/// A request that met its fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// What its caller wanted.
    pub(super) wish: Wish,
    /// The caller got `InDoubt` before.
    pub(super) answered: bool,
}

/// All own requests, by sequence.
#[derive(Debug, Default)]
pub(super) struct Pending {
    requests: BTreeMap<u64, Waiting>,
    waiting: BTreeSet<u64>,
    /// The unanswered requests, by deadline.
    deadlines: BTreeSet<(Ticks, u64)>,
    /// The newest term of an applied entry, for which lost requests were looked for.
    resolved: Term,
}

/// What became of requests whose time was up.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Expired {
    /// No leader ever could put them into a log.
    pub(super) refused: Vec<u64>,
    /// A leader may have.
    pub(super) in_doubt: Vec<u64>,
}

/// What became of a request whose copy was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freed {
    /// There is no such copy.
    Unknown,
    /// The request waits for a leader again.
    Waiting,
    /// Its caller knows it as in doubt; it is settled now.
    Settled,
}

/// What became of requests that a later term's entries left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    /// They wait for a leader again.
    pub(super) again: usize,
    /// Their callers know them as in doubt: they are settled now.
    pub(super) settled: Vec<u64>,
}

impl Pending {
    /// Takes a request in, waiting.
    pub(super) fn insert(&mut self, sequence: u64, request: Request, wish: Wish) {
        let waiting = Waiting { request, asked: None, copies: 0, wish, answered: false };
        let before = self.requests.insert(sequence, waiting);
        assert!(before.is_none(), "sequence {sequence} was submitted twice");
        self.waiting.insert(sequence);
        self.deadlines.insert((wish.deadline, sequence));
    }

    /// True if some request waits for a leader.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Marks every waiting request as given to the leader of `term`, and returns them.
    pub(super) fn ask_all(&mut self, term: Term) -> Vec<(u64, Request)> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut asked = Vec::with_capacity(waiting.len());
        for sequence in waiting {
            let request = self.requests.get_mut(&sequence).expect("waiting requests exist");
            assert!(!request.answered, "an answered request waited");
            (request.asked, request.copies) = (Some(term), 1);
            asked.push((sequence, request.request.clone()));
        }
        asked
    }

    /// The requests given to the leader of `term` so far, which get another copy each.
    pub(super) fn ask_again(&mut self, term: Term) -> Vec<(u64, Request)> {
        let asked = self.requests.iter_mut().filter(|(_, request)| request.asked == Some(term));
        asked
            .map(|(&sequence, request)| {
                request.copies += 1;
                (sequence, request.request.clone())
            })
            .collect()
    }

    /// The link to the leader of `term` broke: no copy that went over it is answered any more, and
    /// whatever comes over the next one comes behind them.
    pub(super) fn leader_link_broke(&mut self, term: Term) {
        for request in self.requests.values_mut().filter(|request| request.asked == Some(term)) {
            request.copies = 0;
        }
    }

    /// A copy given to the leader of `term` was refused there and never enters a log. Another one
    /// that is on its way still may.
    pub(super) fn wait_again(&mut self, sequence: u64, term: Term) -> Freed {
        let Some(request) = self.requests.get_mut(&sequence) else { return Freed::Unknown };
        if request.asked != Some(term) {
            return Freed::Unknown;
        }
        request.copies = request.copies.saturating_sub(1);
        if request.copies > 0 {
            return Freed::Unknown;
        }
        if request.answered {
            self.requests.remove(&sequence);
            return Freed::Settled;
        }
        request.asked = None;
        self.waiting.insert(sequence);
        Freed::Waiting
    }

    /// True if a copy of the request is with the leader of `term`.
    pub(super) fn is_asked(&self, sequence: u64, term: Term) -> bool {
        self.requests.get(&sequence).is_some_and(|request| request.asked == Some(term))
    }

    /// The transaction a request is a fence for, if it is one.
    pub(super) fn fence(&self, sequence: u64) -> Option<TransactionId> {
        match self.requests.get(&sequence)?.request {
            Request::Fence(fenced) => Some(fenced),
            _ => None,
        }
    }

    /// True if a leader may have a copy.
    pub(super) fn was_asked(&self, sequence: u64) -> bool {
        self.requests.get(&sequence).is_some_and(|request| request.asked.is_some())
    }

    /// Ends a request, if it was there.
    pub(super) fn remove(&mut self, sequence: u64) -> Option<Ended> {
        let request = self.requests.remove(&sequence)?;
        self.waiting.remove(&sequence);
        self.deadlines.remove(&(request.wish.deadline, sequence));
        Some(Ended { wish: request.wish, answered: request.answered })
    }

    /// All sequences that have not been settled.
    pub(super) fn sequences(&self) -> Vec<u64> {
        self.requests.keys().copied().collect()
    }

    /// Ends every waiting request: without a quorum none can be taken.
    pub(super) fn refuse_waiting(&mut self) -> Vec<u64> {
        let waiting: Vec<u64> = self.waiting.iter().copied().collect();
        for &sequence in &waiting {
            self.remove(sequence).expect("waiting requests exist");
        }
        waiting
    }

    /// An entry of `term` is applied, and so is all before it: what was asked in earlier terms and
    /// is still here was left out for ever.
    pub(super) fn resolve(&mut self, term: Term) -> Lost {
        let mut lost = Lost::default();
        if term <= self.resolved {
            return lost;
        }
        self.resolved = term;
        let earlier = |request: &Waiting| request.asked.is_some_and(|asked| asked < term);
        for (&sequence, request) in self.requests.iter_mut().filter(|(_, r)| earlier(r)) {
            request.asked = None;
            if request.answered {
                lost.settled.push(sequence);
            } else {
                lost.again += 1;
                self.waiting.insert(sequence);
            }
        }
        for sequence in &lost.settled {
            self.requests.remove(sequence); // answered, so neither waiting nor with a deadline
        }
        lost
    }

    /// Answers the requests whose deadline is over.
    pub(super) fn expire(&mut self, now: Ticks) -> Expired {
        let mut expired = Expired::default();
        while let Some(&(deadline, sequence)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            let request = self.requests.get_mut(&sequence).expect("unanswered requests exist");
            if request.asked.is_some() {
                request.answered = true;
                self.deadlines.remove(&(deadline, sequence));
                expired.in_doubt.push(sequence);
            } else {
                self.remove(sequence);
                expired.refused.push(sequence);
            }
        }
        expired
    }

    /// The earliest deadline of an unanswered request.
    pub(super) fn next_deadline(&self) -> Option<Ticks> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(deadline: Ticks) -> Wish {
        Wish { deadline, everywhere: false }
    }

    fn pending(sequences: &[u64]) -> Pending {
        let mut pending = Pending::default();
        for &sequence in sequences {
            pending.insert(sequence, Request::Stop, wish(100));
        }
        pending
    }

    #[test]
    fn a_later_terms_entry_frees_the_request_for_the_next_leader() {
        let mut pending = pending(&[1]);
        assert_eq!(pending.ask_all(Term(3)).len(), 1);
        assert_eq!(pending.resolve(Term(3)), Lost::default(), "the same term decides nothing");
        assert_eq!(pending.resolve(Term(4)), Lost { again: 1, settled: vec![] });
        assert_eq!(pending.ask_all(Term(4)).len(), 1);
    }

    #[test]
    fn a_request_in_doubt_is_never_asked_again() {
        let mut pending = pending(&[1]);
        pending.ask_all(Term(3));
        assert_eq!(pending.expire(100), Expired { refused: vec![], in_doubt: vec![1] });
        assert_eq!(pending.wait_again(1, Term(3)), Freed::Settled);
        assert!(pending.ask_all(Term(4)).is_empty());
        let mut pending = self::pending(&[2]);
        pending.ask_all(Term(3));
        pending.expire(100);
        assert_eq!(pending.resolve(Term(4)), Lost { again: 0, settled: vec![2] });
        assert!(!pending.has_waiting());
    }

    #[test]
    fn a_refused_copy_tells_nothing_of_another_on_its_way() {
        let mut pending = pending(&[1]);
        pending.ask_all(Term(3));
        assert_eq!(pending.ask_again(Term(3)).len(), 1);
        assert_eq!(pending.wait_again(1, Term(3)), Freed::Unknown);
        assert_eq!(pending.expire(100), Expired { refused: vec![], in_doubt: vec![1] });
        assert_eq!(pending.wait_again(1, Term(3)), Freed::Settled);
        let mut pending = self::pending(&[2]);
        pending.ask_all(Term(3));
        pending.leader_link_broke(Term(3));
        pending.ask_again(Term(3));
        assert_eq!(pending.wait_again(2, Term(3)), Freed::Waiting, "the first copy is gone");
    }

    #[test]
    fn a_later_sequence_with_an_earlier_deadline_is_answered_in_time() {
        let mut pending = Pending::default();
        pending.insert(6, Request::Stop, wish(100));
        pending.insert(5, Request::Stop, wish(200));
        assert_eq!(pending.next_deadline(), Some(100));
        assert_eq!(pending.expire(100), Expired { refused: vec![6], in_doubt: vec![] });
        assert_eq!(pending.next_deadline(), Some(200));
    }

    #[test]
    fn time_over_means_refused_only_while_no_leader_has_a_copy() {
        let mut pending = pending(&[1, 2]);
        assert_eq!(pending.expire(99), Expired::default());
        pending.waiting.remove(&2);
        pending.requests.get_mut(&2).expect("inserted").asked = Some(Term(1));
        assert_eq!(pending.expire(100), Expired { refused: vec![1], in_doubt: vec![2] });
        assert_eq!(pending.sequences(), [2]);
    }
}
