//! A state of the whole cluster, and what becomes of it when something happens.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use quorate_consensus::{
    Config, Core, EntryIndex, Identity, Input, Member, Message, MessageBody, Output, Payload, Role,
    Settings, Start, StepDown, Term,
};
use stateright::{Model, Property};

use crate::action::Action;
use crate::check::{Dead, Truth, Wrong, config_of};
use crate::event::{Event, Tally};
use crate::network::{Cargo, Network, Packet};
use crate::node::{Node, Write};
use crate::setup::{Setup, Target};

/// A setup under exploration.
#[derive(Debug)]
pub(crate) struct Explored {
    pub(crate) setup: Setup,
    settings: Settings,
    pub(crate) tally: Arc<Tally>,
}

/// All nodes, the network, what may still happen, and what is known of the past.
///
/// Invariant: each core is canonical between two actions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct World {
    nodes: Vec<Arc<Node>>,
    network: Network,
    left: Left,
    pub(crate) truth: Truth,
}

/// What of a setup's bounds is not used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Left {
    windows: u8,
    crashes: u8,
    changes: u8,
    transfers: u8,
    reads: u8,
    compactions: u8,
    heartbeats: u8,
    silences: u8,
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for node in &self.nodes {
            state.write_u64(node.hash());
        }
        self.network.hash(state);
        self.left.hash(state);
        self.truth.hash(state);
    }
}

/// One node between two actions, taken out of its world, with what it did.
struct Stepping<'a> {
    model: &'a Explored,
    world: &'a mut World,
    place: usize,
    node: Node,
    now: u64,
    /// The newest write that was answered.
    answered: u64,
}

impl Explored {
    /// The setup with cores that make no mistake, unless `settings` say so.
    pub(crate) fn new(setup: Setup, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = setup.settings();
        change(&mut settings);
        Self { setup, settings, tally: Arc::default() }
    }

    fn genesis(&self) -> World {
        let members = self.setup.members();
        let config = Config::new(members.clone()).expect("a setup's ranks are a configuration");
        let boot = |member: &Member| {
            let start = Start::genesis(config.clone());
            Arc::new(Node::new(&self.settings, member.identity, start, self.setup.writes > 0))
        };
        let left = Left {
            windows: self.setup.windows,
            crashes: self.setup.crashes,
            changes: self.setup.changes,
            transfers: self.setup.transfers,
            reads: self.setup.reads,
            compactions: self.setup.compactions,
            heartbeats: self.setup.heartbeats,
            silences: self.setup.silences,
        };
        let nodes = members.iter().map(boot).collect();
        let mut world = World { nodes, network: Network::default(), left, truth: Truth::default() };
        for place in 0..world.nodes.len() {
            world.connect_all(self, place);
        }
        for &(candidate, voter) in self.setup.storm {
            world.elect(self, candidate, voter);
        }
        world
    }
}

impl Model for Explored {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.genesis()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.truth.wrong.is_some() {
            return;
        }
        for packet in world.network.packets() {
            if let Some(to) = world.place_of(packet.to)
                && world.may_touch(self, to)
                && !world.is_busy(self, to)
            {
                actions.push(Action::Deliver(Arc::clone(packet)));
            }
        }
        for place in 0..world.nodes.len() {
            if world.may_touch(self, place) {
                world.node_actions(self, place, actions);
            }
            if world.nodes[place].core.role() == Role::Leader && !world.is_busy(self, place) {
                world.leader_actions(self, place, actions);
            }
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        next.act(self, action);
        next.forget_the_past(self);
        let is_within = next.nodes.iter().all(|node| node.core.term().0 <= self.setup.terms);
        (is_within && next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! rules {
            ($($wrong:ident)*) => {
                vec![$(Property::always(Wrong::$wrong.rule(), |_: &Self, world: &World| {
                    world.truth.wrong != Some(Wrong::$wrong)
                })),*]
            };
        }
        let rules = rules! {
            TwoLeaders VotedTwice LogsDiffer CommitChanged NotOnQuorum LeaderIncomplete
            QuorumsApart TwoChanges StaleRead
        };
        assert_eq!(rules.len(), Wrong::ALL.len(), "a property for each rule");
        rules
    }
}

impl World {
    fn who(&self, place: usize) -> Identity {
        self.nodes[place].who()
    }

