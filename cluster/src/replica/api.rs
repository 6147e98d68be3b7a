//! What goes into a replica and what comes out of it.

use std::fmt;
use std::sync::Arc;

use quorate_consensus::{Identity, NodeId, Role, Settings, Term, Ticks};
use quorate_engine::{
    Acknowledged, CommitError, CommitOptions, Index, Outcome, Submission, TransactionId,
};

use super::message::PeerMessage;
use crate::admin::{AdminAnswer, AdminRequest};
use crate::epoch::Epoch;
use crate::error::{ClusterError, OutcomeError};
use crate::event::NodeInfo;
use crate::fresh::{FreshError, Freshness};
use crate::procedure::{CallBatch, CallError, CallRequest, CallResult, RanBatch};
use crate::reason::QuorumReason;

/// What a replica is told when it is made. Times are milliseconds.
#[derive(Clone, Debug)]
pub struct ReplicaSettings {
    /// This node in this life.
    pub identity: Identity,
    /// The configured quorum rank of every node, by node id.
    pub ranks: Vec<u32>,
    /// Where every node listens, by node id; replicated from the node that forms the cluster.
    pub addresses: Vec<String>,
    /// Consensus timing and sizes.
    pub core: Settings,
    /// An open window closes when it holds this many bytes ...
    pub window_bytes: usize,
    /// ... or this many transactions ...
    pub window_transactions: u32,
    /// ... or is this old; 0 leaves it open only while another window is under way.
    pub window_timeout_ms: u64,
    /// How long a commit may wait for its outcome.
    pub commit_limit_ms: u64,
    /// A member whose link broke is taken for live for so long, ms.
    pub silence_ms: u64,
    /// How long an orderly end may wait for a quorum.
    pub stop_limit_ms: u64,
    /// While others stop, a member silent for this long counts as departed.
    pub departed_after_ms: u64,
    /// About how many bytes a piece of an image has at most ...
    pub image_piece_bytes: usize,
    /// ... and how many objects.
    pub image_piece_objects: usize,
    /// How many bytes of images are made in a second; 0 for as many as commits allow.
    pub image_rate_bytes_per_s: u64,
    /// How many bytes of applied entries are kept for followers that fall behind.
    pub log_keep_bytes: usize,
    /// A fault to plant, for tests that prove the simulator finds it.
    #[cfg(feature = "planted-bugs")]
    pub bug: Option<ReplicaBug>,
}

/// Faults that a test can plant in a replica.
#[cfg(feature = "planted-bugs")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaBug {
    /// A window proved by early commit is applied back to front.
    ApplyOutOfOrder,
    /// A commit is taken for lost as soon as a newer term is heard of.
    LostByTermAlone,
    /// The leader accepts requests that were meant for another term's leader.
    AnyTermAccepted,
    /// A leader answers fresh reads with what it committed, although followers may be ahead.
    ReadIndexIsCommit,
    /// A leader answers fresh reads without asking whether it still leads.
    ReadWithoutQuorum,
    /// A fence is logged and answered, and nothing remembers it.
    FenceNotRemembered,
    /// `AllLive` does not wait for one of the live members.
    AllLiveIgnoresOne,
    /// A batch of calls that lost against the log is logged all the same.
    LostBatchLogged,
    /// The item at index 10 is passed over instead of applied.
    LosesTheTenth,
}

