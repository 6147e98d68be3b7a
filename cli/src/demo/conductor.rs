//! The demo itself: one thread that starts the nodes, tells them what to do, kills one, keeps the
//! model from what they report, and judges.
//!
//! ```text
//!   open -> setup -> load --------------------------> change -> settle -> check -> stop
//!                      \-- kill leader, restart it --/
//! ```
//!
//! All phases wait in one place, [`Conductor::pump`], which handles events until a condition
//! holds, and gives up when the user interrupts, a node dies that should not, or time is up. So
//! nothing here can hang, and everything it holds is dropped on the way out.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::data::Airports;
use super::figures::Figures;
use super::model::Model;
use super::processes::{Event, EventKind, Processes};
use super::progress::Progress;
use super::protocol::{Command, IndexWalk, Record, Report};
use super::summary::Check;
use crate::arguments::DemoOptions;

/// How long the conductor waits for an event before it looks at the clock again.
const POLL: Duration = Duration::from_millis(20);

/// Shares of the wanted time, in percent: by when to have loaded (a fast machine is through
/// sooner), how long to change data at least, and by when to have changed it. The rest is for the
/// check.
const LOAD_PERCENT: u64 = 55;
const CHANGE_PERCENT: u64 = 35;
const WORK_PERCENT: u64 = 90;

/// Why a run did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    #[error("interrupted")]
    Interrupted,
    #[error("time is up after {seconds} s, while waiting for {what}{stderr}")]
    TimeUp { seconds: u64, what: &'static str, stderr: String },
    #[error("node {node} died unexpectedly ({status}){stderr}")]
    NodeDied { node: u32, status: String, stderr: String },
    #[error("node {node} failed: {reason}{stderr}")]
    NodeFailed { node: u32, reason: String, address_in_use: bool, stderr: String },
    #[error("node {node} wrote what is no report: {line}")]
    Garbage { node: u32, line: String },
    #[error("the system refused: {0}")]
    System(#[from] io::Error),
}

/// What the conductor knows of one node.
pub(crate) struct NodeView {
    /// Which of its processes runs; what earlier ones still say is not heard.
    pub(super) life: u32,
    /// It was killed and started again.
    pub(crate) restarted: bool,
    pub(crate) figures: Figures,
    /// Since when the node works, while it does.
    working_since: Option<Instant>,
    ready: bool,
    pub(super) status: Option<(Option<u32>, u64)>,
    /// Answers to [`Command::Mark`], in microseconds of the node's clock.
    pub(super) marks: Vec<u64>,
    pub(super) done: bool,
    /// Index and state hash last reported.
    pub(crate) reached: Option<(u64, String)>,
    pub(super) records: Vec<Record>,
    pub(super) dump: Option<(Vec<IndexWalk>, Option<String>)>,
    pub(super) stopped: bool,
    pub(super) closed: bool,
    /// Its end is expected.
    pub(super) may_end: bool,
}

/// Runs the demo. See the module.
pub(crate) struct Conductor<'a> {
    pub(super) options: &'a DemoOptions,
    pub(super) interrupted: &'a AtomicBool,
    pub(super) progress: &'a Progress,
    pub(super) airports: Airports,
    pub(super) model: Model,
    pub(super) processes: Processes,
    pub(super) nodes: Vec<NodeView>,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) checks: Vec<Check>,
    started: Instant,
    work_began: Instant,
    loading: bool,
}

impl NodeView {
    fn new() -> Self {
        Self {
            life: 0,
            restarted: false,
            figures: Figures::new(),
            working_since: None,
            ready: false,
            status: None,
            marks: Vec::new(),
            done: false,
            reached: None,
            records: Vec::new(),
            dump: None,
            stopped: false,
            closed: false,
            may_end: false,
        }
    }

    fn stop_working(&mut self) {
        if let Some(since) = self.working_since.take() {
            self.figures.active += since.elapsed();
        }
    }
}

impl<'a> Conductor<'a> {
    /// Nothing is started yet.
    pub(crate) fn new(
        options: &'a DemoOptions,
        interrupted: &'a Arc<AtomicBool>,
        progress: &'a Progress,
    ) -> Self {
        let airports = Airports::load();
        Self {
            options,
            interrupted,
            progress,
            model: Model::new(airports.count()),
            airports,
            processes: Processes::new(options.nodes),
            nodes: (0..options.nodes).map(|_| NodeView::new()).collect(),
            addresses: Vec::new(),
            checks: Vec::new(),
            started: Instant::now(),
            work_began: Instant::now(),
            loading: false,
        }
    }

