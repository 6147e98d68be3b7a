//! Calls of procedures at the leader: collected, run as batches, certified, logged.
//!
//! ```text
//!   waiting --Output::Run--> running --Input::Ran--> certified --> in the log, with the answers
//!      ^                                                |
//!      +-------------- lost against the tail <----------+
//! ```
//!
//! One batch is out at a time, and the next begins when the last is applied: until then calls
//! collect, so the more of them there are, the larger the batches. A batch that lost begins anew
//! when what it lost against is applied, so it never loses against the same transaction twice; if
//! it loses often, what it uses is reserved for it, as for any transaction.
//!
//! What runs belongs to this term: a leader that steps down hands all its calls back, and pays no
//! attention to the batch that is out. While its state is disputed (`digests`) nothing runs or is
//! logged: all calls are refused.
//!
//! Invariant: a call is in one place of `waiting`, `running` and the log, since `take_call` looks
//! in all three.

use std::collections::VecDeque;
use std::sync::Arc;

use quorate_consensus::{Identity, Term, Ticks};
use quorate_engine::{CommitError, Index, Outcome, Refusal, TransactionId};

use super::super::api::Output;
use super::super::calls::Line;
use super::super::message::{RefusalReason, Request};
use super::super::node::{Ending, Node};
use super::super::pending::Wish;
use super::super::window::{Item, is_transaction};
use super::Member;
use super::leading::{Leading, reason};
use crate::procedure::{CallAnswer, CallBatch, CallRequest, RanBatch};

/// The most calls of one batch.
const BATCH_CALLS: usize = 256;

/// The longest pause behind a loss, ms.
const PAUSE_MAX_MS: Ticks = 10;

/// A batch that lost so often is handed back: its callers may have something better to do.
const ATTEMPTS_MAX: u16 = 64;

/// The calls of one leader. See the module.
#[derive(Debug, Default)]
pub(super) struct Calls {
    waiting: VecDeque<Waiting>,
    running: Option<Running>,
    /// The next batch begins when this is applied.
    behind: Index,
    /// Nor before this moment: what it lost against may be reserved for others for a while.
    not_before: Ticks,
    /// How often the first calls of `waiting` lost.
    attempts: u16,
    /// So many of the first calls are to run alone, since together they were too much.
    alone: usize,
    /// The newest logged time, ms.
    time_ms: u64,
}

#[derive(Debug)]
struct Running {
    number: u64,
    calls: Vec<Waiting>,
}

#[derive(Clone, Debug)]
struct Waiting {
    from: Identity,
    id: TransactionId,
    request: Arc<CallRequest>,
}

impl Calls {
    pub(super) fn new(time_ms: u64) -> Self {
        Self { time_ms, ..Self::default() }
    }

    /// A batch of this time is in the log.
    pub(super) fn note_time(&mut self, time_ms: u64) {
        self.time_ms = self.time_ms.max(time_ms);
    }

    /// Whoever waits, and for what.
    pub(super) fn into_requests(self) -> impl Iterator<Item = (Identity, TransactionId)> {
        let running = self.running.into_iter().flat_map(|running| running.calls);
        running.chain(self.waiting).map(|call| (call.from, call.id))
    }

    /// When calls that wait for a moment may run, if that is to come.
    pub(super) fn next_run(&self, now: Ticks) -> Option<Ticks> {
        let waits = !self.waiting.is_empty() && self.not_before > now;
        waits.then_some(self.not_before)
    }

    fn has(&self, id: TransactionId) -> bool {
        let running = self.running.iter().flat_map(|running| &running.calls);
        self.waiting.iter().chain(running).any(|call| call.id == id)
    }

    /// They run again before all others.
    fn again(&mut self, calls: Vec<Waiting>) {
        for call in calls.into_iter().rev() {
            self.waiting.push_front(call);
        }
    }
}

impl Member {
    /// Somebody here calls a procedure.
    pub(in super::super) fn call(
        &mut self,
        node: &mut Node,
        sequence: u64,
        request: Arc<CallRequest>,
        limit_ms: Option<u64>,
    ) {
        node.calls.insert(sequence, None);
        if node.ending != Ending::No {
            return node.complete(sequence, Err(CommitError::Stopped));
        }
        if !self.may_commit(node) {
            node.counters.no_quorum += 1;
            let error = self.no_quorum(node);
            return node.complete(sequence, Err(error));
        }
        let id = node.transaction_id(sequence);
        if node.applier.outcome(id) == Outcome::NotCommitted {
            return node.complete(sequence, Err(CommitError::Fenced(id)));
        }
        let limit_ms = limit_ms.unwrap_or(node.settings.commit_limit_ms);
        let wish = Wish { deadline: node.now.saturating_add(limit_ms), everywhere: false };
        node.pending.insert(sequence, Request::Call(request), wish);
        self.give_waiting(node);
    }

