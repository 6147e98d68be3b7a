//! The frame of one piece of an image.
//!
//! ```text
//! number (4) | running checksum of the bodies before (4) | body | crc32c of all before (4)
//! ```
//!
//! Its own checksum tells damage, its number tells what was lost, repeated or swapped, and the
//! running checksum tells a piece of another image that happens to have the right number.

use quorate_schema::bytes::{Malformed, Reader, Writer};

use crate::ImageError;

/// Bytes of a piece that are not its body.
pub(super) const FRAME_BYTES: usize = 4 + 4 + 4;

/// Where the next piece stands in the row of all.
///
/// Invariant: `running` is the crc32c of the bodies of all pieces before `number`.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    number: u32,
    running: u32,
}

impl Row {
    /// A writer in which the body of the next piece is to be written.
    pub(super) fn begin(&self, capacity_bytes: usize) -> Writer {
        let mut to = Writer::with_capacity(capacity_bytes);
        to.u32(self.number);
        to.u32(self.running);
        to
    }

    /// Closes the frame.
    pub(super) fn end(&mut self, mut to: Writer) -> Vec<u8> {
        self.pass(&to.as_slice()[8..]);
        let checksum = crc32c::crc32c(to.as_slice());
        to.u32(checksum);
        to.finish()
    }

    /// The body of `piece`, if that is the next one.
    pub(super) fn body<'p>(&mut self, piece: &'p [u8]) -> Result<&'p [u8], ImageError> {
        let Some(body_bytes) = piece.len().checked_sub(FRAME_BYTES) else {
            return Err(Malformed { what: "a piece shorter than its frame", offset: 0 }.into());
        };
        let end = piece.len() - 4;
        let expected = Reader::new(&piece[end..]).u32()?;
        let found = crc32c::crc32c(&piece[..end]);
        if expected != found {
            return Err(ImageError::Checksum { expected, found });
        }
        let mut from = Reader::new(&piece[..end]);
        let number = from.u32()?;
        if number != self.number {
            return Err(ImageError::OutOfOrder { expected: self.number, found: number });
        }
        if from.u32()? != self.running {
            return Err(ImageError::OtherImage { piece: number });
        }
        let body = from.raw(body_bytes)?;
        self.pass(body);
        Ok(body)
    }

    fn pass(&mut self, body: &[u8]) {
        self.running = crc32c::crc32c_append(self.running, body);
        self.number = self.number.checked_add(1).expect("2^32 pieces are some 280 TB");
    }
}
