//! States compared while the cluster runs: no alarm without a cause, and what happens with one.

#![allow(clippy::unwrap_used)]

mod support;

use quorate_cluster::replica::{DIGEST_INTERVAL, PeerMessage};
use quorate_cluster::{AdminAnswer, AdminRequest};
use quorate_consensus::{EntryIndex, Identity};
use support::mini::{Mini, settings};

fn compared(mini: &Mini, node: usize) -> u64 {
    mini.nodes[node].replica.counters().digests_compared
}

/// Commits enough for some digests, from the node and its neighbours in turn.
fn commit_some(mini: &mut Mini, nodes: &[usize], name: &str) {
    for number in 0..3 * DIGEST_INTERVAL as usize {
        mini.commit(nodes[number % nodes.len()], &format!("{name} {number}"));
    }
    mini.run(20);
}

/// Nobody ended, or saw a state that differs.
fn no_alarm(mini: &Mini) {
    for (id, node) in mini.nodes.iter().enumerate() {
        assert_eq!(node.finished, None, "node {id}");
        let alarms = node.events.iter().filter(|event| format!("{event:?}").contains("Diverged"));
        assert_eq!(alarms.count(), 0, "node {id}: {:?}", node.events);
        let disputes = node.events.iter().filter(|event| format!("{event:?}").contains("Disputed"));
        assert_eq!(disputes.count(), 0, "node {id}: {:?}", node.events);
    }
}

/// A fresh process in place of a node.
fn again(mini: &mut Mini, node: usize, ranks: &[u32], incarnation: u128) {
    let mut fresh = settings(node as u32, ranks);
    fresh.identity = Identity::new(node as u32, incarnation);
    mini.boot(fresh);
    (0..ranks.len()).filter(|other| *other != node).for_each(|other| mini.link(node, other));
    mini.run_until("it joined", |mini| mini.nodes[node].replica.status().ready);
}

#[test]
fn equal_states_are_compared_and_give_no_alarm() {
    let mut mini = Mini::start(&[1, 1, 1]);
    commit_some(&mut mini, &[0, 1, 2], "first");
    (0..3).for_each(|node| assert!(compared(&mini, node) >= 6, "node {node}"));
    // One is replaced and joins by an image, its roster is changed, another lags and catches up.
    again(&mut mini, 2, &[1, 1, 1], 999);
    let change = AdminRequest::SetRank { node: quorate_consensus::NodeId(1), rank: 2 };
    assert!(matches!(mini.operate_now(0, change), AdminAnswer::Changed { .. }));
    mini.cut(0, 2);
    mini.cut(1, 2);
    commit_some(&mut mini, &[0, 1], "second");
    mini.link(0, 2);
    mini.link(1, 2);
    mini.run(500);
    let before = compared(&mini, 2);
    commit_some(&mut mini, &[2, 1, 0], "third");
    assert!(compared(&mini, 2) >= before + 4);
    no_alarm(&mini);
}

/// In a new epoch the same entries hold other things; and what a survivor takes for committed to
/// begin it is no matter for those it is still linked to.
#[test]
fn a_new_epoch_compares_nothing_with_the_old_one() {
    let mut mini = Mini::start_with(&[1, 1, 1, 1, 1], |settings| settings.window_transactions = 1);
    let survivor = mini.leader().unwrap();
    let others: Vec<usize> = (0..5).filter(|node| *node != survivor).collect();
    let peer = others[0];
    // The survivor fills its log with what nobody else gets, the others theirs with other things.
    let is_digest = |message: &PeerMessage| matches!(message, PeerMessage::Digest { .. });
    mini.hold(move |from, to, message| (from == survivor || to == survivor) && !is_digest(message));
    for number in 0..2 * DIGEST_INTERVAL {
        mini.submit(survivor, &format!("only here {number}"));
    }
    others[1..].iter().for_each(|other| mini.cut(survivor, *other));
    mini.run_until("another leader", |mini| mini.leader().is_some_and(|node| node != survivor));
    commit_some(&mut mini, &others, "elsewhere");
    let log = mini.nodes[survivor].replica.core().unwrap().last().0;
    assert!(log > EntryIndex(DIGEST_INTERVAL), "a digest could be taken of {log:?}");
    let answer = mini.operate_now(survivor, AdminRequest::Recover);
    assert!(matches!(answer, AdminAnswer::Recovered(_)), "{answer:?}");
    commit_some(&mut mini, &others, "still elsewhere");
    no_alarm(&mini);
    // Who meets the new epoch takes its state, entries with the same numbers and others in them.
    mini.cut(survivor, peer);
    mini.release();
    commit_some(&mut mini, &[survivor], "anew");
    mini.link(survivor, peer);
    mini.run(100);
    mini.link(survivor, peer);
    mini.run_until("it joined", |mini| mini.nodes[peer].replica.status().ready);
    let before = compared(&mini, peer);
    commit_some(&mut mini, &[survivor, peer], "together");
    assert!(compared(&mini, peer) >= before + 2);
    assert!(mini.nodes[peer].knows("only here 63") && !mini.nodes[peer].knows("elsewhere 3"));
    no_alarm(&mini);
}

