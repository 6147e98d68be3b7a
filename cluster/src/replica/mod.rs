//! One node's part of the cluster as a pure state machine: no socket, clock, file or thread.
//!
//! The runtime feeds it what happened (a message arrived, a link broke, time passed, a local
//! transaction wants to commit) and does what it wants done. The simulator does the same with a
//! network, a clock and crashes of its own, so what is proven there is what runs.
//!
//! ```text
//!            all configured nodes promise          members' beginning names this identity
//!   Blank ------------------------------> Member <-----------------------+
//!     |                                     ^                             |
//!     | a cluster without this identity     | image installed             |
//!     +-------------------------------> Joining --------------------------+
//! ```
//!
//! A blank or joining node has no consensus core: it cannot vote or acknowledge anything.

mod api;
mod blank;
mod calls;
mod epochs;
mod member;
mod message;
mod node;
mod pending;
mod roster;
mod status;
mod window;

use std::sync::Arc;

use quorate_consensus::{EntryIndex, Identity, NodeId, Term, Ticks};
use quorate_engine::{Applier, CommitError, CommitOptions, Index, Submission, TransactionId};
use quorate_schema::Dictionary;

use crate::admin::{AdminAnswer, AdminError, AdminRequest};
use crate::epoch::Epoch;
use crate::error::ClusterError;
use crate::fresh::{FreshError, Freshness};
use crate::procedure::CallRequest;
use crate::reason::QuorumReason;
use blank::{Blank, Next};
use member::{Beginning, Member, ReceivedImage, Receiving, receive_piece};
use node::{Ending, Link, Node};

#[cfg(feature = "planted-bugs")]
pub use api::ReplicaBug;
pub use api::{
    ClusterEvent, Counters, Input, MemberStatus, Output, Phase, ReplicaSettings, Status,
};
pub use member::DIGEST_INTERVAL;
pub use message::{
    Channel, DeclineReason, Genesis, ImageHead, ImageId, ImagePiece, PeerMessage, RefusalReason,
    Request, Standing,
};
pub use roster::{NODE_IDS_MAX, Roster, RosterChange, RosterError, RosterNode};

/// One node of a cluster. See the module.
///
/// Invariants: it never sends to a peer that is not linked; a blank or joining node sends no
/// consensus message; after `Finished` nothing comes out.
pub struct Replica {
    node: Node,
    stage: Stage,
    /// Random bits of which this node makes cluster ids, if it forms one.
    cluster_id_seed: u128,
    /// How often the node gave up what it was for a newer epoch.
    rebirths: u32,
}

enum Stage {
    Blank(Blank),
    Joining(Box<Joining>),
    Member(Box<Member>),
    Ended,
}

/// A node that asked a running cluster for its state.
struct Joining {
    genesis: Genesis,
    /// The leader said that the roster does not list this node.
    unlisted: bool,
    receiving: Option<Receiving>,
    last_asked: Ticks,
}

/// How often a joining node repeats its request, ms.
const JOIN_INTERVAL_MS: Ticks = 50;

impl Joining {
    /// What was built of an image is forgotten if its sender stays away.
    fn look_at_receiving(&mut self, node: &Node) {
        let Some(receiving) = &mut self.receiving else { return };
        let linked = node.is_linked(receiving.from());
        if receiving.is_given_up(node.now, linked) {
            self.receiving = None;
        }
    }
}

impl Replica {
    /// A node that has just started without state.
    pub fn new(
        settings: ReplicaSettings,
        applier: Applier,
        dictionary: Arc<Dictionary>,
        cluster_id_seed: u128,
        now: Ticks,
    ) -> Self {
        let position = settings.identity.node.0 as usize;
        assert!(position < settings.ranks.len(), "node {position} is not in the list");
        Self {
            node: Node::new(settings, applier, dictionary, now),
            stage: Stage::Blank(Blank::default()),
            cluster_id_seed,
            rebirths: 0,
        }
    }

    /// Takes an input in; what it wants done is appended to `out`, in order.
    pub fn step(&mut self, now: Ticks, input: Input, out: &mut Vec<Output>) {
        if matches!(self.stage, Stage::Ended) {
            self.refuse_after_end(input);
            return self.node.drain(out);
        }
        self.node.now = self.node.now.max(now);
        self.take(input);
        if let Stage::Blank(blank) = &mut self.stage {
            let next = blank.try_propose(&mut self.node, self.cluster_id_seed);
            self.follow(next);
        }
        if let Stage::Member(member) = &mut self.stage {
            member.settle(&mut self.node);
            if let Some(end) = member.take_end() {
                self.end(end);
            }
        }
        self.node.drain(out);
    }

