//! Admin requests: from a call inside the process or from an admin connection, to the replica, and
//! the answer back to whoever asked.
//!
//! The status is answered at once. Everything else gets a token, and a time limit here, so that an
//! operator hears something whatever becomes of the replica.

use std::collections::BTreeMap;
use std::sync::Arc;

use mio::Token;
use quorate_consensus::Ticks;
use quorate_engine::CommitPath;

use super::Runtime;
use super::shared::Slot;
use crate::address::Address;
use crate::admin::{AdminAnswer, AdminError, AdminRequest};
use crate::replica::Input;

/// Where an answer goes.
#[derive(Debug)]
pub(super) enum AdminReply {
    /// To a thread of this process.
    Slot(Arc<Slot<AdminAnswer>>),
    /// To an admin connection.
    Connection(Token),
}

/// The requests the replica has not answered.
#[derive(Debug)]
pub(super) struct AdminRequests {
    waiting: BTreeMap<u64, (Ticks, AdminReply)>,
    next_token: u64,
    limit_ms: Ticks,
}

impl AdminRequests {
    pub(super) fn new(limit_ms: Ticks) -> Self {
        Self { waiting: BTreeMap::new(), next_token: 1, limit_ms }
    }

    /// When the first of them has waited for too long.
    pub(super) fn next_deadline(&self) -> Ticks {
        self.waiting.values().map(|(deadline, _)| *deadline).min().unwrap_or(Ticks::MAX)
    }
}

impl Runtime {
    /// Answers, or asks the replica.
    pub(super) fn admin(&mut self, now: Ticks, request: AdminRequest, reply: AdminReply) {
        if request == AdminRequest::Status {
            let answer = AdminAnswer::Status(Box::new(self.status()));
            return self.admin_reply(&reply, answer);
        }
        if let Err(error) = self.check_addr(&request) {
            return self.admin_reply(&reply, AdminAnswer::Refused(error));
        }
        let requests = &mut self.admin_requests;
        let token = requests.next_token;
        requests.next_token += 1;
        requests.waiting.insert(token, (now + requests.limit_ms, reply));
        let (id, low_water) = self.shared.next_id();
        let random = self.next_random();
        let input = Input::Admin { token, request, id, low_water, random };
        self.replica.step(now, input, &mut self.outputs);
    }

    /// An address in a request must be one this node's own parameters would allow.
    fn check_addr(&self, request: &AdminRequest) -> Result<(), AdminError> {
        let addr = match request {
            AdminRequest::AddNode { addr, .. } | AdminRequest::SetAddress { addr, .. } => addr,
            _ => return Ok(()),
        };
        let invalid = |what| Err(AdminError::Invalid { what });
        match Address::parse(addr) {
            Err(why) => invalid(format!("{addr:?} is no address: {why}")),
            Ok(address) if !self.insecure && !address.is_local() => invalid(format!(
                "{addr:?} is beyond loopback, where plain TCP is open to anyone, and this node \
                 was opened without ClusterParams.insecure"
            )),
            Ok(_) => Ok(()),
        }
    }

    /// The replica answers.
    pub(super) fn admin_answered(&mut self, token: u64, answer: AdminAnswer) {
        if let Some((_, reply)) = self.admin_requests.waiting.remove(&token) {
            self.admin_reply(&reply, answer);
        }
    }

    /// Answers what has waited for too long.
    pub(super) fn admin_tick(&mut self, now: Ticks) {
        if now < self.admin_requests.next_deadline() {
            return;
        }
        let limit_ms = self.admin_requests.limit_ms;
        let waiting = std::mem::take(&mut self.admin_requests.waiting);
        for (token, (deadline, reply)) in waiting {
            if now >= deadline {
                let answer = AdminAnswer::Refused(AdminError::TimedOut { limit_ms });
                self.admin_reply(&reply, answer);
            } else {
                self.admin_requests.waiting.insert(token, (deadline, reply));
            }
        }
    }

    /// The node ends: nobody is left waiting.
    pub(super) fn admin_end(&mut self) {
        for (_, reply) in std::mem::take(&mut self.admin_requests.waiting).into_values() {
            self.admin_reply(&reply, AdminAnswer::Refused(AdminError::Stopped));
        }
    }

    fn admin_reply(&mut self, reply: &AdminReply, answer: AdminAnswer) {
        match reply {
            AdminReply::Slot(slot) => slot.fill(answer),
            AdminReply::Connection(token) => {
                if let Some(transport) = &mut self.transport {
                    transport.answer_admin(*token, &answer);
                }
            }
        }
    }
}
