//! The words of the core: who, when, where, what.

use std::fmt;
use std::sync::Arc;

/// Time as the driver counts it: milliseconds since any fixed moment, never going back.
pub type Ticks = u64;

/// A node: its position in the cluster's node list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// 128 random bits made when a node starts without state. A node that forgot is another member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u128);

/// Who takes part: a node in one of its incarnations. Votes and acknowledgements count by identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// Which of its lives.
    pub incarnation: Incarnation,
}

/// A term: at most one leader each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

/// The place of an entry in the log, from 1; 0 is "before the first". Never shown to users, who
/// count transactions ("index").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryIndex(pub u64);

/// The bytes of a window, encoded once and shared by log, sends and apply.
pub type Payload = Arc<[u8]>;

/// One member of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Who.
    pub identity: Identity,
    /// Its weight in quorums; 0 makes it a learner.
    pub rank: u32,
}

/// The members whose ranks decide. While `next` is there (a joint configuration) every quorum must
/// be one of both halves.
///
/// Invariants: each half sorted by identity without repeats, total rank of each half at least 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// The members now.
    pub current: Vec<Member>,
    /// The members after the pending joint change.
    pub next: Option<Vec<Member>>,
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// Nothing: a leader's first entry, which commits what earlier terms left.
    Noop,
    /// Certified transactions.
    Window {
        /// The index of the first transaction in it.
        first_index: u64,
        /// How many there are; their indexes are dense.
        count: u32,
        /// Their bytes, opaque here.
        payload: Payload,
    },
    /// A configuration; in force on a node from the moment the entry is in its log.
    Config(Config),
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Its place.
    pub index: EntryIndex,
    /// The term of the leader that made it.
    pub term: Term,
    /// What it holds.
    pub body: Body,
}

/// What must survive a restart besides the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct HardState {
    /// The newest term seen.
    pub term: Term,
    /// Who got this node's vote in it.
    pub vote: Option<Identity>,
}

/// What nodes say to each other. Every message carries its sender's term.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// The sender's term; for pre-votes the term it would campaign in.
    pub term: Term,
    /// What it says.
    pub body: MessageBody,
}

/// The kinds of messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MessageBody {
    /// Would you vote for me in `term`? Changes nothing at the receiver.
    PreVote {
        /// Place and term of the sender's last entry.
        last: EntryIndex,
        /// See `last`.
        last_term: Term,
        /// True on leader transfer: the receiver need not wait for its leader to fall silent.
        transfer: bool,
    },
    /// Answer to [`MessageBody::PreVote`], with the asked term when granted, else the own one.
    PreVoteAnswer {
        /// Whether it would.
        granted: bool,
    },
    /// Vote for me.
    Vote {
        /// Place and term of the sender's last entry.
        last: EntryIndex,
        /// See `last`.
        last_term: Term,
        /// As in the pre-vote.
        transfer: bool,
    },
    /// Answer to [`MessageBody::Vote`].
    VoteAnswer {
        /// Whether it did.
        granted: bool,
    },
    /// Entries, or a heartbeat without any.
    Append {
        /// The entry before the first of `entries`.
        previous: EntryIndex,
        /// Its term.
        previous_term: Term,
        /// The entries, dense from `previous + 1`.
        entries: Vec<Entry>,
        /// The leader's commit.
        commit: EntryIndex,
        /// The leader's durable entry index (d of early commit).
        durable: EntryIndex,
        /// Echoed in the answer: tells the leader that a quorum answered after a given moment.
        round: u64,
    },
    /// Answer to [`MessageBody::Append`].
    AppendAnswer {
        /// Accepted: the last entry known to match the leader's log and durable here.
        /// Rejected: where the leader should try next (the sender's best guess of the last match).
        matched: EntryIndex,
        /// Rejected: the term at `matched` in the sender's log, to skip whole terms.
        matched_term: Term,
        /// Whether `previous` matched.
        accepted: bool,
        /// From the append.
        round: u64,
    },
    /// Campaign now, without waiting (leader transfer).
    TimeoutNow,
}

impl Identity {
    /// Names a node in an incarnation.
    pub const fn new(node: u32, incarnation: u128) -> Self {
        Self { node: NodeId(node), incarnation: Incarnation(incarnation) }
    }
}

impl EntryIndex {
    /// The next place.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", (self.0 >> 96) as u32)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:?}", self.node.0, self.incarnation)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