    fn place_of(&self, who: Identity) -> Option<usize> {
        self.nodes.iter().position(|node| node.who() == who)
    }

    /// Of equal nodes to which nothing happened only the first is touched.
    fn may_touch(&self, model: &Explored, place: usize) -> bool {
        let is_first =
            |other: usize| self.nodes[other].is_touched() || !model.setup.are_alike(other, place);
        self.nodes[place].is_touched() || (0..place).all(is_first)
    }

    /// Whether it waits for its disk.
    fn is_busy(&self, model: &Explored, place: usize) -> bool {
        let under_way = self.nodes[place].writes.len();
        under_way > 0 && under_way >= model.setup.writes
    }

    fn node_actions(&self, model: &Explored, place: usize, actions: &mut Vec<Action>) {
        let node = &self.nodes[place];
        let is_leader = node.core.role() == Role::Leader;
        if !self.is_busy(model, place) && !is_leader && node.core.term().0 < model.setup.terms {
            actions.push(Action::Campaign(place));
        }
        if !node.writes.is_empty() {
            actions.push(Action::Sync(place));
        }
        if self.left.crashes > 0 && model.setup.writes > 0 {
            let counts = 0..=node.writes.len();
            actions.extend(counts.map(|written| Action::Crash(place, written)));
        }
        if self.left.crashes > 0 && model.setup.writes == 0 {
            actions.push(Action::Forget(place));
        }
        if self.left.compactions > 0 && node.core.commit() >= node.core.first() {
            actions.push(Action::Compact(place));
        }
    }

    fn leader_actions(&self, model: &Explored, place: usize, actions: &mut Vec<Action>) {
        let setup = &model.setup;
        if self.left.heartbeats > 0 {
            actions.push(Action::Heartbeat(place));
        }
        if self.left.silences > 0 {
            actions.push(Action::FindSilence(place));
        }
        if self.left.windows > 0 {
            actions.push(Action::Propose(place));
        }
        if self.left.changes > 0 {
            let all = 0..setup.targets.len();
            actions.extend(all.map(|target| Action::Change(place, target)));
        }
        if self.left.transfers > 0 {
            let others = (0..self.nodes.len()).filter(|other| *other != place);
            actions.extend(others.map(|to| Action::Transfer(place, to)));
        }
        if self.left.reads > 0 {
            actions.push(Action::Read(place));
        }
    }

    fn act(&mut self, model: &Explored, action: Action) {
        match action {
            Action::Deliver(packet) => self.deliver(model, &packet),
            Action::Campaign(place) => self.campaign(model, place),
            Action::Heartbeat(place) => {
                self.left.heartbeats -= 1;
                self.tick(model, place, model.settings.heartbeat_interval);
            }
            Action::FindSilence(place) => {
                self.left.silences -= 1;
                self.tick(model, place, 10 * model.settings.election_timeout);
            }
            Action::Propose(place) => {
                // Entries of two leaders of one term must not look the same.
                let payload = Payload::from([place as u8]);
                let first_index = u64::from(self.left.windows);
                self.left.windows -= 1;
                self.input(model, place, Input::Propose { first_index, count: 1, payload });
            }
            Action::Change(place, target) => self.change(model, place, target),
            Action::Transfer(place, to) => {
                self.left.transfers -= 1;
                self.input(model, place, Input::TransferLeadership { to: self.who(to) });
            }
            Action::Read(place) => {
                self.left.reads -= 1;
                // The token says what the answer must reach.
                let token = self.truth.committed().0;
                self.input(model, place, Input::ReadIndex { token });
            }
            Action::Compact(place) => {
                self.left.compactions -= 1;
                let upto = self.nodes[place].core.commit();
                self.input(model, place, Input::Compact { upto });
            }
            Action::Sync(place) => self.sync(model, place),
            Action::Crash(place, written) => self.crash(model, place, written),
            Action::Forget(place) => self.forget(model, place),
        }
    }

    fn deliver(&mut self, model: &Explored, packet: &Packet) {
        let Some(place) = self.place_of(packet.to) else { return };
        if self.place_of(packet.from).is_none() {
            model.tally.note(Event::OldLifeHeard);
        }
        let from = packet.from;
        match &packet.cargo {
            Cargo::Message(message) => {
                self.input(model, place, Input::Receive { from, message: message.clone() });
            }
            Cargo::Installed { last } => {
                self.input(model, place, Input::ImageSent { to: from, last: *last });
            }
            Cargo::Image { last, last_term, config } => {
                if *last > self.nodes[place].core.commit() {
                    model.tally.note(Event::ImageInstalled);
                }
                let (last, last_term, config) = (*last, *last_term, config.clone());
                self.input(model, place, Input::InstallImage { last, last_term, config });
                let cargo = Cargo::Installed { last };
                self.network.insert(Packet { from: packet.to, to: from, cargo });
            }
        }
    }

