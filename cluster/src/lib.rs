//! Many nodes: transport, node runtime, submission, ClusterParams.

pub mod replica;
