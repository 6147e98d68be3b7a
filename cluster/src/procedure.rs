//! Procedures: functions that the program gives a name on every node, and that the leader runs.
//!
//! A call travels to the leader instead of a write set. There all waiting calls run one after
//! another as one batch, on the newest state, and the batch is certified and logged as one
//! transaction, together with what each call answered. So callers that would only ever conflict
//! with each other do not, and nobody runs anything twice: a batch that lost against others is
//! run again by the leader before anybody hears of it.
//!
//! Nodes apply what was written, never the code: a procedure may read clocks and files, and need
//! not be the same on all nodes. It runs wherever the leader is, on one thread of that node.
//!
//! What it must not do: wait for another call, which would run on the same thread; or run for long,
//! since others wait behind it. A procedure that never returns stops all calls while its node
//! leads, and nothing else: commits go on.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use quorate_engine::{
    Applier, Batch, CommitError, Connection, Error, Failed, Index, Isolation, Submission,
    Transaction, TransactionId, panic_message,
};

use crate::wall_clock::unix_ms;

/// The most bytes of arguments, and of the bytes a call answers.
pub const CALL_BYTES_MAX: usize = 1 << 20;

/// How long a procedure may run unless its caller says otherwise.
pub const RUN_LIMIT: Duration = Duration::from_secs(1);

/// The longest name of a procedure, bytes.
pub(crate) const NAME_BYTES_MAX: usize = 255;

/// Behind so many writes or bytes of answers a batch ends: later calls would wait for its log.
const BATCH_WRITES: usize = 1_000;
const BATCH_ANSWER_BYTES: usize = 4 << 20;

/// The longest write set of a batch, bytes, so that its entry fits a frame.
const WRITE_SET_BYTES_MAX: usize = 64 << 20;

/// A procedure: reads and writes replicated classes in the transaction it is given, and answers
/// bytes. If it fails or panics, what it wrote is taken back.
pub type Procedure =
    dyn Fn(&Transaction<'_>, &[u8], &CallContext<'_>) -> Result<Vec<u8>, Error> + Send + Sync;

/// What a procedure is told besides its arguments.
pub struct CallContext<'a> {
    time_ms: u64,
    id: TransactionId,
    began: Duration,
    limit: Duration,
    elapsed: &'a dyn Fn() -> Duration,
}

impl CallContext<'_> {
    /// Milliseconds since the Unix epoch, by the leader's clock, but never less than what a call
    /// that is in the log before this one was told, whichever node led then. All calls of one
    /// batch are told the same.
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// The call's name: the same if it is run again.
    pub fn id(&self) -> TransactionId {
        self.id
    }

    /// True once the time limit is over: what the call does from now on is in vain, so it should
    /// return.
    pub fn expired(&self) -> bool {
        (self.elapsed)().saturating_sub(self.began) > self.limit
    }
}

impl fmt::Debug for CallContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time_ms, id, limit, .. } = self;
        f.debug_struct("CallContext")
            .field("time_ms", time_ms)
            .field("id", id)
            .field("limit", limit)
            .finish_non_exhaustive()
    }
}

/// How long a call may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallOptions {
    /// How long the caller waits for the outcome; default none: as long as a commit may take. A
    /// database alone never waits, so it has no use for this.
    pub limit: Option<Duration>,
    /// How long the procedure itself may run; default [`RUN_LIMIT`].
    pub run_limit: Option<Duration>,
}

impl CallOptions {
    /// The same options with a limit for the outcome.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// The same options with a limit for the procedure.
    #[must_use]
    pub fn run_limit(mut self, limit: Duration) -> Self {
        self.run_limit = Some(limit);
        self
    }

    pub(crate) fn run_limit_ms(&self) -> u32 {
        let limit = self.run_limit.unwrap_or(RUN_LIMIT).as_millis();
        u32::try_from(limit).unwrap_or(u32::MAX).max(1)
    }
}

/// A call that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallResult {
    /// What the procedure answered.
    pub bytes: Vec<u8>,
    /// The place of the call in the order of all; calls of one batch share it. A transaction that
    /// begins on this node from now on sees what the call wrote.
    pub index: Index,
}

