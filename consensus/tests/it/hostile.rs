//! Messages that no correct node would send must change nothing that matters and never panic.
//! The core checks its invariants after each step, so surviving a step is a statement.

use proptest::prelude::*;
use quorate_consensus::{
    Body, Config, Core, Entry, EntryIndex, Identity, Input, Member, Message, MessageBody, Output,
    Payload, Settings, Start, Term,
};

use crate::world::{World, id, members};

/// Small numbers often, absurd ones sometimes.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0_u64..8, 1 => any::<u64>(), 1 => Just(u64::MAX), 1 => Just(u64::MAX >> 1)]
}

fn identity() -> impl Strategy<Value = Identity> {
    prop_oneof![8 => (0_u32..4).prop_map(id), 1 => (0_u32..4).prop_map(|n| Identity::new(n, 2))]
}

fn member() -> impl Strategy<Value = Member> {
    (identity(), 0_u32..3).prop_map(|(identity, rank)| Member { identity, rank })
}

fn config() -> impl Strategy<Value = Config> {
    let list = || prop::collection::vec(member(), 0..4);
    prop_oneof![
        Just(Config { current: members(&[1, 1, 1]), next: None }),
        (list(), prop::option::of(list())).prop_map(|(current, next)| Config { current, next }),
    ]
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        Just(Body::Noop),
        (number(), 0_u32..3).prop_map(|(first_index, count)| Body::Window {
            first_index,
            count,
            payload: Payload::from([]),
        }),
        config().prop_map(Body::Config),
    ]
}

/// Entries that are dense and rise in term, mostly.
fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let entry = (number(), number(), body());
    (any::<bool>(), prop::collection::vec(entry, 0..4)).prop_map(|(shaped, list)| {
        let first = list.first().map_or((0, 0), |(index, term, _)| (*index, *term));
        let place = |(n, (index, term, body)): (usize, (u64, u64, Body))| {
            let index = if shaped { first.0.wrapping_add(n as u64) } else { index };
            let term = if shaped { first.1 } else { term };
            Entry { index: EntryIndex(index), term: Term(term), body }
        };
        list.into_iter().enumerate().map(place).collect()
    })
}

fn append() -> impl Strategy<Value = MessageBody> {
    (any::<bool>(), entries(), [number(), number(), number(), number(), number()]).prop_map(
        |(shaped, entries, [previous, term, commit, durable, round])| {
            let fitting = entries.first().map_or(previous, |e| e.index.0.wrapping_sub(1));
            MessageBody::Append {
                previous: EntryIndex(if shaped { fitting } else { previous }),
                previous_term: Term(term),
                entries,
                commit: EntryIndex(commit),
                durable: EntryIndex(durable),
                round,
            }
        },
    )
}

