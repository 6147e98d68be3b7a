//! What a run saw, what it must have seen to count, and how it failed.

use std::fmt;

use quorate_cluster::replica::Counters;

/// How often each thing that makes schedules hard happened, over one seed or many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Seeds in it.
    pub seeds: u64,
    /// Events taken from the queue.
    pub events: u64,
    /// Transactions acknowledged.
    pub acknowledged: u64,
    /// Refused as conflicts.
    pub conflicts: u64,
    /// Refused for want of a quorum.
    pub no_quorum: u64,
    /// Answered as in doubt.
    pub in_doubt: u64,
    /// In doubt, and found committed later.
    pub in_doubt_committed: u64,
    /// Answered as in doubt, and their fate was learnt later.
    pub in_doubt_settled: u64,
    /// Linearizable reads that were served.
    pub fresh_reads: u64,
    /// Commits that waited for every live node, and were applied on each.
    pub everywhere: u64,
    /// Such commits that were not, in time.
    pub not_everywhere: u64,
    /// Outcomes that a fence made final.
    pub outcomes_fenced: u64,
    /// Calls of procedures acknowledged with their answer.
    pub calls_done: u64,
    /// Batches of calls that lost against others and ran again.
    pub batches_lost: u64,
    /// Given to a second leader because the first one's term ended without them.
    pub resubmissions: u64,
    /// Given again to the same leader, because the link broke.
    pub repeats: u64,
    /// Copies that a leader knew already.
    pub duplicates: u64,
    /// Leaders elected beyond each cluster's first.
    pub leader_changes: u64,
    /// Cuts of a log's end.
    pub truncations: u64,
    /// Entries a follower proved committed before the leader knew it.
    pub early_commits_ahead: u64,
    /// Entries a follower proved committed before it was told.
    pub early_commits: u64,
    /// Crashes that lost a node's memory.
    pub crashes: u64,
    /// Crashes of a leader.
    pub leader_crashes: u64,
    /// Partitions.
    pub partitions: u64,
    /// Pauses.
    pub pauses: u64,
    /// Vetoes.
    pub vetoes: u64,
    /// Nodes that left by themselves.
    pub detaches: u64,
    /// Links cut.
    pub cuts: u64,
    /// Messages lost, repeated, and delivered after their link broke.
    pub odd_messages: u64,
    /// Images installed.
    pub images: u64,
    /// Images that never were, because an end crashed, or another leader or image came between.
    pub images_broken: u64,
    /// Transfers that went on after their link broke.
    pub images_resumed: u64,
    /// Joint configurations applied (counted once on each node).
    pub joint_configs: u64,
    /// Digests of states that nodes compared.
    pub digests_compared: u64,
    /// Nodes that came back with their rank.
    pub rejoins: u64,
    /// Links broken while an image was on its way over them.
    pub images_cut: u64,
    /// Leaders that crashed or were cut off in the middle of a joint change.
    pub joint_leader_losses: u64,
    /// Partitions in which only neighbours in a chain reached each other.
    pub chains: u64,
    /// Second processes under the id of a node that lived.
    pub doubles: u64,
    /// How often one was refused.
    pub doubles_refused: u64,
    /// How often one took the place of a node that was not heard from.
    pub doubles_let_in: u64,
    /// Times when the whole network was slow.
    pub bursts: u64,
    /// Clocks that jumped.
    pub jumps: u64,
    /// Pieces of frames on streams.
    pub segments: u64,
    /// Bytes under way on links that broke.
    pub cut_bytes: u64,
    /// Segments with a flipped bit.
    pub corrupted: u64,
    /// Connections that began with bytes of an older one.
    pub replays: u64,
    /// Links ended for what arrived on them.
    pub links_ended: u64,
    /// Broken links of which one end did not notice for long.
    pub half_open: u64,
    /// Dependencies between transactions on lists, none of them in a cycle that must not be.
    pub dependencies: u64,
    /// Histories judged by the outside checker too.
    pub judged_twice: u64,
    /// Operators' changes of the roster that were answered as done.
    pub roster_changes: u64,
    /// Ranks among them.
    pub ranks_changed: u64,
    /// New nodes among them.
    pub nodes_added: u64,
    /// Nodes taken out among them.
    pub nodes_removed: u64,
    /// Leaders that operators chose.
    pub transfers_done: u64,
    /// Operators' requests that were refused, or not done in time.
    pub operators_refused: u64,
    /// Nodes that gave up what they held for a newer epoch.
    pub reborn: u64,
    /// Runs in liveness mode.
    pub liveness: u64,
    /// The longest time without a commit at a client of the core in liveness mode, ms.
    pub longest_gap_ms: u64,
}

/// A run that broke a promise, or did not come together again.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed, to replay it.
    pub seed: u64,
    /// Which promise, and how.
    pub what: String,
    /// Simulated milliseconds.
    pub at_ms: u64,
    /// The trace, if it was asked for.
    pub trace: Vec<String>,
}

impl Report {
    /// Adds what another run saw.
    pub fn add(&mut self, other: &Report) {
        let longest = self.longest_gap_ms.max(other.longest_gap_ms);
        for (sum, part) in self.fields_mut().into_iter().zip(other.fields()) {
            *sum.1 += part.1;
        }
        self.longest_gap_ms = longest;
    }

    /// Adds what a replica counted during its life.
    pub fn add_counters(&mut self, counters: &Counters) {
        self.resubmissions += counters.resubmissions;
        self.repeats += counters.repeats;
        self.duplicates += counters.duplicates;
        self.truncations += counters.truncations;
        self.early_commits += counters.early_commits;
        self.images += counters.images_installed;
        self.images_broken += counters.images_begun - counters.images_installed;
        self.images_resumed += counters.transfers_resumed;
        self.joint_configs += counters.joint_configs;
        self.digests_compared += counters.digests_compared;
        self.leader_changes += counters.elections_won;
        self.batches_lost += counters.batches_lost;
    }

