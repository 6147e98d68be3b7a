//! One node of the demo: a process that opens the database, does what it is told, and reports.
//!
//! ```text
//!   stdin -> reader -> main thread --commands--> driver (owns the database, runs the workers)
//!                      answers marks at once         |
//!                      ends the process              +--reports--> stdout
//! ```
//!
//! The main thread owns nothing that takes time to drop, and waits for one thing only, the next
//! wake-up; so when standard input closes (the demo is gone) the process ends at once, whatever
//! the driver is waiting for.

use std::io::{self, BufRead as _, BufWriter, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use quorate::{
    ClusterError, ClusterNodeParams, ClusterParams, Database, DatabaseParams, ListenerHandle,
    OpenError, Options,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tracing_subscriber::EnvFilter;

use super::data::{self, Airports};
use super::dump;
use super::protocol::{Command, Report};
use super::work::{WORKERS, Worker};

/// The exit status when the demo is gone.
const ORPHANED: u8 = 3;

/// The variable that says what a node logs to standard error, as in `debug` or
/// `quorate_cluster=trace`.
const LOG_VARIABLE: &str = "QUORATE_LOG";

/// Room for the airports and some million postings. Memory is taken as it is needed.
const SEGMENT_SIZE_BYTES: u64 = 1 << 30;

/// How often a conflicting operation is tried before it is given up.
const ATTEMPTS_MAX: u32 = 1_000;

const STATUS_INTERVAL: Duration = Duration::from_millis(25);

const REACH_STEP: Duration = Duration::from_millis(1);

/// What wakes the main thread.
enum Wake {
    Command(Command),
    /// Standard input closed, or holds what is no command.
    Orphaned,
    Ended(ExitCode),
}

/// Where reports go, from any thread; and the clock that they tell.
pub(super) struct Reporter {
    out: Mutex<BufWriter<io::Stdout>>,
    started: Instant,
}

/// Ends the demo of this node: there is nothing it could do about it.
pub(super) struct Fatal {
    pub(super) reason: String,
    pub(super) address_in_use: bool,
}

/// Runs the commands one after another.
struct Driver {
    reporter: Arc<Reporter>,
    airports: Airports,
    open: Option<Open>,
}

/// The open database and what belongs to it.
struct Open {
    node: u32,
    nodes: u32,
    database: Database,
    listener: Option<ListenerHandle>,
    workers: Vec<Worker>,
    /// Ends the thread that reports the status.
    quiet: Arc<AtomicBool>,
}

/// Runs a node until it has stopped or its standard input closes.
pub(crate) fn run() -> ExitCode {
    if let Err(error) = leave_signals_to_the_demo() {
        crate::output::note(&format!("quorate: signals cannot be caught: {error}"));
        return ExitCode::FAILURE;
    }
    start_logging();
    let (wake, wakes) = channel();
    let (commands, pending) = channel();
    let reporter = Arc::new(Reporter::new());
    let driver = Driver { reporter: Arc::clone(&reporter), airports: Airports::load(), open: None };
    let ended = wake.clone();
    thread::spawn(move || {
        // A panic has printed itself by then; the demo shows standard error.
        let code = thread::spawn(|| driver.run(pending)).join().unwrap_or(ExitCode::FAILURE);
        let _ = ended.send(Wake::Ended(code));
    });
    thread::spawn(move || read_commands(&wake));
    loop {
        match wakes.recv() {
            Ok(Wake::Command(Command::Mark)) => {
                reporter.say(&Report::Marked { at_us: reporter.now_us() });
            }
            Ok(Wake::Command(command)) => {
                let _ = commands.send(command); // if the driver is gone, `Ended` follows
            }
            Ok(Wake::Ended(code)) => return code,
            Ok(Wake::Orphaned) | Err(_) => return ExitCode::from(ORPHANED),
        }
    }
}

impl Reporter {
    fn new() -> Self {
        Self { out: Mutex::new(BufWriter::new(io::stdout())), started: Instant::now() }
    }

    /// Sends a report now.
    pub(super) fn say(&self, report: &Report) {
        self.write(report, true);
    }

    /// Sends a report together with the next one.
    pub(super) fn say_later(&self, report: &Report) {
        self.write(report, false);
    }

    /// Microseconds since the process started.
    pub(super) fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    fn write(&self, report: &Report, flush: bool) {
        let mut line = serde_json::to_string(report).expect("a report is plain data");
        line.push('\n');
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // If the demo is gone, closed standard input ends this process.
        let _ = out.write_all(line.as_bytes());
        if flush {
            let _ = out.flush();
        }
    }
}

impl Fatal {
    /// From anything that can be said.
    pub(super) fn new(reason: impl std::fmt::Display) -> Self {
        Self { reason: reason.to_string(), address_in_use: false }
    }
}

impl Driver {
    fn run(mut self, commands: Receiver<Command>) -> ExitCode {
        for command in commands {
            match self.obey(command) {
                Ok(false) => {}
                Ok(true) => return ExitCode::SUCCESS,
                Err(Fatal { mut reason, address_in_use }) => {
                    if let Some(end) = self.open.as_mut().and_then(Open::listener_end) {
                        reason = format!("{reason}; its listener has ended: {end}");
                    }
                    self.reporter.say(&Report::Failed { reason, address_in_use });
                    return ExitCode::FAILURE;
                }
            }
        }
        ExitCode::from(ORPHANED)
    }

    /// Runs one command; true after the last.
    fn obey(&mut self, command: Command) -> Result<bool, Fatal> {
        let reporter = Arc::clone(&self.reporter);
        if let Command::Open { node, life, addresses } = command {
            self.open = Some(open(node, life, &addresses, &reporter)?);
            reporter.say(&Report::Ready);
            return Ok(false);
        }
        let Some(open) = &mut self.open else {
            return Err(Fatal::new("the first command must be to open"));
        };
        match command {
            Command::Open { .. } | Command::Mark => unreachable!("answered above and in `run`"),
            Command::Setup => {
                open.workers[0].setup(&open.database, &reporter)?;
                reporter.say(&Report::Done);
            }
            Command::Load { rows, uncertain, pace_ms } => {
                let until = Instant::now() + Duration::from_millis(pace_ms);
                let (rows, uncertain) = (open.deal(&rows), open.deal(&uncertain));
                let airports = &self.airports;
                open.all_work(|worker, database| {
                    let (rows, uncertain) = (&rows[worker.id()], &uncertain[worker.id()]);
                    worker.load(database, &reporter, airports, rows, uncertain, until)
                })?;
                reporter.say(&Report::Done);
            }
            Command::Change { duration_ms } => {
                let until = Instant::now() + Duration::from_millis(duration_ms);
                let rows: Vec<u32> = self.airports.share(open.node, open.nodes).collect();
                let rows = open.deal(&rows);
                let airports = &self.airports;
                open.all_work(|worker, database| {
                    let rows = &rows[worker.id()];
                    worker.change(database, &reporter, airports, rows, until)
                })?;
                reporter.say(&Report::Done);
            }
            Command::Reach { index } => {
                while open.database.visible_index().0 < index {
                    thread::sleep(REACH_STEP);
                }
                let (index, state_hash) = dump::state(&open.database)?;
                reporter.say(&Report::Reached { index, state_hash });
            }
            Command::Dump => {
                let (indexes, engine_check) = dump::dump(&open.database, &reporter)?;
                reporter.say(&Report::Dumped { indexes, engine_check });
            }
            Command::Stop => {
                open.stop()?;
                reporter.say(&Report::Stopped);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Open {
    /// Rows by the worker that owns them.
    fn deal(&self, rows: &[u32]) -> Vec<Vec<u32>> {
        let mut hands = vec![Vec::new(); WORKERS];
        for row in rows {
            hands[(row / self.nodes) as usize % WORKERS].push(*row);
        }
        hands
    }

    /// Runs a job on all workers at once, and waits for all of them.
    fn all_work(
        &mut self,
        job: impl Fn(&mut Worker, &Database) -> Result<(), Fatal> + Sync,
    ) -> Result<(), Fatal> {
        let (database, job) = (&self.database, &job);
        thread::scope(|scope| {
            let running: Vec<_> = self
                .workers
                .iter_mut()
                .map(|worker| scope.spawn(move || job(worker, database)))
                .collect();
            running
                .into_iter()
                .map(|worker| {
                    worker.join().unwrap_or_else(|_| Err(Fatal::new("a worker panicked")))
                })
                .fold(Ok(()), Result::and)
        })
    }

    /// Why the listener has ended, if it has: mostly the cause of what went wrong elsewhere.
    fn listener_end(&mut self) -> Option<ClusterError> {
        self.listener.take_if(|listener| listener.is_finished())?.join().err()
    }

    fn stop(&mut self) -> Result<(), Fatal> {
        let Some(listener) = self.listener.take() else { return Ok(()) };
        let connection = self.database.connect().map_err(Fatal::new)?;
        connection.stop().map_err(Fatal::new)?;
        listener.join().map_err(Fatal::new)?;
        self.quiet.store(true, Ordering::Relaxed);
        Ok(())
    }
}

fn open(
    node: u32,
    life: u32,
    addresses: &[String],
    reporter: &Arc<Reporter>,
) -> Result<Open, Fatal> {
    let clustered = addresses.len() > 1;
    let params = DatabaseParams::default()
        .with_segment_size_bytes(SEGMENT_SIZE_BYTES)
        .with_transact_attempts(ATTEMPTS_MAX);
    let mut options = Options::default().database(params);
    if clustered {
        let nodes = addresses.iter().map(ClusterNodeParams::new).collect();
        let connect_timeout_ms = 30_000; // as long as the demo has patience, on a busy machine
        options =
            options.cluster(ClusterParams::new(node, nodes).with_connect(connect_timeout_ms, 50));
    }
    let database = Database::open("demo", data::dictionary(), options).map_err(|error| Fatal {
        address_in_use: matches!(error, OpenError::AddrInUse { .. }),
        reason: error.to_string(),
    })?;
    let listener = clustered.then(|| database.spawn_listener()).transpose().map_err(Fatal::new)?;
    let quiet = Arc::new(AtomicBool::new(false));
    report_status(database.clone(), Arc::clone(reporter), Arc::clone(&quiet));
    Ok(Open {
        node,
        nodes: addresses.len() as u32,
        database,
        listener,
        workers: (0..WORKERS).map(|id| Worker::new(id, node, life)).collect(),
        quiet,
    })
}

/// Reports the node's view of the cluster whenever it changes, from a thread of its own.
fn report_status(
    database: Database,
    reporter: Arc<Reporter>,
    quiet: Arc<AtomicBool>,
) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut last = None;
        while !quiet.load(Ordering::Relaxed) {
            if let Some(status) = database.cluster_status() {
                let now = (status.leader.map(|node| node.0), status.term);
                if last != Some(now) {
                    last = Some(now);
                    reporter.say(&Report::Status { leader: now.0, term: now.1 });
                }
            }
            thread::sleep(STATUS_INTERVAL);
        }
    })
}

fn read_commands(wake: &Sender<Wake>) {
    for line in io::stdin().lock().lines() {
        let command = line.ok().and_then(|line| serde_json::from_str(&line).ok());
        let Some(command) = command else { break };
        if wake.send(Wake::Command(command)).is_err() {
            break;
        }
    }
    let _ = wake.send(Wake::Orphaned);
}

/// Ctrl-C reaches every process of the terminal; the demo is the one to act on it, and ends its
/// nodes. Catching a signal without looking at it ignores it.
fn leave_signals_to_the_demo() -> io::Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    Ok(())
}

fn start_logging() {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
}
