//! Members of a cluster of real nodes: added, removed, ranked anew, moved, handed the lead, and a
//! cluster formed again from a survivor. Loopback.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Mutex;

use quorate_cluster::{AdminError, ClusterError, ClusterEvent, Database, NodeInfo};
use quorate_consensus::NodeId;
use support::{Cluster, add, amount, eventually, free_addresses, open, params};

fn operator(db: &Database) -> quorate_cluster::Cluster {
    db.cluster().unwrap()
}

fn leader(cluster: &Cluster) -> u32 {
    let known = || cluster.live().find_map(|node| node.db.cluster_status().unwrap().leader);
    eventually("a leader", || known().is_some());
    known().unwrap().0
}

fn ranks(db: &Database) -> Vec<(u32, u32)> {
    let members = db.cluster_status().unwrap().members;
    members.iter().map(|member| (member.info.node_id.0, member.rank)).collect()
}

fn add_one(db: &Database, name: &str) {
    add(&mut db.connect().unwrap(), name, 1).unwrap();
}

#[test]
fn a_fourth_node_is_added_moved_and_removed_while_the_others_go_on() {
    let mut cluster = Cluster::start(&[1, 1, 1]);
    add_one(cluster.db(0), "before");
    let mut addresses = cluster.addresses.clone();
    addresses.extend(free_addresses(2));
    let elsewhere = addresses.pop().unwrap();
    let (fourth, _) = operator(cluster.db(1)).add_node(&addresses[3], 2).unwrap();
    assert_eq!(fourth, NodeId(3));
    let node = open(params(&addresses, &[1, 1, 1, 2], 3)).unwrap();
    assert_eq!(amount(&node.db, "before"), Some(1));
    assert_eq!(ranks(&node.db), [(0, 1), (1, 1), (2, 1), (3, 2)]);
    add_one(&node.db, "by the fourth");
    cluster.nodes.push(Some(node));
    cluster.settle();

    // It moves: the others are told first, then it is started there.
    operator(cluster.db(0)).set_address(fourth, &elsewhere).unwrap();
    cluster.kill(3);
    addresses[3] = elsewhere;
    let node = open(params(&addresses, &[1, 1, 1, 2], 3)).unwrap();
    cluster.nodes[3] = Some(node);
    let moved = |db: &Database| db.nodes()[3].addr == addresses[3];
    eventually("all know the new address", || cluster.live().all(|node| moved(&node.db)));
    add_one(cluster.db(3), "by the fourth");
    cluster.settle();

    // A node that restarts with the list of the beginning learns of the fourth.
    cluster.kill(2);
    let again = open(params(&addresses[..3], &[1, 1, 1], 2)).unwrap();
    assert_eq!(again.db.nodes().len(), 4);
    cluster.nodes[2] = Some(again);
    let linked = |db: &Database| db.cluster_status().unwrap().members[3].connected;
    eventually("it is linked to the fourth", || linked(cluster.db(2)));

    operator(cluster.db(0)).remove_node(fourth).unwrap();
    let gone = cluster.nodes.pop().unwrap().unwrap();
    assert_eq!(gone.listener.join(), Err(ClusterError::Removed));
    assert_eq!(amount(&gone.db, "by the fourth"), Some(2), "it can be read");
    add_one(cluster.db(2), "after");
    cluster.settle();
    assert_eq!(ranks(cluster.db(0)), [(0, 1), (1, 1), (2, 1)]);
    let unknown = operator(cluster.db(0)).set_rank(fourth, 1);
    assert_eq!(unknown, Err(AdminError::UnknownNode { node: fourth }));
    cluster.stop();
}

static HEARD: Mutex<Vec<(ClusterEvent, NodeInfo)>> = Mutex::new(Vec::new());

#[test]
fn a_callback_hears_of_changed_members_with_their_addresses() {
    let cluster = Cluster::start_with(&[1, 1, 1], |params| {
        let listens = params.node_id == 1;
        let note = |event: &ClusterEvent, info: &NodeInfo| {
            HEARD.lock().unwrap().push((event.clone(), info.clone()));
        };
        if listens { params.with_notify(note) } else { params }
    });
    let hears = |wanted: ClusterEvent, addr: &str| {
        eventually("an event", || {
            let heard = HEARD.lock().unwrap();
            heard.iter().any(|(event, info)| *event == wanted && info.addr == addr)
        });
    };
    let third = NodeId(2);
    let former = cluster.addresses[2].clone();
    operator(cluster.db(0)).set_rank(third, 2).unwrap();
    hears(ClusterEvent::RosterChanged { node: third, rank: Some(2) }, &former);
    hears(ClusterEvent::RankChanged { node: third, rank: 2 }, &former);
    let [elsewhere, fourth]: [String; 2] = free_addresses(2).try_into().unwrap();
    operator(cluster.db(0)).add_node(&fourth, 0).unwrap();
    hears(ClusterEvent::RosterChanged { node: NodeId(3), rank: Some(0) }, &fourth);
    operator(cluster.db(0)).remove_node(NodeId(3)).unwrap();
    hears(ClusterEvent::RosterChanged { node: NodeId(3), rank: None }, &fourth);
    operator(cluster.db(0)).set_address(third, &elsewhere).unwrap();
    hears(ClusterEvent::RosterChanged { node: third, rank: Some(2) }, &elsewhere);
    cluster.stop();
}

#[test]
fn the_lead_is_handed_over_and_a_leader_that_is_removed_is_replaced() {
    let mut cluster = Cluster::start(&[1, 1, 1]);
    let old = leader(&cluster);
    let heir = (old + 1) % 3;
    let asked = (old + 2) % 3;
    operator(cluster.db(asked)).transfer_leadership(NodeId(heir)).unwrap();
    assert_eq!(leader(&cluster), heir);
    operator(cluster.db(asked)).remove_node(NodeId(heir)).unwrap();
    let gone = cluster.nodes[heir as usize].take().unwrap();
    assert_eq!(gone.listener.join(), Err(ClusterError::Removed));
    add_one(cluster.db(asked), "after");
    cluster.settle();
    cluster.stop();
}

#[test]
fn a_survivor_goes_on_in_a_new_epoch_and_who_comes_back_joins_it() {
    let mut cluster = Cluster::start(&[1, 1, 1]);
    add_one(cluster.db(0), "before");
    cluster.settle();
    assert_eq!(operator(cluster.db(0)).recover(), Err(AdminError::StillQuorum));
    cluster.kill(1);
    cluster.kill(2);
    eventually("it notices", || !cluster.db(0).cluster_status().unwrap().quorum);
    let recovery = operator(cluster.db(0)).recover().unwrap();
    assert_eq!(recovery.epoch.counter, 1);
    add_one(cluster.db(0), "after");
    assert!(cluster.db(0).visible_index().0 > recovery.survivor_index.0 + (1 << 32));
    cluster.open_all(&[1, 2]);
    for node in cluster.live() {
        assert_eq!((amount(&node.db, "before"), amount(&node.db, "after")), (Some(1), Some(1)));
    }
    add_one(cluster.db(2), "after");
    cluster.settle();
    assert_eq!(ranks(cluster.db(1)), [(0, 1), (1, 1), (2, 1)]);
    cluster.stop();
}
