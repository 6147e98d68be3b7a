//! Whole nodes as processes of their own, on a network of their own, under real faults.
//!
//! ```text
//!   conductor (root)            namespace hub                namespace 0, 1, ...
//!   lab: ip, tc          ----->   bridge, filters  <--veth-->  node process
//!   processes: signals   ------------------------------------>   database, listener, clients
//!   judge                <------------- history files ---------  every call with its times
//! ```
//!
//! The simulator finds more, and replays what it finds. What is tried here is what it must assume:
//! that sockets, threads, signals and the kernel behave as the simulated ones do. Nodes are the
//! unchanged product behind its public interface.
//!
//! Nothing of the host's own network is touched. All waiting has a limit, and no process and no
//! namespace outlives the conductor for longer than until the next start.

pub mod client;
pub mod cluster;
pub mod gaps;
pub mod history;
pub mod judge;
pub mod lab;
pub mod nemesis;
pub mod node;
pub mod processes;
pub mod protocol;
pub mod random;
pub mod relay;
pub mod scenarios;
pub mod trouble;

pub use trouble::{Result, Trouble};
