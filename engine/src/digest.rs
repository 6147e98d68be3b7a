//! The frozen hash of everything that is compared between nodes: certification points, the state
//! hash, the dictionary.
//!
//! All of it is xxh3, and all of it is replicated state: two nodes that hash differently decide
//! differently. The test vectors at the bottom hold every function still; changing one is a
//! change of the wire version.
//!
//! The state hash is *additive*: each record adds a hash of itself to a 128-bit sum, and leaving
//! takes it away again, so the sum follows the state at constant cost and does not depend on the
//! order in which the state was reached.

use quorate_schema::{ClassId, Dictionary, IndexId};
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_128};

const POINT_RECORD: u8 = 1;
const POINT_UNIQUE_KEY: u8 = 2;
const POINT_MEMBERSHIP: u8 = 3;

/// The point of one record: written by its update and its delete.
pub(crate) fn record_point(class: ClassId, id: u64) -> u64 {
    let mut bytes = [0; 13];
    bytes[0] = POINT_RECORD;
    bytes[1..5].copy_from_slice(&class.0.to_le_bytes());
    bytes[5..].copy_from_slice(&id.to_le_bytes());
    xxh3_64(&bytes)
}

/// The point of one key of one unique index: written by all that gives or takes the key.
pub(crate) fn unique_key_point(index: IndexId, key: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&[POINT_UNIQUE_KEY]);
    hasher.update(&index.0.to_le_bytes());
    hasher.update(key);
    hasher.digest()
}

/// The point of which records a class has: written by insert and delete.
pub(crate) fn membership_point(class: ClassId) -> u64 {
    let mut bytes = [0; 5];
    bytes[0] = POINT_MEMBERSHIP;
    bytes[1..].copy_from_slice(&class.0.to_le_bytes());
    xxh3_64(&bytes)
}

/// What one record adds to the state hash.
pub(crate) fn record_digest(class: ClassId, id: u64, creation: u64, image: &[u8]) -> u128 {
    let mut hasher = Xxh3::new();
    hasher.update(b"record");
    hasher.update(&class.0.to_le_bytes());
    hasher.update(&id.to_le_bytes());
    hasher.update(&creation.to_le_bytes());
    hasher.update(image);
    hasher.digest128()
}

/// What one place in the free list of a class adds to the state hash.
pub(crate) fn free_digest(class: ClassId, position: u64, id: u64) -> u128 {
    let mut bytes = [0; 24];
    bytes[..4].copy_from_slice(b"free");
    bytes[4..8].copy_from_slice(&class.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&position.to_le_bytes());
    bytes[16..].copy_from_slice(&id.to_le_bytes());
    xxh3_128(&bytes)
}

/// What the counters of a class add to the state hash.
pub(crate) fn counters_digest(class: ClassId, next_id: u64, next_autoid: u64) -> u128 {
    let mut bytes = [0; 24];
    bytes[..4].copy_from_slice(b"next");
    bytes[4..8].copy_from_slice(&class.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&next_id.to_le_bytes());
    bytes[16..].copy_from_slice(&next_autoid.to_le_bytes());
    xxh3_128(&bytes)
}

/// What nodes tell each other of their state at one place of the log: the state hash, what is
/// counted beside it, and what the caller's layer replicates.
pub(crate) fn told_digest(state: u128, index: u64, used_bytes: u64, beside: &[u8]) -> u128 {
    let mut hasher = Xxh3::new();
    hasher.update(b"told");
    hasher.update(&state.to_le_bytes());
    hasher.update(&index.to_le_bytes());
    hasher.update(&used_bytes.to_le_bytes());
    hasher.update(beside);
    hasher.digest128()
}

/// A hash of a dictionary, local classes included: equal exactly if the canonical DDL is equal.
///
/// Nodes compare it before they talk, and an image carries that of its dictionary.
pub fn dictionary_digest(dictionary: &Dictionary) -> u128 {
    xxh3_128(dictionary.to_ddl().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hashes_are_frozen() {
        let class = ClassId(3);
        let found = [
            u128::from(record_point(class, 77)),
            u128::from(unique_key_point(IndexId(5), b"LOWW")),
            u128::from(membership_point(class)),
            record_digest(class, 77, 1000, b"image"),
            free_digest(class, 2, 77),
            counters_digest(class, 78, 12),
            told_digest(5, 6, 7, b"beside"),
        ];
        let frozen = [
            0xfbb83fd09ea0f735,
            0xc25a2bae958532c,
            0xed511b857331e1a0,
            0xc885ca29aa47c5c8c8dc8ff5a1e28811,
            0x8fe51682bcd8e9b2ea713c50b78c92a6,
            0x77bbda469b0a59f4c8f71bc16cecadb2,
            0x2c27a68f0139d5dd81f60c23430fd239,
        ];
        assert_eq!(found, frozen, "{found:#x?}");
    }

    #[test]
    fn points_of_different_kinds_differ() {
        assert_ne!(record_point(ClassId(0), 1), record_point(ClassId(1), 0));
        assert_ne!(membership_point(ClassId(0)), unique_key_point(IndexId(0), b""));
    }
}
