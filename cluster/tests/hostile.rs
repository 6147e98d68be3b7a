//! Peers that are broken or hostile: each loses its own connection, with a reason where one can be
//! given, and the cluster goes on.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use quorate_cluster::replica::{Channel, PeerMessage};
use quorate_cluster::wire::{
    AdminHello, AdminWelcome, Card, FrameWriter, HEADER_BYTES, Hello, Incoming, Kind, Stamp,
    VERSION, Welcome, decode_reject, encode, encode_admin_request,
};
use quorate_cluster::{AdminRequest, Epoch, RejectReason};
use quorate_consensus::{Identity, NodeId};
use quorate_engine::dictionary_digest;
use quorate_schema::bytes::Reader;
use support::{Cluster, add, dictionary, eventually};

/// A stranger's socket.
struct Stranger {
    stream: TcpStream,
    incoming: Incoming,
}

/// What the node said to a stranger.
#[derive(Debug, PartialEq)]
enum Answer {
    Welcome(Welcome),
    Reject(RejectReason),
    /// Closed without a word.
    Closed,
}

impl Stranger {
    fn connect(cluster: &Cluster) -> Self {
        let stream = TcpStream::connect(&cluster.addresses[0]).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self { stream, incoming: Incoming::new() }
    }

    fn send(&mut self, bytes: &[u8]) {
        // The node may close at the first wrong byte, before the last arrives.
        let _ = self.stream.write_all(bytes);
    }

    fn say(&mut self, hello: &Hello) -> Answer {
        let mut frame = FrameWriter::new();
        hello.encode(frame.writer());
        self.send(&joined(frame, Kind::Hello, Stamp::default()));
        self.answer()
    }

    /// Whether the node has not closed the connection.
    fn is_open(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let mut bytes = [0; 4_096];
        let open = loop {
            match (&self.stream).read(&mut bytes) {
                Ok(0) => break false,
                Ok(_) => {}
                Err(error) => break error.kind() == ErrorKind::WouldBlock,
            }
        };
        self.stream.set_nonblocking(false).unwrap();
        open
    }

    /// Shows that it heard its welcome.
    fn prove(&mut self, stamp: Stamp) {
        self.send(&joined(FrameWriter::new(), Kind::Ping, stamp));
    }

    fn answer(&mut self) -> Answer {
        loop {
            let Some((kind, payload)) = self.frame() else { return Answer::Closed };
            let mut reader = Reader::new(&payload);
            match kind {
                Kind::Welcome => return Answer::Welcome(Welcome::decode(&mut reader).unwrap()),
                Kind::Reject => return Answer::Reject(decode_reject(&mut reader).unwrap()),
                _ => {}
            }
        }
    }

    /// The next frame; `None` if the node closed the connection.
    fn frame(&mut self) -> Option<(Kind, Vec<u8>)> {
        let mut bytes = [0; 4_096];
        loop {
            if let Some((header, payload)) = self.incoming.next_frame(1 << 20).unwrap() {
                return Some((header.kind, payload.to_vec()));
            }
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.incoming.feed(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("the node neither answers nor closes: {error}"),
            }
        }
    }
}

fn joined(frame: FrameWriter, kind: Kind, stamp: Stamp) -> Vec<u8> {
    let parts = frame.finish(kind, stamp).unwrap();
    parts.iter().flat_map(|part| part.as_slice().to_vec()).collect()
}

/// A node that could be node 2 of three.
fn card() -> Card {
    Card {
        identity: Identity::new(2, 0xBAD),
        nonce: 0xBAD,
        cluster_id: 0,
        epoch: Epoch::default(),
        dictionary: dictionary_digest(&dictionary()),
        node_count: 3,
    }
}

fn hello(card: Card) -> Hello {
    Hello::new(card, NodeId(0), Channel::Control)
}

/// A cluster of three of which node 2 is gone, so that strangers may claim to be it.
fn two_of_three() -> Cluster {
    let mut cluster = Cluster::start(&[1, 1, 1]);
    cluster.kill(2);
    cluster
}

/// The cluster works, and the links between its nodes stayed up all the time.
fn works(cluster: &Cluster) {
    for node in cluster.live() {
        add(&mut node.db.connect().unwrap(), "works", 1).unwrap();
    }
}

