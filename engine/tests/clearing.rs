//! Deleting an own new record: what becomes of the references to it, and that a refused operation
//! leaves everything as it was.
#![allow(clippy::unwrap_used)]

use quorate_engine::{
    Access, Committed, Database, DatabaseParams, Error, Handle, Isolation, Transaction,
};
use quorate_schema::{Class, ClassId, Dictionary, Ref, Reference, Value};

const DDL: &str = "
declare database lists;
struct Pair { nullable ref<A> one; unsigned<4> two; };
class A {
    unsigned<4> x;
    vector<ref<A>> l;
    nullable ref<A> r;
    ref<A> two[2];
    vector<Pair> pairs;
    nullable Pair pair;
    unique tree<r> by_r;
};
class B { unsigned<4> x; };
";

/// What a list item becomes whose record is deleted.
const NOTHING: Value = Value::Ref(Handle::NOTHING);

fn open() -> Database {
    Database::open("lists", Dictionary::parse(DDL).unwrap(), DatabaseParams::default()).unwrap()
}

fn to(handle: Handle) -> Value {
    Value::Ref(handle.reference())
}

fn list(values: &[Value]) -> Value {
    Value::List(values.to_vec())
}

fn value(tx: &Transaction<'_>, handle: Handle, field: &str) -> Value {
    tx.record(handle).unwrap().unwrap().value(field).unwrap()
}

/// All that the transaction sees, by scan and by index.
fn all(tx: &Transaction<'_>) -> Vec<(Handle, Vec<Value>)> {
    let walked = tx.cursor("A", "by_r").unwrap().rows();
    let seen = tx.scan("A").unwrap().chain(tx.scan("B").unwrap()).chain(walked);
    seen.map(|(handle, record)| (handle, record.view().values())).collect()
}

fn insert(tx: &Transaction<'_>, values: &[(&str, Value)]) -> Handle {
    // An array has no default: its items refer to something or to nothing.
    let mut all = vec![("two", list(&[NOTHING, NOTHING]))];
    all.extend_from_slice(values);
    tx.insert_values("A", &all).unwrap()
}

/// What is committed is sound, and the field of the record there.
fn committed(db: &Database, committed: &Committed, handle: Handle, field: &str) -> Value {
    db.check().unwrap();
    let mut connection = db.connect().unwrap();
    let tx = connection.begin(Access::ReadOnly, Isolation::Snapshot).unwrap();
    value(&tx, committed.resolve(handle).unwrap(), field)
}

#[test]
fn list_items_become_a_reference_to_nothing() {
    let db = open();
    let mut connection = db.connect().unwrap();
    for isolation in [Isolation::Snapshot, Isolation::Serializable] {
        let tx = connection.begin(Access::ReadWrite, isolation).unwrap();
        let gone = insert(&tx, &[]);
        let kept = insert(&tx, &[]);
        let field = insert(&tx, &[("r", to(gone))]);
        let vector = insert(&tx, &[("l", list(&[to(kept), to(gone), to(gone)]))]);
        let array = insert(&tx, &[("two", list(&[to(gone), to(kept)]))]);
        let pair = Value::Struct(vec![to(gone), Value::Unsigned(7)]);
        let structs =
            insert(&tx, &[("pairs", list(std::slice::from_ref(&pair))), ("pair", pair.clone())]);
        tx.delete(gone).unwrap();
        assert_eq!(tx.record(gone).unwrap(), None);
        assert_eq!(value(&tx, field, "r"), Value::Null);
        assert_eq!(value(&tx, vector, "l"), list(&[to(kept), NOTHING, NOTHING]));
        assert_eq!(value(&tx, array, "two"), list(&[NOTHING, to(kept)]));
        let cleared = Value::Struct(vec![Value::Null, Value::Unsigned(7)]);
        assert_eq!(value(&tx, structs, "pairs"), list(std::slice::from_ref(&cleared)));
        assert_eq!(value(&tx, structs, "pair"), cleared);
        let done = tx.commit().unwrap();
        let kept = done.resolve(kept).unwrap();
        assert_eq!(committed(&db, &done, vector, "l"), list(&[to(kept), NOTHING, NOTHING]));
        assert_eq!(committed(&db, &done, array, "two"), list(&[NOTHING, to(kept)]));
        assert_eq!(committed(&db, &done, structs, "pair"), cleared);
        assert_eq!(done.resolve(gone), None);
    }
}

#[test]
fn a_record_in_its_own_lists_is_deleted() {
    let db = open();
    let mut connection = db.connect().unwrap();
    let tx = connection.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
    let own = insert(&tx, &[]);
    let pair = Value::Struct(vec![to(own), Value::Unsigned(1)]);
    let two = list(&[to(own), to(own)]);
    let changes = [("l", list(&[to(own)])), ("r", to(own)), ("two", two), ("pair", pair)];
    tx.update_fields(own, &changes).unwrap();
    let other = insert(&tx, &[("l", list(&[to(own)]))]);
    tx.delete(own).unwrap();
    assert_eq!(tx.cursor("A", "by_r").unwrap().rows().count(), 1);
    assert_eq!(value(&tx, other, "l"), list(&[NOTHING]));
    let done = tx.commit().unwrap();
    assert_eq!(committed(&db, &done, other, "l"), list(&[NOTHING]));
}

