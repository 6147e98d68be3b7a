//! Small questions about indexes and their keys that several modules ask of the dictionary.

use quorate_schema::{ClassDef, Dictionary, IndexDef, Key, RecordRef, Type};

/// The position of an index among those of its class.
pub(crate) fn position(dictionary: &Dictionary, index: &IndexDef) -> usize {
    let first = dictionary.classes()[index.class.0 as usize].indexes[0].id;
    let position = (index.id.0 - first.0) as usize;
    debug_assert_eq!(dictionary.classes()[index.class.0 as usize].indexes[position].id, index.id);
    position
}

/// The key of `image`, an image of the class of `index` that was checked.
pub(crate) fn key_of(dictionary: &Dictionary, index: &IndexDef, image: &[u8]) -> Key {
    let class = &dictionary.classes()[index.class.0 as usize];
    dictionary.key(index, RecordRef::new(dictionary, class, image))
}

/// True if a key of the index may hold numbers that are given out only when it is applied, so
/// that certification cannot know it. Such writes count as changes of the class's membership.
pub(crate) fn may_await_patches(dictionary: &Dictionary, index: &IndexDef) -> bool {
    index
        .parts
        .iter()
        .any(|part| matches!(dictionary.part_type(index, part).0, Type::Ref(_) | Type::Autoid))
}

/// A key for people: its values, or its bytes if it cannot be read.
pub(crate) fn readable(dictionary: &Dictionary, index: &IndexDef, key: &[u8]) -> String {
    match dictionary.key_values(index, key) {
        Ok(values) => {
            let values: Vec<String> = values.iter().map(|value| value.describe()).collect();
            format!("({})", values.join(", "))
        }
        Err(_) => format!("{key:02x?}"),
    }
}

/// What one record takes of the budget without its index entries, in bytes: its image and a
/// fixed sum for its place. The formula is part of the replicated contract.
pub(crate) fn record_bytes(image: &[u8]) -> i64 {
    64 + image.len() as i64
}

/// What one index entry takes of the budget, in bytes.
pub(crate) fn entry_bytes(key: &[u8]) -> i64 {
    48 + key.len() as i64
}

/// What a record takes with all its entries, in bytes.
pub(crate) fn total_bytes(dictionary: &Dictionary, class: &ClassDef, image: &[u8]) -> i64 {
    let entries =
        class.indexes.iter().map(|index| entry_bytes(&key_of(dictionary, index, image).bytes));
    record_bytes(image) + entries.sum::<i64>()
}
