//! What the demo found, as tables and as JSON. The JSON is described in `cli/README.md`.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use serde::{Serialize, Serializer};

use super::failover::role;

/// All that a run of the demo found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Summary {
    /// True if the run came to its end and all checks held.
    pub(crate) ok: bool,
    /// Why the run did not come to its end.
    pub(crate) error: Option<String>,
    /// The version of the program.
    pub(crate) version: &'static str,
    /// How long the run took, in seconds.
    #[serde(serialize_with = "rounded")]
    pub(crate) elapsed_s: f64,
    /// One row per node.
    pub(crate) nodes: Vec<NodeSummary>,
    /// Commits of all nodes.
    pub(crate) commits: u64,
    /// Commits per second of all nodes together, while they worked.
    #[serde(serialize_with = "rounded")]
    pub(crate) commits_per_second: f64,
    /// Operations in doubt: what the killed process had open, mostly.
    pub(crate) in_doubt: u64,
    /// Operations refused for good after all their retries.
    pub(crate) refused: u64,
    /// The killed leader.
    pub(crate) failover: Option<Failover>,
    /// Why no leader was killed.
    pub(crate) failover_skipped: Option<&'static str>,
    /// Records of each class at the end.
    pub(crate) records: BTreeMap<String, u64>,
    /// The index that all nodes reached.
    pub(crate) index: u64,
    /// The state hash at it.
    pub(crate) state_hash: Option<String>,
    /// What was checked.
    pub(crate) checks: Vec<Check>,
}

/// One node's figures.
#[derive(Debug, Serialize)]
pub(crate) struct NodeSummary {
    /// Its id.
    pub(crate) node: u32,
    /// True if it was killed and started again.
    pub(crate) restarted: bool,
    /// Acknowledged commits.
    pub(crate) commits: u64,
    /// Per second of the time it was asked to work, the time in which it was dead not counted.
    #[serde(serialize_with = "rounded")]
    pub(crate) commits_per_second: f64,
    /// Median latency from begin to acknowledgement, retries included, in microseconds.
    pub(crate) p50_us: u64,
    /// 99th percentile of the same.
    pub(crate) p99_us: u64,
    /// Operations begun again after a conflict.
    pub(crate) retries: u64,
    /// The longest time without an acknowledged commit around the kill, in milliseconds.
    #[serde(serialize_with = "rounded_if_any")]
    pub(crate) failover_gap_ms: Option<f64>,
    /// How many records it holds.
    pub(crate) records: u64,
    /// Its state hash at the end.
    pub(crate) state_hash: Option<String>,
}

/// How the cluster took the loss of a node, its leader unless another was asked for.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Failover {
    /// The node that was killed.
    pub(crate) killed_node: u32,
    /// Whether it led then.
    pub(crate) was_leader: bool,
    /// The term then.
    pub(crate) term: u64,
    /// How much of the data was loaded then, in percent.
    #[serde(serialize_with = "rounded")]
    pub(crate) loaded_percent: f64,
    /// The longest gap of all survivors, in milliseconds.
    #[serde(serialize_with = "rounded_if_any")]
    pub(crate) gap_ms: Option<f64>,
    /// From the start of the new process until it was a member and had caught up.
    #[serde(serialize_with = "rounded")]
    pub(crate) rejoin_ms: f64,
}

/// One thing that was checked.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    /// What must be so.
    pub(crate) name: &'static str,
    /// Whether it is.
    pub(crate) ok: bool,
    /// What is instead, or on what it was judged.
    pub(crate) detail: String,
}

