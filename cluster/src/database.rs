//! The public face: a database alone or in a cluster, opened, listened for and stopped.
//!
//! A [`Database`] is an engine's database plus, with [`ClusterParams`], a node that keeps it equal
//! to the others. Everything about data is the engine's and reached through `Deref`; only what
//! concerns the cluster is here.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_consensus::NodeId;
use quorate_engine::{
    ConnectError, DatabaseParams, Error, Index, Outcome, Transaction, TransactionId,
};
use quorate_schema::Dictionary;

use crate::admin::{AdminAnswer, AdminRequest};
use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::error::{ClusterError, OutcomeError, ParamsError, RejectReason};
use crate::event::NodeInfo;
use crate::fresh::{FreshError, Freshness};
use crate::params::{Checked, ClusterParams};
use crate::procedure::{CallContext, CallError, CallOptions, CallResult, Procedures};
use crate::runtime::{self, Birth, Runtime, Shared};
use crate::status::ClusterStatus;

/// How a database is opened. `Options::default()` is a database alone.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// What concerns the data.
    pub database: DatabaseParams,
    /// What concerns the cluster; none: the database is alone.
    pub cluster: Option<ClusterParams>,
}

impl Options {
    /// The same options with other database parameters.
    pub fn database(mut self, params: DatabaseParams) -> Self {
        self.database = params;
        self
    }

    /// The same options in a cluster.
    pub fn cluster(mut self, params: ClusterParams) -> Self {
        self.cluster = Some(params);
        self
    }
}

impl From<DatabaseParams> for Options {
    fn from(database: DatabaseParams) -> Self {
        Self { database, cluster: None }
    }
}

impl From<ClusterParams> for Options {
    fn from(cluster: ClusterParams) -> Self {
        Self { database: DatabaseParams::default(), cluster: Some(cluster) }
    }
}

/// A node that open waited for in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitingFor {
    /// The node.
    pub node: NodeId,
    /// Its address.
    pub addr: String,
    /// What is missing.
    pub why: String,
}

impl fmt::Display for WaitingFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} ({}): {}", self.node, self.addr, self.why)
    }
}

/// Why a database was not opened. Nothing is left behind: sockets are closed again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The database parameters cannot work.
    #[error(transparent)]
    Database(#[from] quorate_engine::OpenError),
    /// The cluster parameters cannot work.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// Somebody listens at this node's address already.
    #[error(
        "address {addr} of node {node} is in use; stop the process that has it, or give the node \
         another address in every node list"
    )]
    AddrInUse {
        /// This node.
        node: NodeId,
        /// Its address.
        addr: String,
    },
    /// This node's address cannot be listened at.
    #[error("cannot listen at {addr}, the address of node {node}: {source}")]
    Bind {
        /// This node.
        node: NodeId,
        /// Its address.
        addr: String,
        /// Why.
        source: io::Error,
    },
    /// Another node refuses this one, or this one had to refuse the other.
    #[error("no connection between this node and node {node} ({addr}): {reason}")]
    Rejected {
        /// The other node.
        node: NodeId,
        /// Its address.
        addr: String,
        /// Why.
        reason: RejectReason,
    },
    /// The cluster was not ready within `connect_timeout_ms`.
    #[error(
        "the cluster was not ready within {waited_ms} ms; waiting for {}; start those nodes, or \
         raise connect_timeout_ms. Every node must call listen() or spawn_listener() once it is \
         open. Where one was never connected, check the addresses, and that all nodes have the \
         same list in the same order, and each its own place in it as node_id",
        list(waiting_for)
    )]
    Timeout {
        /// How long open waited.
        waited_ms: u64,
        /// For whom.
        waiting_for: Vec<WaitingFor>,
    },
    /// The cluster part ended while it was being opened.
    #[error(transparent)]
    Cluster(ClusterError),
    /// The operating system failed.
    #[error("{doing}: {source}; nothing was opened")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// How it failed.
        source: io::Error,
    },
}

