//! Outcomes made final by fences, and commits that wait for every live node: replicas in one
//! thread, a network in the test's hands.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use quorate_cluster::replica::{Input, PeerMessage, ReplicaSettings, Request, RosterChange};
use quorate_cluster::{AdminRequest, OutcomeError};
use quorate_consensus::{Identity, Message, MessageBody, NodeId};
use quorate_engine::{
    Acknowledge, Acknowledged, CommitError, CommitOptions, Index, Outcome, TransactionId,
};
use support::mini::{Mini, settings};

fn has_entries(message: &PeerMessage) -> bool {
    let PeerMessage::Core(Message { body: MessageBody::Append { entries, .. }, .. }) = message
    else {
        return false;
    };
    !entries.is_empty()
}

fn others(leader: usize) -> [usize; 2] {
    [(leader + 1) % 3, (leader + 2) % 3]
}

fn no_tweak(_: &mut ReplicaSettings) {}

/// A transaction is on its way to the leader when another node asks for its outcome, and its copy
/// arrives after the answer. True if it commits all the same.
fn commits_after_its_fence(tweak: fn(&mut ReplicaSettings)) -> bool {
    let mut mini = Mini::start_with(&[1, 1, 1], tweak);
    let leader = mini.leader().unwrap();
    let [origin, asker] = others(leader);
    mini.hold(move |from, _, message| {
        let is_transaction =
            matches!(message, PeerMessage::Submit { request: Request::Transaction(_), .. });
        from == origin && is_transaction
    });
    let id = mini.submit(origin, "late");
    mini.settle();
    assert!(!mini.nodes[origin].completed.contains_key(&id));
    assert_eq!(mini.outcome(asker, id), Outcome::NotCommitted);
    mini.release();
    mini.run(100);
    let committed = mini.nodes.iter().any(|node| node.knows("late"));
    if !committed {
        assert_eq!(mini.nodes[origin].completed[&id], Err(CommitError::Fenced(id)));
        for node in 0..3 {
            assert_eq!(mini.outcome(node, id), Outcome::NotCommitted, "final, everywhere");
        }
    }
    committed
}

#[test]
fn a_fenced_transaction_never_commits_and_its_caller_hears_that() {
    assert!(!commits_after_its_fence(no_tweak));
}

#[test]
fn a_transaction_in_doubt_is_settled_by_asking_and_never_given_to_a_leader_again() {
    let mut mini = Mini::start(&[1, 1, 1]);
    let leader = mini.leader().unwrap();
    let [origin, asker] = others(leader);
    mini.hold(move |from, to, message| {
        from == origin && to == leader && matches!(message, PeerMessage::Submit { .. })
    });
    let quick = CommitOptions::default().limit(Duration::from_millis(20));
    let id = mini.submit_with(origin, "doubtful", quick);
    mini.run(19);
    assert!(!mini.nodes[origin].completed.contains_key(&id), "the limit is its own");
    mini.run(2);
    assert_eq!(mini.nodes[origin].completed[&id], Err(CommitError::InDoubt(id)));
    assert_eq!(mini.outcome(asker, id), Outcome::NotCommitted);
    mini.run(10);
    assert_eq!(mini.nodes[origin].settled[&id], None, "settled by the fence");
    mini.release();
    mini.cut(origin, leader);
    mini.link(origin, leader);
    mini.run(200);
    assert!(mini.nodes.iter().all(|node| !node.knows("doubtful")));
}

#[test]
fn outcomes_of_what_committed_are_told_with_the_index_wherever_they_are_asked() {
    let mut mini = Mini::start(&[1, 1, 1]);
    let id = mini.submit(1, "done");
    mini.run_until("it", |mini| mini.nodes[1].completed.contains_key(&id));
    let index = mini.nodes[1].completed[&id].clone().unwrap().index;
    // Also where it has not arrived yet: the fence stands behind it.
    let leader = mini.leader().unwrap();
    let [_, late] = others(leader);
    mini.hold(move |_, to, message| to == late && has_entries(message));
    let second = mini.submit(leader, "second");
    mini.run_until("it", |mini| mini.nodes[leader].completed.contains_key(&second));
    let question = mini.ask_outcome(late, second, 5_000);
    mini.run(50);
    assert!(!mini.nodes[late].outcomes.contains_key(&question));
    mini.release();
    mini.run_until("it", |mini| mini.nodes[late].outcomes.contains_key(&question));
    let at = mini.nodes[leader].completed[&second].clone().unwrap().index;
    assert_eq!(mini.nodes[late].outcomes[&question], Ok(Outcome::Committed(at)));
    for node in 0..3 {
        assert_eq!(mini.outcome(node, id), Outcome::Committed(index));
    }
}

