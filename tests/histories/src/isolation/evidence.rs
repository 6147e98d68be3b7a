//! What the reads of a history give away: who wrote what they saw, and which version came next.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::Edge;
use super::{Anomaly, Kind};
use crate::history::{History, Key, Operation, Outcome, Step, Value};

/// What a history shows.
pub(super) struct Evidence {
    pub(super) anomalies: Vec<Anomaly>,
    /// By operation: it committed, or must have, since somebody saw what it wrote.
    pub(super) committed: Vec<bool>,
    pub(super) edges: Vec<(usize, usize, Edge)>,
}

/// What a transaction saw of a key before it wrote there: the elements of a list, or at most one
/// value of a register.
type Seen = Vec<Value>;

/// What one transaction did to the keys it touched.
#[derive(Default)]
struct Touched {
    read: BTreeMap<Key, Seen>,
    written: BTreeMap<Key, Vec<Value>>,
}

struct Collector<'h> {
    history: &'h History,
    touched: Vec<Touched>,
    /// Who wrote a value.
    writers: BTreeMap<(Key, Value), usize>,
    lists: BTreeSet<Key>,
    found: Evidence,
}

impl Evidence {
    pub(super) fn of(history: &History) -> Self {
        let mut collector = Collector {
            history,
            touched: Vec::new(),
            writers: BTreeMap::new(),
            lists: BTreeSet::new(),
            found: Evidence { anomalies: Vec::new(), committed: Vec::new(), edges: Vec::new() },
        };
        for (place, operation) in history.operations.iter().enumerate() {
            collector.found.committed.push(operation.outcome == Outcome::Committed);
            collector.collect(place, operation);
        }
        for place in 0..history.operations.len() {
            collector.judge_reads(place);
        }
        let keys: BTreeSet<Key> = collector
            .touched
            .iter()
            .flat_map(|t| t.read.keys().chain(t.written.keys()))
            .copied()
            .collect();
        for key in keys {
            if collector.lists.contains(&key) {
                collector.order_list(key);
            } else {
                collector.order_register(key);
            }
        }
        collector.found
    }
}

