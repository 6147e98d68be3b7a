//! What the simulated applications do, and what must come of it.
//!
//! Each operation is one transaction with a number of its own, written into the journal by the
//! same transaction. At the end the journal tells which operations committed: every acknowledged
//! one, no refused one, and of those in doubt or cut off by a crash any.
//!
//! * *Count* reads a counter and writes it back with one more: if an update were lost, the counter
//!   would be less than its journal lines.
//!   So does a procedure that does the same.
//! * *Duty* (serializable) takes one of two off duty, if both are on, and puts one on, if not: run
//!   one after another they never leave nobody on duty; write skew would.
//! * *Lists* are read and appended to (see `lists`): every dependency between the transactions can
//!   be told from what they saw.
//! * *Scratch* inserts, updates and deletes records, so that places and index entries are reused.

use std::collections::BTreeMap;

use quorate_engine::{
    Access, CommitError, Connection, Error, Handle, Index, Isolation, Record, Submission,
    Transaction, TransactionId,
};
use quorate_schema::Value;

use crate::lists::Lists;
use crate::options::Mix;
use crate::rng::Rng;

/// Names an operation for ever: node, life of the node, number in that life.
pub(crate) type OperationId = (u64, u64, u64);

/// What is known of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Submitted, not answered.
    Open,
    /// Answered with an index.
    Acknowledged(Index),
    /// Answered with an error after which nothing may be there.
    Refused,
    /// Answered as in doubt, or its node crashed.
    Unknown,
}

/// All operations of a run.
#[derive(Default)]
pub(crate) struct History {
    operations: BTreeMap<OperationId, Fate>,
    by_transaction: BTreeMap<TransactionId, OperationId>,
    numbers: BTreeMap<(u64, u64), u64>,
    pub(crate) lists: Lists,
    /// The moment, in events of the run.
    pub(crate) now: u64,
}

/// Duty pairs: so many, that some meet.
const PAIRS: u64 = 2;

impl History {
    /// Runs one operation on a node up to its submission.
    ///
    /// # Errors
    /// A snapshot showed what no serial order explains.
    pub(crate) fn begin(
        &mut self,
        rng: &mut Rng,
        mix: &Mix,
        who: (u64, u64),
        connection: &mut Connection,
        take: impl Fn() -> Option<Submission>,
    ) -> Result<Option<(OperationId, Submission)>, String> {
        let number = self.numbers.entry(who).or_insert(0);
        *number += 1;
        let id = (who.0, who.1, *number);
        let kind = rng.below(13);
        let serializable = (5..10).contains(&kind) || rng.below(2) == 0;
        let isolation = if serializable { Isolation::Serializable } else { Isolation::Snapshot };
        let began = connection.begin(Access::ReadWrite, isolation);
        let mut tx = began.map_err(|error| format!("begin failed: {error}"))?;
        let counter = if kind < 5 { rng.below(mix.counters) as i64 } else { -1 };
        let mut steps = Vec::new();
        let written = match kind {
            0..=4 => count(&tx, counter),
            5..=7 => duty(&mut tx, rng.below(PAIRS), rng.below(2)),
            8..=9 => scratch(&mut tx, rng),
            _ => self.lists.work(&mut tx, rng).map(|done| steps = done),
        };
        written.and_then(|()| journal(&tx, id, counter)).map_err(|e| format!("{id:?}: {e}"))?;
        let outcome = tx.commit();
        match (outcome, take()) {
            (_, Some(submission)) => {
                self.operations.insert(id, Fate::Open);
                self.by_transaction.insert(submission.id, id);
                if !steps.is_empty() {
                    self.lists.submitted(id, self.now, isolation, steps);
                }
                Ok(Some((id, submission)))
            }
            (Err(error), None) if error.is_retryable() => Ok(None), // refused before submission
            (outcome, None) => Err(format!("{id:?}: commit ended as {outcome:?}")),
        }
    }

    /// An operation that is a call begins under this id.
    pub(crate) fn begin_call(&mut self, who: (u64, u64), call: TransactionId) -> OperationId {
        let number = self.numbers.entry(who).or_insert(0);
        *number += 1;
        let id = (who.0, who.1, *number);
        self.operations.insert(id, Fate::Open);
        self.by_transaction.insert(call, id);
        id
    }

