//! Members added, removed and ranked anew, leaders handed over, a cluster formed again from a
//! survivor: replicas in one thread, a network in the test's hands.

#![allow(clippy::unwrap_used)]

mod support;

use quorate_cluster::replica::{Input, PeerMessage, Phase, ReplicaSettings, Standing};
use quorate_cluster::{AdminAnswer, AdminError, AdminRequest, ClusterError, ClusterEvent};
use quorate_consensus::{Identity, NodeId};
use quorate_engine::CommitError;
use support::mini::{Mini, MiniNode, settings};

/// The ranks in the configuration in force at a node, by node id.
fn ranks(mini: &Mini, node: usize) -> Vec<(u32, u32)> {
    let config = mini.nodes[node].replica.core().unwrap().config().clone();
    assert!(config.next.is_none(), "{config:?}");
    config.current.iter().map(|member| (member.identity.node.0, member.rank)).collect()
}

fn ready(mini: &Mini, node: usize) -> bool {
    mini.nodes[node].replica.status().ready
}

fn add(addr: &str, rank: u32) -> AdminRequest {
    AdminRequest::AddNode { addr: addr.into(), rank }
}

fn set_rank(node: u32, rank: u32) -> AdminRequest {
    AdminRequest::SetRank { node: NodeId(node), rank }
}

fn remove(node: usize) -> AdminRequest {
    AdminRequest::RemoveNode { node: NodeId(node as u32) }
}

fn changed(answer: &AdminAnswer) -> u32 {
    match answer {
        AdminAnswer::Changed { node, .. } => node.0,
        other => panic!("{other:?}"),
    }
}

fn refused(answer: AdminAnswer) -> AdminError {
    match answer {
        AdminAnswer::Refused(error) => error,
        other => panic!("{other:?}"),
    }
}

/// Adds a fourth node to three and starts it.
fn four() -> Mini {
    let mut mini = Mini::start(&[1, 1, 1]);
    let asked = (mini.leader().unwrap() + 1) % 3;
    assert_eq!(changed(&mini.operate_now(asked, add("fourth:1", 2))), 3);
    mini.boot(settings(3, &[1, 1, 1, 2]));
    (0..3).for_each(|node| mini.link(3, node));
    mini.run_until("the fourth", |mini| ready(mini, 3));
    mini
}

#[test]
fn a_node_is_added_gets_the_state_and_its_rank() {
    let mut mini = Mini::start(&[1, 1, 1]);
    mini.commit(0, "before");
    let leader = mini.leader().unwrap();
    let asked = (leader + 1) % 3;
    assert_eq!(changed(&mini.operate_now(asked, add("fourth:1", 2))), 3);
    mini.run(100);
    for node in 0..3 {
        let listed = mini.nodes[node].listed[3].as_ref().expect("all know where to look");
        assert_eq!((listed.addr.as_str(), listed.qrank), ("fourth:1", 2));
        assert_eq!(ranks(&mini, node), [(0, 1), (1, 1), (2, 1)], "it is not there yet");
    }
    mini.boot(settings(3, &[1, 1, 1, 2]));
    (0..3).for_each(|node| mini.link(3, node));
    mini.run_until("the fourth", |mini| ready(mini, 3));
    mini.run(100);
    for node in 0..4 {
        assert_eq!(ranks(&mini, node), [(0, 1), (1, 1), (2, 1), (3, 2)]);
    }
    assert!(mini.nodes[3].knows("before"));
    mini.commit(3, "by the fourth");
    mini.run(100);
    assert!((0..4).all(|node| mini.nodes[node].knows("by the fourth")));
}

#[test]
fn who_is_not_listed_is_not_taken_in_until_it_is() {
    let mut mini = Mini::start(&[1, 1, 1]);
    mini.boot(settings(3, &[1, 1, 1, 1]));
    (0..3).for_each(|node| mini.link(3, node));
    mini.run(1_000);
    assert_eq!(mini.nodes[3].replica.phase(), Phase::Joining);
    let waiting = mini.nodes[3].replica.status().waiting_for;
    assert!(waiting[0].1.contains("add it there first"), "{waiting:?}");
    let leader = mini.leader().unwrap();
    assert_eq!(changed(&mini.operate_now(leader, add("fourth:1", 1))), 3);
    mini.run_until("it is taken in", |mini| ready(mini, 3));
}

