//! Real threads: what each was told is what is there.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use quorate_engine::{Access, Database, DatabaseParams, Error, Isolation};
use quorate_schema::{Dictionary, Value};

const THREADS: u64 = 4;
const ACCOUNTS: u64 = 8;

const DDL: &str = "
declare database threads;
class Account {
    unsigned<4> id;
    signed<8> balance;
    unique tree<id> by_id;
    tree<balance> by_balance;
};
class Ticket { unsigned<4> number; unsigned<4> owner; unique hash<number> by_number; };
";

fn open() -> Database {
    let params = DatabaseParams::default().with_transact_attempts(10_000);
    Database::open("threads", Dictionary::parse(DDL).unwrap(), params).unwrap()
}

#[test]
fn transfers_keep_the_sum_and_readers_see_whole_ones() {
    let db = open();
    db.transact(Isolation::Snapshot, |tx| {
        (0..ACCOUNTS).try_for_each(|id| {
            let values = [("id", Value::Unsigned(id)), ("balance", Value::Signed(100))];
            tx.insert_values("Account", &values).map(|_| ())
        })
    })
    .unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) || rounds == 0 {
                assert_eq!(sum(&db), 100 * ACCOUNTS as i64);
                rounds += 1;
            }
        });
        let writers: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn({
                    let db = &db;
                    move || (0..500).for_each(|step| transfer(db, thread * 31 + step * 7))
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    assert_eq!(sum(&db), 100 * ACCOUNTS as i64);
    assert_eq!(db.visible_index().0, 1 + THREADS * 500);
    assert_eq!(db.statistics().commits, 1 + THREADS * 500);
    db.check().unwrap();
}

fn sum(db: &Database) -> i64 {
    let mut connection = db.connect().unwrap();
    let tx = connection.begin(Access::ReadOnly, Isolation::Snapshot).unwrap();
    let rows = tx.cursor("Account", "by_balance").unwrap().rows();
    let balances = rows.map(|(_, record)| match record.value("balance").unwrap() {
        Value::Signed(balance) => balance,
        other => panic!("{other:?}"),
    });
    balances.sum()
}

fn transfer(db: &Database, step: u64) {
    let (from, to) = (step % ACCOUNTS, (step / 3 + 1 + step % ACCOUNTS) % ACCOUNTS);
    db.transact(Isolation::Serializable, |tx| {
        for (id, change) in [(from, -1), (to, 1)] {
            let (handle, record) =
                tx.find_record("Account", "by_id", &[Value::Unsigned(id)])?.unwrap();
            let Value::Signed(balance) = record.value("balance")? else { panic!("no balance") };
            tx.update_fields(handle, &[("balance", Value::Signed(balance + change))])?;
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_unique_key_is_given_once() {
    let db = open();
    let given = Mutex::new(BTreeSet::new());
    thread::scope(|scope| {
        for owner in 0..THREADS {
            let (db, given) = (&db, &given);
            scope.spawn(move || {
                for number in 0..300 {
                    let values =
                        [("number", Value::Unsigned(number)), ("owner", Value::Unsigned(owner))];
                    let taken = db.transact(Isolation::Snapshot, |tx| {
                        tx.insert_values("Ticket", &values).map(|_| ())
                    });
                    match taken {
                        Ok(()) => assert!(given.lock().unwrap().insert(number), "{number} twice"),
                        Err(Error::UniqueViolation { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
    });
    assert_eq!(given.into_inner().unwrap().len(), 300);
    assert_eq!(db.statistics().classes[1].records, 300);
    db.check().unwrap();
}
