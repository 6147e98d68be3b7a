//! Killing the leader in mid-load, and bringing its node back.

use std::time::{Duration, Instant};

use super::conductor::{Conductor, DemoError, NodeView};
use super::protocol::Command;
use super::summary::{Check, Failover};

/// How much of the data is loaded when the leader is killed, in percent.
const KILL_AT_PERCENT: u64 = 30;

/// The fewest nodes of which one can be killed and the others still are a quorum.
const FEWEST_NODES: u32 = 3;

/// How long survivors may take to commit again before that counts as a failure.
const COMMIT_AGAIN_WITHIN: Duration = Duration::from_secs(20);

impl Conductor<'_> {
    /// Why no node is killed, if none is.
    pub(crate) fn failover_skipped(&self) -> Option<&'static str> {
        match self.options.nodes {
            1 => Some("a single node has nobody to fail over to"),
            n if n < FEWEST_NODES => Some("of two nodes none can be lost: one is no quorum"),
            _ => None,
        }
    }

    /// Kills the leader (or whom the options name) in mid-load, waits until all others commit
    /// again, restarts the node and gives it the rest of its share.
    pub(crate) fn failover(&mut self) -> Result<Failover, DemoError> {
        let (leader, term) = self.await_leader()?;
        let victim = self.options.kill.unwrap_or(leader);
        let was_leader = victim == leader;
        let rows = u64::from(self.airports.count());
        let loaded_percent = 100.0 * self.model.rows_loaded() as f64 / rows as f64;
        let survivors: Vec<u32> = (0..self.options.nodes).filter(|n| *n != victim).collect();
        // The mark goes first: a gap measured from it is never too short.
        self.mark(&survivors);
        self.kill(victim)?;
        let role = role(was_leader);
        self.progress.note(&format!("killed node {victim}, {role} of term {term}"));
        self.await_survivors(&survivors, was_leader.then_some(term))?;

        let rejoin_start = Instant::now();
        let view = &mut self.nodes[victim as usize];
        (view.life, view.restarted) = (view.life + 1, true);
        view.figures.restarted();
        self.start_node(victim)?;
        self.await_ready(victim)?;
        self.reach(&[victim], self.model.newest_index())?;
        let rejoin_ms = rejoin_start.elapsed().as_secs_f64() * 1e3;
        self.progress.note(&format!("node {victim} is back after {rejoin_ms:.0} ms"));
        self.load_the_rest(victim);
        let killed_node = victim;
        Ok(Failover { killed_node, was_leader, term, loaded_percent, gap_ms: None, rejoin_ms })
    }

    /// The longest time without an acknowledged commit around the kill, as this survivor saw it.
    pub(crate) fn failover_gap_ms(&self, node: u32) -> Option<f64> {
        let view = &self.nodes[node as usize];
        let [killed, elected] = view.marks[..] else { return None };
        view.figures.longest_gap_us(killed, elected).map(|gap| gap as f64 / 1e3)
    }

    /// Waits until enough is loaded and the nodes agree on a leader.
    fn await_leader(&mut self) -> Result<(u32, u64), DemoError> {
        let enough = (u64::from(self.airports.count()) * KILL_AT_PERCENT).div_ceil(100);
        self.pump("the load and a leader", |this| {
            this.model.rows_loaded() >= enough && this.leader().is_some()
        })?;
        Ok(self.leader().expect("the condition just waited for"))
    }

    /// The leader of the newest term that any node reports, and the term.
    fn leader(&self) -> Option<(u32, u64)> {
        let statuses = self.nodes.iter().filter_map(|node| node.status);
        let (leader, term) = statuses.max_by_key(|(leader, term)| (*term, leader.is_some()))?;
        Some((leader?, term))
    }

    fn mark(&mut self, nodes: &[u32]) {
        for node in nodes {
            self.processes.send(*node, &Command::Mark);
        }
    }

    /// Kills the node and handles all that it still said.
    fn kill(&mut self, node: u32) -> Result<(), DemoError> {
        self.nodes[node as usize].may_end = true;
        self.nodes[node as usize].done = false;
        self.processes.kill(node)?;
        self.pump("a killed node to be gone", |this| this.nodes[node as usize].closed)
    }

    /// Waits for a new leader, if the old one of `led` was killed, and then for a commit on each
    /// survivor: one acknowledged right after the kill may owe itself to the old leader.
    fn await_survivors(&mut self, survivors: &[u32], led: Option<u64>) -> Result<(), DemoError> {
        let killed_at = Instant::now();
        let limit = self.elapsed() + COMMIT_AGAIN_WITHIN;
        let elected = |this: &mut Self| {
            led.is_none_or(|led| this.leader().is_some_and(|(_, term)| term > led))
        };
        let mut again = self.pump_within(limit, elected)?;
        self.mark(survivors);
        again = again
            && self.pump_within(limit, |this| {
                survivors.iter().all(|node| {
                    let NodeView { marks, figures, .. } = &this.nodes[*node as usize];
                    marks.get(1).is_some_and(|mark| figures.acknowledged_after(*mark))
                })
            })?;
        let detail = if again {
            format!("after {:.0} ms", killed_at.elapsed().as_secs_f64() * 1e3)
        } else {
            format!("not all of them within {} s", COMMIT_AGAIN_WITHIN.as_secs())
        };
        let name = "all survivors commit again";
        self.checks.push(Check { name, ok: again, detail });
        Ok(())
    }

    fn load_the_rest(&mut self, node: u32) {
        let share = self.airports.share(node, self.options.nodes);
        let absent = |row: &u32| self.model.row(*row).is_some_and(|states| states.contains(&None));
        let (uncertain, rows): (Vec<u32>, Vec<u32>) = share
            .filter(absent)
            .partition(|row| self.model.row(*row).is_some_and(|states| states.len() > 1));
        let pace_ms = (self.load_time() / 3).as_millis() as u64;
        self.work(node, &Command::Load { rows, uncertain, pace_ms });
    }
}

/// What the killed node was.
pub(crate) fn role(was_leader: bool) -> &'static str {
    if was_leader { "the leader" } else { "a follower" }
}
