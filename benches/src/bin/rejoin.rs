//! Coming back: how long a node takes that missed much, and what its coming back costs the others.
//!
//! Three databases in this process, connected over loopback TCP. One node is lost and opened
//! again, so that it needs the whole state, or cut off behind a wire and connected again, so that
//! it needs the log. While a node many records behind catches up, one client of the leader commits
//! at about half of what it could, and its latencies are compared with those just before.
//!
//! All nodes, the client and the wire share the machine's processors, which real nodes do not: on
//! a machine with few of them the cost to the client is mostly that of the joining node's work.
//!
//! `rejoin [--quick]`: fewer records, to see that it works.
#![allow(clippy::print_stdout, reason = "a command talks to its user")]

use std::error::Error;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use quorate::{
    ClusterNodeParams, ClusterParams, Connection, Database, Dictionary, Isolation, ListenerHandle,
    Options, Value,
};

const SCHEMA: &str = "
    declare database rejoin;
    class Item { unsigned<8> number; signed<8> amount; unique tree<number> by_number; };
";

type AnyError = Box<dyn Error + Send + Sync>;

/// How much is measured.
#[derive(Clone, Copy)]
struct Effort {
    /// Records written while a node is away.
    missed: u64,
    /// Records a node is behind while a client commits.
    behind: u64,
    rounds: usize,
}

