//! Terms, votes and deadlines: who may lead.
//!
//! A follower that misses its leader first *asks* (pre-vote), which changes nothing anywhere, and
//! campaigns only when a quorum would vote for it. The order among survivors is made by deadlines:
//! the log's completeness decides who can win, then each member waits one *slot* per connected
//! member that is preferred to it (higher rank, else lower identity), and jitter spreads the rest.
//! A broken connection to the leader uses slots of a fiftieth of the election timeout, so that the
//! loss of a leader costs milliseconds; mere silence uses the whole timeout.
//!
//! Must never touch the log beyond reading its end.

use std::collections::BTreeSet;

use super::{Campaign, Core, Following, State, mix};
use crate::output::{Output, Refusal, StepDown};
use crate::planted::Bug;
use crate::plausible::NUMBER_MAX;
use crate::types::{EntryIndex, HardState, Identity, MessageBody, Term, Ticks};

impl Core {
    pub(super) fn tick_election(&mut self, out: &mut Vec<Output>) {
        match &self.state {
            State::Follower if self.now >= self.election_at => {
                self.following.leader = None;
                if self.may_campaign() {
                    self.pre_campaign(out);
                } else {
                    self.election_at = self.patient_at();
                }
            }
            State::PreCandidate(campaign) if self.now >= campaign.ask_at => {
                if self.may_campaign() {
                    self.ask(out);
                    self.count_pre_votes(out);
                } else {
                    self.wait_as_follower(self.patient_at());
                }
            }
            State::Candidate(_) if self.now >= self.election_at => {
                self.wait_as_follower(self.now);
                self.tick_election(out);
            }
            State::Candidate(campaign) if self.now >= campaign.ask_at => self.ask(out),
            _ => {}
        }
    }

    pub(super) fn peer_up(&mut self, peer: Identity, out: &mut Vec<Output>) {
        if peer == self.identity {
            return;
        }
        self.connected.insert(peer);
        match self.state {
            State::Leader(_) => self.follower_reconnected(peer, out),
            State::Follower if self.following.leader.is_none() && self.connected_quorum() => {
                // A leader would show itself within a heartbeat.
                let soon = self.quick_at() + 2 * self.settings.heartbeat_interval;
                self.election_at = self.election_at.min(soon);
            }
            _ => {}
        }
    }

    pub(super) fn peer_down(&mut self, peer: Identity, out: &mut Vec<Output>) {
        self.connected.remove(&peer);
        if matches!(self.state, State::Leader(_)) {
            self.follower_disconnected(peer);
            if !self.connected_quorum() {
                self.step_down(StepDown::LostQuorum, out);
            }
        } else if self.following.leader == Some(peer) {
            self.following.leader = None;
            self.election_at = self.election_at.min(self.quick_at());
        }
    }

    pub(super) fn on_pre_vote(
        &mut self,
        from: Identity,
        term: Term,
        last: (EntryIndex, Term),
        transfer: bool,
        out: &mut Vec<Output>,
    ) {
        let leads = matches!(self.state, State::Leader(_));
        let willing = !leads && (transfer || !self.leader_is_alive());
        let granted = term > self.term() && willing && self.is_up_to_date(last);
        if willing && !self.is_up_to_date(last) && !self.is_entitled() {
            self.following.is_asked_in_vain = true;
        }
        let term = if granted { term } else { self.term() };
        self.send(from, term, MessageBody::PreVoteAnswer { granted }, self.hard_sequence, out);
    }

    pub(super) fn on_pre_vote_answer(
        &mut self,
        from: Identity,
        term: Term,
        granted: bool,
        out: &mut Vec<Output>,
    ) {
        let asked = Term(self.term().0 + 1);
        let State::PreCandidate(campaign) = &mut self.state else { return };
        if granted && term == asked {
            campaign.granted.insert(from);
            self.count_pre_votes(out);
        }
    }

    pub(super) fn on_vote(
        &mut self,
        from: Identity,
        term: Term,
        last: (EntryIndex, Term),
        out: &mut Vec<Output>,
    ) {
        if term > self.term() {
            return; // Not adopted: there is a live leader, who must not be disturbed.
        }
        let repeated = self.hard.vote == Some(from);
        let free = self.hard.vote.is_none() && self.following.source.is_none()
            || self.planted(Bug::VoteTwiceInTerm) && !matches!(self.state, State::Leader(_));
        let complete = self.is_up_to_date(last);
        let granted = term == self.term() && (repeated || free && complete);
        if granted && !repeated {
            self.hard.vote = Some(from);
            self.stage_hard();
            self.wait_as_follower(self.patient_at());
        }
        self.send(from, self.term(), MessageBody::VoteAnswer { granted }, self.hard_sequence, out);
    }

