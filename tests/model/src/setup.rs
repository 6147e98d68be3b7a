//! What is explored: clusters with their bounds. One table; to explore something else, add a row.

use quorate_consensus::{Identity, Member, Settings};

use crate::event::Event;
use crate::event::Event::{
    Deposed, EarlyAhead, ImageInstalled, JointEntered, JointLeft, LaterLeader, LearnerCommits,
    LeftByRank, LostMemory, LostQuorum, LostWrites, OldLifeHeard, ReadReady, Readmitted,
    SimpleChange, TransferDone, Truncated,
};

/// How long a search takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Seconds: part of CI.
    Small,
    /// Minutes: `cargo xtask model --full`.
    Full,
}

/// Members that a leader is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The present lives of the nodes, with these ranks; who has none is left out.
    Ranks(&'static [Option<u32>]),
    /// Those in force, and the present lives of all other nodes as learners.
    Learners,
    /// The present lives of all nodes, with the ranks of the start.
    Present,
}

/// A cluster and the bounds of its exploration.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What it is called.
    pub name: &'static str,
    /// When it is run.
    pub size: Size,
    /// The ranks of the nodes.
    pub ranks: &'static [u32],
    /// How many writes to its disk a node can have under way; it waits before it takes in more. 0:
    /// there are no disks, and a crash loses all.
    pub writes: usize,
    /// No term above this one.
    pub terms: u64,
    /// How many windows clients propose, in all.
    pub windows: u8,
    /// How many crashes there are, in all.
    pub crashes: u8,
    /// What leaders are asked to change the members to.
    pub targets: &'static [Target],
    /// How many changes are accepted, in all.
    pub changes: u8,
    /// How often a leader is asked to hand over, in all.
    pub transfers: u8,
    /// How many reads are asked for, in all.
    pub reads: u8,
    /// How often a node forgets what it has committed, in all. Without disks only.
    pub compactions: u8,
    /// How many heartbeats there are, in all. Without, commit travels with entries, and to who
    /// needs it.
    pub heartbeats: u8,
    /// How often a leader finds that it lost touch with its quorum, in all.
    pub silences: u8,
    /// Whether candidates ask before they campaign, or all would grant.
    pub pre_votes: bool,
    /// Whether candidates hear refusals, and leaders the answers from later terms. Without, all of
    /// these are lost.
    pub gossip: bool,
    /// Whether entries travel one by one.
    pub one_by_one: bool,
    /// Whether a leader sends what is not durable yet.
    pub send_before_durable: bool,
    /// Elections before the search begins: who campaigns and who hears of it. No entry of these
    /// leaders reaches anybody.
    pub storm: &'static [(usize, usize)],
    /// Whether neighbouring configurations are compared when the second one is proposed. Off, a
    /// mistake there has to be found by its consequences.
    pub compare_configs: bool,
    /// What must have been met.
    pub demands: &'static [Event],
}

impl Setup {
    /// Three equal nodes in memory to which little happens; what rows of the table start from.
    pub const CALM: Self = Self {
        name: "",
        size: Size::Small,
        ranks: &[1, 1, 1],
        writes: 0,
        terms: 2,
        windows: 1,
        crashes: 0,
        targets: &[],
        changes: 0,
        transfers: 0,
        reads: 0,
        compactions: 0,
        heartbeats: 0,
        silences: 0,
        pre_votes: false,
        gossip: false,
        one_by_one: false,
        send_before_durable: false,
        storm: &[],
        compare_configs: true,
        demands: &[],
    };

    /// What the cores are told.
    pub(crate) fn settings(&self) -> Settings {
        let mut settings =
            Settings { send_before_durable: self.send_before_durable, ..Settings::default() };
        if self.one_by_one {
            settings.max_append_bytes = 1;
            settings.max_in_flight = 1;
        }
        settings
    }

    /// The members at the start.
    pub(crate) fn members(&self) -> Vec<Member> {
        let member =
            |(node, &rank): (usize, &u32)| Member { identity: Identity::new(node as u32, 1), rank };
        self.ranks.iter().enumerate().map(member).collect()
    }

