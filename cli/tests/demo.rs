//! The `quorate` command from outside: what it prints, how it ends, and that it leaves nothing
//! behind.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything here may take before it counts as hanging.
const LIMIT: Duration = Duration::from_secs(150);

const STEP: Duration = Duration::from_millis(20);

fn quorate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for variable in ["NODES", "SECONDS", "KILL", "JSON", "QUIET"] {
        command.env_remove(format!("QUORATE_DEMO_{variable}"));
    }
    command
}

fn output(arguments: &[&str]) -> Output {
    quorate(arguments).output().expect("the command runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs the demo and returns its JSON object, after the checks that hold for every run.
fn demo(arguments: &[&str]) -> Value {
    let output = output(&[&["demo", "--json"], arguments].concat());
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {}\n{stdout}\n{stderr}", output.status);
    assert_eq!(stderr, "", "with --json nothing else is printed");
    let summary: Value = serde_json::from_str(&stdout).expect("one JSON object");
    assert_eq!(summary["ok"], true);
    assert_eq!(summary["error"], Value::Null);
    let checks = summary["checks"].as_array().expect("checks");
    assert!(checks.len() >= 10 && checks.iter().all(|check| check["ok"] == true), "{checks:?}");
    summary
}

#[test]
fn three_nodes_lose_their_leader_and_hold_every_acknowledged_write() {
    let summary = demo(&["--seconds", "4"]);
    let nodes = summary["nodes"].as_array().expect("nodes");
    assert_eq!(nodes.len(), 3);
    for node in nodes {
        assert!(node["commits"].as_u64() > Some(0), "{node}");
        assert!(node["p99_us"].as_u64() >= node["p50_us"].as_u64(), "{node}");
        assert_eq!(node["state_hash"], summary["state_hash"]);
    }
    let restarted: Vec<&Value> = nodes.iter().filter(|node| node["restarted"] == true).collect();
    assert_eq!(restarted.len(), 1);
    let failover = &summary["failover"];
    assert_eq!(failover["killed_node"], restarted[0]["node"]);
    assert!(failover["gap_ms"].as_f64() > Some(0.0), "{failover}");
    assert!(failover["rejoin_ms"].as_f64() > Some(0.0), "{failover}");
    let loaded = failover["loaded_percent"].as_f64().expect("a number");
    assert!((30.0..100.0).contains(&loaded), "killed in mid-load, not at {loaded} %");
    assert!(summary["records"]["Airport"].as_u64() > Some(20_000), "{}", summary["records"]);
    assert!(summary["records"]["Posting"].as_u64() > Some(0), "{}", summary["records"]);
}

#[test]
fn whichever_node_is_killed_the_others_go_on() {
    let mut led = 0;
    for victim in ["0", "1", "2"] {
        let summary = demo(&["--seconds", "2", "--kill", victim]);
        let failover = &summary["failover"];
        assert_eq!(failover["killed_node"].to_string(), victim);
        assert!(failover["gap_ms"].as_f64() > Some(0.0), "{failover}");
        led += u32::from(failover["was_leader"] == true);
    }
    assert!(led < 3, "followers were killed too");
}

#[test]
fn one_and_two_nodes_say_why_nobody_is_killed() {
    for nodes in ["1", "2"] {
        let summary = demo(&["--nodes", nodes, "--seconds", "1"]);
        assert_eq!(summary["failover"], Value::Null);
        assert!(summary["failover_skipped"].as_str().is_some_and(|reason| !reason.is_empty()));
    }
}

#[test]
fn the_tables_are_for_people() {
    let output = output(&["demo", "--nodes", "1", "--seconds", "1", "--quiet"]);
    let stdout = text(&output.stdout);
    assert!(output.status.success(), "{stdout}");
    assert_eq!(text(&output.stderr), "", "quiet");
    assert!(stdout.contains("commits/s") && stdout.contains("checks held"), "{stdout}");
}

#[test]
fn flags_can_be_variables() {
    let mut command = quorate(&["demo"]);
    command.envs([("QUORATE_DEMO_NODES", "1"), ("QUORATE_DEMO_SECONDS", "1")]);
    command.envs([("QUORATE_DEMO_JSON", "1"), ("QUORATE_DEMO_QUIET", "no")]);
    let output = command.output().expect("runs");
    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(summary["nodes"].as_array().map(Vec::len), Some(1));
}

#[test]
fn wrong_arguments_are_refused_with_status_2() {
    let wrong: [&[&str]; 8] = [
        &["demo", "--kill", "3"],
        &["demo", "--nodes", "0"],
        &["demo", "--nodes", "8"],
        &["demo", "--seconds", "0"],
        &["demo", "--seconds", "-1"],
        &["demo", "--fast"],
        &["dmeo"],
        &[],
    ];
    for arguments in wrong {
        let output = output(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains("--help"), "{arguments:?}");
    }
}

#[test]
fn version_and_help_go_to_standard_output() {
    let version = output(&["--version"]);
    assert_eq!(text(&version.stdout), format!("quorate {}\n", env!("CARGO_PKG_VERSION")));
    for arguments in [&["--help"][..], &["demo", "--help"]] {
        let help = output(arguments);
        assert!(help.status.success());
        let help = text(&help.stdout);
        assert!(help.contains("demo") && !help.contains("internal-node"));
    }
}

#[cfg(target_os = "linux")]
mod endings {
    use super::*;

    /// A running demo, killed if the test fails, and its node processes.
    struct Running {
        demo: Child,
        nodes: Vec<u32>,
    }

    impl Running {
        fn start() -> Self {
            let demo = quorate(&["demo", "--seconds", "30", "--json"]).spawn().expect("runs");
            let mut running = Self { demo, nodes: Vec::new() };
            let start = Instant::now();
            while running.nodes.len() < 3 {
                assert!(start.elapsed() < LIMIT, "no nodes were started");
                sleep(STEP);
                running.nodes = children(running.demo.id());
            }
            sleep(Duration::from_secs(1)); // into whatever it does then
            running
        }

        fn wait(&mut self) -> ExitStatus {
            let start = Instant::now();
            loop {
                if let Some(status) = self.demo.try_wait().expect("a child can be waited for") {
                    return status;
                }
                assert!(start.elapsed() < LIMIT, "the demo hangs");
                sleep(STEP);
            }
        }

        /// What it printed, once it has ended.
        fn summary(&mut self) -> Value {
            let mut stdout = String::new();
            let pipe = self.demo.stdout.as_mut().expect("piped");
            pipe.read_to_string(&mut stdout).expect("text");
            serde_json::from_str(&stdout).expect("JSON to the end")
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.demo.kill();
            let _ = self.demo.wait();
        }
    }

    /// The processes whose parent this is.
    fn children(parent: u32) -> Vec<u32> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("Linux has it").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if fields_after_name(pid).is_some_and(|fields| fields[1] == parent.to_string()) {
                found.push(pid);
            }
        }
        found
    }

    /// State, parent and the rest of `/proc/<pid>/stat`.
    fn fields_after_name(pid: u32) -> Option<Vec<String>> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(") ")?;
        Some(fields.split(' ').map(str::to_owned).collect())
    }

    /// True while the process runs; one that nobody reaped yet does not.
    fn runs(pid: u32) -> bool {
        let same_program = std::fs::read_link(format!("/proc/{pid}/exe"))
            .is_ok_and(|exe| exe.starts_with(Path::new(env!("CARGO_BIN_EXE_quorate"))));
        same_program && fields_after_name(pid).is_some_and(|fields| fields[0] != "Z")
    }

    fn send(signal: &str, pid: u32) {
        let status = Command::new("kill").args([signal, &pid.to_string()]).status();
        assert!(status.expect("kill exists").success());
    }

    fn assert_all_end(nodes: &[u32]) {
        let start = Instant::now();
        while nodes.iter().any(|node| runs(*node)) {
            assert!(start.elapsed() < Duration::from_secs(20), "left behind: {nodes:?}");
            sleep(STEP);
        }
    }

    #[test]
    fn an_interrupt_ends_the_demo_and_all_its_nodes() {
        for signal in ["-INT", "-TERM"] {
            let mut running = Running::start();
            send(signal, running.demo.id());
            assert_eq!(running.wait().code(), Some(130));
            let left: Vec<&u32> = running.nodes.iter().filter(|node| runs(**node)).collect();
            assert!(left.is_empty(), "gone before the demo is, but {left:?} run");
            let summary = running.summary();
            assert_eq!(summary["error"], "interrupted");
            assert_eq!(summary["ok"], false);
        }
    }

    #[test]
    fn nodes_do_not_outlive_a_demo_that_was_killed() {
        let mut running = Running::start();
        running.demo.kill().expect("it runs");
        running.wait();
        assert_all_end(&running.nodes);
    }

    #[test]
    fn a_node_that_dies_fails_the_demo() {
        let mut running = Running::start();
        // Two at once, so that it is not the one that the demo itself is about to kill.
        send("-KILL", running.nodes[0]);
        send("-KILL", running.nodes[1]);
        assert_eq!(running.wait().code(), Some(1));
        let summary = running.summary();
        let error = summary["error"].as_str().expect("an error");
        assert!(error.contains("died unexpectedly") && error.contains("signal: 9"), "{error}");
        assert_all_end(&running.nodes);
    }
}
