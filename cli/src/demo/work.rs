//! What a node's workers do to the database: load, update, delete, and fight.
//!
//! A worker announces an operation before its first attempt and settles it after the last, so that
//! at any moment the demo knows all that may be committed. Operations of one worker follow one
//! another, and a row is touched by one worker only.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use quorate::{
    Access, CommitError, Connection, Database, Error, Handle, Isolation, Transaction, Value,
};

use super::data::{ACCOUNTS, Airport, Airports, COUNTERS, OPENING_BALANCE};
use super::node::{Fatal, Reporter};
use super::protocol::{Operation, Report};

/// How many workers a node has, each with a connection and a thread.
pub(super) const WORKERS: usize = 4;

/// The most rows that one transaction loads, when the load is late.
const ROWS_PER_TRANSACTION_MAX: usize = 100;

/// How long a node without quorum tries on.
const NO_QUORUM_LIMIT: Duration = Duration::from_secs(30);

const NO_QUORUM_PAUSE: Duration = Duration::from_millis(5);

/// One worker, over all commands of its process.
pub(super) struct Worker {
    id: usize,
    node: u32,
    life: u32,
    operations: u64,
    random: Random,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Committed,
    Refused,
    InDoubt,
}

/// Connection and reporter: what every operation needs.
struct Tools<'a> {
    connection: Connection,
    reporter: &'a Reporter,
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is small against 2^64.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

impl Worker {
    /// A worker of one process of a node.
    pub(super) fn new(id: usize, node: u32, life: u32) -> Self {
        let seed = u64::from(node) << 32 | u64::from(life) << 16 | id as u64;
        Self { id, node, life, operations: 0, random: Random(seed) }
    }

    /// Its position among the node's workers.
    pub(super) fn id(&self) -> usize {
        self.id
    }

    /// Inserts the counters and accounts.
    pub(super) fn setup(&mut self, database: &Database, reporter: &Reporter) -> Result<(), Fatal> {
        let mut tools = Tools::new(database, reporter)?;
        let ended = self.run(&mut tools, Operation::Setup, Isolation::Snapshot, |transaction| {
            for number in (0..COUNTERS).map(unsigned) {
                let values = [("number", number), ("value", Value::Unsigned(0))];
                transaction.insert_values("Counter", &values)?;
            }
            for number in (0..ACCOUNTS).map(unsigned) {
                let values = [("number", number), ("balance", Value::Signed(OPENING_BALANCE))];
                transaction.insert_values("Account", &values)?;
            }
            Ok(true)
        })?;
        match ended {
            Ended::Committed => Ok(()),
            ended => Err(Fatal::new(format_args!("the setup ended as {ended:?}"))),
        }
    }

    /// Inserts rows: `uncertain` ones only if they are not there, the others in transactions as
    /// small as the time allows.
    pub(super) fn load(
        &mut self,
        database: &Database,
        reporter: &Reporter,
        airports: &Airports,
        rows: &[u32],
        uncertain: &[u32],
        until: Instant,
    ) -> Result<(), Fatal> {
        let mut tools = Tools::new(database, reporter)?;
        let mut fresh: VecDeque<u32> = rows.iter().copied().collect();
        let mut uncertain: VecDeque<u32> = uncertain.iter().copied().collect();
        let (start, mut transactions) = (Instant::now(), 0);
        while !fresh.is_empty() || !uncertain.is_empty() {
            let batch: Vec<u32> = if let Some(row) = uncertain.pop_front() {
                if tools.has_row(airports, row)? {
                    reporter.say(&Report::Found { row });
                    continue;
                }
                vec![row]
            } else {
                let size = batch_size(fresh.len(), transactions, start, until);
                fresh.drain(..size).collect()
            };
            transactions += 1;
            match self.insert(&mut tools, airports, &batch)? {
                Ended::Committed => {}
                Ended::Refused | Ended::InDoubt => uncertain.extend(batch),
            }
        }
        Ok(())
    }

    /// Updates, deletes, increments and transfers at random until the time is over.
    pub(super) fn change(
        &mut self,
        database: &Database,
        reporter: &Reporter,
        airports: &Airports,
        rows: &[u32],
        until: Instant,
    ) -> Result<(), Fatal> {
        let mut tools = Tools::new(database, reporter)?;
        while Instant::now() < until {
            let row = rows[self.random.below(rows.len() as u64) as usize];
            match self.random.below(100) {
                0..55 if tools.has_row(airports, row)? => self.update(&mut tools, airports, row)?,
                55..65 if tools.has_row(airports, row)? => {
                    self.delete(&mut tools, airports, row)?
                }
                // A row deleted earlier comes back now and then.
                0..65 => self.insert(&mut tools, airports, &[row])?,
                65..85 => self.increment(&mut tools)?,
                _ => self.transfer(&mut tools)?,
            };
        }
        Ok(())
    }

