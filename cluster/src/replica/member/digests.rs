//! Digests of the state, compared while the cluster runs: equal logs make equal states, unless a
//! memory fails or a program is wrong, and then no node may go on as if nothing were.
//!
//! At every [`DIGEST_INTERVAL`]-th entry of the log each member takes a digest of what it has
//! applied by then and tells it to all others. Entries and not transactions are counted, because
//! every node passes each entry by itself, with the whole state at hand, and an image begins
//! behind one. In the digest are all records, free lists and counters of replicated classes, the
//! index, the bytes used, the roster and the term of the entry.
//!
//! Each member judges by the configuration it has applied, at the newest entries at which it has a
//! digest of its own:
//!
//! * A quorum has another digest: this node is wrong, and **halts** with
//!   [`ClusterError::Diverged`] before anything it has not published becomes visible or is
//!   acknowledged. The others have a quorum without it. It comes back without state.
//! * A quorum, this node among it, has the same: all before is settled. Members with another one
//!   are named by [`ClusterEvent::Diverged`].
//! * No quorum has the same, and two members with a rank differ: the state is **disputed**. Until a
//!   quorum agrees the node refuses to commit, to call and to read what is surely the newest; a
//!   leader takes no request any more, logs no batch, confirms no reads, and gives nobody new its
//!   state or a rank. It goes on leading: what it logged before is committed, so that members that
//!   lag come to the entry and decide. Orderly stops go on, too. Where one of many is wrong this
//!   lasts until the digests of the others arrive, about a round trip.
//!
//! So a wrong state is found within about an interval, if what is wrong is in the digest. Not seen
//! is a difference that a majority of rank shares, one that was handed on with an image before it
//! was found, one in the indexes (they follow from the records, and `Database::check` looks at
//! them), and one in what is remembered of transactions.
//!
//! No false alarm: a digest is a function of the epoch and the log up to the entry. It is taken
//! only of entries known to be committed; digests of other epochs are not looked at; those that
//! were taken of a state which an image replaced are forgotten; a survivor that takes its whole log
//! for committed, to begin an epoch, compares nothing.
//!
//! Invariants: at most [`KEPT`] digests of this node and of each member are held, in order of their
//! entries; `agreed` never goes back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quorate_consensus::{Config, Entry, EntryIndex, Identity, NodeId};
use quorate_engine::Index;
use quorate_schema::bytes::Writer;

use super::super::api::ClusterEvent;
use super::super::message::PeerMessage;
use super::super::node::Node;
use super::Member;
use crate::epoch::Epoch;
use crate::error::ClusterError;

/// Members compare their states whenever they have applied so many more entries of the log.
pub const DIGEST_INTERVAL: u64 = 32;

/// How many digests are kept of each member: who lags by more is compared at later entries.
const KEPT: usize = 8;

/// A digest of this node.
#[derive(Clone, Copy, Debug)]
struct Own {
    entry: EntryIndex,
    /// The newest transaction in it.
    index: Index,
    digest: u128,
}

/// No quorum has the same state.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Dispute {
    index: Index,
    /// Members with a rank whose state is another.
    others: Vec<NodeId>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Digests {
    own: VecDeque<Own>,
    heard: BTreeMap<Identity, VecDeque<(EntryIndex, u128)>>,
    /// The newest entry at which a quorum has what this node has.
    agreed: EntryIndex,
    dispute: Option<Dispute>,
    /// Members that were named as diverged.
    named: BTreeSet<Identity>,
    /// Entries are applied that may not be committed: they are no matter for others.
    silent: bool,
}

impl Digests {
    /// Where this node's state is disputed, and by whom.
    pub(super) fn dispute(&self) -> Option<(Index, Vec<NodeId>)> {
        self.dispute.as_ref().map(|dispute| (dispute.index, dispute.others.clone()))
    }

    pub(super) fn is_disputed(&self) -> bool {
        self.dispute.is_some()
    }

    /// An image took the place of the state.
    pub(super) fn replaced(&mut self) {
        self.own.clear();
        self.dispute = None;
    }

    /// From now on nothing is taken or told.
    pub(super) fn silence(&mut self) {
        self.silent = true;
    }

    /// A digest of this node, at a later entry than all before. How many others it is compared to.
    fn take(&mut self, own: Own) -> usize {
        if self.own.len() == KEPT {
            self.own.pop_front();
        }
        self.own.push_back(own);
        self.heard.values().filter(|told| digest_at(told, own.entry).is_some()).count()
    }

    /// A member told a digest. How many it is compared to: one, or none so far.
    fn hear(&mut self, from: Identity, entry: EntryIndex, digest: u128) -> usize {
        let told = self.heard.entry(from).or_default();
        let Err(place) = told.binary_search_by_key(&entry, |(entry, _)| *entry) else {
            return 0; // told again, when the link came back
        };
        if told.len() < KEPT {
            told.insert(place, (entry, digest));
        } else if place > 0 {
            told.pop_front();
            told.insert(place - 1, (entry, digest));
        } else {
            return 0;
        }
        usize::from(self.own.iter().any(|own| own.entry == entry))
    }

