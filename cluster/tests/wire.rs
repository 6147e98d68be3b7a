//! The codec of peer messages: what goes in comes out, and no bytes can harm it.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use proptest::prelude::*;
use quorate_cluster::CallRequest;
use quorate_cluster::replica::{
    Channel, DeclineReason, Genesis, ImageHead, ImageId, ImagePiece, PeerMessage, RefusalReason,
    Request, Roster, RosterChange, RosterError, Standing,
};
use quorate_cluster::wire::{
    Card, FrameWriter, Hello, Incoming, Kind, PAYLOAD_BYTES_MAX, Stamp, Welcome, decode,
    decode_reject, encode, encode_reject,
};
use quorate_cluster::{Epoch, RejectReason};
use quorate_consensus::{
    Body, Config, Entry, EntryIndex, Identity, Incarnation, Member, Message, MessageBody, NodeId,
    Payload, Term,
};
use quorate_engine::{Index, TransactionId};
use quorate_schema::bytes::{Reader, Writer};

fn frame_bytes(message: &PeerMessage) -> Vec<u8> {
    let mut frame = FrameWriter::new();
    encode(message, &mut frame);
    let parts = frame.finish(Kind::Message, Stamp::default()).unwrap();
    parts.iter().flat_map(|part| part.as_slice().to_vec()).collect()
}

fn payload_bytes(message: &PeerMessage) -> Vec<u8> {
    let mut incoming = Incoming::new();
    incoming.feed(&frame_bytes(message));
    let (header, payload) = incoming.next_frame(PAYLOAD_BYTES_MAX).unwrap().unwrap();
    assert_eq!(header.kind, Kind::Message);
    payload.to_vec()
}

fn identity() -> impl Strategy<Value = Identity> {
    (0..40u32, any::<u128>()).prop_map(|(node, incarnation)| Identity::new(node, incarnation))
}

fn term() -> impl Strategy<Value = Term> {
    any::<u64>().prop_map(Term)
}

fn entry_index() -> impl Strategy<Value = EntryIndex> {
    any::<u64>().prop_map(EntryIndex)
}

fn addr() -> impl Strategy<Value = String> {
    (0..200u32, 1..9_999u16).prop_map(|(host, port)| format!("n{host}:{port}"))
}

fn roster() -> impl Strategy<Value = Roster> {
    let nodes = prop::collection::vec((addr(), 1..9u32), 1..6);
    (nodes, prop::collection::vec(roster_change(), 0..4)).prop_map(|(nodes, changes)| {
        let mut roster = Roster::new(nodes);
        for change in &changes {
            let _ = roster.apply(change);
        }
        roster
    })
}

fn roster_change() -> impl Strategy<Value = RosterChange> {
    let node = || (0..8u32).prop_map(NodeId);
    prop_oneof![
        (addr(), any::<u32>()).prop_map(|(addr, rank)| RosterChange::Add { addr, rank }),
        node().prop_map(|node| RosterChange::Remove { node }),
        (node(), any::<u32>()).prop_map(|(node, rank)| RosterChange::SetRank { node, rank }),
        (node(), addr()).prop_map(|(node, addr)| RosterChange::SetAddress { node, addr }),
    ]
}

fn roster_error() -> impl Strategy<Value = RosterError> {
    prop_oneof![
        any::<u32>().prop_map(|node| RosterError::UnknownNode { node: NodeId(node) }),
        Just(RosterError::NoRank),
        any::<u32>().prop_map(|limit| RosterError::TooManyNodes { limit }),
        any::<u64>().prop_map(|limit| RosterError::RankOverflow { limit }),
        Just(RosterError::MalformedAddress),
        any::<u32>().prop_map(|node| RosterError::DuplicateAddress { node: NodeId(node) }),
        Just(RosterError::Unchanged),
    ]
}

fn payload() -> impl Strategy<Value = Payload> {
    let size = prop_oneof![9 => 0..200usize, 1 => 16_000..40_000usize];
    size.prop_flat_map(|size| prop::collection::vec(any::<u8>(), size)).prop_map(Payload::from)
}

fn members() -> impl Strategy<Value = Vec<Member>> {
    prop::collection::btree_map(identity(), any::<u32>(), 1..8).prop_map(|members| {
        let mut members: Vec<Member> =
            members.into_iter().map(|(identity, rank)| Member { identity, rank }).collect();
        members[0].rank = members[0].rank.max(1);
        members
    })
}

fn config() -> impl Strategy<Value = Config> {
    (members(), prop::option::of(members())).prop_map(|(current, next)| Config { current, next })
}

