//! The callbacks: what they hear, what a veto does, and that they cannot harm the node.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use quorate_cluster::{ClusterError, ClusterEvent, ClusterParams, QuorumReason};
use quorate_consensus::NodeId;
use quorate_engine::CommitError;
use support::{Node, add, eventually, free_addresses, open, params, try_add};

fn open_three(tweak: impl Fn(u32, ClusterParams) -> ClusterParams) -> (Vec<String>, Vec<Node>) {
    let addresses = free_addresses(3);
    let openers: Vec<_> = (0..3)
        .map(|id| {
            let params = tweak(id, params(&addresses, &[1, 1, 1], id));
            thread::spawn(move || open(params).unwrap())
        })
        .collect();
    let nodes = openers.into_iter().map(|opener| opener.join().unwrap()).collect();
    (addresses, nodes)
}

#[test]
fn events_come_in_order_and_name_their_node() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ear = Arc::clone(&heard);
    let (addresses, mut nodes) = open_three(move |id, params| {
        let ear = Arc::clone(&ear);
        if id != 0 {
            return params;
        }
        params.with_notify(move |event, info| {
            ear.lock().unwrap().push((event.clone(), info.node_id, info.addr.clone()));
        })
    });
    let has = |wanted: &ClusterEvent| heard.lock().unwrap().iter().any(|(e, ..)| e == wanted);
    for event in [
        ClusterEvent::Connected(NodeId(1)),
        ClusterEvent::Connected(NodeId(2)),
        ClusterEvent::Formed,
    ] {
        eventually("an event of the beginning", || has(&event));
    }
    eventually("the quorum and what it is made of", || {
        let reaches_enough = |event: &ClusterEvent| match event {
            ClusterEvent::QuorumGained(QuorumReason::Connected { connected_rank, total_rank }) => {
                *total_rank == 3 && *connected_rank >= 2
            }
            _ => false,
        };
        heard.lock().unwrap().iter().any(|(event, ..)| reaches_enough(event))
    });
    drop(nodes.pop());
    eventually("the disconnection", || has(&ClusterEvent::Disconnected(NodeId(2))));
    nodes.push(open(params(&addresses, &[1, 1, 1], 2)).unwrap());
    eventually("the return", || {
        let heard = heard.lock().unwrap();
        let left = ClusterEvent::Disconnected(NodeId(2));
        let since = heard.iter().skip_while(|(event, ..)| *event != left);
        since.map(|(event, ..)| event).any(|event| *event == ClusterEvent::Joined(NodeId(2)))
    });
    let heard = heard.lock().unwrap();
    for (event, node, addr) in heard.iter() {
        assert_eq!(*addr, addresses[node.0 as usize]);
        assert_eq!(*node, event.node().unwrap_or(NodeId(0)), "{event:?}");
    }
    let of_two: Vec<_> = heard
        .iter()
        .map(|(event, ..)| event.clone())
        .filter(|event| {
            matches!(
                event,
                ClusterEvent::Connected(NodeId(2)) | ClusterEvent::Disconnected(NodeId(2))
            )
        })
        .collect();
    let up = ClusterEvent::Connected(NodeId(2));
    assert_eq!(of_two, [up.clone(), ClusterEvent::Disconnected(NodeId(2)), up]);
}

#[test]
fn a_veto_keeps_the_node_from_committing_and_from_leading() {
    let forbid = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (switch, ear) = (Arc::clone(&forbid), Arc::clone(&asked));
    let (addresses, mut nodes) = open_three(move |id, params| {
        let (switch, ear) = (Arc::clone(&switch), Arc::clone(&ear));
        if id != 0 {
            return params;
        }
        params.with_commit_limit(500).with_quorum_callback(1_000, move |neighbours| {
            let ids: Vec<_> = neighbours.iter().map(|info| info.node_id.0).collect();
            let allowed = !switch.load(Ordering::SeqCst) || ids.len() == 2;
            ear.lock().unwrap().push(ids);
            allowed
        })
    });
    eventually("it is asked", || asked.lock().unwrap().last() == Some(&vec![1, 2]));
    add(&mut nodes[0].db.connect().unwrap(), "before", 1).unwrap();
    forbid.store(true, Ordering::SeqCst);
    drop(nodes.pop());
    eventually("it is asked again", || asked.lock().unwrap().last() == Some(&vec![1]));
    eventually("it obeys", || !nodes[0].db.cluster_status().unwrap().quorum);
    // Node 1 has a quorum, because node 0 still votes and acknowledges; node 0 does not commit.
    let refused = try_add(&nodes[0].db, "vetoed", 1);
    assert!(matches!(refused, Err(CommitError::NoQuorum { .. })), "{refused:?}");
    add(&mut nodes[1].db.connect().unwrap(), "by the other", 1).unwrap();
    assert_eq!(nodes[1].db.cluster_status().unwrap().leader, Some(NodeId(1)));
    nodes.push(open(params(&addresses, &[1, 1, 1], 2)).unwrap());
    eventually("the veto is lifted", || nodes[0].db.cluster_status().unwrap().quorum);
    add(&mut nodes[0].db.connect().unwrap(), "after", 1).unwrap();
}

#[test]
fn callbacks_that_panic_or_hang_harm_nobody() {
    let release = Arc::new(AtomicBool::new(false));
    let hold = Arc::clone(&release);
    let (_, nodes) = open_three(move |id, params| match id {
        0 => params
            .with_notify(|_, _| panic!("planted"))
            .with_quorum_callback(100, |_| panic!("planted")),
        1 => {
            let hold = Arc::clone(&hold);
            params.with_notify(move |_, _| {
                while !hold.load(Ordering::SeqCst) {
                    thread::park_timeout(std::time::Duration::from_millis(5));
                }
            })
        }
        _ => params,
    });
    for node in &nodes {
        for _ in 0..20 {
            add(&mut node.db.connect().unwrap(), "count", 1).unwrap();
        }
    }
    eventually("panics are counted", || nodes[0].db.cluster_status().unwrap().callback_panics > 3);
    release.store(true, Ordering::SeqCst);
}

#[test]
fn a_stop_that_nobody_may_agree_to_ends_at_its_limit() {
    let allowed = Arc::new(AtomicBool::new(true));
    let verdict = Arc::clone(&allowed);
    let (_, mut nodes) = open_three(move |_, params| {
        let verdict = Arc::clone(&verdict);
        let params = params.with_stop(1_000, 1_000);
        params.with_quorum_callback(1_000, move |_| verdict.load(Ordering::SeqCst))
    });
    allowed.store(false, Ordering::SeqCst);
    drop(nodes.pop()); // asks the callbacks of the others, who are still connected to each other
    eventually("the veto", || nodes.iter().all(|node| !node.db.cluster_status().unwrap().quorum));
    let stops: Vec<_> = nodes
        .iter()
        .map(|node| {
            let db = node.db.clone();
            thread::spawn(move || db.connect().unwrap().stop())
        })
        .collect();
    for stop in stops {
        let result = stop.join().unwrap();
        assert!(matches!(result, Err(ClusterError::NoQuorum)), "{result:?}");
    }
}
