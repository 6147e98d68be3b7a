//! Commits that are submitted and waited for later: what the handle tells, and when.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use quorate_engine::{
    Access, Acknowledge, Acknowledged, BeginError, CommitError, CommitHandle, CommitOptions,
    CommitPath, CommitTicket, Connection, Database, DatabaseParams, Handle, Index, Isolation,
    Submission, TransactionId,
};
use quorate_schema::{Dictionary, Value};

const DDL: &str = "
declare database pipelined;
class Item { unsigned<4> number; autoid id; unique tree<number> by_number; };
local class Note { string text; };
";

/// Where one answer is waited for.
#[derive(Default)]
struct Ticket {
    answer: Mutex<Option<Result<Acknowledged, CommitError>>>,
    there: Condvar,
}

impl CommitTicket for Ticket {
    fn wait(&self) -> Result<Acknowledged, CommitError> {
        let answer = self.answer.lock().unwrap();
        self.there.wait_while(answer, |answer| answer.is_none()).unwrap().take().unwrap()
    }

    fn try_wait(&self) -> Option<Result<Acknowledged, CommitError>> {
        self.answer.lock().unwrap().take()
    }
}

/// Takes submissions; the test says what becomes of them.
#[derive(Default)]
struct Queue {
    sequence: Mutex<u64>,
    waiting: Mutex<VecDeque<(Submission, CommitOptions, Arc<Ticket>)>>,
}

impl CommitPath for Queue {
    fn admit(&self, _: Access) -> Result<(), BeginError> {
        Ok(())
    }

    fn submit(
        &self,
        submission: Submission,
        options: CommitOptions,
    ) -> Result<Arc<dyn CommitTicket>, CommitError> {
        let ticket = Arc::new(Ticket::default());
        let item = (submission, options, Arc::clone(&ticket));
        self.waiting.lock().unwrap().push_back(item);
        Ok(ticket)
    }

    fn next_id(&self) -> (TransactionId, u64) {
        let mut sequence = self.sequence.lock().unwrap();
        *sequence += 1;
        (TransactionId { origin: 3, sequence: *sequence }, 1)
    }
}

impl Queue {
    /// Applies the oldest submission and answers it; gives the options it came with.
    fn commit(&self, db: &Database, applied_by: Option<Vec<u32>>) -> CommitOptions {
        let (submission, options, ticket) = self.waiting.lock().unwrap().pop_front().unwrap();
        let applier = db.applier();
        let index = applier.applied().next();
        applier.apply(index, &submission.write_set).unwrap();
        applier.publish();
        answer(&ticket, Ok(Acknowledged { index, applied_by }));
        options
    }

    fn refuse(&self, error: CommitError) {
        let (_, _, ticket) = self.waiting.lock().unwrap().pop_front().unwrap();
        answer(&ticket, Err(error));
    }
}

fn answer(ticket: &Ticket, result: Result<Acknowledged, CommitError>) {
    *ticket.answer.lock().unwrap() = Some(result);
    ticket.there.notify_all();
}

fn open() -> (Database, Arc<Queue>) {
    let queue = Arc::new(Queue::default());
    let path = Arc::clone(&queue) as Arc<dyn CommitPath>;
    let (dictionary, params) = (Dictionary::parse(DDL).unwrap(), DatabaseParams::default());
    (Database::open_with("pipelined", dictionary, params, path).unwrap(), queue)
}

fn insert(con: &mut Connection, number: u64, options: CommitOptions) -> (CommitHandle, Handle) {
    let tx = con.begin(Access::ReadWrite, Isolation::Serializable).unwrap();
    let handle = tx.insert_values("Item", &[("number", Value::Unsigned(number))]).unwrap();
    (tx.commit_async(options).unwrap(), handle)
}

#[test]
fn many_commits_of_one_connection_are_under_way_and_told_apart() {
    let (db, queue) = open();
    let mut con = db.connect().unwrap();
    let submitted: Vec<_> =
        (0..20).map(|number| insert(&mut con, number, CommitOptions::default())).collect();
    drop(con);
    db.close().expect("handles hold no connection");
    for number in 0..20 {
        if number % 4 == 3 {
            queue.refuse(CommitError::Conflict);
        } else {
            queue.commit(&db, None);
        }
    }
    let mut index = Index(0);
    for ((handle, inserted), number) in submitted.into_iter().zip(0_u64..) {
        let id = TransactionId { origin: 3, sequence: number + 1 };
        assert_eq!(handle.id(), Some(id));
        let result = thread::spawn(|| handle.wait()).join().unwrap();
        if number % 4 == 3 {
            assert_eq!(result.unwrap_err(), CommitError::Conflict);
            continue;
        }
        index = index.next();
        let committed = result.unwrap();
        assert_eq!((committed.index, committed.id), (index, Some(id)));
        assert_eq!(committed.autoid(inserted), Some(index.0), "it got another's numbers");
        assert_eq!(committed.resolve(inserted).unwrap().creation, index.0);
        assert_eq!(committed.applied_by, None);
    }
    let statistics = db.statistics();
    assert_eq!((statistics.commits, statistics.conflicts), (15, 5));
}