#[test]
fn a_removed_follower_hears_of_it_and_the_others_go_on() {
    let mut mini = four();
    let leader = mini.leader().unwrap();
    let gone = (0..4).find(|node| *node != leader).unwrap();
    changed(&mini.operate_now(leader, remove(gone)));
    assert!(ranks(&mini, leader).iter().all(|(node, _)| *node != gone as u32));
    mini.run(100);
    assert_eq!(mini.nodes[gone].finished, Some(Err(ClusterError::Removed)));
    mini.commit(leader, "without it");
    // It comes back under its old id, and is told at once.
    let mut again = settings(gone as u32, &[1, 1, 1, 2]);
    again.identity = Identity::new(gone as u32, 999);
    mini.boot(again);
    mini.link(gone, leader);
    mini.run(500);
    assert_eq!(mini.nodes[gone].finished, Some(Err(ClusterError::Removed)));
}

#[test]
fn a_leader_that_is_removed_hands_over_and_ends() {
    let mut mini = four();
    let old = mini.leader().unwrap();
    let asked = (0..4).find(|node| *node != old).unwrap();
    changed(&mini.operate_now(asked, remove(old)));
    mini.run_until("the old leader's end", |mini| mini.nodes[old].finished.is_some());
    assert_eq!(mini.nodes[old].finished, Some(Err(ClusterError::Removed)));
    mini.commit(asked, "without the old leader");
    assert!(ranks(&mini, asked).iter().all(|(node, _)| *node != old as u32));
}

#[test]
fn a_node_removed_while_it_is_away_hears_of_it_when_it_is_back() {
    let mut mini = Mini::start(&[1, 1, 1]);
    let leader = mini.leader().unwrap();
    let away = (leader + 1) % 3;
    for other in (0..3).filter(|other| *other != away) {
        mini.cut(away, other);
    }
    changed(&mini.operate_now(leader, remove(away)));
    mini.commit(leader, "without it");
    assert_eq!(mini.nodes[away].finished, None);
    mini.link(away, leader);
    mini.run_until("its end", |mini| mini.nodes[away].finished.is_some());
    assert_eq!(mini.nodes[away].finished, Some(Err(ClusterError::Removed)));
}

#[test]
fn ranks_move_up_and_down_and_never_vanish() {
    let mut mini = Mini::start(&[1, 1, 0]);
    let leader = mini.leader().unwrap();
    mini.operate_now(2, set_rank(2, 3));
    assert_eq!(ranks(&mini, leader), [(0, 1), (1, 1), (2, 3)]);
    mini.operate_now(0, set_rank(0, 0));
    mini.operate_now(0, set_rank(1, 0));
    mini.run(100);
    let leader = mini.leader().unwrap();
    assert_eq!(ranks(&mini, leader), [(0, 0), (1, 0), (2, 3)]);
    mini.run_until("only it can lead", |mini| mini.leader() == Some(2));
    let last = refused(mini.operate_now(1, set_rank(2, 0)));
    assert_eq!(last, AdminError::LastVoter { node: NodeId(2) });
    let unknown = refused(mini.operate_now(1, set_rank(7, 1)));
    assert_eq!(unknown, AdminError::UnknownNode { node: NodeId(7) });
    mini.commit(0, "a learner may originate");
}

#[test]
fn a_rank_changed_while_its_node_is_down_is_what_it_comes_back_to() {
    let mut mini = Mini::start(&[1, 1, 1, 1]);
    let leader = mini.leader().unwrap();
    let down = (leader + 1) % 4;
    let mut again = settings(down as u32, &[1, 1, 1, 1]);
    again.identity = Identity::new(down as u32, 999);
    mini.boot(again); // not linked to anybody yet
    changed(&mini.operate_now(leader, set_rank(down as u32, 2)));
    (0..4).filter(|node| *node != down).for_each(|node| mini.link(down, node));
    mini.run_until("it is back", |mini| ready(mini, down));
    mini.run(200);
    let rank = ranks(&mini, leader)[down];
    assert_eq!(rank, (down as u32, 2));
}

