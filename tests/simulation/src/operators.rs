//! Operators: while everything goes wrong they add nodes and take some out, change ranks and
//! addresses, and choose leaders. What comes of it is held against what they were told.
//!
//! * Every request is answered once, unless its process is gone.
//! * After `Changed` the roster of the node that answered holds the change.
//! * At equal index all nodes hold the same roster.
//! * Whatever stands in any roster was asked for, and not refused.
//! * At the end the configuration is what the roster says.

use std::collections::{BTreeMap, BTreeSet};

use quorate_cluster::replica::{Input, Roster};
use quorate_cluster::{AdminAnswer, AdminError, AdminRequest};
use quorate_consensus::NodeId;
use quorate_engine::{CommitPath, Index, TransactionId};

use crate::judging::Place;
use crate::node::Process;
use crate::ranks::rank_of;
use crate::world::{Event, World};

/// How many nodes operators add at most.
pub(crate) const ADDED_MAX: usize = 3;

/// How long after nobody can say any more what became of a change it may still be made, ms.
const AFTERLIFE_MS: u64 = 5_000;

/// A node as the list says with which a process is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) addr: String,
    pub(crate) rank: u32,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Done,
    /// Nothing was changed.
    Refused,
    /// It may have been done, or be done yet.
    Unknown,
}

#[derive(Debug)]
struct Asked {
    /// The process: its slot, and its life there.
    who: (usize, u64),
    request: AdminRequest,
    fate: Fate,
    /// When it was asked, or met its fate.
    at: u64,
}

impl Asked {
    fn about(&self) -> Option<NodeId> {
        match self.request {
            AdminRequest::RemoveNode { node }
            | AdminRequest::SetRank { node, .. }
            | AdminRequest::SetAddress { node, .. } => Some(node),
            _ => None,
        }
    }
}

/// All that operators did and heard in a run.
pub(crate) struct Operators {
    /// How many nodes there were at first.
    first: usize,
    /// What they start processes with.
    list: Vec<Listed>,
    removed: BTreeSet<usize>,
    /// Removed nodes that were started all the same, once.
    revived: BTreeSet<usize>,
    /// By token.
    asked: BTreeMap<u64, Asked>,
    unsettled: BTreeSet<TransactionId>,
    /// All rosters that ever were, and which of them was in force at an index.
    rosters: Vec<Roster>,
    at: BTreeMap<Index, usize>,
    /// Removed nodes that live and hear from nobody, as of the last look.
    unheard: Vec<usize>,
}

impl Operators {
    pub(crate) fn new(ranks: &[u32]) -> Self {
        let listed = |(node, rank): (usize, &u32)| Listed { addr: first_addr(node), rank: *rank };
        Self {
            first: ranks.len(),
            list: ranks.iter().enumerate().map(listed).collect(),
            removed: BTreeSet::new(),
            revived: BTreeSet::new(),
            asked: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            rosters: Vec::new(),
            at: BTreeMap::new(),
            unheard: Vec::new(),
        }
    }

    /// What a process is started with now.
    pub(crate) fn list(&self) -> &[Listed] {
        &self.list
    }

    /// Whether a node is to be there.
    pub(crate) fn lists(&self, node: usize) -> bool {
        node < self.list.len() && !self.removed.contains(&node)
    }

    /// Whether a process of the node may be started. One of a removed node may once: somebody did
    /// not hear of it. It hears then.
    pub(crate) fn may_start(&mut self, node: usize) -> bool {
        self.lists(node) || self.revived.insert(node)
    }

    /// The ranks of changes that may be under way.
    pub(crate) fn ranks_asked(&self, now: u64) -> Vec<(NodeId, u32)> {
        let may_come = |asked: &&Asked| match asked.fate {
            Fate::Open => true,
            Fate::Unknown => now < asked.at + AFTERLIFE_MS,
            Fate::Done | Fate::Refused => false,
        };
        self.asked.values().filter(may_come).filter_map(|asked| rank_of(&asked.request)).collect()
    }

    fn listed(&self) -> Vec<usize> {
        (0..self.list.len()).filter(|node| self.lists(*node)).collect()
    }

    /// A request's id met its fate. False if it is none of theirs.
    pub(crate) fn settled(&mut self, id: TransactionId) -> bool {
        self.unsettled.remove(&id)
    }

    pub(crate) fn has_unsettled(&self, origin: u128) -> bool {
        self.unsettled.iter().any(|id| id.origin == origin)
    }

