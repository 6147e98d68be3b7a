//! What a node must be told to take part in a cluster, and the one place where it is checked.
//!
//! Only parameters that do something are here. Nothing here opens a socket.

use std::sync::Arc;

use quorate_consensus::NodeId;

use crate::address::Address;
use crate::error::ParamsError;
use crate::event::{NodeInfo, NotifyCallback, QuorumCallback};
use crate::replica::ClusterEvent;

/// The most nodes a cluster can list.
pub const NODES_MAX: usize = 32;

/// The greatest sum of ranks.
pub const RANK_TOTAL_MAX: u64 = u32::MAX as u64;

/// The longest time any parameter can name: one day, so that sums of times cannot overflow.
const TIME_MS_MAX: u64 = 86_400_000;

/// The greatest size of a buffer: one gibibyte.
const BUFFER_BYTES_MAX: u64 = 1 << 30;

/// The greatest window: with the greatest transaction on top it still fits a frame.
const WINDOW_BYTES_MAX: u64 = 16 << 20;

/// One node of the list that all nodes of a cluster share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNodeParams {
    /// Where the node listens: `host:port`, `[ipv6]:port` or `unix:/path`.
    pub addr: String,
    /// Its weight in quorums, default 1. 0 makes a node that holds the data and may run
    /// transactions but has no vote.
    pub qrank: u32,
}

impl ClusterNodeParams {
    /// A node of rank 1.
    pub fn new(addr: impl Into<String>) -> Self {
        Self { addr: addr.into(), qrank: 1 }
    }

    /// The same node with another rank.
    pub fn with_qrank(mut self, qrank: u32) -> Self {
        self.qrank = qrank;
        self
    }
}

/// How a node takes part in a cluster. Checked by `Database::open`, or ahead of it by
/// [`ClusterParams::validate`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClusterParams {
    /// This node: its position in `nodes`, from 0.
    pub node_id: u32,
    /// Every node of the cluster, this one included; the same list on all of them.
    pub nodes: Vec<ClusterNodeParams>,
    /// How long open waits for the cluster, milliseconds; default 5000.
    pub connect_timeout_ms: u64,
    /// The longest pause between attempts to reach a node, milliseconds; default 200. The first
    /// attempts after a broken connection follow faster.
    pub connect_interval_ms: u64,
    /// Size of the operating system's send buffer per connection, bytes; default: its choice.
    pub socket_send_buf_bytes: Option<u64>,
    /// Size of the operating system's receive buffer per connection, bytes; default: its choice.
    pub socket_recv_buf_bytes: Option<u64>,
    /// After how much idle time TCP asks whether the peer is there, seconds; default 10.
    pub keep_alive_time_s: u64,
    /// How many such questions may go unanswered; default 3.
    pub keep_alive_probes: u32,
    /// An open window closes at this many bytes; default 1 MiB.
    pub window_bytes: u64,
    /// An open window closes at this many transactions; default 4096.
    pub window_transactions: u32,
    /// How long a window stays open, milliseconds; default 0: it closes as soon as no other is on
    /// its way.
    pub window_timeout_ms: u64,
    /// How long silence of the leader is tolerated before an election, milliseconds; default 300.
    pub election_timeout_ms: u64,
    /// How often a leader says that it is there, milliseconds; default 50.
    pub heartbeat_ms: u64,
    /// How long a commit waits for its outcome before it is in doubt, milliseconds; default 5000.
    pub commit_limit_ms: u64,
    /// How long `stop()` tries to reach a quorum, milliseconds; default 30 000.
    pub stop_limit_ms: u64,
    /// While others stop, a member silent for this long counts as gone, milliseconds; default 3000.
    pub departed_after_ms: u64,
    /// About how large a piece of the state is when it is sent to a joining node, bytes; default
    /// 256 KiB. A piece holds one object at least, however large. A commit waits for one piece at
    /// most; 16 are under way at most, and no more than eight times this size.
    pub sync_msg_size_bytes: u64,
    /// How many objects a piece of the state holds at most; default 1024.
    pub sync_msg_objects: u32,
    /// How many bytes of state a leader sends in a second, to all joining nodes together; default
    /// 0: as many as it can, and while transactions commit a piece every other millisecond.
    pub sync_rate_bytes_per_s: u64,
    /// How much may wait to be sent on one connection, bytes; default 64 MiB. A peer that falls
    /// further behind is disconnected and catches up when it is back; nobody else notices.
    pub cluster_send_buf_bytes: u64,
    /// How much is read from one connection before the others get their turn, bytes; default
    /// 256 KiB.
    pub cluster_recv_buf_bytes: u64,
    /// How much of the log is kept for nodes that were away, bytes; default 64 MiB. Who needs more
    /// receives the whole state; until it has caught up behind that, as much log as the state is
    /// long is kept for it, or twice this, and the double each time if that was not enough, up to
    /// the sixteenfold. For a node that is connected four full windows (`window_bytes`) are kept
    /// at least.
    pub log_keep_bytes: u64,
    /// Share of the database's connections that may have a commit under way at once, percent;
    /// default 50. The others wait.
    pub conn_pool_factor: u32,
    /// Allows plain TCP beyond loopback; default false.
    pub insecure: bool,
    /// Called with every [`ClusterEvent`]; default none.
    pub notify_callback: Option<NotifyCallback>,
    /// Asked when the set of connected nodes changes; default none, which never vetoes.
    pub quorum_callback: Option<QuorumCallback>,
    /// After how long without an answer of the quorum callback a warning is traced, milliseconds;
    /// default 1000. The previous verdict stands until an answer to the newest question is there.
    pub quorum_callback_limit_ms: u64,
}

