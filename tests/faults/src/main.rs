//! The command line of the fault tests; `node` and `relay` are what it starts itself as.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to its user")]

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use quorate_faults::{gaps, lab, node, relay};

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
    /// One node, driven over standard input.
    #[command(hide = true)]
    Node,
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
        _ => {}
    }
    if let Some(why) = lab::unavailable() {
        println!("SKIPPED, nothing was tested: {why}");
        return ExitCode::SUCCESS;
    }
    let result = match command {
        Command::Node | Command::Relay { .. } => unreachable!("returned above"),
        Command::Gaps { repeats, nodes, clients, pause_us } => {
            let progress = |line: &str| println!("{line}");
            gaps::measure(nodes, repeats, clients, pause_us, progress).map(|rows| {
                let (table, met) = gaps::table(&rows);
                print!("\n{table}");
                met
            })
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
