//! Procedures on real nodes: sockets, threads and clocks as they are.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use quorate_cluster::{CallContext, CallError, CallOptions, Database, Options};
use quorate_engine::{Error, Outcome, Transaction, TransactionId};
use quorate_schema::Value;
use support::{Cluster, add, amount, dictionary, eventually};

/// Adds one to the counter that the arguments name, and answers what it is then.
fn count(tx: &Transaction<'_>, args: &[u8], _: &CallContext<'_>) -> Result<Vec<u8>, Error> {
    let name = Value::Text(String::from_utf8(args.to_vec()).map_err(Error::application)?);
    let found = tx.find_record("Counter", "by_name", std::slice::from_ref(&name))?;
    let Some((handle, record)) = found else {
        tx.insert_values("Counter", &[("name", name), ("amount", Value::Signed(1))])?;
        return Ok(b"1".to_vec());
    };
    let Value::Signed(before) = record.value("amount")? else { panic!("an integer") };
    tx.update_fields(handle, &[("amount", Value::Signed(before + 1))])?;
    Ok((before + 1).to_string().into_bytes())
}

/// Counts, and then does what is asked.
fn spoil(tx: &Transaction<'_>, args: &[u8], context: &CallContext<'_>) -> Result<Vec<u8>, Error> {
    count(tx, b"spoilt", context)?;
    match args {
        b"fail" => Err(Error::application("it was to fail")),
        b"panic" => panic!("it was to panic"),
        b"local" => {
            tx.insert_values("Note", &[("text", Value::Text("mine".into()))])?;
            Ok(Vec::new())
        }
        b"long" => Ok(vec![0; quorate_cluster::CALL_BYTES_MAX + 1]),
        b"slow" => {
            while !context.expired() {
                thread::yield_now();
            }
            Ok(Vec::new())
        }
        _ => Err(Error::application("no such way")),
    }
}

fn register(db: &Database) {
    db.register("count", count);
    db.register("spoil", spoil);
}

fn start(ranks: &[u32]) -> Cluster {
    let cluster = Cluster::start(ranks);
    cluster.live().for_each(|node| register(&node.db));
    cluster
}

fn call(db: &Database, name: &str, args: &[u8]) -> Result<Vec<u8>, CallError> {
    let options = CallOptions::default().run_limit(Duration::from_secs(30));
    db.connect().unwrap().call(name, args, options).map(|done| done.bytes)
}

/// Every way to fail, and that nothing is left of it.
fn check_failures(db: &Database) {
    let failed = call(db, "spoil", b"fail");
    assert_eq!(failed, Err(CallError::Failed { message: "it was to fail".into() }));
    let panicked = call(db, "spoil", b"panic");
    assert_eq!(panicked, Err(CallError::Panicked { message: "it was to panic".into() }));
    let unknown = call(db, "nothing", b"");
    assert_eq!(unknown, Err(CallError::UnknownProcedure { name: "nothing".into() }));
    assert!(matches!(call(db, "spoil", b"local"), Err(CallError::Failed { .. })));
    assert!(matches!(call(db, "spoil", b"long"), Err(CallError::TooLarge { .. })));
    let quick = CallOptions::default().run_limit(Duration::from_millis(20));
    let slow = db.connect().unwrap().call("spoil", b"slow", quick);
    assert_eq!(slow, Err(CallError::TimedOut { limit_ms: 20 }));
    let large = vec![0; quorate_cluster::CALL_BYTES_MAX + 1];
    assert!(matches!(call(db, "count", &large), Err(CallError::TooLarge { .. })));
    assert_eq!(amount(db, "spoilt"), None, "what failed wrote nothing");
}

#[test]
fn a_database_alone_calls_as_a_cluster_does() {
    let db = Database::open("alone", dictionary(), Options::default()).unwrap();
    register(&db);
    assert_eq!(call(&db, "count", b"a").unwrap(), b"1");
    assert_eq!(call(&db, "count", b"a").unwrap(), b"2");
    check_failures(&db);
    assert_eq!(amount(&db, "a"), Some(2));
}

#[test]
fn calls_from_every_node_are_done_and_failures_leave_nothing() {
    let cluster = start(&[1, 1, 1]);
    for id in 0..3 {
        let done = call(cluster.db(id), "count", b"a").unwrap();
        assert_eq!(done, (id + 1).to_string().into_bytes());
        assert_eq!(amount(cluster.db(id), "a"), Some(i64::from(id) + 1), "visible to the caller");
    }
    for id in 0..3 {
        check_failures(cluster.db(id));
    }
    cluster.settle();
    cluster.stop();
}

