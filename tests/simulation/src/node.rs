//! One simulated process: a replica, its engine, and a client's connection to it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use quorate_cluster::Procedures;
use quorate_cluster::replica::{Replica, ReplicaSettings};
use quorate_cluster::wire::Stamp;
use quorate_consensus::Identity;
use quorate_engine::{
    Access, BeginError, CommitError, CommitOptions, CommitPath, CommitTicket, Connection, Database,
    DatabaseParams, Index, Submission, TransactionId,
};
use quorate_schema::Dictionary;

use crate::bugs::Planted;
use crate::clock::Clock;
use crate::judging::Place;
use crate::operators::Listed;
use crate::options::Mix;
use crate::transport::End;

/// What every simulated database holds.
pub(crate) const DDL: &str = "
declare database simulation;
class Journal {
    unsigned<4> node; unsigned<4> life; unsigned<4> number; signed<4> counter;
    unique tree<node, life, number> by_operation;
};
class Counter { signed<4> id; signed<8> value; unique hash<id> by_id; };
class List { unsigned<4> id; string elements; unique hash<id> by_id; };
class Duty { unsigned<4> id; boolean on; unique tree<id> by_id; };
class Scratch { unsigned<4> id; string text; unique tree<id> by_id; tree<text> by_text; };
";

/// A process, from its start to its crash.
pub(crate) struct Process {
    pub(crate) identity: Identity,
    pub(crate) replica: Replica,
    pub(crate) connection: Connection,
    pub(crate) database: Database,
    pub(crate) path: Arc<Capture>,
    pub(crate) procedures: Procedures,
    /// The links it takes for up, by node.
    pub(crate) up: BTreeMap<usize, End>,
    /// Whom it looks for and takes in, by id: as it was started, then as the cluster says.
    pub(crate) places: Vec<Place>,
    /// The cluster said so.
    pub(crate) has_roster: bool,
    /// When it dials those again that refused it, by slot.
    pub(crate) redials: BTreeMap<usize, u64>,
    /// The index at which its roster was looked at last.
    pub(crate) roster_seen: Option<Index>,
    /// What it stamps frames with, but for the connection's epoch.
    pub(crate) stamp: Stamp,
    pub(crate) clock: Clock,
    /// The earliest wake-up in the queue, in the world's time.
    pub(crate) wake_at: u64,
    pub(crate) paused_until: u64,
    /// When something of its clients was last acknowledged.
    pub(crate) progress_at: u64,
    pub(crate) ended: bool,
    pub(crate) was_ready: bool,
    pub(crate) led: bool,
    /// It led in the middle of a change of members.
    pub(crate) was_joint: bool,
}

/// A commit path that takes the submission and does not wait: the simulator is one thread, and
/// hears of the outcome from the replica.
#[derive(Default)]
pub(crate) struct Capture {
    origin: Mutex<u128>,
    sequence: AtomicU64,
    low_water: AtomicU64,
    taken: Mutex<Vec<Submission>>,
}

impl Capture {
    pub(crate) fn take(&self) -> Option<Submission> {
        self.taken.lock().expect("one thread, no poison").pop()
    }

    /// Sequences below this are settled.
    pub(crate) fn set_low_water(&self, low_water: u64) {
        self.low_water.store(low_water, Ordering::Relaxed);
    }

    /// What it submits comes from another incarnation from now on.
    pub(crate) fn set_origin(&self, origin: u128) {
        *self.origin.lock().expect("one thread, no poison") = origin;
    }

    pub(crate) fn newest_sequence(&self) -> u64 {
        self.sequence.load(Ordering::Relaxed)
    }
}

impl CommitPath for Capture {
    fn admit(&self, _: Access) -> Result<(), BeginError> {
        Ok(())
    }

    fn submit(
        &self,
        submission: Submission,
        _: CommitOptions,
    ) -> Result<Arc<dyn CommitTicket>, CommitError> {
        let id = submission.id;
        self.taken.lock().expect("one thread, no poison").push(submission);
        Err(CommitError::InDoubt(id))
    }

    fn next_id(&self) -> (TransactionId, u64) {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let low_water = self.low_water.load(Ordering::Relaxed).clamp(1, sequence);
        let origin = *self.origin.lock().expect("one thread, no poison");
        (TransactionId { origin, sequence }, low_water)
    }
}

