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
    /// Frames travel one by one and can be lost, repeated and late: worse than TCP. Otherwise they
    /// are parts of streams.
    pub harsh: bool,
    /// In harsh mode, chance that a message is lost although its link stays.
    pub loss: u64,
    /// Chance that a message arrives twice.
    pub repeat: u64,
    /// Chance that a message of a broken link arrives later all the same.
    pub ghost: u64,
    /// Chance that a frame is cut in two on its way, and again.
    pub split: u64,
    /// Chance that a bit of a segment flips.
    pub corrupt: u64,
    /// Chance that a new connection begins with bytes of the one before.
    pub replay: u64,
    /// Chance that one end of a link that breaks does not notice for long.
    pub half_open: u64,
    /// How many times slower one way can be than another.
    pub asymmetry: u64,
    /// A node to and from which everything takes ten times as long.
    pub slow_node: Option<usize>,
    /// By how many thousandths clocks can be fast or slow.
    pub drift: u64,
    /// Liveness mode: the nodes that no fault strikes, a quorum. Empty in safety mode.
    pub core: Vec<bool>,
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
    /// Mean time between second processes under a node's id; 0 for none.
    pub double_every_ms: u64,
    /// Mean time between times when the whole network is slow; 0 for none.
    pub burst_every_ms: u64,
    /// Mean time between clocks that jump ahead; 0 for none.
    pub jump_every_ms: u64,
    /// Mean time between operators' requests; 0 for none.
    pub operate_every_ms: u64,
    /// Chance that a new leader, or one that began a joint change, is cut off within its first
    /// messages: what it managed to say by then is what elections after it must respect.
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

const RANKS: [&[u32]; 23] = [
    &[1],
    &[1, 1],
    &[1, 1, 1],
    &[1, 1, 1],
    &[1, 1, 1],
    &[1, 1, 1],
    &[1, 1, 1],
    &[1, 1, 1],
    &[1, 1, 1],
    &[1, 1, 1],
    &[1, 1, 1, 1, 1],
    &[1, 1, 1, 1, 1],
    &[2, 1, 1],
    &[1, 0, 0],
    &[2, 1, 1, 1],
    &[1, 1, 1, 1],
    &[3, 2, 2, 1],
    &[1, 1, 1, 0],
    &[1, 1, 1],
    &[5, 1, 1, 1, 1],
    &[1, 1, 1, 1, 1, 0],
    &[3, 2, 1, 1, 1, 1],
    &[1, 1, 1, 1, 1, 1, 1],
];

impl Mix {
    /// The mix that the seed chooses: each kind of fault is switched off in a third of the seeds.
    pub fn choose(rng: &mut Rng) -> Self {
        let sometimes = |rng: &mut Rng, low, high| match rng.below(3) {
            0 => 0,
            _ => rng.between(low, high),
        };
        let mut mix = Self {
            ranks: rng.pick(&RANKS).to_vec(),
            storm_ms: rng.between(2_000, 8_000),
            delay_ms: *rng.pick(&[1, 2, 5, 20]),
            harsh: rng.below(3) == 0,
            loss: sometimes(rng, 1_000, 30_000),
            repeat: sometimes(rng, 1_000, 200_000),
            ghost: sometimes(rng, 10_000, 300_000),
            split: sometimes(rng, 1_000, 400_000),
            corrupt: if rng.below(4) == 0 { rng.between(20, 2_000) } else { 0 },
            replay: sometimes(rng, 10_000, 300_000),
            half_open: sometimes(rng, 50_000, 500_000),
            asymmetry: sometimes(rng, 1, 5),
            slow_node: None,
            drift: sometimes(rng, 1, 100),
            core: Vec::new(),
            crash_every_ms: sometimes(rng, 300, 2_000),
            partition_every_ms: sometimes(rng, 300, 2_000),
            cut_every_ms: sometimes(rng, 100, 1_500),
            pause_every_ms: sometimes(rng, 300, 3_000),
            veto_every_ms: sometimes(rng, 500, 4_000),
            detach_every_ms: sometimes(rng, 1_000, 5_000),
            double_every_ms: sometimes(rng, 500, 5_000),
            burst_every_ms: sometimes(rng, 1_000, 5_000),
            jump_every_ms: sometimes(rng, 500, 5_000),
            operate_every_ms: sometimes(rng, 100, 1_000),
            trap: sometimes(rng, 300_000, 900_000),
            append_bytes: *rng.pick(&[1, 1, 4_000]),
            transaction_every_ms: rng.between(5, 40),
            counters: rng.between(1, 6),
            log_keep_bytes: *rng.pick(&[500, 5_000, 1 << 20]),
            window_transactions: *rng.pick(&[1, 4, 256]),
            image_piece_bytes: *rng.pick(&[200, 2_000, 1 << 18]),
            image_piece_objects: *rng.pick(&[1, 8, 1_000]),
            commit_limit_ms: *rng.pick(&[300, 1_000, 5_000]),
        };
        if rng.below(4) == 0 {
            mix.slow_node = Some(rng.below(mix.ranks.len() as u64) as usize);
        }
        if rng.below(4) == 0 {
            mix.spare_a_core(rng);
        }
        mix
    }

    /// Liveness mode, if faults have anybody left to strike.
    fn spare_a_core(&mut self, rng: &mut Rng) {
        let count = self.ranks.len();
        let mut order: Vec<usize> = (0..count).collect();
        for at in (1..count).rev() {
            order.swap(at, rng.below(at as u64 + 1) as usize);
        }
        let total: u32 = self.ranks.iter().sum();
        let (mut core, mut rank) = (vec![false; count], 0);
        for node in order {
            if 2 * rank <= total {
                core[node] = true;
                rank += self.ranks[node];
            }
        }
        if core.contains(&false) {
            self.core = core;
            self.harsh = false;
            self.burst_every_ms = 0;
            // A limit below an election is no test of progress.
            self.commit_limit_ms = 5_000;
            // An image in a thousand pieces, one a round trip beside commits, takes longer than the
            // progress of whoever needs it may.
            self.image_piece_bytes = self.image_piece_bytes.max(2_000);
            self.image_piece_objects = self.image_piece_objects.max(8);
        }
    }
}
