//! The words of an admin connection: who calls, what an operator asks, what a node answers.
//!
//! Such a connection belongs to no node and to no link. It begins with an [`AdminHello`], answered
//! with an [`AdminWelcome`] or a [`RejectReason`](crate::RejectReason); then one request, one
//! answer, and so on.

use quorate_consensus::{NodeId, Role};
use quorate_engine::Index;
use quorate_schema::bytes::{Malformed, Reader, Writer};

use super::frame::{VERSION, VERSION_MIN};
use super::handshake::{decode_epoch, decode_reject, encode_epoch, encode_reject};
use crate::admin::{AdminAnswer, AdminError, AdminRequest, Recovery};
use crate::event::NodeInfo;
use crate::params::NODES_MAX;
use crate::replica::{Counters, Phase};
use crate::status::{ClusterMember, ClusterStatus};

/// First bytes of every [`AdminHello`], "QUORADM1".
const MAGIC: u64 = u64::from_le_bytes(*b"QUORADM1");

/// The longest request, bytes.
pub const ADMIN_REQUEST_BYTES_MAX: usize = 4 << 10;

/// The longest answer, bytes.
pub const ADMIN_ANSWER_BYTES_MAX: usize = 1 << 20;

/// The longest text in a request, bytes: the longest address has fewer.
pub const ADMIN_TEXT_BYTES_MAX: usize = 300;

/// What an operator's program says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminHello {
    /// The oldest protocol version it speaks.
    pub version_min: u16,
    /// The newest.
    pub version_max: u16,
}

/// What the node answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminWelcome {
    /// The protocol version to speak.
    pub version: u16,
    /// Who answers.
    pub node: NodeId,
    /// Random bits that every frame of this connection carries from now on.
    pub connection_epoch: u64,
}

impl Default for AdminHello {
    /// In the versions this program speaks.
    fn default() -> Self {
        Self { version_min: VERSION_MIN, version_max: VERSION }
    }
}

impl AdminHello {
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
    }

    /// Reads it back. A later version may append fields; they are left alone here.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        if reader.u64()? != MAGIC {
            return Err(reader.malformed("an admin hello starts with QUORADM1"));
        }
        Ok(Self { version_min: reader.u16()?, version_max: reader.u16()? })
    }
}

impl AdminWelcome {
    /// Appends its bytes.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u16(self.version);
        writer.u32(self.node.0);
        writer.u64(self.connection_epoch);
    }

    /// Reads it back.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let version = reader.u16()?;
        if !(VERSION_MIN..=VERSION).contains(&version) {
            return Err(reader.malformed("welcomed in a version that was not offered"));
        }
        Ok(Self { version, node: NodeId(reader.u32()?), connection_epoch: reader.u64()? })
    }
}

/// Appends a request.
pub fn encode_admin_request(request: &AdminRequest, writer: &mut Writer) {
    match request {
        AdminRequest::Status => writer.u8(1),
        AdminRequest::AddNode { addr, rank } => {
            writer.u8(2);
            writer.str(addr);
            writer.u32(*rank);
        }
        AdminRequest::RemoveNode { node } => {
            writer.u8(3);
            writer.u32(node.0);
        }
        AdminRequest::SetRank { node, rank } => {
            writer.u8(4);
            writer.u32(node.0);
            writer.u32(*rank);
        }
        AdminRequest::SetAddress { node, addr } => {
            writer.u8(5);
            writer.u32(node.0);
            writer.str(addr);
        }
        AdminRequest::TransferLeadership { to } => {
            writer.u8(6);
            writer.u32(to.0);
        }
        AdminRequest::Recover => writer.u8(7),
    }
}

