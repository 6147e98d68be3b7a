//! Every limit answers with its own error, and leaves the data as it was.
#![allow(clippy::unwrap_used)]

use std::thread;
use std::time::Duration;

use quorate_engine::{
    Access, CloseError, CommitError, ConnectError, Database, DatabaseParams, Error, Isolation,
    OpenError,
};
use quorate_schema::{Dictionary, Value};

const DDL: &str = "
declare database limits;
class Blob { unsigned<4> id; string text; unique tree<id> by_id; };
local class Scratch { string text; };
";

fn open(params: DatabaseParams) -> Database {
    Database::open("limits", Dictionary::parse(DDL).unwrap(), params).unwrap()
}

fn insert(db: &Database, class: &str, id: u64, bytes: usize) -> Result<(), Error> {
    db.transact(Isolation::Snapshot, |tx| {
        let text = ("text", Value::Text("x".repeat(bytes)));
        let id = ("id", Value::Unsigned(id));
        let values = if class == "Blob" { vec![id, text] } else { vec![text] };
        tx.insert_values(class, &values).map(|_| ())
    })
}

#[test]
fn parameters_out_of_range_are_named() {
    let defaults = DatabaseParams::default;
    for (params, name) in [
        (defaults().with_segment_size_bytes(0), "segment_size_bytes"),
        (defaults().with_segment_size_bytes(u64::MAX), "segment_size_bytes"),
        (defaults().with_max_connections(0), "max_connections"),
        (defaults().with_transact_attempts(0), "transact_attempts"),
    ] {
        let error = Database::open("x", Dictionary::parse(DDL).unwrap(), params).unwrap_err();
        let OpenError::InvalidParameter { field, .. } = error else { panic!("{error}") };
        assert_eq!(field, name);
    }
}

#[test]
fn connections_are_counted() {
    let db = open(DatabaseParams::default().with_max_connections(2));
    let first = db.connect().unwrap();
    let second = db.connect().unwrap();
    assert_eq!(db.connect().unwrap_err(), ConnectError::ConnectionLimit { limit: 2 });
    drop(first);
    let third = db.connect().unwrap();
    assert_eq!(db.close().unwrap_err(), CloseError::ConnectionsOpen { open: 2 });
    drop((second, third));
    db.close().unwrap();
    assert_eq!(db.connect().unwrap_err(), ConnectError::Closed);
    db.close().unwrap();
}

#[test]
fn a_full_segment_refuses_to_grow_and_deleting_makes_room() {
    let db = open(DatabaseParams::default().with_segment_size_bytes(64 << 10));
    let mut id = 0;
    let full = loop {
        id += 1;
        if let Err(error) = insert(&db, "Blob", id, 1000) {
            break error;
        }
    };
    let Error::Commit(CommitError::SegmentFull { used_bytes, needed_bytes, allowed_bytes }) = full
    else {
        panic!("{full}")
    };
    let statistics = db.statistics();
    assert_eq!(used_bytes, statistics.used_bytes);
    assert_eq!(allowed_bytes, statistics.allowed_bytes);
    assert!(used_bytes + needed_bytes > allowed_bytes && used_bytes <= allowed_bytes);
    assert_eq!(statistics.classes[0].records, id - 1, "the refused transaction left something");
    assert_eq!(db.visible_index().0, id - 1);

    // Local classes have a share of their own.
    insert(&db, "Scratch", 0, 100).unwrap();

    let by_id = |id| [Value::Unsigned(id)];
    let delete = |id: u64| {
        db.transact(Isolation::Snapshot, |tx| {
            let (handle, _) = tx.find_record("Blob", "by_id", &by_id(id))?.unwrap();
            tx.delete(handle)
        })
    };
    delete(1).unwrap();
    insert(&db, "Blob", id, 900).unwrap();
    db.check().unwrap();

    // As much as there was at the beginning can be used again.
    (2..=id).try_for_each(delete).unwrap();
    assert_eq!(db.statistics().used_bytes, 0);
    (1..id).try_for_each(|id| insert(&db, "Blob", id, 1000)).unwrap();
    db.check().unwrap();
}

#[test]
fn a_transaction_that_shrinks_is_admitted_when_the_segment_is_full() {
    let db = open(DatabaseParams::default().with_segment_size_bytes(64 << 10));
    (0..37).try_for_each(|id| insert(&db, "Blob", id, 1000)).unwrap();
    let update = |bytes: usize| {
        db.transact(Isolation::Snapshot, |tx| {
            let (handle, _) = tx.find_record("Blob", "by_id", &[Value::Unsigned(0)])?.unwrap();
            tx.update_fields(handle, &[("text", Value::Text("y".repeat(bytes)))])
        })
    };
    assert!(matches!(update(5000), Err(Error::Commit(CommitError::SegmentFull { .. }))));
    update(1000).unwrap();
    update(999).unwrap();
}

