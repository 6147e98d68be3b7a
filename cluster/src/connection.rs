//! A connection: one thread's way to work with a database, and to take its node through its life.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use quorate_engine::{Access, Index, Isolation, Transaction};

use crate::database::Node;
use crate::error::ClusterError;
use crate::fresh::{FreshError, Freshness};
use crate::procedure::{CallError, CallOptions, CallResult, Procedures};

/// A connection to a [`Database`](crate::Database). Transactions are begun on it as on the
/// [engine's](quorate_engine::Connection).
#[derive(Debug)]
pub struct Connection {
    engine: quorate_engine::Connection,
    node: Option<Arc<Node>>,
    procedures: Arc<Procedures>,
}

impl Connection {
    pub(crate) fn new(
        engine: quorate_engine::Connection,
        node: Option<Arc<Node>>,
        procedures: Arc<Procedures>,
    ) -> Self {
        Self { engine, node, procedures }
    }

    /// Runs this node's part of the cluster in the calling thread. Blocks until the node's end:
    /// until [`Connection::stop`] or [`Connection::detach`] of another connection is done, or the
    /// node cannot go on. Transactions run in other threads meanwhile.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Alone`] without a cluster, [`ClusterError::AlreadyListening`] if another
    /// thread does, [`ClusterError::Ended`] after the node's end; else why the node cannot go on.
    /// Its data can be read in any case.
    pub fn listen(&self) -> Result<(), ClusterError> {
        self.node()?.listen()
    }

    /// Stops the cluster in order: from now on this node refuses new transactions (`Stopped`) but
    /// helps the others until every live node has called `stop` too. Blocks until then. A node that
    /// is silent for `departed_after_ms` is not waited for.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoQuorum`] if no quorum could agree within `stop_limit_ms`: the database can
    /// still be read and dropped. [`ClusterError::NotListening`] if no listener runs, or comes
    /// within the commit time limit.
    pub fn stop(&self) -> Result<(), ClusterError> {
        self.node()?.end_and_wait(true)
    }

    /// Leaves the cluster alone: its rank is taken out of the configuration, and the others go on.
    /// Blocks until that is done.
    ///
    /// # Errors
    ///
    /// As [`Connection::stop`]; [`ClusterError::LastVoter`] if the others could not go on.
    pub fn detach(&self) -> Result<(), ClusterError> {
        self.node()?.end_and_wait(false)
    }

    /// Has the leader run a procedure, which it knows by its name
    /// ([`Database::register`](crate::Database::register)), and waits for the outcome: what it
    /// wrote is committed then, and visible here. It is run once, or not at all, as far as the
    /// database is concerned: whatever happens to nodes and connections, it is never in the log
    /// twice. Blocks at most as long as `options` and the cluster's parameters say.
    ///
    /// All calls that wait at the leader are run one after another and committed as one
    /// transaction, so they never conflict with each other; with other transactions they do, and
    /// are run again before anybody hears of it. A call that fails is rejected alone.
    ///
    /// A database alone runs the procedure in the calling thread.
    ///
    /// ```
    /// use quorate_cluster::{CallOptions, Database, Options};
    /// use quorate_engine::Error;
    /// use quorate_schema::{Dictionary, Value};
    ///
    /// let ddl = "declare database demo; class Line { string text; unsigned<8> at_ms; list; };";
    /// let db = Database::open("demo", Dictionary::parse(ddl)?, Options::default())?;
    /// db.register("note", |tx, args, context| {
    ///     let text = String::from_utf8(args.to_vec()).map_err(Error::application)?;
    ///     let at = Value::Unsigned(context.time_ms());
    ///     tx.insert_values("Line", &[("text", Value::Text(text)), ("at_ms", at)])?;
    ///     Ok(b"noted".to_vec())
    /// });
    /// let mut con = db.connect()?;
    /// assert_eq!(con.call("note", b"hello", CallOptions::default())?.bytes, b"noted");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`CallError`]; after all but `InDoubt` and `ResultLost` nothing of the call is anywhere. The
    /// id in `InDoubt` can be given to [`Database::outcome`](crate::Database::outcome).
    pub fn call(
        &mut self,
        name: &str,
        args: &[u8],
        options: CallOptions,
    ) -> Result<CallResult, CallError> {
        match &self.node {
            Some(node) => node.call(name, args, options),
            None => self.procedures.call_alone(&mut self.engine, name, args, options),
        }
    }

    /// Waits until a transaction begun on this node sees at least that, and gives the index it will
    /// see at least. Blocks until then, at most `limit`; without one, as long as a commit may take.
    ///
    /// * [`Freshness::Local`] returns at once.
    /// * [`Freshness::AtLeast`] waits until this node has applied that index. Carry the index of a
    ///   commit from one node to another to read there what was written here.
    /// * [`Freshness::Linearizable`] waits until this node has applied everything that any node had
    ///   acknowledged before this call: reads from here on are linearizable with all commits. It
    ///   costs one round of messages, which all readers of all nodes that wait at one moment share,
    ///   and no entry of the log. It trusts no clock: a leader that was cut off, paused or replaced
    ///   answers nobody, because each answer needs a quorum that still follows it.
    ///
    /// # Errors
    ///
    /// [`FreshError`]. None of them changes anything.
    pub fn fresh(
        &self,
        freshness: Freshness,
        limit: Option<Duration>,
    ) -> Result<Index, FreshError> {
        let visible = self.engine.database().visible_index();
        match (freshness, &self.node) {
            (Freshness::Local, _) => Ok(visible),
            (Freshness::AtLeast(wanted), _) if wanted <= visible => Ok(visible),
            (_, Some(node)) => node.fresh(freshness, limit),
            // Alone, an index is given out only once it is visible.
            (Freshness::AtLeast(wanted), None) => Err(FreshError::NotGivenOut { wanted, visible }),
            (Freshness::Linearizable, None) => Ok(visible),
        }
    }

    /// Begins a transaction that sees at least that; [`Connection::fresh`] and `begin` in one.
    ///
    /// # Errors
    ///
    /// [`FreshError`]; nothing was begun.
    pub fn begin_fresh(
        &mut self,
        access: Access,
        isolation: Isolation,
        freshness: Freshness,
    ) -> Result<Transaction<'_>, FreshError> {
        self.fresh(freshness, None)?;
        Ok(self.engine.begin(access, isolation)?)
    }

    fn node(&self) -> Result<&Arc<Node>, ClusterError> {
        self.node.as_ref().ok_or(ClusterError::Alone)
    }
}

impl Deref for Connection {
    type Target = quorate_engine::Connection;

    fn deref(&self) -> &Self::Target {
        &self.engine
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.engine
    }
}
