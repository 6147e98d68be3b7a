//! The command line. What is here is what `--help` shows.

use clap::builder::BoolishValueParser;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser};

/// Quorate: an embedded, replicated, in-memory database engine.
#[derive(Debug, Parser)]
#[command(name = "quorate", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) subcommand: Subcommand,
}

/// The subcommands.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Subcommand {
    /// Show a cluster at work on this machine: load, a killed leader, conflicts, and a full check
    #[command(
        long_about = "Show a cluster at work on this machine.\n\n\
            Starts the nodes as processes on loopback. Each loads its share of 28 298\n\
            airports into one replicated database; in mid-load the leader is killed with\n\
            SIGKILL, and restarted when the others have gone on. Then all nodes update and\n\
            delete airports, increment the same counters and move money between the same\n\
            accounts. At the end each node's records and indexes are compared with what was\n\
            acknowledged. Writes no file.",
        after_help = "Each flag can be given as the environment variable shown beside it.",
        after_long_help = "Each flag can be given as the environment variable shown beside it.\n\
            QUORATE_LOG=debug makes the nodes log; what they wrote is shown if one fails.\n\n\
            Exit status:\n  \
            0    all checks held\n  \
            1    a check failed, a node died or the time limit passed\n  \
            2    wrong arguments\n  \
            130  interrupted; the nodes are gone by then\n\n\
            The JSON object of --json is described in cli/README.md."
    )]
    Demo(DemoOptions),
    /// One node of the demo; speaks JSON lines on standard input and output.
    ///
    /// Its name is unlike any other, so that nobody with a slip of the finger is led to it.
    #[command(hide = true, name = "internal-node")]
    DemoNode,
}

/// Options of `quorate demo`.
///
/// The summary goes to standard output, progress to standard error.
#[derive(Args, Clone, Debug)]
pub(crate) struct DemoOptions {
    /// How many nodes to start, 1 to 7. With fewer than 3 no node is killed: nobody could go on
    #[arg(long, value_name = "COUNT", env = "QUORATE_DEMO_NODES", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=7))]
    pub(crate) nodes: u32,

    /// About how long to load and change data, in seconds, 1 to 3600
    #[arg(long, value_name = "SECONDS", env = "QUORATE_DEMO_SECONDS", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,

    /// Which node to kill, instead of whichever leads
    #[arg(long, value_name = "NODE", env = "QUORATE_DEMO_KILL")]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=6))]
    pub(crate) kill: Option<u32>,

    /// Print one JSON object instead of the tables, and no progress
    #[arg(long, env = "QUORATE_DEMO_JSON", value_parser = BoolishValueParser::new())]
    pub(crate) json: bool,

    /// Print no progress, only the summary
    #[arg(long, env = "QUORATE_DEMO_QUIET", value_parser = BoolishValueParser::new())]
    pub(crate) quiet: bool,
}

impl Arguments {
    /// Parses the command line; what clap cannot check of one flag alone is checked here.
    pub(crate) fn parse_checked() -> Result<Self, clap::Error> {
        let arguments = Self::try_parse()?;
        if let Subcommand::Demo(DemoOptions { nodes, kill: Some(kill), .. }) = arguments.subcommand
            && kill >= nodes
        {
            let message =
                format!("--kill {kill} names no node: they are numbered 0 to {}", nodes - 1);
            return Err(Self::command().error(ErrorKind::ValueValidation, message));
        }
        Ok(arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_demo_flag_has_its_environment_variable() {
        let command = Arguments::command();
        let demo = command.find_subcommand("demo").expect("the demo exists");
        for argument in demo.get_arguments().filter(|a| a.get_long() != Some("help")) {
            if argument.get_long() == Some("version") {
                continue;
            }
            let name = argument.get_long().expect("flags only").to_uppercase().replace('-', "_");
            let variable = argument.get_env().and_then(|v| v.to_str()).expect("has a variable");
            assert_eq!(variable, format!("QUORATE_DEMO_{name}"));
        }
    }
}
