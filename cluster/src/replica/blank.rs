//! Forming: how configured nodes without state become a cluster, in two steps.
//!
//! The lowest node id proposes a beginning (cluster id, identities, ranks) once it is linked to
//! every configured node and all are blank. Each promises it, one promise at a time, dropped when
//! the proposer's link breaks. With all promises in hand the proposer *is* a member, and says so;
//! whoever finds its own identity in a member's beginning starts too. That stays safe however late
//! it comes: the identity is in the configuration, and it has forgotten nothing, because it never
//! was anything. Whoever restarts meanwhile has a new identity, finds members, and joins them.
//! There is no way to form with fewer nodes.

use std::collections::BTreeSet;

use quorate_consensus::{Identity, Member, NodeId, Ticks};

use super::message::{DeclineReason, Genesis, PeerMessage, Standing};
use super::node::Node;
use crate::epoch::Epoch;
use crate::error::ClusterError;

/// What a node without state has said so far.
#[derive(Debug, Default)]
pub(super) struct Blank {
    /// The beginning this node promised, and to whom. One at a time.
    promise: Option<(Identity, Genesis)>,
    /// The beginning this node proposes, and who promised it.
    proposal: Option<(Genesis, BTreeSet<NodeId>)>,
    /// How many beginnings this node has proposed; makes their ids differ.
    proposals: u32,
    /// When it last repeated what it says, because messages can be lost.
    said_at: Ticks,
}

/// How often a node without state repeats what it said, ms.
const REPEAT_MS: Ticks = 100;

/// What follows for the stage.
#[derive(Debug)]
pub(super) enum Next {
    /// Nothing.
    Stay,
    /// The node is a member of a cluster that begins like this.
    Start(Genesis),
    /// There is a cluster without this identity: ask it.
    Join(Genesis, Epoch),
    /// Waiting cannot help.
    Fail(ClusterError),
}

impl Blank {
    /// Proposes as soon as everybody is there and blank.
    pub(super) fn try_propose(&mut self, node: &mut Node, seed: u128) -> Next {
        if node.identity().node != NodeId(0) || self.proposal.is_some() {
            return Next::Stay;
        }
        let blank = |link: &super::node::Link| link.standing == Some(Standing::Blank);
        let others = node.settings.ranks.len() - 1;
        if node.links.len() < others || !node.links.values().all(blank) {
            return Next::Stay;
        }
        // A node that is not listed here belongs to a cluster, whatever it says of itself.
        let listed = |id: &NodeId| (id.0 as usize) < node.settings.ranks.len();
        if !node.links.keys().all(listed) {
            return Next::Stay;
        }
        self.proposals += 1;
        let cluster_id = seed.wrapping_add(u128::from(self.proposals)).max(1);
        let members = members(node);
        let addresses = node.roster.iter().map(|(_, listed)| listed.addr.clone()).collect();
        let genesis = Genesis { cluster_id, members, addresses };
        if others == 0 {
            return Next::Start(genesis);
        }
        node.broadcast(&PeerMessage::Form(genesis.clone()));
        self.proposal = Some((genesis, BTreeSet::new()));
        Next::Stay
    }

    /// Says again what it is and what it proposes: a member answers with what it belongs to.
    pub(super) fn repeat(&mut self, node: &mut Node) {
        if node.now < self.next_repeat() {
            return;
        }
        self.said_at = node.now;
        node.broadcast(&PeerMessage::Standing(Standing::Blank));
        if let Some((genesis, _)) = &self.proposal {
            node.broadcast(&PeerMessage::Form(genesis.clone()));
        }
    }

    pub(super) fn next_repeat(&self) -> Ticks {
        self.said_at + REPEAT_MS
    }

    pub(super) fn link_broke(&mut self, peer: Identity) {
        if self.promise.as_ref().is_some_and(|(proposer, _)| *proposer == peer) {
            self.promise = None;
        }
        self.proposal = None;
    }

    pub(super) fn receive(
        &mut self,
        node: &mut Node,
        from: Identity,
        message: PeerMessage,
    ) -> Next {
        match message {
            PeerMessage::Form(genesis) => self.promise(node, from, genesis),
            PeerMessage::Promised { cluster_id } => self.promised(node, from, cluster_id),
            PeerMessage::Declined { reason: DeclineReason::NodesDiffer { node } } => {
                Next::Fail(ClusterError::NodesDiffer { peer: from.node, node })
            }
            PeerMessage::Removed => Next::Fail(ClusterError::Removed),
            PeerMessage::Standing(Standing::Member(genesis, epoch)) => {
                let identity = node.identity();
                let named = genesis.members.iter().any(|member| member.identity == identity);
                if named && epoch == Epoch::default() {
                    Next::Start(genesis)
                } else {
                    Next::Join(genesis, epoch)
                }
            }
            _ => Next::Stay,
        }
    }

    fn promise(&mut self, node: &mut Node, from: Identity, genesis: Genesis) -> Next {
        if let Some(differs) = first_difference(&node.settings.ranks, &genesis) {
            let reason = DeclineReason::NodesDiffer { node: differs };
            node.send(from, PeerMessage::Declined { reason });
            return Next::Fail(ClusterError::NodesDiffer { peer: from.node, node: differs });
        }
        let identity = node.identity();
        let includes_both = [identity, from]
            .iter()
            .all(|wanted| genesis.members.iter().any(|member| member.identity == *wanted));
        let promised_elsewhere =
            self.promise.as_ref().is_some_and(|(proposer, _)| *proposer != from);
        if !includes_both || promised_elsewhere || genesis.cluster_id == 0 {
            return Next::Stay;
        }
        let cluster_id = genesis.cluster_id;
        self.promise = Some((from, genesis));
        node.send(from, PeerMessage::Promised { cluster_id });
        Next::Stay
    }

    fn promised(&mut self, node: &Node, from: Identity, cluster_id: u128) -> Next {
        let Some((genesis, promised)) = &mut self.proposal else { return Next::Stay };
        let named = genesis.members.iter().any(|member| member.identity == from);
        if genesis.cluster_id != cluster_id || !named {
            return Next::Stay;
        }
        promised.insert(from.node);
        if promised.len() + 1 < node.settings.ranks.len() {
            return Next::Stay;
        }
        Next::Start(genesis.clone())
    }
}

/// The members of a cluster that would begin now.
fn members(node: &Node) -> Vec<Member> {
    let own = node.identity();
    let linked = node.links.values().map(|link| link.identity);
    let mut members: Vec<Member> = std::iter::once(own)
        .chain(linked)
        .map(|identity| Member { identity, rank: node.settings.ranks[identity.node.0 as usize] })
        .collect();
    members.sort_by_key(|member| member.identity);
    members
}

/// The first node about which this node's list and a proposed beginning disagree.
fn first_difference(ranks: &[u32], genesis: &Genesis) -> Option<NodeId> {
    let proposed = |position: usize| genesis.members.get(position);
    (0..ranks.len().max(genesis.members.len()))
        .find(|&position| match (ranks.get(position), proposed(position)) {
            (Some(rank), Some(member)) => {
                *rank != member.rank || member.identity.node.0 as usize != position
            }
            _ => true,
        })
        .map(|position| NodeId(position as u32))
}
