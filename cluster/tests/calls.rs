//! Procedures run by the leader: replicas in one thread, a network and batches in the test's hands.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use quorate_cluster::replica::{PeerMessage, ReplicaSettings};
use quorate_cluster::{CallContext, CallError};
use quorate_consensus::{Message, MessageBody};
use quorate_engine::{Error, Index, Outcome, Transaction};
use quorate_schema::Value;
use support::mini::{Mini, settings};

fn name(number: u64) -> [Value; 1] {
    [Value::Text(format!("n{number}"))]
}

/// Writes the fact "n" with the first number that is free, and answers the number.
fn next(tx: &Transaction<'_>, _: &[u8], _: &CallContext<'_>) -> Result<Vec<u8>, Error> {
    let mut number = 0;
    while tx.find_record("Fact", "by_name", &name(number))?.is_some() {
        number += 1;
    }
    let [value] = name(number);
    tx.insert_values("Fact", &[("name", value)])?;
    Ok(number.to_string().into_bytes())
}

/// Answers the time it is told.
fn time(_: &Transaction<'_>, _: &[u8], context: &CallContext<'_>) -> Result<Vec<u8>, Error> {
    Ok(context.time_ms().to_string().into_bytes())
}

/// Writes, and thinks better of it.
fn fail(tx: &Transaction<'_>, args: &[u8], context: &CallContext<'_>) -> Result<Vec<u8>, Error> {
    next(tx, args, context)?;
    Err(Error::application("no"))
}

fn register(mini: &Mini) {
    for node in &mini.nodes {
        node.procedures.register("next", Arc::new(next));
        node.procedures.register("time", Arc::new(time));
        node.procedures.register("fail", Arc::new(fail));
    }
}

fn start(ranks: &[u32]) -> Mini {
    let mini = Mini::start(ranks);
    register(&mini);
    mini
}

fn others(leader: usize) -> [usize; 2] {
    [(leader + 1) % 3, (leader + 2) % 3]
}

fn has_entries(message: &PeerMessage) -> bool {
    let PeerMessage::Core(Message { body: MessageBody::Append { entries, .. }, .. }) = message
    else {
        return false;
    };
    !entries.is_empty()
}

fn facts(mini: &Mini, node: usize) -> u64 {
    let known = |number: &u64| mini.nodes[node].knows(&format!("n{number}"));
    (0..100).take_while(known).count() as u64
}

#[test]
fn calls_of_all_nodes_are_one_batch_in_which_each_may_fail_alone() {
    let mut mini = start(&[1, 1, 1]);
    let leader = mini.leader().unwrap();
    let [a, b] = others(leader);
    mini.hold_batches = true;
    let first = mini.call(leader, "next", b"");
    mini.settle();
    // They come while a batch is out, and are the next one.
    let waiting =
        [(a, "next"), (b, "fail"), (leader, "nothing"), (b, "next")].map(|(node, name)| {
            let id = mini.call(node, name, b"");
            mini.settle();
            (node, id)
        });
    assert_eq!(mini.nodes[leader].batches.len(), 1, "one batch at a time");
    mini.hold_batches = false;
    assert!(mini.run_batch(leader));
    let first = mini.called(leader, first).unwrap();
    assert_eq!(first.bytes, b"0");
    let answers = waiting.map(|(node, id)| mini.called(node, id));
    let index = Index(first.index.0 + 1);
    let done = |place: usize| answers[place].clone().map(|done| (done.bytes, done.index)).unwrap();
    assert_eq!(done(0), (b"1".to_vec(), index));
    assert_eq!(answers[1], Err(CallError::Failed { message: "no".into() }));
    assert_eq!(answers[2], Err(CallError::UnknownProcedure { name: "nothing".into() }));
    assert_eq!(done(3), (b"2".to_vec(), index));
    mini.run(100);
    let hash = mini.nodes[0].database.state_hash();
    for node in 0..3 {
        assert_eq!(facts(&mini, node), 3);
        assert_eq!(mini.nodes[node].database.state_hash(), hash);
        assert_eq!(mini.outcome(node, waiting[0].1), Outcome::Committed(index));
        assert_eq!(mini.outcome(node, waiting[1].1), Outcome::NotCommitted, "for ever");
    }
}

/// A transaction that a batch did not see gets into the log before it. What the call answers.
fn call_behind_a_conflict(tweak: fn(&mut ReplicaSettings)) -> Option<Vec<u8>> {
    let mut mini = Mini::start_with(&[1, 1, 1], tweak);
    register(&mini);
    let leader = mini.leader().unwrap();
    let [caller, _] = others(leader);
    mini.hold(move |from, _, message| from == leader && has_entries(message));
    let write = mini.submit(leader, "n0");
    let call = mini.call(caller, "next", b"");
    mini.settle();
    assert!(!mini.nodes[leader].completed.contains_key(&write), "in the tail");
    mini.release();
    mini.run(200);
    assert!(mini.nodes[leader].completed[&write].is_ok());
    let answer = mini.nodes[caller].called.get(&call)?.clone().ok()?;
    assert_eq!(mini.nodes[leader].replica.counters().batches_lost, 1);
    Some(answer.bytes)
}

#[test]
fn a_batch_that_lost_runs_again_behind_what_it_lost_against() {
    assert_eq!(call_behind_a_conflict(|_| {}), Some(b"1".to_vec()));
}