impl Process {
    pub(crate) fn start(
        identity: Identity,
        mix: &Mix,
        list: &[Listed],
        bug: Option<Planted>,
        dictionary: &Dictionary,
        seed: u128,
        (now, clock): (u64, Clock),
    ) -> Self {
        let origin = Mutex::new(identity.incarnation.0);
        let path = Arc::new(Capture { origin, ..Capture::default() });
        let params = database_params(bug);
        let database = Database::open_with("simulation", dictionary.clone(), params, path.clone())
            .expect("the simulation's own parameters are good");
        let connection = database.connect().expect("the first connection");
        let settings = settings(identity, mix, list, bug);
        let dictionary = Arc::new(dictionary.clone());
        let replica =
            Replica::new(settings, database.applier(), dictionary, seed, clock.local(now));
        Self {
            identity,
            replica,
            connection,
            database,
            path,
            procedures: crate::calls::procedures(),
            up: BTreeMap::new(),
            places: vec![Place::Listed; list.len()],
            has_roster: false,
            redials: BTreeMap::new(),
            roster_seen: None,
            stamp: Stamp::default(),
            clock,
            wake_at: u64::MAX,
            paused_until: 0,
            progress_at: now,
            ended: false,
            was_ready: false,
            led: false,
            was_joint: false,
        }
    }
}

fn settings(
    identity: Identity,
    mix: &Mix,
    list: &[Listed],
    bug: Option<Planted>,
) -> ReplicaSettings {
    let core = quorate_consensus::Settings {
        max_append_bytes: mix.append_bytes,
        max_in_flight: 4,
        ..quorate_consensus::Settings::default()
    };
    let settings = ReplicaSettings {
        identity,
        ranks: list.iter().map(|listed| listed.rank).collect(),
        addresses: list.iter().map(|listed| listed.addr.clone()).collect(),
        core,
        window_bytes: 4_000,
        window_transactions: mix.window_transactions,
        window_timeout_ms: 0,
        commit_limit_ms: mix.commit_limit_ms,
        silence_ms: 1_000,
        stop_limit_ms: 30_000,
        departed_after_ms: 1_000,
        image_piece_bytes: mix.image_piece_bytes,
        image_piece_objects: mix.image_piece_objects,
        image_rate_bytes_per_s: 0,
        log_keep_bytes: mix.log_keep_bytes,
        #[cfg(feature = "planted-bugs")]
        bug: None,
    };
    plant(settings, bug)
}

#[cfg(not(feature = "planted-bugs"))]
fn plant(settings: ReplicaSettings, bug: Option<Planted>) -> ReplicaSettings {
    let outside =
        matches!(bug, None | Some(Planted::StaleIncarnation | Planted::OldConnectionAccepted));
    assert!(outside, "{bug:?} needs the feature planted-bugs");
    settings
}

#[cfg(not(feature = "planted-bugs"))]
fn database_params(_: Option<Planted>) -> DatabaseParams {
    DatabaseParams::default()
}

#[cfg(feature = "planted-bugs")]
fn plant(mut settings: ReplicaSettings, bug: Option<Planted>) -> ReplicaSettings {
    use quorate_cluster::replica::ReplicaBug;
    use quorate_consensus::Bug;
    settings.core.bug = match bug {
        Some(Planted::EarlyCommitWithoutTerm) => Some(Bug::EarlyCommitWithoutTerm),
        Some(Planted::EarlyCommitWithoutQuorum) => Some(Bug::EarlyCommitWithoutQuorum),
        Some(Planted::VoteCountedTwice) => Some(Bug::VoteCountedTwice),
        Some(Planted::CommitOldTermByCounting) => Some(Bug::CommitOldTermByCounting),
        _ => None,
    };
    settings.bug = match bug {
        Some(Planted::ApplyOutOfOrder) => Some(ReplicaBug::ApplyOutOfOrder),
        Some(Planted::LostBatchLogged) => Some(ReplicaBug::LostBatchLogged),
        Some(Planted::LostByTermAlone) => Some(ReplicaBug::LostByTermAlone),
        Some(Planted::AnyTermAccepted) => Some(ReplicaBug::AnyTermAccepted),
        Some(Planted::ReadIndexIsCommit) => Some(ReplicaBug::ReadIndexIsCommit),
        Some(Planted::FenceNotRemembered) => Some(ReplicaBug::FenceNotRemembered),
        Some(Planted::AllLiveIgnoresOne) => Some(ReplicaBug::AllLiveIgnoresOne),
        _ => None,
    };
    settings
}

#[cfg(feature = "planted-bugs")]
fn database_params(bug: Option<Planted>) -> DatabaseParams {
    use quorate_engine::Bug;
    let mut params = DatabaseParams::default();
    params.bug = match bug {
        Some(Planted::CertifyIgnoresTail) => Some(Bug::CertifyIgnoresTail),
        Some(Planted::CertifyIgnoresReads) => Some(Bug::CertifyIgnoresReads),
        Some(Planted::DuplicateAccepted) => Some(Bug::ExactlyOnceForgotten),
        _ => None,
    };
    params
}
