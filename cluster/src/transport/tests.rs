//! Transports that talk to each other over real sockets, with a clock of the test's own.

#![allow(clippy::unwrap_used)]

use quorate_consensus::Incarnation;
use tempfile::TempDir;

use super::*;
use crate::replica::Standing;

/// How many turns a test waits for what must happen.
const TURNS_MAX: usize = 3_000;

/// Enough turns for whatever would happen: attempts to connect above all.
const TURNS_LONG: usize = 100;

const STEP_MS: Ticks = 10;

/// Transports in one folder of unix sockets.
struct Net {
    folder: TempDir,
    ends: Vec<End>,
    now: Ticks,
}

/// One transport, and what happened to it.
struct End {
    transport: Transport,
    identity: Identity,
    events: Vec<LinkEvent>,
}

impl Net {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), ends: Vec::new(), now: 0 }
    }

    fn address(&self, name: &str) -> Address {
        Address::Unix(self.folder.path().join(name))
    }

    fn addresses(&self, names: &[&str]) -> Vec<Address> {
        names.iter().map(|name| self.address(name)).collect()
    }

    /// A node that lists these names; its place among the transports.
    fn open(&mut self, node: u32, nonce: u128, names: &[&str]) -> usize {
        let identity = Identity { node: NodeId(node), incarnation: Incarnation(nonce) };
        let card = Card {
            identity,
            nonce,
            cluster_id: 0,
            epoch: Epoch::default(),
            dictionary: 1,
            node_count: names.len() as u32,
        };
        let options = SocketOptions {
            send_buffer_bytes: None,
            recv_buffer_bytes: None,
            keep_alive: Duration::from_secs(10),
            keep_alive_probes: 3,
            user_timeout: Duration::from_secs(3),
        };
        let settings = TransportSettings {
            card,
            addresses: self.addresses(names),
            options,
            connect_interval_ms: 50,
            silence_ms: 3_000,
            ping_ms: 40,
            alive_ms: 300,
            send_limit_bytes: 1 << 20,
            turn_bytes: 1 << 16,
            random: nonce as u64,
        };
        let (transport, _) = Transport::bind(settings).unwrap();
        self.ends.push(End { transport, identity, events: Vec::new() });
        self.ends.len() - 1
    }

    fn turn(&mut self) {
        self.now += STEP_MS;
        for End { transport, events, .. } in &mut self.ends {
            transport.wait(Some(Duration::ZERO)).unwrap();
            transport.receive(self.now);
            transport.tick(self.now);
            transport.flush();
            events.extend(std::iter::from_fn(|| transport.next_event()));
        }
    }

    fn turns(&mut self, count: usize) {
        (0..count).for_each(|_| self.turn());
    }

    fn until(&mut self, what: &str, is_true: impl Fn(&[End]) -> bool) {
        for _ in 0..TURNS_MAX {
            if is_true(&self.ends) {
                return;
            }
            self.turn();
        }
        let events: Vec<_> = self.ends.iter().map(|end| &end.events).collect();
        panic!("in vain: {what}; {events:?}");
    }

    fn until_linked(&mut self, one: usize, two: usize) {
        self.until("a link", |ends| {
            ends[one].is_linked(&ends[two]) && ends[two].is_linked(&ends[one])
        });
    }

    fn stamp(&mut self, end: usize, cluster_id: u128, counter: u64, bits: u64) {
        self.ends[end].transport.stamp(cluster_id, Epoch { counter, bits });
    }

    fn set_nodes(&mut self, end: usize, names: &[Option<&str>]) {
        let place =
            |name: &Option<&str>| name.map_or(Place::Removed, |name| Place::At(self.address(name)));
        let places = names.iter().map(place).collect();
        self.ends[end].transport.set_nodes(places);
    }
}

impl End {
    fn link(&self, node: u32) -> Option<&Link> {
        self.transport.links.get(node as usize)
    }

    fn is_linked(&self, other: &End) -> bool {
        let link = self.link(other.identity.node.0);
        link.is_some_and(|link| link.up && link.peer.unwrap().0 == other.identity)
    }