/// What happens to a replica.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time passed; `random` feeds election jitter.
    Tick {
        /// 64 random bits.
        random: u64,
    },
    /// The link to a peer is up: all channels, handshake done. At most one link a node.
    PeerUp {
        /// Who.
        peer: Identity,
    },
    /// The link broke; what was under way on it may or may not have arrived.
    PeerDown {
        /// Who.
        peer: Identity,
    },
    /// A peer said something.
    Receive {
        /// Who: the identity of the link's handshake.
        from: Identity,
        /// What.
        message: PeerMessage,
    },
    /// A local transaction asks to be committed.
    Submit(Submission, CommitOptions),
    /// Somebody here calls a procedure.
    Call {
        /// Names the call, and is its id in the log.
        id: TransactionId,
        /// What is called.
        request: Arc<CallRequest>,
        /// How long the caller waits; none for as long as a commit may take.
        limit_ms: Option<u64>,
    },
    /// What [`Output::Run`] asked for was done. One for a batch of a term that is over changes
    /// nothing.
    Ran(RanBatch),
    /// Somebody here must know what became of a transaction.
    Outcome {
        /// Names the question; of the same sequence as the ids of own transactions.
        id: TransactionId,
        /// The transaction, of whatever origin.
        wanted: TransactionId,
        /// How long it waits.
        limit_ms: u64,
    },
    /// A local reader wants to see at least that, within so many ms.
    Fresh {
        /// Names it in the answer; no two readers that wait have the same.
        token: u64,
        /// What it wants to see.
        freshness: Freshness,
        /// How long it waits.
        limit_ms: u64,
    },
    /// Nothing more is at hand: an open window may close.
    Flush,
    /// Begin the orderly end: returns when every live node has begun it.
    Stop,
    /// Leave the cluster alone.
    Detach,
    /// The user's quorum callback forbids, or allows again, to commit here.
    Veto {
        /// True forbids.
        on: bool,
    },
    /// An operator asks for something other than the status.
    Admin {
        /// Names the request in its answer; never given twice.
        token: u64,
        /// What is asked.
        request: AdminRequest,
        /// An id of this node's, for the log, if the request leads there.
        id: TransactionId,
        /// Sequences of this node below this are settled.
        low_water: u64,
        /// 64 random bits: of a new epoch, if that is asked for.
        random: u64,
    },
    /// A node of this cluster is in a greater epoch: its handshake said so, and no link to it is
    /// possible. Told again each time one is tried.
    NewerEpoch {
        /// Which node.
        node: NodeId,
        /// Its epoch.
        epoch: Epoch,
    },
    /// A node refused the handshake because its cluster removed this node.
    TurnedAway {
        /// Which node.
        node: NodeId,
    },
}

/// What a replica wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Give this to the peer if its link is up, else forget it.
    Send {
        /// To whom.
        to: Identity,
        /// What.
        message: PeerMessage,
    },
    /// The outcome of a [`Input::Submit`]; once for each. `Ok` comes after it became visible.
    Complete {
        /// Which.
        id: TransactionId,
        /// The index it got, or why not.
        result: Result<Acknowledged, CommitError>,
    },
    /// The transaction is committed and visible here, and waits for other nodes only
    /// (`Acknowledge::AllLive`): the answer is still to come.
    Through {
        /// Which.
        id: TransactionId,
    },
    /// Run these calls, beside everything else and for as long as it takes, and answer with
    /// [`Input::Ran`]; in the order of their numbers.
    Run(CallBatch),
    /// The outcome of an [`Input::Call`]; once for each. `Ok` comes after it became visible.
    Called {
        /// Which.
        id: TransactionId,
        /// What it answered, or why not.
        result: Result<CallResult, CallError>,
    },
    /// The answer to a [`Input::Outcome`]; once for each. Never `Unknown`.
    Outcome {
        /// Which.
        id: TransactionId,
        /// What became of it, or why that is not known.
        result: Result<Outcome, OutcomeError>,
    },
    /// The answer to a [`Input::Fresh`]; once for each. `Ok` is the visible index: a transaction
    /// begun from now on sees what was asked for.
    Fresh {
        /// Which.
        token: u64,
        /// How far this node is, or why it does not know.
        result: Result<Index, FreshError>,
    },
    /// A transaction answered `InDoubt` before has met its fate and may be forgotten.
    Settled {
        /// Which.
        id: TransactionId,
        /// Its index if it committed.
        committed: Option<Index>,
    },
    /// Something the application or an operator wants to know.
    Event(ClusterEvent),
    /// From now on the node belongs to this cluster in this epoch: stamp and check frames with
    /// them. A cluster id of 0 makes the node blank again.
    Stamp {
        /// The cluster.
        cluster_id: u128,
        /// Its epoch.
        epoch: Epoch,
    },
    /// From now on the cluster consists of these nodes, by id; a place that is `None` belonged to
    /// one that was removed. Own place included. Their addresses can be parsed.
    Nodes(Vec<Option<NodeInfo>>),
    /// The node belongs to a new epoch of its cluster, or forgot what it was: it is somebody else
    /// from now on. All its links are to be closed, and made anew under this identity. Its data can
    /// be read as before until it holds the cluster's.
    Reborn {
        /// Who it is.
        identity: Identity,
    },
    /// The answer to an [`Input::Admin`]; once for each.
    AdminAnswer {
        /// Which.
        token: u64,
        /// The answer.
        answer: AdminAnswer,
    },
    /// The end that was asked for cannot be; the node goes on as before.
    EndRefused(ClusterError),
    /// The listener's end. Nothing comes out of the replica afterwards.
    Finished(Result<(), ClusterError>),
}

