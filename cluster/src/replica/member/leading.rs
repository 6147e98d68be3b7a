//! What a leader knows besides its log: the uncommitted tail, by which it certifies, and the window
//! that is open.
//!
//! It is made when the node becomes leader, from the entries of its log that are not applied yet,
//! and thrown away when it stops leading; nothing of it survives a term. A request is certified,
//! enters the tail and the open window in one go, so the tail is always exactly "applied history
//! + log + open window".

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_consensus::{Body, Entry, Identity, Input as CoreInput, Term, Ticks};
use quorate_engine::{
    Index, Outcome, Refusal, Reservations, Submission, Tail, TransactionId, WriteSet,
};
use quorate_schema::bytes::{Malformed, Reader};

use super::super::api::NEVER;
use super::super::message::{PeerMessage, RefusalReason, Request};
use super::super::node::Node;
use super::super::roster::{Roster, RosterChange};
use super::super::window::{Item, OpenWindow, items};
use super::Member;
use super::calls::Calls;

/// How many refusals are remembered of one origin: more than requests of it that can be on their
/// way at once, and only what was on its way with a refused copy can be another one.
const REFUSED_MAX: usize = 16_384;

/// The state of one term of leadership.
pub(super) struct Leading {
    term: Term,
    pub(super) tail: Tail,
    /// Stops and departures of the tail.
    marks: BTreeSet<Identity>,
    /// The roster behind everything in the tail.
    roster: Roster,
    pub(super) reservations: Reservations,
    pub(super) calls: Calls,
    pub(super) open: OpenWindow,
    open_since: Ticks,
    /// What was refused for good in this term, by origin: a second copy on its way hears the same.
    /// By then the first refusal may not hold any more, but its caller has believed it.
    refused: BTreeMap<u128, BTreeMap<u64, RefusalReason>>,
    /// Who waits for the open window, to refuse them if it cannot be logged.
    pub(super) open_requests: Vec<(Identity, TransactionId)>,
}

impl Leading {
    /// The tail of a new leader: everything in its log behind what it has applied.
    ///
    /// # Errors
    /// [`Malformed`] if the log holds a window that no leader writes.
    pub(super) fn rebuild(node: &Node, term: Term, entries: &[Entry]) -> Result<Self, Malformed> {
        let mut leading = Self {
            term,
            tail: Tail::new(Index(node.applier.applied().0 + 1)),
            marks: BTreeSet::new(),
            roster: node.roster.clone(),
            reservations: Reservations::new(node.settings.commit_limit_ms),
            calls: Calls::new(node.logged_time_ms),
            open: OpenWindow::default(),
            open_since: 0,
            refused: BTreeMap::new(),
            open_requests: Vec::new(),
        };
        for entry in entries {
            let Body::Window { payload, .. } = &entry.body else { continue };
            for item in items(payload)? {
                match item {
                    Item::Transaction(bytes) => {
                        let write_set = WriteSet::decode(bytes, &node.dictionary)?;
                        let footprint = write_set.footprint(&node.dictionary);
                        leading.tail.observe(leading.tail.next(), &footprint);
                    }
                    Item::Stopped(identity) | Item::Departed(identity) => leading.mark(identity),
                    Item::Change { id, low_water, change } => {
                        leading.change(id, low_water, &change);
                    }
                    Item::Fence { fenced, .. } => leading.fence(node, fenced),
                    item @ Item::Calls { .. } => leading.observe_calls(node, &item)?,
                }
            }
        }
        Ok(leading)
    }

    /// Why a request of this id was refused before.
    fn refusal(&self, id: TransactionId, term: Term) -> Option<RefusalReason> {
        let refused = self.refused.get(&id.origin).filter(|_| term == self.term)?;
        refused.get(&id.sequence).copied()
    }