    /// The leader takes a call, unless it has it.
    pub(super) fn take_call(
        &mut self,
        node: &mut Node,
        from: Identity,
        term: Term,
        id: TransactionId,
        request: Arc<CallRequest>,
    ) -> Result<(), RefusalReason> {
        self.check_term(node, term)?;
        let foreign = id.origin != from.incarnation.0;
        if foreign || !is_transaction(id) || request.low_water > id.sequence {
            return Err(RefusalReason::Malformed);
        }
        let leading = self.leading.as_mut().ok_or(RefusalReason::WrongTerm)?;
        if leading.calls.has(id) || leading.knows(node, id) != Outcome::Unknown {
            node.counters.duplicates += 1;
            return Ok(()); // its fate comes from the log, as the first copy's does
        }
        leading.calls.waiting.push_back(Waiting { from, id, request });
        Ok(())
    }

    /// Lets the waiting calls run, unless some do, or what they must see is not applied.
    pub(super) fn run_calls(&mut self, node: &mut Node) {
        if self.digests.is_disputed() {
            return self.refuse_waiting_calls(node);
        }
        let Some(leading) = &mut self.leading else { return };
        let calls = &leading.calls;
        if calls.running.is_some() || calls.waiting.is_empty() {
            return;
        }
        if node.applier.applied() < calls.behind || node.now < calls.not_before {
            return;
        }
        let mut batch = Vec::new();
        let limit = if calls.alone > 0 { 1 } else { BATCH_CALLS };
        while batch.len() < limit {
            let Some(call) = leading.calls.waiting.pop_front() else { break };
            // Given up meanwhile: the fence tells its fate.
            if leading.knows(node, call.id) == Outcome::Unknown {
                batch.push(call);
            }
        }
        let calls = &mut leading.calls;
        calls.alone = calls.alone.saturating_sub(1);
        if batch.is_empty() {
            return;
        }
        node.newest_batch += 1;
        let (number, time_floor_ms) = (node.newest_batch, calls.time_ms);
        let requests = batch.iter().map(|call| (call.id, Arc::clone(&call.request))).collect();
        calls.running = Some(Running { number, calls: batch });
        node.output(Output::Run(CallBatch { number, time_floor_ms, calls: requests }));
    }

    /// Who waits hears of the dispute; those given up meanwhile have their fate from the fence.
    fn refuse_waiting_calls(&mut self, node: &mut Node) {
        let Some(leading) = &mut self.leading else { return };
        let term = leading.term();
        let mut calls = std::mem::take(&mut leading.calls.waiting);
        calls.retain(|call| leading.knows(node, call.id) == Outcome::Unknown);
        (leading.calls.attempts, leading.calls.alone) = (0, 0);
        for call in calls {
            self.refuse(node, call.from, call.id, term, RefusalReason::Disputed);
        }
    }

    /// A batch was run.
    pub(in super::super) fn ran(&mut self, node: &mut Node, ran: RanBatch) {
        let Some(leading) = &mut self.leading else { return };
        let Some(running) = leading.calls.running.take() else { return };
        if running.number != ran.number {
            leading.calls.running = Some(running);
            return; // of a term that is over
        }
        let mut calls = running.calls;
        assert!(
            (1..=calls.len()).contains(&ran.answers.len()),
            "a batch of {} was answered {} times",
            calls.len(),
            ran.answers.len()
        );
        let rest = calls.split_off(ran.answers.len());
        leading.calls.again(rest);
        let given_up = |call: &Waiting| leading.knows(node, call.id) != Outcome::Unknown;
        if calls.iter().any(given_up) || self.digests.is_disputed() {
            return leading.calls.again(calls);
        }
        let RanBatch { time_ms, answers, submission, .. } = ran;
        let Some(mut submission) = submission else { return leading.calls.again(calls) };
        submission.attempts = leading.calls.attempts;
        submission.series = CALLS_SERIES;
        let Leading { tail, reservations, .. } = leading;
        let certified = node.applier.certify_batch(tail, &submission, reservations, node.now);
        if let Err(refusal) = certified
            && !lost_batches_are_logged(node)
        {
            return self.batch_lost(node, calls, refusal);
        }
        let lines = (calls.iter().zip(answers))
            .map(|(call, answer)| Line { id: call.id, low_water: call.request.low_water, answer })
            .collect::<Vec<_>>();
        let write_set = Some(&*submission.write_set).filter(|bytes| !bytes.is_empty());
        let time_ms = time_ms.max(leading.calls.time_ms);
        let item = Item::Calls { time_ms, lines, write_set };
        leading.log_calls(node, &item, calls.iter().map(|call| (call.from, call.id)));
        self.close_full_window(node);
    }

