//! One node and its answers to candidates: each condition of a vote by itself.

use quorate_consensus::{
    Body, Config, Core, Entry, EntryIndex, HardState, Input, Message, MessageBody, Output, Role,
    Settings, Start, Term,
};

use crate::world::{id, members};

/// Node 1 of three equal ones in term 3 with two entries, which heard from `leader` at time 0.
fn follower_of(leader: Option<u32>) -> Core {
    let mut start = Start::genesis(Config::new(members(&[1, 1, 1])).unwrap());
    start.hard = HardState { term: Term(3), vote: None };
    let entry =
        |index, term| Entry { index: EntryIndex(index), term: Term(term), body: Body::Noop };
    start.entries = vec![entry(1, 2), entry(2, 3)];
    let mut core = Core::new(Settings::default(), id(1), start, 0);
    for peer in [0, 2] {
        core.step(0, Input::PeerUp { peer: id(peer) }, &mut Vec::new());
    }
    if let Some(leader) = leader {
        let body = MessageBody::Append {
            previous: EntryIndex(2),
            previous_term: Term(3),
            entries: Vec::new(),
            commit: EntryIndex(0),
            durable: EntryIndex(0),
            round: 0,
        };
        let message = Message { term: Term(3), body };
        core.step(0, Input::Receive { from: id(leader), message }, &mut Vec::new());
        assert_eq!(core.leader(), Some(id(leader)));
    }
    core
}

fn ask(term: u64, last: (u64, u64), pre: bool, transfer: bool) -> Input {
    let (last, last_term) = (EntryIndex(last.0), Term(last.1));
    let body = if pre {
        MessageBody::PreVote { last, last_term, transfer }
    } else {
        MessageBody::Vote { last, last_term, transfer }
    };
    Input::Receive { from: id(2), message: Message { term: Term(term), body } }
}

/// Whether the node grants, or nothing if it stays silent.
fn answer(core: &mut Core, now: u64, input: Input) -> Option<bool> {
    let mut out = Vec::new();
    core.step(now, input, &mut out);
    let mut sent = out.iter().filter_map(|output| match output {
        Output::Send { message, .. } => Some(&message.body),
        _ => None,
    });
    sent.find_map(|body| match body {
        MessageBody::PreVoteAnswer { granted } | MessageBody::VoteAnswer { granted } => {
            Some(*granted)
        }
        _ => None,
    })
}

#[test]
fn a_live_leader_keeps_its_followers() {
    let mut core = follower_of(Some(0));
    assert_eq!(answer(&mut core, 299, ask(4, (9, 3), true, false)), Some(false));
    assert_eq!(answer(&mut core, 299, ask(4, (9, 3), false, false)), None);
    assert_eq!(core.term(), Term(3));
    // Its own wish, its silence and its broken connection each end that.
    assert_eq!(answer(&mut core.clone(), 299, ask(4, (9, 3), false, true)), Some(true));
    assert_eq!(answer(&mut core.clone(), 300, ask(4, (9, 3), true, false)), Some(true));
    assert_eq!(answer(&mut core.clone(), 300, ask(4, (9, 3), false, false)), Some(true));
    core.step(10, Input::PeerDown { peer: id(0) }, &mut Vec::new());
    assert_eq!(answer(&mut core, 10, ask(4, (9, 3), true, false)), Some(true));
    assert_eq!(answer(&mut core, 10, ask(4, (9, 3), false, false)), Some(true));
}

#[test]
fn only_a_log_at_least_as_complete_gets_a_vote() {
    for (last, granted) in
        [((2, 3), true), ((1, 3), false), ((9, 2), false), ((1, 4), true), ((3, 3), true)]
    {
        for pre in [true, false] {
            let mut core = follower_of(None);
            assert_eq!(answer(&mut core, 500, ask(5, last, pre, false)), Some(granted), "{last:?}");
        }
    }
}

#[test]
fn a_pre_vote_changes_nothing_and_is_only_for_a_later_term() {
    let mut core = follower_of(None);
    let before = (core.hard_state(), core.next_wakeup(), core.role());
    assert_eq!(answer(&mut core, 0, ask(4, (2, 3), true, false)), Some(true));
    assert_eq!((core.hard_state(), core.next_wakeup(), core.role()), before);
    let last = (1, 2);
    assert_eq!(answer(&mut core, 0, ask(3, last, true, false)), Some(false));
}

#[test]
fn one_vote_a_term_and_it_is_made_durable_also_within_the_term() {
    let mut core = follower_of(None);
    let mut out = Vec::new();
    // A candidate whose log is not complete only brings the term.
    core.step(0, ask(4, (1, 2), false, false), &mut out);
    assert_eq!(core.hard_state(), HardState { term: Term(4), vote: None });
    out.clear();
    core.step(0, ask(4, (2, 3), false, false), &mut out);
    let hard = HardState { term: Term(4), vote: Some(id(2)) };
    let persist =
        Output::Persist { sequence: 2, hard: Some(hard), truncate_from: None, append: None };
    assert_eq!(out[0], persist);
    let body = MessageBody::VoteAnswer { granted: true };
    let message = Message { term: Term(4), body };
    assert!(out.contains(&Output::Send { to: id(2), message, after: 2 }));
    // Another candidate of the same term comes too late; the same one may ask again.
    let body = MessageBody::Vote { last: EntryIndex(9), last_term: Term(3), transfer: false };
    let other = Input::Receive { from: id(0), message: Message { term: Term(4), body } };
    assert_eq!(answer(&mut core, 0, other), Some(false));
    assert_eq!(answer(&mut core, 0, ask(4, (2, 3), false, false)), Some(true));
}

#[test]
fn a_node_that_cannot_hear_a_quorum_does_not_even_ask() {
    let mut core = follower_of(None);
    for peer in [0, 2] {
        core.step(0, Input::PeerDown { peer: id(peer) }, &mut Vec::new());
    }
    for now in (0..3000).step_by(10) {
        core.step(now, Input::Tick { random: now }, &mut Vec::new());
        assert_eq!(core.role(), Role::Follower);
    }
    core.step(3000, Input::PeerUp { peer: id(2) }, &mut Vec::new());
    assert!(core.next_wakeup() <= 3150, "asks soon: {}", core.next_wakeup());
    core.step(core.next_wakeup(), Input::Tick { random: 0 }, &mut Vec::new());
    assert_eq!(core.role(), Role::PreCandidate);
}

#[test]
fn the_same_voter_counts_once() {
    let mut start = Start::genesis(Config::new(members(&[1, 1, 1, 1, 1])).unwrap());
    start.hard.term = Term(3);
    let mut core = Core::new(Settings::default(), id(1), start, 0);
    for peer in [0, 2, 3] {
        core.step(0, Input::PeerUp { peer: id(peer) }, &mut Vec::new());
    }
    core.step(1000, Input::Tick { random: 0 }, &mut Vec::new());
    let mut say = |from: u32, body: &MessageBody| {
        let message = Message { term: Term(4), body: body.clone() };
        core.step(1000, Input::Receive { from: id(from), message }, &mut Vec::new());
        core.step(1000, Input::Persisted { sequence: 1 }, &mut Vec::new());
        core.role()
    };
    let would = MessageBody::PreVoteAnswer { granted: true };
    assert_eq!([say(0, &would), say(0, &would), say(0, &would)], [Role::PreCandidate; 3]);
    assert_eq!(say(2, &would), Role::Candidate);
    let does = MessageBody::VoteAnswer { granted: true };
    assert_eq!([say(0, &does), say(0, &does), say(0, &does)], [Role::Candidate; 3]);
    assert_eq!(say(2, &does), Role::Leader);
}
