//! The event queue, and the loop that takes one event after another.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use quorate_cluster::ClusterError;
use quorate_cluster::replica::{Channel, Input, Output, PeerMessage};
use quorate_consensus::{EntryIndex, Identity, Role};
use quorate_engine::{CommitError, CommitOptions, Index, Outcome, TransactionId};
use quorate_schema::Dictionary;

use crate::bugs::Planted;
use crate::checker::Checker;
use crate::clients::{History, look};
use crate::faults::Fault;
use crate::network::{Epoch, Network};
use crate::node::{DDL, Process};
use crate::options::{Mix, Options};
use crate::report::{Failure, Report};
use crate::rng::Rng;

/// Something that is going to happen.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Deliver { from: Identity, to: Identity, epoch: Epoch, ghost: bool, message: Box<PeerMessage> },
    Wake { node: usize, life: u64 },
    Client { node: usize, life: u64 },
    Connect { a: usize, b: usize },
    Break { a: usize, b: usize, epoch: Epoch },
    LinkDown { node: usize, peer: usize, epoch: Epoch },
    Restart { node: usize },
    Strike(Fault),
    Isolate { node: usize },
    Allow { node: usize, life: u64 },
    Gone { node: usize, life: u64 },
    Leave { node: usize, life: u64 },
    HealNode { node: usize },
    Heal,
}

/// A cluster and everything around it.
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) mix: Mix,
    options: Options,
    dictionary: Dictionary,
    pub(crate) now: u64,
    /// By time, then by order of planning.
    queue: BTreeMap<(u64, u64), Event>,
    planned: u64,
    /// Processes by node; none while a node is down.
    pub(crate) nodes: Vec<Option<Process>>,
    /// How often each node was started.
    pub(crate) lives: Vec<u64>,
    pub(crate) network: Network,
    pub(crate) history: History,
    checker: Checker,
    pub(crate) report: Report,
    /// No more faults.
    pub(crate) calm: bool,
    /// The orderly end has begun.
    stopping: bool,
    /// All nodes leave, each by itself.
    leaving: bool,
    trace: Vec<String>,
    in_doubt: BTreeMap<TransactionId, ()>,
}

/// How long a cluster may take, once calm, until everybody is back and commits, ms.
const RECOVERY_LIMIT_MS: u64 = 30_000;

/// How many operations a node has open at most.
const OPEN_MAX: usize = 6;

/// Runs one seed. Panics of the code under test are failures too.
pub fn run(seed: u64, options: &Options) -> (Report, Option<Failure>) {
    let mut world = World::new(seed, options);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.live()));
    let what = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(what)) => Some(what),
        Err(panic) => Some(format!("panic: {}", text_of(panic.as_ref()))),
    };
    world.report.seeds = 1;
    world.report.early_commits_ahead = world.checker.early_ahead;
    let failure = what.map(|what| {
        let trace = std::mem::take(&mut world.trace);
        Failure { seed, what, at_ms: world.now, trace }
    });
    (world.report, failure)
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_string()))
        .unwrap_or_else(|| "of an unknown kind".to_string())
}

impl World {
    fn new(seed: u64, options: &Options) -> Self {
        let mut rng = Rng::new(seed);
        let mix = Mix::choose(&mut rng);
        let count = mix.ranks.len();
        Self {
            rng,
            mix,
            options: options.clone(),
            dictionary: Dictionary::parse(DDL).expect("the simulation's own schema"),
            now: 0,
            queue: BTreeMap::new(),
            planned: 0,
            nodes: (0..count).map(|_| None).collect(),
            lives: vec![0; count],
            network: Network::default(),
            history: History::default(),
            checker: Checker::default(),
            report: Report::default(),
            calm: false,
            stopping: false,
            leaving: false,
            trace: Vec::new(),
            in_doubt: BTreeMap::new(),
        }
    }

    fn live(&mut self) -> Result<(), String> {
        let mix = self.mix.clone();
        self.note(|| format!("{mix:?}"));
        for node in 0..self.nodes.len() {
            let wait = self.rng.below(200);
            self.after(wait, Event::Restart { node });
        }
        for fault in Fault::ALL {
            self.plan_fault(fault);
        }
        self.run_until(self.mix.storm_ms, |_| false)?;
        self.calm_down();
        let limit = self.now + RECOVERY_LIMIT_MS;
        self.run_until(limit, |world| world.is_whole())?;
        if !self.is_whole() {
            return Err(format!("no recovery within {RECOVERY_LIMIT_MS} ms: {}", self.describe()));
        }
        self.check_end()?;
        if self.rng.below(4) == 0 { self.leave_all() } else { self.stop_all() }
    }

