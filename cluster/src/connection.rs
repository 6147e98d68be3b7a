//! A connection: one thread's way to work with a database, and to take its node through its life.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::database::Node;
use crate::error::ClusterError;

/// A connection to a [`Database`](crate::Database). Transactions are begun on it as on the
/// [engine's](quorate_engine::Connection).
#[derive(Debug)]
pub struct Connection {
    engine: quorate_engine::Connection,
    node: Option<Arc<Node>>,
}

impl Connection {
    pub(crate) fn new(engine: quorate_engine::Connection, node: Option<Arc<Node>>) -> Self {
        Self { engine, node }
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
