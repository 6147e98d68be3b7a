//! A connection: one thread's way to begin transactions.

use std::cell::Cell;
use std::marker::PhantomData;

use crate::transact;
use crate::{Access, BeginError, Committed, Database, Error, Isolation, Transaction};

/// A place among the connections of a database; dropping it gives the place back.
///
/// It may move between threads, and serves one transaction at a time.
#[derive(Debug)]
pub struct Connection {
    database: Database,
    /// Not shared between threads: the guarantees of the real store's snapshot slots.
    not_sync: PhantomData<Cell<()>>,
}

impl Connection {
    pub(crate) fn new(database: Database) -> Connection {
        Connection { database, not_sync: PhantomData }
    }

    /// The database it belongs to.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Begins a transaction on the newest visible state. Never blocks.
    pub fn begin(
        &mut self,
        access: Access,
        isolation: Isolation,
    ) -> Result<Transaction<'_>, BeginError> {
        if let Some(path) = &self.database.shared.commit_path {
            path.admit(access)?;
        }
        Ok(Transaction::new(&self.database.shared, access, isolation))
    }

    /// Runs `body` in a read-write transaction and commits it.
    ///
    /// If the commit ends with `Conflict` or `SnapshotTooOld`, everything is run again on a new
    /// snapshot, after a pause that grows from nothing to a few milliseconds, at most
    /// `transact_attempts` times; then it is [`Error::Exhausted`]. So `body` may run many
    /// times and must have no other effects. Its own errors roll back and are passed on; so are
    /// all other errors of the commit.
    ///
    /// In a cluster, what it uses is reserved for it for a while once it has lost six times: so a
    /// long transaction gets its turn among short ones.
    pub fn transact<R>(
        &mut self,
        isolation: Isolation,
        body: impl FnMut(&Transaction<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        transact::transact(self, isolation, body).map(|(result, _)| result)
    }

    /// As [`Connection::transact`], and gives the commit too: its index, and the lasting handles
    /// of inserted records.
    pub fn transact_committed<R>(
        &mut self,
        isolation: Isolation,
        body: impl FnMut(&Transaction<'_>) -> Result<R, Error>,
    ) -> Result<(R, Committed), Error> {
        transact::transact(self, isolation, body)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.database.disconnect();
    }
}
