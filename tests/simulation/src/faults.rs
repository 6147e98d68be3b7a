//! The storm: crashes, partitions, pauses, cut links, doubles, each at random moments.
//!
//! In liveness mode a core of nodes that is a quorum is *spared*: nothing strikes its nodes, nor
//! what is between them. Everything else may be as bad as ever.

use quorate_cluster::replica::{Input, Phase};
use quorate_consensus::{Core, Role};

use crate::node::Process;
use crate::world::{Event, World};

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A node loses its memory, and comes back later.
    Crash,
    /// Nothing passes between two groups, or one way between two nodes, for a while.
    Partition,
    /// A link breaks; what is under way on it is lost.
    Cut,
    /// A node stands still.
    Pause,
    /// A node's quorum callback forbids commits there for a while.
    Veto,
    /// A node leaves the cluster by itself, and comes back later.
    Detach,
    /// A second process is started under the id of a node that lives.
    Double,
    /// Everything on the network takes ten times as long for a while.
    Burst,
    /// A node's clock jumps ahead.
    Jump,
    /// An operator asks a node for something.
    Operator,
}

impl Fault {
    pub(crate) const ALL: [Fault; 10] = [
        Fault::Crash,
        Fault::Partition,
        Fault::Cut,
        Fault::Pause,
        Fault::Veto,
        Fault::Detach,
        Fault::Double,
        Fault::Burst,
        Fault::Jump,
        Fault::Operator,
    ];
}

/// Links between which nothing passes fall silent and break after this long at most, ms.
pub(crate) const SILENCE_MS: u64 = 700;

impl World {
    /// Mean time between two faults of a kind; 0 for never.
    pub(crate) fn mean_ms(&self, fault: Fault) -> u64 {
        match fault {
            Fault::Crash => self.mix.crash_every_ms,
            Fault::Partition => self.mix.partition_every_ms,
            Fault::Cut => self.mix.cut_every_ms,
            Fault::Pause => self.mix.pause_every_ms,
            Fault::Veto => self.mix.veto_every_ms,
            Fault::Detach => self.mix.detach_every_ms,
            Fault::Double => self.mix.double_every_ms,
            Fault::Burst => self.mix.burst_every_ms,
            Fault::Jump => self.mix.jump_every_ms,
            Fault::Operator => self.mix.operate_every_ms,
        }
    }

    pub(crate) fn strike(&mut self, fault: Fault) -> Result<(), String> {
        if self.calm {
            return Ok(());
        }
        match fault {
            Fault::Crash => self.crash_someone(),
            Fault::Partition => self.partition(),
            Fault::Cut => self.cut(),
            Fault::Pause => self.pause(),
            Fault::Veto => self.veto()?,
            Fault::Detach => self.detach()?,
            Fault::Double => self.double(),
            Fault::Burst => self.burst(),
            Fault::Jump => self.jump(),
            Fault::Operator => self.operate()?,
        }
        self.plan_fault(fault);
        Ok(())
    }

    pub(crate) fn plan_fault(&mut self, fault: Fault) {
        let mean = self.mean_ms(fault);
        if mean > 0 {
            let wait = 1 + self.rng.below(2 * mean);
            self.after(wait, Event::Strike(fault));
        }
    }

    /// Whether the node is of the core that liveness mode keeps faults away from.
    pub(crate) fn in_core(&self, slot: usize) -> bool {
        self.formed && self.mix.core.get(slot).copied().unwrap_or(false)
            || !self.formed && !self.mix.core.is_empty()
    }

    /// Whether faults keep away from what is between the two.
    pub(crate) fn spared(&self, a: usize, b: usize) -> bool {
        self.in_core(a) && self.in_core(b)
    }

    /// Crashes a node whose memory the cluster can do without: beyond that even a correct cluster
    /// without disks is lost, and says so.
    fn crash_someone(&mut self) {
        if let Some(slot) = self.victim().filter(|slot| self.can_lose(*slot)) {
            self.crash(slot);
        }
    }

