//! Add, min and max: numbers changed without being read.
#![allow(clippy::unwrap_used)]

#[path = "support/random.rs"]
mod random;
#[path = "support/sums.rs"]
mod sums;

use std::thread;

use quorate_engine::{
    Access, CommitError, Connection, Database, DatabaseParams, Error, Handle, Isolation,
};
use quorate_schema::{Dictionary, Value};
use random::Random;

const DDL: &str = "
declare database adders;
struct Point { signed<4> x; };
class Thing {
    unsigned<1> u1; unsigned<8> u8; signed<1> s1; signed<8> s8; nullable signed<4> maybe;
    signed<4> keyed; string text; Point point; double number; date day; autoid id; ref<Thing> link;
    tree<keyed> by_keyed; tree<point.x> by_x;
};
local class Tally { unsigned<2> votes; };
";

fn open() -> Database {
    Database::open("adders", Dictionary::parse(DDL).unwrap(), DatabaseParams::default()).unwrap()
}

fn insert(con: &mut Connection, class: &str) -> Handle {
    let (handle, committed) =
        con.transact_committed(Isolation::Snapshot, |tx| tx.insert_values(class, &[])).unwrap();
    committed.resolve(handle).unwrap()
}

fn value(con: &mut Connection, handle: Handle, field: &str) -> Value {
    let tx = con.begin(Access::ReadOnly, Isolation::Snapshot).unwrap();
    tx.record(handle).unwrap().unwrap().value(field).unwrap()
}

#[test]
fn additions_in_any_order_sum_up_exactly() {
    let mut all = sums::Schedule::default();
    for seed in 0..150 {
        let of_run = sums::run(seed, DatabaseParams::default());
        all.blind += of_run.blind;
        all.refused[0] += of_run.refused[0];
        all.refused[1] += of_run.refused[1];
    }
    assert!(all.blind > 3000 && all.refused[0] > 2000 && all.refused[1] > 1000, "{all:?}");
}

#[test]
fn threads_that_add_never_conflict() {
    let db = open();
    let handle = insert(&mut db.connect().unwrap(), "Thing");
    thread::scope(|scope| {
        for step in 1..=4 {
            let mut con = db.connect().unwrap();
            scope.spawn(move || {
                for _ in 0..500 {
                    let tx = con.begin(Access::ReadWrite, Isolation::Serializable).unwrap();
                    tx.add(handle, "s8", step).unwrap();
                    tx.max(handle, "u8", step as u64).unwrap();
                    tx.commit().unwrap();
                }
            });
        }
    });
    let mut con = db.connect().unwrap();
    assert_eq!(value(&mut con, handle, "s8"), Value::Signed(500 * (1 + 2 + 3 + 4)));
    assert_eq!(value(&mut con, handle, "u8"), Value::Unsigned(4));
    assert_eq!(db.statistics().conflicts, 0);
    db.check().unwrap();
}

#[test]
fn integers_of_any_width_saturate() {
    let db = open();
    let mut con = db.connect().unwrap();
    let handle = insert(&mut con, "Thing");
    for (field, low, high) in [
        ("u1", Value::Unsigned(0), Value::Unsigned(255)),
        ("u8", Value::Unsigned(0), Value::Unsigned(u64::MAX)),
        ("s1", Value::Signed(-128), Value::Signed(127)),
        ("s8", Value::Signed(i64::MIN), Value::Signed(i64::MAX)),
    ] {
        for (delta, expected) in
            [(i128::MAX, &high), (i128::MIN, &low), (1 << 64, &high), (-1 << 64, &low)]
        {
            con.transact(Isolation::Snapshot, |tx| tx.add(handle, field, delta)).unwrap();
            assert_eq!(value(&mut con, handle, field), *expected, "{field} {delta}");
        }
        con.transact(Isolation::Snapshot, |tx| tx.max(handle, field, u64::MAX)).unwrap();
        assert_eq!(value(&mut con, handle, field), high);
        con.transact(Isolation::Snapshot, |tx| tx.min(handle, field, i64::MIN)).unwrap();
        assert_eq!(value(&mut con, handle, field), low);
    }
}

#[test]
fn other_fields_are_refused_by_name_and_reason() {
    let db = open();
    let mut con = db.connect().unwrap();
    let handle = insert(&mut con, "Thing");
    let before = db.state_hash();
    let tx = con.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
    for (field, reason) in [
        ("keyed", "is part of an index"),
        ("text", "is no integer"),
        ("point", "is no integer"),
        ("number", "is no integer"),
        ("day", "is no integer"),
        ("id", "is no integer"),
        ("link", "is no integer"),
    ] {
        let Err(Error::NotAddable { class, field: named, why }) = tx.add(handle, field, 1) else {
            panic!("{field} was added to")
        };
        assert_eq!((&*class, &*named, why), ("Thing", field, reason));
    }
    assert!(matches!(tx.min(handle, "maybe", 1), Err(Error::NullAddend { .. })));
    let Err(Error::UnknownField { hint, .. }) = tx.max(handle, "mayb", 1) else { panic!() };
    assert_eq!(hint.as_deref(), Some("maybe"));
    let gone = Handle { id: 77, ..handle };
    assert!(matches!(tx.add(gone, "u1", 1), Err(Error::Gone(found)) if found == gone));
    tx.commit().unwrap();
    assert_eq!(db.state_hash(), before, "something refused was written");

    let tx = con.begin(Access::ReadOnly, Isolation::Snapshot).unwrap();
    assert!(matches!(tx.add(handle, "u1", 1), Err(Error::ReadOnlyTransaction)));
}

#[test]
fn local_classes_can_be_added_to() {
    let db = open();
    let (mut con, mut other) = (db.connect().unwrap(), db.connect().unwrap());
    let (tally, thing) = (insert(&mut con, "Tally"), insert(&mut con, "Thing"));
    let first = con.begin(Access::ReadWrite, Isolation::Serializable).unwrap();
    let second = other.begin(Access::ReadWrite, Isolation::Serializable).unwrap();
    first.add(tally, "votes", 2).unwrap();
    second.add(tally, "votes", 3).unwrap();
    assert!(matches!(second.add(thing, "u1", 1), Err(Error::MixedTransaction { .. })));
    first.commit().unwrap();
    second.commit().unwrap();
    assert_eq!(value(&mut con, tally, "votes"), Value::Unsigned(5));
    db.check().unwrap();
}

#[test]
fn null_given_meanwhile_is_a_conflict_and_no_addition_to_null() {
    let db = open();
    let (mut con, mut other) = (db.connect().unwrap(), db.connect().unwrap());
    let handle = insert(&mut con, "Thing");
    let set = |con: &mut Connection, value: Value| {
        con.transact(Isolation::Snapshot, |tx| {
            tx.update_fields(handle, &[("maybe", value.clone())])
        })
    };
    set(&mut other, Value::Signed(1)).unwrap();
    let tx = con.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
    tx.add(handle, "maybe", 1).unwrap();
    set(&mut other, Value::Null).unwrap();
    assert_eq!(tx.commit().unwrap_err(), CommitError::Conflict);
}
