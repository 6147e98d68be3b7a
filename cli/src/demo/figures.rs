//! What the demo measures of a node: commits, latencies, retries, and gaps between commits.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest latency told apart, in microseconds: what is longer counts as this.
const LONGEST_US: u64 = 60_000_000;

/// One node's figures, over all its processes.
pub(crate) struct Figures {
    latencies_us: Histogram<u64>,
    /// When each commit was acknowledged, in microseconds of the clock of the process that runs.
    acknowledged_at_us: Vec<u64>,
    /// Operations begun again after a conflict.
    pub(crate) retries: u64,
    /// The time the node was asked to work.
    pub(crate) active: Duration,
}

impl Figures {
    /// Nothing measured yet.
    pub(crate) fn new() -> Self {
        Self {
            latencies_us: Histogram::new_with_bounds(1, LONGEST_US, 3).expect("valid bounds"),
            acknowledged_at_us: Vec::new(),
            retries: 0,
            active: Duration::ZERO,
        }
    }

    /// A commit was acknowledged.
    pub(crate) fn acknowledged(&mut self, at_us: u64, latency_us: u64, retries: u32) {
        self.latencies_us.saturating_record(latency_us.max(1));
        self.acknowledged_at_us.push(at_us);
        self.retries += u64::from(retries);
    }

    /// The node was restarted: its clock starts anew.
    pub(crate) fn restarted(&mut self) {
        self.acknowledged_at_us.clear();
    }

    /// How many commits were acknowledged.
    pub(crate) fn commits(&self) -> u64 {
        self.latencies_us.len()
    }

    /// Commits per second of active time.
    pub(crate) fn commits_per_second(&self) -> f64 {
        let seconds = self.active.as_secs_f64();
        if seconds > 0.0 { self.commits() as f64 / seconds } else { 0.0 }
    }

    /// The latency that this share of commits did not exceed, in microseconds.
    pub(crate) fn latency_us(&self, quantile: f64) -> u64 {
        self.latencies_us.value_at_quantile(quantile)
    }

    /// See [`longest_gap`].
    pub(crate) fn longest_gap_us(&self, from_us: u64, to_us: u64) -> Option<u64> {
        let mut times = self.acknowledged_at_us.clone();
        times.sort_unstable(); // several threads report
        longest_gap(&times, from_us, to_us)
    }

    /// Whether a commit was acknowledged after this moment.
    pub(crate) fn acknowledged_after(&self, moment_us: u64) -> bool {
        self.acknowledged_at_us.iter().rev().take(64).any(|at| *at > moment_us)
    }
}

/// The longest time between two neighbours of `times` (sorted) that has a moment of
/// `from..=to` in it. `None` if nothing came after `from`: then the gap never ended.
fn longest_gap(times: &[u64], from: u64, to: u64) -> Option<u64> {
    let first = times.partition_point(|time| *time <= from);
    let mut previous = if first == 0 { from } else { times[first - 1] };
    let mut longest = None;
    for time in &times[first..] {
        longest = longest.max(Some(time - previous));
        previous = *time;
        if previous >= to {
            break;
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_is_the_one_around_the_moment() {
        let times = [0, 100, 110, 120, 500, 510, 2_000];
        assert_eq!(longest_gap(&times, 115, 505), Some(380));
        assert_eq!(longest_gap(&times, 115, 100_000), Some(1_490), "within the window");
        assert_eq!(longest_gap(&times, 505, 505), Some(10));
        assert_eq!(longest_gap(&times, 2_000, 3_000), None, "never ended");
        assert_eq!(longest_gap(&[50], 20, 60), Some(30), "from the moment itself");
    }

    #[test]
    fn quantiles_and_rates_come_from_what_was_recorded() {
        let mut figures = Figures::new();
        assert_eq!(figures.commits_per_second(), 0.0);
        (1..=100).for_each(|i| figures.acknowledged(i, i * 10, 1));
        figures.active = Duration::from_secs(4);
        assert_eq!((figures.commits(), figures.retries), (100, 100));
        assert_eq!(figures.commits_per_second(), 25.0);
        assert_eq!(figures.latency_us(0.5), 500);
        assert!(figures.latency_us(0.99) >= 990);
        assert!(figures.acknowledged_after(99) && !figures.acknowledged_after(100));
    }
}
