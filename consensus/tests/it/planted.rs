//! Each planted bug must be found by the random schedules within its budget of seeds; if one is
//! not, the schedules or the checks are too weak to be trusted.

use quorate_consensus::Bug;

use crate::random::{Plan, churn, plan, run, settings};

/// The number of seeds until the bug shows, at most `budget`.
fn seeds_until_found(bug: Bug, plan: &Plan, budget: u64) -> Option<u64> {
    (1..=budget).find(|seed| {
        let mut settings = settings(plan);
        settings.bug = Some(bug);
        !run(plan, *seed, settings, false).truth.errors.is_empty()
    })
}

#[test]
fn each_planted_bug_is_found_within_its_seed_budget() {
    let equal_memory = plan(&[1, 1, 1], true, false);
    let equal_disk = plan(&[1, 1, 1], false, true);
    let five = plan(&[1, 1, 1, 1, 1], false, false);
    let stormy = churn(&[1, 1, 1]);
    let ranked = plan(&[2, 1, 1, 1], false, false);
    let table = [
        (Bug::EarlyCommitWithoutTerm, &stormy, 1000),
        (Bug::EarlyCommitWithoutQuorum, &five, 200),
        (Bug::EarlyCommitBeyondDurable, &equal_disk, 200),
        (Bug::StaleIncarnationCounts, &equal_memory, 3000),
        (Bug::VoteCountedTwice, &five, 500),
        (Bug::CommitOldTermByCounting, &stormy, 500),
        (Bug::AnswerBeforeDurable, &equal_disk, 200),
        (Bug::VoteForAnyLog, &five, 500),
        (Bug::VoteTwiceInTerm, &equal_disk, 500),
        (Bug::ChangeInOneStep, &ranked, 1500),
        (Bug::JointAsksOneHalf, &ranked, 800),
    ];
    let found: Vec<_> = table
        .into_iter()
        .map(|(bug, plan, budget)| (bug, seeds_until_found(bug, plan, budget)))
        .collect();
    let missed: Vec<_> = found.iter().filter(|(_, seeds)| seeds.is_none()).collect();
    assert!(missed.is_empty(), "not found: {missed:?} of {found:?}");
}
