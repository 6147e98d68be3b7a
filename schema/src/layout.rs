//! Record images: where each field of a class stands in the bytes of a record.
//!
//! ```text
//! | null bits | fixed part | ends | variable part |
//! ```
//!
//! * *Null bits*: one for each field that may be null, set if it is; unused bits are 0.
//! * *Fixed part*: numbers and references, unaligned, in declaration order. Structs are flattened:
//!   their fields follow as if they were the record's own, which makes a key part inside a struct
//!   as cheap to reach as any other field.
//! * *Ends*: for each variable field four bytes, where its bytes end, counted from the start of the
//!   variable part. A field starts where the one before it ends.
//! * *Variable part*: text and bytes as they are; vectors (count first) and arrays as a sequence of
//!   items (see `item`).
//!
//! Records are compared by hashes of their images on all nodes, so **an image is canonical**: a
//! null field is all zeros and empty, nothing is padded, not-a-number has one form. Two records
//! have equal images exactly if their values are equal (floats by bits, apart from NaN).
//!
//! What the applier has to fill in says so itself: a provisional reference has the creation
//! `u64::MAX`, an autoid not given out the value `u64::MAX`. So the patches of an image are found
//! in the image alone ([`Layout::patches`]), and an image that is patched only once needs no list
//! to be taken along when a transaction changes the record again before it commits.
//!
//! Images come from peers and files: [`Layout::check`] is total on any bytes, and whatever it
//! passes can be read without a panic. Reading anything else may panic.

use std::ops::Range;

use crate::bytes::{Malformed, Reader};
use crate::item;
use crate::plain::{AUTOID_UNASSIGNED, Plain, fixed_bytes};
use crate::{ClassDef, ClassId, Dictionary, FieldDef, Reference, StructDef, Type};

/// The most bytes the variable part of one record may have: 64 MiB.
pub const MAX_VARIABLE_BYTES: usize = 64 << 20;

/// Where the fields of one class stand in its record images. Made with the dictionary.
///
/// Invariants: `slots[i]` is the place of field `i`; the extents of slots in order cover the null
/// bits, the fixed part and the ends without gap or overlap.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    pub(crate) class: ClassId,
    pub(crate) slots: Vec<Slot>,
    pub(crate) null_bits: u32,
    pub(crate) fixed_bytes: u32,
    pub(crate) variables: u32,
    /// False if no image of the class can need a patch.
    has_patches: bool,
}

/// The place of one field.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Slot {
    pub(crate) ty: Type,
    pub(crate) null_bit: Option<u32>,
    pub(crate) place: Place,
    /// Everything the field takes, nested fields included.
    pub(crate) extent: Extent,
}

/// What kind of place a field has.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Place {
    /// At this offset of the image.
    Fixed(u32),
    /// The variable field of this number.
    Variable(u32),
    /// The fields of a struct, each with a place of its own.
    Struct(Vec<Slot>),
}

/// What a field takes of each part; `fixed` in offsets of the image.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Extent {
    pub(crate) null_bits: Range<u32>,
    pub(crate) fixed: Range<u32>,
    pub(crate) variables: Range<u32>,
}

/// Eight bytes that only the applier knows, and where they go in an image or key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Patch {
    /// Where the eight bytes start.
    pub offset: u32,
    /// Which number belongs there.
    pub what: PatchWhat,
    /// True in descending key parts: the number is stored complemented.
    pub inverted: bool,
}

/// Which number a patch puts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PatchWhat {
    /// The id of the record with this provisional number.
    RecordId(u64),
    /// The creation index of the record with this provisional number.
    Creation(u64),
    /// The next number of the class's autoid counter.
    Autoid,
}

impl Patch {
    /// Puts `value` into `bytes`, big-endian.
    ///
    /// # Panics
    ///
    /// If `bytes` end before the patch does: peers' patches are compared with
    /// [`Layout::patches`] first.
    pub fn apply(&self, bytes: &mut [u8], value: u64) {
        let start = self.offset as usize;
        let stored = if self.inverted { !value } else { value };
        bytes[start..start + 8].copy_from_slice(&stored.to_be_bytes());
    }
}

/// The two patches of a provisional reference whose sixteen bytes start at `offset`.
pub(crate) fn reference_patches(offset: usize, number: u64, inverted: bool) -> [Patch; 2] {
    let offset = u32::try_from(offset).expect("images and keys are limited below 4 GiB");
    [
        Patch { offset, what: PatchWhat::RecordId(number), inverted },
        Patch { offset: offset + 8, what: PatchWhat::Creation(number), inverted },
    ]
}

impl Layout {
    /// The layout of a class whose types were all checked.
    pub(crate) fn new(class: &ClassDef, structs: &[StructDef]) -> Layout {
        let null_bits = count_null_bits(&class.fields, structs);
        let mut next = Next { null_bit: 0, fixed: null_bits.div_ceil(8), variable: 0, structs };
        let slots = next.slots(&class.fields);
        assert_eq!(next.null_bit, null_bits, "both walks see the same fields");
        let has_patches = class.fields.iter().any(|field| holds_ids(&field.ty, structs));
        let fixed_bytes = next.fixed - null_bits.div_ceil(8);
        let variables = next.variable;
        Layout { class: class.id, slots, null_bits, fixed_bytes, variables, has_patches }
    }

