//! Where clients' threads and the listener meet: the inbox, the commits under way, the ids.
//!
//! ```text
//!   client threads                                   listener
//!   commit: id, room, push --------------- inbox ---> takes all at once, steps the replica
//!   wait on the slot, now or later <------ slot ----- completes when applied here, or refused
//! ```
//!
//! Nothing here touches a socket or decides an outcome.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::Waker;
use parking_lot::{Condvar, Mutex, MutexGuard};
use quorate_engine::{
    Access, Acknowledge, Acknowledged, BeginError, CommitError, CommitOptions, CommitPath,
    CommitTicket, Index, Outcome, Submission, TransactionId,
};

use super::admin::AdminReply;
use crate::admin::{AdminAnswer, AdminError, AdminRequest};
use crate::error::{ClusterError, OutcomeError};
use crate::event::NodeInfo;
use crate::fresh::{FreshError, Freshness};
use crate::procedure::{CallError, CallRequest, CallResult, RanBatch};
use crate::reason::QuorumReason;
use crate::status::ClusterStatus;

/// The longest write set, bytes: with the greatest window, or with the longest read set it may
/// travel with, it fits a frame.
const WRITE_SET_BYTES_MAX: usize = 64 << 20;

/// The longest a reader or caller may wait: as good as for ever, and deadlines do not overflow.
pub(super) const LIMIT_MAX: Duration = Duration::from_secs(86_400 * 365);

/// How many outcomes of transactions once in doubt are remembered on their own node.
const FATES_MAX: usize = 4096;

/// What clients ask of the listener.
#[derive(Debug)]
pub(super) enum Command {
    Submit(Submission, CommitOptions, Arc<CommitSlot>),
    /// Somebody must know what became of a transaction.
    Outcome {
        id: TransactionId,
        wanted: TransactionId,
        limit_ms: u64,
        slot: Arc<OutcomeSlot>,
    },
    /// Somebody calls a procedure.
    Call {
        id: TransactionId,
        request: Arc<CallRequest>,
        limit_ms: Option<u64>,
        slot: Arc<CallSlot>,
    },
    /// The node's procedures were run.
    Ran(RanBatch),
    /// End: in order with the others, or alone. Answered when the listener has ended, or at once
    /// if that cannot be.
    End {
        orderly: bool,
        slot: Arc<Slot<Result<(), ClusterError>>>,
    },
    /// The quorum callback's answer to its newest question.
    Verdict {
        round: u64,
        allowed: bool,
    },
    /// A reader wants to see at least that.
    Fresh {
        freshness: Freshness,
        limit_ms: u64,
        slot: Arc<FreshSlot>,
    },
    /// Tell how the cluster is.
    Status(Arc<Slot<Option<ClusterStatus>>>),
    /// An operator's request.
    Admin(AdminRequest, AdminReply),
    /// The database was dropped.
    Abandon,
}

/// A commit under way, as the listener knows it.
#[derive(Debug)]
pub(super) struct WaitingCommit {
    pub(super) slot: Arc<CommitSlot>,
    /// It is through here, and waits for other nodes only.
    pub(super) through: bool,
}

/// Where the outcome of one commit is waited for.
pub(super) type CommitSlot = Slot<Result<Acknowledged, CommitError>>;

/// A place where one thread waits for one answer of another.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    answer: Mutex<Option<T>>,
    there: Condvar,
}

impl<T> Slot<T> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { answer: Mutex::new(None), there: Condvar::new() })
    }

    /// Answers; the first answer stands.
    pub(super) fn fill(&self, answer: T) {
        let mut place = self.answer.lock();
        if place.is_none() {
            *place = Some(answer);
            self.there.notify_one();
        }
    }

    /// Waits for the answer.
    pub(super) fn wait(&self) -> T {
        let mut place = self.answer.lock();
        loop {
            match place.take() {
                Some(answer) => return answer,
                None => self.there.wait(&mut place),
            }
        }
    }

    /// The answer, if it is there.
    fn try_wait(&self) -> Option<T> {
        self.answer.lock().take()
    }
}