impl Summary {
    /// One JSON object.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a summary is plain data")
    }

    /// Tables for people.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        if !self.nodes.is_empty() {
            text += &format!("{}\n\n", self.node_table());
        }
        let (commits, rate) = (self.commits, self.commits_per_second);
        text += &format!("commits        {commits} in all, {rate:.0} per second\n");
        let whose = if self.failover.is_some() { ", of the killed process" } else { "" };
        let (in_doubt, refused) = (self.in_doubt, self.refused);
        text += &format!("open ends      {in_doubt} in doubt{whose}; {refused} given up or void\n");
        if let Some(failover) = &self.failover {
            text += &format!("failover       {}\n", failover.describe());
        }
        if let Some(reason) = self.failover_skipped {
            text += &format!("failover       skipped: {reason}\n");
        }
        if let (Some(hash), false) = (&self.state_hash, self.records.is_empty()) {
            let records: Vec<String> =
                self.records.iter().map(|(class, count)| format!("{class} {count}")).collect();
            text += &format!("records        {}\n", records.join(", "));
            text += &format!("state          hash {hash} at index {}\n", self.index);
        }
        for check in &self.checks {
            let verdict = if check.ok { "ok" } else { "FAILED" };
            text += &format!("\n{verdict:>6}  {}", check.name);
            if !check.detail.is_empty() {
                text += &format!(" ({})", check.detail);
            }
        }
        if !self.checks.is_empty() {
            text += "\n";
        }
        if let Some(error) = &self.error {
            text += &format!("\nthe demo did not come to its end: {error}\n");
        }
        let elapsed = self.elapsed_s;
        let failed = self.checks.iter().filter(|check| !check.ok).count();
        text += &match (self.ok, failed) {
            (true, _) => format!("\nall {} checks held, {elapsed:.1} s", self.checks.len()),
            (false, 0) => format!("\nFAILED after {elapsed:.1} s"),
            (false, _) => format!("\nFAILED: {failed} checks, {elapsed:.1} s"),
        };
        text
    }

    fn node_table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header([
            "node",
            "commits",
            "commits/s",
            "p50 ms",
            "p99 ms",
            "retries",
            "gap ms",
            "records",
            "hash",
        ]);
        for node in &self.nodes {
            let short = |hash: &String| hash.chars().take(8).collect::<String>();
            table.add_row([
                format!("{}{}", node.node, if node.restarted { " killed" } else { "" }),
                node.commits.to_string(),
                format!("{:.0}", node.commits_per_second),
                format!("{:.2}", node.p50_us as f64 / 1e3),
                format!("{:.2}", node.p99_us as f64 / 1e3),
                node.retries.to_string(),
                node.failover_gap_ms.map_or_else(|| "-".to_owned(), |gap| format!("{gap:.0}")),
                node.records.to_string(),
                node.state_hash.as_ref().map_or_else(|| "-".to_owned(), short),
            ]);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2)); // all in 80 columns
        }
        for column in 1..8 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        if let Some(last) = table.column_mut(8) {
            last.set_padding((0, 0));
        }
        table
    }
}

impl Failover {
    fn describe(&self) -> String {
        let gap =
            self.gap_ms.map_or_else(|| "never ended".to_owned(), |gap| format!("{gap:.0} ms"));
        format!(
            "killed node {}, {} of term {}, at {:.0} % of the load;\n\
             {:15}longest gap {gap}; it was back after {:.0} ms",
            self.killed_node,
            role(self.was_leader),
            self.term,
            self.loaded_percent,
            "",
            self.rejoin_ms
        )
    }
}

fn rounded<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((number * 1e3).round() / 1e3)
}

fn rounded_if_any<S: Serializer>(number: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match number {
        Some(number) => rounded(number, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ok: bool) -> Check {
        Check { name: "records agree", ok, detail: "3 nodes".to_owned() }
    }

    #[test]
    fn a_failed_check_is_seen_in_text_and_json() {
        let summary = Summary { checks: vec![check(true), check(false)], ..Summary::default() };
        let text = summary.to_text();
        assert!(text.contains("    ok  records agree (3 nodes)"), "{text}");
        assert!(text.contains("FAILED  records agree") && text.contains("FAILED: 1 checks"));
        let json: serde_json::Value = serde_json::from_str(&summary.to_json()).expect("JSON");
        assert_eq!(json["checks"][1]["ok"], false);
        assert_eq!(json["ok"], false);
    }

    #[test]
    fn an_early_end_says_why() {
        let error = Some("node 1 died".to_owned());
        let text = Summary { error, ..Summary::default() }.to_text();
        assert!(text.contains("node 1 died") && text.ends_with("FAILED after 0.0 s"), "{text}");
    }
}
