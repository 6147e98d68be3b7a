//! Counters that many transactions add to at once, with some that read and write them between:
//! whatever the schedule, what committed sums up exactly.

use std::collections::BTreeMap;

use quorate_engine::{
    Access, CommitError, Database, DatabaseParams, Handle, Isolation, Transaction,
};
use quorate_schema::{Dictionary, Value};

use super::Random;

const DDL: &str = "declare database sums; class Counter { signed<8> sum; string name; };";

/// How hard a run was.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Schedule {
    /// Commits that only added, behind others that added to the same and were not seen.
    pub(crate) blind: u64,
    /// Commits refused, of transactions that only added, and of others.
    pub(crate) refused: [u64; 2],
}

struct Open {
    tx: Transaction<'static>,
    snapshot: usize,
    deltas: BTreeMap<Handle, i64>,
    writes: bool,
}

/// What one commit did: to which counters, and whether it only added.
type Done = (BTreeMap<Handle, i64>, bool);

pub(crate) fn run(seed: u64, params: DatabaseParams) -> Schedule {
    let mut random = Random::new(seed);
    let params = params.with_max_connections(u32::MAX - 1);
    let db = Database::open("sums", Dictionary::parse(DDL).unwrap(), params).unwrap();
    let counters = counters(&db);
    let mut log: Vec<Done> = Vec::new();
    let mut open: Vec<Option<Open>> = (0..8).map(|_| None).collect();
    let mut schedule = Schedule::default();
    for _ in 0..300 {
        let slot = random.below(open.len() as u64) as usize;
        match open[slot].take() {
            None => open[slot] = Some(begin(&db, &mut random, &counters, log.len())),
            Some(chosen) => commit(chosen, &mut log, &mut schedule),
        }
    }
    open.into_iter().flatten().for_each(|chosen| commit(chosen, &mut log, &mut schedule));
    for counter in counters {
        let sum: i64 = log.iter().filter_map(|(deltas, _)| deltas.get(&counter)).sum();
        assert_eq!(read(&db, counter), sum, "additions to {counter} were lost");
    }
    db.check().unwrap();
    schedule
}

fn counters(db: &Database) -> Vec<Handle> {
    let mut connection = db.connect().unwrap();
    let tx = connection.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
    let new = (0..3).map(|_| tx.insert_values("Counter", &[]).unwrap());
    let new: Vec<Handle> = new.collect();
    let committed = tx.commit().unwrap();
    new.into_iter().map(|handle| committed.resolve(handle).unwrap()).collect()
}

fn read(db: &Database, counter: Handle) -> i64 {
    let mut connection = db.connect().unwrap();
    let tx = connection.begin(Access::ReadOnly, Isolation::Snapshot).unwrap();
    number(&tx, counter)
}

fn number(tx: &Transaction<'_>, counter: Handle) -> i64 {
    let record = tx.record(counter).unwrap().unwrap();
    let Value::Signed(number) = record.value("sum").unwrap() else { panic!("an integer") };
    number
}

fn begin(db: &Database, random: &mut Random, counters: &[Handle], snapshot: usize) -> Open {
    let serializable = random.once_in(2);
    let isolation = if serializable { Isolation::Serializable } else { Isolation::Snapshot };
    let connection = Box::leak(Box::new(db.connect().unwrap()));
    let tx = connection.begin(Access::ReadWrite, isolation).unwrap();
    let mut open = Open { tx, snapshot, deltas: BTreeMap::new(), writes: random.once_in(4) };
    for _ in 0..=random.below(3) {
        let counter = *random.pick(counters);
        let delta = random.below(21) as i64 - 10;
        if open.writes {
            let sum = ("sum", Value::Signed(number(&open.tx, counter) + delta));
            open.tx.update_fields(counter, &[sum]).unwrap();
        } else {
            open.tx.add(counter, "sum", delta).unwrap();
        }
        *open.deltas.entry(counter).or_default() += delta;
    }
    open
}

fn commit(open: Open, log: &mut Vec<Done>, schedule: &mut Schedule) {
    let Open { tx, snapshot, deltas, writes } = open;
    let shares = |done: &&Done| done.0.keys().any(|counter| deltas.contains_key(counter));
    let unseen: Vec<&Done> = log[snapshot..].iter().filter(shares).collect();
    let expected = if writes { unseen.is_empty() } else { unseen.iter().all(|done| done.1) };
    match tx.commit() {
        Ok(_) => {
            assert!(expected, "admitted behind {unseen:?}");
            schedule.blind += u64::from(!unseen.is_empty());
            log.push((deltas, !writes));
        }
        Err(CommitError::Conflict) => {
            assert!(!expected, "refused for no reason");
            schedule.refused[usize::from(writes)] += 1;
        }
        Err(other) => panic!("{other}"),
    }
}
