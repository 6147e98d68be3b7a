//! Bytes from nowhere: whatever is changed in a submission, a write set or an image, decoding
//! says so or accepts it, and never panics; what is accepted leaves a database that is sound.
#![allow(clippy::unwrap_used)]

#[path = "support/random.rs"]
mod random;

use std::sync::{Arc, Mutex};

use quorate_engine::{
    Access, Acknowledged, BeginError, CommitError, CommitOptions, CommitPath, CommitTicket,
    Database, DatabaseParams, Handle, ImageError, Index, Isolation, Submission, Tail,
    TransactionId, WriteSet,
};
use quorate_schema::bytes::{Reader, Writer};
use quorate_schema::{Dictionary, Reference, Value};
use random::Random;

const DDL: &str = "
declare database hostile;
class Item {
    unsigned<1> k;
    signed<1> v;
    nullable string s;
    ref<Item> link;
    vector<ref<Item>> links;
    autoid n;
    signed<1> c;
    unique hash<k> by_k;
    unique tree<s> by_s;
    tree<v desc, s> by_vs;
    hash<v> by_v;
    unique tree<n> by_n;
    tree<link> by_link;
};
";

/// Applies what is submitted at once and keeps it.
#[derive(Default)]
struct Keep {
    db: Mutex<Option<Database>>,
    kept: Mutex<Vec<Submission>>,
}

impl CommitPath for Keep {
    fn admit(&self, _: Access) -> Result<(), BeginError> {
        Ok(())
    }

    fn submit(
        &self,
        submission: Submission,
        _: CommitOptions,
    ) -> Result<Arc<dyn CommitTicket>, CommitError> {
        let applier = self.db.lock().unwrap().as_ref().unwrap().applier();
        let index = applier.applied().next();
        applier.certify(&Tail::new(index), &submission).unwrap();
        applier.apply(index, &submission.write_set).unwrap();
        applier.publish();
        self.kept.lock().unwrap().push(submission);
        Ok(Arc::new(Ok(Acknowledged::from(index))))
    }

    fn next_id(&self) -> (TransactionId, u64) {
        let sequence = self.kept.lock().unwrap().len() as u64 + 1;
        (TransactionId { origin: 1, sequence }, sequence)
    }
}

fn dictionary() -> Dictionary {
    Dictionary::parse(DDL).unwrap()
}

/// A database with some of everything, and all its submissions.
fn sample() -> (Database, Vec<Submission>) {
    let keep = Arc::new(Keep::default());
    let path = Arc::clone(&keep) as Arc<dyn CommitPath>;
    let db = Database::open_with("x", dictionary(), DatabaseParams::default(), path).unwrap();
    *keep.db.lock().unwrap() = Some(db.clone());
    let text = |text: &str| Value::Text(text.to_owned());
    let (mut first, mut counter): (Option<Handle>, Option<Handle>) = (None, None);
    for step in 0..6_u64 {
        let mut connection = db.connect().unwrap();
        let tx = connection.begin(Access::ReadWrite, Isolation::Serializable).unwrap();
        let one = tx
            .insert_values(
                "Item",
                &[("k", Value::Unsigned(step)), ("s", text(&"s".repeat(step as usize)))],
            )
            .unwrap();
        let link = ("link", Value::Ref(one.reference()));
        let links = [one.reference(), Handle::NOTHING].map(Value::Ref);
        let two = [
            ("k", Value::Unsigned(step + 100)),
            link.clone(),
            ("links", Value::List(links.to_vec())),
        ];
        let two = tx.insert_values("Item", &two).unwrap();
        tx.cursor("Item", "by_vs").unwrap().rows().count();
        if let Some(first) = first {
            tx.update_fields(first, &[("v", Value::Signed(step as i64)), link]).unwrap();
        }
        if let Some(counter) = counter {
            tx.add(counter, "c", 40).unwrap();
            tx.min(counter, "c", 90).unwrap();
        }
        let committed = tx.commit().unwrap();
        first = first.or(committed.resolve(one));
        if step == 1 {
            counter = committed.resolve(two);
        }
        if step % 2 == 0 {
            db.transact(Isolation::Snapshot, |tx| tx.delete(committed.resolve(two).unwrap()))
                .unwrap();
        }
    }
    *keep.db.lock().unwrap() = None;
    let kept = std::mem::take(&mut *keep.kept.lock().unwrap());
    (db, kept)
}

/// The same bytes with a few changes.
fn mutated(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len() as u64) as usize;
        match random.below(6) {
            0 if random.once_in(4) => bytes.truncate(at + 1),
            1 => bytes.insert(at, random.below(256) as u8),
            2 if bytes.len() > 1 => {
                bytes.remove(at);
            }
            3 => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF][random.below(5) as usize],
            4 => {
                let from = random.below(bytes.len() as u64) as usize;
                let length = random.below(16).min((bytes.len() - from.max(at)) as u64) as usize;
                bytes.copy_within(from..from + length, at);
            }
            _ => bytes[at] ^= 1 << random.below(8),
        }
    }
    bytes
}

