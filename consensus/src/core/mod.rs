//! The state machine: what a node knows, the one entry point, and what all rules share.
//!
//! The rules are split by the state they own: `election` (terms, votes, deadlines), `replication`
//! (the leader's sending), `following` (what a follower stores and proves), `membership`
//! (proposals and configurations). This file owns time, durability and the views.
//!
//! # Durability without waiting
//!
//! A step never waits. What it changes that must be durable is *staged* and leaves as one
//! `Persist` with the next sequence, before the other outputs. A message that promises something
//! carries the sequence after which it may leave. So the outside can never see a promise of a node
//! that could forget it, and the rules can treat "stored" and "promised" as one moment. Two things
//! a node counts for itself, its own vote and its own copy of an entry, count from `Persisted` on.

mod canonical;
mod election;
mod following;
mod membership;
mod replication;
mod settings;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use self::settings::{Settings, SettingsError, Start, StartError};
use crate::log::Log;
use crate::output::{Input, Output, PeerProgress, Role};
use crate::planted::Bug;
use crate::plausible;
use crate::progress::{Pace, Progress};
use crate::types::{
    Body, Config, Entry, EntryIndex, HardState, Identity, Message, MessageBody, Term, Ticks,
};

/// One node's part in ordering the log.
///
/// Invariants, checked after each step:
/// - `log.base <= commit <= last` and `durable <= last`; `commit` never falls.
/// - The term never falls and is at least that of the last entry.
/// - At most one vote per term; a candidate and a leader voted for themselves.
/// - `persisted <= sequence`; `pending` rises in sequence and holds only what is not persisted.
/// - A leader never leads with a veto on, and has the entry `opening` of its own term.
/// - A leader's progress covers exactly the other members, each `matched <= last`.
/// - A follower's `verified <= last`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Core {
    settings: Settings,
    identity: Identity,
    now: Ticks,
    /// Mixed from the random bits of ticks; feeds the jitter.
    jitter: u64,
    hard: HardState,
    log: Log,
    commit: EntryIndex,
    durable: EntryIndex,
    /// The newest `Persist`, the newest answered one, and the newest that carried a hard state.
    sequence: u64,
    persisted: u64,
    hard_sequence: u64,
    /// Per unanswered `Persist`, the last entry that is durable with it.
    pending: VecDeque<(u64, EntryIndex)>,
    staged: Option<Staged>,
    state: State,
    following: Following,
    connected: BTreeSet<Identity>,
    vetoed: bool,
    /// When a follower starts asking, or a candidate gives up.
    election_at: Ticks,
}

/// What one step changed that must be durable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Staged {
    hard: bool,
    truncate_from: Option<EntryIndex>,
    append: Option<(EntryIndex, EntryIndex)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    Follower,
    PreCandidate(Campaign),
    Candidate(Campaign),
    Leader(Leading),
}

/// The answers to a campaign; the own one is not among them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Campaign {
    granted: BTreeSet<Identity>,
    refused: BTreeSet<Identity>,
    /// When to ask again those that did not answer.
    ask_at: Ticks,
    transfer: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Leading {
    /// The first entry of the own term.
    opening: EntryIndex,
    progress: BTreeMap<Identity, Progress>,
    heartbeat_at: Ticks,
    /// The newest round of heartbeats that waiting reads asked for.
    round: u64,
    reads: VecDeque<Read>,
    transfer: Option<Transfer>,
}

/// A read that waits for a quorum to answer `round`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Read {
    token: u64,
    index: EntryIndex,
    round: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Transfer {
    to: Identity,
    give_up_at: Ticks,
    told: bool,
}

/// What a follower knows of the leader of its term; forgotten with the term.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Following {
    /// Who sent appends in this term. At most one node does.
    source: Option<Identity>,
    /// The source, while it is believed to lead: connected and not silent.
    leader: Option<Identity>,
    heard_at: Ticks,
    /// The own log equals the leader's up to here. A leader's log only grows in its term, so this
    /// stays true until the term ends.
    verified: EntryIndex,
    /// The highest commit and durable index it told.
    leader_commit: EntryIndex,
    leader_durable: EntryIndex,
    /// Somebody asked for this node's vote, in no leader's time, with an older log.
    is_asked_in_vain: bool,
}

