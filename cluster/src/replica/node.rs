//! What every stage of a replica shares: who the node is, whom it is linked to, its engine and
//! its outbox.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_consensus::{Identity, NodeId, Ticks};
use quorate_engine::{Applier, CommitError, Index, TransactionId};
use quorate_schema::Dictionary;

use super::api::{ClusterEvent, Counters, Output, ReplicaSettings};
use super::message::{PeerMessage, Standing};
use super::pending::Pending;

/// A peer whose link is up.
#[derive(Debug)]
pub(super) struct Link {
    /// Who is there.
    pub(super) identity: Identity,
    /// What it said it belongs to.
    pub(super) standing: Option<Standing>,
}

/// How the node's end was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It was not.
    No,
    /// Orderly, with all others; gives up at this moment if there is no quorum.
    Stop { deadline: Ticks },
    /// Alone, while the others go on.
    Detach { deadline: Ticks },
}

/// The shared part.
pub(super) struct Node {
    pub(super) settings: ReplicaSettings,
    pub(super) applier: Applier,
    pub(super) dictionary: Arc<Dictionary>,
    /// At most one link a node.
    pub(super) links: BTreeMap<NodeId, Link>,
    pub(super) pending: Pending,
    pub(super) ending: Ending,
    pub(super) counters: Counters,
    pub(super) now: Ticks,
    pub(super) vetoed: bool,
    outbox: Vec<Output>,
}

impl Node {
    pub(super) fn new(
        settings: ReplicaSettings,
        applier: Applier,
        dictionary: Arc<Dictionary>,
        now: Ticks,
    ) -> Self {
        Self {
            settings,
            applier,
            dictionary,
            links: BTreeMap::new(),
            pending: Pending::default(),
            ending: Ending::No,
            counters: Counters::default(),
            now,
            vetoed: false,
            outbox: Vec::new(),
        }
    }

    pub(super) fn identity(&self) -> Identity {
        self.settings.identity
    }

    /// True if the link to exactly this incarnation is up.
    pub(super) fn is_linked(&self, peer: Identity) -> bool {
        self.links.get(&peer.node).is_some_and(|link| link.identity == peer)
    }

    pub(super) fn standing(&self, peer: Identity) -> Option<&Standing> {
        let link = self.links.get(&peer.node).filter(|link| link.identity == peer)?;
        link.standing.as_ref()
    }

    /// Sends if the link is up; else the message is lost, as it could be on any network.
    pub(super) fn send(&mut self, to: Identity, message: PeerMessage) {
        assert_ne!(to, self.identity(), "a node does not send to itself: {message:?}");
        if self.is_linked(to) {
            self.outbox.push(Output::send(to, message));
        }
    }

    pub(super) fn broadcast(&mut self, message: &PeerMessage) {
        let peers: Vec<Identity> = self.links.values().map(|link| link.identity).collect();
        for peer in peers {
            self.send(peer, message.clone());
        }
    }

    pub(super) fn event(&mut self, event: ClusterEvent) {
        self.outbox.push(Output::Event(event));
    }

    pub(super) fn output(&mut self, output: Output) {
        self.outbox.push(output);
    }

    /// Answers an own transaction.
    pub(super) fn complete(&mut self, sequence: u64, result: Result<Index, CommitError>) {
        let id = self.transaction_id(sequence);
        self.outbox.push(Output::Complete { id, result });
    }

    /// Says that an own transaction once in doubt has met its fate.
    pub(super) fn settled(&mut self, sequence: u64, committed: Option<Index>) {
        let id = self.transaction_id(sequence);
        self.outbox.push(Output::Settled { id, committed });
    }

    pub(super) fn transaction_id(&self, sequence: u64) -> TransactionId {
        TransactionId { origin: self.identity().incarnation.0, sequence }
    }

    pub(super) fn drain(&mut self, out: &mut Vec<Output>) {
        out.append(&mut self.outbox);
    }
}
