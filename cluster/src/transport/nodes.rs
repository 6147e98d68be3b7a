//! Which nodes there are: the list that the transport dials and welcomes by, while it changes.
//!
//! The list is the cluster's: it may grow, addresses in it change, nodes in it are removed. What is
//! decided here:
//!
//! * a link that is up stays up when its node's address changes; the next one goes to the new one;
//! * a removed node is told what waits to be told, then its link is ended, and it is refused from
//!   then on;
//! * ids beyond the list are refused, unless their node belongs to this node's cluster, or to one
//!   when this node belongs to none: then it may have been added while this node was away. It may
//!   even lead, and then nobody else can say so.

use mio::Token;
use quorate_consensus::{Identity, NodeId, Ticks};
use tracing::{debug, error, info, warn};

use super::connection::{Ended, State};
use super::link::{Link, Place};
use super::{LinkEvent, Transport};
use crate::epoch::Epoch;
use crate::error::RejectReason;
use crate::replica::NODE_IDS_MAX;
use crate::wire::{Card, FrameWriter, Kind};

/// How soon after one claim of a node's id the next is reported, ms.
const CLAIM_PAUSE_MS: Ticks = 1_000;

/// Another process claims the id of a node that is heard from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Claim {
    /// Which process.
    nonce: u128,
    /// When it was refused first.
    since: Ticks,
    /// Whether, and when, a claim was reported last.
    told: bool,
    told_at: Option<Ticks>,
}

impl Claim {
    /// A claim is refused. True if it is to be reported: the node whose id it is was heard after
    /// this process was refused before, so both are alive, and neither is the other's ghost.
    fn refused(&mut self, nonce: u128, now: Ticks, heard: Ticks) -> bool {
        if self.nonce != nonce {
            *self = Self { nonce, since: now, told: false, ..*self };
        }
        let paused = self.told_at.is_none_or(|told_at| now >= told_at + CLAIM_PAUSE_MS);
        if self.told || !paused || heard <= self.since {
            return false;
        }
        self.told = true;
        self.told_at = Some(now);
        true
    }
}

impl Transport {
    /// From now on the cluster consists of these nodes. The own place is not looked at: the node
    /// goes on listening where it does.
    pub(crate) fn set_nodes(&mut self, nodes: Vec<Place>) {
        let count = nodes.len() as u32;
        let own = self.settings.card.identity.node;
        self.settings.card.node_count = count;
        self.has_roster = true;
        for (node, place) in (0..).map(NodeId).zip(nodes) {
            self.ensure_link(node);
            if node == own {
                continue;
            }
            if self.links[node.0 as usize].place == place {
                continue;
            }
            info!(node = node.0, ?place, "the node list changed");
            let removed = place == Place::Removed;
            self.links[node.0 as usize].move_to(place, self.now);
            let link = &self.links[node.0 as usize];
            if removed {
                self.part_with(node);
            } else if !link.up && link.dials && !link.is_idle() {
                self.break_link(node, &Ended::Moved); // it was dialled at the old address
            }
        }
        for node in (count..self.links.len() as u32).map(NodeId) {
            self.links[node.0 as usize].move_to(Place::Unlisted, self.now);
        }
    }

    /// From now on the node belongs to this cluster and epoch, or with 0 to none: frames and
    /// handshakes say so. Links of another cluster or epoch end.
    pub(crate) fn stamp(&mut self, cluster_id: u128, epoch: Epoch) {
        let card = &mut self.settings.card;
        let before = (card.cluster_id, card.epoch);
        (card.cluster_id, card.epoch) = (cluster_id, epoch);
        if before.0 == 0 || before == (cluster_id, epoch) {
            return;
        }
        self.has_roster = false; // that was another one's
        for node in (0..self.links.len() as u32).map(NodeId) {
            if !self.links[node.0 as usize].is_idle() {
                self.break_link(node, &Ended::OtherLife);
            }
        }
    }

