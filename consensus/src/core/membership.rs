//! Proposals, changes of members, leader transfer and images: what enters the log, and with whom.
//! Must never count votes or acknowledgements.
//!
//! # Changing members safely
//!
//! A configuration is in force on a node from the moment it is in its log. Safety needs that any
//! quorum of one configuration and any of the next share a ranked member:
//! - a change of total rank difference at most 1 keeps that by itself (see `quorum.rs`);
//! - any other change goes through a joint configuration, whose quorums hold in both halves;
//! - the next change waits until the previous one is committed, so only neighbours ever compete;
//! - a leader proposes only after committing an entry of its own term, so that no configuration of
//!   an earlier leader can still come back (Ongaro's correction of 2015).

use super::{Core, State, Transfer};
use crate::log::Log;
use crate::output::{Output, Refusal, StepDown};
use crate::planted::Bug;
use crate::plausible::{self, NUMBER_MAX};
use crate::quorum::{ConfigError, rank_difference};
use crate::types::{Body, Config, Entry, EntryIndex, Identity, Member, MessageBody, Term};

impl Core {
    pub(super) fn propose(&mut self, body: Body, out: &mut Vec<Output>) {
        match self.refusal(&body) {
            Some(reason) => out.push(Output::ProposalRefused { reason }),
            None => self.append_proposal(body, out),
        }
    }

    pub(super) fn propose_config(&mut self, members: Vec<Member>, out: &mut Vec<Output>) {
        match self.next_config(members) {
            Ok(config) => self.propose(Body::Config(config), out),
            Err(reason) => out.push(Output::ProposalRefused { reason }),
        }
    }

    /// What a leader does when commit has moved: leaves a joint configuration, or stops leading a
    /// cluster in which it has no rank.
    pub(super) fn config_committed(&mut self, out: &mut Vec<Output>) {
        let (index, config) = self.log.config();
        if index > self.commit || !self.has_committed_in_term() {
            return;
        }
        if let Some(next) = &config.next {
            let body = Body::Config(Config { current: next.clone(), next: None });
            let (last, _) = self.log.last();
            if last.0 < NUMBER_MAX {
                self.append(Entry { index: last.next(), term: self.term(), body }, out);
                self.follow_config();
                self.send_appended(out);
            }
        } else if config.rank_of(self.identity) == 0 {
            self.heartbeat_all(out);
            if let Some(heir) = self.heir() {
                self.send_timeout_now(heir, out);
            }
            self.step_down(StepDown::NoRank, out);
        }
    }

    pub(super) fn transfer_leadership(&mut self, to: Identity, out: &mut Vec<Output>) {
        let able = self.connected.contains(&to) && self.config().rank_of(to) > 0;
        let give_up_at = self.now.saturating_add(self.settings.election_timeout);
        let State::Leader(leading) = &mut self.state else { return };
        if able && to != self.identity {
            leading.transfer = Some(Transfer { to, give_up_at, told: false });
            self.replicate_to(to, out);
            self.hand_over_if_ready(out);
        }
    }

    /// Tells the heir of a transfer to campaign, once, when it holds the whole log.
    pub(super) fn hand_over_if_ready(&mut self, out: &mut Vec<Output>) {
        let (last, _) = self.log.last();
        let State::Leader(leading) = &mut self.state else { return };
        let Some(transfer) = &mut leading.transfer else { return };
        let complete = leading.progress.get(&transfer.to).is_some_and(|p| p.matched == last);
        if complete && !transfer.told {
            transfer.told = true;
            let to = transfer.to;
            self.send_timeout_now(to, out);
        }
    }