fn main() -> ExitCode {
    let effort = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => Effort { missed: 200_000, behind: 3_000_000, rounds: 5 },
        [flag] if flag == "--quick" => Effort { missed: 5_000, behind: 20_000, rounds: 1 },
        _ => {
            println!("usage: rejoin [--quick]");
            return ExitCode::from(2);
        }
    };
    let run = || {
        come_back(effort, Path::Image)?;
        come_back(effort, Path::Log)?;
        cost_to_others(effort)
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("rejoin: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What a node that comes back gets.
#[derive(Clone, Copy, PartialEq)]
enum Path {
    Image,
    Log,
}

/// How long a node takes from the first attempt to reach it until it has its rank again and all
/// that was written meanwhile.
fn come_back(effort: Effort, path: Path) -> Result<(), AnyError> {
    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..effort.rounds {
        let mut nodes = Nodes::open()?;
        let leader = nodes.leader()?;
        if path == Path::Image {
            nodes.lose(2)?;
        } else {
            nodes.wires.iter().for_each(Wire::cut);
        }
        write(&nodes.db(leader)?, 0..effort.missed, if path == Path::Image { 1_000 } else { 1 })?;
        let newest = nodes.db(leader)?.visible_index();
        nodes.wires.iter().for_each(Wire::heal);
        let start = Instant::now();
        if path == Path::Image {
            nodes.reopen(2)?;
        }
        let db = nodes.db(2)?;
        while db.visible_index() < newest || !db.cluster_status().is_some_and(|status| status.ready)
        {
            thread::sleep(Duration::from_micros(200));
        }
        times.push(start.elapsed());
        bytes = db.statistics().used_bytes;
        let images = db.cluster_status().map_or(0, |status| status.counters.images_installed);
        if images != u64::from(path == Path::Image) {
            return Err(format!("{images} images, which is not what was to be measured").into());
        }
        drop(db); // the last handle of a database ends its node
        nodes.close()?;
    }
    times.sort_unstable();
    let way = if path == Path::Image { "by image" } else { "by the log" };
    println!(
        "{} missed records, {way}: {:.0} ms  ({:.0} to {:.0}); they are {:.1} MB",
        effort.missed,
        ms(times[times.len() / 2]),
        ms(times[0]),
        ms(times[times.len() - 1]),
        bytes as f64 / 1e6,
    );
    Ok(())
}

/// Latencies of a client at half load, without and with a node that catches up.
fn cost_to_others(effort: Effort) -> Result<(), AnyError> {
    let mut nodes = Nodes::open()?;
    let leader = nodes.leader()?;
    nodes.lose(2)?;
    let db = nodes.db(leader)?;
    write(&db, 0..effort.behind, 2_000)?;
    let mut con = db.connect()?;
    let full = latencies(&mut con, Duration::ZERO, 500, || false);
    let pause = median(&full); // as long idle as busy
    let mut ratios = Vec::new();
    for _ in 0..effort.rounds {
        let alone = median(&latencies(&mut con, pause, 2_000, || false));
        let done = AtomicBool::new(false);
        let (joined, beside) = thread::scope(|scope| {
            let joiner = scope.spawn(|| {
                let start = Instant::now();
                let opened = nodes.reopen(2);
                done.store(true, Ordering::SeqCst);
                opened.map(|()| start.elapsed())
            });
            let beside = latencies(&mut con, pause, usize::MAX, || done.load(Ordering::SeqCst));
            (joiner.join(), beside)
        });
        let joined = joined.map_err(|_| "a thread panicked")??;
        nodes.lose(2)?;
        let after = median(&latencies(&mut con, pause, 2_000, || false));
        let quiet = (alone + after) / 2;
        let ratio = median(&beside).as_secs_f64() / quiet.as_secs_f64();
        println!(
            "  p50 {:.0} us alone, {:.0} us beside a joiner ({} commits in {:.1} s): x{ratio:.2}",
            us(quiet),
            us(median(&beside)),
            beside.len(),
            joined.as_secs_f64(),
        );
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "a joiner {} records behind makes commits at half load take x{:.2} at the median",
        effort.behind,
        ratios[ratios.len() / 2]
    );
    drop((con, db));
    nodes.close()
}

/// Commits one after another with pauses between, and how long each took.
fn latencies(
    con: &mut Connection,
    pause: Duration,
    most: usize,
    is_over: impl Fn() -> bool,
) -> Vec<Duration> {
    let mut taken = Vec::new();
    while taken.len() < most && (taken.is_empty() || !is_over()) {
        let start = Instant::now();
        let number = Value::Unsigned(taken.len() as u64 % 1_000);
        con.transact(Isolation::Snapshot, |tx| {
            if let Some((item, _)) =
                tx.find_record("Item", "by_number", std::slice::from_ref(&number))?
            {
                tx.update_fields(item, &[("amount", Value::Signed(1))])?;
            }
            Ok(())
        })
        .expect("two of three nodes are there");
        taken.push(start.elapsed());
        let until = Instant::now() + pause;
        while Instant::now() < until {
            thread::yield_now();
        }
    }
    taken
}

/// Inserts records, so many in a transaction, by several clients.
fn write(db: &Database, numbers: std::ops::Range<u64>, batch: u64) -> Result<(), AnyError> {
    const CLIENTS: u64 = 8;
    thread::scope(|scope| {
        let client = |client: u64| {
            let numbers = numbers.clone();
            move || -> Result<(), AnyError> {
                let mut con = db.connect()?;
                let mut first = numbers.start + client * batch;
                while first < numbers.end {
                    con.transact(Isolation::Snapshot, |tx| {
                        for number in first..(first + batch).min(numbers.end) {
                            let number = ("number", Value::Unsigned(number));
                            tx.insert_values("Item", &[number, ("amount", Value::Signed(0))])?;
                        }
                        Ok(())
                    })?;
                    first += CLIENTS * batch;
                }
                Ok(())
            }
        };
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(client(number))).collect();
        clients.into_iter().try_for_each(|c| c.join().map_err(|_| "a thread panicked")?)
    })
}

/// Three nodes; node 2 reaches the others through wires.
struct Nodes {
    lists: [Vec<String>; 2],
    running: Vec<Option<(Database, ListenerHandle)>>,
    wires: Vec<Wire>,
}

impl Nodes {
    fn open() -> Result<Self, AnyError> {
        let held = (0..3)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .collect::<Result<Vec<_>, _>>()?;
        let addresses = held
            .iter()
            .map(|listener| Ok(listener.local_addr()?.to_string()))
            .collect::<Result<Vec<_>, std::io::Error>>()?;
        drop(held);
        let wires = addresses[..2].iter().map(|a| Wire::to(a)).collect::<Result<Vec<_>, _>>()?;
        let mut seen_by_two: Vec<String> = wires.iter().map(|wire| wire.addr.clone()).collect();
        seen_by_two.push(addresses[2].clone());
        let lists = [addresses, seen_by_two];
        let opened = thread::scope(|scope| {
            let lists = &lists;
            let opening: Vec<_> = (0..3).map(|id| scope.spawn(move || open(lists, id))).collect();
            let opened = opening.into_iter().map(|o| o.join().map_err(|_| "a thread panicked")?);
            opened.collect::<Result<Vec<_>, AnyError>>()
        })?;
        Ok(Self { lists, running: opened.into_iter().map(Some).collect(), wires })
    }

    fn db(&self, id: usize) -> Result<Database, AnyError> {
        let node = self.running[id].as_ref().ok_or("the node is lost")?;
        Ok(node.0.clone())
    }

    /// Who leads, of the two that stay.
    fn leader(&self) -> Result<usize, AnyError> {
        let leader = self.db(0)?.cluster_status().and_then(|status| status.leader);
        Ok(leader.map_or(0, |leader| leader.0 as usize % 2))
    }

    fn lose(&mut self, id: usize) -> Result<(), AnyError> {
        let (db, listener) = self.running[id].take().ok_or("the node is lost already")?;
        drop(db);
        let _ = listener.join(); // it says that its database is gone
        Ok(())
    }

    fn reopen(&mut self, id: usize) -> Result<(), AnyError> {
        self.running[id] = Some(open(&self.lists, id as u32)?);
        Ok(())
    }

    fn close(mut self) -> Result<(), AnyError> {
        (0..3)
            .filter(|id| self.running[*id].is_some())
            .collect::<Vec<_>>()
            .into_iter()
            .try_for_each(|id| self.lose(id))
    }
}

fn open(lists: &[Vec<String>; 2], id: u32) -> Result<(Database, ListenerHandle), AnyError> {
    let nodes = lists[usize::from(id == 2)].iter().map(ClusterNodeParams::new).collect();
    let params = ClusterParams::new(id, nodes).with_connect(120_000, 20);
    // The limit on the log is not what is measured here.
    let params = params.with_log_keep(1 << 30);
    let roomy = quorate::DatabaseParams::default().with_segment_size_bytes(8 << 30);
    let options = Options::default().cluster(params).database(roomy);
    let database = Database::open("rejoin", Dictionary::parse(SCHEMA)?, options)?;
    let listener = database.spawn_listener()?;
    Ok((database, listener))
}

/// A wire that can be cut.
struct Wire {
    addr: String,
    state: Arc<Mutex<(bool, Vec<TcpStream>)>>,
}

impl Wire {
    fn to(target: &str) -> Result<Self, AnyError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?.to_string();
        let state = Arc::new(Mutex::new((true, Vec::new())));
        let (shared, target) = (Arc::clone(&state), target.to_string());
        thread::spawn(move || {
            for from in listener.incoming().map_while(Result::ok) {
                let Ok(to) = TcpStream::connect(&target) else { continue };
                // As nodes do: else it is the wire's waiting for more to carry that is measured.
                let _ = from.set_nodelay(true).and(to.set_nodelay(true));
                let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
                if !state.0 {
                    continue;
                }
                for (one, other) in [(&from, &to), (&to, &from)] {
                    let (Ok(one), Ok(other)) = (one.try_clone(), other.try_clone()) else { return };
                    thread::spawn(move || carry(one, other));
                }
                state.1.extend([from, to]);
            }
        });
        Ok(Self { addr, state })
    }

    fn cut(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = false;
        for stream in state.1.drain(..) {
            let _ = stream.shutdown(Shutdown::Both); // it may be closed already
        }
    }

    fn heal(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0 = true;
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = vec![0; 1 << 18];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
