//! How long nobody commits after a fault: the measurement behind the bars.
//!
//! Each repeat is a fault in a running cluster whose clients write all the time, on every node.
//! The *gap* is the longest time between two acknowledged commits of one node, the worst of the
//! surviving nodes, from just before the fault until a few seconds after it. Runs in which nothing
//! is done are measured in between, in the same cluster and the same way, since a busy machine
//! makes gaps of its own. So does the *stall*: how long the conductor itself, which only wanted to
//! sleep a millisecond at a time, was kept waiting.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Options};
use crate::history::{End, Operation, now_ns};
use crate::protocol::{Load, Work};
use crate::trouble::Result;

/// How long clients work before each fault.
const BEFORE: Duration = Duration::from_millis(500);

/// How long after a fault its gap may end.
const AFTER: Duration = Duration::from_millis(2_500);

/// What is done to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing, for comparison.
    None,
    /// SIGKILL of the leader.
    KillLeader,
    /// SIGSTOP of the leader.
    StopLeader,
    /// The leader is cut off: no packet in or out.
    CutLeader,
    /// SIGKILL of a follower.
    KillFollower,
    /// SIGSTOP of a follower.
    StopFollower,
    /// A follower is cut off.
    CutFollower,
}

/// Figures of one kind of fault.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which.
    pub fault: Fault,
    /// Gaps in microseconds, sorted.
    pub gaps_us: Vec<u64>,
    /// The longest stall of the machine meanwhile, microseconds.
    pub stall_us: u64,
    /// How many terms began, in all repeats.
    pub terms: u64,
}

/// Measures stalls until the last handle is dropped.
#[derive(Debug)]
struct Metronome {
    longest_us: Arc<AtomicU64>,
}

impl Metronome {
    const BEAT: Duration = Duration::from_millis(1);

    fn start() -> Self {
        let longest_us = Arc::new(AtomicU64::new(0));
        let weak = Arc::downgrade(&longest_us);
        thread::spawn(move || {
            let mut last = Instant::now();
            while let Some(longest_us) = weak.upgrade() {
                thread::sleep(Self::BEAT);
                let late = last.elapsed().saturating_sub(Self::BEAT);
                longest_us.fetch_max(late.as_micros() as u64, Ordering::Relaxed);
                last = Instant::now();
            }
        });
        Self { longest_us }
    }

    /// The longest stall since the last call.
    fn take_us(&self) -> u64 {
        self.longest_us.swap(0, Ordering::Relaxed)
    }
}

/// All kinds, the runs without a fault first.
pub const ALL: [Fault; 7] = [
    Fault::None,
    Fault::KillLeader,
    Fault::StopLeader,
    Fault::CutLeader,
    Fault::KillFollower,
    Fault::StopFollower,
    Fault::CutFollower,
];

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::None => "no fault",
            Self::KillLeader => "SIGKILL leader",
            Self::StopLeader => "SIGSTOP leader",
            Self::CutLeader => "cut leader",
            Self::KillFollower => "SIGKILL follower",
            Self::StopFollower => "SIGSTOP follower",
            Self::CutFollower => "cut follower",
        }
    }

    fn hits_leader(self) -> bool {
        matches!(self, Self::KillLeader | Self::StopLeader | Self::CutLeader)
    }

    /// What the median may be, in microseconds; none for followers, whose bar is a comparison.
    fn bar_us(self) -> Option<u64> {
        match self {
            Self::KillLeader => Some(50_000),
            Self::StopLeader | Self::CutLeader => Some(500_000),
            _ => None,
        }
    }

    fn inflict(self, cluster: &mut Cluster, node: usize) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::KillLeader | Self::KillFollower => cluster.kill(node),
            Self::StopLeader | Self::StopFollower => cluster.stop(node),
            Self::CutLeader | Self::CutFollower => cluster.lab().isolate(node),
        }
    }
}

impl Row {
    /// The middle one; the lower of two.
    pub fn median_us(&self) -> u64 {
        self.gaps_us[(self.gaps_us.len() - 1) / 2]
    }

    /// The largest.
    pub fn max_us(&self) -> u64 {
        *self.gaps_us.last().expect("at least one repeat")
    }
}

/// Measures every kind of fault this many times, in turn.
///
/// # Errors
///
/// If a cluster does not form or does not come back.
pub fn measure(
    nodes: usize,
    repeats: usize,
    clients: usize,
    pause_us: u64,
    mut progress: impl FnMut(&str),
) -> Result<Vec<Row>> {
    let options = Options { nodes, commit_limit_ms: 5_000, flaw: None, clocks_apart: false };
    let mut rows = ALL.map(|fault| Row { fault, gaps_us: Vec::new(), stall_us: 0, terms: 0 });
    let metronome = Metronome::start();
    for repeat in 0..repeats {
        let mut cluster = Cluster::start(options.clone())?;
        let (loads, seed) = (vec![Load::Own; clients], repeat as u64);
        let work = Work { loads, pause_us, keys: 1, seed };
        cluster.work(&work)?;
        for row in &mut rows {
            let (gap_us, terms, stall_us) = repeat_once(&mut cluster, row.fault, &metronome)?;
            let (name, gap, stall) = (row.fault.name(), gap_us as f64 / 1e3, stall_us as f64 / 1e3);
            progress(&format!("{name:<17} {gap:>8.1} ms, {terms} terms, stalled {stall:>5.1} ms"));
            row.gaps_us.push(gap_us);
            row.stall_us = row.stall_us.max(stall_us);
            row.terms += terms;
        }
    }
    for row in &mut rows {
        row.gaps_us.sort_unstable();
    }
    Ok(rows.to_vec())
}

