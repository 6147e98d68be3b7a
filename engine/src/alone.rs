//! The built-in commit path: one node alone, certify and apply under one lock.
//!
//! It is the same pipeline as in a cluster, with an order of one and no tail: what is certified
//! is applied and published before the next is looked at.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use crate::database::Shared;
use crate::write_set::WriteSet;
use crate::{CommitError, Index, Refusal, Submission, Tail, TransactionId};

/// The only origin there is.
const ORIGIN: u128 = 0;

/// Gives out ids and remembers which are under way.
#[derive(Debug, Default)]
pub(crate) struct Alone {
    sequences: Mutex<Sequences>,
}

#[derive(Debug, Default)]
struct Sequences {
    last: u64,
    in_flight: BTreeSet<u64>,
}

impl Alone {
    /// The next id, and the low water: the least sequence under way.
    pub(crate) fn next_id(&self) -> (TransactionId, u64) {
        let mut sequences = self.sequences.lock();
        sequences.last += 1;
        let sequence = sequences.last;
        sequences.in_flight.insert(sequence);
        let low_water = *sequences.in_flight.first().expect("one was inserted just now");
        (TransactionId { origin: ORIGIN, sequence }, low_water)
    }

    fn settle(&self, id: TransactionId) {
        self.sequences.lock().in_flight.remove(&id.sequence);
    }
}

/// Certifies, applies and publishes `submission`.
pub(crate) fn commit(shared: &Shared, submission: &Submission) -> Result<Index, CommitError> {
    let result = certify_and_apply(shared, submission);
    shared.alone.settle(submission.id);
    result.map_err(Refusal::into_commit_error)
}

fn certify_and_apply(shared: &Shared, submission: &Submission) -> Result<Index, Refusal> {
    let write_set = WriteSet::decode(&submission.write_set, &shared.dictionary)
        .expect("this process encoded the write set a moment ago");
    let footprint = write_set.footprint(&shared.dictionary);
    let mut writer = shared.writer.lock();
    let index = writer.working().index.next();
    writer.certify(&Tail::new(index), submission, &footprint)?;
    let given = writer
        .apply(&shared.dictionary, index, &write_set)
        .expect("what was certified under this lock fits the root");
    shared.pending.fill(submission.id, given);
    shared.visible.store(writer.working().clone());
    Ok(index)
}
