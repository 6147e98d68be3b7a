//! Many nodes: transport, node runtime, submission, ClusterParams.

mod error;
pub mod replica;

pub use error::ClusterError;