#[test]
fn the_roster_travels_with_an_image() {
    let mut mini = four();
    let leader = mini.leader().unwrap();
    let gone = (0..3).find(|node| *node != leader).unwrap();
    changed(&mini.operate_now(leader, remove(gone)));
    let back = (0..3).find(|node| *node != leader && *node != gone).unwrap();
    let addr = "elsewhere:5".to_string();
    let node = NodeId(back as u32);
    changed(&mini.operate_now(leader, AdminRequest::SetAddress { node, addr }));
    let mut again = settings(back as u32, &[1, 1, 1]); // with the list of the beginning
    again.identity = Identity::new(back as u32, 999);
    mini.boot(again);
    [leader, 3].into_iter().for_each(|node| mini.link(back, node));
    mini.run_until("it is back", |mini| ready(mini, back));
    let listed = &mini.nodes[back].listed;
    assert_eq!(listed.len(), 4);
    assert!(listed[gone].is_none());
    assert_eq!(listed[back].as_ref().unwrap().addr, "elsewhere:5");
    assert_eq!(listed[3].as_ref().unwrap().addr, "fourth:1");
    assert_eq!(*listed, mini.nodes[leader].listed);
}

#[test]
fn a_change_asked_of_a_dying_leader_is_made_once() {
    let mut mini = Mini::start(&[1, 1, 1]);
    let old = mini.leader().unwrap();
    let asked = (old + 1) % 3;
    // The leader logs it and tells nobody but the one who asked nothing of it.
    mini.hold(move |from, to, _| from == old && to != old);
    let token = mini.operate(asked, add("fourth:1", 1));
    mini.settle();
    mini.cut(old, asked);
    mini.release();
    mini.cut(old, (old + 2) % 3);
    mini.run_until("an answer", |mini| mini.nodes[asked].answers.contains_key(&token));
    assert_eq!(changed(&mini.nodes[asked].answers[&token]), 3);
    mini.link(old, asked);
    mini.link(old, (old + 2) % 3);
    mini.run(500);
    for node in 0..3 {
        assert_eq!(mini.nodes[node].listed.len(), 4, "once, on node {node}");
    }
}

#[test]
fn leadership_is_handed_over_on_request() {
    let mut mini = Mini::start(&[1, 1, 1, 0]);
    let old = mini.leader().unwrap();
    let heir = (old + 1) % 3;
    let asked = (old + 2) % 3;
    let to = NodeId(heir as u32);
    let answer = mini.operate_now(asked, AdminRequest::TransferLeadership { to });
    assert_eq!(answer, AdminAnswer::Transferred);
    assert_eq!(mini.leader(), Some(heir));
    let learner = AdminRequest::TransferLeadership { to: NodeId(3) };
    let error = refused(mini.operate_now(asked, learner));
    assert!(matches!(error, AdminError::CannotLead { .. }), "{error:?}");
    assert_eq!(mini.leader(), Some(heir));
}

#[test]
fn a_survivor_begins_a_new_epoch_and_the_others_join_it() {
    let mut mini = Mini::start(&[1, 1, 1]);
    let before = mini.commit(0, "before");
    assert_eq!(refused(mini.operate_now(0, AdminRequest::Recover)), AdminError::StillQuorum);
    // Node 2 is lost for good, and so is node 1 for the time being.
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        mini.cut(a, b);
    }
    mini.run(2_000);
    let waiting = mini.submit(0, "refused");
    assert!(matches!(mini.nodes[0].completed[&waiting], Err(CommitError::NoQuorum { .. })));
    let AdminAnswer::Recovered(recovery) = mini.operate_now(0, AdminRequest::Recover) else {
        panic!("it recovers")
    };
    assert_eq!((recovery.epoch.counter, recovery.survivor_index), (1, before));
    let after = mini.commit(0, "after");
    assert!(after.0 > before.0 + (1 << 32));
    // Node 1 is back with its state of the old epoch, which it gives up.
    mini.link(0, 1);
    mini.run(100);
    assert_ne!(mini.nodes[1].identity, Identity::new(1, 101), "another incarnation");
    assert!(mini.nodes[1].knows("before"), "readable all the time");
    mini.link(0, 1);
    mini.run_until("it joined", |mini| ready(mini, 1));
    assert!(mini.nodes[1].knows("after"));
    let renewed = |event: &ClusterEvent| matches!(event, ClusterEvent::EpochChanged(_));
    assert!(mini.nodes[1].events.iter().any(renewed));
    // A fresh process in place of node 2 is taken in as ever.
    let mut again = settings(2, &[1, 1, 1]);
    again.identity = Identity::new(2, 999);
    mini.boot(again);
    [0, 1].into_iter().for_each(|node| mini.link(2, node));
    mini.run_until("it joined", |mini| ready(mini, 2));
    mini.run(200);
    assert_eq!(ranks(&mini, 0), [(0, 1), (1, 1), (2, 1)]);
    mini.commit(1, "from the second");
    mini.run(100);
    let hashes: Vec<u128> = mini.nodes.iter().map(|node| node.database.state_hash()).collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]));
}