    /// Whether two nodes are the same but for their names. With real pre-votes all count as
    /// different: a node can then answer without being touched.
    pub(crate) fn are_alike(&self, one: usize, other: usize) -> bool {
        if self.pre_votes {
            return false;
        }
        let alike = |target: &Target| match target {
            Target::Ranks(ranks) => ranks.get(one) == ranks.get(other),
            Target::Learners | Target::Present => true,
        };
        self.ranks[one] == self.ranks[other] && self.targets.iter().all(alike)
    }
}

/// All explorations of the unchanged core.
pub const SETUPS: &[Setup] = &[
    Setup {
        name: "three",
        terms: 3,
        demands: &[LaterLeader, EarlyAhead, Truncated, Deposed],
        ..Setup::CALM
    },
    Setup {
        name: "silence",
        silences: 1,
        demands: &[LaterLeader, EarlyAhead, Truncated, LostQuorum],
        ..Setup::CALM
    },
    Setup { name: "read", windows: 0, reads: 1, demands: &[EarlyAhead, ReadReady], ..Setup::CALM },
    Setup { name: "heartbeat", heartbeats: 1, demands: &[EarlyAhead, Truncated], ..Setup::CALM },
    Setup {
        name: "gossip",
        windows: 0,
        gossip: true,
        demands: &[EarlyAhead, Deposed],
        ..Setup::CALM
    },
    Setup {
        name: "pre-vote",
        ranks: &[1, 1],
        pre_votes: true,
        demands: &[LaterLeader, EarlyAhead],
        ..Setup::CALM
    },
    Setup {
        name: "figure 8",
        terms: 4,
        windows: 0,
        silences: 1,
        heartbeats: 1,
        one_by_one: true,
        storm: FIGURE_8,
        demands: &[LaterLeader, EarlyAhead, Truncated, LostQuorum],
        ..Setup::CALM
    },
    Setup {
        name: "ranks 2,1,1",
        ranks: &[2, 1, 1],
        targets: &[Target::Ranks(&[Some(1), Some(1), Some(1)])],
        changes: 1,
        demands: &[LaterLeader, EarlyAhead, Truncated, SimpleChange],
        ..Setup::CALM
    },
    Setup {
        name: "learner",
        ranks: &[1, 1, 0],
        targets: &[Target::Ranks(&[Some(1), Some(1), Some(1)])],
        changes: 1,
        demands: &[LaterLeader, EarlyAhead, Truncated, SimpleChange, LearnerCommits],
        ..Setup::CALM
    },
    Setup {
        name: "change",
        windows: 0,
        targets: &[
            Target::Ranks(&[Some(1), Some(1)]),
            Target::Ranks(&[Some(3), Some(1), Some(1)]),
            Target::Ranks(&[None, None, Some(1)]),
        ],
        changes: 1,
        demands: &[EarlyAhead, Truncated, SimpleChange, JointEntered, JointLeft, LeftByRank],
        ..Setup::CALM
    },
    Setup {
        name: "transfer",
        transfers: 1,
        demands: &[LaterLeader, EarlyAhead, Truncated, TransferDone],
        ..Setup::CALM
    },
    Setup {
        name: "rejoin",
        windows: 0,
        crashes: 1,
        targets: &[Target::Learners, Target::Present],
        changes: 2,
        demands: REJOINED,
        ..Setup::CALM
    },
    Setup {
        name: "image",
        compactions: 1,
        demands: &[EarlyAhead, Truncated, ImageInstalled],
        ..Setup::CALM
    },
    Setup {
        name: "disk",
        writes: 1,
        crashes: 1,
        demands: &[EarlyAhead, Truncated, LostWrites],
        ..Setup::CALM
    },
    Setup {
        name: "hasty disk",
        writes: 1,
        windows: 0,
        crashes: 1,
        send_before_durable: true,
        demands: &[LaterLeader, EarlyAhead, Truncated, LostWrites],
        ..Setup::CALM
    },
    Setup {
        name: "three+",
        size: Size::Full,
        terms: 3,
        windows: 2,
        silences: 1,
        demands: &[LaterLeader, EarlyAhead, Truncated, Deposed, LostQuorum],
        ..Setup::CALM
    },
    Setup {
        name: "heartbeat+",
        size: Size::Full,
        windows: 2,
        heartbeats: 1,
        reads: 1,
        demands: &[EarlyAhead, Truncated, ReadReady],
        ..Setup::CALM
    },
    Setup {
        name: "gossip+",
        size: Size::Full,
        windows: 2,
        gossip: true,
        demands: &[EarlyAhead, Truncated, Deposed],
        ..Setup::CALM
    },
    Setup {
        name: "pre-vote+",
        size: Size::Full,
        terms: 1,
        windows: 1,
        pre_votes: true,
        demands: &[EarlyAhead],
        ..Setup::CALM
    },
    Setup {
        name: "figure 8+",
        size: Size::Full,
        terms: 5,
        windows: 0,
        silences: 2,
        one_by_one: true,
        storm: FIGURE_8,
        demands: &[LaterLeader, EarlyAhead, Truncated, LostQuorum],
        ..Setup::CALM
    },
    Setup {
        name: "ranks 2,1,1+",
        size: Size::Full,
        ranks: &[2, 1, 1],
        terms: 3,
        targets: &[
            Target::Ranks(&[Some(1), Some(1), Some(1)]),
            Target::Ranks(&[Some(1), Some(2), Some(1)]),
        ],
        changes: 1,
        transfers: 1,
        demands: &[EarlyAhead, Truncated, SimpleChange, JointLeft, TransferDone],
        ..Setup::CALM
    },
    Setup {
        name: "change+",
        size: Size::Full,
        terms: 3,
        targets: &[
            Target::Ranks(&[Some(1), Some(1)]),
            Target::Ranks(&[Some(3), Some(1), Some(1)]),
            Target::Ranks(&[None, None, Some(1)]),
        ],
        changes: 2,
        demands: &[EarlyAhead, Truncated, SimpleChange, JointEntered, JointLeft, LeftByRank],
        ..Setup::CALM
    },
    Setup {
        name: "rejoin+",
        size: Size::Full,
        windows: 1,
        crashes: 2,
        targets: &[Target::Learners, Target::Present],
        changes: 2,
        demands: REJOINED,
        ..Setup::CALM
    },
    Setup {
        name: "image+",
        size: Size::Full,
        terms: 3,
        crashes: 1,
        targets: &[Target::Learners, Target::Present],
        changes: 2,
        compactions: 1,
        heartbeats: 1,
        demands: &[EarlyAhead, Truncated, ImageInstalled, Readmitted],
        ..Setup::CALM
    },
    Setup {
        name: "disk+",
        size: Size::Full,
        terms: 3,
        writes: 2,
        crashes: 2,
        demands: &[LaterLeader, EarlyAhead, Truncated, LostWrites],
        ..Setup::CALM
    },
];

