//! What the log says of transaction ids, against a model that reads the whole log each time.
//!
//! Random logs of transactions, notes, fences and items without an id are certified, applied and
//! settled in random pieces; a new leader rebuilds its tail, a node starts from an image. At each
//! step everything known of every id must be what the log says.
#![allow(clippy::unwrap_used)]

#[path = "support/random.rs"]
mod random;

use std::sync::{Arc, Mutex};

use quorate_engine::{
    Access, Applier, BeginError, CommitError, CommitOptions, CommitPath, CommitTicket, Database,
    DatabaseParams, Footprint, Index, Isolation, Outcome, Refusal, Submission, Tail, TransactionId,
};
use quorate_schema::{Dictionary, Value};
use random::Random;

const DDL: &str = "declare database fates; class Thing { unsigned<4> number; };";

const ORIGINS: [u128; 3] = [0, 1, 1 << 100];
const SEQUENCES: u64 = 12;

/// Hands out the ids that the test asks for, and keeps what is submitted.
#[derive(Default)]
struct Chosen {
    next: Mutex<Option<(TransactionId, u64)>>,
    submitted: Mutex<Option<Submission>>,
}

impl CommitPath for Chosen {
    fn admit(&self, _: Access) -> Result<(), BeginError> {
        Ok(())
    }

    fn submit(
        &self,
        submission: Submission,
        _: CommitOptions,
    ) -> Result<Arc<dyn CommitTicket>, CommitError> {
        let id = submission.id;
        *self.submitted.lock().unwrap() = Some(submission);
        Err(CommitError::InDoubt(id))
    }

    fn next_id(&self) -> (TransactionId, u64) {
        self.next.lock().unwrap().unwrap()
    }
}

struct Node {
    database: Database,
    applier: Applier,
    chosen: Arc<Chosen>,
}

impl Node {
    fn new() -> Node {
        let chosen = Arc::new(Chosen::default());
        let path = Arc::clone(&chosen) as Arc<dyn CommitPath>;
        let dictionary = Dictionary::parse(DDL).unwrap();
        let params = DatabaseParams::default();
        let database = Database::open_with("fates", dictionary, params, path).unwrap();
        Node { applier: database.applier(), database, chosen }
    }

    fn submission(&self, id: TransactionId, low_water: u64) -> Submission {
        *self.chosen.next.lock().unwrap() = Some((id, low_water));
        let mut connection = self.database.connect().unwrap();
        let tx = connection.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
        tx.insert_values("Thing", &[("number", Value::Unsigned(id.sequence))]).unwrap();
        assert_eq!(tx.commit().unwrap_err(), CommitError::InDoubt(id));
        self.chosen.submitted.lock().unwrap().take().unwrap()
    }
}

#[derive(Clone)]
enum Item {
    Transaction(Submission, Box<Footprint>),
    Note(TransactionId, u64),
    Fence(TransactionId),
    Skip,
}

impl Item {
    fn apply(&self, applier: &Applier, index: Index) {
        match self {
            Item::Transaction(submission, _) => {
                applier.apply(index, &submission.write_set).unwrap();
            }
            Item::Note(id, low_water) => applier.note(index, *id, *low_water),
            Item::Fence(id) => applier.fence(index, *id),
            Item::Skip => applier.skip(index),
        }
    }

    fn observe(&self, tail: &mut Tail, index: Index) {
        match self {
            Item::Transaction(_, footprint) => tail.observe(index, footprint),
            Item::Note(id, low_water) => tail.note(index, *id, *low_water),
            Item::Fence(id) => tail.fence(index, *id),
            Item::Skip => tail.skip(index),
        }
    }
}

/// The first thing said of an id counts, and nothing once a low water has passed it.
fn model(log: &[Item], id: TransactionId) -> Outcome {
    let mut outcome = Outcome::Unknown;
    let mut low_water = 0;
    for (item, index) in log.iter().zip(1..) {
        let committed = match item {
            Item::Transaction(Submission { id, low_water, .. }, _) => Some((*id, *low_water)),
            Item::Note(id, low_water) => Some((*id, *low_water)),
            Item::Fence(_) | Item::Skip => None,
        };
        let known = outcome != Outcome::Unknown || id.sequence < low_water;
        match item {
            Item::Fence(fenced) if *fenced == id && !known => outcome = Outcome::NotCommitted,
            _ if committed.is_some_and(|(other, _)| other == id) && !known => {
                outcome = Outcome::Committed(Index(index));
            }
            _ => {}
        }
        if let Some((other, advertised)) = committed
            && other.origin == id.origin
        {
            low_water = low_water.max(advertised);
        }
    }
    if id.sequence < low_water { Outcome::Forgotten } else { outcome }
}

/// How often a run met what makes it hard.
#[derive(Debug, Default)]
struct Seen {
    late_fences: u64,
    refused_by_fence: u64,
    refused_by_tail_fence: u64,
    images_with_fences: u64,
}

struct Run {
    random: Random,
    node: Node,
    log: Vec<Item>,
    tail: Tail,
    seen: Seen,
}

impl Run {
    fn id(&mut self) -> TransactionId {
        TransactionId {
            origin: *self.random.pick(&ORIGINS),
            sequence: 1 + self.random.below(SEQUENCES),
        }
    }

    fn step(&mut self) {
        match self.random.below(12) {
            0..=2 => self.transaction(),
            3 | 4 => self.note(),
            5..=7 => self.fence(),
            8 => self.push(Item::Skip),
            9 => self.apply_some(),
            10 if self.random.once_in(3) => self.lead_anew(),
            11 if self.random.once_in(6) => self.start_from_image(),
            _ => {}
        }
        self.check();
    }