impl CommitTicket for CommitSlot {
    fn wait(&self) -> Result<Acknowledged, CommitError> {
        Slot::wait(self)
    }

    fn try_wait(&self) -> Option<Result<Acknowledged, CommitError>> {
        Slot::try_wait(self)
    }
}

/// Where who asked for an outcome waits.
pub(super) type OutcomeSlot = Slot<Result<Outcome, OutcomeError>>;

/// Where who called a procedure waits.
pub(super) type CallSlot = Slot<Result<CallResult, CallError>>;

/// Where a reader waits.
pub(super) type FreshSlot = Slot<Result<Index, FreshError>>;

/// How far the node's life has come, as its clients see it.
#[derive(Debug)]
enum Stage {
    /// Open, and nobody runs the listener yet.
    Parked,
    /// Somebody does.
    Listening,
    /// The listener ended, and how.
    Ended(Result<(), ClusterError>),
}

#[derive(Debug)]
pub(super) struct Inbox {
    commands: VecDeque<Command>,
    stage: Stage,
    /// How many calls ask for the end and were not refused: no new commits while there is one.
    pub(super) ends_asked: u32,
    /// The listener waits for sockets and must be woken.
    asleep: bool,
    /// Commits under way.
    in_flight: u32,
    /// Commits that are through here, and wait for other nodes.
    everywhere: u32,
    /// How the cluster was when the listener ended.
    last_status: Option<ClusterStatus>,
}

/// The sequences given out and not settled.
#[derive(Debug)]
struct Ids {
    /// The node's incarnation.
    origin: u128,
    next: u64,
    unsettled: BTreeSet<u64>,
    /// How those that were in doubt ended, for who asks; the newest ones.
    fates: BTreeMap<u64, Option<Index>>,
}

/// See the module.
///
/// Invariants: every command pushed while the stage is not `Ended` is taken by the listener or
/// answered at its end; `in_flight` counts the commits between push and answer, whether anybody
/// waits or not.
#[derive(Debug)]
pub(crate) struct Shared {
    inbox: Mutex<Inbox>,
    /// The stage changed.
    changed: Condvar,
    /// There is room for one more commit, or the stage changed.
    room: Condvar,
    ids: Mutex<Ids>,
    /// The cluster's nodes as they were last.
    nodes: Mutex<Vec<NodeInfo>>,
    waker: Arc<Waker>,
    pub(super) limits: Limits,
}

/// What clients are held to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How many commits may be under way at once.
    pub(crate) in_flight: u32,
    /// How long a call waits for a listener, or for room.
    pub(crate) wait: Duration,
}

/// Why a call found no listener.
pub(super) enum Absent {
    /// None came within the limit.
    NotListening,
    /// It has ended.
    Ended(Result<(), ClusterError>),
}

impl Shared {
    pub(crate) fn new(
        origin: u128,
        waker: Arc<Waker>,
        limits: Limits,
        nodes: Vec<NodeInfo>,
    ) -> Arc<Self> {
        let inbox = Inbox {
            commands: VecDeque::new(),
            stage: Stage::Parked,
            ends_asked: 0,
            asleep: false,
            in_flight: 0,
            everywhere: 0,
            last_status: None,
        };
        Arc::new(Self {
            inbox: Mutex::new(inbox),
            changed: Condvar::new(),
            room: Condvar::new(),
            nodes: Mutex::new(nodes),
            ids: Mutex::new(Ids {
                origin,
                next: 1,
                unsettled: BTreeSet::new(),
                fates: BTreeMap::new(),
            }),
            waker,
            limits,
        })
    }