impl Core {
    /// A follower with the given durable state. The driver then reports the connections it has by
    /// [`Input::PeerUp`].
    ///
    /// # Panics
    /// When `settings` or `start` do not pass [`Settings::validate`] and [`Start::check`]: a driver
    /// that reads them from outside checks first.
    pub fn new(settings: Settings, identity: Identity, start: Start, now: Ticks) -> Self {
        assert!(settings.validate().is_ok(), "settings were not validated: {settings:?}");
        assert!(start.check().is_ok(), "start was not checked: {:?}", start.check());
        let mut log = Log::new(start.last, start.last_term, start.config);
        for entry in start.entries {
            log.append(entry);
        }
        let (last, last_term) = log.last();
        let mut hard = start.hard;
        if last_term > hard.term {
            // Only an image can be ahead of the stored term; nobody got a vote in that term.
            hard = HardState { term: last_term, vote: None };
        }
        let node = u64::from(identity.node.0);
        let mut core = Self {
            settings,
            identity,
            now,
            jitter: mix(node ^ identity.incarnation.0 as u64),
            hard,
            commit: log.base(),
            log,
            durable: last,
            sequence: 0,
            persisted: 0,
            hard_sequence: 0,
            pending: VecDeque::new(),
            staged: None,
            state: State::Follower,
            following: Following::default(),
            connected: BTreeSet::new(),
            vetoed: false,
            election_at: now,
        };
        core.election_at = core.first_election_at();
        core.assert_invariants();
        core
    }

    /// Takes one input and says what follows from it. Never blocks and never panics, whatever a
    /// message holds. `now` going back counts as standing still.
    pub fn step(&mut self, now: Ticks, input: Input, out: &mut Vec<Output>) {
        assert!(self.staged.is_none(), "staged changes left behind by the last step");
        self.now = self.now.max(now);
        let before = (self.role(), self.term(), self.leader());
        let commit = self.commit;
        let start = out.len();
        match input {
            Input::Tick { random } => self.tick(random, out),
            Input::Receive { from, message } => self.receive(from, message, out),
            Input::Propose { first_index, count, payload } => {
                self.propose(Body::Window { first_index, count, payload }, out);
            }
            Input::ProposeConfig { members } => self.propose_config(members, out),
            Input::Persisted { sequence } => self.persisted(sequence, out),
            Input::PeerUp { peer } => self.peer_up(peer, out),
            Input::PeerDown { peer } => self.peer_down(peer, out),
            Input::Compact { upto } => self.compact(upto),
            Input::ImageSent { to, last } => self.image_sent(to, last, out),
            Input::InstallImage { last, last_term, config } => {
                self.install_image(last, last_term, config, out);
            }
            Input::TransferLeadership { to } => self.transfer_leadership(to, out),
            Input::Veto { on } => self.veto(on, out),
            Input::ReadIndex { token } => self.read_index(token, out),
        }
        self.flush(start, out);
        let after = (self.role(), self.term(), self.leader());
        if before != after {
            out.push(Output::Role { role: after.0, term: after.1, leader: after.2 });
        }
        assert!(self.commit >= commit, "commit fell from {commit:?} to {:?}", self.commit);
        self.assert_invariants();
    }

    /// What this node does now.
    pub const fn role(&self) -> Role {
        match self.state {
            State::Follower => Role::Follower,
            State::PreCandidate(_) => Role::PreCandidate,
            State::Candidate(_) => Role::Candidate,
            State::Leader(_) => Role::Leader,
        }
    }

    /// The newest term seen.
    pub const fn term(&self) -> Term {
        self.hard.term
    }

    /// Who leads the term, while it is connected and not silent; this node itself if it leads.
    pub const fn leader(&self) -> Option<Identity> {
        match self.state {
            State::Leader(_) => Some(self.identity),
            _ => self.following.leader,
        }
    }

    /// Who this node is.
    pub const fn identity(&self) -> Identity {
        self.identity
    }

    /// The newest entry known to be committed.
    pub const fn commit(&self) -> EntryIndex {
        self.commit
    }