/// What notify callbacks and logs hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterEvent {
    /// The link to this node is up.
    Connected(NodeId),
    /// The link to this node broke.
    Disconnected(NodeId),
    /// This node takes part in a cluster that was formed just now.
    Formed,
    /// This node asks a running cluster for its state.
    Joining,
    /// The node has its state and its rank.
    Joined(NodeId),
    /// The node left the configuration.
    Left(NodeId),
    /// An operator added the node, removed it, or gave it another rank or address; or this node
    /// learned of that only now, with the cluster's state. It is logged, and what counts follows as
    /// soon as it safely can: [`Joined`](Self::Joined), [`Left`](Self::Left),
    /// [`RankChanged`](Self::RankChanged).
    RosterChanged {
        /// Which. Its address comes with the event.
        node: NodeId,
        /// The rank it is to have; none if it is not to be a member any more.
        rank: Option<u32>,
    },
    /// The node's rank, which counts in every quorum, is another now.
    RankChanged {
        /// Which.
        node: NodeId,
        /// Its rank.
        rank: u32,
    },
    /// Another leader, or none.
    LeaderChanged(Option<NodeId>),
    /// This node and those it is connected to have a quorum, with so much of the rank.
    QuorumGained(QuorumReason),
    /// They no longer have, or the quorum callback forbids it: commits are refused here, and why.
    QuorumLost(QuorumReason),
    /// State transfer makes progress (to `node` at the sender, from `node` at the receiver).
    StateTransfer {
        /// The other end.
        node: NodeId,
        /// Bytes confirmed so far.
        done_bytes: u64,
        /// Bytes in all.
        total_bytes: u64,
    },
    /// The node is silent while the others stop; it is no longer waited for.
    Departed(NodeId),
    /// A process claims the id of this node although another one under it is connected and alive
    /// (or the id of this node itself). It is kept out; stop one of the two.
    DuplicateNode(NodeId),
    /// The node's state is not what the same log made of it on a quorum of the others. It takes
    /// part no longer, until it is restarted without state.
    Diverged(NodeId),
    /// The cluster was formed again from a survivor: this is its epoch now.
    EpochChanged(Epoch),
    /// The notify callback was too slow: the oldest waiting events were dropped.
    Lagged {
        /// How many, since the last event delivered.
        dropped: u64,
    },
}

impl ClusterEvent {
    /// The node the event is about, if it is about one.
    pub fn node(&self) -> Option<NodeId> {
        match *self {
            Self::Connected(node)
            | Self::Disconnected(node)
            | Self::Joined(node)
            | Self::Left(node)
            | Self::Departed(node)
            | Self::DuplicateNode(node)
            | Self::Diverged(node)
            | Self::RosterChanged { node, .. }
            | Self::RankChanged { node, .. }
            | Self::StateTransfer { node, .. } => Some(node),
            Self::LeaderChanged(leader) => leader,
            _ => None,
        }
    }
}

/// Where a node stands on its way through a cluster's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Without state, waiting for all configured nodes or for a running cluster.
    Forming,
    /// Asking a running cluster for its state.
    Joining,
    /// Holding state.
    Member,
    /// In its orderly end.
    Stopping,
    /// Over.
    Ended,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Forming => "forming",
            Phase::Joining => "joining",
            Phase::Member => "member",
            Phase::Stopping => "stopping",
            Phase::Ended => "ended",
        })
    }
}

/// What a node knows of its cluster at this moment.
#[derive(Clone, Debug)]
pub struct Status {
    /// Where the node stands.
    pub phase: Phase,
    /// Its role in consensus.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The leader it follows, if it knows one.
    pub leader: Option<NodeId>,
    /// Whether it and those it is connected to have a quorum and no veto.
    pub quorum: bool,
    /// Everyone configured.
    pub members: Vec<MemberStatus>,
    /// What still keeps `ready` from being true.
    pub waiting_for: Vec<(NodeId, String)>,
    /// It holds the state as of its own term, has its rank, and can commit.
    pub ready: bool,
}

/// What a node knows of another (or itself).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// The node.
    pub node: NodeId,
    /// Its address, once an operator set it; else it is as the node list says.
    pub addr: Option<String>,
    /// Its rank by the roster: the one it should have.
    pub wanted_rank: u32,
    /// Its rank in the configuration in force; 0 if it is not in it.
    pub rank: u32,
    /// Whether the configuration holds it.
    pub joined: bool,
    /// Whether its link is up (always, for the node itself).
    pub connected: bool,
}

