//! The applier: how write sets that somebody else ordered become visible here.

use std::sync::atomic::Ordering;

use quorate_schema::bytes::Malformed;

use crate::write_set::WriteSet;
use crate::{
    Database, Footprint, Image, ImageError, Index, Outcome, Refusal, Submission, Tail,
    TransactionId,
};

/// The hands of whoever runs the node: certifies, applies in order, publishes, makes and installs
/// images. Its calls belong into one thread; clients read and run on beside it and are only
/// ever in its way for one local commit.
///
/// Invariant: the state after index n is a function of the write sets at 1..=n alone.
#[derive(Clone, Debug)]
pub struct Applier {
    database: Database,
}

impl Applier {
    pub(crate) fn new(database: Database) -> Applier {
        Applier { database }
    }

    /// Decides whether `submission` may get the next index of `tail`, from what is applied, the
    /// tail and the budget; changes nothing. On success give the footprint to
    /// [`Tail::observe`] with the index the transaction gets.
    ///
    /// A repeat of a transaction that is applied or in the tail is [`Refusal::Known`]. The write
    /// set must have been decoded by [`Submission::decode`] or made by this process; another
    /// one is refused as a conflict.
    pub fn certify(&self, tail: &Tail, submission: &Submission) -> Result<Footprint, Refusal> {
        let shared = &self.database.shared;
        let Ok(write_set) = WriteSet::decode(&submission.write_set, &shared.dictionary) else {
            return Err(Refusal::Conflict);
        };
        let footprint = write_set.footprint(&shared.dictionary);
        shared.writer.lock().certify(tail, submission, &footprint)?;
        Ok(footprint)
    }

    /// Applies `write_set` at `index`: it is in the working state then, not yet visible. It was
    /// decided before; nothing is decided here.
    ///
    /// Bytes that no correct leader writes are refused; then nothing of them is applied, and the
    /// node cannot go on with this log.
    ///
    /// # Panics
    ///
    /// If `index` is not the one after [`Applier::applied`].
    pub fn apply(&self, index: Index, write_set: &[u8]) -> Result<(), Malformed> {
        let shared = &self.database.shared;
        let write_set = WriteSet::decode(write_set, &shared.dictionary)?;
        let given = shared.writer.lock().apply(&shared.dictionary, index, &write_set)?;
        shared.pending.fill(write_set.id(), given);
        Ok(())
    }

    /// Passes over `index`, a log item without data.
    ///
    /// # Panics
    ///
    /// If `index` is not the one after [`Applier::applied`].
    pub fn skip(&self, index: Index) {
        self.database.shared.writer.lock().skip(index);
    }

    /// Makes everything applied visible, at once.
    pub fn publish(&self) {
        let shared = &self.database.shared;
        let writer = shared.writer.lock();
        shared.visible.store(writer.working().clone());
    }

    /// The newest index applied, visible or not.
    pub fn applied(&self) -> Index {
        self.database.shared.writer.lock().working().index
    }

    /// What became of a transaction, in the working state.
    pub fn outcome(&self, id: TransactionId) -> Outcome {
        self.database.shared.writer.lock().working().exactly_once.outcome(id)
    }

    /// [`Database::state_hash`] of the working state.
    pub fn state_hash(&self) -> u128 {
        let root = self.database.shared.writer.lock().working().clone();
        root.state_hash(&self.database.shared.dictionary)
    }

    /// A consistent image of the working state. Takes time and memory linear in the data, and
    /// holds up commits meanwhile.
    pub fn image(&self) -> Image {
        let shared = &self.database.shared;
        shared.writer.lock().image(&shared.dictionary)
    }

    /// Replaces all replicated data by that of an image, and publishes it; gives its index.
    /// Everything is checked before anything is switched; local classes stay. Transactions
    /// that began before end with `SnapshotTooOld` if they write.
    pub fn install(&self, bytes: &[u8]) -> Result<Index, ImageError> {
        let shared = &self.database.shared;
        let mut writer = shared.writer.lock();
        let index = writer.install(&shared.dictionary, bytes)?;
        shared.installed.store(index.0, Ordering::Release);
        shared.visible.store(writer.working().clone());
        Ok(index)
    }
}
