//! Local classes: data of this node alone, beside the replicated data and outside of its order.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use quorate_engine::{
    Access, BeginError, CommitError, CommitOptions, CommitPath, CommitTicket, Connection, Database,
    DatabaseParams, Error, Handle, Isolation, Submission, TransactionId,
};
use quorate_schema::{Dictionary, Value};

const DDL: &str = "
declare database local;
class Account { unsigned<4> id; signed<4> balance; unique tree<id> by_id; };
local class Note { string text; signed<4> stars; ref<Account> about; tree<text> by_text; };
";

fn dictionary() -> Dictionary {
    Dictionary::parse(DDL).unwrap()
}

fn open() -> Database {
    Database::open("local", dictionary(), DatabaseParams::default()).unwrap()
}

fn insert(db: &Database, class: &str, fields: &[(&str, Value)]) -> Handle {
    let mut con = db.connect().unwrap();
    let (handle, committed) =
        con.transact_committed(Isolation::Snapshot, |tx| tx.insert_values(class, fields)).unwrap();
    committed.resolve(handle).unwrap()
}

fn text(text: &str) -> (&'static str, Value) {
    ("text", Value::Text(text.to_owned()))
}

fn read(con: &mut Connection) -> quorate_engine::Transaction<'_> {
    con.begin(Access::ReadOnly, Isolation::Snapshot).unwrap()
}

#[test]
fn local_writes_are_in_no_hash_image_or_order() {
    let db = open();
    insert(&db, "Account", &[("id", Value::Unsigned(1))]);
    let before = (db.state_hash(), db.visible_index(), db.applier().image().bytes);
    let note = insert(&db, "Note", &[text("one")]);
    db.transact(Isolation::Serializable, |tx| {
        tx.insert_values("Note", &[text("two")])?;
        tx.update_fields(note, &[text("three")])?;
        tx.add(note, "stars", 3)
    })
    .unwrap();
    db.transact(Isolation::Snapshot, |tx| tx.delete(note)).unwrap();
    assert_eq!(db.statistics().classes[1].records, 1);
    db.check().unwrap();
    assert_eq!((db.state_hash(), db.visible_index()), (before.0, before.1));
    assert!(db.applier().image().bytes == before.2, "an image carries local data");
}

#[test]
fn a_snapshot_does_not_see_later_local_commits_at_its_own_index() {
    let db = open();
    let note = insert(&db, "Note", &[text("one")]);
    let (mut old, mut new) = (db.connect().unwrap(), db.connect().unwrap());
    let old = read(&mut old);
    db.transact(Isolation::Snapshot, |tx| {
        tx.insert_values("Note", &[text("two")])?;
        tx.update_fields(note, &[text("changed")])
    })
    .unwrap();
    let new = read(&mut new);
    assert_eq!(old.snapshot(), new.snapshot(), "a local commit took an index");
    let texts = |tx: &quorate_engine::Transaction<'_>| -> Vec<Value> {
        tx.scan("Note").unwrap().map(|(_, record)| record.value("text").unwrap()).collect()
    };
    assert_eq!(texts(&old), [text("one").1]);
    assert_eq!(texts(&new), [text("changed").1, text("two").1]);
}

#[test]
fn one_transaction_writes_one_kind_and_goes_on_after_a_refusal() {
    let db = open();
    let account = insert(&db, "Account", &[("id", Value::Unsigned(1))]);
    let note = insert(&db, "Note", &[text("one")]);
    let mut con = db.connect().unwrap();
    for (own, own_class, other, other_class) in
        [(account, "Account", note, "Note"), (note, "Note", account, "Account")]
    {
        let tx = con.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
        tx.update_fields(own, &[]).unwrap();
        let field = if other_class == "Note" { "stars" } else { "balance" };
        let refusals = [
            tx.insert_values(other_class, &[]).map(|_| ()),
            tx.update_fields(other, &[]),
            tx.delete(other),
            tx.add(other, field, 1),
        ];
        for refused in refusals {
            let Err(Error::MixedTransaction { class }) = refused else { panic!("{refused:?}") };
            assert_eq!(class, other_class);
        }
        assert!(tx.record(other).unwrap().is_some(), "it may still read the other kind");
        tx.insert_values(own_class, &[]).unwrap();
        tx.commit().unwrap();
    }
    let records: Vec<u64> = db.statistics().classes.iter().map(|class| class.records).collect();
    assert_eq!(records, [2, 2], "something refused was written, or something else was not");
}

/// Whoever orders commits is away.
struct Away;

impl CommitPath for Away {
    fn admit(&self, _: Access) -> Result<(), BeginError> {
        Ok(())
    }

    fn submit(
        &self,
        _: Submission,
        _: CommitOptions,
    ) -> Result<Arc<dyn CommitTicket>, CommitError> {
        Err(CommitError::NoQuorum { reason: "nobody is there".to_owned() })
    }

    fn next_id(&self) -> (TransactionId, u64) {
        (TransactionId { origin: 1, sequence: 1 }, 1)
    }
}

#[test]
fn local_commits_need_nobody_else() {
    let params = DatabaseParams::default();
    let db = Database::open_with("local", dictionary(), params, Arc::new(Away)).unwrap();
    let refused =
        db.transact(Isolation::Snapshot, |tx| tx.insert_values("Account", &[]).map(|_| ()));
    assert!(matches!(refused, Err(Error::Commit(CommitError::NoQuorum { .. }))), "{refused:?}");
    let note = insert(&db, "Note", &[text("still here")]);
    let mut con = db.connect().unwrap();
    assert!(read(&mut con).record(note).unwrap().is_some());
}

#[test]
fn a_local_reference_leads_nowhere_once_an_image_does_not_have_its_target() {
    let (here, there) = (open(), open());
    for id in 1..=3 {
        insert(&there, "Account", &[("id", Value::Unsigned(id))]);
    }
    let account = insert(&here, "Account", &[("id", Value::Unsigned(1))]);
    let note = insert(&here, "Note", &[text("about"), ("about", Value::Ref(account.reference()))]);
    here.transact(Isolation::Snapshot, |tx| tx.delete(account)).unwrap();
    there
        .transact(Isolation::Snapshot, |tx| {
            let (first, _) = tx.find_record("Account", "by_id", &[Value::Unsigned(1)])?.unwrap();
            tx.delete(first)
        })
        .unwrap();
    insert(&there, "Account", &[("id", Value::Unsigned(9))]);
    here.applier().install(&there.applier().image().bytes).unwrap();
    here.check().unwrap();
    let mut con = here.connect().unwrap();
    let tx = read(&mut con);
    let Value::Ref(reference) = tx.record(note).unwrap().unwrap().value("about").unwrap() else {
        panic!("a reference")
    };
    let target = Handle::from_reference(account.class, reference);
    assert_eq!(tx.scan("Account").unwrap().count(), 3);
    assert!(tx.scan("Account").unwrap().any(|(handle, _)| handle.id == target.id));
    assert!(tx.record(target).unwrap().is_none(), "it leads to another record in its place");
}
