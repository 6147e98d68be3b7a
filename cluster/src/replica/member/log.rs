//! Driving the core, and applying what it says is committed.

use std::collections::VecDeque;

use quorate_consensus::{
    Body, Entry, EntryIndex, Identity, Input as CoreInput, Message, Output as CoreOutput, Role,
};
use quorate_engine::{Index, WriteSet};
use quorate_schema::bytes::Malformed;

use super::super::calls::Line;
use super::super::message::PeerMessage;
use super::super::node::Node;
use super::super::window::{Item, items};
use super::Member;
use super::leading::{Leading, fences_are_forgotten};
use super::requests::Done;
use super::transfer::Hold;
use crate::error::ClusterError;

/// Sizes of the applied entries that the core still keeps, to bound its memory.
#[derive(Debug, Default)]
pub(super) struct Kept {
    entries: VecDeque<(EntryIndex, usize)>,
    bytes: usize,
}

/// What an entry costs in memory besides its payload, roughly.
const ENTRY_OVERHEAD_BYTES: usize = 128;

impl Member {
    /// Steps the core and does what it wants done, until it wants nothing more.
    pub(super) fn drive(&mut self, node: &mut Node, input: CoreInput) {
        let mut outputs = Vec::new();
        self.core.step(node.now, input, &mut outputs);
        let mut queue = VecDeque::from(outputs);
        while let Some(output) = queue.pop_front() {
            let mut more = Vec::new();
            self.obey(node, output, &mut more);
            queue.extend(more);
        }
    }

    fn obey(&mut self, node: &mut Node, output: CoreOutput, more: &mut Vec<CoreOutput>) {
        match output {
            CoreOutput::Persist { sequence, .. } => {
                self.persisted = self.persisted.max(sequence);
                self.core.step(node.now, CoreInput::Persisted { sequence }, more);
                self.release_held(node);
            }
            CoreOutput::Send { to, message, after } => self.post(node, to, message, after),
            CoreOutput::Commit { upto, early } => self.apply(node, upto, early),
            CoreOutput::Role { .. } => self.role_changed(node),
            CoreOutput::Truncated { .. } => node.counters.truncations += 1,
            CoreOutput::NeedImage { to } => self.start_image(node, to),
            CoreOutput::ReadReady { token, index } => self.read_ready(node, token, index),
            CoreOutput::ReadRefused { token, .. } => self.read_refused(token),
            // Read from the core where they matter; a refused proposal is seen by the proposer.
            CoreOutput::Appended { .. }
            | CoreOutput::ProposalRefused { .. }
            | CoreOutput::ConfigInForce { .. }
            | CoreOutput::SteppedDown { .. } => {}
        }
    }

    fn post(&mut self, node: &mut Node, to: Identity, message: Message, after: u64) {
        if after <= self.persisted {
            node.send(to, PeerMessage::Core(message));
        } else {
            self.held.push((after, to, message));
        }
    }

    fn release_held(&mut self, node: &mut Node) {
        let persisted = self.persisted;
        for (_, to, message) in self.held.extract_if(.., |(after, ..)| *after <= persisted) {
            node.send(to, PeerMessage::Core(message));
        }
    }

    pub(super) fn role_changed(&mut self, node: &mut Node) {
        if self.core.role() != Role::Leader {
            self.transfers.stop_sending();
            self.reads.stop_leading();
            if let Some(leading) = self.leading.take() {
                self.abandon(node, leading);
            }
            return;
        }
        let term = self.core.term();
        if self.leading.as_ref().is_some_and(|leading| leading.term() == term) {
            return;
        }
        node.counters.elections_won += 1;
        self.last_led = term;
        let entries: Vec<Entry> =
            self.core.entries_from(self.applied_entry.next()).cloned().collect();
        match Leading::rebuild(node, term, &entries) {
            Ok(leading) => self.leading = Some(leading),
            Err(malformed) => self.fail(malformed),
        }
    }

