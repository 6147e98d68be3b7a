//! What operators ask of this node: changes of the roster, which go the way of transactions, and
//! another leader.

use quorate_consensus::{NodeId, Ticks};
use quorate_engine::{CommitError, Index};

use super::super::message::{PeerMessage, Request};
use super::super::node::{Ending, Node};
use super::super::pending::Wish;
use super::super::roster::{RosterChange, RosterError};
use super::Member;
use crate::admin::{AdminAnswer, AdminError, AdminRequest};

/// An operator's request that leads into the log.
#[derive(Clone, Debug)]
pub(in super::super) struct Errand {
    /// Names it in the answer.
    pub(in super::super) token: u64,
    /// What is asked.
    pub(in super::super) change: RosterChange,
}

/// A change of the roster that is logged; its effect on the configuration is waited for.
#[derive(Clone, Debug)]
pub(super) struct Effect {
    token: u64,
    change: RosterChange,
    index: Index,
    give_up_at: Ticks,
}

/// An operator waits for this node to lead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handover {
    token: u64,
    to: NodeId,
    asked_at: Ticks,
    give_up_at: Ticks,
}

impl Member {
    /// An operator's request, other than to recover.
    pub(in super::super) fn operator(
        &mut self,
        node: &mut Node,
        token: u64,
        (sequence, low_water): (u64, u64),
        request: AdminRequest,
    ) {
        let change = match request {
            AdminRequest::AddNode { addr, rank } => RosterChange::Add { addr, rank },
            AdminRequest::RemoveNode { node } => RosterChange::Remove { node },
            AdminRequest::SetRank { node, rank } => RosterChange::SetRank { node, rank },
            AdminRequest::SetAddress { node, addr } => RosterChange::SetAddress { node, addr },
            AdminRequest::TransferLeadership { to } => {
                node.settled(sequence, None);
                return self.begin_handover(node, token, to);
            }
            request => {
                node.settled(sequence, None);
                let what = format!("{request:?}");
                return node.admin_refused(token, AdminError::Unsupported { what });
            }
        };
        let refused = if node.ending != Ending::No {
            Some(AdminError::Stopped)
        } else if !self.may_commit(node) {
            Some(AdminError::NoQuorum { reason: self.quorum_reason(node).to_string() })
        } else {
            None
        };
        if let Some(error) = refused {
            node.settled(sequence, None);
            return node.admin_refused(token, error);
        }
        let deadline = node.now + node.settings.commit_limit_ms;
        let wish = Wish { deadline, everywhere: false };
        node.errands.insert(sequence, Errand { token, change: change.clone() });
        node.pending.insert(sequence, Request::Change { low_water, change }, wish);
        self.give_waiting(node);
    }

    /// The leader says that the roster cannot change like this.
    pub(super) fn roster_refused(&mut self, node: &mut Node, sequence: u64, error: RosterError) {
        if node.pending.remove(sequence).is_none() {
            return;
        }
        // Who was told that its time is over has no errand any more.
        if let Some(errand) = node.errands.remove(&sequence) {
            node.admin_refused(errand.token, error_of(error, &errand.change));
        }
        node.settled(sequence, None);
    }

    /// A change is in the log and applied here.
    pub(super) fn errand_done(&mut self, node: &mut Node, errand: Errand, index: Index) {
        let Errand { token, change } = errand;
        let give_up_at = node.now + node.settings.stop_limit_ms;
        self.effects.push(Effect { token, change, index, give_up_at });
        self.note_effects(node);
    }

