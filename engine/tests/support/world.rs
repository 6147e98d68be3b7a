//! A leader, a follower and open transactions under random schedules, each step compared with the
//! dumb model.
//!
//! Commits do not block here: the commit path only keeps what is submitted, and the schedule
//! decides when the leader certifies it, when it and the follower apply, when a new leader
//! rebuilds the tail, and when a node starts anew from an image.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use quorate_engine::{
    Access, Applier, BeginError, CommitError, CommitOptions, CommitPath, CommitTicket, Database,
    DatabaseParams, Error, Handle, Index, Isolation, Outcome, Record, Refusal, Submission, Tail,
    Transaction, TransactionId, WriteSet,
};
use quorate_schema::bytes::{Reader, Writer};
use quorate_schema::{Dictionary, Reference, Value};

use super::Random;
use super::dumb::{
    Added, Addition, DDL, INDEXES, Read, Row, State, View, Writes, place, sorted, view,
};

/// Keeps submissions for the test, and tells their programs that the outcome is not known.
#[derive(Default)]
struct Capture {
    submitted: Mutex<Vec<Submission>>,
    sequences: AtomicU64,
}

impl CommitPath for Capture {
    fn admit(&self, _: Access) -> Result<(), BeginError> {
        Ok(())
    }

    fn submit(
        &self,
        submission: Submission,
        _: CommitOptions,
    ) -> Result<Arc<dyn CommitTicket>, CommitError> {
        let id = submission.id;
        self.submitted.lock().unwrap().push(submission);
        Err(CommitError::InDoubt(id))
    }

    fn next_id(&self) -> (TransactionId, u64) {
        let sequence = self.sequences.fetch_add(1, Ordering::Relaxed) + 1;
        (TransactionId { origin: 77, sequence }, sequence.saturating_sub(20))
    }
}

struct Node {
    db: Database,
    applier: Applier,
    capture: Arc<Capture>,
}

impl Node {
    fn new(params: DatabaseParams) -> Node {
        let capture = Arc::new(Capture::default());
        let path = Arc::clone(&capture) as Arc<dyn CommitPath>;
        let dictionary = Dictionary::parse(DDL).unwrap();
        let db = Database::open_with("model", dictionary, params, path).unwrap();
        Node { applier: db.applier(), db, capture }
    }
}

struct Open {
    tx: Transaction<'static>,
    snapshot: usize,
    serializable: bool,
    view: View,
    touched: BTreeSet<u64>,
    added: Added,
    targets: BTreeSet<u64>,
    reads: Vec<Read>,
}

/// What a run met, so that a test can demand that it was a hard one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) commits: u64,
    pub(crate) conflicts: u64,
    pub(crate) early_aborts: u64,
    pub(crate) conflicts_with_tail: u64,
    pub(crate) violations: u64,
    pub(crate) additions: u64,
    /// Transactions that added to a record behind another one that they had not seen.
    pub(crate) blind_sums: u64,
    pub(crate) images: u64,
    pub(crate) repeats: u64,
}

pub(crate) struct World {
    random: Random,
    leader: Node,
    follower: Node,
    tail: Tail,
    /// By index - 1.
    log: Vec<Arc<[u8]>>,
    writes: Vec<Writes>,
    /// By index.
    states: Vec<State>,
    old: Vec<Submission>,
    open: Vec<Option<Open>>,
    pub(crate) seen: Seen,
}

impl World {
    pub(crate) fn new(seed: u64, params: DatabaseParams) -> World {
        let params = params.with_max_connections(u32::MAX - 1);
        World {
            random: Random::new(seed),
            leader: Node::new(params),
            follower: Node::new(DatabaseParams::default()),
            tail: Tail::new(Index(1)),
            log: Vec::new(),
            writes: Vec::new(),
            states: vec![State::default()],
            old: Vec::new(),
            open: (0..4).map(|_| None).collect(),
            seen: Seen::default(),
        }
    }

