//! Scripted cases, one rule each; the name says what must hold.

use quorate_consensus::{
    Body, Config, ConfigError, Core, Entry, EntryIndex, HardState, Identity, Input, Member,
    Message, MessageBody, Output, Payload, Refusal, Role, Settings, Start, StepDown, Term,
};

use crate::world::{World, id, members};

/// A running cluster with a leader that committed in its term; without disks.
fn cluster(ranks: &[u32]) -> (World, usize) {
    let mut world = World::new(Settings::default(), ranks, true, 1);
    world.run(1000);
    let leader = world.leader().expect("a leader");
    assert!(world.core(leader).has_committed_in_term());
    (world, leader)
}

/// The same, with node 0 leading.
fn led_by_first(ranks: &[u32]) -> World {
    let (mut world, leader) = cluster(ranks);
    if leader != 0 {
        world.step(leader, Input::TransferLeadership { to: id(0) });
        world.run(100);
    }
    assert_eq!(world.leader(), Some(0));
    world
}

/// The node falls silent in both directions; its connections stay.
fn isolate(world: &mut World, node: usize) {
    for other in (0..world.nodes.len()).filter(|other| *other != node) {
        world.cut.insert((node, other));
        world.cut.insert((other, node));
    }
}

fn kill(world: &mut World, node: usize) {
    world.crash(node);
    for other in (0..world.nodes.len()).filter(|other| *other != node) {
        world.step(other, Input::PeerDown { peer: id(node as u32) });
    }
}

fn saw(world: &World, node: usize, wanted: impl Fn(&Output) -> bool) -> bool {
    world.nodes[node].events.iter().any(wanted)
}

/// Proposes and returns the refusal, if any.
fn refusal(world: &mut World, node: usize, input: Input) -> Option<Refusal> {
    world.nodes[node].events.clear();
    world.step(node, input);
    world.nodes[node].events.iter().find_map(|output| match output {
        Output::ProposalRefused { reason } => Some(reason.clone()),
        _ => None,
    })
}

fn window(bytes: usize) -> Input {
    Input::Propose { first_index: 1, count: 1, payload: Payload::from(vec![0; bytes]) }
}

fn is_clean(world: &World) {
    assert!(world.truth.errors.is_empty(), "{:#?}", world.truth.errors);
}

#[test]
fn a_single_node_leads_and_commits_by_itself() {
    let (mut world, _) = cluster(&[1]);
    world.propose(0);
    assert_eq!(world.core(0).commit(), world.core(0).last().0);
}

#[test]
fn a_broken_connection_to_the_leader_costs_at_most_fifty_ticks() {
    for ranks in [&[1, 1, 1][..], &[1, 1, 1, 1, 1], &[2, 2, 1]] {
        for seed in 0..50 {
            let mut world = World::new(Settings::default(), ranks, true, seed);
            world.run(1000);
            let old = world.leader().unwrap();
            kill(&mut world, old);
            world.run(50);
            let leader = world.leader().expect("a new leader in time");
            assert!(world.core(leader).has_committed_in_term(), "{ranks:?} seed {seed}");
            is_clean(&world);
        }
    }
}

#[test]
fn a_silent_leader_is_suspected_after_the_election_timeout_and_not_before() {
    let (mut world, old) = cluster(&[1, 1, 1]);
    let term = world.core(old).term();
    isolate(&mut world, old);
    world.run(240);
    let others = |world: &World| (0..3).filter(|n| *n != old).map(|n| world.core(n).term()).max();
    assert_eq!(others(&world), Some(term));
    world.run(400);
    assert!(world.leader().is_some_and(|leader| leader != old));
    is_clean(&world);
}

#[test]
fn the_highest_rank_leads_when_logs_are_equal() {
    for seed in 0..20 {
        let mut world = World::new(Settings::default(), &[1, 3, 2, 2], true, seed);
        world.run(1000);
        assert_eq!(world.leader(), Some(1), "seed {seed}");
        kill(&mut world, 1);
        world.run(100);
        assert_eq!(world.leader(), Some(2), "seed {seed}");
    }
}

