//! What operators ask: inside the process here, over a connection below.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::Read;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use quorate_cluster::{
    AdminAnswer, AdminClient, AdminClientError, AdminError, AdminRequest, ClusterStatus, Epoch,
    Phase,
};
use support::{Cluster, add, eventually, free_addresses};

/// Longer than any answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn status(client: &mut AdminClient) -> ClusterStatus {
    match client.request(&AdminRequest::Status).unwrap() {
        AdminAnswer::Status(status) => *status,
        other => panic!("{other:?} is no status"),
    }
}

#[test]
fn the_status_is_answered_inside_the_process() {
    let cluster = Cluster::start(&[1, 2, 1]);
    add(&mut cluster.db(1).connect().unwrap(), "a", 1).unwrap();
    cluster.settle();
    let asked = cluster.db(2).cluster().expect("a node").request(AdminRequest::Status);
    let AdminAnswer::Status(status) = asked else {
        panic!("no status");
    };
    assert_eq!(
        (status.node_id.0, status.phase, status.epoch),
        (2, Phase::Member, Epoch::default())
    );
    assert_ne!(status.cluster_id, 0);
    assert_eq!(status.index, cluster.db(2).visible_index());
    let ranks: Vec<u32> = status.members.iter().map(|member| member.rank).collect();
    assert_eq!(ranks, [1, 2, 1]);
    assert!(status.members.iter().all(|member| member.connected && member.refusal.is_none()));
    let db = cluster.db(0).clone();
    cluster.stop();
    let answer = db.cluster().map(|cluster| cluster.request(AdminRequest::Status));
    assert_eq!(answer, Some(AdminAnswer::Refused(AdminError::Stopped)));
}

#[test]
fn the_status_is_answered_over_a_connection_as_inside() {
    let cluster = Cluster::start(&[1, 2, 1]);
    add(&mut cluster.db(1).connect().unwrap(), "a", 1).unwrap();
    cluster.settle();
    for id in 0..3 {
        let addr = &cluster.addresses[id as usize];
        let mut client = AdminClient::connect(addr, PATIENCE).unwrap();
        assert_eq!(client.node().0, id);
        for _ in 0..3 {
            let outside = status(&mut client);
            let mut inside = cluster.db(id).cluster_status().unwrap();
            inside.counters = outside.counters; // they may go on between the two
            assert_eq!(outside, inside);
        }
    }
    cluster.stop();
}

#[test]
fn a_unix_socket_serves_operators_too() {
    let folder = tempfile::tempdir().unwrap();
    let addr = format!("unix:{}", folder.path().join("node").display());
    let params = support::params(std::slice::from_ref(&addr), &[1], 0);
    let node = support::open(params).unwrap();
    let mut client = AdminClient::connect(&addr, PATIENCE).unwrap();
    assert_eq!(status(&mut client).members[0].info.addr, addr);
    node.db.connect().unwrap().stop().unwrap();
    node.listener.join().unwrap();
    let gone = client.request(&AdminRequest::Status);
    assert!(matches!(gone, Err(AdminClientError::Broken { .. })), "{gone:?}");
}

#[test]
fn as_many_as_allowed_are_open_and_the_longest_idle_gives_way() {
    let cluster = Cluster::start(&[1]);
    let addr = &cluster.addresses[0];
    let mut clients: Vec<AdminClient> =
        (0..8).map(|_| AdminClient::connect(addr, PATIENCE).unwrap()).collect();
    // A moment later, so that all but the first have asked since.
    let before = cluster.db(0).cluster_status().unwrap().index;
    thread::sleep(Duration::from_millis(20));
    for client in &mut clients[1..] {
        assert_eq!(status(client).index, before);
    }
    let mut ninth = AdminClient::connect(addr, PATIENCE).unwrap();
    assert!(matches!(
        clients[0].request(&AdminRequest::Status),
        Err(AdminClientError::Broken { .. })
    ));
    // What went wrong stays wrong: an answer could be taken for another request's.
    assert!(clients[0].request(&AdminRequest::Status).is_err());
    for client in &mut clients[1..] {
        status(client);
    }
    status(&mut ninth);
    cluster.stop();
}

#[test]
fn a_client_says_what_is_wrong_with_where_it_connects() {
    let short = Duration::from_millis(300);
    let error = AdminClient::connect("nowhere", short).unwrap_err();
    assert!(matches!(error, AdminClientError::Address { .. }), "{error}");
    let addr = &free_addresses(1)[0];
    let error = AdminClient::connect(addr, short).unwrap_err();
    assert!(matches!(error, AdminClientError::Connect { .. }), "{error}");
    // Somebody who says nothing, and somebody who says nonsense.
    let silent = TcpListener::bind(addr).unwrap();
    let error = AdminClient::connect(addr, short).unwrap_err();
    assert!(matches!(error, AdminClientError::TimedOut { waited_ms: 300, .. }), "{error}");
    let (mut stream, _) = silent.accept().unwrap();
    stream.read_exact(&mut [0; 8]).unwrap();
    let babbler = thread::spawn(move || {
        let (mut stream, _) = silent.accept().unwrap();
        std::io::Write::write_all(&mut stream, &[b'x'; 200]).unwrap();
        let _ = stream.read(&mut [0; 200]);
    });
    let error = AdminClient::connect(addr, PATIENCE).unwrap_err();
    assert!(matches!(error, AdminClientError::Stranger { .. }), "{error}");
    babbler.join().unwrap();
}

#[test]
fn a_node_that_is_being_opened_answers_operators() {
    let addresses = free_addresses(2);
    let params = support::params(&addresses, &[1, 1], 0).with_connect(20_000, 50);
    let opener = thread::spawn(move || support::open(params));
    eventually("it listens", || AdminClient::connect(&addresses[0], PATIENCE).is_ok());
    let mut client = AdminClient::connect(&addresses[0], PATIENCE).unwrap();
    let answer = status(&mut client);
    assert_eq!((answer.phase, answer.ready), (Phase::Forming, false));
    assert_eq!(answer.waiting_for[0].0.0, 1);
    let refused = client.request(&AdminRequest::Recover).unwrap();
    assert_eq!(refused, AdminAnswer::Refused(AdminError::NotMember));
    drop(client);
    let other = support::open(support::params(&addresses, &[1, 1], 1)).unwrap();
    let node = opener.join().unwrap().unwrap();
    drop((node.db, other.db));
}