    fn campaign(&mut self, model: &Explored, place: usize) {
        let mut stepping = self.stepping(model, place, 10 * model.settings.election_timeout);
        stepping.step(Input::Tick { random: 0 });
        if !model.setup.pre_votes {
            let term = Term(stepping.node.core.term().0 + 1);
            let who = stepping.node.who();
            for from in stepping.node.core.config().identities() {
                let body = MessageBody::PreVoteAnswer { granted: true };
                if stepping.node.core.role() == Role::PreCandidate && from != who {
                    stepping.step(Input::Receive { from, message: Message { term, body } });
                }
            }
        }
        stepping.finish();
    }

    fn change(&mut self, model: &Explored, place: usize, target: usize) {
        let old = self.nodes[place].core.config().clone();
        let present = |place: usize, rank| Member { identity: self.who(place), rank };
        let members = match model.setup.targets[target] {
            Target::Ranks(ranks) => {
                let ranked = ranks.iter().enumerate().filter_map(|(at, r)| Some((at, (*r)?)));
                ranked.map(|(at, rank)| present(at, rank)).collect()
            }
            Target::Present => {
                model.setup.ranks.iter().enumerate().map(|(at, r)| present(at, *r)).collect()
            }
            Target::Learners => {
                let all = (0..self.nodes.len()).map(|at| present(at, 0));
                let new = all.filter(|member| !old.contains(member.identity));
                old.current.iter().copied().chain(new).collect()
            }
        };
        let last = self.nodes[place].core.last().0;
        self.input(model, place, Input::ProposeConfig { members });
        if self.nodes[place].core.last().0 > last {
            self.left.changes -= 1;
        }
    }

    fn sync(&mut self, model: &Explored, place: usize) {
        let mut stepping = self.stepping(model, place, 0);
        if let Some(persisted) = stepping.node.sync() {
            stepping.answered = 1;
            stepping.release();
            stepping.step(persisted);
        }
        stepping.finish();
    }

    /// The process dies; of its writes the first `written` had reached the disk.
    fn crash(&mut self, model: &Explored, place: usize, written: usize) {
        let mut node = Node::clone(&self.nodes[place]);
        for _ in 0..written {
            node.sync();
        }
        if !node.writes.is_empty() {
            model.tally.note(Event::LostWrites);
        }
        let start = node.disk.expect("crashes with a kept disk happen to nodes with one");
        let who = node.core.identity();
        let node = Node::again(&model.settings, who, start, true);
        self.left.crashes -= 1;
        self.nodes[place] = Arc::new(node);
        self.connect_all(model, place);
    }

    /// The process dies and with it all that it knew.
    fn forget(&mut self, model: &Explored, place: usize) {
        model.tally.note(Event::LostMemory);
        let dead = Dead::new(&self.nodes[place]);
        let old = dead.who;
        Arc::make_mut(&mut self.truth.dead).push(dead);
        self.left.crashes -= 1;
        let who = Identity::new(old.node.0, old.incarnation.0 + 1);
        let blank = Start::genesis(Config::blank());
        self.nodes[place] = Arc::new(Node::again(&model.settings, who, blank, false));
        self.connect_all(model, place);
        for other in (0..self.nodes.len()).filter(|other| *other != place) {
            self.input(model, other, Input::PeerUp { peer: who });
        }
    }

    fn connect_all(&mut self, model: &Explored, place: usize) {
        let living = self.nodes.iter().map(|node| node.who());
        let dead = self.truth.dead.iter().map(|dead| dead.who);
        let peers: Vec<_> = living.chain(dead).filter(|who| *who != self.who(place)).collect();
        for peer in peers {
            self.input(model, place, Input::PeerUp { peer });
        }
    }