#[test]
fn a_node_that_was_cut_off_does_not_disturb_when_it_returns() {
    let (mut world, leader) = cluster(&[1, 1, 1]);
    let (term, lonely) = (world.core(leader).term(), (leader + 1) % 3);
    isolate(&mut world, lonely);
    world.run(3000);
    assert_eq!(world.core(lonely).term(), term);
    world.cut.clear();
    world.run(1000);
    assert_eq!((world.leader(), world.core(leader).term()), (Some(leader), term));
    assert_eq!(world.core(lonely).leader(), Some(id(leader as u32)));
}

#[test]
fn one_broken_link_to_the_leader_does_not_disturb() {
    let mut world = led_by_first(&[1, 1, 1]);
    let term = world.core(0).term();
    world.cut.extend([(0, 1), (1, 0)]);
    world.step(1, Input::PeerDown { peer: id(0) });
    world.step(0, Input::PeerDown { peer: id(1) });
    world.run(3000);
    assert_eq!((world.leader(), world.core(0).term()), (Some(0), term));
    assert_eq!(world.core(1).term(), term);
}

#[test]
fn a_leader_that_hears_no_quorum_steps_down_and_refuses() {
    let (mut world, leader) = cluster(&[1, 1, 1]);
    isolate(&mut world, leader);
    world.run(400);
    assert_eq!(world.core(leader).role(), Role::Follower);
    let lost = |o: &Output| *o == Output::SteppedDown { reason: StepDown::LostQuorum };
    assert!(saw(&world, leader, lost));
    let refused = refusal(&mut world, leader, window(1));
    assert_eq!(refused, Some(Refusal::NotLeader { leader: None }));
}

#[test]
fn a_leader_whose_connections_broke_steps_down_at_once() {
    let (mut world, leader) = cluster(&[1, 1, 1]);
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    world.step(leader, Input::PeerDown { peer: id(others[0] as u32) });
    assert_eq!(world.core(leader).role(), Role::Leader);
    world.step(leader, Input::PeerDown { peer: id(others[1] as u32) });
    assert_eq!(world.core(leader).role(), Role::Follower);
    assert!(!world.core(leader).connected_quorum());
}

#[test]
fn equal_three_commit_at_every_node_in_one_round_trip() {
    let mut world = led_by_first(&[1, 1, 1]);
    world.propose(0);
    let (last, _) = world.core(0).last();
    // One way: the followers prove it although the leader has heard nothing yet.
    for packet in std::mem::take(&mut world.packets) {
        world.deliver(packet);
    }
    assert!(world.core(0).commit() < last);
    for follower in [1, 2] {
        assert_eq!(world.core(follower).commit(), last);
        let early = |o: &Output| *o == Output::Commit { upto: last, early: true };
        assert!(saw(&world, follower, early));
    }
    // And back.
    for packet in std::mem::take(&mut world.packets) {
        world.deliver(packet);
    }
    assert_eq!(world.core(0).commit(), last);
    // Nobody needs to be told.
    assert!(world.packets.is_empty());
}

#[test]
fn followers_that_cannot_prove_a_commit_are_told_at_once() {
    let mut world = led_by_first(&[1, 1, 1, 1, 1]);
    world.propose(0);
    let (last, _) = world.core(0).last();
    for packet in std::mem::take(&mut world.packets) {
        world.deliver(packet);
    }
    assert!((1..5).all(|n| world.core(n).commit() < last));
    world.settle();
    assert!((0..5).all(|n| world.core(n).commit() == last));
}

#[test]
fn commits_of_earlier_terms_wait_for_an_entry_of_the_leaders_own() {
    let (mut core, mut out) = (leader_with_old_entry(), Vec::new());
    let term = core.term();
    core.step(2000, accept(1, term), &mut out);
    assert_eq!(core.commit(), EntryIndex(0));
    assert!(!core.has_committed_in_term());
    core.step(2000, accept(2, term), &mut out);
    assert_eq!(core.commit(), EntryIndex(2));
    assert!(core.has_committed_in_term());
}