#[test]
fn what_was_under_way_at_a_recovery_is_answered() {
    let mut mini = Mini::start(&[1, 1, 1]);
    let leader = mini.leader().unwrap();
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    // It enters the leader's log and nobody else's.
    mini.hold(move |from, _, _| from == leader);
    let id = mini.submit(leader, "in the log");
    mini.settle();
    others.into_iter().for_each(|other| mini.cut(leader, other));
    mini.release();
    let AdminAnswer::Recovered(_) = mini.operate_now(leader, AdminRequest::Recover) else {
        panic!("it recovers")
    };
    assert!(mini.nodes[leader].completed[&id].is_ok(), "what the survivor holds is kept");
    assert!(mini.nodes[leader].knows("in the log"));
    mini.commit(leader, "goes on");
    mini.step(leader, Input::Flush);
}

#[test]
fn a_change_refused_after_its_time_leaves_nothing_behind() {
    let mut mini = Mini::start_with(&[1, 1, 1], |settings| settings.commit_limit_ms = 50);
    let leader = mini.leader().unwrap();
    let asked = (leader + 1) % 3;
    mini.hold(move |_, to, message| to == asked && matches!(message, PeerMessage::Refused { .. }));
    let error = refused(mini.operate_now(asked, set_rank(7, 1)));
    assert_eq!(error, AdminError::TimedOut { limit_ms: 50 });
    assert!(mini.nodes[asked].settled.is_empty());
    mini.release();
    mini.run(10);
    assert_eq!(mini.nodes[asked].settled.len(), 1, "else its id is kept in mind for ever");
}

#[test]
fn one_change_out_of_reach_does_not_hold_up_the_others() {
    let mut mini = Mini::start(&[1, 1, 1, 1]);
    let leader = mini.leader().unwrap();
    let [asked, gone, away] = [1, 2, 3].map(|step| (leader + step) % 4);
    (0..4).filter(|node| *node != away).for_each(|node| mini.cut(away, node));
    // Without the node itself nothing could be decided any more: that has to wait for it.
    let waits = mini.operate(asked, set_rank(away as u32, 9));
    mini.run(100);
    assert!(!mini.nodes[asked].answers.contains_key(&waits));
    changed(&mini.operate_now(asked, remove(gone)));
    let config = ranks(&mini, leader);
    assert!(config.contains(&(away as u32, 1)), "{config:?}");
    assert!(config.iter().all(|(node, _)| *node != gone as u32), "{config:?}");
    (0..4).filter(|node| ![away, gone].contains(node)).for_each(|node| mini.link(away, node));
    mini.run_until("the other one", |mini| mini.nodes[asked].answers.contains_key(&waits));
    changed(&mini.nodes[asked].answers[&waits]);
    assert!(ranks(&mini, leader).contains(&(away as u32, 9)));
}

/// A cluster of three, and at a follower an operator who waits for a change that cannot take effect
/// as long as the third node is away: leader, follower, the operator's token.
fn waiting_operator() -> (Mini, usize, usize, u64) {
    let mut mini = Mini::start(&[1, 1, 1]);
    let leader = mini.leader().unwrap();
    let [asked, away] = [1, 2].map(|step| (leader + step) % 3);
    (0..3).filter(|node| *node != away).for_each(|node| mini.cut(away, node));
    let token = mini.operate(asked, set_rank(away as u32, 9));
    mini.run(100);
    assert!(!mini.nodes[asked].answers.contains_key(&token));
    (mini, leader, asked, token)
}

#[test]
fn who_waits_for_a_change_to_take_effect_is_answered_in_time() {
    let (mut mini, _, asked, token) = waiting_operator();
    mini.run_until("an answer", |mini| mini.nodes[asked].answers.contains_key(&token));
    let error = refused(mini.nodes[asked].answers[&token].clone());
    assert_eq!(error, AdminError::TimedOut { limit_ms: 5_000 });
}