/// The gap, the terms that began, and the stall.
fn repeat_once(
    cluster: &mut Cluster,
    fault: Fault,
    metronome: &Metronome,
) -> Result<(u64, u64, u64)> {
    let leader = cluster.await_leader()?;
    cluster.run_for(BEFORE)?;
    let victim = if fault.hits_leader() { leader } else { (leader + 1) % cluster.size() };
    let term = cluster.term();
    metronome.take_us();
    let from = now_ns();
    fault.inflict(cluster, victim)?;
    cluster.run_for(AFTER)?;
    let to = now_ns();
    let (terms, stall_us) = (cluster.term() - term, metronome.take_us());
    let history = cluster.history()?;
    let spared = (0..cluster.size()).filter(|node| fault == Fault::None || *node != victim);
    let gap_us = spared.map(|node| longest_gap_us(&history, node, from, to)).max().unwrap_or(0);
    cluster.heal()?;
    cluster.run_for(BEFORE)?;
    Ok((gap_us, terms, stall_us))
}

/// The longest time without an acknowledgement on a node that overlaps `from` to `to`.
fn longest_gap_us(history: &[Operation], node: usize, from: u64, to: u64) -> u64 {
    let acknowledged = history.iter().filter(|o| o.node == node && o.end == End::Ok);
    let mut times: Vec<u64> = acknowledged.filter_map(|o| o.ended_ns).collect();
    times.sort_unstable();
    // The last before counts: a gap begins with it.
    let first = times.partition_point(|at| *at < from).saturating_sub(1);
    let within = times[first..].iter().take_while(|at| **at <= to).copied();
    let bounded: Vec<u64> = within.chain([to]).collect();
    bounded.windows(2).map(|pair| (pair[1] - pair[0]) / 1_000).max().unwrap_or((to - from) / 1_000)
}

/// The figures as a table, with the bars; and whether all are met.
pub fn table(rows: &[Row]) -> (String, bool) {
    let quiet_us = rows.iter().find(|row| row.fault == Fault::None).map_or(0, Row::max_us);
    let mut text =
        String::from("write gap, ms      median      min      max  terms  stall   bar\n");
    let mut all_met = true;
    for row in rows {
        let (judged, bar_us, of) = match row.fault.bar_us() {
            Some(bar_us) => (row.median_us(), bar_us, "median"),
            None if row.fault == Fault::None => (0, 0, ""),
            None => (row.max_us(), 2 * quiet_us, "max"),
        };
        let met = judged <= bar_us;
        all_met &= met;
        let ms = |us: u64| us as f64 / 1e3;
        let (median, min, max) = (ms(row.median_us()), ms(row.gaps_us[0]), ms(row.max_us()));
        let name = row.fault.name();
        let (terms, stall) = (row.terms, ms(row.stall_us));
        write!(text, "{name:<16} {median:>8.1} {min:>8.1} {max:>8.1} {terms:>6} {stall:>6.1}")
            .expect("a string");
        if row.fault != Fault::None {
            let verdict = if met { "met" } else { "MISSED" };
            write!(text, "   {of} <= {:.1}: {verdict}", ms(bar_us)).expect("a string");
        }
        text.push('\n');
    }
    (text, all_met)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Promise, Step};

    fn acknowledged(node: usize, ended_ns: u64) -> Operation {
        Operation {
            node,
            client: String::new(),
            load: Load::Own,
            steps: vec![Step::Write(0, 0)],
            promise: Promise::Snapshot,
            called_ns: 0,
            ended_ns: Some(ended_ns),
            end: End::Ok,
            index: 0,
            doubted: false,
        }
    }

    #[test]
    fn a_gap_begins_before_the_fault_and_may_never_end() {
        let history: Vec<Operation> =
            [1_000, 8_000, 9_000, 30_000, 31_000].map(|at| acknowledged(0, at)).to_vec();
        assert_eq!(longest_gap_us(&history, 0, 10_000, 35_000), 21);
        assert_eq!(longest_gap_us(&history, 0, 10_000, 90_000), 59);
        assert_eq!(longest_gap_us(&history, 1, 10_000, 90_000), 80);
        // What was before the fault does not count.
        assert_eq!(longest_gap_us(&history, 0, 8_500, 9_500), 1);
    }

    #[test]
    fn bars_are_judged() {
        let row =
            |fault, gaps: [u64; 3]| Row { fault, gaps_us: gaps.to_vec(), stall_us: 0, terms: 0 };
        let quiet = row(Fault::None, [1_000, 2_000, 3_000]);
        let rows = [
            quiet.clone(),
            row(Fault::KillLeader, [10_000, 50_000, 90_000]),
            row(Fault::CutFollower, [1_000, 2_000, 6_000]),
        ];
        assert!(table(&rows).1);
        assert!(!table(&[quiet.clone(), row(Fault::KillLeader, [1, 50_001, 50_002])]).1);
        assert!(!table(&[quiet, row(Fault::CutFollower, [1, 2, 6_001])]).1);
    }
}