/// Counts since the replica was made, for tests, status and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Times this node became leader.
    pub elections_won: u64,
    /// Times entries were cut off the log's end.
    pub truncations: u64,
    /// Entries this follower proved committed before it was told.
    pub early_commits: u64,
    /// Images of which this node got the first piece.
    pub images_begun: u64,
    /// Images this node installed.
    pub images_installed: u64,
    /// Image transfers this node began as a sender.
    pub images_sent: u64,
    /// Transfers that this sender went on with after their link broke, where they had stopped.
    pub transfers_resumed: u64,
    /// Pieces of images this node made. Each is sent once, unless a link breaks.
    pub pieces_sent: u64,
    /// Pieces of images this node built in.
    pub pieces_received: u64,
    /// Requests this leader refused as conflicts.
    pub conflicts: u64,
    /// Requests this leader had in its log already.
    pub duplicates: u64,
    /// Own requests given to another leader after the first one's term ended without them.
    pub resubmissions: u64,
    /// Own requests given again to the leader of the same term, because the link broke.
    pub repeats: u64,
    /// Own requests answered `InDoubt`.
    pub in_doubt: u64,
    /// Own requests refused with `NoQuorum`.
    pub no_quorum: u64,
    /// Windows this leader closed.
    pub windows: u64,
    /// Transactions applied.
    pub applied: u64,
    /// Configuration entries applied, joint ones counted too.
    pub configs: u64,
    /// Joint configuration entries applied.
    pub joint_configs: u64,
    /// Questions for fresh reads this node sent to its leader; readers share them.
    pub reads_asked: u64,
    /// Rounds this leader made for fresh reads; questions share them.
    pub read_rounds: u64,
    /// Fences applied.
    pub fences: u64,
    /// Calls of procedures applied, failed ones counted too.
    pub calls: u64,
    /// Batches of calls this leader ran again, since others had written what they use.
    pub batches_lost: u64,
    /// Digests of other members' states that this node compared with its own.
    pub digests_compared: u64,
}

impl Counters {
    /// Every count under its name, in the order of the fields.
    pub fn named(mut self) -> [(&'static str, u64); 25] {
        self.places().map(|(name, place)| (name, *place))
    }

    /// Sets a count by its name. False if there is none of that name.
    pub fn set(&mut self, name: &str, count: u64) -> bool {
        let place = self.places().into_iter().find(|(known, _)| *known == name);
        place.map(|(_, place)| *place = count).is_some()
    }

    /// The one table of names.
    fn places(&mut self) -> [(&'static str, &mut u64); 25] {
        let Self {
            elections_won,
            truncations,
            early_commits,
            images_begun,
            images_installed,
            images_sent,
            transfers_resumed,
            pieces_sent,
            pieces_received,
            conflicts,
            duplicates,
            resubmissions,
            repeats,
            in_doubt,
            no_quorum,
            windows,
            applied,
            configs,
            joint_configs,
            reads_asked,
            read_rounds,
            fences,
            calls,
            batches_lost,
            digests_compared,
        } = self;
        [
            ("elections_won", elections_won),
            ("truncations", truncations),
            ("early_commits", early_commits),
            ("images_installed", images_installed),
            ("images_begun", images_begun),
            ("images_sent", images_sent),
            ("transfers_resumed", transfers_resumed),
            ("pieces_sent", pieces_sent),
            ("pieces_received", pieces_received),
            ("conflicts", conflicts),
            ("duplicates", duplicates),
            ("resubmissions", resubmissions),
            ("repeats", repeats),
            ("in_doubt", in_doubt),
            ("no_quorum", no_quorum),
            ("windows", windows),
            ("applied", applied),
            ("configs", configs),
            ("joint_configs", joint_configs),
            ("reads_asked", reads_asked),
            ("read_rounds", read_rounds),
            ("fences", fences),
            ("calls", calls),
            ("batches_lost", batches_lost),
            ("digests_compared", digests_compared),
        ]
    }
}

impl Output {
    /// The shortest form of a send.
    pub(super) fn send(to: Identity, message: PeerMessage) -> Self {
        Self::Send { to, message }
    }
}

/// The moment nothing waits for.
pub(super) const NEVER: Ticks = Ticks::MAX;