#[test]
fn who_waits_for_a_change_to_take_effect_is_answered_when_the_node_ends() {
    let (mut mini, leader, asked, token) = waiting_operator();
    [leader, asked].into_iter().for_each(|node| mini.step(node, Input::Stop));
    mini.run(900); // the third is written off soon
    let away = NodeId((3 - leader - asked) as u32);
    let handover = mini.operate(leader, AdminRequest::TransferLeadership { to: away });
    let waiting = [(asked, token), (leader, handover)];
    assert!(waiting.iter().all(|(node, token)| !mini.nodes[*node].answers.contains_key(token)));
    for (node, token) in waiting {
        mini.run_until("its end", |mini| mini.nodes[node].finished.is_some());
        assert_eq!(refused(mini.nodes[node].answers[&token].clone()), AdminError::Stopped);
    }
}

#[test]
fn who_waits_for_a_change_to_take_effect_is_answered_in_a_new_epoch() {
    for at_the_survivor in [true, false] {
        let (mut mini, leader, asked, token) = waiting_operator();
        mini.cut(leader, asked);
        mini.run(10);
        let survivor = if at_the_survivor { asked } else { leader };
        let AdminAnswer::Recovered(_) = mini.operate_now(survivor, AdminRequest::Recover) else {
            panic!("it recovers")
        };
        mini.link(leader, asked);
        mini.run(10);
        let error = refused(mini.nodes[asked].answers[&token].clone());
        assert!(matches!(error, AdminError::TimedOut { .. }), "{error:?}");
    }
}

#[test]
fn a_node_that_is_asked_to_remove_itself_says_that_it_did() {
    let mut mini = four();
    let leader = mini.leader().unwrap();
    for asked in [(leader + 1) % 4, leader] {
        let token = mini.operate(asked, remove(asked));
        mini.run_until("its end", |mini| mini.nodes[asked].finished.is_some());
        assert_eq!(changed(&mini.nodes[asked].answers[&token]), asked as u32);
    }
}

#[test]
fn a_node_that_has_seen_many_terms_loses_none_of_its_requests_in_a_new_epoch() {
    let mut mini = Mini::start(&[1, 1, 1]);
    (1..3).for_each(|node| mini.cut(0, node));
    mini.run_until("another leader", |mini| mini.leader().is_some_and(|leader| leader != 0));
    for round in 0..5 {
        let heir = 3 - mini.leader().unwrap();
        let to = NodeId(heir as u32);
        assert_eq!(
            mini.operate_now(3 - heir, AdminRequest::TransferLeadership { to }),
            AdminAnswer::Transferred
        );
        mini.commit(heir, &format!("round {round}"));
    }
    mini.cut(1, 2);
    let AdminAnswer::Recovered(_) = mini.operate_now(0, AdminRequest::Recover) else {
        panic!("it recovers")
    };
    for _ in 0..2 {
        (1..3).for_each(|node| mini.link(0, node)); // first as who they were
        mini.run(10);
    }
    mini.link(1, 2);
    mini.run_until("all", |mini| (0..3).all(|node| ready(mini, node)));
    assert_eq!(mini.leader(), Some(0));
    // The leader gets a request and is gone.
    mini.hold(|from, to, _| from == 0 || to == 0);
    let id = mini.submit(1, "given to a dead leader");
    mini.settle();
    (1..3).for_each(|node| mini.cut(0, node));
    mini.release();
    mini.run_until("an answer", |mini| mini.nodes[1].completed.contains_key(&id));
    assert!(mini.nodes[1].completed[&id].is_ok(), "{:?}", mini.nodes[1].completed[&id]);
}

#[test]
fn a_removed_node_that_is_refused_a_link_ends() {
    let mut mini = Mini::start(&[1, 1, 1]);
    let leader = mini.leader().unwrap();
    let away = (leader + 1) % 3;
    (0..3).filter(|other| *other != away).for_each(|other| mini.cut(away, other));
    changed(&mini.operate_now(leader, remove(away)));
    let node = NodeId(leader as u32);
    mini.step(away, Input::TurnedAway { node });
    assert_eq!(mini.nodes[away].finished, Some(Err(ClusterError::Removed)));
    // A blank node may have dialled the wrong cluster.
    let mut blank = settings(away as u32, &[1, 1, 1]);
    blank.identity = Identity::new(away as u32, 999);
    mini.boot(blank);
    mini.step(away, Input::TurnedAway { node });
    assert_eq!(mini.nodes[away].replica.phase(), Phase::Forming);
}