    /// An election in which nothing but the vote arrives.
    fn elect(&mut self, model: &Explored, candidate: usize, voter: usize) {
        self.network = Network::default();
        if self.nodes[candidate].core.role() == Role::Leader {
            self.tick(model, candidate, 10 * model.settings.election_timeout);
        }
        while self.nodes[candidate].core.role() != Role::Candidate
            || self.nodes[candidate].core.term() <= self.nodes[voter].core.term()
        {
            self.campaign(model, candidate);
        }
        let term = self.nodes[candidate].core.term();
        for (from, to) in [(candidate, voter), (voter, candidate)] {
            let (from, to) = (self.who(from), self.who(to));
            let is_asked = |packet: &&Arc<Packet>| {
                packet.from == from
                    && packet.to == to
                    && packet.message().is_some_and(|message| message.term == term)
            };
            let packet = self.network.packets().find(is_asked).cloned();
            self.deliver(model, &packet.expect("a vote is asked for and given"));
        }
        assert!(self.nodes[candidate].core.role() == Role::Leader, "the storm's winner leads");
    }

    fn tick(&mut self, model: &Explored, place: usize, after: u64) {
        let mut stepping = self.stepping(model, place, after);
        stepping.step(Input::Tick { random: 0 });
        stepping.finish();
    }

    fn input(&mut self, model: &Explored, place: usize, input: Input) {
        let mut stepping = self.stepping(model, place, 0);
        stepping.step(input);
        stepping.finish();
    }

    fn stepping<'a>(&'a mut self, model: &'a Explored, place: usize, after: u64) -> Stepping<'a> {
        let node = Node::clone(&self.nodes[place]);
        let now = node.core.canonical_now() + after;
        Stepping { model, world: self, place, node, now, answered: 0 }
    }

