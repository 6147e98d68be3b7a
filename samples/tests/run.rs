//! Runs every sample as its reader would, and checks what it shows.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a sample may take before it counts as hanging.
const LIMIT: Duration = Duration::from_secs(60);

/// A sample that runs; killed if the test fails.
struct Running {
    name: String,
    child: Option<Child>,
}

impl Running {
    fn start(program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("the sample is built by cargo");
        Self { name: format!("{program} {arguments:?}"), child: Some(child) }
    }

    /// What it printed, once it ended well.
    fn finish(mut self) -> String {
        let output = self.end();
        let stdout = String::from_utf8(output.stdout).expect("text");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: {}\n{stdout}\n{stderr}", self.name, output.status);
        assert_eq!(stderr, "", "{} complains", self.name);
        stdout
    }

    /// No sample prints more than a pipe holds, so it may be waited for before it is read.
    fn end(&mut self) -> Output {
        let start = Instant::now();
        let child = self.child.as_mut().expect("taken only below");
        while child.try_wait().expect("a child can be waited for").is_none() {
            assert!(start.elapsed() < LIMIT, "{} hangs", self.name);
            sleep(Duration::from_millis(10));
        }
        let child = self.child.take().expect("looked at above");
        child.wait_with_output().expect("it has ended")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The sample's output, checked to hold these lines (or parts of them) in this order.
fn expect(output: &str, parts: &[&str]) {
    let mut rest = output;
    for part in parts {
        let Some(at) = rest.find(part) else {
            panic!("`{part}` is missing, or comes too early, in:\n{output}");
        };
        rest = &rest[at + part.len()..];
    }
}

/// The first of `count` neighbouring ports that are free, below the range that the system gives
/// to outgoing connections.
fn free_ports(count: u16) -> u16 {
    let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), count);
    let mut first = 20_000 + (seed % 10_000) as u16;
    loop {
        let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if (first..first + count).all(free) {
            return first;
        }
        first = 20_000 + (first + count) % 10_000;
    }
}

#[test]
fn quickstart() {
    let output = Running::start(env!("CARGO_BIN_EXE_01_quickstart"), &[]).finish();
    expect(&output, &["6 airports", "index 1", "Kloten", "2 of them are in DE"]);
}

#[test]
fn typed_classes() {
    let output = Running::start(env!("CARGO_BIN_EXE_02_typed_classes"), &[]).finish();
    expect(
        &output,
        &["class Airport", "class Runway", "EDDM", "4000 m of Asphalt", "800 m of Grass"],
    );
}

#[test]
fn cluster() {
    for nodes in [1, 3] {
        let port = free_ports(nodes);
        let start = |node: u16| {
            let arguments = [nodes.to_string(), node.to_string(), port.to_string()];
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            Running::start(env!("CARGO_BIN_EXE_03_cluster"), &arguments)
        };
        let running: Vec<Running> = (0..nodes).map(start).collect();
        for (node, sample) in running.into_iter().enumerate() {
            let output = sample.finish();
            let mut parts = vec![format!("node {node} is a member")];
            parts.extend((0..nodes).map(|other| format!("hello from node {other}")));
            parts.push(format!("node {node} stopped"));
            expect(&output, &parts.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}

#[test]
fn cluster_explains_its_arguments() {
    let output = Running::start(env!("CARGO_BIN_EXE_03_cluster"), &["2"]).end();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("usage: 03_cluster"));
}

#[test]
fn callbacks() {
    let output = Running::start(env!("CARGO_BIN_EXE_04_callbacks"), &[]).finish();
    expect(&output, &["committed: all is well", "refused", "no quorum", "committed: back again"]);
}

#[test]
fn conflict_and_retry() {
    let output = Running::start(env!("CARGO_BIN_EXE_05_conflict_and_retry"), &[]).finish();
    expect(
        &output,
        &[
            "conflict: ",
            "1000 deposits of 1 made 1000",
            "Snapshot: both committed",
            "Serializable: the second was refused",
        ],
    );
}
