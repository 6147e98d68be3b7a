//! A node's clients: threads that call operations, one after another, and write down what came.
//!
//! An operation is one transaction, tried once; a conflict is its answer. What is to be
//! serializable in real time also writes a *mark*, a record of the client's own: that puts it in
//! the order of the log, and conflicts with nobody. Half of all that only read ask for a fresh
//! snapshot instead.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use quorate::{
    Access, CommitError, Connection, Database, Dictionary, Error, FreshError, Freshness, Handle,
    Isolation, Outcome, OutcomeError, Transaction, TransactionId, Value,
};

use crate::history::{Answer, End, Promise, Step, Writer, now_ns};
use crate::protocol::{Flaw, Load, Work};
use crate::random::Random;
use crate::trouble::{Result, Trouble};

/// What every account holds at first.
pub const OPENING_BALANCE: i64 = 100;

/// For how long transactions use the same lists, nanoseconds: lists must not grow for ever.
const LISTS_NS: u64 = 400_000_000;

/// How many lists are in use at a time.
const LISTS: u64 = 3;

/// How often a client asks for an outcome that is not to be had.
const QUESTIONS_MAX: u32 = 20;

/// How long a client without quorum waits before it tries again.
const REFUSED_PAUSE: Duration = Duration::from_millis(2);

const SCHEMA: &str = "
    declare database faults;

    class Register {
        unsigned<8> key;
        unsigned<8> value;
        unique hash<key> by_key[64];
    };

    class Series {
        unsigned<8> key;
        vector<unsigned<8>> values;
        unique hash<key> by_key[64];
    };

    class Account {
        unsigned<8> key;
        signed<8> balance;
        unique hash<key> by_key[64];
        list;
    };

    class Mark {
        unsigned<8> key;
        unsigned<8> count;
        unique hash<key> by_key[64];
    };
";

/// The dictionary of all nodes.
///
/// # Errors
///
/// None, unless the schema is wrong.
pub fn dictionary() -> Result<Dictionary> {
    Dictionary::parse(SCHEMA).map_err(Trouble::doing("schema"))
}

/// Inserts the records that the work is about.
///
/// # Errors
///
/// If it cannot be committed.
pub fn prepare(database: &Database, work: &Work) -> Result<()> {
    let mut connection = database.connect().map_err(Trouble::doing("connecting"))?;
    let prepared = connection.transact(Isolation::Snapshot, |transaction| {
        for key in (0..work.keys).map(Value::Unsigned) {
            let balance = Value::Signed(OPENING_BALANCE);
            let value = Value::Unsigned(0);
            transaction.insert_values("Register", &[("key", key.clone()), ("value", value)])?;
            transaction.insert_values("Account", &[("key", key), ("balance", balance)])?;
        }
        Ok(())
    });
    prepared.map_err(Trouble::doing("preparing"))
}

/// What a client shares with its node.
#[derive(Debug, Default)]
pub struct Control {
    /// It must not begin anything more.
    pub rest: AtomicBool,
    /// When the newest operation that was acknowledged to any client began, by the node's clock.
    pub acknowledged_ns: AtomicU64,
}

/// One client.
pub struct Client {
    database: Database,
    connection: Connection,
    writer: Writer,
    random: Random,
    load: Load,
    work: Work,
    flaw: Option<Flaw>,
    /// Unlike that of any other client of any life of any node, and small.
    identity: u64,
    /// Makes written values unique.
    written: u64,
}

impl Client {
    /// Client number `number` of a life of a node.
    ///
    /// # Errors
    ///
    /// If the database has no connection left.
    pub fn new(
        database: &Database,
        writer: Writer,
        (load, work): (Load, &Work),
        flaw: Option<Flaw>,
        (node, life, number): (usize, usize, usize),
    ) -> Result<Self> {
        let identity = (life as u64) << 16 | (node as u64) << 8 | number as u64;
        Ok(Self {
            database: database.clone(),
            connection: database.connect().map_err(Trouble::doing("connecting"))?,
            writer,
            random: Random::new(work.seed ^ identity << 20),
            load,
            work: work.clone(),
            flaw,
            identity,
            written: 0,
        })
    }

