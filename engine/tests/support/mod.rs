//! Shared by the tests that hold the engine against a dumb model.

pub(crate) mod dumb;
mod random;
pub(crate) mod world;

pub(crate) use random::Random;
