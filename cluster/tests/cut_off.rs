//! A node that is cut off: it refuses, loses nothing, and goes on when it is connected again.

#![allow(clippy::unwrap_used)]

mod support;

use std::thread;

use quorate_cluster::ClusterParams;
use quorate_engine::CommitError;
use support::proxy::Proxy;
use support::{Node, add, amount, eventually, free_addresses, open, params, try_add};

struct Setup {
    nodes: Vec<Node>,
    wires: [Proxy; 2],
}

/// Three nodes; node 2 reaches the others through wires that can be cut.
fn start() -> Setup {
    let addresses = free_addresses(3);
    let wires = [Proxy::to(&addresses[0]), Proxy::to(&addresses[1])];
    let seen_by_two = [wires[0].addr(), wires[1].addr(), addresses[2].clone()];
    let impatient = |params: ClusterParams| params.with_commit_limit(1_000);
    let openers: Vec<_> = (0..3)
        .map(|id| {
            let list = if id == 2 { &seen_by_two } else { addresses.first_chunk().unwrap() };
            let params = impatient(params(list, &[1, 1, 1], id));
            thread::spawn(move || open(params).unwrap())
        })
        .collect();
    let nodes = openers.into_iter().map(|opener| opener.join().unwrap()).collect();
    Setup { nodes, wires }
}

fn check_outage(begin: fn(&Proxy)) {
    let Setup { nodes, wires } = start();
    let mut cons: Vec<_> = nodes.iter().map(|node| node.db.connect().unwrap()).collect();
    for con in &mut cons {
        add(con, "before", 1).unwrap();
    }
    for wire in &wires {
        begin(wire);
    }
    eventually("the cut-off node notices", || !nodes[2].db.cluster_status().unwrap().quorum);
    let refused = try_add(&nodes[2].db, "refused", 1);
    assert!(matches!(refused, Err(CommitError::NoQuorum { .. })), "{refused:?}");
    for _ in 0..50 {
        // The first may meet an election.
        eventually("the others commit", || add(&mut cons[0], "between", 1).is_ok());
        add(&mut cons[1], "between", 1).unwrap();
    }
    assert_eq!(amount(&nodes[2].db, "before"), Some(3), "it can still be read");
    for wire in &wires {
        wire.heal();
    }
    eventually("it catches up", || amount(&nodes[2].db, "between") >= Some(100));
    eventually("it commits", || add(&mut cons[2], "after", 1).is_ok());
    for node in &nodes {
        eventually("all have all", || amount(&node.db, "after") == Some(1));
        assert_eq!(amount(&node.db, "before"), Some(3));
        assert_eq!(amount(&node.db, "refused"), None);
    }
    assert_eq!(nodes[0].db.state_hash(), nodes[2].db.state_hash());
    assert_eq!(
        nodes[2].db.cluster_status().unwrap().counters.images_installed,
        0,
        "its state was kept"
    );
}

#[test]
fn a_node_whose_connections_broke_loses_nothing() {
    check_outage(Proxy::cut);
}

#[test]
fn a_node_whose_bytes_stopped_flowing_is_found_out() {
    check_outage(Proxy::freeze);
}

#[test]
fn connections_that_break_again_and_again_stop_nobody() {
    let Setup { nodes, wires } = start();
    let writer = {
        let db = nodes[2].db.clone();
        thread::spawn(move || {
            let mut con = db.connect().unwrap();
            let mut doubtful = 0;
            for round in 0..60 {
                while let Err(error) = add(&mut con, &format!("round {round}"), 1) {
                    let error = error.to_string();
                    if error.contains("outcome is not known") {
                        doubtful += 1;
                        break;
                    }
                    assert!(error.contains("no quorum"), "{error}");
                }
                thread::park_timeout(std::time::Duration::from_millis(10));
            }
            doubtful
        })
    };
    for round in 0..30 {
        let wire = &wires[round % 2];
        wire.cut();
        thread::park_timeout(std::time::Duration::from_millis(20));
        wire.heal();
    }
    let doubtful = writer.join().unwrap();
    eventually("all nodes agree", || {
        let first = nodes[0].db.state_hash();
        nodes.iter().all(|node| node.db.state_hash() == first)
    });
    let records = nodes[0].db.statistics().classes[0].records;
    assert!((60 - doubtful..=60).contains(&records), "{records} of 60, {doubtful} in doubt");
}
