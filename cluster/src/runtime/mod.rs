//! The node's runtime: one loop that owns the sockets, the time and the replica.
//!
//! ```text
//!   sockets --> messages --+                      +--> frames --> sockets
//!   clients --> inbox -----+--> replica.step --> outputs --> answers to clients
//!   clock ----> ticks -----+                      +--> events --> delivery thread
//! ```
//!
//! One *turn* of the loop waits until something happens, feeds all of it to the replica, carries
//! out what the replica wants, and writes. Frames leave before clients are answered: others wait
//! for them. The loop decides nothing; it is the only place of the crate that reads the clock.
//!
//! Whoever runs the loop owns the [`Runtime`]; when it goes, by return, by panic or because the
//! database was dropped, its sockets close and everybody who waits is answered.

mod admin;
mod calls;
mod delivery;
mod news;
mod shared;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_consensus::{Identity, Incarnation, NodeId, Role, Ticks};
use quorate_engine::{
    Acknowledged, Applier, CommitError, Index, Outcome, TransactionId, dictionary_digest,
};
use quorate_schema::Dictionary;
use tracing::{info, warn};

use crate::address::Address;
use crate::epoch::Epoch;
use crate::error::{ClusterError, OutcomeError, RejectReason};
use crate::event::NodeInfo;
use crate::fresh::FreshError;
use crate::params::{Checked, ClusterParams};
use crate::procedure::{CallError, CallResult, Procedures};
use crate::replica::{ClusterEvent, Input, Output, Phase, Replica, ReplicaSettings, Status};
use crate::status::{ClusterMember, ClusterStatus};
use crate::transport::{LinkEvent, Place, SocketOptions, Transport, TransportSettings};
use crate::wire::Card;
use admin::{AdminReply, AdminRequests};
use calls::Runner;
use delivery::{Callbacks, Delivery};
use news::News;
use shared::{CallSlot, Command, FreshSlot, OutcomeSlot, Slot, WaitingCommit};

pub(crate) use shared::{Limits, Shared};

/// The largest payload of an entry, bytes: the greatest window and the greatest write set.
const ENTRY_BYTES_MAX: usize = 96 << 20;

/// Appends per follower that may be under way.
const APPENDS_IN_FLIGHT: usize = 64;

/// How long the last words may take to leave, ms.
const FAREWELL_MS: Ticks = 250;

/// Random bits drawn once when a node starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Birth {
    /// This life of the node.
    pub(crate) incarnation: u128,
    /// This process.
    pub(crate) nonce: u128,
    /// If this node forms the cluster, the cluster's id is made of it.
    pub(crate) cluster_id_seed: u128,
    /// Feeds jitter and connection epochs.
    pub(crate) random: u64,
}

impl Birth {
    /// Draws them from the operating system.
    pub(crate) fn draw() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 56];
        getrandom::fill(&mut bytes)?;
        let long =
            |at: usize| u128::from_le_bytes(bytes[at..at + 16].try_into().expect("sixteen bytes"));
        let short = u64::from_le_bytes(bytes[48..].try_into().expect("eight bytes"));
        Ok(Self {
            incarnation: long(0).max(1),
            nonce: long(16),
            cluster_id_seed: long(32).max(1),
            random: short,
        })
    }
}