    /// Any process that faults may strike, but the leader more often than the others: losing it is
    /// harder.
    fn victim(&mut self) -> Option<usize> {
        let leads = |process: &Option<Process>| {
            let core = process.as_ref().and_then(|process| process.replica.core());
            core.is_some_and(|core| core.role() == Role::Leader)
        };
        let mut living: Vec<usize> = (0..self.nodes.len()).collect();
        living.retain(|slot| self.nodes[*slot].is_some() && !self.in_core(*slot));
        let anybody = living.get(self.rng.below(living.len() as u64) as usize).copied();
        let leader = living.iter().position(|slot| leads(&self.nodes[*slot]));
        match leader {
            Some(at) if self.rng.below(2) == 0 => Some(living[at]),
            _ => anybody,
        }
    }

    pub(crate) fn can_lose(&self, victim: usize) -> bool {
        // Who is leaving may be gone at any moment, and take along what it holds.
        let stays = |process: &Process| process.replica.phase() == Phase::Member;
        let others = self.nodes.iter().enumerate().filter(|(slot, _)| *slot != victim);
        let others = others.filter_map(|(_, process)| process.as_ref());
        let mut identities: Vec<_> = others.filter(|p| stays(p)).map(|p| p.identity).collect();
        // Of two processes under one id only one can be reached, and both may be needed.
        let all = identities.clone();
        identities.retain(|one| all.iter().filter(|other| other.node == one.node).count() == 1);
        let cores = self.nodes.iter().flatten().filter_map(|process| process.replica.core());
        // Were all the others blank, they and a double would begin another cluster.
        let doubled = self.nodes.iter().skip(self.nodes.len() / 2).any(Option::is_some);
        if doubled && identities.is_empty() {
            return false;
        }
        let newest = cores.clone().max_by_key(|core| core.commit());
        let counts =
            |core: &&Core| newest.is_some_and(|new| new.config().contains(core.identity()));
        let mut any = false;
        for core in cores.filter(counts) {
            any = true;
            if !core.config().is_quorum(|identity| identities.contains(&identity)) {
                return false;
            }
        }
        any && (self.mix.operate_every_ms == 0 || self.has_sure_quorum(Some(victim), None))
    }

    fn crash(&mut self, slot: usize) {
        self.note_leader_loss(slot);
        let process = self.nodes[slot].as_ref().expect("checked by the caller");
        let leads = process.replica.core().is_some_and(|core| core.role() == Role::Leader);
        let identity = process.identity;
        self.report.crashes += 1;
        self.report.leader_crashes += u64::from(leads);
        self.note(|| format!("crash of {identity:?}{}", if leads { ", the leader" } else { "" }));
        self.bury(slot);
        let wait = self.rng.between(1, 1_500);
        if slot == self.node_of(slot) {
            self.after(wait, Event::Restart { slot });
        }
    }

    /// A process is no more: what it counted is kept, its links break.
    pub(crate) fn bury(&mut self, slot: usize) {
        let process = self.nodes[slot].take().expect("a process to bury");
        self.report.add_counters(&process.replica.counters());
        self.history.crashed((slot as u64, self.lives[slot]));
        self.operators.crashed((slot, self.lives[slot]), self.now);
        for peer in 0..self.nodes.len() {
            self.break_link(slot, peer, 3);
        }
        for end in process.up.values() {
            self.network.forget(end.link);
        }
        // Another one under its id can be dialled from now on.
        let half = self.nodes.len() / 2;
        self.connect_from((slot + half) % (2 * half), 0..2 * half);
    }

    /// Whether a leader goes in the middle of a change of members.
    fn note_leader_loss(&mut self, slot: usize) {
        let core = self.nodes[slot].as_ref().and_then(|process| process.replica.core());
        let joint =
            core.is_some_and(|core| core.role() == Role::Leader && core.config().next.is_some());
        self.report.joint_leader_losses += u64::from(joint);
    }

