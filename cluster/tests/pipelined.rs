//! Commits that are submitted and waited for later, or never.

#![allow(clippy::unwrap_used)]

mod support;

use std::thread;

use quorate_cluster::Database;
use quorate_engine::{
    Access, CommitError, CommitHandle, CommitOptions, Handle, Isolation, Outcome,
};
use quorate_schema::Value;
use support::{Cluster, amount, eventually};

/// Submits the insert of one counter.
fn submit(db: &Database, name: &str) -> (CommitHandle, Handle) {
    let mut con = db.connect().unwrap();
    let tx = con.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
    let fields = [("name", Value::Text(name.to_string())), ("amount", Value::Signed(1))];
    let inserted = tx.insert_values("Counter", &fields).unwrap();
    (tx.commit_async(CommitOptions::default()).unwrap(), inserted)
}

#[test]
fn one_thread_has_more_commits_under_way_than_there_are_connections() {
    let cluster = Cluster::start(&[1, 1, 1]);
    let pipelines: Vec<_> = cluster
        .live()
        .map(|node| {
            let (id, db) = (node.id, node.db.clone());
            thread::spawn(move || {
                let name = |round: u32| format!("{id} {round}");
                (0..300).map(|round| submit(&db, &name(round))).collect::<Vec<_>>()
            })
        })
        .collect();
    for (node, pipeline) in cluster.live().zip(pipelines) {
        let mut last = None;
        for (round, (handle, inserted)) in pipeline.join().unwrap().into_iter().enumerate() {
            // The connection is gone, and this is another thread.
            let id = handle.id();
            let committed = handle.wait().unwrap();
            assert_eq!(committed.id, id);
            assert!(last < Some(committed.index), "one thread's commits left their order");
            last = Some(committed.index);
            let mut con = node.db.connect().unwrap();
            let tx = con.begin(Access::ReadOnly, Isolation::Snapshot).unwrap();
            let record = tx.record(committed.resolve(inserted).unwrap()).unwrap().unwrap();
            let name = Value::Text(format!("{} {round}", node.id));
            assert_eq!(record.value("name").unwrap(), name);
        }
    }
    cluster.settle();
    cluster.stop();
}

#[test]
fn a_commit_goes_on_without_its_handle() {
    let cluster = Cluster::start(&[1, 1, 1]);
    let db = cluster.db(1);
    let ids: Vec<_> = (0..200).map(|round| submit(db, &format!("{round}")).0.id()).collect();
    for id in ids {
        let committed = |outcome| !matches!(outcome, Outcome::Unknown | Outcome::NotCommitted);
        eventually("it commits", || committed(db.known_outcome(id.unwrap())));
    }
    assert!((0..200).all(|round| amount(db, &round.to_string()) == Some(1)));
    cluster.settle();
    cluster.stop();
}

#[test]
fn a_handle_tells_the_same_again_and_outlives_its_node() {
    let mut cluster = Cluster::start(&[1, 1, 1]);
    let (mut first, _) = submit(cluster.db(0), "twice");
    eventually("it commits", || first.try_wait().is_some());
    let index = first.try_wait().unwrap().unwrap().index;
    assert_eq!(first.try_wait().unwrap().unwrap().index, index);

    // The same key once more: what it is checked against is the snapshot, and that has it.
    let mut con = cluster.db(0).connect().unwrap();
    let held = con.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
    let fields = [("name", Value::Text("raced".into())), ("amount", Value::Signed(1))];
    held.insert_values("Counter", &fields).unwrap();
    let (winner, _) = submit(cluster.db(0), "raced");
    winner.wait().unwrap();
    assert_eq!(held.commit_async(CommitOptions::default()).unwrap_err(), CommitError::Conflict);
    drop(con);

    let (last, _) = submit(cluster.db(0), "last");
    cluster.kill(0);
    match last.wait() {
        Ok(_) | Err(CommitError::InDoubt(_) | CommitError::Stopped) => {}
        Err(other) => panic!("{other}"),
    }
    assert_eq!(first.wait().unwrap().index, index);
    cluster.stop();
}