/// A node that runs, or waits for a thread to run it. See the module.
///
/// Invariant: every slot in `slots` belongs to a submission the replica has not completed.
pub(crate) struct Runtime {
    shared: Arc<Shared>,
    /// `None` only while the runtime goes.
    transport: Option<Transport>,
    replica: Replica,
    /// The cluster's nodes by id; a place is empty if its node was removed.
    nodes: Vec<Option<NodeInfo>>,
    /// Those that were removed, for what is still to be said about them.
    former: Vec<NodeInfo>,
    /// The cluster and its epoch; 0 while there is none.
    stamp: (u128, Epoch),
    own: NodeId,
    delivery: Option<Delivery>,
    asks: bool,
    slots: HashMap<u64, WaitingCommit>,
    /// Who waits for an outcome, by the sequence of the question.
    questions: HashMap<u64, Arc<OutcomeSlot>>,
    /// Who waits for a call, by sequence.
    callers: HashMap<u64, Arc<CallSlot>>,
    runner: Runner,
    /// Readers that wait, by token, and the newest token.
    readers: HashMap<u64, Arc<FreshSlot>>,
    newest_reader: u64,
    /// What was traced last.
    news: News,
    /// Calls that asked for the end, and whether for an orderly one.
    ends: Vec<(bool, Arc<EndSlot>)>,
    connected: BTreeSet<NodeId>,
    question: Question,
    start: Instant,
    random: u64,
    admin_requests: AdminRequests,
    /// Whether plain TCP beyond loopback is allowed.
    insecure: bool,
    finished: Option<Result<(), ClusterError>>,
    /// A refusal by a node that will not change its mind, since the last look.
    rejected: Option<(NodeId, RejectReason)>,
    commands: VecDeque<Command>,
    outputs: Vec<Output>,
    last_tick: Option<Ticks>,
}

/// What a client is told.
enum Answer {
    Commit(TransactionId, Result<Acknowledged, CommitError>),
    Outcome(TransactionId, Result<Outcome, OutcomeError>),
    Fresh(u64, Result<Index, FreshError>),
    Call(TransactionId, Result<CallResult, CallError>),
}

/// Where a call that asked for the end waits.
type EndSlot = Slot<Result<(), ClusterError>>;

/// Where the quorum callback's verdict stands.
#[derive(Debug)]
struct Question {
    /// The number of the newest question.
    round: u64,
    /// When its answer is late; `None` once it is there, or its lateness was reported.
    late_at: Option<Ticks>,
    limit_ms: Ticks,
    vetoed: bool,
}

/// Binds the address and makes what the database needs before the [`Runtime`], which needs the
/// database.
pub(crate) fn bind(
    checked: &Checked,
    dictionary: &Dictionary,
    max_connections: u32,
    birth: Birth,
) -> std::io::Result<(Transport, Arc<Shared>)> {
    let params = checked.params();
    let identity =
        Identity { node: NodeId(params.node_id), incarnation: Incarnation(birth.incarnation) };
    let card = Card {
        identity,
        nonce: birth.nonce,
        cluster_id: 0,
        epoch: Epoch::default(),
        dictionary: dictionary_digest(dictionary),
        node_count: params.nodes.len() as u32,
    };
    let silence_ms = silence_ms(params);
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let options = SocketOptions {
        send_buffer_bytes: params.socket_send_buf_bytes.map(size),
        recv_buffer_bytes: params.socket_recv_buf_bytes.map(size),
        keep_alive: Duration::from_secs(params.keep_alive_time_s),
        keep_alive_probes: params.keep_alive_probes,
        user_timeout: Duration::from_millis(silence_ms),
    };
    let settings = TransportSettings {
        card,
        addresses: checked.addresses().to_vec(),
        options,
        connect_interval_ms: params.connect_interval_ms,
        silence_ms,
        ping_ms: 4 * params.heartbeat_ms.min(silence_ms / 16),
        alive_ms: params.election_timeout_ms,
        send_limit_bytes: size(params.cluster_send_buf_bytes),
        turn_bytes: size(params.cluster_recv_buf_bytes),
        random: birth.random,
    };
    let (transport, waker) = Transport::bind(settings)?;
    let share = u64::from(max_connections) * u64::from(params.conn_pool_factor);
    let limits = Limits {
        in_flight: u32::try_from(share.div_ceil(100)).unwrap_or(u32::MAX).max(1),
        wait: Duration::from_millis(params.commit_limit_ms),
    };
    Ok((transport, Shared::new(birth.incarnation, waker, limits, checked.nodes())))
}

/// After how long a link on which nothing arrives is broken. Long enough that a busy node is not
/// taken for a dead one: leaders are suspected by the replica's own timers, this only finds
/// connections that are dead on one side.
fn silence_ms(params: &ClusterParams) -> Ticks {
    (10 * params.election_timeout_ms).max(3_000)
}