#[test]
fn calls_and_transactions_on_one_counter_are_all_counted() {
    let cluster = start(&[1, 1, 1]);
    call(cluster.db(0), "count", b"hot").unwrap();
    let workers: Vec<_> = (0..6)
        .map(|worker: u32| {
            let db = cluster.db(worker % 3).clone();
            thread::spawn(move || {
                for _ in 0..40 {
                    match worker < 4 {
                        true => drop(call(&db, "count", b"hot").unwrap()),
                        false => add(&mut db.connect().unwrap(), "hot", 1).unwrap(),
                    }
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    cluster.settle();
    assert_eq!(amount(cluster.db(1), "hot"), Some(6 * 40 + 1));
    cluster.stop();
}

/// Calls until told to stop; how many were done, and which are in doubt.
fn call_on(db: &Database, stop: &AtomicU64, done: &AtomicU64) -> Vec<TransactionId> {
    let mut doubtful = Vec::new();
    while stop.load(Ordering::Relaxed) == 0 {
        match call(db, "count", b"all") {
            Ok(_) => drop(done.fetch_add(1, Ordering::Relaxed)),
            Err(CallError::InDoubt(id)) => doubtful.push(id),
            Err(CallError::NoQuorum { .. } | CallError::Conflict) => {}
            Err(error) => panic!("{error}"),
        }
    }
    doubtful
}

#[test]
fn each_call_is_done_once_although_leaders_die() {
    let mut cluster = start(&[1, 1, 1, 1, 1]);
    call(cluster.db(0), "count", b"all").unwrap();
    let leader_of = |cluster: &Cluster| {
        let live = cluster.live().find_map(|node| {
            let status = node.db.cluster().unwrap().status().unwrap();
            status.leader.filter(|leader| cluster.nodes[leader.0 as usize].is_some())
        });
        live.map(|leader| leader.0)
    };
    eventually("a leader", || leader_of(&cluster).is_some());
    let first = leader_of(&cluster).unwrap();
    // The callers are on nodes that live on: only the leaders die.
    let victims = [first, (first + 1) % 5];
    let callers: Vec<u32> = (0..5).filter(|id| !victims.contains(id)).collect();
    let (stop, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let threads: Vec<_> = callers
        .iter()
        .map(|&id| {
            let (db, stop, done) = (cluster.db(id).clone(), Arc::clone(&stop), Arc::clone(&done));
            thread::spawn(move || call_on(&db, &stop, &done))
        })
        .collect();
    for victim in victims {
        let before = done.load(Ordering::Relaxed);
        eventually("calls", || done.load(Ordering::Relaxed) >= before + 100);
        cluster.kill(victim);
    }
    let before = done.load(Ordering::Relaxed);
    eventually("calls without them", || done.load(Ordering::Relaxed) >= before + 100);
    stop.store(1, Ordering::Relaxed);
    let doubtful: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    let late = doubtful.iter().filter(|id| {
        let outcome = cluster.db(callers[0]).outcome(**id).unwrap();
        matches!(outcome, Outcome::Committed(_))
    });
    let expected = 1 + done.load(Ordering::Relaxed) + late.count() as u64;
    cluster.settle();
    assert_eq!(amount(cluster.db(callers[1]), "all"), Some(expected as i64));
    cluster.stop();
}

#[test]
fn a_procedure_that_does_not_return_stops_calls_only() {
    let cluster = start(&[1, 1, 1]);
    let (running, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    for node in cluster.live() {
        let (running, over) = (Arc::clone(&running), Arc::clone(&over));
        node.db.register("hang", move |_, _, _| {
            running.store(1, Ordering::Relaxed);
            while over.load(Ordering::Relaxed) == 0 {
                thread::yield_now();
            }
            Ok(Vec::new())
        });
    }
    let db = cluster.db(0).clone();
    let caller = thread::spawn(move || call(&db, "hang", b""));
    eventually("it hangs", || running.load(Ordering::Relaxed) == 1);
    add(&mut cluster.db(1).connect().unwrap(), "meanwhile", 5).unwrap();
    let quick = CallOptions::default().limit(Duration::from_millis(50));
    let other = cluster.db(2).connect().unwrap().call("count", b"late", quick);
    let Err(CallError::InDoubt(id)) = other else { panic!("{other:?}") };
    over.store(1, Ordering::Relaxed);
    caller.join().unwrap().unwrap();
    // It was waiting at the leader, and nobody took it back: done, unless the fence was first.
    let outcome = cluster.db(2).outcome(id).unwrap();
    cluster.settle();
    let done = matches!(outcome, Outcome::Committed(_));
    assert_eq!(amount(cluster.db(2), "late"), done.then_some(1));
    assert_eq!(amount(cluster.db(2), "meanwhile"), Some(5));
    cluster.stop();
}