fn genesis() -> impl Strategy<Value = Genesis> {
    (any::<u128>(), members()).prop_map(|(cluster_id, mut members)| {
        members.dedup_by_key(|member| member.identity.node);
        let addresses =
            members.iter().map(|member| format!("n{}:1", member.identity.node)).collect();
        Genesis { cluster_id, members, addresses }
    })
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        Just(Body::Noop),
        (any::<u64>(), any::<u32>(), payload()).prop_map(|(first_index, count, payload)| {
            Body::Window { first_index, count, payload }
        }),
        config().prop_map(Body::Config),
    ]
}

fn append() -> impl Strategy<Value = MessageBody> {
    let numbers = (0..u64::MAX / 2, term(), entry_index(), entry_index(), any::<u64>());
    let entries = prop::collection::vec((term(), body()), 0..5);
    (numbers, entries).prop_map(|((previous, previous_term, commit, durable, round), entries)| {
        let entries = (previous + 1..)
            .zip(entries)
            .map(|(index, (term, body))| Entry { index: EntryIndex(index), term, body })
            .collect();
        let previous = EntryIndex(previous);
        MessageBody::Append { previous, previous_term, entries, commit, durable, round }
    })
}

fn core() -> impl Strategy<Value = Message> {
    let body = prop_oneof![
        (entry_index(), term(), any::<bool>()).prop_map(|(last, last_term, transfer)| {
            MessageBody::PreVote { last, last_term, transfer }
        }),
        any::<bool>().prop_map(|granted| MessageBody::PreVoteAnswer { granted }),
        (entry_index(), term(), any::<bool>()).prop_map(|(last, last_term, transfer)| {
            MessageBody::Vote { last, last_term, transfer }
        }),
        any::<bool>().prop_map(|granted| MessageBody::VoteAnswer { granted }),
        append(),
        (entry_index(), term(), any::<bool>(), any::<u64>()).prop_map(
            |(matched, matched_term, accepted, round)| {
                MessageBody::AppendAnswer { matched, matched_term, accepted, round }
            }
        ),
        Just(MessageBody::TimeoutNow),
    ];
    (term(), body).prop_map(|(term, body)| Message { term, body })
}

fn transaction_id() -> impl Strategy<Value = TransactionId> {
    (any::<u128>(), any::<u64>()).prop_map(|(origin, sequence)| TransactionId { origin, sequence })
}

fn refusal() -> impl Strategy<Value = RefusalReason> {
    prop_oneof![
        Just(RefusalReason::WrongTerm),
        Just(RefusalReason::Conflict),
        any::<u64>().prop_map(|floor| RefusalReason::SnapshotTooOld { floor }),
        any::<(u64, u64, u64)>().prop_map(|(used_bytes, needed_bytes, allowed_bytes)| {
            RefusalReason::SegmentFull { used_bytes, needed_bytes, allowed_bytes }
        }),
        Just(RefusalReason::Malformed),
        Just(RefusalReason::FencesFull),
        Just(RefusalReason::Disputed),
        roster_error().prop_map(RefusalReason::Roster),
    ]
}

fn image_id() -> impl Strategy<Value = ImageId> {
    // An image ends at an entry, and consensus counts no further than half of 64 bits.
    let counted = || 1..=u64::MAX >> 1;
    (counted(), any::<u64>(), counted()).prop_map(|(term, number, last)| ImageId {
        term: Term(term),
        number,
        last: EntryIndex(last),
    })
}

fn image_head() -> impl Strategy<Value = ImageHead> {
    let stopped = prop::collection::vec(identity(), 0..4);
    let numbers = (1..=u64::MAX >> 1, any::<u64>());
    (numbers, config(), (genesis(), epoch()), stopped, roster()).prop_map(
        |((last_term, time_ms), config, (genesis, epoch), stopped, roster)| {
            let last_term = Term(last_term);
            ImageHead { last_term, config, genesis, epoch, stopped, roster, time_ms }
        },
    )
}

fn piece() -> impl Strategy<Value = ImagePiece> {
    let number = prop_oneof![Just(0), any::<u64>()];
    (image_id(), number, any::<u64>(), image_head(), payload()).prop_map(
        |(id, number, total_bytes, head, bytes)| {
            let head = (number == 0).then(|| Box::new(head));
            ImagePiece { id, number, total_bytes, head, bytes }
        },
    )
}

