//! How fresh a read must be, and why it could not be.

use quorate_engine::{BeginError, Index};
use thiserror::Error;

use crate::reason::QuorumReason;

/// What a transaction must see at least. See [`Connection::fresh`](crate::Connection::fresh).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Freshness {
    /// Whatever this node holds: a prefix of the log that includes the node's own commits and never
    /// goes back. Asks nobody.
    #[default]
    Local,
    /// Everything up to this index, which some commit was acknowledged with, here or on another
    /// node. Asks nobody, but waits until it is here.
    AtLeast(Index),
    /// Everything that any node had acknowledged before the call. One round of messages.
    Linearizable,
}

/// Why a read cannot be as fresh as asked. Nothing was changed; a transaction begun without asking
/// still sees what this node holds.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FreshError {
    /// Nobody can confirm that nothing newer is elsewhere.
    #[error("no quorum: {reason}; this node may be behind, its data can be read as Local")]
    NoQuorum {
        /// Why.
        reason: QuorumReason,
    },
    /// It did not become visible here within the time limit.
    #[error(
        "what was asked for is not here after {limit_ms} ms: this node holds everything up to \
         index {visible}; try again, or read what is here as Local"
    )]
    TimedOut {
        /// The time limit.
        limit_ms: u64,
        /// What this node holds.
        visible: Index,
    },
    /// The database is alone and never gave out this index.
    #[error(
        "index {wanted} was not given out by this database, whose newest is {visible}; it is of \
         another database, or of a life before this one"
    )]
    NotGivenOut {
        /// What was asked for.
        wanted: Index,
        /// The newest index there is.
        visible: Index,
    },
    /// Nobody runs the listener, which alone could ask others.
    #[error("no listener is running; call listen() in a thread, or spawn_listener(), first")]
    NotListening,
    /// The node has left the cluster.
    #[error("the node is stopped: what it holds can be read as Local, and becomes no newer")]
    Stopped,
    /// No transaction can be begun.
    #[error(transparent)]
    Begin(#[from] BeginError),
}