fn replica_settings(checked: &Checked, identity: Identity) -> ReplicaSettings {
    let params = checked.params();
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let append_bytes = size(params.window_bytes).max(1 << 20);
    let send_buf = size(params.cluster_send_buf_bytes);
    let core = quorate_consensus::Settings {
        election_timeout: params.election_timeout_ms,
        heartbeat_interval: params.heartbeat_ms,
        max_append_bytes: append_bytes,
        max_in_flight: (send_buf / 2 / append_bytes).clamp(1, APPENDS_IN_FLIGHT),
        max_entry_bytes: ENTRY_BYTES_MAX,
        ..quorate_consensus::Settings::default()
    };
    ReplicaSettings {
        identity,
        ranks: params.nodes.iter().map(|node| node.qrank).collect(),
        addresses: params.nodes.iter().map(|node| node.addr.clone()).collect(),
        core,
        window_bytes: size(params.window_bytes),
        window_transactions: params.window_transactions,
        window_timeout_ms: params.window_timeout_ms,
        commit_limit_ms: params.commit_limit_ms,
        silence_ms: silence_ms(params),
        stop_limit_ms: params.stop_limit_ms,
        departed_after_ms: params.departed_after_ms,
        image_piece_bytes: size(params.sync_msg_size_bytes),
        image_piece_objects: params.sync_msg_objects as usize,
        image_rate_bytes_per_s: params.sync_rate_bytes_per_s,
        log_keep_bytes: size(params.log_keep_bytes),
        #[cfg(feature = "planted-bugs")]
        bug: None,
    }
}

impl Runtime {
    /// Puts the parts together. No time passes for the node until the loop runs.
    pub(crate) fn new(
        checked: &Checked,
        transport: Transport,
        shared: Arc<Shared>,
        applier: Applier,
        dictionary: Arc<Dictionary>,
        procedures: Arc<Procedures>,
        birth: Birth,
    ) -> std::io::Result<Self> {
        let params = checked.params();
        let own = NodeId(params.node_id);
        let identity = Identity { node: own, incarnation: Incarnation(birth.incarnation) };
        let settings = replica_settings(checked, identity);
        let runner = Runner::new(procedures, applier.clone(), Arc::clone(&shared));
        let replica = Replica::new(settings, applier, dictionary, birth.cluster_id_seed, 0);
        let asks = params.quorum_callback.is_some();
        let delivery = if asks || params.notify_callback.is_some() {
            let callbacks = Callbacks {
                own: checked.nodes()[own.0 as usize].clone(),
                notify: params.notify_callback.clone(),
                quorum: params.quorum_callback.clone(),
            };
            let inbox = Arc::clone(&shared);
            let verdict = move |round, allowed| inbox.tell(Command::Verdict { round, allowed });
            Some(Delivery::start(callbacks, verdict)?)
        } else {
            None
        };
        let limit_ms = params.quorum_callback_limit_ms;
        Ok(Self {
            shared,
            transport: Some(transport),
            replica,
            nodes: checked.nodes().into_iter().map(Some).collect(),
            former: Vec::new(),
            stamp: (0, Epoch::default()),
            own,
            delivery,
            asks,
            slots: HashMap::new(),
            questions: HashMap::new(),
            callers: HashMap::new(),
            runner,
            readers: HashMap::new(),
            newest_reader: 0,
            news: News::default(),
            ends: Vec::new(),
            connected: BTreeSet::new(),
            question: Question { round: 0, late_at: None, limit_ms, vetoed: false },
            start: Instant::now(),
            random: birth.random | 1,
            admin_requests: AdminRequests::new(params.stop_limit_ms),
            insecure: params.insecure,
            finished: None,
            rejected: None,
            commands: VecDeque::new(),
            outputs: Vec::new(),
            last_tick: None,
        })
    }

