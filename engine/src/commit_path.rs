//! The seam between transactions and whoever orders them: a submission goes in, a ticket comes
//! back, and the ticket tells how it ended.
//!
//! Only the agreement lives here. One node alone needs none of it (`alone`); a cluster implements
//! it.

use std::sync::Arc;
use std::time::Duration;

use crate::{Access, BeginError, CommitError, Index, Submission, TransactionId};

/// Orders the commits of replicated classes, in place of the built-in order of one node alone.
///
/// All methods are called from clients' threads, many at once.
pub trait CommitPath: Send + Sync + 'static {
    /// May a transaction begin? Called first in [`Connection::begin`](crate::Connection::begin).
    fn admit(&self, access: Access) -> Result<(), BeginError>;

    /// Hands a submission in. May block for room among the commits under way, not for the outcome:
    /// that is for the ticket to tell, and the commit goes on if the ticket is dropped.
    ///
    /// # Errors
    ///
    /// Any [`CommitError`] that is known at once.
    fn submit(
        &self,
        submission: Submission,
        options: CommitOptions,
    ) -> Result<Arc<dyn CommitTicket>, CommitError>;

    /// The id for the next commit, and the low water to advertise: all sequences below it are
    /// settled. Each id is passed to [`CommitPath::submit`] exactly once, right after this.
    fn next_id(&self) -> (TransactionId, u64);
}

/// Where the outcome of one submission will be. It is asked for by one thread at a time, and not
/// again once it has answered.
pub trait CommitTicket: Send + Sync {
    /// Blocks until the outcome is known; if it committed, until it is applied and published here,
    /// so that the caller sees its own writes.
    fn wait(&self) -> Result<Acknowledged, CommitError>;

    /// As [`CommitTicket::wait`], but None while it would block.
    fn try_wait(&self) -> Option<Result<Acknowledged, CommitError>>;
}

/// The ticket of a submission whose outcome was known at once.
impl CommitTicket for Result<Acknowledged, CommitError> {
    fn wait(&self) -> Result<Acknowledged, CommitError> {
        self.clone()
    }

    fn try_wait(&self) -> Option<Result<Acknowledged, CommitError>> {
        Some(self.clone())
    }
}

/// What a commit path says of a transaction that committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// Its index.
    pub index: Index,
    /// The nodes that have applied it, if that was asked for. See
    /// [`Committed::applied_by`](crate::Committed::applied_by).
    pub applied_by: Option<Vec<u32>>,
}

impl From<Index> for Acknowledged {
    fn from(index: Index) -> Acknowledged {
        Acknowledged { index, applied_by: None }
    }
}

/// What a commit waits for, and how long.
///
/// ```
/// use std::time::Duration;
/// use quorate_engine::{Acknowledge, CommitOptions};
///
/// let patient = CommitOptions::default().limit(Duration::from_secs(60));
/// let thorough = CommitOptions::default().acknowledge(Acknowledge::AllLive);
/// # assert_eq!((patient.acknowledge, thorough.limit), (Acknowledge::Quorum, None));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommitOptions {
    /// Who must have it before the commit is done; default [`Acknowledge::Quorum`].
    pub acknowledge: Acknowledge,
    /// How long the commit may take; default none: what the cluster's parameters say. A database
    /// alone never waits, so it has no use for this.
    pub limit: Option<Duration>,
}

impl CommitOptions {
    /// The same options, waiting for others.
    #[must_use]
    pub fn acknowledge(mut self, acknowledge: Acknowledge) -> Self {
        self.acknowledge = acknowledge;
        self
    }

    /// The same options with a time limit.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// Who must have a transaction before its commit is done. It is visible on this node in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Acknowledge {
    /// A quorum has stored it: it is never lost while a quorum lives.
    #[default]
    Quorum,
    /// Every live node has applied it too: a transaction that begins on any of them sees it.
    AllLive,
}
