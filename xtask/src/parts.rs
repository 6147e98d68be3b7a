//! The parts of `cargo xtask test`: one table, in the order in which they run.
//!
//! A part is a name, a time budget and commands. Parts are independent: a failure is noted and the
//! next one runs, so that one run of CI shows everything there is to mend. To add a part, add a
//! row. The budgets are for two cores and no build cache; they add up to CI's time, and a part
//! that takes [`KILL_FACTOR`] times its budget is killed as hanging.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::{process, tools};

/// CI's time for everything, in minutes, from a fresh clone on two cores.
const TOTAL_BUDGET_MINUTES: u64 = 35;

const KILL_FACTOR: u64 = 3;

/// One part of the whole test.
struct Part {
    name: &'static str,
    what: &'static str,
    budget_minutes: u64,
    /// Run by `cargo xtask check` too.
    quick: bool,
    install: fn() -> Result<(), String>,
    /// Arguments of cargo, one list per command; all are run.
    commands: &'static [&'static [&'static str]],
    /// Variables set for the commands.
    variables: &'static [(&'static str, &'static str)],
}

const PARTS: &[Part] = &[
    Part {
        name: "fmt",
        what: "formatting",
        budget_minutes: 1,
        quick: true,
        install: tools::components,
        commands: &[&["fmt", "--all", "--check"]],
        variables: &[],
    },
    Part {
        name: "clippy",
        what: "lints, warnings denied",
        budget_minutes: 3,
        quick: true,
        install: tools::components,
        commands: &[&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--keep-going",
            "--",
            "--deny",
            "warnings",
        ]],
        variables: &[],
    },
    Part {
        name: "doc",
        what: "documentation, warnings denied",
        budget_minutes: 1,
        quick: false,
        install: nothing,
        commands: &[&["doc", "--workspace", "--no-deps", "--locked", "--keep-going"]],
        variables: &[("RUSTDOCFLAGS", "--deny warnings")],
    },
    Part {
        name: "tidy",
        what: "house rules, layering, licences",
        budget_minutes: 2,
        quick: true,
        install: nothing,
        commands: &[&["test", "--package", "quorate", "--test", "tidy", "--locked"]],
        variables: &[],
    },
    Part {
        name: "tests",
        what: "unit, property, golden and process tests",
        budget_minutes: 11,
        quick: false,
        install: tools::nextest,
        commands: &[&["nextest", "run", "--workspace", "--locked", "--no-fail-fast"]],
        variables: &[],
    },
    Part {
        name: "doctests",
        what: "examples in the documentation and the README",
        budget_minutes: 1,
        quick: false,
        install: nothing,
        commands: &[&["test", "--workspace", "--doc", "--locked"]],
        variables: &[],
    },
    Part {
        name: "simulator",
        what: "clusters on a simulated network, from seeds",
        budget_minutes: 3,
        quick: false,
        install: nothing,
        commands: &[&[
            "run",
            "--release",
            "--package",
            "quorate-simulation",
            "--locked",
            "--",
            "--seeds",
            "5000",
        ]],
        variables: &[],
    },
    Part {
        name: "model",
        what: "every order of events of small clusters, and that planted bugs show there",
        budget_minutes: 1,
        quick: false,
        install: nothing,
        commands: &[
            &["run", "--release", "--package", "quorate-model", "--locked"],
            &[
                "test",
                "--release",
                "--package",
                "quorate-model",
                "--features",
                "planted-bugs",
                "--locked",
                "--test",
                "planted",
            ],
        ],
        variables: &[],
    },
    Part {
        name: "planted",
        what: "planted bugs, each found by the tests that claim to cover it",
        budget_minutes: 4,
        quick: false,
        install: tools::nextest,
        commands: &[
            &[
                "run",
                "--release",
                "--package",
                "quorate-simulation",
                "--features",
                "planted-bugs",
                "--locked",
                "--",
                "--planted",
            ],
            &[
                "nextest",
                "run",
                "--package",
                "quorate-consensus",
                "--package",
                "quorate-engine",
                "--package",
                "quorate-cluster",
                "--features",
                "quorate-cluster/planted-bugs",
                "--locked",
                "-E",
                "binary(planted) | test(planted)",
            ],
        ],
        variables: &[],
    },
    Part {
        name: "faults",
        what: "real processes under real faults, and nodes that lie, which must be found",
        budget_minutes: 4,
        quick: false,
        install: tools::iproute2,
        commands: &[
            &["run", "--release", "--package", "quorate-faults", "--locked", "--", "run"],
            &["run", "--release", "--package", "quorate-faults", "--locked", "--", "prove"],
        ],
        variables: &[],
    },
    Part {
        name: "demo",
        what: "the main job, as the README says it",
        budget_minutes: 1,
        quick: false,
        install: nothing,
        commands: &[&["run", "--release", "--locked", "--", "demo", "--seconds", "6"]],
        variables: &[],
    },
    Part {
        name: "deny",
        what: "licences, sources and banned crates of the dependency tree",
        budget_minutes: 3,
        quick: false,
        install: tools::deny,
        commands: &[tools::DENY_CHECKS],
        variables: &[],
    },
];

