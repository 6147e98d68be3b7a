//! Links to the other nodes: dialling, handshake, frames in and out, silence.
//!
//! ```text
//!            readiness            frames               link events, messages
//!   sockets ----------> connections ------> links ------------------------> runtime
//!           <----------             <------       <------------------------
//!             vectored writes        queues                 send
//! ```
//!
//! One readiness loop owns it all; nothing here blocks and nothing here decides anything about the
//! cluster. What is decided: who may connect. Rules:
//!
//! * of two nodes the higher id dials, one connection per channel; the link is up when all are
//!   welcomed by the same process, and down when any ends;
//! * nothing but a valid hello counts on an accepted connection; it must come within
//!   [`HANDSHAKE_MS`], and at most [`PENDING_MAX`] connections wait for theirs, the oldest giving
//!   way;
//! * nodes come and go by the cluster's list; see [`nodes`];
//! * a hello may be a replay: it counts once the caller has sent a ping with the connection epoch
//!   of its welcome;
//! * a second process under the id of a connected node is refused while the first is heard from;
//! * a program that is no node may say an admin hello instead, and ask; see [`admin`];
//! * whatever else is wrong on a connection closes that link only;
//! * a peer that reads too slowly is disconnected when too much waits for it; nobody else notices.

mod admin;
mod admission;
mod connection;
mod link;
mod nodes;
mod socket;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Poll, Token, Waker};
use quorate_consensus::{Identity, NodeId, Ticks};
use tracing::{debug, info, warn};

use crate::address::Address;
use crate::admin::AdminRequest;
use crate::epoch::Epoch;
use crate::error::RejectReason;
use crate::replica::{Channel, PeerMessage};
use crate::wire::{Card, FrameWriter, Hello, Kind, Stamp, encode};
use admin::AdminState;
use connection::{Connection, Ended, Received, State};
use link::{Link, slot};
use nodes::Claim;
use socket::{Listener, Socket};

pub(crate) use link::Place;
pub(crate) use socket::SocketOptions;

/// How long a connection may take to complete its handshake, ms.
const HANDSHAKE_MS: Ticks = 5_000;

/// How many accepted connections may wait for their hello at once: three for each of 32 nodes.
const PENDING_MAX: usize = 96;

/// How long to wait after accepting failed, ms.
const ACCEPT_PAUSE_MS: Ticks = 100;

/// The moment nothing waits for.
const NEVER: Ticks = Ticks::MAX;

const WAKER: Token = Token(0);
const LISTENER: Token = Token(1);
const FIRST_CONNECTION: usize = 2;

/// What the transport is told once. Times are milliseconds.
#[derive(Clone, Debug)]
pub(crate) struct TransportSettings {
    /// What this node says of itself; `cluster_id` is 0 until [`Transport::stamp`].
    pub(crate) card: Card,
    /// Where the nodes are, by node id.
    pub(crate) addresses: Vec<Address>,
    pub(crate) options: SocketOptions,
    /// The longest pause between attempts to dial.
    pub(crate) connect_interval_ms: Ticks,
    /// A connection on which nothing arrives for this long is closed.
    pub(crate) silence_ms: Ticks,
    /// A connection on which nothing was sent for this long gets a ping.
    pub(crate) ping_ms: Ticks,
    /// A process heard from within this time keeps others from taking its place.
    pub(crate) alive_ms: Ticks,
    /// A peer for which more than this waits on one connection is disconnected.
    pub(crate) send_limit_bytes: usize,
    /// How much is read from one connection before the others get their turn.
    pub(crate) turn_bytes: usize,
    /// Seed of the connection epochs.
    pub(crate) random: u64,
}

/// What happened on the links, in order.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "few wait at a time; a box each would cost more")]
pub(crate) enum LinkEvent {
    /// Messages flow to and from this process from now on.
    Up(Identity),
    /// They no longer do.
    Down(Identity),
    /// A peer said something.
    Message(Identity, PeerMessage),
    /// An operator asks; to be answered with [`Transport::answer_admin`].
    Admin { token: Token, request: AdminRequest },
    /// That node of this cluster is in a greater epoch.
    NewerEpoch { node: NodeId, epoch: Epoch },
    /// Another process claims the id of this node, which is connected, or this node itself.
    Duplicate { node: NodeId },
    /// A handshake was refused: by that node, or (`by_us`) by this one.
    Refused { node: NodeId, reason: RejectReason, by_us: bool },
}