    pub(crate) fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            let slot = self.random.below(self.open.len() as u64) as usize;
            match self.random.below(20) {
                0 | 1 => self.apply_some(),
                2 => self.follow(),
                3 if self.random.once_in(4) => self.lead_anew(),
                4 if self.random.once_in(10) => self.start_from_image(),
                5 => self.repeat(),
                6..=8 if self.open[slot].is_some() => self.commit(slot),
                9 if self.random.once_in(5) => self.open[slot] = None,
                _ if self.open[slot].is_none() => self.begin(slot),
                _ => self.operate(slot),
            }
        }
        self.apply_all();
    }

    fn begin(&mut self, slot: usize) {
        let serializable = self.random.once_in(2);
        let isolation = if serializable { Isolation::Serializable } else { Isolation::Snapshot };
        let connection = Box::leak(Box::new(self.leader.db.connect().unwrap()));
        let tx = connection.begin(Access::ReadWrite, isolation).unwrap();
        let snapshot = tx.snapshot().0 as usize;
        let view = view(&self.states[snapshot]);
        let (touched, targets) = (BTreeSet::new(), BTreeSet::new());
        let added = Added::new();
        let reads = Vec::new();
        self.open[slot] =
            Some(Open { tx, snapshot, serializable, view, touched, added, targets, reads });
    }

    fn operate(&mut self, slot: usize) {
        let newest = self.states.last().unwrap().clone();
        let open = self.open[slot].as_mut().unwrap();
        let random = &mut self.random;
        match random.below(13) {
            10..=12 => self.seen.additions += u64::from(open.add(random, &newest)),
            0..=2 => self.seen.violations += u64::from(open.insert(random)),
            3 | 4 => self.seen.violations += u64::from(open.update(random, &newest)),
            5 => open.delete(random, &newest),
            6 => open.get(random, &newest),
            7 => open.find(random),
            8 => open.walk(random),
            _ => open.scan(),
        }
    }

    fn commit(&mut self, slot: usize) {
        let open = self.open[slot].take().unwrap();
        let writes =
            Writes::new(&self.states[open.snapshot], &open.view, &open.touched, &open.added);
        let conflict = |earlier: &Writes| writes.conflicts(&open.targets, &open.reads, earlier);
        let applied = self.leader.db.visible_index().0 as usize;
        let early = self.writes[open.snapshot..applied].iter().any(conflict);
        let late = self.writes[applied..].iter().any(conflict);
        match open.tx.commit() {
            Ok(_) => {
                assert!(writes.is_empty(), "a commit was not submitted");
                return;
            }
            Err(CommitError::Conflict) => {
                assert!(early, "refused for no reason");
                self.seen.conflicts += 1;
                self.seen.early_aborts += 1;
                return;
            }
            Err(CommitError::InDoubt(_)) => assert!(!early, "submitted despite a conflict"),
            Err(other) => panic!("commit failed: {other}"),
        }
        let submission = self.leader.capture.submitted.lock().unwrap().pop().unwrap();
        let submission = travel(&submission, self.leader.db.dictionary());
        self.check_follower_agrees(&submission);
        match self.leader.applier.certify(&self.tail, &submission) {
            Ok(footprint) => {
                assert!(!late, "admitted despite a conflict in the tail");
                let index = self.tail.next();
                self.tail.observe(index, &footprint);
                self.log.push(Arc::clone(&submission.write_set));
                let state = self.states.last().unwrap();
                self.states.push(state.apply(index.0, &open.view, &open.touched, &open.added));
                let mut unseen = self.writes[open.snapshot..].iter();
                let blind = unseen.any(|earlier| writes.adds_with(earlier));
                self.seen.blind_sums += u64::from(blind);
                self.writes.push(writes);
                self.old.push(submission);
                self.seen.commits += 1;
            }
            Err(Refusal::Conflict) => {
                assert!(late, "refused by the leader for no reason");
                self.seen.conflicts += 1;
                self.seen.conflicts_with_tail += 1;
            }
            Err(other) => panic!("refused: {other}"),
        }
    }

    /// A follower that is as far decides as the leader does.
    fn check_follower_agrees(&self, submission: &Submission) {
        let applied = self.follower.applier.applied();
        if applied != self.leader.applier.applied() {
            return;
        }
        let tail = self.tail_from_log(applied);
        let here = self.leader.applier.certify(&self.tail, submission);
        let there = self.follower.applier.certify(&tail, submission);
        assert_eq!(here, there, "another leader would decide otherwise");
    }

    fn apply_some(&mut self) {
        let applied = self.leader.applier.applied();
        let pending = self.log.len() as u64 - applied.0;
        let upto = applied.0 + self.random.below(pending + 1);
        for index in applied.0 + 1..=upto {
            self.leader.applier.apply(Index(index), &self.log[index as usize - 1]).unwrap();
        }
        self.leader.applier.publish();
        if self.random.once_in(2) {
            self.tail.settle(Index(upto));
        }
        check(&self.leader.db, &self.states[upto as usize]);
    }

    fn apply_all(&mut self) {
        for node in [&self.leader, &self.follower] {
            for index in node.applier.applied().0 as usize..self.log.len() {
                node.applier.apply(Index(index as u64 + 1), &self.log[index]).unwrap();
            }
            node.applier.publish();
            check(&node.db, self.states.last().unwrap());
            node.db.check().unwrap();
        }
        assert_eq!(self.leader.db.state_hash(), self.follower.db.state_hash());
    }

    fn follow(&mut self) {
        let applier = &self.follower.applier;
        let leading = self.leader.applier.applied();
        for index in applier.applied().0..leading.0 {
            applier.apply(Index(index + 1), &self.log[index as usize]).unwrap();
        }
        if applier.applied() == leading {
            assert_eq!(applier.state_hash(), self.leader.applier.state_hash());
        }
    }

    fn tail_from_log(&self, applied: Index) -> Tail {
        let dictionary = self.leader.db.dictionary();
        let mut tail = Tail::new(applied.next());
        for (position, write_set) in self.log.iter().enumerate().skip(applied.0 as usize) {
            let write_set = WriteSet::decode(write_set, dictionary).unwrap();
            tail.observe(Index(position as u64 + 1), &write_set.footprint(dictionary));
        }
        tail
    }

    fn lead_anew(&mut self) {
        self.tail = self.tail_from_log(self.leader.applier.applied());
    }

    /// The follower loses everything and starts from the leader's image.
    fn start_from_image(&mut self) {
        let node = Node::new(DatabaseParams::default());
        let mut stream = self.leader.applier.image_stream();
        let mut builder = node.applier.image_builder();
        let (objects, bytes) = (self.random.below(20) as usize, self.random.below(1500) as usize);
        while let Some(piece) = stream.next_piece(objects, bytes) {
            builder.push(&piece).unwrap();
        }
        assert_eq!(node.applier.install_built(builder).unwrap(), stream.index());
        check(&node.db, &self.states[stream.index().0 as usize]);
        node.db.check().unwrap();
        assert_eq!(node.applier.state_hash(), self.leader.applier.state_hash());
        let (again, image) = (node.applier.image(), self.leader.applier.image());
        assert!(again.bytes == image.bytes, "an image of the same state differs");
        self.follower = node;
        self.seen.images += 1;
    }

    /// A submission arrives once more: it is known, wherever it is by now.
    fn repeat(&mut self) {
        if self.old.is_empty() {
            return;
        }
        let submission = self.random.pick(&self.old);
        match self.leader.applier.certify(&self.tail, submission) {
            Err(Refusal::Known(outcome)) => {
                let index = |outcome| match outcome {
                    Outcome::Committed(index) => Some(index),
                    _ => None,
                };
                let at = index(outcome).map(|index| &self.log[index.0 as usize - 1]);
                assert!(at.is_none_or(|bytes| *bytes == submission.write_set));
                self.seen.repeats += 1;
            }
            other => panic!("{} was certified twice: {other:?}", submission.id),
        }
    }
}