/// Why a call was not done.
///
/// Unless it says otherwise, nothing of the call is in the database, now or later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The procedure returned an error.
    #[error("the procedure failed: {message}; nothing was written")]
    Failed {
        /// What it said.
        message: String,
    },
    /// The procedure panicked.
    #[error("the procedure panicked: {message}; nothing was written, mend it")]
    Panicked {
        /// What the panic said.
        message: String,
    },
    /// The node that leads has no procedure of this name.
    #[error("the leader has no procedure {name:?}; nothing was written, register it on every node")]
    UnknownProcedure {
        /// The name.
        name: String,
    },
    /// The procedure ran for too long.
    #[error(
        "the procedure ran for more than {limit_ms} ms; nothing was written, let it do less at \
         once or give it more time (CallOptions::run_limit)"
    )]
    TimedOut {
        /// Its limit.
        limit_ms: u32,
    },
    /// The arguments, the answer, or what was written is too large.
    #[error("{what} of the call takes {bytes} bytes, more than {limit_bytes}; nothing was written")]
    TooLarge {
        /// Which of them.
        what: &'static str,
        /// Its size, bytes.
        bytes: u64,
        /// The limit, bytes.
        limit_bytes: u64,
    },
    /// The leader gave up, since others wrote what the call uses each time it ran.
    #[error(
        "other transactions wrote what the call uses again and again; nothing was written, \
             call it again"
    )]
    Conflict,
    /// The call was given up by who asked for its outcome; or it failed, and this node learned of
    /// that from an image (state transfer), which does not say why.
    #[error("call {0} was given up, or failed and nobody can say why; nothing was written")]
    NotDone(TransactionId),
    /// The call is done, but its answer is lost: this node learned of it from an image (state
    /// transfer).
    #[error(
        "the call is done at index {index} and visible here, but its answer is lost; do not call \
         it again, read what it wrote"
    )]
    ResultLost {
        /// Its index.
        index: Index,
    },
    /// The outcome was not known in time. It may be done yet.
    #[error(
        "the outcome of call {0} is not known in time; it may be done or be done yet, so ask for \
         its outcome by its id before calling again"
    )]
    InDoubt(TransactionId),
    /// Nothing can be logged now.
    #[error("no quorum: {reason}; nothing was written, call again once there is a quorum")]
    NoQuorum {
        /// Why, for people.
        reason: String,
    },
    /// Committing what it wrote was refused for another reason.
    #[error(transparent)]
    Commit(CommitError),
    /// The database alone could not begin or end the transaction around it.
    #[error("{message}")]
    Refused {
        /// Why.
        message: String,
    },
    /// The node was stopped.
    #[error("the node is stopped; the call was not run, call on another node")]
    Stopped,
    /// Nobody runs the listener.
    #[error("no listener is running; call listen() in a thread, or spawn_listener(), first")]
    NotListening,
}

impl From<CommitError> for CallError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict | CommitError::SnapshotTooOld { .. } => Self::Conflict,
            CommitError::InDoubt(id) => Self::InDoubt(id),
            CommitError::Fenced(id) => Self::NotDone(id),
            CommitError::NoQuorum { reason } => Self::NoQuorum { reason },
            CommitError::Stopped => Self::Stopped,
            CommitError::NotListening => Self::NotListening,
            CommitError::TooLarge { bytes, limit_bytes } => {
                Self::TooLarge { what: WRITES, bytes, limit_bytes }
            }
            error => Self::Commit(error),
        }
    }
}

pub(crate) const ARGUMENTS: &str = "what is given to the procedure";
pub(crate) const ANSWER: &str = "the answer";
pub(crate) const WRITES: &str = "what was written";

/// A call as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallRequest {
    /// Sequences of its origin below this are settled.
    pub low_water: u64,
    /// How long the procedure may run.
    pub run_limit_ms: u32,
    /// Which procedure.
    pub name: String,
    /// Its arguments.
    pub args: Vec<u8>,
}

/// What a call answered; part of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallAnswer {
    /// It is done.
    Done(Vec<u8>),
    /// It is not, and its id never will be.
    Failed(CallError),
}

impl CallAnswer {
    /// True if what it wrote is part of the batch.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Done(bytes) => bytes.len(),
            Self::Failed(_) => 0, // bounded
        }
    }
}