#[test]
fn a_batch_out_when_its_leader_is_cut_off_is_done_once_by_the_next_one() {
    let mut mini = start(&[1, 1, 1]);
    let old = mini.leader().unwrap();
    let [a, b] = others(old);
    mini.hold_batches = true;
    let calls = [(a, mini.call(a, "next", b"")), (old, mini.call(old, "next", b""))];
    mini.settle();
    mini.cut(old, a);
    mini.cut(old, b);
    mini.run_until("another leader", |mini| mini.leader().is_some_and(|leader| leader != old));
    let new = mini.leader().unwrap();
    mini.run_until("its batch", |mini| !mini.nodes[new].batches.is_empty());
    // The old leader's run ends now, too late.
    while mini.run_batch(old) {}
    mini.hold_batches = false;
    mini.run_batch(new);
    assert_eq!(mini.called(a, calls[0].1).unwrap().bytes, b"0");
    mini.link(old, a);
    mini.link(old, b);
    mini.run(300);
    // The old leader's own call may have been refused for want of a quorum, or run since.
    let own = mini.nodes[old].called.get(&calls[1].1).cloned();
    let done = 1 + u64::from(own.is_some_and(|own| own.is_ok()));
    for node in 0..3 {
        assert_eq!(facts(&mini, node), done, "each call once, on node {node}");
    }
}

#[test]
fn a_batch_whose_answers_are_under_way_when_the_leader_dies_is_not_run_again() {
    let mut mini = start(&[1, 1, 1]);
    let old = mini.leader().unwrap();
    let [caller, other] = others(old);
    mini.hold(move |from, to, message| from == old && to == caller && has_entries(message));
    let call = mini.call(caller, "next", b"");
    mini.settle();
    assert!(!mini.nodes[caller].called.contains_key(&call));
    mini.cut(old, caller);
    mini.cut(old, other);
    mini.release();
    let answer = mini.called(caller, call).unwrap();
    assert_eq!(answer.bytes, b"0");
    mini.run(100);
    assert_eq!((facts(&mini, caller), facts(&mini, other)), (1, 1));
}

#[test]
fn a_call_that_is_given_up_while_it_runs_is_never_done() {
    let mut mini = start(&[1, 1, 1]);
    let leader = mini.leader().unwrap();
    let [caller, asker] = others(leader);
    mini.hold_batches = true;
    let (given_up, kept) = (mini.call(caller, "next", b""), mini.call(caller, "next", b""));
    mini.settle();
    assert_eq!(mini.outcome(asker, given_up), Outcome::NotCommitted);
    mini.hold_batches = false;
    mini.run_batch(leader);
    assert_eq!(mini.called(caller, given_up), Err(CallError::NotDone(given_up)));
    assert_eq!(mini.called(caller, kept).unwrap().bytes, b"0");
    mini.run(100);
    assert_eq!(facts(&mini, asker), 1);
}

#[test]
fn the_time_that_calls_are_told_never_goes_back() {
    let mut mini = start(&[1, 1, 1]);
    let old = mini.leader().unwrap();
    let [a, b] = others(old);
    let told = |mini: &mut Mini, node: usize| {
        let id = mini.call(node, "time", b"");
        String::from_utf8(mini.called(node, id).unwrap().bytes).unwrap().parse::<u64>().unwrap()
    };
    mini.nodes[old].clock_ms = 9_000;
    assert_eq!(told(&mut mini, a), 9_000);
    mini.nodes[old].clock_ms = 8_000;
    assert_eq!(told(&mut mini, old), 9_000, "a clock that was set back");
    mini.cut(old, a);
    mini.cut(old, b);
    mini.run_until("another leader", |mini| mini.leader().is_some_and(|leader| leader != old));
    assert_eq!(told(&mut mini, a), 9_000, "another node, whose clock is behind");
    let new = mini.leader().unwrap();
    mini.nodes[new].clock_ms = 9_500;
    assert_eq!(told(&mut mini, b), 9_500);
}

#[test]
fn a_node_that_learned_the_time_from_an_image_tells_no_earlier_one() {
    let mut mini = start(&[1, 1, 1]);
    let leader = mini.leader().unwrap();
    let [back, other] = others(leader);
    mini.nodes[leader].clock_ms = 9_000;
    let call = mini.call(leader, "time", b"");
    mini.called(leader, call).unwrap();
    // A node comes back without state: it gets an image, and leads in the end.
    let mut anew = settings(back as u32, &[1, 1, 1]);
    anew.identity.incarnation.0 += 1_000;
    mini.boot(anew);
    register(&mini);
    mini.link(back, leader);
    mini.link(back, other);
    mini.run_until("it is back", |mini| mini.nodes[back].replica.status().ready);
    assert!(mini.nodes[back].replica.counters().images_installed > 0);
    let to = quorate_consensus::NodeId(back as u32);
    mini.operate_now(leader, quorate_cluster::AdminRequest::TransferLeadership { to });
    assert_eq!(mini.leader(), Some(back));
    let call = mini.call(back, "time", b"");
    assert_eq!(mini.called(back, call).unwrap().bytes, b"9000");
}

#[cfg(feature = "planted-bugs")]
mod planted {
    use super::*;
    use quorate_cluster::replica::ReplicaBug;

    #[test]
    fn planted_a_batch_that_is_logged_although_it_lost_is_found() {
        let bug = |settings: &mut ReplicaSettings| settings.bug = Some(ReplicaBug::LostBatchLogged);
        let answer = call_behind_a_conflict(bug);
        assert_ne!(answer, Some(b"1".to_vec()), "the batch ran again");
    }
}