#[test]
fn a_submission_from_nowhere_never_panics() {
    let (db, kept) = sample();
    let dictionary = dictionary();
    let mut random = Random::new(1);
    let (mut refused, mut accepted) = (0, 0);
    for _ in 0..60_000 {
        let mut to = Writer::new();
        random.pick(&kept).encode(&mut to);
        let bytes = mutated(&to.finish(), &mut random);
        let mut from = Reader::new(&bytes);
        match Submission::decode(&mut from, &dictionary) {
            Ok(submission) => {
                let applier = db.applier();
                let _ = applier.certify(&Tail::new(applier.applied().next()), &submission);
                accepted += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 10_000 && accepted > 1_000, "{refused} refused, {accepted} accepted");
}

#[test]
fn a_write_set_from_nowhere_is_applied_wholly_or_not_at_all() {
    let (source, kept) = sample();
    let mut random = Random::new(2);
    let (mut refused, mut taken_back, mut accepted) = (0, 0, 0);
    for round in 0..400 {
        let db = Database::open("y", dictionary(), DatabaseParams::default()).unwrap();
        let applier = db.applier();
        for (position, submission) in kept.iter().enumerate() {
            let index = Index(position as u64 + 1);
            for _ in 0..8 {
                let bytes = mutated(&submission.write_set, &mut random);
                let before = applier.state_hash();
                let copy = Database::open("z", dictionary(), DatabaseParams::default()).unwrap();
                if WriteSet::decode(&bytes, db.dictionary()).is_err() {
                    assert!(applier.apply(index, &bytes).is_err());
                    refused += 1;
                } else {
                    // Tried on a copy, so that the original goes on with what was right.
                    copy.applier().install(&applier.image().bytes).unwrap();
                    match copy.applier().apply(index, &bytes) {
                        Ok(()) => accepted += 1,
                        Err(_) => {
                            let same = copy.applier().image().bytes == applier.image().bytes;
                            assert!(same, "half applied");
                            copy.applier().publish();
                            copy.check().unwrap();
                            copy.applier().apply(index, &submission.write_set).unwrap();
                            taken_back += 1;
                        }
                    }
                    copy.applier().publish();
                    copy.check().unwrap();
                }
                assert_eq!(applier.state_hash(), before, "refused bytes changed something");
            }
            applier.apply(index, &submission.write_set).unwrap();
            if round % 50 == 0 {
                db.applier().publish();
                db.check().unwrap();
            }
        }
        assert_eq!(applier.state_hash(), source.state_hash());
    }
    let seen = format!("{refused} refused, {taken_back} taken back, {accepted} accepted");
    assert!(refused > 5_000 && taken_back > 1_000 && accepted > 500, "{seen}");
}

/// All pieces of an image, of at most so many bytes each.
fn pieces(db: &Database, max_bytes: usize) -> Vec<Vec<u8>> {
    let mut stream = db.applier().image_stream();
    std::iter::from_fn(|| stream.next_piece(usize::MAX, max_bytes).map(|p| p.to_vec())).collect()
}

/// The pieces with these bodies: number, running checksum of the bodies before, body, checksum.
fn framed(bodies: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut running = 0;
    let frame = |(number, body): (usize, &Vec<u8>)| {
        let mut piece = (number as u32).to_le_bytes().to_vec();
        piece.extend_from_slice(&u32::to_le_bytes(running));
        piece.extend_from_slice(body);
        running = crc32c::crc32c_append(running, body);
        let checksum = crc32c::crc32c(&piece);
        piece.extend_from_slice(&checksum.to_le_bytes());
        piece
    };
    bodies.iter().enumerate().map(frame).collect()
}

/// Pushes all pieces and installs what was built.
fn install(db: &Database, pieces: &[Vec<u8>]) -> Result<Index, ImageError> {
    let mut builder = db.applier().image_builder();
    pieces.iter().try_for_each(|piece| builder.push(piece))?;
    db.applier().install_built(builder)
}

#[test]
fn an_image_from_nowhere_is_refused_or_sound() {
    let (source, _) = sample();
    let mut random = Random::new(3);
    let (mut refused, mut accepted) = (0, 0);
    for round in 0..20_000 {
        let whole = pieces(&source, [100, 400, 1 << 20][round % 3]);
        let mut bodies: Vec<Vec<u8>> =
            whole.iter().map(|piece| piece[8..piece.len() - 4].to_vec()).collect();
        assert_eq!(framed(&bodies), whole, "the frame is another one");
        let victim = random.below(bodies.len() as u64) as usize;
        let db = Database::open("y", dictionary(), DatabaseParams::default()).unwrap();
        let mut damaged = whole;
        damaged[victim] = mutated(&damaged[victim], &mut random);
        if damaged[victim] != framed(&bodies)[victim] {
            let error = install(&db, &damaged).unwrap_err();
            let is_named = matches!(error, ImageError::Checksum { .. } | ImageError::Malformed(_));
            assert!(is_named, "looked at damaged bytes: {error}");
        }
        // With right checksums: an image somebody made up.
        bodies[victim] = mutated(&bodies[victim], &mut random);
        match install(&db, &framed(&bodies)) {
            Ok(_) => {
                db.check().unwrap();
                accepted += 1;
            }
            Err(_) => {
                assert_eq!(db.visible_index(), Index(0));
                assert_eq!(db.statistics().classes[0].records, 0);
                refused += 1;
            }
        }
    }
    assert!(refused > 10_000 && accepted > 100, "{refused} refused, {accepted} accepted");
}

#[test]
fn an_image_of_another_dictionary_or_time_is_refused_by_name() {
    let (source, kept) = sample();
    let image = source.applier().image();
    let other = Dictionary::parse("declare database other; class A { string s; };").unwrap();
    let db = Database::open("y", other, DatabaseParams::default()).unwrap();
    assert_eq!(db.applier().install(&image.bytes), Err(ImageError::OtherDictionary));

    let old = Database::open("y", dictionary(), DatabaseParams::default()).unwrap();
    old.applier().apply(Index(1), &kept[0].write_set).unwrap();
    let old = old.applier().image();
    let error = source.applier().install(&old.bytes).unwrap_err();
    assert!(matches!(error, ImageError::Older { .. }), "{error}");

    let mut damaged = image.bytes.to_vec();
    damaged[100] ^= 1;
    let error = source.applier().install(&damaged).unwrap_err();
    assert!(matches!(error, ImageError::Checksum { .. }), "{error}");
}

#[test]
fn an_image_keeps_local_data_and_ends_older_transactions() {
    let ddl = DDL.to_owned() + "local class Note { string text; };";
    let open = || {
        let dictionary = Dictionary::parse(&ddl).unwrap();
        Database::open("x", dictionary, DatabaseParams::default()).unwrap()
    };
    let (here, there) = (open(), open());
    let insert = |db: &Database, class: &str, field: &str, value: Value| {
        db.transact(Isolation::Snapshot, |tx| tx.insert_values(class, &[(field, value.clone())]))
    };
    insert(&here, "Item", "k", Value::Unsigned(1)).unwrap();
    insert(&there, "Note", "text", Value::Text("mine".to_owned())).unwrap();
    let mut connection = there.connect().unwrap();
    let old = connection.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
    old.insert_values("Item", &[("k", Value::Unsigned(2))]).unwrap();

    there.applier().install(&here.applier().image().bytes).unwrap();
    there.check().unwrap();
    assert_eq!(there.state_hash(), here.state_hash());
    assert_eq!(there.statistics().classes[1].records, 1);
    let error = old.commit().unwrap_err();
    assert!(matches!(error, CommitError::SnapshotTooOld { .. }), "{error}");
    insert(&there, "Item", "k", Value::Unsigned(2)).unwrap();
    insert(&here, "Item", "k", Value::Unsigned(2)).unwrap();
    assert_eq!(there.state_hash(), here.state_hash());
}

#[test]
fn handles_from_nowhere_find_nothing() {
    let (db, _) = sample();
    let mut connection = db.connect().unwrap();
    let tx = connection.begin(Access::ReadWrite, Isolation::Serializable).unwrap();
    let ids = [0, 1, u64::MAX];
    for class in [0, 1, u32::MAX] {
        for (id, creation) in ids.iter().flat_map(|id| ids.map(|creation| (*id, creation))) {
            let class = quorate_schema::ClassId(class);
            let handle = Handle::from_reference(class, Reference { id, creation });
            let exists = class.0 == 0 && id == 1 && creation == 1;
            assert_eq!(tx.record(handle).unwrap().is_some(), exists, "{handle}");
            assert_eq!(tx.update_fields(handle, &[]).is_ok(), exists, "{handle}");
            let link = [("k", Value::Unsigned(77)), ("link", Value::Ref(handle.reference()))];
            let linked = tx.insert_values("Item", &link);
            assert_eq!(linked.is_ok(), id == 1 && creation == 1, "{handle}");
            linked.into_iter().for_each(|linked| tx.delete(linked).unwrap());
        }
    }
    tx.rollback();
}