#[test]
fn a_digest_of_another_epoch_or_of_a_stranger_counts_for_nothing() {
    let mut mini = Mini::start(&[1, 1, 1]);
    let (to, liars) = (0, [1, 2]);
    mini.hold(move |_, to, message| to == 0 && matches!(message, PeerMessage::Digest { .. }));
    commit_some(&mut mini, &[0, 1, 2], "fact");
    let epoch = quorate_cluster::Epoch { counter: 1, bits: 9 };
    for liar in liars {
        let from = mini.nodes[liar].identity;
        let message = PeerMessage::Digest { epoch, entry: EntryIndex(64), digest: 1 };
        mini.step(to, quorate_cluster::replica::Input::Receive { from, message });
    }
    assert_eq!(compared(&mini, to), 0);
    mini.commit(0, "after");
    mini.release();
    mini.run(10);
    assert!(compared(&mini, to) > 0);
    no_alarm(&mini);
}

#[cfg(feature = "planted-bugs")]
mod planted {
    use super::*;
    use std::sync::Arc;

    use quorate_cluster::replica::ReplicaBug;
    use quorate_cluster::{CallContext, CallError, FreshError, Freshness};
    use quorate_cluster::{ClusterError, ClusterEvent, QuorumReason};
    use quorate_consensus::NodeId;
    use quorate_engine::{CommitError, Error, Index, Outcome, Transaction};
    use quorate_schema::Value;

    fn start(ranks: &[u32], wrong: u32) -> Mini {
        start_with(ranks, wrong, 1 << 20)
    }

    fn start_with(ranks: &[u32], wrong: u32, log_keep_bytes: usize) -> Mini {
        let mini = Mini::start_with(ranks, |settings| {
            settings.log_keep_bytes = log_keep_bytes;
            if settings.identity.node == NodeId(wrong) {
                settings.bug = Some(ReplicaBug::LosesTheTenth);
            }
        });
        for node in &mini.nodes {
            node.procedures.register("note", Arc::new(note));
        }
        mini
    }

    /// Writes a fact.
    fn note(tx: &Transaction<'_>, args: &[u8], _: &CallContext<'_>) -> Result<Vec<u8>, Error> {
        let name = String::from_utf8_lossy(args).into_owned();
        tx.insert_values("Fact", &[("name", Value::Text(name))])?;
        Ok(Vec::new())
    }

    fn diverged(mini: &Mini, node: usize) -> bool {
        matches!(mini.nodes[node].finished, Some(Err(ClusterError::Diverged { .. })))
    }

    /// Submits at `from` until `until`, and no error but a node's end, or its refusal, is met.
    fn commit_until(mini: &mut Mini, from: usize, until: impl Fn(&Mini) -> bool) -> usize {
        for number in 0..3 * DIGEST_INTERVAL as usize {
            if until(mini) {
                return number;
            }
            mini.submit(from, &format!("fact {number}"));
            mini.run(5);
        }
        panic!("nothing was noticed");
    }

