//! Images in pieces: whatever the state and the size of the pieces, what is built is the same
//! database, and goes on the same; and pieces that are not the next one of one image are refused
//! by name.
#![allow(clippy::unwrap_used)]

#[path = "support/random.rs"]
mod random;

use std::sync::{Arc, Mutex};

use quorate_engine::{
    Access, Acknowledged, BeginError, CommitError, CommitOptions, CommitPath, CommitTicket,
    Database, DatabaseParams, Handle, ImageBuilder, ImageError, Index, Isolation, Malformed,
    Refusal, Submission, Tail, Transaction, TransactionId,
};
use quorate_schema::{Dictionary, Value};
use random::Random;

const DDL: &str = "
declare database images;
class Empty { unsigned<1> n; tree<n> by_n; };
class Plain { unsigned<2> n; };
class Item {
    unsigned<4> k;
    nullable string s;
    ref<Item> link;
    autoid a;
    unique tree<k> by_k;
    unique tree<s> by_s;
    hash<link> by_link;
    unique tree<a desc> by_a;
};
local class Note { string text; };
";

/// Applies what is submitted at once, or keeps it as a probe: never applied, to ask about.
struct Path {
    db: Mutex<Option<Database>>,
    probing: Mutex<bool>,
    probes: Mutex<Vec<Submission>>,
    log: Mutex<Vec<Arc<[u8]>>>,
    sequence: Mutex<u64>,
}

impl CommitPath for Path {
    fn admit(&self, _: Access) -> Result<(), BeginError> {
        Ok(())
    }

    fn submit(
        &self,
        submission: Submission,
        _: CommitOptions,
    ) -> Result<Arc<dyn CommitTicket>, CommitError> {
        let id = submission.id;
        if *self.probing.lock().unwrap() {
            self.probes.lock().unwrap().push(submission);
            return Err(CommitError::InDoubt(id));
        }
        let applier = self.db.lock().unwrap().as_ref().unwrap().applier();
        let index = applier.applied().next();
        applier.apply(index, &submission.write_set).unwrap();
        applier.publish();
        self.log.lock().unwrap().push(submission.write_set);
        let done: Result<Acknowledged, CommitError> = Ok(index.into());
        Ok(Arc::new(done))
    }

    fn next_id(&self) -> (TransactionId, u64) {
        let mut sequence = self.sequence.lock().unwrap();
        *sequence += 1;
        (TransactionId { origin: u128::from(*sequence % 3), sequence: *sequence }, 0)
    }
}

/// A database that is written to at random.
struct Source {
    db: Database,
    path: Arc<Path>,
    random: Random,
    items: Vec<Handle>,
    next_k: u64,
}

impl Drop for Source {
    fn drop(&mut self) {
        *self.path.db.lock().unwrap() = None; // else the two hold each other
    }
}

fn params() -> DatabaseParams {
    DatabaseParams::default().with_history_bytes(64 << 10)
}

fn empty() -> Database {
    Database::open("copy", Dictionary::parse(DDL).unwrap(), params()).unwrap()
}

impl Source {
    fn new(seed: u64) -> Source {
        let path = Arc::new(Path {
            db: Mutex::default(),
            probing: Mutex::default(),
            probes: Mutex::default(),
            log: Mutex::default(),
            sequence: Mutex::default(),
        });
        let dictionary = Dictionary::parse(DDL).unwrap();
        let commit_path = Arc::clone(&path) as Arc<dyn CommitPath>;
        let db = Database::open_with("source", dictionary, params(), commit_path).unwrap();
        *path.db.lock().unwrap() = Some(db.clone());
        Source { db, path, random: Random::new(seed), items: Vec::new(), next_k: 0 }
    }

    /// One transaction of a few operations, or something else that takes an index.
    fn step(&mut self) {
        let applier = self.db.applier();
        let index = applier.applied().next();
        let id = TransactionId { origin: 99, sequence: index.0 };
        match self.random.below(40) {
            0 => applier.fence(index, id),
            1 => applier.note(index, id, index.0.saturating_sub(30)),
            2 => applier.skip(index),
            _ => return self.transaction(),
        }
        applier.publish();
        // So that copies can follow: an item without a write set.
        self.path.log.lock().unwrap().push([].into());
    }

