//! A toy database with many versions, right or broken on purpose, whose histories both checkers
//! judge: what is right passes, every mistake is found, and the checkers agree.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use quorate_histories::outside::{Verdict, judge_isolation, judge_registers};
use quorate_histories::{
    History, Isolation, NotIsolated, NotLinearizable, Operation, Outcome, Step, check_isolation,
    check_linearizable_registers,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// Read sets are not certified: serializable transactions are not.
    ReadsIgnored,
    /// Write sets are not certified: the last one wins.
    WritesIgnored,
    /// A refused transaction stays visible.
    RefusedStays,
    /// Fresh snapshots are old ones.
    StaleSnapshots,
    /// A snapshot is of one moment for odd keys and of another for even ones.
    TornSnapshots,
    /// Some acknowledged transactions are not there.
    Forgotten,
}

const MISTAKES: [Mistake; 6] = [
    Mistake::ReadsIgnored,
    Mistake::WritesIgnored,
    Mistake::RefusedStays,
    Mistake::StaleSnapshots,
    Mistake::TornSnapshots,
    Mistake::Forgotten,
];

struct Toy {
    mistake: Mistake,
    random: u64,
    /// Versions of each key by commit: the whole list.
    versions: BTreeMap<u64, Vec<(u64, Vec<u64>)>>,
    commits: u64,
    next_value: u64,
    now: u64,
    history: History,
}

struct Running {
    process: u64,
    begin: u64,
    snapshots: [u64; 2],
    serializable: bool,
    fresh: bool,
    reads: Vec<(u64, Vec<u64>)>,
    appends: BTreeMap<u64, u64>,
}

impl Toy {
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    fn at(&self, key: u64, snapshot: u64) -> Vec<u64> {
        let versions = self.versions.get(&key).map_or(&[][..], Vec::as_slice);
        let version = versions.iter().rev().find(|(commit, _)| *commit <= snapshot);
        version.map_or(Vec::new(), |(_, list)| list.clone())
    }

    fn changed_since(&self, key: u64, snapshot: u64) -> bool {
        let versions = self.versions.get(&key).and_then(|versions| versions.last());
        versions.is_some_and(|(commit, _)| *commit > snapshot)
    }

    fn begin(&mut self, process: u64, mixed: bool) -> Running {
        let serializable = !mixed || self.below(2) == 0;
        let fresh = self.below(2) == 0;
        let old = self.commits.saturating_sub(self.below(4));
        let newest = if self.mistake == Mistake::StaleSnapshots { old } else { self.commits };
        let torn = self.mistake == Mistake::TornSnapshots;
        let snapshots = [newest, if torn { old } else { newest }];
        let (reads, appends) = (Vec::new(), BTreeMap::new());
        Running { process, begin: self.now, snapshots, serializable, fresh, reads, appends }
    }

    fn work(&mut self, running: &mut Running, keys: u64) {
        for _ in 0..=self.below(3) {
            let key = self.below(keys);
            if running.reads.iter().all(|(read, _)| *read != key) {
                running.reads.push((key, self.at(key, running.snapshots[(key % 2) as usize])));
            }
        }
        for key in 0..keys {
            if self.below(3) == 0 {
                self.next_value += 1;
                running.appends.insert(key, self.next_value);
            }
        }
    }

    fn end(&mut self, running: Running) {
        let written = running.appends.keys();
        let conflict = self.mistake != Mistake::WritesIgnored
            && written.clone().any(|key| self.changed_since(*key, running.snapshots[0]));
        let stale = running.serializable
            && !running.appends.is_empty()
            && self.mistake != Mistake::ReadsIgnored
            && running.reads.iter().any(|(key, _)| self.changed_since(*key, running.snapshots[0]));
        let refused = conflict || stale;
        let unknown = !refused && self.below(10) == 0;
        let lost = unknown && self.below(2) == 0;
        let forgotten = self.mistake == Mistake::Forgotten && self.below(5) == 0;
        if !forgotten && !lost && (!refused || self.mistake == Mistake::RefusedStays) {
            self.commits += 1;
            for (key, value) in &running.appends {
                let mut list = self.at(*key, running.snapshots[0]);
                list.push(*value);
                self.versions.entry(*key).or_default().push((self.commits, list));
            }
        }
        let read = |(key, values)| Step::ReadList { key, values };
        let append = |(key, value)| Step::Append { key, value };
        let reads = running.reads.into_iter().map(read);
        let steps = reads.chain(running.appends.into_iter().map(append)).collect();
        let outcome = match (refused, unknown) {
            (true, _) => Outcome::Refused,
            (_, true) => Outcome::Unknown,
            _ => Outcome::Committed,
        };
        self.history.operations.push(Operation {
            process: running.process,
            begin: running.begin,
            end: Some(self.now),
            outcome,
            isolation: match running.serializable {
                true => Isolation::Serializable,
                false => Isolation::Snapshot,
            },
            fresh: running.fresh,
            steps,
        });
    }
}

