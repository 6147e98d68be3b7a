//! The applier: how write sets that somebody else ordered become visible here.

use std::sync::atomic::Ordering;

use quorate_schema::bytes::Malformed;

use crate::outcome::FENCES_MAX;
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

    /// Passes over `index`, a log item that changes no records but is known by an id, like a
    /// transaction's: [`Applier::known`] says from now on that `id` committed at `index`, unless
    /// something is known of it already. `low_water` is that of its origin, as in a [`Submission`].
    ///
    /// # Panics
    ///
    /// If `index` is not the one after [`Applier::applied`].
    pub fn note(&self, index: Index, id: TransactionId, low_water: u64) {
        self.database.shared.writer.lock().note(index, id, low_water);
    }

    /// Passes over `index`, a fence: from now on `id` is [`Outcome::NotCommitted`] and is refused
    /// for ever. If it committed before, or was settled otherwise, nothing but the index changes.
    ///
    /// # Panics
    ///
    /// If `index` is not the one after [`Applier::applied`].
    pub fn fence(&self, index: Index, id: TransactionId) {
        self.database.shared.writer.lock().fence(index, id);
    }

    /// What became of a transaction, as far as the log is known here: what is applied says, and
    /// behind that `tail`. Who leads must not log anything with an id that is not
    /// [`Outcome::Unknown`], except a fence, which is harmless.
    pub fn known(&self, tail: &Tail, id: TransactionId) -> Outcome {
        self.database.shared.writer.lock().known(tail, id)
    }

    /// False if too many fences of the origin of `id` are remembered or on their way: whoever leads
    /// must ask before it logs one, so that the memory for them stays bounded. The origin's next
    /// commits make room.
    pub fn may_fence(&self, tail: &Tail, id: TransactionId) -> bool {
        let writer = self.database.shared.writer.lock();
        let applied = writer.working().exactly_once.fences(id.origin);
        applied + tail.fences(id.origin) < FENCES_MAX
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