    /// Works until told to rest.
    ///
    /// # Errors
    ///
    /// What no fault explains.
    pub fn run(&mut self, control: &Control) -> Result<()> {
        while !control.rest.load(Ordering::Relaxed) {
            let begun_ns = now_ns();
            let (steps, promise) = self.next();
            match self.operate(steps, promise)? {
                End::Ok => {
                    control.acknowledged_ns.fetch_max(begun_ns, Ordering::Relaxed);
                }
                End::Failed => thread::sleep(REFUSED_PAUSE),
                End::Unknown => {}
            }
            thread::sleep(Duration::from_micros(self.work.pause_us));
        }
        Ok(())
    }

    /// Reads everything there is, each until it is acknowledged.
    ///
    /// # Errors
    ///
    /// What no fault explains.
    pub fn audit(&mut self, lists: &[u64]) -> Result<()> {
        let steps = match self.load {
            Load::Own => Vec::new(),
            Load::Registers => (0..self.work.keys).map(|key| vec![Step::Read(key, None)]).collect(),
            Load::Serializable | Load::Snapshot => {
                vec![lists.iter().map(|key| Step::List(*key, None)).collect()]
            }
            Load::Bank => vec![vec![Step::Balances(None)]],
        };
        for operation in steps {
            while self.operate(operation.clone(), Promise::Fresh)? != End::Ok {
                thread::sleep(REFUSED_PAUSE);
            }
        }
        Ok(())
    }

    /// One operation, written down.
    fn operate(&mut self, steps: Vec<Step>, promise: Promise) -> Result<End> {
        let number = self.writer.call(&steps, promise).map_err(Trouble::doing("history"))?;
        let answer = self.attempt(steps, promise)?;
        let end = answer.end;
        self.writer.answer(number, answer).map_err(Trouble::doing("history"))?;
        Ok(end)
    }

    /// A value nobody ever wrote, and never 0.
    fn fresh(&mut self) -> u64 {
        self.written += 1;
        self.identity << 32 | self.written
    }

    fn key(&mut self) -> u64 {
        self.random.below(self.work.keys)
    }

    /// The next operation, and what is asked of it.
    fn next(&mut self) -> (Vec<Step>, Promise) {
        let steps = match self.load {
            Load::Own => vec![Step::Write(self.identity, self.written + 1)],
            Load::Registers => vec![self.register_step()],
            Load::Serializable | Load::Snapshot => self.list_steps(),
            Load::Bank => vec![self.bank_step()],
        };
        let reads = |step: &Step| matches!(step, Step::Read(..) | Step::List(..));
        let promise = match self.load {
            Load::Own | Load::Snapshot => Promise::Snapshot,
            Load::Bank if self.random.below(2) == 0 => Promise::Snapshot,
            _ if steps.iter().all(reads) && self.random.below(2) == 0 => Promise::Fresh,
            _ => Promise::Ordered,
        };
        (steps, promise)
    }

    fn register_step(&mut self) -> Step {
        let key = self.key();
        match self.random.below(10) {
            0..4 => Step::Read(key, None),
            4..8 => Step::Write(key, self.fresh()),
            _ => {
                // A guess has a chance only if it is what this client can know.
                let guess = self.connection.begin(Access::ReadOnly, Isolation::Snapshot).ok();
                let guess = guess.and_then(|now| find(&now, "Register", key, "value").ok());
                let guess = guess.and_then(|(_, value)| unsigned(&value).ok()).unwrap_or(0);
                Step::Swap(key, guess, self.fresh(), None)
            }
        }
    }

    fn list_steps(&mut self) -> Vec<Step> {
        let count = 1 + self.random.below(4);
        let first = self.writer.now_ns() / LISTS_NS * LISTS;
        let mut steps = Vec::new();
        for _ in 0..count {
            let key = first + self.random.below(LISTS);
            steps.push(match self.random.below(2) {
                0 => Step::List(key, None),
                _ => Step::Append(key, self.fresh()),
            });
        }
        steps
    }

    fn bank_step(&mut self) -> Step {
        let (from, to) = (self.key(), self.key());
        match self.random.below(4) {
            0 => Step::Balances(None),
            _ => Step::Move(from, to, 1 + self.random.below(40), None),
        }
    }