fn message() -> impl Strategy<Value = PeerMessage> {
    let standing = prop_oneof![
        Just(Standing::Blank),
        (genesis(), epoch()).prop_map(|(genesis, epoch)| Standing::Member(genesis, epoch)),
        any::<u128>().prop_map(|cluster_id| Standing::Joining { cluster_id }),
    ];
    let change = (any::<u64>(), roster_change())
        .prop_map(|(low_water, change)| Request::Change { low_water, change });
    let call = (any::<u64>(), any::<u32>(), "[a-z]{0,255}", payload()).prop_map(
        |(low_water, run_limit_ms, name, args)| {
            let args = args.to_vec();
            Request::Call(Arc::new(CallRequest { low_water, run_limit_ms, name, args }))
        },
    );
    let request = prop_oneof![
        call,
        payload().prop_map(Request::Transaction),
        Just(Request::Stop),
        change,
        transaction_id().prop_map(Request::Fence),
    ];
    prop_oneof![
        4 => core().prop_map(PeerMessage::Core),
        1 => standing.prop_map(PeerMessage::Standing),
        1 => genesis().prop_map(PeerMessage::Form),
        1 => any::<u128>().prop_map(|cluster_id| PeerMessage::Promised { cluster_id }),
        1 => any::<u32>().prop_map(|node| PeerMessage::Declined {
            reason: DeclineReason::NodesDiffer { node: NodeId(node) }
        }),
        1 => Just(PeerMessage::Declined { reason: DeclineReason::NotListed }),
        1 => Just(PeerMessage::Join),
        1 => Just(PeerMessage::Leave),
        1 => Just(PeerMessage::Left),
        1 => Just(PeerMessage::Removed),
        1 => (0..64u32).prop_map(|node| PeerMessage::Transfer { to: NodeId(node) }),
        1 => (term(), transaction_id(), request)
            .prop_map(|(term, id, request)| PeerMessage::Submit { term, id, request }),
        1 => (term(), transaction_id(), refusal())
            .prop_map(|(term, id, reason)| PeerMessage::Refused { id, term, reason }),
        1 => piece().prop_map(PeerMessage::Image),
        1 => image_id().prop_map(|image| PeerMessage::AskImage { image }),
        1 => (image_id(), any::<u64>())
            .prop_map(|(image, pieces)| PeerMessage::Received { image, pieces }),
        1 => entry_index().prop_map(|last| PeerMessage::Installed { last }),
        1 => Just(PeerMessage::Goodbye),
        1 => any::<u64>().prop_map(|token| PeerMessage::AskRead { token }),
        1 => any::<u64>().prop_map(|index| PeerMessage::AskApplied { index: Index(index) }),
        1 => any::<u64>().prop_map(|index| PeerMessage::Applied { index: Index(index) }),
        1 => (epoch(), 1..=u64::MAX >> 1, any::<u128>()).prop_map(|(epoch, entry, digest)| {
            PeerMessage::Digest { epoch, entry: EntryIndex(entry), digest }
        }),
        1 => (any::<u64>(), entry_index(), term())
            .prop_map(|(token, index, term)| PeerMessage::ReadIndex { token, index, term }),
    ]
}

fn epoch() -> impl Strategy<Value = Epoch> {
    any::<(u64, u64)>().prop_map(|(counter, bits)| Epoch { counter, bits })
}

fn card() -> impl Strategy<Value = Card> {
    let rest = (any::<u128>(), any::<u128>(), epoch(), any::<u128>(), any::<u32>());
    (identity(), rest).prop_map(|(identity, (nonce, cluster_id, epoch, dictionary, node_count))| {
        Card { identity, nonce, cluster_id, epoch, dictionary, node_count }
    })
}

fn reject() -> impl Strategy<Value = RejectReason> {
    prop_oneof![
        any::<(u16, u16)>().prop_map(|(min, max)| RejectReason::VersionUnsupported { min, max }),
        any::<u128>().prop_map(|cluster_id| RejectReason::OtherCluster { cluster_id }),
        epoch().prop_map(|epoch| RejectReason::OtherEpoch { epoch }),
        any::<u128>().prop_map(|digest| RejectReason::OtherDictionary { digest }),
        Just(RejectReason::DuplicateNode),
        any::<u32>().prop_map(|nodes| RejectReason::UnknownNode { nodes }),
        any::<u32>().prop_map(|nodes| RejectReason::NodesDiffer { nodes }),
        any::<u32>().prop_map(|node| RejectReason::WrongNode { node: NodeId(node) }),
        Just(RejectReason::SelfConnection),
        Just(RejectReason::WrongDirection),
        Just(RejectReason::ShuttingDown),
    ]
}

