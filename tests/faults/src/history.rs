//! What clients wrote down: every operation with the times of its call and its answer.
//!
//! A call is written before it is made and its answer after it came, each as one line in one write,
//! so a killed process leaves behind all that it can have done. Times are the monotonic clock's,
//! which all processes of a host share.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::protocol::Load;
use crate::trouble::{Result, Trouble};

/// One step of a transaction. As called it has no results, as answered it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Reads a register.
    Read(u64, Option<u64>),
    /// Writes a register.
    Write(u64, u64),
    /// Writes the second value to a register if it holds the first; what it held.
    Swap(u64, u64, u64, Option<u64>),
    /// Reads a list.
    List(u64, Option<Vec<u64>>),
    /// Appends to a list.
    Append(u64, u64),
    /// Moves an amount between accounts; whether the first held enough.
    Move(u64, u64, u64, Option<bool>),
    /// The balances of all accounts.
    Balances(Option<Vec<i64>>),
}

/// What is asked of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Promise {
    /// Snapshot isolation.
    Snapshot,
    /// Serializable, and in the order of the log, since it writes at least a mark.
    Ordered,
    /// A linearizable read: it sees all that was acknowledged before, and writes nothing.
    Fresh,
}

/// What came of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Acknowledged.
    Ok,
    /// Refused: it is not committed and never will be.
    Failed,
    /// It may or may not be committed, now or later.
    Unknown,
}

/// One line of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// An operation is about to begin.
    Call {
        /// Its number in this file.
        number: u64,
        /// When.
        at_ns: u64,
        /// The kind of client.
        load: Load,
        /// What it will do.
        steps: Vec<Step>,
        /// What is asked of it.
        promise: Promise,
    },
    /// It ended.
    Answer {
        /// From the call.
        number: u64,
        /// When.
        at_ns: u64,
        /// How.
        end: End,
        /// With results, if acknowledged.
        steps: Vec<Step>,
        /// The index of its commit, 0 if it wrote nothing or has none.
        index: u64,
        /// Whether the commit was in doubt, and how it ended was asked for.
        doubted: bool,
    },
}

/// One operation as it was seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The node it ran on.
    pub node: usize,
    /// Which client: unique over all nodes and lives.
    pub client: String,
    /// What kind of client.
    pub load: Load,
    /// Steps, with results if it was acknowledged.
    pub steps: Vec<Step>,
    /// What was asked of it.
    pub promise: Promise,
    /// When it was called, nanoseconds.
    pub called_ns: u64,
    /// When it ended, nanoseconds; none if its process was killed before that.
    pub ended_ns: Option<u64>,
    /// What came of it.
    pub end: End,
    /// The index of its commit; 0 if it has none.
    pub index: u64,
    /// Whether the commit was in doubt, and how it ended was asked for.
    pub doubted: bool,
}

/// How an operation ended.
#[derive(Clone, Debug)]
pub struct Answer {
    /// How.
    pub end: End,
    /// Its steps with results, if it was acknowledged.
    pub steps: Vec<Step>,
    /// The index of its commit; 0 if it has none.
    pub index: u64,
    /// Whether the commit was in doubt, and how it ended was asked for.
    pub doubted: bool,
}

impl Answer {
    /// Without results.
    pub fn without(end: End, doubted: bool) -> Self {
        Self { end, steps: Vec::new(), index: 0, doubted }
    }
}

/// Now, by the clock of this process's time namespace.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every kernel has this clock");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// The file of one client.
#[derive(Debug)]
pub struct Writer {
    file: File,
    load: Load,
    next: u64,
    ahead_ns: i64,
}

impl Writer {
    /// Starts a file. The name tells the node, its life and the client.
    ///
    /// # Errors
    ///
    /// If the file cannot be made.
    pub fn create(
        directory: &Path,
        node: usize,
        life: usize,
        client: usize,
        load: Load,
        ahead_ns: i64,
    ) -> io::Result<Self> {
        let name = format!("{node}-{life}-{client}.history");
        let file = fs::OpenOptions::new().append(true).create_new(true).open(directory.join(name));
        Ok(Self { file: file?, load, next: 0, ahead_ns })
    }

