//! State transfer between real nodes: wires that break in the middle, limits, and writers that
//! are faster than the log is long.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use quorate_cluster::replica::Counters;
use quorate_cluster::{ClusterParams, Database};
use quorate_engine::Isolation;
use quorate_schema::Value;
use support::proxy::Proxy;
use support::{Cluster, Node, add, amount, eventually, free_addresses, open, params};

const RANKS: [u32; 3] = [1, 1, 1];

fn counters(db: &Database) -> Counters {
    db.cluster_status().unwrap().counters
}

/// Adds so many counters, many in one transaction.
fn fill(db: &Database, records: i64) {
    let names: Vec<i64> = (0..records).collect();
    for names in names.chunks(1_000) {
        db.transact(Isolation::Snapshot, |tx| {
            for name in names {
                let text = Value::Text(format!("counter number {name}"));
                let fields = [("name", text), ("amount", Value::Signed(*name))];
                tx.insert_values("Counter", &fields)?;
            }
            Ok(())
        })
        .unwrap();
    }
}

fn records(db: &Database) -> u64 {
    let statistics = db.statistics();
    statistics.classes.iter().find(|class| class.name == "Counter").unwrap().records
}

fn sum(nodes: &[Node], count: fn(&Counters) -> u64) -> u64 {
    nodes.iter().map(|node| count(&counters(&node.db))).sum()
}

/// Small pieces, about a second and a half of them.
fn slow(params: ClusterParams) -> ClusterParams {
    params.with_sync_msg_objects(100).with_sync_rate(400_000)
}

#[test]
fn a_transfer_goes_on_where_its_link_broke() {
    let addresses = free_addresses(3);
    let wires = [Proxy::to(&addresses[0]), Proxy::to(&addresses[1])];
    let seen_by_two = [wires[0].addr(), wires[1].addr(), addresses[2].clone()];
    let start = |id: u32| {
        let list: &[String] = if id == 2 { &seen_by_two } else { &addresses };
        let params = slow(params(list, &RANKS, id));
        thread::spawn(move || open(params).unwrap())
    };
    let openers: Vec<_> = (0..3).map(start).collect();
    let mut nodes: Vec<Node> = openers.into_iter().map(|opener| opener.join().unwrap()).collect();
    fill(&nodes[0].db, 10_000);
    let Node { db, listener, .. } = nodes.pop().unwrap();
    drop(db);
    listener.join().unwrap_err();

    let before: u64 = wires.iter().map(Proxy::carried).sum();
    let opener = start(2);
    let mut con = nodes[0].db.connect().unwrap();
    for part in [25, 50] {
        eventually("part of the image is made", || sum(&nodes, |c| c.pieces_sent) >= part);
        wires.iter().for_each(Proxy::cut);
        let linked = |node: &Node| node.db.cluster_status().unwrap().members[2].connected;
        eventually("the link broke", || !nodes.iter().any(linked));
        add(&mut con, "meanwhile", 1).unwrap();
        wires.iter().for_each(Proxy::heal);
        eventually("the link is back", || nodes.iter().all(linked));
    }
    let node = opener.join().unwrap();
    let carried = wires.iter().map(Proxy::carried).sum::<u64>() - before;

    let got = counters(&node.db);
    assert_eq!((got.images_begun, got.images_installed), (1, 1), "{got:?}");
    assert_eq!(sum(&nodes, |c| c.images_sent), 1, "none began anew");
    assert_eq!(sum(&nodes, |c| c.transfers_resumed), 2);
    assert_eq!(sum(&nodes, |c| c.pieces_sent), got.pieces_received, "each was made once");
    assert!(got.pieces_received >= 100, "{got:?}");
    // What was on its way when the wires broke came twice; all of it again would be half as much.
    let image_bytes = node.db.applier().image_stream().total_bytes();
    assert!(carried < image_bytes * 5 / 4, "{carried} bytes for an image of {image_bytes}");
    eventually("it has all", || amount(&node.db, "meanwhile") == Some(2));
    assert_eq!(records(&node.db), 10_001);
    assert_eq!(node.db.state_hash(), nodes[0].db.state_hash());
    node.db.check().unwrap();
}

#[test]
fn pieces_hold_no_more_objects_than_they_may() {
    let few = |params: ClusterParams| params.with_sync_msg_objects(7);
    let mut cluster = Cluster::start_with(&RANKS, few);
    fill(cluster.db(0), 2_000);
    cluster.kill(2);
    cluster.open_all(&[2]);
    let got = counters(cluster.db(2));
    assert!(got.pieces_received >= 2_000 / 7, "{got:?}");
    cluster.settle();
    cluster.stop();
}

struct StopWriters<'a>(&'a AtomicBool);

impl Drop for StopWriters<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn who_joins_under_load_gets_there_however_short_the_log() {
    let short = |params: ClusterParams| params.with_sync_msg_objects(50).with_log_keep(1);
    let mut cluster = Cluster::start_with(&RANKS, short);
    fill(cluster.db(0), 10_000);
    cluster.kill(2);
    let done = AtomicBool::new(false);
    let writers = [cluster.db(0).clone(), cluster.db(1).clone()];
    thread::scope(|scope| {
        for (number, db) in writers.iter().enumerate() {
            let done = &done;
            scope.spawn(move || {
                let (mut con, name) = (db.connect().unwrap(), format!("writer {number}"));
                while !done.load(Ordering::SeqCst) {
                    add(&mut con, &name, 1).unwrap();
                }
            });
        }
        // The writers write until it is in, and if it never is they must not wait for it.
        let _stop = StopWriters(&done);
        cluster.open_all(&[2]);
    });
    let sent: u64 = cluster.live().map(|node| counters(&node.db).images_sent).sum();
    assert!(sent <= 6, "{sent} images");
    cluster.settle();
    cluster.stop();
}
