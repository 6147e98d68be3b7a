//! The leader's side of the log: sending, counting, heartbeats, fresh reads. Must never decide who
//! leads or who is a member.
//!
//! Entries are sent when they are durable here (or at once, by `Settings::send_before_durable`), so
//! that an append tells followers that the leader's copy counts: early commit in one round trip.
//! In memory mode both are the same moment.

use std::collections::{BTreeMap, VecDeque};

use super::{Core, Leading, Read, State};
use crate::output::{Output, Refusal, StepDown};
use crate::planted::Bug;
use crate::progress::{Pace, Progress};
use crate::types::{Body, Config, Entry, EntryIndex, Identity, MessageBody, Term};

impl Core {
    /// Leads the present term. Its first entry holds nothing; committing it commits all before.
    pub(super) fn become_leader(&mut self, out: &mut Vec<Output>) {
        assert!(self.hard.vote == Some(self.identity), "leads without its own vote");
        assert!(self.persisted >= self.hard_sequence, "leads with a vote it could forget");
        let opening = self.log.last().0.next();
        self.following.source = Some(self.identity);
        self.state = State::Leader(Leading {
            opening,
            progress: BTreeMap::new(),
            heartbeat_at: self.now.saturating_add(self.settings.heartbeat_interval),
            round: 0,
            reads: VecDeque::new(),
            transfer: None,
        });
        self.follow_config();
        self.append(Entry { index: opening, term: self.term(), body: Body::Noop }, out);
        self.send_appended(out);
    }

    /// Keeps a progress for each other member of the configuration in force, and for nobody else.
    pub(super) fn follow_config(&mut self) {
        let next = self.log.last().0.next();
        let members = self.log.config().1.identities();
        let State::Leader(leading) = &mut self.state else { return };
        leading.progress.retain(|identity, _| members.contains(identity));
        for member in members.into_iter().filter(|member| *member != self.identity) {
            leading.progress.entry(member).or_insert_with(|| Progress::new(next, self.now));
        }
    }

    /// Sends what was appended in this step, if it need not be durable first.
    pub(super) fn send_appended(&mut self, out: &mut Vec<Output>) {
        if self.settings.send_before_durable {
            self.replicate_all(out);
        }
    }

    /// More of the own log is durable: it may count and it may be sent.
    pub(super) fn durable_moved(&mut self, out: &mut Vec<Output>) {
        self.replicate_all(out);
        self.advance_commit(out);
    }

    pub(super) fn tick_leader(&mut self, out: &mut Vec<Output>) {
        let State::Leader(leading) = &mut self.state else { return };
        leading.transfer = leading.transfer.take().filter(|t| self.now < t.give_up_at);
        if self.now < leading.heartbeat_at {
            return;
        }
        leading.heartbeat_at = self.now.saturating_add(self.settings.heartbeat_interval);
        let patience = self.settings.election_timeout;
        let heard: Vec<_> = leading
            .progress
            .iter()
            .filter(|(_, p)| self.now < p.last_heard.saturating_add(patience))
            .map(|(identity, _)| *identity)
            .collect();
        for progress in leading.progress.values_mut() {
            if progress.is_stuck(self.now, 2 * patience) {
                progress.probe_from(progress.matched.next());
            }
        }
        if self.is_quorum(|identity| identity == self.identity || heard.contains(&identity)) {
            self.heartbeat_all(out);
        } else {
            self.step_down(StepDown::LostQuorum, out);
        }
    }

    pub(super) fn on_append_answer(
        &mut self,
        from: Identity,
        term: Term,
        body: &MessageBody,
        out: &mut Vec<Output>,
    ) {
        let &MessageBody::AppendAnswer { matched, matched_term, accepted, round } = body else {
            return;
        };
        let (last, _) = self.log.last();
        if term != self.term() || accepted && matched > last {
            return;
        }
        let State::Leader(leading) = &mut self.state else { return };
        let Some(progress) = leading.progress.get_mut(&from) else { return };
        progress.last_heard = self.now;
        progress.round = progress.round.max(round.min(leading.round));
        if accepted {
            progress.accept(matched, self.log.base(), self.now);
            self.advance_commit(out);
        } else {
            self.back_up(from, (matched, matched_term));
        }
        self.replicate_to(from, out);
        self.hand_over_if_ready(out);
        self.answer_reads(out);
    }

    pub(super) fn follower_reconnected(&mut self, peer: Identity, out: &mut Vec<Output>) {
        self.follower_disconnected(peer);
        self.replicate_to(peer, out);
    }

    /// Whatever was on its way is lost.
    pub(super) fn follower_disconnected(&mut self, peer: Identity) {
        let State::Leader(leading) = &mut self.state else { return };
        leading.transfer = leading.transfer.take().filter(|transfer| transfer.to != peer);
        if let Some(progress) = leading.progress.get_mut(&peer) {
            match progress.pace {
                Pace::Replicate => progress.probe_from(progress.matched.next()),
                Pace::Probe { .. } | Pace::Image => progress.probe_from(progress.next),
            }
        }
    }