    fn push(&mut self, item: Item) {
        let index = self.tail.next();
        item.observe(&mut self.tail, index);
        self.log.push(item);
    }

    fn low_water(&mut self) -> u64 {
        if self.random.once_in(6) { self.random.below(SEQUENCES) } else { 0 }
    }

    fn transaction(&mut self) {
        let (id, low_water) = (self.id(), self.low_water());
        let submission = self.node.submission(id, low_water.min(id.sequence));
        match self.node.applier.certify(&self.tail, &submission) {
            Ok(footprint) => {
                assert_eq!(model(&self.log, id), Outcome::Unknown);
                self.push(Item::Transaction(submission, Box::new(footprint)));
            }
            Err(Refusal::Known(outcome)) => {
                assert_eq!(outcome, self.known(id));
                assert_ne!(outcome, Outcome::Unknown);
                if outcome == Outcome::NotCommitted {
                    self.seen.refused_by_fence += 1;
                    let applied = self.node.applier.outcome(id);
                    self.seen.refused_by_tail_fence += u64::from(applied == Outcome::Unknown);
                }
            }
            Err(other) => panic!("{id} refused: {other}"),
        }
    }

    fn note(&mut self) {
        let (id, low_water) = (self.id(), self.low_water());
        if self.node.applier.known(&self.tail, id) == Outcome::Unknown {
            self.push(Item::Note(id, low_water));
        }
    }

    fn fence(&mut self) {
        let id = self.id();
        let late = matches!(model(&self.log, id), Outcome::Committed(_));
        self.seen.late_fences += u64::from(late);
        self.push(Item::Fence(id));
    }

    fn apply_some(&mut self) {
        let applied = self.node.applier.applied().0 as usize;
        let upto = applied + self.random.below((self.log.len() - applied) as u64 + 1) as usize;
        for position in applied..upto {
            self.log[position].apply(&self.node.applier, Index(position as u64 + 1));
        }
        self.node.applier.publish();
        if self.random.once_in(2) {
            self.tail.settle(Index(upto as u64));
        }
    }

    fn lead_anew(&mut self) {
        let applied = self.node.applier.applied();
        self.tail = Tail::new(applied.next());
        for (position, item) in self.log.iter().enumerate().skip(applied.0 as usize) {
            item.observe(&mut self.tail, Index(position as u64 + 1));
        }
    }

    fn start_from_image(&mut self) {
        let image = self.node.applier.image();
        let node = Node::new();
        node.applier.install(&image.bytes).unwrap();
        let applied = &self.log[..image.index.0 as usize];
        let fenced = all_ids().any(|id| model(applied, id) == Outcome::NotCommitted);
        self.seen.images_with_fences += u64::from(fenced);
        self.node = node;
        self.lead_anew();
    }

    /// What the log says of `id`; but what a low water in the tail will forget is remembered until
    /// it is applied.
    fn known(&self, id: TransactionId) -> Outcome {
        match model(&self.log[..self.node.applier.applied().0 as usize], id) {
            Outcome::Unknown => model(&self.log, id),
            known => known,
        }
    }

    fn check(&self) {
        let applier = &self.node.applier;
        let applied = &self.log[..applier.applied().0 as usize];
        for id in all_ids() {
            assert_eq!(applier.outcome(id), model(applied, id), "applied, {id}");
            assert_eq!(applier.known(&self.tail, id), self.known(id), "with the tail, {id}");
        }
    }
}

fn all_ids() -> impl Iterator<Item = TransactionId> {
    let ids = |origin| (1..=SEQUENCES).map(move |sequence| TransactionId { origin, sequence });
    ORIGINS.into_iter().flat_map(ids)
}

#[test]
fn every_id_is_known_as_the_log_says() {
    let mut images_with_fences = 0;
    let mut refused_by_tail_fence = 0;
    for seed in 0..40 {
        let mut run = Run {
            random: Random::new(seed),
            node: Node::new(),
            log: Vec::new(),
            tail: Tail::new(Index(1)),
            seen: Seen::default(),
        };
        (0..150).for_each(|_| run.step());
        let seen = &run.seen;
        assert!(seen.late_fences > 0 && seen.refused_by_fence > 0, "seed {seed}: {seen:?}");
        images_with_fences += seen.images_with_fences;
        refused_by_tail_fence += seen.refused_by_tail_fence;
    }
    assert!(images_with_fences > 20 && refused_by_tail_fence > 20, "the runs were too easy");
}

#[test]
fn fences_of_one_origin_are_bounded_until_its_low_water_forgets_some() {
    let node = Node::new();
    let id = |sequence| TransactionId { origin: 1, sequence };
    let mut tail = Tail::new(Index(1));
    let mut fences = 0;
    while node.applier.may_fence(&tail, id(0)) {
        fences += 1;
        let index = tail.next();
        tail.fence(index, id(fences));
        if fences % 2 == 0 {
            node.applier.fence(Index(fences / 2), id(fences / 2));
            tail.settle(Index(fences / 2));
        }
    }
    assert_eq!(fences, 4096);
    assert!(node.applier.may_fence(&tail, TransactionId { origin: 2, sequence: 1 }));
    for index in fences / 2 + 1..=fences {
        node.applier.fence(Index(index), id(index));
    }
    tail.settle(Index(fences));
    assert!(!node.applier.may_fence(&tail, id(0)));
    node.applier.note(Index(fences + 1), id(fences + 1), 10);
    assert!(node.applier.may_fence(&tail, id(0)));
}