fn list(waiting_for: &[WaitingFor]) -> String {
    waiting_for.iter().map(WaitingFor::to_string).collect::<Vec<_>>().join("; ")
}

/// The node behind a database in a cluster.
///
/// Invariant: the runtime is parked here, or a listener has it, or it has ended.
pub(crate) struct Node {
    shared: Arc<Shared>,
    parked: Mutex<Option<Runtime>>,
}

/// A database, alone or one node of a cluster. Cheap to clone; when the last clone and the last
/// [`Connection`] are gone, its sockets close, without a word to the other nodes: to leave in order
/// is [`Connection::stop`] or [`Connection::detach`].
///
/// Transactions, statistics and checks are the [engine's](quorate_engine::Database).
///
/// ```
/// use quorate_cluster::{Database, Options};
/// use quorate_schema::Dictionary;
///
/// let dictionary = Dictionary::parse("declare database demo; class A { unsigned<4> x; list; };")?;
/// let db = Database::open("demo", dictionary, Options::default())?;
/// assert_eq!(db.visible_index().0, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Database {
    engine: quorate_engine::Database,
    node: Option<Arc<Node>>,
    procedures: Arc<Procedures>,
}

impl Database {
    /// Opens an empty database in memory.
    ///
    /// With [`ClusterParams`] it also joins the cluster: binds this node's address and blocks until
    /// the node holds the cluster's state and has its rank, at most `connect_timeout_ms`. The
    /// cluster forms as soon as all listed nodes are there; a node that comes back is taken in
    /// while the others go on. From the return of `open` until [`Connection::listen`] or
    /// [`Database::spawn_listener`] the node answers nobody: call one of them at once.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]. A node that is refused for good (another dictionary, another cluster,
    /// another node list) fails at once while the cluster forms, else when the time is over.
    pub fn open(
        name: &str,
        dictionary: Dictionary,
        options: impl Into<Options>,
    ) -> Result<Self, OpenError> {
        let Options { database, cluster } = options.into();
        match cluster {
            None => {
                let engine = quorate_engine::Database::open(name, dictionary, database)?;
                Ok(Self { engine, node: None, procedures: Arc::default() })
            }
            Some(params) => Self::open_node(name, dictionary, database, &params.validate()?),
        }
    }

    fn open_node(
        name: &str,
        dictionary: Dictionary,
        params: DatabaseParams,
        checked: &Checked,
    ) -> Result<Self, OpenError> {
        let birth = Birth::draw().map_err(|error| OpenError::Io {
            doing: "drawing random bits",
            source: io::Error::other(error.to_string()),
        })?;
        let bound = runtime::bind(checked, &dictionary, params.max_connections, birth);
        let (transport, shared) = bound.map_err(|source| cannot_bind(checked, source))?;
        let path = Arc::clone(&shared);
        let copy = Arc::new(dictionary.clone());
        let engine = quorate_engine::Database::open_with(name, dictionary, params, path)?;
        let applier = engine.applier();
        let procedures = Arc::<Procedures>::default();
        let (inbox, known) = (Arc::clone(&shared), Arc::clone(&procedures));
        let made = Runtime::new(checked, transport, inbox, applier, copy, known, birth);
        let starting = |source| OpenError::Io { doing: "starting the delivery thread", source };
        let mut runtime = made.map_err(starting)?;
        let waited_ms = checked.params().connect_timeout_ms;
        match runtime.run_until_ready(waited_ms) {
            Ok(true) => {}
            Ok(false) => return Err(not_ready(checked, &runtime, waited_ms)),
            Err(ClusterError::Rejected { node, reason }) => {
                return Err(rejected(checked, node, reason));
            }
            Err(error) => return Err(OpenError::Cluster(error)),
        }
        let parked = Mutex::new(Some(runtime));
        let node = Arc::new(Node { shared, parked });
        Ok(Self { engine, node: Some(node), procedures })
    }

