//! Several cores, their disks and the network between them, in one thread. The driver's part is
//! played here as plainly as possible: outputs are carried out in order, promises wait for
//! durability, a crash keeps what was persisted (disk) or nothing (memory).

use std::collections::{BTreeSet, VecDeque};

use quorate_consensus::{
    Config, Core, Entry, EntryIndex, HardState, Identity, Input, Member, Message, Output, Payload,
    Role, Settings, Start, Term,
};

use crate::check::Truth;

/// SplitMix64.
pub(crate) struct Rng(pub u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let bits = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    pub(crate) fn one_in(&mut self, chance: usize) -> bool {
        self.below(chance) == 0
    }
}

/// What survives a crash.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) start: Start,
}

struct Write {
    sequence: u64,
    hard: Option<HardState>,
    truncate_from: Option<EntryIndex>,
    entries: Vec<Entry>,
}

pub(crate) struct Node {
    pub(crate) identity: Identity,
    pub(crate) core: Option<Core>,
    pub(crate) disk: Disk,
    writes: VecDeque<Write>,
    persisted: u64,
    held: Vec<(u64, Identity, Message)>,
    commit: EntryIndex,
    /// Hashes of the log up to each entry, from `chain_base.0 + 1` on.
    chain_base: (EntryIndex, u64),
    chains: Vec<u64>,
    pub(crate) events: Vec<Output>,
}

pub(crate) struct Packet {
    pub(crate) from: Identity,
    pub(crate) to: Identity,
    pub(crate) message: Message,
}

/// An image on its way.
pub(crate) struct Image {
    pub(crate) from: Identity,
    pub(crate) to: Identity,
    pub(crate) last: EntryIndex,
    pub(crate) last_term: Term,
    pub(crate) config: Config,
    chain: u64,
}

pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) in_memory: bool,
    pub(crate) now: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) packets: Vec<Packet>,
    pub(crate) images: Vec<Image>,
    /// Directed pairs of node numbers whose packets are lost.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    pub(crate) truth: Truth,
    pub(crate) rng: Rng,
}

pub(crate) fn id(node: u32) -> Identity {
    Identity::new(node, 1)
}

pub(crate) fn members(ranks: &[u32]) -> Vec<Member> {
    let member = |(node, &rank)| Member { identity: id(node as u32), rank };
    ranks.iter().enumerate().map(member).collect()
}

impl World {
    pub(crate) fn new(settings: Settings, ranks: &[u32], in_memory: bool, seed: u64) -> Self {
        let genesis = Config::new(members(ranks)).unwrap();
        let mut world = Self {
            settings,
            in_memory,
            now: 1000,
            nodes: Vec::new(),
            packets: Vec::new(),
            images: Vec::new(),
            cut: BTreeSet::new(),
            truth: Truth::default(),
            rng: Rng(seed),
        };
        for node in 0..ranks.len() {
            let disk = Disk { start: Start::genesis(genesis.clone()) };
            world.nodes.push(Node::new(id(node as u32), disk));
        }
        for node in 0..ranks.len() {
            world.boot(node);
        }
        world
    }

    pub(crate) fn boot_if_down(&mut self, node: usize) {
        if !self.is_up(node) {
            self.boot(node);
        }
    }

    /// Starts the node from its disk and connects it.
    pub(crate) fn boot(&mut self, node: usize) {
        let (settings, now) = (self.settings.clone(), self.now);
        let place = &mut self.nodes[node];
        let start = place.disk.start.clone();
        let core = Core::new(settings, place.identity, start.clone(), now);
        place.commit = core.commit();
        place.persisted = 0;
        // The image's hash was noted when it was installed or is the empty one.
        place.chains.clear();
        let chain = place.chain_base.1;
        place.chains = self.truth.appended(&core, start.last.next(), chain);
        place.core = Some(core);
        for other in 0..self.nodes.len() {
            self.connect(node, other);
            self.connect(other, node);
        }
    }

    pub(crate) fn connect(&mut self, node: usize, other: usize) {
        let open = !self.cut.contains(&(node, other)) && !self.cut.contains(&(other, node));
        if node != other && open && self.nodes[other].core.is_some() {
            let peer = self.nodes[other].identity;
            self.step(node, Input::PeerUp { peer });
        }
    }

    pub(crate) fn disconnect(&mut self, node: usize, other: usize) {
        let peer = self.nodes[other].identity;
        self.step(node, Input::PeerDown { peer });
    }