    /// The newest entry that is durable here.
    pub const fn durable(&self) -> EntryIndex {
        self.durable
    }

    /// Place and term of the last entry, or of the end of the image before an empty log.
    pub fn last(&self) -> (EntryIndex, Term) {
        self.log.last()
    }

    /// The first kept entry; one past the last when none is kept.
    pub const fn first(&self) -> EntryIndex {
        self.log.base().next()
    }

    /// A kept entry.
    pub fn entry(&self, index: EntryIndex) -> Option<&Entry> {
        self.log.entry(index)
    }

    /// The kept entries from `index`, or from the first kept one if that is later, in order.
    pub fn entries_from(&self, index: EntryIndex) -> impl Iterator<Item = &Entry> {
        self.log.from(index)
    }

    /// The term of a kept entry or of the newest forgotten one.
    pub fn term_at(&self, index: EntryIndex) -> Option<Term> {
        self.log.term_at(index)
    }

    /// The newest configuration in the log: the one in force.
    pub fn config(&self) -> &Config {
        self.log.config().1
    }

    /// The newest committed configuration and its place.
    pub fn committed_config(&self) -> (EntryIndex, &Config) {
        self.log.config_as_of(self.commit)
    }

    /// Term and vote.
    pub const fn hard_state(&self) -> HardState {
        self.hard
    }

    /// What this leader knows of a follower; none on other nodes and for non-members.
    pub fn progress(&self, identity: Identity) -> Option<PeerProgress> {
        let State::Leader(leading) = &self.state else { return None };
        let progress = leading.progress.get(&identity)?;
        Some(PeerProgress {
            matched: progress.matched,
            next: progress.next,
            needs_image: progress.pace == Pace::Image,
            last_heard: progress.last_heard,
        })
    }

    /// Whether this node leads and has committed an entry of its own term: from then on its commit
    /// covers everything that any earlier leader committed.
    pub fn has_committed_in_term(&self) -> bool {
        matches!(&self.state, State::Leader(leading) if self.commit >= leading.opening)
    }

    /// Whether a change of members is under way: the newest configuration is not committed, or is
    /// joint.
    pub fn pending_config(&self) -> bool {
        let (index, config) = self.log.config();
        index > self.commit || config.is_joint()
    }

    /// When the next [`Input::Tick`] is wanted.
    pub fn next_wakeup(&self) -> Ticks {
        match &self.state {
            State::Follower => self.election_at,
            State::PreCandidate(campaign) => campaign.ask_at,
            State::Candidate(campaign) => campaign.ask_at.min(self.election_at),
            State::Leader(leading) => {
                let give_up_at = leading.transfer.as_ref().map(|transfer| transfer.give_up_at);
                give_up_at.map_or(leading.heartbeat_at, |at| at.min(leading.heartbeat_at))
            }
        }
    }

    /// Whether this node and the peers it is connected with are a quorum.
    pub fn connected_quorum(&self) -> bool {
        self.is_quorum(|identity| identity == self.identity || self.connected.contains(&identity))
    }

    /// The quorum test by the configuration in force.
    fn is_quorum(&self, holds: impl Fn(Identity) -> bool) -> bool {
        self.is_quorum_by(self.config(), holds)
    }

    fn is_quorum_by(&self, config: &Config, holds: impl Fn(Identity) -> bool) -> bool {
        if self.planted(Bug::JointAsksOneHalf) {
            return Config { current: config.current.clone(), next: None }.is_quorum(holds);
        }
        config.is_quorum(holds)
    }