    /// What a run of this many seeds had to see and did not: a schedule without these proves
    /// nothing.
    pub fn shortfalls(&self) -> Vec<String> {
        if self.seeds < 100 {
            return Vec::new(); // too few to demand anything of the rare ones
        }
        let minimum = |name: &str| match name {
            "segments" => 100_000,
            "acknowledged" | "cut_bytes" | "dependencies" => 5_000,
            "replays" | "links_ended" | "half_open" | "cuts" => 100,
            "early_commits" | "leader_changes" | "odd_messages" => 100,
            "conflicts" | "partitions" | "crashes" | "images_cut" => 50,
            "jumps" | "bursts" | "doubles" | "chains" | "doubles_refused" => 20,
            "truncations" | "early_commits_ahead" | "in_doubt" | "no_quorum" | "pauses" => 20,
            "vetoes" | "detaches" | "in_doubt_settled" => 20,
            "images" | "images_broken" | "joint_configs" | "rejoins" | "leader_crashes" => 20,
            "corrupted" | "doubles_let_in" | "liveness" => 10,
            "resubmissions" | "duplicates" | "repeats" | "images_resumed" => 5,
            "fresh_reads" | "everywhere" => 100,
            "not_everywhere" => 5,
            "outcomes_fenced" | "calls_done" => 20,
            "roster_changes" => 40,
            "ranks_changed" | "nodes_added" | "transfers_done" => 10,
            "nodes_removed" | "joint_leader_losses" => 5,
            "in_doubt_committed" | "batches_lost" => 1,
            _ => 0,
        };
        let lacks = |(name, count): (&'static str, u64)| {
            let wanted = minimum(name) * self.seeds / 100;
            (count < wanted).then(|| format!("{name}: {count}, at least {wanted} wanted"))
        };
        self.fields().into_iter().filter_map(lacks).collect()
    }

    fn fields(&self) -> Vec<(&'static str, u64)> {
        let mut copy = *self;
        copy.fields_mut().into_iter().map(|(name, count)| (name, *count)).collect()
    }

    fn fields_mut(&mut self) -> Vec<(&'static str, &mut u64)> {
        vec![
            ("seeds", &mut self.seeds),
            ("events", &mut self.events),
            ("acknowledged", &mut self.acknowledged),
            ("conflicts", &mut self.conflicts),
            ("no_quorum", &mut self.no_quorum),
            ("in_doubt", &mut self.in_doubt),
            ("in_doubt_committed", &mut self.in_doubt_committed),
            ("in_doubt_settled", &mut self.in_doubt_settled),
            ("fresh_reads", &mut self.fresh_reads),
            ("everywhere", &mut self.everywhere),
            ("not_everywhere", &mut self.not_everywhere),
            ("outcomes_fenced", &mut self.outcomes_fenced),
            ("calls_done", &mut self.calls_done),
            ("batches_lost", &mut self.batches_lost),
            ("resubmissions", &mut self.resubmissions),
            ("repeats", &mut self.repeats),
            ("duplicates", &mut self.duplicates),
            ("leader_changes", &mut self.leader_changes),
            ("truncations", &mut self.truncations),
            ("early_commits_ahead", &mut self.early_commits_ahead),
            ("early_commits", &mut self.early_commits),
            ("crashes", &mut self.crashes),
            ("leader_crashes", &mut self.leader_crashes),
            ("partitions", &mut self.partitions),
            ("pauses", &mut self.pauses),
            ("vetoes", &mut self.vetoes),
            ("detaches", &mut self.detaches),
            ("cuts", &mut self.cuts),
            ("odd_messages", &mut self.odd_messages),
            ("images", &mut self.images),
            ("images_broken", &mut self.images_broken),
            ("images_resumed", &mut self.images_resumed),
            ("joint_configs", &mut self.joint_configs),
            ("digests_compared", &mut self.digests_compared),
            ("rejoins", &mut self.rejoins),
            ("images_cut", &mut self.images_cut),
            ("joint_leader_losses", &mut self.joint_leader_losses),
            ("chains", &mut self.chains),
            ("doubles", &mut self.doubles),
            ("doubles_refused", &mut self.doubles_refused),
            ("doubles_let_in", &mut self.doubles_let_in),
            ("bursts", &mut self.bursts),
            ("jumps", &mut self.jumps),
            ("segments", &mut self.segments),
            ("cut_bytes", &mut self.cut_bytes),
            ("corrupted", &mut self.corrupted),
            ("replays", &mut self.replays),
            ("links_ended", &mut self.links_ended),
            ("half_open", &mut self.half_open),
            ("dependencies", &mut self.dependencies),
            ("judged_twice", &mut self.judged_twice),
            ("roster_changes", &mut self.roster_changes),
            ("ranks_changed", &mut self.ranks_changed),
            ("nodes_added", &mut self.nodes_added),
            ("nodes_removed", &mut self.nodes_removed),
            ("transfers_done", &mut self.transfers_done),
            ("operators_refused", &mut self.operators_refused),
            ("reborn", &mut self.reborn),
            ("liveness", &mut self.liveness),
            ("longest_gap_ms", &mut self.longest_gap_ms),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in self.fields() {
            writeln!(f, "{count:>12}  {}", name.replace('_', " "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {} (at {} ms)", self.seed, self.what, self.at_ms)
    }
}
