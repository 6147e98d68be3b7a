//! Commits that all live nodes have applied, and outcomes of those in doubt, between real nodes.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use quorate_cluster::{Database, Options, OutcomeError};
use quorate_engine::{
    Access, Acknowledge, CommitError, CommitOptions, Committed, Isolation, Outcome, TransactionId,
};
use quorate_schema::Value;
use support::proxy::Proxy;
use support::{Cluster, amount, dictionary, eventually, free_addresses, open, params};

/// Inserts a counter with options of its own.
fn insert(db: &Database, name: &str, options: CommitOptions) -> Result<Committed, CommitError> {
    let mut con = db.connect().unwrap();
    let tx = con.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
    let fields = [("name", Value::Text(name.into())), ("amount", Value::Signed(1))];
    tx.insert_values("Counter", &fields).unwrap();
    tx.commit_with(options)
}

fn all_live() -> CommitOptions {
    CommitOptions::default().acknowledge(Acknowledge::AllLive)
}

#[test]
fn what_all_live_nodes_acknowledged_is_read_on_each_without_asking() {
    let cluster = Cluster::start(&[1, 1, 1]);
    for round in 0..60 {
        let name = format!("round {round}");
        let committed = insert(cluster.db(round % 3), &name, all_live()).unwrap();
        assert_eq!(committed.applied_by, Some(vec![0, 1, 2]));
        for node in cluster.live() {
            assert_eq!(amount(&node.db, &name), Some(1), "{name} on node {}", node.id);
        }
    }
    cluster.stop();
}

#[test]
fn a_stopped_member_is_named_and_a_dead_one_leaves_by_silence() {
    let addresses = free_addresses(3);
    let wires = [Proxy::to(&addresses[0]), Proxy::to(&addresses[1])];
    let seen_by_two = [wires[0].addr(), wires[1].addr(), addresses[2].clone()];
    let openers: Vec<_> = (0..3)
        .map(|id| {
            let list = if id == 2 { &seen_by_two } else { addresses.first_chunk().unwrap() };
            let params = params(list, &[1, 1, 1], id).with_commit_limit(20_000);
            thread::spawn(move || open(params).unwrap())
        })
        .collect();
    let mut nodes: Vec<_> = openers.into_iter().map(|opener| opener.join().unwrap()).collect();
    // As if it were stopped: its connections stay, and nothing comes of them.
    wires.iter().for_each(Proxy::freeze);
    let quick = all_live().limit(Duration::from_millis(500));
    let mut late = 0;
    // The first may meet an election, if node 2 led.
    eventually("a commit without node 2", || {
        late += 1;
        match insert(&nodes[0].db, &format!("late {late}"), quick) {
            Err(CommitError::NotEverywhere { missing, .. }) => {
                assert_eq!(missing, [2]);
                assert_eq!(amount(&nodes[0].db, &format!("late {late}")), Some(1));
                true
            }
            Err(CommitError::InDoubt(_) | CommitError::NoQuorum { .. }) => false,
            other => panic!("{other:?}"),
        }
    });
    // Others are not held up by one that waits.
    let waiter = {
        let db = nodes[0].db.clone();
        thread::spawn(move || insert(&db, "patient", all_live()))
    };
    for round in 0..20 {
        insert(&nodes[0].db, &format!("beside {round}"), CommitOptions::default()).unwrap();
    }
    wires.iter().for_each(Proxy::heal);
    assert_eq!(waiter.join().unwrap().unwrap().applied_by, Some(vec![0, 1, 2]));
    drop(nodes.pop());
    let committed = insert(&nodes[0].db, "without it", all_live()).unwrap();
    assert_eq!(committed.applied_by, Some(vec![0, 1]), "it left by its silence");
}

