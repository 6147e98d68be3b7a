//! A node that holds state: it drives its consensus core, applies what is committed, certifies
//! while it leads, and takes part in admission and in the orderly end.
//!
//! The state is split by who owns it: `log` (core, applied position), `leading` (the tail and the
//! open window of the term this node leads), `calls` (procedures it runs for others), `requests`
//! (own transactions on their way), `reads` (own readers that want to be sure, and the leader's
//! answer to those of others), `admission` (new incarnations), `transfer` (images), `digests` (is
//! the state that of the others?), `farewell` (stop and detach).
//!
//! Invariants:
//!
//! * the engine holds exactly the transactions of the entries up to `applied_entry`;
//! * `leading` is there iff the core leads, and its tail knows exactly the windows of the log
//!   behind `applied_entry`, and the open one;
//! * what a core's output says must be persisted is reported persisted before the messages that
//!   wait for it leave (memory mode: at once).

mod admission;
mod calls;
mod digests;
mod everywhere;
mod farewell;
mod leading;
mod log;
mod membership;
mod operators;
mod outcomes;
mod reach;
mod reads;
mod requests;
mod transfer;

use std::collections::BTreeMap;

use quorate_consensus::{
    Config, Core, EntryIndex, HardState, Identity, Input as CoreInput, Message, MessageBody, Role,
    Start, Term, Ticks,
};

use super::api::{ClusterEvent, NEVER};
use super::message::{Genesis, PeerMessage, Standing};
use super::node::Node;
use super::roster::Roster;
use crate::error::ClusterError;

use admission::Joiner;
pub use digests::DIGEST_INTERVAL;
use digests::Digests;
use everywhere::Everywhere;
use farewell::Farewell;
use leading::Leading;
use log::Kept;
use operators::{Effect, Handover};
pub(super) use operators::{Errand, error_of_commit};
use reads::Reads;
use transfer::Transfers;
pub(super) use transfer::{ReceivedImage, Receiving, receive_piece};

/// See the module.
pub(super) struct Member {
    core: Core,
    genesis: Genesis,
    applied_entry: EntryIndex,
    applied_term: Term,
    applied_config: Config,
    /// The newest sequence the core was told is persisted.
    persisted: u64,
    /// Messages that wait for a later one.
    held: Vec<(u64, Identity, Message)>,
    leading: Option<Leading>,
    /// The newest term this node led.
    last_led: Term,
    kept: Kept,
    /// Linked incarnations that asked to be taken in, or to get their rank.
    joiners: BTreeMap<Identity, Joiner>,
    transfers: Transfers,
    farewell: Farewell,
    reads: Reads,
    everywhere: Everywhere,
    digests: Digests,
    /// Since when this node has no quorum or no leader.
    unable_since: Option<Ticks>,
    /// When this node last did what it does from time to time.
    last_round: Ticks,
    announced: Announced,
    /// What operators wait for.
    effects: Vec<Effect>,
    handover: Option<Handover>,
    /// This node was taken out of the cluster, and knows it.
    is_removed: bool,
    /// A leader said that this node is out of the configuration, and did not take it in yet.
    is_outside: bool,
    /// The leader that was given own requests last, and its term.
    asked: Option<(Term, Identity)>,
    /// Waiting requests may find a leader now.
    eager: bool,
    /// The configuration is another one: joiners may have their next step.
    configured: bool,
    /// The node ends like this.
    end: Option<Result<(), ClusterError>>,
}

/// What was said last to the application, to say it once.
#[derive(Debug, Default, PartialEq, Eq)]
struct Announced {
    leader: Option<Identity>,
    quorum: bool,
    members: BTreeMap<Identity, u32>,
}

/// Where a member's log begins.
pub(super) struct Beginning {
    pub(super) genesis: Genesis,
    pub(super) last: EntryIndex,
    pub(super) last_term: Term,
    pub(super) config: Config,
    pub(super) stopped: Vec<Identity>,
    pub(super) roster: Roster,
}

/// How often a member repeats its requests (join, stop, leave) and looks at its joiners, ms.
const ROUND_MS: Ticks = 20;

impl Member {
    pub(super) fn new(node: &mut Node, beginning: Beginning) -> Self {
        let Beginning { genesis, last, last_term, config, stopped, roster } = beginning;
        let start = Start {
            hard: HardState { term: last_term, vote: None },
            last,
            last_term,
            config: config.clone(),
            entries: Vec::new(),
        };
        let core = Core::new(node.settings.core.clone(), node.identity(), start, node.now);
        let mut member = Self {
            core,
            genesis,
            applied_entry: last,
            applied_term: last_term,
            applied_config: config,
            persisted: 0,
            held: Vec::new(),
            leading: None,
            last_led: Term(0),
            kept: Kept::default(),
            joiners: BTreeMap::new(),
            transfers: Transfers::default(),
            farewell: Farewell::new(stopped),
            reads: Reads::default(),
            everywhere: Everywhere::default(),
            digests: Digests::default(),
            unable_since: None,
            last_round: node.now,
            announced: Announced::default(),
            effects: Vec::new(),
            handover: None,
            is_removed: false,
            is_outside: false,
            asked: None,
            eager: false,
            configured: false,
            end: None,
        };
        member.adopt_roster(node, roster);
        member.note_end();
        if node.vetoed {
            member.drive(node, CoreInput::Veto { on: true });
        }
        let peers: Vec<Identity> = node.links.values().map(|link| link.identity).collect();
        for peer in peers {
            member.drive(node, CoreInput::PeerUp { peer });
        }
        member.announce(node);
        node.broadcast(&PeerMessage::Standing(member.standing(node)));
        member
    }

