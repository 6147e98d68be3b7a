//! Exhaustive exploration: every order of events that a small cluster of unchanged cores can see,
//! within stated bounds, searched by `stateright` and checked state by state.
//!
//! What lives here: the model (`World` is a state, [`Action`] what can happen next), its bounds
//! ([`Setup`]), the rules that must hold ([`Wrong`]) and the events that must be seen ([`Event`]).
//! What must never: a rule of the core in a second version. All decisions are the core's.
//!
//! # How a replicated log becomes finite
//!
//! - **The network is a set of messages that only grows.** Any message in it can be delivered at
//!   any time and any number of times, or never: loss, delay, reordering and repetition in one. A
//!   message disappears when nothing can come of it: a later one says all that it says, its
//!   receiver is gone, or durably in a later term. Refusals of later terms, which only speed up
//!   elections, are lost unless a setup asks for them (`gossip`).
//! - **Time has no length.** Between two steps any time can have passed: any follower can campaign
//!   at any moment. After each step the core is brought to its canonical form
//!   ([`quorate_consensus::Core::make_canonical`]), so that states that differ only in time are
//!   one. That a leader was heard of lately protects it from nobody, which is harsher than real
//!   time is.
//! - **Pre-votes are assumed to be granted**, unless a setup asks for the real ones: they are there
//!   against needless elections, and safety must not rest on them.
//! - **A crash is followed by the restart at once.** Staying down is the same as hearing nothing.
//! - **Nobody notices that a peer went.** Connections are up with everybody who lives or lived, so
//!   that a rule which is safe only if the driver tells it of broken connections shows.
//! - **Equal nodes are explored once.** Among nodes of the same rank, and the same in each change
//!   of members, the lowest one that nothing happened to yet is the first to which something
//!   happens; any other run is one of these with the names exchanged.
//! - **Bounds** of a setup: terms, windows, crashes, changes of members and the like, and how many
//!   writes to a disk can be under way.
//!
//! Liveness is not a subject here: the simulators look after it.

mod action;
mod check;
mod event;
mod network;
mod node;
mod run;
mod setup;
mod world;

pub use crate::action::Action;
pub use crate::check::Wrong;
pub use crate::event::{Event, Tally};
pub use crate::network::{Cargo, Packet};
#[cfg(feature = "planted-bugs")]
pub use crate::run::explore_mistaken;
pub use crate::run::{Exploration, Found, explore};
pub use crate::setup::{FIGURE_8, SETUPS, Setup, Size, Target};
