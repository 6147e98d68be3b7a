//! What ends a run early: the lab or a node did not do what the conductor needs. Not a verdict on
//! the database, unless it says so.

use std::fmt;

/// Why something could not be done, for people.
#[derive(Debug)]
pub struct Trouble(String);

/// What most functions here return.
pub type Result<T> = std::result::Result<T, Trouble>;

impl Trouble {
    /// From anything that can be said.
    pub fn new(what: impl fmt::Display) -> Self {
        Self(what.to_string())
    }

    /// For `map_err`: what was tried, and how it failed.
    pub fn doing<E: fmt::Display>(what: &str) -> impl FnOnce(E) -> Self + use<'_, E> {
        move |error| Self(format!("{what}: {error}"))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Trouble {}