/// Leads term 2 with an entry of term 1 and its own opening entry, all durable, nothing committed.
fn leader_with_old_entry() -> Core {
    let mut start = Start::genesis(Config::new(members(&[1, 1, 1])).unwrap());
    start.hard = HardState { term: Term(1), vote: None };
    start.entries = vec![Entry { index: EntryIndex(1), term: Term(1), body: Body::Noop }];
    let mut core = Core::new(Settings::default(), id(0), start, 0);
    let mut out = Vec::new();
    core.step(0, Input::PeerUp { peer: id(1) }, &mut out);
    core.step(1000, Input::Tick { random: 1 }, &mut out);
    let answers =
        [MessageBody::PreVoteAnswer { granted: true }, MessageBody::VoteAnswer { granted: true }];
    for (body, sequence) in answers.into_iter().zip([1, 2]) {
        let message = Message { term: Term(2), body };
        core.step(1000, Input::Receive { from: id(1), message }, &mut out);
        core.step(1000, Input::Persisted { sequence }, &mut out);
    }
    assert_eq!((core.role(), core.last().0, core.durable().0), (Role::Leader, EntryIndex(2), 2));
    core
}

fn accept(matched: u64, term: Term) -> Input {
    let matched = EntryIndex(matched);
    let body =
        MessageBody::AppendAnswer { matched, matched_term: Term(0), accepted: true, round: 0 };
    Input::Receive { from: id(1), message: Message { term, body } }
}

fn append(previous: (u64, u64), entries: Vec<Entry>, durable: u64, term: Term) -> Input {
    let body = MessageBody::Append {
        previous: EntryIndex(previous.0),
        previous_term: Term(previous.1),
        entries,
        commit: EntryIndex(0),
        durable: EntryIndex(durable),
        round: 0,
    };
    Input::Receive { from: id(0), message: Message { term, body } }
}

fn noop(index: u64, term: u64) -> Entry {
    Entry { index: EntryIndex(index), term: Term(term), body: Body::Noop }
}

#[test]
fn early_commit_needs_the_current_term_and_both_copies_durable() {
    let start = Start::genesis(Config::new(members(&[1, 1, 1])).unwrap());
    let mut core = Core::new(Settings::default(), id(1), start, 0);
    let (term, mut out) = (Term(2), Vec::new());
    core.step(0, Input::PeerUp { peer: id(0) }, &mut out);
    // Of an earlier term.
    core.step(0, append((0, 0), vec![noop(1, 1)], 1, term), &mut out);
    core.step(0, Input::Persisted { sequence: 1 }, &mut out);
    assert_eq!((core.durable(), core.commit()), (EntryIndex(1), EntryIndex(0)));
    // Of the current one, not durable here.
    core.step(0, append((1, 1), vec![noop(2, 2), noop(3, 2)], 2, term), &mut out);
    assert_eq!(core.commit(), EntryIndex(0));
    // Durable here, and at the leader only the first of both.
    core.step(0, Input::Persisted { sequence: 2 }, &mut out);
    assert_eq!((core.durable(), core.commit()), (EntryIndex(3), EntryIndex(2)));
}

#[test]
fn a_stale_suffix_is_neither_acknowledged_nor_committed() {
    let mut start = Start::genesis(Config::new(members(&[1, 1, 1])).unwrap());
    start.hard.term = Term(1);
    start.entries = vec![noop(1, 1), noop(2, 1), noop(3, 1)];
    let mut core = Core::new(Settings::default(), id(1), start, 0);
    let mut out = Vec::new();
    // A heartbeat of a later leader whose log agrees up to 1; it claims that 3 is committed.
    let body = MessageBody::Append {
        previous: EntryIndex(1),
        previous_term: Term(1),
        entries: Vec::new(),
        commit: EntryIndex(3),
        durable: EntryIndex(3),
        round: 9,
    };
    let message = Message { term: Term(2), body };
    core.step(0, Input::Receive { from: id(0), message }, &mut out);
    assert_eq!(core.commit(), EntryIndex(1));
    let acknowledged = out.iter().find_map(|output| match output {
        Output::Send {
            message: Message { body: MessageBody::AppendAnswer { matched, round, .. }, .. },
            ..
        } => Some((*matched, *round)),
        _ => None,
    });
    assert_eq!(acknowledged, Some((EntryIndex(1), 9)));
}