    /// Asks for the orderly end (or to leave alone) and waits for the listener's.
    pub(crate) fn end_and_wait(&self, orderly: bool) -> Result<(), ClusterError> {
        let slot = Slot::new();
        {
            let mut inbox = match self.listening(Instant::now() + self.limits.wait) {
                Ok(inbox) => inbox,
                Err(Absent::NotListening) => return Err(ClusterError::NotListening),
                Err(Absent::Ended(result)) => return result,
            };
            inbox.ends_asked += 1;
            self.room.notify_all(); // who waits for room is refused now
            self.push(&mut inbox, Command::End { orderly, slot: Arc::clone(&slot) });
        }
        slot.wait()
    }

    /// So many of the calls that asked for the end were told that it cannot be.
    pub(super) fn ends_refused(&self, count: usize) {
        let mut inbox = self.inbox.lock();
        inbox.ends_asked -= u32::try_from(count).expect("as many as asked");
    }

    /// Asks what an operator asks, and waits for the answer; refused while nobody listens.
    pub(crate) fn admin(&self, request: AdminRequest) -> AdminAnswer {
        let slot = Slot::new();
        {
            let mut inbox = match self.listening(Instant::now() + self.limits.wait) {
                Ok(inbox) => inbox,
                Err(Absent::NotListening) => return AdminAnswer::Refused(AdminError::NotListening),
                Err(Absent::Ended(_)) => return AdminAnswer::Refused(AdminError::Stopped),
            };
            let reply = AdminReply::Slot(Arc::clone(&slot));
            self.push(&mut inbox, Command::Admin(request, reply));
        }
        slot.wait()
    }

    /// How the cluster is, asked of whoever listens; `None` while nobody does.
    pub(crate) fn status(&self) -> Option<ClusterStatus> {
        let slot = Slot::new();
        {
            let mut inbox = self.inbox.lock();
            match &inbox.stage {
                Stage::Parked => return None,
                Stage::Ended(_) => return inbox.last_status.clone(),
                Stage::Listening => self.push(&mut inbox, Command::Status(Arc::clone(&slot))),
            }
        }
        slot.wait()
    }

    /// Waits until transactions begun here see at least that; gives the visible index. Without a
    /// limit of its own it waits as long as a commit may take.
    pub(crate) fn fresh(
        &self,
        freshness: Freshness,
        limit: Option<Duration>,
    ) -> Result<Index, FreshError> {
        let start = Instant::now();
        let limit = limit.unwrap_or(self.limits.wait).min(LIMIT_MAX);
        let slot = Slot::new();
        {
            let mut inbox = match self.listening(start + limit) {
                Ok(inbox) => inbox,
                Err(Absent::NotListening) => return Err(FreshError::NotListening),
                Err(Absent::Ended(_)) => return Err(FreshError::Stopped),
            };
            let left_ms = limit.saturating_sub(start.elapsed()).as_millis() as u64;
            let limit_ms = left_ms.max(1);
            let command = Command::Fresh { freshness, limit_ms, slot: Arc::clone(&slot) };
            self.push(&mut inbox, command);
        }
        slot.wait()
    }

    /// The cluster's nodes.
    pub(crate) fn nodes(&self) -> Vec<NodeInfo> {
        self.nodes.lock().clone()
    }

    /// The cluster's nodes are others from now on.
    pub(super) fn set_nodes(&self, nodes: Vec<NodeInfo>) {
        *self.nodes.lock() = nodes;
    }

    /// Somebody runs the listener from now on.
    pub(crate) fn begin_listening(&self) {
        self.inbox.lock().stage = Stage::Listening;
        self.changed.notify_all();
    }

    /// How the listener ended, if it did.
    pub(crate) fn ended(&self) -> Option<Result<(), ClusterError>> {
        match &self.inbox.lock().stage {
            Stage::Ended(result) => Some(result.clone()),
            _ => None,
        }
    }

    /// The database was dropped: makes the listener end, and waits for it a little, so that the
    /// address is free again when the drop is done.
    pub(crate) fn abandon(&self) {
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut inbox = self.inbox.lock();
        if !matches!(inbox.stage, Stage::Listening) {
            return;
        }
        self.push(&mut inbox, Command::Abandon);
        while matches!(inbox.stage, Stage::Listening) {
            if self.changed.wait_until(&mut inbox, deadline).timed_out() {
                return;
            }
        }
    }

