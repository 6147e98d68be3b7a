//! The check at the end: what every node holds against what was acknowledged, and against each
//! other; then the orderly stop.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::conductor::{Conductor, DemoError, describe_status};
use super::protocol::Command;
use super::summary::Check;
use super::verify::{Verdict, Verifier};

/// How often the nodes are asked for a common index before that counts as a failure.
const SETTLE_ATTEMPTS: u32 = 20;

/// How long a node may take to stop and exit.
const STOP_WITHIN: Duration = Duration::from_secs(30);

impl Conductor<'_> {
    /// Waits until all nodes have the same index.
    pub(crate) fn settle(&mut self) -> Result<(), DemoError> {
        self.progress.phase("check", u64::from(self.options.nodes));
        let all: Vec<u32> = (0..self.options.nodes).collect();
        let mut target = self.model.newest_index();
        for _ in 0..SETTLE_ATTEMPTS {
            self.reach(&all, target)?;
            let indexes: BTreeSet<u64> = self.reached().map(|(index, _)| index).collect();
            if indexes.len() == 1 {
                break;
            }
            // A transaction in doubt was committed meanwhile, and not all had it yet.
            target = indexes.into_iter().next_back().unwrap_or(target);
        }
        Ok(())
    }

    /// Compares every node with the model and with the others. The verdicts are by node.
    pub(crate) fn check(&mut self) -> Result<Vec<Verdict>, DemoError> {
        let mut verdicts = Vec::new();
        for node in 0..self.options.nodes {
            self.processes.send(node, &Command::Dump);
            self.pump("the records of a node", |this| this.nodes[node as usize].dump.is_some())?;
            let mut verifier = Verifier::new(&self.model, &self.airports);
            let records = std::mem::take(&mut self.nodes[node as usize].records);
            records.into_iter().for_each(|record| verifier.record(record));
            verdicts.push(verifier.finish());
            self.progress.at(u64::from(node) + 1, || format!("node {node} compared"));
        }
        self.check_against_model(&verdicts);
        self.check_indexes();
        self.check_agreement(&verdicts);
        Ok(verdicts)
    }

    /// Stops all nodes in order and checks how they ended.
    pub(crate) fn stop(&mut self) -> Result<(), DemoError> {
        for node in 0..self.options.nodes {
            self.nodes[node as usize].may_end = true;
            self.processes.send(node, &Command::Stop);
        }
        let limit = self.elapsed() + STOP_WITHIN;
        self.pump_within(limit, |this| this.nodes.iter().all(|node| node.closed))?;
        let mut wrong = Vec::new();
        for node in 0..self.options.nodes {
            let status = self.processes.wait(node, Duration::from_secs(2))?;
            let orderly = self.nodes[node as usize].stopped;
            if !orderly || !status.is_some_and(|status| status.success()) {
                let said = if orderly { "" } else { " without having stopped" };
                wrong.push(format!("node {node}: {}{said}", describe_status(status)));
            }
        }
        self.hold("all nodes stop in order and exit with status 0", wrong);
        Ok(())
    }

    fn check_against_model(&mut self, verdicts: &[Verdict]) {
        let wrong = |part: fn(&Verdict) -> &super::verify::Differences| -> Vec<String> {
            (0..)
                .zip(verdicts)
                .filter(|(_, verdict)| !part(verdict).is_empty())
                .map(|(node, verdict): (u32, _)| {
                    format!("node {node}: {}", part(verdict).describe())
                })
                .collect()
        };
        let (writes, counters) = (wrong(|v| &v.writes), wrong(|v| &v.counters));
        let accounts = wrong(|v| &v.accounts);
        let mut reports = self.model.violations().to_vec();
        if self.model.open_count() > 0 {
            reports.push(format!("{} operations never ended", self.model.open_count()));
        }
        self.hold("each acknowledged write is on every node, and no other", writes);
        self.hold("counters are the sum of their increments", counters);
        self.hold("accounts are what transfers made of them, their total is unchanged", accounts);
        self.hold("each acknowledged index was given once, each operation ended once", reports);
    }

    fn check_indexes(&mut self) {
        let (mut wrong, mut engine, mut walked) = (Vec::new(), Vec::new(), 0);
        for (node, view) in (0_u32..).zip(&self.nodes) {
            let Some((indexes, engine_check)) = &view.dump else { continue };
            walked += indexes.len();
            for walk in indexes {
                let at = format!("node {node}, {}.{}", walk.class, walk.index);
                if walk.entries != walk.records {
                    let (entries, records) = (walk.entries, walk.records);
                    wrong.push(format!("{at}: {entries} entries for {records} records"));
                }
                wrong.extend(walk.problem.iter().map(|problem| format!("{at}: {problem}")));
            }
            engine.extend(engine_check.iter().map(|found| format!("node {node}: {found}")));
        }
        if walked == 0 {
            wrong.push("no index was walked".to_owned());
        }
        self.hold("every index leads to exactly the records, in order", wrong);
        self.hold("the engine's check of itself finds nothing", engine);
    }

    fn check_agreement(&mut self, verdicts: &[Verdict]) {
        let counts: BTreeSet<&BTreeMap<String, u64>> =
            verdicts.iter().map(|v| &v.records).collect();
        let contents: BTreeSet<u64> = verdicts.iter().map(|v| v.content_hash).collect();
        let hashes: BTreeSet<(u64, &str)> = self.reached().collect();
        let differ = |differ: bool, what: String| if differ { vec![what] } else { Vec::new() };
        let counts = differ(counts.len() != 1, format!("they are {counts:?}"));
        let contents = differ(contents.len() != 1, "the records differ".to_owned());
        let hashes = differ(hashes.len() != 1, format!("they are {hashes:?}"));
        self.hold("record counts are equal on all nodes", counts);
        self.hold("records are equal on all nodes", contents);
        self.hold("index and state hash are equal on all nodes", hashes);
    }

    fn reached(&self) -> impl Iterator<Item = (u64, &str)> {
        self.nodes
            .iter()
            .filter_map(|node| node.reached.as_ref().map(|(index, hash)| (*index, hash.as_str())))
    }

    /// Notes a check, which holds if nothing is wrong.
    fn hold(&mut self, name: &'static str, wrong: Vec<String>) {
        self.checks.push(Check { name, ok: wrong.is_empty(), detail: wrong.join("; ") });
    }
}