    pub(super) fn standing(&self, node: &Node) -> Standing {
        Standing::Member(self.genesis.clone(), node.epoch)
    }

    pub(super) fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// Where the applied log ends, and whose it is.
    pub(super) fn position(&self) -> (Genesis, EntryIndex, Term) {
        (self.genesis.clone(), self.applied_entry, self.core.term())
    }

    /// True if this node and those it is connected to are a quorum.
    pub(super) fn has_quorum(&self) -> bool {
        self.core.connected_quorum()
    }

    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    pub(super) fn config(&self) -> &Config {
        &self.applied_config
    }

    /// True once an entry of the term this node lives in is applied here: it is up to date with
    /// its leader's beginning.
    pub(super) fn is_current(&self) -> bool {
        self.applied_term == self.core.term() && self.core.leader().is_some()
    }

    pub(super) fn take_end(&mut self) -> Option<Result<(), ClusterError>> {
        self.end.take()
    }

    pub(super) fn tick(&mut self, node: &mut Node, random: u64) {
        self.drive(node, CoreInput::Tick { random });
        if self.has_diverged() {
            return;
        }
        if node.now >= self.last_round + ROUND_MS {
            self.last_round = node.now;
            self.round(node);
        }
        self.expire(node);
        self.expire_reads(node);
        self.expire_everywhere(node);
        self.close_window_if_due(node);
        self.pump_images(node);
    }

    /// What is repeated because messages can be lost.
    fn round(&mut self, node: &mut Node) {
        self.farewell.note_links(node);
        self.ask_for_rank(node);
        self.tell_outsiders(node);
        self.admit(node);
        self.look_at_images(node);
        self.say_farewell(node);
        self.give_waiting(node);
        self.repeat_old_question(node);
        self.everywhere.forget_asked();
        self.note_effects(node);
        self.note_handover(node);
    }

    pub(super) fn link_up(&mut self, node: &mut Node, peer: Identity) {
        self.farewell.linked(peer);
        self.image_link_up(node, peer);
        self.everywhere.link_up(peer);
        self.drive(node, CoreInput::PeerUp { peer });
        self.repeat_goodbye(node, peer);
        self.repeat_digests(node, peer);
    }

    pub(super) fn link_broke(&mut self, node: &mut Node, peer: Identity) {
        self.joiners.remove(&peer);
        self.reads.link_broke(peer);
        self.everywhere.link_broke(peer, node.now);
        self.image_link_broke(node, peer);
        if let Some((term, _)) = self.asked.filter(|(_, leader)| *leader == peer) {
            node.pending.leader_link_broke(term);
        }
        self.drive(node, CoreInput::PeerDown { peer });
    }

    pub(super) fn receive(&mut self, node: &mut Node, from: Identity, message: PeerMessage) {
        if matches!(message, PeerMessage::Core(_) | PeerMessage::Join | PeerMessage::Standing(_))
            && self.turned_away(node, from)
        {
            return;
        }
        match message {
            PeerMessage::Core(message) => {
                let is_append = matches!(message.body, MessageBody::Append { .. });
                self.drive(node, CoreInput::Receive { from, message });
                if is_append {
                    self.note_append(from);
                }
                if self.joiners.contains_key(&from) {
                    self.admit(node); // it may have caught up with this
                }
            }
            PeerMessage::Standing(Standing::Blank) => {
                // It did not hear, or began anew: it starts or joins by what it hears now.
                node.send(from, PeerMessage::Standing(self.standing(node)));
            }
            PeerMessage::Standing(_) => self.admit(node),
            PeerMessage::Join => {
                if !self.farewell.wants_out(from) {
                    self.joiners.entry(from).or_default();
                    self.admit(node);
                }
            }
            PeerMessage::Submit { term, id, request } => {
                self.request_from(node, from, term, id, request);
            }
            PeerMessage::Refused { id, term, reason } => self.refused(node, id, term, reason),
            PeerMessage::Image(piece) => self.image_piece(node, from, piece),
            PeerMessage::AskImage { image } => self.image_asked(node, from, image),
            PeerMessage::Received { image, pieces } => {
                self.image_received(node, from, image, pieces);
            }
            PeerMessage::Installed { last } => self.image_installed(node, from, last),
            PeerMessage::Leave => self.remove_member(node, from),
            PeerMessage::Left => self.told_left(node),
            PeerMessage::Removed => self.removed(),
            PeerMessage::Transfer { to } => self.hand_over(node, to),
            PeerMessage::Goodbye => self.farewell.goodbye_from(from),
            PeerMessage::AskApplied { index } => self.applied_asked(node, from, index),
            PeerMessage::Applied { index } => self.applied_told(from, index),
            PeerMessage::Digest { epoch, entry, digest } => {
                self.digest_told(node, from, epoch, (entry, digest));
            }
            PeerMessage::AskRead { token } => self.read_asked(from, token),
            PeerMessage::ReadIndex { token, index, term } => {
                self.read_answered(node, token, index, term);
            }
            // A member neither forms nor promises; the sender learns that from its standing.
            PeerMessage::Form(_) => node.send(from, PeerMessage::Standing(self.standing(node))),
            PeerMessage::Promised { .. } | PeerMessage::Declined { .. } => {}
        }
    }