    fn partition(&mut self) {
        self.report.partitions += 1;
        let count = self.nodes.len();
        let one_way = self.rng.below(4) == 0;
        let mut side: Vec<u64> = (0..count).map(|_| self.rng.below(2)).collect();
        // Neighbours in a chain reach each other, nobody else does.
        let chain = self.rng.below(4) == 0;
        if chain {
            self.report.chains += 1;
            let start = self.rng.below(count as u64);
            let nodes = self.lives.len() as u64 / 2;
            side = (0..count as u64).map(|slot| 2 * ((slot + start) % nodes)).collect();
        } else if self.rng.below(3) == 0 {
            let alone = self.victim();
            side.iter_mut().enumerate().for_each(|(slot, s)| *s = (Some(slot) == alone).into());
        }
        for a in 0..count {
            for b in 0..count {
                let apart = side[a].abs_diff(side[b]) > if chain { 2 } else { 0 };
                if apart && (!one_way || side[a] > side[b]) && !self.spared(a, b) {
                    self.network.wall(a, b);
                    self.break_link_within(a, b, SILENCE_MS);
                }
            }
        }
        self.note(|| format!("partition {side:?}{}", if one_way { ", one way" } else { "" }));
        let wait = self.rng.between(50, 2_000);
        self.after(wait, Event::Heal);
    }

    /// Cuts a node off from all others for a while.
    pub(crate) fn isolate(&mut self, slot: usize) {
        if self.calm || self.in_core(slot) {
            return;
        }
        self.note_leader_loss(slot);
        self.report.partitions += 1;
        self.note(|| format!("node {slot} is cut off"));
        let silence_ms = *self.rng.pick(&[20, 20, SILENCE_MS]);
        for peer in (0..self.nodes.len()).filter(|peer| *peer != slot) {
            self.network.wall(slot, peer);
            self.network.wall(peer, slot);
            self.break_link_within(slot, peer, silence_ms);
        }
        let wait = self.rng.between(50, 1_000);
        self.after(wait, Event::HealNode { slot });
    }

    fn cut(&mut self) {
        let mut links = self.network.all();
        links.retain(|(a, b)| !self.spared(*a, *b));
        if !links.is_empty() {
            let (a, b) = *self.rng.pick(&links);
            self.report.cuts += 1;
            self.note(|| format!("cut {a}-{b}"));
            self.break_link(a, b, 20);
        }
    }

    fn pause(&mut self) {
        let Some(slot) = self.victim() else { return };
        let length = self.rng.between(20, 1_500);
        self.pause_for(slot, length);
    }

    fn pause_for(&mut self, slot: usize, length: u64) {
        let until = self.now + length;
        let Some(process) = &mut self.nodes[slot] else { return };
        process.paused_until = until;
        self.report.pauses += 1;
        self.note(|| format!("pause of {slot} for {length} ms"));
        if length > SILENCE_MS {
            for peer in 0..self.nodes.len() {
                self.break_link_within(slot, peer, SILENCE_MS);
            }
        }
        self.after(length, Event::Resume { slot });
    }

    fn veto(&mut self) -> Result<(), String> {
        let Some(slot) = self.victim() else { return Ok(()) };
        self.report.vetoes += 1;
        let (wait, life) = (self.rng.between(20, 1_500), self.lives[slot]);
        self.after(wait, Event::Allow { slot, life });
        self.step(slot, Input::Veto { on: true })
    }

    /// Only if the cluster can do without it, as with a crash: what it held goes with it.
    fn detach(&mut self) -> Result<(), String> {
        let Some(slot) = self.victim() else { return Ok(()) };
        let holds_state = self.nodes[slot].as_ref().is_some_and(|p| p.replica.core().is_some());
        if !holds_state || !self.can_lose(slot) {
            return Ok(());
        }
        self.report.detaches += 1;
        self.note(|| format!("node {slot} leaves"));
        self.step(slot, Input::Detach)
    }