const _: () = {
    let (mut sum, mut i) = (0, 0);
    while i < PARTS.len() {
        sum += PARTS[i].budget_minutes;
        i += 1;
    }
    assert!(sum <= TOTAL_BUDGET_MINUTES, "the parts together overrun CI's time");
};

/// Which parts to run.
pub(crate) enum Selection<'a> {
    All,
    Quick,
    Named(&'a [&'a str]),
}

/// Runs the selected parts in table order and sums up. An error if any failed.
pub(crate) fn run(selection: Selection<'_>) -> Result<(), String> {
    let parts = select(PARTS, selection)?;
    let mut reports = Vec::new();
    for part in parts {
        println!("\n==== {}: {} ====", part.name, part.what);
        let start = Instant::now();
        let result = run_part(part);
        let elapsed = start.elapsed();
        let seconds = elapsed.as_secs_f64();
        match &result {
            Ok(()) => println!("==== {}: passed in {seconds:.1} s ====", part.name),
            Err(message) => {
                println!("==== {}: FAILED in {seconds:.1} s: {message} ====", part.name);
            }
        }
        reports.push(Report { part, elapsed, result });
    }
    print!("\n{}", summary(&reports));
    let failed: Vec<&str> =
        reports.iter().filter(|r| r.result.is_err()).map(|r| r.part.name).collect();
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}

/// The parts with their budgets, one a line.
pub(crate) fn list() -> String {
    let mut text = String::new();
    for Part { name, what, budget_minutes, .. } in PARTS {
        writeln!(text, "{name:<10} {budget_minutes:>2} min  {what}").expect("writes to a string");
    }
    writeln!(text, "{:<10} {TOTAL_BUDGET_MINUTES:>2} min  at most", "all").expect("a string");
    text
}

struct Report {
    part: &'static Part,
    elapsed: Duration,
    result: Result<(), String>,
}

fn nothing() -> Result<(), String> {
    Ok(())
}

fn select(parts: &'static [Part], selection: Selection<'_>) -> Result<Vec<&'static Part>, String> {
    match selection {
        Selection::All => Ok(parts.iter().collect()),
        Selection::Quick => Ok(parts.iter().filter(|part| part.quick).collect()),
        Selection::Named(names) => {
            if let Some(unknown) = names.iter().find(|name| parts.iter().all(|p| p.name != **name))
            {
                let known: Vec<&str> = parts.iter().map(|part| part.name).collect();
                return Err(format!("no part `{unknown}`; there are {}", known.join(", ")));
            }
            Ok(parts.iter().filter(|part| names.contains(&part.name)).collect())
        }
    }
}

/// All commands of the part, also after a failure; the first failure is the result.
fn run_part(part: &Part) -> Result<(), String> {
    (part.install)()?;
    let limit = Duration::from_secs(60 * part.budget_minutes * KILL_FACTOR);
    let mut result = Ok(());
    for arguments in part.commands {
        let mut command = process::cargo(arguments);
        command.envs(part.variables.iter().copied());
        result = result.and(process::run_within(&mut command, limit));
    }
    result
}

fn summary(reports: &[Report]) -> String {
    let mut text = String::from("part        result   seconds  budget\n");
    for Report { part, elapsed, result } in reports {
        let verdict = if result.is_ok() { "passed" } else { "FAILED" };
        let (name, seconds, minutes) = (part.name, elapsed.as_secs_f64(), part.budget_minutes);
        writeln!(text, "{name:<10}  {verdict}  {seconds:>8.1}  {minutes:>2} min")
            .expect("writes to a string");
    }
    let total: Duration = reports.iter().map(|report| report.elapsed).sum();
    let seconds = total.as_secs_f64();
    writeln!(text, "{:<10}          {seconds:>8.1}", "all").expect("writes to a string");
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_every_part_does_something() {
        let names: BTreeSet<&str> = PARTS.iter().map(|part| part.name).collect();
        assert_eq!(names.len(), PARTS.len());
        assert!(PARTS.iter().all(|part| !part.commands.is_empty() && part.budget_minutes > 0));
    }

    #[test]
    fn an_unknown_part_is_refused_before_anything_runs() {
        let error = select(PARTS, Selection::Named(&["tidy", "nosuch"])).err().expect("refused");
        assert!(error.contains("`nosuch`") && error.contains("tidy"), "{error}");
    }

    #[test]
    fn a_failure_does_not_hide_behind_a_later_success() {
        const PART: Part = Part {
            name: "twice",
            what: "first fails, then passes",
            budget_minutes: 1,
            quick: false,
            install: nothing,
            commands: &[&["no-such-subcommand-at-all"], &["--version"]],
            variables: &[],
        };
        assert!(run_part(&PART).is_err());
    }

    #[test]
    fn the_summary_shows_each_part_with_its_verdict() {
        let reports = [
            Report { part: &PARTS[0], elapsed: Duration::from_secs(2), result: Ok(()) },
            Report { part: &PARTS[1], elapsed: Duration::from_secs(3), result: Err("x".into()) },
        ];
        let text = summary(&reports);
        assert!(text.contains("passed") && text.contains("FAILED") && text.contains("5.0"));
    }
}