    pub(super) fn on_vote_answer(
        &mut self,
        from: Identity,
        term: Term,
        granted: bool,
        out: &mut Vec<Output>,
    ) {
        if term != self.term() {
            return;
        }
        let again = self.planted(Bug::VoteCountedTwice);
        let members = self.config().identities();
        let State::Candidate(campaign) = &mut self.state else { return };
        if granted {
            let repeated = !campaign.granted.insert(from);
            if repeated && again {
                let other = members.into_iter().find(|m| !campaign.granted.contains(m));
                campaign.granted.extend(other);
            }
            self.count_votes(out);
        } else {
            campaign.refused.insert(from);
            let refused = campaign.refused.clone();
            if !self.is_quorum(|identity| !refused.contains(&identity)) {
                self.wait_as_follower(self.retry_at());
            }
        }
    }

    pub(super) fn on_timeout_now(&mut self, from: Identity, term: Term, out: &mut Vec<Output>) {
        let from_leader = term == self.term() && self.following.source == Some(from);
        if from_leader && matches!(self.state, State::Follower) && self.may_campaign() {
            self.campaign(true, out);
        }
    }

    /// Wins when a quorum voted; the own vote counts once it is durable.
    pub(super) fn count_votes(&mut self, out: &mut Vec<Output>) {
        let State::Candidate(campaign) = &self.state else { return };
        let own_counts = self.persisted >= self.hard_sequence;
        let won = self.is_quorum(|identity| {
            campaign.granted.contains(&identity) || identity == self.identity && own_counts
        });
        // Leading starts with entries that rest on the own vote, so that must be durable anyway.
        if won && own_counts {
            self.become_leader(out);
        }
    }

    /// Enters a higher term, as a follower that knows nothing of its leader.
    pub(super) fn become_follower(&mut self, term: Term, out: &mut Vec<Output>) {
        assert!(term > self.term(), "term from {:?} to {term:?}", self.term());
        match self.state {
            State::Leader(_) => self.step_down(StepDown::HigherTerm, out),
            State::PreCandidate(_) | State::Candidate(_) => self.wait_as_follower(self.retry_at()),
            State::Follower => {}
        }
        self.enter_term(HardState { term, vote: None });
    }

    /// Stops leading in the present term, which stays without leader.
    pub(super) fn step_down(&mut self, reason: StepDown, out: &mut Vec<Output>) {
        let state = std::mem::replace(&mut self.state, State::Follower);
        let State::Leader(leading) = state else { return };
        self.election_at = self.patient_at();
        for read in leading.reads {
            let reason = Refusal::NotLeader { leader: None };
            out.push(Output::ReadRefused { token: read.token, reason });
        }
        out.push(Output::SteppedDown { reason });
    }

    /// Leaves the leader's or a candidate's role because of the veto.
    pub(super) fn stop_campaigning(&mut self, out: &mut Vec<Output>) {
        match self.state {
            State::Leader(_) => self.step_down(StepDown::Vetoed, out),
            State::PreCandidate(_) | State::Candidate(_) => {
                self.wait_as_follower(self.patient_at());
            }
            State::Follower => {}
        }
    }

    /// Becomes a follower in the same term that starts asking at the given time. Never from leader.
    pub(super) fn wait_as_follower(&mut self, election_at: Ticks) {
        assert!(!matches!(self.state, State::Leader(_)), "a leader steps down instead");
        self.state = State::Follower;
        self.election_at = election_at;
    }

    /// Whether a leader holds on to this node's loyalty.
    pub(super) fn leader_is_alive(&self) -> bool {
        if matches!(self.state, State::Leader(_)) {
            return true; // Check-quorum ends this state within an election timeout.
        }
        let silent_at = self.following.heard_at.saturating_add(self.settings.election_timeout);
        self.following.leader.is_some() && self.now < silent_at
    }

    /// When to suspect a leader that was heard just now.
    pub(super) fn patient_at(&self) -> Ticks {
        let slot = (self.settings.election_timeout / 8).max(1);
        let wait = self.settings.election_timeout + self.preferred() * slot;
        self.now.saturating_add(wait + self.spread(slot))
    }

    pub(super) fn first_election_at(&self) -> Ticks {
        if self.connected_quorum() { self.now } else { self.patient_at() }
    }

    /// When to ask after the connection to the leader broke.
    fn quick_at(&self) -> Ticks {
        let slot = self.quick_slot();
        self.now.saturating_add(self.preferred() * slot + self.spread(slot))
    }

    /// When to ask again after a campaign was lost.
    fn retry_at(&self) -> Ticks {
        let slot = self.quick_slot();
        self.now.saturating_add(slot + self.spread(8 * slot))
    }

    fn quick_slot(&self) -> Ticks {
        (self.settings.election_timeout / 50).max(1)
    }