    /// A process is gone: nobody answers what it was asked.
    pub(crate) fn crashed(&mut self, who: (usize, u64), now: u64) {
        let open = |asked: &&mut Asked| asked.who == who && asked.fate == Fate::Open;
        self.asked
            .values_mut()
            .filter(open)
            .for_each(|asked| (asked.fate, asked.at) = (Fate::Unknown, now));
    }

    fn is_any_open(&self) -> bool {
        self.asked.values().any(|asked| asked.fate == Fate::Open)
    }

    /// How many nodes may have been added.
    fn adds(&self) -> usize {
        let add = |asked: &&Asked| matches!(asked.request, AdminRequest::AddNode { .. });
        self.asked.values().filter(add).filter(|asked| asked.fate != Fate::Refused).count()
    }

    /// Whether anything else that may have happened is about the node.
    fn is_contested(&self, token: u64, node: NodeId) -> bool {
        let other = |(other, asked): (&u64, &Asked)| {
            *other != token && asked.fate != Fate::Refused && asked.about() == Some(node)
        };
        self.asked.iter().any(other)
    }

    /// Somebody holds this roster at this index. Returns nodes that are new in it.
    fn saw(&mut self, index: Index, roster: &Roster) -> Result<Vec<usize>, String> {
        if let Some(known) = self.at.get(&index).map(|at| &self.rosters[*at]) {
            let same = known == roster;
            let differ = || format!("at {index:?} two rosters: {known:?} and {roster:?}");
            return if same { Ok(Vec::new()) } else { Err(differ()) };
        }
        let place = self.rosters.iter().rposition(|known| known == roster);
        let place = place.unwrap_or_else(|| {
            self.rosters.push(roster.clone());
            self.rosters.len() - 1
        });
        self.at.insert(index, place);
        let count = roster.next_id().0 as usize;
        let new: Vec<usize> = (self.list.len()..count).collect();
        for node in &new {
            let known = roster.get(NodeId(*node as u32));
            let gone = Listed { addr: format!("gone{node}:7000"), rank: 1 };
            let listed = |node: &quorate_cluster::replica::RosterNode| Listed {
                addr: node.addr.clone(),
                rank: node.rank,
            };
            self.list.push(known.map_or(gone, listed));
        }
        let removed = (0..count).filter(|node| roster.is_removed(NodeId(*node as u32)));
        self.removed.extend(removed);
        Ok(new)
    }

    /// Holds all rosters that ever were against what was asked.
    ///
    /// # Errors
    /// What nobody asked for, or was refused.
    pub(crate) fn explain(&self) -> Result<(), String> {
        for roster in &self.rosters {
            for id in (0..roster.next_id().0).map(NodeId) {
                self.explain_node(roster, id).map_err(|what| format!("{what} in {roster:?}"))?;
            }
        }
        Ok(())
    }

    fn explain_node(&self, roster: &Roster, id: NodeId) -> Result<(), String> {
        let requests = self.asked.values().filter(|asked| asked.fate != Fate::Refused);
        let mut requests = requests.map(|asked| &asked.request);
        let Some(node) = roster.get(id) else {
            let asked = requests.any(|r| *r == AdminRequest::RemoveNode { node: id });
            return if asked { Ok(()) } else { Err(format!("node {id} is removed, unasked")) };
        };
        let first = (id.0 as usize) < self.first;
        let original = first.then(|| &self.list[id.0 as usize]);
        let (mut rank, mut addr) = (false, false);
        rank |= original.is_some_and(|original| original.rank == node.rank);
        addr |= original.is_some_and(|original| original.addr == node.addr);
        for request in requests {
            match request {
                AdminRequest::AddNode { addr: added, rank: wanted } if !first => {
                    addr |= *added == node.addr;
                    rank |= *wanted == node.rank;
                }
                AdminRequest::SetRank { node, rank: wanted } if *node == id => {
                    rank |= roster.rank(id) == Some(*wanted);
                }
                AdminRequest::SetAddress { node: about, addr: wanted } if *about == id => {
                    addr |= *wanted == node.addr;
                }
                _ => {}
            }
        }
        match (rank, addr) {
            (true, true) => Ok(()),
            _ => Err(format!("node {id} has a rank or address that nobody asked for")),
        }
    }
}

fn first_addr(node: usize) -> String {
    format!("node{node}:7000")
}