impl ClusterParams {
    /// Parameters with all defaults: this node's position in the list, and the list.
    pub fn new(node_id: u32, nodes: Vec<ClusterNodeParams>) -> Self {
        Self {
            node_id,
            nodes,
            connect_timeout_ms: 5_000,
            connect_interval_ms: 200,
            socket_send_buf_bytes: None,
            socket_recv_buf_bytes: None,
            keep_alive_time_s: 10,
            keep_alive_probes: 3,
            window_bytes: 1 << 20,
            window_transactions: 4_096,
            window_timeout_ms: 0,
            election_timeout_ms: 300,
            heartbeat_ms: 50,
            commit_limit_ms: 5_000,
            stop_limit_ms: 30_000,
            departed_after_ms: 3_000,
            sync_msg_size_bytes: 256 << 10,
            sync_msg_objects: 1_024,
            sync_rate_bytes_per_s: 0,
            cluster_send_buf_bytes: 64 << 20,
            cluster_recv_buf_bytes: 256 << 10,
            log_keep_bytes: 64 << 20,
            conn_pool_factor: 50,
            insecure: false,
            notify_callback: None,
            quorum_callback: None,
            quorum_callback_limit_ms: 1_000,
        }
    }

    /// How long open waits, and the longest pause between attempts, milliseconds.
    pub fn with_connect(mut self, timeout_ms: u64, interval_ms: u64) -> Self {
        self.connect_timeout_ms = timeout_ms;
        self.connect_interval_ms = interval_ms;
        self
    }

    /// The operating system's buffers per connection, bytes.
    pub fn with_socket_buffers(mut self, send_bytes: u64, recv_bytes: u64) -> Self {
        self.socket_send_buf_bytes = Some(send_bytes);
        self.socket_recv_buf_bytes = Some(recv_bytes);
        self
    }

    /// TCP's own questions on idle connections: after how many seconds, and how many.
    pub fn with_keep_alive(mut self, time_s: u64, probes: u32) -> Self {
        self.keep_alive_time_s = time_s;
        self.keep_alive_probes = probes;
        self
    }

    /// When an open window closes: bytes, transactions, milliseconds (0: when none is under way).
    pub fn with_window(mut self, bytes: u64, transactions: u32, timeout_ms: u64) -> Self {
        self.window_bytes = bytes;
        self.window_transactions = transactions;
        self.window_timeout_ms = timeout_ms;
        self
    }

    /// The silence that starts an election and the interval of heartbeats, milliseconds.
    pub fn with_election(mut self, election_timeout_ms: u64, heartbeat_ms: u64) -> Self {
        self.election_timeout_ms = election_timeout_ms;
        self.heartbeat_ms = heartbeat_ms;
        self
    }

    /// How long a commit waits for its outcome, milliseconds.
    pub fn with_commit_limit(mut self, limit_ms: u64) -> Self {
        self.commit_limit_ms = limit_ms;
        self
    }

    /// How long `stop()` tries, and after which silence it counts a member as gone, milliseconds.
    pub fn with_stop(mut self, limit_ms: u64, departed_after_ms: u64) -> Self {
        self.stop_limit_ms = limit_ms;
        self.departed_after_ms = departed_after_ms;
        self
    }