    fn transaction(&mut self) {
        let mut connection = self.db.connect().unwrap();
        let tx = connection.begin(Access::ReadWrite, Isolation::Serializable).unwrap();
        let mut inserted = Vec::new();
        for _ in 0..=self.random.below(4) {
            let victim = self.random.below(self.items.len().max(1) as u64) as usize;
            match (self.random.below(8), self.items.get(victim).copied()) {
                (0 | 1, Some(item)) => {
                    let link = ("link", Value::Ref(self.random.pick(&self.items).reference()));
                    let _ = tx.update_fields(item, &[link]);
                }
                (2 | 3, Some(item)) => {
                    tx.delete(item).unwrap();
                    self.items.swap_remove(victim);
                }
                (4, _) => drop(tx.insert_values("Plain", &[("n", Value::Unsigned(7))]).unwrap()),
                _ => inserted.push(self.insert(&tx)),
            }
        }
        let committed = tx.commit().unwrap();
        self.items.extend(inserted.into_iter().map(|item| committed.resolve(item).unwrap()));
    }

    fn insert(&mut self, tx: &Transaction<'_>) -> Handle {
        self.next_k += 1;
        let spread = self.next_k.wrapping_mul(2_654_435_761) % (1 << 32);
        let length = self.random.below(60) as usize;
        let s = match self.random.below(3) {
            0 => Value::Null,
            _ => Value::Text(format!("{}{spread}", "x".repeat(length))),
        };
        tx.insert_values("Item", &[("k", Value::Unsigned(spread)), ("s", s)]).unwrap()
    }

    /// Transactions that read and write at this snapshot and are not applied, as probes.
    fn probe(&mut self) {
        *self.path.probing.lock().unwrap() = true;
        let mut connection = self.db.connect().unwrap();
        let tx = connection.begin(Access::ReadWrite, Isolation::Serializable).unwrap();
        if let Some(item) = self.items.first() {
            let _ = tx.update_fields(*item, &[]);
        }
        if self.random.once_in(2) {
            let _ = tx.cursor("Item", "by_k").unwrap().first();
        }
        self.insert(&tx);
        tx.commit().unwrap_err();
        *self.path.probing.lock().unwrap() = false;
    }

    fn pieces(&mut self) -> Vec<Arc<[u8]>> {
        let (objects, bytes) = limits(&mut self.random);
        pieces(&self.db, objects, bytes)
    }
}

/// How big pieces are: sometimes as small as can be.
fn limits(random: &mut Random) -> (usize, usize) {
    let objects = *random.pick(&[1, 2, 7, 50, usize::MAX]);
    (objects, *random.pick(&[1, 100, 1000, 20_000, usize::MAX]))
}

fn pieces(db: &Database, max_objects: usize, max_bytes: usize) -> Vec<Arc<[u8]>> {
    let mut stream = db.applier().image_stream();
    let pieces = std::iter::from_fn(|| stream.next_piece(max_objects, max_bytes)).collect();
    assert!(stream.next_piece(max_objects, max_bytes).is_none(), "a piece after the last");
    pieces
}

fn built(db: &Database, pieces: &[Arc<[u8]>]) -> ImageBuilder {
    let mut builder = db.applier().image_builder();
    for piece in pieces {
        assert!(!builder.is_complete());
        builder.push(piece).unwrap();
    }
    assert!(builder.is_complete());
    assert_eq!(builder.objects(), builder.objects_expected());
    builder
}

fn installed(pieces: &[Arc<[u8]>]) -> Database {
    let db = empty();
    db.applier().install_built(built(&db, pieces)).unwrap();
    db
}

fn assert_equal(copy: &Database, source: &Database) {
    copy.check().unwrap();
    let (copied, original) = (copy.applier(), source.applier());
    assert_eq!(copied.applied(), original.applied());
    assert_eq!(copied.state_hash(), original.state_hash());
    assert_eq!(copy.statistics().used_bytes, source.statistics().used_bytes);
    // Everything that an image holds, tables that no hash covers among it.
    assert!(pieces(copy, usize::MAX, usize::MAX) == pieces(source, usize::MAX, usize::MAX));
}