    /// Who is no member any more counts for nothing.
    fn forget_others_than(&mut self, config: &Config) {
        self.heard.retain(|who, _| config.contains(*who));
        self.named.retain(|who| config.contains(*who));
    }

    /// Compares. Where a quorum has another state than this node, if it has.
    fn judge(&mut self, identity: Identity, config: &Config) -> Result<(), Index> {
        self.dispute = None;
        for own in self.own.iter().rev().take_while(|own| own.entry > self.agreed) {
            let heard = self.heard.iter();
            let told = heard.filter_map(|(who, told)| Some((*who, digest_at(told, own.entry)?)));
            let all: BTreeMap<Identity, u128> = told.chain([(identity, own.digest)]).collect();
            let is_of_quorum =
                |digest: u128| config.is_quorum(|who| all.get(&who) == Some(&digest));
            if is_of_quorum(own.digest) {
                self.agreed = own.entry;
                return Ok(());
            }
            if all.values().any(|digest| is_of_quorum(*digest)) {
                return Err(own.index);
            }
            let ranked = all.iter().filter(|(who, _)| config.rank_of(**who) > 0);
            let found: BTreeSet<u128> = ranked.clone().map(|(_, digest)| *digest).collect();
            if found.len() > 1 {
                let others = ranked.filter(|(_, digest)| **digest != own.digest);
                let others = others.map(|(who, _)| who.node).collect();
                self.dispute.get_or_insert(Dispute { index: own.index, others });
            }
        }
        Ok(())
    }

    /// Members that differ where a quorum has what this node has, and were not named before.
    fn name_diverged(&mut self) -> Vec<NodeId> {
        let mut diverged = Vec::new();
        let settled: Vec<Own> =
            self.own.iter().filter(|own| own.entry <= self.agreed).copied().collect();
        for (who, told) in &self.heard {
            let differs = |own: &Own| digest_at(told, own.entry).is_some_and(|d| d != own.digest);
            if settled.iter().any(differs) && self.named.insert(*who) {
                diverged.push(who.node);
            }
        }
        diverged
    }
}

fn digest_at(told: &VecDeque<(EntryIndex, u128)>, entry: EntryIndex) -> Option<u128> {
    let place = told.binary_search_by_key(&entry, |(entry, _)| *entry).ok()?;
    Some(told[place].1)
}

impl Member {
    /// An entry is applied. True if this node may go on.
    pub(super) fn entry_digested(&mut self, node: &mut Node, entry: &Entry) -> bool {
        if !entry.index.0.is_multiple_of(DIGEST_INTERVAL) || self.digests.silent {
            return true;
        }
        let mut beside = Writer::new();
        beside.u64(entry.term.0);
        node.roster.encode(&mut beside);
        let digest = node.applier.digest(beside.as_slice());
        let own = Own { entry: entry.index, index: node.applier.applied(), digest };
        let (epoch, entry) = (node.epoch, entry.index);
        node.broadcast(&PeerMessage::Digest { epoch, entry, digest });
        self.digests.forget_others_than(&self.applied_config);
        node.counters.digests_compared += self.digests.take(own) as u64;
        self.judge_digests(node)
    }

    /// A peer told a digest of its own.
    pub(super) fn digest_told(
        &mut self,
        node: &mut Node,
        from: Identity,
        epoch: Epoch,
        (entry, digest): (EntryIndex, u128),
    ) {
        let counts = epoch == node.epoch
            && entry.0.is_multiple_of(DIGEST_INTERVAL)
            && self.applied_config.contains(from)
            && !self.digests.silent;
        if counts {
            node.counters.digests_compared += self.digests.hear(from, entry, digest) as u64;
            self.judge_digests(node);
        }
    }

    /// What the peer may have missed.
    pub(super) fn repeat_digests(&self, node: &mut Node, peer: Identity) {
        let epoch = node.epoch;
        for &Own { entry, digest, .. } in &self.digests.own {
            node.send(peer, PeerMessage::Digest { epoch, entry, digest });
        }
    }

    fn judge_digests(&mut self, node: &mut Node) -> bool {
        let identity = node.identity();
        if let Err(index) = self.digests.judge(identity, &self.applied_config) {
            node.event(ClusterEvent::Diverged(identity.node));
            self.end = Some(Err(ClusterError::Diverged { index }));
            return false;
        }
        for diverged in self.digests.name_diverged() {
            node.event(ClusterEvent::Diverged(diverged));
        }
        true
    }