    fn the_wrong_one_halts_and_the_others_go_on(follower: bool) {
        let leader = start(&[1, 1, 1], 9).leader().unwrap();
        let wrong = if follower { (leader + 1) % 3 } else { leader };
        let mut mini = start(&[1, 1, 1], wrong as u32);
        assert_eq!(mini.leader(), Some(leader));
        let right: Vec<usize> = (0..3).filter(|node| *node != wrong).collect();
        let committed = commit_until(&mut mini, wrong, |mini| diverged(mini, wrong));
        assert!(committed <= 2 * DIGEST_INTERVAL as usize, "found after {committed}");
        let Some(Err(error)) = mini.nodes[wrong].finished.clone() else { panic!("it ended") };
        let ClusterError::Diverged { index } = error else { panic!("{error}") };
        assert!(error.to_string().contains("restart it without state"), "{error}");
        // What it acknowledged is committed on the others, and nothing behind that place is.
        for (id, result) in &mini.nodes[wrong].completed {
            if let Ok(acknowledged) = result {
                assert!(acknowledged.index <= index, "{acknowledged:?} behind {index}");
                let outcome = mini.nodes[right[0]].database.known_outcome(*id);
                assert_eq!(outcome, Outcome::Committed(acknowledged.index));
            }
        }
        right.iter().for_each(|node| mini.cut(wrong, *node));
        for (number, node) in right.iter().enumerate() {
            let told = ClusterEvent::Diverged(NodeId(wrong as u32));
            let times = mini.nodes[*node].events.iter().filter(|event| **event == told).count();
            assert_eq!((times, mini.nodes[*node].finished.clone()), (1, None), "node {node}");
            mini.run_until("a leader", |mini| mini.leader().is_some_and(|node| node != wrong));
            mini.commit(*node, &format!("goes on {number}"));
        }
        assert!(mini.nodes[wrong].knows("fact 3"), "what it held can be read");
        again(&mut mini, wrong, &[1, 1, 1], 999);
        commit_some(&mut mini, &[0, 1, 2], "healed");
        assert!(compared(&mini, wrong) >= 4);
        let hash = mini.nodes[wrong].database.state_hash();
        right.iter().for_each(|node| assert_eq!(mini.nodes[*node].database.state_hash(), hash));
    }

    #[test]
    fn planted_a_follower_that_loses_a_transaction_halts() {
        the_wrong_one_halts_and_the_others_go_on(true);
    }

    #[test]
    fn planted_a_leader_that_loses_a_transaction_halts() {
        the_wrong_one_halts_and_the_others_go_on(false);
    }

    fn disputes(mini: &Mini, node: usize) -> bool {
        let lost = |event: &ClusterEvent| {
            matches!(event, ClusterEvent::QuorumLost(QuorumReason::Disputed { .. }))
        };
        mini.nodes[node].events.iter().any(lost)
    }

