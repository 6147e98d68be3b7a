//! Mutations of the rules, to prove that the simulators would notice a mistake. Compiled to
//! nothing unless the feature `planted-bugs` is on; must never hold anything else.

/// A mistake that a run can be told to make, through `Settings::bug`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    not(feature = "planted-bugs"),
    expect(unreachable_pub, reason = "public with the feature")
)]
pub enum Bug {
    /// A follower commits early an entry of an earlier term.
    EarlyCommitWithoutTerm,
    /// A follower commits early although its rank and the leader's are no quorum.
    EarlyCommitWithoutQuorum,
    /// A follower commits early what neither it nor the leader has made durable.
    EarlyCommitBeyondDurable,
    /// Votes and acknowledgements of a node's earlier life count for its present one.
    StaleIncarnationCounts,
    /// A repeated vote answer adds its rank again.
    VoteCountedTwice,
    /// A leader commits an entry of an earlier term because a quorum holds it.
    CommitOldTermByCounting,
    /// Answers leave before what they promise is durable.
    AnswerBeforeDurable,
    /// A vote is granted whatever the candidate's log holds.
    VoteForAnyLog,
    /// A second vote is granted in the same term.
    VoteTwiceInTerm,
    /// Any change of members is made in one step, never joint.
    ChangeInOneStep,
    /// In a joint configuration only the old half is asked.
    JointAsksOneHalf,
}
