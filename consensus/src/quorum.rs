//! The one quorum function, and what a valid configuration is. Elections, commitment,
//! check-quorum, early commit and read confirmation all ask here; no other place may compare ranks
//! with a total.

use std::fmt;

use crate::types::{Config, Identity, Member};

/// Why a list of members is no configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConfigError {
    /// All ranks are zero (or there is nobody): no quorum could ever exist.
    NoRank,
    /// An identity is listed twice.
    Repeated(Identity),
    /// Members are not sorted by identity.
    Unsorted,
    /// Two incarnations of one node carry rank: that machine would count twice.
    NodeRankedTwice(Identity),
    /// The proposed members and ranks are those already in force.
    Unchanged,
    /// The connected members are no quorum of it: the change could not be committed, and nothing
    /// after it.
    OutOfReach,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRank => {
                write!(f, "no member has a rank above zero; give at least one node one")
            }
            Self::Repeated(identity) => write!(f, "member {identity:?} is listed twice"),
            Self::Unsorted => write!(f, "members are not sorted by identity"),
            Self::NodeRankedTwice(identity) => write!(
                f,
                "node {} has rank in two incarnations; set the rank of the old one to zero",
                identity.node
            ),
            Self::Unchanged => write!(f, "these members and ranks are already in force"),
            Self::OutOfReach => {
                write!(f, "its connected members are no quorum; retry when more are connected")
            }
        }
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// A configuration of these members, sorted here.
    ///
    /// # Errors
    /// When the members make no valid configuration; see [`ConfigError`].
    pub fn new(mut members: Vec<Member>) -> Result<Self, ConfigError> {
        members.sort_by_key(|member| member.identity);
        let config = Self { current: members, next: None };
        config.validate()?;
        Ok(config)
    }

    /// What a node knows before it was given any state: nobody, and hence no quorum, ever. Not a
    /// valid configuration for an entry, only for a [`crate::Start`].
    pub const fn blank() -> Self {
        Self { current: Vec::new(), next: None }
    }

    /// Checks the invariants listed on the type.
    ///
    /// # Errors
    /// The first invariant found broken.
    pub fn validate(&self) -> Result<(), ConfigError> {
        validate_half(&self.current)?;
        self.next.as_deref().map_or(Ok(()), validate_half)
    }

    /// Whether the members for which `holds` is true are a quorum: strictly more than half of the
    /// total rank, in both halves of a joint configuration. Identities outside the configuration
    /// are never asked, so nothing they say can count.
    pub fn is_quorum(&self, holds: impl Fn(Identity) -> bool) -> bool {
        half_is_quorum(&self.current, &holds)
            && self.next.as_deref().is_none_or(|next| half_is_quorum(next, &holds))
    }

    /// Whether a change is on its way between two halves.
    pub const fn is_joint(&self) -> bool {
        self.next.is_some()
    }

    /// Whether the identity is a member, of either half, with whatever rank.
    pub fn contains(&self, identity: Identity) -> bool {
        self.halves().any(|half| find(half, identity).is_some())
    }

    /// The rank of an identity: the larger one of both halves, 0 when it is no member.
    pub fn rank_of(&self, identity: Identity) -> u32 {
        self.halves().filter_map(|half| find(half, identity)).max().unwrap_or(0)
    }

    /// All members of both halves, each once, sorted.
    pub fn identities(&self) -> Vec<Identity> {
        let mut all: Vec<_> = self.halves().flatten().map(|member| member.identity).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn halves(&self) -> impl Iterator<Item = &Vec<Member>> {
        std::iter::once(&self.current).chain(&self.next)
    }
}

/// By how much two lists of members differ: the sum over all identities of the difference of their
/// ranks, absence being 0. Quorums of lists that differ by at most 1 always share a ranked member:
/// were two disjoint, their ranks would sum to at least W/2 + 1 + W'/2 + 1 (halves rounded down),
/// more than the larger of the totals W and W' holds when these differ by at most 1.
pub(crate) fn rank_difference(old: &[Member], new: &[Member]) -> u64 {
    let rank = |list: &[Member], identity| find(list, identity).unwrap_or(0);
    let changed = old.iter().map(|m| u64::from(m.rank.abs_diff(rank(new, m.identity))));
    let added = new.iter().filter(|m| find(old, m.identity).is_none());
    changed.sum::<u64>() + added.map(|m| u64::from(m.rank)).sum::<u64>()
}

fn half_is_quorum(members: &[Member], holds: &impl Fn(Identity) -> bool) -> bool {
    let total: u64 = members.iter().map(|member| u64::from(member.rank)).sum();
    let held: u64 =
        members.iter().filter(|m| holds(m.identity)).map(|member| u64::from(member.rank)).sum();
    // Both sums are below 2^63 for any list that fits in memory, so doubling cannot overflow.
    held * 2 > total
}

fn find(members: &[Member], identity: Identity) -> Option<u32> {
    let place = members.binary_search_by_key(&identity, |member| member.identity).ok()?;
    Some(members[place].rank)
}

fn validate_half(members: &[Member]) -> Result<(), ConfigError> {
    for pair in members.windows(2) {
        if pair[0].identity == pair[1].identity {
            return Err(ConfigError::Repeated(pair[0].identity));
        }
        if pair[0].identity > pair[1].identity {
            return Err(ConfigError::Unsorted);
        }
    }
    let ranked: Vec<_> = members.iter().filter(|member| member.rank > 0).collect();
    if ranked.is_empty() {
        return Err(ConfigError::NoRank);
    }
    // Sorted by identity, so incarnations of one node are neighbours.
    match ranked.windows(2).find(|pair| pair[0].identity.node == pair[1].identity.node) {
        Some(pair) => Err(ConfigError::NodeRankedTwice(pair[1].identity)),
        None => Ok(()),
    }
}