#[test]
fn truncation_brings_the_previous_configuration_back() {
    let old = Config::new(members(&[1, 1, 1])).unwrap();
    let new = Config::new(members(&[2, 1, 1])).unwrap();
    let mut start = Start::genesis(old.clone());
    start.hard.term = Term(1);
    let body = Body::Config(new.clone());
    start.entries =
        vec![noop(1, 1), Entry { index: EntryIndex(2), term: Term(1), body }, noop(3, 1)];
    let mut core = Core::new(Settings::default(), id(1), start, 0);
    assert_eq!(core.config(), &new);
    assert_eq!(core.committed_config(), (EntryIndex(0), &old));
    let mut out = Vec::new();
    core.step(0, append((1, 1), vec![noop(2, 2)], 0, Term(2)), &mut out);
    assert_eq!(core.config(), &old);
    assert!(out.contains(&Output::Truncated { from: EntryIndex(2) }));
    assert!(out.contains(&Output::ConfigInForce { index: EntryIndex(0), config: old }));
}

#[test]
fn promises_leave_only_after_what_they_promise() {
    let start = Start::genesis(Config::new(members(&[1, 1, 1])).unwrap());
    let mut core = Core::new(Settings::default(), id(1), start, 0);
    let body = MessageBody::Vote { last: EntryIndex(0), last_term: Term(0), transfer: false };
    let inputs = [
        Input::Receive { from: id(0), message: Message { term: Term(1), body } },
        append((0, 0), vec![noop(1, 1)], 0, Term(1)),
    ];
    for (input, expected) in inputs.into_iter().zip([1, 2]) {
        let mut out = Vec::new();
        core.step(0, input, &mut out);
        assert!(matches!(out[0], Output::Persist { sequence, .. } if sequence == expected));
        let sends = out.iter().filter(|output| matches!(output, Output::Send { .. }));
        for send in sends {
            assert!(matches!(send, Output::Send { after, .. } if *after == expected), "{send:?}");
        }
    }
}

#[test]
fn a_vote_survives_a_restart() {
    let mut start = Start::genesis(Config::new(members(&[1, 1, 1])).unwrap());
    start.hard = HardState { term: Term(3), vote: Some(id(2)) };
    let mut core = Core::new(Settings::default(), id(1), start, 0);
    for (candidate, expected) in [(0, false), (2, true)] {
        let body = MessageBody::Vote { last: EntryIndex(0), last_term: Term(0), transfer: false };
        let mut out = Vec::new();
        let message = Message { term: Term(3), body };
        core.step(0, Input::Receive { from: id(candidate), message }, &mut out);
        let body = MessageBody::VoteAnswer { granted: expected };
        let message = Message { term: Term(3), body };
        assert_eq!(out, [Output::Send { to: id(candidate), message, after: 0 }]);
    }
}

#[test]
fn a_joint_change_needs_both_halves() {
    let mut world = led_by_first(&[1, 1, 1, 0, 0]);
    for node in [3, 4] {
        isolate(&mut world, node);
    }
    let next = members(&[1, 0, 0, 1, 1]);
    assert_eq!(refusal(&mut world, 0, Input::ProposeConfig { members: next.clone() }), None);
    let (joint, _) = world.core(0).last();
    world.run(200);
    // All of the old half hold it, one third of the new one.
    assert!(world.core(0).config().is_joint());
    assert!(world.core(0).commit() < joint);
    let again = refusal(&mut world, 0, Input::ProposeConfig { members: next.clone() });
    assert_eq!(again, Some(Refusal::ConfigPending));
    world.cut.clear();
    world.run(1000);
    let leader = world.leader().unwrap();
    assert_eq!(world.core(leader).config(), &Config { current: next, next: None });
    assert!(!world.core(leader).pending_config());
    is_clean(&world);
}

