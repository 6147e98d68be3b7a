//! The applier: how write sets that somebody else ordered become visible here.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use quorate_schema::bytes::Malformed;

use crate::digest::told_digest;
use crate::image;
use crate::outcome::FENCES_MAX;
use crate::store::Root;
use crate::write_set::WriteSet;
use crate::{
    Batch, Database, Footprint, Image, ImageBuilder, ImageError, ImageStream, Index, Outcome,
    Refusal, Reservations, Settled, Submission, Tail, TransactionId, dictionary_digest,
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

    /// As [`Applier::certify`], and fair to who lost often: what is reserved for others is refused
    /// as a conflict, and a transaction that loses once more may get a reservation. `now` is the
    /// time in the ticks of `reservations`.
    ///
    /// Only ever refuses more than [`Applier::certify`]; a repeat is known before anything else.
    pub fn certify_fairly(
        &self,
        tail: &Tail,
        submission: &Submission,
        reservations: &mut Reservations,
        now: u64,
    ) -> Result<Footprint, Refusal> {
        let shared = &self.database.shared;
        let Ok(write_set) = WriteSet::decode(&submission.write_set, &shared.dictionary) else {
            return Err(Refusal::Conflict);
        };
        let footprint = write_set.footprint(&shared.dictionary);
        let certified = shared.writer.lock().certify(tail, submission, &footprint);
        match certified {
            Ok(()) if reservations.admit(submission, &footprint, now) => {
                reservations.admitted(submission);
                Ok(footprint)
            }
            Ok(()) | Err(Refusal::Conflict | Refusal::SnapshotTooOld { .. }) => {
                reservations.lost(submission, &footprint, now);
                Err(certified.err().unwrap_or(Refusal::Conflict))
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Begins a batch: bodies of others, one after another, on the newest visible state. It may run
    /// in another thread than the applier.
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(&self.database.shared)
    }

    /// [`Applier::certify_fairly`] of what [`Batch::into_submission`] made. The footprint is None
    /// if nothing was written: then only what was read was certified, and nothing is to be
    /// observed.
    pub fn certify_batch(
        &self,
        tail: &Tail,
        submission: &Submission,
        reservations: &mut Reservations,
        now: u64,
    ) -> Result<Option<Footprint>, Refusal> {
        if !submission.write_set.is_empty() {
            return self.certify_fairly(tail, submission, reservations, now).map(Some);
        }
        let footprint = Footprint::nothing(submission.id, submission.low_water);
        let Submission { snapshot, isolation, reads, .. } = submission;
        let writer = self.database.shared.writer.lock();
        writer.decide(tail, *snapshot, *isolation, &footprint, reads)?;
        Ok(None)
    }

    /// Applies at `index` a write set, if there is one, which settles all these requests: those
    /// that committed are known as such from now on, the others never will. As
    /// [`Applier::apply`] otherwise.
    ///
    /// # Panics
    ///
    /// If `index` is not the one after [`Applier::applied`].
    pub fn apply_batch(
        &self,
        index: Index,
        write_set: Option<&[u8]>,
        settled: &[Settled],
    ) -> Result<(), Malformed> {
        let shared = &self.database.shared;
        let write_set =
            write_set.map(|bytes| WriteSet::decode(bytes, &shared.dictionary)).transpose()?;
        let mut writer = shared.writer.lock();
        match &write_set {
            Some(write_set) => drop(writer.apply(&shared.dictionary, index, write_set)?),
            None => writer.skip(index),
        }
        writer.settle(index, settled);
        Ok(())
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

    /// Goes on behind `least` or a little later, and publishes: the same data, in a new count,
    /// whose beginning is returned. Transactions that began before end with `SnapshotTooOld` if
    /// they write.
    ///
    /// For a cluster that is formed again from this node: what other nodes gave the indexes up to
    /// there is another history.
    ///
    /// # Panics
    ///
    /// If `least` is below [`Applier::applied`].
    pub fn jump(&self, least: Index) -> Index {
        let shared = &self.database.shared;
        let mut writer = shared.writer.lock();
        let index = writer.jump(least);
        shared.installed.store(index.0, Ordering::Release);
        shared.visible.store(writer.working().clone());
        index
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

    /// A digest of the replicated part of the working state (the state hash, the index and the
    /// bytes used) and of `beside`, which is what the caller replicates beside it. Two nodes that
    /// applied the same log have the same. Cheap, whatever the size of the data: linear in the
    /// number of classes.
    ///
    /// What is known of transactions by their ids, and the history that certification looks at, are
    /// not in it.
    pub fn digest(&self, beside: &[u8]) -> u128 {
        let writer = self.database.shared.writer.lock();
        let root = writer.working();
        let state = root.state_hash(&self.database.shared.dictionary);
        told_digest(state, root.index.0, root.used_bytes, beside)
    }

    /// An image of the working state, to be read piece by piece. The state is pinned: commits go
    /// on beside it. Cheap, whatever the size of the data.
    pub fn image_stream(&self) -> ImageStream {
        let shared = &self.database.shared;
        let (root, history) = shared.writer.lock().pinned();
        ImageStream::new(Arc::clone(&shared.dictionary), root, history)
    }

    /// [`Applier::image_stream`] read to its end. Takes time and memory linear in the data.
    pub fn image(&self) -> Image {
        image::collect(self.image_stream())
    }

    /// Takes the pieces of an image of this database's dictionary. It changes nothing here, and
    /// may be fed by any thread.
    pub fn image_builder(&self) -> ImageBuilder {
        ImageBuilder::new(Arc::clone(&self.database.shared.dictionary))
    }

    /// [`Applier::install_built`] of an image in one go. Takes time linear in the data.
    pub fn install(&self, bytes: &[u8]) -> Result<Index, ImageError> {
        let mut builder = self.image_builder();
        image::push_all(&mut builder, bytes)?;
        self.install_built(builder)
    }

    /// Replaces all replicated data by what was built, in one step, and publishes it; gives its
    /// index. Local classes stay. Transactions that began before end with `SnapshotTooOld` if
    /// they write.
    ///
    /// Cheap, whatever the size of the data: everything was checked while it was built, and what
    /// is replaced is freed by a thread of its own if there is much of it. On an error nothing was
    /// changed.
    pub fn install_built(&self, built: ImageBuilder) -> Result<Index, ImageError> {
        let shared = &self.database.shared;
        let same = Arc::ptr_eq(built.dictionary(), &shared.dictionary)
            || dictionary_digest(built.dictionary()) == dictionary_digest(&shared.dictionary);
        if !same {
            return Err(ImageError::OtherDictionary);
        }
        let (root, history) = built.finish()?;
        let index = root.index;
        let mut writer = shared.writer.lock();
        let replaced = writer.install(&shared.dictionary, root, history)?;
        shared.installed.store(index.0, Ordering::Release);
        let hidden = shared.visible.swap(Arc::clone(writer.working()));
        drop(writer);
        retire([replaced, hidden]);
        Ok(index)
    }
}

/// Freeing more records than this takes longer than starting a thread.
const RETIRE_RECORDS: usize = 10_000;

/// Frees what an image replaced, beside the caller if it takes long.
fn retire(roots: [Arc<Root>; 2]) {
    let records = |root: &Arc<Root>| root.classes.iter().map(|table| table.records.len()).sum();
    if roots.iter().map(records).max() > Some(RETIRE_RECORDS) {
        // Without a thread the closure, and so the roots, are dropped here.
        let _ = thread::Builder::new().name("quorate-free".to_owned()).spawn(move || drop(roots));
    }
}
