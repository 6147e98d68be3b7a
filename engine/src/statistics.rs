//! Counts and sizes of a database, for people and tools.

use std::sync::atomic::{AtomicU64, Ordering};

use quorate_schema::Dictionary;

use crate::store::Root;
use crate::{CommitError, DatabaseParams, Index};

/// What a database holds and did, at one moment.
///
/// Bytes are counted by the *logical formula* that commits are admitted by: a record takes
/// 64 bytes and its image, each of its index entries 48 bytes and the key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// The visible index.
    pub visible_index: Index,
    /// What replicated classes use, in bytes.
    pub used_bytes: u64,
    /// What they may use, in bytes: 65 % of the segment.
    pub allowed_bytes: u64,
    /// What local classes use, in bytes.
    pub used_local_bytes: u64,
    /// What they may use, in bytes: 10 % of the segment.
    pub allowed_local_bytes: u64,
    /// Transactions of this process that wrote and committed, since it opened the database; as
    /// far as anybody waited for their outcome.
    pub commits: u64,
    /// Commits of this process refused with a conflict or an old snapshot.
    pub conflicts: u64,
    /// Commits of this process that failed in another way.
    pub failures: u64,
    /// By class id.
    pub classes: Vec<ClassStatistics>,
}

/// What one class holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassStatistics {
    /// Its name.
    pub name: String,
    /// How many records it has.
    pub records: u64,
    /// True if its records stay on this node.
    pub local: bool,
}

/// Counts since the database was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    commits: AtomicU64,
    conflicts: AtomicU64,
    failures: AtomicU64,
}

impl Counters {
    pub(crate) fn count<T>(&self, result: &Result<T, CommitError>) {
        let counter = match result {
            Ok(_) => &self.commits,
            Err(error) if error.is_retryable() => &self.conflicts,
            Err(_) => &self.failures,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn statistics(
        &self,
        dictionary: &Dictionary,
        params: &DatabaseParams,
        root: &Root,
    ) -> Statistics {
        let classes = dictionary.classes().iter().map(|class| ClassStatistics {
            name: class.name.clone(),
            records: root.class(class.id).records.len() as u64,
            local: class.local,
        });
        Statistics {
            visible_index: root.index,
            used_bytes: root.used_bytes,
            allowed_bytes: params.allowed_bytes(),
            used_local_bytes: root.used_local_bytes,
            allowed_local_bytes: params.allowed_local_bytes(),
            commits: self.commits.load(Ordering::Relaxed),
            conflicts: self.conflicts.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            classes: classes.collect(),
        }
    }
}