    fn insert(
        &mut self,
        tools: &mut Tools<'_>,
        airports: &Airports,
        rows: &[u32],
    ) -> Result<Ended, Fatal> {
        let operation = Operation::Insert { rows: rows.to_vec() };
        self.run(tools, operation, Isolation::Snapshot, |transaction| {
            for row in rows {
                transaction.insert_values("Airport", &values(airports.airport(*row, 0)))?;
            }
            Ok(true)
        })
    }

    fn update(
        &mut self,
        tools: &mut Tools<'_>,
        airports: &Airports,
        row: u32,
    ) -> Result<Ended, Fatal> {
        // Never the same again for this row: its worker counts, and its life comes first.
        let revision = (self.life + 1) << 24 | (self.operations as u32 & 0xFF_FFFF);
        let changed = airports.airport(row, revision);
        let operation = Operation::Update { row, revision };
        self.run(tools, operation, Isolation::Snapshot, |transaction| {
            let Some(handle) = find_airport(transaction, &changed.icao)? else { return Ok(false) };
            let values = [
                ("name", Value::Text(changed.name.clone())),
                ("elevation", Value::Double(changed.elevation)),
            ];
            transaction.update_fields(handle, &values)?;
            Ok(true)
        })
    }

    fn delete(
        &mut self,
        tools: &mut Tools<'_>,
        airports: &Airports,
        row: u32,
    ) -> Result<Ended, Fatal> {
        let operation = Operation::Delete { row };
        self.run(tools, operation, Isolation::Snapshot, |transaction| {
            let found = find_airport(transaction, airports.icao(row))?;
            found.map_or(Ok(false), |handle| transaction.delete(handle).map(|()| true))
        })
    }

    fn increment(&mut self, tools: &mut Tools<'_>) -> Result<Ended, Fatal> {
        let counter = self.random.below(u64::from(COUNTERS)) as u32;
        let amount = 1 + self.random.below(9);
        let operation = Operation::Increment { counter, amount };
        let posting = self.posting("increment", counter, counter, amount);
        self.run(tools, operation, Isolation::Snapshot, |transaction| {
            let found = transaction.find_record("Counter", "by_number", &[unsigned(counter)])?;
            let Some((handle, record)) = found else { return Ok(false) };
            let Value::Unsigned(value) = record.value("value")? else { return Ok(false) };
            let value = Value::Unsigned(value + amount);
            transaction.update_fields(handle, &[("value", value)])?;
            transaction.insert_values("Posting", &posting)?;
            Ok(true)
        })
    }

    fn transfer(&mut self, tools: &mut Tools<'_>) -> Result<Ended, Fatal> {
        let from = self.random.below(u64::from(ACCOUNTS)) as u32;
        let step = 1 + self.random.below(u64::from(ACCOUNTS) - 1) as u32;
        let to = (from + step) % ACCOUNTS;
        let amount = 1 + self.random.below(50);
        let operation = Operation::Transfer { from, to, amount };
        let posting = self.posting("transfer", from, to, amount);
        self.run(tools, operation, Isolation::Serializable, |transaction| {
            let Some((payer, balance)) = find_account(transaction, from)? else { return Ok(false) };
            let Some((payee, other)) = find_account(transaction, to)? else { return Ok(false) };
            let moved = amount as i64;
            if balance < moved {
                return Ok(false);
            }
            transaction.update_fields(payer, &[("balance", Value::Signed(balance - moved))])?;
            transaction.update_fields(payee, &[("balance", Value::Signed(other + moved))])?;
            transaction.insert_values("Posting", &posting)?;
            Ok(true)
        })
    }

