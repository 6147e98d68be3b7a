//! Images that somebody made up with care: every checksum and sum is right, and what they hold
//! no database can hold. Chance does not find these.
#![allow(clippy::unwrap_used)]

use quorate_engine::{Database, DatabaseParams, ImageError, Index, Isolation, dictionary_digest};
use quorate_schema::{Dictionary, Value};
use xxhash_rust::xxh3::xxh3_128;

/// Where the digest of the dictionary stands in the first piece's body.
const DICTIONARY: usize = 8 + 4;
/// Where the head of the class ends.
const LISTS: usize = DICTIONARY + 16 + 8 + 8 + 4 * 8;
/// One record in it: id, creation, length, one byte.
const RECORD: usize = 8 + 8 + 4 + 1;

fn dictionary(index: &str) -> Dictionary {
    let ddl = format!("declare database forged; class Item {{ unsigned<1> k; {index} by_k; }};");
    Dictionary::parse(&ddl).unwrap()
}

/// A database with records of these keys, of which those at `deleted` are deleted again; and the
/// body of its image, which is one piece.
fn body(index: &str, keys: &[u64], deleted: &[usize]) -> Vec<u8> {
    let db = Database::open("source", dictionary(index), DatabaseParams::default()).unwrap();
    let mut connection = db.connect().unwrap();
    let insert = |tx: &quorate_engine::Transaction<'_>| {
        let insert = |k: &u64| tx.insert_values("Item", &[("k", Value::Unsigned(*k))]);
        keys.iter().map(insert).collect::<Result<Vec<_>, _>>()
    };
    let tx = connection.begin(quorate_engine::Access::ReadWrite, Isolation::Snapshot).unwrap();
    let handles = insert(&tx).unwrap();
    let committed = tx.commit().unwrap();
    for at in deleted {
        let handle = committed.resolve(handles[*at]).unwrap();
        db.transact(Isolation::Snapshot, |tx| tx.delete(handle)).unwrap();
    }
    let piece = db.applier().image_stream().next_piece(usize::MAX, usize::MAX).unwrap();
    piece[8..piece.len() - 4].to_vec()
}

fn install(index: &str, body: &[u8]) -> Result<Index, ImageError> {
    let db = Database::open("copy", dictionary(index), DatabaseParams::default()).unwrap();
    let mut piece = [0; 8].to_vec();
    piece.extend_from_slice(body);
    piece.extend_from_slice(&crc32c::crc32c(&piece).to_le_bytes());
    let mut builder = db.applier().image_builder();
    builder.push(&piece)?;
    let index = db.applier().install_built(builder)?;
    db.check().unwrap();
    Ok(index)
}

fn refusal(index: &str, body: &[u8]) -> &'static str {
    match install(index, body) {
        Err(ImageError::Malformed(malformed)) => malformed.what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_not_forged_is_installed() {
    for (keys, deleted) in [(&[3, 1, 2][..], &[][..]), (&[1, 2, 3], &[1]), (&[5], &[0])] {
        let body = body("unique tree<k>", keys, deleted);
        assert_eq!(install("unique tree<k>", &body), Ok(Index(1 + deleted.len() as u64)));
    }
}

#[test]
fn an_index_in_another_order_is_refused() {
    let mut body = body("tree<k>", &[10, 20, 30], &[]);
    let ids = LISTS + 4 + 3 * RECORD + 4;
    assert_eq!(body[ids..ids + 3], [1, 2, 3]);
    body.swap(ids, ids + 1);
    assert_eq!(refusal("tree<k>", &body), "index entries out of order");
    body[ids] = 1;
    assert_eq!(refusal("tree<k>", &body), "an index entry of no record, or its second");
    body[ids] = 9;
    assert_eq!(refusal("tree<k>", &body), "an index entry of no record, or its second");
}

#[test]
fn a_unique_key_twice_is_refused() {
    // An image of a database whose index is not unique, said to be of one whose index is.
    let mut body = body("tree<k>", &[7, 8, 7], &[]);
    install("tree<k>", &body).unwrap();
    let other = dictionary_digest(&dictionary("unique tree<k>"));
    body[DICTIONARY..DICTIONARY + 16].copy_from_slice(&other.to_le_bytes());
    assert_eq!(refusal("unique tree<k>", &body), "a key that its unique index holds twice");
}

/// What a free place adds to the digest: the frozen formula of the engine.
fn free_digest(position: u64, id: u64) -> u128 {
    let mut bytes = [0; 24];
    bytes[..4].copy_from_slice(b"free");
    bytes[8..16].copy_from_slice(&position.to_le_bytes());
    bytes[16..].copy_from_slice(&id.to_le_bytes());
    xxh3_128(&bytes)
}

#[test]
fn a_place_that_is_live_and_free_or_free_twice_is_refused() {
    for (lie, refused) in [
        (3, "a record out of order"),
        (4, "a free place outside of the class or twice"),
        (0, "a free place outside of the class or twice"),
    ] {
        let mut body = body("tree<k>", &[1, 2, 3], &[1]);
        let free = LISTS + 4;
        assert_eq!(body[free..free + 8], 2_u64.to_le_bytes());
        body[free..free + 8].copy_from_slice(&u64::to_le_bytes(lie));
        let end = body.len() - 16;
        let digest = u128::from_le_bytes(body[end..].try_into().unwrap());
        let digest = digest.wrapping_sub(free_digest(0, 2)).wrapping_add(free_digest(0, lie));
        body[end..].copy_from_slice(&digest.to_le_bytes());
        assert_eq!(refusal("tree<k>", &body), refused);
    }
}

#[test]
fn an_id_far_beyond_the_records_is_refused_before_it_takes_memory() {
    let mut body = body("tree<k>", &[1, 2], &[]);
    // As many places as there are numbers, nearly all said to be records to come.
    let class = LISTS - 32;
    body[class..class + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    body[class + 24..class + 32].copy_from_slice(&(u64::MAX - 1).to_le_bytes());
    let second = LISTS + 4 + RECORD;
    body[second..second + 8].copy_from_slice(&(u64::MAX - 1).to_le_bytes());
    assert_eq!(refusal("tree<k>", &body), "a record behind places that are not there");
}
