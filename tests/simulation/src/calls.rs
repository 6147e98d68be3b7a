//! Procedures in the simulation: the same counting as a transaction's, by a call.
//!
//! What a batch found is handed to its replica a while after it ran, as a slow procedure's would
//! be: others get into the log meanwhile, and leaders change.

use std::sync::Arc;
use std::time::Duration;

use quorate_cluster::replica::Input;
use quorate_cluster::{
    CallBatch, CallContext, CallError, CallRequest, CallResult, Clock, Procedures, RanBatch,
};
use quorate_engine::{CommitError, CommitPath, Error, Index, Transaction, TransactionId};

use crate::clients::{OperationId, count, journal};
use crate::world::{Event, World};

/// The longest that a batch takes to run, ms.
const RUN_MS: u64 = 30;

/// The procedures of every simulated node.
pub(crate) fn procedures() -> Procedures {
    let procedures = Procedures::default();
    procedures.register("count", Arc::new(count_call));
    procedures
}

fn count_call(tx: &Transaction<'_>, args: &[u8], _: &CallContext<'_>) -> Result<Vec<u8>, Error> {
    let number = |place: usize| -> Result<u64, Error> {
        let bytes = args.get(8 * place..8 * place + 8);
        let bytes = bytes.ok_or_else(|| Error::application("four numbers are wanted"))?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let counter = number(3)? as i64;
    count(tx, counter)?;
    journal(tx, (number(0)?, number(1)?, number(2)?), counter)?;
    Ok(Vec::new())
}

fn arguments(id: OperationId, counter: u64) -> Vec<u8> {
    [id.0, id.1, id.2, counter].iter().flat_map(|number| number.to_le_bytes()).collect()
}

impl World {
    /// A client calls a procedure.
    pub(crate) fn call(&mut self, slot: usize, who: (u64, u64)) -> Result<(), String> {
        let counter = self.rng.below(self.mix.counters);
        let Some(process) = &self.nodes[slot] else { return Ok(()) };
        let (id, low_water) = process.path.next_id();
        let operation = self.history.begin_call(who, id);
        let (name, args) = ("count".to_owned(), arguments(operation, counter));
        let request = Arc::new(CallRequest { low_water, run_limit_ms: 1_000, name, args });
        self.step(slot, Input::Call { id, request, limit_ms: None })
    }

    /// The leader in this slot wants a batch run.
    pub(crate) fn run_batch(&mut self, slot: usize, batch: &CallBatch) -> Result<(), String> {
        let Some(process) = &self.nodes[slot] else { return Ok(()) };
        let clock = Clock { unix_ms: self.now, elapsed: &|| Duration::ZERO };
        let ran = process.procedures.run(&process.database.applier(), batch, clock);
        let (wait, life) = (self.rng.below(RUN_MS), self.lives[slot]);
        self.after(wait, Event::Ran { slot, life, ran: Box::new(ran) });
        Ok(())
    }

    /// A batch that was run comes back, unless its process is gone.
    pub(crate) fn ran(&mut self, slot: usize, life: u64, ran: Box<RanBatch>) -> Result<(), String> {
        if self.lives[slot] != life {
            return Ok(());
        }
        if self.is_paused(slot) {
            self.after(10, Event::Ran { slot, life, ran });
            return Ok(());
        }
        self.step(slot, Input::Ran(*ran))
    }

    /// A caller hears what became of its call.
    pub(crate) fn called(
        &mut self,
        slot: usize,
        id: TransactionId,
        result: Result<CallResult, CallError>,
    ) -> Result<(), String> {
        let result: Result<Index, CommitError> = match result {
            Ok(CallResult { index, .. }) => {
                self.report.calls_done += 1;
                Ok(index)
            }
            Err(CallError::ResultLost { index }) => Ok(index),
            Err(CallError::InDoubt(id)) => Err(CommitError::InDoubt(id)),
            Err(CallError::NoQuorum { reason }) => Err(CommitError::NoQuorum { reason }),
            Err(CallError::NotDone(id)) => Err(CommitError::Fenced(id)),
            Err(CallError::Conflict) => Err(CommitError::Conflict),
            Err(CallError::Stopped) => Err(CommitError::Stopped),
            Err(error) => return Err(format!("call {id:?} ended as {error:?}")),
        };
        self.completed(slot, id, &result)
    }
}