/// Calls to be run one after another in one transaction.
#[derive(Clone, Debug)]
pub struct CallBatch {
    /// Names it in the answer.
    pub number: u64,
    /// No call may be told an earlier time.
    pub time_floor_ms: u64,
    /// The calls, in order; at least one.
    pub calls: Vec<(TransactionId, Arc<CallRequest>)>,
}

/// A batch that was run.
#[derive(Clone, Debug)]
pub struct RanBatch {
    /// Its name.
    pub number: u64,
    /// What its calls were told.
    pub time_ms: u64,
    /// What its first calls answered, at least one; the others were not run.
    pub answers: Vec<CallAnswer>,
    /// What those wrote and read together, under the id of the first that is done; none if this
    /// node's state changed in a way that needs another run.
    pub submission: Option<Submission>,
}

/// Where whoever runs a batch takes the time from.
#[derive(Clone, Copy)]
pub struct Clock<'a> {
    /// Now, in milliseconds since the Unix epoch.
    pub unix_ms: u64,
    /// Time that has passed since some fixed moment.
    pub elapsed: &'a dyn Fn() -> Duration,
}

impl fmt::Debug for Clock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("unix_ms", &self.unix_ms).finish_non_exhaustive()
    }
}

/// The procedures of one node, by name.
#[derive(Default)]
pub struct Procedures {
    by_name: RwLock<BTreeMap<String, Arc<Procedure>>>,
    /// Calls of a database alone, and the newest time they were told.
    calls: AtomicU64,
    newest_ms: AtomicU64,
}

impl Procedures {
    /// Gives a procedure a name, at any time; one that had it before is forgotten.
    pub fn register(&self, name: &str, procedure: Arc<Procedure>) {
        self.by_name.write().insert(name.to_owned(), procedure);
    }

    fn get(&self, name: &str) -> Option<Arc<Procedure>> {
        self.by_name.read().get(name).cloned()
    }

    /// Calls a procedure of a database alone, in this thread.
    pub(crate) fn call_alone(
        &self,
        connection: &mut Connection,
        name: &str,
        args: &[u8],
        options: CallOptions,
    ) -> Result<CallResult, CallError> {
        let (name, args) = (name.to_owned(), args.to_vec());
        let run_limit_ms = options.run_limit_ms();
        let request = CallRequest { low_water: 1, run_limit_ms, name, args };
        request.check()?;
        let id = TransactionId { origin: 0, sequence: self.calls.fetch_add(1, Relaxed) + 1 };
        let now = unix_ms();
        let time_ms = self.newest_ms.fetch_max(now, Relaxed).max(now);
        let start = Instant::now();
        let elapsed = || start.elapsed();
        let mut failed = None;
        let result = connection.transact_committed(Isolation::Serializable, |tx| {
            tx.write_replicated_only();
            let run = || self.run_one(tx, (id, &request), time_ms, &elapsed);
            // A panic drops the transaction, and what it left half-done with it.
            let ran = catch_unwind(AssertUnwindSafe(run));
            ran.unwrap_or_else(|panic| {
                let message = short(&panic_message(panic.as_ref()));
                Err(CallError::Panicked { message })
            })
            .map_err(|error| {
                failed = Some(error);
                Error::application("the procedure failed")
            })
        });
        match (result, failed) {
            (_, Some(error)) => Err(error),
            (Ok((bytes, committed)), None) => Ok(CallResult { bytes, index: committed.index }),
            (Err(Error::Exhausted { .. }), None) => Err(CallError::Conflict),
            (Err(Error::Commit(error)), None) => Err(error.into()),
            (Err(error), None) => Err(CallError::Refused { message: error.to_string() }),
        }
    }

