//! Running a search, and what it says.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(feature = "planted-bugs")]
use quorate_consensus::Bug;
use stateright::{Checker, HasDiscoveries, Model};

use crate::check::Wrong;
use crate::event::Event;
use crate::setup::Setup;
use crate::world::Explored;

/// A broken rule and how to break it.
#[derive(Debug)]
pub struct Found {
    /// The rule.
    pub wrong: Wrong,
    /// What happened, one action a line.
    pub path: String,
}

/// What a search found.
#[derive(Debug)]
pub struct Exploration {
    /// Different states.
    pub states: usize,
    /// Steps between states that were tried.
    pub steps: usize,
    /// The most actions from the start to a state.
    pub depth: usize,
    /// How long it took.
    pub time: Duration,
    /// Broken rules.
    pub found: Vec<Found>,
    /// Demanded events that were not met.
    pub missed: Vec<Event>,
    /// All events with their counts.
    pub events: Vec<(Event, u64)>,
    /// Whether all states within the bounds were seen.
    pub is_complete: bool,
}

/// Explores all states of a setup, the shortest ways first, until a rule is broken. Gives up after
/// about `limit` steps, if there is a limit. Runs in one thread, so that it always goes the same
/// way.
pub fn explore(setup: &Setup, limit: Option<usize>) -> Exploration {
    search(Explored::new(setup.clone(), |_| {}), limit)
}

/// Explores a setup with cores that make a mistake.
#[cfg(feature = "planted-bugs")]
pub fn explore_mistaken(setup: &Setup, bug: Bug, limit: usize) -> Exploration {
    let explored = Explored::new(setup.clone(), |settings| settings.bug = Some(bug));
    search(explored, Some(limit))
}

fn search(explored: Explored, limit: Option<usize>) -> Exploration {
    let start = Instant::now();
    let setup = explored.setup.clone();
    let tally = Arc::clone(&explored.tally);
    let mut builder = explored.checker().finish_when(HasDiscoveries::AnyFailures);
    if let Some(limit) = limit {
        builder = builder.target_state_count(limit);
    }
    let checker = builder.spawn_bfs().join();
    let mut found = Vec::new();
    for wrong in Wrong::ALL {
        if let Some(path) = checker.discovery(wrong.rule()) {
            let mut text = String::new();
            for action in path.into_actions() {
                writeln!(text, "{action:?}").expect("writes to a string");
            }
            found.push(Found { wrong, path: text });
        }
    }
    let events: Vec<_> = Event::ALL.map(|event| (event, tally.count(event))).to_vec();
    let is_missed = |event: &Event| tally.count(*event) == 0;
    let is_complete = found.is_empty() && limit.is_none_or(|limit| checker.state_count() < limit);
    Exploration {
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        time: start.elapsed(),
        found,
        missed: setup.demands.iter().copied().filter(is_missed).collect(),
        events,
        is_complete,
    }
}
