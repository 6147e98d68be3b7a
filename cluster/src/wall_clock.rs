//! The wall clock: what procedures are told is the time, and nothing else of this crate.

use std::time::{SystemTime, UNIX_EPOCH};

/// What the clock of this machine says, in milliseconds since the Unix epoch; 0 if that is to come.
/// It may go back; whoever logs it sees to it that what is logged does not.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