    /// Runs until the node is ready (`Ok(true)`), the time is over (`Ok(false)`), or a node that
    /// will not change its mind refuses this one while the cluster forms.
    pub(crate) fn run_until_ready(&mut self, limit_ms: Ticks) -> Result<bool, ClusterError> {
        let now = self.now();
        let deadline = now + limit_ms;
        // A cluster of one forms without anything happening.
        self.replica.step(now, Input::Flush, &mut self.outputs);
        loop {
            self.turn(deadline)?;
            if let Some(result) = self.finished.take() {
                result?;
                return Err(ClusterError::Ended);
            }
            if self.replica.status().ready {
                return Ok(true);
            }
            if let (Phase::Forming, Some((node, reason))) = (self.replica.phase(), self.rejected) {
                return Err(ClusterError::Rejected { node, reason });
            }
            if self.now() >= deadline {
                return Ok(false);
            }
        }
    }

    /// Runs until the node's end, and ends it: on return its sockets are closed and nobody waits.
    pub(crate) fn run(mut self) -> Result<(), ClusterError> {
        let result = loop {
            if let Err(error) = self.turn(Ticks::MAX) {
                break Err(error);
            }
            if let Some(result) = self.finished.take() {
                break result;
            }
        };
        match &result {
            Ok(()) => info!(node = self.own.0, "the listener ended"),
            Err(error) => warn!(node = self.own.0, %error, "the listener ended"),
        }
        if !matches!(result, Err(ClusterError::Ended)) {
            self.farewell();
        }
        self.end(result.clone());
        result
    }

    /// How the cluster is.
    pub(crate) fn status(&self) -> ClusterStatus {
        let Status { phase, role, term, leader, quorum, members, waiting_for, ready } =
            self.replica.status();
        let log_entries = self.replica.core().map_or((0, 0), |core| {
            let (last, _) = core.last();
            (core.first().0, last.0)
        });
        let member = |member: &crate::replica::MemberStatus| {
            let transport = self.transport.as_ref();
            Some(ClusterMember {
                info: self.node_info(member.node)?.clone(),
                rank: member.rank,
                joined: member.joined,
                connected: member.connected,
                refusal: transport.and_then(|transport| transport.refusal(member.node)),
            })
        };
        let (cluster_id, epoch) = self.stamp;
        ClusterStatus {
            version: env!("CARGO_PKG_VERSION").to_string(),
            cluster_id,
            epoch,
            index: self.replica.applied(),
            node_id: self.own,
            phase,
            role,
            term: term.0,
            leader,
            quorum,
            ready,
            waiting_for,
            members: members.iter().filter_map(member).collect(),
            log_entries,
            counters: self.replica.counters(),
            callback_panics: self.delivery.as_ref().map_or(0, Delivery::panics),
        }
    }

    /// The refusals that stand in the way of a connection, by node.
    pub(crate) fn refusals(&self) -> Vec<(NodeId, RejectReason)> {
        let Some(transport) = &self.transport else { return Vec::new() };
        let refusal = |info: &NodeInfo| Some((info.node_id, transport.refusal(info.node_id)?));
        self.nodes.iter().flatten().filter_map(refusal).collect()
    }

    fn node_info(&self, node: NodeId) -> Option<&NodeInfo> {
        self.nodes.get(node.0 as usize)?.as_ref()
    }

    fn now(&self) -> Ticks {
        Ticks::try_from(self.start.elapsed().as_millis()).unwrap_or(Ticks::MAX)
    }

    fn transport(&mut self) -> &mut Transport {
        self.transport.as_mut().expect("there until the runtime goes")
    }

    /// One turn of the loop; waits at most until `deadline`.
    fn turn(&mut self, deadline: Ticks) -> Result<(), ClusterError> {
        let timeout = self.timeout(deadline);
        let failed = |error: std::io::Error| ClusterError::Io {
            doing: "waiting for sockets",
            kind: error.kind(),
        };
        self.transport().wait(timeout).map_err(failed)?;
        let mut commands = std::mem::take(&mut self.commands);
        self.shared.take_commands(&mut commands);
        let now = self.now();
        self.transport().receive(now);
        self.link_events(now);
        for command in commands.drain(..) {
            self.command(now, command);
        }
        self.commands = commands;
        self.tick(now);
        self.replica.step(now, Input::Flush, &mut self.outputs);
        let answers = self.carry_out();
        self.news.look(self.own, &self.replica);
        self.transport().tick(now);
        self.transport().flush();
        for answer in answers {
            self.answer(answer);
        }
        Ok(())
    }

