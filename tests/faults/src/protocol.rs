//! What the conductor and a node process say to each other: one JSON object a line, commands on
//! the node's standard input, reports on its standard output. What clients did is not told here but
//! written to files, which a killed process leaves behind.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a node process must know; the first line it reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// This node's position in `addresses`.
    pub node: usize,
    /// Which process of this node: 0 for the first.
    pub life: usize,
    /// Addresses of all nodes.
    pub addresses: Vec<String>,
    /// How long open waits for the cluster, milliseconds.
    pub connect_timeout_ms: u64,
    /// How long a commit waits for its outcome, milliseconds.
    pub commit_limit_ms: u64,
    /// Where clients write what they do.
    pub directory: PathBuf,
    /// Ahead of the conductor's monotonic clock, nanoseconds: the offset of a time namespace.
    pub clock_ahead_ns: i64,
    /// The conductor's monotonic clock when it wrote this, nanoseconds.
    pub conductor_ns: u64,
    /// The fault to commit, if any.
    pub flaw: Option<Flaw>,
}

/// A fault of the node itself, for the judges to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Flaw {
    /// Answers reads from the state at hand as if they were fresh.
    StaleReads,
    /// Acknowledges every hundredth write without committing it.
    LostWrites,
    /// Runs transactions that should be serializable on a snapshot only.
    WriteSkew,
}

/// What clients do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// One client for each, with a thread and a connection.
    pub loads: Vec<Load>,
    /// How long a client pauses after each operation, microseconds.
    pub pause_us: u64,
    /// How many registers and accounts there are.
    pub keys: u64,
    /// Decides what the clients do.
    pub seed: u64,
}

/// Kinds of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// Each client overwrites a record of its own: nobody ever conflicts.
    Own,
    /// Reads, writes and compare-and-set of single registers, which must be linearizable.
    Registers,
    /// Transactions that read several lists and append to them, serializable.
    Serializable,
    /// The same under snapshot isolation, on the same lists.
    Snapshot,
    /// Transfers between accounts, and totals of all.
    Bank,
}

/// From the conductor to a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Insert what the work needs. Answered by [`Report::Done`].
    Prepare(Work),
    /// Start the clients.
    Work(Work),
    /// Answered by [`Report::Done`] when a client was acknowledged what it began after this.
    Progress,
    /// Read everything at the end, as one more client. Answered by [`Report::Done`].
    Audit {
        /// The lists that were ever used.
        lists: Vec<u64>,
    },
    /// Let the clients finish what they do, and start nothing new. Answered by [`Report::Done`].
    Rest,
    /// Wait until this index is visible. Answered by [`Report::Reached`].
    Reach {
        /// The index.
        index: u64,
    },
}

/// From a node to the conductor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum Report {
    /// The database is open and the node is a member.
    Ready,
    /// The node's view of the cluster, whenever it changes.
    Status {
        /// The leader it follows, if it knows one.
        leader: Option<usize>,
        /// Its term.
        term: u64,
    },
    /// The command is done.
    Done {
        /// The newest index visible.
        index: u64,
    },
    /// The index asked for is visible.
    Reached {
        /// The visible index now.
        index: u64,
        /// The state hash there, in hexadecimal.
        state_hash: String,
    },
    /// The node cannot go on, and its process ends.
    Failed {
        /// Why.
        reason: String,
    },
}
