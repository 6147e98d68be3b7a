//! Were the transactions isolated as they asked to be?
//!
//! First the reads of each transaction are held against who wrote what (`evidence`): nothing of a
//! refused transaction, nothing half done, nothing nobody wrote may be seen, by whomever. What they
//! saw also gives away which version of a key came after which, and so who depends on whom: *ww*
//! (wrote the next version), *wr* (read what it wrote), *rw* (read what it overwrote). Then cycles
//! are looked for (`graph`):
//!
//! * Serializable transactions may be in none. A transaction under snapshot isolation does not
//!   promise that what it read is still so when it commits; its *rw* edges do not count here
//!   (Adya's mixed graph), everything else does.
//! * Under snapshot isolation, which all promise, a cycle must have two *rw* edges in a row.
//!
//! Time adds edges: a session sees what it saw and did; a transaction that writes, or is *fresh*,
//! comes after all that was acknowledged before it began.

mod evidence;
mod graph;

use std::fmt;

use crate::history::{History, HistoryError};
use evidence::Evidence;
use graph::{Cycle, Edge, Graph};

/// What is wrong; the names of the literature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// A value was read that nobody wrote, or one by its own future.
    Garbage,
    /// G1a: read what a refused transaction wrote.
    AbortedRead,
    /// G1b: read what its writer overwrote, or half of what it appended.
    IntermediateRead,
    /// Did not see its own writes, or the same twice.
    Internal,
    /// An element is twice in a list.
    Duplicate,
    /// Two reads of a list of which neither continues the other.
    IncompatibleOrder,
    /// Two transactions read the same version of a key and both wrote the next.
    LostUpdate,
    /// Transactions overwrote each other in a circle.
    G0,
    /// Information flowed in a circle.
    G1c,
    /// A cycle with one rw edge: read skew, for one.
    GSingle,
    /// A cycle in which no two rw edges meet: no snapshots explain it.
    GNonadjacent,
    /// A cycle with rw edges among serializable transactions: write skew, for one.
    G2Item,
}

/// One thing that no correct database shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// Which.
    pub kind: Kind,
    /// Whether it takes the order of sessions or of real time to see it.
    pub in_time: bool,
    /// The places in the history of those involved, in the order of the cycle if it is one.
    pub operations: Vec<usize>,
    /// What happened, for people.
    pub explanation: String,
}

/// How much was there to check: a history without dependencies proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Transactions that committed, or must have, since somebody saw what they wrote.
    pub transactions: usize,
    /// One wrote the version after the other's.
    pub ww: usize,
    /// One read what the other wrote.
    pub wr: usize,
    /// One read what the other overwrote.
    pub rw: usize,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let in_time = if self.in_time { " in time" } else { "" };
        write!(f, "{:?}{in_time}: {}", self.kind, self.explanation)
    }
}

/// Why a history is not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotIsolated {
    /// It is no history.
    #[error(transparent)]
    Record(#[from] HistoryError),
    /// The database broke a promise.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Anomalies(Vec<Anomaly>),
}

/// Judges a history of transactions on registers and lists. Linear in its length but for cycles.
///
/// # Errors
/// [`NotIsolated::Anomalies`] with at least one anomaly of each kind there is: the history cannot
/// be one of a database that keeps what [`Isolation`](crate::Isolation) says. Registers whose
/// writers did not read them first give away little of their order; lists give away all of it.
pub fn check_isolation(history: &History) -> Result<Checked, NotIsolated> {
    history.validate()?;
    let evidence = Evidence::of(history);
    let mut anomalies = evidence.anomalies;
    let graph = Graph::new(history, &evidence.committed, evidence.edges);
    let overwrites = |edge: Edge| matches!(edge, Edge::Ww | Edge::Process | Edge::Fresh);
    let flows = |edge: Edge| overwrites(edge) || edge == Edge::Wr;
    let before = anomalies.len();
    if let Some(cycle) = graph.cycle(overwrites) {
        anomalies.push(told(history, Kind::G0, &cycle));
    } else if let Some(cycle) = graph.cycle(flows) {
        anomalies.push(told(history, Kind::G1c, &cycle));
    }
    if anomalies.len() == before {
        if let Some(cycle) = graph.serializable_cycle() {
            let kind = match cycle.count(Edge::Rw) {
                0 => Kind::G1c,
                1 => Kind::GSingle,
                _ => Kind::G2Item,
            };
            anomalies.push(told(history, kind, &cycle));
        }
        if let Some(cycle) = graph.nonadjacent_cycle() {
            let kind = match cycle.count(Edge::Rw) {
                0 => Kind::G1c,
                1 => Kind::GSingle,
                _ => Kind::GNonadjacent,
            };
            if !anomalies[before..].iter().any(|anomaly| anomaly.kind == kind) {
                anomalies.push(told(history, kind, &cycle));
            }
        }
    }
    if anomalies.is_empty() {
        let count = |edge| graph.count(edge);
        let transactions = evidence.committed.iter().filter(|committed| **committed).count();
        let (ww, wr, rw) = (count(Edge::Ww), count(Edge::Wr), count(Edge::Rw));
        return Ok(Checked { transactions, ww, wr, rw });
    }
    Err(NotIsolated::Anomalies(anomalies))
}

/// By operation: it committed, or must have, since somebody saw what it wrote.
pub(crate) fn happened(history: &History) -> Vec<bool> {
    Evidence::of(history).committed
}

fn told(history: &History, kind: Kind, cycle: &Cycle) -> Anomaly {
    let mut explanation = String::new();
    for (place, edge) in &cycle.steps {
        let operation = &history.operations[*place];
        let arrow = match edge {
            Edge::Ww => "was overwritten by",
            Edge::Wr => "was read by",
            Edge::Rw => "did not see",
            Edge::Process => "came in its session before",
            Edge::Fresh | Edge::Bound => "ended before the begin of",
        };
        explanation += &format!(
            "#{place} (process {}, {}..{}: {}) {arrow} ",
            operation.process,
            operation.begin,
            operation.end.map_or("?".to_string(), |end| end.to_string()),
            evidence::steps_of(operation),
        );
    }
    explanation += &format!("#{}", cycle.steps[0].0);
    let operations = cycle.steps.iter().map(|(place, _)| *place).collect();
    let in_time = cycle.steps.iter().any(|(_, edge)| edge.is_of_time());
    Anomaly { kind, in_time, operations, explanation }
}
