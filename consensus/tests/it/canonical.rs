//! The canonical form: equal for states that differ in time only, and for no others.

use quorate_consensus::{Config, Core, Input, Message, MessageBody, Output, Settings, Start, Term};

use crate::world::{id, members};

/// A core that led its first term, with everything at other times for another `start` and `pause`.
fn leader(start: u64, pause: u64) -> Core {
    let genesis = Start::genesis(Config::new(members(&[1, 1, 1])).unwrap());
    let mut core = Core::new(Settings::default(), id(0), genesis, start);
    let mut now = start;
    let mut step = |input| {
        now += pause;
        core.step(now, input, &mut Vec::new());
    };
    step(Input::PeerUp { peer: id(1) });
    step(Input::PeerUp { peer: id(2) });
    let answer = |body| Input::Receive { from: id(1), message: Message { term: Term(1), body } };
    // Far enough for any jitter, so that the same happens however long the pauses are.
    now += 10_000;
    core.step(now, Input::Tick { random: start }, &mut Vec::new());
    let mut step = |input| core.step(now + pause, input, &mut Vec::new());
    step(answer(MessageBody::PreVoteAnswer { granted: true }));
    step(Input::Persisted { sequence: 1 });
    step(answer(MessageBody::VoteAnswer { granted: true }));
    core
}

#[test]
fn states_that_differ_in_time_only_become_equal() {
    let (mut one, mut other) = (leader(0, 1), leader(7_777, 3));
    assert_ne!(one, other);
    one.make_canonical();
    other.make_canonical();
    assert_eq!(one, other);
    let again = one.clone();
    one.make_canonical();
    assert_eq!(one, again, "the canonical form of a canonical state is itself");
}

#[test]
fn what_is_not_time_stays() {
    let mut before = leader(0, 1);
    let mut after = before.clone();
    after.step(20_000, Input::Persisted { sequence: 2 }, &mut Vec::new());
    before.make_canonical();
    after.make_canonical();
    assert_ne!(before, after, "one of them knows that its entry is durable");
    assert_eq!((after.term(), after.last()), (before.term(), before.last()));
}

#[test]
fn unanswered_writes_are_counted_from_the_newest_answered_one() {
    let mut core = leader(0, 1);
    core.make_canonical();
    assert!(core.durable() < core.last().0);
    core.step(core.canonical_now(), Input::Persisted { sequence: 1 }, &mut Vec::new());
    assert_eq!(core.durable(), core.last().0);
}

#[test]
fn no_deadline_has_come_and_the_next_tick_after_it_acts() {
    let mut core = leader(0, 1);
    core.make_canonical();
    let mut out = Vec::new();
    core.step(core.canonical_now(), Input::Tick { random: 0 }, &mut out);
    assert_eq!(out, []);
    core.step(core.next_wakeup(), Input::Tick { random: 0 }, &mut out);
    assert!(out.iter().any(|output| matches!(output, Output::Send { .. })), "{out:?}");
}