    fn note_refused(&mut self, id: TransactionId, term: Term, reason: RefusalReason) {
        // The first is asked again, of another leader; the second says the same of every copy.
        if term != self.term
            || matches!(reason, RefusalReason::WrongTerm | RefusalReason::Malformed)
        {
            return;
        }
        let refused = self.refused.entry(id.origin).or_default();
        refused.insert(id.sequence, reason);
        if refused.len() > REFUSED_MAX {
            refused.pop_first();
        }
    }

    pub(super) fn term(&self) -> Term {
        self.term
    }

    /// The engine's own history covers everything up to `upto` now.
    pub(super) fn settle(&mut self, upto: Index) {
        self.tail.settle(upto);
    }

    /// When the open window closes at the latest.
    pub(super) fn window_deadline(&self, node: &Node) -> Ticks {
        if self.open.count() == 0 || node.settings.window_timeout_ms == 0 {
            return NEVER;
        }
        self.open_since + node.settings.window_timeout_ms
    }

    fn mark(&mut self, identity: Identity) {
        self.tail.skip(self.tail.next());
        self.marks.insert(identity);
    }

    fn change(&mut self, id: TransactionId, low_water: u64, change: &RosterChange) {
        self.tail.note(self.tail.next(), id, low_water);
        // As at apply, where a change that cannot be changes nothing.
        let _ = self.roster.apply(change);
    }

    /// Nothing with this id may be logged behind here.
    pub(super) fn fence(&mut self, node: &Node, fenced: TransactionId) {
        let next = self.tail.next();
        if fences_are_forgotten(node) {
            self.tail.skip(next);
        } else {
            self.tail.fence(next, fenced);
        }
    }

    pub(super) fn knows(&self, node: &Node, id: TransactionId) -> Outcome {
        node.applier.known(&self.tail, id)
    }

    pub(super) fn may_fence(&self, node: &Node, id: TransactionId) -> bool {
        node.applier.may_fence(&self.tail, id)
    }

    /// Adds an item that is in the tail already to the open window.
    pub(super) fn log(&mut self, now: Ticks, item: &Item<'_>, asked_by: (Identity, TransactionId)) {
        self.opened(now);
        self.open.push(item);
        self.open_requests.push(asked_by);
    }

    pub(super) fn opened(&mut self, now: Ticks) {
        if self.open.count() == 0 {
            self.open_since = now;
        }
    }
}

impl Member {
    /// A request, from a peer or from this node itself.
    pub(super) fn request_from(
        &mut self,
        node: &mut Node,
        from: Identity,
        term: Term,
        id: TransactionId,
        request: Request,
    ) {
        // A copy of it may be in this node's log from when it led that term: only the log can tell
        // what becomes of it then, and a refusal would say too much.
        let leads_it = self.leading.as_ref().is_some_and(|leading| leading.term == term);
        if !leads_it && term <= self.last_led && !any_term_accepted(node) {
            return;
        }
        if let Some(reason) = self.leading.as_ref().and_then(|leading| leading.refusal(id, term)) {
            return self.refuse(node, from, id, term, reason);
        }
        if leads_it && request != Request::Stop && self.may_not_log(node, id) {
            return self.refuse(node, from, id, term, RefusalReason::Disputed);
        }
        let refusal = match request {
            Request::Transaction(bytes) => self.take_transaction(node, from, term, id, &bytes),
            Request::Stop => self.take_mark(node, term, &Item::Stopped(from)),
            Request::Change { low_water, change } => {
                self.take_change(node, from, term, (id, low_water), &change)
            }
            Request::Fence(fenced) => self.take_fence(node, from, term, id, fenced),
            Request::Call(request) => self.take_call(node, from, term, id, request),
        };
        if let Err(reason) = refusal {
            self.refuse(node, from, id, term, reason);
        }
    }

    /// While the state is disputed nothing new is built on it. What is in the log already gets its
    /// fate from there.
    fn may_not_log(&self, node: &Node, id: TransactionId) -> bool {
        let unknown = |leading: &Leading| leading.knows(node, id) == Outcome::Unknown;
        self.digests.is_disputed() && self.leading.as_ref().is_some_and(unknown)
    }