/// Three leaders in a row that nobody hears of but their voters, as in figure 8 of the Raft paper.
pub const FIGURE_8: &[(usize, usize)] = &[(0, 1), (2, 1), (0, 1)];

const REJOINED: &[Event] =
    &[EarlyAhead, Truncated, LostMemory, OldLifeHeard, JointEntered, JointLeft, Readmitted];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setups_have_names_of_their_own_and_demand_something() {
        for (place, setup) in SETUPS.iter().enumerate() {
            assert!(!setup.demands.is_empty(), "{} would pass if nothing happened", setup.name);
            assert!(SETUPS[..place].iter().all(|other| other.name != setup.name));
        }
    }

    #[test]
    fn alike_are_nodes_that_only_names_tell_apart() {
        let targets: &[Target] = &[Target::Ranks(&[Some(1), Some(2), Some(1)])];
        let setup = Setup { ranks: &[1, 1, 1], targets, ..Setup::CALM };
        assert!(setup.are_alike(0, 2) && !setup.are_alike(0, 1));
        let setup = Setup { ranks: &[2, 1, 1], ..Setup::CALM };
        assert!(setup.are_alike(1, 2) && !setup.are_alike(0, 1));
        assert!(!Setup { pre_votes: true, ..setup }.are_alike(1, 2));
    }
}
