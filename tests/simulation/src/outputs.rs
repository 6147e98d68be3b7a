//! What replicas want done, and what their answers must be.

use quorate_cluster::ClusterError;
use quorate_cluster::replica::{Output, PeerMessage};
use quorate_cluster::wire::Stamp;
use quorate_engine::{Acknowledged, CommitError, Index, Outcome, TransactionId};

use crate::judging::Place;
use crate::world::{Event, World};

impl World {
    pub(crate) fn obey(&mut self, slot: usize, output: Output) -> Result<(), String> {
        match output {
            Output::Send { to, message } => {
                self.send(slot, to, &message);
                Ok(())
            }
            Output::Complete { id, result } => {
                let result = self.acknowledged(slot, result)?;
                self.completed(slot, id, &result)
            }
            Output::Settled { id, .. } if self.operators.settled(id) => {
                self.raise_low_water(slot);
                Ok(())
            }
            Output::Settled { id, committed } => {
                self.in_doubt.remove(&id);
                self.report.in_doubt_committed += u64::from(committed.is_some());
                self.report.in_doubt_settled += 1;
                self.history.settled(id, committed);
                self.raise_low_water(slot);
                Ok(())
            }
            Output::Event(event) => {
                self.note(|| format!("node {slot}: {event:?}"));
                Ok(())
            }
            Output::Stamp { cluster_id, epoch } => {
                self.stamped(slot, Stamp { cluster_id, epoch, connection_epoch: 0 })
            }
            Output::Reborn { identity } => self.reborn(slot, identity),
            Output::EndRefused(_) => {
                self.note(|| format!("node {slot} may not leave"));
                // It holds all the rank: it goes on, and asks again when the others have left.
                if self.stopping {
                    let life = self.lives[slot];
                    self.after(100, Event::Leave { slot, life });
                }
                Ok(())
            }
            Output::Finished(result) => self.finished(slot, result),
            Output::Nodes(nodes) => {
                let places = nodes.iter().map(|node| match node {
                    Some(info) if info.addr.is_empty() => Place::Unlisted,
                    Some(_) => Place::Listed,
                    None => Place::Removed,
                });
                self.list_changed(slot, places.collect());
                Ok(())
            }
            Output::AdminAnswer { token, answer } => self.admin_answered(slot, token, &answer),
            Output::Through { .. } => Ok(()),
            Output::Run(batch) => self.run_batch(slot, &batch),
            Output::Called { id, result } => self.called(slot, id, result),
            Output::Fresh { token, result } => {
                self.report.fresh_reads += u64::from(result.is_ok());
                self.waits.read_answered(token, &result)
            }
            Output::Outcome { id, result } => {
                self.report.outcomes_fenced += u64::from(result == Ok(Outcome::NotCommitted));
                self.waits.outcome_answered(id, &result)
            }
        }
    }

    pub(crate) fn finished(
        &mut self,
        slot: usize,
        result: Result<(), ClusterError>,
    ) -> Result<(), String> {
        let process = self.nodes[slot].as_mut().ok_or("a dead node finished")?;
        process.ended = true;
        self.note(|| format!("node {slot} ends: {result:?}"));
        self.close_links(slot);
        if !self.stopping {
            // It left alone, or gave up leaving for want of a quorum.
            let (wait, life) = (self.mix.delay_ms + 2, self.lives[slot]);
            self.after(wait, Event::Gone { slot, life });
            return match result {
                Ok(()) | Err(ClusterError::NoQuorum) => Ok(()),
                Err(ClusterError::Removed) => self.removed_heard(slot),
                Err(error) => Err(format!("node {slot} ended: {error}")),
            };
        }
        match result {
            Err(ClusterError::NoQuorum) if self.leaving => Ok(()),
            Err(ClusterError::Removed) => self.removed_heard(slot),
            result => result.map_err(|error| format!("node {slot} ended: {error}")),
        }
    }