/// Reads a request that fills `bytes`.
///
/// # Errors
///
/// [`Malformed`]: no operator's program sends this.
pub fn decode_admin_request(bytes: &[u8]) -> Result<AdminRequest, Malformed> {
    let mut reader = Reader::new(bytes);
    let request = match reader.u8()? {
        1 => AdminRequest::Status,
        2 => AdminRequest::AddNode { addr: short_text(&mut reader)?, rank: reader.u32()? },
        3 => AdminRequest::RemoveNode { node: NodeId(reader.u32()?) },
        4 => AdminRequest::SetRank { node: NodeId(reader.u32()?), rank: reader.u32()? },
        5 => {
            AdminRequest::SetAddress { node: NodeId(reader.u32()?), addr: short_text(&mut reader)? }
        }
        6 => AdminRequest::TransferLeadership { to: NodeId(reader.u32()?) },
        7 => AdminRequest::Recover,
        _ => return Err(reader.malformed("no such admin request")),
    };
    reader.finish()?;
    Ok(request)
}

/// Appends an answer.
pub fn encode_admin_answer(answer: &AdminAnswer, writer: &mut Writer) {
    match answer {
        AdminAnswer::Status(status) => {
            writer.u8(1);
            encode_status(status, writer);
        }
        AdminAnswer::Changed { index, node } => {
            writer.u8(2);
            writer.u64(index.0);
            writer.u32(node.0);
        }
        AdminAnswer::Transferred => writer.u8(3),
        AdminAnswer::Recovered(Recovery { epoch, index, survivor_index, may_be_lost }) => {
            writer.u8(4);
            encode_epoch(*epoch, writer);
            writer.u64(index.0);
            writer.u64(survivor_index.0);
            writer.str(may_be_lost);
        }
        AdminAnswer::Refused(error) => {
            writer.u8(5);
            encode_error(error, writer);
        }
    }
}

/// Reads an answer that fills `bytes`.
///
/// # Errors
///
/// [`Malformed`]: no correct node sends this.
pub fn decode_admin_answer(bytes: &[u8]) -> Result<AdminAnswer, Malformed> {
    let mut reader = Reader::new(bytes);
    let answer = match reader.u8()? {
        1 => AdminAnswer::Status(Box::new(decode_status(&mut reader)?)),
        2 => AdminAnswer::Changed { index: Index(reader.u64()?), node: NodeId(reader.u32()?) },
        3 => AdminAnswer::Transferred,
        4 => AdminAnswer::Recovered(Recovery {
            epoch: decode_epoch(&mut reader)?,
            index: Index(reader.u64()?),
            survivor_index: Index(reader.u64()?),
            may_be_lost: text(&mut reader)?,
        }),
        5 => AdminAnswer::Refused(decode_error(&mut reader)?),
        _ => return Err(reader.malformed("no such admin answer")),
    };
    reader.finish()?;
    Ok(answer)
}

fn encode_status(status: &ClusterStatus, writer: &mut Writer) {
    writer.str(&status.version);
    writer.u128(status.cluster_id);
    encode_epoch(status.epoch, writer);
    writer.u32(status.node_id.0);
    writer.u8(phase_code(status.phase));
    writer.u8(role_code(status.role));
    writer.u64(status.term);
    encode_node(status.leader, writer);
    writer.u8(status.quorum.into());
    writer.u8(status.ready.into());
    writer.u32(status.waiting_for.len() as u32);
    for (node, why) in &status.waiting_for {
        writer.u32(node.0);
        writer.str(why);
    }
    writer.u64(status.index.0);
    writer.u32(status.members.len() as u32);
    for member in &status.members {
        encode_member(member, writer);
    }
    writer.u64(status.log_entries.0);
    writer.u64(status.log_entries.1);
    let counters = status.counters.named();
    writer.u32(counters.len() as u32);
    for (name, count) in counters {
        writer.str(name);
        writer.u64(count);
    }
    writer.u64(status.callback_panics);
}