    /// How long the loop may wait for sockets; `None` is for ever.
    fn timeout(&mut self, deadline: Ticks) -> Option<Duration> {
        let busy = !self.shared.fall_asleep();
        if busy || self.finished.is_some() || !self.outputs.is_empty() {
            return Some(Duration::ZERO);
        }
        let transport = self.transport.as_ref().expect("there until the runtime goes");
        let late_at = self.question.late_at.unwrap_or(Ticks::MAX);
        let next = self.replica.next_wakeup().min(transport.next_deadline());
        let next = next.min(deadline).min(late_at).min(self.admin_requests.next_deadline());
        if next == Ticks::MAX {
            return None;
        }
        let now = self.now();
        // A deadline that a tick at this very moment did not move must not make the loop spin.
        // One that makes a piece of an image does move it: then there is less room.
        let ticked = self.last_tick == Some(now);
        let least = Ticks::from(ticked && !self.replica.has_piece_due(now));
        Some(Duration::from_millis(next.saturating_sub(now).max(least)))
    }

    fn link_events(&mut self, now: Ticks) {
        while let Some(event) = self.transport().next_event() {
            let input = match event {
                LinkEvent::Up(peer) => {
                    self.connected.insert(peer.node);
                    self.ask(now);
                    Input::PeerUp { peer }
                }
                LinkEvent::Down(peer) => {
                    self.connected.remove(&peer.node);
                    self.ask(now);
                    Input::PeerDown { peer }
                }
                LinkEvent::Admin { token, request } => {
                    self.admin(now, request, AdminReply::Connection(token));
                    continue;
                }
                LinkEvent::NewerEpoch { node, epoch } => Input::NewerEpoch { node, epoch },
                LinkEvent::Duplicate { node } => {
                    self.event(ClusterEvent::DuplicateNode(node));
                    continue;
                }
                LinkEvent::Message(from, message) => Input::Receive { from, message },
                LinkEvent::Refused { node, reason, by_us } => {
                    if !by_us && reason.is_final() {
                        self.rejected = Some((node, reason));
                    }
                    if by_us || reason != RejectReason::Removed {
                        continue;
                    }
                    Input::TurnedAway { node }
                }
            };
            self.replica.step(now, input, &mut self.outputs);
        }
    }

    fn command(&mut self, now: Ticks, command: Command) {
        let input = match command {
            Command::Submit(submission, options, slot) => {
                let waiting = WaitingCommit { slot, through: false };
                let before = self.slots.insert(submission.id.sequence, waiting);
                assert!(before.is_none(), "sequence {} came twice", submission.id.sequence);
                Input::Submit(submission, options)
            }
            Command::Outcome { id, wanted, limit_ms, slot } => {
                self.questions.insert(id.sequence, slot);
                Input::Outcome { id, wanted, limit_ms }
            }
            Command::Call { id, request, limit_ms, slot } => {
                self.callers.insert(id.sequence, slot);
                Input::Call { id, request, limit_ms }
            }
            Command::Ran(ran) => Input::Ran(ran),
            Command::Fresh { freshness, limit_ms, slot } => {
                self.newest_reader += 1;
                let token = self.newest_reader;
                self.readers.insert(token, slot);
                Input::Fresh { token, freshness, limit_ms }
            }
            Command::End { orderly, slot } => {
                self.ends.push((orderly, slot));
                if orderly { Input::Stop } else { Input::Detach }
            }
            Command::Verdict { round, allowed } => {
                if round != self.question.round {
                    return; // a newer question is on its way
                }
                self.question.late_at = None;
                if self.question.vetoed != allowed {
                    return; // nothing new
                }
                self.question.vetoed = !allowed;
                Input::Veto { on: !allowed }
            }
            Command::Admin(request, reply) => return self.admin(now, request, reply),
            Command::Status(slot) => return slot.fill(Some(self.status())),
            Command::Abandon => {
                self.finished = Some(Err(ClusterError::Ended));
                return;
            }
        };
        self.replica.step(now, input, &mut self.outputs);
    }