#[test]
fn a_leader_without_rank_in_the_new_configuration_hands_over_after_committing_it() {
    let mut world = led_by_first(&[1, 1, 1]);
    let next = members(&[1, 1, 1])[1..].to_vec();
    assert_eq!(refusal(&mut world, 0, Input::ProposeConfig { members: next.clone() }), None);
    world.settle();
    let gone = |o: &Output| *o == Output::SteppedDown { reason: StepDown::NoRank };
    assert!(saw(&world, 0, gone));
    world.run(20);
    let leader = world.leader().expect("the heir leads at once");
    assert_ne!(leader, 0);
    world.propose(leader);
    world.run(20);
    assert_eq!(world.core(leader).config().current, next);
    assert_eq!(world.core(leader).commit(), world.core(leader).last().0);
    is_clean(&world);
}

#[test]
fn changes_of_members_are_refused_when_they_make_no_sense() {
    let mut world = led_by_first(&[1, 1, 1]);
    let propose = |ranks: &[u32]| Input::ProposeConfig { members: members(ranks) };
    let invalid = |error| Some(Refusal::InvalidConfig(error));
    assert_eq!(refusal(&mut world, 0, propose(&[0, 0, 0])), invalid(ConfigError::NoRank));
    assert_eq!(refusal(&mut world, 0, propose(&[1, 1, 1])), invalid(ConfigError::Unchanged));
    let far = propose(&[1, 1, 1, 9]);
    assert_eq!(refusal(&mut world, 0, far), invalid(ConfigError::OutOfReach));
    let elsewhere = refusal(&mut world, 1, propose(&[1, 1]));
    assert_eq!(elsewhere, Some(Refusal::NotLeader { leader: Some(id(0)) }));
    let mut fresh = leader_with_old_entry();
    let mut out = Vec::new();
    fresh.step(1000, propose(&[1, 1]), &mut out);
    assert_eq!(out, [Output::ProposalRefused { reason: Refusal::NotReady }]);
}

#[test]
fn learners_never_count_and_never_campaign() {
    let mut world = led_by_first(&[1, 0, 0]);
    world.propose(0);
    // Alone it is the quorum.
    assert_eq!(world.core(0).commit(), world.core(0).last().0);
    world.settle();
    kill(&mut world, 0);
    world.run(3000);
    assert_eq!(world.leader(), None);
    assert!([1, 2].iter().all(|n| world.core(*n).role() == Role::Follower));
}

/// Node 1 led, and its log alone has a change that gives node 3 most of the rank. Node 0 led after
/// it, and nobody but node 3 has anything of that. Node 2 has neither. Now node 0 is gone: 1 needs
/// the vote of 3, whose log is newer, 2 that of 1, whose log is longer, and 3 knows of no rank.
#[test]
fn a_learner_whose_vote_is_needed_and_whose_log_is_the_newest_leads_until_others_can() {
    let (mut world, leader) = cluster(&[1, 1, 1, 0]);
    if leader != 1 {
        world.step(leader, Input::TransferLeadership { to: id(1) });
        world.run(100);
    }
    assert_eq!(world.leader(), Some(1));
    isolate(&mut world, 1);
    world.step(1, window(8));
    world.step(1, Input::ProposeConfig { members: members(&[1, 1, 1, 3]) });
    world.core(1).config().next.as_ref().expect("a joint change that only node 1 has");
    // The packets of the next leader's election arrive, but none to node 2 after it.
    for _ in 0..10_000 {
        if world.core(0).role() == Role::Leader {
            break;
        }
        (0..4).for_each(|node| world.sync(node));
        if world.packets.is_empty() {
            world.pass(2);
        } else {
            let packet = world.packets.remove(0);
            world.deliver(packet);
        }
    }
    assert_eq!(world.core(0).role(), Role::Leader);
    world.cut.insert((0, 2));
    world.step(0, window(8));
    world.run(100);
    let last = |world: &World, node| world.core(node).last();
    assert!(last(&world, 3).1 > last(&world, 1).1, "the newest term's entries");
    assert_eq!(last(&world, 1).1, last(&world, 2).1);
    assert!(last(&world, 1) > last(&world, 2), "the longer log of an older term");
    kill(&mut world, 0);
    world.cut.clear();
    world.run(5_000);
    let leader = world.leader().expect("one and two are a quorum, and reach each other");
    assert!([1, 2].contains(&leader), "who has no rank does not go on leading");
    assert!(world.core(leader).has_committed_in_term());
}

