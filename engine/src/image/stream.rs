//! Writing an image, piece by piece, from a pinned root.
//!
//! The stream holds a root, which never changes, and a *section*: the place in the grammar where
//! the next piece goes on. Each section knows how to write as much of itself as fits and which
//! section comes next. Invariant: the pieces are a function of the root and of the limits given.

use std::ops::Bound;
use std::sync::Arc;

use quorate_schema::bytes::Writer;
use quorate_schema::{ClassId, Dictionary};

use super::piece::{FRAME_BYTES, Row};
use super::{MAGIC, SMALL_OBJECTS, VERSION, id_bytes, replicated};
use crate::certify::{Generation, History};
use crate::store::{Entry, Place, Root};
use crate::{Index, dictionary_digest};

/// An image on its way out: the state at one index, pinned. Commits go on beside it; what they
/// replace stays in memory as long as the stream.
///
/// Dropping it may free what only it still held.
#[derive(Debug)]
pub struct ImageStream {
    dictionary: Arc<Dictionary>,
    root: Arc<Root>,
    history: History,
    objects: u64,
    row: Row,
    section: Section,
}

/// Where the next piece goes on.
#[derive(Debug)]
enum Section {
    Head,
    Class(ClassId),
    Free { class: ClassId, next: usize },
    Records { class: ClassId, next: u64 },
    Entries { class: ClassId, position: usize, after: Option<Entry> },
    ExactlyOnce,
    Origin { after: Option<u128> },
    Fates { origin: u128, next: u64 },
    History,
    Generation(usize),
    Points { generation: usize, next: usize },
    Ordered { generation: usize, next: usize },
    End,
    Nothing,
}

/// A piece being written, and how much may still go into it.
///
/// While it holds no object everything is taken, so that every piece gets on.
struct Piece {
    to: Writer,
    max_bytes: usize,
    /// How many small objects it may hold.
    room: usize,
    has_objects: bool,
}

impl Piece {
    /// True if what is no object itself may still be added.
    fn takes(&self, bytes: usize) -> bool {
        !self.has_objects || self.to.len() + bytes <= self.max_bytes
    }

    /// True if an object may still be added; then it must be.
    fn takes_object(&mut self, bytes: usize, small_objects: usize) -> bool {
        if !self.takes(bytes) || (self.has_objects && self.room < small_objects) {
            return false;
        }
        self.room = self.room.saturating_sub(small_objects);
        self.has_objects = true;
        true
    }

    /// Writes a run of items; gives how many there was room for. Of no items nothing is written.
    fn run<T>(
        &mut self,
        items: impl Iterator<Item = T>,
        size: impl Fn(&T) -> (usize, usize),
        mut put: impl FnMut(&mut Writer, T),
    ) -> usize {
        let at = self.to.len();
        let mut count: u32 = 0;
        for item in items {
            let (bytes, small_objects) = size(&item);
            let count_bytes = if count == 0 { 4 } else { 0 };
            if !self.takes_object(count_bytes + bytes, small_objects) {
                break;
            }
            if count == 0 {
                self.to.u32(0);
            }
            put(&mut self.to, item);
            count += 1;
        }
        if count > 0 {
            self.to.set_u32(at, count);
        }
        count as usize
    }
}

impl ImageStream {
    pub(crate) fn new(
        dictionary: Arc<Dictionary>,
        root: Arc<Root>,
        history: History,
    ) -> ImageStream {
        let objects = objects(&dictionary, &root, &history);
        let (row, section) = (Row::default(), Section::Head);
        ImageStream { dictionary, root, history, objects, row, section }
    }

    /// The newest transaction in it.
    pub fn index(&self) -> Index {
        self.root.index
    }

    /// How many objects it holds in all: records, free places, index entries, rows of the
    /// exactly-once table and of the certifier's history.
    pub fn objects(&self) -> u64 {
        self.objects
    }

