//! `quorate demo`: a cluster of processes on this machine that loads real data, loses its leader,
//! fights over records, and is then checked write by write.
//!
//! ```text
//!   conductor (this process)              node processes (`quorate internal-node`)
//!   ------------------------   commands   ------------------------------------
//!   phases, model, judgement  --------->  node: command loop
//!   figures, summary          <---------  work: load, changes; dump: records and indexes
//!                              reports    (the database itself, over loopback TCP)
//! ```
//!
//! The conductor never opens a database. It judges from what nodes report: what they announced and
//! settled (`model`), and the records they hold at the end (`verify`).

mod conductor;
mod data;
mod dump;
mod failover;
mod figures;
mod judge;
mod model;
mod node;
mod processes;
mod progress;
mod protocol;
mod summary;
mod verify;
mod work;

use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::arguments::DemoOptions;
use crate::output;

use conductor::{Conductor, DemoError};
use progress::Progress;
use summary::{NodeSummary, Summary};
use verify::Verdict;

pub(crate) use node::run as run_node;

/// The exit status of a command ended by a signal that asks for it, as shells give it.
const INTERRUPTED: u8 = 130;

/// Runs the demo and prints the summary.
pub(crate) fn run(options: &DemoOptions) -> ExitCode {
    let interrupted = match catch_signals() {
        Ok(interrupted) => interrupted,
        Err(error) => {
            output::note(&format!("quorate: signals cannot be caught: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let progress = Progress::new(options.quiet || options.json);
    let mut conductor = Conductor::new(options, &interrupted, &progress);
    let mut summary = Summary { version: env!("CARGO_PKG_VERSION"), ..Summary::default() };
    let result = conduct(&mut conductor, &mut summary);
    fill(&mut summary, &conductor);
    drop(conductor); // ends the processes
    drop(progress);
    let code = match &result {
        Err(DemoError::Interrupted) => ExitCode::from(INTERRUPTED),
        Ok(()) if summary.checks.iter().all(|check| check.ok) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    };
    summary.ok = code == ExitCode::SUCCESS;
    summary.error = result.err().map(|error| error.to_string());
    output::line(&if options.json { summary.to_json() } else { summary.to_text() });
    code
}

/// All phases. What was found until an error is in the summary and the conductor.
fn conduct(conductor: &mut Conductor<'_>, summary: &mut Summary) -> Result<(), DemoError> {
    conductor.open()?;
    conductor.setup()?;
    conductor.begin_load();
    summary.failover_skipped = conductor.failover_skipped();
    if summary.failover_skipped.is_none() {
        summary.failover = Some(conductor.failover()?);
    }
    conductor.finish_load()?;
    conductor.change()?;
    conductor.settle()?;
    let verdicts = conductor.check()?;
    summary.records = verdicts.first().map(|v| v.records.clone()).unwrap_or_default();
    summary.nodes = node_summaries(conductor, &verdicts);
    conductor.stop()
}

fn fill(summary: &mut Summary, conductor: &Conductor<'_>) {
    let counts = conductor.model.counts();
    summary.commits = counts.acknowledged;
    summary.in_doubt = counts.in_doubt;
    summary.refused = counts.refused;
    summary.elapsed_s = conductor.elapsed().as_secs_f64();
    if summary.nodes.is_empty() {
        summary.nodes = node_summaries(conductor, &[]);
    }
    summary.commits_per_second = summary.nodes.iter().map(|node| node.commits_per_second).sum();
    if let Some(failover) = &mut summary.failover {
        let gaps = summary.nodes.iter().filter_map(|node| node.failover_gap_ms);
        failover.gap_ms = gaps.reduce(f64::max);
    }
    if let Some((index, hash)) = conductor.nodes.first().and_then(|node| node.reached.clone()) {
        (summary.index, summary.state_hash) = (index, Some(hash));
    }
    summary.checks.clone_from(&conductor.checks);
}

fn node_summaries(conductor: &Conductor<'_>, verdicts: &[Verdict]) -> Vec<NodeSummary> {
    let records = |verdict: &Verdict| BTreeMap::values(&verdict.records).sum();
    (0..)
        .zip(&conductor.nodes)
        .map(|(node, view)| NodeSummary {
            node,
            restarted: view.restarted,
            commits: view.figures.commits(),
            commits_per_second: view.figures.commits_per_second(),
            p50_us: view.figures.latency_us(0.50),
            p99_us: view.figures.latency_us(0.99),
            retries: view.figures.retries,
            failover_gap_ms: conductor.failover_gap_ms(node),
            records: verdicts.get(node as usize).map_or(0, records),
            state_hash: view.reached.as_ref().map(|(_, hash)| hash.clone()),
        })
        .collect()
}

/// A flag that is set by Ctrl-C and its kin.
fn catch_signals() -> io::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
    }
    Ok(flag)
}
