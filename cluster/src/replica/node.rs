//! What every stage of a replica shares: who the node is, whom it is linked to, its engine and
//! its outbox.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_consensus::{Identity, NodeId, Ticks};
use quorate_engine::{Acknowledged, Applier, CommitError, Index, Outcome, TransactionId};
use quorate_schema::Dictionary;

use super::api::{ClusterEvent, Counters, Output, ReplicaSettings};
use super::member::{Errand, error_of_commit};
use super::message::{PeerMessage, Standing};
use super::pending::Pending;
use super::roster::Roster;
use crate::admin::{AdminAnswer, AdminError};
use crate::epoch::Epoch;
use crate::error::OutcomeError;
use crate::event::NodeInfo;
use crate::fresh::FreshError;
use crate::procedure::{CallAnswer, CallError, CallResult};

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
    /// Which own requests ask for an outcome, and of what.
    pub(super) outcomes: BTreeMap<u64, TransactionId>,
    /// Which own requests are calls, and what they answered once that is applied.
    pub(super) calls: BTreeMap<u64, Option<CallAnswer>>,
    /// The newest time in the applied log that procedures were told, ms.
    pub(super) logged_time_ms: u64,
    /// The number of the newest batch of calls.
    pub(super) newest_batch: u64,
    /// What operators asked and the log will answer, by sequence.
    pub(super) errands: BTreeMap<u64, Errand>,
    /// The cluster's epoch, as far as this node belongs to it.
    pub(super) epoch: Epoch,
    /// As of the newest entry applied; before there is one, what the own node list says.
    pub(super) roster: Roster,
    pub(super) ending: Ending,
    pub(super) counters: Counters,
    pub(super) now: Ticks,
    pub(super) vetoed: bool,
    /// The nodes as the runtime was told last.
    pub(super) told_nodes: Vec<Option<NodeInfo>>,
    outbox: Vec<Output>,
}

impl Node {
    pub(super) fn new(
        settings: ReplicaSettings,
        applier: Applier,
        dictionary: Arc<Dictionary>,
        now: Ticks,
    ) -> Self {
        let addresses = settings.addresses.iter().cloned().map(Some).chain(std::iter::repeat(None));
        let listed = settings.ranks.iter().zip(addresses);
        let roster = Roster::new(listed.map(|(rank, addr)| (addr.unwrap_or_default(), *rank)));
        Self {
            roster,
            errands: BTreeMap::new(),
            epoch: Epoch::default(),
            settings,
            applier,
            dictionary,
            links: BTreeMap::new(),
            pending: Pending::default(),
            outcomes: BTreeMap::new(),
            calls: BTreeMap::new(),
            logged_time_ms: 0,
            newest_batch: 0,
            ending: Ending::No,
            counters: Counters::default(),
            now,
            vetoed: false,
            told_nodes: Vec::new(),
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

    /// The nodes of the roster, at the addresses at which this node should look for them: what an
    /// operator set goes before its own list, which goes before the list of who formed the cluster.
    pub(super) fn listed(&self) -> Vec<Option<NodeInfo>> {
        let own_list = |id: NodeId| {
            let addr = self.settings.addresses.get(id.0 as usize)?;
            (!addr.is_empty()).then(|| addr.clone())
        };
        let info = |id: NodeId| {
            let node = self.roster.get(id)?;
            let own = own_list(id).filter(|_| !node.revised);
            let addr = own.unwrap_or_else(|| node.addr.clone());
            Some(NodeInfo { node_id: id, addr, qrank: node.rank })
        };
        (0..self.roster.next_id().0).map(|id| info(NodeId(id))).collect()
    }

    pub(super) fn event(&mut self, event: ClusterEvent) {
        self.outbox.push(Output::Event(event));
    }

    pub(super) fn output(&mut self, output: Output) {
        self.outbox.push(output);
    }

    /// Answers an own request: a transaction, a call, an errand, or a question for an outcome.
    pub(super) fn complete(&mut self, sequence: u64, result: Result<Index, CommitError>) {
        if let Some(errand) = self.errands.remove(&sequence) {
            return self.complete_errand(&errand, sequence, result);
        }
        if let Some(answer) = self.calls.remove(&sequence) {
            return self.complete_call(answer, sequence, result);
        }
        let Some(wanted) = self.outcomes.remove(&sequence) else {
            return self.complete_with(sequence, result.map(Acknowledged::from));
        };
        let id = self.transaction_id(sequence);
        let result = result.map(|_| self.settled_outcome(wanted)).map_err(OutcomeError::from);
        self.outbox.push(Output::Outcome { id, result });
    }

    /// Answers an own transaction.
    pub(super) fn complete_with(
        &mut self,
        sequence: u64,
        result: Result<Acknowledged, CommitError>,
    ) {
        let id = self.transaction_id(sequence);
        self.outbox.push(Output::Complete { id, result });
    }

    /// Answers who called a procedure.
    fn complete_call(
        &mut self,
        answer: Option<CallAnswer>,
        sequence: u64,
        result: Result<Index, CommitError>,
    ) {
        let id = self.transaction_id(sequence);
        let result = match (answer, result) {
            (Some(CallAnswer::Failed(error)), _) => Err(error),
            (Some(CallAnswer::Done(bytes)), Ok(index)) => Ok(CallResult { bytes, index }),
            (None, Ok(index)) => Err(CallError::ResultLost { index }),
            (_, Err(error)) => Err(error.into()),
        };
        self.outbox.push(Output::Called { id, result });
    }

    /// Answers an operator, unless the change is in the log: then its effect is waited for.
    fn complete_errand(
        &mut self,
        errand: &Errand,
        sequence: u64,
        result: Result<Index, CommitError>,
    ) {
        let in_doubt = matches!(result, Err(CommitError::InDoubt(_)));
        if let Err(error) = result {
            let limit_ms = self.settings.commit_limit_ms;
            self.admin_refused(errand.token, error_of_commit(error, limit_ms));
        }
        if !in_doubt {
            self.settled(sequence, None);
        }
    }

    /// Answers an operator.
    pub(super) fn admin_answer(&mut self, token: u64, answer: AdminAnswer) {
        self.outbox.push(Output::AdminAnswer { token, answer });
    }

    /// Tells an operator why not.
    pub(super) fn admin_refused(&mut self, token: u64, error: AdminError) {
        self.admin_answer(token, AdminAnswer::Refused(error));
    }

    /// An own transaction is committed, applied and visible, and goes on waiting for others.
    pub(super) fn through(&mut self, sequence: u64) {
        let id = self.transaction_id(sequence);
        self.outbox.push(Output::Through { id });
    }

    /// What the state says of a transaction that is settled.
    fn settled_outcome(&self, id: TransactionId) -> Outcome {
        match self.applier.outcome(id) {
            // Only the memory of an origin that was forgotten for newer ones can be gone so soon.
            Outcome::Unknown => Outcome::NotCommitted,
            outcome => outcome,
        }
    }

    /// Answers a local reader.
    pub(super) fn fresh(&mut self, token: u64, result: Result<Index, FreshError>) {
        self.outbox.push(Output::Fresh { token, result });
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
