//! `quorate status`, `member` and `recover` from outside: what they print, and how they end.
//!
//! The nodes run in this process, the commands in their own.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use quorate::{
    ClusterNodeParams, ClusterParams, Database, Dictionary, ListenerHandle, Options, Value as Data,
};
use serde_json::Value;

/// How long anything here may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(60);

fn quorate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for variable in ["NODE", "JSON", "TIMEOUT", "RANK", "FROM", "YES"] {
        command.env_remove(format!("QUORATE_{variable}"));
    }
    command
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    ended(quorate(arguments).output().expect("the command runs"))
}

fn ended(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Some nodes of one cluster.
struct Nodes {
    addresses: Vec<String>,
    open: Vec<Option<(Database, ListenerHandle)>>,
}

fn free_addresses(count: usize) -> Vec<String> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    let address = |listener: &TcpListener| listener.local_addr().expect("bound").to_string();
    listeners.iter().map(address).collect()
}

fn open(id: u32, addresses: &[String]) -> (Database, ListenerHandle) {
    let nodes = addresses.iter().map(ClusterNodeParams::new).collect();
    let params = ClusterParams::new(id, nodes).with_connect(40_000, 50);
    let text = "declare database test; class A { unsigned<4> x; list; };";
    let dictionary = Dictionary::parse(text).expect("a good schema");
    let db = Database::open("test", dictionary, Options::from(params)).expect("it opens");
    let listener = db.spawn_listener().expect("it listens");
    (db, listener)
}

impl Nodes {
    fn start(count: usize) -> Self {
        let addresses = free_addresses(count);
        let openers: Vec<_> = (0..count as u32)
            .map(|id| {
                let addresses = addresses.clone();
                thread::spawn(move || open(id, &addresses))
            })
            .collect();
        let open = openers.into_iter().map(|opener| opener.join().ok()).collect();
        Self { addresses, open }
    }

    fn db(&self, id: usize) -> &Database {
        &self.open[id].as_ref().expect("it runs").0
    }

    fn kill(&mut self, id: usize) {
        let (db, listener) = self.open[id].take().expect("it runs");
        drop(db);
        let _ = listener.join();
    }

    fn insert(&self, id: usize) {
        let result = self.db(id).transact(quorate::Isolation::Snapshot, |tx| {
            tx.insert_values("A", &[("x", Data::Unsigned(1))]).map(|_| ())
        });
        result.expect("it commits");
    }

