//! `quorate member`: the nodes of a cluster, listed and changed.

use std::process::ExitCode;

use quorate::{AdminAnswer, AdminRequest, NodeId};
use serde::Serialize;

use super::status::{members, table};
use super::{Failure, ask_change, ask_status, connect, to_json};
use crate::arguments::{MemberAction, MemberOptions};
use crate::output;

/// The JSON object of a change; described in `cli/README.md`.
#[derive(Debug, Serialize)]
struct Done {
    done: &'static str,
    node: u32,
    index: Option<u64>,
}

/// Runs `quorate member`.
pub(crate) fn member(options: &MemberOptions) -> ExitCode {
    let json = options.reach.json;
    match run(options) {
        Ok(text) => {
            output::line(&text);
            ExitCode::SUCCESS
        }
        Err(failure) => failure.show(json),
    }
}

fn run(options: &MemberOptions) -> Result<String, Failure> {
    let addr = options.node.as_deref().expect("checked with the arguments");
    let mut client = connect(addr, &options.reach)?;
    let json = options.reach.json;
    let Some((request, node)) = request(&options.action) else {
        let status = ask_status(&mut client)?;
        return Ok(if json { to_json(&members(&status)) } else { table(&status) });
    };
    let answer = ask_change(&mut client, &request, &options.reach)?;
    let (done, node, index) = match answer {
        AdminAnswer::Changed { index, node } => (done(&options.action), node.0, Some(index.0)),
        AdminAnswer::Transferred => (done(&options.action), node, None),
        other => return Err(Failure::unexpected(&other)),
    };
    Ok(if json { to_json(&Done { done, node, index }) } else { told(&options.action, node) })
}

/// What is asked for, and the node it is about if that is known; `None` for the list.
fn request(action: &MemberAction) -> Option<(AdminRequest, u32)> {
    Some(match action.clone() {
        MemberAction::List => return None,
        // Its id comes with the answer.
        MemberAction::Add { addr, rank } => (AdminRequest::AddNode { addr, rank }, u32::MAX),
        MemberAction::Remove { id } => (AdminRequest::RemoveNode { node: NodeId(id) }, id),
        MemberAction::Rank { id, new_rank } => {
            (AdminRequest::SetRank { node: NodeId(id), rank: new_rank }, id)
        }
        MemberAction::Address { id, addr } => {
            (AdminRequest::SetAddress { node: NodeId(id), addr }, id)
        }
        MemberAction::Transfer { id } => (AdminRequest::TransferLeadership { to: NodeId(id) }, id),
    })
}

fn done(action: &MemberAction) -> &'static str {
    match action {
        MemberAction::List => "listed",
        MemberAction::Add { .. } => "added",
        MemberAction::Remove { .. } => "removed",
        MemberAction::Rank { .. } => "rank",
        MemberAction::Address { .. } => "address",
        MemberAction::Transfer { .. } => "leads",
    }
}

/// What is so now, and what to do next.
fn told(action: &MemberAction, node: u32) -> String {
    match action {
        MemberAction::List => String::new(),
        MemberAction::Add { addr, rank } => format!(
            "node {node} is added; open it with node_id {node} and {addr} in place {node} of its \
             list, and it gets its rank, {rank}, when it has caught up"
        ),
        MemberAction::Remove { .. } => {
            format!("node {node} is removed; if its process still runs, it ends or can be stopped")
        }
        MemberAction::Rank { new_rank, .. } => {
            format!("node {node} has rank {new_rank}, or gets it as soon as it has caught up")
        }
        MemberAction::Address { addr, .. } => format!(
            "node {node} is looked for at {addr} from now on; if it does not listen there yet, \
             start it again with that address"
        ),
        MemberAction::Transfer { .. } => format!("node {node} leads"),
    }
}