#[test]
fn ids_of_lives_that_are_over_are_fenced_too_and_images_of_the_log_agree() {
    let mut mini = Mini::start(&[1, 1, 1]);
    let dead = TransactionId { origin: 4_711, sequence: 3 };
    for node in 0..3 {
        assert_eq!(mini.outcome(node, dead), Outcome::NotCommitted);
    }
    let fences: Vec<u64> = mini.nodes.iter().map(|node| node.replica.counters().fences).collect();
    assert_eq!(fences, [1, 1, 1], "one fence, applied on each node");
    mini.run(100);
    let hashes: Vec<u128> = mini.nodes.iter().map(|node| node.database.state_hash()).collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]));
}

#[test]
fn a_fence_survives_its_leader_and_what_the_old_one_had_is_lost_for_good() {
    let mut mini = Mini::start(&[1, 1, 1]);
    let leader = mini.leader().unwrap();
    let [first, second] = others(leader);
    // The leader has it in its log, and nobody else does.
    mini.hold(move |from, _, message| from == leader && has_entries(message));
    let id = mini.submit(leader, "alone");
    mini.settle();
    mini.cut(leader, first);
    mini.cut(leader, second);
    assert_eq!(mini.outcome(first, id), Outcome::NotCommitted);
    mini.release();
    mini.link(leader, first);
    mini.link(leader, second);
    mini.run_until("the old leader hears it", |mini| {
        mini.nodes[leader].completed.contains_key(&id)
    });
    let result = &mini.nodes[leader].completed[&id];
    assert!(matches!(result, Err(CommitError::Fenced(_) | CommitError::InDoubt(_))), "{result:?}");
    mini.run(500);
    assert!(mini.nodes.iter().all(|node| !node.knows("alone")));
}

#[test]
fn an_own_pending_transaction_can_be_given_up() {
    let mut mini = Mini::start(&[1, 1, 1]);
    let leader = mini.leader().unwrap();
    let [origin, _] = others(leader);
    mini.hold(move |from, _, message| {
        let PeerMessage::Submit { request: Request::Transaction(_), .. } = message else {
            return false;
        };
        from == origin
    });
    let id = mini.submit(origin, "given up");
    assert_eq!(mini.outcome(origin, id), Outcome::NotCommitted);
    assert_eq!(mini.nodes[origin].completed[&id], Err(CommitError::Fenced(id)));
    mini.release();
    // One that has not even begun, and the question that happens to bear its name.
    let prepared = mini.prepare(origin, "fenced before it began");
    let id = prepared.id;
    assert_eq!(mini.outcome(origin, id), Outcome::NotCommitted);
    mini.step(origin, Input::Submit(prepared, CommitOptions::default()));
    mini.run(5);
    assert_eq!(mini.nodes[origin].completed[&id], Err(CommitError::Fenced(id)));
    let question = TransactionId { sequence: id.sequence + 2, ..id };
    assert_eq!(mini.outcome(origin, question), Outcome::NotCommitted);
}

