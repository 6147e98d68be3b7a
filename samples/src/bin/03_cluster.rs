//! One database on several nodes. Run it in as many terminals as there are nodes:
//!
//! ```text
//! cargo run --release -p quorate-samples --bin 03_cluster -- 2 0
//! cargo run --release -p quorate-samples --bin 03_cluster -- 2 1
//! ```
//!
//! Shows: opening as part of a cluster, listening, writing on every node and reading everything on
//! each, and the orderly end. A third argument is the port of node 0 (the default is 7700).
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a sample talks to its reader")]

use std::error::Error;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use quorate::{
    Access, ClusterNodeParams, ClusterParams, Database, Dictionary, Isolation, Options, Value,
};

const SCHEMA: &str = "
    declare database greetings;
    class Greeting {
        unsigned<4> node;
        string text;
        unique tree<node> by_node;
    };
";

fn main() -> ExitCode {
    let arguments: Result<Vec<u32>, _> = std::env::args().skip(1).map(|a| a.parse()).collect();
    let result = match arguments.as_deref() {
        Ok(&[nodes, node]) => run(nodes, node, 7700),
        Ok(&[nodes, node, first_port]) => run(nodes, node, first_port),
        _ => Err("usage: 03_cluster <n_nodes> <node_id> [port of node 0]".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("03_cluster: {error}"); // says what happened and what to do
            ExitCode::FAILURE
        }
    }
}

fn run(nodes: u32, node: u32, first_port: u32) -> Result<(), Box<dyn Error>> {
    let addresses = (0..nodes)
        .map(|n| ClusterNodeParams::new(format!("127.0.0.1:{}", first_port.saturating_add(n))));
    let params = ClusterParams::new(node, addresses.collect()).with_connect(30_000, 100);

    // Open waits: a cluster forms when all its nodes are there, and takes back who was away later.
    println!("node {node} of {nodes} waits for the others, for at most 30 seconds");
    let database = Database::open(
        "greetings",
        Dictionary::parse(SCHEMA)?,
        Options::default().cluster(params),
    )?;
    let listener = database.spawn_listener()?;
    println!("node {node} is a member of the cluster");

    // Work as on a single node. The commit returns when a quorum holds it and it is visible here.
    let mut connection = database.connect()?;
    connection.transact(Isolation::Snapshot, |transaction| {
        let text = format!("hello from node {node}");
        transaction.insert_values("Greeting", &[("node", node.into()), ("text", text.into())])?;
        Ok(())
    })?;

    // What the others commit arrives by itself.
    let greetings = loop {
        let transaction = connection.begin(Access::ReadOnly, Isolation::Snapshot)?;
        let texts = transaction.cursor("Greeting", "by_node")?.rows();
        let texts =
            texts.map(|(_, greeting)| greeting.value("text")).collect::<Result<Vec<Value>, _>>()?;
        if texts.len() == nodes as usize {
            break texts;
        }
        drop(transaction);
        sleep(Duration::from_millis(10));
    };
    for greeting in greetings {
        println!("node {node} reads {greeting:?}");
    }

    // Returns when every node that lives has called it, so nobody is left without a quorum.
    connection.stop()?;
    listener.join()?;
    println!("node {node} stopped");
    Ok(())
}
