//! Reading a write set from bytes that nobody vouches for.
//!
//! Accepted is exactly what some transaction could have encoded with this dictionary, as far as
//! the bytes alone can tell; so `store` may rely on: classes and index positions exist and
//! are of the kind asked for; images are canonical; each record is changed at most once; inserts
//! alone await autoids, and references name inserts of this write set that exist, or the past.
//!
//! References to the past are taken as they are, `Handle::NOTHING` among them: whatever they
//! name that is not there, they lead nowhere, as those do whose target was deleted.

use quorate_schema::bytes::{Malformed, Reader};
use quorate_schema::{ClassDef, ClassId, Dictionary, FieldId, Patch, PatchWhat, Reference};

use super::draft::OPERATION_BYTES;
use super::{
    Addition, Change, Insert, Kind, MAX_WRITE_SET_BYTES, Operation, Operator, Removed, VERSION,
    WriteSet, refusal,
};
use crate::keys::key_of;
use crate::{Index, Isolation, TransactionId};

pub(super) const UPDATE: u8 = 1;
pub(super) const DELETE: u8 = 2;

pub(super) fn decode<'a>(
    bytes: &'a [u8],
    dictionary: &Dictionary,
    kind: Kind,
) -> Result<WriteSet<'a>, Malformed> {
    let mut from = Reader::new(bytes);
    if bytes.len() > MAX_WRITE_SET_BYTES {
        return Err(from.malformed("a write set over the limit"));
    }
    let mut write_set = header(&mut from, kind)?;
    for _ in 0..from.count(8)? {
        write_set.dependencies.push(from.u64()?);
    }
    for _ in 0..from.count(25)? {
        let change = change(&mut from, dictionary, kind)?;
        let place = (change.class, change.id);
        if write_set.changes.last().is_some_and(|last| (last.class, last.id) >= place) {
            return Err(from.malformed("changes out of order"));
        }
        write_set.changes.push(change);
    }
    for _ in 0..from.count(8)? {
        let insert = insert(&mut from, dictionary, kind)?;
        write_set.inserts.push(insert);
    }
    for _ in 0..from.count(24 + OPERATION_BYTES)? {
        let addition = addition(&mut from, dictionary, kind)?;
        let place = (addition.class, addition.id);
        if write_set.additions.last().is_some_and(|last| (last.class, last.id) >= place) {
            return Err(from.malformed("additions out of order"));
        }
        let by_place = |change: &Change<'_>| (change.class, change.id);
        if write_set.changes.binary_search_by_key(&place, by_place).is_ok() {
            return Err(from.malformed("an addition to a record that is changed too"));
        }
        write_set.additions.push(addition);
    }
    if write_set.operation_count() == 0 {
        return Err(from.malformed("a write set that writes nothing"));
    }
    check_numbers(&from, &write_set)?;
    from.finish()?;
    Ok(write_set)
}

/// The id in the header, without looking at the rest.
pub(super) fn peek_id(bytes: &[u8]) -> Result<TransactionId, Malformed> {
    header(&mut Reader::new(bytes), Kind::Replicated).map(|write_set| write_set.id)
}

fn header<'a>(from: &mut Reader<'_>, kind: Kind) -> Result<WriteSet<'a>, Malformed> {
    if from.u8()? != VERSION {
        return Err(from.malformed("a write set of another version"));
    }
    match (from.u8()?, kind) {
        (0, Kind::Replicated) | (1, Kind::Local) => {}
        _ => return Err(from.malformed("a write set of another kind of classes")),
    }
    let isolation = match from.u8()? {
        0 => Isolation::Snapshot,
        1 => Isolation::Serializable,
        _ => return Err(from.malformed("an isolation that does not exist")),
    };
    let id = TransactionId { origin: from.u128()?, sequence: from.u64()? };
    let low_water = from.u64()?;
    if id.sequence == 0 || id.sequence == u64::MAX || low_water > id.sequence {
        return Err(from.malformed("a sequence that cannot be"));
    }
    let snapshot = Index(from.u64()?);
    let byte_delta = from.i64()?;
    Ok(WriteSet {
        id,
        low_water,
        snapshot,
        isolation,
        byte_delta,
        dependencies: Vec::new(),
        changes: Vec::new(),
        inserts: Vec::new(),
        additions: Vec::new(),
    })
}

fn change<'a>(
    from: &mut Reader<'a>,
    dictionary: &Dictionary,
    kind: Kind,
) -> Result<Change<'a>, Malformed> {
    let operation = from.u8()?;
    let class = class(from, dictionary, kind)?;
    let id = from.u64()?;
    let creation = from.u64()?;
    let image = match operation {
        UPDATE => Some(image(from, dictionary, class)?),
        DELETE => None,
        _ => return Err(from.malformed("an operation that does not exist")),
    };
    let removed = removed_keys(from, class)?;
    if image.is_none() && removed.len() != class.indexes.len() {
        return Err(from.malformed("a delete that does not name all its keys"));
    }
    let mut patches = Vec::new();
    let mut added = Vec::new();
    if let Some(image) = image {
        patches = dictionary.layout(class.id).patches(dictionary, image);
        if patches.iter().any(|patch| patch.what == PatchWhat::Autoid) {
            return Err(from.malformed("an update that takes back its autoid"));
        }
        let indexes = removed.iter().map(|removed| &class.indexes[removed.position]);
        added = indexes.map(|index| key_of(dictionary, index, image)).collect();
    }
    Ok(Change { class: class.id, id, creation, image, patches, removed, added })
}