#[test]
fn without_a_quorum_an_outcome_stays_open() {
    let mut mini = Mini::start(&[1, 1, 1]);
    mini.cut(2, 0);
    mini.cut(2, 1);
    let dead = TransactionId { origin: 4_711, sequence: 3 };
    let question = mini.ask_outcome(2, dead, 1_000);
    mini.run(1);
    let refused = &mini.nodes[2].outcomes[&question];
    assert!(matches!(refused, Err(OutcomeError::NoQuorum { .. })), "{refused:?}");
    // With one, but no way through in time, too; and then the fence itself is in doubt.
    let mut mini = Mini::start(&[1, 1, 1]);
    let leader = mini.leader().unwrap();
    let [asker, _] = others(leader);
    mini.hold(move |from, _, message| {
        from == asker && matches!(message, PeerMessage::Submit { .. })
    });
    let question = mini.ask_outcome(asker, dead, 20);
    mini.run(30);
    assert_eq!(mini.nodes[asker].outcomes[&question], Err(OutcomeError::TimedOut));
    mini.release();
    mini.run(50);
    assert_eq!(mini.nodes[asker].settled.len(), 1, "it arrived after all");
    assert_eq!(mini.outcome(asker, dead), Outcome::NotCommitted);
}

fn all_live() -> CommitOptions {
    CommitOptions::default().acknowledge(Acknowledge::AllLive)
}

/// A commit that waits for all while one live node is behind. True if it is told to be everywhere.
fn forgets_a_live_node(tweak: fn(&mut ReplicaSettings)) -> bool {
    let mut mini = Mini::start_with(&[1, 1, 1], tweak);
    let leader = mini.leader().unwrap();
    for late in others(leader) {
        mini.hold(move |_, to, message| to == late && has_entries(message));
        let id = mini.submit_with(leader, &format!("all {late}"), all_live());
        mini.run(100);
        assert!(mini.nodes[leader].through.contains(&id), "others go on meanwhile");
        assert!(mini.nodes[leader].knows(&format!("all {late}")));
        if mini.nodes[leader].completed.contains_key(&id) {
            return true;
        }
        mini.commit(leader, &format!("beside {late}"));
        mini.release();
        mini.run_until("it", |mini| mini.nodes[leader].completed.contains_key(&id));
        let done = mini.nodes[leader].completed[&id].clone().unwrap();
        assert_eq!(done.applied_by, Some(vec![0, 1, 2]));
        assert!(mini.nodes.iter().all(|node| node.knows(&format!("all {late}"))));
    }
    false
}

#[test]
fn all_live_waits_for_the_slowest_live_node_and_holds_up_nobody() {
    assert!(!forgets_a_live_node(no_tweak));
}

#[test]
fn a_node_leaves_the_live_ones_by_silence_alone_and_the_acknowledgement_says_so() {
    let mut mini = Mini::start(&[1, 1, 1]);
    let leader = mini.leader().unwrap();
    let [stays, gone] = others(leader);
    mini.cut(leader, gone);
    mini.cut(stays, gone);
    let id = mini.submit_with(stays, "without one", all_live());
    mini.run(2_000);
    assert!(mini.nodes[stays].through.contains(&id));
    assert!(!mini.nodes[stays].completed.contains_key(&id), "it may still serve readers");
    mini.run_until("it", |mini| mini.nodes[stays].completed.contains_key(&id));
    let mut both = vec![leader as u32, stays as u32];
    both.sort_unstable();
    let done = mini.nodes[stays].completed[&id].clone().unwrap();
    assert_eq!(done.applied_by, Some(both));
}

#[test]
fn a_broken_link_that_is_back_is_asked_again() {
    let mut mini = Mini::start(&[1, 1, 1]);
    let leader = mini.leader().unwrap();
    let [late, _] = others(leader);
    mini.hold(move |_, to, message| to == late && has_entries(message));
    let id = mini.submit_with(leader, "again", all_live());
    mini.run(20);
    mini.cut(leader, late);
    mini.release();
    mini.link(leader, late);
    mini.run_until("it", |mini| mini.nodes[leader].completed.contains_key(&id));
    let done = mini.nodes[leader].completed[&id].clone().unwrap();
    assert_eq!(done.applied_by, Some(vec![0, 1, 2]));
    assert!(mini.nodes[late].knows("again"));
}