    /// Hands a command in from a thread of the node itself.
    pub(super) fn tell(&self, command: Command) {
        let mut inbox = self.inbox.lock();
        if !matches!(inbox.stage, Stage::Ended(_)) {
            self.push(&mut inbox, command);
        }
    }

    /// The listener is about to wait: true if it may, false if commands are there.
    pub(super) fn fall_asleep(&self) -> bool {
        let mut inbox = self.inbox.lock();
        inbox.asleep = inbox.commands.is_empty();
        inbox.asleep
    }

    /// The listener is awake: all commands.
    pub(super) fn take_commands(&self, into: &mut VecDeque<Command>) {
        let mut inbox = self.inbox.lock();
        inbox.asleep = false;
        debug_assert!(into.is_empty(), "commands are handled before more are taken");
        std::mem::swap(&mut inbox.commands, into);
    }

    /// The id of an own transaction.
    pub(super) fn transaction_id(&self, sequence: u64) -> TransactionId {
        TransactionId { origin: self.ids.lock().origin, sequence }
    }

    /// The node is another incarnation from now on; sequences go on. What became of those under
    /// the old one is the cluster's to say.
    pub(super) fn reborn(&self, origin: u128) {
        let mut ids = self.ids.lock();
        ids.origin = origin;
        ids.unsettled.clear();
        ids.fates.clear();
    }

    /// A request met its fate, and nobody will ask for it any more.
    pub(super) fn settled(&self, sequence: u64) {
        self.ids.lock().unsettled.remove(&sequence);
    }

    /// A transaction that was in doubt has met its fate. The cluster may forget it from now on;
    /// whoever was left in doubt can still ask here.
    pub(super) fn doubt_settled(&self, sequence: u64, committed: Option<Index>) {
        let mut ids = self.ids.lock();
        ids.unsettled.remove(&sequence);
        ids.fates.insert(sequence, committed);
        if ids.fates.len() > FATES_MAX {
            ids.fates.pop_first();
        }
    }

    /// How an own transaction that was in doubt ended, if it has.
    pub(crate) fn fate(&self, id: TransactionId) -> Option<Outcome> {
        let ids = self.ids.lock();
        if id.origin != ids.origin {
            return None;
        }
        let fate = *ids.fates.get(&id.sequence)?;
        Some(fate.map_or(Outcome::NotCommitted, Outcome::Committed))
    }

    /// What the cluster told of a transaction, unless this node knows better: while the question
    /// was under way an own one that was in doubt can have met its fate, after which the cluster
    /// may forget it.
    pub(crate) fn remembered(&self, id: TransactionId, told: Outcome) -> Outcome {
        match told {
            Outcome::Forgotten => self.fate(id).unwrap_or(told),
            told => told,
        }
    }

    /// Asks the cluster what became of a transaction, and makes sure that it stays so. Waits as
    /// long as a commit may take.
    pub(crate) fn outcome(&self, wanted: TransactionId) -> Result<Outcome, OutcomeError> {
        let (id, _) = self.next_id();
        let result = self.ask_outcome(id, wanted);
        if !matches!(result, Err(OutcomeError::TimedOut)) {
            self.settled(id.sequence); // else the fence is in doubt, and settled later
        }
        result
    }

    fn ask_outcome(
        &self,
        id: TransactionId,
        wanted: TransactionId,
    ) -> Result<Outcome, OutcomeError> {
        let slot = Slot::new();
        {
            let mut inbox = match self.listening(Instant::now() + self.limits.wait) {
                Ok(inbox) => inbox,
                Err(Absent::NotListening) => return Err(OutcomeError::NotListening),
                Err(Absent::Ended(_)) => return Err(OutcomeError::Stopped),
            };
            let limit_ms = self.limits.wait.as_millis() as u64;
            let slot = Arc::clone(&slot);
            self.push(&mut inbox, Command::Outcome { id, wanted, limit_ms, slot });
        }
        slot.wait()
    }

