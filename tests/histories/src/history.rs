//! The record of what clients did: one operation a transaction, one line of JSON an operation.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Names a register or a list. A key is one or the other throughout a history.
pub type Key = u64;

/// What is written: unique among all that is ever written to its key, tried or done.
pub type Value = u64;

/// How the client wanted its transaction to be isolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// Snapshot isolation: write skew is allowed.
    Snapshot,
    /// Serializable, and in real time if it writes or is `fresh`.
    Serializable,
}

/// How it ended, as far as the client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was acknowledged.
    Committed,
    /// It was refused: nothing of it may ever be seen.
    Refused,
    /// Nobody knows: in doubt, or its node died.
    Unknown,
}

/// One step of a transaction, in the order of the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Read a register; `None` if it was never written.
    Read {
        /// Which.
        key: Key,
        /// What was there.
        value: Option<Value>,
    },
    /// Wrote a register.
    Write {
        /// Which.
        key: Key,
        /// What.
        value: Value,
    },
    /// Read a list, oldest element first; empty if it was never appended to.
    ReadList {
        /// Which.
        key: Key,
        /// What was in it.
        values: Vec<Value>,
    },
    /// Appended to a list.
    Append {
        /// Which.
        key: Key,
        /// What.
        value: Value,
    },
}

/// One transaction of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// The session: one operation at a time, each seeing what the ones before it saw. A client that
    /// goes on at another node, or that does not know how its last one ended, is a new session.
    pub process: u64,
    /// When it began, on one clock for all clients; any unit.
    pub begin: u64,
    /// When it was answered; `None` if it never was.
    pub end: Option<u64>,
    /// How it ended.
    pub outcome: Outcome,
    /// What was asked for.
    pub isolation: Isolation,
    /// It must see everything that had been acknowledged when it began. A transaction that writes
    /// and is serializable is checked so in any case.
    pub fresh: bool,
    /// What it did.
    pub steps: Vec<Step>,
}

/// Operations of all clients, in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The operations; checkers name them by their place here.
    pub operations: Vec<Operation>,
}

/// Why something is no history. Nothing can be said about the database then: the recorder is wrong.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// It could not be read or written.
    #[error("the history cannot be read or written: {0}")]
    Io(#[from] io::Error),
    /// A line is not an operation.
    #[error("line {line} of the history is no operation: {error}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// An operation ends before it begins.
    #[error("operation {operation} ends before it begins")]
    EndsBeforeItBegins {
        /// Its place.
        operation: usize,
    },
    /// Committed or refused, but when is not recorded.
    #[error("operation {operation} was answered, and its end is missing")]
    NoEnd {
        /// Its place.
        operation: usize,
    },
    /// A process had two operations at a time.
    #[error("process {process} begins operation {operation} before its last one ended")]
    TwoAtATime {
        /// Whose.
        process: u64,
        /// The second's place.
        operation: usize,
    },
    /// Two writes cannot be told apart.
    #[error("operation {operation} writes {value} to key {key}, and that was written before")]
    NotUnique {
        /// Its place.
        operation: usize,
        /// The key.
        key: Key,
        /// The value.
        value: Value,
    },
    /// A key is used as register and as list.
    #[error("operation {operation} takes key {key} for what it is not: register or list")]
    MixedKey {
        /// Its place.
        operation: usize,
        /// The key.
        key: Key,
    },
}

impl Step {
    /// The register or list it is about.
    pub fn key(&self) -> Key {
        match self {
            Step::Read { key, .. }
            | Step::Write { key, .. }
            | Step::ReadList { key, .. }
            | Step::Append { key, .. } => *key,
        }
    }

    /// What it writes, if it does.
    pub fn written(&self) -> Option<Value> {
        match self {
            Step::Write { value, .. } | Step::Append { value, .. } => Some(*value),
            Step::Read { .. } | Step::ReadList { .. } => None,
        }
    }

    fn is_of_list(&self) -> bool {
        matches!(self, Step::ReadList { .. } | Step::Append { .. })
    }
}

impl Operation {
    /// True if a step of it writes.
    pub fn writes(&self) -> bool {
        self.steps.iter().any(|step| step.written().is_some())
    }
}

impl History {
    /// Appends one operation as one line of JSON. To be called from several clients, one history
    /// each or one after another.
    ///
    /// # Errors
    /// Of the writer.
    pub fn write_line(operation: &Operation, to: &mut impl Write) -> Result<(), HistoryError> {
        let mut line = serde_json::to_vec(operation).map_err(io::Error::from)?;
        line.push(b'\n');
        to.write_all(&line)?;
        Ok(())
    }

    /// Writes all operations, one a line.
    ///
    /// # Errors
    /// Of the writer.
    pub fn write_to(&self, to: &mut impl Write) -> Result<(), HistoryError> {
        self.operations.iter().try_for_each(|operation| Self::write_line(operation, to))
    }

