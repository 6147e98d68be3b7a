//! What the demo and its node processes say to each other: one JSON object a line, commands on the
//! node's standard input, reports on its standard output.
//!
//! A node *announces* each operation before it submits it and *settles* it afterwards, and a pipe
//! keeps what a killed process wrote: so the demo knows all that a node can have committed, and of
//! an announced operation without an end it knows that it may or may not have.

use serde::{Deserialize, Serialize};

use super::data::Airport;

/// From the demo to a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub(crate) enum Command {
    /// The first command: open the database. Answered by [`Report::Ready`].
    Open {
        /// This node's position in `addresses`.
        node: u32,
        /// 0 for the first process of this node, 1 after its restart.
        life: u32,
        /// Addresses of all nodes. A single node opens its database without a cluster.
        addresses: Vec<String>,
    },
    /// Insert the counters and accounts. Answered by [`Report::Done`].
    Setup,
    /// Insert rows of the data. Answered by [`Report::Done`].
    Load {
        /// Rows nobody has tried to insert.
        rows: Vec<u32>,
        /// Rows that may be there already: look first.
        uncertain: Vec<u32>,
        /// When to be through, in milliseconds from now: the more rows a transaction, the faster.
        pace_ms: u64,
    },
    /// Update, delete and conflict. Answered by [`Report::Done`].
    Change {
        /// For how long.
        duration_ms: u64,
    },
    /// Wait until this index is visible. Answered by [`Report::Reached`].
    Reach {
        /// The index.
        index: u64,
    },
    /// Tell what time it is. Answered by [`Report::Marked`] at once, whatever else goes on.
    Mark,
    /// Send all records, and walk all indexes. Answered by [`Report::Record`]s, then
    /// [`Report::Dumped`].
    Dump,
    /// Stop the cluster's work in order and exit with status 0. Answered by [`Report::Stopped`].
    Stop,
}

/// From a node to the demo.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub(crate) enum Report {
    /// The database is open and the node is a member of the cluster.
    Ready,
    /// The node's view of the cluster, sent whenever it changes.
    Status {
        /// The leader it follows, if it knows one.
        leader: Option<u32>,
        /// The term it believes in.
        term: u64,
    },
    /// An operation is about to be submitted.
    Announced {
        /// Its number: rising in one worker, unique over all lives of a node.
        number: u64,
        /// What it does.
        operation: Operation,
    },
    /// The operation is committed.
    Acknowledged {
        /// From [`Report::Announced`].
        number: u64,
        /// The index of its transaction.
        index: u64,
        /// When, in microseconds of this process's clock.
        at_us: u64,
        /// From its begin to here, retries included.
        latency_us: u64,
        /// How often it had to start again.
        retries: u32,
    },
    /// The operation is certainly not committed and will not be.
    Refused {
        /// From [`Report::Announced`].
        number: u64,
        /// How often it had to start again.
        retries: u32,
        /// Why.
        reason: String,
    },
    /// The operation may or may not be committed.
    InDoubt {
        /// From [`Report::Announced`].
        number: u64,
        /// Why.
        reason: String,
    },
    /// An uncertain row was there, as first inserted.
    Found {
        /// The row.
        row: u32,
    },
    /// The current command is done.
    Done,
    /// The index asked for is visible.
    Reached {
        /// The visible index now.
        index: u64,
        /// The state hash at it, in hexadecimal.
        state_hash: String,
    },
    /// The time of this process's clock in microseconds.
    Marked {
        /// The time.
        at_us: u64,
    },
    /// One record.
    Record(Record),
    /// All records were sent.
    Dumped {
        /// All indexes of all classes.
        indexes: Vec<IndexWalk>,
        /// What the engine's own check of itself found wrong.
        engine_check: Option<String>,
    },
    /// The node stopped in order.
    Stopped,
    /// The node cannot go on and exits.
    Failed {
        /// Why.
        reason: String,
        /// True if its address was taken by another program, so that others may be tried.
        address_in_use: bool,
    },
}

/// One transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum Operation {
    /// Insert all counters and accounts.
    Setup,
    /// Insert rows as they are in the data (revision 0).
    Insert {
        /// The rows.
        rows: Vec<u32>,
    },
    /// Change a row to another revision.
    Update {
        /// The row.
        row: u32,
        /// Its revision, above 0.
        revision: u32,
    },
    /// Delete a row.
    Delete {
        /// The row.
        row: u32,
    },
    /// Read a counter, write it back increased, and note a posting.
    Increment {
        /// Which counter.
        counter: u32,
        /// By how much.
        amount: u64,
    },
    /// Move an amount from one account to another, and note a posting.
    Transfer {
        /// Whose balance shrinks.
        from: u32,
        /// Whose balance grows.
        to: u32,
        /// By how much.
        amount: u64,
    },
}

/// One record of any class of the demo.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "class", rename_all = "snake_case")]
pub(crate) enum Record {
    /// An airport.
    Airport(Airport),
    /// A counter.
    Counter {
        /// Its number.
        number: u32,
        /// The sum of its increments.
        value: u64,
    },
    /// An account.
    Account {
        /// Its number.
        number: u32,
        /// What it holds.
        balance: i64,
    },
    /// What one operation did to a counter or to accounts.
    Posting {
        /// The node that ran it.
        node: u32,
        /// The operation's number.
        number: u64,
        /// The increment or transfer.
        operation: Operation,
    },
}

/// What walking one index found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IndexWalk {
    /// The class.
    pub(crate) class: String,
    /// The index.
    pub(crate) index: String,
    /// How many records a scan of the class found.
    pub(crate) records: u64,
    /// How many of them the index led to.
    pub(crate) entries: u64,
    /// What was wrong with it.
    pub(crate) problem: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_line() {
        let reports = [
            Report::Announced { number: 7, operation: Operation::Insert { rows: vec![1, 2] } },
            Report::Acknowledged { number: 7, index: 9, at_us: 1, latency_us: 2, retries: 3 },
            Report::Record(Record::Posting {
                node: 1,
                number: u64::MAX,
                operation: Operation::Transfer { from: 1, to: 2, amount: 3 },
            }),
            Report::Record(Record::Counter { number: 1, value: u64::MAX }),
        ];
        for report in reports {
            let line = serde_json::to_string(&report).expect("serializes");
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Report>(&line).expect("parses"), report);
        }
    }
}