impl Collector<'_> {
    fn report(&mut self, kind: Kind, operations: Vec<usize>, explanation: String) {
        self.found.anomalies.push(Anomaly { kind, in_time: false, operations, explanation });
    }

    /// Takes a transaction's steps in, and holds them against each other.
    fn collect(&mut self, place: usize, operation: &Operation) {
        let mut touched = Touched::default();
        for step in &operation.steps {
            let key = step.key();
            if let Some(value) = step.written() {
                self.writers.insert((key, value), place);
                touched.written.entry(key).or_default().push(value);
            }
            let good = match step {
                Step::Append { .. } => {
                    self.lists.insert(key);
                    true
                }
                Step::Write { .. } => true,
                Step::Read { value, .. } => touched.sees(key, *value),
                Step::ReadList { values, .. } => {
                    self.lists.insert(key);
                    touched.sees_list(key, values)
                }
            };
            if !good {
                let told = format!("#{place} contradicts itself: {}", steps_of(operation));
                self.report(Kind::Internal, vec![place], told);
            }
        }
        self.touched.push(touched);
    }

    /// Who wrote what this transaction saw, and was it there to be seen?
    fn judge_reads(&mut self, place: usize) {
        for (key, seen) in self.touched[place].read.clone() {
            let distinct: BTreeSet<Value> = seen.iter().copied().collect();
            if distinct.len() < seen.len() {
                let told =
                    format!("#{place} read key {key} as {seen:?}: an element is there twice");
                self.report(Kind::Duplicate, vec![place], told);
            }
            for (at, value) in seen.iter().enumerate() {
                self.judge_value(place, key, *value, seen.get(at + 1).copied());
            }
        }
    }

    fn judge_value(&mut self, place: usize, key: Key, value: Value, after: Option<Value>) {
        let Some(writer) = self.writers.get(&(key, value)).copied() else {
            let told = format!("#{place} read {value} of key {key}, which nobody wrote");
            return self.report(Kind::Garbage, vec![place], told);
        };
        if writer == place {
            let told = format!("#{place} read {value} of key {key} before it wrote that itself");
            return self.report(Kind::Garbage, vec![place], told);
        }
        if self.history.operations[writer].outcome == Outcome::Refused {
            let told = format!(
                "#{place} read {value} of key {key}, which #{writer} wrote, and was refused"
            );
            return self.report(Kind::AbortedRead, vec![place, writer], told);
        }
        self.found.committed[writer] = true;
        let all = &self.touched[writer].written[&key];
        let next = all.iter().skip_while(|written| **written != value).nth(1).copied();
        if next.is_some() && next != after {
            let told = format!(
                "#{place} read {value} of key {key} and then {after:?}, \
                 but #{writer} wrote {next:?} there next"
            );
            self.report(Kind::IntermediateRead, vec![place, writer], told);
        }
    }

    fn readers(&self, key: Key) -> Vec<(usize, Seen)> {
        let touched = self.touched.iter().enumerate();
        touched.filter_map(|(place, t)| Some((place, t.read.get(&key)?.clone()))).collect()
    }

    /// Committed writers of a key.
    fn writers_of(&self, key: Key) -> Vec<usize> {
        let touched = self.touched.iter().enumerate();
        let writers = touched.filter(|(_, touched)| touched.written.contains_key(&key));
        writers.map(|(place, _)| place).filter(|place| self.found.committed[*place]).collect()
    }

    /// The longest read is the order of all that was seen; what nobody saw comes behind it.
    fn order_list(&mut self, key: Key) {
        let readers = self.readers(key);
        let longest = readers.iter().max_by_key(|(place, seen)| (seen.len(), usize::MAX - place));
        let (by, longest) = longest.cloned().unwrap_or((0, Vec::new()));
        let mut fits = true;
        for (place, seen) in &readers {
            if !longest.starts_with(seen) {
                fits = false;
                let told = format!("key {key} was {seen:?} to #{place} and {longest:?} to #{by}");
                self.report(Kind::IncompatibleOrder, vec![*place, by], told);
            }
        }
        let writer = |value: &Value| self.writers.get(&(key, *value)).copied();
        let order: Vec<usize> = longest.iter().filter_map(writer).collect();
        if !fits || order.len() < longest.len() {
            return; // reported; there is no order to go by
        }
        let all = self.writers_of(key);
        let unseen: Vec<usize> = all.into_iter().filter(|w| !order.contains(w)).collect();
        for pair in order.windows(2) {
            self.found.edges.push((pair[0], pair[1], Edge::Ww));
        }
        if let Some(last) = order.last() {
            self.found.edges.extend(unseen.iter().map(|writer| (*last, *writer, Edge::Ww)));
        }
        let mut followers: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (place, seen) in &readers {
            if !self.found.committed[*place] {
                continue;
            }
            if let Some(last) = seen.len().checked_sub(1) {
                self.found.edges.push((order[last], *place, Edge::Wr));
            }
            let next: &[usize] = match order.get(seen.len()) {
                Some(next) => std::slice::from_ref(next),
                None => &unseen,
            };
            self.found.edges.extend(next.iter().map(|writer| (*place, *writer, Edge::Rw)));
            if self.touched[*place].written.contains_key(&key) {
                followers.entry(seen.len()).or_default().push(*place);
            }
        }
        self.judge_followers(key, followers.into_values());
    }

    /// A transaction that read a version and wrote the key wrote the next version.
    fn order_register(&mut self, key: Key) {
        let mut readers = self.readers(key);
        readers.retain(|(place, _)| self.found.committed[*place]);
        let mut followers: BTreeMap<Option<Value>, Vec<usize>> = BTreeMap::new();
        for (place, seen) in &readers {
            if self.touched[*place].written.contains_key(&key) {
                followers.entry(seen.first().copied()).or_default().push(*place);
            }
        }
        let writers = self.writers_of(key);
        for (place, seen) in &readers {
            let value = seen.first().copied();
            let wrote = value.and_then(|value| self.writers.get(&(key, value)).copied());
            let next = match value {
                Some(_) => followers.get(&value).map_or(&[][..], Vec::as_slice),
                None => &writers, // all come after the beginning
            };
            self.found.edges.extend(next.iter().map(|writer| (*place, *writer, Edge::Rw)));
            if let Some(writer) = wrote {
                self.found.edges.push((writer, *place, Edge::Wr));
                self.found.edges.extend(next.iter().map(|next| (writer, *next, Edge::Ww)));
            }
        }
        self.judge_followers(key, followers.into_values());
    }

    fn judge_followers(&mut self, key: Key, followers: impl Iterator<Item = Vec<usize>>) {
        for those in followers.filter(|those| those.len() > 1) {
            let told = format!("{those:?} read the same version of key {key} and all wrote it");
            self.report(Kind::LostUpdate, those, told);
        }
    }
}

impl Touched {
    /// False if a register cannot hold this now, by what the transaction did before.
    fn sees(&mut self, key: Key, value: Option<Value>) -> bool {
        if let Some(own) = self.written.get(&key).and_then(|written| written.last()) {
            return value == Some(*own);
        }
        let seen: Seen = value.into_iter().collect();
        self.read.entry(key).or_insert_with(|| seen.clone()) == &seen
    }

    /// False if a list cannot hold this now: what it held before, then the own elements.
    fn sees_list(&mut self, key: Key, values: &[Value]) -> bool {
        let own = self.written.get(&key).map_or(&[][..], Vec::as_slice);
        let Some(before) = values.strip_suffix(own) else { return false };
        self.read.entry(key).or_insert_with(|| before.to_vec()) == before
    }
}

/// A transaction in short.
pub(super) fn steps_of(operation: &Operation) -> String {
    let one = |step: &Step| match step {
        Step::Read { key, value: Some(value) } => format!("r{key}={value}"),
        Step::Read { key, value: None } => format!("r{key}=none"),
        Step::Write { key, value } => format!("w{key}={value}"),
        Step::ReadList { key, values } => match values.as_slice() {
            [.., a, b, c] if values.len() > 3 => format!("r{key}=[..{a},{b},{c}]"),
            all => format!("r{key}={all:?}"),
        },
        Step::Append { key, value } => format!("a{key}+{value}"),
    };
    operation.steps.iter().map(one).collect::<Vec<_>>().join(" ")
}