    /// A commit is through here, and waits for other nodes: others may take its room.
    pub(super) fn through(&self) {
        let mut inbox = self.inbox.lock();
        inbox.in_flight -= 1;
        inbox.everywhere += 1;
        self.room.notify_all();
    }

    /// A commit is done: makes room for the next, and answers.
    pub(super) fn complete(
        &self,
        sequence: u64,
        waiting: &WaitingCommit,
        result: Result<Acknowledged, CommitError>,
    ) {
        let mut inbox = self.inbox.lock();
        if waiting.through {
            inbox.everywhere -= 1;
        } else {
            inbox.in_flight -= 1;
        }
        if waiting.through || inbox.everywhere > 0 {
            self.room.notify_all(); // who waits may need room of one kind or of both
        } else {
            self.room.notify_one();
        }
        drop(inbox);
        if !matches!(result, Err(CommitError::InDoubt(_))) {
            self.settled(sequence);
        }
        waiting.slot.fill(result);
    }

    /// The listener has ended: nobody is left waiting.
    pub(super) fn end(&self, result: Result<(), ClusterError>, status: Option<ClusterStatus>) {
        let mut inbox = self.inbox.lock();
        if matches!(inbox.stage, Stage::Ended(_)) {
            return;
        }
        inbox.stage = Stage::Ended(result.clone());
        inbox.last_status = status.clone();
        for command in std::mem::take(&mut inbox.commands) {
            match command {
                Command::Submit(submission, _, slot) => {
                    inbox.in_flight -= 1;
                    self.settled(submission.id.sequence);
                    slot.fill(Err(CommitError::Stopped));
                }
                Command::Outcome { slot, .. } => slot.fill(Err(OutcomeError::Stopped)),
                Command::Fresh { slot, .. } => slot.fill(Err(FreshError::Stopped)),
                Command::Call { slot, .. } => slot.fill(Err(CallError::Stopped)),
                Command::Status(slot) => slot.fill(status.clone()),
                Command::End { slot, .. } => slot.fill(result.clone()),
                Command::Admin(_, AdminReply::Slot(slot)) => {
                    slot.fill(AdminAnswer::Refused(AdminError::Stopped));
                }
                Command::Admin(_, AdminReply::Connection(_)) // its connection is closed
                | Command::Verdict { .. }
                | Command::Ran(_)
                | Command::Abandon => {}
            }
        }
        self.changed.notify_all();
        self.room.notify_all();
    }

    pub(super) fn push(&self, inbox: &mut MutexGuard<'_, Inbox>, command: Command) {
        inbox.commands.push_back(command);
        if std::mem::take(&mut inbox.asleep) {
            // Failing to wake is a broken eventfd: the listener's next timer finds the command.
            let _ = self.waker.wake();
        }
    }

