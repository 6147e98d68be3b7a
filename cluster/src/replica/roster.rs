//! The roster: which nodes belong to the cluster by the will of its operators, with which rank,
//! and where they are. Replicated state, changed by log entries only.
//!
//! The *configuration* of consensus says who counts now; the roster says who should. The leader
//! brings the one into line with the other, step by safe step: a node that is down keeps its place
//! here, and gets its rank back under whatever incarnation it returns.
//!
//! Invariants: ids are given out once and never again; some node has a rank; at most
//! [`NODES_MAX`] nodes are listed. Equal on all nodes at equal index.

use quorate_consensus::NodeId;
use quorate_schema::bytes::{Malformed, Reader, Writer};
use thiserror::Error;

use crate::address::Address;
use crate::params::{NODES_MAX, RANK_TOTAL_MAX};

/// Ids that can be given out in the life of a cluster.
pub const NODE_IDS_MAX: usize = 1024;

/// The longest address, bytes.
const ADDR_BYTES_MAX: usize = 512;

/// One node of the roster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RosterNode {
    /// Where it listens.
    pub addr: String,
    /// True once an operator set the address: then it goes before what a node's own list says.
    pub revised: bool,
    /// The rank it should have.
    pub rank: u32,
}

/// All nodes, by id. `None` was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    nodes: Vec<Option<RosterNode>>,
}

/// One change, as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RosterChange {
    /// A new node, under the next id.
    Add {
        /// Where it listens.
        addr: String,
        /// The rank it gets once it holds the state.
        rank: u32,
    },
    /// The node is no longer part of the cluster; its id is not given out again.
    Remove {
        /// Which.
        node: NodeId,
    },
    /// The node's rank.
    SetRank {
        /// Which.
        node: NodeId,
        /// From now on.
        rank: u32,
    },
    /// The node's address, from its next start.
    SetAddress {
        /// Which.
        node: NodeId,
        /// From now on.
        addr: String,
    },
}

/// Why a change of the roster cannot be. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RosterError {
    /// No such node, or it was removed.
    #[error("no node {node} is listed; list them with the cluster's status")]
    UnknownNode {
        /// The id given.
        node: NodeId,
    },
    /// Nobody would be left to decide anything.
    #[error("no node would have a rank any more; give another node a rank first")]
    NoRank,
    /// The cluster is as large as it can be.
    #[error("{limit} nodes are listed, which is as many as can be; remove one first")]
    TooManyNodes {
        /// The limit.
        limit: u32,
    },
    /// The ranks add up to too much.
    #[error("the ranks would add up to more than {limit}; lower one")]
    RankOverflow {
        /// The limit.
        limit: u64,
    },
    /// The address cannot be understood.
    #[error("the address cannot be used; give host:port, [ipv6]:port or unix:/path")]
    MalformedAddress,
    /// Another node has the address.
    #[error("node {node} has this address")]
    DuplicateAddress {
        /// Which.
        node: NodeId,
    },
    /// It is so already.
    #[error("it is so already; nothing to do")]
    Unchanged,
}

impl Roster {
    /// The roster a cluster begins with.
    pub fn new(nodes: impl IntoIterator<Item = (String, u32)>) -> Self {
        let node = |(addr, rank)| Some(RosterNode { addr, revised: false, rank });
        Self { nodes: nodes.into_iter().map(node).collect() }
    }

    /// A listed node.
    pub fn get(&self, node: NodeId) -> Option<&RosterNode> {
        self.nodes.get(node.0 as usize)?.as_ref()
    }

    /// The rank a node should have; `None` if it is not listed.
    pub fn rank(&self, node: NodeId) -> Option<u32> {
        self.get(node).map(|listed| listed.rank)
    }

    /// True if the node was listed once and is no more.
    pub fn is_removed(&self, node: NodeId) -> bool {
        self.nodes.get(node.0 as usize).is_some_and(Option::is_none)
    }

    /// The id of the next new node, and one more than any given out.
    pub fn next_id(&self) -> NodeId {
        NodeId(self.nodes.len() as u32)
    }

