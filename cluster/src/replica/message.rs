//! What nodes say to each other once the handshake is done.

use std::sync::Arc;

use quorate_consensus::{
    Config, EntryIndex, Identity, Member, Message, MessageBody, NodeId, Payload, Term,
};
use quorate_engine::{Index, TransactionId};

use super::roster::{Roster, RosterChange, RosterError};
use crate::epoch::Epoch;
use crate::procedure::CallRequest;

/// A message between two nodes.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerMessage {
    /// Consensus.
    Core(Message),
    /// What the sender belongs to; sent when a link comes up and when it changes.
    Standing(Standing),
    /// Forming, step one: promise to start this cluster and no other.
    Form(Genesis),
    /// The promise asked for by [`PeerMessage::Form`].
    Promised {
        /// The cluster promised.
        cluster_id: u128,
    },
    /// The promise is refused, and waiting will not help.
    Declined {
        /// Why.
        reason: DeclineReason,
    },
    /// The sender has no state and asks the cluster to take it in.
    Join,
    /// The sender asks to be taken out of the configuration.
    Leave,
    /// The receiver is out of the committed configuration: as it wished, or else it may ask to be
    /// taken in again.
    Left,
    /// The receiver was taken out of the cluster's roster.
    Removed,
    /// The sender's operator wants this node to lead.
    Transfer {
        /// Who.
        to: NodeId,
    },
    /// Certify this and put it into the log.
    Submit {
        /// The term whose leader the sender believes the receiver to be; another term refuses.
        term: Term,
        /// Names the request in the answer.
        id: TransactionId,
        /// What is asked.
        request: Request,
    },
    /// The request was not put into the log, and never will be by this copy of it.
    Refused {
        /// Which request.
        id: TransactionId,
        /// The term of the copy that is refused.
        term: Term,
        /// Why.
        reason: RefusalReason,
    },
    /// A piece of an image (state transfer).
    Image(ImagePiece),
    /// The receiver of an image is to say how much of it is there.
    AskImage {
        /// Which image.
        image: ImageId,
    },
    /// The sender holds this much of an image; more may be sent.
    Received {
        /// Which image.
        image: ImageId,
        /// How many of its pieces are there, from the first on.
        pieces: u64,
    },
    /// The sender installed the image whose last entry this is.
    Installed {
        /// The image's last entry.
        last: EntryIndex,
    },
    /// The sender saw the end of the cluster in its log (orderly stop).
    Goodbye,
    /// How far must the sender have applied to have everything that is acknowledged by now? For the
    /// leader; others say nothing.
    AskRead {
        /// Names the question; greater than those of the sender's earlier ones.
        token: u64,
    },
    /// Say how far the receiver has applied, whenever that changes, until it has this index.
    AskApplied {
        /// The index.
        index: Index,
    },
    /// The sender has applied and published everything up to here.
    Applied {
        /// The index.
        index: Index,
    },
    /// What the sender's state was when it had applied this entry. See
    /// [`DIGEST_INTERVAL`](super::DIGEST_INTERVAL).
    Digest {
        /// The epoch the entry is of; its number may mean another in another epoch.
        epoch: Epoch,
        /// The entry.
        entry: EntryIndex,
        /// Of records, counters and roster behind it, and of its term.
        digest: u128,
    },
    /// The answer to [`PeerMessage::AskRead`], confirmed by a quorum after it was asked.
    ReadIndex {
        /// The question's.
        token: u64,
        /// So far, or ...
        index: EntryIndex,
        /// ... up to any entry of a later term than this one.
        term: Term,
    },
}

/// What a node belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has no state and may promise to start a cluster.
    Blank,
    /// It holds state of the cluster, or its beginning, in this epoch.
    Member(Genesis, Epoch),
    /// It has no state yet, but has asked the cluster with this id for it.
    Joining {
        /// The cluster.
        cluster_id: u128,
    },
}