    /// The one gate for messages: shape, sender, term. Behind it each kind has its rule.
    fn receive(&mut self, from: Identity, message: Message, out: &mut Vec<Output>) {
        if from == self.identity || !plausible::is_plausible(&message) {
            return;
        }
        let Message { term, body } = message;
        // What a non-member answers counts for nothing, its term neither: a removed node or an
        // earlier incarnation must not depose anybody. Requests are judged by their content, as the
        // sender may be a member by a configuration that this node has yet to receive.
        let is_answer = matches!(
            body,
            MessageBody::PreVoteAnswer { .. }
                | MessageBody::VoteAnswer { .. }
                | MessageBody::AppendAnswer { .. }
        );
        let from = if is_answer { self.counted_as(from) } else { from };
        if is_answer && !self.config().contains(from) {
            return;
        }
        if term > self.term() && self.adopts_term(&body) {
            self.become_follower(term, out);
        }
        match body {
            MessageBody::PreVote { last, last_term, transfer } => {
                self.on_pre_vote(from, term, (last, last_term), transfer, out);
            }
            MessageBody::PreVoteAnswer { granted } => {
                self.on_pre_vote_answer(from, term, granted, out);
            }
            MessageBody::Vote { last, last_term, transfer: _ } => {
                self.on_vote(from, term, (last, last_term), out);
            }
            MessageBody::VoteAnswer { granted } => self.on_vote_answer(from, term, granted, out),
            MessageBody::Append { .. } => self.on_append(from, term, body, out),
            MessageBody::AppendAnswer { .. } => self.on_append_answer(from, term, &body, out),
            MessageBody::TimeoutNow => self.on_timeout_now(from, term, out),
        }
    }

    /// Whether a message of a higher term makes this node enter that term.
    fn adopts_term(&self, body: &MessageBody) -> bool {
        match body {
            // A pre-vote only asks, and a grant repeats the term that was asked about.
            MessageBody::PreVote { .. } | MessageBody::PreVoteAnswer { granted: true } => false,
            // Nobody may disturb a leader that is alive, except by its own wish.
            MessageBody::Vote { transfer, .. } => *transfer || !self.leader_is_alive(),
            MessageBody::PreVoteAnswer { granted: false }
            | MessageBody::VoteAnswer { .. }
            | MessageBody::Append { .. }
            | MessageBody::AppendAnswer { .. } => true,
            // Only the leader of the present term can hand over.
            MessageBody::TimeoutNow => false,
        }
    }

    fn tick(&mut self, random: u64, out: &mut Vec<Output>) {
        self.jitter = mix(self.jitter ^ random);
        match self.state {
            State::Leader(_) => self.tick_leader(out),
            _ => self.tick_election(out),
        }
    }

    fn persisted(&mut self, sequence: u64, out: &mut Vec<Output>) {
        let sequence = sequence.min(self.sequence);
        if sequence <= self.persisted {
            return;
        }
        self.persisted = sequence;
        while let Some(&(first, last)) = self.pending.front() {
            if first > sequence {
                break;
            }
            self.durable = self.durable.max(last);
            self.pending.pop_front();
        }
        match self.state {
            State::Follower | State::PreCandidate(_) => self.commit_as_follower(out),
            State::Candidate(_) => self.count_votes(out),
            State::Leader(_) => self.durable_moved(out),
        }
    }

    fn compact(&mut self, upto: EntryIndex) {
        let upto = upto.min(self.commit).min(self.durable);
        if upto > self.log.base() {
            self.log.compact(upto);
        }
    }

    fn veto(&mut self, on: bool, out: &mut Vec<Output>) {
        self.vetoed = on;
        if on {
            self.stop_campaigning(out);
        }
    }

    /// The staged changes of this step; the first asks for a new sequence.
    fn stage(&mut self) -> &mut Staged {
        if self.staged.is_none() {
            self.sequence += 1;
        }
        self.staged.get_or_insert_default()
    }

    fn stage_hard(&mut self) {
        self.stage().hard = true;
        self.hard_sequence = self.sequence;
    }

    /// Appends to the log and stages it.
    fn append(&mut self, entry: Entry, out: &mut Vec<Output>) {
        let index = entry.index;
        let config = match &entry.body {
            Body::Config(config) => Some(config.clone()),
            Body::Noop | Body::Window { .. } => None,
        };
        self.log.append(entry);
        let append = &mut self.stage().append;
        *append = Some(append.map_or((index, index), |(first, _)| (first, index)));
        if let Some(config) = config {
            out.push(Output::ConfigInForce { index, config });
        }
    }