    fn refusal(&self, node: u32) -> Option<RejectReason> {
        self.transport.refusal(NodeId(node))
    }

    fn downs(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, LinkEvent::Down(_))).count()
    }

    fn newer_epochs(&self) -> Vec<(u32, u64)> {
        let newer = |event: &LinkEvent| match event {
            LinkEvent::NewerEpoch { node, epoch } => Some((node.0, epoch.counter)),
            _ => None,
        };
        self.events.iter().filter_map(newer).collect()
    }

    fn duplicates(&self) -> Vec<u32> {
        let duplicate = |event: &LinkEvent| match event {
            LinkEvent::Duplicate { node } => Some(node.0),
            _ => None,
        };
        self.events.iter().filter_map(duplicate).collect()
    }
}

#[test]
fn blank_nodes_must_mean_the_same_list_and_members_need_not() {
    let mut net = Net::new();
    let (zero, one) = (net.open(0, 10, &["a", "b"]), net.open(1, 11, &["a", "b", "c"]));
    net.until("a refusal", |ends| {
        ends[1].refusal(0) == Some(RejectReason::NodesDiffer { nodes: 2 })
            && ends[0].refusal(1) == Some(RejectReason::NodesDiffer { nodes: 3 })
    });
    net.stamp(zero, 7, 0, 0);
    net.until_linked(zero, one);
}

#[test]
fn a_list_grows_and_the_new_node_is_welcome() {
    let mut net = Net::new();
    let (zero, one) = (net.open(0, 10, &["a", "b"]), net.open(1, 11, &["a", "b"]));
    net.until_linked(zero, one);
    net.stamp(zero, 7, 0, 0);
    net.stamp(one, 7, 0, 0);
    let two = net.open(2, 12, &["a", "b", "c"]);
    net.until("a refusal", |ends| {
        ends[2].refusal(0) == Some(RejectReason::UnknownNode { nodes: 2 })
    });
    for end in [zero, one] {
        net.set_nodes(end, &[Some("a"), Some("b"), Some("c")]);
    }
    net.until_linked(zero, two);
    net.until_linked(one, two);
    assert_eq!(net.ends[zero].downs() + net.ends[one].downs(), 0);
}

#[test]
fn a_newcomer_with_an_old_list_takes_a_members_word_for_more_nodes() {
    let mut net = Net::new();
    let two = net.open(2, 12, &["a", "b", "c"]);
    net.stamp(two, 7, 0, 0);
    let zero = net.open(0, 10, &["a", "b"]);
    net.until_linked(zero, two);
    // Once it has the cluster's list it takes a newcomer's word for nothing.
    net.stamp(zero, 7, 0, 0);
    net.set_nodes(zero, &[Some("a"), Some("b"), Some("c")]);
    let three = net.open(3, 13, &["a", "b", "c", "d"]);
    net.until("a refusal", |ends| {
        ends[2].refusal(0) == Some(RejectReason::UnknownNode { nodes: 3 })
    });
    assert!(net.ends[zero].is_linked(&net.ends[two]));
    assert!(!net.ends[zero].is_linked(&net.ends[three]));
}

#[test]
fn a_member_that_was_away_links_to_one_that_was_added_meanwhile() {
    let mut net = Net::new();
    let away = net.open(0, 10, &["a", "b"]);
    net.stamp(away, 7, 0, 0);
    net.set_nodes(away, &[Some("a"), Some("b")]);
    // The one that was added may lead: who refuses it hears nothing more.
    let added = net.open(2, 12, &["a", "b", "c"]);
    net.stamp(added, 7, 0, 0);
    net.set_nodes(added, &[Some("a"), Some("b"), Some("c")]);
    net.until_linked(away, added);
    net.set_nodes(away, &[Some("a"), Some("b"), Some("c")]);
    net.turns(TURNS_LONG);
    assert_eq!(net.ends[away].downs() + net.ends[added].downs(), 0);
}