    pub(super) fn image_sent(&mut self, to: Identity, last: EntryIndex, out: &mut Vec<Output>) {
        let last = last.min(self.log.last().0);
        let log_goes_on = self.log.term_at(last).is_some();
        let State::Leader(leading) = &mut self.state else { return };
        let Some(progress) = leading.progress.get_mut(&to) else { return };
        let is_waited_for = match progress.pace {
            Pace::Image => true,
            // Nobody answered the probe: who had no log yet could not. Now it can.
            Pace::Probe { .. } => log_goes_on && last > progress.matched,
            Pace::Replicate => false,
        };
        if is_waited_for {
            progress.probe_from(last.next());
            self.replicate_to(to, out);
        }
    }

    pub(super) fn read_index(&mut self, token: u64, out: &mut Vec<Output>) {
        let ready = self.has_committed_in_term();
        let leader = self.leader();
        // A follower can commit early what this leader made durable but not yet committed.
        let index = self.commit.max(self.durable);
        let State::Leader(leading) = &mut self.state else {
            out.push(Output::ReadRefused { token, reason: Refusal::NotLeader { leader } });
            return;
        };
        if !ready {
            out.push(Output::ReadRefused { token, reason: Refusal::NotReady });
            return;
        }
        // One round is shared by all reads that came while the previous one was on its way.
        let idle = leading.reads.is_empty();
        leading.reads.push_back(Read { token, index, round: leading.round + 1 });
        if idle {
            self.start_round(out);
        }
    }

    pub(super) fn replicate_all(&mut self, out: &mut Vec<Output>) {
        for follower in self.followers() {
            self.replicate_to(follower, out);
        }
    }

    pub(super) fn replicate_to(&mut self, to: Identity, out: &mut Vec<Output>) {
        if !self.connected.contains(&to) {
            return;
        }
        while self.replicate_once(to, out) {}
    }

    pub(super) fn heartbeat_all(&mut self, out: &mut Vec<Output>) {
        for follower in self.followers() {
            self.heartbeat_to(follower, out);
        }
    }

    /// Raises commit to the newest entry of the own term that a quorum holds. Entries of earlier
    /// terms are committed only by what follows them: they could still be replaced by a leader that
    /// does not have them (figure 8 of the Raft paper).
    pub(super) fn advance_commit(&mut self, out: &mut Vec<Output>) {
        let State::Leader(leading) = &self.state else { return };
        let held = |who: Identity| {
            if who == self.identity {
                return self.durable;
            }
            leading.progress.get(&who).map_or(EntryIndex(0), |progress| progress.matched)
        };
        let mut candidates: Vec<_> =
            self.config().identities().into_iter().map(held).filter(|i| *i > self.commit).collect();
        candidates.sort_unstable();
        let on_quorum =
            candidates.into_iter().rev().find(|index| self.is_quorum(|who| held(who) >= *index));
        let Some(index) = on_quorum else { return };
        let own_term = self.log.term_at(index) == Some(self.term());
        if own_term || self.planted(Bug::CommitOldTermByCounting) {
            self.commit_to(index, false, out);
            self.config_committed(out);
            self.tell_commit(out);
        }
    }

    /// Confirms the reads whose round a quorum has answered, and starts the round of the others.
    pub(super) fn answer_reads(&mut self, out: &mut Vec<Output>) {
        let State::Leader(leading) = &self.state else { return };
        let Some(round) = leading.reads.front().map(|read| read.round) else { return };
        let is_confirmed = self.is_quorum(|who| {
            who == self.identity || leading.progress.get(&who).is_some_and(|p| p.round >= round)
        });
        if !is_confirmed {
            return;
        }
        let State::Leader(leading) = &mut self.state else { return };
        while let Some(read) = leading.reads.front().filter(|read| read.round <= round) {
            out.push(Output::ReadReady { token: read.token, index: read.index });
            leading.reads.pop_front();
        }
        if !leading.reads.is_empty() {
            self.start_round(out);
        }
    }

    fn followers(&self) -> Vec<Identity> {
        match &self.state {
            State::Leader(leading) => leading.progress.keys().copied().collect(),
            _ => Vec::new(),
        }
    }

    fn start_round(&mut self, out: &mut Vec<Output>) {
        let State::Leader(leading) = &mut self.state else { return };
        leading.round += 1;
        self.heartbeat_all(out);
        self.answer_reads(out);
    }

    /// A follower does not have the entry before what was sent: go back to where both logs can
    /// agree, skipping whole terms. `guess` is where the follower could agree at most.
    fn back_up(&mut self, from: Identity, guess: (EntryIndex, Term)) {
        let base = self.log.base();
        let guessed = guess.0.min(self.log.last().0);
        let State::Leader(leading) = &mut self.state else { return };
        let Some(progress) = leading.progress.get_mut(&from) else { return };
        let is_stale = match progress.pace {
            Pace::Probe { .. } => guessed.next() >= progress.next,
            Pace::Replicate => false,
            Pace::Image => true,
        };
        if is_stale || guessed < progress.matched {
            return;
        }
        // Below the base there is nothing to compare with: the follower needs an image.
        let agreed = if guessed < base { guessed } else { self.log.agreement(guessed, guess.1).0 };
        progress.probe_from(agreed.next());
    }