    /// Waits until somebody listens.
    pub(super) fn listening(&self, deadline: Instant) -> Result<MutexGuard<'_, Inbox>, Absent> {
        let mut inbox = self.inbox.lock();
        loop {
            match &inbox.stage {
                Stage::Listening => return Ok(inbox),
                Stage::Ended(result) => return Err(Absent::Ended(result.clone())),
                Stage::Parked => {}
            }
            if self.changed.wait_until(&mut inbox, deadline).timed_out() {
                return Err(Absent::NotListening);
            }
        }
    }

    /// Waits until somebody listens and there is room for one more commit.
    fn admitted(&self, options: CommitOptions) -> Result<MutexGuard<'_, Inbox>, CommitError> {
        let waits_for_others = options.acknowledge == Acknowledge::AllLive;
        let wait = options.limit.map_or(self.limits.wait, |limit| limit.min(self.limits.wait));
        let deadline = Instant::now() + wait;
        loop {
            let mut inbox = match self.listening(deadline) {
                Ok(inbox) => inbox,
                Err(Absent::NotListening) => return Err(CommitError::NotListening),
                Err(Absent::Ended(_)) => return Err(CommitError::Stopped),
            };
            if inbox.ends_asked > 0 {
                return Err(CommitError::Stopped);
            }
            let limit = self.limits.in_flight;
            if inbox.in_flight < limit && (inbox.everywhere < limit || !waits_for_others) {
                return Ok(inbox);
            }
            if self.room.wait_until(&mut inbox, deadline).timed_out() {
                let in_flight = inbox.in_flight.max(inbox.everywhere);
                let reason = QuorumReason::Full { in_flight };
                return Err(CommitError::NoQuorum { reason: reason.to_string() });
            }
        }
    }

    fn submit_admitted(
        &self,
        submission: Submission,
        mut options: CommitOptions,
    ) -> Result<Arc<CommitSlot>, CommitError> {
        let bytes = submission.write_set.len();
        if bytes > WRITE_SET_BYTES_MAX {
            let limit_bytes = WRITE_SET_BYTES_MAX as u64;
            return Err(CommitError::TooLarge { bytes: bytes as u64, limit_bytes });
        }
        let slot = Slot::new();
        let start = Instant::now();
        let mut inbox = self.admitted(options)?;
        options.limit = options.limit.map(|limit| limit.saturating_sub(start.elapsed()));
        inbox.in_flight += 1;
        self.push(&mut inbox, Command::Submit(submission, options, Arc::clone(&slot)));
        Ok(slot)
    }
}

impl CommitPath for Shared {
    fn admit(&self, access: Access) -> Result<(), BeginError> {
        if access == Access::ReadOnly {
            return Ok(());
        }
        let inbox = self.inbox.lock();
        if inbox.ends_asked > 0 || matches!(inbox.stage, Stage::Ended(_)) {
            return Err(BeginError::Stopped);
        }
        Ok(())
    }

    fn submit(
        &self,
        submission: Submission,
        options: CommitOptions,
    ) -> Result<Arc<dyn CommitTicket>, CommitError> {
        let sequence = submission.id.sequence;
        match self.submit_admitted(submission, options) {
            Ok(slot) => Ok(slot),
            Err(error) => {
                self.settled(sequence);
                Err(error)
            }
        }
    }

