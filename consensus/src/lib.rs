//! The order of the log: a pure core of the weighted Raft family.
//!
//! What lives here: the rules of terms, votes, replication, commitment and membership, as one
//! state machine without a clock, a socket, a file, a thread or randomness of its own. What must
//! never: anything that knows what an entry means, or that waits.
//!
//! A *driver* owns a [`Core`], hands it [`Input`]s and carries out the [`Output`]s in their order:
//!
//! ```text
//!   frames, ticks, proposals          Persist  -> the log on disk; then Input::Persisted
//!            |                        Send     -> the network, once `after` is persisted
//!            v                        Commit   -> apply the entries up to there
//!   Core::step(now, input, &mut out)  Role, ConfigInForce, Truncated, ... -> the layers above
//! ```
//!
//! Everything that a decision depends on is in the inputs, so a run can be replayed from them, and
//! the simulators run the very code that runs in production.
//!
//! Sources: Ongaro, "Consensus: Bridging Theory and Practice" (2014), for the log, elections,
//! pre-vote, check-quorum, leader transfer and joint membership; Michael et al., "Recovering
//! Shared Objects Without Stable Storage" (DISC 2017), for why a node that forgot its state must
//! come back as another identity.

mod core;
mod log;
mod output;
mod planted;
mod plausible;
mod progress;
mod quorum;
mod types;

pub use crate::core::{Core, Settings, SettingsError, Start, StartError};
pub use crate::output::{Input, Output, PeerProgress, Refusal, Role, StepDown};
#[cfg(feature = "planted-bugs")]
pub use crate::planted::Bug;
pub use crate::quorum::ConfigError;
pub use crate::types::*;
