//! The bytes between nodes: frames, handshake, messages.
//!
//! Pure: bytes in, values out. No socket, no clock, no decision; and never any trust.

mod admin;
mod belongs;
mod core;
mod frame;
mod handshake;
mod message;

pub use admin::{
    ADMIN_ANSWER_BYTES_MAX, ADMIN_REQUEST_BYTES_MAX, ADMIN_TEXT_BYTES_MAX, AdminHello,
    AdminWelcome, decode_admin_answer, decode_admin_request, encode_admin_answer,
    encode_admin_request,
};
pub use belongs::Misplaced;
pub use frame::{
    FrameError, FrameWriter, HANDSHAKE_BYTES_MAX, HEADER_BYTES, Header, Incoming, Kind, Outgoing,
    PAYLOAD_BYTES_MAX, Part, Stamp, VERSION, VERSION_MIN,
};
pub use handshake::{Card, Hello, Welcome, decode_reject, encode_reject};
pub use message::{decode, encode};
