//! A node: a process that opens the database, runs clients, and reports.
//!
//! It ends with its conductor: the kernel kills it when that is gone, stopped or not.

use std::io::{self, BufRead as _, Lines, StdinLock, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use quorate::{
    ClusterNodeParams, ClusterParams, Database, DatabaseParams, ListenerHandle, Options,
};

use crate::client::{self, Client, Control};
use crate::history::{Writer, now_ns};
use crate::protocol::{Command, Load, Report, Setup, Work};
use crate::trouble::{Result, Trouble};

/// The variable that says what a node logs to standard error, as in `quorate_cluster=debug`.
const LOG_VARIABLE: &str = "QUORATE_LOG";

const SEGMENT_SIZE_BYTES: u64 = 1 << 30;

/// How far clocks may seem apart that are equal: a busy machine starts processes late.
const CLOCK_NS_MAX: u64 = 60_000_000_000;

const STATUS_INTERVAL: Duration = Duration::from_millis(20);

const REACH_STEP: Duration = Duration::from_millis(1);

struct Node {
    setup: Setup,
    database: Database,
    listener: ListenerHandle,
    control: Arc<Control>,
    clients: Vec<JoinHandle<Result<()>>>,
    /// How many clients there were.
    numbered: usize,
    /// What they did last.
    work: Option<Work>,
}

/// Runs a node until its standard input closes or it cannot go on.
pub fn run() -> ExitCode {
    if let Err(error) = prctl::set_pdeathsig(Signal::SIGKILL) {
        say(&Report::Failed { reason: format!("no signal at the conductor's end: {error}") });
        return ExitCode::FAILURE;
    }
    let filter = std::env::var(LOG_VARIABLE).unwrap_or_else(|_| "info".to_owned());
    let filter = tracing_subscriber::EnvFilter::new(filter);
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    match obey(io::stdin().lock().lines()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            say(&Report::Failed { reason: trouble.to_string() });
            ExitCode::FAILURE
        }
    }
}

fn obey(mut lines: Lines<StdinLock<'_>>) -> Result<()> {
    let Some(first) = lines.next() else { return Ok(()) };
    let first = first.map_err(Trouble::doing("standard input"))?;
    let setup: Setup = serde_json::from_str(&first).map_err(Trouble::doing("setup"))?;
    let mut node = Node::open(setup)?;
    say(&Report::Ready);
    for line in lines {
        let line = line.map_err(Trouble::doing("standard input"))?;
        node.obey(serde_json::from_str(&line).map_err(Trouble::doing("command"))?)?;
    }
    Ok(())
}

impl Node {
    fn open(setup: Setup) -> Result<Self> {
        let conductor_ns = now_ns().wrapping_add_signed(-setup.clock_ahead_ns);
        if conductor_ns.abs_diff(setup.conductor_ns) > CLOCK_NS_MAX {
            return Err(Trouble::new("its clock is not ahead as told: no time namespaces here"));
        }
        let nodes = setup.addresses.iter().map(ClusterNodeParams::new).collect();
        let params = ClusterParams::new(setup.node as u32, nodes)
            .with_insecure(true)
            .with_commit_limit(setup.commit_limit_ms)
            .with_connect(setup.connect_timeout_ms, 200);
        let data = DatabaseParams::default().with_segment_size_bytes(SEGMENT_SIZE_BYTES);
        let options = Options::default().database(data).cluster(params);
        let database = Database::open("faults", client::dictionary()?, options)
            .map_err(Trouble::doing("opening"))?;
        let listener = database.spawn_listener().map_err(Trouble::doing("listening"))?;
        let watched = database.clone();
        thread::spawn(move || report_status(&watched));
        let (control, clients) = (Arc::default(), Vec::new());
        Ok(Self { setup, database, listener, control, clients, numbered: 0, work: None })
    }

    fn obey(&mut self, command: Command) -> Result<()> {
        if self.listener.is_finished() {
            return Err(Trouble::new("the listener has ended"));
        }
        match command {
            Command::Prepare(work) => {
                client::prepare(&self.database, &work)?;
                self.done();
            }
            Command::Work(work) => self.start(&work)?,
            Command::Progress => {
                let since = now_ns();
                while self.control.acknowledged_ns.load(Ordering::Relaxed) < since {
                    thread::sleep(REACH_STEP);
                }
                self.done();
            }
            Command::Audit { lists } => {
                for load in [Load::Registers, Load::Serializable, Load::Bank] {
                    let work = self.work.clone().ok_or_else(|| Trouble::new("nothing to audit"))?;
                    self.client(load, &work)?.audit(&lists)?;
                }
                self.done();
            }
            Command::Rest => {
                self.control.rest.store(true, Ordering::Relaxed);
                for client in self.clients.drain(..) {
                    client.join().map_err(|_| Trouble::new("a client panicked"))??;
                }
                self.done();
            }
            Command::Reach { index } => {
                while self.database.visible_index().0 < index {
                    thread::sleep(REACH_STEP);
                }
                say(&self.state());
            }
        }
        Ok(())
    }

    fn start(&mut self, work: &Work) -> Result<()> {
        self.work = Some(work.clone());
        self.control = Arc::default();
        for load in &work.loads {
            let mut client = self.client(*load, work)?;
            let control = Arc::clone(&self.control);
            self.clients.push(thread::spawn(move || {
                client.run(&control).inspect_err(|trouble| {
                    say(&Report::Failed { reason: trouble.to_string() });
                })
            }));
        }
        Ok(())
    }

    /// The next client of this life.
    fn client(&mut self, load: Load, work: &Work) -> Result<Client> {
        let Setup { node, life, ref directory, clock_ahead_ns, flaw, .. } = self.setup;
        let number = self.numbered;
        self.numbered += 1;
        let writer = Writer::create(directory, node, life, number, load, clock_ahead_ns)
            .map_err(Trouble::doing("history"))?;
        Client::new(&self.database, writer, (load, work), flaw, (node, life, number))
    }

    /// An index and the hash of the state there. Nobody works, but what was in doubt can still
    /// commit.
    fn state(&self) -> Report {
        loop {
            let index = self.database.visible_index().0;
            let state_hash = format!("{:032x}", self.database.state_hash());
            if self.database.visible_index().0 == index {
                return Report::Reached { index, state_hash };
            }
        }
    }

    fn done(&self) {
        say(&Report::Done { index: self.database.visible_index().0 });
    }
}

fn report_status(database: &Database) {
    let mut last = None;
    while let Some(status) = database.cluster_status() {
        let now = (status.leader.map(|node| node.0 as usize), status.term);
        if last.replace(now) != Some(now) {
            say(&Report::Status { leader: now.0, term: now.1 });
        }
        thread::sleep(STATUS_INTERVAL);
    }
}

/// One line, in one write.
fn say(report: &Report) {
    let mut line = serde_json::to_string(report).expect("a report is plain data");
    line.push('\n');
    let mut out = io::stdout().lock();
    // If the conductor is gone, so is this process.
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}