/// Through the wire and back.
fn travel(submission: &Submission, dictionary: &Dictionary) -> Submission {
    let mut to = Writer::new();
    submission.encode(&mut to);
    let bytes = to.finish();
    let mut from = Reader::new(&bytes);
    let there = Submission::decode(&mut from, dictionary).unwrap();
    from.finish().unwrap();
    assert_eq!(there.id, submission.id);
    assert_eq!(there.low_water, submission.low_water);
    assert_eq!(there.snapshot, submission.snapshot);
    assert_eq!(there.isolation, submission.isolation);
    assert_eq!(there.write_set, submission.write_set);
    assert_eq!(there.reads, submission.reads);
    assert_eq!((there.attempts, there.series), (submission.attempts, submission.series));
    there
}

/// Everything visible is as the model says.
fn check(db: &Database, state: &State) {
    let mut connection = db.connect().unwrap();
    let tx = connection.begin(Access::ReadOnly, Isolation::Snapshot).unwrap();
    let expected: Vec<(Handle, Vec<Value>)> =
        view(state).values().map(|(handle, row)| (*handle, row.read())).collect();
    let found: Vec<(Handle, Vec<Value>)> =
        tx.scan("Item").unwrap().map(|(handle, record)| (handle, values(&record))).collect();
    assert_eq!(found, expected);
}

