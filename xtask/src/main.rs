//! `cargo xtask`: the commands that developers and CI run, so that both run the same ones.
//!
//! What lives here: the list of checks ([`parts`]), the tools they need and how those are
//! installed ([`tools`]), and the running of child processes ([`process`]). What must never live
//! here: a check itself. A rule about sources belongs to the tidy test, behaviour to a test of its
//! crate; this program only calls them, so that each can also be run without it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to its user")]

mod parts;
mod process;
mod tools;

use std::process::ExitCode;

use parts::Selection;

const HELP: &str = "\
cargo xtask <COMMAND> [ARGS]

What developers and CI run. Every command exits with 0 only if all it ran passed.

COMMANDS
  test [PART...]        install what is missing, run every part (or those named), sum up;
                        a failing part does not keep the others from running
  test --list           name the parts, with their time budgets
  check                 the quick ones: formatting, lints, tidy
  tidy                  the house rules: sizes, banned calls, layering, licences
  sim [ARGS]            the cluster simulator, optimised; `cargo xtask sim --help` for ARGS
  model [--full]        every order of events of small clusters, optimised; with --full larger ones,
                        for hours; `cargo xtask model --help` for more
  fuzz [CASES] [FILTER] property tests with CASES cases each (default 20000), optimised
  faults [--seed N] [--minutes M]
                        real processes under real faults, then a random mix for M minutes with one
                        seed after the other; needs root; `cargo xtask faults --help` for more
  bench [--quick]       the measurements of benches/, optimised
  bench failover        write gaps after faults of real processes; needs root
  deny [--advisories]   licences, sources and banned crates by cargo-deny (installed if missing);
                        with --advisories also known vulnerabilities, which needs GitHub
  help                  this text
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match args.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", &[][..]),
    };
    let result = match command {
        "test" => test(rest),
        "check" => no_arguments(rest).and_then(|()| parts::run(Selection::Quick)),
        "tidy" => no_arguments(rest).and_then(|()| parts::run(Selection::Named(&["tidy"]))),
        "sim" => sim(rest),
        "faults" => faults(rest),
        "bench" => bench(rest),
        "model" => forward(&["run", "--release", "--package", "quorate-model", "--"], rest),
        "fuzz" => fuzz(rest),
        "deny" => deny(rest),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        other => Err(format!("no command `{other}`; `cargo xtask help` lists them")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The simulator; what plants bugs in the code under test is compiled in only if asked for.
fn sim(args: &[String]) -> Result<(), String> {
    let plants = args.iter().any(|arg| arg == "--planted" || arg == "--bug");
    let mut command = vec!["run", "--release", "--package", "quorate-simulation"];
    if plants {
        command.extend(["--features", "planted-bugs"]);
    }
    command.push("--");
    forward(&command, args)
}

/// The scenarios, or another command of the fault tests if one is named.
fn faults(args: &[String]) -> Result<(), String> {
    tools::iproute2()?;
    let mut command = vec!["run", "--release", "--package", "quorate-faults", "--"];
    let own = ["run", "prove", "gaps", "list", "help", "--help"];
    if args.first().is_none_or(|first| !own.contains(&first.as_str())) {
        command.push("run");
    }
    forward(&command, args)
}

fn bench(args: &[String]) -> Result<(), String> {
    match args.split_first() {
        Some((first, rest)) if first == "failover" => {
            tools::iproute2()?;
            forward(&["run", "--release", "--package", "quorate-faults", "--", "gaps"], rest)
        }
        _ => {
            let figures = ["--package", "quorate-benches", "--bin", "figures", "--"];
            forward(&[&["run", "--release"][..], &figures].concat(), args)
        }
    }
}

fn test(args: &[String]) -> Result<(), String> {
    let names: Vec<&str> = args.iter().map(String::as_str).collect();
    match names.as_slice() {
        [] => parts::run(Selection::All),
        ["--list"] => {
            print!("{}", parts::list());
            Ok(())
        }
        _ => parts::run(Selection::Named(&names)),
    }
}

/// Property tests read the number of cases from `PROPTEST_CASES`; a test without a property runs
/// as always.
fn fuzz(args: &[String]) -> Result<(), String> {
    let (cases, filter) = match args.split_first() {
        Some((first, rest)) if first.chars().all(|c| c.is_ascii_digit()) => {
            let cases: u32 = first.parse().map_err(|e| format!("number of cases {first}: {e}"))?;
            (cases, rest)
        }
        _ => (20_000, args),
    };
    tools::nextest()?;
    let fixed = ["nextest", "run", "--workspace", "--cargo-profile", "release"];
    let mut command = process::cargo(&fixed);
    command.args(filter).env("PROPTEST_CASES", cases.to_string());
    process::run(&mut command)
}

fn deny(args: &[String]) -> Result<(), String> {
    let mut checks = tools::DENY_CHECKS.to_vec();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => {}
        ["--advisories"] => checks.push("advisories"),
        _ => return Err("deny takes `--advisories` or nothing".to_string()),
    }
    tools::deny()?;
    process::run(&mut process::cargo(&checks))
}

fn forward(fixed: &[&str], args: &[String]) -> Result<(), String> {
    process::run(process::cargo(fixed).args(args))
}

fn no_arguments(args: &[String]) -> Result<(), String> {
    match args.first() {
        None => Ok(()),
        Some(extra) => Err(format!("this command takes no arguments, got `{extra}`")),
    }
}