    fn refuses(mini: &mut Mini, node: usize, name: &str) {
        let id = mini.submit(node, name);
        mini.run_until("an answer", |mini| mini.nodes[node].completed.contains_key(&id));
        match &mini.nodes[node].completed[&id] {
            Err(CommitError::NoQuorum { reason }) => assert!(reason.contains("state"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }

    /// Two of three differ, and the third is away.
    fn disputed(wrong: u32, log_keep_bytes: usize) -> Mini {
        let mut mini = start_with(&[1, 1, 1], wrong, log_keep_bytes);
        mini.cut(2, 0);
        mini.cut(2, 1);
        mini.run_until("a leader", |mini| mini.leader().is_some_and(|node| node != 2));
        commit_until(&mut mini, 0, |mini| disputes(mini, 0) && disputes(mini, 1));
        mini.run(1_000);
        assert!((0..3).all(|node| mini.nodes[node].finished.is_none()), "nobody can know who");
        for node in 0..2 {
            refuses(&mut mini, node, "refused");
            let status = mini.nodes[node].replica.status();
            assert!(!status.quorum && !status.ready, "{status:?}");
            assert!(mini.nodes[node].knows("fact 3"), "it can be read");
        }
        mini
    }

    #[test]
    fn planted_a_dispute_stops_commits_until_a_third_decides() {
        for wrong in 0..2 {
            let right = 1 - wrong;
            let mut mini = disputed(wrong as u32, 1 << 20);
            mini.link(2, 0);
            mini.link(2, 1);
            mini.run_until("the third decides", |mini| diverged(mini, wrong));
            mini.cut(wrong, right);
            mini.cut(wrong, 2);
            mini.run_until("a leader", |mini| mini.leader().is_some_and(|node| node != wrong));
            mini.commit(right, "goes on");
            mini.commit(2, "goes on, too");
            for node in [right, 2] {
                assert!(mini.nodes[node].finished.is_none() && !mini.nodes[node].knows("refused"));
            }
        }
    }

    #[test]
    fn planted_a_dispute_hands_its_state_to_nobody_and_ends_by_recovery() {
        let mut mini = disputed(1, 1 << 20);
        // The third comes back without its state: it must not get that of either.
        let mut fresh = settings(2, &[1, 1, 1]);
        fresh.identity = Identity::new(2, 999);
        mini.boot(fresh);
        mini.link(2, 0);
        mini.link(2, 1);
        mini.run(2_000);
        assert!(!mini.nodes[2].replica.status().ready && !mini.nodes[2].knows("fact 3"));
        let config = mini.nodes[0].replica.core().unwrap().config().clone();
        assert!(!config.contains(Identity::new(2, 999)), "{config:?}");
        refuses(&mut mini, 0, "refused again");
        // The operator finds node 0 to be right.
        mini.cut(0, 1);
        mini.cut(2, 1);
        mini.run(1_000);
        let answer = mini.operate_now(0, AdminRequest::Recover);
        assert!(matches!(answer, AdminAnswer::Recovered(_)), "{answer:?}");
        mini.commit(0, "goes on");
        again(&mut mini, 1, &[1, 1, 1], 998);
        commit_some(&mut mini, &[0, 1], "healed");
        assert!(mini.nodes[1].knows("fact 8") && !mini.nodes[1].knows("refused again"));
        assert!((0..2).all(|node| mini.nodes[node].finished.is_none()));
    }

    #[test]
    fn planted_a_disputed_state_is_not_sent_to_who_fell_behind() {
        let mut mini = disputed(1, 1);
        mini.link(2, 0);
        mini.link(2, 1);
        mini.run(2_000);
        let leader = mini.leader().unwrap();
        assert!(mini.nodes[leader].replica.counters().images_sent > 0, "one is wanted");
        assert_eq!(mini.nodes[2].replica.counters().images_begun, 0, "and none is given");
        assert!(!mini.nodes[2].knows("fact 9"));
    }

    #[test]
    fn planted_a_change_of_the_roster_that_one_node_loses_is_found() {
        let mut mini = start(&[1, 1, 1], 1);
        (0..9).for_each(|number| assert_eq!(mini.commit(0, &number.to_string()).0, number + 1));
        let addr = "elsewhere:1".to_string();
        let change = AdminRequest::SetAddress { node: NodeId(2), addr };
        let answer = mini.operate_now(0, change);
        assert!(matches!(answer, AdminAnswer::Changed { .. }), "{answer:?}");
        commit_until(&mut mini, 0, |mini| diverged(mini, 1));
        assert!([0, 2].iter().all(|node| mini.nodes[*node].finished.is_none()));
    }

    /// What was wrong is gone with the image that took its place: late digests raise no alarm.
    #[test]
    fn planted_a_state_that_an_image_replaced_is_not_judged() {
        let leader = start(&[1, 1, 1], 9).leader().unwrap();
        let wrong = (leader + 1) % 3;
        let right: Vec<usize> = (0..3).filter(|node| *node != wrong).collect();
        let mut mini = start_with(&[1, 1, 1], wrong as u32, 1);
        mini.hold(move |_, to, message| {
            to == wrong && matches!(message, PeerMessage::Digest { .. })
        });
        let taken = DIGEST_INTERVAL as usize + 8;
        for number in 0..taken {
            mini.commit(leader, &format!("early {number}"));
        }
        mini.run(20);
        right.iter().for_each(|node| mini.cut(wrong, *node));
        commit_some(&mut mini, &right, "meanwhile");
        right.iter().for_each(|node| mini.link(wrong, *node));
        let installed = |mini: &Mini| mini.nodes[wrong].replica.counters().images_installed > 0;
        mini.run_until("an image", installed);
        mini.release();
        mini.run(100);
        assert_eq!(mini.nodes[wrong].finished, None);
        let before = compared(&mini, wrong);
        commit_some(&mut mini, &[0, 1, 2], "healed");
        assert!(compared(&mini, wrong) >= before + 4);
        assert!((0..3).all(|node| mini.nodes[node].finished.is_none()));
    }

    /// Who has not heard of a dispute is told by the leader.
    #[test]
    fn planted_a_node_that_sees_no_dispute_is_refused_by_the_leader() {
        for wrong in 0..2 {
            let mut mini = start(&[1, 1, 0], wrong);
            mini.hold(|_, to, message| to == 2 && matches!(message, PeerMessage::Digest { .. }));
            commit_until(&mut mini, 2, |mini| disputes(mini, 0) && disputes(mini, 1));
            mini.run(100);
            assert!(mini.nodes[2].replica.status().quorum && !disputes(&mini, 2));
            refuses(&mut mini, 2, "from the learner");
            let reader = mini.ask(2, Freshness::Linearizable, 300);
            mini.run(301);
            let answer = &mini.nodes[2].fresh[&reader];
            assert!(matches!(answer, Err(FreshError::NoQuorum { .. })), "{answer:?}");
            assert!((0..3).all(|node| !mini.nodes[node].knows("from the learner")));
            mini.release();
            mini.run(1);
            assert!(disputes(&mini, 2), "a learner sees that of the others");
        }
    }

    fn read(mini: &mut Mini, node: usize, freshness: Freshness) -> Result<Index, FreshError> {
        let token = mini.ask(node, freshness, 5_000);
        mini.run(100);
        mini.nodes[node].fresh.remove(&token).unwrap()
    }

    fn is_disputed(answer: &Result<Index, FreshError>) -> bool {
        let Err(FreshError::NoQuorum { reason: QuorumReason::Disputed { .. } }) = answer else {
            return false;
        };
        true
    }

    #[test]
    fn planted_a_disputed_node_confirms_no_read_and_takes_no_call() {
        let mut mini = disputed(1, 1 << 20);
        for node in 0..2 {
            let answer = read(&mut mini, node, Freshness::Linearizable);
            assert!(is_disputed(&answer), "{answer:?}");
            let shown = mini.nodes[node].database.visible_index();
            assert_eq!(read(&mut mini, node, Freshness::Local), Ok(shown));
            assert_eq!(read(&mut mini, node, Freshness::AtLeast(shown)), Ok(shown));
            let call = mini.call(node, "note", b"called");
            match mini.called(node, call) {
                Err(CallError::NoQuorum { reason }) => assert!(reason.contains("find out which")),
                other => panic!("{other:?}"),
            }
        }
        mini.link(2, 0);
        mini.link(2, 1);
        mini.run_until("the third decides", |mini| diverged(mini, 1));
        mini.run_until("a leader", |mini| mini.leader().is_some_and(|node| node != 1));
        assert!(read(&mut mini, 0, Freshness::Linearizable).is_ok());
    }

    /// A reader who knows how far this node must come is not answered from a state that turns out
    /// on the way to be disputed.
    #[test]
    fn planted_a_confirmed_read_is_not_answered_from_a_disputed_state() {
        let leader = start(&[1, 1, 1], 9).leader().unwrap();
        let (wrong, other) = ((leader + 1) % 3, (leader + 2) % 3);
        let mut mini = start(&[1, 1, 1], wrong as u32);
        let other_digests = move |from, to, message: &PeerMessage| {
            (from, to) == (other, wrong) && matches!(message, PeerMessage::Digest { .. })
        };
        mini.hold(move |from, to, message| {
            let core = (from, to) == (leader, wrong) && matches!(message, PeerMessage::Core(_));
            core || other_digests(from, to, message)
        });
        let last = |mini: &Mini| mini.nodes[leader].replica.core().unwrap().last().0;
        while last(&mini) < EntryIndex(DIGEST_INTERVAL) {
            let number = last(&mini).0;
            mini.submit(leader, &format!("fact {number}"));
            mini.settle();
        }
        let reader = mini.ask(wrong, Freshness::Linearizable, 5_000);
        mini.settle();
        assert!(!mini.nodes[wrong].fresh.contains_key(&reader), "it is not here yet");
        mini.hold(other_digests);
        mini.settle();
        assert!(disputes(&mini, wrong) && mini.nodes[wrong].finished.is_none());
        let answer = &mini.nodes[wrong].fresh[&reader];
        assert!(is_disputed(answer), "{answer:?}");
        mini.release();
        mini.settle();
        assert!(diverged(&mini, wrong));
    }

    /// What ran on a state that became disputed is not logged, and what waits does not run.
    #[test]
    fn planted_a_batch_of_calls_is_not_logged_in_a_dispute() {
        let mut mini = start(&[1, 1, 1], 1);
        mini.cut(2, 0);
        mini.cut(2, 1);
        mini.run_until("a leader", |mini| mini.leader().is_some_and(|node| node != 2));
        let leader = mini.leader().unwrap();
        mini.hold_batches = true;
        let out = mini.call(leader, "note", b"out");
        mini.settle();
        let waits = mini.call(1 - leader, "note", b"waits");
        mini.settle();
        assert_eq!(mini.nodes[leader].batches.len(), 1);
        commit_until(&mut mini, 0, |mini| disputes(mini, 0) && disputes(mini, 1));
        mini.run(10);
        assert!(mini.nodes[1 - leader].called[&waits].is_err());
        let log = mini.nodes[leader].replica.core().unwrap().last();
        assert!(mini.run_batch(leader));
        mini.run(100);
        for (node, id) in [(leader, out), (1 - leader, waits)] {
            let answer = mini.nodes[node].called[&id].clone();
            assert!(matches!(answer, Err(CallError::NoQuorum { .. })), "{answer:?}");
        }
        assert_eq!(mini.nodes[leader].replica.core().unwrap().last(), log);
        assert!(mini.nodes[leader].batches.is_empty());
    }

    #[test]
    fn planted_digests_lost_with_a_link_are_told_again() {
        let mut mini = start(&[1, 1, 1], 1);
        mini.hold(|_, _, message| matches!(message, PeerMessage::Digest { .. }));
        commit_some(&mut mini, &[0, 2], "fact");
        assert!((0..3).all(|node| compared(&mini, node) == 0));
        [(0, 1), (0, 2), (1, 2)].into_iter().for_each(|(a, b)| mini.cut(a, b));
        mini.release();
        [(0, 1), (0, 2), (1, 2)].into_iter().for_each(|(a, b)| mini.link(a, b));
        mini.run(5);
        assert!(diverged(&mini, 1) && !diverged(&mini, 0) && !diverged(&mini, 2));
    }

    /// Who applies late finds out before it shows or answers anything.
    #[test]
    fn planted_what_is_known_to_be_wrong_is_neither_published_nor_answered() {
        let leader = start(&[1, 1, 1], 9).leader().unwrap();
        let wrong = (leader + 1) % 3;
        let mut mini = start(&[1, 1, 1], wrong as u32);
        mini.hold(move |from, to, message| {
            (from, to) == (leader, wrong) && matches!(message, PeerMessage::Core(_))
        });
        let mut own = Vec::new();
        for number in 0..2 * DIGEST_INTERVAL {
            mini.submit(leader, &format!("fact {number}"));
            mini.settle();
            if number % 8 == 7 {
                own.push(mini.submit(wrong, &format!("its own {number}")));
                mini.settle();
            }
        }
        assert!(mini.nodes[leader].knows("fact 60"), "the two go on");
        assert!(mini.nodes[wrong].completed.is_empty());
        mini.release();
        mini.run(20);
        let Some(Err(ClusterError::Diverged { index })) = mini.nodes[wrong].finished else {
            panic!("{:?}", mini.nodes[wrong].finished)
        };
        let shown = mini.nodes[wrong].database.visible_index();
        assert!(shown < index, "{shown} was shown, although {index} was known to be wrong");
        let answers: Vec<_> = own.iter().map(|id| &mini.nodes[wrong].completed[id]).collect();
        let in_doubt = answers.iter().filter(|a| matches!(a, Err(CommitError::InDoubt(_))));
        assert!(in_doubt.count() >= 5, "{answers:?}");
        for acknowledged in answers.into_iter().flatten() {
            assert!(acknowledged.index <= shown, "{acknowledged:?} behind {shown}");
        }
    }
}