fn values(record: &Record) -> Vec<Value> {
    record.view().values()
}

impl Open {
    fn random_row(&self, random: &mut Random) -> Row {
        let texts = [None, None, Some(""), Some("a"), Some("ab"), Some("b"), Some("\u{e9}")];
        let links: Vec<Reference> =
            self.view.values().map(|(handle, _)| handle.reference()).collect();
        let link =
            if links.is_empty() || random.once_in(2) { None } else { Some(*random.pick(&links)) };
        let mut items = Vec::new();
        while random.once_in(3) {
            let nothing = links.is_empty() || random.once_in(8);
            items.push(if nothing { Handle::NOTHING } else { *random.pick(&links) });
        }
        Row {
            k: random.below(12),
            v: random.below(4) as i64 - 2,
            s: random.pick(&texts).map(str::to_owned),
            link,
            links: items,
            n: None,
            c: random.below(256) as i64 - 128,
            u: if random.once_in(4) { None } else { Some(random.below(256)) },
        }
    }

    /// A handle from the view, or one that may be gone, or is of the future.
    fn random_handle(&self, random: &mut Random, newest: &State) -> Option<Handle> {
        let handles: Vec<Handle> = if random.once_in(6) {
            view(newest).values().map(|(handle, _)| *handle).collect()
        } else {
            self.view.values().map(|(handle, _)| *handle).collect()
        };
        if handles.is_empty() { None } else { Some(*random.pick(&handles)) }
    }

    fn note(&mut self, read: Read) {
        if self.serializable {
            self.reads.push(read);
        }
    }

    fn note_record(&mut self, handle: Handle) {
        if handle.is_provisional() {
            return;
        }
        if handle.creation > self.snapshot as u64 {
            self.note(Read::Membership);
        } else {
            self.note(Read::Record(handle.id));
        }
    }

    fn has(&self, handle: Handle) -> bool {
        self.view.get(&place(handle)).is_some_and(|(found, _)| *found == handle)
    }

    /// The unique index that another row's key stands in the way of, with that key.
    fn violation(&self, row: &Row, except: Option<Handle>) -> Option<(&'static str, Value)> {
        for index in INDEXES.iter().filter(|index| index.unique && index.name != "by_n") {
            let key = row.key(index);
            let taken = self.view.values().any(|(handle, other)| {
                Some(*handle) != except && other.key(index) == key && key[0] != Value::Null
            });
            if taken {
                return Some((index.name, key[0].clone()));
            }
        }
        None
    }

    fn insert(&mut self, random: &mut Random) -> bool {
        let row = self.random_row(random);
        let inserted = self.tx.insert_values("Item", &row.values());
        if let Some((index, key)) = self.violation(&row, None) {
            let error = inserted.unwrap_err();
            assert!(matches!(error, Error::UniqueViolation { .. }), "{error}");
            self.note(Read::Unique(index, key));
            return true;
        }
        let handle = inserted.unwrap();
        self.link_to(row.link.iter().chain(&row.links));
        assert!(handle.is_provisional() && !self.has(handle));
        self.view.insert(place(handle), (handle, row));
        false
    }

