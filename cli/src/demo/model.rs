//! What the cluster must hold, judged from what the nodes announced and settled.
//!
//! An operation is *open* from its announcement until it is acknowledged, refused, or in doubt (its
//! node said so, or died). The model keeps for each row the set of states it may be in:
//!
//! ```text
//!               announced        acknowledged   refused      in doubt
//! row of the    (nothing)        { new }        unchanged    unchanged + { new }
//! operation
//! ```
//!
//! Rows have one writer at a time, so its last settled operation decides: once an operation on a
//! row is acknowledged, an earlier one in doubt either happened before it or must be refused by
//! certification for ever, since the row was written after its snapshot. Counters and accounts
//! have many writers; each increment or transfer leaves a posting in its own transaction, and what
//! they must hold is the sum of the postings.
//!
//! The model never looks at a database: it is the judge.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::protocol::Operation;

/// Which operation: the node and the number it gave it.
pub(crate) type OperationKey = (u32, u64);

/// A row's state: `None` is absent, otherwise the revision.
pub(crate) type RowState = Option<u32>;

/// What is known of an increment or transfer that may have left a posting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PostingState {
    /// What it does.
    pub(crate) operation: Operation,
    /// Acknowledged, so it must be there; else it may be.
    pub(crate) certain: bool,
}

/// What must be in the database. See the module.
#[derive(Default)]
pub(crate) struct Model {
    rows: Vec<Vec<RowState>>,
    postings: BTreeMap<OperationKey, PostingState>,
    /// Whether counters and accounts may be there, and whether they must.
    setup: (bool, bool),
    open: HashMap<OperationKey, Operation>,
    indexes: HashSet<u64>,
    newest_index: u64,
    rows_loaded: u64,
    violations: Vec<String>,
    counts: Counts,
}

/// How many operations ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Acknowledged as committed.
    pub(crate) acknowledged: u64,
    /// Certainly not committed.
    pub(crate) refused: u64,
    /// Never settled: may be committed or not.
    pub(crate) in_doubt: u64,
}

impl Model {
    /// An empty database, to be filled with this many rows.
    pub(crate) fn new(rows: u32) -> Self {
        Self { rows: vec![vec![None]; rows as usize], ..Self::default() }
    }

    /// A node is about to submit an operation.
    pub(crate) fn announce(&mut self, key: OperationKey, operation: Operation) {
        if self.open.insert(key, operation).is_some() {
            self.violation(format!("operation {key:?} was announced twice"));
        }
    }

    /// The operation is committed at `index`.
    pub(crate) fn acknowledge(&mut self, key: OperationKey, index: u64) {
        let Some(operation) = self.close(key, "acknowledged") else { return };
        if !self.indexes.insert(index) {
            self.violation(format!("index {index} was acknowledged twice, last for {key:?}"));
        }
        self.newest_index = self.newest_index.max(index);
        self.counts.acknowledged += 1;
        match operation {
            Operation::Setup => self.setup = (true, true),
            Operation::Insert { rows } => {
                self.rows_loaded += rows.len() as u64;
                rows.into_iter().for_each(|row| self.rows[row as usize] = vec![Some(0)]);
            }
            Operation::Update { row, revision } => self.rows[row as usize] = vec![Some(revision)],
            Operation::Delete { row } => self.rows[row as usize] = vec![None],
            operation => {
                self.postings.insert(key, PostingState { operation, certain: true });
            }
        }
    }

    /// The operation is not and will not be committed.
    pub(crate) fn refuse(&mut self, key: OperationKey) {
        if self.close(key, "refused").is_some() {
            self.counts.refused += 1;
        }
    }

    /// The operation may be committed or not.
    pub(crate) fn doubt(&mut self, key: OperationKey) {
        if let Some(operation) = self.close(key, "in doubt") {
            self.counts.in_doubt += 1;
            self.may_have_happened(key, operation);
        }
    }

    /// The node's process is gone: what it had open may be committed or not.
    pub(crate) fn died(&mut self, node: u32) {
        let mut left: Vec<OperationKey> =
            self.open.keys().copied().filter(|(owner, _)| *owner == node).collect();
        left.sort_unstable();
        for key in left {
            self.doubt(key);
        }
    }

    /// A node found a row, whose insert was in doubt, committed in its first revision.
    pub(crate) fn found(&mut self, row: u32) {
        match self.rows.get_mut(row as usize) {
            Some(states) if states.contains(&Some(0)) => {
                *states = vec![Some(0)];
                self.rows_loaded += 1;
            }
            _ => self.violation(format!("row {row} was found, but nobody inserted it")),
        }
    }

    /// The states a row may be in; never empty. `None` for a row that does not exist.
    pub(crate) fn row(&self, row: u32) -> Option<&[RowState]> {
        self.rows.get(row as usize).map(Vec::as_slice)
    }