    fn ask_interval(&self) -> Ticks {
        (self.settings.election_timeout / 10).max(1)
    }

    /// How many connected members should campaign before this one.
    fn preferred(&self) -> u64 {
        let config = self.config();
        let own = config.rank_of(self.identity);
        let is_preferred = |other: &Identity| {
            let rank = config.rank_of(*other);
            Some(*other) != self.following.leader
                && (rank > own || rank == own && rank > 0 && *other < self.identity)
        };
        let members = self.connected.iter().filter(|other| config.contains(**other));
        members.filter(|other| is_preferred(other)).count() as u64
    }

    /// Jitter: a number below `range`.
    fn spread(&self, range: Ticks) -> Ticks {
        mix(self.jitter ^ self.now ^ self.term().0.rotate_left(32)) % range.max(1)
    }

    /// Whether this node is allowed to lead and able to hear a quorum. The latter keeps a node in a
    /// partial partition from campaigning for ever.
    ///
    /// A node that its newest configuration leaves without rank is still allowed until that one is
    /// committed: it may be the only one that holds it, so that nobody else could win. It wins by
    /// the votes of that configuration, in which its own counts nothing, and steps down when it is
    /// committed (Ongaro 2014, section 4.2.2).
    ///
    /// And so is a node that somebody asks for its vote, though its own log gives it no rank, and
    /// that has to refuse because its own log is newer: who asks has a configuration in which that
    /// vote may be needed, and as long as nobody replaces that one by a newer log, nobody can win.
    fn may_campaign(&self) -> bool {
        !self.vetoed
            && (self.is_entitled() || self.following.is_asked_in_vain)
            && self.term().0 < NUMBER_MAX
            && self.connected_quorum()
    }

    /// Whether a configuration that may be in force gives this node a rank.
    fn is_entitled(&self) -> bool {
        self.log.configs_since(self.commit).any(|config| config.rank_of(self.identity) > 0)
    }

    /// Whether a log that ends there holds at least what this one can be needed for.
    fn is_up_to_date(&self, (last, last_term): (EntryIndex, Term)) -> bool {
        let (own, own_term) = self.log.last();
        (last_term, last) >= (own_term, own) || self.planted(Bug::VoteForAnyLog)
    }

    fn pre_campaign(&mut self, out: &mut Vec<Output>) {
        self.following.leader = None;
        self.state = State::PreCandidate(self.new_campaign(false));
        self.ask(out);
        self.count_pre_votes(out);
    }

    fn count_pre_votes(&mut self, out: &mut Vec<Output>) {
        let State::PreCandidate(campaign) = &self.state else { return };
        let would_win = self.is_quorum(|identity| {
            identity == self.identity || campaign.granted.contains(&identity)
        });
        if would_win && self.may_campaign() {
            self.campaign(false, out);
        }
    }

    fn campaign(&mut self, transfer: bool, out: &mut Vec<Output>) {
        let term = Term(self.term().0 + 1);
        self.enter_term(HardState { term, vote: Some(self.identity) });
        let timeout = self.settings.election_timeout;
        self.election_at = self.now.saturating_add(timeout + self.spread(timeout / 2));
        self.state = State::Candidate(self.new_campaign(transfer));
        self.ask(out);
    }

    fn new_campaign(&self, transfer: bool) -> Campaign {
        Campaign { granted: BTreeSet::new(), refused: BTreeSet::new(), ask_at: self.now, transfer }
    }

    fn enter_term(&mut self, hard: HardState) {
        assert!(hard.term > self.hard.term, "term {:?} again", hard.term);
        self.hard = hard;
        self.following = Following::default();
        self.stage_hard();
    }

    /// Asks all ranked members that did not answer yet; answers can get lost.
    fn ask(&mut self, out: &mut Vec<Output>) {
        let ask_at =
            self.now.saturating_add(self.ask_interval() + self.spread(self.ask_interval()));
        let (last, last_term) = self.log.last();
        let (term, campaign, body) = match &mut self.state {
            State::PreCandidate(campaign) => {
                let body = MessageBody::PreVote { last, last_term, transfer: false };
                (Term(self.hard.term.0 + 1), campaign, body)
            }
            State::Candidate(campaign) => {
                let transfer = campaign.transfer;
                (self.hard.term, campaign, MessageBody::Vote { last, last_term, transfer })
            }
            State::Follower | State::Leader(_) => return,
        };
        campaign.ask_at = ask_at;
        let answered: BTreeSet<_> = campaign.granted.union(&campaign.refused).copied().collect();
        for member in self.config().identities() {
            let ranked = self.config().rank_of(member) > 0;
            if ranked && self.connected.contains(&member) && !answered.contains(&member) {
                self.send(member, term, body.clone(), self.hard_sequence, out);
            }
        }
    }
}
