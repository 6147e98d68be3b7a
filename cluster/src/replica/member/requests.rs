//! This node's own transactions: given to the leader, answered by the log.

use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::{Identity, Term, Ticks};
use quorate_engine::{
    Acknowledge, CommitError, CommitOptions, Index, Outcome, Submission, TransactionId,
};
use quorate_schema::bytes::Writer;

use super::super::message::{PeerMessage, RefusalReason, Request};
use super::super::node::{Ending, Node};
use super::super::pending::{Ended, Freed, Wish};
use super::Member;

/// An own request that an applied item settled, by its sequence.
pub(super) type Done = (u64, Result<Index, CommitError>);

/// What a node knows of a dispute that it did not see itself.
const DISPUTED: &str = "the leader's state differs from that of other nodes, and no quorum has the \
    same; its status says more";

impl Member {
    /// A local transaction asks to be committed.
    pub(in super::super) fn submit(
        &mut self,
        node: &mut Node,
        submission: &Submission,
        options: CommitOptions,
    ) {
        let sequence = submission.id.sequence;
        if node.ending != Ending::No {
            return node.complete(sequence, Err(CommitError::Stopped));
        }
        if !self.may_commit(node) {
            node.counters.no_quorum += 1;
            return node.complete(sequence, Err(self.no_quorum(node)));
        }
        if node.applier.outcome(submission.id) == Outcome::NotCommitted {
            return node.complete(sequence, Err(CommitError::Fenced(submission.id)));
        }
        let mut writer = Writer::new();
        submission.encode(&mut writer);
        let limit_ms = options.limit.map_or(node.settings.commit_limit_ms, ticks);
        let wish = Wish {
            deadline: node.now.saturating_add(limit_ms),
            everywhere: options.acknowledge == Acknowledge::AllLive,
        };
        let request = Request::Transaction(Arc::from(writer.finish()));
        node.pending.insert(sequence, request, wish);
        self.give_waiting(node);
    }

    /// Gives the waiting requests to the leader, if there is one.
    pub(super) fn give_waiting(&mut self, node: &mut Node) {
        let Some(leader) = self.core.leader() else { return };
        if !node.pending.has_waiting() || !self.reaches(node, leader) {
            return;
        }
        let term = self.core.term();
        for (sequence, request) in node.pending.ask_all(term) {
            self.give(node, leader, term, sequence, request);
        }
    }

    /// The leader is known, maybe again after its link was away: copies given to it may be lost. It
    /// knows those it has. Then whatever waited for a leader.
    pub(super) fn repeat_requests(&mut self, node: &mut Node, leader: Identity) {
        if leader != node.identity() {
            let term = self.core.term();
            for (sequence, request) in node.pending.ask_again(term) {
                node.counters.repeats += 1;
                self.give(node, leader, term, sequence, request);
            }
        }
        self.give_waiting(node);
    }

    fn give(
        &mut self,
        node: &mut Node,
        leader: Identity,
        term: Term,
        sequence: u64,
        request: Request,
    ) {
        let id = node.transaction_id(sequence);
        self.asked = Some((term, leader));
        if leader == node.identity() {
            self.request_from(node, leader, term, id, request);
        } else {
            node.send(leader, PeerMessage::Submit { term, id, request });
        }
    }

    pub(super) fn reaches(&self, node: &Node, leader: Identity) -> bool {
        let itself = leader == node.identity();
        (itself && self.leading.is_some()) || (!itself && node.is_linked(leader))
    }

    /// The leader of `term` did not put it into its log.
    pub(super) fn refused(
        &mut self,
        node: &mut Node,
        id: TransactionId,
        term: Term,
        reason: RefusalReason,
    ) {
        let sequence = id.sequence;
        if id.origin != node.identity().incarnation.0 || !node.pending.is_asked(sequence, term) {
            return;
        }
        let error = match reason {
            RefusalReason::WrongTerm => {
                if node.pending.wait_again(sequence, term) == Freed::Settled {
                    node.settled(sequence, None);
                }
                return;
            }
            RefusalReason::Conflict => CommitError::Conflict,
            RefusalReason::SnapshotTooOld { floor } => {
                CommitError::SnapshotTooOld { floor: Index(floor) }
            }
            RefusalReason::SegmentFull { used_bytes, needed_bytes, allowed_bytes } => {
                CommitError::SegmentFull { used_bytes, needed_bytes, allowed_bytes }
            }
            RefusalReason::FencesFull => CommitError::Rejected {
                reason: "too many outcomes of that node are waited for".into(),
            },
            RefusalReason::Disputed => {
                node.counters.no_quorum += 1;
                CommitError::NoQuorum { reason: DISPUTED.into() }
            }
            RefusalReason::Roster(error) => return self.roster_refused(node, sequence, error),
            RefusalReason::Malformed => {
                CommitError::Rejected { reason: "the leader could not read it".into() }
            }
        };
        self.settle_request(node, sequence, Err(error));
    }

