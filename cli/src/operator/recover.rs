//! `quorate recover`: a cluster formed again from a survivor.

use std::io::{self, BufRead as _};
use std::process::ExitCode;

use quorate::{AdminAnswer, AdminRequest, ClusterStatus, Recovery};
use serde::Serialize;

use super::{Failure, ask_change, ask_status, connect, to_json};
use crate::arguments::RecoverOptions;
use crate::output;

/// What has to be typed: more than a slip of the finger.
const CONFIRMATION: &str = "recover";

/// The JSON object of a recovery; described in `cli/README.md`.
#[derive(Debug, Serialize)]
struct Done {
    epoch_counter: u64,
    epoch_bits: String,
    index: u64,
    survivor_index: u64,
    may_be_lost: String,
}

/// Runs `quorate recover`.
pub(crate) fn recover(options: &RecoverOptions) -> ExitCode {
    match run(options) {
        Ok(text) => {
            output::line(&text);
            ExitCode::SUCCESS
        }
        Err(failure) => failure.show(options.reach.json),
    }
}

fn run(options: &RecoverOptions) -> Result<String, Failure> {
    let mut client = connect(&options.from, &options.reach)?;
    if !options.yes {
        let status = ask_status(&mut client)?;
        output::note(&warning(&status, &options.from));
        confirm()?;
        // The node closes a connection on which nothing is asked for long.
        client = connect(&options.from, &options.reach)?;
    }
    let recovery = match ask_change(&mut client, &AdminRequest::Recover, &options.reach)? {
        AdminAnswer::Recovered(recovery) => recovery,
        other => return Err(Failure::unexpected(&other)),
    };
    Ok(if options.reach.json { to_json(&Done::from(recovery)) } else { told(&recovery) })
}

fn warning(status: &ClusterStatus, from: &str) -> String {
    let node = status.node_id;
    let gone = status.members.iter().filter(|member| !member.connected);
    let gone: Vec<String> = gone.map(|member| member.info.node_id.to_string()).collect();
    let gone = if gone.is_empty() { "none".to_owned() } else { gone.join(", ") };
    format!(
        "Node {node} at {from} holds the state up to index {}. Nodes it is not connected to: \
         {gone}.\n\
         The cluster will go on from this state in a new epoch. Whatever the others acknowledged \
         beyond\nit is lost, and nodes of the old epoch can come back only without their state.",
        status.index.0
    )
}

/// Waits for the confirmation on standard input.
fn confirm() -> Result<(), Failure> {
    output::note(&format!("Type {CONFIRMATION} to go on:"));
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    if read.is_ok() && line.trim() == CONFIRMATION {
        return Ok(());
    }
    let error = "not confirmed; nothing was changed (--yes goes on without asking)".to_owned();
    Err(Failure { error, may_still_happen: false })
}

fn told(recovery: &Recovery) -> String {
    format!(
        "the cluster was formed again: epoch {}, from index {}; its transactions go on behind \
         index {}\nmay be lost: {}\nnodes of the old epoch: start them again without state",
        recovery.epoch, recovery.survivor_index.0, recovery.index.0, recovery.may_be_lost
    )
}

impl From<Recovery> for Done {
    fn from(recovery: Recovery) -> Self {
        Self {
            epoch_counter: recovery.epoch.counter,
            epoch_bits: format!("{:016x}", recovery.epoch.bits),
            index: recovery.index.0,
            survivor_index: recovery.survivor_index.0,
            may_be_lost: recovery.may_be_lost,
        }
    }
}