#[test]
fn ranks_decide_who_may_be_lost() {
    let mut world = led_by_first(&[2, 1, 1]);
    kill(&mut world, 1);
    world.propose(0);
    world.settle();
    assert_eq!(world.core(0).commit(), world.core(0).last().0);
    let mut world = led_by_first(&[2, 1, 1]);
    kill(&mut world, 0);
    world.run(3000);
    assert_eq!(world.leader(), None);
}

#[test]
fn leadership_goes_where_it_is_sent() {
    let mut world = led_by_first(&[3, 1, 1, 1]);
    let term = world.core(0).term();
    world.step(0, Input::TransferLeadership { to: id(2) });
    let refused = refusal(&mut world, 0, window(1));
    assert!(matches!(refused, Some(Refusal::Transferring)), "{refused:?}");
    world.settle();
    assert_eq!((world.leader(), world.core(2).term()), (Some(2), Term(term.0 + 1)));
    is_clean(&world);
}

#[test]
fn a_transfer_to_a_silent_node_is_given_up() {
    let mut world = led_by_first(&[1, 1, 1]);
    isolate(&mut world, 2);
    world.step(0, Input::TransferLeadership { to: id(2) });
    world.run(400);
    assert_eq!(world.leader(), Some(0));
    assert_eq!(refusal(&mut world, 0, window(1)), None);
}

#[test]
fn a_veto_ends_leading_but_not_acknowledging() {
    let mut world = led_by_first(&[1, 1, 1]);
    world.step(0, Input::Veto { on: true });
    assert_eq!(world.core(0).role(), Role::Follower);
    assert_eq!(refusal(&mut world, 0, window(1)), Some(Refusal::Vetoed));
    world.run(1000);
    let leader = world.leader().unwrap();
    assert_ne!(leader, 0);
    kill(&mut world, 3 - leader);
    world.propose(leader);
    world.run(100);
    assert_eq!(world.core(0).commit(), world.core(leader).last().0);
    kill(&mut world, leader);
    world.run(2000);
    assert_eq!(world.core(0).role(), Role::Follower);
}

#[test]
fn a_node_that_forgot_returns_as_another_and_gets_its_rank_back() {
    let mut world = led_by_first(&[1, 1, 1]);
    for _ in 0..10 {
        world.propose(0);
    }
    world.settle();
    let upto = world.core(0).commit();
    world.step(0, Input::Compact { upto });
    assert_eq!(world.core(0).first(), upto.next());
    kill(&mut world, 2);
    world.boot(2);
    let new = Identity::new(2, 2);
    assert_eq!(world.nodes[2].identity, new);
    let mut list = members(&[1, 1, 1]);
    list.push(Member { identity: new, rank: 0 });
    assert_eq!(refusal(&mut world, 0, Input::ProposeConfig { members: list.clone() }), None);
    world.run(200);
    assert_eq!(world.truth.images, 1);
    let progress = world.core(0).progress(new).unwrap();
    assert_eq!((progress.matched, progress.needs_image), (world.core(0).last().0, false));
    // One message with both: the old life loses its rank, the new one gets it.
    list[2].rank = 0;
    list[3].rank = 1;
    assert_eq!(refusal(&mut world, 0, Input::ProposeConfig { members: list }), None);
    world.run(200);
    assert_eq!(world.core(2).config().rank_of(new), 1);
    assert!(!world.core(0).pending_config());
    kill(&mut world, 1);
    world.propose(0);
    world.run(100);
    assert_eq!(world.core(2).commit(), world.core(0).last().0);
    is_clean(&world);
}

