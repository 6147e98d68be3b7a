//! Measuring: repeated runs, side by side, of things that should be compared.
//!
//! All contestants of one figure take turns within the same process, so that whatever else the
//! machine does meets all of them; what counts is the median of the rounds. Which contestants
//! there are and what they do belongs to the programs in `src/bin`, not here.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Who does the same work in a comparison.
pub struct Contestant<'a> {
    /// What it is, honestly.
    pub name: &'static str,
    /// Does the work so many times.
    pub run: Box<dyn FnMut(u64) + 'a>,
}

/// What one contestant needed for one operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Whose figure it is.
    pub name: &'static str,
    /// Median of the rounds, in nanoseconds for one operation.
    pub median_ns: f64,
    /// The best round.
    pub min_ns: f64,
    /// The worst round.
    pub max_ns: f64,
}

/// How long and how often to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds for each contestant.
    pub rounds: usize,
    /// About how long one round takes.
    pub round: Duration,
}

impl<'a> Contestant<'a> {
    /// Names it and says what to do once.
    pub fn new(name: &'static str, mut once: impl FnMut() + 'a) -> Self {
        let run = Box::new(move |times| (0..times).for_each(|_| once()));
        Self { name, run }
    }
}

/// Lets all contestants take turns, and gives their figures in the same order.
pub fn compare(effort: Effort, contestants: &mut [Contestant<'_>]) -> Vec<Figure> {
    let times: Vec<u64> = contestants.iter_mut().map(|c| calibrate(effort.round, c)).collect();
    let mut rounds = vec![Vec::with_capacity(effort.rounds); contestants.len()];
    for _ in 0..effort.rounds {
        for ((contestant, times), results) in contestants.iter_mut().zip(&times).zip(&mut rounds) {
            let start = Instant::now();
            (contestant.run)(*times);
            results.push(start.elapsed().as_nanos() as f64 / *times as f64);
        }
    }
    contestants.iter().zip(rounds).map(|(c, results)| Figure::new(c.name, results)).collect()
}

/// A block of text for one comparison: the first contestant is ours, the others are told as
/// multiples of it.
pub fn describe(title: &str, figures: &[Figure]) -> String {
    let mut text = format!("{title}\n");
    let ours = figures.first().map_or(f64::NAN, |figure| figure.median_ns);
    for Figure { name, median_ns, min_ns, max_ns } in figures {
        let (median, min, max) = (readable(*median_ns), readable(*min_ns), readable(*max_ns));
        let share = median_ns / ours;
        writeln!(text, "  {name:<44} {median:>9}  ({min} to {max})  x{share:.2}")
            .expect("writes to a string");
    }
    text
}

impl Figure {
    fn new(name: &'static str, mut rounds_ns: Vec<f64>) -> Self {
        rounds_ns.sort_by(f64::total_cmp);
        let middle = rounds_ns.len() / 2;
        let median_ns = if rounds_ns.len() % 2 == 1 {
            rounds_ns[middle]
        } else {
            f64::midpoint(rounds_ns[middle - 1], rounds_ns[middle])
        };
        Self { name, median_ns, min_ns: rounds_ns[0], max_ns: rounds_ns[rounds_ns.len() - 1] }
    }
}

/// How many times fill a round. Warms up on the way.
fn calibrate(round: Duration, contestant: &mut Contestant<'_>) -> u64 {
    let mut times = 1;
    loop {
        let start = Instant::now();
        (contestant.run)(times);
        let elapsed = start.elapsed();
        if elapsed * 10 >= round {
            let wanted = times as f64 * round.as_secs_f64() / elapsed.as_secs_f64().max(1e-9);
            return (wanted as u64).max(1);
        }
        times *= 2;
    }
}

fn readable(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.2} us", ns / 1e3),
        ns => format!("{:.2} ms", ns / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_round() {
        assert_eq!(Figure::new("odd", vec![5.0, 1.0, 3.0]).median_ns, 3.0);
        let figure = Figure::new("even", vec![4.0, 1.0, 2.0, 9.0]);
        assert_eq!((figure.median_ns, figure.min_ns, figure.max_ns), (3.0, 1.0, 9.0));
    }

    #[test]
    fn every_contestant_runs_in_every_round() {
        let (mut first, mut second) = (0_u64, 0_u64);
        let effort = Effort { rounds: 3, round: Duration::from_micros(10) };
        let figures = compare(
            effort,
            &mut [Contestant::new("a", || first += 1), Contestant::new("b", || second += 1)],
        );
        assert_eq!(figures.iter().map(|f| f.name).collect::<Vec<_>>(), ["a", "b"]);
        assert!(first >= 3 && second >= 3);
    }

    #[test]
    fn ours_is_the_measure_of_the_others() {
        let figures = [Figure::new("ours", vec![100.0]), Figure::new("theirs", vec![2_500.0])];
        let text = describe("read", &figures);
        assert!(text.contains("100 ns") && text.contains("2.50 us") && text.contains("x25.00"));
    }
}