    /// Starts all nodes and waits until each is a member of the cluster.
    pub(crate) fn open(&mut self) -> Result<(), DemoError> {
        self.progress.phase("open", u64::from(self.options.nodes));
        for attempt in 1.. {
            match self.try_open() {
                // Between choosing an address and binding it another program may take it.
                Err(DemoError::NodeFailed { address_in_use: true, .. }) if attempt < 4 => {
                    self.progress.note("an address was taken meanwhile; trying others");
                    self.nodes.iter_mut().for_each(|node| node.life += 1);
                }
                result => return result,
            }
        }
        unreachable!("the fourth attempt returns")
    }

    /// Inserts the counters and accounts.
    pub(crate) fn setup(&mut self) -> Result<(), DemoError> {
        self.command(0, &Command::Setup);
        self.pump("the setup", |this| this.nodes[0].done)
    }

    /// Tells all nodes to load their shares, without waiting.
    pub(crate) fn begin_load(&mut self) {
        self.progress.phase("load", u64::from(self.airports.count()));
        self.work_began = Instant::now();
        self.loading = true;
        for node in 0..self.options.nodes {
            let rows = self.airports.share(node, self.options.nodes).collect();
            let pace_ms = self.load_time().as_millis() as u64;
            self.work(node, &Command::Load { rows, uncertain: Vec::new(), pace_ms });
        }
    }

    /// Waits until all shares are loaded.
    pub(crate) fn finish_load(&mut self) -> Result<(), DemoError> {
        self.pump("the load", |this| this.nodes.iter().all(|node| node.done))?;
        self.loading = false;
        Ok(())
    }

    /// Updates, deletes and conflicts on all nodes.
    pub(crate) fn change(&mut self) -> Result<(), DemoError> {
        let left = self.wanted(WORK_PERCENT).saturating_sub(self.work_began.elapsed());
        let duration = left.max(self.wanted(CHANGE_PERCENT));
        self.progress.phase("change", duration.as_millis() as u64);
        for node in 0..self.options.nodes {
            self.work(node, &Command::Change { duration_ms: duration.as_millis() as u64 });
        }
        let start = Instant::now();
        self.pump("the changes", |this| {
            let elapsed = start.elapsed().min(duration).as_millis() as u64;
            let commits = this.model.counts().acknowledged;
            this.progress.at(elapsed, || format!("{commits} commits"));
            this.nodes.iter().all(|node| node.done)
        })
    }

    /// How long the load should take.
    pub(super) fn load_time(&self) -> Duration {
        self.wanted(LOAD_PERCENT)
    }

    /// Starts one node's process and opens its database, without waiting.
    pub(super) fn start_node(&mut self, node: u32) -> Result<(), DemoError> {
        let view = &mut self.nodes[node as usize];
        let life = view.life;
        (view.ready, view.closed, view.may_end, view.status) = (false, false, false, None);
        self.processes.spawn(node, life)?;
        let addresses = self.addresses.iter().map(SocketAddr::to_string).collect();
        self.processes.send(node, &Command::Open { node, life, addresses });
        Ok(())
    }

    /// Waits until the node is a member of the cluster.
    pub(super) fn await_ready(&mut self, node: u32) -> Result<(), DemoError> {
        self.pump("a node to open", |this| this.nodes[node as usize].ready)
    }

    /// Sends a command that is answered by [`Report::Done`].
    pub(super) fn command(&mut self, node: u32, command: &Command) {
        self.nodes[node as usize].done = false;
        self.processes.send(node, command);
    }

    /// The same for one whose time counts as work.
    pub(super) fn work(&mut self, node: u32, command: &Command) {
        self.nodes[node as usize].working_since = Some(Instant::now());
        self.command(node, command);
    }

    /// Waits until the index is visible on these nodes; their answers are in `reached`.
    pub(super) fn reach(&mut self, nodes: &[u32], index: u64) -> Result<(), DemoError> {
        for node in nodes {
            self.nodes[*node as usize].reached = None;
            self.processes.send(*node, &Command::Reach { index });
        }
        self.pump("an index to be visible", |this| {
            nodes.iter().all(|node| this.nodes[*node as usize].reached.is_some())
        })
    }

    /// Handles events until the condition holds.
    pub(super) fn pump(
        &mut self,
        what: &'static str,
        until: impl FnMut(&mut Self) -> bool,
    ) -> Result<(), DemoError> {
        let limit = self.limit();
        match self.pump_within(limit, until) {
            Ok(true) => Ok(()),
            Ok(false) => {
                let stderr = (0..self.options.nodes).map(|node| self.stderr(node)).collect();
                Err(DemoError::TimeUp { seconds: limit.as_secs(), what, stderr })
            }
            Err(error) => Err(error),
        }
    }