/// Keeps many commits under way, each with so little time that a leader's death leaves it in doubt.
/// Gives those that ended so.
fn write_in_bursts(db: &Database, writer: u32, done: &AtomicBool) -> Vec<(TransactionId, String)> {
    let hasty = CommitOptions::default().limit(Duration::from_millis(3));
    let mut doubts = Vec::new();
    let mut con = db.connect().unwrap();
    for burst in 0.. {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let mut handles = Vec::new();
        for round in 0..20 {
            let name = format!("{writer} {burst} {round}");
            let tx = con.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
            let fields = [("name", Value::Text(name.clone())), ("amount", Value::Signed(1))];
            tx.insert_values("Counter", &fields).unwrap();
            handles.extend(tx.commit_async(hasty).ok().map(|handle| (handle, name)));
        }
        for (handle, name) in handles {
            if let Err(CommitError::InDoubt(id)) = handle.wait() {
                doubts.push((id, name));
            }
        }
    }
    doubts
}

#[test]
fn outcomes_of_what_a_leaders_death_left_in_doubt_are_final_and_true() {
    let mut cluster = Cluster::start(&[1, 1, 1]);
    let leader = cluster.db(0).cluster_status().unwrap().leader.unwrap().0;
    let [first, second] = [(leader + 1) % 3, (leader + 2) % 3];
    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (db, done) = (cluster.db(first).clone(), Arc::clone(&done));
            thread::spawn(move || write_in_bursts(&db, writer, &done))
        })
        .collect();
    thread::park_timeout(Duration::from_millis(60));
    cluster.kill(leader);
    thread::park_timeout(Duration::from_millis(60));
    done.store(true, Ordering::Relaxed);
    let mut doubts: Vec<(TransactionId, String)> = Vec::new();
    for writer in writers {
        doubts.extend(writer.join().unwrap());
    }
    assert!(!doubts.is_empty(), "a leader's death leaves something in doubt");
    let mut told = Vec::new();
    for (place, (id, name)) in doubts.iter().enumerate() {
        // At its own node, or at another one.
        let db = cluster.db([first, second][place % 2]);
        let mut outcome = None;
        eventually("an outcome", || {
            outcome = db.outcome(*id).ok();
            outcome.is_some()
        });
        told.push((outcome.unwrap(), name, *id));
    }
    cluster.settle();
    for (outcome, name, id) in told {
        let there = amount(cluster.db(second), name).is_some();
        match outcome {
            Outcome::Committed(_) => assert!(there, "{name}: {outcome:?}, and it is not there"),
            Outcome::NotCommitted => assert!(!there, "{name}: {outcome:?}, and it is there"),
            // Its own node settled it before the other was asked, and knows how.
            Outcome::Forgotten => {
                let known = cluster.db(first).outcome(id).unwrap();
                assert_eq!(matches!(known, Outcome::Committed(_)), there, "{name}: {known:?}");
            }
            Outcome::Unknown => panic!("{name}: an answer that says nothing"),
        }
    }
    cluster.stop();
}

#[test]
fn outcomes_of_a_database_alone_are_known_at_once() {
    let db = Database::open("test", dictionary(), Options::default()).unwrap();
    let id = insert(&db, "one", all_live()).unwrap().id.unwrap();
    assert!(matches!(db.outcome(id), Ok(Outcome::Committed(_))));
    let next = TransactionId { sequence: id.sequence + 1_000, ..id };
    assert_eq!(db.outcome(next), Ok(Outcome::NotCommitted));
    let none = TransactionId { sequence: 0, ..id };
    assert_eq!(db.outcome(none), Err(OutcomeError::NoSuchId(none)));
}

#[test]
fn a_node_that_ended_says_that_others_must_be_asked() {
    let cluster = Cluster::start(&[1]);
    let db = cluster.db(0).clone();
    let strange = TransactionId { origin: 5, sequence: 5 };
    assert_eq!(db.outcome(strange), Ok(Outcome::NotCommitted));
    cluster.stop();
    assert_eq!(db.outcome(strange), Ok(Outcome::NotCommitted), "it is in the state");
    let other = TransactionId { sequence: 6, ..strange };
    assert_eq!(db.outcome(other), Err(OutcomeError::Stopped));
}
