//! Fresh reads between real nodes on loopback.

#![allow(clippy::unwrap_used)]

mod support;

use std::thread;
use std::time::Duration;

use quorate_cluster::{Database, FreshError, Freshness, Options};
use quorate_engine::{Access, Index, Isolation};
use support::proxy::Proxy;
use support::{
    Cluster, Node, add, amount, dictionary, eventually, free_addresses, open, params, try_add,
};

/// What a linearizable read finds.
fn fresh_amount(db: &Database, name: &str) -> Result<Option<i64>, FreshError> {
    db.connect().unwrap().fresh(Freshness::Linearizable, None)?;
    Ok(amount(db, name))
}

#[test]
fn a_linearizable_read_sees_what_any_node_acknowledged_before() {
    let cluster = Cluster::start(&[1, 1, 1]);
    let mut cons: Vec<_> = cluster.live().map(|node| node.db.connect().unwrap()).collect();
    for round in 0..200 {
        let (writer, reader) = (round % 3, (round / 3 + round + 1) % 3);
        add(&mut cons[writer], "shared", 1).unwrap();
        let seen = fresh_amount(cluster.db(reader as u32), "shared").unwrap();
        assert_eq!(seen, Some(round as i64 + 1), "written at {writer}, read at {reader}");
    }
    cluster.stop();
}

#[test]
fn readers_beside_writers_on_all_nodes_never_go_back() {
    let cluster = Cluster::start(&[1, 1, 1]);
    let newest = std::sync::atomic::AtomicI64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..300 {
                let db = cluster.db(round % 3);
                add(&mut db.connect().unwrap(), "shared", 1).unwrap();
                newest.fetch_max(i64::from(round) + 1, std::sync::atomic::Ordering::SeqCst);
            }
        });
        for reader in 0..6 {
            let (cluster, newest) = (&cluster, &newest);
            scope.spawn(move || {
                for _ in 0..100 {
                    let acknowledged = newest.load(std::sync::atomic::Ordering::SeqCst);
                    let seen = fresh_amount(cluster.db(reader % 3), "shared").unwrap();
                    assert!(seen.unwrap_or(0) >= acknowledged, "{seen:?} after {acknowledged}");
                }
            });
        }
    });
    cluster.stop();
}

#[test]
fn an_index_carried_to_another_node_is_read_there() {
    let cluster = Cluster::start(&[1, 1, 1]);
    for round in 0..50 {
        let name = format!("round {round}");
        let mut writer = cluster.db(round % 3).connect().unwrap();
        add(&mut writer, &name, 1).unwrap();
        let index = cluster.db(round % 3).visible_index();
        let mut reader = cluster.db((round + 1) % 3).connect().unwrap();
        let (access, isolation) = (Access::ReadOnly, Isolation::Snapshot);
        let tx = reader.begin_fresh(access, isolation, Freshness::AtLeast(index)).unwrap();
        let key = [quorate_schema::Value::Text(name)];
        assert!(tx.find_record("Counter", "by_name", &key).unwrap().is_some());
    }
    let con = cluster.db(0).connect().unwrap();
    let far = Freshness::AtLeast(Index(u64::MAX));
    let refused = con.fresh(far, Some(Duration::from_millis(20)));
    assert!(matches!(refused, Err(FreshError::TimedOut { limit_ms: 1..=20, .. })), "{refused:?}");
    cluster.stop();
    assert_eq!(con.fresh(Freshness::Linearizable, None), Err(FreshError::Stopped));
    assert!(con.fresh(Freshness::Local, None).is_ok(), "what is here can be read");
}

#[test]
fn a_database_alone_is_always_fresh() {
    let db = Database::open("test", dictionary(), Options::default()).unwrap();
    let con = db.connect().unwrap();
    try_add(&db, "one", 1).unwrap();
    assert_eq!(con.fresh(Freshness::Local, None), Ok(Index(1)));
    assert_eq!(con.fresh(Freshness::Linearizable, None), Ok(Index(1)));
    assert_eq!(con.fresh(Freshness::AtLeast(Index(1)), None), Ok(Index(1)));
    let (wanted, visible) = (Index(2), Index(1));
    let refused = con.fresh(Freshness::AtLeast(wanted), None);
    assert_eq!(refused, Err(FreshError::NotGivenOut { wanted, visible }));
}

#[test]
fn before_anybody_listens_nothing_can_be_asked() {
    let one = params(&free_addresses(1), &[1], 0).with_commit_limit(50);
    let db = Database::open("test", dictionary(), Options::default().cluster(one)).unwrap();
    let con = db.connect().unwrap();
    assert_eq!(con.fresh(Freshness::Linearizable, None), Err(FreshError::NotListening));
    db.spawn_listener().unwrap();
    assert!(con.fresh(Freshness::Linearizable, None).is_ok());
}

/// Three nodes, of which the last leads unless it was late; it reaches the others through wires.
fn behind_wires() -> (Vec<Node>, [Proxy; 2]) {
    let addresses = free_addresses(3);
    let wires = [Proxy::to(&addresses[0]), Proxy::to(&addresses[1])];
    let seen_by_two = [wires[0].addr(), wires[1].addr(), addresses[2].clone()];
    let openers: Vec<_> = (0..3)
        .map(|id| {
            let list = if id == 2 { &seen_by_two } else { addresses.first_chunk().unwrap() };
            let params = params(list, &[2, 2, 3], id);
            thread::spawn(move || open(params).unwrap())
        })
        .collect();
    (openers.into_iter().map(|opener| opener.join().unwrap()).collect(), wires)
}

#[test]
fn a_leader_that_is_cut_off_refuses_fresh_reads_and_serves_local_ones() {
    let (nodes, wires) = behind_wires();
    try_add(&nodes[2].db, "before", 1).unwrap();
    wires.iter().for_each(Proxy::freeze);
    // At once, while it believes to lead if it did, and later, when it knows better.
    let con = nodes[2].db.connect().unwrap();
    for limit_ms in [100, 300] {
        let refused = con.fresh(Freshness::Linearizable, Some(Duration::from_millis(limit_ms)));
        assert!(matches!(refused, Err(FreshError::NoQuorum { .. })), "{refused:?}");
        assert!(con.fresh(Freshness::Local, None).is_ok());
        assert_eq!(amount(&nodes[2].db, "before"), Some(1));
    }
    let mut other = nodes[0].db.connect().unwrap();
    eventually("the others commit", || add(&mut other, "newer", 1).is_ok());
    assert_eq!(fresh_amount(&nodes[1].db, "newer"), Ok(Some(1)));
    let refused = con.fresh(Freshness::Linearizable, Some(Duration::from_millis(100)));
    assert!(matches!(refused, Err(FreshError::NoQuorum { .. })), "{refused:?}");
    wires.iter().for_each(Proxy::heal);
    eventually("it may read again", || match fresh_amount(&nodes[2].db, "newer") {
        Ok(seen) => {
            assert_eq!(seen, Some(1), "a fresh read missed what was acknowledged");
            true
        }
        Err(_) => false,
    });
}