    /// A process that ends in order closes its links behind its last words.
    fn close_links(&mut self, slot: usize) {
        for peer in (0..self.nodes.len()).filter(|peer| *peer != slot) {
            if let Some(link) = self.network.link(slot, peer) {
                let wait = self.mix.delay_ms + 1;
                self.after(wait, Event::Break { a: slot, b: peer, link });
            }
        }
    }

    /// The index of what committed, wherever else it is applied.
    ///
    /// # Errors
    /// It was said to be applied where it is not, or not waited for where it should have been.
    fn acknowledged(
        &mut self,
        slot: usize,
        result: Result<Acknowledged, CommitError>,
    ) -> Result<Result<Index, CommitError>, String> {
        match result {
            Ok(Acknowledged { index, applied_by }) => {
                if let Some(nodes) = applied_by {
                    self.report.everywhere += 1;
                    self.check_everywhere(slot, index, &nodes)?;
                }
                Ok(Ok(index))
            }
            Err(CommitError::NotEverywhere { index, .. }) => {
                self.report.not_everywhere += 1;
                Ok(Ok(index))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    /// Looks at every ready member with a rank, but for nodes that ever had two processes at a
    /// time: of those nobody can tell which one is meant. A learner counts from when it is heard to
    /// hold the state, and nobody here knows when that is.
    fn check_everywhere(&self, slot: usize, index: Index, nodes: &[u32]) -> Result<(), String> {
        let here = self.nodes[slot].as_ref().ok_or("a dead node answered")?;
        let config = here.replica.core().map(|core| core.committed_config().1);
        let count = self.nodes.len() / 2;
        for other in (0..count).filter(|other| *other != slot && self.lives[count + other] == 0) {
            let Some(process) = &self.nodes[other] else { continue };
            let member = config.is_some_and(|config| config.rank_of(process.identity) > 0);
            let has = process.database.applier().applied() >= index;
            if has || !member || !process.was_ready {
                continue;
            }
            let who = process.identity;
            if nodes.contains(&(other as u32)) {
                return Err(format!("{index:?} is not applied at {who:?}, which is listed"));
            }
            if here.up.get(&other).is_some_and(|end| end.peer == who) {
                return Err(format!("{index:?} is not applied at {who:?}, a live member"));
            }
        }
        Ok(())
    }

    pub(crate) fn completed(
        &mut self,
        slot: usize,
        id: TransactionId,
        result: &Result<Index, CommitError>,
    ) -> Result<(), String> {
        self.note(|| format!("node {slot}: {id:?} ends as {result:?}"));
        match result {
            Ok(index) => {
                self.report.acknowledged += 1;
                self.waits.acknowledged(*index);
                let process = self.nodes[slot].as_mut().ok_or("a dead node answered")?;
                process.progress_at = self.now;
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
        self.raise_low_water(slot);
        Ok(())
    }

    /// What is settled for good may be forgotten: everything below what is open or in doubt.
    fn raise_low_water(&mut self, slot: usize) {
        let who = (slot as u64, self.lives[slot]);
        let Some(process) = &self.nodes[slot] else { return };
        let origin = process.identity.incarnation.0;
        let doubtful = self.in_doubt.keys().any(|id| id.origin == origin);
        if !doubtful && !self.operators.has_unsettled(origin) && self.history.open(who) == 0 {
            process.path.set_low_water(process.path.newest_sequence() + 1);
        }
    }

    /// State is on its way from one to the other.
    pub(crate) fn note_transfer(&mut self, slot: usize, peer: usize, message: &PeerMessage) {
        match message {
            PeerMessage::Image(_) => {
                self.transfers.insert((slot, peer));
            }
            PeerMessage::Installed { .. } => {
                self.transfers.remove(&(peer, slot));
            }
            _ => {}
        }
    }

    pub(crate) fn transfers_cut(&mut self, a: usize, b: usize) {
        for way in [(a, b), (b, a)] {
            self.report.images_cut += u64::from(self.transfers.remove(&way));
        }
    }
}