    /// Size of a piece of the state on its way to a joining node, bytes.
    pub fn with_sync_msg_size(mut self, bytes: u64) -> Self {
        self.sync_msg_size_bytes = bytes;
        self
    }

    /// How many objects a piece of the state holds at most.
    pub fn with_sync_msg_objects(mut self, objects: u32) -> Self {
        self.sync_msg_objects = objects;
        self
    }

    /// How many bytes of state are sent in a second; 0 for as many as commits allow.
    pub fn with_sync_rate(mut self, bytes_per_s: u64) -> Self {
        self.sync_rate_bytes_per_s = bytes_per_s;
        self
    }

    /// What may wait to be sent, and what is read in one turn, per connection, bytes.
    pub fn with_cluster_buffers(mut self, send_bytes: u64, recv_bytes: u64) -> Self {
        self.cluster_send_buf_bytes = send_bytes;
        self.cluster_recv_buf_bytes = recv_bytes;
        self
    }

    /// How much of the log is kept for nodes that were away, bytes.
    pub fn with_log_keep(mut self, bytes: u64) -> Self {
        self.log_keep_bytes = bytes;
        self
    }

    /// Share of the database's connections that may have a commit under way at once, percent.
    pub fn with_conn_pool_factor(mut self, percent: u32) -> Self {
        self.conn_pool_factor = percent;
        self
    }

    /// Allows, or forbids, plain TCP beyond loopback.
    pub fn with_insecure(mut self, insecure: bool) -> Self {
        self.insecure = insecure;
        self
    }

    /// Calls `callback` with every event; see [`NotifyCallback`].
    pub fn with_notify<F>(mut self, callback: F) -> Self
    where
        F: Fn(&ClusterEvent, &NodeInfo) + Send + Sync + 'static,
    {
        self.notify_callback = Some(NotifyCallback(Arc::new(callback)));
        self
    }

    /// Asks `callback` whether this node may take part in commits; see [`QuorumCallback`].
    pub fn with_quorum_callback<F>(mut self, limit_ms: u64, callback: F) -> Self
    where
        F: Fn(&[NodeInfo]) -> bool + Send + Sync + 'static,
    {
        self.quorum_callback = Some(QuorumCallback(Arc::new(callback)));
        self.quorum_callback_limit_ms = limit_ms;
        self
    }

    /// Checks everything that can be checked without the network.
    ///
    /// # Errors
    ///
    /// [`ParamsError`] names the first field that is wrong, and its value.
    pub fn validate(&self) -> Result<Checked, ParamsError> {
        self.check_list()?;
        let addresses = self.check_addresses()?;
        self.check_ranks()?;
        self.check_times()?;
        self.check_sizes()?;
        Ok(Checked { params: self.clone(), addresses })
    }

    fn check_list(&self) -> Result<(), ParamsError> {
        let nodes = self.nodes.len();
        if nodes == 0 {
            return Err(ParamsError::NoNodes);
        }
        if nodes > NODES_MAX {
            return Err(ParamsError::TooManyNodes { nodes, limit: NODES_MAX });
        }
        if self.node_id as usize >= nodes {
            return Err(ParamsError::NodeIdOutsideList { node_id: self.node_id, nodes });
        }
        Ok(())
    }

    fn check_addresses(&self) -> Result<Vec<Address>, ParamsError> {
        let mut addresses: Vec<Address> = Vec::with_capacity(self.nodes.len());
        for (node, entry) in (0..).map(NodeId).zip(&self.nodes) {
            let addr = entry.addr.clone();
            let address = match Address::parse(&addr) {
                Ok(address) => address,
                Err(why) => return Err(ParamsError::MalformedAddress { node, addr, why }),
            };
            if let Some(first) = addresses.iter().position(|other| other.is_same(&address)) {
                let first = NodeId(first as u32);
                return Err(ParamsError::DuplicateAddress { addr, first, second: node });
            }
            if !self.insecure && !address.is_local() {
                return Err(ParamsError::InsecureAddress { node, addr });
            }
            addresses.push(address);
        }
        Ok(addresses)
    }

    fn check_ranks(&self) -> Result<(), ParamsError> {
        let total: u64 = self.nodes.iter().map(|node| u64::from(node.qrank)).sum();
        match total {
            0 => Err(ParamsError::NoRank),
            1..=RANK_TOTAL_MAX => Ok(()),
            _ => Err(ParamsError::RankOverflow { total, limit: RANK_TOTAL_MAX }),
        }
    }

