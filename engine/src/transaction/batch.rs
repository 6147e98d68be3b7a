//! Several bodies one after another in one transaction, each of which may fail alone.
//!
//! Whoever runs procedures for others runs all that wait as one batch: each sees what those before
//! it wrote, and what one that failed wrote is taken back. The batch is certified as one
//! transaction, so the ones in it need not be certified against each other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::commit::expect_at_most;
use super::overlay::Overlay;
use super::{State, Transaction};
use crate::database::Shared;
use crate::write_set::{MAX_READS_BYTES, MAX_WRITE_SET_BYTES, stamp};
use crate::{Access, CommitError, Index, Isolation, Refusal, Submission, TransactionId};

/// A serializable transaction on replicated classes that runs bodies of others. See the module.
///
/// Invariant: its overlay holds exactly the writes of the bodies that returned `Ok`; its read set
/// holds the reads of all, since what a failed one said depends on them too.
#[derive(Debug)]
pub struct Batch<'a> {
    transaction: Transaction<'a>,
}

/// How a body that did not return `Ok` ended. Nothing of it is left.
#[derive(Debug)]
pub enum Failed<E> {
    /// With its own error.
    Error(E),
    /// It panicked, with this message.
    Panic(String),
}

impl<'a> Batch<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>) -> Batch<'a> {
        let mut transaction = Transaction::new(shared, Access::ReadWrite, Isolation::Serializable);
        transaction.age = None; // bodies have limits of their own
        transaction.write_replicated_only();
        Batch { transaction }
    }

    /// Runs `body`. Unless it returns `Ok`, what it wrote is taken back, and the batch is as if it
    /// had only read. Takes time linear in what the batch has written so far.
    ///
    /// # Errors
    ///
    /// [`Failed`]: its own error, or its panic, which ends here.
    pub fn attempt<R, E>(
        &mut self,
        body: impl FnOnce(&Transaction<'_>) -> Result<R, E>,
    ) -> Result<R, Failed<E>> {
        let before = self.transaction.state.get_mut().overlay.clone();
        let transaction = &self.transaction;
        // What a panic leaves half-done is the overlay's, which is replaced by what it was.
        let failed = match catch_unwind(AssertUnwindSafe(|| body(transaction))) {
            Ok(Ok(result)) => return Ok(result),
            Ok(Err(error)) => Failed::Error(error),
            Err(panic) => Failed::Panic(panic_message(panic.as_ref())),
        };
        self.undo(before);
        Err(failed)
    }

    fn undo(&mut self, mut before: Overlay) {
        let overlay = &mut self.transaction.state.get_mut().overlay;
        // A number stands for one record for ever: a handle may have got out.
        before.next_number = overlay.next_number;
        *overlay = before;
    }

    /// The index at which it reads.
    pub fn snapshot(&self) -> Index {
        self.transaction.root.index
    }

    /// How many records it writes.
    pub fn writes(&self) -> usize {
        let state = self.transaction.state.borrow();
        state.overlay.inserted.len() + state.overlay.changed.len()
    }

    /// Ends it: what is to be certified, by
    /// [`Applier::certify_batch`](crate::Applier::certify_batch). If nothing was written, the write
    /// set is empty, which no other submission's is.
    ///
    /// # Errors
    ///
    /// As a commit before anybody else hears of it: too large, or a conflict here.
    pub fn into_submission(
        self,
        id: TransactionId,
        low_water: u64,
    ) -> Result<Submission, CommitError> {
        let Transaction { shared, ref root, .. } = self.transaction;
        let installed = Index(shared.installed.load(Ordering::Acquire));
        if root.index < installed {
            return Err(CommitError::SnapshotTooOld { floor: installed });
        }
        let snapshot = root.index;
        let mut state: State = std::mem::take(&mut *self.transaction.state.borrow_mut());
        state.reads.normalise();
        state.local_reads.normalise();
        if !state.local_reads.is_empty() {
            let writer = shared.writer.lock();
            let checked = writer.check_local_reads(root.local_index, &state.local_reads);
            checked.map_err(Refusal::into_commit_error)?;
        }
        let reads_bytes = state.reads.encoded_bytes() + state.local_reads.encoded_bytes();
        expect_at_most(reads_bytes, MAX_READS_BYTES)?;
        let write_set = if state.overlay.is_empty() {
            Vec::new()
        } else {
            let draft = self.transaction.draft(&state.overlay);
            expect_at_most(draft.encoded_bytes(), MAX_WRITE_SET_BYTES)?;
            let mut bytes = draft.encode();
            stamp(&mut bytes, id, low_water);
            bytes
        };
        Ok(Submission {
            id,
            low_water,
            snapshot,
            isolation: Isolation::Serializable,
            write_set: write_set.into(),
            reads: state.reads,
            attempts: 0,
            series: 0,
        })
    }
}

/// What a panic that was caught said.
pub fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "it gave no message".to_owned())
}
