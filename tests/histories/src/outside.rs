//! The same questions, answered by checkers that others wrote: `adya` for transactions, the
//! Wing-Gong-Lowe checker of `todc-utils` for registers.
//!
//! They are slower, and each needs care. `adya` knows one level for a whole history, so it is asked
//! for serializability only if all that write asked for it. It also takes every transaction of
//! unknown outcome for one that happened, so those that nobody saw are not shown to it.
//! `todc-utils` knows no operation without an end, so histories in which a write of unknown end was
//! read are left to our own checker.

use std::collections::{BTreeMap, BTreeSet};

use adya::{Opts, Valid, Workload};
use serde_json::{Value as Json, json};
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History as Actions};
use todc_utils::specifications::Specification;

use crate::history::{History, Isolation, Operation, Outcome, Step, Value};
use crate::isolation::happened;
use crate::registers::accesses;

/// What an outside checker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is wrong.
    Good,
    /// Something is; its words for it.
    Bad(String),
    /// It cannot say.
    Unknown(String),
}

/// What `adya` says of a history of lists: snapshot isolation of all, and serializability if all
/// that wrote asked for it. Histories of registers are not given to it.
pub fn judge_isolation(history: &History) -> Verdict {
    let lists = |step: &Step| matches!(step, Step::ReadList { .. } | Step::Append { .. });
    if !history.operations.iter().flat_map(|operation| &operation.steps).all(lists) {
        return Verdict::Unknown("registers give away too little".into());
    }
    let mut models = vec!["snapshot-isolation".to_string()];
    if history.operations.iter().all(|o| o.isolation == Isolation::Serializable || !o.writes()) {
        models.push("serializable".into());
    }
    let parsed = match adya::History::from_json(&lines(history)) {
        Ok(parsed) => parsed,
        Err(error) => return Verdict::Unknown(error.to_string()),
    };
    let report = adya::check(&parsed, Workload::ListAppend, &Opts { models, ..Opts::default() });
    match report.valid {
        Valid::True => Verdict::Good,
        Valid::False => Verdict::Bad(report.anomaly_types.join(", ")),
        _ => Verdict::Unknown(report.anomaly_types.join(", ")),
    }
}

/// A history as `adya` reads it: begins and ends in the order of time.
fn lines(history: &History) -> String {
    let mut events: Vec<(u64, bool, usize)> = Vec::new();
    let happened = happened(history);
    for (place, operation) in history.operations.iter().enumerate() {
        if operation.outcome == Outcome::Unknown && !happened[place] {
            continue;
        }
        events.push((operation.begin, true, place));
        if let Some(end) = operation.end {
            events.push((end, false, place));
        }
    }
    // At the same moment ends come first but for an operation's own: nothing is called concurrent
    // that a session did one after another.
    events.sort_by_key(|(at, begins, place)| {
        let instant = history.operations[*place].end == Some(history.operations[*place].begin);
        (*at, if instant { 1 } else { 2 * u8::from(*begins) }, *place, !*begins)
    });
    let mut text = String::new();
    for (_, begins, place) in events {
        let operation = &history.operations[place];
        let kind = match (begins, operation.outcome) {
            (true, _) => "invoke",
            (false, Outcome::Committed) => "ok",
            (false, Outcome::Refused) => "fail",
            (false, Outcome::Unknown) => "info",
        };
        let value: Vec<Json> = operation.steps.iter().map(|step| micro(step, begins)).collect();
        let line = json!({"type": kind, "process": process(operation, place), "value": value});
        text += &line.to_string();
        text.push('\n');
    }
    text
}

/// `adya` ends a process with an operation whose outcome is unknown; ours are new ones anyway.
fn process(operation: &Operation, place: usize) -> u64 {
    match operation.outcome {
        Outcome::Unknown => (1 << 40) + place as u64,
        _ => operation.process,
    }
}

fn micro(step: &Step, begins: bool) -> Json {
    match step {
        Step::ReadList { key, .. } if begins => json!(["r", key, null]),
        Step::ReadList { key, values } => json!(["r", key, values]),
        Step::Append { key, value } => json!(["append", key, value]),
        Step::Read { .. } | Step::Write { .. } => unreachable!("lists only, checked before"),
    }
}

/// A register of `todc-utils`: what was read, what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Both(Option<Option<Value>>, Option<Value>);

struct Register;

impl Specification for Register {
    type State = Option<Value>;
    type Operation = Both;

    fn init() -> Self::State {
        None
    }

    fn apply(operation: &Both, state: &Self::State) -> (bool, Self::State) {
        (operation.0.is_none_or(|read| read == *state), operation.1.or(*state))
    }
}

/// What `todc-utils` says of a history of registers.
pub fn judge_registers(history: &History) -> Verdict {
    let registers = match accesses(history) {
        Ok(registers) => registers,
        Err(error) => return Verdict::Unknown(error.to_string()),
    };
    for (key, accesses) in registers {
        if accesses.iter().any(|access| access.end == u64::MAX) {
            return Verdict::Unknown(format!("register {key} has an operation without an end"));
        }
        let mut events: BTreeSet<(u64, u8, usize)> = BTreeSet::new();
        for (at, access) in accesses.iter().enumerate() {
            events.insert((access.begin, 0, at));
            events.insert((access.end, 1, at));
        }
        let mut processes: BTreeMap<usize, usize> = BTreeMap::new();
        let actions = events.into_iter().map(|(_, end, at)| {
            let count = processes.len();
            let process = *processes.entry(at).or_insert(count);
            let both = Both(accesses[at].reads, accesses[at].writes);
            (process, if end == 1 { Action::Response(both) } else { Action::Call(both) })
        });
        if !WGLChecker::<Register>::is_linearizable(Actions::from_actions(actions.collect())) {
            return Verdict::Bad(format!("register {key} is not linearizable"));
        }
    }
    Verdict::Good
}