    /// Where the node stands.
    pub fn phase(&self) -> Phase {
        match self.stage {
            Stage::Ended => Phase::Ended,
            _ if self.node.ending != Ending::No => Phase::Stopping,
            Stage::Blank(_) => Phase::Forming,
            Stage::Joining(_) => Phase::Joining,
            Stage::Member(_) => Phase::Member,
        }
    }

    /// When the next [`Input::Tick`] is wanted, at the latest.
    pub fn next_wakeup(&self) -> Ticks {
        match &self.stage {
            Stage::Blank(blank) => blank.next_repeat(),
            Stage::Ended => api::NEVER,
            Stage::Joining(joining) => joining.last_asked + JOIN_INTERVAL_MS,
            Stage::Member(member) => member.next_wakeup(&self.node),
        }
    }

    /// True if an [`Input::Tick`] at `now` sends another piece of an image, or ends one. Each
    /// such tick leaves less to do, so they may follow each other without a pause: as long as
    /// the receivers keep up there is no reason to wait for the clock.
    pub fn has_piece_due(&self, now: Ticks) -> bool {
        match &self.stage {
            Stage::Member(member) => member.has_piece_due(&self.node, now),
            _ => false,
        }
    }

    /// The newest transaction applied here.
    pub fn applied(&self) -> Index {
        self.node.applier.applied()
    }

