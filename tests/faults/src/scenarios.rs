//! What is done to clusters while clients work, scenario by scenario.
//!
//! Every scenario ends the same way: all faults end, everybody must come back, the clients rest,
//! all nodes must hold the same state, each reads everything there is, and the history is judged.
//! A fault is held until those that should go on have been seen to go on.

use std::time::Duration;

use crate::cluster::{self, Cluster, Options};
use crate::history::now_ns;
use crate::judge::{self, CutOff, Judge, Judged, Violation};
use crate::nemesis;
use crate::protocol::{Flaw, Load, Work};
use crate::random::Random;
use crate::trouble::{Result, Trouble};

/// How long a fault is held at least.
const HOLD: Duration = Duration::from_millis(800);

/// Registers, and accounts.
const KEYS: u64 = 6;

/// What a run must have seen for its verdict to count, next to the terms of its scenario.
const ACKNOWLEDGED_MIN: usize = 500;
const REGISTERS_MIN: usize = 100;
const DEPENDENCIES_MIN: usize = 500;
const TOTALS_MIN: usize = 20;

/// A scenario by name.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub what: &'static str,
    /// Sizes of the clusters it is tried on.
    pub sizes: &'static [usize],
    /// Terms that must begin while clients work.
    terms_min: u64,
    clocks_apart: bool,
    run: fn(&mut Stage) -> Result<()>,
}

/// How a scenario is run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// How many nodes.
    pub nodes: usize,
    /// Decides what clients do, and what is left to chance.
    pub seed: u64,
    /// How long a random mix of faults goes on.
    pub mix: Duration,
    /// A fault that the nodes themselves commit.
    pub flaw: Option<Flaw>,
}

/// What a scenario works with.
pub struct Stage {
    /// The cluster, whose clients work.
    pub cluster: Cluster,
    /// Chance.
    pub random: Random,
    /// When who had no quorum.
    pub cut_off: Vec<CutOff>,
    /// How long a random mix of faults goes on.
    pub mix: Duration,
    /// What was done, for people.
    pub log: Vec<String>,
}

/// How a run ended that could be judged.
pub type Verdict = std::result::Result<Judged, Violation>;

/// All scenarios.
pub const ALL: &[Scenario] = &[
    Scenario::new("kill-leader", "SIGKILL of the leader, restart", &[3, 5], 2, kill_leader),
    Scenario::new("kill-follower", "SIGKILL of a follower, restart", &[3], 0, kill_follower),
    Scenario::new("stop", "SIGSTOP, SIGCONT of the leader and of a follower", &[3], 2, stop),
    Scenario::new("partition", "a minority with the leader cut off", &[3, 5], 2, partition),
    Scenario::new("one-way", "the leader deaf, then mute; a follower likewise", &[3], 2, one_way),
    Scenario::new("chain", "each hears only its neighbours", &[3, 5], 0, chain),
    Scenario::new("slow", "200 ms and 5 % loss on all links", &[3], 0, slow),
    Scenario::new("flapping", "links that come and go", &[3, 5], 0, flapping),
    Scenario {
        clocks_apart: true,
        ..Scenario::new("clocks", "clocks hours apart, SIGKILL, SIGSTOP", &[3], 1, clocks)
    },
    Scenario::new("twins", "two processes of one node", &[3], 0, twins),
    Scenario::new("mix", "faults at random, several at a time", &[3, 5], 1, nemesis::mix),
];

/// Faults of the nodes themselves, each with the judge that must notice it.
pub const FLAWS: &[(Flaw, Judge)] = &[
    (Flaw::StaleReads, Judge::Registers),
    (Flaw::LostWrites, Judge::Appends),
    (Flaw::WriteSkew, Judge::Transactions),
];

impl Scenario {
    const fn new(
        name: &'static str,
        what: &'static str,
        sizes: &'static [usize],
        terms_min: u64,
        run: fn(&mut Stage) -> Result<()>,
    ) -> Self {
        Self { name, what, sizes, terms_min, clocks_apart: false, run }
    }

    /// Why it cannot be run here, where others can; none if it can.
    pub fn unavailable(&self) -> Option<String> {
        if self.clocks_apart { cluster::clocks_unavailable() } else { None }
    }