impl World {
    /// An operator asks some node for something.
    pub(crate) fn operate(&mut self) -> Result<(), String> {
        let able = |slot: &usize| {
            let process = self.nodes[*slot].as_ref();
            process.is_some_and(|process| !process.ended && process.paused_until <= self.now)
        };
        let living: Vec<usize> = (0..self.nodes.len()).filter(able).collect();
        if living.is_empty() || !self.formed {
            return Ok(());
        }
        let slot = *self.rng.pick(&living);
        match self.choose_request() {
            Some(request) => self.ask(slot, request),
            None => Ok(()),
        }
    }

    pub(crate) fn ask(&mut self, slot: usize, request: AdminRequest) -> Result<(), String> {
        let random = self.rng.bits();
        let Some(process) = &self.nodes[slot] else { return Ok(()) };
        let (id, low_water) = process.path.next_id();
        let token = self.operators.asked.len() as u64;
        self.note(|| format!("operator {token} asks {slot} for {request:?}"));
        let who = (slot, self.lives[slot]);
        let asked = Asked { who, request: request.clone(), fate: Fate::Open, at: self.now };
        self.operators.asked.insert(token, asked);
        self.operators.unsettled.insert(id);
        self.step(slot, Input::Admin { token, request, id, low_water, random })
    }

    /// In liveness mode only what leaves the core a quorum of its own.
    fn choose_request(&mut self) -> Option<AdminRequest> {
        let listed = self.operators.listed();
        let anybody = *self.rng.pick(&listed);
        let node = NodeId(anybody as u32);
        let addr = format!("op{}:7000", self.operators.asked.len());
        let rank = self.rng.below(4) as u32;
        let safety = self.mix.core.is_empty();
        let request = match self.rng.below(10) {
            0..=2 if safety => AdminRequest::SetRank { node, rank },
            // A leader that hands over refuses in its own term what it takes a moment later. Where
            // frames come twice, a second copy does what its caller was told is not done.
            3..=4 if !self.mix.harsh && (safety || self.in_core(anybody)) => {
                AdminRequest::TransferLeadership { to: node }
            }
            5..=6 if self.operators.adds() < ADDED_MAX => {
                AdminRequest::AddNode { addr, rank: if safety { rank } else { 0 } }
            }
            // The storm goes on with at least two.
            7..=8 if safety && listed.len() > 2 => AdminRequest::RemoveNode { node },
            9 => AdminRequest::SetAddress { node, addr },
            _ => return None,
        };
        let ranks = rank_of(&request).is_some();
        (!ranks || self.has_sure_quorum(None, Some(&request))).then_some(request)
    }

    /// An operator is answered.
    pub(crate) fn admin_answered(
        &mut self,
        slot: usize,
        token: u64,
        answer: &AdminAnswer,
    ) -> Result<(), String> {
        self.note(|| format!("operator {token} hears from {slot}: {answer:?}"));
        let now = self.now;
        let asked = self.operators.asked.get_mut(&token);
        let asked = asked.ok_or(format!("operator {token} never asked"))?;
        if asked.fate != Fate::Open {
            return Err(format!("operator {token} was answered twice, now {answer:?}"));
        }
        asked.at = now;
        asked.fate = match answer {
            // Added, and taken out again since.
            AdminAnswer::Refused(AdminError::UnknownNode { .. })
                if matches!(asked.request, AdminRequest::AddNode { .. }) =>
            {
                Fate::Done
            }
            AdminAnswer::Refused(AdminError::TimedOut { .. } | AdminError::Stopped) => {
                Fate::Unknown
            }
            AdminAnswer::Refused(_) => Fate::Refused,
            _ => Fate::Done,
        };
        let request = asked.request.clone();
        let process = self.nodes[slot].as_ref().ok_or("a dead node answered")?;
        let kept = match (&request, answer) {
            (_, AdminAnswer::Refused(_)) => {
                self.report.operators_refused += 1;
                return Ok(());
            }
            (AdminRequest::TransferLeadership { to }, AdminAnswer::Transferred) => {
                self.report.transfers_done += 1;
                process.ended || process.replica.status().leader == Some(*to)
            }
            (request, AdminAnswer::Changed { node, .. }) => {
                let contested = self.operators.is_contested(token, *node);
                self.report.roster_changes += 1;
                match request {
                    AdminRequest::AddNode { .. } => self.report.nodes_added += 1,
                    AdminRequest::RemoveNode { .. } => self.report.nodes_removed += 1,
                    AdminRequest::SetRank { .. } => self.report.ranks_changed += 1,
                    _ => {}
                }
                // A node that hears of its own removal ends with the answer.
                let roster = process.replica.roster();
                contested || roster.is_none_or(|roster| holds(roster, request, *node))
            }
            _ => false,
        };
        if kept { Ok(()) } else { Err(format!("{request:?} was answered with {answer:?} in vain")) }
    }

