//! What an operator does with a running cluster: look at it, change its nodes, form it again.
//!
//! Each command connects to one node as a program that is none, asks, and shows the answer. What
//! can be asked and what the answers mean is the cluster's; here are only words and tables.

mod member;
mod recover;
mod status;

use std::process::ExitCode;
use std::time::Duration;

use quorate::{
    AdminAnswer, AdminClient, AdminClientError, AdminError, AdminRequest, ClusterStatus,
};
use serde::Serialize;

use crate::arguments::Reach;
use crate::output;

pub(crate) use member::member;
pub(crate) use recover::recover;
pub(crate) use status::status;

/// How long an attempt to connect may take: a node that runs accepts at once.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Refused or not reached: nothing was changed.
const REFUSED: u8 = 1;

/// What was asked may still happen.
const UNKNOWN: u8 = 3;

/// The node cannot commit now.
const NOT_READY: u8 = 4;

/// Why a command did not do what was asked.
#[derive(Debug, Serialize)]
struct Failure {
    /// What happened, and what to do next.
    error: String,
    /// True if what was asked may still happen.
    may_still_happen: bool,
}

impl Failure {
    fn refused(error: &AdminError) -> Self {
        let may_still_happen = matches!(error, AdminError::TimedOut { .. } | AdminError::Stopped);
        Self { error: error.to_string(), may_still_happen }
    }

    /// Nothing was asked yet.
    fn before(error: &AdminClientError) -> Self {
        Self { error: error.to_string(), may_still_happen: false }
    }

    /// The request was on its way.
    fn after(error: &AdminClientError) -> Self {
        Self { error: error.to_string(), may_still_happen: true }
    }

    fn unexpected(answer: &AdminAnswer) -> Self {
        let error = format!("the node answered something else than was asked: {answer:?}");
        Self { error, may_still_happen: true }
    }

    fn show(&self, json: bool) -> ExitCode {
        if json {
            output::line(&to_json(&self));
        } else {
            output::note(&format!("error: {}", self.error));
        }
        ExitCode::from(if self.may_still_happen { UNKNOWN } else { REFUSED })
    }
}

/// Connects to a node.
fn connect(addr: &str, reach: &Reach) -> Result<AdminClient, Failure> {
    let timeout = Duration::from_secs(reach.timeout);
    let mut client = AdminClient::connect(addr, timeout.min(CONNECT_LIMIT))
        .map_err(|error| Failure::before(&error))?;
    client.set_timeout(timeout);
    Ok(client)
}

/// Asks a node how the cluster is.
fn ask_status(client: &mut AdminClient) -> Result<ClusterStatus, Failure> {
    // Asking changes nothing, whatever becomes of the answer.
    match client.request(&AdminRequest::Status).map_err(|error| Failure::before(&error))? {
        AdminAnswer::Status(status) => Ok(*status),
        AdminAnswer::Refused(error) => {
            Err(Failure { may_still_happen: false, ..Failure::refused(&error) })
        }
        other => Err(Failure { may_still_happen: false, ..Failure::unexpected(&other) }),
    }
}

/// Asks for a change; a node that says who leads instead is taken at its word, once.
fn ask_change(
    client: &mut AdminClient,
    request: &AdminRequest,
    reach: &Reach,
) -> Result<AdminAnswer, Failure> {
    let answer = client.request(request).map_err(|error| Failure::after(&error))?;
    let AdminAnswer::Refused(error) = answer else { return Ok(answer) };
    let AdminError::NotLeader { leader: Some(leader) } = error else {
        return Err(Failure::refused(&error));
    };
    let members = ask_status(client)?.members;
    let Some(member) = members.into_iter().find(|member| member.info.node_id == leader) else {
        return Err(Failure::refused(&error));
    };
    let mut leader = connect(&member.info.addr, reach)?;
    match leader.request(request).map_err(|error| Failure::after(&error))? {
        AdminAnswer::Refused(error) => Err(Failure::refused(&error)),
        answer => Ok(answer),
    }
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a tree of names, texts and numbers is JSON")
}
