//! What a conductor leaves behind: nothing, after the next one started, even if it was killed.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use quorate_faults::lab;

const PATIENCE: Duration = Duration::from_secs(60);

/// Namespaces of a conductor.
fn namespaces(conductor: &Child) -> Vec<String> {
    let prefix = format!("quorate-faults-{}-", conductor.id());
    let listed = fs::read_dir("/run/netns").map(Iterator::flatten).into_iter().flatten();
    let names = listed.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(&prefix)).collect()
}

/// Processes on the networks of these.
fn processes(namespaces: &[String]) -> Vec<PathBuf> {
    let pids = |name: &String| {
        let output = Command::new("ip").args(["netns", "pids", name]).output().expect("runs");
        String::from_utf8(output.stdout).expect("numbers")
    };
    let all: String = namespaces.iter().map(pids).collect();
    all.split_whitespace().map(|pid| PathBuf::from("/proc").join(pid)).collect()
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited too long: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_killed_conductor_takes_its_nodes_along_and_the_next_one_cleans_up() {
    if let Some(why) = lab::unavailable() {
        eprintln!("skipped: {why}");
        return;
    }
    let mut conductor = Command::new(env!("CARGO_BIN_EXE_quorate-faults"))
        .args(["run", "stop", "--nodes", "3"])
        .stdout(Stdio::null())
        .spawn()
        .expect("starts");
    // Three nodes, the hub and a spare place: all nodes run on theirs.
    wait_until("nodes", || {
        let there = namespaces(&conductor);
        there.len() == 5 && processes(&there).len() >= 3
    });
    let left = namespaces(&conductor);
    let nodes = processes(&left);
    // A stopped process must go as well.
    let stopped = nodes[0].file_name().expect("a number").to_owned();
    assert!(Command::new("kill").arg("-STOP").arg(stopped).status().expect("runs").success());
    conductor.kill().expect("is running");
    conductor.wait().expect("was killed");
    wait_until("the end of the nodes", || nodes.iter().all(|process| !process.exists()));
    // Asking builds a lab.
    assert_eq!(lab::unavailable(), None);
    assert_eq!(namespaces(&conductor), Vec::<String>::new());
}