    fn eventually(&self, what: &str, is_true: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !is_true(self) {
            assert!(start.elapsed() < PATIENCE, "in vain: {what}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn json(arguments: &[&str]) -> (Option<i32>, Value) {
    let (code, stdout, stderr) = run(&[arguments, &["--json"]].concat());
    assert_eq!(stderr, "", "with --json nothing else is printed");
    (code, serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout:?} is no JSON")))
}

#[test]
fn the_status_says_how_the_cluster_is() {
    let mut nodes = Nodes::start(3);
    nodes.insert(1);
    nodes.eventually("all hold it", |nodes| (0..3).all(|id| nodes.db(id).visible_index().0 == 1));
    let leader = nodes.db(0).cluster_status().and_then(|status| status.leader).expect("it leads").0;
    let asked = (leader as usize + 1) % 3;
    let gone = (leader as usize + 2) % 3;
    let (code, status) = json(&["status", "--node", &nodes.addresses[asked]]);
    assert_eq!(code, Some(0), "{status}");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&status["node"], &status["leader"]), (&asked.into(), &leader.into()));
    assert_eq!((&status["phase"], &status["role"]), (&"member".into(), &"follower".into()));
    assert_eq!((&status["quorum"], &status["ready"]), (&true.into(), &true.into()));
    assert_eq!((&status["index"], &status["epoch"]["counter"]), (&1.into(), &0.into()));
    assert_eq!(status["cluster_id"].as_str().map(str::len), Some(32));
    assert_eq!(status["counters"]["applied"], 1);
    for (id, member) in status["members"].as_array().expect("members").iter().enumerate() {
        assert_eq!((&member["node"], &member["rank"]), (&id.into(), &1.into()));
        assert_eq!(member["address"], nodes.addresses[id]);
        assert_eq!((&member["joined"], &member["connected"]), (&true.into(), &true.into()));
    }
    let (code, screen, errors) = run(&["status", "--node", &nodes.addresses[asked]]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let follows = format!("node {asked}: member, follows node {leader}");
    for part in [follows.as_str(), "ready to commit", "index 1", "leader", "asked", "applied 1"] {
        assert!(screen.contains(part), "{part:?} is not in:\n{screen}");
    }
    // One survivor of three cannot commit, and says so.
    nodes.kill(leader as usize);
    nodes.kill(gone);
    nodes.eventually("it notices", |nodes| {
        nodes.db(asked).cluster_status().is_some_and(|status| !status.ready && !status.quorum)
    });
    let (code, screen, _) = run(&["status", "--node", &nodes.addresses[asked]]);
    assert_eq!(code, Some(4));
    let waits = format!("waits for node {gone}");
    for part in ["NO QUORUM", "NOT READY", "not connected", waits.as_str()] {
        assert!(screen.contains(part), "{part:?} is not in:\n{screen}");
    }
    let (code, status) = json(&["status", "--node", &nodes.addresses[asked]]);
    assert_eq!((code, &status["ready"]), (Some(4), &false.into()));
}

#[test]
fn members_are_listed_and_flags_can_be_variables() {
    let nodes = Nodes::start(2);
    let addr = nodes.addresses[1].as_str();
    let (code, list) = json(&["member", "list", "--node", addr]);
    assert_eq!((code, list.as_array().map(Vec::len)), (Some(0), Some(2)));
    let mut command = quorate(&["member", "list"]);
    command.envs([("QUORATE_NODE", addr), ("QUORATE_JSON", "1"), ("QUORATE_TIMEOUT", "30")]);
    let (code, stdout, _) = ended(command.output().expect("runs"));
    assert_eq!(code, Some(0));
    assert_eq!(serde_json::from_str::<Value>(&stdout).expect("JSON"), list);
    let (code, table, _) = run(&["member", "--node", addr, "list"]);
    assert_eq!(code, Some(0));
    assert!(nodes.addresses.iter().all(|addr| table.contains(addr)), "{table}");
}

#[test]
fn what_cannot_be_done_says_why_and_changes_nothing() {
    let nodes = Nodes::start(2);
    let addr = nodes.addresses[0].as_str();
    let refused: [&[&str]; 4] = [
        &["member", "add", "nowhere"],
        &["member", "add", "192.0.2.1:7000"],
        &["member", "address", "1", "[::1]"],
        &["member", "address", "1", "192.0.2.1:7000"],
    ];
    for arguments in refused {
        let (code, stdout, stderr) = run(&[arguments, &["--node", addr]].concat());
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains("nothing was changed"), "{arguments:?}: {stderr}");
        let (code, failure) = json(&[arguments, &["--node", addr]].concat());
        assert_eq!((code, &failure["may_still_happen"]), (Some(1), &false.into()));
        assert!(failure["error"].as_str().is_some_and(|error| stderr.contains(error)));
    }
    let listed = nodes.db(0).nodes();
    assert_eq!(
        listed.iter().map(|node| &node.addr).collect::<Vec<_>>(),
        [addr, &nodes.addresses[1]]
    );
}

#[test]
fn a_recovery_wants_to_be_confirmed() {
    let nodes = Nodes::start(1);
    let addr = nodes.addresses[0].as_str();
    let before = nodes.db(0).cluster_status().expect("a node");
    for typed in ["", "yes\n", "recover it\n"] {
        let mut command = quorate(&["recover", "--from", addr]);
        let mut child = command.stdin(Stdio::piped()).spawn().expect("runs");
        child.stdin.take().expect("piped").write_all(typed.as_bytes()).expect("it reads");
        let (code, _, stderr) = ended(child.wait_with_output().expect("it ends"));
        assert_eq!(code, Some(1), "{stderr}");
        for part in ["index 0", "lost", "Type recover", "not confirmed; nothing was changed"] {
            assert!(stderr.contains(part), "{part:?} is not in:\n{stderr}");
        }
    }
    let after = nodes.db(0).cluster_status().expect("a node");
    assert_eq!((after.epoch, after.cluster_id), (before.epoch, before.cluster_id));
}

#[test]
fn nobody_there_is_an_error_that_says_what_to_do() {
    let addr = &free_addresses(1)[0];
    let commands: [&[&str]; 4] = [
        &["status", "--node", addr],
        &["member", "--node", addr, "list"],
        &["member", "--node", addr, "remove", "1"],
        &["recover", "--from", addr, "--yes"],
    ];
    for arguments in commands {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(stderr.starts_with("error: ") && stderr.contains("check"), "{stderr}");
        let (code, failure) = json(arguments);
        assert_eq!((code, &failure["may_still_happen"]), (Some(1), &false.into()));
    }
    // Who listens and says nothing is given up on.
    let silent = TcpListener::bind(addr).expect("still free");
    let (code, _, stderr) = run(&["status", "--node", addr, "--timeout", "1"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("no answer") && stderr.contains("1000 ms"), "{stderr}");
    drop(silent);
}

#[test]
fn wrong_arguments_are_refused_with_status_2() {
    let wrong: [&[&str]; 9] = [
        &["status"],
        &["status", "--node", "a:1", "--timeout", "0"],
        &["member", "list"],
        &["member", "--node", "a:1"],
        &["member", "--node", "a:1", "rank", "1"],
        &["member", "--node", "a:1", "remove", "-1"],
        &["member", "--node", "a:1", "add", "a:2", "--rank", "4294967296"],
        &["recover"],
        &["recover", "--node", "a:1"],
    ];
    for arguments in wrong {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(stderr.contains("--help"), "{arguments:?}: {stderr}");
    }
}

#[test]
fn nodes_are_added_changed_and_removed_and_leadership_is_moved() {
    let mut nodes = Nodes::start(3);
    let asked = nodes.addresses[0].clone();
    let change = |arguments: &[&str]| {
        let (code, done) = json(&[&["member", "--node", &asked], arguments].concat());
        assert_eq!(code, Some(0), "{arguments:?}: {done}");
        done
    };
    let new = free_addresses(1).remove(0);
    let done = change(&["add", &new, "--rank", "1"]);
    assert_eq!((&done["done"], &done["node"]), (&"added".into(), &3.into()));
    nodes.addresses.push(new);
    nodes.open.push(Some(open(3, &nodes.addresses)));
    nodes.insert(3);
    change(&["transfer", "3"]);
    nodes.eventually("it leads", |nodes| {
        let status = nodes.db(0).cluster_status().expect("a node");
        status.leader.is_some_and(|leader| leader.0 == 3)
    });
    change(&["rank", "1", "0"]);
    change(&["remove", "2"]);
    nodes.eventually("ranks are as asked", |nodes| {
        let status = nodes.db(0).cluster_status().expect("a node");
        let ranks = status.members.iter().map(|member| (member.info.node_id.0, member.rank));
        ranks.collect::<Vec<_>>() == [(0, 1), (1, 0), (3, 1)]
    });
    let (code, failure) = json(&["member", "--node", &asked, "rank", "2", "5"]);
    assert_eq!((code, &failure["may_still_happen"]), (Some(1), &false.into()), "{failure}");
    let (_, listener) = nodes.open[2].take().expect("it was there");
    assert!(listener.join().is_err(), "the removed node ends");
    nodes.insert(0);
    let (code, failure) = json(&["recover", "--from", &asked, "--yes"]);
    assert_eq!((code, &failure["may_still_happen"]), (Some(1), &false.into()), "{failure}");
}