    /// All increments and transfers that must or may have left a posting.
    pub(crate) fn postings(&self) -> &BTreeMap<OperationKey, PostingState> {
        &self.postings
    }

    /// Whether the counters and accounts may be there, and whether they must.
    pub(crate) fn setup(&self) -> (bool, bool) {
        self.setup
    }

    /// The newest acknowledged index.
    pub(crate) fn newest_index(&self) -> u64 {
        self.newest_index
    }

    /// How many rows were inserted for certain, those inserted again after a delete included.
    pub(crate) fn rows_loaded(&self) -> u64 {
        self.rows_loaded
    }

    /// How many operations have no end yet.
    pub(crate) fn open_count(&self) -> usize {
        self.open.len()
    }

    /// What the nodes reported that cannot be, before any database was looked at.
    pub(crate) fn violations(&self) -> &[String] {
        &self.violations
    }

    /// How many operations ended how.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    fn close(&mut self, key: OperationKey, how: &str) -> Option<Operation> {
        let operation = self.open.remove(&key);
        if operation.is_none() {
            self.violation(format!("operation {key:?} is {how}, but was not open"));
        }
        operation
    }

    fn may_have_happened(&mut self, key: OperationKey, operation: Operation) {
        let (rows, state) = match operation {
            Operation::Setup => return self.setup.0 = true,
            Operation::Insert { rows } => (rows, Some(0)),
            Operation::Update { row, revision } => (vec![row], Some(revision)),
            Operation::Delete { row } => (vec![row], None),
            operation => {
                self.postings.insert(key, PostingState { operation, certain: false });
                return;
            }
        };
        for row in rows {
            let states = &mut self.rows[row as usize];
            if !states.contains(&state) {
                states.push(state);
            }
        }
    }

    fn violation(&mut self, text: String) {
        self.violations.push(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: OperationKey = (0, 1);
    const NEXT: OperationKey = (0, 2);

    fn announced(operation: Operation) -> Model {
        let mut model = Model::new(4);
        model.announce(KEY, operation);
        model
    }

    #[test]
    fn an_acknowledged_write_leaves_one_state() {
        let mut model = announced(Operation::Insert { rows: vec![0, 2] });
        model.acknowledge(KEY, 1);
        assert_eq!(model.row(0), Some(&[Some(0)][..]));
        assert_eq!(model.row(1), Some(&[None][..]));
        model.announce(NEXT, Operation::Delete { row: 0 });
        model.acknowledge(NEXT, 2);
        assert_eq!(model.row(0), Some(&[None][..]));
        assert!(model.violations().is_empty());
        assert_eq!(model.newest_index(), 2);
    }

    #[test]
    fn what_a_killed_process_had_open_may_be_there_or_not() {
        let mut model = announced(Operation::Insert { rows: vec![3] });
        model.announce((1, 1), Operation::Insert { rows: vec![2] });
        model.died(0);
        assert_eq!(model.row(3), Some(&[None, Some(0)][..]));
        assert_eq!(model.row(2), Some(&[None][..]), "the other node lives");
        assert_eq!(model.counts().in_doubt, 1);
        model.found(3);
        assert_eq!(model.row(3), Some(&[Some(0)][..]));
    }

    #[test]
    fn a_later_acknowledged_write_settles_an_earlier_one_in_doubt() {
        let mut model = announced(Operation::Update { row: 1, revision: 5 });
        model.doubt(KEY);
        model.announce(NEXT, Operation::Update { row: 1, revision: 6 });
        model.acknowledge(NEXT, 9);
        assert_eq!(model.row(1), Some(&[Some(6)][..]));
    }

    #[test]
    fn a_refused_operation_changes_nothing() {
        let mut model = announced(Operation::Insert { rows: vec![1] });
        model.refuse(KEY);
        assert_eq!(model.row(1), Some(&[None][..]));
        assert_eq!(model.open_count(), 0);
    }

    #[test]
    fn postings_are_certain_only_when_acknowledged() {
        let increment = Operation::Increment { counter: 0, amount: 1 };
        let mut model = announced(increment.clone());
        model.announce(NEXT, increment);
        model.acknowledge(KEY, 1);
        model.doubt(NEXT);
        assert!(model.postings()[&KEY].certain);
        assert!(!model.postings()[&NEXT].certain);
    }

    #[test]
    fn what_cannot_be_is_noted() {
        let mut model = announced(Operation::Setup);
        model.acknowledge(KEY, 1);
        model.acknowledge(KEY, 2);
        model.announce(NEXT, Operation::Delete { row: 0 });
        model.acknowledge(NEXT, 1);
        model.found(2);
        assert_eq!(model.violations().len(), 3, "{:?}", model.violations());
    }
}