    /// Runs the steps in one transaction.
    fn attempt(&mut self, mut steps: Vec<Step>, promise: Promise) -> Result<Answer> {
        if self.load == Load::Own {
            self.written += 1;
        }
        let stale = self.flaw == Some(Flaw::StaleReads);
        let skewed = self.flaw == Some(Flaw::WriteSkew) || promise == Promise::Snapshot;
        let lost = self.flaw == Some(Flaw::LostWrites) && self.written % 100 == 99;
        let isolation = if skewed { Isolation::Snapshot } else { Isolation::Serializable };
        if promise == Promise::Fresh && !stale {
            match self.connection.fresh(Freshness::Linearizable, None) {
                Ok(_) => {}
                Err(FreshError::NoQuorum { .. } | FreshError::TimedOut { .. }) => {
                    return Ok(Answer::without(End::Failed, false));
                }
                Err(error) => return Err(Trouble::new(format!("a read ended with: {error}"))),
            }
        }
        let identity = self.identity;
        let ran = self.connection.begin(Access::ReadWrite, isolation).map_err(Error::from);
        let ran = ran.and_then(|transaction| {
            for step in &mut steps {
                run_step(&transaction, step)?;
            }
            if promise == Promise::Ordered && !stale {
                mark(&transaction, identity)?;
            }
            if lost {
                return Ok(transaction.snapshot().0);
            }
            Ok(transaction.commit()?.index.0)
        });
        match ran {
            Ok(index) => Ok(Answer { end: End::Ok, steps, index, doubted: false }),
            Err(Error::Commit(CommitError::InDoubt(id))) => self.settle(id, steps),
            Err(error) if is_refusal(&error) => Ok(Answer::without(End::Failed, false)),
            Err(error) => Err(Trouble::new(format!("an operation ended with: {error}"))),
        }
    }

    /// Asks what became of a commit in doubt. Half of the doubts stay, as if nobody had asked.
    fn settle(&mut self, id: TransactionId, steps: Vec<Step>) -> Result<Answer> {
        if self.random.below(2) == 0 {
            return Ok(Answer::without(End::Unknown, false));
        }
        for _ in 0..QUESTIONS_MAX {
            match self.database.outcome(id) {
                Ok(Outcome::Committed(index)) => {
                    return Ok(Answer { end: End::Ok, steps, index: index.0, doubted: true });
                }
                Ok(Outcome::NotCommitted) => return Ok(Answer::without(End::Failed, true)),
                Err(
                    OutcomeError::NoQuorum { .. }
                    | OutcomeError::TimedOut
                    | OutcomeError::Refused { .. },
                ) => thread::sleep(REFUSED_PAUSE),
                // Its own node remembers what was in doubt here, and answers for good.
                other => {
                    return Err(Trouble::new(format!("the outcome of {id} is told as {other:?}")));
                }
            }
        }
        Ok(Answer::without(End::Unknown, true))
    }
}

/// Whether faults can explain it. All of these promise that nothing was committed.
fn is_refusal(error: &Error) -> bool {
    match error {
        // An insert of this client in doubt was committed after it was looked for.
        Error::UniqueViolation { .. } => true,
        Error::Commit(error) => {
            error.is_retryable() || matches!(error, CommitError::NoQuorum { .. })
        }
        _ => false,
    }
}

fn run_step(transaction: &Transaction<'_>, step: &mut Step) -> std::result::Result<(), Error> {
    match step {
        Step::Read(key, value) => {
            let (_, found) = find(transaction, "Register", *key, "value")?;
            *value = Some(unsigned(&found)?);
        }
        Step::Write(key, value) => match find(transaction, "Register", *key, "value") {
            Ok((handle, _)) => {
                transaction.update_fields(handle, &[("value", Value::Unsigned(*value))])?;
            }
            // The record of this client alone.
            Err(_) => {
                let values = [("key", Value::Unsigned(*key)), ("value", Value::Unsigned(*value))];
                transaction.insert_values("Register", &values)?;
            }
        },
        Step::Swap(key, expected, value, held) => {
            let (handle, found) = find(transaction, "Register", *key, "value")?;
            let found = unsigned(&found)?;
            if found == *expected {
                transaction.update_fields(handle, &[("value", Value::Unsigned(*value))])?;
            }
            *held = Some(found);
        }
        Step::List(key, values) => {
            *values = Some(list(transaction, *key)?.map_or(Vec::new(), |(_, values)| values));
        }
        Step::Append(key, value) => append(transaction, *key, *value)?,
        Step::Move(from, to, amount, moved) => {
            *moved = Some(transfer(transaction, *from, *to, *amount as i64)?);
        }
        Step::Balances(balances) => {
            let mut all = Vec::new();
            for key in 0.. {
                let key = [Value::Unsigned(key)];
                let Some((_, record)) = transaction.find_record("Account", "by_key", &key)? else {
                    break;
                };
                all.push(signed(&record.value("balance")?)?);
            }
            *balances = Some(all);
        }
    }
    Ok(())
}

