//! Comparing one node's records with the model, as they stream in.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::data::{ACCOUNTS, Airport, Airports, COUNTERS, OPENING_BALANCE};
use super::model::{Model, OperationKey};
use super::protocol::{Operation, Record};

/// How many differences are spelled out; the rest is counted.
const SHOWN: usize = 5;

/// Differences between what is and what must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Differences {
    shown: Vec<String>,
    count: u64,
}

/// What one node's records came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Acknowledged writes that are not there, or writes that are and nobody made.
    pub(crate) writes: Differences,
    /// Counters that are not the sum of their increments.
    pub(crate) counters: Differences,
    /// Balances that are not what the transfers left, or a total that changed.
    pub(crate) accounts: Differences,
    /// Records of each class.
    pub(crate) records: BTreeMap<String, u64>,
    /// A hash of all records in any order, made without the engine's help.
    pub(crate) content_hash: u64,
}

/// Takes one node's records and judges them by the model.
pub(crate) struct Verifier<'a> {
    model: &'a Model,
    airports: &'a Airports,
    seen: Vec<bool>,
    counters: BTreeMap<u32, u64>,
    accounts: BTreeMap<u32, i64>,
    postings: BTreeMap<OperationKey, Operation>,
    verdict: Verdict,
}

impl Differences {
    /// True if there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The first few, and how many more there are.
    pub(crate) fn describe(&self) -> String {
        let mut text = self.shown.join("; ");
        let more = self.count - self.shown.len() as u64;
        if more > 0 {
            text.push_str(&format!("; and {more} more"));
        }
        text
    }

    fn add(&mut self, difference: String) {
        self.count += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(difference);
        }
    }
}

impl<'a> Verifier<'a> {
    /// For one node.
    pub(crate) fn new(model: &'a Model, airports: &'a Airports) -> Self {
        Self {
            model,
            airports,
            seen: vec![false; airports.count() as usize],
            counters: BTreeMap::new(),
            accounts: BTreeMap::new(),
            postings: BTreeMap::new(),
            verdict: Verdict::default(),
        }
    }

    /// Takes one record.
    pub(crate) fn record(&mut self, record: Record) {
        let text = serde_json::to_string(&record).expect("a record is plain data");
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        self.verdict.content_hash = self.verdict.content_hash.wrapping_add(hasher.finish());
        let class = match record {
            Record::Airport(airport) => {
                self.airport(airport);
                "Airport"
            }
            Record::Counter { number, value } => {
                if self.counters.insert(number, value).is_some() {
                    self.verdict.counters.add(format!("counter {number} is there twice"));
                }
                "Counter"
            }
            Record::Account { number, balance } => {
                if self.accounts.insert(number, balance).is_some() {
                    self.verdict.accounts.add(format!("account {number} is there twice"));
                }
                "Account"
            }
            Record::Posting { node, number, operation } => {
                self.posting((node, number), operation);
                "Posting"
            }
        };
        *self.verdict.records.entry(class.to_owned()).or_default() += 1;
    }

    /// All records were taken.
    pub(crate) fn finish(mut self) -> Verdict {
        self.check_missing_rows();
        self.check_missing_postings();
        self.check_counters();
        self.check_accounts();
        self.verdict
    }

    fn airport(&mut self, airport: Airport) {
        let Some(row) = self.airports.row(&airport.icao) else {
            self.verdict.writes.add(format!("airport {:?} is not in the data", airport.icao));
            return;
        };
        if std::mem::replace(&mut self.seen[row as usize], true) {
            self.verdict.writes.add(format!("airport {} is there twice", airport.icao));
        }
        let states = self.model.row(row).expect("the model has all rows");
        let mut expected = states.iter().flatten().map(|r| self.airports.airport(row, *r));
        if expected.any(|expected| expected == airport) {
            return;
        }
        let icao = &airport.icao;
        let difference = format!("airport {icao} is {:?}, may be {states:?}", airport.name);
        self.verdict.writes.add(difference);
    }

    fn posting(&mut self, key: OperationKey, operation: Operation) {
        let known = self.model.postings().get(&key);
        if known.is_none_or(|known| known.operation != operation) {
            let difference = format!("posting {key:?} {operation:?}, but was {known:?}");
            self.verdict.writes.add(difference);
        }
        if self.postings.insert(key, operation).is_some() {
            self.verdict.writes.add(format!("posting {key:?} is there twice"));
        }
    }

    fn check_missing_rows(&mut self) {
        for row in (0..).zip(&self.seen).filter(|(_, seen)| !**seen).map(|(row, _)| row) {
            let states = self.model.row(row).expect("the model has all rows");
            if !states.contains(&None) {
                let icao = self.airports.icao(row);
                self.verdict.writes.add(format!("airport {icao} is missing, may be {states:?}"));
            }
        }
    }

    fn check_missing_postings(&mut self) {
        for (key, state) in self.model.postings() {
            if state.certain && !self.postings.contains_key(key) {
                self.verdict.writes.add(format!("posting {key:?} is missing: {state:?}"));
            }
        }
    }

    fn check_counters(&mut self) {
        let mut sums = BTreeMap::new();
        if self.expects_setup(self.counters.is_empty()) {
            sums.extend((0..COUNTERS).map(|counter| (counter, 0)));
        }
        for operation in self.postings.values() {
            if let Operation::Increment { counter, amount } = operation {
                *sums.entry(*counter).or_default() += amount;
            }
        }
        if sums != self.counters {
            let held = &self.counters;
            self.verdict.counters.add(format!("counters hold {held:?}, increments make {sums:?}"));
        }
    }