    /// Writes a call down; the number that its answer needs.
    ///
    /// # Errors
    ///
    /// If the line cannot be written: then the operation must not be begun.
    pub fn call(&mut self, steps: &[Step], promise: Promise) -> io::Result<u64> {
        let (number, load, steps) = (self.next, self.load, steps.to_vec());
        self.next += 1;
        let at_ns = self.now_ns();
        self.write(&Line::Call { number, at_ns, load, steps, promise })?;
        Ok(number)
    }

    /// Writes an answer down.
    ///
    /// # Errors
    ///
    /// If the line cannot be written.
    pub fn answer(&mut self, number: u64, answer: Answer) -> io::Result<()> {
        let Answer { end, steps, index, doubted } = answer;
        let at_ns = self.now_ns();
        self.write(&Line::Answer { number, at_ns, end, steps, index, doubted })
    }

    /// Now, by the conductor's clock.
    pub fn now_ns(&self) -> u64 {
        now_ns().wrapping_add_signed(-self.ahead_ns)
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_string(line).expect("a line is plain data");
        text.push('\n');
        self.file.write_all(text.as_bytes())
    }
}

/// All operations of all files of a directory, by the time of their call.
///
/// # Errors
///
/// If a file cannot be read, or holds what no client wrote.
pub fn read(directory: &Path) -> Result<Vec<Operation>> {
    let mut operations = Vec::new();
    let listed = fs::read_dir(directory).map_err(Trouble::doing("listing histories"))?;
    for entry in listed.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "history") {
            read_file(&path, &mut operations)?;
        }
    }
    operations.sort_by_key(|operation| operation.called_ns);
    Ok(operations)
}

fn read_file(path: &PathBuf, operations: &mut Vec<Operation>) -> Result<()> {
    let shown = path.display().to_string();
    let text = fs::read_to_string(path).map_err(Trouble::doing(&shown))?;
    let client = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let node = client.split('-').next().and_then(|node| node.parse().ok());
    let node = node.ok_or_else(|| Trouble::new(format!("{shown} names no node")))?;
    let mut places = HashMap::new();
    // A process killed while it wrote can leave half a line, which is then its last.
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let line: Line = serde_json::from_str(line).map_err(Trouble::doing(&shown))?;
        match line {
            Line::Call { number, at_ns, load, steps, promise } => {
                places.insert(number, operations.len());
                operations.push(Operation {
                    node,
                    client: client.clone(),
                    load,
                    steps,
                    promise,
                    called_ns: at_ns,
                    ended_ns: None,
                    end: End::Unknown,
                    index: 0,
                    doubted: false,
                });
            }
            Line::Answer { number, at_ns, end, steps, index, doubted } => {
                let place = places.remove(&number);
                let place = place
                    .ok_or_else(|| Trouble::new(format!("{shown}: {number} was not called")))?;
                let operation = &mut operations[place];
                operation.ended_ns = Some(at_ns);
                operation.end = end;
                operation.index = index;
                operation.doubted = doubted;
                if end == End::Ok {
                    operation.steps = steps;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_without_an_answer_are_unknown_and_half_a_line_is_none() {
        let directory = tempfile::tempdir().expect("made");
        let mut writer = Writer::create(directory.path(), 2, 1, 0, Load::Own, 0).expect("made");
        let first = writer.call(&[Step::Read(1, None)], Promise::Fresh).expect("written");
        let steps = vec![Step::Read(1, Some(7))];
        let answer = Answer { end: End::Ok, steps, index: 0, doubted: false };
        writer.answer(first, answer).expect("written");
        let second = writer.call(&[Step::Write(1, 8)], Promise::Ordered).expect("written");
        assert_eq!((first, second), (0, 1));
        writer.file.write_all(b"{\"call\":{\"num").expect("written");
        let operations = read(directory.path()).expect("read");
        let [one, two] = &operations[..] else { panic!("{operations:?}") };
        assert_eq!((one.node, one.end), (2, End::Ok));
        assert_eq!(one.steps, [Step::Read(1, Some(7))]);
        assert!(one.ended_ns >= Some(one.called_ns));
        assert_eq!((two.end, two.ended_ns), (End::Unknown, None));
    }
}
