//! Mistakes made on purpose are found by the comparison with the model, each within few seeds.
#![cfg(feature = "planted-bugs")]
#![allow(clippy::unwrap_used)]

#[path = "support/sums.rs"]
mod sums;
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};

use quorate_engine::{Bug, DatabaseParams};
use support::Random;
use support::world::World;

/// How many schedules a bug may survive.
const SEEDS: u64 = 50;

fn is_found(bug: Bug) {
    let found = (1..=SEEDS).find(|seed| {
        let mut params = DatabaseParams::default();
        params.bug = Some(bug);
        let mut world = World::new(*seed, params);
        catch_unwind(AssertUnwindSafe(|| world.run(700))).is_err()
    });
    assert!(found.is_some(), "{bug:?} was not found in {SEEDS} schedules");
}

#[test]
fn a_leader_that_ignores_its_tail_is_found() {
    is_found(Bug::CertifyIgnoresTail);
}

#[test]
fn ignored_reads_are_found() {
    is_found(Bug::CertifyIgnoresReads);
}

#[test]
fn ignored_ranges_are_found() {
    is_found(Bug::ReadSetRangeMissed);
}

#[test]
fn lost_updates_are_found() {
    is_found(Bug::WritesUnchecked);
}

#[test]
fn adding_to_what_another_wrote_is_found() {
    is_found(Bug::AddersUnchecked);
}

#[test]
fn lost_additions_are_found() {
    is_found(Bug::AddersForgotten);
}

#[test]
fn sums_that_lost_something_are_found() {
    let mut params = DatabaseParams::default();
    params.bug = Some(Bug::AddersForgotten);
    let run = |seed: &u64| sums::run(*seed, params.clone());
    let found = (1..=SEEDS).find(|seed| catch_unwind(AssertUnwindSafe(|| run(seed))).is_err());
    assert!(found.is_some(), "additions were lost and nobody noticed");
}

#[test]
fn forgotten_outcomes_are_found() {
    is_found(Bug::ExactlyOnceForgotten);
}

#[test]
fn ids_given_out_in_another_order_are_found() {
    is_found(Bug::FreeListOrder);
}
