//! What can happen next. Must never change anything: that is `world`'s.

use std::sync::Arc;

use crate::network::Packet;

/// One thing that happens to a cluster. Nodes are named by their place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A message arrives; it can arrive again.
    Deliver(Arc<Packet>),
    /// A node loses patience with its leader, or with its own campaign.
    Campaign(usize),
    /// A leader gives a sign of life.
    Heartbeat(usize),
    /// A leader has heard nobody for an election timeout.
    FindSilence(usize),
    /// A client's window reaches a leader.
    Propose(usize),
    /// A leader is asked to make the target of this number the members.
    Change(usize, usize),
    /// A leader is asked to hand over to another node.
    Transfer(usize, usize),
    /// A leader is asked for a fresh read.
    Read(usize),
    /// A node forgets the entries that it has committed.
    Compact(usize),
    /// The oldest write of a node becomes durable.
    Sync(usize),
    /// A node dies and restarts. Of the writes under way so many had reached the disk.
    Crash(usize, usize),
    /// A node dies and returns with nothing, as somebody else.
    Forget(usize),
}