    /// Runs it from start to verdict. The files of a run that was not good are kept, unless it was
    /// meant not to be.
    ///
    /// # Errors
    ///
    /// If there is nothing to judge: a node that did not come back, states that differ, and all
    /// else that ends a run early.
    pub fn run(&self, run: &Run) -> Result<Verdict> {
        let options = Options {
            nodes: run.nodes,
            // A client that waits for its commit reads nothing: liars get many chances to lie.
            commit_limit_ms: if run.flaw.is_some() { 100 } else { 600 },
            flaw: run.flaw,
            clocks_apart: self.clocks_apart,
        };
        let cluster = Cluster::start(options)?;
        let mut stage = Stage {
            cluster,
            random: Random::new(run.seed),
            cut_off: Vec::new(),
            mix: run.mix,
            log: Vec::new(),
        };
        let work = Work {
            loads: vec![Load::Registers, Load::Serializable, Load::Snapshot, Load::Bank],
            pause_us: 2_000,
            keys: KEYS,
            seed: run.seed,
        };
        let verdict = stage.play(self, &work);
        match verdict {
            Ok(Ok(judged)) => Ok(Ok(judged)),
            bad => {
                let (words, log) = (stage.cluster.last_words(), stage.log.join(", "));
                let files = match run.flaw {
                    None => format!("files: {}", stage.cluster.keep_files().display()),
                    Some(flaw) => format!("the nodes have the flaw {flaw:?}"),
                };
                let more = format!("done: {log}; {files}\n{words}");
                match bad {
                    Ok(Err(Violation { broken, .. })) => Ok(Err(Violation { broken, more })),
                    Err(trouble) => Err(Trouble::new(format!("{trouble}; {more}"))),
                    Ok(Ok(_)) => unreachable!("matched above"),
                }
            }
        }
    }
}

impl Stage {
    fn play(&mut self, scenario: &Scenario, work: &Work) -> Result<Verdict> {
        self.cluster.work(work)?;
        self.go_on()?;
        let term = self.cluster.term();
        (scenario.run)(self)?;
        self.cluster.heal()?;
        self.go_on()?;
        self.cluster.rest()?;
        let lists = judge::lists(&self.cluster.history()?);
        self.cluster.audit(&lists)?;
        self.cluster.rest()?;
        let terms = self.cluster.term() - term;
        let verdict = judge::judge(&self.cluster.history()?, work.keys, &self.cut_off);
        let Ok(judged) = verdict else { return Ok(verdict) };
        let judged = Judged { terms, ..judged };
        let enough = judged.acknowledged >= ACKNOWLEDGED_MIN
            && judged.registers >= REGISTERS_MIN
            && judged.dependencies >= DEPENDENCIES_MIN
            && judged.totals >= TOTALS_MIN
            && terms >= scenario.terms_min;
        if enough { Ok(Ok(judged)) } else { Err(Trouble::new(format!("saw too little: {judged}"))) }
    }

    /// Notes what is done.
    pub fn note(&mut self, what: impl Into<String>) {
        self.log.push(what.into());
    }

    /// All nodes but these.
    pub fn all_but(&self, these: &[usize]) -> Vec<usize> {
        (0..self.cluster.size()).filter(|node| !these.contains(node)).collect()
    }

    /// Everybody must go on.
    fn go_on(&mut self) -> Result<()> {
        self.cluster.await_progress(&self.all_but(&[]))
    }

    /// These must go on while the fault is held.
    fn hold(&mut self, nodes: &[usize]) -> Result<()> {
        self.cluster.await_progress(nodes)?;
        self.cluster.run_for(HOLD)?;
        self.cluster.await_progress(nodes)
    }

    /// The leader, and a follower.
    fn roles(&mut self) -> Result<(usize, usize)> {
        let leader = self.cluster.await_leader()?;
        let followers = self.all_but(&[leader]);
        Ok((leader, self.random.pick(&followers)))
    }

    fn kill_and_restart(&mut self, node: usize) -> Result<()> {
        self.cluster.kill(node)?;
        self.hold(&self.all_but(&[node]))?;
        self.cluster.restart(node)?;
        self.cluster.await_ready(node)?;
        self.go_on()
    }

    fn stop_and_resume(&mut self, node: usize) -> Result<()> {
        self.cluster.stop(node)?;
        self.hold(&self.all_but(&[node]))?;
        self.cluster.resume(node)?;
        self.go_on()
    }

    /// Everybody hears everybody again, and goes on.
    fn heal(&mut self) -> Result<()> {
        self.cluster.lab().heal()?;
        self.go_on()
    }
}

fn kill_leader(stage: &mut Stage) -> Result<()> {
    for _ in 0..2 {
        let (leader, _) = stage.roles()?;
        stage.note(format!("killed leader {leader}"));
        stage.kill_and_restart(leader)?;
    }
    Ok(())
}

fn kill_follower(stage: &mut Stage) -> Result<()> {
    for _ in 0..2 {
        let (_, follower) = stage.roles()?;
        stage.note(format!("killed follower {follower}"));
        stage.kill_and_restart(follower)?;
    }
    Ok(())
}

fn stop(stage: &mut Stage) -> Result<()> {
    for _ in 0..2 {
        let (leader, follower) = stage.roles()?;
        stage.note(format!("stopped leader {leader}, then {follower}"));
        stage.stop_and_resume(leader)?;
        stage.stop_and_resume(follower)?;
    }
    Ok(())
}

