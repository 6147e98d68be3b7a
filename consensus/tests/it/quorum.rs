//! The one quorum function against enumeration, and what it promises between configurations.

use proptest::prelude::*;
use quorate_consensus::{Config, ConfigError, Identity, Input, Member, Output, Settings, Start};

use crate::world::{id, members};

fn config(current: &[u32], next: Option<&[u32]>) -> Config {
    Config { current: members(current), next: next.map(members) }
}

fn holds(mask: u32) -> impl Fn(Identity) -> bool {
    move |who| mask >> who.node.0 & 1 == 1
}

/// The definition, spelled out: strictly more than half of the rank, counted one by one.
fn dumb_is_quorum(ranks: &[u32], mask: u32) -> bool {
    let mut inside = 0_i128;
    for (node, &rank) in ranks.iter().enumerate() {
        for _ in 0..rank {
            inside += if mask >> node & 1 == 1 { 1 } else { -1 };
        }
    }
    inside > 0
}

/// The configuration that a leader puts into its log to get from one list of ranks to another.
fn proposed(from: &[u32], to: &[u32]) -> Option<Config> {
    let config = Config::new(members(from)).ok()?;
    let settings = Settings::default();
    let mut core = quorate_consensus::Core::new(settings, id(0), Start::genesis(config), 0);
    let mut out = Vec::new();
    // Alone it cannot lead most configurations: answers of the others are made up.
    let mut now = 0;
    for peer in 1..from.len() as u32 {
        core.step(now, Input::PeerUp { peer: id(peer) }, &mut out);
    }
    let mut answered = 0;
    for round in 0..200 {
        now += 50;
        core.step(now, Input::Tick { random: round }, &mut out);
        while answered < out.len() {
            let output = out[answered].clone();
            answered += 1;
            let mut more = Vec::new();
            answer(&mut core, now, output, &mut more);
            out.extend(more);
        }
        if core.has_committed_in_term() {
            break;
        }
    }
    let mut out = Vec::new();
    core.step(now, Input::ProposeConfig { members: members(to) }, &mut out);
    out.iter().any(|o| matches!(o, Output::Appended { .. })).then(|| core.config().clone())
}

fn answer(core: &mut quorate_consensus::Core, now: u64, output: Output, more: &mut Vec<Output>) {
    use quorate_consensus::{EntryIndex, Message, MessageBody, Term};
    match output {
        Output::Persist { sequence, .. } => {
            core.step(now, Input::Persisted { sequence }, more);
        }
        Output::Send { to, message: Message { term, body }, .. } => {
            let body = match body {
                MessageBody::PreVote { .. } => MessageBody::PreVoteAnswer { granted: true },
                MessageBody::Vote { .. } => MessageBody::VoteAnswer { granted: true },
                MessageBody::Append { previous, entries, round, .. } => MessageBody::AppendAnswer {
                    matched: EntryIndex(previous.0 + entries.len() as u64),
                    matched_term: Term(0),
                    accepted: true,
                    round,
                },
                _ => return,
            };
            let message = Message { term, body };
            core.step(now, Input::Receive { from: to, message }, more);
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_quorum_is_more_than_half_of_the_rank_of_each_half(
        current in prop::collection::vec(0_u32..6, 1..7),
        next in prop::option::of(prop::collection::vec(0_u32..6, 1..7)),
    ) {
        let config = config(&current, next.as_deref());
        for mask in 0..1_u32 << 7 {
            let expected = dumb_is_quorum(&current, mask)
                && next.as_ref().is_none_or(|next| dumb_is_quorum(next, mask));
            prop_assert_eq!(config.is_quorum(holds(mask)), expected, "mask {:b}", mask);
        }
    }

    #[test]
    fn two_quorums_of_one_configuration_share_a_ranked_member(
        ranks in prop::collection::vec(0_u32..6, 1..7),
    ) {
        let config = config(&ranks, None);
        for one in 0..1_u32 << ranks.len() {
            for other in 0..1_u32 << ranks.len() {
                if config.is_quorum(holds(one)) && config.is_quorum(holds(other)) {
                    let shared = one & other;
                    let mut nodes = ranks.iter().enumerate();
                    let ranked = nodes.any(|(n, r)| *r > 0 && shared >> n & 1 == 1);
                    prop_assert!(ranked, "{one:b} and {other:b}");
                }
            }
        }
    }

    /// Whatever the core makes of a change, each quorum before and each after it overlap.
    #[test]
    fn quorums_of_neighbouring_configurations_overlap(
        change in prop::collection::vec((0_u32..4, 0_u32..4), 1..6),
    ) {
        let (from, to): (Vec<u32>, Vec<u32>) = change.into_iter().unzip();
        let Some(between) = proposed(&from, &to) else { return Ok(()) };
        let old = config(&from, None);
        for one in 0..1_u32 << from.len() {
            for other in 0..1_u32 << from.len() {
                if old.is_quorum(holds(one)) && between.is_quorum(holds(other)) {
                    prop_assert!(one & other != 0, "{one:b} and {other:b} of {between:?}");
                }
            }
        }
    }
}

#[test]
fn ranks_at_their_limit_do_not_overflow() {
    let config = config(&[u32::MAX, u32::MAX, u32::MAX], None);
    assert!(config.is_quorum(holds(0b011)));
    assert!(!config.is_quorum(holds(0b001)));
}

#[test]
fn nobody_is_no_quorum_of_a_blank_configuration() {
    assert!(!Config::blank().is_quorum(|_| true));
}

#[test]
fn members_that_make_no_configuration_are_refused() {
    let member = |node, life, rank| Member { identity: Identity::new(node, life), rank };
    let new = |list: &[Member]| Config::new(list.to_vec());
    assert_eq!(new(&[]), Err(ConfigError::NoRank));
    assert_eq!(new(&[member(0, 1, 0), member(1, 1, 0)]), Err(ConfigError::NoRank));
    let twice = Identity::new(0, 1);
    assert_eq!(new(&[member(0, 1, 1), member(0, 1, 2)]), Err(ConfigError::Repeated(twice)));
    let lives = Identity::new(0, 2);
    let both = [member(0, 2, 1), member(0, 1, 1)];
    assert_eq!(new(&both), Err(ConfigError::NodeRankedTwice(lives)));
    assert!(new(&[member(0, 2, 0), member(0, 1, 1)]).is_ok());
    let unsorted = Config { current: vec![member(1, 1, 1), member(0, 1, 1)], next: None };
    assert_eq!(unsorted.validate(), Err(ConfigError::Unsorted));
}

#[test]
fn a_change_by_one_rank_is_one_step_and_a_larger_one_is_joint() {
    assert!(!proposed(&[1, 1, 1], &[2, 1, 1]).unwrap().is_joint());
    assert!(!proposed(&[1, 1, 1], &[1, 1, 1, 0]).unwrap().is_joint());
    assert!(proposed(&[1, 1, 1], &[3, 1, 1]).unwrap().is_joint());
    assert!(proposed(&[1, 1, 0], &[1, 0, 1]).unwrap().is_joint());
}