    /// The last refusal in the handshake with each node that is not connected.
    pub(crate) fn refusal(&self, node: NodeId) -> Option<RejectReason> {
        self.links.get(node.0 as usize).and_then(|link| link.refusal)
    }

    /// From now on this node is another incarnation: all links are made anew.
    pub(crate) fn reborn(&mut self, identity: Identity) {
        assert_eq!(identity.node, self.settings.card.identity.node, "a node keeps its id");
        self.settings.card.identity = identity;
        for node in (0..self.links.len() as u32).map(NodeId) {
            if !self.links[node.0 as usize].is_idle() {
                self.break_link(node, &Ended::OtherLife);
            }
        }
    }

    /// Makes room for a link.
    pub(super) fn ensure_link(&mut self, node: NodeId) {
        let own = self.settings.card.identity.node.0;
        let now = self.now;
        while self.links.len() <= node.0 as usize {
            let dials = (self.links.len() as u32) < own;
            self.links.push(Link::new(dials, now));
        }
    }

    /// Whether there is a place for this node.
    pub(super) fn judge_place(&self, theirs: &Card) -> Result<(), RejectReason> {
        let ours = &self.settings.card;
        let node = theirs.identity.node;
        let place = self.links.get(node.0 as usize).map(|link| &link.place);
        match place.unwrap_or(&Place::Unlisted) {
            Place::Removed => return Err(RejectReason::Removed),
            Place::At(_) => {}
            Place::Unlisted => {
                let same = theirs.cluster_id == ours.cluster_id;
                let may_know_more = theirs.cluster_id != 0 && (same || !self.has_roster);
                if !may_know_more || node.0 as usize >= NODE_IDS_MAX {
                    return Err(RejectReason::UnknownNode { nodes: ours.node_count });
                }
            }
        }
        // To form a cluster both must mean the same one. Whoever belongs to one has its list.
        let blank = theirs.cluster_id == 0 && ours.cluster_id == 0;
        if blank && theirs.node_count != ours.node_count {
            return Err(RejectReason::NodesDiffer { nodes: ours.node_count });
        }
        Ok(())
    }

    /// Whether the other side's cluster and epoch allow a link. A greater epoch is reported: the
    /// cluster has a new life without this node.
    pub(super) fn judge_cluster(&mut self, theirs: &Card) -> Result<(), RejectReason> {
        let Card { cluster_id, epoch, .. } = self.settings.card;
        if theirs.cluster_id == 0 || cluster_id == 0 {
            return Ok(());
        }
        if theirs.cluster_id != cluster_id {
            return Err(RejectReason::OtherCluster { cluster_id });
        }
        if theirs.epoch == epoch {
            return Ok(());
        }
        self.note_epoch(theirs.identity.node, theirs.epoch);
        match epoch.compare(theirs.epoch) {
            Some(_) => Err(RejectReason::OtherEpoch { epoch }),
            None => Err(RejectReason::ForkedEpoch { epoch }),
        }
    }

    /// A node of this cluster is in another epoch.
    pub(super) fn note_epoch(&mut self, node: NodeId, theirs: Epoch) {
        let Card { cluster_id, epoch: ours, .. } = self.settings.card;
        if cluster_id == 0 {
            return;
        }
        match ours.compare(theirs) {
            Some(std::cmp::Ordering::Less) => {
                warn!(
                    node = node.0, %theirs, %ours,
                    "the cluster was formed again, in another epoch"
                );
                self.events.push_back(LinkEvent::NewerEpoch { node, epoch: theirs });
            }
            Some(_) => {}
            None => error!(
                node = node.0, %theirs, %ours,
                "the cluster was formed again twice, from two survivors; stop one of the two \
                 halves, and start its nodes anew without state"
            ),
        }
    }

