//! How a database is opened.

use crate::OpenError;

/// The parameters of one database, to be changed field by field from [`DatabaseParams::default`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatabaseParams {
    /// Memory for records and indexes, in bytes; default 128 MiB, at least 64 KiB.
    ///
    /// Replicated classes may fill 65 % of it and local ones another 10 %, counted by a fixed
    /// formula (see [`Statistics`](crate::Statistics)); the rest is room for old versions that
    /// running transactions still read. All nodes of a cluster should give the same size: the
    /// leader's decides.
    pub segment_size_bytes: u64,
    /// Memory for the history that finds conflicts, in bytes; default 64 MiB, at least 64 KiB.
    ///
    /// It holds what the newest transactions wrote: some 50 to 100 bytes for one that writes one
    /// record. A transaction that began before the oldest of them ends with `SnapshotTooOld`.
    /// Replicated and local classes have a history of this size each, and a generation that is
    /// not closed yet may come on top: a sixteenth, or what 64 transactions write. All nodes of a
    /// cluster should give the same.
    pub history_bytes: u64,
    /// How many connections may be open at once; default 10, at least 1.
    pub max_connections: u32,
    /// How long a transaction may be open and still commit what it wrote, milliseconds; default
    /// 60 000, 0 for no limit.
    ///
    /// The memory of its snapshot is held for as long as it is open, and the longer it is, the
    /// likelier it loses. A transaction that wrote nothing always ends well.
    pub transaction_limit_ms: u64,
    /// How often `transact` runs its function at most before it gives up; default 100, at least 1.
    pub transact_attempts: u32,
    /// A mistake to make on purpose, to prove that tests find it.
    #[cfg(feature = "planted-bugs")]
    pub bug: Option<Bug>,
}

impl Default for DatabaseParams {
    fn default() -> Self {
        DatabaseParams {
            segment_size_bytes: 128 << 20,
            history_bytes: 64 << 20,
            max_connections: 10,
            transaction_limit_ms: 60_000,
            transact_attempts: 100,
            #[cfg(feature = "planted-bugs")]
            bug: None,
        }
    }
}

/// The smallest history: a few hundred transactions.
const HISTORY_MIN_BYTES: u64 = 64 << 10;
/// The smallest segment: a few hundred small records.
const SEGMENT_MIN_BYTES: u64 = 64 << 10;
/// The largest: 64 TiB, far from any overflow of the sums of sizes.
const SEGMENT_MAX_BYTES: u64 = 64 << 40;

impl DatabaseParams {
    /// The same parameters with another segment size, in bytes.
    #[must_use]
    pub fn with_segment_size_bytes(mut self, segment_size_bytes: u64) -> Self {
        self.segment_size_bytes = segment_size_bytes;
        self
    }

    /// The same parameters with another size of the history, in bytes.
    #[must_use]
    pub fn with_history_bytes(mut self, history_bytes: u64) -> Self {
        self.history_bytes = history_bytes;
        self
    }

    /// The same parameters with another limit of connections.
    #[must_use]
    pub fn with_max_connections(mut self, max_connections: u32) -> Self {
        self.max_connections = max_connections;
        self
    }

    /// The same parameters with another limit of how long a transaction may be open, milliseconds.
    #[must_use]
    pub fn with_transaction_limit_ms(mut self, transaction_limit_ms: u64) -> Self {
        self.transaction_limit_ms = transaction_limit_ms;
        self
    }

    /// The same parameters with another limit of attempts of `transact`.
    #[must_use]
    pub fn with_transact_attempts(mut self, transact_attempts: u32) -> Self {
        self.transact_attempts = transact_attempts;
        self
    }

    /// What replicated classes may use, in bytes: 65 % of the segment.
    pub(crate) fn allowed_bytes(&self) -> u64 {
        self.segment_size_bytes / 100 * 65
    }

    /// What local classes may use, in bytes: 10 % of the segment.
    pub(crate) fn allowed_local_bytes(&self) -> u64 {
        self.segment_size_bytes / 100 * 10
    }

    /// Checks every field; the error names the one that is wrong.
    pub(crate) fn validate(&self) -> Result<(), OpenError> {
        let wrong = |field, problem| Err(OpenError::InvalidParameter { field, problem });
        if !(SEGMENT_MIN_BYTES..=SEGMENT_MAX_BYTES).contains(&self.segment_size_bytes) {
            return wrong("segment_size_bytes", "must be from 64 KiB to 64 TiB");
        }
        if !(HISTORY_MIN_BYTES..=SEGMENT_MAX_BYTES).contains(&self.history_bytes) {
            return wrong("history_bytes", "must be from 64 KiB to 64 TiB");
        }
        if self.max_connections == 0 {
            return wrong("max_connections", "must be at least 1");
        }
        if self.transact_attempts == 0 {
            return wrong("transact_attempts", "must be at least 1");
        }
        Ok(())
    }

    #[cfg(feature = "planted-bugs")]
    pub(crate) fn has_bug(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }
}

/// Mistakes that the tests must find, each a single wrong decision.
#[cfg(feature = "planted-bugs")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bug {
    /// The leader certifies against what is applied only, not against its uncommitted tail.
    CertifyIgnoresTail,
    /// Reads of serializable transactions are not certified.
    CertifyIgnoresReads,
    /// Point reads are certified, ranges are not.
    ReadSetRangeMissed,
    /// No outcome is ever remembered.
    ExactlyOnceForgotten,
    /// Free places are taken oldest first on this node: ids differ from other nodes.
    FreeListOrder,
    /// What is written is not certified: updates are lost.
    WritesUnchecked,
    /// Who adds to a record does not look for who wrote it.
    AddersUnchecked,
    /// Who writes or reads a record does not look for who added to it: additions are lost.
    AddersForgotten,
}