    fn batch_lost(&mut self, node: &mut Node, calls: Vec<Waiting>, refusal: Refusal) {
        let Some(leading) = &mut self.leading else { return };
        node.counters.batches_lost += 1;
        let full = matches!(refusal, Refusal::SegmentFull { .. });
        if full && calls.len() > 1 {
            leading.calls.alone = calls.len();
            return leading.calls.again(calls);
        }
        leading.calls.attempts += 1;
        if !full && leading.calls.attempts < ATTEMPTS_MAX {
            leading.calls.behind = leading.tail.last();
            let pause = Ticks::from(leading.calls.attempts).min(PAUSE_MAX_MS);
            leading.calls.not_before = node.now + pause;
            return leading.calls.again(calls);
        }
        leading.calls.attempts = 0;
        let (term, reason) = (leading.term(), reason(refusal));
        for call in calls {
            self.refuse(node, call.from, call.id, term, reason);
        }
    }

    /// A batch is applied: its answers wait for the callers of this node.
    pub(super) fn calls_applied(
        &mut self,
        node: &mut Node,
        time_ms: u64,
        lines: Vec<Line>,
        index: Index,
        done: &mut Vec<super::requests::Done>,
    ) {
        node.logged_time_ms = node.logged_time_ms.max(time_ms);
        node.counters.calls += lines.len() as u64;
        for Line { id, answer, .. } in lines {
            if id.origin != node.identity().incarnation.0 {
                continue;
            }
            let result = match &answer {
                CallAnswer::Done(_) => Ok(index),
                CallAnswer::Failed(_) => Err(CommitError::Fenced(id)),
            };
            if let Some(place) = node.calls.get_mut(&id.sequence) {
                *place = Some(answer);
            }
            done.push((id.sequence, result));
        }
    }
}

/// Batches are one series of their own; that of the node's transactions counts from 1.
const CALLS_SERIES: u64 = u64::MAX;

impl Leading {
    /// A batch gets the next index, in this leader's log or that of one before.
    pub(super) fn observe_calls(
        &mut self,
        node: &Node,
        item: &Item<'_>,
    ) -> Result<(), quorate_schema::bytes::Malformed> {
        let Item::Calls { time_ms, lines, write_set } = item else {
            unreachable!("only batches are passed here");
        };
        let next = self.tail.next();
        match write_set {
            Some(bytes) => {
                let write_set = quorate_engine::WriteSet::decode(bytes, &node.dictionary)?;
                self.tail.observe(next, &write_set.footprint(&node.dictionary));
            }
            None => self.tail.skip(next),
        }
        lines.iter().for_each(|line| self.tail.settles(line.settled()));
        self.calls.note_time(*time_ms);
        Ok(())
    }

    fn log_calls(
        &mut self,
        node: &Node,
        item: &Item<'_>,
        asked_by: impl Iterator<Item = (Identity, TransactionId)>,
    ) {
        self.observe_calls(node, item).expect("this process made the batch a moment ago");
        self.calls.attempts = 0;
        self.calls.behind = self.tail.last();
        self.opened(node.now);
        self.open.push(item);
        self.open_requests.extend(asked_by);
    }
}

#[cfg(not(feature = "planted-bugs"))]
fn lost_batches_are_logged(_: &Node) -> bool {
    false
}

#[cfg(feature = "planted-bugs")]
fn lost_batches_are_logged(node: &Node) -> bool {
    node.settings.bug == Some(super::super::api::ReplicaBug::LostBatchLogged)
}