    /// Counts since the replica was made.
    pub fn counters(&self) -> Counters {
        self.node.counters
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Tick { random } => self.tick(random),
            Input::PeerUp { peer } => self.link_up(peer),
            Input::PeerDown { peer } => self.link_broke(peer),
            Input::Receive { from, message } => self.receive(from, message),
            Input::Submit(submission, options) => self.submit(&submission, options),
            Input::Call { id, request, limit_ms } => self.call(id.sequence, request, limit_ms),
            Input::Ran(ran) => {
                if let Stage::Member(member) = &mut self.stage {
                    member.ran(&mut self.node, ran);
                }
            }
            Input::Outcome { id, wanted, limit_ms } => self.outcome(id, wanted, limit_ms),
            Input::Fresh { token, freshness, limit_ms } => self.fresh(token, freshness, limit_ms),
            Input::Flush => {}
            Input::Stop => self.begin_end(true),
            Input::Detach => self.begin_end(false),
            Input::Veto { on } => self.veto(on),
            Input::Admin { token, request, id, low_water, random } => {
                self.admin(token, (id.sequence, low_water), request, random);
            }
            Input::NewerEpoch { epoch, .. } => self.newer_epoch(epoch),
            Input::TurnedAway { .. } => self.turned_away(),
        }
    }

    fn tick(&mut self, random: u64) {
        match &mut self.stage {
            Stage::Blank(blank) => blank.repeat(&mut self.node),
            Stage::Member(member) => member.tick(&mut self.node, random),
            Stage::Joining(joining) if self.node.now >= joining.last_asked + JOIN_INTERVAL_MS => {
                joining.last_asked = self.node.now;
                joining.look_at_receiving(&self.node);
                self.node.broadcast(&PeerMessage::Join);
            }
            _ => {}
        }
    }

    fn link_up(&mut self, peer: Identity) {
        assert!(peer.node != self.node.identity().node, "a link to itself");
        if let Some(old) = self.node.links.get(&peer.node).map(|link| link.identity) {
            self.link_broke(old);
        }
        self.node.links.insert(peer.node, Link { identity: peer, standing: None });
        self.node.event(ClusterEvent::Connected(peer.node));
        let standing = match &self.stage {
            Stage::Blank(_) | Stage::Ended => Standing::Blank,
            Stage::Joining(joining) => Standing::Joining { cluster_id: joining.genesis.cluster_id },
            Stage::Member(member) => member.standing(&self.node),
        };
        self.node.send(peer, PeerMessage::Standing(standing));
        if let Stage::Member(member) = &mut self.stage {
            member.link_up(&mut self.node, peer);
        }
    }

    fn link_broke(&mut self, peer: Identity) {
        if !self.node.is_linked(peer) {
            return;
        }
        self.node.links.remove(&peer.node);
        self.node.event(ClusterEvent::Disconnected(peer.node));
        match &mut self.stage {
            Stage::Blank(blank) => blank.link_broke(peer),
            Stage::Joining(_) => {} // an image under way may go on when the link is back
            Stage::Member(member) => member.link_broke(&mut self.node, peer),
            Stage::Ended => {}
        }
    }

    fn receive(&mut self, from: Identity, message: PeerMessage) {
        if !self.node.is_linked(from) {
            return; // an old link's last words
        }
        if let PeerMessage::Standing(standing) = &message {
            let link = self.node.links.get_mut(&from.node).expect("linked, as just checked");
            link.standing = Some(standing.clone());
        }
        if let PeerMessage::Standing(Standing::Member(genesis, epoch)) = &message
            && self.belongs_to(genesis)
            && self.node.epoch.compare(*epoch) == Some(std::cmp::Ordering::Less)
        {
            return self.newer_epoch(*epoch);
        }
        match &mut self.stage {
            Stage::Blank(blank) => {
                let next = blank.receive(&mut self.node, from, message);
                self.follow(next);
            }
            Stage::Joining(_) => self.receive_joining(from, message),
            Stage::Member(member) => member.receive(&mut self.node, from, message),
            Stage::Ended => {}
        }
    }

    fn receive_joining(&mut self, from: Identity, message: PeerMessage) {
        let Stage::Joining(joining) = &mut self.stage else { return };
        let piece = match message {
            PeerMessage::Image(piece) => piece,
            PeerMessage::AskImage { image } => {
                let pieces = joining.receiving.as_ref().map_or(0, |r| r.pieces_of(from, image));
                return self.node.send(from, PeerMessage::Received { image, pieces });
            }
            PeerMessage::Declined { reason: DeclineReason::NotListed } => {
                joining.unlisted = true;
                return;
            }
            PeerMessage::Removed => return self.end(Err(ClusterError::Removed)),
            _ => return,
        };
        let epoch = self.node.epoch;
        let is_other = |head: &ImageHead| head.genesis != joining.genesis || head.epoch != epoch;
        if piece.head.as_deref().is_some_and(is_other) {
            return;
        }
        let received = receive_piece(&mut self.node, &mut joining.receiving, from, piece);
        let installed = received.and_then(|image| {
            let Some(ReceivedImage { from, id, head, built }) = image else { return Ok(None) };
            self.node.applier.install_built(built).map(|_| Some((from, id.last, head)))
        });
        match installed {
            Ok(None) => {}
            Ok(Some((from, last, head))) => self.become_member(from, last, head),
            Err(error) => self.end(Err(ClusterError::Image(error))),
        }
    }

    fn become_member(&mut self, from: Identity, last: EntryIndex, head: ImageHead) {
        let ImageHead { last_term, config, genesis, stopped, roster, time_ms, .. } = head;
        self.node.logged_time_ms = time_ms;
        self.node.counters.images_installed += 1;
        let beginning = Beginning { genesis, last, last_term, config, stopped, roster };
        let member = Member::new(&mut self.node, beginning);
        self.node.send(from, PeerMessage::Installed { last });
        self.stage = Stage::Member(Box::new(member));
    }

    fn follow(&mut self, next: Next) {
        match next {
            Next::Stay => {}
            Next::Start(genesis) => self.start(genesis),
            Next::Join(genesis, epoch) => self.join(genesis, epoch),
            Next::Fail(error) => self.end(Err(error)),
        }
    }

    fn start(&mut self, genesis: Genesis) {
        let config = quorate_consensus::Config { current: genesis.members.clone(), next: None };
        if config.validate().is_err() {
            return; // no node of ours proposes such a beginning
        }
        self.node.output(Output::Stamp { cluster_id: genesis.cluster_id, epoch: Epoch::default() });
        self.node.event(ClusterEvent::Formed);
        let (last, last_term) = (EntryIndex(0), Term(0));
        let addresses = genesis.addresses.iter().cloned();
        let roster = Roster::new(addresses.zip(genesis.members.iter().map(|member| member.rank)));
        let stopped = Vec::new();
        let beginning = Beginning { genesis, last, last_term, config, stopped, roster };
        self.stage = Stage::Member(Box::new(Member::new(&mut self.node, beginning)));
    }

    fn join(&mut self, genesis: Genesis, epoch: Epoch) {
        let cluster_id = genesis.cluster_id;
        self.node.epoch = epoch;
        self.node.output(Output::Stamp { cluster_id, epoch });
        self.node.event(ClusterEvent::Joining);
        self.node.broadcast(&PeerMessage::Standing(Standing::Joining { cluster_id }));
        self.node.broadcast(&PeerMessage::Join);
        self.stage = Stage::Joining(Box::new(Joining::new(genesis, self.node.now)));
    }

    fn submit(&mut self, submission: &Submission, options: CommitOptions) {
        if submission.id.origin != self.node.identity().incarnation.0 {
            let reason = "the cluster was formed again meanwhile; begin anew".into();
            let result = Err(CommitError::NoQuorum { reason });
            return self.node.output(Output::Complete { id: submission.id, result });
        }
        if let Stage::Member(member) = &mut self.stage {
            return member.submit(&mut self.node, submission, options);
        }
        let reason = QuorumReason::NoState.to_string();
        let sequence = submission.id.sequence;
        self.node.complete(sequence, Err(CommitError::NoQuorum { reason }));
    }

    fn call(&mut self, sequence: u64, request: Arc<CallRequest>, limit_ms: Option<u64>) {
        if let Stage::Member(member) = &mut self.stage {
            return member.call(&mut self.node, sequence, request, limit_ms);
        }
        self.node.calls.insert(sequence, None);
        let reason = QuorumReason::NoState.to_string();
        self.node.complete(sequence, Err(CommitError::NoQuorum { reason }));
    }

    fn outcome(&mut self, id: TransactionId, wanted: TransactionId, limit_ms: u64) {
        if let Stage::Member(member) = &mut self.stage {
            return member.ask_outcome(&mut self.node, id, wanted, limit_ms);
        }
        self.node.outcomes.insert(id.sequence, wanted);
        let reason = QuorumReason::NoState.to_string();
        self.node.complete(id.sequence, Err(CommitError::NoQuorum { reason }));
    }

    fn fresh(&mut self, token: u64, freshness: Freshness, limit_ms: u64) {
        if let Stage::Member(member) = &mut self.stage {
            return member.fresh(&mut self.node, token, freshness, limit_ms);
        }
        let reason = QuorumReason::NoState;
        self.node.fresh(token, Err(FreshError::NoQuorum { reason }));
    }

    fn begin_end(&mut self, orderly: bool) {
        if self.node.ending != Ending::No {
            return;
        }
        let deadline = self.node.now + self.node.settings.stop_limit_ms;
        self.node.ending =
            if orderly { Ending::Stop { deadline } } else { Ending::Detach { deadline } };
        match &mut self.stage {
            Stage::Member(member) => member.begin_end(&mut self.node),
            _ => self.end(Ok(())),
        }
    }

    fn admin(&mut self, token: u64, id: (u64, u64), request: AdminRequest, random: u64) {
        let error = match &mut self.stage {
            Stage::Member(_) if request == AdminRequest::Recover => {
                self.node.settled(id.0, None);
                let answer = match self.recover(random) {
                    Ok(recovery) => AdminAnswer::Recovered(recovery),
                    Err(error) => AdminAnswer::Refused(error),
                };
                return self.node.admin_answer(token, answer);
            }
            Stage::Member(member) => return member.operator(&mut self.node, token, id, request),
            Stage::Blank(_) | Stage::Joining(_) => AdminError::NotMember,
            Stage::Ended => AdminError::Stopped,
        };
        self.node.settled(id.0, None);
        self.node.admin_refused(token, error);
    }

    fn belongs_to(&self, genesis: &Genesis) -> bool {
        match &self.stage {
            Stage::Member(member) => member.genesis().cluster_id == genesis.cluster_id,
            Stage::Joining(joining) => joining.genesis.cluster_id == genesis.cluster_id,
            Stage::Blank(_) | Stage::Ended => false,
        }
    }

    /// Whoever belongs to a cluster hears from it for good. A blank node may just have dialled the
    /// wrong one: its opening fails with that refusal.
    fn turned_away(&mut self) {
        if matches!(self.stage, Stage::Member(_) | Stage::Joining(_)) {
            self.end(Err(ClusterError::Removed));
        }
    }

    fn veto(&mut self, on: bool) {
        self.node.vetoed = on;
        if let Stage::Member(member) = &mut self.stage {
            member.veto(&mut self.node, on);
        }
    }

    /// The node takes part no longer: nobody is left waiting.
    fn end(&mut self, result: Result<(), ClusterError>) {
        if let Stage::Member(member) = &mut self.stage {
            member.end_reads(&mut self.node, &FreshError::Stopped);
            member.end_everywhere(&mut self.node);
            member.end_errands(&mut self.node, &AdminError::Stopped);
        }
        self.stage = Stage::Ended;
        for sequence in self.node.pending.sequences() {
            let id = self.node.transaction_id(sequence);
            let asked = self.node.pending.was_asked(sequence);
            if self.node.pending.remove(sequence).is_some_and(|ended| !ended.answered) {
                let error = if asked { CommitError::InDoubt(id) } else { CommitError::Stopped };
                self.node.complete(sequence, Err(error));
            }
        }
        self.node.output(Output::Finished(result));
    }

    fn refuse_after_end(&mut self, input: Input) {
        match input {
            Input::Submit(submission, _) => {
                self.node.complete(submission.id.sequence, Err(CommitError::Stopped));
            }
            Input::Fresh { token, .. } => self.node.fresh(token, Err(FreshError::Stopped)),
            Input::Call { id, .. } => {
                self.node.calls.insert(id.sequence, None);
                self.node.complete(id.sequence, Err(CommitError::Stopped));
            }
            Input::Outcome { id, wanted, .. } => {
                self.node.outcomes.insert(id.sequence, wanted);
                self.node.complete(id.sequence, Err(CommitError::Stopped));
            }
            Input::Admin { token, request, id, low_water, random } => {
                self.admin(token, (id.sequence, low_water), request, random);
            }
            _ => {}
        }
    }

    fn node_id(&self) -> NodeId {
        self.node.identity().node
    }
}