    fn calm_down(&mut self) {
        self.note(|| "calm".to_string());
        self.calm = true;
        self.network.heal();
        self.mix.loss = 0;
        self.mix.repeat = 0;
        for process in self.nodes.iter_mut().flatten() {
            process.paused_until = 0;
        }
        self.connect_all();
    }

    fn connect_all(&mut self) {
        for a in 0..self.nodes.len() {
            for b in 0..a {
                let wait = self.rng.between(1, 30);
                self.after(wait, Event::Connect { a, b });
            }
        }
    }

    /// Everybody is there with rank and leader, holds the same, and nothing is under way.
    fn is_whole(&self) -> bool {
        let mut applied = self.nodes.iter().map(|process| {
            let process = process.as_ref()?;
            process.replica.status().ready.then(|| process.database.visible_index())
        });
        let Some(Some(first)) = applied.next() else { return false };
        let whos = (0..self.nodes.len()).map(|node| (node as u64, self.lives[node]));
        applied.all(|index| index == Some(first))
            && self.report.acknowledged > 0
            && whos.into_iter().all(|who| self.history.open(who) == 0)
    }

    fn check_end(&mut self) -> Result<(), String> {
        for process in self.nodes.iter_mut().flatten() {
            self.history
                .check(&mut process.connection)
                .map_err(|what| format!("on {:?}: {what}", process.identity))?;
            process.database.check().map_err(|damage| format!("damage: {damage}"))?;
        }
        Ok(())
    }

    /// The orderly end: every node stops, and every listener returns well.
    fn stop_all(&mut self) -> Result<(), String> {
        self.checker.end_begins();
        self.stopping = true;
        for node in 0..self.nodes.len() {
            self.step(node, Input::Stop)?;
        }
        let limit = self.now + 10_000;
        let ended = |world: &World| world.nodes.iter().flatten().all(|process| process.ended);
        self.run_until(limit, ended)?;
        if !ended(self) {
            return Err(format!("the orderly stop did not end: {}", self.describe()));
        }
        for process in self.nodes.iter().flatten() {
            self.report.add_counters(&process.replica.counters());
        }
        Ok(())
    }

    /// All nodes leave, each by itself, at about the same time.
    fn leave_all(&mut self) -> Result<(), String> {
        self.checker.end_begins();
        self.stopping = true;
        self.leaving = true;
        for node in 0..self.nodes.len() {
            let (wait, life) = (self.rng.below(20), self.lives[node]);
            self.after(wait, Event::Leave { node, life });
        }
        let limit = self.now + 40_000; // one that hears of nobody any more gives up after 30 s
        let ended = |world: &World| world.nodes.iter().flatten().all(|process| process.ended);
        self.run_until(limit, ended)?;
        if ended(self) {
            return Ok(());
        }
        Err(format!("not all could leave: {}", self.describe()))
    }

    fn describe(&self) -> String {
        let one = |process: &Option<Process>| match process {
            None => "down".to_string(),
            Some(process) => {
                let status = process.replica.status();
                format!(
                    "{:?} {:?} {:?} {:?} leader {:?} at {:?} waits for {:?}",
                    process.identity,
                    status.phase,
                    status.role,
                    status.term,
                    status.leader,
                    process.database.visible_index(),
                    status.waiting_for
                )
            }
        };
        self.nodes.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    fn run_until(&mut self, limit: u64, done: impl Fn(&World) -> bool) -> Result<(), String> {
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > limit {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            self.report.events += 1;
            self.happen(event)?;
            if done(self) {
                return Ok(());
            }
        }
        self.now = self.now.max(limit);
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Deliver { .. } => self.deliver(event),
            Event::Wake { node, life } => self.wake(node, life),
            Event::Client { node, life } => self.client(node, life),
            Event::Connect { a, b } => self.connect(a, b),
            Event::Break { a, b, epoch } => {
                if self.network.epoch(a, b) == Some(epoch) {
                    self.break_link(a, b, 20);
                }
                Ok(())
            }
            Event::LinkDown { node, peer, epoch } => self.link_down(node, peer, epoch),
            Event::Restart { node } => self.restart(node),
            Event::Strike(fault) => self.strike(fault),
            Event::Allow { node, life } if self.lives[node] == life => {
                self.step(node, Input::Veto { on: false })
            }
            Event::Allow { .. } => Ok(()),
            Event::Leave { node, life } if self.lives[node] == life => {
                self.step(node, Input::Detach)
            }
            Event::Leave { .. } => Ok(()),
            Event::Gone { node, life } => {
                self.gone(node, life);
                Ok(())
            }
            Event::Isolate { node } => {
                self.isolate(node);
                Ok(())
            }
            Event::HealNode { node } => {
                self.network.heal_node(node);
                self.connect_all();
                Ok(())
            }
            Event::Heal => {
                self.network.heal();
                self.connect_all();
                Ok(())
            }
        }
    }

