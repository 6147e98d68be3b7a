//! A cluster of node processes on a lab: what scenarios are written with.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::history::{self, Operation};
use crate::lab::{self, Lab};
use crate::processes::Process;
use crate::protocol::{Command, Flaw, Report, Setup, Work};
use crate::relay::Relay;
use crate::trouble::{Result, Trouble};

/// The port that all nodes listen at.
const PORT: u16 = 7_400;

/// How long anything may take that should happen by itself.
const PATIENCE: Duration = Duration::from_secs(60);

const STEP: Duration = Duration::from_millis(1);

/// How a cluster is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many nodes.
    pub nodes: usize,
    /// How long a commit waits for its outcome, milliseconds.
    pub commit_limit_ms: u64,
    /// A fault that all nodes commit.
    pub flaw: Option<Flaw>,
    /// Whether each node has another monotonic clock, hours apart.
    pub clocks_apart: bool,
}

/// Running nodes, and what was done to them.
///
/// Fields are in the order of their end: processes, then their network, then their files.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Place>,
    /// A second process of the last node, elsewhere on the network.
    twin: Option<Process>,
    /// The first one, after the second took its place.
    ousted: Option<Process>,
    relays: Vec<Option<Relay>>,
    lab: Lab,
    options: Options,
    work: Option<Work>,
    directory: TempDir,
}

#[derive(Debug, Default)]
struct Place {
    process: Option<Process>,
    stopped: bool,
    /// Whether it said that it is a member.
    ready: bool,
    lives: usize,
}

/// All nodes agree.
#[derive(Clone, Debug)]
pub struct Agreement {
    /// Where.
    pub index: u64,
    /// On this state.
    pub state_hash: String,
}