    /// All listed nodes.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &RosterNode)> {
        let ids = (0..).map(NodeId);
        ids.zip(&self.nodes).filter_map(|(id, node)| Some((id, node.as_ref()?)))
    }

    /// The nodes that were not listed like this before, with the rank they have here; none if they
    /// are not listed. Addresses that no operator set are each node's own matter.
    pub fn changed_from(&self, before: &Roster) -> Vec<(NodeId, Option<u32>)> {
        let same = |old: Option<&RosterNode>, new: Option<&RosterNode>| match (old, new) {
            (Some(old), Some(new)) => {
                old.rank == new.rank && (old.addr == new.addr || !new.revised)
            }
            (old, new) => old.is_none() && new.is_none(),
        };
        (0..self.nodes.len().max(before.nodes.len()) as u32)
            .map(NodeId)
            .filter(|id| !same(before.get(*id), self.get(*id)))
            .map(|id| (id, self.rank(id)))
            .collect()
    }

    /// Makes a change. The same everywhere: a function of the roster and the change alone.
    ///
    /// # Errors
    /// [`RosterError`], and nothing changed.
    pub fn apply(&mut self, change: &RosterChange) -> Result<(), RosterError> {
        let mut next = self.clone();
        next.make(change)?;
        next.check()?;
        if next == *self {
            return Err(RosterError::Unchanged);
        }
        *self = next;
        Ok(())
    }

    fn make(&mut self, change: &RosterChange) -> Result<(), RosterError> {
        match change {
            RosterChange::Add { addr, rank } => {
                self.check_address(addr, self.next_id())?;
                if self.nodes.len() >= NODE_IDS_MAX {
                    return Err(RosterError::TooManyNodes { limit: NODE_IDS_MAX as u32 });
                }
                let node = RosterNode { addr: addr.clone(), revised: true, rank: *rank };
                self.nodes.push(Some(node));
            }
            RosterChange::Remove { node } => {
                self.get(*node).ok_or(RosterError::UnknownNode { node: *node })?;
                self.nodes[node.0 as usize] = None;
            }
            RosterChange::SetRank { node, rank } => self.listed(*node)?.rank = *rank,
            RosterChange::SetAddress { node, addr } => {
                self.check_address(addr, *node)?;
                let listed = self.listed(*node)?;
                listed.addr.clone_from(addr);
                listed.revised = true;
            }
        }
        Ok(())
    }

    fn listed(&mut self, node: NodeId) -> Result<&mut RosterNode, RosterError> {
        let listed = self.nodes.get_mut(node.0 as usize).and_then(Option::as_mut);
        listed.ok_or(RosterError::UnknownNode { node })
    }

    fn check(&self) -> Result<(), RosterError> {
        if self.iter().count() > NODES_MAX {
            return Err(RosterError::TooManyNodes { limit: NODES_MAX as u32 });
        }
        match self.iter().map(|(_, node)| u64::from(node.rank)).sum() {
            0 => Err(RosterError::NoRank),
            RANK_TOTAL_MAX.. => Err(RosterError::RankOverflow { limit: RANK_TOTAL_MAX }),
            _ => Ok(()),
        }
    }

    fn check_address(&self, addr: &str, of: NodeId) -> Result<(), RosterError> {
        if addr.len() > ADDR_BYTES_MAX {
            return Err(RosterError::MalformedAddress);
        }
        Address::parse(addr).map_err(|_| RosterError::MalformedAddress)?;
        match self.iter().find(|(id, node)| *id != of && node.addr == addr) {
            Some((node, _)) => Err(RosterError::DuplicateAddress { node }),
            None => Ok(()),
        }
    }

    /// Appends its bytes.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u32(self.nodes.len() as u32);
        for node in &self.nodes {
            match node {
                None => writer.u8(0),
                Some(RosterNode { addr, revised, rank }) => {
                    writer.u8(1 + u8::from(*revised));
                    writer.str(addr);
                    writer.u32(*rank);
                }
            }
        }
    }

    /// Reads it back.
    ///
    /// # Errors
    /// [`Malformed`] for what breaks an invariant.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = reader.count(1)?;
        if count > NODE_IDS_MAX {
            return Err(reader.malformed("a roster of too many ids"));
        }
        let mut nodes = Vec::with_capacity(count);
        for _ in 0..count {
            let kind = reader.u8()?;
            nodes.push(match kind {
                0 => None,
                1 | 2 => {
                    let addr = text(reader)?;
                    Some(RosterNode { addr, revised: kind == 2, rank: reader.u32()? })
                }
                _ => return Err(reader.malformed("no such place in a roster")),
            });
        }
        let roster = Self { nodes };
        roster.check().map_err(|_| reader.malformed("a roster that no cluster has"))?;
        Ok(roster)
    }
}

impl RosterError {
    /// Appends its bytes.
    pub fn encode(&self, writer: &mut Writer) {
        let (code, number) = match *self {
            Self::UnknownNode { node } => (1, u64::from(node.0)),
            Self::NoRank => (2, 0),
            Self::TooManyNodes { limit } => (3, u64::from(limit)),
            Self::RankOverflow { limit } => (4, limit),
            Self::MalformedAddress => (5, 0),
            Self::DuplicateAddress { node } => (6, u64::from(node.0)),
            Self::Unchanged => (7, 0),
        };
        writer.u8(code);
        writer.u64(number);
    }

    /// Reads it back.
    ///
    /// # Errors
    /// [`Malformed`] for bytes that are no such error.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (code, number) = (reader.u8()?, reader.u64()?);
        let short = u32::try_from(number).map_err(|_| reader.malformed("a number too large"));
        Ok(match code {
            1 => Self::UnknownNode { node: NodeId(short?) },
            2 => Self::NoRank,
            3 => Self::TooManyNodes { limit: short? },
            4 => Self::RankOverflow { limit: number },
            5 => Self::MalformedAddress,
            6 => Self::DuplicateAddress { node: NodeId(short?) },
            7 => Self::Unchanged,
            _ => return Err(reader.malformed("no such reason to keep the roster")),
        })
    }
}

