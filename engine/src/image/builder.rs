//! Taking an image in, piece by piece.
//!
//! The builder follows the grammar in the module `image`: it knows what must come next and how
//! much of it, and refuses everything else. Tables, indexes and sums grow with each piece, so the
//! last one costs no more than any other.

use std::sync::Arc;

use quorate_schema::bytes::{Malformed, Reader};
use quorate_schema::{ClassDef, Dictionary};

use super::class::{ClassBuilder, Sums};
use super::piece::Row;
use super::{MAGIC, VERSION};
use crate::certify::{BOUNDARY, Generation, History, key_prefix};
use crate::outcome::{Fate, ORIGINS_MAX, Origin};
use crate::store::Root;
use crate::{ImageError, Index, dictionary_digest};

/// An image on its way in. It is built beside the database and changes nothing in it; when it is
/// complete, [`Applier::install_built`](crate::Applier::install_built) switches to it.
///
/// Dropping it before that frees all it holds, which takes time linear in that.
#[derive(Debug)]
pub struct ImageBuilder {
    dictionary: Arc<Dictionary>,
    row: Row,
    expected: Expected,
    root: Root,
    sums: Sums,
    history: History,
    objects: u64,
    objects_in_head: u64,
    failed: Option<ImageError>,
}

/// What must come next.
#[derive(Debug)]
enum Expected {
    Head,
    /// The head of the class at this position of the dictionary.
    Class(usize),
    Tables(usize, Box<ClassBuilder>, Table),
    ExactlyOnce,
    Origin {
        missing: u32,
    },
    Fates {
        origin: u128,
        missing: u64,
        least: u64,
        origins: u32,
    },
    History,
    Generation {
        missing: u64,
    },
    Rows {
        generation: Box<Generation>,
        points: u64,
        ordered: u64,
        missing: u64,
    },
    End,
    Nothing,
}

/// Which list of a class goes on.
#[derive(Clone, Copy, Debug)]
enum Table {
    Free,
    Records,
    Entries(usize),
}

impl ImageBuilder {
    pub(crate) fn new(dictionary: Arc<Dictionary>) -> ImageBuilder {
        ImageBuilder {
            root: Root::new(&dictionary),
            dictionary,
            row: Row::default(),
            expected: Expected::Head,
            sums: Sums::default(),
            history: History { generations: Vec::new() },
            objects: 0,
            objects_in_head: 0,
            failed: None,
        }
    }