    /// Applies the committed entries up to `upto`, then publishes, then answers.
    fn apply(&mut self, node: &mut Node, upto: EntryIndex, early: bool) {
        assert!(upto <= self.core.last().0, "committed {upto:?} beyond the log");
        if upto <= self.applied_entry || self.end.is_some() {
            return;
        }
        let unapplied = self.core.entries_from(self.applied_entry.next());
        let entries: Vec<Entry> = unapplied.take_while(|e| e.index <= upto).cloned().collect();
        let mut done = Vec::new();
        for entry in &entries {
            assert_eq!(entry.index, self.applied_entry.next(), "entries are applied in order");
            if let Err(malformed) = self.apply_entry(node, entry, early, &mut done) {
                return self.fail(malformed);
            }
            self.applied_entry = entry.index;
            self.applied_term = entry.term;
            self.note_end();
            self.kept.push(entry);
            node.counters.early_commits += u64::from(early);
            if !self.entry_digested(node, entry) {
                return; // nothing of this becomes visible or is answered
            }
        }
        assert_eq!(self.applied_entry, upto, "the log holds what is committed");
        node.applier.publish();
        if entries.iter().any(|entry| matches!(entry.body, Body::Window { .. })) {
            self.transfers.note_commit(node.now);
        }
        if let Some(leading) = &mut self.leading {
            leading.settle(node.applier.applied());
        }
        self.answer(node, done);
        self.answer_reads(node);
        self.tell_curious(node);
        self.resolve(node);
        self.compact(node);
    }

    /// Takes everything in the log for committed: a new epoch begins with it.
    pub(in super::super) fn apply_whole_log(&mut self, node: &mut Node) {
        let (last, _) = self.core.last();
        self.digests.silence();
        self.apply(node, last, false);
    }

    fn apply_entry(
        &mut self,
        node: &mut Node,
        entry: &Entry,
        early: bool,
        done: &mut Vec<Done>,
    ) -> Result<(), Malformed> {
        match &entry.body {
            Body::Noop => Ok(()),
            Body::Config(config) => {
                node.counters.configs += 1;
                self.configured = true;
                node.counters.joint_configs += u64::from(config.next.is_some());
                let before = std::mem::replace(&mut self.applied_config, config.clone());
                let mut removed = before.identities();
                removed.retain(|who| !config.contains(*who));
                self.farewell.configured(&before, config);
                self.joiners.retain(|who, _| !removed.contains(who));
                self.tell_removed(node, &removed);
                self.forget_former_members();
                // Who has its rank wants nothing more; it would ask again.
                let farewell = &self.farewell;
                self.joiners.retain(|joiner, _| {
                    config.rank_of(*joiner) == 0 && !farewell.wants_out(*joiner)
                });
                Ok(())
            }
            Body::Window { first_index, count, payload } => {
                let items = items(payload)?;
                let next = node.applier.applied().0 + 1;
                if items.len() != *count as usize || *first_index != next {
                    return Err(Malformed { what: "indexes of a window", offset: 0 });
                }
                for item in in_order(node, items, early) {
                    self.apply_item(node, item, done)?;
                }
                Ok(())
            }
        }
    }

    fn apply_item(
        &mut self,
        node: &mut Node,
        item: Item<'_>,
        done: &mut Vec<Done>,
    ) -> Result<(), Malformed> {
        let index = Index(node.applier.applied().0 + 1);
        if loses_it(node, index) {
            node.applier.skip(index);
            return Ok(());
        }
        match item {
            Item::Transaction(bytes) => {
                let id = WriteSet::peek_id(bytes)?;
                node.applier.apply(index, bytes)?;
                node.counters.applied += 1;
                if id.origin == node.identity().incarnation.0 {
                    done.push((id.sequence, Ok(index)));
                }
            }
            Item::Stopped(identity) => {
                node.applier.skip(index);
                self.farewell.stopped(identity);
            }
            Item::Departed(identity) => {
                node.applier.skip(index);
                self.farewell.departed(node, identity);
            }
            Item::Change { id, low_water, change } => {
                node.applier.note(index, id, low_water);
                self.change_roster(node, &change);
                if id.origin == node.identity().incarnation.0 {
                    done.push((id.sequence, Ok(index)));
                }
            }
            Item::Calls { time_ms, lines, write_set } => {
                let settled: Vec<_> = lines.iter().map(Line::settled).collect();
                node.applier.apply_batch(index, write_set, &settled)?;
                self.calls_applied(node, time_ms, lines, index, done);
            }
            Item::Fence { id, fenced } => {
                if fences_are_forgotten(node) {
                    node.applier.skip(index);
                } else {
                    node.applier.fence(index, fenced);
                }
                let refused = self.fence_applied(node, fenced);
                done.extend(refused.map(|error| (fenced.sequence, Err(error))));
                if id.origin == node.identity().incarnation.0 {
                    done.push((id.sequence, Ok(index)));
                }
            }
        }
        Ok(())
    }