#[test]
fn a_committed_record_lets_go_of_a_new_one() {
    let db = open();
    let mut connection = db.connect().unwrap();
    let tx = connection.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
    let holder = insert(&tx, &[]);
    let holder = tx.commit().unwrap().resolve(holder).unwrap();
    let tx = connection.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
    let gone = insert(&tx, &[]);
    tx.update_fields(holder, &[("l", list(&[to(gone), to(holder)])), ("r", to(gone))]).unwrap();
    tx.delete(gone).unwrap();
    let done = tx.commit().unwrap();
    assert_eq!(committed(&db, &done, holder, "l"), list(&[NOTHING, to(holder)]));
    assert_eq!(committed(&db, &done, holder, "r"), Value::Null);
}

#[test]
fn nothing_stands_in_lists_only_and_can_be_written_again() {
    let db = open();
    let mut connection = db.connect().unwrap();
    let tx = connection.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
    let copy = insert(&tx, &[("l", list(&[NOTHING]))]);
    tx.update_fields(copy, &[("l", list(&[NOTHING, to(copy), NOTHING]))]).unwrap();
    let before = all(&tx);
    // A field has null for that: two forms of nothing would be two keys.
    let pair = Value::Struct(vec![NOTHING, Value::Unsigned(1)]);
    for (field, value) in [("r", NOTHING), ("pair", pair.clone()), ("pairs", list(&[pair]))] {
        let refused = tx.update_fields(copy, &[(field, value)]);
        assert!(matches!(refused, Err(Error::Gone(_))), "{field}: {refused:?}");
    }
    // Close to nothing is something that is not there.
    for (id, creation) in [(0, 1), (1, 0), (1, u64::MAX), (0, u64::MAX)] {
        let near = Value::Ref(Reference { id, creation });
        let refused = tx.update_fields(copy, &[("l", list(&[near]))]);
        assert!(matches!(refused, Err(Error::Gone(_))), "{id} {creation}: {refused:?}");
    }
    assert_eq!(all(&tx), before);
    let done = tx.commit().unwrap();
    let lasting = done.resolve(copy).unwrap();
    assert_eq!(committed(&db, &done, copy, "l"), list(&[NOTHING, to(lasting), NOTHING]));
}

#[test]
fn a_refused_operation_changes_nothing() {
    let db = open();
    let mut connection = db.connect().unwrap();
    let tx = connection.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
    let old = insert(&tx, &[]);
    let old = tx.commit().unwrap().resolve(old).unwrap();
    let tx = connection.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
    let target = insert(&tx, &[]);
    let gone = insert(&tx, &[]);
    insert(&tx, &[("r", to(target)), ("l", list(&[to(target)]))]);
    tx.update_fields(old, &[("l", list(&[to(target)]))]).unwrap();
    tx.delete(gone).unwrap();
    let before = all(&tx);
    // The number of a new record, but another class.
    let other = Handle { class: ClassId(1), ..target };
    let results = [
        tx.delete(other),
        tx.delete(gone),
        tx.delete(Handle { creation: 0, id: 0, ..old }),
        tx.update_fields(old, &[("x", Value::Unsigned(1)), ("l", list(&[to(target), to(gone)]))]),
        tx.update_fields(old, &[("x", Value::Unsigned(1)), ("r", to(target))]),
        tx.update_fields(other, &[("x", Value::Unsigned(1))]),
        tx.insert_values("A", &[("two", list(&[to(target), to(gone)]))]).map(|_| ()),
    ];
    for (number, result) in results.into_iter().enumerate() {
        let refused = matches!(result, Err(Error::Gone(_) | Error::UniqueViolation { .. }));
        assert!(refused, "operation {number}: {result:?}");
    }
    assert_eq!(all(&tx), before);
    tx.commit().unwrap();
    db.check().unwrap();
}

#[test]
fn a_list_item_that_names_nothing_is_followed_to_nothing() {
    #[derive(Class, Clone, Debug, PartialEq)]
    #[class(crate = "quorate_schema")]
    struct Node {
        x: u32,
        l: Vec<Ref<Node>>,
    }
    let dictionary = Dictionary::builder("nodes").class::<Node>().build().unwrap();
    let db = Database::open("nodes", dictionary, DatabaseParams::default()).unwrap();
    let mut connection = db.connect().unwrap();
    let tx = connection.begin(Access::ReadWrite, Isolation::Serializable).unwrap();
    let gone = tx.insert(&Node { x: 1, l: Vec::new() }).unwrap();
    let holder = tx.insert(&Node { x: 2, l: vec![Ref::to(gone.reference())] }).unwrap();
    tx.delete(gone).unwrap();
    let done = tx.commit().unwrap();
    db.check().unwrap();
    let holder = done.resolve(holder).unwrap();
    let tx = connection.begin(Access::ReadWrite, Isolation::Serializable).unwrap();
    let read: Node = tx.get(holder).unwrap().unwrap();
    assert_eq!(read.l.len(), 1);
    assert_eq!(tx.follow(read.l[0]).unwrap(), None);
    // As it was read, it is written again, into this record and another.
    tx.update(holder, &Node { x: 3, ..read.clone() }).unwrap();
    let copy = tx.insert(&read).unwrap();
    let done = tx.commit().unwrap();
    let tx = connection.begin(Access::ReadOnly, Isolation::Snapshot).unwrap();
    let copy = done.resolve(copy).unwrap();
    assert_eq!(tx.get::<Node>(copy).unwrap(), Some(read));
}