    fn tick(&mut self, now: Ticks) {
        if now >= self.replica.next_wakeup() {
            let random = self.next_random();
            self.replica.step(now, Input::Tick { random }, &mut self.outputs);
            self.last_tick = Some(now);
        }
        self.admin_tick(now);
        if self.question.late_at.is_some_and(|late_at| now >= late_at) {
            self.question.late_at = None;
            warn!(
                limit_ms = self.question.limit_ms,
                vetoed = self.question.vetoed,
                "the quorum callback is late; its last verdict stands until it answers"
            );
        }
    }

    /// Does what the replica wants done, but for the answers to clients, which it returns.
    fn carry_out(&mut self) -> Vec<Answer> {
        let mut answers = Vec::new();
        let mut outputs = std::mem::take(&mut self.outputs);
        for output in outputs.drain(..) {
            match output {
                Output::Send { to, message } => self.transport().send(to, &message),
                Output::Complete { id, result } => answers.push(Answer::Commit(id, result)),
                Output::Fresh { token, result } => answers.push(Answer::Fresh(token, result)),
                Output::Outcome { id, result } => answers.push(Answer::Outcome(id, result)),
                Output::Called { id, result } => answers.push(Answer::Call(id, result)),
                Output::Run(batch) => self.runner.run(batch),
                Output::Through { id } => self.through(id),
                Output::Settled { id, committed } => {
                    self.shared.doubt_settled(id.sequence, committed);
                }
                Output::Event(event) => self.event(event),
                Output::Stamp { cluster_id, epoch } => {
                    let cluster = format_args!("{cluster_id:032x}");
                    info!(node = self.own.0, %cluster, %epoch, "stamped");
                    self.stamp = (cluster_id, epoch);
                    self.transport().stamp(cluster_id, epoch);
                }
                Output::Nodes(nodes) => self.set_nodes(nodes),
                Output::Reborn { identity } => {
                    warn!(node = self.own.0, ?identity, "gives up its state for a newer epoch");
                    self.shared.reborn(identity.incarnation.0);
                    self.transport().reborn(identity);
                }
                Output::AdminAnswer { token, answer } => self.admin_answered(token, answer),
                Output::EndRefused(error) => self.refuse_detach(&error),
                Output::Finished(result) => self.finished = Some(result),
            }
        }
        if self.outputs.is_empty() {
            self.outputs = outputs; // its memory is used again
        }
        answers
    }