fn message_body() -> impl Strategy<Value = MessageBody> {
    let end = || (number(), number(), any::<bool>());
    prop_oneof![
        1 => end().prop_map(|(last, term, transfer)| MessageBody::PreVote {
            last: EntryIndex(last),
            last_term: Term(term),
            transfer,
        }),
        1 => any::<bool>().prop_map(|granted| MessageBody::PreVoteAnswer { granted }),
        1 => end().prop_map(|(last, term, transfer)| MessageBody::Vote {
            last: EntryIndex(last),
            last_term: Term(term),
            transfer,
        }),
        1 => any::<bool>().prop_map(|granted| MessageBody::VoteAnswer { granted }),
        4 => append(),
        2 => (number(), number(), any::<bool>(), number()).prop_map(
            |(matched, term, accepted, round)| MessageBody::AppendAnswer {
                matched: EntryIndex(matched),
                matched_term: Term(term),
                accepted,
                round,
            }
        ),
        1 => Just(MessageBody::TimeoutNow),
    ]
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        12 => (identity(), number(), message_body()).prop_map(|(from, term, body)| {
            Input::Receive { from, message: Message { term: Term(term), body } }
        }),
        2 => any::<u64>().prop_map(|random| Input::Tick { random }),
        1 => number().prop_map(|sequence| Input::Persisted { sequence }),
        1 => (number(), 0_u32..3).prop_map(|(first_index, count)| Input::Propose {
            first_index,
            count,
            payload: Payload::from([1, 2, 3]),
        }),
        1 => prop::collection::vec(member(), 0..4)
            .prop_map(|members| Input::ProposeConfig { members }),
        1 => identity().prop_map(|peer| Input::PeerUp { peer }),
        1 => identity().prop_map(|peer| Input::PeerDown { peer }),
        1 => number().prop_map(|upto| Input::Compact { upto: EntryIndex(upto) }),
        1 => (identity(), number())
            .prop_map(|(to, last)| Input::ImageSent { to, last: EntryIndex(last) }),
        1 => (number(), number(), config()).prop_map(|(last, term, config)| {
            Input::InstallImage { last: EntryIndex(last), last_term: Term(term), config }
        }),
        1 => identity().prop_map(|to| Input::TransferLeadership { to }),
        1 => any::<bool>().prop_map(|on| Input::Veto { on }),
        1 => number().prop_map(|token| Input::ReadIndex { token }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn no_input_makes_a_core_panic_or_take_back_a_commit(
        inputs in prop::collection::vec((0_u64..100, any::<bool>(), input()), 1..80),
        ranks in prop_oneof![Just(vec![1, 1, 1]), Just(vec![1, 0, 0]), Just(vec![2, 1, 1, 1])],
    ) {
        let start = Start::genesis(Config::new(members(&ranks)).unwrap());
        let mut core = Core::new(Settings::default(), id(0), start, 0);
        for peer in 1..3 {
            core.step(0, Input::PeerUp { peer: id(peer) }, &mut Vec::new());
        }
        let (mut now, mut vote) = (0, core.hard_state());
        for (ticks, at_once, input) in inputs {
            now += ticks;
            let mut out = Vec::new();
            core.step(now, input, &mut out);
            if at_once {
                persist(&mut core, now, &out);
            }
            let hard = core.hard_state();
            let revoted = hard.term == vote.term && vote.vote.is_some() && hard.vote != vote.vote;
            prop_assert!(hard.term >= vote.term && !revoted, "{:?} then {:?}", vote, hard);
            vote = hard;
        }
    }
}

/// Answers each sequence, also those that answering asks for.
fn persist(core: &mut Core, now: u64, out: &[Output]) {
    let mut waiting: Vec<_> = sequences(out);
    while let Some(sequence) = waiting.pop() {
        let mut more = Vec::new();
        core.step(now, Input::Persisted { sequence }, &mut more);
        waiting.extend(sequences(&more));
    }
}

fn sequences(out: &[Output]) -> Vec<u64> {
    let sequence = |output: &Output| match output {
        Output::Persist { sequence, .. } => Some(*sequence),
        _ => None,
    };
    out.iter().filter_map(sequence).collect()
}

/// A cluster of three with a leader and one committed window.
fn settled() -> (World, usize) {
    let mut world = World::new(Settings::default(), &[1, 1, 1], true, 1);
    world.run(1000);
    let leader = world.leader().unwrap();
    world.propose(leader);
    world.run(100);
    (world, leader)
}

#[test]
fn an_append_from_a_second_leader_of_the_term_is_ignored() {
    let (mut world, leader) = settled();
    let follower = (leader + 1) % 3;
    let impostor = id(((leader + 2) % 3) as u32);
    let before = world.core(follower).last();
    let term = world.core(follower).term();
    let (last, last_term) = before;
    let body = MessageBody::Append {
        previous: last,
        previous_term: last_term,
        entries: vec![Entry { index: last.next(), term, body: Body::Noop }],
        commit: last.next(),
        durable: last.next(),
        round: 0,
    };
    for node in [follower, leader] {
        let message = Message { term, body: body.clone() };
        world.step(node, Input::Receive { from: impostor, message });
        assert_eq!(world.core(node).last(), before);
    }
    assert_eq!(world.core(leader).role(), quorate_consensus::Role::Leader);
}

#[test]
fn an_append_that_contradicts_a_commit_is_ignored() {
    let (mut world, leader) = settled();
    let follower = (leader + 1) % 3;
    let core = world.core(follower).clone();
    let term = Term(core.term().0 + 1);
    let body = MessageBody::Append {
        previous: EntryIndex(0),
        previous_term: Term(0),
        entries: vec![Entry { index: EntryIndex(1), term, body: Body::Noop }],
        commit: EntryIndex(1),
        durable: EntryIndex(1),
        round: 0,
    };
    let from = id(leader as u32);
    world.step(follower, Input::Receive { from, message: Message { term, body } });
    assert_eq!(world.core(follower).last(), core.last());
    assert_eq!(world.core(follower).commit(), core.commit());
}

#[test]
fn an_answer_that_claims_more_than_the_log_holds_does_not_count() {
    let (mut world, leader) = settled();
    let commit = world.core(leader).commit();
    for number in [commit.0 + 1, 1 << 40, u64::MAX >> 1, u64::MAX] {
        let body = MessageBody::AppendAnswer {
            matched: EntryIndex(number),
            matched_term: Term(1),
            accepted: true,
            round: u64::MAX,
        };
        let message = Message { term: world.core(leader).term(), body };
        let from = id(((leader + 1) % 3) as u32);
        world.step(leader, Input::Receive { from, message });
        assert_eq!(world.core(leader).commit(), commit);
    }
}
