//! Batches: bodies of others in one transaction, and items that settle many requests.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use quorate_engine::{
    Access, Acknowledged, Applier, BeginError, CommitError, CommitOptions, CommitPath,
    CommitTicket, Database, DatabaseParams, Error, Failed, Handle, Index, Isolation, Outcome,
    Refusal, Reservations, Settled, Submission, Tail, Transaction, TransactionId, WriteSet,
};
use quorate_schema::{Dictionary, Value};

const DDL: &str = "declare database batches;
class Counter { string name; signed<8> amount; unique tree<name> by_name; };
local class Note { string text; list; };";

/// Nobody commits by transactions here: the tests are the applier's.
struct NoPath;

impl CommitPath for NoPath {
    fn admit(&self, _: Access) -> Result<(), BeginError> {
        Ok(())
    }

    fn submit(
        &self,
        _: Submission,
        _: CommitOptions,
    ) -> Result<Arc<dyn CommitTicket>, CommitError> {
        let result: Result<Acknowledged, CommitError> = Err(CommitError::Stopped);
        Ok(Arc::new(result))
    }

    fn next_id(&self) -> (TransactionId, u64) {
        (id(999), 1)
    }
}

fn id(sequence: u64) -> TransactionId {
    TransactionId { origin: 7, sequence }
}

fn open() -> (Database, Applier) {
    let dictionary = Dictionary::parse(DDL).unwrap();
    let path = Arc::new(NoPath);
    let db = Database::open_with("b", dictionary, DatabaseParams::default(), path).unwrap();
    let applier = db.applier();
    (db, applier)
}

fn add(tx: &Transaction<'_>, name: &str) -> Result<Handle, Error> {
    let key = [Value::Text(name.into())];
    if let Some((handle, record)) = tx.find_record("Counter", "by_name", &key)? {
        let Value::Signed(before) = record.value("amount")? else { panic!("an integer") };
        tx.update_fields(handle, &[("amount", Value::Signed(before + 1))])?;
        return Ok(handle);
    }
    let [name] = key;
    tx.insert_values("Counter", &[("name", name), ("amount", Value::Signed(1))])
}

fn amount(db: &Database, name: &str) -> Option<i64> {
    let mut con = db.connect().unwrap();
    let tx = con.begin(Access::ReadOnly, Isolation::Snapshot).unwrap();
    let found = tx.find_record("Counter", "by_name", &[Value::Text(name.into())]).unwrap();
    found.map(|(_, record)| match record.value("amount").unwrap() {
        Value::Signed(amount) => amount,
        other => panic!("an integer, not {other:?}"),
    })
}

fn settled(sequence: u64, committed: bool) -> Settled {
    Settled { id: id(sequence), low_water: 1, committed }
}

#[test]
fn what_fails_or_panics_leaves_no_write_and_the_others_see_each_other() {
    let (db, applier) = open();
    let mut batch = applier.batch();
    batch.attempt(|tx| add(tx, "a")).unwrap();
    let mut leaked = None;
    let failed = batch.attempt(|tx| -> Result<(), Error> {
        add(tx, "a")?;
        leaked = Some(add(tx, "b")?);
        Err(Error::application("not today"))
    });
    assert!(matches!(failed, Err(Failed::Error(error)) if error.to_string() == "not today"));
    let panicked = batch.attempt(|tx| -> Result<(), Error> {
        add(tx, "c")?;
        panic!("number {}", 13)
    });
    assert!(matches!(panicked, Err(Failed::Panic(message)) if message == "number 13"));
    batch.attempt(|tx| add(tx, "a")).unwrap();
    batch
        .attempt(|tx| {
            let other = add(tx, "d")?;
            assert_ne!(Some(other), leaked, "a number stands for one record");
            assert!(tx.record(leaked.unwrap())?.is_none());
            Ok::<_, Error>(())
        })
        .unwrap();
    assert_eq!(batch.writes(), 2);
    let submission = batch.into_submission(id(1), 1).unwrap();
    let requests = [settled(1, true), settled(2, false), settled(3, false), settled(4, true)];
    applier.apply_batch(Index(1), Some(&submission.write_set), &requests).unwrap();
    applier.publish();
    assert_eq!(amount(&db, "a"), Some(2));
    assert_eq!((amount(&db, "b"), amount(&db, "c"), amount(&db, "d")), (None, None, Some(1)));
    for sequence in [1, 4] {
        assert_eq!(applier.outcome(id(sequence)), Outcome::Committed(Index(1)));
    }
    assert_eq!(applier.outcome(id(2)), Outcome::NotCommitted, "and never will");
    db.check().unwrap();
}

#[test]
fn a_batch_writes_no_local_class_and_one_that_wrote_nothing_is_certified_by_its_reads() {
    let (_db, applier) = open();
    let mut batch = applier.batch();
    let note =
        |tx: &Transaction<'_>| tx.insert_values("Note", &[("text", Value::Text("mine".into()))]);
    assert!(matches!(batch.attempt(note), Err(Failed::Error(Error::MixedTransaction { .. }))));
    let key = [Value::Text("a".into())];
    let look = |tx: &Transaction<'_>| {
        tx.find_record("Counter", "by_name", &key).map(|found| found.is_some())
    };
    assert!(!batch.attempt(look).unwrap());
    let reader = batch.into_submission(id(2), 1).unwrap();
    assert!(reader.write_set.is_empty());
    let mut reservations = Reservations::new(100);
    let mut tail = Tail::new(Index(1));
    let certified = applier.certify_batch(&tail, &reader, &mut reservations, 0);
    assert_eq!(certified, Ok(None));
    // Somebody writes behind its back.
    let mut batch = applier.batch();
    batch.attempt(|tx| add(tx, "a")).unwrap();
    let writer = batch.into_submission(id(3), 1).unwrap();
    let footprint = applier.certify_batch(&tail, &writer, &mut reservations, 0).unwrap();
    tail.observe(Index(1), &footprint.unwrap());
    let certified = applier.certify_batch(&tail, &reader, &mut reservations, 0);
    assert_eq!(certified, Err(Refusal::Conflict));
}

#[test]
fn the_tail_knows_all_that_one_item_settles_until_it_is_applied() {
    let (db, applier) = open();
    let mut tail = Tail::new(Index(1));
    let mut batch = applier.batch();
    batch.attempt(|tx| add(tx, "a")).unwrap();
    let submission = batch.into_submission(id(2), 1).unwrap();
    let write_set = WriteSet::decode(&submission.write_set, db.dictionary()).unwrap();
    tail.observe(Index(1), &write_set.footprint(db.dictionary()));
    let requests = [settled(1, false), settled(2, true), settled(3, true)];
    requests.iter().for_each(|request| tail.settles(*request));
    assert_eq!(tail.next(), Index(2));
    let expected =
        [Outcome::NotCommitted, Outcome::Committed(Index(1)), Outcome::Committed(Index(1))];
    for (request, expected) in requests.iter().zip(expected) {
        assert_eq!(tail.outcome(request.id), expected);
        assert_eq!(applier.known(&tail, request.id), expected);
    }
    applier.apply_batch(Index(1), Some(&submission.write_set), &requests).unwrap();
    tail.settle(Index(1));
    for (request, expected) in requests.iter().zip(expected) {
        assert_eq!(tail.outcome(request.id), Outcome::Unknown, "the base's now");
        assert_eq!(applier.known(&tail, request.id), expected);
    }
    applier.apply_batch(Index(2), None, &[settled(5, true)]).unwrap();
    assert_eq!(applier.outcome(id(5)), Outcome::Committed(Index(2)));
}
