//! What goes into the core and what comes out of it: the whole surface between rules and driver.

use crate::quorum::ConfigError;
use crate::types::{
    Config, EntryIndex, HardState, Identity, Member, Message, Payload, Term, Ticks,
};

/// What a node does in its term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Stores and acknowledges what a leader sends, or waits for one.
    Follower,
    /// Asks whether an election could be won, without disturbing anybody.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Orders the log.
    Leader,
}

/// What the driver tells the core.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Time has passed. Deadlines are absolute, so extra or late ticks only shift by their delay.
    Tick {
        /// Fresh random bits for the jitter of election deadlines.
        random: u64,
    },
    /// A message arrived; the driver vouches for the sender's identity and that it is meant for
    /// this node's present incarnation. The content is not trusted.
    Receive {
        /// Who sent it.
        from: Identity,
        /// What it says.
        message: Message,
    },
    /// Put a window into the log. Answered at once by [`Output::Appended`] (no promise yet: only
    /// [`Output::Commit`] is one) or [`Output::ProposalRefused`].
    Propose {
        /// The index of the window's first transaction; opaque here.
        first_index: u64,
        /// How many transactions it holds, at least 1.
        count: u32,
        /// Their bytes.
        payload: Payload,
    },
    /// Make these the members. The core decides whether one step is safe (total difference of
    /// ranks at most 1) or a joint configuration is needed, and leaves a joint one by itself once
    /// it is committed. Answered like [`Input::Propose`].
    ProposeConfig {
        /// All members, in any order.
        members: Vec<Member>,
    },
    /// All [`Output::Persist`] up to this sequence are durable. In memory mode the driver says so
    /// at once after each step.
    Persisted {
        /// The newest durable sequence.
        sequence: u64,
    },
    /// There is a working connection with this identity.
    PeerUp {
        /// With whom.
        peer: Identity,
    },
    /// The connection with this identity broke. If it is the leader, suspicion starts at once.
    PeerDown {
        /// With whom.
        peer: Identity,
    },
    /// Forget entries up to here, which the driver holds in an image or no longer needs. Never
    /// reaches beyond what is committed and durable.
    Compact {
        /// The newest entry to forget.
        upto: EntryIndex,
    },
    /// A follower confirmed that it installed an image; its appends continue behind it.
    ImageSent {
        /// The follower.
        to: Identity,
        /// The newest entry that the image covers.
        last: EntryIndex,
    },
    /// The driver installed an image of committed state: the log restarts behind it, commit stands
    /// at `last` without a [`Output::Commit`]. Ignored when it is not ahead of commit.
    InstallImage {
        /// The newest entry that the image covers.
        last: EntryIndex,
        /// Its term.
        last_term: Term,
        /// The configuration as of `last`.
        config: Config,
    },
    /// Hand leadership to this member, as soon as its log is complete; given up after an election
    /// timeout. Ignored unless leader.
    TransferLeadership {
        /// Who should lead.
        to: Identity,
    },
    /// The user's veto. While on, a leader steps down and the node does not campaign; it still
    /// stores, votes and acknowledges.
    Veto {
        /// Whether it is in force.
        on: bool,
    },
    /// Ask up to where a read must wait to be fresh. Answered by [`Output::ReadReady`] once a
    /// quorum confirmed this leader after now, or by [`Output::ReadRefused`].
    ReadIndex {
        /// Chosen by the driver, repeated in the answer.
        token: u64,
    },
}

