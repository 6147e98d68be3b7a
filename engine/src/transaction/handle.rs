//! A commit under way, apart from the transaction and connection it came from.

use std::fmt;
use std::sync::Arc;

use super::Committed;
use crate::database::Shared;
use crate::{Acknowledged, CommitError, CommitTicket, TransactionId};

/// A commit that was submitted, from
/// [`Transaction::commit_async`](crate::Transaction::commit_async).
///
/// It may outlive its transaction and connection and move to another thread. Dropping it lets the
/// commit go on: it will commit or not as if somebody waited, but nobody hears of it, and
/// [`Statistics`](crate::Statistics) may not count it. The program may ask for its outcome by the
/// id later.
#[must_use = "the outcome of the commit is heard here only"]
pub struct CommitHandle {
    progress: Progress,
}

#[derive(Debug)]
enum Progress {
    Done(Result<Committed, CommitError>),
    Underway(Underway),
}

/// Invariant: the id is expected in `shared.pending` as long as this lives.
pub(super) struct Underway {
    pub(super) shared: Arc<Shared>,
    pub(super) ticket: Arc<dyn CommitTicket>,
    pub(super) id: TransactionId,
    /// As in [`Committed`].
    pub(super) numbers: Vec<u64>,
}

impl CommitHandle {
    pub(super) fn done(committed: Committed) -> CommitHandle {
        CommitHandle { progress: Progress::Done(Ok(committed)) }
    }

    pub(super) fn underway(underway: Underway) -> CommitHandle {
        CommitHandle { progress: Progress::Underway(underway) }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.progress, Progress::Done(_))
    }

    /// Blocks until the outcome is known and, if it committed, visible here. Errors are those of
    /// [`Transaction::commit`](crate::Transaction::commit).
    pub fn wait(self) -> Result<Committed, CommitError> {
        match self.progress {
            Progress::Done(result) => result,
            Progress::Underway(underway) => underway.finish(underway.ticket.wait()),
        }
    }

    /// As [`CommitHandle::wait`], but None while that would block. Once there is an answer, it is
    /// given again and again.
    pub fn try_wait(&mut self) -> Option<Result<Committed, CommitError>> {
        if let Progress::Underway(underway) = &self.progress {
            let answer = underway.ticket.try_wait()?;
            self.progress = Progress::Done(underway.finish(answer));
        }
        match &self.progress {
            Progress::Done(result) => Some(result.clone()),
            Progress::Underway(_) => None,
        }
    }

    /// The transaction's name, by which a database can be asked what became of it. None if it wrote
    /// no replicated class, or failed.
    pub fn id(&self) -> Option<TransactionId> {
        match &self.progress {
            Progress::Done(result) => result.as_ref().ok()?.id,
            Progress::Underway(underway) => Some(underway.id),
        }
    }
}

impl Underway {
    fn finish(&self, answer: Result<Acknowledged, CommitError>) -> Result<Committed, CommitError> {
        self.shared.counters.count(&answer);
        let Acknowledged { index, applied_by } = answer?;
        let given = self.shared.pending.take(self.id);
        let numbers = self.numbers.clone();
        Ok(Committed { index, id: Some(self.id), applied_by, numbers, given })
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.shared.pending.take(self.id);
    }
}

impl fmt::Debug for Underway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Underway({})", self.id)
    }
}

impl fmt::Debug for CommitHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = self.is_done();
        f.debug_struct("CommitHandle").field("id", &self.id()).field("done", &done).finish()
    }
}