    /// The class whose records have this layout.
    pub fn class(&self) -> ClassId {
        self.class
    }

    /// How many bytes every image of the class has before its variable part.
    pub fn header_bytes(&self) -> usize {
        self.ends_offset() + 4 * self.variables as usize
    }

    /// Checks that `image` is the canonical image of a record of the class.
    ///
    /// Total on any bytes, allocates nothing, takes time linear in their number.
    pub fn check(&self, dictionary: &Dictionary, image: &[u8]) -> Result<(), Malformed> {
        self.check_frame(image)?;
        for slot in &self.slots {
            self.check_slot(dictionary, slot, image)?;
        }
        Ok(())
    }

    /// The patches `image` needs before it is final, in order of their offsets: two for each
    /// provisional reference, one for an autoid not given out yet.
    ///
    /// `image` has passed [`Layout::check`] or was encoded here; any other may panic.
    pub fn patches(&self, dictionary: &Dictionary, image: &[u8]) -> Vec<Patch> {
        let mut patches = Vec::new();
        if self.has_patches {
            for slot in &self.slots {
                self.collect_patches(dictionary, slot, image, &mut patches);
            }
            patches.sort_by_key(|patch| patch.offset);
        }
        patches
    }

    pub(crate) fn ends_offset(&self) -> usize {
        self.null_bytes() + self.fixed_bytes as usize
    }

    pub(crate) fn null_bytes(&self) -> usize {
        self.null_bits.div_ceil(8) as usize
    }

    /// Where the bytes of a variable field stand in the image.
    pub(crate) fn variable(&self, image: &[u8], number: u32) -> Range<usize> {
        let start = if number == 0 { 0 } else { self.end(image, number - 1) };
        self.header_bytes() + start..self.header_bytes() + self.end(image, number)
    }

    /// The end of a variable field, from the start of the variable part.
    pub(crate) fn end(&self, image: &[u8], number: u32) -> usize {
        let at = self.ends_offset() + 4 * number as usize;
        let bytes = image[at..at + 4].try_into().expect("a slice of four bytes");
        u32::from_le_bytes(bytes) as usize
    }

    /// The slot of a path of fields, outermost first, and whether null stands anywhere on the way.
    pub(crate) fn slot_at(&self, image: &[u8], path: &[crate::FieldId]) -> (&Slot, bool) {
        let mut slots = &self.slots;
        let mut found: Option<&Slot> = None;
        let mut null = false;
        for field in path {
            let slot = &slots[field.0 as usize];
            null |= slot.is_null(image);
            if let Place::Struct(inner) = &slot.place {
                slots = inner;
            }
            found = Some(slot);
        }
        (found.expect("paths of index parts have at least one field"), null)
    }

    /// Length, null bits and ends.
    fn check_frame(&self, image: &[u8]) -> Result<(), Malformed> {
        let header_bytes = self.header_bytes();
        if image.len() < header_bytes {
            return Err(Malformed { what: "a record without its fixed part", offset: image.len() });
        }
        if image.len() - header_bytes > MAX_VARIABLE_BYTES {
            return Err(Malformed { what: "a record over its limit", offset: header_bytes });
        }
        let used_bits = self.null_bits % 8;
        if used_bits != 0 && image[self.null_bytes() - 1] >> used_bits != 0 {
            let offset = self.null_bytes() - 1;
            return Err(Malformed { what: "null bits of no field", offset });
        }
        let mut end = 0;
        for number in 0..self.variables {
            let next = self.end(image, number);
            if next < end || next > image.len() - header_bytes {
                let offset = self.ends_offset() + 4 * number as usize;
                return Err(Malformed { what: "a variable field out of bounds", offset });
            }
            end = next;
        }
        if end != image.len() - header_bytes {
            return Err(Malformed { what: "bytes after the record", offset: header_bytes + end });
        }
        Ok(())
    }

    fn check_slot(
        &self,
        dictionary: &Dictionary,
        slot: &Slot,
        image: &[u8],
    ) -> Result<(), Malformed> {
        if slot.is_null(image) {
            return self.check_null(slot, image);
        }
        match &slot.place {
            Place::Fixed(offset) => {
                Plain::check(dictionary, &slot.ty, slot.fixed(image), *offset as usize)
            }
            Place::Variable(number) => {
                let range = self.variable(image, *number);
                match &slot.ty {
                    Type::Vector(_) | Type::Array(..) => {
                        let mut reader = Reader::new(&image[range.clone()]);
                        item::check(dictionary, &slot.ty, &mut reader, &mut |_, _| {})
                            .and_then(|()| reader.finish())
                            .map_err(|error| Malformed {
                                offset: error.offset + range.start,
                                ..error
                            })
                    }
                    plain => Plain::check(dictionary, plain, &image[range.clone()], range.start),
                }
            }
            Place::Struct(slots) => {
                slots.iter().try_for_each(|slot| self.check_slot(dictionary, slot, image))
            }
        }
    }