/// What both say of each probe: the same. Gives how many may commit, conflict, are too old.
fn decisions(copy: &Database, source: &Database, probes: &[Submission]) -> [usize; 3] {
    let mut seen = [0; 3];
    for probe in probes {
        let tail = Tail::new(source.applier().applied().next());
        let decision = source.applier().certify(&tail, probe);
        assert_eq!(copy.applier().certify(&tail, probe), decision, "{}", probe.id);
        seen[match decision {
            Ok(_) => 0,
            Err(Refusal::Conflict) => 1,
            Err(Refusal::SnapshotTooOld { .. }) => 2,
            Err(other) => panic!("{other}"),
        }] += 1;
    }
    seen
}

#[test]
fn what_is_built_from_pieces_is_the_same_database_and_goes_on_the_same() {
    let mut seen = [0; 3];
    for seed in 1..=30 {
        let mut source = Source::new(seed);
        let steps = *source.random.pick(&[0, 1, 30, 200, 900]);
        for step in 0..steps {
            source.step();
            if step % 50 == 0 {
                source.probe();
            }
        }
        let copy = installed(&source.pieces());
        assert_equal(&copy, &source.db);
        // What the source does from now on, the copy does too: it is given the log.
        for _ in 0..4 {
            let from = copy.applier().applied();
            (0..150).for_each(|_| source.step());
            source.probe();
            follow(&copy, &source, from);
            assert_equal(&copy, &source.db);
            let probes = source.path.probes.lock().unwrap();
            let of_run = decisions(&copy, &source.db, &probes);
            seen = std::array::from_fn(|kind| seen[kind] + of_run[kind]);
        }
    }
    assert!(seen.iter().all(|count| *count > 100), "{seen:?}");
}

/// Applies what the source has behind `from`.
fn follow(copy: &Database, source: &Source, from: Index) {
    let applier = copy.applier();
    let log = source.path.log.lock().unwrap();
    for (position, write_set) in log.iter().enumerate().skip(from.0 as usize) {
        let index = Index(position as u64 + 1);
        if write_set.is_empty() {
            let id = TransactionId { origin: 99, sequence: index.0 };
            // The same of the three: told by what the source knows of it.
            match source.db.applier().outcome(id) {
                quorate_engine::Outcome::NotCommitted => applier.fence(index, id),
                quorate_engine::Outcome::Committed(_) => {
                    applier.note(index, id, index.0.saturating_sub(30));
                }
                _ => applier.skip(index),
            }
        } else {
            applier.apply(index, write_set).unwrap();
        }
    }
    applier.publish();
}

#[test]
fn commits_go_on_between_pieces_and_the_image_is_the_pinned_state() {
    for seed in 1..=20 {
        let mut source = Source::new(seed);
        (0..200).for_each(|_| source.step());
        let pinned = installed(&pieces(&source.db, usize::MAX, usize::MAX));
        let (objects, bytes) = limits(&mut source.random);
        let expected = pieces(&source.db, objects, bytes);
        let mut stream = source.db.applier().image_stream();
        let (index, copy) = (stream.index(), empty());
        let mut builder = copy.applier().image_builder();
        let mut number = 0;
        while let Some(piece) = stream.next_piece(objects, bytes) {
            assert!(piece == expected[number], "a commit changed piece {number}");
            builder.push(&piece).unwrap();
            number += 1;
            (0..3).for_each(|_| source.step());
        }
        assert_eq!(copy.applier().install_built(builder).unwrap(), index);
        assert_equal(&copy, &pinned);
        assert!(source.db.applier().applied() > index);
    }
}

#[test]
fn pieces_keep_their_limits_and_together_are_about_as_big_as_foretold() {
    let mut source = Source::new(5);
    (0..400).for_each(|_| source.step());
    let stream = source.db.applier().image_stream();
    let records: u64 = source.db.statistics().classes.iter().map(|class| class.records).sum();
    assert!(stream.objects() > 5 * records, "{} objects", stream.objects());
    for max_bytes in [300, 1000, 50_000] {
        let pieces = pieces(&source.db, usize::MAX, max_bytes);
        let sizes: Vec<usize> = pieces.iter().map(|piece| piece.len()).collect();
        assert!(sizes.iter().all(|size| *size <= max_bytes), "{sizes:?}");
        let whole: usize = sizes.iter().sum::<usize>() - 12 * pieces.len();
        let foretold = stream.total_bytes() as usize;
        assert!(foretold > whole * 9 / 10 && foretold < whole * 2, "{foretold} for {whole}");
    }
    let tiny = pieces(&source.db, 1, usize::MAX);
    assert!(tiny.len() as u64 * 2 >= stream.objects(), "{} pieces", tiny.len());
}

