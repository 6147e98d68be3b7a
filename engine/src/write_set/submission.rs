//! What a commit hands over: the write set, with what certification needs and the log does not.

use std::sync::Arc;

use quorate_schema::Dictionary;
use quorate_schema::bytes::{Malformed, Reader, Writer};

use super::WriteSet;
use crate::{Index, Isolation, ReadSet, TransactionId};

/// The most bytes of reads that travel with a write set: 32 MiB, four million points.
pub(crate) const MAX_READS_BYTES: usize = 32 << 20;

/// A transaction on replicated classes that asks to be certified.
///
/// Invariant: id, low water, snapshot and isolation are those in the header of the write set,
/// unless that is empty: then it is of a batch that only read, and never travels.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Its name, for ever.
    pub id: TransactionId,
    /// Sequences of its origin below this are settled and may be forgotten.
    pub low_water: u64,
    /// The index at which it read.
    pub snapshot: Index,
    /// The isolation it asks for.
    pub isolation: Isolation,
    /// The bytes of its [`WriteSet`]: what the log stores.
    pub write_set: Arc<[u8]>,
    /// What it read, if serializable. It never enters the log.
    pub reads: ReadSet,
    /// How often `transact` has run it before and lost; neither does this enter the log.
    pub attempts: u16,
    /// The run of `transact` it belongs to, by its number at the origin; 0 if it never lost.
    pub series: u64,
}

impl Submission {
    /// Appends its wire form.
    pub fn encode(&self, to: &mut Writer) {
        to.bytes(&self.write_set);
        self.reads.encode(to);
        to.u16(self.attempts);
        to.u64(self.series);
    }

    /// Reads what [`Submission::encode`] wrote. Total on any bytes: the write set is checked as by
    /// [`WriteSet::decode`].
    pub fn decode(from: &mut Reader<'_>, dictionary: &Dictionary) -> Result<Self, Malformed> {
        let start = from.offset();
        let write_set = from.bytes()?;
        let (id, low_water, snapshot, isolation) = {
            let view = WriteSet::decode(write_set, dictionary)
                .map_err(|error| Malformed { offset: start + 4 + error.offset, ..error })?;
            (view.id, view.low_water, view.snapshot, view.isolation)
        };
        let reads_start = from.offset();
        let reads = ReadSet::decode(from)?;
        if from.offset() - reads_start > MAX_READS_BYTES {
            return Err(from.malformed("more reads than may travel"));
        }
        if isolation == Isolation::Snapshot && !reads.is_empty() {
            return Err(from.malformed("reads of a transaction that is not serializable"));
        }
        let (attempts, series) = (from.u16()?, from.u64()?);
        let write_set = write_set.into();
        Ok(Submission { id, low_water, snapshot, isolation, write_set, reads, attempts, series })
    }
}
