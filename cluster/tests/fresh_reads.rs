//! Linearizable reads, attacked where they could be stale: replicas in one thread, a network in the
//! test's hands.

#![allow(clippy::unwrap_used)]

mod support;

use quorate_cluster::replica::{PeerMessage, ReplicaSettings};
use quorate_cluster::{FreshError, Freshness, QuorumReason};
use quorate_consensus::{Message, MessageBody, NodeId};
use quorate_engine::Index;
use support::mini::Mini;

/// Whether a message carries log entries.
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

/// A follower acknowledges a commit by early commit, and the leader does not know it yet. A reader
/// at `reader` (0: the leader, 1: the other follower) comes right then. True if it was told it may
/// begin while its node did not have that commit.
fn misses_an_early_commit(tweak: fn(&mut ReplicaSettings), reader: usize) -> bool {
    let mut mini = Mini::start_with(&[1, 1, 1], tweak);
    let leader = mini.leader().unwrap();
    let [early, late] = others(leader);
    // The early one's answers do not arrive, and entries do not reach the late one: only it can
    // prove the commit, while heartbeats of the late one let the leader's rounds succeed.
    mini.hold(move |from, to, message| {
        (from == early && to == leader && !matches!(message, PeerMessage::Submit { .. }))
            || (to == late && has_entries(message))
    });
    let id = mini.submit(early, "written");
    mini.settle();
    assert!(mini.nodes[early].completed[&id].is_ok(), "acknowledged by early commit");
    assert!(!mini.nodes[leader].knows("written") && !mini.nodes[late].knows("written"));
    let reader = [leader, late][reader];
    let token = mini.ask(reader, Freshness::Linearizable, 5_000);
    mini.run(50);
    if mini.nodes[reader].fresh.contains_key(&token) {
        return !mini.nodes[reader].knows("written");
    }
    mini.release();
    mini.run_until("the read", |mini| mini.nodes[reader].fresh.contains_key(&token));
    assert!(mini.nodes[reader].fresh[&token].is_ok(), "{:?}", mini.nodes[reader].fresh);
    !mini.nodes[reader].knows("written")
}

/// A leader is cut off while its links look whole; the others elect another and commit. True if a
/// reader at the old leader was told it may begin.
fn a_deposed_leader_answers(tweak: fn(&mut ReplicaSettings)) -> bool {
    let mut mini = Mini::start_with(&[1, 1, 1], tweak);
    let old = mini.leader().unwrap();
    mini.hold(move |from, to, _| from == old || to == old);
    // Its own clock stands still: it cannot know that its time is over.
    let [first, second] = others(old);
    let leads = |mini: &Mini| mini.leader().filter(|leader| *leader != old).is_some();
    for _ in 0..5_000 {
        if leads(&mini) {
            break;
        }
        mini.run_only(&[first, second], 1);
    }
    let id = mini.submit(first, "newer");
    mini.run_only(&[first, second], 100);
    assert!(mini.nodes[first].completed[&id].is_ok());
    let token = mini.ask(old, Freshness::Linearizable, 5_000);
    let local = mini.ask(old, Freshness::Local, 5_000);
    mini.run_only(&[first, second], 100);
    assert!(mini.nodes[old].fresh[&local].is_ok(), "local reads go on");
    if mini.nodes[old].fresh.contains_key(&token) {
        return true;
    }
    mini.release();
    mini.run_until("the read", |mini| mini.nodes[old].fresh.contains_key(&token));
    assert!(mini.nodes[old].fresh[&token].is_ok());
    assert!(mini.nodes[old].knows("newer"));
    false
}

#[test]
fn a_read_sees_what_a_follower_acknowledged_before_the_leader_knew() {
    for reader in [0, 1] {
        assert!(!misses_an_early_commit(|_| {}, reader), "reader {reader}");
    }
}

#[test]
fn a_deposed_leader_confirms_nothing_and_its_readers_see_the_new_ones_commits() {
    assert!(!a_deposed_leader_answers(|_| {}));
}

#[test]
fn readers_of_all_nodes_share_rounds_and_write_nothing() {
    let mut mini = Mini::start(&[1, 1, 1]);
    let leader = mini.leader().unwrap();
    let asked = |mini: &Mini| -> u64 {
        mini.nodes.iter().map(|node| node.replica.counters().reads_asked).sum()
    };
    let (before_asked, before) = (asked(&mini), mini.nodes[leader].replica.counters());
    let last = mini.nodes[leader].replica.core().unwrap().last();
    for _ in 0..100 {
        for node in 0..3 {
            mini.ask(node, Freshness::Linearizable, 1_000);
        }
    }
    mini.settle();
    assert!(mini.nodes.iter().all(|node| node.fresh.len() == 100));
    assert!(mini.nodes.iter().all(|node| node.fresh.values().all(Result::is_ok)));
    // Each node's first reader left at once, all others went together.
    assert!(asked(&mini) - before_asked <= 4, "{} questions", asked(&mini) - before_asked);
    let rounds = mini.nodes[leader].replica.counters().read_rounds - before.read_rounds;
    assert!((1..=6).contains(&rounds), "{rounds} rounds");
    assert_eq!(mini.nodes[leader].replica.core().unwrap().last(), last, "nothing was logged");
}