    /// Runs one call in a transaction of whoever calls this. Its panics are the caller's to catch.
    pub(crate) fn run_one(
        &self,
        tx: &Transaction<'_>,
        (id, request): (TransactionId, &CallRequest),
        time_ms: u64,
        elapsed: &dyn Fn() -> Duration,
    ) -> Result<Vec<u8>, CallError> {
        let Some(procedure) = self.get(&request.name) else {
            return Err(CallError::UnknownProcedure { name: request.name.clone() });
        };
        let limit = Duration::from_millis(request.run_limit_ms.into());
        let context = CallContext { time_ms, id, began: elapsed(), limit, elapsed };
        let result = procedure(tx, &request.args, &context);
        if context.expired() {
            return Err(CallError::TimedOut { limit_ms: request.run_limit_ms });
        }
        let bytes = result.map_err(|error| CallError::Failed { message: short(&error) })?;
        if bytes.len() > CALL_BYTES_MAX {
            let (bytes, limit_bytes) = (bytes.len() as u64, CALL_BYTES_MAX as u64);
            return Err(CallError::TooLarge { what: ANSWER, bytes, limit_bytes });
        }
        Ok(bytes)
    }

    /// Runs a batch on the newest visible state, in the calling thread, for as long as it takes.
    /// Fewer calls than given may have run: the batch ends early behind much work, and before a
    /// call that would make it too large.
    pub fn run(&self, applier: &Applier, batch: &CallBatch, clock: Clock<'_>) -> RanBatch {
        assert!(!batch.calls.is_empty(), "an empty batch is never asked for");
        let number = batch.number;
        let time_ms = clock.unix_ms.max(batch.time_floor_ms);
        let mut count = batch.calls.len();
        loop {
            let calls = &batch.calls[..count];
            let (work, mut answers) = self.run_calls(applier, calls, time_ms, clock);
            match finish(work, calls, &answers) {
                Ok(submission) => {
                    return RanBatch { number, time_ms, answers, submission: Some(submission) };
                }
                Err(CommitError::TooLarge { .. }) if answers.len() > 1 => count = answers.len() - 1,
                Err(error @ CommitError::TooLarge { .. }) => {
                    answers = vec![CallAnswer::Failed(error.into())];
                    let submission = finish(applier.batch(), calls, &answers).ok();
                    return RanBatch { number, time_ms, answers, submission };
                }
                Err(_) => return RanBatch { number, time_ms, answers, submission: None },
            }
        }
    }

    fn run_calls<'a>(
        &self,
        applier: &'a Applier,
        calls: &[(TransactionId, Arc<CallRequest>)],
        time_ms: u64,
        clock: Clock<'_>,
    ) -> (Batch<'a>, Vec<CallAnswer>) {
        let mut work = applier.batch();
        let (mut answers, mut bytes) = (Vec::with_capacity(calls.len()), 0);
        for (id, request) in calls {
            let run =
                |tx: &Transaction<'_>| self.run_one(tx, (*id, request), time_ms, clock.elapsed);
            let answer = match work.attempt(run) {
                Ok(bytes) => CallAnswer::Done(bytes),
                Err(Failed::Error(error)) => CallAnswer::Failed(error),
                Err(Failed::Panic(message)) => {
                    CallAnswer::Failed(CallError::Panicked { message: short(&message) })
                }
            };
            bytes += answer.bytes();
            answers.push(answer);
            if work.writes() > BATCH_WRITES || bytes > BATCH_ANSWER_BYTES {
                break;
            }
        }
        (work, answers)
    }
}

impl fmt::Debug for Procedures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.read().keys()).finish()
    }
}

/// What the calls that ran are certified by, under the id of the first that is done.
fn finish(
    work: Batch<'_>,
    calls: &[(TransactionId, Arc<CallRequest>)],
    answers: &[CallAnswer],
) -> Result<Submission, CommitError> {
    let done = answers.iter().position(CallAnswer::is_done).unwrap_or(0);
    let (id, request) = &calls[done];
    let submission = work.into_submission(*id, request.low_water)?;
    let (bytes, limit_bytes) = (submission.write_set.len(), WRITE_SET_BYTES_MAX as u64);
    if bytes > WRITE_SET_BYTES_MAX {
        return Err(CommitError::TooLarge { bytes: bytes as u64, limit_bytes });
    }
    Ok(submission)
}

/// The most bytes of a message that travel.
const MESSAGE_BYTES_MAX: usize = 1_000;

/// A message, cut at a length that may travel.
pub(crate) fn short(message: &impl fmt::Display) -> String {
    let mut text = message.to_string();
    if text.len() > MESSAGE_BYTES_MAX {
        let mut end = MESSAGE_BYTES_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text
}
