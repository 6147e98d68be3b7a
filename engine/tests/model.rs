//! The engine against a dumb model, under random schedules of transactions, leader and follower.
#![allow(clippy::unwrap_used)]

mod support;

use quorate_engine::DatabaseParams;
use support::world::{Seen, World};

#[test]
fn every_answer_and_decision_is_that_of_the_model() {
    let mut seen = Seen::default();
    for seed in 1..=500 {
        let mut world = World::new(seed, DatabaseParams::default());
        let run = std::panic::AssertUnwindSafe(|| world.run(700));
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("the schedule of seed {seed} failed");
            std::panic::resume_unwind(panic);
        }
        let of_run = world.seen;
        seen.commits += of_run.commits;
        seen.conflicts += of_run.conflicts;
        seen.early_aborts += of_run.early_aborts;
        seen.conflicts_with_tail += of_run.conflicts_with_tail;
        seen.violations += of_run.violations;
        seen.additions += of_run.additions;
        seen.blind_sums += of_run.blind_sums;
        seen.images += of_run.images;
        seen.repeats += of_run.repeats;
    }
    // A run that met too little proves too little.
    assert!(seen.commits > 8000, "{seen:?}");
    assert!(seen.early_aborts > 5000 && seen.conflicts_with_tail > 3000, "{seen:?}");
    assert!(seen.additions > 10000 && seen.blind_sums > 200, "{seen:?}");
    assert!(seen.violations > 10000 && seen.images > 1000 && seen.repeats > 10000, "{seen:?}");
}