fn decode_status(reader: &mut Reader<'_>) -> Result<ClusterStatus, Malformed> {
    Ok(ClusterStatus {
        version: text(reader)?,
        cluster_id: reader.u128()?,
        epoch: decode_epoch(reader)?,
        node_id: NodeId(reader.u32()?),
        phase: decode_phase(reader)?,
        role: decode_role(reader)?,
        term: reader.u64()?,
        leader: decode_node(reader)?,
        quorum: flag(reader)?,
        ready: flag(reader)?,
        waiting_for: list(reader, |reader| Ok((NodeId(reader.u32()?), text(reader)?)))?,
        index: Index(reader.u64()?),
        members: list(reader, decode_member)?,
        log_entries: (reader.u64()?, reader.u64()?),
        counters: decode_counters(reader)?,
        callback_panics: reader.u64()?,
    })
}

/// Counts go by name, so that another version's, which are not known here, are left out.
fn decode_counters(reader: &mut Reader<'_>) -> Result<Counters, Malformed> {
    let mut counters = Counters::default();
    for _ in 0..reader.count(4 + 8)? {
        let name = reader.str()?;
        let count = reader.u64()?;
        counters.set(name, count);
    }
    Ok(counters)
}

fn encode_member(member: &ClusterMember, writer: &mut Writer) {
    writer.u32(member.info.node_id.0);
    writer.str(&member.info.addr);
    writer.u32(member.info.qrank);
    writer.u32(member.rank);
    writer.u8(member.joined.into());
    writer.u8(member.connected.into());
    writer.u8(member.refusal.is_some().into());
    if let Some(reason) = &member.refusal {
        encode_reject(reason, writer);
    }
}

fn decode_member(reader: &mut Reader<'_>) -> Result<ClusterMember, Malformed> {
    let node_id = NodeId(reader.u32()?);
    let info = NodeInfo { node_id, addr: text(reader)?, qrank: reader.u32()? };
    Ok(ClusterMember {
        info,
        rank: reader.u32()?,
        joined: flag(reader)?,
        connected: flag(reader)?,
        refusal: if flag(reader)? { Some(decode_reject(reader)?) } else { None },
    })
}

fn encode_error(error: &AdminError, writer: &mut Writer) {
    match error {
        AdminError::NoQuorum { reason } => {
            writer.u8(1);
            writer.str(reason);
        }
        AdminError::NotLeader { leader } => {
            writer.u8(2);
            encode_node(*leader, writer);
        }
        AdminError::NotMember => writer.u8(3),
        AdminError::UnknownNode { node } => {
            writer.u8(4);
            writer.u32(node.0);
        }
        AdminError::LastVoter { node } => {
            writer.u8(5);
            writer.u32(node.0);
        }
        AdminError::TooManyNodes { limit } => {
            writer.u8(6);
            writer.u32(u32::try_from(*limit).unwrap_or(u32::MAX));
        }
        AdminError::AddressTaken { addr, node } => {
            writer.u8(7);
            writer.str(addr);
            writer.u32(node.0);
        }
        AdminError::Busy => writer.u8(8),
        AdminError::CannotLead { node, reason } => {
            writer.u8(9);
            writer.u32(node.0);
            writer.str(reason);
        }
        AdminError::StillQuorum => writer.u8(10),
        AdminError::Invalid { what } => {
            writer.u8(11);
            writer.str(what);
        }
        AdminError::Unsupported { what } => {
            writer.u8(12);
            writer.str(what);
        }
        AdminError::TimedOut { limit_ms } => {
            writer.u8(13);
            writer.u64(*limit_ms);
        }
        AdminError::Stopped => writer.u8(14),
        AdminError::NotListening => writer.u8(15),
    }
}

fn decode_error(reader: &mut Reader<'_>) -> Result<AdminError, Malformed> {
    Ok(match reader.u8()? {
        1 => AdminError::NoQuorum { reason: text(reader)? },
        2 => AdminError::NotLeader { leader: decode_node(reader)? },
        3 => AdminError::NotMember,
        4 => AdminError::UnknownNode { node: NodeId(reader.u32()?) },
        5 => AdminError::LastVoter { node: NodeId(reader.u32()?) },
        6 => AdminError::TooManyNodes { limit: reader.u32()? as usize },
        7 => AdminError::AddressTaken { addr: text(reader)?, node: NodeId(reader.u32()?) },
        8 => AdminError::Busy,
        9 => AdminError::CannotLead { node: NodeId(reader.u32()?), reason: text(reader)? },
        10 => AdminError::StillQuorum,
        11 => AdminError::Invalid { what: text(reader)? },
        12 => AdminError::Unsupported { what: text(reader)? },
        13 => AdminError::TimedOut { limit_ms: reader.u64()? },
        14 => AdminError::Stopped,
        15 => AdminError::NotListening,
        _ => return Err(reader.malformed("no such refusal")),
    })
}

