//! One connection: a socket, what arrived on it, what waits to be sent.
//!
//! It knows frames and the handshake's words, not whom to welcome.

use std::io;

use mio::Token;
use quorate_consensus::{Identity, NodeId, Ticks};
use quorate_schema::bytes::{Malformed, Reader};
use thiserror::Error;

use super::admin::AdminState;
use super::socket::Socket;
use crate::admin::AdminRequest;
use crate::error::RejectReason;
use crate::replica::{Channel, PeerMessage};
use crate::wire::{
    self, ADMIN_REQUEST_BYTES_MAX, AdminHello, FrameError, HANDSHAKE_BYTES_MAX, Hello, Incoming,
    Kind, Misplaced, Outgoing, PAYLOAD_BYTES_MAX, Stamp, Welcome,
};

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Dialled; not there yet.
    Connecting,
    /// Dialled and said hello.
    AwaitWelcome,
    /// Accepted; the other side has said nothing yet.
    AwaitHello,
    /// Accepted and welcomed; the other side has yet to show that it heard that.
    AwaitProof,
    /// Welcomed: messages flow.
    Open,
    /// Refused; closes when the refusal is sent.
    Refused,
    /// Of a node that was removed: closes when what waits is sent and the other side closed.
    Parting,
    /// An operator's, welcomed.
    Admin(AdminState),
}

/// One connection.
///
/// Invariant: once `Open`, `node` and `channel` are known.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) token: Token,
    pub(super) socket: Socket,
    pub(super) state: State,
    /// Who is at the other end: known to the dialer, said by the dialled.
    pub(super) node: Option<NodeId>,
    pub(super) channel: Option<Channel>,
    /// Who an accepted connection's hello said is there: identity and nonce.
    pub(super) claims: Option<(Identity, u128)>,
    /// The bits agreed on in the handshake, 0 before.
    pub(super) epoch: u64,
    pub(super) born: Ticks,
    pub(super) heard: Ticks,
    pub(super) sent: Ticks,
    pub(super) outgoing: Outgoing,
    incoming: Incoming,
    finishing: bool,
}

/// What a frame said.
#[derive(Debug)]
pub(super) enum Received {
    Hello(Hello),
    Welcome(Welcome),
    Reject(RejectReason),
    Ping,
    /// The other side heard the welcome.
    Proof,
    /// Another process claims the receiver's id.
    Duplicate,
    Message(PeerMessage),
    AdminHello(AdminHello),
    AdminRequest(AdminRequest),
}

/// Why a connection ended.
#[derive(Debug, Error)]
pub(super) enum Ended {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the other side closed it")]
    Closed,
    #[error("not a frame: {0}")]
    Frame(#[from] FrameError),
    #[error("not a message: {0}")]
    Message(#[from] Malformed),
    #[error("a frame that does not belong here")]
    OutOfPlace,
    #[error(transparent)]
    Misplaced(#[from] Misplaced),
    #[error("a welcome by somebody else than dialled")]
    OtherNode,
    #[error("nothing was heard for too long")]
    Silence,
    #[error("too much waits to be sent")]
    Overflow,
    #[error("refused: {0}")]
    Refused(RejectReason),
    #[error("too many connections that have not said hello")]
    Crowded,
    #[error("replaced by a newer one")]
    Replaced,
    #[error("the node has another address now")]
    Moved,
    #[error("this node belongs to another cluster or epoch now")]
    OtherLife,
}

impl Connection {
    pub(super) fn new(token: Token, socket: Socket, state: State, now: Ticks) -> Self {
        Self {
            token,
            socket,
            state,
            node: None,
            channel: None,
            claims: None,
            epoch: 0,
            born: now,
            heard: now,
            sent: now,
            outgoing: Outgoing::new(),
            incoming: Incoming::new(),
            finishing: false,
        }
    }

    /// Reads once into `scratch` and keeps what came. `Ok(0)` if nothing is there now.
    pub(super) fn read(&mut self, scratch: &mut [u8], now: Ticks) -> Result<usize, Ended> {
        loop {
            return match self.socket.read(scratch) {
                Ok(0) => Err(Ended::Closed),
                Ok(count) => {
                    self.heard = now;
                    self.incoming.feed(&scratch[..count]);
                    Ok(count)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
                Err(error) => Err(error.into()),
            };
        }
    }

    /// The next thing the other side said, if a whole frame is there; `ours` is what this node
    /// would stamp.
    pub(super) fn next(&mut self, ours: Stamp) -> Result<Option<Received>, Ended> {
        let open = self.state == State::Open;
        let limit = match self.state {
            State::Open => PAYLOAD_BYTES_MAX,
            State::Admin(_) => ADMIN_REQUEST_BYTES_MAX,
            _ => HANDSHAKE_BYTES_MAX,
        };
        let Some((header, payload)) = self.incoming.next_frame(limit)? else { return Ok(None) };
        header.stamp.check(Stamp { connection_epoch: self.epoch, ..ours }, open)?;
        let mut reader = Reader::new(payload);
        let received = match (self.state, header.kind) {
            (State::AwaitHello, Kind::Hello) => Received::Hello(Hello::decode(&mut reader)?),
            (State::AwaitHello, Kind::AdminHello) => {
                Received::AdminHello(AdminHello::decode(&mut reader)?)
            }
            (State::Admin(AdminState::Idle { .. }), Kind::AdminRequest) => {
                Received::AdminRequest(wire::decode_admin_request(payload)?)
            }
            (State::AwaitWelcome, Kind::Welcome) => {
                Received::Welcome(Welcome::decode(&mut reader)?)
            }
            (State::AwaitWelcome, Kind::Reject) => {
                Received::Reject(wire::decode_reject(&mut reader)?)
            }
            (State::AwaitProof, Kind::Ping) => Received::Proof,
            (State::Open, Kind::Ping) => Received::Ping,
            (State::Open, Kind::Duplicate) => Received::Duplicate,
            (State::Open, Kind::Message) => Received::Message(wire::decode(payload)?),
            _ => return Err(Ended::OutOfPlace),
        };
        Ok(Some(received))
    }

    /// Writes as much of what waits as fits.
    pub(super) fn write(&mut self, now: Ticks) -> Result<(), Ended> {
        while !self.outgoing.is_empty() {
            match self.socket.write(&self.outgoing.slices()) {
                Ok(0) => return Err(Ended::Closed),
                Ok(count) => {
                    self.sent = now;
                    self.outgoing.advance(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Says that nothing more will be sent after what waits.
    pub(super) fn finish(&mut self) {
        self.finishing = true;
        if self.outgoing.is_empty() {
            self.socket.finish();
        }
    }

    /// While finishing: sends what waits, throws away what arrived.
    pub(super) fn discard(&mut self, scratch: &mut [u8], now: Ticks) -> Result<(), Ended> {
        if !self.outgoing.is_empty() {
            self.write(now)?;
            if self.finishing && self.outgoing.is_empty() {
                self.socket.finish();
            }
        }
        loop {
            match self.socket.read(scratch) {
                Ok(0) => return Err(Ended::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
