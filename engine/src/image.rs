//! The image: all replicated state at one index, as bytes.
//!
//! ```text
//! magic, version, dictionary digest, index
//! per replicated class: next id, next autoid, free list, records in order of their ids
//! exactly-once table, certifier base, bytes used, digest
//! crc32c of everything before
//! ```
//!
//! Indexes are not in it: they are built from the records. A node that installs an image goes on
//! exactly as the one that made it: same ids, same autoids, same certification decisions.
//!
//! Decoding trusts nothing: whatever breaks an invariant of `store` is refused, and the root is
//! built beside the old one.

use std::sync::Arc;

use quorate_schema::bytes::{Malformed, Reader, Writer};
use quorate_schema::{ClassDef, Dictionary};

use crate::certify::Base;
use crate::outcome::ExactlyOnce;
use crate::store::{ClassTable, Entry, KeyBytes, Root, StoredRecord};
use crate::{Damage, ImageError, Index, dictionary_digest, keys};

const MAGIC: &[u8; 8] = b"QuorImg\n";
const VERSION: u32 = 2;

/// A consistent copy of all replicated data.
#[derive(Clone, Debug)]
pub struct Image {
    /// The newest transaction in it.
    pub index: Index,
    /// Its bytes, for [`Applier::install`](crate::Applier::install).
    pub bytes: Arc<[u8]>,
}

pub(crate) fn encode(dictionary: &Dictionary, root: &Root, base: &Base) -> Image {
    let mut to = Writer::with_capacity(root.used_bytes as usize + 4096);
    to.raw(MAGIC);
    to.u32(VERSION);
    to.u128(dictionary_digest(dictionary));
    to.u64(root.index.0);
    for class in replicated(dictionary) {
        encode_class(root.class(class.id), &mut to);
    }
    root.exactly_once.encode(&mut to);
    base.encode(&mut to);
    to.u64(root.used_bytes);
    to.u128(root.digest);
    let checksum = crc32c::crc32c(to.as_slice());
    to.u32(checksum);
    Image { index: root.index, bytes: to.finish().into() }
}

fn encode_class(table: &ClassTable, to: &mut Writer) {
    to.u64(table.next_id);
    to.u64(table.next_autoid);
    to.u64(table.free.len() as u64);
    table.free.iter().for_each(|id| to.u64(*id));
    to.u64(table.records.len() as u64);
    for (id, record) in &table.records {
        to.u64(*id);
        to.u64(record.creation);
        to.bytes(&record.image);
    }
}

fn replicated(dictionary: &Dictionary) -> impl Iterator<Item = &ClassDef> {
    dictionary.classes().iter().filter(|class| !class.local)
}

/// The root and base an image describes; local classes are taken from `old`.
pub(crate) fn decode(
    dictionary: &Dictionary,
    bytes: &[u8],
    old: &Root,
) -> Result<(Root, Base), ImageError> {
    let mut from = Reader::new(checked(bytes)?);
    if from.raw(MAGIC.len())? != MAGIC {
        return Err(from.malformed("this is no image").into());
    }
    match from.u32()? {
        VERSION => {}
        other => return Err(ImageError::Version(other)),
    }
    if from.u128()? != dictionary_digest(dictionary) {
        return Err(ImageError::OtherDictionary);
    }
    let index = Index(from.u64()?);
    if index < old.index {
        return Err(ImageError::Older { image: index, applied: old.index });
    }
    let mut root = Root::new(dictionary);
    root.index = index;
    root.local_index = old.local_index;
    root.used_local_bytes = old.used_local_bytes;
    for class in dictionary.classes() {
        root.classes[class.id.0 as usize] = if class.local {
            Arc::clone(&old.classes[class.id.0 as usize])
        } else {
            Arc::new(decode_class(dictionary, class, index, &mut from)?)
        };
    }
    root.exactly_once = ExactlyOnce::decode(&mut from, index)?;
    let base = Base::decode(&mut from)?;
    root.used_bytes = from.u64()?;
    root.digest = from.u128()?;
    if base.last() != index {
        return Err(from.malformed("a history that does not end at the image's index").into());
    }
    root.check(dictionary).map_err(|damage| from.malformed(problem(&damage)))?;
    from.finish()?;
    Ok((root, base))
}

/// The bytes before the checksum, if it is theirs.
fn checked(bytes: &[u8]) -> Result<&[u8], ImageError> {
    let Some(end) = bytes.len().checked_sub(4) else {
        return Err(Malformed { what: "an image shorter than its checksum", offset: 0 }.into());
    };
    let expected = Reader::new(&bytes[end..]).u32()?;
    let found = crc32c::crc32c(&bytes[..end]);
    if expected != found {
        return Err(ImageError::Checksum { expected, found });
    }
    Ok(&bytes[..end])
}

fn decode_class(
    dictionary: &Dictionary,
    class: &ClassDef,
    index: Index,
    from: &mut Reader<'_>,
) -> Result<ClassTable, Malformed> {
    let mut table = ClassTable::new(class);
    table.next_id = from.u64()?;
    table.next_autoid = from.u64()?;
    for _ in 0..count(from, 8)? {
        table.free.push_back(from.u64()?);
    }
    let mut entries: Vec<Vec<Entry>> = class.indexes.iter().map(|_| Vec::new()).collect();
    let mut least = 1;
    for _ in 0..count(from, 20)? {
        let (id, creation) = (from.u64()?, from.u64()?);
        let image = from.bytes()?;
        if id < least || id >= table.next_id || !(1..=index.0).contains(&creation) {
            return Err(from.malformed("a record out of order"));
        }
        least = id + 1;
        check_image(dictionary, class, image, table.next_autoid, from)?;
        for (entries, index) in entries.iter_mut().zip(&class.indexes) {
            let key = KeyBytes::from(&*keys::key_of(dictionary, index, image).bytes);
            entries.push(Entry { key, id });
        }
        table.records.insert(id, Arc::new(StoredRecord { creation, image: image.into() }));
    }
    for (index, mut entries) in table.indexes.iter_mut().zip(entries) {
        entries.sort_unstable();
        *index = entries.into_iter().collect();
    }
    Ok(table)
}

/// An image at rest awaits no patches, and its autoid was given out.
fn check_image(
    dictionary: &Dictionary,
    class: &ClassDef,
    image: &[u8],
    next_autoid: u64,
    from: &Reader<'_>,
) -> Result<(), Malformed> {
    let layout = dictionary.layout(class.id);
    layout.check(dictionary, image)?;
    if !layout.patches(dictionary, image).is_empty() {
        return Err(from.malformed("a record with numbers not given out"));
    }
    let record = quorate_schema::RecordRef::new(dictionary, class, image);
    let autoid = class.autoid.and_then(|field| record.unsigned(field));
    if autoid.is_some_and(|autoid| autoid >= next_autoid) {
        return Err(from.malformed("an autoid not given out yet"));
    }
    Ok(())
}

/// A count of eight bytes, refused unless that many items can follow.
fn count(from: &mut Reader<'_>, item_bytes: u64) -> Result<u64, Malformed> {
    let count = from.u64()?;
    if count.saturating_mul(item_bytes) > from.remaining() as u64 {
        return Err(from.malformed("a count greater than what follows can hold"));
    }
    Ok(count)
}

fn problem(damage: &Damage) -> &'static str {
    match damage {
        Damage::WrongEntry { .. } | Damage::EntryCount { .. } => "records that no index can hold",
        Damage::DuplicateKey { .. } => "a key that its unique index holds twice",
        Damage::Record { problem, .. } => problem,
        Damage::Sum { .. } => "sums that are not those of the records",
    }
}
