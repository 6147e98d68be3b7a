//! New incarnations.
//!
//! A node that lost its state comes back as a new member: it asks (`Join`), the leader puts its
//! new identity into the configuration with rank 0, sends it an image and then the log, and when
//! it has caught up one change moves the rank from the old incarnation to the new one (joint, by
//! consensus's own rule). Nothing the forgotten self ever said counts towards the new identity,
//! and the new one counts in no quorum before that change.
//!
//! The old incarnation is known to be gone because at most one link a node exists: a peer is
//! linked to the new one only after the old link closed or fell silent.

use quorate_consensus::{EntryIndex, Identity, Input as CoreInput, Member as ConfigMember};

use super::super::message::{DeclineReason, PeerMessage, Standing};
use super::super::node::{Ending, Node};
use super::Member;

/// An incarnation that asked to be taken in, or to get its rank.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    /// What was committed when it was first seen to hold state: it has caught up once it matches
    /// that, however fast the log goes on.
    target: Option<EntryIndex>,
}

impl Member {
    /// The leader takes in who asked, one configuration change at a time.
    pub(super) fn admit(&mut self, node: &mut Node) {
        // A state that may be wrong must get no new supporters.
        let disputed = self.digests.is_disputed();
        if !self.is_leading() || !self.core.has_committed_in_term() || disputed {
            return;
        }
        let joiners: Vec<Identity> = self.joiners.keys().copied().collect();
        for joiner in joiners {
            if !node.is_linked(joiner) {
                self.joiners.remove(&joiner);
                continue;
            }
            if self.core.pending_config() {
                return;
            }
            self.admit_one(node, joiner);
        }
        self.reconcile(node);
    }

    /// Who was taken out of the configuration while it was not linked, because another self of its
    /// node came or went, cannot know that: it is told, and asks to be taken in. One that left asks
    /// for nothing, even if nobody noticed yet that its link is dead.
    pub(super) fn tell_outsiders(&mut self, node: &mut Node) {
        if !self.is_leading() || !self.core.has_committed_in_term() {
            return;
        }
        let config = self.core.config();
        let is_outside = |who: Identity, standing: &Option<Standing>| {
            // Who did not say what it is may be one; a newcomer takes no notice.
            !matches!(standing, Some(Standing::Blank | Standing::Joining { .. }))
                && !config.contains(who)
                && !self.farewell.wants_out(who)
                && node.roster.rank(who.node).is_some()
        };
        let links = node.links.values().filter(|link| is_outside(link.identity, &link.standing));
        for who in links.map(|link| link.identity).collect::<Vec<Identity>>() {
            node.send(who, PeerMessage::Left);
        }
    }

    /// A leader says that this node is out of the configuration.
    pub(super) fn told_left(&mut self, node: &Node) {
        if matches!(node.ending, Ending::Detach { .. }) {
            self.end_detached(node);
        } else if !self.is_leading() {
            // Who leads is in, whatever somebody knew when he said this.
            self.is_outside = true;
        }
    }

    /// A leader sends its log to members only: what it said of this node before is over, or was
    /// overtaken on its way. It says so again if not.
    pub(super) fn note_append(&mut self, from: Identity) {
        if self.core.leader() == Some(from) {
            self.is_outside = false;
        }
    }

    fn admit_one(&mut self, node: &mut Node, joiner: Identity) {
        if node.roster.rank(joiner.node).is_none() {
            self.joiners.remove(&joiner);
            let reason = DeclineReason::NotListed;
            node.send(joiner, PeerMessage::Declined { reason });
            return;
        }
        let config = self.core.config().current.clone();
        match config.iter().find(|member| member.identity == joiner) {
            None => {
                let mut members: Vec<ConfigMember> = config
                    .into_iter()
                    .filter(|member| member.identity.node != joiner.node || member.rank > 0)
                    .collect();
                members.push(ConfigMember { identity: joiner, rank: 0 });
                self.propose_config(node, members);
            }
            Some(member) if member.rank > 0 => {
                self.joiners.remove(&joiner);
            }
            Some(_) => self.bring_up(node, joiner, config),
        }
    }

    /// A learner that asked gets the state first, then its rank.
    fn bring_up(&mut self, node: &mut Node, joiner: Identity, config: Vec<ConfigMember>) {
        let holds_state = matches!(node.standing(joiner), Some(Standing::Member(..)));
        if !holds_state {
            self.start_image(node, joiner);
            return;
        }
        let commit = self.core.commit();
        let target = *self.joiners.entry(joiner).or_default().target.get_or_insert(commit);
        let matched = self.core.progress(joiner).map_or(EntryIndex(0), |p| p.matched);
        if matched < target {
            return;
        }
        let rank = node.roster.rank(joiner.node).unwrap_or(0);
        let mut members: Vec<ConfigMember> = config.clone();
        members.retain(|member| member.identity.node != joiner.node);
        members.push(ConfigMember { identity: joiner, rank });
        members.sort_by_key(|member| member.identity);
        if members == config {
            self.joiners.remove(&joiner); // a learner by the roster is all it can be
            return;
        }
        self.propose_config(node, members);
    }

    pub(super) fn propose_config(&mut self, node: &mut Node, mut members: Vec<ConfigMember>) {
        members.sort_by_key(|member| member.identity);
        self.drive(node, CoreInput::ProposeConfig { members });
    }

    /// True while this node's own rank is not what its node list says.
    pub(in super::super) fn wants_rank(&self, node: &Node) -> bool {
        if matches!(node.ending, Ending::Detach { .. }) {
            return false;
        }
        if self.is_outside {
            return true;
        }
        let wanted = node.roster.rank(node.identity().node);
        let own = self.applied_config.current.iter().find(|m| m.identity == node.identity());
        match own {
            Some(member) => member.rank == 0 && wanted.is_some_and(|rank| rank > 0),
            None => true,
        }
    }

    pub(super) fn ask_for_rank(&mut self, node: &mut Node) {
        if self.wants_rank(node) {
            // The leader must know that the state is here; what said so before may be lost.
            node.broadcast(&PeerMessage::Standing(self.standing(node)));
            node.broadcast(&PeerMessage::Join);
        }
    }
}