    fn take_transaction(
        &mut self,
        node: &mut Node,
        from: Identity,
        term: Term,
        id: TransactionId,
        bytes: &Arc<[u8]>,
    ) -> Result<(), RefusalReason> {
        self.check_term(node, term)?;
        if id.origin != from.incarnation.0 {
            return Err(RefusalReason::Malformed);
        }
        let submission = decode(node, bytes).map_err(|_| RefusalReason::Malformed)?;
        if submission.id != id {
            return Err(RefusalReason::Malformed);
        }
        let leading = self.leading.as_mut().ok_or(RefusalReason::WrongTerm)?;
        let Leading { tail, reservations, .. } = leading;
        let footprint = match node.applier.certify_fairly(tail, &submission, reservations, node.now)
        {
            Ok(footprint) => footprint,
            Err(Refusal::Known(_)) => {
                node.counters.duplicates += 1;
                return Ok(()); // its fate comes from the log, as the first copy's does
            }
            Err(refusal) => return Err(reason(refusal)),
        };
        leading.opened(node.now);
        leading.tail.observe(leading.tail.next(), &footprint);
        leading.open.push(&Item::Transaction(&submission.write_set));
        leading.open_requests.push((from, id));
        self.close_full_window(node);
        Ok(())
    }

    /// Logs a change of the roster, if it can be made behind everything in the log.
    fn take_change(
        &mut self,
        node: &mut Node,
        from: Identity,
        term: Term,
        (id, low_water): (TransactionId, u64),
        change: &RosterChange,
    ) -> Result<(), RefusalReason> {
        self.check_term(node, term)?;
        if id.origin != from.incarnation.0 || low_water > id.sequence {
            return Err(RefusalReason::Malformed);
        }
        let leading = self.leading.as_mut().ok_or(RefusalReason::WrongTerm)?;
        if node.applier.known(&leading.tail, id) != Outcome::Unknown {
            node.counters.duplicates += 1;
            return Ok(()); // its fate comes from the log, as the first copy's does
        }
        leading.roster.clone().apply(change).map_err(RefusalReason::Roster)?;
        leading.opened(node.now);
        leading.change(id, low_water, change);
        leading.open.push(&Item::Change { id, low_water, change: change.clone() });
        leading.open_requests.push((from, id));
        self.close_full_window(node);
        Ok(())
    }

    /// Logs a stop or departure, unless it is there already.
    pub(super) fn take_mark(
        &mut self,
        node: &mut Node,
        term: Term,
        item: &Item<'_>,
    ) -> Result<(), RefusalReason> {
        self.check_term(node, term)?;
        let &(Item::Stopped(identity) | Item::Departed(identity)) = item else {
            unreachable!("only marks are passed here");
        };
        let leading = self.leading.as_mut().ok_or(RefusalReason::WrongTerm)?;
        if leading.marks.contains(&identity) || self.farewell.has(identity) {
            return Ok(());
        }
        leading.opened(node.now);
        leading.mark(identity);
        leading.open.push(item);
        Ok(())
    }

    pub(super) fn check_term(&self, node: &Node, term: Term) -> Result<(), RefusalReason> {
        let leading = self.leading.as_ref().ok_or(RefusalReason::WrongTerm)?;
        assert_eq!(leading.term, self.core.term(), "the tail belongs to another term");
        if term == leading.term || any_term_accepted(node) {
            return Ok(());
        }
        Err(RefusalReason::WrongTerm)
    }

    /// Closes the open window if the adaptive rule says so: at once while nothing is under way,
    /// else when it is full or old enough.
    pub(super) fn close_window_if_due(&mut self, node: &mut Node) {
        let Some(leading) = &self.leading else { return };
        if leading.open.count() == 0 {
            return;
        }
        let idle = self.core.commit() == self.core.last().0;
        if idle || leading.window_deadline(node) <= node.now {
            self.close_window(node);
        }
    }