    /// The replica answered.
    ///
    /// # Errors
    /// It had answered before.
    pub(crate) fn answered(
        &mut self,
        transaction: TransactionId,
        result: &Result<Index, CommitError>,
    ) -> Result<(), String> {
        let id = self.by_transaction.get(&transaction);
        let id = id.ok_or(format!("an answer to {transaction:?}, which was never asked"))?;
        let fate = self.operations.get_mut(id).ok_or("an operation without a fate")?;
        if *fate != Fate::Open {
            return Err(format!("{id:?} was answered twice: {fate:?}, now {result:?}"));
        }
        *fate = match result {
            Ok(index) => Fate::Acknowledged(*index),
            Err(CommitError::InDoubt(_)) => Fate::Unknown,
            Err(_) => Fate::Refused,
        };
        if *fate != Fate::Unknown {
            self.lists.ended(id, self.now, result.is_ok());
        }
        Ok(())
    }

    /// An operation in doubt met its fate; it must not have met another before.
    pub(crate) fn settled(&mut self, transaction: TransactionId, committed: Option<Index>) {
        if let Some(id) = self.by_transaction.get(&transaction) {
            let fate = committed.map_or(Fate::Refused, Fate::Acknowledged);
            self.lists.ended(id, self.now, committed.is_some());
            self.operations.insert(*id, fate);
        }
    }

    /// What is known of an operation, by its transaction.
    pub(crate) fn fate(&self, transaction: TransactionId) -> Option<&Fate> {
        self.operations.get(self.by_transaction.get(&transaction)?)
    }

    /// Some transaction of the past, of any node and life; one with an open end rather than not.
    pub(crate) fn any_transaction(&self, rng: &mut Rng) -> Option<TransactionId> {
        let open =
            |id: &&TransactionId| matches!(self.fate(**id), Some(Fate::Open | Fate::Unknown));
        let open: Vec<&TransactionId> = self.by_transaction.keys().filter(open).collect();
        if !open.is_empty() && rng.below(4) > 0 {
            return Some(*open[rng.below(open.len() as u64) as usize]);
        }
        let count = self.by_transaction.len() as u64;
        let place = rng.below(count.max(1)) as usize;
        self.by_transaction.keys().nth(place).copied()
    }

    /// The node crashed: what was open there is unknown.
    pub(crate) fn crashed(&mut self, who: (u64, u64)) {
        let mine = |id: &OperationId| (id.0, id.1) == who;
        for (_, fate) in self.operations.iter_mut().filter(|(id, _)| mine(id)) {
            if *fate == Fate::Open {
                *fate = Fate::Unknown;
            }
        }
    }

    /// How many operations of a node are not answered.
    pub(crate) fn open(&self, who: (u64, u64)) -> usize {
        let range = (who.0, who.1, 0)..=(who.0, who.1, u64::MAX);
        self.operations.range(range).filter(|(_, fate)| **fate == Fate::Open).count()
    }

    /// Holds what a node has at the end against what was answered.
    ///
    /// # Errors
    /// What is missing, or should not be there.
    pub(crate) fn check(&self, connection: &mut Connection) -> Result<(), String> {
        let lines = look(connection)?;
        for (id, fate) in &self.operations {
            let there = lines.contains_key(id);
            match fate {
                Fate::Acknowledged(index) if !there => {
                    return Err(format!("{id:?} was acknowledged at {index:?} and is not there"));
                }
                Fate::Refused if there => {
                    return Err(format!("{id:?} was refused, and it is there"));
                }
                _ => {}
            }
        }
        match lines.keys().find(|id| !self.operations.contains_key(id)) {
            Some(id) => Err(format!("{id:?} is there, and nobody asked for it")),
            None => Ok(()),
        }
    }
}

