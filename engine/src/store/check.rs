//! Full verification of a root: every invariant of the module `store`, from the records up.

use std::collections::BTreeSet;

use quorate_schema::{ClassDef, Dictionary};

use super::{ClassTable, Place, Root};
use crate::Damage;
use crate::digest::{free_digest, record_digest};
use crate::keys::{key_of, total_bytes};

/// The sums over some classes.
#[derive(Default)]
struct Sums {
    bytes: u64,
    digest: u128,
}

impl Root {
    /// Checks every invariant; takes time linear in the data, and blocks nobody.
    pub(crate) fn check(&self, dictionary: &Dictionary) -> Result<(), Damage> {
        let mut replicated = Sums::default();
        let mut local = Sums::default();
        for class in dictionary.classes() {
            let sums = if class.local { &mut local } else { &mut replicated };
            self.class(class.id).check(dictionary, class, sums)?;
        }
        compare("digest", self.digest, replicated.digest)?;
        compare("bytes used", self.used_bytes.into(), replicated.bytes.into())?;
        compare("local bytes used", self.used_local_bytes.into(), local.bytes.into())
    }
}

fn compare(what: &'static str, kept: u128, found: u128) -> Result<(), Damage> {
    if kept == found { Ok(()) } else { Err(Damage::Sum { what, kept, found }) }
}

impl ClassTable {
    fn check(
        &self,
        dictionary: &Dictionary,
        class: &ClassDef,
        sums: &mut Sums,
    ) -> Result<(), Damage> {
        self.check_places(class)?;
        for (id, record) in &self.records {
            if record.creation == 0 {
                return Err(damaged(class, *id, "no transaction created it"));
            }
            if dictionary.layout(class.id).check(dictionary, &record.image).is_err() {
                return Err(damaged(class, *id, "its image cannot be read"));
            }
            let digest = record_digest(class.id, *id, record.creation, &record.image);
            sums.digest = sums.digest.wrapping_add(digest);
            sums.bytes += total_bytes(dictionary, class, &record.image) as u64;
        }
        for (position, id) in self.free.iter().enumerate() {
            let digest = free_digest(class.id, position as u64, *id);
            sums.digest = sums.digest.wrapping_add(digest);
        }
        (0..class.indexes.len()).try_for_each(|at| self.check_index(dictionary, class, at))
    }

    /// Every place below `next_id` is live or free, once.
    fn check_places(&self, class: &ClassDef) -> Result<(), Damage> {
        let mut free = BTreeSet::new();
        for id in &self.free {
            if !free.insert(*id) || self.records.contains_key(id) {
                return Err(damaged(class, *id, "its place is on the free list too"));
            }
        }
        let inside = |id: u64| (1..self.next_id).contains(&id);
        let ends = [
            self.records.get_min().map(|(id, _)| *id),
            self.records.get_max().map(|(id, _)| *id),
            free.first().copied(),
            free.last().copied(),
        ];
        let all = free.len() as u64 + self.records.len() as u64;
        if !ends.into_iter().flatten().all(inside) || all + 1 != self.next_id {
            return Err(damaged(class, self.next_id, "places are missing or outside the class"));
        }
        Ok(())
    }

    fn check_index(
        &self,
        dictionary: &Dictionary,
        class: &ClassDef,
        position: usize,
    ) -> Result<(), Damage> {
        let index = &class.indexes[position];
        let names = || (class.name.clone(), index.name.clone());
        let entries = &self.indexes[position];
        if entries.len() != self.records.len() {
            let (class, index) = names();
            let (entries, records) = (entries.len() as u64, self.records.len() as u64);
            return Err(Damage::EntryCount { class, index, entries, records });
        }
        for (id, record) in &self.records {
            let key = key_of(dictionary, index, &record.image);
            if !entries.contains(&Place { key: &key.bytes, id: *id }) {
                let (class, index) = names();
                return Err(Damage::WrongEntry { class, index, id: *id });
            }
            let unique = index.unique && !key.has_null;
            if unique && self.ids_of(position, &key.bytes).count() > 1 {
                let (class, index) = names();
                return Err(Damage::DuplicateKey { class, index, id: *id });
            }
        }
        Ok(())
    }
}

fn damaged(class: &ClassDef, id: u64, problem: &'static str) -> Damage {
    Damage::Record { class: class.name.clone(), id, problem }
}