    /// The same until a time since the start: `false` if the condition does not hold by then.
    pub(super) fn pump_within(
        &mut self,
        limit: Duration,
        mut until: impl FnMut(&mut Self) -> bool,
    ) -> Result<bool, DemoError> {
        while !until(self) {
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(DemoError::Interrupted);
            }
            if self.started.elapsed() >= limit.min(self.limit()) {
                return Ok(false);
            }
            if let Some(event) = self.processes.receive(POLL) {
                self.handle(event)?;
            }
        }
        Ok(true)
    }

    /// How long the run has taken.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The watchdog: no run may take longer, whatever happens.
    fn limit(&self) -> Duration {
        Duration::from_secs(60 + 3 * self.options.seconds)
    }

    fn wanted(&self, percent: u64) -> Duration {
        Duration::from_millis(self.options.seconds * 10 * percent)
    }

    fn try_open(&mut self) -> Result<(), DemoError> {
        self.addresses = free_addresses(self.options.nodes)?;
        for node in 0..self.options.nodes {
            self.start_node(node)?;
        }
        (0..self.options.nodes).try_for_each(|node| self.await_ready(node))
    }

    fn handle(&mut self, event: Event) -> Result<(), DemoError> {
        let node = event.node;
        if event.life != self.nodes[node as usize].life {
            return Ok(()); // the last words of an attempt to open that was given up
        }
        match event.what {
            EventKind::Report(report) => self.handle_report(node, report),
            EventKind::Garbage(line) => Err(DemoError::Garbage { node, line }),
            EventKind::Closed => {
                self.model.died(node);
                let view = &mut self.nodes[node as usize];
                view.closed = true;
                view.stop_working();
                if view.may_end {
                    return Ok(());
                }
                let status = self.processes.wait(node, Duration::from_secs(5))?;
                let status = describe_status(status);
                Err(DemoError::NodeDied { node, status, stderr: self.stderr(node) })
            }
        }
    }

    fn handle_report(&mut self, node: u32, report: Report) -> Result<(), DemoError> {
        let view = &mut self.nodes[node as usize];
        match report {
            Report::Ready => view.ready = true,
            Report::Status { leader, term } => view.status = Some((leader, term)),
            Report::Announced { number, operation } => {
                self.model.announce((node, number), operation);
            }
            Report::Acknowledged { number, index, at_us, latency_us, retries } => {
                view.figures.acknowledged(at_us, latency_us, retries);
                self.model.acknowledge((node, number), index);
                if self.loading {
                    let commits = self.model.counts().acknowledged;
                    self.progress.at(self.model.rows_loaded(), || format!("{commits} commits"));
                }
            }
            Report::Refused { number, retries, reason: _ } => {
                view.figures.retries += u64::from(retries);
                self.model.refuse((node, number));
            }
            Report::InDoubt { number, reason } => {
                self.progress.note(&format!("node {node}: in doubt: {reason}"));
                self.model.doubt((node, number));
            }
            Report::Found { row } => self.model.found(row),
            Report::Done => {
                view.done = true;
                view.stop_working();
            }
            Report::Reached { index, state_hash } => view.reached = Some((index, state_hash)),
            Report::Marked { at_us } => view.marks.push(at_us),
            Report::Record(record) => view.records.push(record),
            Report::Dumped { indexes, engine_check } => view.dump = Some((indexes, engine_check)),
            Report::Stopped => view.stopped = true,
            Report::Failed { reason, address_in_use } => {
                let stderr = self.stderr(node);
                return Err(DemoError::NodeFailed { node, reason, address_in_use, stderr });
            }
        }
        Ok(())
    }

    fn stderr(&mut self, node: u32) -> String {
        let lines = self.processes.stderr(node);
        if lines.is_empty() {
            return String::new();
        }
        format!("\n  standard error of node {node}:\n    {}", lines.join("\n    "))
    }
}

/// An exit status in words.
pub(super) fn describe_status(status: Option<ExitStatus>) -> String {
    status.map_or_else(|| "still running".to_owned(), |status| status.to_string())
}

/// Loopback addresses that nobody listens on now, below the range from which the system takes the
/// local ports of outgoing connections: no connection of the cluster itself can take one of them
/// while its node is dead.
fn free_addresses(count: u32) -> io::Result<Vec<SocketAddr>> {
    const FIRST: u16 = 20_000;
    const PORTS: u16 = 12_000;
    // Somewhere else for each process and each attempt, so that demos side by side seldom meet.
    let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), count);
    let offset = (seed % u64::from(PORTS)) as u16;
    let mut held = Vec::new();
    for step in 0..PORTS {
        if held.len() == count as usize {
            break;
        }
        let port = FIRST + (offset + step) % PORTS;
        held.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
    }
    if held.len() < count as usize {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "no free ports on loopback"));
    }
    held.iter().map(TcpListener::local_addr).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_addresses_are_distinct_and_can_be_bound() {
        let addresses = free_addresses(7).expect("loopback has free ports");
        let mut ports: Vec<u16> = addresses.iter().map(SocketAddr::port).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 7);
        TcpListener::bind(addresses[0]).expect("free");
    }
}
