//! The event queue, and the loop that takes one event after another.
//!
//! Processes live in *slots*: the first so many are the nodes, by id; behind them as many again for
//! doubles, second processes under the same ids.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use quorate_cluster::RanBatch;
use quorate_cluster::replica::{Input, Output, PeerMessage};
use quorate_consensus::{EntryIndex, Identity, Role};
use quorate_engine::{Acknowledge, CommitOptions, CommitPath, TransactionId};
use quorate_schema::Dictionary;

use crate::bugs::Planted;
use crate::checker::Checker;
use crate::clients::{History, look};
use crate::clock::Clock;
use crate::faults::Fault;
use crate::network::{LinkId, Network, Path};
use crate::node::{DDL, Process};
use crate::operators::{ADDED_MAX, Operators};
use crate::options::{Mix, Options};
use crate::report::{Failure, Report};
use crate::rng::Rng;
use crate::waits::Waits;

/// Something that is going to happen.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Arrive { path: Path },
    Frame { from: Identity, to: Identity, slot: usize, link: LinkId, ghost: bool, frame: Vec<u8> },
    Wake { slot: usize, life: u64 },
    Client { slot: usize, life: u64 },
    Ran { slot: usize, life: u64, ran: Box<RanBatch> },
    Connect { a: usize, b: usize },
    Break { a: usize, b: usize, link: LinkId },
    LinkDown { slot: usize, peer: usize, link: LinkId },
    Restart { slot: usize },
    Strike(Fault),
    Isolate { slot: usize },
    Allow { slot: usize, life: u64 },
    Gone { slot: usize, life: u64 },
    Leave { slot: usize, life: u64 },
    Resume { slot: usize },
    EndDouble { slot: usize },
    Sweep,
    HealNode { slot: usize },
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
    /// Processes by slot; none while there is none.
    pub(crate) nodes: Vec<Option<Process>>,
    /// How often a process was started in each slot.
    pub(crate) lives: Vec<u64>,
    pub(crate) network: Network,
    pub(crate) history: History,
    pub(crate) waits: Waits,
    pub(crate) operators: Operators,
    checker: Checker,
    pub(crate) report: Report,
    /// Everybody was there once: faults may begin in liveness mode.
    pub(crate) formed: bool,
    formed_at: u64,
    /// No more faults.
    pub(crate) calm: bool,
    /// The orderly end has begun.
    pub(crate) stopping: bool,
    /// All nodes leave, each by itself.
    pub(crate) leaving: bool,
    trace: Vec<String>,
    pub(crate) in_doubt: BTreeMap<TransactionId, ()>,
    /// Images on their way, from slot to slot.
    pub(crate) transfers: BTreeSet<(usize, usize)>,
}

/// How long a cluster may take, once calm, until everybody is back and commits, ms.
const RECOVERY_LIMIT_MS: u64 = 30_000;

/// How long a client of the core may see nothing committed in liveness mode, ms of the world.
const PROGRESS_LIMIT_MS: u64 = 6_000;