#[test]
fn random_bytes_and_absurd_lengths_close_their_connection_only() {
    let cluster = two_of_three();
    let mut x = 0x1234_5678_9ABC_DEF1_u64;
    let mut random = |length: usize| -> Vec<u8> {
        let mut byte = || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        };
        (0..length).map(|_| byte()).collect()
    };
    let mut cases: Vec<Vec<u8>> = (0..20).map(|round| random(HEADER_BYTES + 50 * round)).collect();
    cases.push(b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: somebody lost\r\n\r\n".to_vec());
    let mut frame = FrameWriter::new();
    hello(card()).encode(frame.writer());
    let good = joined(frame, Kind::Hello, Stamp::default());
    let mut four_gib = good.clone();
    four_gib[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    cases.push(four_gib);
    let mut damaged = good.clone();
    *damaged.last_mut().unwrap() ^= 1;
    cases.push(damaged);
    // A frame longer than a handshake may be.
    let mut frame = FrameWriter::new();
    frame.writer().raw(&[0; 70_000]);
    cases.push(joined(frame, Kind::Hello, Stamp::default()));
    // A message, a ping, a welcome before the handshake.
    for kind in [Kind::Message, Kind::Ping, Kind::Welcome, Kind::Reject] {
        cases.push(joined(FrameWriter::new(), kind, Stamp::default()));
    }
    for case in cases {
        let mut stranger = Stranger::connect(&cluster);
        stranger.send(&case);
        assert_eq!(stranger.answer(), Answer::Closed, "{:?}", &case[..HEADER_BYTES]);
    }
    works(&cluster);
    cluster.stop();
}

#[test]
fn strangers_are_refused_by_reason() {
    let cluster = two_of_three();
    let refusal = |hello: Hello| match Stranger::connect(&cluster).say(&hello) {
        Answer::Reject(reason) => reason,
        other => panic!("{other:?} for {hello:?}"),
    };
    let ours = card().dictionary;
    let other = hello(Card { dictionary: 1, ..card() });
    assert_eq!(refusal(other), RejectReason::OtherDictionary { digest: ours });
    let other = hello(Card { cluster_id: 1, ..card() });
    assert!(matches!(refusal(other), RejectReason::OtherCluster { .. }));
    let unknown = hello(Card { identity: Identity::new(3, 1), node_count: 4, ..card() });
    assert_eq!(refusal(unknown), RejectReason::UnknownNode { nodes: 3 });
    let unknown = hello(Card { identity: Identity::new(u32::MAX, 1), ..card() });
    assert_eq!(refusal(unknown), RejectReason::UnknownNode { nodes: 3 });
    // Whoever belongs to the cluster knows the list, whatever a newcomer was told.
    let longer = hello(Card { node_count: 4, ..card() });
    assert!(matches!(Stranger::connect(&cluster).say(&longer), Answer::Welcome(_)));
    let same = hello(Card { identity: Identity::new(0, 1), ..card() });
    assert_eq!(refusal(same), RejectReason::DuplicateNode);
    let alive = hello(Card { identity: Identity::new(1, 1), ..card() });
    assert_eq!(refusal(alive), RejectReason::DuplicateNode);
    let lost = Hello { to: NodeId(1), ..hello(card()) };
    assert_eq!(refusal(lost), RejectReason::WrongNode { node: NodeId(0) });
    let newer = Hello { version_min: VERSION + 1, version_max: VERSION + 9, ..hello(card()) };
    assert!(matches!(refusal(newer), RejectReason::VersionUnsupported { max: VERSION, .. }));
    works(&cluster);
    cluster.stop();
}

/// A stranger that is welcomed on all channels as node 2.
fn welcomed(cluster: &Cluster) -> [(Stranger, Stamp); 3] {
    Channel::ALL.map(|channel| {
        let mut stranger = Stranger::connect(cluster);
        match stranger.say(&Hello { channel, ..hello(card()) }) {
            Answer::Welcome(Welcome { connection_epoch, card, .. }) => {
                assert_ne!(connection_epoch, 0);
                let Card { cluster_id, epoch, .. } = card;
                let stamp = Stamp { cluster_id, epoch, connection_epoch };
                stranger.prove(stamp);
                (stranger, stamp)
            }
            other => panic!("{other:?}"),
        }
    })
}

#[test]
fn a_welcomed_peer_that_misbehaves_loses_its_link_only() {
    let cluster = two_of_three();
    let message = || {
        let mut frame = FrameWriter::new();
        encode(&PeerMessage::Goodbye, &mut frame);
        frame
    };
    let garbage = || {
        let mut frame = FrameWriter::new();
        frame.writer().raw(&[0xFF; 64]);
        frame
    };
    let cases: [&dyn Fn(Stamp) -> Vec<u8>; 6] = [
        &|stamp| joined(garbage(), Kind::Message, stamp),
        &|stamp| joined(message(), Kind::Message, Stamp { cluster_id: 77, ..stamp }),
        &|stamp| joined(message(), Kind::Message, Stamp { connection_epoch: 1, ..stamp }),
        &|stamp| joined(FrameWriter::new(), Kind::Hello, stamp),
        &|stamp| {
            let mut bytes = joined(message(), Kind::Message, stamp);
            bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
            bytes
        },
        &|stamp| {
            let mut bytes = joined(message(), Kind::Message, stamp);
            *bytes.last_mut().unwrap() ^= 1;
            bytes
        },
    ];
    for (number, case) in cases.into_iter().enumerate() {
        let mut link = welcomed(&cluster);
        let connected = || cluster.db(0).cluster_status().unwrap().members[2].connected;
        eventually("the link is up", connected);
        let (bad, stamp) = &mut link[number % Channel::ALL.len()];
        bad.send(&case(*stamp));
        // All connections end with the one that misbehaved.
        for (stranger, _) in &mut link {
            assert_eq!(stranger.answer(), Answer::Closed);
        }
        eventually("the link is down", || !connected());
    }
    works(&cluster);
    cluster.stop();
}

#[test]
fn silence_before_the_handshake_is_ended_and_crowds_keep_nobody_out() {
    let mut cluster = two_of_three();
    let mut silent: Vec<Stranger> = (0..200).map(|_| Stranger::connect(&cluster)).collect();
    // The real node 2 comes in between strangers that say nothing.
    cluster.open_all(&[2]);
    works(&cluster);
    for stranger in &mut silent {
        assert_eq!(stranger.answer(), Answer::Closed);
    }
    works(&cluster);
    cluster.stop();
}

#[test]
fn part_of_a_link_is_no_link_and_does_not_keep_the_node_out() {
    let mut cluster = two_of_three();
    let mut strangers = [Channel::State, Channel::Control].map(|channel| {
        let mut stranger = Stranger::connect(&cluster);
        let hello = Hello { channel, ..hello(card()) };
        assert!(matches!(stranger.say(&hello), Answer::Welcome(_)));
        stranger
    });
    assert!(!cluster.db(0).cluster_status().unwrap().members[2].connected);
    // They are silent from now on; the real node takes their place.
    cluster.open_all(&[2]);
    for stranger in &mut strangers {
        assert_eq!(stranger.answer(), Answer::Closed);
    }
    works(&cluster);
    cluster.stop();
}

fn admin_hello() -> Vec<u8> {
    let mut frame = FrameWriter::new();
    AdminHello::default().encode(frame.writer());
    joined(frame, Kind::AdminHello, Stamp::default())
}

fn ask(request: &AdminRequest, connection_epoch: u64) -> Vec<u8> {
    let mut frame = FrameWriter::new();
    encode_admin_request(request, frame.writer());
    joined(frame, Kind::AdminRequest, Stamp { connection_epoch, ..Stamp::default() })
}

/// A stranger that is welcomed as an operator, and the bits of its connection.
fn operator(cluster: &Cluster) -> (Stranger, u64) {
    let mut stranger = Stranger::connect(cluster);
    stranger.send(&admin_hello());
    let (kind, payload) = stranger.frame().unwrap();
    assert_eq!(kind, Kind::AdminWelcome);
    let welcome = AdminWelcome::decode(&mut Reader::new(&payload)).unwrap();
    assert_ne!(welcome.connection_epoch, 0);
    (stranger, welcome.connection_epoch)
}

#[test]
fn an_operators_program_that_misbehaves_loses_its_connection_only() {
    let cluster = two_of_three();
    let status = &AdminRequest::Status;
    let raw = |bytes: &[u8], kind, connection_epoch| {
        let mut frame = FrameWriter::new();
        frame.writer().raw(bytes);
        joined(frame, kind, Stamp { connection_epoch, ..Stamp::default() })
    };
    let mut message = FrameWriter::new();
    encode(&PeerMessage::Goodbye, &mut message);
    let goodbye = joined(message, Kind::Message, Stamp::default());
    let goodbye = &goodbye[HEADER_BYTES..];
    let long = AdminRequest::AddNode { addr: "a".repeat(301), rank: 1 };
    let cases: [&dyn Fn(u64) -> Vec<u8>; 12] = [
        &|_| admin_hello(),
        &|_| ask(status, 0),
        &|epoch| ask(status, epoch ^ 1),
        &|epoch| ask(&long, epoch),
        &|epoch| raw(&[], Kind::AdminRequest, epoch),
        &|epoch| raw(&[0xFF], Kind::AdminRequest, epoch),
        &|epoch| raw(&[1, 0], Kind::AdminRequest, epoch),
        &|epoch| raw(&[1], Kind::AdminAnswer, epoch),
        &|epoch| raw(goodbye, Kind::Message, epoch),
        &|epoch| raw(&[], Kind::Ping, epoch),
        &|epoch| raw(&[0; 5_000], Kind::AdminRequest, epoch),
        &|epoch| {
            let mut bytes = ask(status, epoch);
            *bytes.last_mut().unwrap() ^= 2;
            bytes
        },
    ];
    for (number, case) in cases.iter().enumerate() {
        let (mut stranger, epoch) = operator(&cluster);
        // It may ask properly first: that is answered.
        stranger.send(&ask(status, epoch));
        assert_eq!(stranger.frame().unwrap().0, Kind::AdminAnswer);
        stranger.send(&case(epoch));
        assert_eq!(stranger.frame(), None, "case {number}");
    }
    // What an admin connection may say means nothing before a hello, nor to a link.
    let mut stranger = Stranger::connect(&cluster);
    stranger.send(&ask(status, 0));
    assert_eq!(stranger.answer(), Answer::Closed);
    let [(mut control, stamp), ..] = welcomed(&cluster);
    control.send(&ask(status, stamp.connection_epoch));
    assert_eq!(control.answer(), Answer::Closed);
    // Nor does a version that nobody speaks yet.
    let newer = AdminHello { version_min: VERSION + 1, version_max: VERSION + 1 };
    let mut frame = FrameWriter::new();
    newer.encode(frame.writer());
    let mut stranger = Stranger::connect(&cluster);
    stranger.send(&joined(frame, Kind::AdminHello, Stamp::default()));
    let refused = RejectReason::VersionUnsupported { min: VERSION, max: VERSION };
    assert_eq!(stranger.answer(), Answer::Reject(refused));
    works(&cluster);
    cluster.stop();
}

#[test]
fn bytes_of_an_old_admin_connection_mean_nothing_on_a_new_one() {
    let cluster = two_of_three();
    let (mut old, epoch) = operator(&cluster);
    let recorded = ask(&AdminRequest::Status, epoch);
    old.send(&recorded);
    assert_eq!(old.frame().unwrap().0, Kind::AdminAnswer);
    let (mut new, other) = operator(&cluster);
    assert_ne!(epoch, other);
    new.send(&recorded);
    assert_eq!(new.frame(), None);
    works(&cluster);
    cluster.stop();
}

#[test]
fn an_operator_that_asks_faster_than_it_listens_is_read_no_further() {
    let cluster = two_of_three();
    let (mut greedy, epoch) = operator(&cluster);
    // Asked at once, answered one after the other.
    let many: Vec<u8> = (0..100).flat_map(|_| ask(&AdminRequest::Status, epoch)).collect();
    greedy.send(&many);
    for _ in 0..100 {
        assert_eq!(greedy.frame().unwrap().0, Kind::AdminAnswer);
    }
    // It reads no more: after what the sockets hold, the node takes nothing from it, and in the end
    // its operating system gives up on what the stranger does not fetch.
    greedy.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut sent = 0;
    let blocked = loop {
        match greedy.stream.write(&many[sent % many.len()..]) {
            Ok(count) => sent += count,
            Err(error) => break error.kind(),
        }
        assert!(sent < 256 << 20, "the node reads on for ever");
    };
    assert!(matches!(blocked, ErrorKind::WouldBlock | ErrorKind::ConnectionReset), "{blocked}");
    works(&cluster);
    let (mut modest, epoch) = operator(&cluster);
    modest.send(&ask(&AdminRequest::Status, epoch));
    assert_eq!(modest.frame().unwrap().0, Kind::AdminAnswer);
    cluster.stop();
}

#[test]
fn replayed_bytes_of_a_link_change_nothing_while_it_lives_or_after() {
    let cluster = two_of_three();
    let connected = || cluster.db(0).cluster_status().unwrap().members[2].connected;
    let link = welcomed(&cluster);
    eventually("the link is up", connected);
    let recorded: Vec<Vec<u8>> = Channel::ALL
        .into_iter()
        .zip(&link)
        .map(|(channel, (_, stamp))| {
            let mut frame = FrameWriter::new();
            Hello { channel, ..hello(card()) }.encode(frame.writer());
            let said = joined(frame, Kind::Hello, Stamp::default());
            let ping = joined(FrameWriter::new(), Kind::Ping, *stamp);
            let mut frame = FrameWriter::new();
            encode(&PeerMessage::Goodbye, &mut frame);
            [said, ping, joined(frame, Kind::Message, *stamp)].concat()
        })
        .collect();
    let replay = |times: usize| {
        for bytes in std::iter::repeat_n(&recorded, times).flatten() {
            let mut stranger = Stranger::connect(&cluster);
            stranger.send(bytes);
            // The hello is as good as it was; what follows it is of another connection.
            while let answer @ (Answer::Welcome(_) | Answer::Reject(_)) = stranger.answer() {
                assert!(matches!(answer, Answer::Welcome(_)), "{answer:?}");
            }
        }
    };
    let heard = |link: &[(Stranger, Stamp); 3]| link.iter().all(|(stranger, _)| stranger.is_open());
    replay(10);
    assert!(connected() && heard(&link), "the link is as it was");
    drop(link);
    eventually("the link is down", || !connected());
    replay(10);
    assert!(!connected());
    works(&cluster);
    cluster.stop();
}