#[test]
fn a_link_outlives_a_change_of_address_and_the_next_one_goes_to_the_new() {
    let mut net = Net::new();
    let (zero, one) = (net.open(0, 10, &["a", "b"]), net.open(1, 11, &["a", "b"]));
    net.until_linked(zero, one);
    for end in [zero, one] {
        net.stamp(end, 7, 0, 0);
        net.set_nodes(end, &[Some("new"), Some("b")]);
    }
    net.turns(TURNS_LONG);
    assert_eq!(net.ends[one].downs(), 0);
    // It restarts at the new address; who still has the old one is at no loss for it.
    let gone = net.ends.remove(zero);
    drop(gone);
    let zero = net.open(0, 20, &["new", "b"]);
    net.until_linked(zero, zero - 1);
}

#[test]
fn an_address_that_leads_nowhere_is_left_at_once_for_the_new_one() {
    let mut net = Net::new();
    let one = net.open(1, 11, &["nowhere", "b"]);
    net.turns(TURNS_LONG);
    let zero = net.open(0, 10, &["a", "b"]);
    net.stamp(one, 7, 0, 0);
    net.set_nodes(one, &[Some("a"), Some("b")]);
    net.until_linked(zero, one);
}

#[test]
fn a_removed_node_hears_the_last_words_and_is_refused_from_then_on() {
    let mut net = Net::new();
    let names = ["a", "b", "c"];
    let (zero, one, two) =
        (net.open(0, 10, &names), net.open(1, 11, &names), net.open(2, 12, &names));
    for (x, y) in [(zero, one), (one, two), (zero, two)] {
        net.until_linked(x, y);
    }
    // One removes a node that dials it and one that it dials.
    let last_words = PeerMessage::Standing(Standing::Blank);
    for to in [zero, two] {
        let to = net.ends[to].identity;
        net.ends[one].transport.send(to, &last_words);
    }
    net.set_nodes(one, &[None, Some("b"), None]);
    let from = net.ends[one].identity;
    net.until("last words, then the end of the link", |ends| {
        [0, 2].iter().all(|end: &usize| {
            let about = |event: &&LinkEvent| match event {
                LinkEvent::Message(who, _) | LinkEvent::Down(who) => *who == from,
                _ => false,
            };
            let heard: Vec<&LinkEvent> = ends[*end].events.iter().filter(about).collect();
            matches!(&heard[..], [LinkEvent::Message(..), LinkEvent::Down(_)])
        })
    });
    net.until("a refusal", |ends| ends[2].refusal(1) == Some(RejectReason::Removed));
    net.turns(TURNS_LONG);
    assert!(net.ends[one].link(0).unwrap().is_idle() && net.ends[one].link(2).unwrap().is_idle());
    assert!(net.ends[zero].is_linked(&net.ends[two]), "the others are none of its business");
    assert_eq!(net.ends[one].transport.connections.len(), 0, "and nothing is left of them");
}

#[test]
fn the_lower_epoch_is_refused_and_learns_of_the_higher_whoever_dials() {
    for (dialled, dialler) in [(1, 2), (2, 1)] {
        let mut net = Net::new();
        let (zero, one) = (net.open(0, 10, &["a", "b"]), net.open(1, 11, &["a", "b"]));
        net.stamp(zero, 7, dialled, 5);
        net.stamp(one, 7, dialler, 6);
        let (lower, higher) = if dialled < dialler { (zero, one) } else { (one, zero) };
        net.until("it learns", |ends| !ends[lower].newer_epochs().is_empty());
        net.turns(TURNS_LONG);
        let told = net.ends[lower].newer_epochs();
        assert!(told.iter().all(|told| *told == (higher as u32, 2)), "{told:?}");
        assert_eq!(net.ends[higher].newer_epochs(), []);
        assert!(!net.ends[zero].is_linked(&net.ends[one]));
        // It forgets what it was and takes any.
        net.stamp(lower, 0, 0, 0);
        net.until_linked(zero, one);
    }
}