#[test]
fn local_classes_have_a_limit_of_their_own() {
    let db = open(DatabaseParams::default().with_segment_size_bytes(64 << 10));
    let full = (0..100).find_map(|_| insert(&db, "Scratch", 0, 1000).err()).unwrap();
    let Error::Commit(CommitError::SegmentFull { used_bytes, .. }) = full else { panic!("{full}") };
    assert_eq!(used_bytes, db.statistics().used_local_bytes);
    assert_eq!(db.statistics().used_bytes, 0);
    insert(&db, "Blob", 1, 1000).unwrap();
}

#[test]
fn a_snapshot_older_than_the_history_can_read_but_not_commit() {
    let db = open(DatabaseParams::default().with_history_bytes(64 << 10));
    insert(&db, "Blob", 0, 1).unwrap();
    let mut old = db.connect().unwrap();
    let old = old.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
    let mut recent = db.connect().unwrap();
    (1..4000).for_each(|id| insert(&db, "Blob", id, 1).unwrap());
    let recent = recent.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
    (4000..4100).for_each(|id| insert(&db, "Blob", id, 1).unwrap());
    assert_eq!(old.scan("Blob").unwrap().count(), 1);
    old.insert_values("Blob", &[("id", Value::Unsigned(7777))]).unwrap();
    let error = old.commit().unwrap_err();
    assert!(matches!(error, CommitError::SnapshotTooOld { .. }) && error.is_retryable(), "{error}");
    // What is newer than the history's start is certified.
    recent.insert_values("Blob", &[("id", Value::Unsigned(8888))]).unwrap();
    recent.commit().unwrap();
}

#[test]
fn transact_gives_up_after_the_attempts_allowed() {
    let db = open(DatabaseParams::default().with_transact_attempts(3));
    insert(&db, "Blob", 0, 1).unwrap();
    let mut attempts = 0;
    let result = db.transact(Isolation::Serializable, |tx| {
        attempts += 1;
        let (handle, _) = tx.find_record("Blob", "by_id", &[Value::Unsigned(0)])?.unwrap();
        db.transact(Isolation::Snapshot, |other| other.update_fields(handle, &[]))?;
        tx.update_fields(handle, &[])
    });
    let Err(Error::Exhausted { attempts: 3, last: CommitError::Conflict }) = result else {
        panic!("{result:?}")
    };
    assert_eq!(attempts, 3);
    assert_eq!(db.statistics().conflicts, 3);
}

#[test]
fn an_error_of_the_program_rolls_back_and_is_passed_on() {
    let db = open(DatabaseParams::default());
    let result: Result<(), Error> = db.transact(Isolation::Snapshot, |tx| {
        tx.insert_values("Blob", &[])?;
        Err(Error::application("the shop is closed"))
    });
    assert_eq!(result.unwrap_err().to_string(), "the shop is closed");
    assert_eq!(db.statistics().classes[0].records, 0);
}

#[test]
fn a_transaction_open_for_too_long_commits_nothing() {
    let db = open(DatabaseParams::default().with_transaction_limit_ms(1));
    let too_long = || thread::sleep(Duration::from_millis(5));
    let mut con = db.connect().unwrap();
    let tx = con.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
    tx.insert_values("Blob", &[]).unwrap();
    too_long();
    let error = tx.commit().unwrap_err();
    assert_eq!(error, CommitError::Expired { limit_ms: 1 });
    assert!(!error.is_retryable() && error.to_string().contains("transaction_limit_ms"));
    let tx = con.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
    tx.insert_values("Scratch", &[]).unwrap();
    too_long();
    assert_eq!(tx.commit().unwrap_err(), CommitError::Expired { limit_ms: 1 });

    let mut runs = 0;
    let result: Result<(), Error> = db.transact(Isolation::Snapshot, |tx| {
        runs += 1;
        too_long();
        tx.insert_values("Blob", &[]).map(|_| ())
    });
    assert!(matches!(result, Err(Error::Commit(CommitError::Expired { .. }))), "{result:?}");
    assert_eq!(runs, 1, "it would take as long again");
    assert_eq!(db.statistics().failures, 3);
    assert!(db.statistics().classes.iter().all(|class| class.records == 0));

    // Who wrote nothing has nothing to lose.
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let tx = con.begin(access, Isolation::Serializable).unwrap();
        assert_eq!(tx.scan("Blob").unwrap().count(), 0);
        too_long();
        tx.commit().unwrap();
    }
    let db = open(DatabaseParams::default().with_transaction_limit_ms(0));
    let mut con = db.connect().unwrap();
    let tx = con.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
    tx.insert_values("Blob", &[]).unwrap();
    too_long();
    tx.commit().unwrap();
}