/// How a cluster began: its id and first members. Fixed for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// 128 random bits.
    pub cluster_id: u128,
    /// The first members, in node order.
    pub members: Vec<Member>,
    /// Where they listen, as the node says that formed the cluster; one for each member.
    pub addresses: Vec<String>,
}

/// What [`PeerMessage::Submit`] asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Commit a transaction: an encoded [`Submission`](quorate_engine::Submission).
    Transaction(Arc<[u8]>),
    /// Log that the sender has stopped.
    Stop,
    /// Change the roster.
    Change {
        /// Sequences of the sender below this are settled.
        low_water: u64,
        /// How.
        change: RosterChange,
    },
    /// Log that this transaction never commits, unless it has.
    Fence(TransactionId),
    /// Run a procedure, and log what it wrote.
    Call(Arc<CallRequest>),
}

/// Why a node will not promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeclineReason {
    /// The node lists of the two nodes differ in length or in a rank.
    NodesDiffer {
        /// The first node the lists disagree about.
        node: NodeId,
    },
    /// The cluster does not list a node of that id: add it first.
    NotListed,
}

/// Why a request was not put into the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// The receiver is not the leader of that term; try again at the leader.
    WrongTerm,
    /// Certification: something the transaction depends on was written after its snapshot.
    Conflict,
    /// Certification: the history does not reach back to its snapshot.
    SnapshotTooOld {
        /// The oldest snapshot that could still be certified.
        floor: u64,
    },
    /// It would exceed the segment's logical limit.
    SegmentFull {
        /// Bytes in use.
        used_bytes: u64,
        /// Bytes more that it needs.
        needed_bytes: u64,
        /// The limit.
        allowed_bytes: u64,
    },
    /// The bytes are not a submission.
    Malformed,
    /// As many fences of the transaction's origin are remembered as may be.
    FencesFull,
    /// The roster cannot change like this.
    Roster(RosterError),
    /// The leader's state differs from that of other members, and no quorum has the same.
    Disputed,
}

/// A piece of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct ImagePiece {
    /// The image it is a piece of.
    pub id: ImageId,
    /// Its place among the pieces, from 0.
    pub number: u64,
    /// About how long all pieces are together, bytes.
    pub total_bytes: u64,
    /// What the image is of: in the first piece only.
    pub head: Option<Box<ImageHead>>,
    /// The piece.
    pub bytes: Payload,
}

/// Names an image. Of two the greater one is newer: its leader leads later, or began it later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageId {
    /// The term of the leader that sends it.
    pub term: Term,
    /// Which of that leader's images.
    pub number: u64,
    /// The last entry it contains.
    pub last: EntryIndex,
}

/// What an image says beside the engine's part: where the log goes on, and who is in it.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageHead {
    /// The term of the image's last entry.
    pub last_term: Term,
    /// The configuration as of that entry.
    pub config: Config,
    /// The cluster's beginning.
    pub genesis: Genesis,
    /// The cluster's epoch.
    pub epoch: Epoch,
    /// Who has an orderly stop, or a departure, in the log up to there.
    pub stopped: Vec<Identity>,
    /// The roster as of that entry.
    pub roster: Roster,
    /// The newest time that a procedure was told, ms since the Unix epoch.
    pub time_ms: u64,
}

/// The connections between two nodes: bulk never delays control, and state never delays either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// Heartbeats, votes, acknowledgements, membership.
    Control,
    /// Windows, submissions.
    Bulk,
    /// Pieces of images.
    State,
}

impl Channel {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Control, Self::Bulk, Self::State];
}

impl PeerMessage {
    /// The connection this message travels on.
    pub fn channel(&self) -> Channel {
        match self {
            PeerMessage::Core(Message { body: MessageBody::Append { entries, .. }, .. })
                if !entries.is_empty() =>
            {
                Channel::Bulk
            }
            PeerMessage::Submit { .. } => Channel::Bulk,
            PeerMessage::Image(_) => Channel::State,
            _ => Channel::Control,
        }
    }
}