    /// A new connection. Never blocks.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], if as many as allowed are open or the database is closed.
    pub fn connect(&self) -> Result<Connection, ConnectError> {
        let procedures = Arc::clone(&self.procedures);
        Ok(Connection::new(self.engine.connect()?, self.node.clone(), procedures))
    }

    /// Runs the listener in a thread of its own. See [`Connection::listen`].
    ///
    /// # Errors
    ///
    /// [`ClusterError::Alone`], [`ClusterError::AlreadyListening`], [`ClusterError::Ended`] if it
    /// has ended before, [`ClusterError::Io`] if no thread could be started.
    pub fn spawn_listener(&self) -> Result<ListenerHandle, ClusterError> {
        let runtime = self.node()?.take_runtime()?;
        let thread = thread::Builder::new()
            .name("quorate-listener".into())
            .spawn(move || runtime.run())
            .map_err(|error| ClusterError::Io {
                doing: "starting the listener's thread",
                kind: error.kind(),
            })?;
        Ok(ListenerHandle { thread })
    }

    /// Gives a procedure a name under which [`Connection::call`] of any node finds it while this
    /// node leads; so register the same ones on every node, best before it listens. One that had
    /// the name before is replaced, for the calls that begin to run from now on.
    ///
    /// It is run on a thread of its own, one call at a time. It must not call procedures itself,
    /// and should return within its time limit: see [`CallContext::expired`]. What it writes must
    /// be of replicated classes.
    pub fn register(
        &self,
        name: &str,
        procedure: impl Fn(&Transaction<'_>, &[u8], &CallContext<'_>) -> Result<Vec<u8>, Error>
        + Send
        + Sync
        + 'static,
    ) {
        self.procedures.register(name, Arc::new(procedure));
    }

    /// What became of a transaction, of this node or another, of this life or one before: for who
    /// heard `InDoubt`, or took over from who did. The answer is final. If nothing is known of it,
    /// the cluster logs a *fence*, behind which it can never commit; if its own node still waits
    /// for it, the commit ends there with `Fenced`. Blocks until the fence is applied here, at most
    /// as long as a commit may take.
    ///
    /// `Forgotten` means that its node settled it and went on: a commit that was acknowledged, or
    /// refused. One that was in doubt is remembered on its own node, so ask there first.
    ///
    /// A database alone answers at once: there a transaction has committed, or never will, as soon
    /// as anybody can know its id.
    ///
    /// # Errors
    ///
    /// [`OutcomeError`]: the outcome stays open. It may be asked for again, and anywhere.
    pub fn outcome(&self, id: TransactionId) -> Result<Outcome, OutcomeError> {
        if !(1..u64::MAX).contains(&id.sequence) {
            return Err(OutcomeError::NoSuchId(id));
        }
        let known = self.engine.known_outcome(id);
        let Some(node) = &self.node else {
            let unknown = known == Outcome::Unknown;
            return Ok(if unknown { Outcome::NotCommitted } else { known });
        };
        let told = match (node.shared.fate(id), known) {
            (Some(fate), _) => return Ok(fate),
            (None, Outcome::Unknown) => node.shared.outcome(id)?,
            (None, known) => known,
        };
        Ok(node.shared.remembered(id, told))
    }

    /// How the cluster is, as this node sees it now; `None` if the database is alone. While a
    /// listener runs, this asks it and waits for its answer.
    pub fn cluster_status(&self) -> Option<ClusterStatus> {
        self.node.as_ref()?.status()
    }

    /// What operators do to the cluster; `None` if the database is alone.
    pub fn cluster(&self) -> Option<Cluster> {
        self.node.clone().map(Cluster::new)
    }

    /// The cluster's nodes, in order of their ids, as this node knows them; empty if the database
    /// is alone.
    pub fn nodes(&self) -> Vec<NodeInfo> {
        self.node.as_ref().map_or_else(Vec::new, |node| node.shared.nodes())
    }

    fn node(&self) -> Result<&Arc<Node>, ClusterError> {
        self.node.as_ref().ok_or(ClusterError::Alone)
    }
}

impl Deref for Database {
    type Target = quorate_engine::Database;