#[test]
fn what_an_earlier_life_says_counts_for_nothing() {
    let mut core = leader_with_old_entry();
    let term = core.term();
    let body = MessageBody::AppendAnswer {
        matched: EntryIndex(2),
        matched_term: Term(0),
        accepted: true,
        round: 0,
    };
    let from = Identity::new(1, 99);
    let before = core.clone();
    core.step(1000, Input::Receive { from, message: Message { term, body } }, &mut Vec::new());
    assert_eq!(core, before);
    let body = MessageBody::VoteAnswer { granted: false };
    let message = Message { term: Term(50), body };
    core.step(1000, Input::Receive { from, message }, &mut Vec::new());
    assert_eq!(core, before);
}

#[test]
fn a_fresh_read_waits_for_a_quorum_that_answers_after_it() {
    let mut world = led_by_first(&[1, 1, 1]);
    world.propose(0);
    world.settle();
    world.nodes[0].events.clear();
    let ready = |o: &Output| matches!(o, Output::ReadReady { token: 7, .. });
    world.step(0, Input::ReadIndex { token: 7 });
    assert!(!saw(&world, 0, ready));
    world.settle();
    let index = world.core(0).commit();
    assert!(saw(&world, 0, |o| *o == Output::ReadReady { token: 7, index }));
    // A leader that was replaced without noticing must not answer.
    isolate(&mut world, 0);
    world.nodes[0].events.clear();
    world.step(0, Input::ReadIndex { token: 7 });
    world.run(1000);
    assert!(!saw(&world, 0, ready));
    assert!(saw(&world, 0, |o| matches!(o, Output::ReadRefused { token: 7, .. })));
    let follower = world.leader().map(|leader| 3 - leader).unwrap();
    world.step(follower, Input::ReadIndex { token: 8 });
    assert!(saw(&world, follower, |o| matches!(o, Output::ReadRefused { token: 8, .. })));
}

#[test]
fn a_read_covers_what_a_follower_committed_before_its_leader() {
    let mut world = led_by_first(&[1, 1, 1]);
    world.propose(0);
    for packet in std::mem::take(&mut world.packets) {
        world.deliver(packet);
    }
    let ahead = world.core(1).commit();
    assert!(ahead > world.core(0).commit());
    let answers = std::mem::take(&mut world.packets);
    world.step(0, Input::ReadIndex { token: 1 });
    world.settle();
    assert!(saw(&world, 0, |o| *o == Output::ReadReady { token: 1, index: ahead }));
    assert!(!answers.is_empty());
}

#[test]
fn a_follower_that_does_not_answer_gets_a_bounded_number_of_appends() {
    let mut world = led_by_first(&[1, 1, 1]);
    world.propose(0);
    world.settle();
    isolate(&mut world, 2);
    for _ in 0..200 {
        world.propose(0);
    }
    let to_silent = world.packets.iter().filter(|packet| packet.to == id(2)).count();
    assert_eq!(to_silent, Settings::default().max_in_flight);
    world.settle();
    assert_eq!(world.core(0).commit(), world.core(0).last().0);
    world.cut.clear();
    world.run(2000);
    assert_eq!(world.core(2).commit(), world.core(0).last().0);
}

