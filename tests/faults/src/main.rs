//! The command line of the fault tests; `node` and `relay` are what it starts itself as.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to its user")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use quorate_faults::protocol::Flaw;
use quorate_faults::scenarios::{self, Run, Scenario};
use quorate_faults::{Trouble, gaps, history, lab, node, relay};

/// Real node processes on networks of their own, under real faults. Needs root.
#[derive(Parser)]
#[command(name = "quorate-faults")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure write gaps after faults and hold them against the bars.
    Gaps {
        /// How often each fault is tried.
        #[arg(long, default_value_t = 10)]
        repeats: usize,
        /// How many nodes.
        #[arg(long, default_value_t = 3)]
        nodes: usize,
        /// Clients on each node.
        #[arg(long, default_value_t = 2)]
        clients: usize,
        /// How long a client pauses after each commit, microseconds.
        #[arg(long, default_value_t = 1_000)]
        pause_us: u64,
    },
    /// Run scenarios, each on clusters of 3 and some on 5 nodes, and judge what clients saw.
    Run {
        /// Only these.
        scenarios: Vec<String>,
        /// Decides what is left to chance.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many minutes of a random mix follow, with one seed after the other.
        #[arg(long, default_value_t = 0)]
        minutes: u64,
        /// Only clusters of this many nodes.
        #[arg(long)]
        nodes: Option<usize>,
        /// A fault of the nodes themselves, which must be found.
        #[arg(long)]
        flaw: Option<Flaw>,
    },
    /// Run nodes that break promises: each must be found, by the judge of that promise.
    Prove,
    /// Name the scenarios.
    List,
    /// One node, driven over standard input.
    #[command(hide = true)]
    Node,
    /// Tell the monotonic clock.
    #[command(hide = true)]
    Clock,
    /// A relay between two interfaces.
    #[command(hide = true)]
    Relay { one: String, other: String, delay_ms: u64 },
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    match command {
        Command::Node => return node::run(),
        Command::Relay { one, other, delay_ms } => {
            return relay::run(&one, &other, Duration::from_millis(delay_ms));
        }
        Command::Clock => {
            println!("{}", history::now_ns());
            return ExitCode::SUCCESS;
        }
        Command::List => {
            for Scenario { name, what, .. } in scenarios::ALL {
                println!("{name:<14} {what}");
            }
            return ExitCode::SUCCESS;
        }
        Command::Gaps { .. } | Command::Run { .. } | Command::Prove => {}
    }
    if let Some(why) = lab::unavailable() {
        println!("SKIPPED, nothing was tested: {why}");
        return ExitCode::SUCCESS;
    }
    let result = match command {
        Command::Gaps { repeats, nodes, clients, pause_us } => {
            let progress = |line: &str| println!("{line}");
            gaps::measure(nodes, repeats, clients, pause_us, progress).map(|rows| {
                let (table, met) = gaps::table(&rows);
                print!("\n{table}");
                met
            })
        }
        Command::Run { scenarios, seed, minutes, nodes, flaw } => {
            select(&scenarios).map(|selected| {
                let named = run_all(&selected, seed, nodes, flaw);
                named & mix_for(Duration::from_secs(60 * minutes), seed, nodes, flaw)
            })
        }
        Command::Prove => Ok(prove()),
        Command::Node | Command::Relay { .. } | Command::Clock | Command::List => {
            unreachable!("returned above")
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(trouble) => {
            eprintln!("quorate-faults: {trouble}");
            ExitCode::FAILURE
        }
    }
}

fn select(names: &[String]) -> Result<Vec<&'static Scenario>, Trouble> {
    if names.is_empty() {
        return Ok(scenarios::ALL.iter().collect());
    }
    let by_name = |name: &String| {
        let found = scenarios::ALL.iter().find(|scenario| scenario.name == name);
        found.ok_or_else(|| Trouble::new(format!("no scenario `{name}`; `list` names them")))
    };
    names.iter().map(by_name).collect()
}

/// True if all are good.
fn run_all(
    selected: &[&'static Scenario],
    seed: u64,
    only: Option<usize>,
    flaw: Option<Flaw>,
) -> bool {
    let mut good = true;
    for scenario in selected {
        for nodes in scenario.sizes.iter().filter(|size| only.is_none_or(|only| only == **size)) {
            let run = Run { nodes: *nodes, seed, mix: MIX, flaw };
            good &= run_one(scenario, &run);
        }
    }
    good
}

/// Random mixes with one seed after the other until the time is over.
fn mix_for(time: Duration, first: u64, only: Option<usize>, flaw: Option<Flaw>) -> bool {
    let until = Instant::now() + time;
    let mix = scenarios::ALL.iter().find(|scenario| scenario.name == "mix").expect("is there");
    let mut good = true;
    for seed in first.. {
        if Instant::now() >= until {
            break;
        }
        let nodes = only.unwrap_or(if seed % 3 == 0 { 5 } else { 3 });
        good &= run_one(mix, &Run { nodes, seed, mix: 3 * MIX, flaw });
    }
    good
}

/// True if every flaw is found by the judge that is there for it.
fn prove() -> bool {
    let scenario = scenarios::ALL.iter().find(|s| s.name == "partition").expect("is there");
    let mut all_found = true;
    for (flaw, judge) in scenarios::FLAWS {
        let run = Run { nodes: 3, seed: 1, mix: MIX, flaw: Some(*flaw) };
        let result = scenario.run(&run);
        let noticed = match &result {
            Ok(Err(violation)) => violation.broken.iter().map(|(judge, _)| *judge).collect(),
            Ok(Ok(_)) | Err(_) => Vec::new(),
        };
        let found = noticed.contains(judge);
        all_found &= found;
        let verdict = if found { "found" } else { "NOT FOUND" };
        println!("{flaw:?}: {verdict} by {judge:?}; noticed by {noticed:?}");
        if let Err(trouble) = result {
            println!("{trouble}");
        }
    }
    all_found
}

fn run_one(scenario: &Scenario, run: &Run) -> bool {
    if let Some(why) = scenario.unavailable() {
        println!("{:<13} SKIPPED: {why}", scenario.name);
        return true;
    }
    let begun = Instant::now();
    let result = scenario.run(run);
    let seconds = begun.elapsed().as_secs_f64();
    let head =
        format!("{:<13} {} nodes, seed {:<4} {seconds:>5.1} s", scenario.name, run.nodes, run.seed);
    match result {
        Ok(Ok(judged)) => {
            println!("{head}  good: {judged}");
            true
        }
        Ok(Err(violation)) => {
            println!("{head}  VIOLATION: {violation}");
            false
        }
        Err(trouble) => {
            println!("{head}  FAILED: {trouble}");
            false
        }
    }
}

/// How long faults are mixed in one run.
const MIX: Duration = Duration::from_secs(10);