    fn link_to<'a>(&mut self, links: impl Iterator<Item = &'a Reference>) {
        let committed = links.filter(|link| !link.is_provisional() && **link != Handle::NOTHING);
        self.targets.extend(committed.map(|link| link.id));
    }

    fn update(&mut self, random: &mut Random, newest: &State) -> bool {
        let Some(handle) = self.random_handle(random, newest) else { return false };
        let new = self.random_row(random);
        let all = new.values();
        let changes: Vec<(&str, Value)> = all.into_iter().filter(|_| random.once_in(2)).collect();
        let updated = self.tx.update_fields(handle, &changes);
        self.note_record(handle);
        if !self.has(handle) {
            assert!(matches!(updated, Err(Error::Gone(_))), "{updated:?}");
            return false;
        }
        let mut row = self.view[&place(handle)].1.clone();
        let old = row.clone();
        for (field, _) in &changes {
            match *field {
                "k" => row.k = new.k,
                "v" => row.v = new.v,
                "s" => row.s = new.s.clone(),
                "link" => row.link = new.link,
                "c" => row.c = new.c,
                "u" => row.u = new.u,
                _ => row.links = new.links.clone(),
            }
        }
        if let Some((index, key)) = self.violation(&row, Some(handle)) {
            let error = updated.unwrap_err();
            assert!(matches!(error, Error::UniqueViolation { .. }), "{error}");
            self.note(Read::Unique(index, key));
            return true;
        }
        updated.unwrap();
        self.link_to(row.link.iter().filter(|link| old.link != Some(**link)));
        self.link_to(row.links.iter().filter(|link| !old.links.contains(link)));
        self.replace(handle, row);
        false
    }

    /// True if something was added, without reading it.
    fn add(&mut self, random: &mut Random, newest: &State) -> bool {
        let Some(handle) = self.random_handle(random, newest) else { return false };
        let field = *random.pick(&["c", "u"]);
        let addition: Addition = (field, random.below(3), random.below(512) as i64 - 256);
        let added = match addition.1 {
            0 => self.tx.add(handle, field, addition.2),
            1 => self.tx.min(handle, field, addition.2),
            _ => self.tx.max(handle, field, addition.2),
        };
        if !self.has(handle) {
            assert!(matches!(added, Err(Error::Gone(_))), "{added:?}");
            self.note_record(handle);
            return false;
        }
        let row = &mut self.view.get_mut(&place(handle)).unwrap().1;
        if !row.add(addition) {
            assert!(matches!(added, Err(Error::NullAddend { .. })), "{added:?}");
            self.note_record(handle);
            return false;
        }
        added.unwrap();
        if !handle.is_provisional() && !self.touched.contains(&handle.id) {
            self.added.entry(handle.id).or_default().push(addition);
        }
        true
    }

    fn replace(&mut self, handle: Handle, row: Row) {
        if !handle.is_provisional() {
            self.touched.insert(handle.id);
            self.added.remove(&handle.id);
        }
        self.view.insert(place(handle), (handle, row));
    }

    fn delete(&mut self, random: &mut Random, newest: &State) {
        let Some(handle) = self.random_handle(random, newest) else { return };
        let deleted = self.tx.delete(handle);
        self.note_record(handle);
        if !self.has(handle) {
            assert!(matches!(deleted, Err(Error::Gone(_))), "{deleted:?}");
            return;
        }
        deleted.unwrap();
        if handle.is_provisional() {
            let target = handle.reference();
            let refers = |row: &Row| row.link == Some(target) || row.links.contains(&target);
            let referring: Vec<(Handle, Row)> =
                self.view.values().filter(|(_, row)| refers(row)).cloned().collect();
            for (holder, mut row) in referring {
                self.note_record(holder);
                row.link = row.link.filter(|link| *link != target);
                let to_target = |link: &&mut Reference| **link == target;
                row.links.iter_mut().filter(to_target).for_each(|link| *link = Handle::NOTHING);
                self.replace(holder, row);
            }
        } else {
            self.touched.insert(handle.id);
            self.added.remove(&handle.id);
        }
        self.view.remove(&place(handle));
    }

    fn get(&mut self, random: &mut Random, newest: &State) {
        let Some(handle) = self.random_handle(random, newest) else { return };
        let found = self.tx.record(handle).unwrap();
        self.note_record(handle);
        let expected =
            if self.has(handle) { Some(self.view[&place(handle)].1.read()) } else { None };
        assert_eq!(found.map(|record| values(&record)), expected);
    }

    fn find(&mut self, random: &mut Random) {
        let number = random.below(INDEXES.len() as u64) as usize;
        let index = &INDEXES[number];
        let key = self.random_key(random, index);
        let found = self.tx.find_record("Item", index.name, &key).unwrap();
        if index.unique && key[0] != Value::Null {
            self.note(Read::Unique(index.name, key[0].clone()));
        } else {
            let (low, high) = (Bound::Included(key.clone()), Bound::Included(key.clone()));
            self.note(Read::Range(number, low, high));
        }
        if index.late {
            self.note(Read::Membership);
        }
        let rows = sorted(&self.view, index);
        let expected = rows.into_iter().find(|(_, row)| row.key(index) == key);
        self.compare(found, expected);
    }

    /// The key of some row, seen or not.
    fn random_key(&self, random: &mut Random, index: &super::dumb::Index) -> Vec<Value> {
        let rows: Vec<&Row> = self.view.values().map(|(_, row)| row).collect();
        let mut row = if rows.is_empty() || random.once_in(2) {
            self.random_row(random)
        } else {
            (*random.pick(&rows)).clone()
        };
        row.n = Some(row.n.unwrap_or(random.below(30)));
        row.key(index)
    }

    fn compare(&mut self, found: Option<(Handle, Record)>, expected: Option<(Handle, Row)>) {
        if let Some((handle, _)) = &expected {
            self.note_record(*handle);
        }
        let found = found.map(|(handle, record)| (handle, values(&record)));
        assert_eq!(found, expected.map(|(handle, row)| (handle, row.read())));
    }

    fn walk(&mut self, random: &mut Random) {
        let number = random.below(INDEXES.len() as u64) as usize;
        let index = &INDEXES[number];
        let mut cursor = self.tx.cursor("Item", index.name).unwrap();
        let (mut low, mut high) = (Bound::Unbounded, Bound::Unbounded);
        if index.ordered {
            low = self.random_bound(random, index);
            high = self.random_bound(random, index);
            cursor = cursor.range(as_slice(&low), as_slice(&high)).unwrap();
        }
        let mut rows = sorted(&self.view, index);
        rows.retain(|(_, row)| index.contains(&low, &high, &row.key(index)));
        let backward = random.once_in(3);
        if backward {
            rows.reverse();
        }
        let limit = random.below(6) as usize + 1;
        let mut steps = Vec::new();
        for step in 0..limit {
            steps.push(match (step, backward) {
                (0, false) => cursor.first(),
                (0, true) => cursor.last(),
                (_, false) => cursor.next(),
                (_, true) => cursor.prev(),
            });
            if steps.last().unwrap().is_none() {
                break;
            }
        }
        drop(cursor);
        for (position, found) in steps.iter().enumerate() {
            let expected = rows.get(position).cloned();
            match (&expected, backward) {
                (Some((_, row)), false) if position + 1 == steps.len() => {
                    high = Bound::Included(row.key(index));
                }
                (Some((_, row)), true) if position + 1 == steps.len() => {
                    low = Bound::Included(row.key(index));
                }
                _ => {}
            }
            self.compare(found.clone(), expected);
        }
        self.note(Read::Range(number, low, high));
        if index.late {
            self.note(Read::Membership);
        }
    }

    fn random_bound(&self, random: &mut Random, index: &super::dumb::Index) -> Bound<Vec<Value>> {
        let mut key = self.random_key(random, index);
        if key.len() > 1 && random.once_in(2) {
            key.pop();
        }
        match random.below(3) {
            0 => Bound::Unbounded,
            1 => Bound::Included(key),
            _ => Bound::Excluded(key),
        }
    }

    fn scan(&mut self) {
        let found: Vec<(Handle, Vec<Value>)> = self
            .tx
            .scan("Item")
            .unwrap()
            .map(|(handle, record)| (handle, values(&record)))
            .collect();
        let expected: Vec<(Handle, Vec<Value>)> =
            self.view.values().map(|(handle, row)| (*handle, row.read())).collect();
        assert_eq!(found, expected);
        self.note(Read::Membership);
        let handles: Vec<Handle> = expected.into_iter().map(|(handle, _)| handle).collect();
        handles.into_iter().for_each(|handle| self.note_record(handle));
    }
}

fn as_slice(bound: &Bound<Vec<Value>>) -> Bound<&[Value]> {
    bound.as_ref().map(|values| &values[..])
}
