//! `quorate status`: how a cluster is, as one node sees it.

use std::collections::BTreeMap;
use std::process::ExitCode;

use comfy_table::{CellAlignment, Table, presets};
use quorate::{ClusterMember, ClusterStatus, NodeId, Role};
use serde::Serialize;

use super::{Failure, NOT_READY, ask_status, connect, to_json};
use crate::arguments::StatusOptions;
use crate::output;

/// Runs `quorate status`.
pub(crate) fn status(options: &StatusOptions) -> ExitCode {
    let answer = connect(&options.node, &options.reach).and_then(|mut node| ask_status(&mut node));
    let status = match answer {
        Ok(status) => status,
        Err(failure) => return Failure::show(&failure, options.reach.json),
    };
    if options.reach.json {
        output::line(&to_json(&Shown::from(&status)));
    } else {
        output::line(&screen(&status));
    }
    if status.ready { ExitCode::SUCCESS } else { ExitCode::from(NOT_READY) }
}

/// The JSON object of `quorate status`; described in `cli/README.md`.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    version: &'a str,
    node: u32,
    cluster_id: Option<String>,
    epoch: ShownEpoch,
    phase: String,
    role: &'static str,
    term: u64,
    leader: Option<u32>,
    quorum: bool,
    ready: bool,
    waiting_for: Vec<ShownWait<'a>>,
    index: u64,
    log_entries: u64,
    members: Vec<ShownMember<'a>>,
    counters: BTreeMap<&'static str, u64>,
    callback_panics: u64,
}

#[derive(Debug, Serialize)]
struct ShownEpoch {
    counter: u64,
    bits: String,
}

#[derive(Debug, Serialize)]
struct ShownWait<'a> {
    node: u32,
    why: &'a str,
}

/// A node of the JSON; the list of `quorate member list` too.
#[derive(Debug, Serialize)]
pub(super) struct ShownMember<'a> {
    node: u32,
    address: &'a str,
    rank: u32,
    wanted_rank: u32,
    joined: bool,
    connected: bool,
    refusal: Option<String>,
}

impl<'a> From<&'a ClusterStatus> for Shown<'a> {
    fn from(status: &'a ClusterStatus) -> Self {
        let waiting = |(node, why): &'a (NodeId, String)| ShownWait { node: node.0, why };
        Self {
            version: &status.version,
            node: status.node_id.0,
            cluster_id: cluster_id(status),
            epoch: ShownEpoch {
                counter: status.epoch.counter,
                bits: format!("{:016x}", status.epoch.bits),
            },
            phase: status.phase.to_string(),
            role: role(status.role),
            term: status.term,
            leader: status.leader.map(|leader| leader.0),
            quorum: status.quorum,
            ready: status.ready,
            waiting_for: status.waiting_for.iter().map(waiting).collect(),
            index: status.index.0,
            log_entries: log_entries(status),
            members: members(status),
            counters: status.counters.named().into_iter().collect(),
            callback_panics: status.callback_panics,
        }
    }
}

/// Every member as JSON shows it.
pub(super) fn members(status: &ClusterStatus) -> Vec<ShownMember<'_>> {
    fn shown(member: &ClusterMember) -> ShownMember<'_> {
        ShownMember {
            node: member.info.node_id.0,
            address: &member.info.addr,
            rank: member.rank,
            wanted_rank: member.info.qrank,
            joined: member.joined,
            connected: member.connected,
            refusal: member.refusal.map(|reason| reason.to_string()),
        }
    }
    status.members.iter().map(shown).collect()
}

/// One screen for people.
fn screen(status: &ClusterStatus) -> String {
    let mut lines = Vec::new();
    let node = status.node_id;
    let leads = match status.leader {
        _ if status.role == Role::Leader => format!("leads in term {}", status.term),
        Some(leader) => format!("follows node {leader} in term {}", status.term),
        None => format!("knows no leader, term {}", status.term),
    };
    lines.push(match cluster_id(status) {
        Some(id) => {
            format!("node {node}: {}, {leads}\ncluster {id}, epoch {}", status.phase, status.epoch)
        }
        None => format!("node {node}: {}; it belongs to no cluster yet", status.phase),
    });
    let quorum = if status.quorum { "quorum" } else { "NO QUORUM" };
    let ready = if status.ready { "ready to commit" } else { "NOT READY to commit" };
    lines.push(format!("{quorum}, {ready}"));
    for (node, why) in &status.waiting_for {
        lines.push(format!("  waits for node {node}: {why}"));
    }
    let entries = log_entries(status);
    lines.push(format!("index {}, {entries} log entries in memory", status.index.0));
    lines.push(format!("version {}\n", status.version));
    lines.push(table(status));
    let counts =
        status.counters.named().into_iter().chain([("callback_panics", status.callback_panics)]);
    let counts: Vec<String> = counts
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{} {count}", name.replace('_', " ")))
        .collect();
    if !counts.is_empty() {
        lines.push(format!("\n{}", counts.join(", ")));
    }
    lines.join("\n")
}

/// The nodes, one a line.
pub(super) fn table(status: &ClusterStatus) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["node", "address", "rank", "state"]);
    for member in &status.members {
        let wanted = member.info.qrank;
        let rank = if member.rank == wanted {
            wanted.to_string()
        } else {
            format!("{} ({wanted} wanted)", member.rank)
        };
        table.add_row([
            member.info.node_id.to_string(),
            member.info.addr.clone(),
            rank,
            state(status, member),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for column in [0, 2] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn state(status: &ClusterStatus, member: &ClusterMember) -> String {
    let node = member.info.node_id;
    let mut words = Vec::new();
    if status.leader == Some(node) {
        words.push("leader".to_owned());
    }
    if node == status.node_id {
        words.push("asked".to_owned());
    } else if member.connected {
        words.push("connected".to_owned());
    } else {
        words.push("not connected".to_owned());
    }
    if !member.joined {
        words.push("not joined".to_owned());
    }
    let mut state = words.join(", ");
    if let Some(reason) = member.refusal.filter(|_| !member.connected) {
        state = format!("{state}: {reason}");
    }
    state
}

fn cluster_id(status: &ClusterStatus) -> Option<String> {
    (status.cluster_id != 0).then(|| format!("{:032x}", status.cluster_id))
}

fn log_entries(status: &ClusterStatus) -> u64 {
    let (first, last) = status.log_entries;
    if last == 0 { 0 } else { (last + 1).saturating_sub(first) }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::PreCandidate | Role::Candidate => "candidate",
        Role::Leader => "leader",
    }
}