/// What the core tells the driver, to be carried out in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Make this durable, in this order: truncate, append, hard state (or all at once). Answer with
    /// [`Input::Persisted`]. A crash may leave any prefix of the sequences, at least up to the
    /// newest one answered.
    Persist {
        /// Counts from 1 without gaps in one run of a core.
        sequence: u64,
        /// The new hard state, when it changed.
        hard: Option<HardState>,
        /// Drop entries from here on.
        truncate_from: Option<EntryIndex>,
        /// First and last of the entries now in the log, to be appended. Read them with
        /// [`crate::Core::entries_from`].
        append: Option<(EntryIndex, EntryIndex)>,
    },
    /// Send a message. Loss, delay and repetition are survived.
    Send {
        /// To whom.
        to: Identity,
        /// What.
        message: Message,
        /// It may leave only once [`Input::Persisted`] reached this sequence (0: at once).
        after: u64,
    },
    /// Entries up to here are committed: they can be applied, in order.
    Commit {
        /// The newest of them.
        upto: EntryIndex,
        /// Whether this follower proved it by itself before the leader said so.
        early: bool,
    },
    /// Answer to a proposal: it has this place, as long as the term lasts.
    Appended {
        /// Its place.
        index: EntryIndex,
        /// The leader's term.
        term: Term,
    },
    /// Answer to a proposal: it did not enter the log, here or anywhere.
    ProposalRefused {
        /// Why.
        reason: Refusal,
    },
    /// The role, the term or its known leader changed. Last of the outputs of its step.
    Role {
        /// What this node does now.
        role: Role,
        /// In which term.
        term: Term,
        /// Who leads it, when known.
        leader: Option<Identity>,
    },
    /// Entries from here on left the log; none of them was committed.
    Truncated {
        /// The first that left.
        from: EntryIndex,
    },
    /// The newest configuration in the log changed, by an append, a truncation or an image. It is
    /// in force from now on, committed or not.
    ConfigInForce {
        /// The entry that holds it, or the end of the image it came with.
        index: EntryIndex,
        /// The configuration.
        config: Config,
    },
    /// This follower needs entries that are forgotten here: send it an image, then say
    /// [`Input::ImageSent`]. Repeated only after that, or when the peer went down or up.
    NeedImage {
        /// The follower.
        to: Identity,
    },
    /// This node was leader and is no longer.
    SteppedDown {
        /// Why.
        reason: StepDown,
    },
    /// A read that waits until `index` is applied sees everything committed before it was asked.
    ReadReady {
        /// From the input.
        token: u64,
        /// Apply up to here first.
        index: EntryIndex,
    },
    /// This node cannot vouch for the freshness of a read.
    ReadRefused {
        /// From the input.
        token: u64,
        /// Why.
        reason: Refusal,
    },
}

/// Why a proposal did not enter the log. Nothing of it will ever be committed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// This node does not lead; try the named one, if any.
    NotLeader {
        /// The leader, when known.
        leader: Option<Identity>,
    },
    /// The user's veto is on at this node.
    Vetoed,
    /// The previous change of members is not finished; try again when it is committed.
    ConfigPending,
    /// The leader has not yet committed an entry of its own term; try again shortly.
    NotReady,
    /// Leadership is being handed over; try again at the next leader.
    Transferring,
    /// The members make no valid configuration, or none that differs.
    InvalidConfig(ConfigError),
    /// The window is empty or its indexes overflow.
    InvalidWindow,
    /// The payload is larger than `Settings::max_entry_bytes`, or the log's indexes are used up.
    TooLarge,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotLeader { leader: Some(leader) } => {
                write!(f, "not the leader; nothing was ordered; node {} leads", leader.node)
            }
            Self::NotLeader { leader: None } => {
                write!(f, "not the leader, and none is known; nothing was ordered")
            }
            Self::Vetoed => write!(f, "the quorum callback vetoes; nothing was ordered"),
            Self::ConfigPending => write!(f, "a change of members is pending; retry after it"),
            Self::NotReady => write!(f, "the new leader is not ready yet; retry shortly"),
            Self::Transferring => write!(f, "leadership is being handed over; retry shortly"),
            Self::InvalidConfig(error) => write!(f, "members refused: {error}"),
            Self::InvalidWindow => write!(f, "the window is empty or its indexes overflow"),
            Self::TooLarge => write!(f, "the window is larger than the limit; split it"),
        }
    }
}

/// Why a leader stopped leading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StepDown {
    /// Somebody is in a higher term.
    HigherTerm,
    /// It no longer hears from, or is connected with, a quorum.
    LostQuorum,
    /// The user's veto.
    Vetoed,
    /// It is not a ranked member of the configuration it has committed.
    NoRank,
}

/// What a leader knows of a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerProgress {
    /// The newest entry known to match and to be durable there.
    pub matched: EntryIndex,
    /// The next entry to send.
    pub next: EntryIndex,
    /// Whether it waits for an image.
    pub needs_image: bool,
    /// When it last answered in this term.
    pub last_heard: Ticks,
}
