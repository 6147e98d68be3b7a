//! Writing and reading of byte forms: little-endian numbers, length-prefixed byte strings.
//!
//! Every wire and disk form of the project is built with [`Writer`] and taken apart with
//! [`Reader`]. A reader never trusts what it reads: each length is compared with the bytes that are
//! left before anything is allocated, and reading past the end is a [`Malformed`], never a panic.
//! What the bytes mean is the business of the module that reads them.

use thiserror::Error;

/// Bytes that are not what they should be.
///
/// Nothing was changed by reading them. Whoever sent them is at fault: a peer is disconnected, a
/// file is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("malformed bytes at offset {offset}: {what}; nothing was changed, refuse their source")]
pub struct Malformed {
    /// What is wrong, or what was expected.
    pub what: &'static str,
    /// Where, in bytes from the start of what was read.
    pub offset: usize,
}

/// Appends values to a growing vector of bytes.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// A writer with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// A writer with room for `capacity_bytes` before it has to grow.
    pub fn with_capacity(capacity_bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity_bytes) }
    }

    /// How many bytes were written.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True if nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends one byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Appends two bytes, little-endian.
    pub fn u16(&mut self, value: u16) {
        self.raw(&value.to_le_bytes());
    }

    /// Appends four bytes, little-endian.
    pub fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    /// Appends eight bytes, little-endian.
    pub fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    /// Appends sixteen bytes, little-endian.
    pub fn u128(&mut self, value: u128) {
        self.raw(&value.to_le_bytes());
    }

    /// Appends eight bytes, little-endian two's complement.
    pub fn i64(&mut self, value: i64) {
        self.raw(&value.to_le_bytes());
    }

    /// Appends a length of four bytes and the bytes themselves.
    ///
    /// # Panics
    ///
    /// If there are 4 GiB or more; limits far below are checked where such bytes come from.
    pub fn bytes(&mut self, value: &[u8]) {
        let length = u32::try_from(value.len()).expect("byte strings are limited below 4 GiB");
        self.u32(length);
        self.raw(value);
    }

    /// Appends text as [`Writer::bytes`] does.
    pub fn str(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    /// Appends bytes without a length.
    pub fn raw(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
    }

    /// Overwrites four bytes written before: for a length known only afterwards.
    ///
    /// # Panics
    ///
    /// If those bytes were not written yet.
    pub fn set_u32(&mut self, offset: usize, value: u32) {
        self.bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// What was written so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// All that was written.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Takes values from the front of a slice.
///
/// Invariant: `offset <= bytes.len()`.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// How many bytes were read.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.offset
    }

    /// The error for what stands at the present place.
    pub fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { what, offset: self.offset }
    }

    /// Takes one byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    /// Takes two bytes, little-endian.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Takes four bytes, little-endian.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Takes eight bytes, little-endian.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Takes sixteen bytes, little-endian.
    pub fn u128(&mut self) -> Result<u128, Malformed> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    /// Takes eight bytes, little-endian two's complement.
    pub fn i64(&mut self) -> Result<i64, Malformed> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// Takes what [`Writer::bytes`] wrote, without copying it.
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let start = self.offset;
        let length = self.u32()? as usize;
        if length > self.remaining() {
            self.offset = start;
            return Err(self.malformed("a length greater than what follows"));
        }
        self.raw(length)
    }

    /// Takes what [`Writer::str`] wrote, without copying it.
    pub fn str(&mut self) -> Result<&'a str, Malformed> {
        let start = self.offset;
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes)
            .map_err(|_| Malformed { what: "text that is not UTF-8", offset: start })
    }

    /// Takes `length` bytes, without copying them.
    pub fn raw(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        if length > self.remaining() {
            return Err(self.malformed("the end came too early"));
        }
        let taken = &self.bytes[self.offset..self.offset + length];
        self.offset += length;
        Ok(taken)
    }

    /// Takes a number of four bytes that says how many items of at least `item_bytes` each follow;
    /// refuses one that cannot be true, so that the caller may reserve room for it.
    pub fn count(&mut self, item_bytes: usize) -> Result<usize, Malformed> {
        let start = self.offset;
        let count = self.u32()? as usize;
        if count.saturating_mul(item_bytes.max(1)) > self.remaining() {
            self.offset = start;
            return Err(self.malformed("a count greater than what follows can hold"));
        }
        Ok(count)
    }

    /// Ends reading: bytes that are left over are an error.
    pub fn finish(self) -> Result<(), Malformed> {
        if self.remaining() == 0 { Ok(()) } else { Err(self.malformed("bytes after the end")) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let taken = self.raw(N)?;
        Ok(taken.try_into().expect("raw gave as many bytes as asked for"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::new();
        writer.u8(1);
        writer.u16(2);
        writer.u32(3);
        writer.u64(4);
        writer.u128(5);
        writer.i64(-6);
        writer.bytes(&[7, 8]);
        writer.str("nine");
        writer.raw(&[10]);
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.u8().unwrap(), 1);
        assert_eq!(reader.u16().unwrap(), 2);
        assert_eq!(reader.u32().unwrap(), 3);
        assert_eq!(reader.u64().unwrap(), 4);
        assert_eq!(reader.u128().unwrap(), 5);
        assert_eq!(reader.i64().unwrap(), -6);
        assert_eq!(reader.bytes().unwrap(), [7, 8]);
        assert_eq!(reader.str().unwrap(), "nine");
        assert_eq!(reader.raw(1).unwrap(), [10]);
        reader.finish().unwrap();
    }

    #[test]
    fn a_length_of_four_gib_is_refused_before_it_is_believed() {
        let bytes = [0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 3];
        assert_eq!(Reader::new(&bytes).bytes().unwrap_err().offset, 0);
        assert_eq!(Reader::new(&bytes).count(1).unwrap_err().offset, 0);
        assert!(Reader::new(&bytes).str().is_err());
    }

    #[test]
    fn what_is_left_over_is_an_error() {
        let mut reader = Reader::new(&[1, 2]);
        reader.u8().unwrap();
        assert_eq!(reader.finish().unwrap_err().offset, 1);
    }

    #[test]
    fn every_cut_is_noticed() {
        let mut writer = Writer::new();
        writer.u64(1);
        writer.str("text");
        let bytes = writer.finish();
        for cut in 0..bytes.len() {
            let mut reader = Reader::new(&bytes[..cut]);
            assert!(reader.u64().and_then(|_| reader.str()).is_err(), "cut at {cut}");
        }
    }
}