/// All links of a node.
///
/// Invariants: every token in a link names a connection here; a connection that belongs to a link
/// is named by it.
pub(crate) struct Transport {
    settings: TransportSettings,
    poll: Poll,
    ready: Events,
    listener: Listener,
    connections: HashMap<Token, Connection>,
    /// By node id; the own place is never used.
    links: Vec<Link>,
    /// Whether the list is the cluster's, by [`Transport::set_nodes`], or what this node was told.
    has_roster: bool,
    /// Who claims this node's own id.
    own_claim: Claim,
    next_token: usize,
    /// Connections with more to read than their turn allowed.
    unread: VecDeque<Token>,
    /// Connections with something to write that have not been told to wait.
    unsent: Vec<Token>,
    /// When to accept: now if somebody waits, later if accepting failed for lack of resources.
    accept_at: Ticks,
    scratch: Vec<u8>,
    events: VecDeque<LinkEvent>,
    now: Ticks,
}

impl Transport {
    /// Binds this node's address. Nothing is dialled before the first [`Transport::poll`].
    pub(crate) fn bind(settings: TransportSettings) -> io::Result<(Self, Arc<Waker>)> {
        let own = settings.card.identity.node.0;
        let address = &settings.addresses[own as usize];
        let mut listener = Listener::bind(address, &settings.options)?;
        let poll = Poll::new()?;
        listener.register(poll.registry(), LISTENER)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let link = |(node, address): (u32, &Address)| {
            let mut link = Link::new(node < own, 0);
            link.place = Place::At(address.clone());
            link
        };
        let transport = Self {
            links: (0..).zip(&settings.addresses).map(link).collect(),
            has_roster: false,
            own_claim: Claim::default(),
            poll,
            ready: Events::with_capacity(256),
            listener,
            connections: HashMap::new(),
            next_token: FIRST_CONNECTION,
            unread: VecDeque::new(),
            unsent: Vec::new(),
            accept_at: NEVER,
            scratch: vec![0; settings.turn_bytes.min(1 << 18)],
            events: VecDeque::new(),
            now: 0,
            settings,
        };
        Ok((transport, waker))
    }