    pub(super) fn install_image(
        &mut self,
        last: EntryIndex,
        last_term: Term,
        config: Config,
        out: &mut Vec<Output>,
    ) {
        let is_sound = last.0 <= NUMBER_MAX
            && (1..=NUMBER_MAX).contains(&last_term.0)
            && config.validate().is_ok();
        if last <= self.commit || !is_sound || matches!(self.state, State::Leader(_)) {
            return;
        }
        if last_term > self.term() {
            self.become_follower(last_term, out);
        }
        if !matches!(self.state, State::Follower) {
            self.wait_as_follower(self.patient_at()); // It asked with the end of another log.
        }
        if self.log.term_at(last) == Some(last_term) {
            // The image covers a prefix of this log. What follows was acknowledged and must stay.
            self.commit = last;
            self.durable = self.durable.max(last);
            self.log.compact(last);
            return;
        }
        // Either this log ends before the image, or it differs from committed state there, so that
        // nothing from the difference on was ever committed.
        let (old_base, (old_last, _)) = (self.log.base(), self.log.last());
        if old_last > self.commit {
            out.push(Output::Truncated { from: self.commit.next() });
        }
        out.push(Output::ConfigInForce { index: last, config: config.clone() });
        self.log = Log::new(last, last_term, config);
        self.commit = last;
        self.durable = last;
        self.following.verified = EntryIndex(0);
        for (_, durable) in &mut self.pending {
            *durable = (*durable).min(last);
        }
        self.stage().truncate_from = Some(old_base.next());
    }

    fn refusal(&self, body: &Body) -> Option<Refusal> {
        if self.vetoed {
            return Some(Refusal::Vetoed);
        }
        let State::Leader(leading) = &self.state else {
            return Some(Refusal::NotLeader { leader: self.leader() });
        };
        if leading.transfer.is_some() {
            return Some(Refusal::Transferring);
        }
        if let Body::Window { first_index, count, payload } = body {
            if !plausible::is_window(*first_index, *count) {
                return Some(Refusal::InvalidWindow);
            }
            if payload.len() > self.settings.max_entry_bytes {
                return Some(Refusal::TooLarge);
            }
        }
        (self.log.last().0.0 >= NUMBER_MAX).then_some(Refusal::TooLarge)
    }

    fn append_proposal(&mut self, body: Body, out: &mut Vec<Output>) {
        let (index, term) = (self.log.last().0.next(), self.term());
        let is_config = matches!(body, Body::Config(_));
        self.append(Entry { index, term, body }, out);
        if is_config {
            self.follow_config();
        }
        out.push(Output::Appended { index, term });
        self.send_appended(out);
    }

    /// The entry that leads to these members: one step where that is safe, else a joint one.
    fn next_config(&self, members: Vec<Member>) -> Result<Config, Refusal> {
        if !matches!(self.state, State::Leader(_)) {
            return Err(if self.vetoed {
                Refusal::Vetoed
            } else {
                Refusal::NotLeader { leader: self.leader() }
            });
        }
        if !self.has_committed_in_term() {
            return Err(Refusal::NotReady);
        }
        if self.pending_config() {
            return Err(Refusal::ConfigPending);
        }
        let config = Config::new(members).map_err(Refusal::InvalidConfig)?;
        let old = &self.config().current;
        if *old == config.current {
            return Err(Refusal::InvalidConfig(ConfigError::Unchanged));
        }
        let in_reach = |who| who == self.identity || self.connected.contains(&who);
        if !config.is_quorum(in_reach) {
            return Err(Refusal::InvalidConfig(ConfigError::OutOfReach));
        }
        let in_one_step = rank_difference(old, &config.current) <= 1;
        if in_one_step || self.planted(Bug::ChangeInOneStep) {
            return Ok(config);
        }
        Ok(Config { current: old.clone(), next: Some(config.current) })
    }

    /// Who should lead after this node: the most complete, then the highest rank.
    fn heir(&self) -> Option<Identity> {
        let State::Leader(leading) = &self.state else { return None };
        let config = self.config();
        leading
            .progress
            .iter()
            .filter(|(who, _)| self.connected.contains(who) && config.rank_of(**who) > 0)
            .max_by_key(|(who, progress)| (progress.matched, config.rank_of(**who)))
            .map(|(who, _)| *who)
    }

    fn send_timeout_now(&self, to: Identity, out: &mut Vec<Output>) {
        self.send(to, self.term(), MessageBody::TimeoutNow, self.hard_sequence, out);
    }
}
