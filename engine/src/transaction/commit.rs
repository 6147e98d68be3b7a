//! Commit: the overlay becomes a write set, the write set an index.

use quorate_schema::{ClassId, Dictionary, PatchWhat};

use super::handle::Underway;
use super::overlay::{Changed, Overlay, Own};
use super::{State, Transaction};
use crate::certify::RESERVE_ATTEMPTS;
use crate::clock::Age;
use crate::keys::{entry_bytes, key_of, record_bytes, total_bytes};
use crate::store::Given;
use crate::write_set::{
    Addition, Draft, DraftChange, Kind, MAX_READS_BYTES, MAX_WRITE_SET_BYTES, RemovedKey, WriteSet,
    stamp,
};
use crate::writer::LocalSubmission;
use crate::{
    Acknowledge, Acknowledged, CommitError, CommitHandle, CommitOptions, Handle, Index, Isolation,
    ReadSet, Refusal, Submission, Tail, TransactionId, alone,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The number of the only node there is, if there is no cluster.
const ALONE: u32 = 0;

/// A transaction that committed.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Its place in the order of all; of a transaction that wrote nothing, the index it read at; of
    /// one on local classes, the visible index at its commit.
    pub index: Index,
    /// Its name, if it wrote replicated classes.
    pub id: Option<TransactionId>,
    /// With [`Acknowledge::AllLive`](crate::Acknowledge::AllLive), if it wrote replicated classes:
    /// the nodes that had applied it, in order; those are all that were live. A database alone is
    /// node 0.
    pub applied_by: Option<Vec<u32>>,
    /// The provisional numbers of the inserted records, in the order they were given places.
    pub(super) numbers: Vec<u64>,
    pub(super) given: Option<Vec<Given>>,
}

impl Committed {
    /// The lasting handle of a record: of one the transaction inserted, where the applier put it;
    /// of any other, the handle itself.
    ///
    /// None for a record that was deleted again, and in the rare case that this node learned of
    /// the commit from an image (state transfer) and not from the log: then look the record up.
    pub fn resolve(&self, handle: Handle) -> Option<Handle> {
        if !handle.is_provisional() {
            return Some(handle);
        }
        let given = self.given(handle)?;
        Some(Handle { class: given.class, id: given.id, creation: given.creation })
    }

    /// The autoid of a record the transaction inserted; None as for [`Committed::resolve`], and if
    /// its class has no autoid.
    pub fn autoid(&self, handle: Handle) -> Option<u64> {
        self.given(handle)?.autoid
    }

    fn given(&self, handle: Handle) -> Option<&Given> {
        let position = self.numbers.binary_search(&handle.id).ok()?;
        let given = self.given.as_ref()?.get(position)?;
        (handle.is_provisional() && given.class == handle.class).then_some(given)
    }
}

