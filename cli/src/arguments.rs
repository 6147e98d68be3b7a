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
    /// Show how a running cluster is, as one of its nodes sees it
    #[command(after_help = STATUS_HELP)]
    Status(StatusOptions),
    /// List, add, remove or change the nodes of a running cluster
    #[command(after_help = CHANGE_HELP)]
    Member(MemberOptions),
    /// Form a cluster again from a survivor, after a majority of rank was lost for good
    #[command(
        long_about = "Form a cluster again from a survivor, after a majority of rank was lost for \
            good.\n\n\
            The cluster goes on from what this one node holds, in a new epoch. What others\n\
            acknowledged and this node does not hold is lost, and the lost nodes can come back\n\
            only without their state. Choose the survivor with the greatest index (see\n\
            quorate status).",
        after_help = CHANGE_HELP
    )]
    Recover(RecoverOptions),
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

/// How a node is reached, and how its answer is shown.
#[derive(Args, Clone, Debug)]
pub(crate) struct Reach {
    /// Print one JSON object, described in cli/README.md
    #[arg(long, env = "QUORATE_JSON", value_parser = BoolishValueParser::new(), global = true)]
    pub(crate) json: bool,

    /// How long to wait for the answer, in seconds, 1 to 86400
    #[arg(long, value_name = "SECONDS", env = "QUORATE_TIMEOUT", default_value_t = 40)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400), global = true)]
    pub(crate) timeout: u64,
}

/// Options of `quorate status`.
#[derive(Args, Clone, Debug)]
pub(crate) struct StatusOptions {
    /// Where a node of the cluster listens: host:port, [ipv6]:port or unix:/path
    #[arg(long, value_name = "ADDR", env = "QUORATE_NODE")]
    pub(crate) node: String,

    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// Options of `quorate member`.
#[derive(Args, Clone, Debug)]
pub(crate) struct MemberOptions {
    /// Where a node of the cluster listens: host:port, [ipv6]:port or unix:/path
    #[arg(long, value_name = "ADDR", env = "QUORATE_NODE", global = true)]
    pub(crate) node: Option<String>,

    #[command(flatten)]
    pub(crate) reach: Reach,

    /// What to do.
    #[command(subcommand)]
    pub(crate) action: MemberAction,
}

/// What can be done with the nodes of a cluster.
#[derive(clap::Subcommand, Clone, Debug)]
pub(crate) enum MemberAction {
    /// List the nodes
    List,
    /// Add a node; it is started afterwards, under the id that is printed
    Add {
        /// Where it will listen: host:port, [ipv6]:port or unix:/path
        addr: String,
        /// Its quorum rank, which it gets when it has caught up; 0 for none
        #[arg(long, value_name = "RANK", env = "QUORATE_RANK", default_value_t = 1)]
        rank: u32,
    },
    /// Remove a node; it ends, and its id is not used again
    Remove {
        /// Its id
        id: u32,
    },
    /// Give a node another quorum rank
    Rank {
        /// Its id
        id: u32,
        /// The new rank; 0 leaves it without a vote
        new_rank: u32,
    },
    /// Tell the cluster that a node listens somewhere else, now or from its next start
    Address {
        /// Its id
        id: u32,
        /// Where
        addr: String,
    },
    /// Let a node lead
    Transfer {
        /// Its id
        id: u32,
    },
}

/// Options of `quorate recover`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RecoverOptions {
    /// Where the survivor listens: host:port, [ipv6]:port or unix:/path
    #[arg(long, value_name = "ADDR", env = "QUORATE_FROM")]
    pub(crate) from: String,

    /// Do not ask for confirmation
    #[arg(long, env = "QUORATE_YES", value_parser = BoolishValueParser::new())]
    pub(crate) yes: bool,

    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// Shown below the help of `quorate status`.
const STATUS_HELP: &str = "Each flag can be given as the environment variable shown beside it.\n\n\
    Exit status:\n  \
    0    the node answered, and can commit\n  \
    1    there was no answer\n  \
    2    wrong arguments\n  \
    4    the node answered, and cannot commit now";

/// Shown below the help of what changes a cluster.
const CHANGE_HELP: &str = "Each flag can be given as the environment variable shown beside it.\n\n\
    Exit status:\n  \
    0    done\n  \
    1    refused or not reached: nothing was changed\n  \
    2    wrong arguments\n  \
    3    not known to be done: it may still happen";

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
        if let Subcommand::Member(MemberOptions { node: None, .. }) = arguments.subcommand {
            let message = "say which node to ask: --node ADDR, or the variable QUORATE_NODE";
            return Err(Self::command().error(ErrorKind::MissingRequiredArgument, message));
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
    fn every_flag_has_its_environment_variable() {
        let command = Arguments::command();
        let member = command.find_subcommand("member").expect("it exists");
        let commands = ["status", "recover", "member"]
            .map(|name| command.find_subcommand(name).expect("it exists"));
        for command in commands.into_iter().chain(member.get_subcommands()) {
            for argument in command.get_arguments() {
                let Some(name) = argument.get_long() else { continue };
                if name == "help" || name == "version" {
                    continue;
                }
                let variable = argument.get_env().and_then(|v| v.to_str()).expect("has a variable");
                assert_eq!(variable, format!("QUORATE_{}", name.to_uppercase()));
            }
        }
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
