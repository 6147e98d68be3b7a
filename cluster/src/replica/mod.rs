//! One node's part of the cluster as a pure state machine: no socket, clock, file or thread.

mod message;

pub use message::{
    Channel, DeclineReason, Genesis, ImageChunk, PeerMessage, RefusalReason, Request, Standing,
};