    fn deref(&self) -> &Self::Target {
        &self.engine
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clustered = self.node.is_some();
        f.debug_struct("Database").field("engine", &self.engine).field("node", &clustered).finish()
    }
}

impl Node {
    /// Runs the listener in this thread.
    pub(crate) fn listen(&self) -> Result<(), ClusterError> {
        self.take_runtime()?.run()
    }

    /// See [`Database::cluster_status`].
    pub(crate) fn status(&self) -> Option<ClusterStatus> {
        loop {
            if let Some(status) = self.shared.status() {
                return Some(status);
            }
            if let Some(runtime) = &*self.parked.lock() {
                return Some(runtime.status());
            }
            if self.shared.ended().is_some() {
                return self.shared.status();
            }
            thread::yield_now(); // a listener takes over at this moment
        }
    }

    /// See [`Shared::admin`].
    pub(crate) fn admin(&self, request: AdminRequest) -> AdminAnswer {
        self.shared.admin(request)
    }

    /// See [`Shared::end_and_wait`].
    pub(crate) fn end_and_wait(&self, orderly: bool) -> Result<(), ClusterError> {
        self.shared.end_and_wait(orderly)
    }

    /// See [`Shared::call`].
    pub(crate) fn call(
        &self,
        name: &str,
        args: &[u8],
        options: CallOptions,
    ) -> Result<CallResult, CallError> {
        self.shared.call(name, args, options)
    }

    /// See [`Shared::fresh`].
    pub(crate) fn fresh(
        &self,
        freshness: Freshness,
        limit: Option<Duration>,
    ) -> Result<Index, FreshError> {
        self.shared.fresh(freshness, limit)
    }

    fn take_runtime(&self) -> Result<Runtime, ClusterError> {
        let mut parked = self.parked.lock();
        match parked.take() {
            Some(runtime) => {
                self.shared.begin_listening();
                Ok(runtime)
            }
            None if self.shared.ended().is_some() => Err(ClusterError::Ended),
            None => Err(ClusterError::AlreadyListening),
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("nodes", &self.shared.nodes()).finish_non_exhaustive()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}

/// A listener that runs in a thread of its own. Dropping it lets the thread go on.
#[derive(Debug)]
pub struct ListenerHandle {
    thread: thread::JoinHandle<Result<(), ClusterError>>,
}

impl ListenerHandle {
    /// Waits for the listener's end: `Ok` after stop or detach.
    ///
    /// # Errors
    ///
    /// Why it ended otherwise; [`ClusterError::Panicked`] if its thread panicked.
    pub fn join(self) -> Result<(), ClusterError> {
        self.thread.join().unwrap_or(Err(ClusterError::Panicked))
    }

    /// True if the listener has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

fn own_address(checked: &Checked) -> (NodeId, String) {
    let own = checked.params().node_id;
    (NodeId(own), checked.params().nodes[own as usize].addr.clone())
}

fn cannot_bind(checked: &Checked, source: io::Error) -> OpenError {
    let (node, addr) = own_address(checked);
    match source.kind() {
        io::ErrorKind::AddrInUse => OpenError::AddrInUse { node, addr },
        _ => OpenError::Bind { node, addr, source },
    }
}

fn rejected(checked: &Checked, node: NodeId, reason: RejectReason) -> OpenError {
    let addr = checked.params().nodes[node.0 as usize].addr.clone();
    OpenError::Rejected { node, addr, reason }
}

fn not_ready(checked: &Checked, runtime: &Runtime, waited_ms: u64) -> OpenError {
    if let Some((node, reason)) = runtime.refusals().into_iter().next() {
        return rejected(checked, node, reason);
    }
    let waiting = |(node, why): (NodeId, String)| WaitingFor {
        node,
        addr: checked.params().nodes[node.0 as usize].addr.clone(),
        why,
    };
    let waiting_for = runtime.status().waiting_for.into_iter().map(waiting).collect();
    OpenError::Timeout { waited_ms, waiting_for }
}
