//! What a seed chooses (swarm testing: each seed switches a different mix of faults on), and what
//! the caller asks for.

use crate::bugs::Planted;
use crate::rng::Rng;

/// What the caller asks for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Keep a line for every event.
    pub trace: bool,
    /// A fault in the code under test, which the run should find.
    pub bug: Option<Planted>,
}

/// The mix of one seed. Times are milliseconds, chances per million messages or milliseconds.
#[derive(Clone, Debug)]
pub struct Mix {
    /// Quorum ranks; their number is the number of nodes.
    pub ranks: Vec<u32>,
    /// How long faults go on.
    pub storm_ms: u64,
    /// Messages take 0 up to this.
    pub delay_ms: u64,
    /// Chance that a message is lost although its link stays.
    pub loss: u64,
    /// Chance that a message arrives twice.
    pub repeat: u64,
    /// Chance that a message of a broken link arrives later all the same.
    pub ghost: u64,
    /// Mean time between crashes; 0 for none.
    pub crash_every_ms: u64,
    /// Mean time between partitions; 0 for none.
    pub partition_every_ms: u64,
    /// Mean time between broken links; 0 for none.
    pub cut_every_ms: u64,
    /// Mean time between pauses of a node; 0 for none.
    pub pause_every_ms: u64,
    /// Mean time between vetoes of a node's quorum callback; 0 for none.
    pub veto_every_ms: u64,
    /// Mean time between nodes that leave by themselves, and come back; 0 for none.
    pub detach_every_ms: u64,
    /// Chance that a new leader is cut off within its first messages: what it managed to say by
    /// then is what elections after it must respect.
    pub trap: u64,
    /// Bytes of entries in one append: little makes every entry travel alone.
    pub append_bytes: usize,
    /// Mean time between two transactions of a node.
    pub transaction_every_ms: u64,
    /// How many counters the transactions fight over: few make conflicts.
    pub counters: u64,
    /// Bytes of applied log that are kept: little makes images.
    pub log_keep_bytes: usize,
    /// Items at which a window closes.
    pub window_transactions: u32,
    /// Size of an image's pieces.
    pub image_piece_bytes: usize,
    /// Objects in an image's pieces: few make long transfers.
    pub image_piece_objects: usize,
    /// How long a commit waits.
    pub commit_limit_ms: u64,
}

const RANKS: [&[u32]; 16] = [
    &[1],
    &[1, 1],
    &[1, 1, 1],
    &[1, 1, 1],
    &[1, 1, 1],
    &[1, 1, 1],
    &[1, 1, 1, 1, 1],
    &[1, 1, 1],
    &[1, 1, 1],
    &[2, 1, 1],
    &[1, 0, 0],
    &[2, 1, 1, 1],
    &[1, 1, 1, 1],
    &[1, 1, 1, 1, 1],
    &[3, 2, 2, 1],
    &[1, 1, 1, 0],
];

impl Mix {
    /// The mix that the seed chooses.
    pub fn choose(rng: &mut Rng) -> Self {
        let sometimes = |rng: &mut Rng, low, high| match rng.below(3) {
            0 => 0,
            _ => rng.between(low, high),
        };
        Self {
            ranks: rng.pick(&RANKS).to_vec(),
            storm_ms: rng.between(2_000, 8_000),
            delay_ms: *rng.pick(&[1, 2, 5, 20]),
            loss: sometimes(rng, 1_000, 30_000),
            repeat: sometimes(rng, 1_000, 200_000),
            ghost: sometimes(rng, 10_000, 300_000),
            crash_every_ms: sometimes(rng, 300, 2_000),
            partition_every_ms: sometimes(rng, 300, 2_000),
            cut_every_ms: sometimes(rng, 100, 1_500),
            pause_every_ms: sometimes(rng, 300, 3_000),
            veto_every_ms: sometimes(rng, 500, 4_000),
            detach_every_ms: sometimes(rng, 1_000, 5_000),
            trap: sometimes(rng, 300_000, 900_000),
            append_bytes: *rng.pick(&[1, 1, 4_000]),
            transaction_every_ms: rng.between(5, 40),
            counters: rng.between(1, 6),
            log_keep_bytes: *rng.pick(&[500, 5_000, 1 << 20]),
            window_transactions: *rng.pick(&[1, 4, 256]),
            image_piece_bytes: *rng.pick(&[200, 2_000, 1 << 18]),
            image_piece_objects: *rng.pick(&[1, 8, 1_000]),
            commit_limit_ms: *rng.pick(&[300, 1_000, 5_000]),
        }
    }
}