fn run(seed: u64, mistake: Mistake, mixed: bool) -> History {
    let mut toy = Toy {
        mistake,
        random: seed.wrapping_mul(2) | 1,
        versions: BTreeMap::new(),
        commits: 0,
        next_value: 0,
        now: 0,
        history: History::default(),
    };
    let mut clients: Vec<Option<Running>> = (0..4).map(|_| None).collect();
    for step in 0..80 {
        toy.now += 1;
        let at = toy.below(4) as usize;
        match clients[at].take() {
            None => {
                let mut running = toy.begin(1000 * step + at as u64, mixed);
                toy.work(&mut running, 3);
                clients[at] = Some(running);
            }
            Some(running) => toy.end(running),
        }
    }
    // The last one sees what is left.
    let mut last = toy.begin(1_000_000, false);
    last.reads = (0..3).map(|key| (key, toy.at(key, toy.commits))).collect();
    toy.now += 1;
    toy.end(last);
    toy.history
}

fn lists_all_seen(history: &History) -> bool {
    let steps = || history.operations.iter().flat_map(|operation| &operation.steps);
    let seen = |value: &u64| {
        steps().any(|step| matches!(step, Step::ReadList { values, .. } if values.contains(value)))
    };
    let committed = history.operations.iter().filter(|o| o.outcome == Outcome::Committed);
    committed.flat_map(|o| &o.steps).filter_map(Step::written).all(|value| seen(&value))
}

fn is_bad(history: &History) -> bool {
    match check_isolation(history) {
        Ok(_) => false,
        Err(NotIsolated::Anomalies(_)) => true,
        Err(error) => panic!("{error}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_right_database_passes(seed: u64, mixed: bool) {
        let history = run(seed, Mistake::None, mixed);
        if let Err(error) = check_isolation(&history) {
            prop_assert!(false, "{}", error);
        }
        let verdict = judge_isolation(&history);
        prop_assert_eq!(verdict, Verdict::Good);
    }

    #[test]
    fn what_the_other_checker_finds_ours_finds(seed: u64, mixed: bool, which in 0..MISTAKES.len()) {
        let history = run(seed, MISTAKES[which], mixed);
        if let Verdict::Bad(what) = judge_isolation(&history) {
            prop_assert!(is_bad(&history), "{:?}: only the other found {}", MISTAKES[which], what);
        }
    }

    #[test]
    fn what_ours_finds_without_time_or_levels_the_other_finds(
        seed: u64,
        which in 0..MISTAKES.len(),
    ) {
        let history = run(seed, MISTAKES[which], false);
        let Err(NotIsolated::Anomalies(anomalies)) = check_isolation(&history) else {
            return Ok(());
        };
        // The other does not look at what transactions saw that did not commit for sure.
        let committed = |at: &usize| history.operations[*at].outcome == Outcome::Committed;
        // Nor does it know where an element belongs that nobody saw, if there are several.
        if lists_all_seen(&history)
            && anomalies.iter().all(|a| !a.in_time && a.operations.iter().all(committed)) {
            let verdict = judge_isolation(&history);
            let bad = matches!(verdict, Verdict::Bad(_));
            prop_assert!(bad, "{:?} {:?}: {:?}", MISTAKES[which], anomalies, verdict);
        }
    }

    #[test]
    fn both_register_checkers_agree(seed: u64, stale in 0u64..3) {
        let history = registers(seed, stale);
        let ours = match check_linearizable_registers(&history) {
            Ok(_) => true,
            Err(NotLinearizable::NoOrder { .. }) => false,
            Err(error) => panic!("{error}"),
        };
        prop_assert!(ours || stale > 0, "a right register is found wrong");
        match judge_registers(&history) {
            Verdict::Good => prop_assert!(ours),
            Verdict::Bad(_) => prop_assert!(!ours),
            Verdict::Unknown(_) => {}
        }
    }
}

#[test]
fn every_mistake_is_found_soon() {
    for mistake in MISTAKES {
        let found = (1..40).filter(|seed| is_bad(&run(*seed, mistake, seed % 2 == 0))).count();
        assert!(found >= 10, "{mistake:?} is found in {found} of 39 histories");
    }
}

/// A register each operation of which happens at a moment between its begin and end, unless
/// `stale` of ten reads see the value before.
fn registers(seed: u64, stale: u64) -> History {
    let mut random = seed.wrapping_mul(2) | 1;
    let mut below = |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    let (mut values, mut before) = ([None; 2], [None; 2]);
    let mut history = History::default();
    for number in 1..40u64 {
        let key = below(2) as usize;
        let moment = 10 * number;
        let old = if below(10) < stale { before[key] } else { values[key] };
        let read = Step::Read { key: key as u64, value: old };
        let write = Step::Write { key: key as u64, value: number };
        let steps = match below(3) {
            0 => vec![read],
            1 => vec![write],
            _ => vec![read, write],
        };
        let writes = steps.iter().any(|step| step.written().is_some());
        if writes {
            (before[key], values[key]) = (values[key], Some(number));
        }
        let unknown = writes && below(10) == 0;
        history.operations.push(Operation {
            process: number,
            begin: moment - below(40).min(moment),
            end: (!unknown).then(|| moment + below(40)),
            outcome: if unknown { Outcome::Unknown } else { Outcome::Committed },
            isolation: Isolation::Serializable,
            fresh: true,
            steps,
        });
    }
    history
}
