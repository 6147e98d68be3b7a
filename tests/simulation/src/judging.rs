//! Who is welcome: what the real transport's handshake decides, and what follows from it.
//!
//! * Nodes of one cluster in different epochs are never linked; the one of the lesser hears of the
//!   greater.
//! * A removed node is refused, and hears why.
//! * Who is not listed is refused, unless it belongs to the cluster of whoever it dials, or to one
//!   when that has no list of a cluster yet.
//! * Two blank processes must have been started with lists of equal length.

use quorate_cluster::ClusterError;
use quorate_cluster::replica::{Input, Phase};
use quorate_cluster::wire::Stamp;
use quorate_consensus::{Identity, NodeId};

use crate::world::{Event, World};

/// What a process knows of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Listed,
    /// Nothing, or no address.
    Unlisted,
    Removed,
}

/// Why a process is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    OtherEpoch,
    Removed,
    Unlisted,
    NodesDiffer,
}

/// How long after such a refusal a process dials again, ms.
const INTERVAL_MS: u64 = 200;

impl World {
    /// Whether a process is let in where it dials, by what both are. If not, that is dealt with.
    ///
    /// # Errors
    /// There are two clusters, or what follows is wrong.
    pub(crate) fn is_welcome(&mut self, dialled: usize, dialler: usize) -> Result<bool, String> {
        let Some(refusal) = self.judge(dialled, dialler)? else { return Ok(true) };
        self.note(|| format!("{dialler} is refused by {dialled}: {refusal:?}"));
        match refusal {
            Refusal::OtherEpoch => self.tell_epochs(dialled, dialler)?,
            Refusal::Removed => self.tell_removed(dialled, dialler)?,
            Refusal::Unlisted | Refusal::NodesDiffer => {}
        }
        let now = self.now;
        let Some(process) = &mut self.nodes[dialler] else { return Ok(false) };
        let redial = process.redials.entry(dialled).or_insert(0);
        if *redial <= now {
            *redial = now + INTERVAL_MS;
            self.after(INTERVAL_MS, Event::Connect { a: dialler, b: dialled });
        }
        Ok(false)
    }

    fn judge(&self, dialled: usize, dialler: usize) -> Result<Option<Refusal>, String> {
        let (Some(ours), Some(theirs)) = (&self.nodes[dialled], &self.nodes[dialler]) else {
            return Ok(None);
        };
        let (here, there) = (ours.stamp, theirs.stamp);
        if here.cluster_id != 0 && there.cluster_id != 0 {
            if here.cluster_id != there.cluster_id {
                return Err(format!("{dialled} and {dialler} belong to two clusters"));
            }
            if here.epoch != there.epoch {
                return Ok(Some(Refusal::OtherEpoch));
            }
        }
        match ours.places.get(self.node_of(dialler)) {
            Some(Place::Listed) => {}
            Some(Place::Removed) => return Ok(Some(Refusal::Removed)),
            // It may know more.
            _ if there.cluster_id != 0 && (here == there || !ours.has_roster) => {}
            _ => return Ok(Some(Refusal::Unlisted)),
        }
        let blank = here.cluster_id == 0 && there.cluster_id == 0;
        let differ = blank && ours.places.len() != theirs.places.len();
        Ok(differ.then_some(Refusal::NodesDiffer))
    }

    fn tell_epochs(&mut self, a: usize, b: usize) -> Result<(), String> {
        for (slot, other) in [(a, b), (b, a)] {
            let Some(epoch) = self.nodes[other].as_ref().map(|process| process.stamp.epoch) else {
                continue;
            };
            let Some(process) = &self.nodes[slot] else { continue };
            if process.stamp.epoch.compare(epoch) == Some(std::cmp::Ordering::Less) {
                let node = NodeId(self.node_of(other) as u32);
                self.step(slot, Input::NewerEpoch { node, epoch })?;
            }
        }
        Ok(())
    }

    /// The process of a removed node was refused where it dialled.
    fn tell_removed(&mut self, dialled: usize, dialler: usize) -> Result<(), String> {
        let blank = |process: &crate::node::Process| process.replica.phase() == Phase::Forming;
        if self.nodes[dialler].as_ref().is_some_and(blank) {
            return self.finished(dialler, Err(ClusterError::Removed)); // it cannot be opened
        }
        let node = NodeId(self.node_of(dialled) as u32);
        self.step(dialler, Input::TurnedAway { node })
    }

    /// A process belongs to another cluster or epoch from now on, or to one at all.
    pub(crate) fn stamped(&mut self, slot: usize, new: Stamp) -> Result<(), String> {
        let Some(process) = &mut self.nodes[slot] else { return Ok(()) };
        let before = std::mem::replace(&mut process.stamp, new);
        if before.cluster_id == 0 || before == new {
            return Ok(());
        }
        process.has_roster = false;
        self.close_all(slot)
    }

    /// A process is another incarnation from now on.
    pub(crate) fn reborn(&mut self, slot: usize, identity: Identity) -> Result<(), String> {
        let Some(process) = &mut self.nodes[slot] else { return Ok(()) };
        self.report.reborn += 1;
        process.identity = identity;
        process.path.set_origin(identity.incarnation.0);
        process.roster_seen = None;
        self.close_all(slot)
    }

    /// A process closes all its links at once, and dials again.
    fn close_all(&mut self, slot: usize) -> Result<(), String> {
        let ends: Vec<_> = self.nodes[slot]
            .iter()
            .flat_map(|process| process.up.values().map(|end| (end.slot, end.link)))
            .collect();
        for (peer, link) in ends {
            if self.network.link(slot, peer) == Some(link) {
                self.break_link(slot, peer, 3);
            }
            self.link_down(slot, peer, link)?;
        }
        self.connect_from(slot, 0..self.nodes.len());
        Ok(())
    }
}
