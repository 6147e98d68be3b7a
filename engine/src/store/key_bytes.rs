//! The bytes of an index key, kept where they are compared if they are short.

use std::cmp::Ordering;
use std::ops::Deref;
use std::sync::Arc;

/// Longest key kept in place: with its length and the tag it fills 24 bytes.
const INLINE_BYTES: usize = 22;

/// Key bytes that are cheap to copy: short ones, which most keys are, stand in place, so that
/// looking up an index does not follow a pointer for each comparison; longer ones are shared.
///
/// Invariant: a key is `Short` exactly if it has at most [`INLINE_BYTES`] bytes.
#[derive(Clone, Debug)]
pub(crate) enum KeyBytes {
    Short(u8, [u8; INLINE_BYTES]),
    Long(Arc<[u8]>),
}

impl From<&[u8]> for KeyBytes {
    fn from(bytes: &[u8]) -> KeyBytes {
        if bytes.len() > INLINE_BYTES {
            return KeyBytes::Long(bytes.into());
        }
        let mut short = [0; INLINE_BYTES];
        short[..bytes.len()].copy_from_slice(bytes);
        KeyBytes::Short(bytes.len() as u8, short)
    }
}

impl Deref for KeyBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            KeyBytes::Short(length, bytes) => &bytes[..usize::from(*length)],
            KeyBytes::Long(bytes) => bytes,
        }
    }
}

impl PartialEq for KeyBytes {
    fn eq(&self, other: &KeyBytes) -> bool {
        **self == **other
    }
}

impl Eq for KeyBytes {}

impl PartialOrd for KeyBytes {
    fn partial_cmp(&self, other: &KeyBytes) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The order of the bytes. Short keys are filled up with zeros, so they are compared as numbers,
/// without a loop; only if one is the other and zeros, their lengths decide.
impl Ord for KeyBytes {
    fn cmp(&self, other: &KeyBytes) -> Ordering {
        let (KeyBytes::Short(length, bytes), KeyBytes::Short(other_length, other_bytes)) =
            (self, other)
        else {
            return (**self).cmp(&**other);
        };
        let in_words = words(bytes).cmp(&words(other_bytes));
        in_words.then_with(|| bytes[16..].cmp(&other_bytes[16..])).then(length.cmp(other_length))
    }
}

/// The first sixteen bytes as a number of the same order.
fn words(bytes: &[u8; INLINE_BYTES]) -> u128 {
    let first = bytes.first_chunk().expect("a short key has more than sixteen bytes");
    u128::from_be_bytes(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const _: () = assert!(size_of::<KeyBytes>() == 24);

    #[test]
    fn keys_of_all_lengths_are_kept_and_ordered_as_bytes() {
        let bytes: Vec<u8> = (0..40).map(|byte| byte % 3).collect();
        let zeros = [0; 30];
        let mut keys: Vec<&[u8]> = (0..=bytes.len()).map(|length| &bytes[..length]).collect();
        keys.extend((0..zeros.len()).map(|length| &zeros[..length]));
        keys.extend((0..30).flat_map(|at| [&bytes[at..at + 9], &bytes[at..at + 1]]));
        keys.extend([&[0xFF; 22][..], &[0xFF; 23], &[0x80, 0], &[0x7F, 0xFF], &[0, 0xFF]]);
        for a in &keys {
            assert_eq!(&*KeyBytes::from(*a), *a);
            for b in &keys {
                assert_eq!(KeyBytes::from(*a).cmp(&KeyBytes::from(*b)), a.cmp(b), "{a:?} {b:?}");
            }
        }
    }
}