    /// Answers whose change has taken effect, or not in time.
    pub(super) fn note_effects(&mut self, node: &mut Node) {
        let (done, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.effects)
            .into_iter()
            .partition(|effect| self.in_effect(node, &effect.change));
        let limit_ms = node.settings.stop_limit_ms;
        let (late, waiting): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|effect| effect.give_up_at <= node.now);
        self.effects = waiting;
        for Effect { token, .. } in late {
            node.admin_refused(token, AdminError::TimedOut { limit_ms });
        }
        self.say_done(node, done);
    }

    fn say_done(&self, node: &mut Node, done: Vec<Effect>) {
        for Effect { token, change, index, .. } in done {
            let about = match &change {
                RosterChange::Add { addr, .. } => {
                    let mut listed = node.roster.iter();
                    listed.find(|(_, listed)| listed.addr == *addr).map(|(id, _)| id)
                }
                change => change.node(),
            };
            let answer = match about {
                Some(about) => AdminAnswer::Changed { index, node: about },
                // Added, and taken out again since.
                None => {
                    AdminAnswer::Refused(AdminError::UnknownNode { node: node.roster.next_id() })
                }
            };
            node.admin_answer(token, answer);
        }
    }

    /// The node ends, or is not what it was: no operator is left waiting. `error` says so to those
    /// whose change has not taken effect as far as this node knows.
    pub(in super::super) fn end_errands(&mut self, node: &mut Node, error: &AdminError) {
        self.note_effects(node);
        let own = node.identity().node;
        for effect in std::mem::take(&mut self.effects) {
            // No entry says so to who is out of the configuration.
            if self.is_removed && effect.change == (RosterChange::Remove { node: own }) {
                self.say_done(node, vec![effect]);
            } else {
                node.admin_refused(effect.token, error.clone());
            }
        }
        if let Some(handover) = self.handover.take() {
            node.admin_refused(handover.token, error.clone());
        }
    }

    /// True once the configuration says what the change is for.
    fn in_effect(&self, node: &Node, change: &RosterChange) -> bool {
        let config = &self.applied_config;
        let members = || config.current.iter().chain(config.next.iter().flatten());
        match change {
            RosterChange::Add { .. } | RosterChange::SetAddress { .. } => true,
            RosterChange::Remove { node } => {
                config.next.is_none() && members().all(|member| member.identity.node != *node)
            }
            RosterChange::SetRank { node: about, .. } => {
                // Who is away gets its rank when it is back; and a later change may overrule.
                let wanted = node.roster.rank(*about);
                let away = |who| who != node.identity() && !node.is_linked(who);
                let mut of_node = members().filter(|member| member.identity.node == *about);
                config.next.is_none()
                    && of_node.all(|m| Some(m.rank) == wanted || m.rank == 0 && away(m.identity))
            }
        }
    }

    fn begin_handover(&mut self, node: &mut Node, token: u64, to: NodeId) {
        let config = &self.core.config().current;
        let voter = config.iter().any(|m| m.identity.node == to && m.rank > 0);
        let error = if node.roster.rank(to).is_none() {
            Some(AdminError::UnknownNode { node: to })
        } else if self.handover.is_some() {
            Some(AdminError::Busy)
        } else if !self.core.connected_quorum() {
            Some(AdminError::NoQuorum { reason: self.quorum_reason(node).to_string() })
        } else if !voter {
            let reason = "it has no rank in the configuration".to_string();
            Some(AdminError::CannotLead { node: to, reason })
        } else {
            None
        };
        if let Some(error) = error {
            return node.admin_refused(token, error);
        }
        let patience = 4 * node.settings.core.election_timeout;
        let give_up_at = node.now + patience;
        self.handover = Some(Handover { token, to, asked_at: node.now, give_up_at });
        self.ask_for_handover(node);
        self.note_handover(node);
    }

    /// Repeats what may be lost, and answers when the other node leads, or does not.
    pub(super) fn note_handover(&mut self, node: &mut Node) {
        let Some(handover) = self.handover else { return };
        if self.core.leader().is_some_and(|leader| leader.node == handover.to) {
            self.handover = None;
            node.admin_answer(handover.token, AdminAnswer::Transferred);
        } else if node.now >= handover.give_up_at {
            self.handover = None;
            let reason =
                "it did not win in time; its log may lag, or it is not reached".to_string();
            node.admin_refused(
                handover.token,
                AdminError::CannotLead { node: handover.to, reason },
            );
        } else if node.now >= handover.asked_at + node.settings.core.election_timeout {
            self.handover = Some(Handover { asked_at: node.now, ..handover });
            self.ask_for_handover(node);
        }
    }

    fn ask_for_handover(&mut self, node: &mut Node) {
        let (Some(Handover { to, .. }), Some(leader)) = (self.handover, self.core.leader()) else {
            return;
        };
        if leader == node.identity() {
            self.hand_over(node, to);
        } else {
            node.send(leader, PeerMessage::Transfer { to });
        }
    }

    /// True while an operator waits for something of this node.
    pub(super) fn has_errands(&self) -> bool {
        self.handover.is_some() || !self.effects.is_empty()
    }
}

/// What a commit's end means to an operator.
pub(in super::super) fn error_of_commit(error: CommitError, limit_ms: Ticks) -> AdminError {
    match error {
        CommitError::InDoubt(_) => AdminError::TimedOut { limit_ms },
        CommitError::NoQuorum { reason } => AdminError::NoQuorum { reason },
        CommitError::Stopped => AdminError::Stopped,
        CommitError::NotListening => AdminError::NotListening,
        other => AdminError::Invalid { what: other.to_string() },
    }
}

fn error_of(error: RosterError, change: &RosterChange) -> AdminError {
    match error {
        RosterError::UnknownNode { node } => AdminError::UnknownNode { node },
        RosterError::NoRank => match change.node() {
            Some(node) => AdminError::LastVoter { node },
            None => AdminError::Invalid { what: error.to_string() },
        },
        RosterError::TooManyNodes { limit } => AdminError::TooManyNodes { limit: limit as usize },
        RosterError::DuplicateAddress { node } => {
            let addr = match change {
                RosterChange::Add { addr, .. } | RosterChange::SetAddress { addr, .. } => addr,
                RosterChange::Remove { .. } | RosterChange::SetRank { .. } => "",
            };
            AdminError::AddressTaken { addr: addr.to_string(), node }
        }
        other => AdminError::Invalid { what: other.to_string() },
    }
}
