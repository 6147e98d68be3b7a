//! The database: what is shared by all connections, and how one is opened and closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use quorate_schema::Dictionary;

use crate::alone::Alone;
use crate::pending::Pending;
use crate::statistics::Counters;
use crate::store::Root;
use crate::transact;
use crate::writer::Writer;
use crate::{
    Applier, CloseError, CommitPath, ConnectError, Connection, Damage, DatabaseParams, Error,
    Index, Isolation, OpenError, Outcome, Statistics, Transaction, TransactionId,
};

/// An open database. Cheap to clone; all clones are the same database, which lives as long as one
/// of them, or a connection, does.
///
/// ```
/// use quorate_engine::{Access, Database, DatabaseParams, Isolation};
/// use quorate_schema::{Class, Dictionary, Value};
///
/// #[derive(Class, Debug, PartialEq)]
/// #[class(crate = "quorate_schema", index(unique, hash(icao)), index(tree(elevation)))]
/// struct Airport {
///     icao: String,
///     elevation: i32,
/// }
///
/// let dictionary = Dictionary::builder("air").class::<Airport>().build()?;
/// let db = Database::open("air", dictionary, DatabaseParams::default())?;
/// let mut con = db.connect()?;
///
/// con.transact(Isolation::Serializable, |tx| {
///     tx.insert(&Airport { icao: "LOWW".into(), elevation: 600 })?;
///     tx.insert(&Airport { icao: "LOWI".into(), elevation: 1906 })
/// })?;
///
/// let tx = con.begin(Access::ReadOnly, Isolation::Snapshot)?;
/// let key = [Value::Text("LOWI".into())];
/// let (handle, innsbruck) = tx.find::<Airport>("by_icao", &key)?.expect("it was inserted");
/// assert_eq!(innsbruck.elevation, 1906);
/// let mut highest = tx.cursor("Airport", "by_elevation")?;
/// assert_eq!(highest.last().map(|(found, _)| found), Some(handle));
/// # drop(highest);
/// # tx.rollback();
/// # drop(con);
/// db.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Database {
    pub(crate) shared: Arc<Shared>,
}

/// What all connections of one database share.
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) dictionary: Arc<Dictionary>,
    pub(crate) params: DatabaseParams,
    /// The newest published root.
    pub(crate) visible: ArcSwap<Root>,
    pub(crate) writer: Mutex<Writer>,
    pub(crate) commit_path: Option<Arc<dyn CommitPath>>,
    pub(crate) alone: Alone,
    pub(crate) pending: Pending,
    pub(crate) counters: Counters,
    /// The index of the newest image installed: older snapshots are of another past.
    pub(crate) installed: AtomicU64,
    /// Counts transactions that insert, from 1.
    pub(crate) serials: AtomicU64,
    /// Counts runs of `transact` that lost, from 1.
    pub(crate) series: AtomicU64,
    /// How many connections are open, or [`CLOSED`].
    connections: AtomicU32,
}

/// In place of the number of connections: the database was closed.
const CLOSED: u32 = u32::MAX;

impl Database {
    /// Opens an empty database in memory, alone: it orders its commits itself.
    ///
    /// `name` is for people; it is not looked up anywhere.
    pub fn open(
        name: &str,
        dictionary: Dictionary,
        params: DatabaseParams,
    ) -> Result<Database, OpenError> {
        Database::open_shared(name, dictionary, params, None)
    }

    /// Opens an empty database whose commits of replicated classes are ordered by `commit_path`;
    /// the ordered write sets come back through the [`Applier`]. Local classes are ordered here.
    pub fn open_with(
        name: &str,
        dictionary: Dictionary,
        params: DatabaseParams,
        commit_path: Arc<dyn CommitPath>,
    ) -> Result<Database, OpenError> {
        Database::open_shared(name, dictionary, params, Some(commit_path))
    }

