//! Is each register linearizable: could every operation have happened at one moment between its
//! begin and its end?
//!
//! The search of Wing and Gong (Testing and verifying concurrent objects, 1993) with Lowe's memory
//! of what was tried (Testing for linearizability, 2017), each register for itself (that is enough:
//! Herlihy and Wing, 1990). A write that nobody knows the end of may have happened at any time
//! since, or never; if nobody read it, it makes no difference, and it is left out.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::history::{History, HistoryError, Key, Operation, Outcome, Step, Value};

/// Why a history of registers is not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotLinearizable {
    /// It is no history.
    #[error(transparent)]
    Record(#[from] HistoryError),
    /// An operation is on several registers, or on a list.
    #[error("operation {operation} is not one on a single register")]
    NotASingleRegister {
        /// Its place.
        operation: usize,
    },
    /// No order of the operations on a register explains what was read.
    #[error("register {key} is not linearizable; the longest order found explains {explained} of \
             its {all} operations, and stops before {}", stuck.join(" and "))]
    NoOrder {
        /// The register.
        key: Key,
        /// How many operations could be put in order.
        explained: usize,
        /// Of how many.
        all: usize,
        /// The operations of which one had to come next.
        stuck: Vec<String>,
    },
}

/// What an operation does to its register: finds `reads` if that is told, leaves `writes`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    pub(crate) place: usize,
    pub(crate) begin: u64,
    /// `u64::MAX` if it never ended.
    pub(crate) end: u64,
    pub(crate) reads: Option<Option<Value>>,
    pub(crate) writes: Option<Value>,
}

/// Judges operations on single registers: reads, writes, and reads followed by a write (as one).
/// Whatever isolation they asked for, all are taken to be fresh.
///
/// # Errors
/// [`NotLinearizable`], naming the register.
pub fn check_linearizable_registers(history: &History) -> Result<usize, NotLinearizable> {
    history.validate()?;
    let registers = accesses(history)?;
    for (key, accesses) in &registers {
        search(*key, accesses, history)?;
    }
    Ok(registers.values().map(Vec::len).sum())
}

/// The operations of each register that make a difference, by their begin.
pub(crate) fn accesses(history: &History) -> Result<BTreeMap<Key, Vec<Access>>, NotLinearizable> {
    let read: BTreeSet<(Key, Value)> = (history.operations.iter())
        .filter(|operation| operation.outcome != Outcome::Refused)
        .flat_map(|operation| &operation.steps)
        .filter_map(|step| match step {
            Step::Read { key, value } => Some((*key, (*value)?)),
            _ => None,
        })
        .collect();
    let mut registers: BTreeMap<Key, Vec<Access>> = BTreeMap::new();
    for (place, operation) in history.operations.iter().enumerate() {
        let (key, access) = access(place, operation)
            .ok_or(NotLinearizable::NotASingleRegister { operation: place })?;
        let counts = match operation.outcome {
            Outcome::Committed => true,
            // Refused: nobody may have seen it, and who did finds no writer.
            Outcome::Refused => false,
            Outcome::Unknown => access.writes.is_some_and(|value| read.contains(&(key, value))),
        };
        if counts {
            registers.entry(key).or_default().push(access);
        }
    }
    registers.values_mut().for_each(|accesses| accesses.sort_by_key(|access| access.begin));
    Ok(registers)
}

fn access(place: usize, operation: &Operation) -> Option<(Key, Access)> {
    let key = operation.steps.first()?.key();
    let (mut reads, mut writes) = (None, None);
    for step in &operation.steps {
        match step {
            Step::Read { key: of, value } if *of == key && writes.is_none() && reads.is_none() => {
                reads = Some(*value);
            }
            Step::Write { key: of, value } if *of == key && writes.is_none() => {
                writes = Some(*value);
            }
            _ => return None,
        }
    }
    let end = match operation.outcome {
        Outcome::Unknown => u64::MAX,
        _ => operation.end.unwrap_or(u64::MAX),
    };
    Some((key, Access { place, begin: operation.begin, end, reads, writes }))
}

/// One choice of the search: which operation came next, and what the register held before.
struct Choice {
    taken: usize,
    before: Option<Value>,
}

/// Operations that came, as bits behind the first `base`, all of which came.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct Came {
    base: usize,
    beyond: BTreeSet<usize>,
}

impl Came {
    fn contains(&self, at: usize) -> bool {
        at < self.base || self.beyond.contains(&at)
    }

    fn add(&mut self, at: usize) {
        self.beyond.insert(at);
        while self.beyond.remove(&self.base) {
            self.base += 1;
        }
    }

    fn remove(&mut self, at: usize) {
        if !self.beyond.remove(&at) {
            self.beyond.extend(at + 1..self.base);
            self.base = at;
        }
    }

    fn len(&self) -> usize {
        self.base + self.beyond.len()
    }
}

fn search(key: Key, accesses: &[Access], history: &History) -> Result<(), NotLinearizable> {
    let (mut came, mut value) = (Came::default(), None);
    let mut tried: HashSet<(Came, Option<Value>)> = HashSet::new();
    let mut choices: Vec<Choice> = Vec::new();
    let mut from = 0;
    let mut best = Came::default();
    while came.len() < accesses.len() {
        let next = candidates(accesses, &came)
            .into_iter()
            .filter(|at| *at >= from && accesses[*at].reads.is_none_or(|reads| reads == value))
            .find(|at| {
                let mut with = came.clone();
                with.add(*at);
                tried.insert((with, accesses[*at].writes.or(value)))
            });
        if let Some(taken) = next {
            choices.push(Choice { taken, before: value });
            came.add(taken);
            value = accesses[taken].writes.or(value);
            from = 0;
            if came.len() > best.len() {
                best = came.clone();
            }
            continue;
        }
        let Some(Choice { taken, before }) = choices.pop() else {
            let stuck = candidates(accesses, &best).into_iter();
            let stuck = stuck.map(|at| told(&accesses[at], history)).collect();
            let (explained, all) = (best.len(), accesses.len());
            return Err(NotLinearizable::NoOrder { key, explained, all, stuck });
        };
        came.remove(taken);
        value = before;
        from = taken + 1;
    }
    Ok(())
}

/// Those that can come next: begun before any other that is left has ended.
fn candidates(accesses: &[Access], came: &Came) -> Vec<usize> {
    let mut limit = u64::MAX;
    let mut found = Vec::new();
    for (at, access) in accesses.iter().enumerate().skip(came.base) {
        if access.begin > limit {
            break;
        }
        if !came.contains(at) {
            limit = limit.min(access.end);
            found.push(at);
        }
    }
    found.retain(|at| accesses[*at].begin <= limit);
    found
}

fn told(access: &Access, history: &History) -> String {
    let process = history.operations[access.place].process;
    let mut text = format!("#{} (process {process}, {}..", access.place, access.begin);
    text += &if access.end == u64::MAX { "?".to_string() } else { access.end.to_string() };
    if let Some(reads) = access.reads {
        text += &format!(", read {reads:?}");
    }
    if let Some(writes) = access.writes {
        text += &format!(", wrote {writes}");
    }
    text + ")"
}