impl Transaction<'_> {
    /// Commits. Blocks until the outcome is known and, if it committed, visible here.
    ///
    /// A transaction that wrote nothing always succeeds, at once. For the errors see
    /// [`CommitError`]; after all but `InDoubt` nothing of the transaction is anywhere.
    pub fn commit(self) -> Result<Committed, CommitError> {
        self.commit_with(CommitOptions::default())
    }

    /// As [`Transaction::commit`], with another idea of when it is done.
    pub fn commit_with(self, options: CommitOptions) -> Result<Committed, CommitError> {
        self.commit_async(options)?.wait()
    }

    /// Submits the commit and does not wait for its outcome: the handle does. So one thread can
    /// have many commits under way; their order is that of their indexes, not of their submission.
    ///
    /// It blocks only while as many commits of this node as the cluster's parameters allow
    /// (`conn_pool_factor` percent of `max_connections`) are under way. Alone, and for local
    /// classes, the commit is done when this returns.
    ///
    /// A transaction begun before the outcome is known reads without these writes, and conflicts
    /// with them if it writes the same.
    ///
    /// # Errors
    ///
    /// What is known without others, as from [`Transaction::commit`]: nothing was submitted.
    pub fn commit_async(self, options: CommitOptions) -> Result<CommitHandle, CommitError> {
        let state = std::mem::take(&mut *self.state.borrow_mut());
        if state.overlay.is_empty() {
            let committed = self.committed(&state, self.root.index.into(), None, None);
            return Ok(CommitHandle::done(committed));
        }
        let result = self.commit_writes(state, options);
        match &result {
            Err(_) => self.shared.counters.count(&result),
            Ok(handle) if handle.is_done() => self.shared.counters.count(&result),
            Ok(_) => {} // counted with its outcome
        }
        result
    }

    fn commit_writes(
        &self,
        mut state: State,
        options: CommitOptions,
    ) -> Result<CommitHandle, CommitError> {
        self.age.map_or(Ok(()), Age::check)?;
        let installed = Index(self.shared.installed.load(Ordering::Acquire));
        if self.root.index < installed {
            return Err(CommitError::SnapshotTooOld { floor: installed });
        }
        state.reads.normalise();
        state.local_reads.normalise();
        let draft = self.draft(&state.overlay);
        let reads_bytes = state.reads.encoded_bytes() + state.local_reads.encoded_bytes();
        expect_at_most(draft.encoded_bytes(), MAX_WRITE_SET_BYTES)?;
        expect_at_most(reads_bytes, MAX_READS_BYTES)?;
        match draft.kind {
            Kind::Replicated => self.commit_replicated(state, &draft, options),
            Kind::Local => self.commit_local(state, &draft).map(CommitHandle::done),
        }
    }

    fn commit_replicated(
        &self,
        mut state: State,
        draft: &Draft,
        options: CommitOptions,
    ) -> Result<CommitHandle, CommitError> {
        let shared = self.shared;
        let mut write_set = draft.encode();
        let reads = std::mem::take(&mut state.reads);
        if self.isolation == Isolation::Serializable && !state.local_reads.is_empty() {
            let writer = shared.writer.lock();
            let checked = writer.check_local_reads(self.root.local_index, &state.local_reads);
            checked.map_err(Refusal::into_commit_error)?;
        }
        // Whoever loses often must be heard of where reservations are made.
        if shared.commit_path.is_some() && self.persistence.attempts < RESERVE_ATTEMPTS {
            self.abort_early(&write_set, &reads)?;
        }
        let (id, low_water) = match &shared.commit_path {
            Some(path) => path.next_id(),
            None => shared.alone.next_id(),
        };
        stamp(&mut write_set, id, low_water);
        let submission = Submission {
            id,
            low_water,
            snapshot: self.root.index,
            isolation: self.isolation,
            write_set: write_set.into(),
            reads,
            attempts: self.persistence.attempts,
            series: self.persistence.series,
        };
        shared.pending.expect(id);
        let Some(path) = &shared.commit_path else {
            let result = alone::commit(shared, &submission);
            let given = shared.pending.take(id);
            let all = (options.acknowledge == Acknowledge::AllLive).then(|| vec![ALONE]);
            let acknowledged = Acknowledged { index: result?, applied_by: all };
            return Ok(CommitHandle::done(self.committed(&state, acknowledged, Some(id), given)));
        };
        match path.submit(submission, options) {
            Ok(ticket) => {
                let numbers = state.overlay.inserted.keys().copied().collect();
                let shared = Arc::clone(shared);
                Ok(CommitHandle::underway(Underway { shared, ticket, id, numbers }))
            }
            Err(error) => {
                shared.pending.take(id);
                Err(error)
            }
        }
    }

    /// Certifies against what is applied here already: who would lose anyway need not ask others.
    fn abort_early(&self, write_set: &[u8], reads: &ReadSet) -> Result<(), CommitError> {
        let shared = self.shared;
        let write_set = WriteSet::decode(write_set, &shared.dictionary)
            .expect("this process encoded the write set a moment ago");
        let footprint = write_set.footprint(&shared.dictionary);
        let writer = shared.writer.lock();
        let tail = Tail::new(writer.working().index.next());
        let decided = writer.decide(&tail, self.root.index, self.isolation, &footprint, reads);
        decided.map_err(Refusal::into_commit_error)
    }

    fn commit_local(&self, mut state: State, draft: &Draft) -> Result<Committed, CommitError> {
        let shared = self.shared;
        let submission = LocalSubmission {
            write_set: draft.encode().into(),
            snapshot: self.root.index,
            local_snapshot: self.root.local_index,
            isolation: self.isolation,
            reads: std::mem::take(&mut state.reads),
            local_reads: std::mem::take(&mut state.local_reads),
        };
        let mut writer = shared.writer.lock();
        let given = writer
            .commit_local(&shared.dictionary, &submission)
            .map_err(Refusal::into_commit_error)?;
        shared.visible.store(Arc::clone(writer.working()));
        let index = writer.working().index;
        drop(writer);
        Ok(self.committed(&state, index.into(), None, Some(given)))
    }

    fn committed(
        &self,
        state: &State,
        acknowledged: Acknowledged,
        id: Option<TransactionId>,
        given: Option<Vec<Given>>,
    ) -> Committed {
        let numbers = state.overlay.inserted.keys().copied().collect();
        let Acknowledged { index, applied_by } = acknowledged;
        Committed { index, id, applied_by, numbers, given }
    }

    pub(super) fn draft(&self, overlay: &Overlay) -> Draft {
        let dictionary = self.dictionary();
        let places = overlay.inserted.keys().zip(0..).map(|(number, place)| (*number, place));
        let places: BTreeMap<u64, u64> = places.collect();
        let mut draft = Draft {
            kind: overlay.kind.expect("the overlay is not empty"),
            isolation: self.isolation,
            snapshot: self.root.index,
            byte_delta: 0,
            dependencies: overlay.dependencies.clone(),
            changes: Vec::with_capacity(overlay.changed.len()),
            inserts: Vec::with_capacity(overlay.inserted.len()),
            additions: Vec::new(),
        };
        draft.dependencies.sort_unstable();
        draft.dependencies.dedup();
        for ((class, id), changed) in &overlay.changed {
            if let Some(operations) = &changed.added {
                let (creation, operations) = (changed.old.creation, operations.clone());
                draft.additions.push(Addition { class: *class, id: *id, creation, operations });
                continue;
            }
            let change = draft_change(dictionary, *class, *id, changed, &places, &mut draft);
            draft.changes.push(change);
        }
        for own in overlay.inserted.values() {
            let class = &dictionary.classes()[own.class.0 as usize];
            draft.byte_delta += total_bytes(dictionary, class, &own.stored.image);
            draft.inserts.push((own.class, numbered(dictionary, own, &places)));
        }
        draft
    }
}

