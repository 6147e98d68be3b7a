//! A node without state gets it as fast as its answers come: nothing on the way waits for the
//! clock, but for what commits are spared.

#![allow(clippy::unwrap_used)]

mod support;

use quorate_cluster::replica::{Input, ReplicaSettings};
use quorate_consensus::Identity;
use support::mini::{Mini, settings};

const RANKS: [u32; 3] = [1, 1, 1];

/// Every record is a piece of its own.
fn small_pieces(settings: &mut ReplicaSettings) {
    settings.image_piece_objects = 1;
}

/// Three nodes with so many facts, the last of which has just lost all it had.
fn with_a_blank_node(facts: u32, tweak: impl Fn(&mut ReplicaSettings)) -> (Mini, usize) {
    let mut mini = Mini::start_with(&RANKS, &tweak);
    let leader = mini.leader().unwrap();
    let lost = (leader + 1) % 3;
    for fact in 0..facts {
        mini.commit(leader, &format!("fact {fact}"));
    }
    mini.run(200);
    let mut settings = settings(lost as u32, &RANKS);
    settings.identity = Identity::new(lost as u32, 999);
    tweak(&mut settings);
    mini.boot(settings);
    (mini, lost)
}

/// Links the blank node to the others, and lets everything be said that needs no time.
fn link(mini: &mut Mini, lost: usize) {
    for other in (0..3).filter(|other| *other != lost) {
        mini.link(lost, other);
    }
    mini.settle();
}

fn has_piece_due(mini: &Mini, node: usize) -> bool {
    mini.nodes[node].replica.has_piece_due(mini.now())
}

fn pieces_sent(mini: &Mini, node: usize) -> u64 {
    mini.nodes[node].replica.counters().pieces_sent
}

/// Ticks at this very moment for as long as that sends pieces.
fn tick_while_due(mini: &mut Mini, node: usize) {
    let mut ends = 0;
    while has_piece_due(mini, node) {
        let before = pieces_sent(mini, node);
        mini.step(node, Input::Tick { random: 7 });
        mini.settle();
        ends += u32::from(pieces_sent(mini, node) == before);
        assert!(ends <= 1, "a tick that changed nothing, for one image");
    }
}

#[test]
fn a_node_without_state_is_a_voter_before_the_clock_moves() {
    let (mut mini, lost) = with_a_blank_node(300, small_pieces);
    let leader = mini.leader().unwrap();
    let start = mini.now();
    link(&mut mini, lost);
    assert!(has_piece_due(&mini, leader), "its first configuration is committed");
    tick_while_due(&mut mini, leader);
    assert!(pieces_sent(&mini, leader) > 300);
    assert_eq!(mini.now(), start);
    let status = mini.nodes[lost].replica.status();
    assert!(status.ready, "{status:?}");
    assert!(mini.nodes[lost].knows("fact 299"));
}

#[test]
fn who_commits_has_the_leader_for_itself_between_two_pieces() {
    let (mut mini, lost) = with_a_blank_node(100, small_pieces);
    let leader = mini.leader().unwrap();
    link(&mut mini, lost);
    for number in 0..20 {
        let sent = pieces_sent(&mini, leader);
        mini.submit(leader, &format!("beside it {number}"));
        mini.settle();
        mini.run_until("a piece", |mini| pieces_sent(mini, leader) > sent);
        assert_eq!(pieces_sent(&mini, leader), sent + 1);
        assert!(!has_piece_due(&mini, leader), "one piece, and then whoever commits");
    }
    mini.run_until("a voter", |mini| mini.nodes[lost].replica.status().ready);
}

#[test]
fn a_rate_is_kept_however_often_the_loop_turns() {
    let slow = |settings: &mut ReplicaSettings| {
        small_pieces(settings);
        settings.image_rate_bytes_per_s = 100_000;
    };
    let (mut mini, lost) = with_a_blank_node(300, slow);
    let leader = mini.leader().unwrap();
    let start = mini.now();
    link(&mut mini, lost);
    while !mini.nodes[lost].replica.status().ready {
        tick_while_due(&mut mini, leader);
        mini.run(1);
    }
    let bytes = mini.nodes[leader].database.applier().image_stream().total_bytes();
    let least_ms = bytes * 1_000 / 100_000 / 2;
    assert!(mini.now() - start > least_ms, "{} ms", mini.now() - start);
}