impl Cluster {
    /// Starts all nodes and waits until they are a cluster.
    ///
    /// # Errors
    ///
    /// If the lab cannot be built or the cluster does not form.
    pub fn start(options: Options) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("quorate-faults-")
            .tempdir()
            .map_err(Trouble::doing("making a directory"))?;
        let lab = Lab::build(options.nodes + 1)?; // a place for a twin
        let mut cluster = Self {
            nodes: (0..options.nodes).map(|_| Place::default()).collect(),
            twin: None,
            ousted: None,
            relays: (0..options.nodes).map(|_| None).collect(),
            lab,
            options,
            work: None,
            directory,
        };
        for node in 0..cluster.size() {
            cluster.launch(node)?;
        }
        for node in 0..cluster.size() {
            cluster.await_ready(node)?;
        }
        cluster.await_leader()?;
        Ok(cluster)
    }

    /// How many nodes there are, dead ones included.
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// The network.
    pub fn lab(&mut self) -> &mut Lab {
        &mut self.lab
    }

    /// Where nodes leave their files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Keeps the files after the end, and says where they are.
    pub fn keep_files(mut self) -> PathBuf {
        self.directory.disable_cleanup(true);
        self.directory.path().to_owned()
    }

    /// Inserts what the work needs and starts clients on all nodes. Nodes that are restarted later
    /// work too.
    ///
    /// # Errors
    ///
    /// If it cannot be committed.
    pub fn work(&mut self, work: &Work) -> Result<()> {
        self.send(0, &Command::Prepare(work.clone()))?;
        let index = self.await_done(0)?;
        self.await_state(index)?;
        self.go_on(work)
    }

    /// Starts clients on all nodes, for work that was prepared.
    ///
    /// # Errors
    ///
    /// If a node is gone.
    pub fn go_on(&mut self, work: &Work) -> Result<()> {
        self.work = Some(work.clone());
        for node in 0..self.size() {
            self.send(node, &Command::Work(work.clone()))?;
        }
        Ok(())
    }

    /// Waits until each of these nodes acknowledged something to a client that began after this.
    ///
    /// # Errors
    ///
    /// If one does not: then it is stuck.
    pub fn await_progress(&mut self, nodes: &[usize]) -> Result<()> {
        for node in nodes {
            self.send(*node, &Command::Progress)?;
        }
        nodes.iter().try_for_each(|node| self.await_done(*node).map(|_| ()))
    }

    /// Lets one more client on each node read everything there is. Nobody else works meanwhile.
    ///
    /// # Errors
    ///
    /// If a node cannot.
    pub fn audit(&mut self, lists: &[u64]) -> Result<()> {
        for node in 0..self.size() {
            self.send(node, &Command::Audit { lists: lists.to_vec() })?;
        }
        (0..self.size()).try_for_each(|node| self.await_done(node).map(|_| ()))
    }

    /// Lets all clients finish and waits until all nodes hold the same state. A process whose place
    /// another took is killed.
    ///
    /// # Errors
    ///
    /// If they do not come to rest, or their states differ.
    pub fn rest(&mut self) -> Result<Agreement> {
        self.work = None;
        self.ousted = None;
        for node in 0..self.size() {
            self.send(node, &Command::Rest)?;
        }
        let mut newest = 0;
        for node in 0..self.size() {
            newest = newest.max(self.await_done(node)?);
        }
        self.await_state(newest)
    }

    /// Everything that clients wrote down so far.
    ///
    /// # Errors
    ///
    /// If a file is not what a client writes.
    pub fn history(&self) -> Result<Vec<Operation>> {
        history::read(self.directory.path())
    }

    /// The leader of the newest term that a running node tells of.
    pub fn leader(&self) -> Option<usize> {
        let running = self.nodes.iter().filter(|place| !place.stopped);
        let statuses = running.filter_map(|place| place.process.as_ref()?.status());
        let (leader, _) = statuses.max_by_key(|(leader, term)| (*term, leader.is_some()))?;
        leader
    }

    /// The newest term that a node tells of.
    pub fn term(&self) -> u64 {
        let statuses = self.nodes.iter().filter_map(|place| place.process.as_ref()?.status());
        statuses.map(|(_, term)| term).max().unwrap_or(0)
    }

    /// Waits for a leader that a majority of nodes follows.
    ///
    /// # Errors
    ///
    /// If there is none in time.
    pub fn await_leader(&mut self) -> Result<usize> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.look_after()?;
            if let Some(leader) = self.leader().filter(|leader| self.follow(*leader)) {
                return Ok(leader);
            }
            if Instant::now() > deadline {
                return Err(Trouble::new("no leader"));
            }
            thread::sleep(STEP);
        }
    }

    /// Kills the node's process, as `kill -9` does.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn kill(&mut self, node: usize) -> Result<()> {
        let place = &mut self.nodes[node];
        (place.ready, place.stopped) = (false, false);
        place.process.take().map_or(Ok(()), Process::kill)
    }

    /// Stops the node's process, as SIGSTOP does.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn stop(&mut self, node: usize) -> Result<()> {
        self.nodes[node].stopped = true;
        self.nodes[node].process.as_mut().map_or(Ok(()), |p| p.signal(Signal::SIGSTOP))
    }

    /// Lets a stopped process go on.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn resume(&mut self, node: usize) -> Result<()> {
        self.nodes[node].stopped = false;
        self.nodes[node].process.as_mut().map_or(Ok(()), |p| p.signal(Signal::SIGCONT))
    }

    /// Starts a new process of a node that was killed. It need not come up yet.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn restart(&mut self, node: usize) -> Result<()> {
        assert!(self.nodes[node].process.is_none(), "node {node} is running");
        self.launch(node)
    }

    /// Starts a second process of the last node, whose id is the only one that none dials.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start_twin(&mut self) -> Result<()> {
        let (place, node) = (self.size(), self.size() - 1);
        self.lab.impersonate(place, node)?;
        self.twin = Some(self.spawn(node, place)?);
        Ok(())
    }

    /// Whether the twin has become a member.
    ///
    /// # Errors
    ///
    /// If it failed.
    pub fn is_twin_ready(&mut self) -> Result<bool> {
        let twin = self.twin.as_mut().ok_or_else(|| Trouble::new("there is no twin"))?;
        Ok(twin.answer()? == Some(Report::Ready))
    }

    /// Waits until the twin is a member. From then on it is the last node; the process that was so
    /// far goes on if it was stopped, and nobody looks after it any more.
    ///
    /// # Errors
    ///
    /// If the twin does not become a member in time.
    pub fn await_takeover(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_twin_ready()? {
            if Instant::now() > deadline {
                return Err(Trouble::new("the twin did not become a member"));
            }
            thread::sleep(STEP);
        }
        let node = self.size() - 1;
        let place = &mut self.nodes[node];
        self.ousted = std::mem::replace(&mut place.process, self.twin.take());
        (place.ready, place.stopped) = (true, false);
        if let Some(work) = self.work.clone() {
            self.send(node, &Command::Work(work))?;
        }
        self.ousted.as_mut().map_or(Ok(()), |process| process.signal(Signal::SIGCONT))
    }

    /// Whether the node's process is there.
    pub fn is_alive(&self, node: usize) -> bool {
        self.nodes[node].process.is_some()
    }

    /// Whether the node has been a member since its process started.
    pub fn is_ready(&self, node: usize) -> bool {
        self.nodes[node].ready
    }

    /// Whether the node's process is stopped.
    pub fn is_stopped(&self, node: usize) -> bool {
        self.nodes[node].stopped
    }

    /// Delays all packets to and from the node.
    ///
    /// # Errors
    ///
    /// If the relay cannot be put in.
    pub fn delay(&mut self, node: usize, delay: Duration) -> Result<()> {
        self.undelay(node)?;
        let (outer, inner) = self.lab.open_wire(node)?;
        let relay = Relay::start(&self.lab, &outer, &inner, delay)?;
        self.relays[node] = Some(relay);
        Ok(())
    }

    /// Ends the delay. Packets under way are lost.
    ///
    /// # Errors
    ///
    /// If the wire cannot be put together.
    pub fn undelay(&mut self, node: usize) -> Result<()> {
        self.relays[node] = None;
        self.lab.close_wire(node)
    }

    /// Ends all faults: the network whole, all processes running. Waits until all are members.
    ///
    /// # Errors
    ///
    /// If a node does not come back.
    pub fn heal(&mut self) -> Result<()> {
        self.lab.heal()?;
        for node in 0..self.size() {
            self.undelay(node)?;
            if self.nodes[node].stopped {
                self.resume(node)?;
            }
            if !self.is_alive(node) {
                self.restart(node)?;
            }
        }
        for node in 0..self.size() {
            self.await_ready(node)?;
        }
        self.await_leader().map(|_| ())
    }

    /// Lets time pass, and looks after the nodes meanwhile.
    ///
    /// # Errors
    ///
    /// If a node failed.
    pub fn run_for(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.look_after()?;
            thread::sleep(STEP.min(until.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    /// Waits until the node is a member.
    ///
    /// # Errors
    ///
    /// If it does not become one in time.
    pub fn await_ready(&mut self, node: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.nodes[node].ready {
            self.look_after()?;
            if Instant::now() > deadline {
                return Err(Trouble::new(format!("node {node} did not become a member")));
            }
            thread::sleep(STEP);
        }
        Ok(())
    }

    /// Notes who became a member, and gives it work; notices who failed.
    fn look_after(&mut self) -> Result<()> {
        for node in 0..self.size() {
            let place = &mut self.nodes[node];
            let Some(process) = &mut place.process else { continue };
            if place.ready {
                process.check().map_err(|trouble| about(node, &trouble))?;
                continue;
            }
            match process.answer().map_err(|trouble| about(node, &trouble))? {
                Some(Report::Ready) => place.ready = true,
                Some(other) => return Err(Trouble::new(format!("node {node} said {other:?}"))),
                None => continue,
            }
            if let Some(work) = self.work.clone() {
                self.send(node, &Command::Work(work))?;
            }
        }
        Ok(())
    }

    fn launch(&mut self, node: usize) -> Result<()> {
        let process = self.spawn(node, node)?;
        let place = &mut self.nodes[node];
        place.process = Some(process);
        (place.ready, place.stopped) = (false, false);
        Ok(())
    }

    /// Starts a process of a node at a place of the network.
    fn spawn(&mut self, node: usize, at: usize) -> Result<Process> {
        let life = self.nodes[node].lives;
        self.nodes[node].lives += 1;
        let addresses = (0..self.size()).map(|node| format!("{}:{PORT}", lab::address(node)));
        let ahead_s = if self.options.clocks_apart { 3_600 * (1 + 10 * node + life) } else { 0 };
        let setup = Setup {
            node,
            life,
            addresses: addresses.collect(),
            connect_timeout_ms: 2 * PATIENCE.as_millis() as u64,
            commit_limit_ms: self.options.commit_limit_ms,
            directory: self.directory.path().to_owned(),
            clock_ahead_ns: ahead_s as i64 * 1_000_000_000,
            conductor_ns: history::now_ns(),
            flaw: self.options.flaw,
        };
        let this = std::env::current_exe().map_err(Trouble::doing("finding this program"))?;
        let mut program = if self.options.clocks_apart {
            let mut program = self.lab.command(at, Path::new("unshare"));
            program.args(["--time", "--monotonic", &ahead_s.to_string(), "--"]).arg(this);
            program
        } else {
            self.lab.command(at, &this)
        };
        program.arg("node");
        let log = self.directory.path().join(format!("{node}-{life}.log"));
        let log = File::create(log).map_err(Trouble::doing("making a log"))?;
        Process::start(program, &setup, log)
    }

    fn send(&mut self, node: usize, command: &Command) -> Result<()> {
        let process = self.nodes[node].process.as_mut();
        let process = process.ok_or_else(|| Trouble::new(format!("node {node} is dead")))?;
        process.send(command).map_err(|trouble| about(node, &trouble))
    }

    fn await_answer(&mut self, node: usize) -> Result<Report> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let process = self.nodes[node].process.as_mut();
            let process = process.ok_or_else(|| Trouble::new(format!("node {node} is dead")))?;
            if let Some(answer) = process.answer().map_err(|trouble| about(node, &trouble))? {
                return Ok(answer);
            }
            if Instant::now() > deadline {
                return Err(Trouble::new(format!("node {node} does not answer")));
            }
            thread::sleep(STEP);
        }
    }

    /// Waits until the node has done what it was told; the index visible there then.
    fn await_done(&mut self, node: usize) -> Result<u64> {
        match self.await_answer(node)? {
            Report::Done { index } => Ok(index),
            other => Err(Trouble::new(format!("node {node} said {other:?}"))),
        }
    }

    /// Waits until all nodes have applied the index, and compares their states. What was in doubt
    /// can still commit meanwhile, so they are asked until they tell of the same index.
    fn await_state(&mut self, index: u64) -> Result<Agreement> {
        let deadline = Instant::now() + PATIENCE;
        let mut index = index;
        loop {
            for node in 0..self.size() {
                self.send(node, &Command::Reach { index })?;
            }
            let mut states = Vec::new();
            for node in 0..self.size() {
                match self.await_answer(node)? {
                    Report::Reached { index, state_hash } => states.push((index, state_hash)),
                    other => return Err(Trouble::new(format!("node {node} said {other:?}"))),
                }
            }
            index = states.iter().map(|(index, _)| *index).max().unwrap_or(index);
            if states.iter().all(|(at, _)| *at == index) {
                return agreement(&states);
            }
            if Instant::now() > deadline {
                return Err(Trouble::new(format!("the nodes do not come to rest: {states:?}")));
            }
        }
    }

    /// Whether a majority follows this node.
    fn follow(&self, leader: usize) -> bool {
        let follows = |place: &&Place| {
            let status = place.process.as_ref().and_then(Process::status);
            !place.stopped && place.ready && status.is_some_and(|(who, _)| who == Some(leader))
        };
        2 * self.nodes.iter().filter(follows).count() > self.size()
    }

    /// The end of each node's log file, for people.
    pub fn last_words(&self) -> String {
        let mut text = String::new();
        for (node, place) in self.nodes.iter().enumerate() {
            let life = place.lives.saturating_sub(1);
            let path = self.directory.path().join(format!("{node}-{life}.log"));
            let log = fs::read_to_string(path).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(5).collect();
            for line in tail.iter().rev() {
                text += &format!("  node {node}: {line}\n");
            }
        }
        text
    }
}

