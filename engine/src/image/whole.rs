//! An image in one go, for those who have no use for pieces: all of them, each behind its length.

use std::sync::Arc;

use quorate_schema::bytes::{Reader, Writer};

use super::{ImageBuilder, ImageStream};
use crate::{ImageError, Index};

/// The size of the pieces, in bytes.
const PIECE_BYTES: usize = 1 << 20;

/// A consistent copy of all replicated data.
#[derive(Clone, Debug)]
pub struct Image {
    /// The newest transaction in it.
    pub index: Index,
    /// Its bytes, for [`Applier::install`](crate::Applier::install).
    pub bytes: Arc<[u8]>,
}

pub(crate) fn collect(mut stream: ImageStream) -> Image {
    let mut to = Writer::with_capacity(stream.total_bytes() as usize);
    while let Some(piece) = stream.next_piece(usize::MAX, PIECE_BYTES) {
        to.bytes(&piece);
    }
    Image { index: stream.index(), bytes: to.finish().into() }
}

pub(crate) fn push_all(builder: &mut ImageBuilder, bytes: &[u8]) -> Result<(), ImageError> {
    let mut from = Reader::new(bytes);
    while from.remaining() > 0 {
        builder.push(from.bytes()?)?;
    }
    Ok(())
}
