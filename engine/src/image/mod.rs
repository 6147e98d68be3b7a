//! The image: all replicated state at one index, as a row of pieces.
//!
//! ```text
//! head                    magic, version, dictionary digest, index, number of objects
//! per replicated class:   next id, next autoid, how many free places and records
//!                         free places, last freed last
//!                         records in order of their ids
//!                         per index: the ids of all records in order of their keys
//! exactly-once table:     per origin its low water and newest item, then fates by sequence
//! history:                per generation its range, then points, then keys, each in order
//! end                     bytes used, digest
//! ```
//!
//! What stands in lists is written in *runs*: a count, then that many items. A list goes on in
//! as many runs and pieces as it takes, so a piece is as small as is wanted, and nothing of the
//! grammar needs to be said in it: the heads say how much of what follows.
//!
//! [`ImageStream`] writes it from a pinned root, piece by piece, while commits go on;
//! [`ImageBuilder`] takes the pieces and builds tables as they come, so that the last one is as
//! cheap as any other. Keys of indexes are not in it, they are computed from the records; their
//! order is, so that an index is built by appending, and to check that keys ascend is to check
//! that the index is whole and its unique keys unique.
//!
//! A node that installs an image goes on exactly as the one that made it: same ids, same autoids,
//! same certification decisions.
//!
//! Nothing here trusts a piece: whatever breaks an invariant of `store` is refused, and what is
//! built stands beside the old root until it is whole.

mod builder;
mod class;
mod piece;
mod stream;
mod whole;

pub use builder::ImageBuilder;
pub use stream::ImageStream;
pub use whole::Image;
pub(crate) use whole::{collect, push_all};

use quorate_schema::{ClassDef, Dictionary};

const MAGIC: &[u8; 8] = b"QuorImg\n";
const VERSION: u32 = 3;

/// How many index entries, free places and rows of tables count as one record: they are smaller
/// and take less time.
const SMALL_OBJECTS: usize = 2;

fn replicated(dictionary: &Dictionary) -> impl Iterator<Item = &ClassDef> {
    dictionary.classes().iter().filter(|class| !class.local)
}

/// Bytes that hold every id of a class with this `next_id`: few for classes that are small.
fn id_bytes(next_id: u64) -> usize {
    (8 - next_id.leading_zeros() as usize / 8).max(1)
}