    /// A null field is zeros, empty, and has no null bit set but its own.
    fn check_null(&self, slot: &Slot, image: &[u8]) -> Result<(), Malformed> {
        let extent = &slot.extent;
        let fixed = extent.fixed.start as usize..extent.fixed.end as usize;
        if image[fixed.clone()].iter().any(|byte| *byte != 0) {
            return Err(Malformed { what: "a null field with a value", offset: fixed.start });
        }
        for number in extent.variables.clone() {
            let range = self.variable(image, number);
            if !range.is_empty() {
                return Err(Malformed { what: "a null field with bytes", offset: range.start });
            }
        }
        let mut bits = extent.null_bits.clone();
        if bits.any(|bit| Some(bit) != slot.null_bit && null_bit(image, bit)) {
            let offset = extent.null_bits.start as usize / 8;
            return Err(Malformed { what: "a null field inside a null struct", offset });
        }
        Ok(())
    }

    fn collect_patches(
        &self,
        dictionary: &Dictionary,
        slot: &Slot,
        image: &[u8],
        patches: &mut Vec<Patch>,
    ) {
        if slot.is_null(image) {
            return;
        }
        match &slot.place {
            Place::Fixed(offset) => match Plain::read(&slot.ty, slot.fixed(image)) {
                Plain::Ref(reference) if reference.is_provisional() => {
                    patches.extend(reference_patches(*offset as usize, reference.id, false));
                }
                Plain::Autoid(AUTOID_UNASSIGNED) => {
                    let what = PatchWhat::Autoid;
                    patches.push(Patch { offset: *offset, what, inverted: false });
                }
                _ => {}
            },
            Place::Variable(number) => {
                if matches!(slot.ty, Type::Vector(_) | Type::Array(..)) {
                    let range = self.variable(image, *number);
                    let mut found = |offset: usize, reference: Reference| {
                        if reference.is_provisional() {
                            let at = range.start + offset;
                            patches.extend(reference_patches(at, reference.id, false));
                        }
                    };
                    let mut reader = Reader::new(&image[range.clone()]);
                    item::check(dictionary, &slot.ty, &mut reader, &mut found)
                        .expect("images are checked before they are read");
                }
            }
            Place::Struct(slots) => {
                for slot in slots {
                    self.collect_patches(dictionary, slot, image, patches);
                }
            }
        }
    }
}

impl Slot {
    /// True if the field itself is null; a field inside a null struct may say no.
    pub(crate) fn is_null(&self, image: &[u8]) -> bool {
        self.null_bit.is_some_and(|bit| null_bit(image, bit))
    }

    /// The bytes of a field with a fixed place.
    pub(crate) fn fixed<'a>(&self, image: &'a [u8]) -> &'a [u8] {
        &image[self.extent.fixed.start as usize..self.extent.fixed.end as usize]
    }
}

fn null_bit(image: &[u8], bit: u32) -> bool {
    image[bit as usize / 8] >> (bit % 8) & 1 == 1
}

/// The walk that hands out places.
struct Next<'a> {
    null_bit: u32,
    fixed: u32,
    variable: u32,
    structs: &'a [StructDef],
}

impl Next<'_> {
    fn slots(&mut self, fields: &[FieldDef]) -> Vec<Slot> {
        fields.iter().map(|field| self.slot(field)).collect()
    }

    fn slot(&mut self, field: &FieldDef) -> Slot {
        let start = (self.null_bit, self.fixed, self.variable);
        let null_bit = field.accepts_null().then(|| {
            self.null_bit += 1;
            start.0
        });
        let place = match (&field.ty, fixed_bytes(&field.ty)) {
            (Type::Struct(id), _) => Place::Struct({
                let structs = self.structs;
                self.slots(&structs[id.0 as usize].fields)
            }),
            (_, Some(bytes)) => {
                self.fixed += bytes;
                Place::Fixed(start.1)
            }
            (_, None) => {
                self.variable += 1;
                Place::Variable(start.2)
            }
        };
        let extent = Extent {
            null_bits: start.0..self.null_bit,
            fixed: start.1..self.fixed,
            variables: start.2..self.variable,
        };
        Slot { ty: field.ty.clone(), null_bit, place, extent }
    }
}

fn count_null_bits(fields: &[FieldDef], structs: &[StructDef]) -> u32 {
    let inside = |field: &FieldDef| match &field.ty {
        Type::Struct(id) => count_null_bits(&structs[id.0 as usize].fields, structs),
        _ => 0,
    };
    fields.iter().map(|field| u32::from(field.accepts_null()) + inside(field)).sum()
}

/// True if values of the type can hold ids that the applier fills in.
fn holds_ids(ty: &Type, structs: &[StructDef]) -> bool {
    match ty {
        Type::Ref(_) | Type::Autoid => true,
        Type::Vector(item) | Type::Array(item, _) => holds_ids(item, structs),
        Type::Struct(id) => {
            structs[id.0 as usize].fields.iter().any(|field| holds_ids(&field.ty, structs))
        }
        _ => false,
    }
}
