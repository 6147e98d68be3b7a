//! The deterministic cluster simulator: real replicas (consensus core, certification, engine,
//! apply, forming, joining) on a simulated network, clock and crashes, all from one seed.
//!
//! One thread, one event queue. What a seed does, it does again: [`run`] with the same seed and
//! options gives the same trace to the last line. The network breaks links at any moment, delays
//! and repeats and loses messages, and delivers an old link's last words after a new one is up;
//! nodes crash and come back without their memory, stand still, or are cut off. After every event
//! the [`checker`] looks at what the nodes hold; at the end the faults stop and everything must
//! come together again (liveness).
//!
//! Nothing here may read a clock, a thread's scheduling or an unseeded hash.

pub mod bugs;
mod calls;
pub mod checker;
mod clients;
mod clock;
mod faults;
mod judging;
mod lists;
mod network;
mod node;
mod operators;
pub mod options;
mod outputs;
mod ranks;
pub mod report;
mod rng;
mod transport;
mod waits;
mod world;

pub use bugs::Planted;
pub use options::Options;
pub use report::{Failure, Report};
pub use world::run;