/// Three nodes, of which node 2 does not lead. In its place a blank one has come, which is a
/// learner that waits for the state: the leader, and the former self, which is away.
fn learner_in_place() -> (Mini, usize, MiniNode) {
    let mut mini = Mini::start(&[1, 1, 1]);
    if mini.leader() == Some(2) {
        mini.operate_now(2, AdminRequest::TransferLeadership { to: NodeId(0) });
    }
    let leader = mini.leader().unwrap();
    (0..2).for_each(|other| mini.cut(2, other));
    let former = mini.nodes.pop().unwrap();
    let mut again = settings(2, &[1, 1, 1]);
    again.identity = Identity::new(2, 999);
    mini.boot(again);
    mini.hold(|_, _, message| matches!(message, PeerMessage::Image(_)));
    mini.link(2, leader);
    mini.run_until("a learner", |mini| ranks(mini, leader).contains(&(2, 0)));
    (mini, leader, former)
}

/// The learner is gone, and the former self is back.
fn former_is_back(mini: &mut Mini, leader: usize, former: MiniNode) {
    mini.cut(2, leader);
    mini.release();
    mini.nodes.pop();
    mini.nodes.push(former);
    (0..2).for_each(|other| mini.link(2, other));
}

#[test]
fn a_learner_whose_former_self_is_back_is_forgotten() {
    let (mut mini, leader, former) = learner_in_place();
    former_is_back(&mut mini, leader, former);
    let wanted = [(0, 1), (1, 1), (2, 1)];
    mini.run_until("it is forgotten", |mini| (0..3).all(|node| ranks(mini, node) == wanted));
    mini.commit(2, "by the former self");
}

#[test]
fn of_two_learners_of_one_node_the_one_that_is_away_is_forgotten() {
    let (mut mini, leader, former) = learner_in_place();
    mini.cut(2, leader);
    mini.operate_now(leader, set_rank(2, 0));
    mini.run_until("two learners", |mini| ranks(mini, leader)[2..] == [(2, 0), (2, 0)]);
    let former_self = former.identity;
    former_is_back(&mut mini, leader, former);
    let wanted = [(0, 1), (1, 1), (2, 0)];
    mini.run_until("it is forgotten", |mini| (0..3).all(|node| ranks(mini, node) == wanted));
    let config = mini.nodes[leader].replica.core().unwrap().config().clone();
    assert!(config.contains(former_self), "{config:?}");
    mini.commit(2, "by the former self");
}

#[test]
fn a_learner_that_made_way_for_its_former_self_may_come_again() {
    let (mut mini, leader, former) = learner_in_place();
    mini.cut(2, leader);
    mini.release();
    let learner = mini.nodes.pop().unwrap();
    mini.nodes.push(former);
    (0..2).for_each(|other| mini.link(2, other));
    let wanted = [(0, 1), (1, 1), (2, 1)];
    mini.run_until("it is forgotten", |mini| ranks(mini, leader) == wanted);
    (0..2).for_each(|other| mini.cut(2, other));
    mini.nodes.pop();
    let identity = learner.identity;
    mini.nodes.push(learner);
    (0..2).for_each(|other| mini.link(2, other));
    mini.run_until("ready", |mini| ready(mini, 2));
    assert_eq!(mini.nodes[leader].replica.core().unwrap().config().rank_of(identity), 1);
    mini.commit(2, "by the new self");
}

#[test]
fn a_learner_that_was_forgotten_when_its_former_self_left_may_come_again() {
    let (mut mini, leader, former) = learner_in_place();
    mini.cut(2, leader);
    let learner = mini.nodes.pop().unwrap();
    mini.nodes.push(former);
    // It asks to leave before the leader sees that it is back.
    mini.hold(|from, _, message| from == 2 && matches!(message, PeerMessage::Standing(_)));
    mini.link(2, leader);
    mini.step(2, Input::Detach);
    mini.run_until("it is out", |mini| mini.nodes[2].finished.is_some());
    assert_eq!(ranks(&mini, leader), [(0, 1), (1, 1)]);
    mini.cut(2, leader);
    mini.release();
    mini.nodes.pop();
    mini.nodes.push(learner);
    (0..2).for_each(|other| mini.link(2, other));
    mini.run_until("ready", |mini| ready(mini, 2));
    mini.commit(2, "by the new self");
}