    /// Sends one append with entries, or a probe, if the follower's pace allows one. Returns
    /// whether another may follow.
    fn replicate_once(&mut self, to: Identity, out: &mut Vec<Output>) -> bool {
        let limit =
            if self.settings.send_before_durable { self.log.last().0 } else { self.durable };
        let State::Leader(leading) = &mut self.state else { return false };
        let Some(progress) = leading.progress.get_mut(&to) else { return false };
        let may_send = match progress.pace {
            Pace::Probe { asked } => !asked,
            Pace::Replicate => {
                progress.next <= limit && progress.in_flight.len() < self.settings.max_in_flight
            }
            Pace::Image => false,
        };
        if !may_send {
            return false;
        }
        let previous = EntryIndex(progress.next.0 - 1);
        if self.log.term_at(previous).is_none() {
            progress.in_flight.clear();
            progress.pace = Pace::Image;
            out.push(Output::NeedImage { to });
            return false;
        }
        let entries = self.batch(previous.next(), limit);
        let end = EntryIndex(previous.0 + entries.len() as u64);
        self.note_sent(to, end);
        self.send_append(to, previous, entries, out);
        true
    }

    fn note_sent(&mut self, to: Identity, end: EntryIndex) {
        let State::Leader(leading) = &mut self.state else { return };
        let Some(progress) = leading.progress.get_mut(&to) else { return };
        if let Pace::Probe { asked } = &mut progress.pace {
            *asked = true;
            return;
        }
        if progress.in_flight.is_empty() {
            progress.moved_at = self.now;
        }
        progress.in_flight.push_back(end);
        progress.next = end.next();
    }

    /// Entries from `first` up to `limit`, as many as fit into one append, at least one if any.
    fn batch(&self, first: EntryIndex, limit: EntryIndex) -> Vec<Entry> {
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            let fits_first = bytes == 0;
            bytes += entry_bytes(entry);
            entry.index <= limit && (fits_first || bytes <= self.settings.max_append_bytes)
        };
        self.log.from(first).take_while(fits).cloned().collect()
    }

    /// A sign of life, which also asks again where a probe could have been lost.
    fn heartbeat_to(&mut self, to: Identity, out: &mut Vec<Output>) {
        if !self.connected.contains(&to) {
            return;
        }
        let base = self.log.base();
        let State::Leader(leading) = &mut self.state else { return };
        let Some(progress) = leading.progress.get_mut(&to) else { return };
        let probed = EntryIndex(progress.next.0 - 1);
        if matches!(progress.pace, Pace::Probe { .. }) && probed < base {
            progress.pace = Pace::Image;
            out.push(Output::NeedImage { to });
        }
        let previous = match &mut progress.pace {
            Pace::Probe { asked } => {
                *asked = true;
                probed
            }
            // What it has for certain, so that a heartbeat that overtakes entries is accepted.
            Pace::Replicate if progress.matched >= base => progress.matched,
            Pace::Replicate | Pace::Image => EntryIndex(0),
        };
        self.send_append(to, previous, Vec::new(), out);
    }

    /// Tells commit at once to those that wait for nothing else and could not prove it themselves.
    fn tell_commit(&mut self, out: &mut Vec<Output>) {
        for follower in self.followers() {
            let State::Leader(leading) = &self.state else { return };
            let Some(progress) = leading.progress.get(&follower) else { continue };
            let more_follows = progress.next <= self.durable;
            let proves_it = progress.durable_sent >= self.commit
                && self.is_quorum(|who| who == self.identity || who == follower);
            let knows = progress.commit_sent >= self.commit || proves_it;
            if progress.pace == Pace::Replicate && !more_follows && !knows {
                self.heartbeat_to(follower, out);
            }
        }
    }

    fn send_append(
        &mut self,
        to: Identity,
        previous: EntryIndex,
        entries: Vec<Entry>,
        out: &mut Vec<Output>,
    ) {
        let previous_term = if previous.0 == 0 {
            Term(0)
        } else {
            let Some(term) = self.log.term_at(previous) else { return };
            term
        };
        let (commit, durable) = (self.commit, self.durable);
        let State::Leader(leading) = &mut self.state else { return };
        let round = leading.round;
        if let Some(progress) = leading.progress.get_mut(&to) {
            progress.commit_sent = commit;
            progress.durable_sent = durable;
        }
        let body = MessageBody::Append { previous, previous_term, entries, commit, durable, round };
        self.send(to, self.term(), body, self.hard_sequence, out);
    }
}

/// About how many bytes an entry takes in an append. Never 0.
fn entry_bytes(entry: &Entry) -> usize {
    const HEAD_BYTES: usize = 32;
    const MEMBER_BYTES: usize = 24;
    let content = match &entry.body {
        Body::Noop => 0,
        Body::Window { payload, .. } => payload.len(),
        Body::Config(Config { current, next }) => {
            (current.len() + next.as_ref().map_or(0, Vec::len)) * MEMBER_BYTES
        }
    };
    HEAD_BYTES + content
}