    /// True once a quorum has another state: nothing is answered any more.
    pub(super) fn has_diverged(&self) -> bool {
        matches!(self.end, Some(Err(ClusterError::Diverged { .. })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_consensus::Member as Voter;

    fn identity(node: u32) -> Identity {
        Identity::new(node, u128::from(node) + 7)
    }

    fn config(ranks: &[u32]) -> Config {
        let voter = |(node, rank): (u32, &u32)| Voter { identity: identity(node), rank: *rank };
        Config { current: (0..).zip(ranks).map(voter).collect(), next: None }
    }

    fn own(entry: u64, digest: u128) -> Own {
        Own { entry: EntryIndex(entry), index: Index(entry * 10), digest }
    }

    /// Node 0 with these digests of its own, and what it heard.
    fn digests(taken: &[(u64, u128)], heard: &[(u32, u64, u128)]) -> Digests {
        let mut digests = Digests::default();
        taken.iter().for_each(|(entry, digest)| {
            digests.take(own(*entry, *digest));
        });
        for (node, entry, digest) in heard {
            digests.hear(identity(*node), EntryIndex(*entry), *digest);
        }
        digests
    }

    #[test]
    fn a_quorum_with_another_digest_halts_the_node_by_rank_not_by_number() {
        let heard = [(1, 32, 5), (2, 32, 5)];
        assert_eq!(
            digests(&[(32, 9)], &heard).judge(identity(0), &config(&[1, 1, 1])),
            Err(Index(320))
        );
        assert_eq!(digests(&[(32, 5)], &heard).judge(identity(0), &config(&[1, 1, 1])), Ok(()));
        // The two have too little of the rank to be right, and the one has enough.
        let mut heavy = digests(&[(32, 9)], &heard);
        assert_eq!(heavy.judge(identity(0), &config(&[3, 1, 1])), Ok(()));
        assert_eq!((heavy.agreed, heavy.is_disputed()), (EntryIndex(32), false));
        assert_eq!(heavy.name_diverged(), [NodeId(1), NodeId(2)]);
        assert_eq!(heavy.name_diverged(), [], "once");
        // A learner halts as well, though it never counts.
        let learner = config(&[0, 1, 1]);
        assert_eq!(digests(&[(32, 9)], &heard).judge(identity(0), &learner), Err(Index(320)));
    }

    #[test]
    fn a_difference_without_a_quorum_is_a_dispute_until_a_third_decides() {
        let three = config(&[1, 1, 1]);
        let mut digests = digests(&[(32, 9)], &[(1, 32, 5)]);
        assert_eq!(digests.judge(identity(0), &three), Ok(()));
        assert_eq!(digests.dispute(), Some((Index(320), vec![NodeId(1)])));
        assert_eq!(digests.hear(identity(2), EntryIndex(32), 9), 1);
        assert_eq!(digests.judge(identity(0), &three), Ok(()));
        assert_eq!(digests.dispute(), None);
        // What a learner has decides nothing and is no dispute, not even to itself.
        let mut alone = self::digests(&[(32, 9)], &[(1, 32, 5)]);
        for ranks in [[1, 0, 1], [0, 1, 1]] {
            assert_eq!(alone.judge(identity(0), &config(&ranks)), Ok(()));
            assert_eq!(alone.dispute(), None);
        }
        // It sees that of others.
        alone.hear(identity(2), EntryIndex(32), 9);
        assert_eq!(alone.judge(identity(0), &config(&[0, 1, 1])), Ok(()));
        assert_eq!(alone.dispute(), Some((Index(320), vec![NodeId(1)])));
    }

    #[test]
    fn a_joint_configuration_needs_both_halves() {
        let mut joint = config(&[1, 1, 1]);
        joint.next = Some(config(&[5, 1, 1]).current);
        let mut digests = digests(&[(32, 9)], &[(1, 32, 5), (2, 32, 5)]);
        assert_eq!(digests.judge(identity(0), &joint), Ok(()));
        assert!(digests.is_disputed());
    }

    #[test]
    fn digests_of_different_entries_and_of_old_ones_are_not_compared() {
        let three = config(&[1, 1, 1]);
        let mut digests = digests(&[(32, 9), (64, 1)], &[(1, 96, 5), (2, 96, 5), (1, 64, 1)]);
        assert_eq!(digests.judge(identity(0), &three), Ok(()));
        assert_eq!((digests.agreed, digests.is_disputed()), (EntryIndex(64), false));
        digests.hear(identity(1), EntryIndex(32), 5);
        digests.hear(identity(2), EntryIndex(32), 5);
        assert_eq!(digests.judge(identity(0), &three), Ok(()), "settled by a later one");
        assert_eq!(digests.take(own(96, 9)), 2);
        assert_eq!(digests.judge(identity(0), &three), Err(Index(960)));
    }

    #[test]
    fn what_is_kept_is_bounded_whoever_tells_what() {
        let mut digests = Digests::default();
        for round in 1..=100 {
            digests.take(own(32 * round, 1));
            digests.hear(identity(1), EntryIndex(32 * round), 1);
            digests.hear(identity(1), EntryIndex(32 * round), 2);
            digests.hear(identity(1), EntryIndex(32 * (101 - round)), 1);
        }
        assert_eq!((digests.own.len(), digests.heard[&identity(1)].len()), (KEPT, KEPT));
        assert!(digests.heard[&identity(1)].iter().is_sorted());
        assert_eq!(digest_at(&digests.heard[&identity(1)], EntryIndex(3200)), Some(1));
        digests.forget_others_than(&config(&[1]));
        assert!(digests.heard.is_empty());
    }
}