    /// Drops entries from the log and stages it.
    fn truncate(&mut self, from: EntryIndex, out: &mut Vec<Output>) {
        assert!(from > self.commit, "truncation from {from:?} at commit {:?}", self.commit);
        let config_changed = self.log.truncate(from);
        let kept = self.log.last().0;
        self.durable = self.durable.min(kept);
        for (_, last) in &mut self.pending {
            *last = (*last).min(kept);
        }
        let staged = self.stage();
        assert!(staged.append.is_none(), "truncation behind an append of the same step");
        staged.truncate_from = Some(from);
        out.push(Output::Truncated { from });
        if config_changed {
            let (index, config) = self.log.config();
            out.push(Output::ConfigInForce { index, config: config.clone() });
        }
    }

    /// Turns what is staged into the first output of the step.
    fn flush(&mut self, start: usize, out: &mut Vec<Output>) {
        let Some(staged) = self.staged.take() else { return };
        let sequence = self.sequence;
        self.pending.push_back((sequence, self.log.last().0));
        let hard = staged.hard.then_some(self.hard);
        let Staged { truncate_from, append, .. } = staged;
        out.insert(start, Output::Persist { sequence, hard, truncate_from, append });
    }

    /// Queues a message that may leave once `after` is persisted.
    fn send(&self, to: Identity, term: Term, body: MessageBody, after: u64, out: &mut Vec<Output>) {
        let after = if self.planted(Bug::AnswerBeforeDurable) { 0 } else { after };
        out.push(Output::Send { to, message: Message { term, body }, after });
    }

    /// Raises commit and reports it.
    fn commit_to(&mut self, upto: EntryIndex, early: bool, out: &mut Vec<Output>) {
        assert!(upto > self.commit, "commit from {:?} to {upto:?}", self.commit);
        assert!(upto <= self.log.last().0, "commit to {upto:?} behind the log");
        self.commit = upto;
        out.push(Output::Commit { upto, early });
    }

    /// Who a sender counts as: itself.
    fn counted_as(&self, from: Identity) -> Identity {
        if self.planted(Bug::StaleIncarnationCounts) {
            let members = self.config().identities();
            return members.into_iter().find(|m| m.node == from.node).unwrap_or(from);
        }
        from
    }

    /// Whether this run makes the given mistake on purpose.
    #[cfg(feature = "planted-bugs")]
    fn planted(&self, bug: Bug) -> bool {
        self.settings.bug == Some(bug)
    }

    #[cfg(not(feature = "planted-bugs"))]
    #[expect(clippy::unused_self, reason = "the same shape with and without planted bugs")]
    const fn planted(&self, _bug: Bug) -> bool {
        false
    }

    fn assert_invariants(&self) {
        let (last, last_term) = self.log.last();
        assert!(self.log.base() <= self.commit, "commit {:?} behind the base", self.commit);
        assert!(self.commit <= last, "commit {:?} > last {last:?}", self.commit);
        assert!(self.durable <= last, "durable {:?} > last {last:?}", self.durable);
        assert!(self.hard.term >= last_term, "term {:?} < {last_term:?}", self.hard.term);
        assert!(self.persisted <= self.sequence, "persisted {} > sequence", self.persisted);
        assert!(self.following.verified <= last, "verified {:?}", self.following.verified);
        if let Some((sequence, _)) = self.pending.front() {
            assert!(*sequence > self.persisted, "pending {sequence} is persisted");
        }
        match &self.state {
            State::Follower | State::PreCandidate(_) => {}
            State::Candidate(_) => {
                assert!(self.hard.vote == Some(self.identity), "vote {:?}", self.hard.vote);
            }
            State::Leader(leading) => {
                assert!(self.hard.vote == Some(self.identity), "vote {:?}", self.hard.vote);
                assert!(!self.vetoed, "leads with a veto on");
                assert!(leading.opening <= last, "opening {:?} > {last:?}", leading.opening);
                for progress in leading.progress.values() {
                    progress.assert_invariants();
                    assert!(progress.matched <= last, "matched {:?}", progress.matched);
                }
            }
        }
        // Costs as much as the log is long: only where runs are short.
        if cfg!(feature = "planted-bugs") || cfg!(test) {
            self.log.assert_invariants();
        }
    }
}

/// Scrambles bits (the finalizer of SplitMix64), for jitter only.
const fn mix(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}
