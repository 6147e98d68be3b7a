//! Calls of procedures: where their callers wait, and the thread that runs them while this node
//! leads.
//!
//! Programs' functions may take long, and the listener must not wait for them: one thread runs
//! batch after batch and hands each back as a command. It starts with the first batch, and ends
//! when the listener does, or when the function it is in returns.

use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Instant;

use quorate_engine::{Applier, CommitPath, TransactionId};
use tracing::warn;

use super::shared::{Absent, Command, LIMIT_MAX, Shared, Slot};
use crate::procedure::{
    CallBatch, CallError, CallOptions, CallRequest, CallResult, Clock, Procedures,
};
use crate::wall_clock::unix_ms;

impl Shared {
    /// Has a procedure run by the leader, and waits for its outcome.
    pub(crate) fn call(
        &self,
        name: &str,
        args: &[u8],
        options: CallOptions,
    ) -> Result<CallResult, CallError> {
        let (id, low_water) = self.next_id();
        let run_limit_ms = options.run_limit_ms();
        let (name, args) = (name.to_owned(), args.to_vec());
        let request = CallRequest { low_water, run_limit_ms, name, args };
        let result = request.check().and_then(|()| self.ask_call(id, request, options));
        if !matches!(result, Err(CallError::InDoubt(_))) {
            self.settled(id.sequence); // else it is settled later
        }
        result
    }

    fn ask_call(
        &self,
        id: TransactionId,
        request: CallRequest,
        options: CallOptions,
    ) -> Result<CallResult, CallError> {
        let slot = Slot::new();
        let start = Instant::now();
        let limit = options.limit.map(|limit| limit.min(LIMIT_MAX));
        {
            let wait = limit.map_or(self.limits.wait, |limit| limit.min(self.limits.wait));
            let mut inbox = match self.listening(start + wait) {
                Ok(inbox) => inbox,
                Err(Absent::NotListening) => return Err(CallError::NotListening),
                Err(Absent::Ended(_)) => return Err(CallError::Stopped),
            };
            if inbox.ends_asked > 0 {
                return Err(CallError::Stopped);
            }
            let left = limit.map(|limit| limit.saturating_sub(start.elapsed()));
            let limit_ms = left.map(|left| (left.as_millis() as u64).max(1));
            let (request, slot) = (Arc::new(request), Arc::clone(&slot));
            self.push(&mut inbox, Command::Call { id, request, limit_ms, slot });
        }
        slot.wait()
    }
}

/// See the module.
pub(super) struct Runner {
    procedures: Arc<Procedures>,
    applier: Applier,
    shared: Arc<Shared>,
    batches: Option<Sender<CallBatch>>,
}

impl Runner {
    pub(super) fn new(procedures: Arc<Procedures>, applier: Applier, shared: Arc<Shared>) -> Self {
        Self { procedures, applier, shared, batches: None }
    }

    /// Lets a batch run behind those given before; its end comes as a command.
    pub(super) fn run(&mut self, batch: CallBatch) {
        let batch = match &self.batches {
            None => batch,
            Some(batches) => match batches.send(batch) {
                Ok(()) => return,
                Err(mpsc::SendError(batch)) => batch, // the thread is gone: another one
            },
        };
        let (sender, receiver) = mpsc::channel::<CallBatch>();
        let procedures = Arc::clone(&self.procedures);
        let (applier, shared) = (self.applier.clone(), Arc::clone(&self.shared));
        let started = thread::Builder::new().name("quorate-procedures".into()).spawn(move || {
            let start = Instant::now();
            while let Ok(batch) = receiver.recv() {
                let clock = Clock { unix_ms: unix_ms(), elapsed: &|| start.elapsed() };
                let ran = procedures.run(&applier, &batch, clock);
                shared.tell(Command::Ran(ran));
            }
        });
        match started {
            Ok(_) => {
                // Its receiver is alive: it waits for this very batch.
                let _ = sender.send(batch);
                self.batches = Some(sender);
            }
            Err(error) => warn!(%error, "no thread for procedures: calls wait for another leader"),
        }
    }
}