fn encode_node(node: Option<NodeId>, writer: &mut Writer) {
    writer.u8(node.is_some().into());
    if let Some(node) = node {
        writer.u32(node.0);
    }
}

fn decode_node(reader: &mut Reader<'_>) -> Result<Option<NodeId>, Malformed> {
    Ok(if flag(reader)? { Some(NodeId(reader.u32()?)) } else { None })
}

fn phase_code(phase: Phase) -> u8 {
    match phase {
        Phase::Forming => 1,
        Phase::Joining => 2,
        Phase::Member => 3,
        Phase::Stopping => 4,
        Phase::Ended => 5,
    }
}

fn decode_phase(reader: &mut Reader<'_>) -> Result<Phase, Malformed> {
    Ok(match reader.u8()? {
        1 => Phase::Forming,
        2 => Phase::Joining,
        3 => Phase::Member,
        4 => Phase::Stopping,
        5 => Phase::Ended,
        _ => return Err(reader.malformed("no such phase")),
    })
}

fn role_code(role: Role) -> u8 {
    match role {
        Role::Follower => 1,
        Role::PreCandidate => 2,
        Role::Candidate => 3,
        Role::Leader => 4,
    }
}

fn decode_role(reader: &mut Reader<'_>) -> Result<Role, Malformed> {
    Ok(match reader.u8()? {
        1 => Role::Follower,
        2 => Role::PreCandidate,
        3 => Role::Candidate,
        4 => Role::Leader,
        _ => return Err(reader.malformed("no such role")),
    })
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, Malformed> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(reader.malformed("neither yes nor no")),
    }
}

fn text(reader: &mut Reader<'_>) -> Result<String, Malformed> {
    reader.str().map(str::to_string)
}

fn short_text(reader: &mut Reader<'_>) -> Result<String, Malformed> {
    let text = reader.str()?;
    if text.len() > ADMIN_TEXT_BYTES_MAX {
        return Err(reader.malformed("a text longer than any address"));
    }
    Ok(text.to_string())
}

