//! A long transaction against short ones that never give it room: with reservations it gets its
//! turn, without it does not.
#![allow(clippy::unwrap_used)]

#[path = "support/random.rs"]
mod random;

use std::sync::{Arc, Mutex, OnceLock};

use quorate_engine::{
    Access, Acknowledged, BeginError, CommitError, CommitOptions, CommitPath, CommitTicket,
    Database, DatabaseParams, Error, Footprint, Handle, Index, Isolation, Outcome, Refusal,
    Reservations, Submission, Tail, TransactionId,
};
use quorate_schema::{Dictionary, Value};
use random::Random;

const DDL: &str = "
declare database fairness;
class Counter { unsigned<4> id; signed<8> n; unique tree<id> by_id; };
";

/// How many counters there are.
const COUNTERS: u64 = 20;
/// Ticks a reservation lasts at most.
const LIMIT: u64 = 1000;

/// Certifies and applies at once, like a leader with an empty tail.
struct Leader {
    database: OnceLock<Database>,
    /// None: whoever comes first wins.
    reservations: Mutex<Option<Reservations>>,
    now: Mutex<u64>,
    sequence: Mutex<u64>,
    submitted: Mutex<Vec<Submission>>,
}

impl Leader {
    fn certify(&self, submission: &Submission) -> Result<Footprint, Refusal> {
        let applier = self.database.get().unwrap().applier();
        let tail = Tail::new(applier.applied().next());
        match &mut *self.reservations.lock().unwrap() {
            Some(held) => {
                applier.certify_fairly(&tail, submission, held, *self.now.lock().unwrap())
            }
            None => applier.certify(&tail, submission),
        }
    }
}

impl CommitPath for Leader {
    fn admit(&self, _: Access) -> Result<(), BeginError> {
        Ok(())
    }

    fn submit(
        &self,
        submission: Submission,
        _: CommitOptions,
    ) -> Result<Arc<dyn CommitTicket>, CommitError> {
        self.submitted.lock().unwrap().push(submission.clone());
        self.certify(&submission).map_err(Refusal::into_commit_error)?;
        let applier = self.database.get().unwrap().applier();
        let index = applier.applied().next();
        applier.apply(index, &submission.write_set).unwrap();
        applier.publish();
        Ok(Arc::new(Ok(Acknowledged::from(index))))
    }

    fn next_id(&self) -> (TransactionId, u64) {
        let mut sequence = self.sequence.lock().unwrap();
        *sequence += 1;
        (TransactionId { origin: 5, sequence: *sequence }, 1)
    }
}

fn open(fair: bool) -> (Database, Arc<Leader>) {
    let leader = Arc::new(Leader {
        database: OnceLock::new(),
        reservations: Mutex::new(fair.then(|| Reservations::new(LIMIT))),
        now: Mutex::new(0),
        sequence: Mutex::new(0),
        submitted: Mutex::default(),
    });
    let path = Arc::clone(&leader) as Arc<dyn CommitPath>;
    let dictionary = Dictionary::parse(DDL).unwrap();
    let params = DatabaseParams::default().with_transact_attempts(60);
    let database = Database::open_with("fairness", dictionary, params, path).unwrap();
    assert!(leader.database.set(database.clone()).is_ok());
    database
        .transact(Isolation::Snapshot, |tx| {
            for id in 0..COUNTERS {
                tx.insert_values("Counter", &[("id", Value::Unsigned(id))])?;
            }
            Ok(())
        })
        .unwrap();
    (database, leader)
}

fn handles(database: &Database) -> Vec<Handle> {
    let mut con = database.connect().unwrap();
    let tx = con.begin(Access::ReadOnly, Isolation::Snapshot).unwrap();
    tx.scan("Counter").unwrap().map(|(handle, _)| handle).collect()
}

