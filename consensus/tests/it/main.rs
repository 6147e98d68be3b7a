//! The core under attack: scripted cases, random schedules, hostile messages, planted bugs.
#![allow(clippy::unwrap_used)]

mod canonical;
mod check;
mod hostile;
#[cfg(feature = "planted-bugs")]
mod planted;
mod quorum;
mod random;
mod scenarios;
mod votes;
mod world;