    /// Drops what can have no effect any more.
    fn forget_the_past(&mut self, model: &Explored) {
        let nodes = &self.nodes;
        let find = |who| nodes.iter().find(|node| node.who() == who);
        self.network.retain(|packet| {
            let Some(to) = find(packet.to) else { return false };
            let Some(message) = packet.message() else { return true };
            let deposes = model.setup.gossip
                && matches!(message.body, MessageBody::Append { .. })
                && find(packet.from).is_some_and(|from| {
                    from.core.role() == Role::Leader && from.core.term() == message.term
                });
            message.term >= to.durable_term() || deposes
        });
    }
}

impl Stepping<'_> {
    fn step(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let commit = self.node.core.commit();
            let mut out = Vec::new();
            self.node.core.step(self.now, input, &mut out);
            for output in &out {
                self.carry_out(output, commit);
            }
            if self.node.disk.is_none()
                && let Some(Input::Persisted { .. }) = self.node.sync()
            {
                self.answered += 1;
                inputs.push_back(Input::Persisted { sequence: self.answered });
                self.release();
            }
        }
    }

    /// Puts the node back into its world.
    fn finish(mut self) {
        self.node.settle(self.answered);
        self.world.nodes[self.place] = Arc::new(self.node);
    }

    fn carry_out(&mut self, output: &Output, commit: EntryIndex) {
        let tally = &self.model.tally;
        match output {
            Output::Persist { hard, truncate_from, append, .. } => {
                let core = &self.node.core;
                let entries = append.map_or_else(Vec::new, |(first, last)| {
                    let kept = core.entries_from(first);
                    kept.take_while(|entry| entry.index <= last).cloned().collect()
                });
                let (hard, truncate_from) = (*hard, *truncate_from);
                self.node.write(Write { hard, truncate_from, entries });
                if append.is_some() {
                    let others = others(&self.world.nodes, self.place);
                    self.world.truth.matches(&self.node.core, others);
                }
            }
            Output::Send { to, message, after } => {
                if *after <= self.answered {
                    self.send(*to, message.clone());
                } else {
                    self.node.held.push((*after, *to, message.clone()));
                }
            }
            Output::Commit { upto, early } => self.commit(commit, *upto, *early),
            Output::Role { role: Role::Leader, .. } => self.lead(),
            Output::Truncated { .. } => tally.note(Event::Truncated),
            Output::SteppedDown { reason: StepDown::HigherTerm } => tally.note(Event::Deposed),
            Output::SteppedDown { reason: StepDown::LostQuorum } => tally.note(Event::LostQuorum),
            Output::SteppedDown { reason: StepDown::NoRank } => tally.note(Event::LeftByRank),
            Output::ReadReady { token, index } => {
                tally.note(Event::ReadReady);
                if index.0 < *token {
                    self.world.truth.fail(Wrong::StaleRead);
                }
            }
            Output::NeedImage { to } => self.send_image(*to),
            Output::ConfigInForce { index, .. } if self.node.core.role() == Role::Leader => {
                let compare = self.model.setup.compare_configs;
                self.world.truth.changes(&self.node.core, *index, compare);
            }
            _ => {}
        }
    }

    fn lead(&mut self) {
        let core = &self.node.core;
        self.world.truth.leads(core);
        if core.term() > Term(1) {
            self.model.tally.note(Event::LaterLeader);
        }
        let is_asked = |packet: &Arc<Packet>| {
            packet.from == core.identity()
                && packet.message().is_some_and(|message| {
                    message.term == core.term()
                        && matches!(message.body, MessageBody::Vote { transfer: true, .. })
                })
        };
        if self.world.network.packets().any(is_asked) {
            self.model.tally.note(Event::TransferDone);
        }
    }

    fn commit(&mut self, from: EntryIndex, upto: EntryIndex, early: bool) {
        let (core, tally) = (&self.node.core, &self.model.tally);
        if early && upto > self.world.truth.committed() {
            tally.note(Event::EarlyAhead);
        }
        if core.config().rank_of(core.identity()) == 0 {
            tally.note(Event::LearnerCommits);
        }
        let mut joint = core.entry(from).and_then(config_of).is_some_and(Config::is_joint);
        for entry in core.entries_from(from.next()).take_while(|entry| entry.index <= upto) {
            let Some(config) = config_of(entry) else { continue };
            tally.note(match (config.is_joint(), joint) {
                (true, _) => Event::JointEntered,
                (false, true) => Event::JointLeft,
                (false, false) => Event::SimpleChange,
            });
            joint = config.is_joint();
            let newer = |m: &Member| m.rank > 0 && m.identity.incarnation.0 > 1;
            if config.next.is_none() && config.current.iter().any(newer) {
                tally.note(Event::Readmitted);
            }
        }
        let all = others(&self.world.nodes, self.place).chain([&self.node]);
        self.world.truth.commits(core, (from, upto), all);
    }

    fn send(&mut self, to: Identity, message: Message) {
        let is_pre_vote =
            matches!(message.body, MessageBody::PreVote { .. } | MessageBody::PreVoteAnswer { .. });
        let is_refusal = matches!(message.body, MessageBody::VoteAnswer { granted: false });
        if is_pre_vote && !self.model.setup.pre_votes || is_refusal && !self.model.setup.gossip {
            return;
        }
        let from = self.node.who();
        if votes_against(&self.world.network, from, to, &message) {
            self.world.truth.fail(Wrong::VotedTwice);
        }
        self.world.network.insert(Packet { from, to, cargo: Cargo::Message(message) });
    }

    fn send_image(&mut self, to: Identity) {
        let core: &Core = &self.node.core;
        let last = core.commit();
        let Some(last_term) = core.term_at(last) else { return };
        let config = core.committed_config().1.clone();
        let cargo = Cargo::Image { last, last_term, config };
        self.world.network.insert(Packet { from: self.node.who(), to, cargo });
    }

    fn release(&mut self) {
        let held = std::mem::take(&mut self.node.held);
        for (after, to, message) in held {
            if after <= self.answered {
                self.send(to, message);
            } else {
                self.node.held.push((after, to, message));
            }
        }
    }
}

fn others(nodes: &[Arc<Node>], place: usize) -> impl Iterator<Item = &Node> + Clone {
    let others = nodes.iter().enumerate().filter(move |(other, _)| *other != place);
    others.map(|(_, node)| &**node)
}

/// Whether this is a vote, and one for somebody else in the same term is on its way.
fn votes_against(network: &Network, from: Identity, to: Identity, message: &Message) -> bool {
    let vote_for = |message: &Message, from: Identity, to: Identity| match message.body {
        MessageBody::VoteAnswer { granted: true } => Some(to),
        MessageBody::Vote { .. } => Some(from),
        _ => None,
    };
    let Some(choice) = vote_for(message, from, to) else { return false };
    network.packets().filter(|packet| packet.from == from).any(|packet| {
        packet.message().is_some_and(|other| {
            other.term == message.term
                && vote_for(other, from, packet.to).is_some_and(|other| other != choice)
        })
    })
}