    /// The entries that settle these own requests are applied and visible.
    pub(super) fn answer(&mut self, node: &mut Node, done: Vec<Done>) {
        for (sequence, result) in done {
            self.settle_request(node, sequence, result);
        }
    }

    fn settle_request(
        &mut self,
        node: &mut Node,
        sequence: u64,
        result: Result<Index, CommitError>,
    ) {
        let ended = node.pending.remove(sequence);
        if let (Some(Ended { answered: false, .. }), Ok(index)) = (&ended, &result)
            && let Some(errand) = node.errands.get(&sequence).cloned()
        {
            self.errand_done(node, errand, *index);
        }
        match (ended, result) {
            (Some(Ended { answered: true, .. }), result) => node.settled(sequence, result.ok()),
            (Some(Ended { wish: Wish { deadline, everywhere: true }, .. }), Ok(index)) => {
                self.await_everywhere(node, (index, sequence), deadline);
            }
            (Some(_), result) => node.complete(sequence, result),
            (None, _) => {}
        }
    }

    /// An image took the place of entries: what it holds is answered from its table.
    pub(super) fn answer_from_image(&mut self, node: &mut Node) {
        for sequence in node.pending.sequences() {
            let id = node.transaction_id(sequence);
            let wanted = node.pending.fence(sequence);
            match node.applier.outcome(wanted.unwrap_or(id)) {
                Outcome::Unknown => {}
                _ if wanted.is_some() => {
                    self.settle_request(node, sequence, Ok(node.applier.applied()));
                }
                Outcome::Committed(index) => self.settle_request(node, sequence, Ok(index)),
                Outcome::NotCommitted => {
                    self.settle_request(node, sequence, Err(CommitError::Fenced(id)));
                }
                Outcome::Forgotten => {}
            }
        }
        self.resolve(node);
    }

    /// What an applied entry of a later term left out is given to the next leader.
    pub(super) fn resolve(&mut self, node: &mut Node) {
        let lost = node.pending.resolve(self.settled_term(node));
        node.counters.resubmissions += lost.again as u64;
        self.eager |= lost.again > 0;
        for sequence in lost.settled {
            node.settled(sequence, None);
        }
    }

    #[cfg(not(feature = "planted-bugs"))]
    fn settled_term(&self, _: &Node) -> Term {
        self.applied_term
    }

    #[cfg(feature = "planted-bugs")]
    fn settled_term(&self, node: &Node) -> Term {
        if node.settings.bug == Some(super::super::api::ReplicaBug::LostByTermAlone) {
            return self.core.term();
        }
        self.applied_term
    }

    pub(super) fn expire(&mut self, node: &mut Node) {
        let expired = node.pending.expire(node.now);
        for sequence in expired.refused {
            node.counters.no_quorum += 1;
            node.complete(sequence, Err(self.no_quorum(node)));
        }
        for sequence in expired.in_doubt {
            node.counters.in_doubt += 1;
            let id = node.transaction_id(sequence);
            node.complete(sequence, Err(CommitError::InDoubt(id)));
        }
    }

    /// Without a quorum no leader can be waited for.
    pub(super) fn refuse_without_quorum(&mut self, node: &mut Node) {
        if !node.pending.has_waiting() || self.may_commit(node) {
            return;
        }
        for sequence in node.pending.refuse_waiting() {
            node.counters.no_quorum += 1;
            node.complete(sequence, Err(self.no_quorum(node)));
        }
    }

    pub(super) fn no_quorum(&self, node: &Node) -> CommitError {
        CommitError::NoQuorum { reason: self.quorum_reason(node).to_string() }
    }
}

/// A time limit in ticks; the shortest is one.
fn ticks(limit: Duration) -> Ticks {
    Ticks::try_from(limit.as_millis()).unwrap_or(Ticks::MAX).max(1)
}