#[test]
fn a_learner_that_left_is_not_taken_in_again_by_the_next_leader() {
    let mut mini = Mini::start(&[1, 1, 0]);
    let leader = mini.leader().unwrap();
    let next = 1 - leader;
    mini.hold(move |from, to, message| {
        (from, to) == (2, next) && matches!(message, PeerMessage::Leave)
    });
    mini.step(2, Input::Detach);
    mini.run_until("the learner is out", |mini| mini.nodes[2].finished.is_some());
    mini.cut(2, leader);
    // The next leader has not noticed yet that the learner is gone.
    mini.step(leader, Input::Detach);
    mini.run_until("the leader is out", |mini| mini.nodes[leader].finished.is_some());
    mini.cut(leader, next);
    mini.run_until("another leads", |mini| mini.leader() == Some(next));
    mini.run(200);
    assert_eq!(ranks(&mini, next), [(next as u32, 1)]);
    mini.step(next, Input::Detach);
    mini.run_until("the last one is out", |mini| mini.nodes[next].finished.is_some());
    assert!(matches!(mini.nodes[next].finished, Some(Ok(()))));
}

#[test]
fn a_learner_whose_other_self_came_and_left_is_taken_in_again() {
    let mut mini = Mini::start(&[1, 1, 0]);
    let leader = mini.leader().unwrap();
    (0..2).for_each(|other| mini.cut(2, other));
    let former = mini.nodes.pop().unwrap();
    let mut again = settings(2, &[1, 1, 0]);
    again.identity = Identity::new(2, 999);
    mini.boot(again);
    (0..2).for_each(|other| mini.link(2, other));
    mini.run_until("the other self", |mini| ready(mini, 2));
    mini.step(2, Input::Detach);
    mini.run_until("it is out", |mini| mini.nodes[2].finished.is_some());
    (0..2).for_each(|other| mini.cut(2, other));
    mini.commit(0, "while nobody is there");
    mini.nodes.pop();
    let identity = former.identity;
    mini.nodes.push(former);
    (0..2).for_each(|other| mini.link(2, other));
    mini.run_until("the former self", |mini| {
        let config = mini.nodes[leader].replica.core().unwrap().config().clone();
        config.contains(identity) && ready(mini, 2) && mini.nodes[2].knows("while nobody is there")
    });
    mini.commit(2, "by the former self");
}

#[test]
fn a_late_word_that_a_member_is_out_changes_nothing() {
    let mut mini = Mini::start(&[1, 1, 1]);
    let leader = mini.leader().unwrap();
    let member = (leader + 1) % 3;
    let from = mini.nodes[leader].identity;
    mini.step(member, Input::Receive { from, message: PeerMessage::Left });
    mini.run_until("in again", |mini| ready(mini, member));
    mini.commit(member, "as before");
}

/// Whether a newcomer whose image takes longer than its link ever lasts gets its rank.
fn joins_over_a_link_that_breaks(cut_ms: u64) -> bool {
    let tweak = |settings: &mut ReplicaSettings| {
        settings.image_piece_objects = 1;
        settings.departed_after_ms = 3_000; // the default
    };
    let mut mini = Mini::start_with(&[1, 1, 1], tweak);
    let leader = mini.leader().unwrap();
    for number in 0..400 {
        mini.commit(leader, &format!("fact {number}"));
    }
    let slow = (leader + 1) % 3;
    let mut again = settings(slow as u32, &[1, 1, 1]);
    tweak(&mut again);
    again.identity = Identity::new(slow as u32, 999);
    mini.boot(again);
    for _ in 0..20 {
        (0..3).filter(|other| *other != slow).for_each(|other| mini.link(slow, other));
        mini.run(200);
        if ready(&mini, slow) {
            return true;
        }
        (0..3).filter(|other| *other != slow).for_each(|other| mini.cut(slow, other));
        mini.run(cut_ms);
    }
    false
}

#[test]
fn a_slow_newcomer_joins_over_a_link_that_breaks_again_and_again() {
    assert!(joins_over_a_link_that_breaks(2_000));
    assert!(joins_over_a_link_that_breaks(4_000));
}

#[test]
fn a_leader_is_in_whatever_somebody_says() {
    let mut mini = Mini::start(&[1, 1, 1]);
    let leader = mini.leader().unwrap();
    let from = mini.nodes[(leader + 1) % 3].identity;
    mini.step(leader, Input::Receive { from, message: PeerMessage::Left });
    mini.run(2_000);
    assert!(ready(&mini, leader));
}

