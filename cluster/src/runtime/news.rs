//! What the node's log of events says about consensus: role, term, leader, members, images.
//!
//! The replica is pure and traces nothing; the runtime looks at it after each turn and says what
//! changed. Nothing here happens once a transaction: the levels above `debug` stay quiet while all
//! is well.

use quorate_consensus::{EntryIndex, NodeId, Role, Term};
use tracing::info;

use crate::replica::{Counters, Replica};

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct News {
    standing: Option<Standing>,
    config: EntryIndex,
    images_sent: u64,
    images_installed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    role: Role,
    term: Term,
    leader: Option<NodeId>,
}

impl News {
    /// Traces what changed since the last look.
    pub(super) fn look(&mut self, own: NodeId, replica: &Replica) {
        let Some(core) = replica.core() else { return };
        let leader = core.leader().map(|leader| leader.node);
        let standing = Standing { role: core.role(), term: core.term(), leader };
        if self.standing.replace(standing) != Some(standing) {
            let Standing { role, term, leader } = standing;
            let leader = leader.map(|leader| leader.0);
            info!(node = own.0, ?role, term = term.0, leader, "role, term or leader changed");
        }
        let (config_at, config) = core.committed_config();
        if self.config != config_at {
            self.config = config_at;
            let joint = config.is_joint();
            let ranks: Vec<(u32, u32)> =
                config.current.iter().map(|member| (member.identity.node.0, member.rank)).collect();
            info!(node = own.0, entry = config_at.0, joint, ?ranks, "members committed");
        }
        let Counters { images_sent, images_installed, .. } = replica.counters();
        if self.images_sent != images_sent {
            self.images_sent = images_sent;
            info!(node = own.0, images_sent, "an image is on its way to another node");
        }
        if self.images_installed != images_installed {
            self.images_installed = images_installed;
            info!(node = own.0, images_installed, "an image took the place of this node's state");
        }
    }
}