#[test]
fn appends_stay_within_their_size_and_an_entry_that_is_too_large_is_refused() {
    let settings =
        Settings { max_entry_bytes: 3000, max_append_bytes: 1000, ..Settings::default() };
    let mut world = World::new(settings, &[1, 1, 1], true, 1);
    world.run(1000);
    let leader = world.leader().unwrap();
    let lonely = (leader + 1) % 3;
    isolate(&mut world, lonely);
    for bytes in [10, 400, 400, 400, 3000, 10, 10] {
        assert_eq!(refusal(&mut world, leader, window(bytes)), None);
        world.settle();
    }
    assert_eq!(refusal(&mut world, leader, window(3001)), Some(Refusal::TooLarge));
    world.cut.clear();
    let peer = world.nodes[lonely].identity;
    world.step(leader, Input::PeerDown { peer });
    world.step(leader, Input::PeerUp { peer });
    let mut sizes = Vec::new();
    while !world.packets.is_empty() {
        let packet = world.packets.remove(0);
        if let MessageBody::Append { entries, .. } = &packet.message.body
            && packet.to == peer
        {
            sizes.push(entries.len());
        }
        world.deliver(packet);
    }
    sizes.retain(|entries| *entries > 0);
    assert_eq!(sizes, [3, 1, 1, 2]);
    assert_eq!(world.core(lonely).last(), world.core(leader).last());
}

#[test]
fn a_long_divergent_log_is_found_in_few_messages() {
    let config = Config::new(members(&[1, 1, 1])).unwrap();
    let mut world = World::new(Settings::default(), &[1, 1, 1], false, 1);
    // Node 2 kept 500 entries of terms 2 to 6 that nobody else has.
    let mut stale = Start::genesis(config.clone());
    stale.hard.term = Term(6);
    stale.entries = (1..=10).map(|i| noop(i, 1)).collect();
    stale.entries.extend((11..=510).map(|i| noop(i, 2 + (i - 11) / 100)));
    let mut good = Start::genesis(config);
    good.hard.term = Term(7);
    good.entries = (1..=10).map(|i| noop(i, 1)).collect();
    good.entries.extend((11..=600).map(|i| noop(i, 7)));
    for (node, start) in [(0, &good), (1, &good), (2, &stale)] {
        world.nodes[node].disk.start = start.clone();
        world.boot(node);
    }
    let mut rejections = 0;
    for _ in 0..500 {
        world.pass(2);
        for node in 0..3 {
            world.sync(node);
        }
        for packet in std::mem::take(&mut world.packets) {
            let rejects = MessageBody::AppendAnswer {
                matched: EntryIndex(0),
                matched_term: Term(0),
                accepted: false,
                round: 0,
            };
            let same_kind =
                std::mem::discriminant(&packet.message.body) == std::mem::discriminant(&rejects);
            if same_kind
                && !matches!(packet.message.body, MessageBody::AppendAnswer { accepted: true, .. })
            {
                rejections += 1;
            }
            world.deliver(packet);
        }
    }
    let leader = world.leader().unwrap();
    assert_eq!(world.core(2).last(), world.core(leader).last());
    assert!((1..=3).contains(&rejections), "{rejections} rejections");
    is_clean(&world);
}

#[test]
fn an_image_that_is_older_than_the_log_keeps_what_was_acknowledged() {
    let mut start = Start::genesis(Config::new(members(&[1, 1, 1])).unwrap());
    let config = start.config.clone();
    start.hard.term = Term(1);
    start.entries = (1..=9).map(|i| noop(i, 1)).collect();
    let core = Core::new(Settings::default(), id(1), start, 0);
    let mut out = Vec::new();
    let install = |last: u64, term: u64| Input::InstallImage {
        last: EntryIndex(last),
        last_term: Term(term),
        config: config.clone(),
    };
    let mut kept = core.clone();
    kept.step(0, install(5, 1), &mut out);
    assert_eq!((kept.first(), kept.commit()), (EntryIndex(6), EntryIndex(5)));
    assert_eq!(kept.last(), (EntryIndex(9), Term(1)));
    // Committed state that differs: what is here was never committed.
    let mut replaced = core;
    replaced.step(0, install(5, 2), &mut out);
    assert_eq!(replaced.last(), (EntryIndex(5), Term(2)));
    assert_eq!(replaced.term(), Term(2));
    assert!(out.contains(&Output::Truncated { from: EntryIndex(1) }));
    replaced.step(0, install(4, 2), &mut out);
    assert_eq!(replaced.commit(), EntryIndex(5));
}