    /// A process that claims the id of a connected node was refused.
    pub(super) fn note_claim(&mut self, node: NodeId, nonce: u128, heard: Ticks) {
        let link = &mut self.links[node.0 as usize];
        if !link.claim.refused(nonce, self.now, heard) {
            return;
        }
        warn!(node = node.0, "another process claims the id of a connected node; stop one of them");
        self.events.push_back(LinkEvent::Duplicate { node });
        // Who has the id hears of it too.
        let token = link.tokens[0].filter(|_| link.up);
        if let Some(token) = token {
            self.queue(token, Kind::Duplicate, FrameWriter::new());
        }
    }

    /// A process claims this node's own id.
    pub(super) fn note_own_claim(&mut self, nonce: u128) {
        let own = self.settings.card.identity.node;
        // This node is alive at this moment, whatever it heard.
        if self.own_claim.refused(nonce, self.now, Ticks::MAX) {
            warn!("another process claims the id of this node; stop one of the two");
            self.events.push_back(LinkEvent::Duplicate { node: own });
        }
    }

    /// Ends a link after what waits on it is sent: the other side is to read its last words.
    fn part_with(&mut self, node: NodeId) {
        // All is sent before any of the connections closes: the other side takes the first end it
        // sees for the end of all.
        for token in self.links[node.0 as usize].tokens.into_iter().flatten() {
            self.write(token);
        }
        let link = &mut self.links[node.0 as usize];
        let down = link.peer.filter(|_| link.up);
        for token in link.reset(self.now, self.settings.connect_interval_ms).into_iter().flatten() {
            let connection = self.connections.get_mut(&token).expect("a link's tokens are alive");
            if connection.state != State::Open {
                self.close(token);
                continue;
            }
            connection.state = State::Parting;
            connection.node = None;
            connection.born = self.now;
            connection.finish();
            self.unread.push_back(token);
        }
        if let Some((identity, _)) = down {
            info!(node = node.0, ?identity, "link to a removed node ended");
            self.events.push_back(LinkEvent::Down(identity));
        }
    }

    /// A connection of a link was closed by the other side, in order: what it said on the others
    /// before has arrived, and counts.
    pub(super) fn read_last_words(&mut self, closed: Token) {
        let node = self.connections.get(&closed).and_then(|connection| connection.node);
        let Some(link) = node.and_then(|node| self.links.get(node.0 as usize)) else { return };
        if !link.up || !link.tokens.contains(&Some(closed)) {
            return;
        }
        for token in link.tokens.into_iter().flatten().filter(|token| *token != closed) {
            let mut left = self.settings.turn_bytes;
            while left > 0 && self.take_apart(token) {
                let connection = self.connections.get_mut(&token).expect("alive, as just seen");
                match connection.read(&mut self.scratch, self.now) {
                    Ok(count) if count > 0 => left = left.saturating_sub(count),
                    _ => break,
                }
            }
            self.take_apart(token);
        }
    }

    /// Goes on ending a connection: sends what waits, throws away what arrives.
    pub(super) fn part(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        if let Err(ended) = connection.discard(&mut self.scratch, self.now) {
            debug!(%ended, "parted");
            self.close(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_reported_once_both_processes_are_known_to_live() {
        let mut claim = Claim::default();
        // A process just gone was heard shortly before its successor came.
        assert!(!claim.refused(1, 1_000, 900));
        assert!(!claim.refused(1, 1_200, 900));
        // It is heard again: two of them.
        assert!(claim.refused(1, 1_400, 1_300));
        assert!(!claim.refused(1, 5_000, 4_900), "once a process");
        // Another one, and it again: in turns they are reported once a second.
        assert!(!claim.refused(2, 5_100, 5_099));
        assert!(claim.refused(2, 5_200, 5_150));
        assert!(!claim.refused(1, 5_300, 5_250));
        assert!(!claim.refused(1, 5_400, 5_350));
        assert!(claim.refused(1, 6_200, 6_150));
    }
}