    fn open_shared(
        name: &str,
        dictionary: Dictionary,
        params: DatabaseParams,
        commit_path: Option<Arc<dyn CommitPath>>,
    ) -> Result<Database, OpenError> {
        params.validate()?;
        let root = Arc::new(Root::new(&dictionary));
        let shared = Shared {
            name: name.to_owned(),
            visible: ArcSwap::new(Arc::clone(&root)),
            writer: Mutex::new(Writer::new(root, params.clone())),
            dictionary: Arc::new(dictionary),
            params,
            commit_path,
            alone: Alone::default(),
            pending: Pending::default(),
            counters: Counters::default(),
            installed: AtomicU64::new(0),
            serials: AtomicU64::new(1),
            series: AtomicU64::new(1),
            connections: AtomicU32::new(0),
        };
        Ok(Database { shared: Arc::new(shared) })
    }

    /// The name it was opened with.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// What it holds.
    pub fn dictionary(&self) -> &Dictionary {
        &self.shared.dictionary
    }

    /// How it was opened.
    pub fn params(&self) -> &DatabaseParams {
        &self.shared.params
    }

    /// A new connection. Dropping it gives its place back. Never blocks.
    pub fn connect(&self) -> Result<Connection, ConnectError> {
        let limit = self.shared.params.max_connections;
        let one_more = |open: u32| (open < limit).then(|| open + 1);
        let connections = &self.shared.connections;
        match connections.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more) {
            Ok(_) => Ok(Connection::new(self.clone())),
            Err(CLOSED) => Err(ConnectError::Closed),
            Err(_) => Err(ConnectError::ConnectionLimit { limit }),
        }
    }

    pub(crate) fn disconnect(&self) {
        let before = self.shared.connections.fetch_sub(1, Ordering::AcqRel);
        assert!(before != 0 && before != CLOSED, "a connection was counted wrongly");
    }

    /// Runs a read-write transaction on a connection of its own; see [`Connection::transact`].
    pub fn transact<R>(
        &self,
        isolation: Isolation,
        body: impl FnMut(&Transaction<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let mut connection = self.connect()?;
        transact::transact(&mut connection, isolation, body).map(|(result, _)| result)
    }

    /// The newest index that transactions which begin now will see.
    pub fn visible_index(&self) -> Index {
        self.shared.visible.load().index
    }

    /// A 128-bit hash of all replicated records, free places and counters at the visible index.
    /// Databases with equal indexes in one order of commits have equal hashes.
    pub fn state_hash(&self) -> u128 {
        self.shared.visible.load().state_hash(&self.shared.dictionary)
    }

    /// What became of a transaction, as far as the visible state knows. Asks nobody.
    pub fn known_outcome(&self, id: TransactionId) -> Outcome {
        self.shared.visible.load().exactly_once.outcome(id)
    }

    /// Counts and sizes, at one moment.
    pub fn statistics(&self) -> Statistics {
        let Shared { dictionary, params, counters, .. } = &*self.shared;
        counters.statistics(dictionary, params, &self.shared.visible.load())
    }

    /// Verifies everything visible: the entries of every index are exactly the keys of the live
    /// records, unique keys are unique, all sums are right. Takes time linear in the data and
    /// blocks nobody.
    pub fn check(&self) -> Result<(), Damage> {
        let root = self.shared.visible.load_full();
        root.check(&self.shared.dictionary)
    }

    /// Closes the database: no connection can be made any more. Refused while some are open.
    pub fn close(&self) -> Result<(), CloseError> {
        let connections = &self.shared.connections;
        match connections.compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) | Err(CLOSED) => Ok(()),
            Err(open) => Err(CloseError::ConnectionsOpen { open }),
        }
    }

    /// The way ordered write sets come in. Only whoever runs the node may use it: one thread at a
    /// time, and only with a database opened by [`Database::open_with`].
    pub fn applier(&self) -> Applier {
        Applier::new(self.clone())
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let index = self.visible_index();
        f.debug_struct("Database").field("name", &self.name()).field("visible", &index).finish()
    }
}