/// Whether there was enough to move.
fn transfer(
    transaction: &Transaction<'_>,
    from: u64,
    to: u64,
    amount: i64,
) -> std::result::Result<bool, Error> {
    let (payer, balance) = find(transaction, "Account", from, "balance")?;
    let (payee, other) = find(transaction, "Account", to, "balance")?;
    let (balance, other) = (signed(&balance)?, signed(&other)?);
    if from == to || balance < amount {
        return Ok(false);
    }
    transaction.update_fields(payer, &[("balance", Value::Signed(balance - amount))])?;
    transaction.update_fields(payee, &[("balance", Value::Signed(other + amount))])?;
    Ok(true)
}

/// Counts the client's own record up, or makes it.
fn mark(transaction: &Transaction<'_>, identity: u64) -> std::result::Result<(), Error> {
    let key = Value::Unsigned(identity);
    match transaction.find_record("Mark", "by_key", std::slice::from_ref(&key))? {
        Some((handle, record)) => {
            let count = Value::Unsigned(unsigned(&record.value("count")?)? + 1);
            transaction.update_fields(handle, &[("count", count)])
        }
        None => {
            let values = [("key", key), ("count", Value::Unsigned(0))];
            transaction.insert_values("Mark", &values).map(|_| ())
        }
    }
}

/// A list, unless it was never appended to.
fn list(
    transaction: &Transaction<'_>,
    key: u64,
) -> std::result::Result<Option<(Handle, Vec<u64>)>, Error> {
    let found = transaction.find_record("Series", "by_key", &[Value::Unsigned(key)])?;
    let Some((handle, record)) = found else { return Ok(None) };
    let Value::List(values) = record.value("values")? else {
        return Err(Error::application("no list"));
    };
    let values: std::result::Result<_, Error> = values.iter().map(unsigned).collect();
    Ok(Some((handle, values?)))
}

fn append(transaction: &Transaction<'_>, key: u64, value: u64) -> std::result::Result<(), Error> {
    let found = list(transaction, key)?;
    let (handle, mut values) = found.map_or((None, Vec::new()), |(h, values)| (Some(h), values));
    values.push(value);
    let values = Value::List(values.into_iter().map(Value::Unsigned).collect());
    match handle {
        Some(handle) => transaction.update_fields(handle, &[("values", values)]),
        None => {
            let values = [("key", Value::Unsigned(key)), ("values", values)];
            transaction.insert_values("Series", &values).map(|_| ())
        }
    }
}

fn find(
    transaction: &Transaction<'_>,
    class: &str,
    key: u64,
    field: &str,
) -> std::result::Result<(Handle, Value), Error> {
    let found = transaction.find_record(class, "by_key", &[Value::Unsigned(key)])?;
    let (handle, record) =
        found.ok_or_else(|| Error::application(format!("{class} {key} is not there")))?;
    Ok((handle, record.value(field)?))
}

fn unsigned(value: &Value) -> std::result::Result<u64, Error> {
    match value {
        Value::Unsigned(number) => Ok(*number),
        other => Err(Error::application(format!("{other:?} is no unsigned number"))),
    }
}

fn signed(value: &Value) -> std::result::Result<i64, Error> {
    match value {
        Value::Signed(number) => Ok(*number),
        other => Err(Error::application(format!("{other:?} is no signed number"))),
    }
}