    /// The roster that the process holds now.
    pub(crate) fn look_at_roster(&mut self, slot: usize) -> Result<(), String> {
        let Some(process) = &mut self.nodes[slot] else { return Ok(()) };
        let index = process.replica.applied();
        let Some(roster) = process.replica.roster() else { return Ok(()) };
        if process.roster_seen.replace(index) == Some(index) {
            return Ok(());
        }
        let new = self.operators.saw(index, roster).map_err(|what| format!("on {slot}: {what}"))?;
        for slot in new {
            let wait = self.rng.between(1, 300);
            self.note(|| format!("node {slot} was added"));
            self.after(wait, Event::Restart { slot });
        }
        Ok(())
    }

    /// The cluster told a process which nodes there are.
    pub(crate) fn list_changed(&mut self, slot: usize, places: Vec<Place>) {
        let Some(process) = &mut self.nodes[slot] else { return };
        process.has_roster = true;
        if process.places == places {
            return;
        }
        let known = |node: usize| process.places.get(node) == Some(&Place::Listed);
        let removed = |node: &usize| known(*node) && places[*node] == Place::Removed;
        let removed: Vec<usize> = (0..places.len()).filter(removed).collect();
        process.places = places;
        let half = self.nodes.len() / 2;
        for peer in removed.into_iter().flat_map(|node| [node, half + node]) {
            if let Some(link) = self.network.link(slot, peer) {
                // What waits to be said is said.
                let wait = self.mix.delay_ms + 1;
                self.after(wait, Event::Break { a: slot, b: peer, link });
            }
        }
        self.connect_from(slot, 0..2 * half);
    }

    /// A process heard that its node was taken out.
    pub(crate) fn removed_heard(&mut self, slot: usize) -> Result<(), String> {
        if self.operators.lists(self.node_of(slot)) {
            return Err(format!("{slot} ended as removed, and is listed"));
        }
        Ok(())
    }

    /// Configuration and roster say the same, and nobody waits for an answer.
    pub(crate) fn roster_in_force(&self) -> bool {
        let agrees = |process: &Process| {
            let (Some(core), Some(roster)) = (process.replica.core(), process.replica.roster())
            else {
                return false;
            };
            let members = core.config().current.iter().map(|m| (m.identity.node, m.rank));
            core.config().next.is_none()
                && members.eq(roster.iter().map(|(id, listed)| (id, listed.rank)))
        };
        self.nodes.iter().flatten().all(agrees) && !self.operators.is_any_open()
    }

    /// Once calm: of two nodes the higher id dials, so a removed node that is lower than all others
    /// hears of it from nobody who was not linked to it at the time. It comes upon somebody who
    /// knows.
    pub(crate) fn sweep_removed(&mut self) -> Result<(), String> {
        let unheard = |slot: &usize| {
            let lives = self.nodes[*slot].as_ref().is_some_and(|process| !process.ended);
            lives && !self.operators.lists(self.node_of(*slot))
        };
        let unheard: Vec<usize> = (0..self.nodes.len()).filter(unheard).collect();
        let before = std::mem::replace(&mut self.operators.unheard, unheard.clone());
        for slot in unheard.into_iter().filter(|slot| before.contains(slot)) {
            let node = self.node_of(slot);
            let knows = |process: &Process| {
                process.has_roster && process.places.get(node) == Some(&Place::Removed)
            };
            let knows = |other: &usize| self.nodes[*other].as_ref().is_some_and(knows);
            if let Some(other) = (0..self.nodes.len()).find(knows)
                && self.is_welcome(other, slot)?
            {
                return Err(format!("{slot} was removed, and is welcome at {other}"));
            }
        }
        Ok(())
    }
}

/// Whether the roster says what was asked for.
fn holds(roster: &Roster, request: &AdminRequest, node: NodeId) -> bool {
    match request {
        AdminRequest::AddNode { addr, rank } => {
            roster.get(node).is_some_and(|listed| listed.addr == *addr && listed.rank == *rank)
        }
        AdminRequest::RemoveNode { .. } => roster.is_removed(node),
        AdminRequest::SetRank { rank, .. } => roster.rank(node) == Some(*rank),
        AdminRequest::SetAddress { addr, .. } => {
            roster.get(node).is_some_and(|listed| listed.addr == *addr)
        }
        _ => false,
    }
}