    /// Takes the next piece in. Pieces come in order, each once, all of one image.
    ///
    /// Takes time linear in the piece (times the logarithm of what is there), never in what came
    /// before. Nothing is trusted: damaged bytes, pieces out of order or of another image, and
    /// contents that no database can have are errors. After an error the builder is of no use any
    /// more and answers every further piece with the same error; the database is as it was.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), ImageError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let taken = self.take(piece);
        if let Err(error) = &taken {
            self.failed = Some(error.clone());
        }
        taken
    }

    /// True if all pieces came and everything in them is sound.
    pub fn is_complete(&self) -> bool {
        self.failed.is_none() && matches!(self.expected, Expected::Nothing)
    }

    /// How many objects came, counted as [`ImageStream::objects`](crate::ImageStream::objects).
    pub fn objects(&self) -> u64 {
        self.objects
    }

    /// How many objects will have come in the end, as the first piece says; 0 before it.
    pub fn objects_expected(&self) -> u64 {
        self.objects_in_head
    }

    /// The root and history that were built.
    pub(crate) fn finish(self) -> Result<(Root, History), ImageError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if !matches!(self.expected, Expected::Nothing) {
            return Err(ImageError::Incomplete);
        }
        Ok((self.root, self.history))
    }

    pub(crate) fn dictionary(&self) -> &Arc<Dictionary> {
        &self.dictionary
    }

    fn take(&mut self, piece: &[u8]) -> Result<(), ImageError> {
        let mut from = Reader::new(self.row.body(piece)?);
        if from.remaining() == 0 {
            return Err(from.malformed("a piece with nothing in it").into());
        }
        while from.remaining() > 0 {
            self.section(&mut from)?;
        }
        Ok(())
    }

    /// Reads what is expected, or as much of it as the piece has.
    fn section(&mut self, from: &mut Reader<'_>) -> Result<(), ImageError> {
        self.expected = match std::mem::replace(&mut self.expected, Expected::Nothing) {
            Expected::Head => self.head(from)?,
            Expected::Class(at) => self.class(at, from)?,
            Expected::Tables(at, tables, table) => self.tables(at, tables, table, from)?,
            Expected::ExactlyOnce => {
                let missing = from.u32()?;
                if missing as usize > ORIGINS_MAX {
                    return Err(from.malformed("more origins than are remembered").into());
                }
                origin_or_history(missing)
            }
            Expected::Origin { missing } => self.origin(missing, from)?,
            Expected::Fates { origin, missing, least, origins } => {
                self.fates(origin, missing, least, origins, from)?
            }
            Expected::History => match from.u64()? {
                0 => return Err(from.malformed("a history without a generation").into()),
                missing => Expected::Generation { missing },
            },
            Expected::Generation { missing } => self.generation(missing, from)?,
            Expected::Rows { generation, points, ordered, missing } => {
                self.rows(generation, points, ordered, missing, from)?
            }
            Expected::End => self.end(from)?,
            Expected::Nothing => return Err(from.malformed("bytes after the end").into()),
        };
        Ok(())
    }

    fn head(&mut self, from: &mut Reader<'_>) -> Result<Expected, ImageError> {
        if from.raw(MAGIC.len())? != MAGIC {
            return Err(from.malformed("this is no image").into());
        }
        match from.u32()? {
            VERSION => {}
            other => return Err(ImageError::Version(other)),
        }
        if from.u128()? != dictionary_digest(&self.dictionary) {
            return Err(ImageError::OtherDictionary);
        }
        self.root.index = Index(from.u64()?);
        if self.root.index.0 == u64::MAX {
            return Err(from.malformed("an index that cannot be").into());
        }
        self.objects_in_head = from.u64()?;
        Ok(self.class_from(0))
    }

    /// The next replicated class at `at` or after it.
    fn class_from(&self, at: usize) -> Expected {
        let classes = self.dictionary.classes().iter().enumerate().skip(at);
        let mut replicated = classes.filter(|(_, class)| !class.local);
        replicated.next().map_or(Expected::ExactlyOnce, |(at, _)| Expected::Class(at))
    }

    fn class(&mut self, at: usize, from: &mut Reader<'_>) -> Result<Expected, ImageError> {
        let tables = ClassBuilder::start(&self.dictionary.classes()[at], from)?;
        Ok(self.table_after(at, Box::new(tables), Table::Free))
    }

    /// The first list from `table` on of which something is missing.
    fn table_after(&mut self, at: usize, tables: Box<ClassBuilder>, table: Table) -> Expected {
        let indexes = tables.table.indexes.len();
        let mut table = table;
        loop {
            let (missing, next) = match table {
                Table::Free => (tables.missing_free(), Table::Records),
                Table::Records => (tables.missing_records(), Table::Entries(0)),
                Table::Entries(position) if position < indexes => {
                    (tables.missing_entries(position), Table::Entries(position + 1))
                }
                Table::Entries(_) => {
                    self.root.classes[at] = Arc::new(tables.table);
                    return self.class_from(at + 1);
                }
            };
            if missing > 0 {
                return Expected::Tables(at, tables, table);
            }
            table = next;
        }
    }

    /// Reads a run of one list of a class.
    fn tables(
        &mut self,
        at: usize,
        mut tables: Box<ClassBuilder>,
        table: Table,
        from: &mut Reader<'_>,
    ) -> Result<Expected, ImageError> {
        let dictionary = Arc::clone(&self.dictionary);
        let class: &ClassDef = &dictionary.classes()[at];
        let sums = &mut self.sums;
        match table {
            Table::Free => {
                for _ in 0..run(from, tables.missing_free(), &mut self.objects)? {
                    tables.free(class, sums, from)?;
                }
            }
            Table::Records => {
                for _ in 0..run(from, tables.missing_records(), &mut self.objects)? {
                    tables.record(&dictionary, class, self.root.index, sums, from)?;
                }
            }
            Table::Entries(position) => {
                let count = run(from, tables.missing_entries(position), &mut self.objects)?;
                tables.entries(&dictionary, class, position, count, from)?;
            }
        }
        Ok(self.table_after(at, tables, table))
    }

    fn origin(&mut self, missing: u32, from: &mut Reader<'_>) -> Result<Expected, ImageError> {
        let number = from.u128()?;
        let (low_water, last) = (from.u64()?, Index(from.u64()?));
        let origins = &mut self.root.exactly_once.origins;
        let in_order = origins.get_max().is_none_or(|(before, _)| *before < number);
        if !in_order || last > self.root.index {
            return Err(from.malformed("origins out of order").into());
        }
        origins.insert(number, Origin::new(low_water, last));
        self.objects += 1;
        Ok(match from.u64()? {
            0 => origin_or_history(missing - 1),
            fates => Expected::Fates {
                origin: number,
                missing: fates,
                least: low_water,
                origins: missing - 1,
            },
        })
    }

    fn fates(
        &mut self,
        number: u128,
        missing: u64,
        mut least: u64,
        origins: u32,
        from: &mut Reader<'_>,
    ) -> Result<Expected, ImageError> {
        let count = run(from, missing, &mut self.objects)?;
        let origin = self.root.exactly_once.origins.get_mut(&number);
        let origin = origin.expect("its head came before");
        for _ in 0..count {
            let (sequence, number) = (from.u64()?, from.u64()?);
            if sequence < least || sequence == u64::MAX || number > origin.last.0 {
                return Err(from.malformed("settled sequences out of order").into());
            }
            least = sequence + 1;
            origin.remember(sequence, Fate::from_number(number));
        }
        Ok(match missing - count {
            0 => origin_or_history(origins),
            missing => Expected::Fates { origin: number, missing, least, origins },
        })
    }

    fn generation(&mut self, missing: u64, from: &mut Reader<'_>) -> Result<Expected, ImageError> {
        let (start, end) = (Index(from.u64()?), Index(from.u64()?));
        let (points, ordered) = (from.u64()?, from.u64()?);
        let before = self.history.generations.last();
        let goes_on = before.is_none_or(|before| before.end == start && start < end);
        let ends = if missing == 1 { end == self.root.index } else { end < self.root.index };
        if !goes_on || !ends || start > end || !start.0.is_multiple_of(BOUNDARY) {
            return Err(from.malformed("generations that do not follow each other").into());
        }
        self.objects += 1;
        let generation = Box::new(Generation::new(start, end));
        Ok(self.rows_of(generation, points, ordered, missing))
    }

    fn rows_of(
        &mut self,
        generation: Box<Generation>,
        points: u64,
        ordered: u64,
        missing: u64,
    ) -> Expected {
        if points > 0 || ordered > 0 {
            return Expected::Rows { generation, points, ordered, missing };
        }
        self.history.generations.push(Arc::new(*generation));
        if missing == 1 { Expected::End } else { Expected::Generation { missing: missing - 1 } }
    }

    /// Reads a run of points, and after all points of keys.
    fn rows(
        &mut self,
        mut generation: Box<Generation>,
        points: u64,
        ordered: u64,
        missing: u64,
        from: &mut Reader<'_>,
    ) -> Result<Expected, ImageError> {
        let (start, end) = (generation.start, generation.end);
        let index = |from: &mut Reader<'_>| {
            let index = Index(from.u64()?);
            if index <= start || index > end {
                return Err(from.malformed("a write outside its generation"));
            }
            Ok(index)
        };
        if points > 0 {
            let count = run(from, points, &mut self.objects)?;
            for _ in 0..count {
                let point = from.u64()?;
                let before = generation.points.last();
                if before.is_some_and(|(before, _)| *before >= point) {
                    return Err(from.malformed("points out of order").into());
                }
                generation.points.push((point, index(from)?));
            }
            return Ok(self.rows_of(generation, points - count, ordered, missing));
        }
        let count = run(from, ordered, &mut self.objects)?;
        for _ in 0..count {
            let key = (quorate_schema::IndexId(from.u32()?), key_prefix(from.raw(16)?));
            if generation.ordered.last().is_some_and(|(before, _)| *before >= key) {
                return Err(from.malformed("keys out of order").into());
            }
            generation.ordered.push((key, index(from)?));
        }
        Ok(self.rows_of(generation, points, ordered - count, missing))
    }

    fn end(&mut self, from: &mut Reader<'_>) -> Result<Expected, ImageError> {
        self.root.used_bytes = from.u64()?;
        self.root.digest = from.u128()?;
        let Sums { bytes, digest } = self.sums;
        if self.root.used_bytes != bytes || self.root.digest != digest {
            return Err(from.malformed("sums that are not those of the records").into());
        }
        if self.objects != self.objects_in_head {
            return Err(from.malformed("another number of objects than the head says").into());
        }
        Ok(Expected::Nothing)
    }
}

fn origin_or_history(missing: u32) -> Expected {
    if missing > 0 { Expected::Origin { missing } } else { Expected::History }
}

/// The count of a run of a list of which `missing` items are still to come.
fn run(from: &mut Reader<'_>, missing: u64, objects: &mut u64) -> Result<u64, Malformed> {
    let count = u64::from(from.u32()?);
    if count == 0 || count > missing {
        return Err(from.malformed("a run that is empty or longer than its list"));
    }
    *objects += count;
    Ok(count)
}