/// Why nodes cannot have clocks of their own here, if they cannot. Kernels before 6.3 move only
/// children into a time namespace, and a node is none of `unshare`'s.
pub fn clocks_unavailable() -> Option<String> {
    const AHEAD_S: u64 = 36_000;
    let this = std::env::current_exe().ok()?;
    let mut program = std::process::Command::new("unshare");
    program.args(["--time", "--monotonic", &AHEAD_S.to_string(), "--"]).arg(this).arg("clock");
    let said = program.output().ok().and_then(|output| String::from_utf8(output.stdout).ok());
    let clock_ns: Option<u64> = said.and_then(|said| said.trim().parse().ok());
    let is_ahead = |clock_ns: u64| clock_ns > history::now_ns() + AHEAD_S * 500_000_000;
    (!clock_ns.is_some_and(is_ahead)).then(|| "no time namespaces".to_owned())
}

/// What all nodes hold at one index.
fn agreement(states: &[(u64, String)]) -> Result<Agreement> {
    match states {
        [(index, state_hash), others @ ..] if others.iter().all(|(_, hash)| hash == state_hash) => {
            Ok(Agreement { index: *index, state_hash: state_hash.clone() })
        }
        _ => Err(Trouble::new(format!("DIVERGENCE: the nodes hold {states:?}"))),
    }
}

fn about(node: usize, trouble: &Trouble) -> Trouble {
    Trouble::new(format!("node {node}: {trouble}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_hash_at_the_same_index_is_divergence() {
        let state = |hash: &str| (7, hash.to_owned());
        let agreed = agreement(&[state("a"), state("a"), state("a")]).expect("equal");
        assert_eq!((agreed.index, agreed.state_hash.as_str()), (7, "a"));
        let trouble = agreement(&[state("a"), state("a"), state("b")]).expect_err("differs");
        assert!(trouble.to_string().contains("DIVERGENCE"), "{trouble}");
    }
}