    /// Waits until a socket is ready, the waker is used or the time is over.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let busy = !self.unread.is_empty() || !self.events.is_empty();
        let timeout = if busy { Some(Duration::ZERO) } else { timeout };
        match self.poll.poll(&mut self.ready, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.ready.clear();
                Ok(())
            }
            other => other,
        }
    }

    /// Handles what the last [`Transport::wait`] found: accepts, reads, completes dials. What came
    /// of it is in [`Transport::next_event`].
    pub(crate) fn receive(&mut self, now: Ticks) {
        self.now = now;
        let mut readable: Vec<Token> = self.unread.drain(..).collect();
        let mut writable = Vec::new();
        for event in &self.ready {
            match event.token() {
                WAKER => {}
                LISTENER => self.accept_at = now,
                token => {
                    if event.is_writable() {
                        writable.push(token);
                    }
                    readable.push(token);
                }
            }
        }
        self.ready.clear();
        for token in writable {
            self.writable(token);
        }
        for token in readable {
            self.read(token);
        }
        if now >= self.accept_at {
            self.accept();
        }
    }

    /// Does what is due by the clock: dials, pings, gives up on the silent.
    pub(crate) fn tick(&mut self, now: Ticks) {
        self.now = now;
        self.end_overdue();
        self.ping_idle();
        for node in 0..self.links.len() {
            let target = self.links[node].target(now);
            if let Some(target) = target {
                self.dial(NodeId(node as u32), &target);
            }
        }
        if now >= self.accept_at {
            self.accept();
        }
    }

    /// When [`Transport::tick`] is wanted next.
    pub(crate) fn next_deadline(&self) -> Ticks {
        let settings = &self.settings;
        let dials = self.links.iter().filter_map(Link::next_dial);
        let mut next = dials.min().unwrap_or(NEVER).min(self.accept_at);
        for connection in self.connections.values() {
            next = next.min(match connection.state {
                State::Open if connection.outgoing.is_empty() => {
                    let silent = connection.heard + settings.silence_ms;
                    silent.min(connection.sent + settings.ping_ms)
                }
                State::Open => connection.heard + settings.silence_ms,
                State::Admin(admin) => admin.deadline(),
                _ => connection.born + HANDSHAKE_MS,
            });
        }
        next
    }

    /// The next thing that happened.
    pub(crate) fn next_event(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    /// Queues a message, if the link to exactly this process is up; else it is lost, as it could be
    /// on any network.
    pub(crate) fn send(&mut self, to: Identity, message: &PeerMessage) {
        let Some(link) = self.links.get(to.node.0 as usize) else { return };
        let linked = link.up && link.peer.is_some_and(|(identity, _)| identity == to);
        let Some(token) = link.tokens[slot(message.channel())].filter(|_| linked) else { return };
        let mut frame = FrameWriter::new();
        encode(message, &mut frame);
        if frame.payload_bytes() > crate::wire::PAYLOAD_BYTES_MAX {
            warn!(to = to.node.0, bytes = frame.payload_bytes(), "too long to send, dropped");
            return;
        }
        if self.connections[&token].outgoing.backlog_bytes() > self.settings.send_limit_bytes {
            return self.end(token, &Ended::Overflow);
        }
        self.queue(token, Kind::Message, frame);
    }

    /// Writes what waits, as far as the sockets take it.
    pub(crate) fn flush(&mut self) {
        while let Some(token) = self.unsent.pop() {
            self.write(token);
        }
    }

    /// Ends every connection after what waits is sent: flushes and closes the sending side only, so
    /// that the other side reads the last words before it finds the connection gone.
    pub(crate) fn say_goodbye(&mut self) {
        self.flush();
        for connection in self.connections.values_mut() {
            connection.finish();
        }
    }

    /// Sends what still waits and throws away what arrives; connections the other side closed go.
    pub(crate) fn discard(&mut self, now: Ticks) {
        self.now = now;
        self.ready.clear();
        let tokens: Vec<Token> = self.connections.keys().copied().collect();
        for token in tokens {
            let connection = self.connections.get_mut(&token).expect("listed just now");
            if connection.discard(&mut self.scratch, now).is_err() {
                self.close(token);
            }
        }
    }

    /// True if no connection is left.
    pub(crate) fn is_silent(&self) -> bool {
        self.connections.is_empty()
    }

    fn accept(&mut self) {
        self.accept_at = NEVER;
        loop {
            match self.listener.accept(&self.settings.options) {
                Ok(socket) => {
                    self.adopt(socket, State::AwaitHello);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // Out of descriptors, say. The readiness event is spent, so come back.
                    warn!(%error, "accepting failed; trying again");
                    self.accept_at = self.now + ACCEPT_PAUSE_MS;
                    return;
                }
            }
        }
    }

    /// Takes a socket in. `None` if the operating system has no room to watch it.
    fn adopt(&mut self, mut socket: Socket, state: State) -> Option<Token> {
        let token = Token(self.next_token);
        self.next_token += 1;
        if let Err(error) = socket.register(self.poll.registry(), token) {
            warn!(%error, "a connection cannot be watched; closed");
            return None;
        }
        self.connections.insert(token, Connection::new(token, socket, state, self.now));
        if state == State::AwaitHello {
            self.make_room();
        }
        Some(token)
    }

    /// Strangers that say nothing must not keep a node out: the oldest gives way.
    fn make_room(&mut self) {
        let stranger = |state: State| matches!(state, State::AwaitHello | State::AwaitProof);
        let strangers = self.connections.values().filter(|c| stranger(c.state));
        let (count, oldest) = strangers.fold((0, None::<Token>), |(count, oldest), connection| {
            let token = oldest.map_or(connection.token, |oldest| oldest.min(connection.token));
            (count + 1, Some(token))
        });
        if let Some(oldest) = oldest.filter(|_| count > PENDING_MAX) {
            self.end(oldest, &Ended::Crowded);
        }
    }

    fn dial(&mut self, node: NodeId, target: &socket::Target) {
        let link = &mut self.links[node.0 as usize];
        link.since = self.now;
        for channel in Channel::ALL {
            let dialled = Socket::connect(target, &self.settings.options);
            let token = dialled.ok().and_then(|socket| self.adopt(socket, State::Connecting));
            let Some(token) = token else {
                self.break_link(node, &Ended::Closed);
                return;
            };
            let connection = self.connections.get_mut(&token).expect("adopted just now");
            connection.node = Some(node);
            connection.channel = Some(channel);
            self.links[node.0 as usize].tokens[slot(channel)] = Some(token);
        }
        // A unix socket is connected already, without any event to come.
        for token in self.links[node.0 as usize].tokens.into_iter().flatten() {
            self.writable(token);
        }
    }

    fn writable(&mut self, token: Token) {
        let Some(connection) = self.connections.get(&token) else { return };
        if connection.state == State::Connecting {
            match connection.socket.connected() {
                Ok(true) => self.say_hello(token),
                Ok(false) => return,
                Err(error) => return self.end(token, &error.into()),
            }
        }
        self.write(token);
    }

    fn say_hello(&mut self, token: Token) {
        let connection = self.connections.get_mut(&token).expect("looked up by the caller");
        connection.state = State::AwaitWelcome;
        let to = connection.node.expect("a dialled connection knows whom it dials");
        let channel = connection.channel.expect("a dialled connection knows its channel");
        let hello = Hello::new(self.settings.card, to, channel);
        let mut frame = FrameWriter::new();
        hello.encode(frame.writer());
        self.queue(token, Kind::Hello, frame);
    }

    /// Reads a connection for one turn. What came before may still wait to be taken apart.
    fn read(&mut self, token: Token) {
        if self.connections.get(&token).is_some_and(|c| c.state == State::Parting) {
            return self.part(token);
        }
        let mut left = self.settings.turn_bytes;
        loop {
            if !self.take_apart(token) {
                return;
            }
            if left == 0 {
                self.unread.push_back(token);
                return;
            }
            let connection = self.connections.get_mut(&token).expect("alive, as just seen");
            match connection.read(&mut self.scratch, self.now) {
                Ok(0) => return,
                Ok(count) => left = left.saturating_sub(count),
                Err(Ended::Closed) => {
                    self.read_last_words(token);
                    return self.end(token, &Ended::Closed);
                }
                Err(ended) => return self.end(token, &ended),
            }
        }
    }

    /// Handles the whole frames that arrived. False if the connection must not be read now: it
    /// ended, is still being dialled, or another of its link is not welcomed yet. The accepting
    /// side knows that all are before the dialling side does, and may speak at once; what it says
    /// waits until the link is up here too.
    fn take_apart(&mut self, token: Token) -> bool {
        let ours = self.stamp_of(0);
        loop {
            let Some(connection) = self.connections.get_mut(&token) else { return false };
            match connection.state {
                State::Connecting => return false,
                State::Open => {
                    let node = connection.node.expect("known once open");
                    if !self.links[node.0 as usize].up {
                        return false;
                    }
                }
                // One request at a time: the next is read when this one's answer is sent.
                State::Admin(AdminState::Busy) => return false,
                State::Admin(_) if !connection.outgoing.is_empty() => return false,
                _ => {}
            }
            match connection.next(ours) {
                Ok(Some(received)) => self.received(token, received),
                Ok(None) => return true,
                Err(ended) => {
                    self.end(token, &ended);
                    return false;
                }
            }
        }
    }

    fn received(&mut self, token: Token, received: Received) {
        match received {
            Received::Hello(hello) => self.answer(token, &hello),
            Received::AdminHello(hello) => self.admin_hello(token, &hello),
            Received::AdminRequest(request) => self.admin_request(token, request),
            Received::Welcome(welcome) => self.welcomed(token, &welcome),
            Received::Reject(reason) => self.refused(token, reason),
            Received::Ping => {}
            Received::Proof => self.proved(token),
            Received::Duplicate => {
                let node = self.settings.card.identity.node;
                warn!("a node says that another process claims the id of this one; stop one");
                self.events.push_back(LinkEvent::Duplicate { node });
            }
            Received::Message(message) => {
                let node = self.connections[&token].node.expect("known once open");
                let link = &self.links[node.0 as usize];
                let (identity, _) = link.peer.expect("known while a channel is open");
                self.events.push_back(LinkEvent::Message(identity, message));
            }
        }
    }

    fn stamp_of(&self, connection_epoch: u64) -> Stamp {
        let Card { cluster_id, epoch, .. } = self.settings.card;
        Stamp { cluster_id, epoch, connection_epoch }
    }

    /// Queues a frame; it leaves at the next flush. A frame nobody would take was refused before.
    fn queue(&mut self, token: Token, kind: Kind, frame: FrameWriter) {
        let connection = self.connections.get_mut(&token).expect("queued for the living");
        let Card { cluster_id, epoch, .. } = self.settings.card;
        let stamp = Stamp { cluster_id, epoch, connection_epoch: connection.epoch };
        let frame = frame.finish(kind, stamp).expect("its length was checked");
        if connection.outgoing.is_empty() {
            self.unsent.push(token);
        }
        connection.outgoing.push(frame);
    }

    fn write(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        if connection.state == State::Parting {
            return self.part(token);
        }
        if let Err(ended) = connection.write(self.now) {
            return self.end(token, &ended);
        }
        if !connection.outgoing.is_empty() {
            return;
        }
        match connection.state {
            State::Refused => self.end(token, &Ended::Closed),
            // What it asked meanwhile waits unread.
            State::Admin(AdminState::Idle { .. }) => self.unread.push_back(token),
            _ => {}
        }
    }

    fn ping_idle(&mut self) {
        let (now, ping_ms) = (self.now, self.settings.ping_ms);
        let idle = self.connections.values().filter(|connection| {
            connection.state == State::Open
                && connection.outgoing.is_empty()
                && now >= connection.sent + ping_ms
        });
        for token in idle.map(|connection| connection.token).collect::<Vec<_>>() {
            self.queue(token, Kind::Ping, FrameWriter::new());
        }
    }

    fn end_overdue(&mut self) {
        let (now, silence_ms) = (self.now, self.settings.silence_ms);
        let overdue = self.connections.values().filter(|connection| match connection.state {
            State::Open => now >= connection.heard + silence_ms,
            State::Admin(admin) => now >= admin.deadline(),
            _ => now >= connection.born + HANDSHAKE_MS,
        });
        for token in overdue.map(|connection| connection.token).collect::<Vec<_>>() {
            self.end(token, &Ended::Silence);
        }
        for node in 0..self.links.len() {
            let link = &self.links[node];
            if !link.up && !link.is_idle() && now >= link.since + HANDSHAKE_MS {
                self.break_link(NodeId(node as u32), &Ended::Silence);
            }
        }
    }

    /// Closes a connection, and the link it belongs to.
    fn end(&mut self, token: Token, ended: &Ended) {
        let Some(connection) = self.connections.get(&token) else { return };
        let link = connection
            .node
            .filter(|node| self.links[node.0 as usize].tokens.contains(&Some(token)));
        match link {
            Some(node) => self.break_link(node, ended),
            None => {
                let state = connection.state;
                match ended {
                    // What strangers do is worth a line; who was refused has had its line.
                    _ if matches!(state, State::Refused | State::Parting) => {
                        debug!(%ended, "closed")
                    }
                    Ended::Closed if matches!(state, State::Admin(_)) => debug!(%ended, "closed"),
                    _ => warn!(%ended, ?state, "closed a connection of a stranger"),
                }
                self.close(token);
            }
        }
    }

    fn break_link(&mut self, node: NodeId, ended: &Ended) {
        let interval_ms = self.settings.connect_interval_ms;
        let link = &mut self.links[node.0 as usize];
        let down = link.peer.filter(|_| link.up);
        for token in link.reset(self.now, interval_ms).into_iter().flatten() {
            self.close(token);
        }
        match down {
            Some((identity, _)) => {
                info!(node = node.0, ?identity, %ended, "link is down");
                self.events.push_back(LinkEvent::Down(identity));
            }
            None => debug!(node = node.0, %ended, "no link yet"),
        }
    }

    fn close(&mut self, token: Token) {
        if let Some(mut connection) = self.connections.remove(&token) {
            // Closing ends the watching too; deregistering first keeps stale events away.
            let _ = connection.socket.deregister(self.poll.registry());
        }
    }
}
