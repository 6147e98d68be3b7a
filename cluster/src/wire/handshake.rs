//! The handshake: who calls, and the answer. Nothing else counts on a connection before it.
//!
//! The dialer says [`Hello`]; the other side answers with a [`Welcome`] or a [`RejectReason`]. A
//! ping that bears the welcome's connection epoch shows that the dialer is no replay; then messages
//! flow.
//! Whether to welcome is decided by the transport; here are only the words and their bytes.

use quorate_consensus::{Identity, Incarnation, NodeId};
use quorate_schema::bytes::{Malformed, Reader, Writer};

use super::frame::{VERSION, VERSION_MIN};
use crate::epoch::Epoch;
use crate::error::RejectReason;
use crate::replica::Channel;

/// First bytes of every [`Hello`], "QUORATE1": a stranger is told apart at once.
const MAGIC: u64 = u64::from_le_bytes(*b"QUORATE1");

/// What a node says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Card {
    /// Which node, and which of its lives.
    pub identity: Identity,
    /// 128 random bits made at every start of the process: tells two processes apart that claim the
    /// same identity.
    pub nonce: u128,
    /// Its cluster, 0 while it has none.
    pub cluster_id: u128,
    /// The cluster's epoch.
    pub epoch: Epoch,
    /// Digest of its dictionary.
    pub dictionary: u128,
    /// Length of its node list.
    pub node_count: u32,
}

/// What the dialer says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The oldest protocol version it speaks.
    pub version_min: u16,
    /// The newest.
    pub version_max: u16,
    /// Who it is.
    pub card: Card,
    /// Whom it expects to reach.
    pub to: NodeId,
    /// What the connection is for.
    pub channel: Channel,
}

/// What the other side answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The protocol version to speak.
    pub version: u16,
    /// Who it is.
    pub card: Card,
    /// Random bits that every frame of this connection carries from now on.
    pub connection_epoch: u64,
}

impl Hello {
    /// Says hello in the versions this program speaks.
    pub fn new(card: Card, to: NodeId, channel: Channel) -> Self {
        Self { version_min: VERSION_MIN, version_max: VERSION, card, to, channel }
    }

    /// The newest version that both sides speak.
    pub fn common_version(&self) -> Option<u16> {
        let common = self.version_max.min(VERSION);
        (common >= self.version_min && common >= VERSION_MIN).then_some(common)
    }

    /// Appends its bytes.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u64(MAGIC);
        writer.u16(self.version_min);
        writer.u16(self.version_max);
        self.card.encode(writer);
        writer.u32(self.to.0);
        writer.u8(channel_code(self.channel));
    }

    /// Reads it back. A later version may append fields; they are left alone here.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        if reader.u64()? != MAGIC {
            return Err(reader.malformed("a hello starts with QUORATE1"));
        }
        Ok(Self {
            version_min: reader.u16()?,
            version_max: reader.u16()?,
            card: Card::decode(reader)?,
            to: NodeId(reader.u32()?),
            channel: match reader.u8()? {
                0 => Channel::Control,
                1 => Channel::Bulk,
                2 => Channel::State,
                _ => return Err(reader.malformed("no such channel")),
            },
        })
    }
}

impl Welcome {
    /// Appends its bytes.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u16(self.version);
        self.card.encode(writer);
        writer.u64(self.connection_epoch);
    }

    /// Reads it back.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let version = reader.u16()?;
        if !(VERSION_MIN..=VERSION).contains(&version) {
            return Err(reader.malformed("welcomed in a version that was not offered"));
        }
        let card = Card::decode(reader)?;
        Ok(Self { version, card, connection_epoch: reader.u64()? })
    }
}

impl Card {
    fn encode(&self, writer: &mut Writer) {
        writer.u32(self.identity.node.0);
        writer.u128(self.identity.incarnation.0);
        writer.u128(self.nonce);
        writer.u128(self.cluster_id);
        encode_epoch(self.epoch, writer);
        writer.u128(self.dictionary);
        writer.u32(self.node_count);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let node = NodeId(reader.u32()?);
        let incarnation = Incarnation(reader.u128()?);
        Ok(Self {
            identity: Identity { node, incarnation },
            nonce: reader.u128()?,
            cluster_id: reader.u128()?,
            epoch: decode_epoch(reader)?,
            dictionary: reader.u128()?,
            node_count: reader.u32()?,
        })
    }
}

/// Appends a reason.
pub fn encode_reject(reason: &RejectReason, writer: &mut Writer) {
    match *reason {
        RejectReason::VersionUnsupported { min, max } => {
            writer.u8(1);
            writer.u16(min);
            writer.u16(max);
        }
        RejectReason::OtherCluster { cluster_id } => {
            writer.u8(2);
            writer.u128(cluster_id);
        }
        RejectReason::OtherEpoch { epoch } => {
            writer.u8(3);
            encode_epoch(epoch, writer);
        }
        RejectReason::OtherDictionary { digest } => {
            writer.u8(4);
            writer.u128(digest);
        }
        RejectReason::DuplicateNode => writer.u8(5),
        RejectReason::UnknownNode { nodes } => {
            writer.u8(6);
            writer.u32(nodes);
        }
        RejectReason::NodesDiffer { nodes } => {
            writer.u8(7);
            writer.u32(nodes);
        }
        RejectReason::WrongNode { node } => {
            writer.u8(8);
            writer.u32(node.0);
        }
        RejectReason::SelfConnection => writer.u8(9),
        RejectReason::WrongDirection => writer.u8(10),
        RejectReason::ShuttingDown => writer.u8(11),
        RejectReason::TooManyConnections { limit } => {
            writer.u8(12);
            writer.u32(limit);
        }
        RejectReason::ForkedEpoch { epoch } => {
            writer.u8(13);
            encode_epoch(epoch, writer);
        }
        RejectReason::Removed => writer.u8(14),
    }
}

/// Reads a reason back.
pub fn decode_reject(reader: &mut Reader<'_>) -> Result<RejectReason, Malformed> {
    Ok(match reader.u8()? {
        1 => RejectReason::VersionUnsupported { min: reader.u16()?, max: reader.u16()? },
        2 => RejectReason::OtherCluster { cluster_id: reader.u128()? },
        3 => RejectReason::OtherEpoch { epoch: decode_epoch(reader)? },
        4 => RejectReason::OtherDictionary { digest: reader.u128()? },
        5 => RejectReason::DuplicateNode,
        6 => RejectReason::UnknownNode { nodes: reader.u32()? },
        7 => RejectReason::NodesDiffer { nodes: reader.u32()? },
        8 => RejectReason::WrongNode { node: NodeId(reader.u32()?) },
        9 => RejectReason::SelfConnection,
        10 => RejectReason::WrongDirection,
        11 => RejectReason::ShuttingDown,
        12 => RejectReason::TooManyConnections { limit: reader.u32()? },
        13 => RejectReason::ForkedEpoch { epoch: decode_epoch(reader)? },
        14 => RejectReason::Removed,
        _ => return Err(reader.malformed("no such reason")),
    })
}

/// Appends an epoch.
pub(super) fn encode_epoch(epoch: Epoch, writer: &mut Writer) {
    writer.u64(epoch.counter);
    writer.u64(epoch.bits);
}

/// Reads an epoch back.
pub(super) fn decode_epoch(reader: &mut Reader<'_>) -> Result<Epoch, Malformed> {
    Ok(Epoch { counter: reader.u64()?, bits: reader.u64()? })
}

fn channel_code(channel: Channel) -> u8 {
    match channel {
        Channel::Control => 0,
        Channel::Bulk => 1,
        Channel::State => 2,
    }
}
