//! The storm: crashes, partitions, pauses, cut links, each at random moments.

use quorate_cluster::replica::{Input, Phase};
use quorate_consensus::Role;

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
}

impl Fault {
    pub(crate) const ALL: [Fault; 6] =
        [Fault::Crash, Fault::Partition, Fault::Cut, Fault::Pause, Fault::Veto, Fault::Detach];
}

/// Links between which nothing passes fall silent and break after this long at most, ms.
const SILENCE_MS: u64 = 700;

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

    /// Crashes a node whose memory the cluster can do without: beyond that even a correct cluster
    /// without disks is lost, and says so.
    fn crash_someone(&mut self) {
        let node = self.victim();
        if self.nodes[node].is_none() || !self.can_lose(node) {
            return;
        }
        self.crash(node);
    }

    /// Anybody, but the leader more often than the others: losing it is harder.
    fn victim(&mut self) -> usize {
        let leads = |process: &Option<Process>| {
            let core = process.as_ref().and_then(|process| process.replica.core());
            core.is_some_and(|core| core.role() == Role::Leader)
        };
        let anybody = self.rng.below(self.nodes.len() as u64) as usize;
        let leader = self.nodes.iter().position(leads);
        if self.rng.below(2) == 0 { leader.unwrap_or(anybody) } else { anybody }
    }

    fn can_lose(&self, victim: usize) -> bool {
        // Who is leaving may be gone at any moment, and take along what it holds.
        let stays = |process: &Process| process.replica.phase() == Phase::Member;
        let others = self.nodes.iter().enumerate().filter(|(node, _)| *node != victim);
        let others = others.filter_map(|(_, process)| process.as_ref());
        let identities: Vec<_> = others.filter(|p| stays(p)).map(|p| p.identity).collect();
        let cores = self.nodes.iter().flatten().filter_map(|process| process.replica.core());
        let mut any = false;
        for core in cores {
            any = true;
            if !core.config().is_quorum(|identity| identities.contains(&identity)) {
                return false;
            }
        }
        any
    }

    fn crash(&mut self, node: usize) {
        let process = self.nodes[node].take().expect("checked by the caller");
        let leads = process.replica.core().is_some_and(|core| core.role() == Role::Leader);
        self.report.crashes += 1;
        self.report.leader_crashes += u64::from(leads);
        self.report.add_counters(&process.replica.counters());
        self.note(|| {
            format!("crash of {:?}{}", process.identity, if leads { ", the leader" } else { "" })
        });
        self.history.crashed((node as u64, self.lives[node]));
        for peer in 0..self.nodes.len() {
            self.break_link(node, peer, 3);
        }
        let wait = self.rng.between(1, 1_500);
        self.after(wait, Event::Restart { node });
    }

    fn partition(&mut self) {
        self.report.partitions += 1;
        let count = self.nodes.len() as u64;
        let one_way = self.rng.below(4) == 0;
        let mut side: Vec<bool> = (0..count).map(|_| self.rng.below(2) == 0).collect();
        if self.rng.below(3) == 0 {
            let alone = self.victim();
            side.iter_mut().enumerate().for_each(|(node, side)| *side = node == alone);
        }
        for a in 0..side.len() {
            for b in 0..side.len() {
                if side[a] != side[b] && (!one_way || side[a]) {
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
    pub(crate) fn isolate(&mut self, node: usize) {
        if self.calm {
            return;
        }
        self.report.partitions += 1;
        self.note(|| format!("node {node} is cut off"));
        let silence_ms = *self.rng.pick(&[20, 20, SILENCE_MS]);
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            self.network.wall(node, peer);
            self.network.wall(peer, node);
            self.break_link_within(node, peer, silence_ms);
        }
        let wait = self.rng.between(50, 1_000);
        self.after(wait, Event::HealNode { node });
    }

    fn cut(&mut self) {
        let count = self.nodes.len() as u64;
        let (a, b) = (self.rng.below(count) as usize, self.rng.below(count) as usize);
        if a != b && self.network.epoch(a, b).is_some() {
            self.report.cuts += 1;
            self.note(|| format!("cut {a}-{b}"));
            self.break_link(a, b, 20);
        }
    }

    fn pause(&mut self) {
        let node = self.victim();
        let length = self.rng.between(20, 1_500);
        let until = self.now + length;
        let Some(process) = &mut self.nodes[node] else { return };
        process.paused_until = until;
        self.report.pauses += 1;
        self.note(|| format!("pause of {node} for {length} ms"));
        if length > SILENCE_MS {
            for peer in 0..self.nodes.len() {
                self.break_link_within(node, peer, SILENCE_MS);
            }
        }
    }

    fn veto(&mut self) -> Result<(), String> {
        let node = self.victim();
        if self.nodes[node].is_some() {
            self.report.vetoes += 1;
            let (wait, life) = (self.rng.between(20, 1_500), self.lives[node]);
            self.after(wait, Event::Allow { node, life });
        }
        self.step(node, Input::Veto { on: true })
    }

    /// Only if the cluster can do without it, as with a crash: what it held goes with it.
    fn detach(&mut self) -> Result<(), String> {
        let node = self.victim();
        let holds_state = self.nodes[node].as_ref().is_some_and(|p| p.replica.core().is_some());
        if !holds_state || !self.can_lose(node) {
            return Ok(());
        }
        self.report.detaches += 1;
        self.note(|| format!("node {node} leaves"));
        self.step(node, Input::Detach)
    }

    /// The process of a node that left, or was refused to take part, is gone; it starts anew later.
    pub(crate) fn gone(&mut self, node: usize, life: u64) {
        if self.lives[node] == life && self.nodes[node].as_ref().is_some_and(|p| p.ended) {
            let process = self.nodes[node].take().expect("looked at just now");
            self.report.add_counters(&process.replica.counters());
            self.history.crashed((node as u64, life));
            let wait = self.rng.between(1, 500);
            self.after(wait, Event::Restart { node });
        }
    }

    /// The link breaks at some moment within the limit.
    fn break_link_within(&mut self, a: usize, b: usize, limit_ms: u64) {
        if let Some(epoch) = self.network.epoch(a, b) {
            let wait = self.rng.below(limit_ms);
            self.after(wait, Event::Break { a, b, epoch });
        }
    }

    /// The link breaks now; each end notices within the limit.
    pub(crate) fn break_link(&mut self, a: usize, b: usize, notice_ms: u64) {
        let Some(epoch) = self.network.disconnect(a, b) else { return };
        for (node, peer) in [(a, b), (b, a)] {
            let wait = self.rng.below(notice_ms);
            self.after(wait, Event::LinkDown { node, peer, epoch });
        }
        let wait = self.rng.between(1, 30);
        self.after(wait, Event::Connect { a, b });
    }
}