fn draft_change(
    dictionary: &Dictionary,
    class: ClassId,
    id: u64,
    changed: &Changed,
    places: &BTreeMap<u64, u64>,
    draft: &mut Draft,
) -> DraftChange {
    let old = &changed.old;
    let mut removed = Vec::new();
    draft.byte_delta -= record_bytes(&old.image);
    for (position, index) in dictionary.classes()[class.0 as usize].indexes.iter().enumerate() {
        let old_key = key_of(dictionary, index, &old.image);
        if let Some(new) = &changed.new {
            if new.keys[position].bytes == old_key.bytes {
                continue;
            }
            draft.byte_delta += entry_bytes(&new.keys[position].bytes);
        }
        draft.byte_delta -= entry_bytes(&old_key.bytes);
        let has_null = old_key.has_null;
        removed.push(RemovedKey { position, key: old_key.bytes, has_null });
    }
    let image = changed.new.as_ref().map(|new| numbered(dictionary, new, places));
    draft.byte_delta += image.as_ref().map_or(0, |image| record_bytes(image));
    DraftChange { class, id, creation: old.creation, image, removed }
}

/// The image of an own record, naming other own records by their places in the write set.
fn numbered(dictionary: &Dictionary, own: &Own, places: &BTreeMap<u64, u64>) -> Vec<u8> {
    let mut image = own.stored.image.to_vec();
    for patch in dictionary.layout(own.class).patches(dictionary, &own.stored.image) {
        if let PatchWhat::RecordId(number) = patch.what {
            let place = places.get(&number).expect("references to deleted own records are cleared");
            patch.apply(&mut image, *place);
        }
    }
    image
}

pub(super) fn expect_at_most(bytes: usize, limit: usize) -> Result<(), CommitError> {
    if bytes <= limit {
        return Ok(());
    }
    Err(CommitError::TooLarge { bytes: bytes as u64, limit_bytes: limit as u64 })
}