/// The leader and, of five, another node are on the small side.
fn partition(stage: &mut Stage) -> Result<()> {
    for _ in 0..2 {
        let (leader, follower) = stage.roles()?;
        let mut minority = vec![leader, follower];
        minority.truncate((stage.cluster.size() - 1) / 2);
        let majority = stage.all_but(&minority);
        stage.note(format!("parted {minority:?} from {majority:?}"));
        for one in &minority {
            for other in &majority {
                stage.cluster.lab().part(*one, *other)?;
            }
        }
        let from_ns = now_ns();
        stage.hold(&majority)?;
        stage.cut_off.push(CutOff { nodes: minority, from_ns, to_ns: now_ns() });
        stage.heal()?;
    }
    Ok(())
}

fn one_way(stage: &mut Stage) -> Result<()> {
    for mute in [false, true] {
        for hit_leader in [true, false] {
            let (leader, follower) = stage.roles()?;
            let node = if hit_leader { leader } else { follower };
            stage.note(format!("{node} {}", if mute { "mute" } else { "deaf" }));
            for other in stage.all_but(&[node]) {
                let (ear, mouth) = if mute { (other, node) } else { (node, other) };
                stage.cluster.lab().deafen(ear, mouth)?;
            }
            stage.hold(&stage.all_but(&[node]))?;
            stage.heal()?;
        }
    }
    Ok(())
}

/// First with the leader at an end, then with it in the middle.
fn chain(stage: &mut Stage) -> Result<()> {
    for place in [0, stage.cluster.size() / 2] {
        let (leader, _) = stage.roles()?;
        let mut order = stage.all_but(&[leader]);
        order.insert(place, leader);
        stage.note(format!("chain {order:?}"));
        for (at, one) in order.iter().enumerate() {
            for other in order.iter().skip(at + 2) {
                stage.cluster.lab().part(*one, *other)?;
            }
        }
        stage.cluster.run_for(HOLD)?;
        // Whoever can lead such a cluster, somebody must, and those next to it must go on.
        let leader = stage.cluster.await_leader()?;
        let at = order.iter().position(|node| *node == leader).expect("it is one of them");
        stage.hold(&order[at.saturating_sub(1)..order.len().min(at + 2)])?;
        stage.heal()?;
    }
    Ok(())
}

fn slow(stage: &mut Stage) -> Result<()> {
    let all = stage.all_but(&[]);
    stage.note("5 % loss");
    for node in &all {
        stage.cluster.lab().lose(*node, 50)?;
    }
    stage.hold(&all)?;
    stage.cluster.lab().heal()?;
    stage.note("200 ms there and back");
    for node in &all {
        stage.cluster.delay(*node, Duration::from_millis(50))?;
    }
    stage.hold(&all)?;
    stage.note("both");
    for node in &all {
        stage.cluster.lab().lose(*node, 50)?;
    }
    stage.cluster.run_for(2 * HOLD)?;
    stage.cluster.lab().heal()?;
    for node in &all {
        stage.cluster.undelay(*node)?;
    }
    let (leader, _) = stage.roles()?;
    stage.note(format!("200 ms each way to and from leader {leader}"));
    stage.cluster.delay(leader, Duration::from_millis(200))?;
    stage.hold(&stage.all_but(&[leader]))?;
    stage.cluster.undelay(leader)?;
    stage.go_on()
}

fn flapping(stage: &mut Stage) -> Result<()> {
    for turn in 0..15 {
        let node = match stage.cluster.leader().filter(|_| turn % 3 == 0) {
            Some(leader) => leader,
            None => stage.random.below(stage.cluster.size() as u64) as usize,
        };
        let (down, up) = (stage.random.below(450), stage.random.below(200));
        stage.note(format!("{node} for {down} ms"));
        stage.cluster.lab().isolate(node)?;
        stage.cluster.run_for(Duration::from_millis(down))?;
        stage.cluster.lab().heal()?;
        stage.cluster.run_for(Duration::from_millis(up))?;
    }
    stage.go_on()
}

/// Clocks are hours apart from the start on, and step by another hour with each restart.
fn clocks(stage: &mut Stage) -> Result<()> {
    let (leader, follower) = stage.roles()?;
    stage.note(format!("killed {leader}, then stopped {follower}"));
    stage.kill_and_restart(leader)?;
    stage.stop_and_resume(follower)
}

/// A second process under the id of a node that lives changes nothing; when the first falls silent
/// the second takes its place, and the first, back again, changes nothing any more.
fn twins(stage: &mut Stage) -> Result<()> {
    let all = stage.all_but(&[]);
    let node = stage.cluster.size() - 1;
    stage.note(format!("a twin of {node}"));
    stage.cluster.start_twin()?;
    stage.hold(&all)?;
    stage.hold(&all)?;
    if stage.cluster.is_twin_ready()? {
        return Err(Trouble::new(format!("two processes are node {node} at a time")));
    }
    stage.note(format!("stopped {node}"));
    stage.cluster.stop(node)?;
    stage.hold(&stage.all_but(&[node]))?;
    stage.cluster.await_takeover()?;
    stage.note("the first goes on beside the second");
    stage.hold(&all)
}
