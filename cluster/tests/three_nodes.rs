//! Three nodes in one process: commits from all of them, order everywhere, stop, detach.

#![allow(clippy::unwrap_used)]

mod support;

use std::thread;

use quorate_cluster::ClusterError;
use support::{Cluster, add, amount, eventually};

#[test]
fn commits_of_all_nodes_are_on_all_nodes() {
    let cluster = Cluster::start(&[1, 1, 1]);
    let writers: Vec<_> = cluster
        .live()
        .map(|node| {
            let (id, db) = (node.id, node.db.clone());
            thread::spawn(move || {
                let mut con = db.connect().unwrap();
                for round in 0..100 {
                    add(&mut con, "shared", 1).unwrap();
                    add(&mut con, &format!("own {id} {round}"), 1).unwrap();
                    // What this node committed is visible here at once.
                    assert_eq!(amount(&db, &format!("own {id} {round}")), Some(1));
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    cluster.settle();
    for node in cluster.live() {
        assert_eq!(amount(&node.db, "shared"), Some(300), "node {}", node.id);
        for id in 0..3 {
            assert_eq!(amount(&node.db, &format!("own {id} 99")), Some(1));
        }
    }
    cluster.stop();
}

#[test]
fn a_node_that_detaches_leaves_the_others_working() {
    let mut cluster = Cluster::start(&[1, 1, 1]);
    let node = cluster.nodes[2].take().unwrap();
    let con = node.db.connect().unwrap();
    add(&mut node.db.connect().unwrap(), "before", 1).unwrap();
    con.detach().unwrap();
    node.listener.join().unwrap();
    assert_eq!(amount(&node.db, "before"), Some(1), "it can still be read");
    let refused = add(&mut node.db.connect().unwrap(), "after", 1);
    assert!(refused.unwrap_err().to_string().contains("stopped"));
    for id in [0, 1] {
        add(&mut cluster.db(id).connect().unwrap(), "after", 1).unwrap();
    }
    eventually("both have both", || {
        [0, 1].iter().all(|id| amount(cluster.db(*id), "after") == Some(2))
    });
    assert_eq!(amount(&node.db, "after"), None);
    cluster.stop();
}

#[test]
fn a_listener_is_one() {
    let cluster = Cluster::start(&[1]);
    let con = cluster.db(0).connect().unwrap();
    assert_eq!(con.listen(), Err(ClusterError::AlreadyListening));
    assert!(matches!(cluster.db(0).spawn_listener(), Err(ClusterError::AlreadyListening)));
    let db = cluster.db(0).clone();
    cluster.stop();
    assert_eq!(con.listen(), Err(ClusterError::Ended));
    assert_eq!(con.stop(), Ok(()), "it stopped already");
    assert!(db.cluster_status().is_some());
}

#[test]
fn the_node_that_holds_all_the_rank_may_not_detach_and_goes_on() {
    let cluster = Cluster::start(&[1, 0, 0]);
    let refused = cluster.db(0).connect().unwrap().detach();
    assert!(matches!(refused, Err(ClusterError::LastVoter)), "{refused:?}");
    for id in 0..3 {
        add(&mut cluster.db(id).connect().unwrap(), "after", 1).unwrap();
    }
    cluster.settle();
    assert_eq!(amount(cluster.db(2), "after"), Some(3));
    cluster.stop();
}

#[test]
fn concurrent_detaches_of_the_last_voter_are_all_refused_and_a_stop_beside_them_is_not() {
    let cluster = Cluster::start(&[1, 0]);
    for _ in 0..10 {
        let detach = || {
            let db = cluster.db(0).clone();
            thread::spawn(move || db.connect().unwrap().detach())
        };
        let detaches: Vec<_> = (0..4).map(|_| detach()).collect();
        for detach in detaches {
            let refused = detach.join().unwrap();
            assert!(matches!(refused, Err(ClusterError::LastVoter)), "{refused:?}");
        }
    }
    let ends = |id: u32, stop: bool| {
        let db = cluster.db(id).clone();
        thread::spawn(move || {
            let con = db.connect().unwrap();
            if stop { con.stop() } else { con.detach() }
        })
    };
    let (detach, stop, other) = (ends(0, false), ends(0, true), ends(1, true));
    assert_eq!(stop.join().unwrap(), Ok(()));
    assert_eq!(other.join().unwrap(), Ok(()));
    // Refused, or too late to matter.
    let detach = detach.join().unwrap();
    assert!(matches!(detach, Ok(()) | Err(ClusterError::LastVoter)), "{detach:?}");
}

#[test]
fn all_nodes_can_detach_at_once() {
    for _ in 0..5 {
        let cluster = Cluster::start(&[1, 1, 1]);
        let detaches: Vec<_> = (cluster.live())
            .map(|node| {
                let db = node.db.clone();
                thread::spawn(move || db.connect().unwrap().detach())
            })
            .collect();
        for detach in detaches {
            assert_eq!(detach.join().unwrap(), Ok(()));
        }
    }
}