    fn next_id(&self) -> (TransactionId, u64) {
        let mut ids = self.ids.lock();
        let sequence = ids.next;
        ids.next += 1;
        ids.unsettled.insert(sequence);
        let low_water = *ids.unsettled.first().expect("the new sequence is in it");
        (TransactionId { origin: ids.origin, sequence }, low_water)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use mio::{Poll, Token};

    fn shared(in_flight: u32) -> (Arc<Shared>, Poll) {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let limits = Limits { in_flight, wait: Duration::from_millis(20) };
        (Shared::new(9, waker, limits, Vec::new()), poll)
    }

    #[test]
    fn the_low_water_stays_below_what_is_not_settled() {
        let (shared, _poll) = shared(1);
        let ids: Vec<_> = (0..3).map(|_| shared.next_id()).collect();
        assert_eq!(ids.iter().map(|id| id.0.sequence).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(ids.iter().all(|id| id.1 == 1));
        shared.settled(2);
        assert_eq!(shared.next_id().1, 1);
        shared.settled(1);
        assert_eq!(shared.next_id().1, 3);
    }

    #[test]
    fn calls_without_a_listener_say_so() {
        let (shared, _poll) = shared(1);
        assert_eq!(shared.end_and_wait(true), Err(ClusterError::NotListening));
        assert!(matches!(
            shared.admitted(CommitOptions::default()),
            Err(CommitError::NotListening)
        ));
        assert!(shared.status().is_none());
        shared.begin_listening();
        assert!(shared.admitted(CommitOptions::default()).is_ok());
        shared.end(Ok(()), None);
        assert!(matches!(shared.admitted(CommitOptions::default()), Err(CommitError::Stopped)));
        assert_eq!(shared.admit(Access::ReadWrite), Err(BeginError::Stopped));
        assert_eq!(shared.admit(Access::ReadOnly), Ok(()));
        assert_eq!(shared.end_and_wait(true), Ok(()));
    }

    #[test]
    fn a_commit_nobody_waits_for_makes_room_and_settles_its_id_all_the_same() {
        let (shared, _poll) = shared(1);
        shared.begin_listening();
        let slot = Slot::new();
        let waiting = WaitingCommit { slot: Arc::clone(&slot), through: false };
        for outcome in [
            Ok(Acknowledged::from(Index(1))),
            Err(CommitError::Conflict),
            Err(CommitError::InDoubt(shared.transaction_id(3))),
        ] {
            let (id, low_water) = shared.next_id();
            assert_eq!(id.sequence, low_water, "what is complete is settled");
            shared.inbox.lock().in_flight += 1; // as submitting does
            assert!(matches!(
                shared.admitted(CommitOptions::default()),
                Err(CommitError::NoQuorum { .. })
            ));
            shared.complete(id.sequence, &waiting, outcome);
            assert!(shared.admitted(CommitOptions::default()).is_ok(), "no room behind {id}");
        }
        assert_eq!(shared.next_id().1, 3, "what is in doubt is not settled");
        assert_eq!(slot.try_wait(), Some(Ok(Acknowledged::from(Index(1)))), "the first stands");
    }

    #[test]
    fn who_waits_for_other_nodes_leaves_its_room_to_those_who_do_not() {
        let (shared, _poll) = shared(1);
        shared.begin_listening();
        let (plain, patient) = (CommitOptions::default(), Acknowledge::AllLive);
        let patient = plain.acknowledge(patient);
        shared.inbox.lock().in_flight += 1; // as submitting does
        assert!(shared.admitted(plain).is_err());
        shared.through();
        assert!(shared.admitted(plain).is_ok());
        assert!(shared.admitted(patient).is_err(), "those who wait for others are bounded too");
        let waiting = WaitingCommit { slot: Slot::new(), through: true };
        shared.complete(1, &waiting, Ok(Acknowledged::from(Index(1))));
        assert!(shared.admitted(patient).is_ok());
        assert_eq!(shared.inbox.lock().in_flight, 0);
    }

    #[test]
    fn the_fate_of_what_was_in_doubt_is_remembered_up_to_a_bound() {
        let (shared, _poll) = shared(1);
        let (id, _) = shared.next_id();
        assert_eq!(shared.fate(id), None);
        shared.doubt_settled(id.sequence, None);
        assert_eq!(shared.fate(id), Some(Outcome::NotCommitted));
        assert_eq!(shared.fate(TransactionId { origin: 8, ..id }), None, "another node's");
        for sequence in 2..=FATES_MAX as u64 + 1 {
            shared.doubt_settled(sequence, Some(Index(sequence)));
        }
        assert_eq!(shared.fate(id), None, "the oldest goes first");
        assert_eq!(shared.remembered(id, Outcome::Forgotten), Outcome::Forgotten);
        let id = shared.transaction_id(2);
        assert_eq!(shared.fate(id), Some(Outcome::Committed(Index(2))));
        let told = shared.remembered(id, Outcome::Forgotten);
        assert_eq!(
            told,
            Outcome::Committed(Index(2)),
            "it was settled while the cluster was asked"
        );
    }

    #[test]
    fn a_full_pool_refuses_before_anything_is_submitted() {
        let (shared, _poll) = shared(1);
        shared.begin_listening();
        shared.inbox.lock().in_flight = 1;
        assert!(matches!(
            shared.admitted(CommitOptions::default()),
            Err(CommitError::NoQuorum { .. })
        ));
        let mut commands = VecDeque::new();
        shared.take_commands(&mut commands);
        assert!(commands.is_empty());
    }
}
