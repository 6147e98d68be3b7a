//! Opening: what it refuses, whom it waits for, and that it leaves nothing behind.

#![allow(clippy::unwrap_used)]

mod support;

use std::net::TcpListener;
use std::thread;

use quorate_cluster::{
    ClusterError, ClusterNodeParams, ClusterParams, Database, OpenError, Options, ParamsError,
    RejectReason,
};
use quorate_consensus::NodeId;
use quorate_engine::{DatabaseParams, dictionary_digest};
use quorate_schema::Dictionary;
use support::{add, amount, dictionary, free_addresses, open, params};

/// Opens all side by side; the results in order.
fn open_each(all: Vec<ClusterParams>) -> Vec<Result<support::Node, OpenError>> {
    let openers: Vec<_> = all.into_iter().map(|one| thread::spawn(move || open(one))).collect();
    openers.into_iter().map(|opener| opener.join().unwrap()).collect()
}

fn refused(result: Result<support::Node, OpenError>) -> OpenError {
    match result {
        Ok(node) => panic!("node {} was opened", node.id),
        Err(error) => error,
    }
}

/// Who is at the other end of a refusal, and the reason.
fn rejected(error: &OpenError) -> (NodeId, RejectReason) {
    match error {
        OpenError::Rejected { node, reason, .. } => (*node, *reason),
        other => panic!("not a refusal: {other}"),
    }
}

#[test]
fn a_database_alone_needs_no_cluster() {
    let db = Database::open("alone", dictionary(), Options::default()).unwrap();
    let mut con = db.connect().unwrap();
    add(&mut con, "a", 1).unwrap();
    assert_eq!(amount(&db, "a"), Some(1));
    assert!(db.cluster_status().is_none());
    assert!(db.nodes().is_empty());
    assert_eq!(con.listen(), Err(ClusterError::Alone));
    assert_eq!(con.stop(), Err(ClusterError::Alone));
    assert_eq!(con.detach(), Err(ClusterError::Alone));
    assert!(matches!(db.spawn_listener(), Err(ClusterError::Alone)));
    let small = DatabaseParams::default().with_segment_size_bytes(1);
    let error = Database::open("small", dictionary(), small).unwrap_err();
    assert!(matches!(error, OpenError::Database(_)), "{error}");
}

#[test]
fn bad_parameters_open_nothing() {
    let nodes = vec![ClusterNodeParams::new("127.0.0.1:1"), ClusterNodeParams::new("nonsense")];
    let error = refused(open(ClusterParams::new(0, nodes)));
    assert!(matches!(error, OpenError::Params(ParamsError::MalformedAddress { .. })), "{error}");
}

#[test]
fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let error = refused(open(params(std::slice::from_ref(&addr), &[1], 0)));
    assert!(
        matches!(&error, OpenError::AddrInUse { addr: named, .. } if *named == addr),
        "{error}"
    );
    assert!(error.to_string().contains(&addr));
    // An address of another machine cannot be listened at.
    let far = ClusterParams::new(0, vec![ClusterNodeParams::new("192.0.2.1:7000")]);
    let error = refused(open(far.with_insecure(true)));
    assert!(matches!(error, OpenError::Bind { .. }), "{error}");
}

#[test]
fn open_says_whom_it_waited_for_and_frees_its_address() {
    let addresses = free_addresses(3);
    for _ in 0..2 {
        let error = refused(open(params(&addresses, &[1, 1, 1], 0).with_connect(300, 50)));
        let OpenError::Timeout { waited_ms: 300, waiting_for } = &error else { panic!("{error}") };
        let nodes: Vec<_> = waiting_for.iter().map(|waiting| waiting.node).collect();
        assert_eq!(nodes, [NodeId(1), NodeId(2)]);
        let text = error.to_string();
        assert!(text.contains(&addresses[2]), "{text}");
        let hints = ["call listen() or spawn_listener()", "check the addresses", "node_id"];
        assert!(hints.iter().all(|hint| text.contains(hint)), "{text}");
    }
}

#[test]
fn a_name_and_a_unix_socket_are_addresses_too() {
    let port = free_addresses(1)[0].rsplit(':').next().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("node.sock");
    let addresses = [format!("localhost:{port}"), format!("unix:{}", path.display())];
    for _ in 0..2 {
        let all = (0..2).map(|id| params(&addresses, &[1, 1], id)).collect();
        let nodes: Vec<_> = open_each(all).into_iter().map(Result::unwrap).collect();
        add(&mut nodes[0].db.connect().unwrap(), "a", 1).unwrap();
        add(&mut nodes[1].db.connect().unwrap(), "a", 1).unwrap();
        assert_eq!(amount(&nodes[1].db, "a"), Some(2));
        assert!(path.exists());
        drop(nodes);
    }
    // The second round bound the path again, so the first had left nothing that was in its way. A
    // file left by a process that died is in nobody's way either.
    drop(std::os::unix::net::UnixListener::bind(&path));
    assert!(path.exists());
    let nodes = open(params(&[addresses[1].clone()], &[1], 0)).unwrap();
    let error = refused(open(params(&[addresses[1].clone()], &[1], 0)));
    assert!(matches!(error, OpenError::AddrInUse { .. }), "{error}");
    drop(nodes);
}