    /// About how many bytes all pieces have together: an estimate for people who wait, from the
    /// counted bytes. It is over by at most the keys of the indexes, and does not count the frames
    /// of pieces, 12 bytes each.
    pub fn total_bytes(&self) -> u64 {
        let Root { used_bytes, classes, exactly_once, .. } = &*self.root;
        let mut bytes = *used_bytes;
        for class in replicated(&self.dictionary) {
            let table = &classes[class.id.0 as usize];
            let (records, indexes) = (table.records.len() as u64, class.indexes.len() as u64);
            // The formula counts 64 for a record and 48 for an entry; see `keys`.
            let counted = records * (64 + 48 * indexes);
            let ids = id_bytes(table.next_id) as u64;
            bytes = bytes.saturating_sub(counted) + records * (20 + ids * indexes);
            bytes += 8 * table.free.len() as u64;
        }
        let generations = self.history.generations.iter();
        let rows =
            generations.map(|old| 16 * old.points.len() as u64 + 28 * old.ordered.len() as u64);
        bytes + 16 * exactly_once.len() + rows.sum::<u64>()
    }

    /// The next piece, none after the last: at most `max_objects` records, or twice as many
    /// of what is smaller (index entries, free places, rows of tables), and at most `max_bytes`
    /// bytes; but always at least one object, however big.
    ///
    /// The same state and limits give the same pieces.
    pub fn next_piece(&mut self, max_objects: usize, max_bytes: usize) -> Option<Arc<[u8]>> {
        if matches!(self.section, Section::Nothing) {
            return None;
        }
        let capacity_bytes = max_bytes.min(1 << 20);
        let mut piece = Piece {
            to: self.row.begin(capacity_bytes),
            max_bytes: max_bytes.saturating_sub(4),
            room: max_objects.max(1).saturating_mul(SMALL_OBJECTS),
            has_objects: false,
        };
        while !matches!(self.section, Section::Nothing) && self.write_section(&mut piece) {}
        debug_assert!(piece.to.len() + 4 > FRAME_BYTES, "a piece holds something");
        Some(self.row.end(piece.to).into())
    }

    /// Writes as much of the present section as fits; true if all of it did.
    fn write_section(&mut self, piece: &mut Piece) -> bool {
        let next = match &self.section {
            Section::Head => self.head(piece),
            Section::Class(class) => self.class(piece, *class),
            Section::Free { class, next } => self.free(piece, *class, *next),
            Section::Records { class, next } => self.records(piece, *class, *next),
            Section::Entries { class, position, after } => {
                self.entries(piece, *class, *position, after.as_ref())
            }
            Section::ExactlyOnce => self.exactly_once(piece),
            Section::Origin { after } => self.origin(piece, *after),
            Section::Fates { origin, next } => self.fates(piece, *origin, *next),
            Section::History => self.history(piece),
            Section::Generation(at) => self.generation(piece, *at),
            Section::Points { generation, next } => self.points(piece, *generation, *next),
            Section::Ordered { generation, next } => self.ordered(piece, *generation, *next),
            Section::End => self.end(piece),
            Section::Nothing => Step::Full,
        };
        match next {
            Step::Full => false,
            Step::Part(section) => {
                self.section = section;
                false
            }
            Step::Done(section) => {
                self.section = section;
                true
            }
        }
    }

    fn head(&self, piece: &mut Piece) -> Step {
        piece.to.raw(MAGIC);
        piece.to.u32(VERSION);
        piece.to.u128(dictionary_digest(&self.dictionary));
        piece.to.u64(self.root.index.0);
        piece.to.u64(self.objects);
        Step::Done(self.class_after(None))
    }

    fn class_after(&self, before: Option<ClassId>) -> Section {
        let mut later = replicated(&self.dictionary).filter(|class| Some(class.id) > before);
        later.next().map_or(Section::ExactlyOnce, |class| Section::Class(class.id))
    }

    fn class(&self, piece: &mut Piece, class: ClassId) -> Step {
        let table = self.root.class(class);
        if !piece.takes(4 * 8) {
            return Step::Full;
        }
        piece.to.u64(table.next_id);
        piece.to.u64(table.next_autoid);
        piece.to.u64(table.free.len() as u64);
        piece.to.u64(table.records.len() as u64);
        Step::Done(self.free_from(class, 0))
    }

