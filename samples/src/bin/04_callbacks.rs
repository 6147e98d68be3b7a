//! What a node tells its program about the cluster, and how the program has a say in it.
//!
//! Shows: a notify callback that hears of every event, and a quorum callback that vetoes. Quorate
//! itself asks for more than half of the ranks. This program wants more: it writes only while all
//! three nodes are there. Three nodes in one process, so that one terminal is enough; in earnest
//! each is a process on a machine of its own.
#![allow(clippy::print_stdout, reason = "a sample talks to its reader")]

use std::error::Error;
use std::net::{Ipv4Addr, TcpListener};
use std::thread;
use std::time::Duration;

use quorate::{
    ClusterNodeParams, ClusterParams, CommitError, Database, Dictionary, Isolation, Options,
};

type AnyError = Box<dyn Error + Send + Sync>;

const SCHEMA: &str = "
    declare database callbacks;
    class Note {
        string text;
        tree<text> by_text;
    };
";

const NODES: u32 = 3;

fn main() -> Result<(), AnyError> {
    let addresses = free_addresses()?;
    let mut databases = thread::scope(|scope| {
        let open = |node| scope.spawn(move || open(node, addresses));
        let opening: Vec<_> = (0..NODES).map(open).collect();
        opening
            .into_iter()
            .map(|thread| thread.join().map_err(|_| "a thread panicked")?)
            .collect::<Result<Vec<Database>, AnyError>>()
    })?;
    write_until(&databases[0], "all is well", Wanted::Commit)?;

    // Node 2 leaves. The others still are a quorum, but the callback does not accept that.
    databases.pop().ok_or("there are three")?.connect()?.detach()?;
    write_until(&databases[0], "we are two", Wanted::Refusal)?;

    // It comes back, without its data: it receives the state of the others.
    databases.push(open(2, addresses)?);
    write_until(&databases[2], "back again", Wanted::Commit)?;

    thread::scope(|scope| {
        let stop = |database: Database| {
            scope.spawn(move || database.connect()?.stop().map_err(AnyError::from))
        };
        let stopping: Vec<_> = databases.into_iter().map(stop).collect();
        stopping.into_iter().try_for_each(|t| t.join().map_err(|_| "a thread panicked")?)
    })
}

/// Opens a node that prints what it hears and wants both others to be there.
fn open(node: u32, addresses: [u16; NODES as usize]) -> Result<Database, AnyError> {
    let nodes = addresses.map(|port| ClusterNodeParams::new(format!("127.0.0.1:{port}"))).to_vec();
    let params = ClusterParams::new(node, nodes)
        .with_connect(30_000, 50)
        .with_commit_limit(1_000)
        // Called on a thread of its own, in order; it may take its time.
        .with_notify(move |event, about| {
            println!("node {node}: {event:?} ({})", about.addr);
        })
        // Asked whenever the set of connected nodes changes. It can veto, never force.
        .with_quorum_callback(1_000, move |connected| connected.len() + 1 == NODES as usize);
    let dictionary = Dictionary::parse(SCHEMA)?;
    let database = Database::open("callbacks", dictionary, Options::default().cluster(params))?;
    database.spawn_listener()?;
    Ok(database)
}

/// How a write should end.
#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    Commit,
    Refusal,
}

/// Tries to write until it ends as wanted: news of a node's coming and going takes a moment.
fn write_until(database: &Database, text: &str, wanted: Wanted) -> Result<(), AnyError> {
    for _ in 0..500 {
        let result = database.transact(Isolation::Snapshot, |transaction| {
            transaction.insert_values("Note", &[("text", text.into())])?;
            Ok(())
        });
        match result {
            Ok(()) if wanted == Wanted::Commit => {
                println!("committed: {text}");
                return Ok(());
            }
            Err(quorate::Error::Commit(error @ CommitError::NoQuorum { .. }))
                if wanted == Wanted::Refusal =>
            {
                println!("refused: {text}: {error}");
                return Ok(());
            }
            Ok(()) | Err(quorate::Error::Commit(CommitError::NoQuorum { .. })) => {
                thread::sleep(Duration::from_millis(20));
            }
            // The veto came while this one was on its way: it may be committed later, or not. A
            // program to which that matters asks for the outcome of this id.
            Err(quorate::Error::Commit(CommitError::InDoubt(id))) => {
                println!("in doubt: {text}: {id}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(format!("`{text}` did not end as it should").into())
}

/// Three ports that nobody has now.
fn free_addresses() -> Result<[u16; NODES as usize], AnyError> {
    let bind = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let held = [0; NODES as usize].map(bind);
    let mut ports = [0; NODES as usize];
    for (port, listener) in ports.iter_mut().zip(held) {
        *port = listener?.local_addr()?.port();
    }
    Ok(ports)
}