    /// Reads operations, one a line, and adds them; empty lines are skipped.
    ///
    /// # Errors
    /// Of the reader, and [`HistoryError::Line`].
    pub fn read_from(&mut self, from: impl BufRead) -> Result<(), HistoryError> {
        for (at, line) in from.lines().enumerate() {
            let line = line?;
            if line.trim().is_empty() {
                continue;
            }
            let read = serde_json::from_str(&line);
            let operation = read.map_err(|error| HistoryError::Line { line: at + 1, error })?;
            self.operations.push(operation);
        }
        Ok(())
    }

    /// Checks what every checker takes for granted.
    ///
    /// # Errors
    /// The first thing that is wrong with the record.
    pub fn validate(&self) -> Result<(), HistoryError> {
        let mut written: BTreeSet<(Key, Value)> = BTreeSet::new();
        let mut lists: BTreeMap<Key, bool> = BTreeMap::new();
        for (operation, what) in self.operations.iter().enumerate() {
            if what.end.is_some_and(|end| end < what.begin) {
                return Err(HistoryError::EndsBeforeItBegins { operation });
            }
            if what.end.is_none() && what.outcome != Outcome::Unknown {
                return Err(HistoryError::NoEnd { operation });
            }
            for step in &what.steps {
                let key = step.key();
                if *lists.entry(key).or_insert(step.is_of_list()) != step.is_of_list() {
                    return Err(HistoryError::MixedKey { operation, key });
                }
                if let Some(value) = step.written().filter(|value| !written.insert((key, *value))) {
                    return Err(HistoryError::NotUnique { operation, key, value });
                }
            }
        }
        for (process, places) in self.sessions() {
            for pair in places.windows(2) {
                let (before, after) = (&self.operations[pair[0]], &self.operations[pair[1]]);
                if before.end.is_none_or(|end| end > after.begin) {
                    return Err(HistoryError::TwoAtATime { process, operation: pair[1] });
                }
            }
        }
        Ok(())
    }

    /// The operations of each process, in their order.
    pub(crate) fn sessions(&self) -> BTreeMap<u64, Vec<usize>> {
        let mut sessions: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (place, operation) in self.operations.iter().enumerate() {
            sessions.entry(operation.process).or_default().push(place);
        }
        for places in sessions.values_mut() {
            let order = |place: &usize| {
                let operation = &self.operations[*place];
                (operation.begin, operation.end.unwrap_or(u64::MAX), *place)
            };
            places.sort_by_key(order);
        }
        sessions
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn operation(process: u64, begin: u64, end: Option<u64>, steps: Vec<Step>) -> Operation {
        let outcome = if end.is_some() { Outcome::Committed } else { Outcome::Unknown };
        let (isolation, fresh) = (Isolation::Serializable, false);
        Operation { process, begin, end, outcome, isolation, fresh, steps }
    }

    #[test]
    fn lines_come_back_as_they_were() {
        let steps = vec![
            Step::Read { key: 1, value: None },
            Step::Write { key: 1, value: 7 },
            Step::ReadList { key: 2, values: vec![1, 2] },
            Step::Append { key: 2, value: u64::MAX },
        ];
        let history = History {
            operations: vec![operation(1, 2, Some(3), steps), operation(2, 2, None, vec![])],
        };
        let mut bytes = Vec::new();
        history.write_to(&mut bytes).unwrap();
        let mut back = History::default();
        back.read_from(bytes.as_slice()).unwrap();
        assert_eq!(back, history);
        let error = back.read_from(&b"\n{}"[..]).unwrap_err();
        assert!(matches!(error, HistoryError::Line { line: 2, .. }), "{error}");
    }

    #[test]
    fn a_record_that_cannot_be_is_refused() {
        let write = |value| vec![Step::Write { key: 1, value }];
        let wrong = |operations: Vec<Operation>| History { operations }.validate().unwrap_err();
        let error = wrong(vec![operation(1, 5, Some(4), vec![])]);
        assert!(matches!(error, HistoryError::EndsBeforeItBegins { operation: 0 }));
        let mut open = operation(1, 5, None, vec![]);
        open.outcome = Outcome::Refused;
        assert!(matches!(wrong(vec![open]), HistoryError::NoEnd { operation: 0 }));
        let error = wrong(vec![operation(1, 5, Some(9), vec![]), operation(1, 8, Some(9), vec![])]);
        assert!(matches!(error, HistoryError::TwoAtATime { process: 1, operation: 1 }));
        let error = wrong(vec![operation(1, 1, None, vec![]), operation(1, 8, Some(9), vec![])]);
        assert!(matches!(error, HistoryError::TwoAtATime { process: 1, operation: 1 }));
        let error =
            wrong(vec![operation(1, 1, None, write(3)), operation(2, 8, Some(9), write(3))]);
        assert!(matches!(error, HistoryError::NotUnique { operation: 1, key: 1, value: 3 }));
        let list = vec![Step::ReadList { key: 1, values: vec![] }];
        let error = wrong(vec![operation(1, 1, None, write(3)), operation(2, 8, Some(9), list)]);
        assert!(matches!(error, HistoryError::MixedKey { operation: 1, key: 1 }));
    }
}