    pub(super) fn veto(&mut self, node: &mut Node, on: bool) {
        self.drive(node, CoreInput::Veto { on });
    }

    /// What follows from any input: requests whose leader is known now, news, the end.
    pub(super) fn settle(&mut self, node: &mut Node) {
        if self.has_diverged() {
            return;
        }
        self.refuse_without_quorum(node);
        self.announce(node);
        let able = self.may_commit(node) && self.core.leader().is_some();
        self.unable_since = if able { None } else { self.unable_since.or(Some(node.now)) };
        if std::mem::take(&mut self.eager) {
            self.give_waiting(node);
        }
        if std::mem::take(&mut self.configured) {
            self.admit(node);
        }
        self.settle_reads(node);
        self.settle_everywhere(node);
        self.run_calls(node);
        self.close_window_if_due(node);
        self.finish(node);
    }

    /// True if a commit can be asked for here.
    pub(super) fn may_commit(&self, node: &Node) -> bool {
        !node.vetoed && self.core.connected_quorum() && !self.digests.is_disputed()
    }

    pub(super) fn next_wakeup(&self, node: &Node) -> Ticks {
        let window = self.leading.as_ref().map_or(NEVER, |leading| leading.window_deadline(node));
        let busy = node.pending.has_waiting()
            || !self.joiners.is_empty()
            || self.transfers.is_busy()
            || node.ending != super::node::Ending::No
            || !self.farewell.is_quiet()
            || self.wants_rank(node)
            || self.reads.is_asking()
            || self.everywhere.is_waiting()
            || self.has_errands();
        let round = if busy { self.last_round + ROUND_MS } else { NEVER };
        let deadline = node.pending.next_deadline().unwrap_or(NEVER);
        let reads = self.reads.next_deadline().unwrap_or(NEVER);
        let everywhere = self.everywhere.next_deadline().unwrap_or(NEVER);
        let disputed = self.digests.is_disputed();
        let piece = if disputed { NEVER } else { self.transfers.next_piece_at(node) };
        let calls = self.leading.as_ref().and_then(|leading| leading.calls.next_run(node.now));
        let waits = reads.min(everywhere).min(deadline).min(calls.unwrap_or(NEVER));
        self.core.next_wakeup().min(window).min(round).min(waits).min(piece)
    }

    fn announce(&mut self, node: &mut Node) {
        let leader = self.core.leader();
        if leader != self.announced.leader {
            self.announced.leader = leader;
            node.event(ClusterEvent::LeaderChanged(leader.map(|leader| leader.node)));
            if let Some(leader) = leader {
                // It may be the old one, known again after a broken link that took copies with it.
                self.repeat_requests(node, leader);
                self.repeat_question(node, leader);
            }
        }
        let quorum = self.may_commit(node);
        if quorum != self.announced.quorum {
            self.announced.quorum = quorum;
            node.event(if quorum {
                ClusterEvent::QuorumGained(self.connected(node))
            } else {
                ClusterEvent::QuorumLost(self.quorum_reason(node))
            });
        }
        self.announce_members(node);
    }

    fn announce_members(&mut self, node: &mut Node) {
        if self.applied_config.next.is_some() {
            return;
        }
        let before = &self.announced.members;
        // Who waits for its first rank has not joined yet; a learner that is to get one has.
        let is_in = |identity: Identity, rank: u32| {
            rank > 0 || before.contains_key(&identity) || node.roster.rank(identity.node) == Some(0)
        };
        let members: BTreeMap<Identity, u32> = (self.applied_config.current.iter())
            .filter(|member| is_in(member.identity, member.rank))
            .map(|member| (member.identity, member.rank))
            .collect();
        if members == *before {
            return;
        }
        for (identity, &rank) in &members {
            match before.get(identity) {
                None => node.event(ClusterEvent::Joined(identity.node)),
                Some(former) if *former != rank => {
                    node.event(ClusterEvent::RankChanged { node: identity.node, rank });
                }
                Some(_) => {}
            }
        }
        for left in before.keys() {
            if members.keys().all(|member| member.node != left.node) {
                node.event(ClusterEvent::Left(left.node));
            }
        }
        self.announced.members = members;
    }

    fn is_leading(&self) -> bool {
        self.core.role() == Role::Leader
    }
}
