//! What the notify callback hears of operators' work: replicas in one thread.

#![allow(clippy::unwrap_used)]

mod support;

use quorate_cluster::replica::PeerMessage;
use quorate_cluster::{AdminAnswer, AdminError, AdminRequest, ClusterEvent};
use quorate_consensus::{Identity, NodeId};
use support::mini::{Mini, settings};

/// What a node heard of the members since the last call.
fn of_members(mini: &mut Mini, node: usize) -> Vec<ClusterEvent> {
    let about_members = |event: &ClusterEvent| {
        matches!(
            event,
            ClusterEvent::RosterChanged { .. }
                | ClusterEvent::RankChanged { .. }
                | ClusterEvent::Joined(_)
                | ClusterEvent::Left(_)
        )
    };
    let mut heard = std::mem::take(&mut mini.nodes[node].events);
    heard.retain(about_members);
    heard
}

fn change(mini: &mut Mini, node: usize, request: AdminRequest) {
    let answer = mini.operate_now(node, request);
    assert!(matches!(answer, AdminAnswer::Changed { .. }), "{answer:?}");
    mini.run(100);
}

fn roster(node: u32, rank: Option<u32>) -> ClusterEvent {
    ClusterEvent::RosterChanged { node: NodeId(node), rank }
}

fn rank(node: u32, rank: u32) -> ClusterEvent {
    ClusterEvent::RankChanged { node: NodeId(node), rank }
}

fn set_rank(node: u32, rank: u32) -> AdminRequest {
    AdminRequest::SetRank { node: NodeId(node), rank }
}

#[test]
fn every_node_hears_what_operators_change_and_when_it_counts() {
    let mut mini = Mini::start(&[1, 1, 1]);
    for node in 0..3 {
        let joined: Vec<_> = (0..3).map(|node| ClusterEvent::Joined(NodeId(node))).collect();
        assert_eq!(of_members(&mut mini, node), joined);
    }
    let fourth = AdminRequest::AddNode { addr: "fourth:1".into(), rank: 2 };
    let moved = AdminRequest::SetAddress { node: NodeId(2), addr: "elsewhere:1".into() };
    for (request, heard) in [
        (set_rank(1, 3), vec![roster(1, Some(3)), rank(1, 3)]),
        (set_rank(2, 0), vec![roster(2, Some(0)), rank(2, 0)]),
        (set_rank(2, 1), vec![roster(2, Some(1)), rank(2, 1)]),
        (moved, vec![roster(2, Some(1))]),
        (fourth, vec![roster(3, Some(2))]),
    ] {
        change(&mut mini, 0, request);
        (0..3).for_each(|node| assert_eq!(of_members(&mut mini, node), heard, "node {node}"));
    }
    mini.boot(settings(3, &[1, 1, 1, 2]));
    (0..3).for_each(|node| mini.link(3, node));
    mini.run_until("the fourth", |mini| mini.nodes[3].replica.status().ready);
    mini.run(100);
    for node in 0..3 {
        assert_eq!(of_members(&mut mini, node), [ClusterEvent::Joined(NodeId(3))], "node {node}");
    }
    // The newcomer began with a list of its own, which the roster corrects.
    let heard = of_members(&mut mini, 3);
    assert_eq!(heard[..2], [roster(1, Some(3)), roster(2, Some(1))], "{heard:?}");
    assert!(heard.contains(&ClusterEvent::Joined(NodeId(3))), "{heard:?}");
    change(&mut mini, 0, AdminRequest::RemoveNode { node: NodeId(3) });
    for node in 0..3 {
        let heard = of_members(&mut mini, node);
        assert_eq!(heard, [roster(3, None), ClusterEvent::Left(NodeId(3))], "node {node}");
    }
}

#[test]
fn a_change_that_has_to_wait_is_heard_of_before_it_counts() {
    let mut mini = Mini::start(&[1, 1, 1]);
    let leader = mini.leader().unwrap();
    let (away, other) = ((leader + 1) % 3, (leader + 2) % 3);
    mini.cut(away, leader);
    mini.cut(away, other);
    mini.run(50);
    (0..3).for_each(|node| drop(of_members(&mut mini, node)));
    // Without it there would be no quorum in the next configuration.
    let token = mini.operate(other, set_rank(away as u32, 4));
    mini.run(200);
    assert!(!mini.nodes[other].answers.contains_key(&token));
    assert_eq!(of_members(&mut mini, other), [roster(away as u32, Some(4))]);
    mini.link(away, leader);
    mini.link(away, other);
    mini.run_until("the effect", |mini| mini.nodes[other].answers.contains_key(&token));
    mini.run(50);
    assert_eq!(of_members(&mut mini, other), [rank(away as u32, 4)]);
    assert_eq!(of_members(&mut mini, away), [roster(away as u32, Some(4)), rank(away as u32, 4)]);
}

#[test]
fn a_node_that_comes_back_without_state_is_told_of_once() {
    let mut mini = Mini::start(&[1, 1, 1]);
    (0..3).for_each(|node| drop(of_members(&mut mini, node)));
    let back = (mini.leader().unwrap() + 1) % 3;
    let mut again = settings(back as u32, &[1, 1, 1]);
    again.identity = Identity::new(back as u32, 999);
    mini.boot(again);
    (0..3).filter(|node| *node != back).for_each(|node| mini.link(back, node));
    mini.run_until("it joined", |mini| mini.nodes[back].replica.status().ready);
    mini.run(100);
    for node in (0..3).filter(|node| *node != back) {
        assert_eq!(of_members(&mut mini, node), [ClusterEvent::Joined(NodeId(back as u32))]);
    }
}

#[test]
fn a_refused_operator_hears_why_and_what_would_cure_it() {
    let mut mini = Mini::start(&[1, 1, 1]);
    let leader = mini.leader().unwrap();
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    mini.hold(|_, _, message| matches!(message, PeerMessage::Core(_)));
    others.iter().for_each(|other| mini.cut(leader, *other));
    mini.run(1_000);
    let answer = mini.operate_now(leader, set_rank(0, 3));
    let AdminAnswer::Refused(AdminError::NoQuorum { reason }) = answer else {
        panic!("{answer:?}");
    };
    for missing in others {
        assert!(reason.contains(&missing.to_string()), "who is missing: {reason}");
    }
}