/// Reads everything in one snapshot and holds it against itself: counters against the journal,
/// duties against each other. Returns the journal.
///
/// # Errors
/// What no serial order explains.
pub(crate) fn look(connection: &mut Connection) -> Result<BTreeMap<OperationId, i64>, String> {
    let begun = connection.begin(Access::ReadOnly, Isolation::Snapshot);
    let tx = begun.map_err(|error| format!("a read-only begin failed: {error}"))?;
    let read = |class: &str, index: &str| -> Result<Vec<Record>, String> {
        rows(&tx, class, index).map_err(|error| format!("reading {class}: {error}"))
    };
    let mut lines = BTreeMap::new();
    let mut counted: BTreeMap<i64, i64> = BTreeMap::new();
    for line in read("Journal", "by_operation")? {
        let id = (unsigned(&line, "node"), unsigned(&line, "life"), unsigned(&line, "number"));
        let counter = signed(&line, "counter");
        lines.insert(id, counter);
        if counter >= 0 {
            *counted.entry(counter).or_default() += 1;
        }
    }
    for counter in 0..64 {
        let found = tx.find_record("Counter", "by_id", &[Value::Signed(counter)]);
        let found = found.map_err(|error| format!("reading Counter: {error}"))?;
        let value = found.map_or(0, |(_, record)| signed(&record, "value"));
        let lines = counted.get(&counter).copied().unwrap_or(0);
        if value != lines {
            return Err(format!("counter {counter} is {value}, its journal has {lines} lines"));
        }
    }
    let duties = read("Duty", "by_id")?;
    for pair in duties.chunks(2) {
        let off = |record: &Record| record.value("on").ok() == Some(Value::Boolean(false));
        if pair.len() == 2 && pair.iter().all(off) {
            return Err("nobody of a pair is on duty: write skew under serializable".into());
        }
    }
    Ok(lines)
}

pub(crate) fn count(tx: &Transaction<'_>, counter: i64) -> Result<(), Error> {
    match tx.find_record("Counter", "by_id", &[Value::Signed(counter)])? {
        Some((handle, record)) => {
            let value = Value::Signed(signed(&record, "value") + 1);
            tx.update_fields(handle, &[("value", value)])
        }
        None => {
            let fields = [("id", Value::Signed(counter)), ("value", Value::Signed(1))];
            tx.insert_values("Counter", &fields).map(|_| ())
        }
    }
}

fn duty(tx: &mut Transaction<'_>, pair: u64, choice: u64) -> Result<(), Error> {
    let ids = [2 * pair, 2 * pair + 1];
    let mut found: Vec<(Handle, bool)> = Vec::new();
    for id in ids {
        match tx.find_record("Duty", "by_id", &[Value::Unsigned(id)])? {
            Some((handle, record)) => {
                found.push((handle, record.value("on")? == Value::Boolean(true)));
            }
            None => {
                let fields = [("id", Value::Unsigned(id)), ("on", Value::Boolean(true))];
                found.push((tx.insert_values("Duty", &fields)?, true));
            }
        }
    }
    let both_on = found.iter().all(|(_, on)| *on);
    let off = found.iter().position(|(_, on)| !*on).unwrap_or(choice as usize);
    tx.update_fields(found[off].0, &[("on", Value::Boolean(!both_on))])
}

fn scratch(tx: &mut Transaction<'_>, rng: &mut Rng) -> Result<(), Error> {
    for _ in 0..rng.between(1, 4) {
        let id = Value::Unsigned(rng.below(20));
        let text = Value::Text(format!("text {}", rng.below(5)));
        match tx.find_record("Scratch", "by_id", std::slice::from_ref(&id))? {
            Some((handle, _)) if rng.below(2) == 0 => tx.delete(handle)?,
            Some((handle, _)) => tx.update_fields(handle, &[("text", text)])?,
            None => {
                tx.insert_values("Scratch", &[("id", id), ("text", text)])?;
            }
        }
    }
    Ok(())
}

pub(crate) fn journal(tx: &Transaction<'_>, id: OperationId, counter: i64) -> Result<(), Error> {
    let fields = [
        ("node", Value::Unsigned(id.0)),
        ("life", Value::Unsigned(id.1)),
        ("number", Value::Unsigned(id.2)),
        ("counter", Value::Signed(counter)),
    ];
    tx.insert_values("Journal", &fields).map(|_| ())
}

fn rows(tx: &Transaction<'_>, class: &str, index: &str) -> Result<Vec<Record>, Error> {
    let mut cursor = tx.cursor(class, index)?;
    let mut rows = Vec::new();
    let mut row = cursor.first();
    while let Some((_, record)) = row {
        rows.push(record);
        row = cursor.next();
    }
    Ok(rows)
}

fn unsigned(record: &Record, field: &str) -> u64 {
    match record.value(field) {
        Ok(Value::Unsigned(value)) => value,
        _ => u64::MAX,
    }
}

fn signed(record: &Record, field: &str) -> i64 {
    match record.value(field) {
        Ok(Value::Signed(value)) => value,
        _ => i64::MIN,
    }
}
