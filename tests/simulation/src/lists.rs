//! Transactions on lists, and the record of what they saw, judged at the end by checkers that know
//! nothing of the engine (`quorate-histories`).
//!
//! Each reads some lists and appends to some of those. A list is a record with its elements as
//! text, so an append is a read and an update to the engine. Lists are given up after a while, so
//! that they stay short.

use std::collections::BTreeMap;

use quorate_engine::{Access, Connection, Error, Isolation, Transaction};
use quorate_histories::outside::{Verdict, judge_isolation};
use quorate_histories::{
    Checked, History, Isolation as Asked, Operation, Outcome, Step, check_isolation,
};
use quorate_schema::Value;

use crate::clients::OperationId;
use crate::rng::Rng;

/// What clients did to lists. Moments are counted in events of the run.
#[derive(Default)]
pub(crate) struct Lists {
    history: History,
    places: BTreeMap<OperationId, usize>,
    values: u64,
}

/// How many lists are in use at a time: so few, that transactions meet.
const LISTS: u64 = 4;

/// After how many elements the lists are given up, all together.
const ELEMENTS: u64 = 60;

/// Sessions of readers are numbered from here on, behind those of the writers.
const READERS: u64 = 1 << 40;

impl Lists {
    fn any_list(&self, rng: &mut Rng) -> u64 {
        self.values / ELEMENTS * LISTS + rng.below(LISTS)
    }

    /// Reads and appends, up to the commit.
    pub(crate) fn work(
        &mut self,
        tx: &mut Transaction<'_>,
        rng: &mut Rng,
    ) -> Result<Vec<Step>, Error> {
        let mut steps = Vec::new();
        for _ in 0..rng.between(1, 3) {
            let key = self.any_list(rng);
            if steps.iter().any(|step: &Step| step.key() == key) {
                continue;
            }
            let values = read(tx, key)?;
            steps.push(Step::ReadList { key, values: values.clone() });
            if rng.below(2) == 0 || steps.len() == 1 {
                self.values += 1;
                append(tx, key, &values, self.values)?;
                steps.push(Step::Append { key, value: self.values });
            }
        }
        Ok(steps)
    }

    /// A transaction was submitted; what becomes of it is not known yet.
    pub(crate) fn submitted(
        &mut self,
        id: OperationId,
        now: u64,
        isolation: Isolation,
        steps: Vec<Step>,
    ) {
        let process = self.history.operations.len() as u64;
        let isolation = asked(isolation);
        let (end, outcome, fresh) = (None, Outcome::Unknown, false);
        self.places.insert(id, self.history.operations.len());
        let operation = Operation { process, begin: now, end, outcome, isolation, fresh, steps };
        self.history.operations.push(operation);
    }

    /// Its fate is known.
    pub(crate) fn ended(&mut self, id: &OperationId, now: u64, committed: bool) {
        let Some(place) = self.places.get(id) else { return };
        let operation = &mut self.history.operations[*place];
        operation.end = Some(now);
        operation.outcome = if committed { Outcome::Committed } else { Outcome::Refused };
    }

    /// Reads all lists in use in one snapshot. `session`: successive reads never go back. `fresh`:
    /// everything acknowledged must be there.
    pub(crate) fn read_all(
        &mut self,
        connection: &mut Connection,
        session: u64,
        now: u64,
        fresh: bool,
    ) -> Result<(), String> {
        let begun = connection.begin(Access::ReadOnly, Isolation::Snapshot);
        let tx = begun.map_err(|error| format!("a read-only begin failed: {error}"))?;
        let first = self.values / ELEMENTS * LISTS;
        let first = if fresh { 0 } else { first };
        let mut steps = Vec::new();
        for key in first..self.values / ELEMENTS * LISTS + LISTS {
            let values = read(&tx, key).map_err(|error| format!("reading a list: {error}"))?;
            steps.push(Step::ReadList { key, values });
        }
        let (process, isolation) = (READERS + session, Asked::Serializable);
        let (begin, end, outcome) = (now, Some(now), Outcome::Committed);
        let operation = Operation { process, begin, end, outcome, isolation, fresh, steps };
        self.history.operations.push(operation);
        Ok(())
    }

    /// Judges everything; asks the outside checker too if `twice`.
    ///
    /// # Errors
    /// The anomalies.
    pub(crate) fn judge(&self, twice: bool) -> Result<Checked, String> {
        let checked = check_isolation(&self.history).map_err(|error| error.to_string())?;
        match if twice { judge_isolation(&self.history) } else { Verdict::Good } {
            Verdict::Bad(what) => Err(format!("only the outside checker finds {what}")),
            _ => Ok(checked),
        }
    }
}

fn asked(isolation: Isolation) -> Asked {
    match isolation {
        Isolation::Serializable => Asked::Serializable,
        _ => Asked::Snapshot,
    }
}

fn read(tx: &Transaction<'_>, key: u64) -> Result<Vec<u64>, Error> {
    let found = tx.find_record("List", "by_id", &[Value::Unsigned(key)])?;
    let Some((_, record)) = found else { return Ok(Vec::new()) };
    match record.value("elements")? {
        Value::Text(text) => Ok(text.split(',').filter_map(|word| word.parse().ok()).collect()),
        _ => Ok(Vec::new()),
    }
}

fn append(tx: &mut Transaction<'_>, key: u64, before: &[u64], value: u64) -> Result<(), Error> {
    let all: Vec<String> = before.iter().chain([&value]).map(u64::to_string).collect();
    let text = Value::Text(all.join(","));
    match tx.find_record("List", "by_id", &[Value::Unsigned(key)])? {
        Some((handle, _)) => tx.update_fields(handle, &[("elements", text)]),
        None => {
            let fields = [("id", Value::Unsigned(key)), ("elements", text)];
            tx.insert_values("List", &fields).map(|_| ())
        }
    }
}