proptest! {
    #[test]
    fn a_message_comes_out_as_it_went_in(message in message()) {
        prop_assert_eq!(decode(&payload_bytes(&message)).unwrap(), message);
    }

    #[test]
    fn a_cut_message_is_malformed(message in message(), cut in any::<prop::sample::Index>()) {
        let bytes = payload_bytes(&message);
        prop_assert!(decode(&bytes[..cut.index(bytes.len())]).is_err());
    }

    #[test]
    fn the_handshake_comes_out_as_it_went_in(
        card in card(), to in any::<u32>(), epoch in any::<u64>(), reason in reject(),
        channel in prop::sample::select(Channel::ALL.as_slice()),
    ) {
        let hello = Hello::new(card, NodeId(to), channel);
        let mut writer = Writer::new();
        hello.encode(&mut writer);
        prop_assert_eq!(Hello::decode(&mut Reader::new(writer.as_slice())).unwrap(), hello);
        let version = hello.common_version().unwrap();
        let welcome = Welcome { version, card, connection_epoch: epoch };
        let mut writer = Writer::new();
        welcome.encode(&mut writer);
        prop_assert_eq!(Welcome::decode(&mut Reader::new(writer.as_slice())).unwrap(), welcome);
        let mut writer = Writer::new();
        encode_reject(&reason, &mut writer);
        prop_assert_eq!(decode_reject(&mut Reader::new(writer.as_slice())).unwrap(), reason);
    }
}

/// xorshift64*: a seed that fails can be tried again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

fn samples() -> Vec<PeerMessage> {
    let identity = Identity { node: NodeId(1), incarnation: Incarnation(77) };
    let members =
        vec![Member { identity, rank: 1 }, Member { identity: Identity::new(2, 5), rank: 0 }];
    let config = Config { current: members.clone(), next: Some(members.clone()) };
    let genesis = Genesis { cluster_id: 9, members, addresses: vec!["a:1".into(); 2] };
    let payload: Payload = Arc::from([1, 2, 3].as_slice());
    let bodies = [
        Body::Noop,
        Body::Window { first_index: 3, count: 1, payload: Arc::clone(&payload) },
        Body::Config(config.clone()),
    ];
    let entries = (6..)
        .zip(bodies)
        .map(|(index, body)| Entry { index: EntryIndex(index), term: Term(2), body })
        .collect();
    let body = MessageBody::Append {
        previous: EntryIndex(5),
        previous_term: Term(1),
        entries,
        commit: EntryIndex(5),
        durable: EntryIndex(6),
        round: 12,
    };
    let id = TransactionId { origin: 77, sequence: 4 };
    let head = ImageHead {
        last_term: Term(2),
        config,
        genesis: genesis.clone(),
        epoch: Epoch { counter: 1, bits: 7 },
        stopped: vec![identity],
        roster: Roster::new([("a:1".to_string(), 1)]),
        time_ms: 5,
    };
    let image = ImageId { term: Term(3), number: 1, last: EntryIndex(8) };
    let (head, bytes) = (Some(Box::new(head)), Arc::clone(&payload));
    let piece = ImagePiece { id: image, number: 0, total_bytes: 10, head, bytes };
    let request = Request::Transaction(payload);
    vec![
        PeerMessage::Core(Message { term: Term(3), body }),
        PeerMessage::Standing(Standing::Member(genesis, Epoch::default())),
        PeerMessage::Submit { term: Term(3), id, request },
        PeerMessage::Refused { id, term: Term(3), reason: RefusalReason::Conflict },
        PeerMessage::Image(piece),
    ]
}

