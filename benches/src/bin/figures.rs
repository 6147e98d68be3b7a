//! The basic figures: a point read, an update transaction, and a commit on three nodes.
//!
//! One thread, the 28 298 airports of the sample data, everything in memory. The peers are what a
//! program would use if it needed no transactions across records, no other nodes and no schema: a
//! persistent map behind an atomic pointer, and the standard library's map behind a lock. They do
//! less; they show what the rest costs. The three nodes are three databases in this process,
//! connected over loopback TCP; each node has its listener thread, as separate processes would.
//!
//! `figures [--quick]`: fewer and shorter rounds, to see that it works.
#![allow(clippy::print_stdout, reason = "a command talks to its user")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::error::Error;
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use imbl::OrdMap;
use quorate::{
    Access, ClusterNodeParams, ClusterParams, Connection, Database, Dictionary, Isolation, Options,
    Transaction, Value,
};
use quorate_benches::{Contestant, Effort, compare, describe};

const CSV: &[u8] = include_bytes!("../../../samples/data/airports.csv");

const SCHEMA: &str = "
    declare database figures;
    class Airport {
        string icao;
        string name;
        string country;
        double elevation;
        unique tree<icao> by_icao;
        unique hash<icao> by_icao_hash[30000];
    };
";

const NODES: u32 = 3;

/// How many records one loading transaction inserts.
const LOAD_BATCH: usize = 500;

/// One airport, as the peers keep it.
#[derive(Clone)]
struct Airport {
    icao: String,
    name: String,
    country: String,
    elevation: f64,
}

type AnyError = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    let quick = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--quick" => true,
        _ => {
            println!("usage: figures [--quick]");
            return ExitCode::from(2);
        }
    };
    let effort = if quick {
        Effort { rounds: 3, round: Duration::from_millis(10) }
    } else {
        Effort { rounds: 11, round: Duration::from_millis(300) }
    };
    match run(effort) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("figures: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(effort: Effort) -> Result<(), AnyError> {
    let airports = airports()?;
    println!("{} airports, {} rounds of about {:?}\n", airports.len(), effort.rounds, effort.round);
    let database = Database::open("figures", Dictionary::parse(SCHEMA)?, Options::default())?;
    load(&database, &airports)?;
    let peers = Peers::new(&airports);
    let order = shuffled(&airports);
    read(effort, &database, &peers, &order)?;
    update(effort, &database, &peers, &order)?;
    cluster(effort, &airports, &order)
}

/// The peers, loaded.
struct Peers {
    persistent: ArcSwap<OrdMap<String, Arc<Airport>>>,
    locked: RwLock<BTreeMap<String, Airport>>,
}

impl Peers {
    fn new(airports: &[Airport]) -> Self {
        let shared = airports.iter().map(|a| (a.icao.clone(), Arc::new(a.clone())));
        let owned = airports.iter().map(|a| (a.icao.clone(), a.clone()));
        Self {
            persistent: ArcSwap::from_pointee(shared.collect()),
            locked: RwLock::new(owned.collect()),
        }
    }
}

/// Reads one field of one record, in a read-only transaction of its own.
fn read(
    effort: Effort,
    database: &Database,
    peers: &Peers,
    order: &[String],
) -> Result<(), AnyError> {
    let mut connections = (database.connect()?, database.connect()?, database.connect()?);
    let long = connections.2.begin(Access::ReadOnly, Isolation::Snapshot)?;
    let [a, b, c, d, e] = [(); 5].map(|()| Keys::new(order));
    let figures = compare(
        effort,
        &mut [
            Contestant::new("quorate: begin, find by hash index", || {
                let transaction = begin(&mut connections.0, Access::ReadOnly);
                black_box(elevation(&transaction, "by_icao_hash", a.next()));
            }),
            Contestant::new("quorate: begin, find by tree index", || {
                let transaction = begin(&mut connections.1, Access::ReadOnly);
                black_box(elevation(&transaction, "by_icao", b.next()));
            }),
            Contestant::new("quorate: find by hash index, open transaction", || {
                black_box(elevation(&long, "by_icao_hash", c.next()));
            }),
            Contestant::new("imbl::OrdMap behind arc-swap", || {
                black_box(peers.persistent.load().get(d.next()).map(|a| a.elevation));
            }),
            Contestant::new("std BTreeMap behind RwLock", || {
                let map = peers.locked.read().unwrap_or_else(PoisonError::into_inner);
                black_box(map.get(e.next()).map(|a| a.elevation));
            }),
        ],
    );
    println!("{}", describe("point read: one field of one of 28 298 records", &figures));
    Ok(())
}

/// Changes one field of one record, in a transaction of its own.
fn update(
    effort: Effort,
    database: &Database,
    peers: &Peers,
    order: &[String],
) -> Result<(), AnyError> {
    let mut connections = (database.connect()?, database.connect()?);
    let [a, b, c, d] = [(); 4].map(|()| Keys::new(order));
    let figures = compare(
        effort,
        &mut [
            Contestant::new("quorate: snapshot isolation", || {
                change(&mut connections.0, Isolation::Snapshot, a.next(), a.value());
            }),
            Contestant::new("quorate: serializable", || {
                change(&mut connections.1, Isolation::Serializable, b.next(), b.value());
            }),
            Contestant::new("imbl::OrdMap, copied and swapped", || {
                let mut map = OrdMap::clone(&peers.persistent.load());
                let key = c.next();
                if let Some(airport) = map.get(key) {
                    let changed = Airport { elevation: c.value(), ..Airport::clone(airport) };
                    map.insert(key.clone(), Arc::new(changed));
                }
                peers.persistent.store(Arc::new(map));
            }),
            Contestant::new("std BTreeMap behind RwLock, in place", || {
                let mut map = peers.locked.write().unwrap_or_else(PoisonError::into_inner);
                if let Some(airport) = map.get_mut(d.next()) {
                    airport.elevation = d.value();
                }
            }),
        ],
    );
    println!("{}", describe("update transaction: find, change, commit, visible", &figures));
    Ok(())
}

