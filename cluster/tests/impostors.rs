//! Two processes under one node id: the second is kept out, told so, and changes nothing.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Arc, Mutex};
use std::thread;

use quorate_cluster::{ClusterEvent, OpenError, RejectReason};
use quorate_consensus::NodeId;
use support::{add, eventually, free_addresses, open, params};

#[test]
fn a_second_process_under_a_running_nodes_id_changes_nothing_and_both_are_told() {
    let heard: Arc<Mutex<Vec<(u32, ClusterEvent)>>> = Arc::default();
    let addresses = free_addresses(4);
    let (places, elsewhere) = addresses.split_at(3);
    let openers: Vec<_> = (0..3)
        .map(|id| {
            let ear = Arc::clone(&heard);
            let note =
                move |event: &ClusterEvent, _: &_| ear.lock().unwrap().push((id, event.clone()));
            let params = params(places, &[1, 1, 1], id).with_notify(note);
            thread::spawn(move || open(params).unwrap())
        })
        .collect();
    let nodes: Vec<_> = openers.into_iter().map(|opener| opener.join().unwrap()).collect();
    add(&mut nodes[0].db.connect().unwrap(), "before", 1).unwrap();
    let status = || nodes[0].db.cluster_status().unwrap();
    let before = status();
    let duplicates = |node: u32| {
        let event = ClusterEvent::DuplicateNode(NodeId(node));
        let heard = heard.lock().unwrap();
        let mut ears: Vec<u32> =
            heard.iter().filter(|(_, other)| *other == event).map(|(ear, _)| *ear).collect();
        ears.sort_unstable();
        ears.dedup();
        ears
    };
    // Who listens elsewhere and says it is node 2, or 1: whom it dials refuses it, and they and the
    // real one hear of it.
    for (impostor, ears) in [(2, [0, 1, 2].as_slice()), (1, &[0, 1])] {
        let mut list = places.to_vec();
        list[impostor as usize] = elsewhere[0].clone();
        let refused = open(params(&list, &[1, 1, 1], impostor).with_connect(2_000, 50));
        match refused.map(|_| ()) {
            Err(OpenError::Rejected { reason: RejectReason::DuplicateNode, .. }) => {}
            other => panic!("{other:?} for node {impostor}"),
        }
        eventually("all concerned hear of it", || duplicates(impostor) == ears);
    }
    // Nobody dials the second node 0, and it dials nobody.
    let list = [elsewhere[0].clone(), places[1].clone(), places[2].clone()];
    let alone = open(params(&list, &[1, 1, 1], 0).with_connect(500, 50)).map(|_| ());
    assert!(matches!(alone, Err(OpenError::Timeout { .. })), "{alone:?}");
    for node in &nodes {
        add(&mut node.db.connect().unwrap(), "after", 1).unwrap();
    }
    let after = status();
    assert_eq!(
        (after.term, after.leader, after.members),
        (before.term, before.leader, before.members)
    );
    let broken = |(_, event): &(u32, ClusterEvent)| matches!(event, ClusterEvent::Disconnected(_));
    assert!(!heard.lock().unwrap().iter().any(broken), "no link broke");
    for node in &nodes {
        eventually("it applies all", || node.db.visible_index() >= nodes[2].db.visible_index());
    }
    assert_eq!(nodes[0].db.state_hash(), nodes[1].db.state_hash());
    assert_eq!(nodes[1].db.state_hash(), nodes[2].db.state_hash());
}