/// At most so many items that a status can have: one a node, and one for the node itself.
fn list<T>(
    reader: &mut Reader<'_>,
    mut item: impl FnMut(&mut Reader<'_>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let count = reader.count(8)?;
    if count > 4 * NODES_MAX {
        return Err(reader.malformed("more than a cluster can have"));
    }
    (0..count).map(|_| item(reader)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::epoch::Epoch;
    use crate::error::RejectReason;

    fn request() -> impl Strategy<Value = AdminRequest> {
        let node = || any::<u32>().prop_map(NodeId);
        prop_oneof![
            Just(AdminRequest::Status),
            ("[a-z:/.]{0,75}", any::<u32>())
                .prop_map(|(addr, rank)| AdminRequest::AddNode { addr, rank }),
            node().prop_map(|node| AdminRequest::RemoveNode { node }),
            (node(), any::<u32>()).prop_map(|(node, rank)| AdminRequest::SetRank { node, rank }),
            (node(), "\\PC{0,75}").prop_map(|(node, addr)| AdminRequest::SetAddress { node, addr }),
            node().prop_map(|to| AdminRequest::TransferLeadership { to }),
            Just(AdminRequest::Recover),
        ]
    }

    fn member() -> impl Strategy<Value = ClusterMember> {
        let refusal = prop_oneof![
            Just(None),
            any::<(u64, u64)>().prop_map(|(counter, bits)| {
                Some(RejectReason::OtherEpoch { epoch: Epoch { counter, bits } })
            }),
            any::<u32>().prop_map(|limit| Some(RejectReason::TooManyConnections { limit })),
        ];
        (any::<(u32, u32, u32, bool, bool)>(), "\\PC{0,40}", refusal).prop_map(
            |((node, qrank, rank, joined, connected), addr, refusal)| ClusterMember {
                info: NodeInfo { node_id: NodeId(node), addr, qrank },
                rank,
                joined,
                connected,
                refusal,
            },
        )
    }

    fn status() -> impl Strategy<Value = ClusterStatus> {
        let phases = [Phase::Forming, Phase::Joining, Phase::Member, Phase::Stopping, Phase::Ended];
        let roles = [Role::Follower, Role::PreCandidate, Role::Candidate, Role::Leader];
        let why = (any::<u32>(), "\\PC{0,40}").prop_map(|(node, why)| (NodeId(node), why));
        (
            any::<(u128, u64, u64, u32, u64, Option<u32>)>(),
            any::<(bool, bool, u64, (u64, u64), u64)>(),
            prop::sample::select(phases.to_vec()),
            prop::sample::select(roles.to_vec()),
            prop::collection::vec(why, 0..4),
            prop::collection::vec(member(), 0..6),
            any::<[u64; 2]>(),
            "\\PC{0,20}",
        )
            .prop_map(|(ids, rest, phase, role, waiting_for, members, counts, version)| {
                let (cluster_id, counter, bits, node, term, leader) = ids;
                let (quorum, ready, index, log_entries, callback_panics) = rest;
                let [applied, truncations] = counts;
                let counters = Counters { applied, truncations, ..Counters::default() };
                ClusterStatus {
                    version,
                    cluster_id,
                    epoch: Epoch { counter, bits },
                    node_id: NodeId(node),
                    phase,
                    role,
                    term,
                    leader: leader.map(NodeId),
                    quorum,
                    ready,
                    waiting_for,
                    index: Index(index),
                    members,
                    log_entries,
                    counters,
                    callback_panics,
                }
            })
    }

    fn error() -> impl Strategy<Value = AdminError> {
        let node = || any::<u32>().prop_map(NodeId);
        let words = || "\\PC{0,60}";
        prop_oneof![
            words().prop_map(|reason| AdminError::NoQuorum { reason }),
            prop::option::of(node()).prop_map(|leader| AdminError::NotLeader { leader }),
            Just(AdminError::NotMember),
            node().prop_map(|node| AdminError::UnknownNode { node }),
            node().prop_map(|node| AdminError::LastVoter { node }),
            any::<u32>().prop_map(|limit| AdminError::TooManyNodes { limit: limit as usize }),
            (words(), node()).prop_map(|(addr, node)| AdminError::AddressTaken { addr, node }),
            Just(AdminError::Busy),
            (node(), words()).prop_map(|(node, reason)| AdminError::CannotLead { node, reason }),
            Just(AdminError::StillQuorum),
            words().prop_map(|what| AdminError::Invalid { what }),
            words().prop_map(|what| AdminError::Unsupported { what }),
            any::<u64>().prop_map(|limit_ms| AdminError::TimedOut { limit_ms }),
            Just(AdminError::Stopped),
            Just(AdminError::NotListening),
        ]
    }

    fn answer() -> impl Strategy<Value = AdminAnswer> {
        let recovery = (any::<(u64, u64, u64, u64)>(), "\\PC{0,80}").prop_map(
            |((counter, bits, index, survivor), lost)| {
                let epoch = Epoch { counter, bits };
                AdminAnswer::Recovered(Recovery::new(epoch, Index(index), Index(survivor), lost))
            },
        );
        prop_oneof![
            4 => status().prop_map(|status| AdminAnswer::Status(Box::new(status))),
            1 => any::<(u64, u32)>().prop_map(|(index, node)| {
                AdminAnswer::Changed { index: Index(index), node: NodeId(node) }
            }),
            1 => Just(AdminAnswer::Transferred),
            1 => recovery,
            4 => error().prop_map(AdminAnswer::Refused),
        ]
    }

    fn request_bytes(request: &AdminRequest) -> Vec<u8> {
        let mut writer = Writer::new();
        encode_admin_request(request, &mut writer);
        writer.finish()
    }

    fn answer_bytes(answer: &AdminAnswer) -> Vec<u8> {
        let mut writer = Writer::new();
        encode_admin_answer(answer, &mut writer);
        writer.finish()
    }

    /// A few bytes replaced, then cut.
    fn damaged(mut bytes: Vec<u8>, damage: &[(prop::sample::Index, u8)], cut: usize) -> Vec<u8> {
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        bytes.truncate(cut.max(1));
        bytes
    }

    fn damage() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
        let byte = prop_oneof![Just(0), Just(1), Just(0xFF), any::<u8>()];
        prop::collection::vec((any::<prop::sample::Index>(), byte), 1..5)
    }

    proptest! {
        #[test]
        fn the_admin_codec_gives_back_what_it_took(request in request(), answer in answer()) {
            let bytes = request_bytes(&request);
            prop_assert!(bytes.len() <= ADMIN_REQUEST_BYTES_MAX);
            prop_assert_eq!(decode_admin_request(&bytes).unwrap(), request);
            let bytes = answer_bytes(&answer);
            prop_assert_eq!(decode_admin_answer(&bytes).unwrap(), answer);
        }

        #[test]
        fn the_admin_codec_refuses_what_is_cut_or_too_long(
            request in request(), answer in answer(), cut in any::<prop::sample::Index>()
        ) {
            let bytes = request_bytes(&request);
            prop_assert!(decode_admin_request(&bytes[..cut.index(bytes.len())]).is_err());
            prop_assert!(decode_admin_request(&[&bytes[..], &[0]].concat()).is_err());
            let bytes = answer_bytes(&answer);
            prop_assert!(decode_admin_answer(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn the_admin_codec_is_not_harmed_by_any_bytes(
            request in request(), answer in answer(), damage in damage(), cut in 1..400usize,
            noise in prop::collection::vec(any::<u8>(), 0..200)
        ) {
            let bytes = damaged(request_bytes(&request), &damage, cut);
            if let Ok(request) = decode_admin_request(&bytes) {
                // What is accepted is a request like any other.
                prop_assert_eq!(request_bytes(&request), bytes);
            }
            let bytes = damaged(answer_bytes(&answer), &damage, cut);
            if let Ok(answer) = decode_admin_answer(&bytes) {
                prop_assert_eq!(decode_admin_answer(&answer_bytes(&answer)).unwrap(), answer);
            }
            let _ = decode_admin_request(&noise);
            let _ = decode_admin_answer(&noise);
            let _ = AdminHello::decode(&mut Reader::new(&noise)).map(|h| h.common_version());
            let _ = AdminWelcome::decode(&mut Reader::new(&noise));
        }
    }

    #[test]
    fn a_text_longer_than_any_address_is_refused() {
        let addr = |length| AdminRequest::AddNode { addr: "a".repeat(length), rank: 1 };
        let longest = request_bytes(&addr(ADMIN_TEXT_BYTES_MAX));
        assert!(decode_admin_request(&longest).is_ok());
        assert!(decode_admin_request(&request_bytes(&addr(ADMIN_TEXT_BYTES_MAX + 1))).is_err());
    }

    #[test]
    fn a_later_versions_counters_are_left_out() {
        let mut writer = Writer::new();
        writer.u32(3);
        for (name, count) in [("applied", 7), ("not_known_here", 8), ("windows", 9)] {
            writer.str(name);
            writer.u64(count);
        }
        let counters = decode_counters(&mut Reader::new(writer.as_slice())).unwrap();
        assert_eq!(counters, Counters { applied: 7, windows: 9, ..Counters::default() });
    }
}