    /// The values of the posting of the next operation.
    fn posting(
        &self,
        kind: &'static str,
        source: u32,
        target: u32,
        amount: u64,
    ) -> [(&'static str, Value); 6] {
        [
            ("node", unsigned(self.node)),
            ("number", Value::Unsigned(self.number())),
            ("kind", Value::Enum(i32::from(kind == "transfer"))),
            ("source", unsigned(source)),
            ("target", unsigned(target)),
            ("amount", Value::Unsigned(amount)),
        ]
    }

    /// The number of the next operation: rising, and unlike any of other workers and lives.
    fn number(&self) -> u64 {
        u64::from(self.life) << 48 | (self.id as u64) << 40 | self.operations
    }

    /// Announces an operation, tries it until it is settled, and settles it.
    fn run(
        &mut self,
        tools: &mut Tools<'_>,
        operation: Operation,
        isolation: Isolation,
        apply: impl Fn(&Transaction<'_>) -> Result<bool, Error>,
    ) -> Result<Ended, Fatal> {
        let number = self.number();
        self.operations += 1;
        let reporter = tools.reporter;
        reporter.say(&Report::Announced { number, operation });
        let begin_us = reporter.now_us();
        let mut without_quorum = None;
        let mut attempts = 0;
        loop {
            let result = tools.connection.transact_committed(isolation, |transaction| {
                attempts += 1;
                apply(transaction)
            });
            let retries = attempts - 1;
            match result {
                Ok((true, committed)) => {
                    let (index, at_us) = (committed.index.0, reporter.now_us());
                    let latency_us = at_us - begin_us;
                    reporter.say(&Report::Acknowledged {
                        number,
                        index,
                        at_us,
                        latency_us,
                        retries,
                    });
                    return Ok(Ended::Committed);
                }
                Ok((false, _)) => {
                    return Ok(refuse(reporter, number, retries, "nothing to do"));
                }
                Err(
                    error @ (Error::Exhausted { .. }
                    // An insert in doubt was committed after the row was looked for.
                    | Error::UniqueViolation { .. }
                    // A long run on a fast machine.
                    | Error::Commit(CommitError::SegmentFull { .. })),
                ) => {
                    return Ok(refuse(reporter, number, retries, &error.to_string()));
                }
                Err(Error::Commit(CommitError::NoQuorum { reason })) => {
                    let since = *without_quorum.get_or_insert_with(Instant::now);
                    if since.elapsed() > NO_QUORUM_LIMIT {
                        return Err(Fatal::new(format_args!("no quorum for too long: {reason}")));
                    }
                    thread::sleep(NO_QUORUM_PAUSE);
                }
                Err(error @ Error::Commit(CommitError::InDoubt(_))) => {
                    let reason = error.to_string();
                    reporter.say(&Report::InDoubt { number, reason });
                    return Ok(Ended::InDoubt);
                }
                Err(error) => return Err(Fatal::new(error)),
            }
        }
    }
}

impl<'a> Tools<'a> {
    fn new(database: &Database, reporter: &'a Reporter) -> Result<Self, Fatal> {
        Ok(Self { connection: database.connect().map_err(Fatal::new)?, reporter })
    }

    /// Whether a row is there, in the newest state visible on this node.
    fn has_row(&mut self, airports: &Airports, row: u32) -> Result<bool, Fatal> {
        let look = |connection: &mut Connection| -> Result<bool, Error> {
            let transaction = connection.begin(Access::ReadOnly, Isolation::Snapshot)?;
            Ok(find_airport(&transaction, airports.icao(row))?.is_some())
        };
        look(&mut self.connection).map_err(Fatal::new)
    }
}

/// An airport as names and values.
fn values(airport: Airport) -> [(&'static str, Value); 11] {
    [
        ("icao", Value::Text(airport.icao)),
        ("iata", Value::Text(airport.iata)),
        ("name", Value::Text(airport.name)),
        ("city", Value::Text(airport.city)),
        ("subd", Value::Text(airport.subd)),
        ("country", Value::Text(airport.country)),
        ("elevation", Value::Double(airport.elevation)),
        ("lat", Value::Double(airport.lat)),
        ("lon", Value::Double(airport.lon)),
        ("tz", Value::Text(airport.tz)),
        ("lid", Value::Text(airport.lid)),
    ]
}

fn refuse(reporter: &Reporter, number: u64, retries: u32, reason: &str) -> Ended {
    reporter.say(&Report::Refused { number, retries, reason: reason.to_owned() });
    Ended::Refused
}

/// As few rows as finish in time at the pace so far.
fn batch_size(rows: usize, transactions: u32, start: Instant, until: Instant) -> usize {
    let now = Instant::now();
    let left = until.saturating_duration_since(now).as_secs_f64();
    let per_transaction = (now - start).as_secs_f64() / f64::from(transactions.max(1));
    let possible = (left / per_transaction.max(1e-6)).max(1.0);
    let wanted = (rows as f64 / possible).ceil() as usize;
    wanted.clamp(1, ROWS_PER_TRANSACTION_MAX).min(rows)
}

fn unsigned(number: u32) -> Value {
    Value::Unsigned(u64::from(number))
}

fn find_airport(transaction: &Transaction<'_>, icao: &str) -> Result<Option<Handle>, Error> {
    let key = [Value::Text(icao.to_owned())];
    Ok(transaction.find_record("Airport", "by_icao_hash", &key)?.map(|(handle, _)| handle))
}

fn find_account(
    transaction: &Transaction<'_>,
    number: u32,
) -> Result<Option<(Handle, i64)>, Error> {
    let found = transaction.find_record("Account", "by_number", &[unsigned(number)])?;
    let Some((handle, record)) = found else { return Ok(None) };
    let Value::Signed(balance) = record.value("balance")? else { return Ok(None) };
    Ok(Some((handle, balance)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_grow_only_when_the_load_is_late() {
        let start = Instant::now();
        let soon = start + Duration::from_secs(1_000);
        assert_eq!(batch_size(50, 1_000_000, start, soon), 1, "plenty of time");
        assert_eq!(batch_size(5_000, 1, start, start), ROWS_PER_TRANSACTION_MAX, "none left");
        assert_eq!(batch_size(3, 1, start, start), 3, "never more than there are");
    }
}
