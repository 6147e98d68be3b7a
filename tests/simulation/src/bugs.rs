//! Faults planted in the code under test. Each must be found within its budget of seeds: that is
//! what makes a clean run worth something.

/// A planted fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A follower takes entries of an earlier term for committed by the early-commit rule.
    EarlyCommitWithoutTerm,
    /// A follower takes entries for committed without asking if it and the leader are a quorum.
    EarlyCommitWithoutQuorum,
    /// A restarted node keeps the incarnation it forgot, so what that one acknowledged counts.
    StaleIncarnation,
    /// The leader certifies against applied history only.
    CertifyIgnoresTail,
    /// The leader does not certify what serializable transactions read.
    CertifyIgnoresReads,
    /// A repeated vote adds its rank again.
    VoteCountedTwice,
    /// A window proved by early commit is applied back to front.
    ApplyOutOfOrder,
    /// A leader commits entries of earlier terms by counting.
    CommitOldTermByCounting,
    /// A request that the leader has in its log is put into it again.
    DuplicateAccepted,
    /// A commit is taken for lost as soon as a newer term is heard of.
    LostByTermAlone,
    /// The leader takes requests that were meant for another term's leader.
    AnyTermAccepted,
    /// Frames of an older connection are taken for frames of this one.
    OldConnectionAccepted,
    /// A read index is the leader's commit index, although followers may be ahead.
    ReadIndexIsCommit,
    /// A fence is answered and not remembered.
    FenceNotRemembered,
    /// A batch of calls that lost against the log is logged all the same.
    LostBatchLogged,
    /// A commit that waits for every live node does not wait for one of them.
    AllLiveIgnoresOne,
}

impl Planted {
    /// All of them, each with the number of seeds within which it must be found.
    pub const ALL: [(Planted, u64); 16] = [
        (Planted::EarlyCommitWithoutTerm, 2_000),
        (Planted::EarlyCommitWithoutQuorum, 500),
        (Planted::StaleIncarnation, 500),
        (Planted::CertifyIgnoresTail, 500),
        (Planted::CertifyIgnoresReads, 500),
        (Planted::VoteCountedTwice, 2_000),
        (Planted::ApplyOutOfOrder, 500),
        (Planted::CommitOldTermByCounting, 2_000),
        (Planted::DuplicateAccepted, 500),
        (Planted::LostByTermAlone, 1_000),
        (Planted::AnyTermAccepted, 3_000),
        (Planted::OldConnectionAccepted, 200),
        (Planted::ReadIndexIsCommit, 1_000),
        (Planted::FenceNotRemembered, 500),
        (Planted::LostBatchLogged, 500),
        (Planted::AllLiveIgnoresOne, 500),
    ];

    /// The name on the command line.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// The fault with this name.
    pub fn by_name(name: &str) -> Option<Planted> {
        Self::ALL.into_iter().map(|(bug, _)| bug).find(|bug| bug.name().eq_ignore_ascii_case(name))
    }
}