/// A short transaction, once: true if it committed.
fn write(database: &Database, handle: Handle, n: i64) -> bool {
    let mut con = database.connect().unwrap();
    let tx = con.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
    tx.update_fields(handle, &[("n", Value::Signed(n))]).unwrap();
    match tx.commit() {
        Ok(_) => true,
        Err(CommitError::Conflict) => false,
        Err(other) => panic!("{other}"),
    }
}

/// Sums all counters up into one of them, while short transactions write in between. Gives how
/// often it ran, and how it ended.
fn long(database: &Database, leader: &Leader, isolation: Isolation) -> (u32, Result<(), Error>) {
    let mut random = Random::new(7);
    let handles = handles(database);
    let mut runs = 0;
    let result = database.transact(isolation, |tx| {
        runs += 1;
        let mut sum = 0;
        for handle in &handles {
            let record = tx.record(*handle)?.unwrap();
            let Value::Signed(n) = record.value("n")? else { panic!("an integer") };
            sum += n;
            // The others are at it all the time, on all counters.
            *leader.now.lock().unwrap() += 1;
            write(database, *random.pick(&handles), runs.into());
            if random.once_in(2) {
                write(database, handles[0], runs.into());
            }
        }
        tx.update_fields(handles[0], &[("n", Value::Signed(sum))])
    });
    (runs, result)
}

#[test]
fn without_reservations_a_long_transaction_loses_for_ever() {
    for isolation in [Isolation::Snapshot, Isolation::Serializable] {
        let (database, leader) = open(false);
        let (runs, result) = long(&database, &leader, isolation);
        assert!(matches!(result, Err(Error::Exhausted { attempts: 60, .. })), "{result:?}");
        assert_eq!(runs, 60);
    }
}

#[test]
fn with_reservations_it_gets_its_turn() {
    for isolation in [Isolation::Snapshot, Isolation::Serializable] {
        let (database, leader) = open(true);
        let (runs, result) = long(&database, &leader, isolation);
        result.unwrap();
        // Four losses, one that tells how long a run takes, one that reserves.
        assert!(runs <= 7, "it ran {runs} times");
        let now = *leader.now.lock().unwrap();
        let held = leader.reservations.lock().unwrap();
        assert_eq!(held.as_ref().unwrap().count(now), 0, "it has what it wanted");
        drop(held);
        assert!(write(&database, handles(&database)[0], 1), "and others go on");
    }
}

#[test]
fn a_loser_that_comes_no_more_holds_others_up_for_a_few_of_its_runs_only() {
    let (database, leader) = open(true);
    let handles = handles(&database);
    let mut runs = 0;
    let gone: Result<(), Error> = database.transact(Isolation::Snapshot, |tx| {
        runs += 1;
        if runs == 7 {
            return Err(Error::application("killed"));
        }
        tx.update_fields(handles[3], &[])?;
        *leader.now.lock().unwrap() += 10;
        assert!(write(&database, handles[3], 1), "reserved before it lost often");
        Ok(())
    });
    assert!(gone.is_err());
    assert!(!write(&database, handles[3], 2), "nothing was reserved");
    assert!(write(&database, handles[4], 2), "more was reserved than it used");
    *leader.now.lock().unwrap() += 40;
    assert!(write(&database, handles[3], 2), "the reservation never ends");
}

#[test]
fn a_repeat_is_known_before_anything_is_reserved() {
    let (database, leader) = open(true);
    let handles = handles(&database);
    assert!(write(&database, handles[3], 1));
    let first = leader.submitted.lock().unwrap().last().unwrap().clone();
    let mut loser = first.clone();
    (loser.series, loser.attempts, loser.id.sequence) = (9, 4, 1000);
    loser.snapshot = Index(0);
    for attempts in 4..6 {
        loser.attempts = attempts;
        assert_eq!(leader.certify(&loser).unwrap_err(), Refusal::Conflict);
        *leader.now.lock().unwrap() += 1;
    }
    assert!(!write(&database, handles[3], 2), "nothing was reserved");
    let index = database.visible_index();
    let known = leader.certify(&first).unwrap_err();
    assert_eq!(known, Refusal::Known(Outcome::Committed(index)));
}