    /// Kills the process. With a disk it keeps some prefix of what was being written; without, it
    /// comes back as somebody else.
    pub(crate) fn crash(&mut self, node: usize) {
        if self.nodes[node].core.take().is_none() {
            return;
        }
        let written = self.rng.below(self.nodes[node].writes.len() + 1);
        for _ in 0..written {
            self.write_one(node);
        }
        let place = &mut self.nodes[node];
        place.writes.clear();
        place.held.clear();
        for other in 0..self.nodes.len() {
            if other != node && !self.rng.one_in(4) {
                self.disconnect(other, node);
            }
        }
        if self.in_memory {
            let old = self.nodes[node].identity;
            let identity = Identity::new(old.node.0, old.incarnation.0 + 1);
            self.nodes[node] = Node::new(identity, Disk { start: Start::genesis(Config::blank()) });
        }
    }

    pub(crate) fn core(&self, node: usize) -> &Core {
        self.nodes[node].core.as_ref().unwrap()
    }

    pub(crate) fn is_up(&self, node: usize) -> bool {
        self.nodes[node].core.is_some()
    }

    pub(crate) fn number_of(&self, identity: Identity) -> Option<usize> {
        self.nodes.iter().position(|node| node.identity == identity)
    }

    /// The leader of the highest term among the running nodes.
    pub(crate) fn leader(&self) -> Option<usize> {
        let leads = |node: &usize| self.is_up(*node) && self.core(*node).role() == Role::Leader;
        (0..self.nodes.len()).filter(leads).max_by_key(|node| self.core(*node).term())
    }

    pub(crate) fn propose(&mut self, node: usize) {
        let first_index = self.now;
        let payload = Payload::from(self.rng.next().to_le_bytes());
        self.step(node, Input::Propose { first_index, count: 1, payload });
    }