#[test]
fn a_handle_answers_when_there_is_an_answer_and_then_always() {
    let (db, queue) = open();
    let mut con = db.connect().unwrap();
    let all = CommitOptions::default().acknowledge(Acknowledge::AllLive);
    let (mut handle, inserted) = insert(&mut con, 1, all);
    assert!(handle.try_wait().is_none());
    assert_eq!(queue.commit(&db, Some(vec![0, 2])), all, "the options got lost");
    for _ in 0..2 {
        let committed = handle.try_wait().unwrap().unwrap();
        assert_eq!(committed.applied_by, Some(vec![0, 2]));
        assert!(committed.resolve(inserted).is_some());
    }
    assert!(handle.wait().unwrap().resolve(inserted).is_some());

    let (handle, _) = insert(&mut con, 2, CommitOptions::default());
    let waiting = thread::spawn(|| handle.wait());
    queue.commit(&db, None);
    assert_eq!(waiting.join().unwrap().unwrap().index, Index(2));
    assert_eq!(db.statistics().commits, 2, "an answer was counted twice");
}

#[test]
fn a_dropped_handle_leaves_the_commit_alone() {
    let (db, queue) = open();
    let mut con = db.connect().unwrap();
    drop(insert(&mut con, 1, CommitOptions::default()));
    queue.commit(&db, None);
    let tx = con.begin(Access::ReadOnly, Isolation::Snapshot).unwrap();
    assert!(tx.find_record("Item", "by_number", &[Value::Unsigned(1)]).unwrap().is_some());
}

#[test]
fn what_can_be_told_at_once_is_told_at_once() {
    let (db, queue) = open();
    let (mut con, mut other) = (db.connect().unwrap(), db.connect().unwrap());
    let options = CommitOptions::default();
    // Nothing written: nobody need hear of it.
    let tx = con.begin(Access::ReadWrite, Isolation::Serializable).unwrap();
    let mut handle = tx.commit_async(options).unwrap();
    assert_eq!((handle.id(), handle.try_wait().unwrap().unwrap().index), (None, Index(0)));
    // Local classes: nobody else may hear of it.
    let tx = con.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
    tx.insert_values("Note", &[]).unwrap();
    let mut handle = tx.commit_async(options).unwrap();
    assert_eq!((handle.id(), handle.try_wait().unwrap().unwrap().id), (None, None));
    // A loser by what is applied here.
    let loser = other.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
    loser.insert_values("Item", &[("number", Value::Unsigned(7))]).unwrap();
    let (handle, _) = insert(&mut con, 7, options);
    queue.commit(&db, None);
    handle.wait().unwrap();
    assert_eq!(loser.commit_async(options).unwrap_err(), CommitError::Conflict);
    assert!(queue.waiting.lock().unwrap().is_empty(), "something was submitted");
}

#[test]
fn alone_a_commit_is_done_at_once_and_all_that_live_are_this_node() {
    let (dictionary, params) = (Dictionary::parse(DDL).unwrap(), DatabaseParams::default());
    let db = Database::open("alone", dictionary, params).unwrap();
    let mut con = db.connect().unwrap();
    let all = CommitOptions::default().acknowledge(Acknowledge::AllLive);
    let (mut handle, inserted) = insert(&mut con, 1, all);
    let committed = handle.try_wait().unwrap().unwrap();
    assert_eq!((committed.index, committed.applied_by.as_deref()), (Index(1), Some(&[0][..])));
    assert_eq!(committed.autoid(inserted), Some(1));
    assert_eq!(handle.id(), committed.id);
    let (handle, _) = insert(&mut con, 2, CommitOptions::default());
    assert_eq!(handle.wait().unwrap().applied_by, None);
    assert_eq!(db.statistics().commits, 2);
}