    fn free_from(&self, class: ClassId, next: usize) -> Section {
        if next < self.root.class(class).free.len() {
            return Section::Free { class, next };
        }
        if self.root.class(class).records.is_empty() {
            return self.class_after(Some(class));
        }
        Section::Records { class, next: 0 }
    }

    fn free(&self, piece: &mut Piece, class: ClassId, next: usize) -> Step {
        let items = self.root.class(class).free.skip(next).into_iter();
        let count = piece.run(items, |_| (8, 1), |to, id| to.u64(id));
        if count == 0 {
            return Step::Full;
        }
        let later = self.free_from(class, next + count);
        step(matches!(later, Section::Free { .. }), later)
    }

    fn records(&self, piece: &mut Piece, class: ClassId, next: u64) -> Step {
        let records = &self.root.class(class).records;
        let mut last = 0;
        let count = piece.run(
            records.range(next..),
            |(_, record)| (8 + 8 + 4 + record.image.len(), SMALL_OBJECTS),
            |to, (id, record)| {
                to.u64(*id);
                to.u64(record.creation);
                to.bytes(&record.image);
                last = *id;
            },
        );
        if count == 0 {
            return Step::Full;
        }
        if records.get_max().is_some_and(|(id, _)| *id > last) {
            return Step::Part(Section::Records { class, next: last + 1 });
        }
        Step::Done(self.index_after(class, None))
    }

    fn index_after(&self, class: ClassId, before: Option<usize>) -> Section {
        let position = before.map_or(0, |before| before + 1);
        if position < self.root.class(class).indexes.len() {
            return Section::Entries { class, position, after: None };
        }
        self.class_after(Some(class))
    }

    fn entries(
        &self,
        piece: &mut Piece,
        class: ClassId,
        position: usize,
        after: Option<&Entry>,
    ) -> Step {
        let table = self.root.class(class);
        let id_bytes = id_bytes(table.next_id);
        let low = after.map(|entry| Place { key: &entry.key, id: entry.id });
        let low = low.map_or(Bound::Unbounded, Bound::Excluded);
        let index = &table.indexes[position];
        let mut last = None;
        let count = piece.run(
            index.range((low, Bound::Unbounded)),
            |_| (id_bytes, 1),
            |to, entry| {
                to.raw(&entry.id.to_le_bytes()[..id_bytes]);
                last = Some(entry);
            },
        );
        if count == 0 {
            return Step::Full;
        }
        if last == index.get_max() {
            return Step::Done(self.index_after(class, Some(position)));
        }
        Step::Part(Section::Entries { class, position, after: last.cloned() })
    }

    fn exactly_once(&self, piece: &mut Piece) -> Step {
        if !piece.takes(4) {
            return Step::Full;
        }
        let origins = self.root.exactly_once.origins.len();
        piece.to.u32(u32::try_from(origins).expect("bounded by ORIGINS_MAX"));
        Step::Done(self.origin_after(None))
    }

    fn origin_after(&self, after: Option<u128>) -> Section {
        let more = match (self.root.exactly_once.origins.get_max(), after) {
            (Some((last, _)), Some(after)) => *last > after,
            (last, _) => last.is_some(),
        };
        if more { Section::Origin { after } } else { Section::History }
    }

    fn origin(&self, piece: &mut Piece, after: Option<u128>) -> Step {
        let low = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut later = self.root.exactly_once.origins.range((low, Bound::Unbounded));
        let (number, origin) = later.next().expect("the section starts only if there is one");
        if !piece.takes_object(16 + 8 + 8 + 8, 1) {
            return Step::Full;
        }
        piece.to.u128(*number);
        piece.to.u64(origin.low_water);
        piece.to.u64(origin.last.0);
        piece.to.u64(origin.fates().len() as u64);
        if origin.fates().is_empty() {
            return Step::Done(self.origin_after(Some(*number)));
        }
        Step::Done(Section::Fates { origin: *number, next: 0 })
    }

