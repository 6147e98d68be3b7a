//! Epochs: forming a cluster again from one survivor, and what it means to everybody else.
//!
//! When a majority of rank is lost for good, no rule of consensus can go on. An operator can: the
//! survivor of choice begins a new *epoch* of the cluster, alone, with its state and its whole log,
//! and with indexes far behind any that the old epoch gave. Whoever still holds state of an older
//! epoch gives it up for this one: it becomes a new incarnation that joins, and never counts as
//! what it was. Nodes of one cluster in different epochs are never linked.

use std::cmp::Ordering;

use quorate_consensus::{Config, Identity, Incarnation, Member as ConfigMember, NodeId, Ticks};
use quorate_engine::{CommitError, Index};

use super::api::{ClusterEvent, Output};
use super::member::{Beginning, Member};
use super::message::Genesis;
use super::node::Ending;
use super::pending::Pending;
use super::{Joining, Replica, Stage};
use crate::admin::{AdminError, Recovery};
use crate::epoch::Epoch;
use crate::error::ClusterError;
use crate::fresh::FreshError;
use crate::reason::QuorumReason;

/// How far behind the survivor's newest index a new epoch begins: farther than the lost nodes can
/// have come.
const EPOCH_INDEXES: u64 = 1 << 32;

impl Replica {
    /// Another node of this cluster is in a greater epoch, or says so.
    pub(super) fn newer_epoch(&mut self, epoch: Epoch) {
        if self.node.epoch.compare(epoch) != Some(Ordering::Less) {
            return; // the other one learns the same of this node
        }
        match &self.stage {
            Stage::Member(member) => {
                let genesis = member.genesis().clone();
                self.be_reborn(genesis, epoch);
            }
            Stage::Joining(joining) => {
                let genesis = joining.genesis.clone();
                self.join(genesis, epoch);
            }
            Stage::Blank(_) | Stage::Ended => {}
        }
    }

    /// This node gives up its state for that of a newer epoch. It stays readable until it has it.
    fn be_reborn(&mut self, genesis: Genesis, epoch: Epoch) {
        if self.node.ending != Ending::No {
            return self.end(Err(ClusterError::NoQuorum));
        }
        self.give_up_pending(false);
        self.rebirths += 1;
        let own = self.node.identity().node;
        let identity = Identity { node: own, incarnation: self.next_incarnation() };
        self.node.settings.identity = identity;
        let peers: Vec<NodeId> = self.node.links.keys().copied().collect();
        for peer in peers {
            self.node.links.remove(&peer);
            self.node.event(ClusterEvent::Disconnected(peer));
        }
        self.node.output(Output::Reborn { identity });
        self.node.event(ClusterEvent::EpochChanged(epoch));
        self.join(genesis, epoch);
    }

    /// Begins a new epoch with this node alone: what it holds is what the cluster holds.
    pub(super) fn recover(&mut self, random: u64) -> Result<Recovery, AdminError> {
        let Stage::Member(member) = &mut self.stage else { return Err(AdminError::NotMember) };
        if self.node.ending != Ending::No {
            return Err(AdminError::Stopped);
        }
        if member.has_quorum() {
            return Err(AdminError::StillQuorum);
        }
        let known = self.node.applier.applied();
        member.apply_whole_log(&mut self.node);
        if let Some(Err(error)) = member.take_end() {
            let what = error.to_string();
            self.end(Err(error));
            return Err(AdminError::Unsupported { what });
        }
        let survivor_index = self.node.applier.applied();
        let epoch = Epoch { counter: self.node.epoch.counter + 1, bits: random };
        let (genesis, last, last_term) = member.position();
        self.give_up_pending(true);
        let index = self.node.applier.jump(Index(survivor_index.0 + EPOCH_INDEXES));
        self.node.epoch = epoch;
        let peers: Vec<NodeId> = self.node.links.keys().copied().collect();
        for peer in peers {
            self.node.links.remove(&peer);
            self.node.event(ClusterEvent::Disconnected(peer));
        }
        self.node.output(Output::Stamp { cluster_id: genesis.cluster_id, epoch });
        self.node.event(ClusterEvent::EpochChanged(epoch));
        let identity = self.node.identity();
        // Alone, this node decides whatever its rank; the roster's comes back with the others.
        let rank = self.node.roster.rank(identity.node).unwrap_or(0).max(1);
        let config = Config { current: vec![ConfigMember { identity, rank }], next: None };
        let roster = self.node.roster.clone();
        let stopped = Vec::new();
        let beginning = Beginning { genesis, last, last_term, config, stopped, roster };
        self.stage = Stage::Member(Box::new(Member::new(&mut self.node, beginning)));
        let doubtful = survivor_index.0 - known.0;
        let may_be_lost = format!(
            "transactions behind index {survivor_index} that other nodes acknowledged; of those up \
             to there, the last {doubtful} were not known to be committed here, and are now"
        );
        Ok(Recovery::new(epoch, index, survivor_index, may_be_lost))
    }

    /// Nobody of this past will answer what is under way. `whole_log`: what is not applied by now
    /// never will be; else the survivor's log may hold it.
    fn give_up_pending(&mut self, whole_log: bool) {
        if let Stage::Member(member) = &mut self.stage {
            let reason = QuorumReason::NoState;
            member.end_reads(&mut self.node, &FreshError::NoQuorum { reason });
            member.end_everywhere(&mut self.node);
            let limit_ms = self.node.settings.stop_limit_ms;
            member.end_errands(&mut self.node, &AdminError::TimedOut { limit_ms });
        }
        for sequence in self.node.pending.sequences() {
            let id = self.node.transaction_id(sequence);
            let asked = self.node.pending.was_asked(sequence);
            let ended = self.node.pending.remove(sequence);
            if ended.is_some_and(|ended| !ended.answered) {
                let reason = "the cluster was formed again meanwhile; begin anew".into();
                let unasked = CommitError::NoQuorum { reason };
                let error = if asked { CommitError::InDoubt(id) } else { unasked };
                self.node.complete(sequence, Err(error));
            }
            if asked && whole_log {
                self.node.settled(sequence, None);
            }
        }
        // The terms that another life of the cluster counts have nothing to do with these.
        self.node.pending = Pending::default();
    }

    /// Random bits as good as those this process began with.
    fn next_incarnation(&self) -> Incarnation {
        let mut bits = self.cluster_id_seed ^ (u128::from(self.rebirths) << 64);
        for _ in 0..3 {
            bits = bits.wrapping_mul(0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645) ^ (bits >> 67);
        }
        Incarnation(bits.max(1))
    }
}

impl Joining {
    pub(super) fn new(genesis: Genesis, now: Ticks) -> Self {
        Self { genesis, unlisted: false, receiving: None, last_asked: now }
    }
}