#[test]
fn the_time_limit_of_all_live_says_that_it_committed_and_who_is_missing() {
    let mut mini = Mini::start(&[1, 1, 1]);
    let leader = mini.leader().unwrap();
    let [late, _] = others(leader);
    mini.hold(move |_, to, message| to == late && has_entries(message));
    let id = mini.submit_with(leader, "slow", all_live().limit(Duration::from_millis(50)));
    mini.run(60);
    let index = mini.nodes[leader].database.visible_index();
    let missing = vec![late as u32];
    let error = CommitError::NotEverywhere { index, missing };
    assert!(!error.is_retryable());
    assert_eq!(mini.nodes[leader].completed[&id], Err(error));
    assert!(mini.nodes[leader].knows("slow"));
}

#[test]
fn a_quorum_acknowledges_without_saying_who() {
    let mut mini = Mini::start(&[1]);
    let id = mini.submit(0, "plain");
    let everywhere = mini.submit_with(0, "everywhere", all_live());
    mini.run(5);
    let plain = Acknowledged { index: Index(1), applied_by: None };
    assert_eq!(mini.nodes[0].completed[&id], Ok(plain));
    let all = Acknowledged { index: Index(2), applied_by: Some(vec![0]) };
    assert_eq!(mini.nodes[0].completed[&everywhere], Ok(all));
}

#[test]
fn a_second_copy_of_what_was_refused_is_refused_too_though_it_could_be_logged_by_now() {
    let mut mini = Mini::start(&[1, 1, 1]);
    let leader = mini.leader().unwrap();
    let [origin, _] = others(leader);
    let term = mini.nodes[leader].replica.core().unwrap().term();
    let from = mini.nodes[origin].identity;
    let id = TransactionId { origin: from.incarnation.0, sequence: 77 };
    let change = RosterChange::Remove { node: NodeId(3) };
    let copy = PeerMessage::Submit { term, id, request: Request::Change { low_water: 1, change } };
    mini.step(leader, Input::Receive { from, message: copy.clone() });
    mini.run(50);
    let add = AdminRequest::AddNode { addr: "node-3:1".into(), rank: 0 };
    mini.operate_now(leader, add);
    let listed = |mini: &Mini| mini.nodes[leader].listed.iter().flatten().count();
    assert_eq!(listed(&mini), 4, "the first copy was refused");
    mini.step(leader, Input::Receive { from, message: copy });
    mini.run(50);
    assert_eq!(listed(&mini), 4, "its caller was told that nothing changes");
    assert_eq!(mini.outcome(leader, id), Outcome::NotCommitted);
}

#[test]
fn all_live_does_not_wait_for_a_node_without_state() {
    let mut mini = Mini::start(&[1, 1, 1]);
    let leader = mini.leader().unwrap();
    let [origin, back] = others(leader);
    let mut again = settings(back as u32, &[1, 1, 1]);
    again.identity = Identity::new(back as u32, 999);
    mini.boot(again);
    mini.hold(|_, _, message| matches!(message, PeerMessage::Image(_)));
    [leader, origin].into_iter().for_each(|node| mini.link(back, node));
    mini.run(4_000); // its former self has been silent for long enough
    let id = mini.submit_with(origin, "while it joins", all_live());
    mini.run(100);
    let done = mini.nodes[origin].completed.get(&id).expect("it serves no reader").clone();
    let mut both = vec![leader as u32, origin as u32];
    both.sort_unstable();
    assert_eq!(done.unwrap().applied_by, Some(both));
    mini.release();
    mini.run_until("it joined", |mini| mini.nodes[back].replica.status().ready);
    let id = mini.submit_with(origin, "with it", all_live());
    mini.run(100);
    let done = mini.nodes[origin].completed[&id].clone().unwrap();
    assert_eq!(done.applied_by, Some(vec![0, 1, 2]));
}

#[cfg(feature = "planted-bugs")]
mod planted {
    use super::*;
    use quorate_cluster::replica::ReplicaBug;

    #[test]
    fn planted_a_fence_that_nothing_remembers_is_found() {
        assert!(commits_after_its_fence(|s| s.bug = Some(ReplicaBug::FenceNotRemembered)));
    }

    #[test]
    fn planted_a_live_node_that_is_not_waited_for_is_found() {
        assert!(forgets_a_live_node(|s| s.bug = Some(ReplicaBug::AllLiveIgnoresOne)));
    }
}
