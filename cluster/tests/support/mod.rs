//! Clusters inside one test process: every node a database of its own, real sockets between them.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test uses its part of this

pub mod mini;
pub mod proxy;

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use quorate_cluster::{
    ClusterError, ClusterNodeParams, ClusterParams, Connection, Database, ListenerHandle,
    OpenError, Options,
};
use quorate_engine::{Access, CommitError, Error, Isolation};
use quorate_schema::{Dictionary, Value};

/// How long a test waits for what must happen before it calls it a failure. It bounds a broken
/// run; no test passes or fails by how fast something is.
const PATIENCE: Duration = Duration::from_secs(30);

/// A counter per name.
pub const DDL: &str = "declare database test;
class Counter {
    string name;
    signed<8> amount;
    unique tree<name> by_name;
    list;
};
class Picture { unsigned<4> number; blob bytes; unique hash<number> by_number; };
local class Note { string text; list; };";

pub fn dictionary() -> Dictionary {
    Dictionary::parse(DDL).unwrap()
}

/// Addresses that were free a moment ago, and that the system gives to nobody who wants just any:
/// neither to a proxy, nor as a connection's own end. Processes begin at different places.
pub fn free_addresses(count: usize) -> Vec<String> {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(64);
    let candidates = (0..20_000).map(|_| {
        let tried = TRIED.fetch_add(1, Ordering::Relaxed);
        format!("127.0.0.1:{}", 10_000 + begin.wrapping_add(tried) % 20_000)
    });
    let free = candidates.filter_map(|addr| TcpListener::bind(addr).ok());
    let listeners: Vec<TcpListener> = free.take(count).collect();
    assert_eq!(listeners.len(), count, "no port is free");
    listeners.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect()
}

pub fn node_list(addresses: &[String], ranks: &[u32]) -> Vec<ClusterNodeParams> {
    let node = |(addr, rank): (&String, &u32)| ClusterNodeParams::new(addr).with_qrank(*rank);
    addresses.iter().zip(ranks).map(node).collect()
}

/// One running node.
pub struct Node {
    pub id: u32,
    pub db: Database,
    pub listener: ListenerHandle,
}

/// How the nodes of a test are opened.
pub type Tweak = fn(ClusterParams) -> ClusterParams;

/// A cluster whose nodes can be killed and opened again.
pub struct Cluster {
    pub addresses: Vec<String>,
    pub ranks: Vec<u32>,
    pub nodes: Vec<Option<Node>>,
    tweak: Tweak,
}

pub fn params(addresses: &[String], ranks: &[u32], id: u32) -> ClusterParams {
    // Generous times: the machine that runs the tests may be busy.
    ClusterParams::new(id, node_list(addresses, ranks)).with_connect(20_000, 50)
}

pub fn open(params: ClusterParams) -> Result<Node, OpenError> {
    let id = params.node_id;
    let db = Database::open("test", dictionary(), Options::default().cluster(params))?;
    let listener = db.spawn_listener().unwrap();
    Ok(Node { id, db, listener })
}

impl Cluster {
    pub fn start(ranks: &[u32]) -> Self {
        Self::start_with(ranks, |params| params)
    }

    pub fn start_with(ranks: &[u32], tweak: Tweak) -> Self {
        let addresses = free_addresses(ranks.len());
        let mut cluster = Self {
            nodes: ranks.iter().map(|_| None).collect(),
            addresses,
            ranks: ranks.to_vec(),
            tweak,
        };
        let ids: Vec<u32> = (0..ranks.len() as u32).collect();
        cluster.open_all(&ids);
        cluster
    }

    /// Opens these nodes side by side.
    pub fn open_all(&mut self, ids: &[u32]) {
        let openers: Vec<_> = ids
            .iter()
            .map(|&id| {
                let params = (self.tweak)(params(&self.addresses, &self.ranks, id));
                thread::spawn(move || open(params))
            })
            .collect();
        for opener in openers {
            let node = opener.join().unwrap().unwrap();
            let place = node.id as usize;
            self.nodes[place] = Some(node);
        }
    }

    pub fn db(&self, id: u32) -> &Database {
        &self.nodes[id as usize].as_ref().unwrap().db
    }

    /// Ends a node without a word, as far as that goes inside one process.
    pub fn kill(&mut self, id: u32) {
        let Node { db, listener, .. } = self.nodes[id as usize].take().unwrap();
        drop(db);
        assert_eq!(listener.join(), Err(ClusterError::Ended));
    }

    pub fn live(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }

    /// Waits until all live nodes have applied the same, and checks that they hold the same.
    pub fn settle(&self) {
        let newest = self.live().map(|node| node.db.visible_index()).max().unwrap();
        for node in self.live() {
            eventually("a node applies what another has", || node.db.visible_index() >= newest);
        }
        let states: Vec<_> =
            self.live().map(|node| (node.db.visible_index(), node.db.state_hash())).collect();
        for (index, hash) in &states {
            if *index == states[0].0 {
                assert_eq!(*hash, states[0].1, "equal index, other state: {states:?}");
            }
        }
        for node in self.live() {
            node.db.check().unwrap();
        }
    }

    /// Every live node stops; all must return.
    pub fn stop(mut self) {
        let nodes: Vec<Node> = self.nodes.iter_mut().filter_map(Option::take).collect();
        let stoppers: Vec<_> = nodes
            .into_iter()
            .map(|node| {
                thread::spawn(move || {
                    let con = node.db.connect().unwrap();
                    (con.stop(), node.listener.join())
                })
            })
            .collect();
        for stopper in stoppers {
            assert_eq!(stopper.join().unwrap(), (Ok(()), Ok(())));
        }
    }
}

/// Waits until it is true.
pub fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Adds to a counter, making it if it is not there.
pub fn add(con: &mut Connection, name: &str, amount: i64) -> Result<(), Error> {
    con.transact(Isolation::Snapshot, |tx| {
        let key = [text(name)];
        match tx.find_record("Counter", "by_name", &key)? {
            Some((handle, record)) => {
                let Value::Signed(before) = record.value("amount")? else { panic!("an integer") };
                let after = Value::Signed(before + amount);
                tx.update_fields(handle, &[("amount", after)])
            }
            None => {
                let fields = [("name", text(name)), ("amount", Value::Signed(amount))];
                tx.insert_values("Counter", &fields).map(|_| ())
            }
        }
    })
}

/// Adds once, without running again after a conflict.
pub fn try_add(db: &Database, name: &str, amount: i64) -> Result<(), CommitError> {
    let mut con = db.connect().unwrap();
    let tx = con.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
    let fields = [("name", text(name)), ("amount", Value::Signed(amount))];
    tx.insert_values("Counter", &fields).unwrap();
    tx.commit().map(|_| ())
}

/// What a counter holds on this node.
pub fn amount(db: &Database, name: &str) -> Option<i64> {
    let mut con = db.connect().unwrap();
    let tx = con.begin(Access::ReadOnly, Isolation::Snapshot).unwrap();
    let found = tx.find_record("Counter", "by_name", &[text(name)]).unwrap();
    found.map(|(_, record)| match record.value("amount").unwrap() {
        Value::Signed(amount) => amount,
        other => panic!("an integer, not {other:?}"),
    })
}

fn text(text: &str) -> Value {
    Value::Text(text.to_string())
}