/// Commits on three nodes: held by a quorum, and visible on the node it comes from.
fn cluster(effort: Effort, airports: &[Airport], order: &[String]) -> Result<(), AnyError> {
    let databases = open_cluster()?;
    let listeners =
        databases.iter().map(Database::spawn_listener).collect::<Result<Vec<_>, _>>()?;
    load(&databases[0], airports)?;
    let leader =
        databases[0].cluster_status().and_then(|status| status.leader).map_or(0, |node| node.0);
    let follower = (leader + 1) % NODES;
    let mut at_leader = databases[leader as usize].connect()?;
    let mut at_follower = databases[follower as usize].connect()?;
    let [a, b] = [(); 2].map(|()| Keys::new(order));
    let figures = compare(
        effort,
        &mut [
            Contestant::new("quorate: from the leader's node", || {
                change(&mut at_leader, Isolation::Snapshot, a.next(), a.value());
            }),
            Contestant::new("quorate: from a follower's node", || {
                change(&mut at_follower, Isolation::Snapshot, b.next(), b.value());
            }),
        ],
    );
    println!("{}", describe("3-node commit: one client, 3 nodes in one process, TCP", &figures));
    drop((at_leader, at_follower));
    thread::scope(|scope| {
        let stopping: Vec<_> = databases
            .iter()
            .map(|database| {
                scope.spawn(|| -> Result<(), AnyError> { Ok(database.connect()?.stop()?) })
            })
            .collect();
        stopping.into_iter().try_for_each(|s| s.join().map_err(|_| "a thread panicked")?)
    })?;
    listeners.into_iter().try_for_each(|listener| listener.join().map_err(AnyError::from))
}

fn open_cluster() -> Result<Vec<Database>, AnyError> {
    let held = (0..NODES)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<Result<Vec<_>, _>>()?;
    let addresses =
        held.iter().map(TcpListener::local_addr).collect::<Result<Vec<SocketAddr>, _>>()?;
    drop(held);
    thread::scope(|scope| {
        let open = |node| {
            let nodes = addresses.iter().map(|a| ClusterNodeParams::new(a.to_string())).collect();
            let options = Options::default().cluster(ClusterParams::new(node, nodes));
            move || -> Result<Database, AnyError> {
                Ok(Database::open("figures", Dictionary::parse(SCHEMA)?, options)?)
            }
        };
        let opening: Vec<_> = (0..NODES).map(|node| scope.spawn(open(node))).collect();
        opening.into_iter().map(|o| o.join().map_err(|_| "a thread panicked")?).collect()
    })
}

fn begin(connection: &mut Connection, access: Access) -> Transaction<'_> {
    connection.begin(access, Isolation::Snapshot).expect("the database is open")
}

fn elevation(transaction: &Transaction<'_>, index: &str, icao: &str) -> Option<Value> {
    let key = [Value::Text(icao.to_owned())];
    let found = transaction.find_record("Airport", index, &key).expect("the names are right");
    found.map(|(_, record)| record.value("elevation").expect("the name is right"))
}

fn change(connection: &mut Connection, isolation: Isolation, icao: &str, elevation: f64) {
    let key = [Value::Text(icao.to_owned())];
    connection
        .transact(isolation, |transaction| {
            if let Some((airport, _)) = transaction.find_record("Airport", "by_icao_hash", &key)? {
                transaction.update_fields(airport, &[("elevation", Value::Double(elevation))])?;
            }
            Ok(())
        })
        .expect("nobody else writes");
}

fn load(database: &Database, airports: &[Airport]) -> Result<(), AnyError> {
    for batch in airports.chunks(LOAD_BATCH) {
        database.transact(Isolation::Snapshot, |transaction| {
            for airport in batch {
                let values = [
                    ("icao", Value::Text(airport.icao.clone())),
                    ("name", Value::Text(airport.name.clone())),
                    ("country", Value::Text(airport.country.clone())),
                    ("elevation", Value::Double(airport.elevation)),
                ];
                transaction.insert_values("Airport", &values)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn airports() -> Result<Vec<Airport>, AnyError> {
    let mut reader = csv::Reader::from_reader(CSV);
    let records = reader.records().map(|row| {
        let row = row?;
        let field = |at: usize| row[at].to_owned();
        let (icao, name, country) = (field(0), field(2), field(5));
        Ok(Airport { icao, name, country, elevation: row[6].parse()? })
    });
    records.collect()
}

/// The keys in an order that no cache foresees, the same in every run.
fn shuffled(airports: &[Airport]) -> Vec<String> {
    let mut keys: Vec<String> = airports.iter().map(|airport| airport.icao.clone()).collect();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for i in (1..keys.len()).rev() {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        keys.swap(i, (state >> 33) as usize % (i + 1));
    }
    keys
}

/// The keys over and over, and a value that changes with each.
struct Keys<'a> {
    keys: &'a [String],
    at: Cell<usize>,
}

impl<'a> Keys<'a> {
    fn new(keys: &'a [String]) -> Self {
        Self { keys, at: Cell::new(0) }
    }

    fn next(&self) -> &'a String {
        let at = self.at.get();
        self.at.set(at + 1);
        &self.keys[at % self.keys.len()]
    }

    fn value(&self) -> f64 {
        self.at.get() as f64
    }
}