    fn check_accounts(&mut self) {
        let mut balances = BTreeMap::new();
        if self.expects_setup(self.accounts.is_empty()) {
            balances.extend((0..ACCOUNTS).map(|account| (account, OPENING_BALANCE)));
        }
        let opening: i64 = balances.values().sum();
        for operation in self.postings.values() {
            if let Operation::Transfer { from, to, amount } = operation {
                *balances.entry(*from).or_default() -= *amount as i64;
                *balances.entry(*to).or_default() += *amount as i64;
            }
        }
        let total: i64 = self.accounts.values().sum();
        if total != opening {
            self.verdict.accounts.add(format!("the total is {total}, was {opening}"));
        }
        if balances != self.accounts {
            let held = &self.accounts;
            self.verdict.accounts.add(format!("accounts hold {held:?}, transfers: {balances:?}"));
        }
    }

    /// Whether counters and accounts must be there, or may and are.
    fn expects_setup(&self, empty: bool) -> bool {
        let (may, must) = self.model.setup();
        must || (may && !empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup_model() -> Model {
        let mut model = Model::new(Airports::load().count());
        model.announce((0, 0), Operation::Setup);
        model.acknowledge((0, 0), 1);
        model.announce((0, 1), Operation::Insert { rows: vec![0, 1] });
        model.acknowledge((0, 1), 2);
        model.announce((0, 2), Operation::Insert { rows: vec![2] });
        model.doubt((0, 2));
        model.announce((1, 3), Operation::Increment { counter: 2, amount: 5 });
        model.acknowledge((1, 3), 3);
        model.announce((1, 4), Operation::Transfer { from: 1, to: 2, amount: 7 });
        model.acknowledge((1, 4), 4);
        model
    }

    fn right_records(airports: &Airports) -> Vec<Record> {
        let mut records: Vec<Record> =
            (0..2).map(|row| Record::Airport(airports.airport(row, 0))).collect();
        let counter = |number| Record::Counter { number, value: if number == 2 { 5 } else { 0 } };
        records.extend((0..COUNTERS).map(counter));
        records.extend((0..ACCOUNTS).map(|number| {
            let moved = [0, -7, 7].get(number as usize).copied().unwrap_or(0);
            Record::Account { number, balance: OPENING_BALANCE + moved }
        }));
        let operation = Operation::Increment { counter: 2, amount: 5 };
        records.push(Record::Posting { node: 1, number: 3, operation });
        let operation = Operation::Transfer { from: 1, to: 2, amount: 7 };
        records.push(Record::Posting { node: 1, number: 4, operation });
        records
    }

    /// The verdict on the right records after `spoil` had its way with them.
    fn verdict(spoil: impl FnOnce(&mut Vec<Record>, &Airports)) -> Verdict {
        let (airports, model) = (Airports::load(), setup_model());
        let mut records = right_records(&airports);
        spoil(&mut records, &airports);
        let mut verifier = Verifier::new(&model, &airports);
        records.into_iter().for_each(|record| verifier.record(record));
        verifier.finish()
    }

    fn all_right(verdict: &Verdict) -> bool {
        verdict.writes.is_empty() && verdict.counters.is_empty() && verdict.accounts.is_empty()
    }

    #[test]
    fn right_records_pass_with_and_without_the_write_in_doubt() {
        let without = verdict(|_, _| {});
        assert!(all_right(&without), "{without:?}");
        assert_eq!(without.records["Airport"], 2);
        let with = verdict(|records, a| records.push(Record::Airport(a.airport(2, 0))));
        assert!(all_right(&with), "{with:?}");
        assert_ne!(with.content_hash, without.content_hash);
    }

    #[test]
    fn the_content_hash_ignores_order_only() {
        assert_eq!(verdict(|_, _| {}), verdict(|records, _| records.reverse()));
    }

    #[test]
    fn a_lost_write_is_found() {
        let verdict = verdict(|records, _| drop(records.remove(0)));
        assert!(verdict.writes.describe().contains("missing"), "{verdict:?}");
    }

    #[test]
    fn a_write_that_nobody_made_is_found() {
        let unknown = verdict(|records, a| records.push(Record::Airport(a.airport(3, 0))));
        assert!(!unknown.writes.is_empty());
        let changed = verdict(|records, a| records[1] = Record::Airport(a.airport(1, 1)));
        assert!(!changed.writes.is_empty());
        let doubled = verdict(|records, _| records.push(records[0].clone()));
        assert!(doubled.writes.describe().contains("twice"));
    }

    #[test]
    fn a_lost_posting_shows_in_writes_and_sums() {
        let verdict = verdict(|records, _| {
            let _transfer = records.pop();
            let _increment = records.pop();
        });
        assert!(!verdict.writes.is_empty());
        assert!(!verdict.counters.is_empty());
        assert!(!verdict.accounts.is_empty());
    }

    #[test]
    fn a_lost_update_of_a_counter_is_found() {
        let verdict = verdict(|records, _| {
            for record in records {
                if let Record::Counter { value, .. } = record {
                    *value = 0;
                }
            }
        });
        assert!(verdict.writes.is_empty());
        assert!(!verdict.counters.is_empty());
    }

    #[test]
    fn many_differences_are_counted_and_few_shown() {
        let verdict = verdict(|records, a| {
            records.extend((10..60).map(|row| Record::Airport(a.airport(row, 0))));
        });
        assert!(verdict.writes.describe().ends_with("and 45 more"), "{verdict:?}");
    }
}