    /// Somebody starts a node twice, maybe since the first one seems to be gone.
    fn double(&mut self) {
        let Some(slot) = self.victim() else { return };
        let twin = self.nodes.len() / 2 + slot;
        let alone = slot == self.node_of(slot) && self.nodes[twin].is_none();
        // Somebody else must hold the state and stay: when all nodes of the list are there and
        // blank, they are a new cluster, and nobody can tell.
        let holds = |process: &Process| process.replica.phase() == Phase::Member;
        let nodes = self.nodes.iter().take(self.nodes.len() / 2).enumerate();
        let other = nodes.into_iter().any(|(at, p)| at != slot && p.as_ref().is_some_and(holds));
        let doubled = self.nodes.iter().skip(self.nodes.len() / 2).any(Option::is_some);
        if !alone
            || !other
            || doubled
            || self.nodes[slot].as_ref().is_none_or(|p| p.replica.core().is_none())
        {
            return;
        }
        self.report.doubles += 1;
        match self.rng.below(3) {
            0 => {}
            1 => self.isolate(slot),
            _ => {
                let length = self.rng.between(400, 2_500);
                self.pause_for(slot, length);
            }
        }
        self.after(1, Event::Restart { slot: twin });
        let wait = self.rng.between(300, 4_000);
        self.after(wait, Event::EndDouble { slot: twin });
    }

    /// The second process under an id ends, if the cluster can do without it by now.
    pub(crate) fn end_double(&mut self, slot: usize) {
        if self.nodes[slot].is_none() {
            return;
        }
        // One that was never let in holds nothing, and may keep the other one from somebody who
        // lags for that very reason.
        let holds = |process: &Process| process.replica.phase() == Phase::Member;
        if self.can_lose(slot) || !self.nodes[slot].as_ref().is_some_and(holds) {
            self.note(|| format!("the double at {slot} ends"));
            self.bury(slot);
            let original = self.node_of(slot);
            if self.nodes[original].is_none() {
                self.after(1, Event::Restart { slot: original });
            }
        } else {
            self.after(200, Event::EndDouble { slot });
        }
    }

    fn burst(&mut self) {
        self.report.bursts += 1;
        let length = self.rng.between(50, 1_000);
        self.note(|| format!("everything is slow for {length} ms"));
        self.network.burst_until = self.now + length;
    }

    fn jump(&mut self) {
        let Some(slot) = self.victim() else { return };
        let by = *self.rng.pick(&[30, 300, 3_000, 100_000]);
        let (now, life) = (self.now, self.lives[slot]);
        if let Some(process) = &mut self.nodes[slot] {
            process.clock.jump(now, by);
            process.wake_at = now + 1;
            self.report.jumps += 1;
            self.note(|| format!("the clock of {slot} jumps by {by} ms"));
            self.after(1, Event::Wake { slot, life });
        }
    }

    /// The process of a node that left, or was refused to take part, is gone; it starts anew later.
    pub(crate) fn gone(&mut self, slot: usize, life: u64) {
        if self.lives[slot] == life && self.nodes[slot].as_ref().is_some_and(|p| p.ended) {
            self.bury(slot);
            let wait = self.rng.between(1, 500);
            // A double that leaves may be all there was of its node.
            let original = self.node_of(slot);
            if self.nodes[original].is_none() {
                self.after(wait, Event::Restart { slot: original });
            }
        }
    }

    /// The link breaks at some moment within the limit.
    fn break_link_within(&mut self, a: usize, b: usize, limit_ms: u64) {
        if let Some(link) = self.network.link(a, b) {
            let wait = self.rng.below(limit_ms);
            self.after(wait, Event::Break { a, b, link });
        }
    }
}
