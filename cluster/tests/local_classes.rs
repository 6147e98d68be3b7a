//! Local classes in a cluster: each node has its own, with or without the others.

#![allow(clippy::unwrap_used)]

mod support;

use quorate_cluster::Database;
use quorate_engine::{Access, CommitError, Isolation};
use quorate_schema::Value;
use support::{Cluster, add, eventually, try_add};

fn note(db: &Database, text: &str) {
    let fields = [("text", Value::Text(text.to_owned()))];
    db.transact(Isolation::Snapshot, |tx| tx.insert_values("Note", &fields).map(|_| ())).unwrap();
}

fn notes(db: &Database) -> Vec<Value> {
    let mut con = db.connect().unwrap();
    let tx = con.begin(Access::ReadOnly, Isolation::Snapshot).unwrap();
    tx.scan("Note").unwrap().map(|(_, record)| record.value("text").unwrap()).collect()
}

#[test]
fn local_data_stays_on_its_node_and_needs_no_quorum() {
    let mut cluster = Cluster::start(&[1, 1, 1]);
    for id in 0..3 {
        note(cluster.db(id), &format!("of node {id}"));
        add(&mut cluster.db(id).connect().unwrap(), "shared", 1).unwrap();
    }
    cluster.settle();
    for id in 0..3 {
        assert_eq!(notes(cluster.db(id)), [Value::Text(format!("of node {id}"))]);
    }

    // A node that comes back from nothing has lost its own.
    cluster.kill(2);
    cluster.open_all(&[2]);
    cluster.settle();
    assert!(notes(cluster.db(2)).is_empty());
    note(cluster.db(2), "again");
    assert_eq!(notes(cluster.db(2)).len(), 1);
    cluster.settle();

    cluster.kill(1);
    cluster.kill(2);
    eventually("node 0 notices that it is alone", || {
        matches!(try_add(cluster.db(0), "lonely", 1), Err(CommitError::NoQuorum { .. }))
    });
    note(cluster.db(0), "alone");
    assert_eq!(notes(cluster.db(0)).len(), 2);
    cluster.db(0).check().unwrap();
    cluster.kill(0);
}