    fn check_times(&self) -> Result<(), ParamsError> {
        in_range("connect_timeout_ms", self.connect_timeout_ms, 1, TIME_MS_MAX)?;
        in_range("connect_interval_ms", self.connect_interval_ms, 1, TIME_MS_MAX)?;
        in_range("keep_alive_time_s", self.keep_alive_time_s, 1, TIME_MS_MAX / 1_000)?;
        in_range("keep_alive_probes", self.keep_alive_probes.into(), 1, 127)?;
        in_range("window_timeout_ms", self.window_timeout_ms, 0, 10_000)?;
        in_range("heartbeat_ms", self.heartbeat_ms, 1, TIME_MS_MAX)?;
        in_range("election_timeout_ms", self.election_timeout_ms, 1, TIME_MS_MAX)?;
        in_range("commit_limit_ms", self.commit_limit_ms, 1, TIME_MS_MAX)?;
        in_range("stop_limit_ms", self.stop_limit_ms, 1, TIME_MS_MAX)?;
        in_range("departed_after_ms", self.departed_after_ms, 1, TIME_MS_MAX)?;
        in_range("quorum_callback_limit_ms", self.quorum_callback_limit_ms, 1, TIME_MS_MAX)?;
        at_least(
            "election_timeout_ms",
            self.election_timeout_ms,
            2 * self.heartbeat_ms,
            "one lost heartbeat (heartbeat_ms) must not start an election",
        )?;
        at_least(
            "departed_after_ms",
            self.departed_after_ms,
            self.election_timeout_ms,
            "an election (election_timeout_ms) must not make a member count as gone",
        )
    }

    fn check_sizes(&self) -> Result<(), ParamsError> {
        if let Some(bytes) = self.socket_send_buf_bytes {
            in_range("socket_send_buf_bytes", bytes, 1_024, BUFFER_BYTES_MAX)?;
        }
        if let Some(bytes) = self.socket_recv_buf_bytes {
            in_range("socket_recv_buf_bytes", bytes, 1_024, BUFFER_BYTES_MAX)?;
        }
        in_range("window_bytes", self.window_bytes, 1, WINDOW_BYTES_MAX)?;
        in_range("window_transactions", self.window_transactions.into(), 1, 65_536)?;
        in_range("sync_msg_size_bytes", self.sync_msg_size_bytes, 1_024, 64 << 20)?;
        in_range("sync_msg_objects", self.sync_msg_objects.into(), 1, 1 << 24)?;
        in_range("sync_rate_bytes_per_s", self.sync_rate_bytes_per_s, 0, 1 << 40)?;
        in_range("cluster_send_buf_bytes", self.cluster_send_buf_bytes, 1 << 16, 1 << 32)?;
        in_range("cluster_recv_buf_bytes", self.cluster_recv_buf_bytes, 4_096, BUFFER_BYTES_MAX)?;
        in_range("log_keep_bytes", self.log_keep_bytes, 1, 1 << 40)?;
        in_range("conn_pool_factor", self.conn_pool_factor.into(), 1, 100)?;
        at_least(
            "cluster_send_buf_bytes",
            self.cluster_send_buf_bytes,
            8 * self.sync_msg_size_bytes.max(self.window_bytes),
            "it must hold a few windows (window_bytes) and pieces of state (sync_msg_size_bytes)",
        )
    }
}

/// Parameters that passed [`ClusterParams::validate`].
#[derive(Clone, Debug)]
pub struct Checked {
    params: ClusterParams,
    addresses: Vec<Address>,
}

impl Checked {
    /// The parameters.
    pub fn params(&self) -> &ClusterParams {
        &self.params
    }

    /// The node list as it is told to callbacks.
    pub fn nodes(&self) -> Vec<NodeInfo> {
        let info = |(node_id, node): (NodeId, &ClusterNodeParams)| NodeInfo {
            node_id,
            addr: node.addr.clone(),
            qrank: node.qrank,
        };
        (0..).map(NodeId).zip(&self.params.nodes).map(info).collect()
    }

    /// Addresses by node id.
    pub(crate) fn addresses(&self) -> &[Address] {
        &self.addresses
    }
}

fn in_range(field: &'static str, value: u64, min: u64, max: u64) -> Result<(), ParamsError> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(ParamsError::OutOfRange { field, value, min, max })
    }
}

fn at_least(
    field: &'static str,
    value: u64,
    min: u64,
    why: &'static str,
) -> Result<(), ParamsError> {
    if value >= min { Ok(()) } else { Err(ParamsError::Inconsistent { field, value, min, why }) }
}
