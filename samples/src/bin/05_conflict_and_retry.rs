//! Two transactions want the same record. The first to commit wins; the other is told at once,
//! and runs again.
//!
//! Shows: a conflict by hand, `transact` which retries, write skew that snapshot isolation allows
//! and serializable transactions refuse.
#![allow(clippy::print_stdout, reason = "a sample talks to its reader")]

use std::error::Error;
use std::thread;

use quorate::{Access, CommitError, Database, Dictionary, Isolation, Options, Transaction, Value};

const SCHEMA: &str = "
    declare database accounts;
    class Account {
        string owner;
        signed<8> balance;
        unique hash<owner> by_owner[10];
    };
";

const THREADS: i64 = 4;
const DEPOSITS: i64 = 250;

fn main() -> Result<(), Box<dyn Error>> {
    let database = Database::open("accounts", Dictionary::parse(SCHEMA)?, Options::default())?;
    database.transact(Isolation::Snapshot, |transaction| {
        for owner in ["ann", "bob"] {
            let values = [("owner", owner.into()), ("balance", Value::Signed(100))];
            transaction.insert_values("Account", &values)?;
        }
        Ok(())
    })?;
    conflict(&database)?;
    retries(&database)?;
    write_skew(&database, Isolation::Snapshot)?;
    write_skew(&database, Isolation::Serializable)
}

/// Both read 100 and add to it. If both could commit, one deposit would be lost.
fn conflict(database: &Database) -> Result<(), Box<dyn Error>> {
    let (mut one, mut two) = (database.connect()?, database.connect()?);
    let first = one.begin(Access::ReadWrite, Isolation::Snapshot)?;
    let second = two.begin(Access::ReadWrite, Isolation::Snapshot)?;
    add(&first, "ann", 10)?;
    add(&second, "ann", 20)?;
    first.commit()?;
    match second.commit() {
        Err(error @ CommitError::Conflict) => println!("conflict: {error}"),
        other => return Err(format!("a conflict was due, but: {other:?}").into()),
    }
    Ok(())
}

/// Many threads, one record: `transact` runs each deposit until it is in.
fn retries(database: &Database) -> Result<(), Box<dyn Error>> {
    let before = read(database, "bob")?;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| -> Result<u32, quorate::Error> {
                    let (mut connection, mut runs) = (database.connect()?, 0);
                    for _ in 0..DEPOSITS {
                        connection.transact(Isolation::Snapshot, |transaction| {
                            runs += 1;
                            add(transaction, "bob", 1)
                        })?;
                    }
                    Ok(runs)
                })
            })
            .collect();
        for thread in threads {
            let runs = thread.join().map_err(|_| "a thread panicked")??;
            println!("{DEPOSITS} deposits took {runs} runs");
        }
        Ok::<_, Box<dyn Error>>(())
    })?;
    let gained = read(database, "bob")? - before;
    println!("{} deposits of 1 made {gained}", THREADS * DEPOSITS);
    Ok(())
}

/// Each takes 150 from another account after seeing that both together hold enough. They write
/// different records, so snapshot isolation sees no conflict; together they overdraw.
fn write_skew(database: &Database, isolation: Isolation) -> Result<(), Box<dyn Error>> {
    let (mut one, mut two) = (database.connect()?, database.connect()?);
    let first = one.begin(Access::ReadWrite, isolation)?;
    let second = two.begin(Access::ReadWrite, isolation)?;
    for (transaction, owner) in [(&first, "ann"), (&second, "bob")] {
        let together = balance(transaction, "ann")? + balance(transaction, "bob")?;
        if together >= 150 {
            add(transaction, owner, -150)?;
        }
    }
    first.commit()?;
    match second.commit() {
        Ok(_) => println!("{isolation:?}: both committed, each on what it had seen"),
        Err(error) => println!("{isolation:?}: the second was refused: {error}"),
    }
    Ok(())
}

fn add(transaction: &Transaction<'_>, owner: &str, amount: i64) -> Result<(), quorate::Error> {
    let balance = Value::Signed(balance(transaction, owner)? + amount);
    if let Some((account, _)) = transaction.find_record("Account", "by_owner", &[owner.into()])? {
        transaction.update_fields(account, &[("balance", balance)])?;
    }
    Ok(())
}

fn balance(transaction: &Transaction<'_>, owner: &str) -> Result<i64, quorate::Error> {
    let found = transaction.find_record("Account", "by_owner", &[owner.into()])?;
    let Some((_, account)) = found else { return Ok(0) };
    match account.value("balance")? {
        Value::Signed(balance) => Ok(balance),
        other => Err(quorate::Error::application(format!("a balance is {other:?}"))),
    }
}

fn read(database: &Database, owner: &str) -> Result<i64, quorate::Error> {
    let mut connection = database.connect()?;
    let transaction = connection.begin(Access::ReadOnly, Isolation::Snapshot)?;
    balance(&transaction, owner)
}