    fn restart(&mut self, node: usize) -> Result<(), String> {
        self.lives[node] += 1;
        let keeps = self.options.bug == Some(Planted::StaleIncarnation);
        let life = if keeps { 1 } else { self.lives[node] };
        let identity = Identity::new(node as u32, (u128::from(life) << 96) | (node as u128 + 1));
        let seed = u128::from(self.rng.bits());
        let (mix, bug) = (&self.mix, self.options.bug);
        let process = Process::start(identity, mix, bug, &self.dictionary, seed, self.now);
        self.nodes[node] = Some(process);
        self.checker.started(identity);
        self.note(|| format!("start of {identity:?}"));
        let life = self.lives[node];
        self.after(1, Event::Client { node, life });
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            let wait = self.rng.between(1, 30);
            self.after(wait, Event::Connect { a: node, b: peer });
        }
        self.step(node, Input::Tick { random: 0 })
    }

    fn connect(&mut self, a: usize, b: usize) -> Result<(), String> {
        let walled = self.network.is_walled(a, b) || self.network.is_walled(b, a);
        if walled || self.network.epoch(a, b).is_some() {
            return Ok(());
        }
        let up = |process: &Option<Process>| process.as_ref().is_some_and(|p| !p.ended);
        if !up(&self.nodes[a]) || !up(&self.nodes[b]) {
            return Ok(());
        }
        let epoch = self.network.connect(a, b);
        for (node, peer) in [(a, b), (b, a)] {
            self.link_up(node, peer, epoch)?;
        }
        Ok(())
    }

    fn link_up(&mut self, node: usize, peer: usize, epoch: Epoch) -> Result<(), String> {
        let identity = self.nodes[peer].as_ref().expect("checked by the caller").identity;
        let process = self.nodes[node].as_mut().expect("checked by the caller");
        if let Some((old, _)) = process.up.insert(peer, (identity, epoch)) {
            self.step(node, Input::PeerDown { peer: old })?;
        }
        self.step(node, Input::PeerUp { peer: identity })
    }

    fn link_down(&mut self, node: usize, peer: usize, epoch: Epoch) -> Result<(), String> {
        let Some(process) = &mut self.nodes[node] else { return Ok(()) };
        match process.up.get(&peer) {
            Some((identity, up)) if *up == epoch => {
                let identity = *identity;
                process.up.remove(&peer);
                self.step(node, Input::PeerDown { peer: identity })
            }
            _ => Ok(()),
        }
    }

    fn deliver(&mut self, event: Event) -> Result<(), String> {
        let Event::Deliver { from, to, epoch, ghost, message } = event else { return Ok(()) };
        let node = to.node.0 as usize;
        let Some(process) = &self.nodes[node] else { return Ok(()) };
        if process.paused_until > self.now {
            let at = process.paused_until;
            self.at(at, Event::Deliver { from, to, epoch, ghost, message });
            return Ok(());
        }
        let known = process.up.get(&(from.node.0 as usize)).is_some_and(|up| up.1 == epoch);
        if process.identity != to || (!known && !ghost) {
            return Ok(());
        }
        self.report.odd_messages += u64::from(!known);
        self.note(|| format!("{from:?} -> {to:?} {message:?}"));
        self.step(node, Input::Receive { from, message: *message })
    }

    fn wake(&mut self, node: usize, life: u64) -> Result<(), String> {
        let now = self.now;
        let random = self.rng.bits();
        if self.lives[node] != life {
            return Ok(());
        }
        let Some(process) = &mut self.nodes[node] else { return Ok(()) };
        if process.wake_at > now {
            return Ok(()); // another wake-up took its place
        }
        process.wake_at = u64::MAX;
        if process.paused_until > now {
            process.wake_at = process.paused_until;
            let at = process.paused_until;
            self.at(at, Event::Wake { node, life });
            return Ok(());
        }
        self.step(node, Input::Tick { random })
    }

    fn client(&mut self, node: usize, life: u64) -> Result<(), String> {
        if self.lives[node] != life || self.calm && self.report.acknowledged > 20 {
            return Ok(());
        }
        let wait = 1 + self.rng.below(2 * self.mix.transaction_every_ms);
        self.after(wait, Event::Client { node, life });
        let who = (node as u64, life);
        let Some(process) = &mut self.nodes[node] else { return Ok(()) };
        let ready = !process.ended && process.replica.core().is_some();
        if !ready || process.paused_until > self.now || self.history.open(who) >= OPEN_MAX {
            return Ok(());
        }
        if self.rng.below(20) == 0 {
            look(&mut process.connection).map_err(|what| format!("on node {node}: {what}"))?;
        }
        let path = process.path.clone();
        let connection = &mut process.connection;
        let take = || path.take();
        match self.history.begin(&mut self.rng, &self.mix, who, connection, take)? {
            Some((_, submission)) => {
                self.step(node, Input::Submit(submission, CommitOptions::default()))
            }
            None => Ok(()),
        }
    }

    /// Steps a node's replica and does what it wants done.
    pub(crate) fn step(&mut self, node: usize, input: Input) -> Result<(), String> {
        let Some(process) = &mut self.nodes[node] else { return Ok(()) };
        let mut outputs = Vec::new();
        process.replica.step(self.now, input, &mut outputs);
        for output in outputs {
            self.obey(node, output)?;
        }
        self.look(node)?;
        self.plan_wake(node);
        Ok(())
    }

    fn plan_wake(&mut self, node: usize) {
        let life = self.lives[node];
        let now = self.now;
        let Some(process) = &mut self.nodes[node] else { return };
        let at = process.replica.next_wakeup().max(now + 1);
        if at < process.wake_at {
            process.wake_at = at;
            self.at(at, Event::Wake { node, life });
        }
    }

    fn obey(&mut self, node: usize, output: Output) -> Result<(), String> {
        match output {
            Output::Send { to, message } => {
                self.send(node, to, message);
                Ok(())
            }
            Output::Complete { id, result } => {
                self.completed(node, id, &result.map(|acknowledged| acknowledged.index))
            }
            Output::Settled { id, committed } => {
                self.in_doubt.remove(&id);
                self.report.in_doubt_committed += u64::from(committed.is_some());
                self.history.settled(id, committed);
                self.raise_low_water(node);
                Ok(())
            }
            Output::Event(event) => {
                self.note(|| format!("node {node}: {event:?}"));
                Ok(())
            }
            Output::Stamp { .. }
            | Output::Reborn { .. }
            | Output::Nodes(_)
            | Output::AdminAnswer { .. }
            | Output::Fresh { .. }
            | Output::Outcome { .. }
            | Output::Through { .. } => Ok(()),
            Output::EndRefused(_) => {
                self.note(|| format!("node {node} may not leave"));
                // It holds all the rank: it goes on, and asks again when the others have left.
                if self.stopping {
                    let life = self.lives[node];
                    self.after(100, Event::Leave { node, life });
                }
                Ok(())
            }
            Output::Finished(result) => {
                let process = self.nodes[node].as_mut().ok_or("a dead node finished")?;
                process.ended = true;
                self.close_links(node);
                if !self.stopping {
                    // It left alone, or gave up leaving for want of a quorum.
                    let (wait, life) = (self.mix.delay_ms + 2, self.lives[node]);
                    self.after(wait, Event::Gone { node, life });
                    return match result {
                        Ok(()) | Err(ClusterError::NoQuorum) => Ok(()),
                        Err(error) => Err(format!("node {node} ended: {error}")),
                    };
                }
                match result {
                    Err(ClusterError::NoQuorum) if self.leaving => Ok(()),
                    result => result.map_err(|error| format!("node {node} ended: {error}")),
                }
            }
        }
    }

    /// A process that ends in order closes its links behind its last words.
    fn close_links(&mut self, node: usize) {
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            if let Some(epoch) = self.network.epoch(node, peer) {
                let wait = self.mix.delay_ms + 1;
                self.after(wait, Event::Break { a: node, b: peer, epoch });
            }
        }
    }

    fn completed(
        &mut self,
        node: usize,
        id: TransactionId,
        result: &Result<Index, CommitError>,
    ) -> Result<(), String> {
        self.note(|| format!("node {node}: {id:?} ends as {result:?}"));
        match result {
            Ok(index) => {
                self.report.acknowledged += 1;
                let process = self.nodes[node].as_ref().ok_or("a dead node answered")?;
                let outcome = process.database.known_outcome(id);
                if outcome != Outcome::Committed(*index) && outcome != Outcome::Forgotten {
                    return Err(format!("{id:?} acknowledged at {index:?}, but it is {outcome:?}"));
                }
            }
            Err(CommitError::Conflict) => self.report.conflicts += 1,
            Err(CommitError::NoQuorum { .. }) => self.report.no_quorum += 1,
            Err(CommitError::InDoubt(_)) => {
                self.report.in_doubt += 1;
                self.in_doubt.insert(id, ());
            }
            Err(_) => {}
        }
        self.history.answered(id, result)?;
        self.raise_low_water(node);
        Ok(())
    }

    /// What is settled for good may be forgotten: everything below what is open or in doubt.
    fn raise_low_water(&mut self, node: usize) {
        let who = (node as u64, self.lives[node]);
        let Some(process) = &self.nodes[node] else { return };
        let doubtful = self.in_doubt.keys().any(|id| id.origin == process.identity.incarnation.0);
        if !doubtful && self.history.open(who) == 0 {
            process.path.set_low_water(process.path.newest_sequence() + 1);
        }
    }

    fn send(&mut self, node: usize, to: Identity, message: PeerMessage) {
        let peer = to.node.0 as usize;
        let Some(process) = &self.nodes[node] else { return };
        let from = process.identity;
        let Some((linked, epoch)) = process.up.get(&peer).copied() else { return };
        assert_eq!(linked, to, "sent to an incarnation that is not linked");
        let path: (usize, usize, Channel) = (node, peer, message.channel());
        let arrivals = self.network.arrivals(&mut self.rng, &self.mix, self.now, path);
        self.report.odd_messages += u64::from(arrivals.len() != 1);
        for at in arrivals {
            let ghost = self.rng.chance(self.mix.ghost);
            let message = Box::new(message.clone());
            self.at(at, Event::Deliver { from, to, epoch, ghost, message });
        }
    }

    /// Lets the checker look at what the node holds now.
    fn look(&mut self, node: usize) -> Result<(), String> {
        let Some(process) = &mut self.nodes[node] else { return Ok(()) };
        let identity = process.identity;
        let applier = process.database.applier();
        self.checker.look_at_state(identity, applier.applied(), applier.state_hash())?;
        if !process.was_ready && process.replica.status().ready {
            process.was_ready = true;
            self.report.rejoins += u64::from(self.lives[node] > 1);
        }
        let leads = process.replica.core().is_some_and(|core| core.role() == Role::Leader);
        let began = leads && !std::mem::replace(&mut process.led, leads);
        if began && !self.calm && self.rng.chance(self.mix.trap) {
            let reach = *self.rng.pick(&[1, 6]);
            let wait = self.rng.below(reach * self.mix.delay_ms + 1);
            self.after(wait, Event::Isolate { node });
        }
        let leader_commit = self.leader_commit(node);
        let Some(process) = &self.nodes[node] else { return Ok(()) };
        match process.replica.core() {
            Some(core) => self.checker.look(core, leader_commit),
            None => Ok(()),
        }
    }

    fn leader_commit(&self, node: usize) -> Option<EntryIndex> {
        let core = self.nodes[node].as_ref()?.replica.core()?;
        let leader = core.leader()?;
        let leader = self.nodes[leader.node.0 as usize].as_ref()?.replica.core()?;
        let leads = leader.role() == Role::Leader && leader.term() == core.term();
        leads.then(|| leader.commit())
    }

    pub(crate) fn after(&mut self, wait: u64, event: Event) {
        self.at(self.now + wait, event);
    }

    fn at(&mut self, at: u64, event: Event) {
        self.planned += 1;
        self.queue.insert((at.max(self.now), self.planned), event);
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if self.options.trace {
            let line = format!("{:>7} {}", self.now, line());
            self.trace.push(line);
        }
    }
}
