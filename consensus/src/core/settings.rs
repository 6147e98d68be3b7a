//! What a core is given once: its settings and the state it starts from. Must never change later.

use std::fmt;

#[cfg(feature = "planted-bugs")]
use crate::planted::Bug;
use crate::plausible::{self, NUMBER_MAX};
use crate::types::{Config, Entry, EntryIndex, HardState, Term, Ticks};

/// The tunable numbers of a core, the same on all nodes. Make them with [`Settings::new`] or start
/// from the default (300 ms, 50 ms, 1 MiB, 64 appends).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// After how long without a sign of life a leader is suspected, in ticks.
    pub election_timeout: Ticks,
    /// How often a leader gives a sign of life, in ticks.
    pub heartbeat_interval: Ticks,
    /// Bytes of entries in one append; a single larger entry still travels, alone.
    pub max_append_bytes: usize,
    /// Appends per follower that may await their answer.
    pub max_in_flight: usize,
    /// The largest payload that a leader accepts, in bytes.
    pub max_entry_bytes: usize,
    /// Whether a leader sends entries before they are durable on its own disk. That hides the time
    /// of its disk behind the network, but followers can then commit early only with a later
    /// append. Without disk it has no use.
    pub send_before_durable: bool,
    /// The mistake to make.
    #[cfg(feature = "planted-bugs")]
    pub bug: Option<Bug>,
}

/// Why settings were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SettingsError {
    /// The heartbeat interval is 0, or not at most half of the election timeout.
    HeartbeatInterval {
        /// Given.
        heartbeat_interval: Ticks,
        /// Given.
        election_timeout: Ticks,
    },
    /// A limit is 0; the field is named.
    Zero(&'static str),
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HeartbeatInterval { heartbeat_interval, election_timeout } => write!(
                f,
                "heartbeat_interval {heartbeat_interval} must be above 0 and at most half of \
                 election_timeout {election_timeout}"
            ),
            Self::Zero(field) => write!(f, "{field} must be above 0"),
        }
    }
}

impl std::error::Error for SettingsError {}

impl Default for Settings {
    fn default() -> Self {
        Self {
            election_timeout: 300,
            heartbeat_interval: 50,
            max_append_bytes: 1 << 20,
            max_in_flight: 64,
            max_entry_bytes: 64 << 20,
            send_before_durable: false,
            #[cfg(feature = "planted-bugs")]
            bug: None,
        }
    }
}

impl Settings {
    /// Settings with these numbers and the default for the rest.
    ///
    /// # Errors
    /// When a number is out of its range.
    pub fn new(
        election_timeout: Ticks,
        heartbeat_interval: Ticks,
        max_append_bytes: usize,
        max_in_flight: usize,
    ) -> Result<Self, SettingsError> {
        let settings = Self {
            election_timeout,
            heartbeat_interval,
            max_append_bytes,
            max_in_flight,
            ..Self::default()
        };
        settings.validate()?;
        Ok(settings)
    }

    /// Checks the ranges of all fields.
    ///
    /// # Errors
    /// Names the first field out of its range.
    pub fn validate(&self) -> Result<(), SettingsError> {
        if self.heartbeat_interval == 0 || self.heartbeat_interval > self.election_timeout / 2 {
            return Err(SettingsError::HeartbeatInterval {
                heartbeat_interval: self.heartbeat_interval,
                election_timeout: self.election_timeout,
            });
        }
        let limits = [
            ("max_append_bytes", self.max_append_bytes),
            ("max_in_flight", self.max_in_flight),
            ("max_entry_bytes", self.max_entry_bytes),
        ];
        match limits.into_iter().find(|(_, limit)| *limit == 0) {
            Some((field, _)) => Err(SettingsError::Zero(field)),
            None => Ok(()),
        }
    }
}

/// The state a core starts from, all of it durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Start {
    /// As persisted; the default for a node without state.
    pub hard: HardState,
    /// The newest entry covered by the image that the driver starts from; 0 without one.
    pub last: EntryIndex,
    /// Its term; 0 without image.
    pub last_term: Term,
    /// The configuration as of `last`: the initial one of a new cluster, the image's, or
    /// [`Config::blank`] for a node that still has to receive its state.
    pub config: Config,
    /// The entries kept behind `last`.
    pub entries: Vec<Entry>,
}

/// Why a [`Start`] cannot be the state of a correct node. Starting from it could lose commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartError {
    /// The entries are not dense behind the image, or their terms fall.
    Entries,
    /// The configuration is neither blank nor valid.
    Config,
    /// Place and term of the image's end do not fit together, or a number is absurd.
    Image,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::Entries => "the kept entries are not a log behind the image",
            Self::Config => "the configuration is not valid",
            Self::Image => "the end of the image is not a place in a log",
        };
        write!(f, "{what}; the stored state is damaged: rejoin without it, as a new incarnation")
    }
}

impl std::error::Error for StartError {}

impl Start {
    /// The start of a node of a new cluster, or with [`Config::blank`] of one without state.
    pub fn genesis(config: Config) -> Self {
        Self {
            hard: HardState::default(),
            last: EntryIndex(0),
            last_term: Term(0),
            config,
            entries: Vec::new(),
        }
    }

    /// Checks that a correct node could have left this state.
    ///
    /// # Errors
    /// Says what does not fit.
    pub fn check(&self) -> Result<(), StartError> {
        let numbers = [self.hard.term.0, self.last.0, self.last_term.0];
        if numbers.iter().any(|&n| n > NUMBER_MAX) || (self.last.0 == 0) != (self.last_term.0 == 0)
        {
            return Err(StartError::Image);
        }
        if self.config != Config::blank() && self.config.validate().is_err() {
            return Err(StartError::Config);
        }
        let term_max = Term(NUMBER_MAX);
        if !plausible::are_entries(self.last, self.last_term, term_max, &self.entries) {
            return Err(StartError::Entries);
        }
        Ok(())
    }
}