    fn fates(&self, piece: &mut Piece, origin: u128, next: u64) -> Step {
        let fates = self.root.exactly_once.origins[&origin].fates();
        let mut last = 0;
        let count = piece.run(
            fates.range(next..),
            |_| (16, 1),
            |to, (sequence, fate)| {
                to.u64(*sequence);
                to.u64(fate.to_number());
                last = *sequence;
            },
        );
        if count == 0 {
            return Step::Full;
        }
        if fates.get_max().is_some_and(|(sequence, _)| *sequence > last) {
            return Step::Part(Section::Fates { origin, next: last + 1 });
        }
        Step::Done(self.origin_after(Some(origin)))
    }

    fn history(&self, piece: &mut Piece) -> Step {
        if !piece.takes(8) {
            return Step::Full;
        }
        piece.to.u64(self.history.generations.len() as u64);
        Step::Done(Section::Generation(0))
    }

    fn generation(&self, piece: &mut Piece, at: usize) -> Step {
        let Some(generation) = self.history.generations.get(at) else {
            return Step::Done(Section::End);
        };
        if !piece.takes_object(4 * 8, 1) {
            return Step::Full;
        }
        let Generation { start, end, points, ordered } = &**generation;
        piece.to.u64(start.0);
        piece.to.u64(end.0);
        piece.to.u64(points.len() as u64);
        piece.to.u64(ordered.len() as u64);
        Step::Done(self.points_from(at, 0))
    }

    fn points_from(&self, generation: usize, next: usize) -> Section {
        if next < self.history.generations[generation].points.len() {
            return Section::Points { generation, next };
        }
        self.ordered_from(generation, 0)
    }

    fn points(&self, piece: &mut Piece, generation: usize, next: usize) -> Step {
        let points = &self.history.generations[generation].points[next..];
        let count = piece.run(
            points.iter(),
            |_| (16, 1),
            |to, (point, index)| {
                to.u64(*point);
                to.u64(index.0);
            },
        );
        if count == 0 {
            return Step::Full;
        }
        let later = self.points_from(generation, next + count);
        step(count < points.len(), later)
    }

    fn ordered_from(&self, generation: usize, next: usize) -> Section {
        if next < self.history.generations[generation].ordered.len() {
            return Section::Ordered { generation, next };
        }
        Section::Generation(generation + 1)
    }

    fn ordered(&self, piece: &mut Piece, generation: usize, next: usize) -> Step {
        let ordered = &self.history.generations[generation].ordered[next..];
        let count = piece.run(
            ordered.iter(),
            |_| (28, 1),
            |to, ((key_index, prefix), index)| {
                to.u32(key_index.0);
                to.raw(prefix);
                to.u64(index.0);
            },
        );
        if count == 0 {
            return Step::Full;
        }
        let later = self.ordered_from(generation, next + count);
        step(count < ordered.len(), later)
    }

    fn end(&self, piece: &mut Piece) -> Step {
        if !piece.takes(8 + 16) {
            return Step::Full;
        }
        piece.to.u64(self.root.used_bytes);
        piece.to.u128(self.root.digest);
        Step::Done(Section::Nothing)
    }
}

/// How far a section came.
enum Step {
    /// Nothing of it fitted.
    Full,
    /// The piece is full, and the section goes on.
    Part(Section),
    /// All of it is written.
    Done(Section),
}

fn step(is_part: bool, section: Section) -> Step {
    if is_part { Step::Part(section) } else { Step::Done(section) }
}

fn objects(dictionary: &Dictionary, root: &Root, history: &History) -> u64 {
    let classes = replicated(dictionary).map(|class| {
        let table = root.class(class.id);
        (table.free.len() + table.records.len() * (1 + class.indexes.len())) as u64
    });
    let generations = history.generations.iter();
    let rows = generations.map(|old| (1 + old.points.len() + old.ordered.len()) as u64);
    classes.sum::<u64>() + root.exactly_once.len() + rows.sum::<u64>()
}