/// Pushes pieces until one is refused; then the builder must be of no use, and nothing changed.
fn refused(pieces: &[Arc<[u8]>]) -> ImageError {
    let db = empty();
    let before = db.state_hash();
    let mut builder = db.applier().image_builder();
    let error = pieces.iter().find_map(|piece| builder.push(piece).err());
    if let Some(error) = &error {
        assert!(!builder.is_complete());
        assert!(pieces.iter().all(|piece| builder.push(piece).as_ref() == Err(error)));
    }
    let at_end = db.applier().install_built(builder).map(|index| index.0).unwrap_err();
    assert_eq!((db.state_hash(), db.visible_index()), (before, Index(0)));
    assert!(error.is_none() || error.as_ref() == Some(&at_end));
    at_end
}

#[test]
fn pieces_that_are_not_the_next_one_are_refused_by_name() {
    let mut source = Source::new(9);
    (0..300).for_each(|_| source.step());
    let whole = pieces(&source.db, usize::MAX, 2000);
    source.step();
    let later = pieces(&source.db, usize::MAX, 2000);
    let mut random = Random::new(9);
    for _ in 0..200 {
        let at = random.below(whole.len() as u64 - 1) as usize + 1;
        let mut swapped = whole.clone();
        swapped.swap(at - 1, at);
        let (number, before) = (at as u32, at as u32 - 1);
        assert_eq!(refused(&swapped), ImageError::OutOfOrder { expected: before, found: number });
        let mut repeated = whole.clone();
        repeated.insert(at, Arc::clone(&whole[at - 1]));
        assert_eq!(refused(&repeated), ImageError::OutOfOrder { expected: number, found: before });
        let mut lost = whole.clone();
        lost.remove(at - 1);
        assert_eq!(refused(&lost), ImageError::OutOfOrder { expected: before, found: number });
        let mut mixed = whole.clone();
        mixed[at] = Arc::clone(&later[at]);
        assert_eq!(refused(&mixed), ImageError::OtherImage { piece: number });
        let cut = &whole[..at];
        assert_eq!(refused(cut), ImageError::Incomplete);
        let mut short = whole.clone();
        let end = random.below(whole[at].len() as u64) as usize;
        short[at] = whole[at][..end].into();
        let is_damage =
            |error| matches!(error, ImageError::Checksum { .. } | ImageError::Malformed(_));
        assert!(is_damage(refused(&short)));
        let mut corrupted = whole[at].to_vec();
        corrupted[end] ^= 1 << random.below(8);
        let mut with_bits = whole.clone();
        with_bits[at] = corrupted.into();
        assert!(matches!(refused(&with_bits), ImageError::Checksum { .. }));
    }
    let mut longer = whole.clone();
    longer.push(Arc::clone(&whole[0]));
    assert!(matches!(refused(&longer), ImageError::OutOfOrder { .. }));
    assert_eq!(refused(&[]), ImageError::Incomplete);
    assert_eq!(
        refused(&[Arc::from(&b"short"[..])]),
        Malformed { what: "a piece shorter than its frame", offset: 0 }.into()
    );
}

#[test]
fn what_was_built_for_another_dictionary_or_an_older_time_is_not_installed() {
    let mut source = Source::new(3);
    (0..50).for_each(|_| source.step());
    let old = source.pieces();
    source.step();
    let error = source.db.applier().install_built(built(&source.db, &old)).unwrap_err();
    assert!(matches!(error, ImageError::Older { .. }), "{error}");

    let other = Dictionary::parse("declare database other; class A { string s; };").unwrap();
    let other = Database::open("other", other, params()).unwrap();
    let mut builder = other.applier().image_builder();
    assert_eq!(builder.push(&old[0]), Err(ImageError::OtherDictionary));
    // Complete, but built beside a database with another dictionary.
    assert_eq!(
        other.applier().install_built(built(&source.db, &old)),
        Err(ImageError::OtherDictionary)
    );
    assert_eq!(other.visible_index(), Index(0));
}