#[test]
fn a_question_whose_leader_died_is_answered_by_the_next() {
    let mut mini = Mini::start(&[1, 1, 1]);
    let leader = mini.leader().unwrap();
    let [first, second] = others(leader);
    mini.commit(first, "before");
    mini.hold(move |from, to, _| from == leader || to == leader);
    let token = mini.ask(first, Freshness::Linearizable, 10_000);
    mini.run(5);
    assert!(!mini.nodes[first].fresh.contains_key(&token));
    mini.cut(leader, first);
    mini.cut(leader, second);
    mini.run_until("the read", |mini| mini.nodes[first].fresh.contains_key(&token));
    assert!(mini.nodes[first].fresh[&token].is_ok());
}

/// An index that never commits must not hold a reader for ever.
#[test]
fn a_read_index_that_was_cut_off_is_served_by_the_next_terms_entries() {
    let mut mini = Mini::start_with(&[1, 1, 1], |settings| settings.window_transactions = 1);
    let leader = mini.leader().unwrap();
    let [first, second] = others(leader);
    mini.hold(move |from, _, message| from == leader && has_entries(message));
    for name in ["a", "b", "c", "d", "e"] {
        mini.submit(leader, name);
    }
    let token = mini.ask(first, Freshness::Linearizable, 60_000);
    mini.settle();
    assert!(!mini.nodes[first].fresh.contains_key(&token), "it waits for unknown entries");
    mini.cut(leader, first);
    mini.cut(leader, second);
    mini.run_until("the read", |mini| mini.nodes[first].fresh.contains_key(&token));
    assert!(mini.nodes[first].fresh[&token].is_ok());
    assert!(!mini.nodes[first].knows("e"));
}

#[test]
fn who_is_cut_off_is_refused_with_the_reason_and_what_it_would_take() {
    let mut mini = Mini::start(&[2, 1, 1]);
    mini.cut(2, 0);
    mini.cut(2, 1);
    let token = mini.ask(2, Freshness::Linearizable, 1_000);
    mini.run(1);
    let missing = vec![NodeId(0), NodeId(1)];
    let reason = QuorumReason::NotConnected { missing, connected_rank: 1, total_rank: 4 };
    let text = reason.to_string();
    assert_eq!(mini.nodes[2].fresh[&token], Err(FreshError::NoQuorum { reason }));
    for part in ["rank 1 of 4", "needs 3", "node 0, node 1"] {
        assert!(text.contains(part), "{text}");
    }
    // While a leader is looked for there is hope, until the limit.
    mini.link(2, 0);
    mini.link(2, 1);
    mini.cut(0, 1);
    mini.cut(0, 2);
    let token = mini.ask(1, Freshness::Linearizable, 30);
    mini.run(40);
    let refused = &mini.nodes[1].fresh[&token];
    assert!(matches!(refused, Err(FreshError::NoQuorum { .. })), "{refused:?}");
}

#[test]
fn at_least_waits_until_it_is_here_and_no_longer_than_its_limit() {
    let mut mini = Mini::start(&[1, 1, 1]);
    let leader = mini.leader().unwrap();
    let [early, late] = others(leader);
    mini.hold(move |_, to, message| to == late && has_entries(message));
    let index = mini.commit(early, "written");
    let waits = mini.ask(late, Freshness::AtLeast(index), 5_000);
    let beyond = mini.ask(late, Freshness::AtLeast(Index(index.0 + 1)), 20);
    mini.run(19);
    assert!(mini.nodes[late].fresh.is_empty());
    mini.run(2);
    let expired = mini.nodes[late].fresh[&beyond].clone();
    let visible = mini.nodes[late].database.visible_index();
    assert_eq!(expired, Err(FreshError::TimedOut { limit_ms: 20, visible }));
    mini.release();
    mini.run_until("the entry", |mini| mini.nodes[late].fresh.contains_key(&waits));
    assert!(mini.nodes[late].fresh[&waits].as_ref().is_ok_and(|visible| *visible >= index));
    assert!(mini.nodes[late].knows("written"));
}

#[cfg(feature = "planted-bugs")]
mod planted {
    use super::*;
    use quorate_cluster::replica::ReplicaBug;

    #[test]
    fn planted_a_read_index_that_is_the_commit_index_is_found() {
        let tweak: fn(&mut ReplicaSettings) = |s| s.bug = Some(ReplicaBug::ReadIndexIsCommit);
        assert!(misses_an_early_commit(tweak, 0) && misses_an_early_commit(tweak, 1));
    }

    #[test]
    fn planted_a_read_without_a_quorum_is_found() {
        assert!(a_deposed_leader_answers(|s| s.bug = Some(ReplicaBug::ReadWithoutQuorum)));
    }
}