#[test]
fn a_newcomer_that_went_away_does_not_keep_the_last_voter() {
    let mut mini = Mini::start(&[1]);
    changed(&mini.operate_now(0, add("second:1", 1)));
    mini.boot(settings(1, &[1, 1]));
    mini.hold(|_, _, message| matches!(message, PeerMessage::Image(_)));
    mini.link(1, 0);
    mini.run_until("a newcomer", |mini| ranks(mini, 0) == [(0, 1), (1, 0)]);
    mini.cut(1, 0);
    mini.run_until("it is given up", |mini| ranks(mini, 0) == [(0, 1)]);
    mini.step(0, Input::Detach);
    mini.run_until("the last one is out", |mini| mini.nodes[0].finished.is_some());
    assert!(matches!(mini.nodes[0].finished, Some(Ok(()))));
}

#[test]
fn a_newcomer_that_was_given_up_may_come_again() {
    let mut mini = four();
    let leader = mini.leader().unwrap();
    (0..3).for_each(|node| mini.cut(3, node));
    let mut again = settings(3, &[1, 1, 1, 2]);
    again.identity = Identity::new(3, 999);
    mini.boot(again);
    mini.hold(|_, to, message| to == 3 && matches!(message, PeerMessage::Image(_)));
    (0..3).for_each(|node| mini.link(3, node));
    mini.run_until("a newcomer", |mini| ranks(mini, leader).contains(&(3, 0)));
    (0..3).for_each(|node| mini.cut(3, node));
    mini.release();
    mini.run_until("it is given up", |mini| !ranks(mini, leader).contains(&(3, 0)));
    (0..3).for_each(|node| mini.link(3, node));
    mini.run_until("ready", |mini| ready(mini, 3));
    mini.commit(3, "by the newcomer");
}

#[test]
fn a_voter_that_lost_its_place_to_one_that_died_may_come_again() {
    let (mut mini, leader, former) = learner_in_place();
    mini.release();
    mini.link(2, 1 - leader);
    mini.run_until("ready", |mini| ready(mini, 2));
    assert_eq!(mini.nodes[leader].replica.core().unwrap().config().rank_of(former.identity), 0);
    (0..2).for_each(|other| mini.cut(2, other));
    mini.nodes.pop();
    let identity = former.identity;
    mini.nodes.push(former);
    (0..2).for_each(|other| mini.link(2, other));
    mini.run_until("ready again", |mini| {
        let config = mini.nodes[leader].replica.core().unwrap().config().clone();
        ready(mini, 2) && config.rank_of(identity) == 1
    });
    mini.commit(2, "by the former self");
}

#[test]
fn a_removed_node_whose_vote_is_needed_is_in_reach_of_newcomers_too() {
    let mut mini = Mini::start(&[1, 1, 1]);
    if mini.leader() == Some(2) {
        mini.operate_now(2, AdminRequest::TransferLeadership { to: NodeId(0) });
    }
    let leader = mini.leader().unwrap();
    let gone = 1 - leader;
    // Node 2 is lost, so the other two must both agree to anything.
    (0..2).for_each(|other| mini.cut(2, other));
    mini.run(100);
    mini.operate(leader, remove(gone));
    mini.run(100);
    let mut again = settings(2, &[1, 1, 1]);
    again.identity = Identity::new(2, 999);
    mini.boot(again);
    // What the newcomer gets holds the new roster. It has no rank as long as it does not say so.
    mini.hold(|from, _, message| {
        let member = matches!(message, PeerMessage::Standing(Standing::Member(..)));
        from == 2 && (member || matches!(message, PeerMessage::Installed { .. }))
    });
    mini.link(2, leader);
    mini.run_until("the state", |mini| mini.nodes[2].replica.phase() == Phase::Member);
    assert!(ranks(&mini, leader).contains(&(gone as u32, 1)), "its vote is needed");
    let listed = mini.nodes[2].listed[gone].as_ref();
    assert_eq!(listed.unwrap().addr, format!("node-{gone}:1"));
    mini.release();
    mini.run_until("it is out", |mini| mini.nodes[gone].finished.is_some());
    mini.run_until("ready", |mini| ready(mini, 2));
    mini.run_until("forgotten", |mini| mini.nodes[2].listed[gone].is_none());
}