    /// Hands an input to a node and carries out what follows.
    pub(crate) fn step(&mut self, node: usize, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let Some(core) = &mut self.nodes[node].core else { return };
            let mut out = Vec::new();
            core.step(self.now, input, &mut out);
            for output in out {
                self.carry_out(node, &output);
                self.nodes[node].events.push(output);
            }
            if self.in_memory {
                while !self.nodes[node].writes.is_empty() {
                    self.write_one(node);
                    inputs.push_back(Input::Persisted { sequence: self.nodes[node].persisted });
                }
            }
        }
        let events = &mut self.nodes[node].events;
        if events.len() > 200 {
            events.drain(..100);
        }
    }

    /// Finishes the oldest write and tells the core.
    pub(crate) fn sync(&mut self, node: usize) {
        if self.nodes[node].core.is_some() && !self.nodes[node].writes.is_empty() {
            self.write_one(node);
            self.step(node, Input::Persisted { sequence: self.nodes[node].persisted });
        }
    }

    pub(crate) fn tick(&mut self, node: usize) {
        let random = self.rng.next();
        self.step(node, Input::Tick { random });
    }

    /// Lets time pass; nodes that want a tick get it.
    pub(crate) fn pass(&mut self, ticks: u64) {
        self.now += ticks;
        for node in 0..self.nodes.len() {
            if self.is_up(node) && self.core(node).next_wakeup() <= self.now {
                self.tick(node);
            }
        }
    }

    pub(crate) fn deliver(&mut self, packet: Packet) {
        let (Some(from), Some(to)) = (self.number_of(packet.from), self.number_of(packet.to))
        else {
            // An earlier life of the sender: old bytes arrive under the old identity.
            if let Some(to) = self.number_of(packet.to) {
                let Packet { from, message, .. } = packet;
                self.step(to, Input::Receive { from, message });
            }
            return;
        };
        if !self.cut.contains(&(from, to)) {
            let Packet { from, message, .. } = packet;
            self.step(to, Input::Receive { from, message });
        }
    }

    /// Delivers everything in order, and what it causes, until nothing is on its way.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            for node in 0..self.nodes.len() {
                self.sync(node);
            }
            if !self.images.is_empty() {
                let image = self.images.remove(0);
                self.install(image);
            }
            if self.packets.is_empty() {
                if self.nodes.iter().all(|n| n.writes.is_empty()) && self.images.is_empty() {
                    return;
                }
                continue;
            }
            let packet = self.packets.remove(0);
            self.deliver(packet);
        }
        panic!("messages without end");
    }

    /// Lets time pass in small steps with everything delivered, `ticks` in all.
    pub(crate) fn run(&mut self, ticks: u64) {
        for _ in 0..ticks.div_ceil(2) {
            self.pass(2);
            self.settle();
        }
    }

    pub(crate) fn install(&mut self, image: Image) {
        let Image { from, to, last, last_term, config, chain } = image;
        let Some(node) = self.number_of(to).filter(|node| self.is_up(*node)) else { return };
        while !self.nodes[node].writes.is_empty() {
            self.sync(node);
        }
        if last > self.core(node).commit() {
            self.truth.images += 1;
            let before = self.core(node).last();
            let input = Input::InstallImage { last, last_term, config: config.clone() };
            self.step(node, input);
            let place = &mut self.nodes[node];
            let core = place.core.as_ref().unwrap();
            place.commit = core.commit();
            // What the driver does durably with an image: it replaces the start.
            let kept = core.last() == before && before.0 >= last;
            let entries =
                if kept { core.entries_from(last.next()).cloned().collect() } else { Vec::new() };
            let skipped = last.0.saturating_sub(place.chain_base.0.0) as usize;
            place.chains = if kept { place.chains.split_off(skipped) } else { Vec::new() };
            place.chain_base = (last, chain);
            let durable = core.durable();
            let start = &mut place.disk.start;
            start.last = last;
            start.last_term = last_term;
            start.config = config;
            start.entries = entries.into_iter().filter(|e: &Entry| e.index <= durable).collect();
            self.truth.stored(to, last, last_term);
        }
        if let Some(leader) = self.number_of(from).filter(|node| self.is_up(*node)) {
            self.step(leader, Input::ImageSent { to, last });
        }
    }

    fn carry_out(&mut self, node: usize, output: &Output) {
        let place = &mut self.nodes[node];
        let Some(core) = &place.core else { return };
        match output {
            Output::Persist { sequence, hard, truncate_from, append } => {
                let base = place.chain_base;
                if let Some(from) = truncate_from {
                    self.truth.truncations += 1;
                    place.chains.truncate(from.0.saturating_sub(base.0.0 + 1) as usize);
                }
                let mut entries = Vec::new();
                if let Some((first, last)) = append {
                    entries = core.entries_from(*first).cloned().collect();
                    assert_eq!(entries.last().unwrap().index, *last, "range of the append");
                    let chain = place.chains.last().copied().unwrap_or(base.1);
                    assert_eq!(first.0, base.0.0 + place.chains.len() as u64 + 1, "gap");
                    let more = self.truth.appended(core, *first, chain);
                    place.chains.extend(more);
                }
                let (hard, truncate_from) = (*hard, *truncate_from);
                place.writes.push_back(Write { sequence: *sequence, hard, truncate_from, entries });
            }
            Output::Send { to, message, after } => {
                let (from, to, message) = (place.identity, *to, message.clone());
                if *after <= place.persisted {
                    self.packets.push(Packet { from, to, message });
                } else {
                    place.held.push((*after, to, message));
                }
            }
            Output::Commit { upto, early } => {
                let from = std::mem::replace(&mut place.commit, *upto);
                self.truth.commits(core, from, *upto, *early);
            }
            Output::Role { role: Role::Leader, .. } => self.truth.leads(core),
            Output::NeedImage { to } => {
                let last = core.commit();
                let Some(last_term) = core.term_at(last) else { return };
                let config = core.committed_config().1.clone();
                let place_of = (last.0 - place.chain_base.0.0) as usize;
                let chain = match place_of {
                    0 => place.chain_base.1,
                    place_of => place.chains[place_of - 1],
                };
                let from = place.identity;
                self.images.push(Image { from, to: *to, last, last_term, config, chain });
            }
            _ => {}
        }
    }

    fn write_one(&mut self, node: usize) {
        let place = &mut self.nodes[node];
        let Some(write) = place.writes.pop_front() else { return };
        let start = &mut place.disk.start;
        if let Some(hard) = write.hard {
            start.hard = hard;
        }
        if let Some(from) = write.truncate_from {
            start.entries.retain(|entry| entry.index < from);
        }
        for entry in write.entries {
            if entry.index > start.last {
                self.truth.stored(place.identity, entry.index, entry.term);
                start.entries.push(entry);
            }
        }
        place.persisted = write.sequence;
        self.release(node);
    }

    fn release(&mut self, node: usize) {
        let place = &mut self.nodes[node];
        let held = std::mem::take(&mut place.held);
        for (after, to, message) in held {
            if after <= place.persisted {
                self.packets.push(Packet { from: place.identity, to, message });
            } else {
                place.held.push((after, to, message));
            }
        }
    }
}

impl Node {
    fn new(identity: Identity, disk: Disk) -> Self {
        Self {
            identity,
            core: None,
            disk,
            writes: VecDeque::new(),
            persisted: 0,
            held: Vec::new(),
            commit: EntryIndex(0),
            chain_base: (EntryIndex(0), 0),
            chains: Vec::new(),
            events: Vec::new(),
        }
    }
}
