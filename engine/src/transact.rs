//! The retry loop: run, commit, and on a conflict run again on a newer snapshot.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::transaction::Persistence;
use crate::{Access, CommitError, Committed, Connection, Error, Isolation, Transaction};

/// Attempts that only give way to other threads before the first pause.
const EAGER_ATTEMPTS: u32 = 4;
/// The first pause; each next one is twice as long.
const PAUSE_MIN: Duration = Duration::from_micros(50);
/// The longest pause: a few commits of a cluster.
const PAUSE_MAX: Duration = Duration::from_millis(5);

pub(crate) fn transact<R>(
    connection: &mut Connection,
    isolation: Isolation,
    mut body: impl FnMut(&Transaction<'_>) -> Result<R, Error>,
) -> Result<(R, Committed), Error> {
    let limit = connection.database().params().transact_attempts;
    let mut attempts = 0;
    let mut persistence = Persistence::default();
    loop {
        let mut transaction = connection.begin(Access::ReadWrite, isolation)?;
        transaction.persist(persistence);
        let result = body(&transaction)?;
        attempts += 1;
        match transaction.commit() {
            Ok(committed) => return Ok((result, committed)),
            Err(last) if last.is_retryable() => give_up_or_wait(attempts, limit, last)?,
            Err(error) => return Err(error.into()),
        }
        if persistence.series == 0 {
            persistence.series =
                connection.database().shared.series.fetch_add(1, Ordering::Relaxed);
        }
        persistence.attempts = persistence.attempts.saturating_add(1);
    }
}

fn give_up_or_wait(attempts: u32, limit: u32, last: CommitError) -> Result<(), Error> {
    if attempts >= limit {
        return Err(Error::Exhausted { attempts, last });
    }
    back_off(attempts);
    Ok(())
}

/// Lets others go first, for longer after each attempt. Reads no clock; the one place of the
/// engine that waits. Waking early does no harm.
fn back_off(attempts: u32) {
    if attempts <= EAGER_ATTEMPTS {
        std::thread::yield_now();
        return;
    }
    let doublings = (attempts - EAGER_ATTEMPTS - 1).min(10);
    std::thread::park_timeout((PAUSE_MIN * (1 << doublings)).min(PAUSE_MAX));
}
