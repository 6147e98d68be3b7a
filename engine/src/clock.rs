//! How long a transaction has been open: the one thing the engine asks a clock for.
//!
//! It only ever makes the node that ran a transaction refuse it before anybody else has heard of
//! it. Nothing that is decided, logged or applied depends on it.

use std::time::{Duration, Instant};

use crate::CommitError;

/// Since when a transaction is open, and how long it may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Age {
    began: Instant,
    limit_ms: u64,
}

impl Age {
    /// The age of a transaction that begins now; None if there is no limit.
    pub(crate) fn limited(limit_ms: u64) -> Option<Age> {
        (limit_ms > 0).then(|| Age { began: Instant::now(), limit_ms })
    }

    /// Refuses a transaction that is older than it may be.
    pub(crate) fn check(self) -> Result<(), CommitError> {
        if self.began.elapsed() <= Duration::from_millis(self.limit_ms) {
            return Ok(());
        }
        Err(CommitError::Expired { limit_ms: self.limit_ms })
    }
}