    pub(super) fn close_full_window(&mut self, node: &mut Node) {
        let Some(leading) = &self.leading else { return };
        let settings = &node.settings;
        if leading.open.bytes() >= settings.window_bytes
            || leading.open.count() >= settings.window_transactions
        {
            self.close_window(node);
        }
    }

    fn close_window(&mut self, node: &mut Node) {
        let Some(leading) = &mut self.leading else { return };
        let open = std::mem::take(&mut leading.open);
        let waiting = std::mem::take(&mut leading.open_requests);
        let (payload, count) = open.close();
        let first_index = leading.tail.next().0 - u64::from(count);
        let term = leading.term;
        let before = self.core.last().0;
        self.drive(node, CoreInput::Propose { first_index, count, payload });
        if self.core.last().0 > before {
            node.counters.windows += 1;
            return;
        }
        for (from, id) in waiting {
            self.refuse(node, from, id, term, RefusalReason::WrongTerm);
        }
        if self.is_leading() {
            // The tail counts a window that never was.
            let mut refused = BTreeMap::new();
            if let Some(mut leading) = self.leading.take() {
                refused = std::mem::take(&mut leading.refused);
                self.abandon(node, leading);
            }
            self.role_changed(node);
            // The same term goes on, and what was refused in it.
            if let Some(leading) = self.leading.as_mut().filter(|leading| leading.term == term) {
                leading.refused = refused;
            }
        }
    }

    /// Leadership is over: who waits for the open window, or for a procedure, may ask the next
    /// leader at once.
    pub(super) fn abandon(&mut self, node: &mut Node, leading: Leading) {
        for (from, id) in leading.open_requests.into_iter().chain(leading.calls.into_requests()) {
            self.refuse(node, from, id, leading.term, RefusalReason::WrongTerm);
        }
    }

    pub(super) fn refuse(
        &mut self,
        node: &mut Node,
        to: Identity,
        id: TransactionId,
        term: Term,
        reason: RefusalReason,
    ) {
        if let Some(leading) = &mut self.leading {
            leading.note_refused(id, term, reason);
        }
        if reason == RefusalReason::Conflict {
            node.counters.conflicts += 1;
        }
        if to == node.identity() {
            self.refused(node, id, term, reason);
        } else {
            node.send(to, PeerMessage::Refused { id, term, reason });
        }
    }
}

fn decode(node: &Node, bytes: &[u8]) -> Result<Submission, Malformed> {
    let mut reader = Reader::new(bytes);
    let submission = Submission::decode(&mut reader, &node.dictionary)?;
    reader.finish()?;
    Ok(submission)
}

pub(super) fn reason(refusal: Refusal) -> RefusalReason {
    match refusal {
        Refusal::Conflict => RefusalReason::Conflict,
        Refusal::SnapshotTooOld { floor } => RefusalReason::SnapshotTooOld { floor: floor.0 },
        Refusal::SegmentFull { used_bytes, needed_bytes, allowed_bytes } => {
            RefusalReason::SegmentFull { used_bytes, needed_bytes, allowed_bytes }
        }
        _ => RefusalReason::Conflict,
    }
}

#[cfg(not(feature = "planted-bugs"))]
fn any_term_accepted(_: &Node) -> bool {
    false
}

#[cfg(feature = "planted-bugs")]
fn any_term_accepted(node: &Node) -> bool {
    node.settings.bug == Some(super::super::api::ReplicaBug::AnyTermAccepted)
}

#[cfg(not(feature = "planted-bugs"))]
pub(super) fn fences_are_forgotten(_: &Node) -> bool {
    false
}

#[cfg(feature = "planted-bugs")]
pub(super) fn fences_are_forgotten(node: &Node) -> bool {
    node.settings.bug == Some(super::super::api::ReplicaBug::FenceNotRemembered)
}
