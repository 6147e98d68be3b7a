//! What became of a transaction, for who must know: a fence makes "not committed" final.
//!
//! A transaction that the state knows nothing of may be under way still: with its origin, on a
//! wire, in some leader's log. So the log itself is asked. A fence goes into it as any request
//! does; where it is applied, the transaction has committed before it or never will, on every node
//! and for every later leader, since certification refuses an id that is fenced.
//!
//! A fence that enters the log twice says the same twice, so copies of it need no care.

use quorate_engine::{CommitError, Outcome, TransactionId};

use super::super::message::{RefusalReason, Request};
use super::super::node::{Ending, Node};
use super::super::pending::Wish;
use super::super::window::{Item, is_transaction};
use super::Member;
use quorate_consensus::{Identity, Term, Ticks};

impl Member {
    /// Somebody here asks what became of `wanted`. `id` is the question's own.
    pub(in super::super) fn ask_outcome(
        &mut self,
        node: &mut Node,
        id: TransactionId,
        wanted: TransactionId,
        limit_ms: u64,
    ) {
        let sequence = id.sequence;
        node.outcomes.insert(sequence, wanted);
        if node.applier.outcome(wanted) != Outcome::Unknown {
            return node.complete(sequence, Ok(node.applier.applied()));
        }
        if node.ending != Ending::No {
            return node.complete(sequence, Err(CommitError::Stopped));
        }
        if !self.may_commit(node) {
            let error = self.no_quorum(node);
            return node.complete(sequence, Err(error));
        }
        let deadline: Ticks = node.now.saturating_add(limit_ms);
        let wish = Wish { deadline, everywhere: false };
        node.pending.insert(sequence, Request::Fence(wanted), wish);
        self.give_waiting(node);
    }

    /// Logs a fence, unless too many are remembered of that origin.
    pub(super) fn take_fence(
        &mut self,
        node: &mut Node,
        from: Identity,
        term: Term,
        id: TransactionId,
        fenced: TransactionId,
    ) -> Result<(), RefusalReason> {
        self.check_term(node, term)?;
        if id.origin != from.incarnation.0 || !is_transaction(fenced) {
            return Err(RefusalReason::Malformed);
        }
        let leading = self.leading.as_mut().ok_or(RefusalReason::WrongTerm)?;
        let known = leading.knows(node, fenced);
        if known == Outcome::Unknown && !leading.may_fence(node, fenced) {
            return Err(RefusalReason::FencesFull);
        }
        leading.fence(node, fenced);
        leading.log(node.now, &Item::Fence { id, fenced }, (from, id));
        self.close_full_window(node);
        Ok(())
    }

    /// A fence is applied. The error for the transaction's own caller, if it is one of this node.
    pub(super) fn fence_applied(
        &mut self,
        node: &mut Node,
        fenced: TransactionId,
    ) -> Option<CommitError> {
        node.counters.fences += 1;
        // Questions are named like transactions; a fence for one of them means nothing.
        let own = fenced.origin == node.identity().incarnation.0
            && node.pending.fence(fenced.sequence).is_none();
        let never = node.applier.outcome(fenced) == Outcome::NotCommitted;
        (own && never).then_some(CommitError::Fenced(fenced))
    }
}
