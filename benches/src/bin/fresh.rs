//! What a fresh read costs: beginning a transaction that reads what is here, one that is
//! linearizable at the leader, and one at a follower.
//!
//! Three databases in this process, connected over loopback TCP, each with its listener thread. One
//! reader at a time; rounds of the three kinds alternate, and medians over all are printed.
//!
//! `fresh [--quick]`: fewer rounds, to see that it works.
#![allow(clippy::print_stdout, reason = "a command talks to its user")]

use std::error::Error;
use std::net::{Ipv4Addr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use quorate::{
    Access, ClusterNodeParams, ClusterParams, Connection, Database, Dictionary, Freshness,
    Isolation, Options,
};

const SCHEMA: &str = "declare database fresh; class A { unsigned<4> x; list; };";

fn main() -> Result<(), Box<dyn Error>> {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let (rounds, reads) = if quick { (4, 50) } else { (40, 500) };
    let nodes = open()?;
    let status = nodes[0].cluster_status().ok_or("a cluster")?;
    let leader = status.leader.ok_or("a leader")?.0 as usize;
    let follower = (leader + 1) % nodes.len();
    let kinds = [
        ("local", follower, Freshness::Local),
        ("linearizable, at the leader", leader, Freshness::Linearizable),
        ("linearizable, at a follower", follower, Freshness::Linearizable),
    ];
    let mut times: [Vec<Duration>; 3] = Default::default();
    let mut connections: Vec<Connection> =
        nodes.iter().map(Database::connect).collect::<Result<_, _>>()?;
    for _ in 0..rounds {
        for ((_, node, freshness), times) in kinds.iter().zip(&mut times) {
            let connection = &mut connections[*node];
            for _ in 0..reads {
                let start = Instant::now();
                let tx =
                    connection.begin_fresh(Access::ReadOnly, Isolation::Snapshot, *freshness)?;
                times.push(start.elapsed());
                drop(tx);
            }
        }
    }
    for ((name, ..), times) in kinds.iter().zip(&mut times) {
        times.sort_unstable();
        let at = |share: usize| times[(times.len() - 1) * share / 100];
        println!("{name:28} p50 {:>9.1?}  p99 {:>9.1?}", at(50), at(99));
    }
    Ok(())
}

fn open() -> Result<Vec<Database>, Box<dyn Error>> {
    let listeners: Vec<TcpListener> =
        (0..3).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    let list = (listeners.iter())
        .map(|listener| Ok(ClusterNodeParams::new(listener.local_addr()?.to_string())))
        .collect::<Result<Vec<_>, std::io::Error>>()?;
    drop(listeners);
    let openers: Vec<_> = (0..3)
        .map(|id| {
            let params = ClusterParams::new(id, list.clone());
            thread::spawn(move || {
                let dictionary = Dictionary::parse(SCHEMA).map_err(|error| error.to_string())?;
                let options = Options::default().cluster(params);
                let db = Database::open("fresh", dictionary, options);
                let db = db.map_err(|error| error.to_string())?;
                db.spawn_listener().map_err(|error| error.to_string())?;
                Ok::<Database, String>(db)
            })
        })
        .collect();
    let joined = openers.into_iter().map(|opener| opener.join().map_err(|_| "an opener panicked"));
    Ok(joined.collect::<Result<Vec<_>, _>>()?.into_iter().collect::<Result<_, _>>()?)
}