impl RosterChange {
    /// The node it is about; `None` for a new one.
    pub fn node(&self) -> Option<NodeId> {
        match self {
            Self::Add { .. } => None,
            Self::Remove { node } | Self::SetRank { node, .. } | Self::SetAddress { node, .. } => {
                Some(*node)
            }
        }
    }

    /// Appends its bytes.
    pub fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Add { addr, rank } => {
                writer.u8(1);
                writer.str(addr);
                writer.u32(*rank);
            }
            Self::Remove { node } => {
                writer.u8(2);
                writer.u32(node.0);
            }
            Self::SetRank { node, rank } => {
                writer.u8(3);
                writer.u32(node.0);
                writer.u32(*rank);
            }
            Self::SetAddress { node, addr } => {
                writer.u8(4);
                writer.u32(node.0);
                writer.str(addr);
            }
        }
    }

    /// Reads it back.
    ///
    /// # Errors
    /// [`Malformed`] for bytes that are no change.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match reader.u8()? {
            1 => Self::Add { addr: text(reader)?, rank: reader.u32()? },
            2 => Self::Remove { node: NodeId(reader.u32()?) },
            3 => Self::SetRank { node: NodeId(reader.u32()?), rank: reader.u32()? },
            4 => Self::SetAddress { node: NodeId(reader.u32()?), addr: text(reader)? },
            _ => return Err(reader.malformed("no such change of the roster")),
        })
    }
}

/// An address, or any text as short.
fn text(reader: &mut Reader<'_>) -> Result<String, Malformed> {
    let text = reader.str()?;
    if text.len() > ADDR_BYTES_MAX {
        return Err(reader.malformed("an address that is too long"));
    }
    Ok(text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Roster {
        Roster::new((0..3).map(|node| (format!("127.0.0.1:{}", 7000 + node), 1)))
    }

    fn add(port: u32) -> RosterChange {
        RosterChange::Add { addr: format!("127.0.0.1:{port}"), rank: 1 }
    }

    #[test]
    fn ids_are_given_out_once() {
        let mut roster = three();
        roster.apply(&add(7003)).expect("a fourth");
        roster.apply(&RosterChange::Remove { node: NodeId(3) }).expect("it is listed");
        assert!(roster.is_removed(NodeId(3)) && roster.rank(NodeId(3)).is_none());
        roster.apply(&add(7003)).expect("the address is free again");
        assert_eq!(roster.rank(NodeId(4)), Some(1));
        let again = roster.apply(&RosterChange::SetRank { node: NodeId(3), rank: 1 });
        assert_eq!(again, Err(RosterError::UnknownNode { node: NodeId(3) }));
    }

    #[test]
    fn what_would_leave_nobody_to_decide_is_refused() {
        let mut roster = three();
        for node in 0..2 {
            roster.apply(&RosterChange::SetRank { node: NodeId(node), rank: 0 }).expect("others");
        }
        let before = roster.clone();
        let last = [
            RosterChange::Remove { node: NodeId(2) },
            RosterChange::SetRank { node: NodeId(2), rank: 0 },
        ];
        for change in last {
            assert_eq!(roster.apply(&change), Err(RosterError::NoRank));
        }
        assert_eq!(roster, before);
    }

    #[test]
    fn an_address_is_checked_and_belongs_to_one_node() {
        let mut roster = three();
        let taken = RosterChange::SetAddress { node: NodeId(1), addr: "127.0.0.1:7000".into() };
        assert_eq!(roster.apply(&taken), Err(RosterError::DuplicateAddress { node: NodeId(0) }));
        let bad = RosterChange::SetAddress { node: NodeId(1), addr: "nowhere".into() };
        assert_eq!(roster.apply(&bad), Err(RosterError::MalformedAddress));
        let same = RosterChange::SetRank { node: NodeId(1), rank: 1 };
        assert_eq!(roster.apply(&same), Err(RosterError::Unchanged));
    }

    #[test]
    fn bytes_come_back_and_cut_ones_do_not() {
        let mut roster = three();
        roster.apply(&add(7003)).expect("a fourth");
        roster.apply(&RosterChange::Remove { node: NodeId(0) }).expect("listed");
        let mut writer = Writer::new();
        roster.encode(&mut writer);
        let bytes = writer.finish();
        assert_eq!(Roster::decode(&mut Reader::new(&bytes)).expect("its own bytes"), roster);
        for length in 0..bytes.len() {
            assert!(Roster::decode(&mut Reader::new(&bytes[..length])).is_err(), "cut at {length}");
        }
    }
}