fn removed_keys<'a>(
    from: &mut Reader<'a>,
    class: &ClassDef,
) -> Result<Vec<Removed<'a>>, Malformed> {
    let count = from.count(9)?;
    let mut removed: Vec<Removed<'a>> = Vec::with_capacity(count.min(class.indexes.len()));
    for _ in 0..count {
        let position = from.u32()? as usize;
        let in_order = removed.last().is_none_or(|last| last.position < position);
        if !in_order || position >= class.indexes.len() {
            return Err(from.malformed("index positions out of order or range"));
        }
        let has_null = match from.u8()? {
            0 => false,
            1 => true,
            _ => return Err(from.malformed("a flag that is neither 0 nor 1")),
        };
        removed.push(Removed { position, key: from.bytes()?, has_null });
    }
    Ok(removed)
}

fn insert<'a>(
    from: &mut Reader<'a>,
    dictionary: &Dictionary,
    kind: Kind,
) -> Result<Insert<'a>, Malformed> {
    let class = class(from, dictionary, kind)?;
    let image = image(from, dictionary, class)?;
    let patches = dictionary.layout(class.id).patches(dictionary, image);
    let autoids = patches.iter().filter(|patch| patch.what == PatchWhat::Autoid).count();
    if autoids != usize::from(class.autoid.is_some()) {
        return Err(from.malformed("a new record that chose its autoid"));
    }
    let added = class.indexes.iter().map(|index| key_of(dictionary, index, image)).collect();
    Ok(Insert { class: class.id, image, patches, added })
}

fn addition(
    from: &mut Reader<'_>,
    dictionary: &Dictionary,
    kind: Kind,
) -> Result<Addition, Malformed> {
    let class = class(from, dictionary, kind)?;
    let (id, creation) = (from.u64()?, from.u64()?);
    let count = from.count(OPERATION_BYTES)?;
    if count == 0 {
        return Err(from.malformed("an addition of nothing"));
    }
    let mut operations = Vec::with_capacity(count);
    for _ in 0..count {
        let field = FieldId(from.u32()?);
        if field.0 as usize >= class.fields.len() || refusal(class, field).is_some() {
            return Err(from.malformed("an addition to a field that cannot be added to"));
        }
        let operator = match from.u8()? {
            0 => Operator::Add,
            1 => Operator::Min,
            2 => Operator::Max,
            _ => return Err(from.malformed("an operator that does not exist")),
        };
        let operand = from.u128()? as i128;
        let operation = Operation::new(field, operator, operand);
        if operation.operand != operand {
            return Err(from.malformed("an operand that is greater than it need be"));
        }
        operations.push(operation);
    }
    Ok(Addition { class: class.id, id, creation, operations })
}

fn class<'d>(
    from: &mut Reader<'_>,
    dictionary: &'d Dictionary,
    kind: Kind,
) -> Result<&'d ClassDef, Malformed> {
    let id = ClassId(from.u32()?);
    let class = dictionary.class(id).ok_or_else(|| from.malformed("an unknown class"))?;
    if class.local != (kind == Kind::Local) {
        return Err(from.malformed("a class of the other kind"));
    }
    Ok(class)
}

fn image<'a>(
    from: &mut Reader<'a>,
    dictionary: &Dictionary,
    class: &ClassDef,
) -> Result<&'a [u8], Malformed> {
    let image = from.bytes()?;
    dictionary.layout(class.id).check(dictionary, image)?;
    Ok(image)
}

/// References in images name inserts of this write set, or records of the past.
fn check_numbers(from: &Reader<'_>, write_set: &WriteSet<'_>) -> Result<(), Malformed> {
    let inserts = write_set.inserts.len() as u64;
    let of_changes = write_set.changes.iter().flat_map(|change| &change.patches);
    let of_inserts = write_set.inserts.iter().flat_map(|insert| &insert.patches);
    let exists = |patch: &Patch| match patch.what {
        PatchWhat::RecordId(number) | PatchWhat::Creation(number) => number < inserts,
        PatchWhat::Autoid => true,
    };
    if !of_changes.chain(of_inserts).all(exists) {
        return Err(from.malformed("a reference to a record that is not inserted"));
    }
    let changed = write_set.changes.iter().map(|change| change.creation);
    let added = write_set.additions.iter().map(|addition| addition.creation);
    if changed.chain(added).any(|creation| creation == Reference::PROVISIONAL) {
        return Err(from.malformed("a change of a record that is not committed"));
    }
    Ok(())
}