#[test]
fn mutated_messages_are_decoded_or_refused_and_never_harm() {
    let samples: Vec<Vec<u8>> = samples().iter().map(payload_bytes).collect();
    let mut random = Random(0x51_4F52_4154_4531);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..100_000 {
        let mut bytes = samples[random.below(samples.len())].clone();
        for _ in 0..1 + random.below(4) {
            let at = random.below(bytes.len());
            match random.below(6) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF][random.below(5)],
                2 => bytes.insert(at, random.next() as u8),
                3 => bytes.truncate(at.max(1)),
                4 if bytes.len() >= at + 4 => {
                    bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
                }
                _ => bytes[at] = random.next() as u8,
            }
        }
        match decode(&bytes) {
            Ok(message) => {
                // What is accepted is a message like any other.
                assert_eq!(payload_bytes(&message), bytes);
                accepted += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(accepted > 1_000 && refused > 1_000, "{accepted} accepted, {refused} refused");
}

#[test]
fn mutated_handshakes_are_decoded_or_refused() {
    let card = Card {
        identity: Identity::new(1, 2),
        nonce: 3,
        cluster_id: 4,
        epoch: Epoch { counter: 5, bits: 6 },
        dictionary: 6,
        node_count: 3,
    };
    let mut writer = Writer::new();
    Hello::new(card, NodeId(0), Channel::Control).encode(&mut writer);
    let hello = writer.finish();
    let mut random = Random(99);
    for _ in 0..100_000 {
        let mut bytes = hello.clone();
        for _ in 0..1 + random.below(4) {
            let at = random.below(bytes.len());
            bytes[at] = random.next() as u8;
        }
        bytes.truncate(1 + random.below(2 * bytes.len()));
        let _ = Hello::decode(&mut Reader::new(&bytes)).map(|hello| hello.common_version());
        let _ = Welcome::decode(&mut Reader::new(&bytes));
        let _ = decode_reject(&mut Reader::new(&bytes));
    }
}

fn malformed(message: &PeerMessage) -> bool {
    decode(&payload_bytes(message)).is_err()
}

#[test]
fn impossible_values_are_malformed() {
    let member = |node, rank| Member { identity: Identity::new(node, 1), rank };
    let standing = |members: Vec<Member>| {
        let addresses = vec!["a:1".to_string(); members.len()];
        let genesis = Genesis { cluster_id: 1, members, addresses };
        PeerMessage::Standing(Standing::Member(genesis, Epoch::default()))
    };
    assert!(!malformed(&standing(vec![member(0, 1), member(1, 0)])));
    assert!(malformed(&standing(vec![])), "nobody");
    assert!(malformed(&standing(vec![member(0, 0), member(1, 0)])), "no rank");
    assert!(malformed(&standing(vec![member(1, 1), member(0, 1)])), "out of order");
    assert!(malformed(&standing(vec![member(1, 1), member(1, 1)])), "twice");
    let twice = vec![member(1, 1), Member { identity: Identity::new(1, 2), rank: 1 }];
    assert!(malformed(&standing(twice)), "one node in two lives");
    let many = (0..300).map(|node| member(node, 1)).collect();
    assert!(malformed(&standing(many)), "too many members");
    let Some(PeerMessage::Image(piece)) = samples().pop() else { panic!("the last is an image") };
    assert!(!malformed(&PeerMessage::Image(piece.clone())));
    let headless = ImagePiece { head: None, ..piece.clone() };
    assert!(malformed(&PeerMessage::Image(headless)), "a first piece without a head");
    let later = PeerMessage::Image(ImagePiece { number: 1, ..piece });
    let later = decode(&payload_bytes(&later));
    assert!(
        !matches!(later, Ok(PeerMessage::Image(ImagePiece { head: Some(_), .. }))),
        "a later piece with a head: {later:?}"
    );
}

#[test]
fn an_image_of_nothing_or_beyond_all_numbers_is_refused() {
    let good = samples().into_iter().find_map(|message| match message {
        PeerMessage::Image(piece) => Some(piece),
        _ => None,
    });
    let good = good.unwrap();
    let refused = |piece: ImagePiece| decode(&payload_bytes(&PeerMessage::Image(piece))).is_err();
    assert!(!refused(good.clone()));
    let (id, head) = (good.id, good.head.clone().unwrap());
    for number in [0, 1 << 63, u64::MAX] {
        let last_term = Some(Box::new(ImageHead { last_term: Term(number), ..*head.clone() }));
        assert!(refused(ImagePiece { head: last_term, ..good.clone() }), "{number}");
        let ids =
            [ImageId { last: EntryIndex(number), ..id }, ImageId { term: Term(number), ..id }];
        for id in ids {
            assert!(refused(ImagePiece { id, ..good.clone() }), "{number}");
            let asked = PeerMessage::AskImage { image: id };
            assert!(decode(&payload_bytes(&asked)).is_err(), "{number}");
        }
    }
}

#[test]
fn a_digest_of_no_entry_is_refused() {
    let digest = |entry| PeerMessage::Digest {
        epoch: Epoch { counter: 1, bits: 7 },
        entry: EntryIndex(entry),
        digest: 5,
    };
    assert!(!malformed(&digest(64)));
    assert_eq!(digest(64).channel(), Channel::Control);
    for entry in [0, 1 << 63, u64::MAX] {
        assert!(malformed(&digest(entry)), "{entry}");
    }
}