#[test]
fn equal_counts_with_other_bits_never_meet_and_both_are_told() {
    let mut net = Net::new();
    let (zero, one) = (net.open(0, 10, &["a", "b"]), net.open(1, 11, &["a", "b"]));
    net.stamp(zero, 7, 3, 5);
    net.stamp(one, 7, 3, 6);
    let forked = |bits| Some(RejectReason::ForkedEpoch { epoch: Epoch { counter: 3, bits } });
    net.until("refusals", |ends| {
        ends[0].refusal(1) == forked(6) && ends[1].refusal(0) == forked(5)
    });
    net.turns(TURNS_LONG);
    assert!(!net.ends[zero].is_linked(&net.ends[one]));
    assert!(net.ends.iter().all(|end| end.newer_epochs().is_empty()));
}

#[test]
fn a_new_epoch_ends_the_links_of_the_old() {
    let mut net = Net::new();
    let (zero, one) = (net.open(0, 10, &["a", "b"]), net.open(1, 11, &["a", "b"]));
    net.until_linked(zero, one);
    net.stamp(zero, 7, 0, 0);
    net.stamp(one, 7, 0, 0);
    net.turns(TURNS_LONG);
    assert_eq!(net.ends[one].downs(), 0, "to join a cluster ends no link");
    net.stamp(zero, 7, 1, 99);
    net.until("it learns", |ends| ends[1].newer_epochs().contains(&(0, 1)));
    assert_eq!((net.ends[zero].downs(), net.ends[one].downs()), (1, 1));
    net.stamp(one, 7, 1, 99);
    net.until_linked(zero, one);
}

#[test]
fn a_second_process_under_a_connected_id_is_kept_out_and_both_ends_of_the_link_hear_of_it() {
    let mut net = Net::new();
    let (zero, one) = (net.open(0, 10, &["a", "b"]), net.open(1, 11, &["a", "b"]));
    net.until_linked(zero, one);
    let other = net.open(1, 66, &["a", "elsewhere"]);
    net.until("both hear", |ends| ends[0].duplicates() == [1] && ends[1].duplicates() == [1]);
    net.turns(TURNS_LONG);
    assert_eq!(net.ends[other].refusal(0), Some(RejectReason::DuplicateNode));
    assert_eq!((net.ends[zero].downs(), net.ends[one].downs()), (0, 0));
    let times = [zero, one].map(|end| net.ends[end].duplicates().len());
    assert_eq!(times, [1, 1], "once, however often it tries");
    // When the first is gone the second has its place.
    net.ends.remove(one);
    net.until_linked(zero, other - 1);
}

#[test]
fn a_second_process_under_the_own_id_is_kept_out_and_reported() {
    let mut net = Net::new();
    let zero = net.open(0, 10, &["a", "b"]);
    // By its list the own address is another node's, so it dials it.
    net.open(0, 66, &["elsewhere", "b"]);
    let other = net.open(1, 67, &["a", "b"]);
    net.ends[other].transport.settings.card.identity.node = NodeId(0);
    net.until("it hears", |ends| ends[0].duplicates() == [0]);
    net.turns(TURNS_LONG);
    assert_eq!(net.ends[zero].duplicates(), [0]);
    assert_eq!(net.ends[other].refusal(0), Some(RejectReason::DuplicateNode));
}

#[test]
fn last_words_arrive_although_another_connection_of_the_link_closes_first() {
    let mut net = Net::new();
    let (zero, one) = (net.open(0, 10, &["a", "b"]), net.open(1, 11, &["a", "b"]));
    net.until_linked(zero, one);
    net.turns(TURNS_LONG);
    let to = net.ends[zero].identity;
    let tokens = net.ends[one].link(0).unwrap().tokens;
    let transport = &mut net.ends[one].transport;
    let bulk = tokens[slot(Channel::Bulk)].unwrap();
    transport.connections.get_mut(&bulk).unwrap().finish();
    transport.send(to, &PeerMessage::Standing(Standing::Blank));
    transport.flush();
    net.until("the end of the link", |ends| ends[0].downs() == 1);
    let events = &net.ends[zero].events;
    assert!(matches!(
        events[..],
        [LinkEvent::Up(_), LinkEvent::Message(..), LinkEvent::Down(_), ..]
    ));
}