    /// A window that this node cannot apply: it stops before it differs from the others.
    fn fail(&mut self, malformed: Malformed) {
        self.end = Some(Err(ClusterError::CorruptWindow { what: malformed.what }));
    }

    fn compact(&mut self, node: &mut Node) {
        let hold = self.log_hold(node);
        let upto = self.kept.beyond(node.settings.log_keep_bytes, hold);
        if let Some(upto) = upto {
            self.drive(node, CoreInput::Compact { upto });
        }
    }
}

impl Kept {
    /// Forgets everything: the log begins anew.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn push(&mut self, entry: &Entry) {
        let payload = match &entry.body {
            Body::Window { payload, .. } => payload.len(),
            Body::Noop | Body::Config(_) => 0,
        };
        self.entries.push_back((entry.index, payload + ENTRY_OVERHEAD_BYTES));
        self.bytes += payload + ENTRY_OVERHEAD_BYTES;
    }

    /// The newest entry to forget, so that what is kept fits the limit, or that of `hold` for what
    /// it holds.
    fn beyond(&mut self, limit_bytes: usize, hold: Option<Hold>) -> Option<EntryIndex> {
        let mut upto = None;
        while let Some(&(index, bytes)) = self.entries.front() {
            let held = hold.filter(|hold| index >= hold.from);
            if self.bytes <= held.map_or(limit_bytes, |hold| hold.limit_bytes) {
                break;
            }
            self.entries.pop_front();
            self.bytes -= bytes;
            upto = Some(index);
        }
        upto
    }

    /// The first entry that would be kept if nobody needed more than the limit; none if none is.
    pub(super) fn oldest_within(&self, limit_bytes: usize) -> Option<EntryIndex> {
        let mut left = self.bytes;
        let fits = |(_, bytes): &&(EntryIndex, usize)| {
            let fits = left <= limit_bytes;
            left -= bytes;
            fits
        };
        self.entries.iter().find(fits).map(|(index, _)| *index)
    }
}

#[cfg(not(feature = "planted-bugs"))]
fn in_order<'a>(_: &Node, items: Vec<Item<'a>>, _: bool) -> Vec<Item<'a>> {
    items
}

#[cfg(feature = "planted-bugs")]
fn in_order<'a>(node: &Node, mut items: Vec<Item<'a>>, early: bool) -> Vec<Item<'a>> {
    if early && node.settings.bug == Some(super::super::api::ReplicaBug::ApplyOutOfOrder) {
        items.reverse();
    }
    items
}

#[cfg(not(feature = "planted-bugs"))]
fn loses_it(_: &Node, _: Index) -> bool {
    false
}

#[cfg(feature = "planted-bugs")]
fn loses_it(node: &Node, index: Index) -> bool {
    node.settings.bug == Some(super::super::api::ReplicaBug::LosesTheTenth) && index == Index(10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_consensus::Term;

    #[test]
    fn what_is_kept_stays_within_its_limit_and_holds_what_an_image_needs() {
        let entry = |index| Entry { index: EntryIndex(index), term: Term(1), body: Body::Noop };
        let mut kept = Kept::default();
        (1..=10).for_each(|index| kept.push(&entry(index)));
        let bytes = |entries: usize| entries * ENTRY_OVERHEAD_BYTES;
        let hold =
            |from, entries| Some(Hold { from: EntryIndex(from), limit_bytes: bytes(entries) });
        assert_eq!(kept.beyond(bytes(20), None), None);
        assert_eq!(kept.oldest_within(bytes(20)), Some(EntryIndex(1)));
        assert_eq!(kept.oldest_within(bytes(8)), Some(EntryIndex(3)));
        assert_eq!(kept.beyond(bytes(8), None), Some(EntryIndex(2)));
        assert_eq!(kept.beyond(bytes(4), hold(3, 8)), None);
        assert_eq!(kept.beyond(bytes(4), hold(5, 8)), Some(EntryIndex(4)));
        assert_eq!(kept.beyond(bytes(1), hold(5, 3)), Some(EntryIndex(7)));
        assert_eq!(kept.bytes, bytes(3));
        assert_eq!(kept.oldest_within(bytes(1)), Some(EntryIndex(10)));
        assert_eq!(kept.oldest_within(bytes(1) - 1), None);
    }
}