    /// Every call to leave alone hears why not. One to stop may have come meanwhile: its turn.
    fn refuse_detach(&mut self, error: &ClusterError) {
        let (stops, detaches): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.ends).into_iter().partition(|(orderly, _)| *orderly);
        self.shared.ends_refused(detaches.len());
        for (_, slot) in detaches {
            slot.fill(Err(error.clone()));
        }
        self.ends = stops;
        if !self.ends.is_empty() {
            let now = self.now();
            self.replica.step(now, Input::Stop, &mut self.outputs);
        }
    }

    /// The cluster's nodes are others from now on.
    fn set_nodes(&mut self, nodes: Vec<Option<NodeInfo>>) {
        let place = |info: &Option<NodeInfo>| {
            let Some(info) = info else { return Place::Removed };
            Address::parse(&info.addr).map_or_else(
                |why| {
                    warn!(node = info.node_id.0, addr = info.addr, why, "no address to dial");
                    Place::Unlisted
                },
                Place::At,
            )
        };
        self.transport().set_nodes(nodes.iter().map(place).collect());
        self.former.extend(std::mem::replace(&mut self.nodes, nodes).into_iter().flatten());
        self.former.retain(|info| self.nodes.get(info.node_id.0 as usize) == Some(&None));
        self.shared.set_nodes(self.nodes.iter().flatten().cloned().collect());
    }

    /// The node an event is about, also if it is gone, or this one.
    fn about(&self, event: &ClusterEvent) -> NodeInfo {
        let node = event.node().unwrap_or(self.own);
        let former = || self.former.iter().find(|info| info.node_id == node);
        let unknown = || NodeInfo { node_id: node, addr: String::new(), qrank: 0 };
        self.node_info(node).or_else(former).cloned().unwrap_or_else(unknown)
    }

    fn event(&self, event: ClusterEvent) {
        match &event {
            ClusterEvent::StateTransfer { .. } => {}
            ClusterEvent::QuorumLost(reason) => {
                warn!(node = self.own.0, %reason, "commits are refused here");
            }
            ClusterEvent::QuorumGained(reason) => {
                info!(node = self.own.0, %reason, "this node can commit");
            }
            ClusterEvent::Diverged(node) => {
                warn!(node = self.own.0, diverged = node.0, "a state differs from a quorum's");
            }
            _ => info!(node = self.own.0, ?event, "cluster event"),
        }
        if let Some(delivery) = &self.delivery {
            let about = self.about(&event);
            delivery.notify(event, about);
        }
    }

    /// Asks the quorum callback about the nodes that are connected now.
    fn ask(&mut self, now: Ticks) {
        let Some(delivery) = self.delivery.as_ref().filter(|_| self.asks) else { return };
        let info = |node: &NodeId| self.node_info(*node).cloned();
        let neighbours = self.connected.iter().filter_map(info).collect();
        self.question.round += 1;
        self.question.late_at = Some(now + self.question.limit_ms);
        delivery.ask(self.question.round, neighbours);
    }

    /// The commit waits for other nodes only from now on.
    fn through(&mut self, id: TransactionId) {
        let waiting = self.slots.get_mut(&id.sequence);
        let waiting = waiting.expect("the replica answers what it was given");
        assert!(!std::mem::replace(&mut waiting.through, true), "{id} was through before");
        self.shared.through();
    }

    fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Commit(id, result) => {
                if let Some(waiting) = self.slots.remove(&id.sequence) {
                    self.shared.complete(id.sequence, &waiting, result);
                }
            }
            Answer::Outcome(id, result) => {
                if let Some(slot) = self.questions.remove(&id.sequence) {
                    slot.fill(result);
                }
            }
            Answer::Call(id, result) => {
                if let Some(slot) = self.callers.remove(&id.sequence) {
                    slot.fill(result);
                }
            }
            Answer::Fresh(token, result) => {
                if let Some(slot) = self.readers.remove(&token) {
                    slot.fill(result);
                }
            }
        }
    }

    /// Lets the last words leave before the sockets close.
    fn farewell(&mut self) {
        self.admin_end();
        let deadline = self.now() + FAREWELL_MS;
        self.transport().say_goodbye();
        while self.now() < deadline && !self.transport().is_silent() {
            if self.transport().wait(Some(Duration::from_millis(10))).is_err() {
                return;
            }
            let now = self.now();
            self.transport().discard(now);
        }
    }

    /// Closes the sockets and answers everybody who waits.
    fn end(&mut self, result: Result<(), ClusterError>) {
        if self.transport.take().is_none() {
            return; // ended before
        }
        let status = (!std::thread::panicking()).then(|| self.status());
        for command in std::mem::take(&mut self.commands) {
            self.shared.tell(command); // not handled; answered below
        }
        for (sequence, waiting) in self.slots.drain() {
            let id = self.shared.transaction_id(sequence);
            self.shared.complete(sequence, &waiting, Err(CommitError::InDoubt(id)));
        }
        self.admin_end();
        for (_, slot) in self.questions.drain() {
            slot.fill(Err(OutcomeError::Stopped));
        }
        for (sequence, slot) in self.callers.drain() {
            slot.fill(Err(CallError::InDoubt(self.shared.transaction_id(sequence))));
        }
        for (_, slot) in self.readers.drain() {
            slot.fill(Err(FreshError::Stopped));
        }
        self.shared.end(result.clone(), status);
        for (_, slot) in self.ends.drain(..) {
            slot.fill(result.clone());
        }
    }

    /// xorshift64*: jitter needs no better.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let result = if std::thread::panicking() {
            Err(ClusterError::Panicked)
        } else {
            Err(ClusterError::Ended)
        };
        self.end(result);
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let role: Role = self.replica.status().role;
        f.debug_struct("Runtime").field("node", &self.own).field("role", &role).finish()
    }
}