/// Of so many transactions one waits until every live node has applied it.
const EVERYWHERE_EACH: u64 = 16;

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
    world.report.liveness = u64::from(!world.mix.core.is_empty());
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
        let count = mix.ranks.len() + ADDED_MAX;
        let operators = Operators::new(&mix.ranks);
        Self {
            operators,
            rng,
            mix,
            options: options.clone(),
            dictionary: Dictionary::parse(DDL).expect("the simulation's own schema"),
            now: 0,
            queue: BTreeMap::new(),
            planned: 0,
            nodes: (0..2 * count).map(|_| None).collect(),
            lives: vec![0; 2 * count],
            network: Network::default(),
            history: History::default(),
            waits: Waits::default(),
            checker: Checker::default(),
            report: Report::default(),
            formed: false,
            formed_at: 0,
            calm: false,
            stopping: false,
            leaving: false,
            trace: Vec::new(),
            in_doubt: BTreeMap::new(),
            transfers: BTreeSet::new(),
        }
    }

    fn live(&mut self) -> Result<(), String> {
        let mix = self.mix.clone();
        self.note(|| format!("{mix:?}"));
        self.slow_some_ways();
        for slot in 0..mix.ranks.len() {
            let wait = self.rng.below(200);
            self.after(wait, Event::Restart { slot });
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

    /// Some ways are slower than others, also than the way back; all those of a slow node are.
    fn slow_some_ways(&mut self) {
        let slots = self.nodes.len();
        for from in 0..slots {
            for to in 0..slots {
                let slow_node = self.mix.slow_node == Some(from) || self.mix.slow_node == Some(to);
                let times = if slow_node { 10 } else { 1 + self.rng.below(self.mix.asymmetry + 1) };
                if !(self.mix.core.get(from) == Some(&true) && self.mix.core.get(to) == Some(&true))
                {
                    self.network.slow_down(from, to, times);
                }
            }
        }
    }

    fn calm_down(&mut self) {
        self.note(|| "calm".to_string());
        self.calm = true;
        self.mix.loss = 0;
        self.mix.repeat = 0;
        self.mix.corrupt = 0;
        self.mix.replay = 0;
        self.mix.half_open = 0;
        self.network.speed_up();
        for process in self.nodes.iter_mut().flatten() {
            process.paused_until = 0;
        }
        self.heal(None);
        for slot in self.nodes.len() / 2..self.nodes.len() {
            self.after(0, Event::EndDouble { slot });
        }
        self.after(1_000, Event::Sweep);
    }

    /// Once calm: who was removed and could not hear of it does.
    fn sweep(&mut self) -> Result<(), String> {
        if self.stopping {
            return Ok(());
        }
        self.after(1_000, Event::Sweep);
        self.sweep_removed()
    }

    /// Walls fall: what waited behind them goes on, who was cut off dials.
    fn heal(&mut self, around: Option<usize>) {
        for (path, count) in self.network.heal(around) {
            for _ in 0..count {
                let wait = self.rng.between(1, 40);
                self.after(wait, Event::Arrive { path });
            }
        }
        self.connect_all();
    }

    fn connect_all(&mut self) {
        for a in 0..self.nodes.len() {
            self.connect_from(a, 0..a);
        }
    }

    pub(crate) fn connect_from(&mut self, a: usize, others: std::ops::Range<usize>) {
        for b in others.filter(|b| *b != a) {
            if self.nodes[a].is_some() && self.nodes[b].is_some() {
                let wait = self.rng.between(1, 30);
                self.after(wait, Event::Connect { a, b });
            }
        }
    }

    /// Every node is there once with rank and leader, holds the same, and nothing is under way.
    fn is_whole(&self) -> bool {
        let count = self.nodes.len() / 2;
        let listed = |node: &usize| self.operators.lists(*node);
        let gone = |node: usize| self.nodes[node].is_none() && self.nodes[count + node].is_none();
        let mut applied = (0..count).filter(listed).map(|node| {
            let process = match (&self.nodes[node], &self.nodes[count + node]) {
                (Some(process), None) | (None, Some(process)) => process,
                _ => return None,
            };
            process.replica.status().ready.then(|| process.database.visible_index())
        });
        let Some(Some(first)) = applied.next() else { return false };
        let whos = (0..self.nodes.len()).map(|slot| (slot as u64, self.lives[slot]));
        applied.all(|index| index == Some(first))
            && (0..count).filter(|node| !listed(node)).all(gone)
            && self.roster_in_force()
            && self.report.acknowledged > 0
            && whos.into_iter().all(|who| self.history.open(who) == 0)
    }

    fn check_end(&mut self) -> Result<(), String> {
        self.waits.settle(&mut self.history)?;
        self.operators.explain()?;
        for process in self.nodes.iter_mut().flatten() {
            self.history
                .check(&mut process.connection)
                .map_err(|what| format!("on {:?}: {what}", process.identity))?;
            process.database.check().map_err(|damage| format!("damage: {damage}"))?;
            let (session, now) = (u64::from(process.identity.node.0), self.report.events);
            self.history.lists.read_all(&mut process.connection, 90_000 + session, now, true)?;
        }
        let twice = self.rng.below(16) == 0;
        let checked =
            self.history.lists.judge(twice).map_err(|what| format!("isolation: {what}"))?;
        self.report.judged_twice += u64::from(twice);
        self.report.dependencies += (checked.ww + checked.wr + checked.rw) as u64;
        Ok(())
    }

    /// The orderly end: every node stops, and every listener returns well.
    fn stop_all(&mut self) -> Result<(), String> {
        self.checker.end_begins();
        self.stopping = true;
        for slot in 0..self.nodes.len() {
            self.step(slot, Input::Stop)?;
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
        for slot in 0..self.nodes.len() {
            let (wait, life) = (self.rng.below(20), self.lives[slot]);
            self.after(wait, Event::Leave { slot, life });
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
                let config = process.replica.core().map(|core| core.config());
                let members = config.iter().flat_map(|config| &config.current);
                let members = members.map(|m| format!("{:?}={}", m.identity, m.rank));
                format!(
                    "{:?} {:?} {:?} {:?} leader {:?} at {:?} waits for {:?} config {}",
                    process.identity,
                    status.phase,
                    status.role,
                    status.term,
                    status.leader,
                    process.database.visible_index(),
                    status.waiting_for,
                    members.collect::<Vec<_>>().join(" ")
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
            self.history.now = self.report.events;
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
            Event::Arrive { path } => self.arrive(path)?,
            Event::Frame { .. } => self.frame(event)?,
            Event::Wake { slot, life } => self.wake(slot, life)?,
            Event::Client { slot, life } => self.client(slot, life)?,
            Event::Ran { slot, life, ran } => self.ran(slot, life, ran)?,
            Event::Connect { a, b } => self.connect(a, b)?,
            Event::Break { a, b, link } if self.network.link(a, b) == Some(link) => {
                self.break_link(a, b, 20);
            }
            Event::LinkDown { slot, peer, link } if self.is_paused(slot) => {
                let at = self.nodes[slot].as_ref().map_or(self.now, |p| p.paused_until);
                self.at(at, Event::LinkDown { slot, peer, link });
            }
            Event::LinkDown { slot, peer, link } => self.link_down(slot, peer, link)?,
            Event::Restart { slot } => self.restart(slot)?,
            Event::Strike(fault) => self.strike(fault)?,
            Event::Allow { slot, life } if self.lives[slot] == life => {
                self.step(slot, Input::Veto { on: false })?;
            }
            Event::Leave { slot, life } if self.lives[slot] == life => {
                self.step(slot, Input::Detach)?;
            }
            Event::Break { .. } | Event::Allow { .. } | Event::Leave { .. } => {}
            Event::Gone { slot, life } => self.gone(slot, life),
            Event::Resume { slot } => self.connect_from(slot, 0..self.nodes.len()),
            Event::EndDouble { slot } if self.calm => self.resolve_double(slot),
            Event::EndDouble { slot } => self.end_double(slot),
            Event::Sweep => self.sweep()?,
            Event::Isolate { slot } => self.isolate(slot),
            Event::HealNode { slot } => self.heal(Some(slot)),
            Event::Heal => self.heal(None),
        }
        Ok(())
    }

    /// Of two processes under one id one has to go: the one the others can do without.
    fn resolve_double(&mut self, slot: usize) {
        let original = self.node_of(slot);
        let both = self.nodes[slot].is_some() && self.nodes[original].is_some();
        if both && !self.can_lose(slot) && self.can_lose(original) {
            self.note(|| format!("the double at {slot} stays, {original} ends"));
            self.bury(original);
            self.connect_from(slot, 0..self.nodes.len());
        } else if both {
            self.end_double(slot);
        }
    }

    /// The id of a slot's node.
    pub(crate) fn node_of(&self, slot: usize) -> usize {
        slot % (self.nodes.len() / 2)
    }

    pub(crate) fn is_paused(&self, slot: usize) -> bool {
        self.nodes[slot].as_ref().is_some_and(|process| process.paused_until > self.now)
    }

    pub(crate) fn bug(&self) -> Option<Planted> {
        self.options.bug
    }

    fn restart(&mut self, slot: usize) -> Result<(), String> {
        let twin = self.nodes.len() / 2 + self.node_of(slot);
        let other_serves = self.calm && slot != twin && self.nodes[twin].is_some();
        let done = self.calm && (slot == twin || !self.operators.lists(self.node_of(slot)));
        if self.nodes[slot].is_some() || other_serves || done {
            return Ok(());
        }
        if !self.operators.may_start(self.node_of(slot)) {
            return Ok(());
        }
        self.lives[slot] += 1;
        let keeps = self.options.bug == Some(Planted::StaleIncarnation) && slot != twin;
        let life = if keeps { 1 } else { self.lives[slot] };
        let incarnation = (u128::from(life) << 96) | (slot as u128 + 1);
        let identity = Identity::new(self.node_of(slot) as u32, incarnation);
        let seed = u128::from(self.rng.bits());
        let drift = self.mix.drift;
        let rate = self.rng.between(1_000 - drift, 1_000 + drift);
        let clock = Clock::new(self.now, self.rng.below(1_000_000), rate);
        let (mix, bug, list) = (&self.mix, self.options.bug, self.operators.list());
        let clock = (self.now, clock);
        let process = Process::start(identity, mix, list, bug, &self.dictionary, seed, clock);
        self.nodes[slot] = Some(process);
        self.checker.started(identity);
        self.note(|| format!("start of {identity:?} in slot {slot}"));
        let life = self.lives[slot];
        self.after(1, Event::Client { slot, life });
        self.connect_from(slot, 0..self.nodes.len());
        self.step(slot, Input::Tick { random: 0 })
    }

    fn wake(&mut self, slot: usize, life: u64) -> Result<(), String> {
        let now = self.now;
        let random = self.rng.bits();
        if self.lives[slot] != life {
            return Ok(());
        }
        let Some(process) = &mut self.nodes[slot] else { return Ok(()) };
        if process.wake_at > now {
            return Ok(()); // another wake-up took its place
        }
        process.wake_at = u64::MAX;
        if process.paused_until > now {
            process.wake_at = process.paused_until;
            let at = process.paused_until;
            self.at(at, Event::Wake { slot, life });
            return Ok(());
        }
        self.step(slot, Input::Tick { random })
    }

    fn client(&mut self, slot: usize, life: u64) -> Result<(), String> {
        if self.lives[slot] != life || self.calm && self.report.acknowledged > 20 {
            return Ok(());
        }
        let wait = 1 + self.rng.below(2 * self.mix.transaction_every_ms);
        self.after(wait, Event::Client { slot, life });
        self.check_progress(slot)?;
        let who = (slot as u64, life);
        let Some(process) = &mut self.nodes[slot] else { return Ok(()) };
        let ready = !process.ended && process.replica.core().is_some();
        if !ready || process.paused_until > self.now || self.history.open(who) >= OPEN_MAX {
            return Ok(());
        }
        if self.rng.below(20) == 0 {
            look(&mut process.connection).map_err(|what| format!("on node {slot}: {what}"))?;
            let (session, now) = (slot as u64 * 100_000 + life, self.report.events);
            self.history.lists.read_all(&mut process.connection, session, now, false)?;
        }
        let path = process.path.clone();
        match self.rng.below(12) {
            0 => {
                let read = self.waits.read();
                return self.step(slot, read);
            }
            1 => {
                let (id, _) = path.next_id();
                let question = self.waits.ask(&mut self.rng, &self.history, id);
                return question.map_or(Ok(()), |question| self.step(slot, question));
            }
            2 => return self.call(slot, who),
            _ => {}
        }
        let connection = &mut process.connection;
        let take = || path.take();
        match self.history.begin(&mut self.rng, &self.mix, who, connection, take)? {
            Some((_, submission)) => {
                let everywhere = submission.id.sequence % EVERYWHERE_EACH == 0;
                let acknowledge =
                    if everywhere { Acknowledge::AllLive } else { Acknowledge::Quorum };
                let options = CommitOptions::default().acknowledge(acknowledge);
                self.step(slot, Input::Submit(submission, options))
            }
            None => Ok(()),
        }
    }

    /// In liveness mode clients of the core commit all the time, whatever happens elsewhere.
    fn check_progress(&mut self, slot: usize) -> Result<(), String> {
        if !self.formed || self.calm || !self.in_core(slot) {
            return Ok(());
        }
        let Some(process) = &self.nodes[slot] else {
            return Err(format!("{slot}, of the spared core, is down"));
        };
        let gap = self.now - process.progress_at.max(self.formed_at);
        self.report.longest_gap_ms = self.report.longest_gap_ms.max(gap);
        if gap <= PROGRESS_LIMIT_MS {
            return Ok(());
        }
        let (core, state) = (&self.mix.core, self.describe());
        Err(format!("no commit at {slot} of the core {core:?} for {gap} ms: {state}"))
    }

    /// Steps a process's replica and does what it wants done.
    pub(crate) fn step(&mut self, slot: usize, input: Input) -> Result<(), String> {
        let now = self.now;
        let Some(process) = &mut self.nodes[slot] else { return Ok(()) };
        let mut outputs = Vec::new();
        process.replica.step(process.clock.local(now), input, &mut outputs);
        if outputs.iter().any(|output| matches!(output, Output::Finished(_))) {
            self.hear_last_words(slot, &outputs)?;
        }
        for output in outputs {
            self.obey(slot, output)?;
        }
        self.look(slot)?;
        self.plan_wake(slot);
        Ok(())
    }

    /// What a process did in the step that ended it shows in what it says only.
    fn hear_last_words(&mut self, slot: usize, outputs: &[Output]) -> Result<(), String> {
        let Some(process) = &self.nodes[slot] else { return Ok(()) };
        for output in outputs {
            if let Output::Send { to, message: PeerMessage::Core(message) } = output {
                self.checker.hear(process.identity, *to, message)?;
            }
        }
        Ok(())
    }

    fn plan_wake(&mut self, slot: usize) {
        let life = self.lives[slot];
        let now = self.now;
        let Some(process) = &mut self.nodes[slot] else { return };
        let at = process.clock.world(process.replica.next_wakeup()).max(now + 1);
        if at < process.wake_at {
            process.wake_at = at;
            self.at(at, Event::Wake { slot, life });
        }
    }

    /// Lets the checker look at what the process holds now.
    fn look(&mut self, slot: usize) -> Result<(), String> {
        let Some(process) = &mut self.nodes[slot] else { return Ok(()) };
        let identity = process.identity;
        let applier = process.database.applier();
        self.checker.look_at_state(identity, applier.applied(), applier.state_hash())?;
        let is_new = !process.was_ready && process.replica.status().ready;
        process.was_ready |= is_new;
        let leads = process.replica.core().is_some_and(|core| core.role() == Role::Leader);
        let began = leads && !std::mem::replace(&mut process.led, leads);
        process.led = leads;
        let core = process.replica.core();
        let joint = leads && core.is_some_and(|core| core.config().next.is_some());
        let changes = joint && !std::mem::replace(&mut process.was_joint, joint);
        process.was_joint = joint;
        if is_new {
            self.report.rejoins += u64::from(self.lives[slot] > 1);
            self.note_formed();
        }
        let traps = (began || changes) && !self.calm;
        if traps && self.rng.chance(self.mix.trap) {
            let reach = if changes { 1 } else { *self.rng.pick(&[1, 6]) };
            let wait = self.rng.below(reach * self.mix.delay_ms + 1);
            self.after(wait, Event::Isolate { slot });
        }
        self.look_at_roster(slot)?;
        let leader_commit = self.leader_commit(slot);
        let Some(process) = &self.nodes[slot] else { return Ok(()) };
        match process.replica.core() {
            Some(core) => self.checker.look(core, leader_commit),
            None => Ok(()),
        }
    }

    fn note_formed(&mut self) {
        let nodes = self.nodes.iter().take(self.mix.ranks.len());
        let all = nodes.into_iter().all(|p| p.as_ref().is_some_and(|p| p.was_ready));
        if all && !self.formed {
            (self.formed, self.formed_at) = (true, self.now);
        }
    }

    fn leader_commit(&self, slot: usize) -> Option<EntryIndex> {
        let core = self.nodes[slot].as_ref()?.replica.core()?;
        let identity = core.leader()?;
        let leader = self.nodes.iter().flatten().find(|process| process.identity == identity)?;
        let leader = leader.replica.core()?;
        let leads = leader.role() == Role::Leader && leader.term() == core.term();
        leads.then(|| leader.commit())
    }

    pub(crate) fn after(&mut self, wait: u64, event: Event) {
        self.at(self.now + wait, event);
    }

    pub(crate) fn at(&mut self, at: u64, event: Event) {
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
