//! Admin connections: programs that are no node, and what they may cost.
//!
//! Such a connection belongs to no link. It may ask one thing at a time: while a request is under
//! way, or its answer is not sent, nothing more is read from it. At most [`ADMIN_MAX`] are open, an
//! idle one giving way to a newcomer, and one that asks nothing for [`ADMIN_IDLE_MS`] is closed.
//! They are trusted as far as the nodes' own connections: whoever can reach the address may ask.

use mio::Token;
use quorate_consensus::Ticks;
use tracing::info;

use super::connection::{Ended, State};
use super::{LinkEvent, NEVER, Transport};
use crate::admin::{AdminAnswer, AdminRequest};
use crate::error::RejectReason;
use crate::wire::{
    AdminHello, AdminWelcome, FrameWriter, Kind, VERSION, VERSION_MIN, encode_admin_answer,
    encode_reject,
};

/// How many admin connections may be open.
const ADMIN_MAX: usize = 8;

/// How long an admin connection may ask nothing, ms.
const ADMIN_IDLE_MS: Ticks = 60_000;

/// Where the admin side of a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AdminState {
    /// Nothing asked since then.
    Idle { since: Ticks },
    /// A request is under way.
    Busy,
}

impl AdminState {
    /// When the connection is idle for too long.
    pub(super) fn deadline(self) -> Ticks {
        match self {
            AdminState::Idle { since } => since + ADMIN_IDLE_MS,
            AdminState::Busy => NEVER,
        }
    }
}

impl Transport {
    /// Answers a request of an admin connection; nothing happens if it is gone.
    pub(crate) fn answer_admin(&mut self, token: Token, answer: &AdminAnswer) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(&token) else { return };
        if connection.state != State::Admin(AdminState::Busy) {
            return;
        }
        connection.state = State::Admin(AdminState::Idle { since: now });
        let mut frame = FrameWriter::new();
        encode_admin_answer(answer, frame.writer());
        self.queue(token, Kind::AdminAnswer, frame);
    }

    pub(super) fn admin_hello(&mut self, token: Token, hello: &AdminHello) {
        let Some(version) = hello.common_version() else {
            let reason = RejectReason::VersionUnsupported { min: VERSION_MIN, max: VERSION };
            return self.refuse_admin(token, reason);
        };
        if !self.make_admin_room() {
            let limit = ADMIN_MAX as u32;
            return self.refuse_admin(token, RejectReason::TooManyConnections { limit });
        }
        let connection_epoch = self.next_random();
        let node = self.settings.card.identity.node;
        let welcome = AdminWelcome { version, node, connection_epoch };
        let mut frame = FrameWriter::new();
        welcome.encode(frame.writer());
        self.queue(token, Kind::AdminWelcome, frame);
        let connection = self.connections.get_mut(&token).expect("it said hello");
        connection.state = State::Admin(AdminState::Idle { since: self.now });
        connection.epoch = connection_epoch;
    }

    pub(super) fn admin_request(&mut self, token: Token, request: AdminRequest) {
        let connection = self.connections.get_mut(&token).expect("it asks");
        connection.state = State::Admin(AdminState::Busy);
        if request != AdminRequest::Status {
            info!(?request, "an operator asks");
        }
        self.events.push_back(LinkEvent::Admin { token, request });
    }

    /// Whether one more may be open: the one that asked nothing for the longest time gives way.
    fn make_admin_room(&mut self) -> bool {
        let mut open = 0;
        let mut idlest: Option<(Ticks, Token)> = None;
        for connection in self.connections.values() {
            let State::Admin(admin) = connection.state else { continue };
            open += 1;
            if let AdminState::Idle { since } = admin {
                let this = (since, connection.token);
                idlest = Some(idlest.map_or(this, |other| other.min(this)));
            }
        }
        if open < ADMIN_MAX {
            return true;
        }
        let Some((_, token)) = idlest else { return false };
        self.end(token, &Ended::Crowded);
        true
    }

    fn refuse_admin(&mut self, token: Token, reason: RejectReason) {
        info!(%reason, "refused an admin connection");
        let connection = self.connections.get_mut(&token).expect("it said hello");
        connection.state = State::Refused;
        let mut frame = FrameWriter::new();
        encode_reject(&reason, frame.writer());
        self.queue(token, Kind::Reject, frame);
    }
}
