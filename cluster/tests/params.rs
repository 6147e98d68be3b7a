//! Parameters that cannot work are refused by name before anything is opened.

#![allow(clippy::unwrap_used)]

use quorate_cluster::{ClusterNodeParams, ClusterParams, NODES_MAX, ParamsError};

fn nodes(count: usize) -> Vec<ClusterNodeParams> {
    (0..count).map(|node| ClusterNodeParams::new(format!("127.0.0.1:{}", 7_000 + node))).collect()
}

fn three() -> ClusterParams {
    ClusterParams::new(0, nodes(3))
}

fn with_addr(addr: &str) -> ClusterParams {
    let mut params = three();
    params.nodes[1].addr = addr.to_string();
    params
}

fn with_ranks(ranks: [u32; 3]) -> ClusterParams {
    let mut params = three();
    for (node, qrank) in params.nodes.iter_mut().zip(ranks) {
        node.qrank = qrank;
    }
    params
}

#[test]
fn good_parameters_pass() {
    three().validate().unwrap();
    ClusterParams::new(0, nodes(1)).validate().unwrap();
    ClusterParams::new(31, nodes(NODES_MAX)).validate().unwrap();
    with_ranks([1, 0, 0]).validate().unwrap();
    with_ranks([u32::MAX, 0, 0]).validate().unwrap();
    with_addr("[::1]:7001").validate().unwrap();
    with_addr("unix:/tmp/quorate.sock").validate().unwrap();
    with_addr("10.1.2.3:7001").with_insecure(true).validate().unwrap();
    with_addr("db.example.org:7001").with_insecure(true).validate().unwrap();
    let checked = with_ranks([2, 1, 1]).validate().unwrap();
    assert_eq!(checked.nodes().iter().map(|node| node.qrank).collect::<Vec<_>>(), [2, 1, 1]);
}

#[test]
fn bad_lists_are_refused() {
    let refused = |params: ClusterParams| params.validate().unwrap_err();
    assert_eq!(refused(ClusterParams::new(0, nodes(0))), ParamsError::NoNodes);
    assert!(matches!(
        refused(ClusterParams::new(0, nodes(33))),
        ParamsError::TooManyNodes { nodes: 33, limit: 32 }
    ));
    assert_eq!(
        refused(ClusterParams::new(3, nodes(3))),
        ParamsError::NodeIdOutsideList { node_id: 3, nodes: 3 }
    );
    assert!(matches!(
        refused(ClusterParams::new(u32::MAX, nodes(3))),
        ParamsError::NodeIdOutsideList { .. }
    ));
    for addr in ["", "localhost", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000", "::1:7", "a b:7"] {
        let error = refused(with_addr(addr));
        assert!(matches!(error, ParamsError::MalformedAddress { .. }), "{addr:?}: {error}");
        assert!(error.to_string().contains(&format!("nodes[1].addr is {addr:?}")), "{error}");
    }
    for addr in ["127.0.0.1:7000", "127.0.0.1:07000"] {
        let error = refused(with_addr(addr));
        assert!(matches!(error, ParamsError::DuplicateAddress { .. }), "{addr:?}: {error}");
    }
    let mut params = with_addr("LOCALHOST:7000");
    params.nodes[2].addr = "localhost:7000".to_string();
    assert!(matches!(refused(params), ParamsError::DuplicateAddress { .. }));
    for addr in ["10.1.2.3:7001", "0.0.0.0:7001", "db.example.org:7001", "[::]:7001"] {
        let error = refused(with_addr(addr));
        assert!(matches!(error, ParamsError::InsecureAddress { .. }), "{addr:?}: {error}");
    }
}

#[test]
fn bad_ranks_are_refused() {
    assert_eq!(with_ranks([0, 0, 0]).validate().unwrap_err(), ParamsError::NoRank);
    let error = with_ranks([u32::MAX, 1, 0]).validate().unwrap_err();
    assert!(matches!(error, ParamsError::RankOverflow { total: 0x1_0000_0000, .. }), "{error}");
    with_ranks([u32::MAX; 3]).validate().unwrap_err();
}

type Set = fn(&mut ClusterParams, u64);

#[test]
fn zero_and_overflowing_numbers_are_refused_by_name() {
    let fields: [(&str, Set); 18] = [
        ("connect_timeout_ms", |params, value| params.connect_timeout_ms = value),
        ("connect_interval_ms", |params, value| params.connect_interval_ms = value),
        ("socket_send_buf_bytes", |params, value| params.socket_send_buf_bytes = Some(value)),
        ("socket_recv_buf_bytes", |params, value| params.socket_recv_buf_bytes = Some(value)),
        ("keep_alive_time_s", |params, value| params.keep_alive_time_s = value),
        ("window_bytes", |params, value| params.window_bytes = value),
        ("election_timeout_ms", |params, value| params.election_timeout_ms = value),
        ("heartbeat_ms", |params, value| params.heartbeat_ms = value),
        ("commit_limit_ms", |params, value| params.commit_limit_ms = value),
        ("stop_limit_ms", |params, value| params.stop_limit_ms = value),
        ("departed_after_ms", |params, value| params.departed_after_ms = value),
        ("sync_msg_size_bytes", |params, value| params.sync_msg_size_bytes = value),
        ("sync_rate_bytes_per_s", |params, value| params.sync_rate_bytes_per_s = value),
        ("cluster_send_buf_bytes", |params, value| params.cluster_send_buf_bytes = value),
        ("cluster_recv_buf_bytes", |params, value| params.cluster_recv_buf_bytes = value),
        ("log_keep_bytes", |params, value| params.log_keep_bytes = value),
        ("quorum_callback_limit_ms", |params, value| params.quorum_callback_limit_ms = value),
        ("window_timeout_ms", |params, value| params.window_timeout_ms = value),
    ];
    for (name, set) in fields {
        for value in [0, u64::MAX] {
            if ["window_timeout_ms", "sync_rate_bytes_per_s"].contains(&name) && value == 0 {
                continue; // means: close at once when nothing is under way; no limit
            }
            let mut params = three();
            set(&mut params, value);
            let error = params.validate().unwrap_err();
            let text = error.to_string();
            assert!(text.contains(&format!("ClusterParams.{name} is {value}")), "{text}");
        }
    }
    for (window, probes, factor) in
        [(0, 3, 50), (u32::MAX, 3, 50), (1, 0, 50), (1, 3, 0), (1, 3, 101)]
    {
        let mut params = three().with_conn_pool_factor(factor);
        params.window_transactions = window;
        params.keep_alive_probes = probes;
        assert!(matches!(params.validate().unwrap_err(), ParamsError::OutOfRange { .. }));
    }
}

#[test]
fn numbers_that_do_not_fit_together_are_refused() {
    let error = three().with_election(99, 50).validate().unwrap_err();
    assert!(matches!(error, ParamsError::Inconsistent { field: "election_timeout_ms", .. }));
    three().with_election(100, 50).validate().unwrap();
    let error = three().with_stop(1_000, 299).validate().unwrap_err();
    assert!(matches!(error, ParamsError::Inconsistent { field: "departed_after_ms", .. }));
    let error = three().with_cluster_buffers(1 << 20, 1 << 16).validate().unwrap_err();
    assert!(matches!(error, ParamsError::Inconsistent { field: "cluster_send_buf_bytes", .. }));
}