#[test]
fn another_dictionary_is_refused_by_name() {
    let addresses = free_addresses(2);
    let other = Dictionary::parse("declare database test; class Other { string name; };").unwrap();
    let first = params(&addresses, &[1, 1], 0).with_connect(2_000, 50);
    let second = params(&addresses, &[1, 1], 1).with_connect(20_000, 50);
    let digests = [dictionary_digest(&dictionary()), dictionary_digest(&other)];
    let opener = thread::spawn(move || open(first));
    // Each side is told what the other one has.
    let error = Database::open("test", other, second).unwrap_err();
    let reason = RejectReason::OtherDictionary { digest: digests[0] };
    assert_eq!(rejected(&error), (NodeId(0), reason));
    let error = refused(opener.join().unwrap());
    let reason = RejectReason::OtherDictionary { digest: digests[1] };
    assert_eq!(rejected(&error), (NodeId(1), reason));
}

#[test]
fn node_lists_that_differ_are_refused_by_name() {
    // In length: seen in the handshake.
    let addresses = free_addresses(3);
    let results = open_each(vec![
        params(&addresses[..2], &[1, 1], 0).with_connect(2_000, 50),
        params(&addresses, &[1, 1, 1], 1).with_connect(20_000, 50),
    ]);
    // Each side is told how long the list of the other one is.
    let errors: Vec<_> = results.into_iter().map(refused).collect();
    assert_eq!(rejected(&errors[0]), (NodeId(1), RejectReason::NodesDiffer { nodes: 3 }));
    assert_eq!(rejected(&errors[1]), (NodeId(0), RejectReason::NodesDiffer { nodes: 2 }));
    assert!(errors[0].to_string().contains("its list has 3 nodes"), "{}", errors[0]);
    assert!(errors[1].to_string().contains("its list has 2 nodes"), "{}", errors[1]);
    // In a rank: seen when the cluster is to be formed.
    let addresses = free_addresses(2);
    let results = open_each(vec![
        params(&addresses, &[1, 1], 0).with_connect(3_000, 50),
        params(&addresses, &[1, 2], 1).with_connect(3_000, 50),
    ]);
    let errors: Vec<_> = results.into_iter().map(refused).collect();
    let named = |error: &OpenError| {
        matches!(error, OpenError::Cluster(ClusterError::NodesDiffer { node: NodeId(1), .. }))
    };
    assert!(errors.iter().any(named), "{errors:?}");
}

#[test]
fn an_address_of_another_node_is_named_on_both_sides() {
    let addresses = free_addresses(3);
    let swapped = [&addresses[1], &addresses[0], &addresses[2]].map(String::clone);
    let results = open_each(vec![
        params(&addresses, &[1, 1, 1], 1).with_connect(2_000, 50),
        params(&swapped, &[1, 1, 1], 2).with_connect(20_000, 50),
    ]);
    let errors: Vec<_> = results.into_iter().map(refused).collect();
    let reason = RejectReason::WrongNode { node: NodeId(1) };
    assert_eq!(rejected(&errors[0]), (NodeId(2), reason));
    assert_eq!(rejected(&errors[1]), (NodeId(0), reason));
    for error in errors {
        assert!(error.to_string().contains("the address dialled leads to node 1"), "{error}");
    }
}

#[test]
fn a_second_process_under_one_node_id_is_refused_while_the_first_lives() {
    let addresses = free_addresses(2);
    let nodes: Vec<_> = open_each((0..2).map(|id| params(&addresses, &[1, 1], id)).collect());
    let nodes: Vec<_> = nodes.into_iter().map(Result::unwrap).collect();
    // The twin has an address of its own, as on another machine.
    let twin = [addresses[0].clone(), free_addresses(1)[0].clone()];
    let error = refused(open(params(&twin, &[1, 1], 1).with_connect(1_000, 50)));
    let duplicate = matches!(
        error,
        OpenError::Rejected { node: NodeId(0), reason: RejectReason::DuplicateNode, .. }
    );
    assert!(duplicate, "{error}");
    add(&mut nodes[1].db.connect().unwrap(), "the first works on", 1).unwrap();
}

#[test]
fn a_list_that_leads_back_to_oneself_is_noticed() {
    let addresses = free_addresses(2);
    // Node 1 believes node 0 at its own address, by another name.
    let port = addresses[1].rsplit(':').next().unwrap();
    let mine = [format!("127.0.0.2:{port}"), format!("0.0.0.0:{port}")];
    let error = refused(open(params(&mine, &[1, 1], 1).with_insecure(true)));
    let own = matches!(error, OpenError::Rejected { reason: RejectReason::SelfConnection, .. });
    assert!(own, "{error}");
}
