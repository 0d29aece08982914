//! SHA-256 digests that serve as cache keys (FIPS 180-4, computed by AWS-LC).
//!
//! Two kinds, not to be confused: [`cache_key`] is the documented, interoperable `sha256(subject_token +
//! scope)`; the token caches use [`of_parts`], which cannot collide across different splits. Entries that are looked
//! up within one process only have a [`crate::cache::fingerprint`] instead.

use aws_lc_rs::digest::{Context, SHA256, digest};

/// A SHA-256 digest.
pub type Digest = [u8; 32];

/// SHA-256 of one piece of data.
#[must_use]
#[inline]
pub fn sha256(data: &[u8]) -> Digest {
    to_array(digest(&SHA256, data).as_ref())
}

/// The documented cache key for the on-behalf-of flow: `sha256(subject_token + scope)` in lower-case hex.
///
/// For applications with their own cache. By definition, two pairs with the same concatenation share this key; that
/// is why the internal caches use [`of_parts`].
#[must_use]
pub fn cache_key(subject_token: &str, scope: &str) -> String {
    let mut context = Context::new(&SHA256);
    context.update(subject_token.as_bytes());
    context.update(scope.as_bytes());
    hex(&to_array(context.finish().as_ref()))
}

/// Digest over a purpose and length-prefixed parts: different lists of parts never share an input.
#[must_use]
pub fn of_parts<'a>(purpose: &str, parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
    // One piece: each update of a running digest costs more than copying a token does.
    let mut whole = Vec::with_capacity(2048);
    let mut append = |part: &[u8]| {
        whole.extend_from_slice(&(part.len() as u64).to_be_bytes());
        whole.extend_from_slice(part);
    };
    append(purpose.as_bytes());
    parts.into_iter().for_each(append);
    sha256(&whole)
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .map(char::from)
        .collect()
}

fn to_array(bytes: &[u8]) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(bytes);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_documented_key_is_plain_sha256_of_the_concatenation() {
        // FIPS 180-2, appendix B.1: SHA-256("abc").
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(cache_key("ab", "c"), abc);
        assert_eq!(cache_key("", "abc"), abc);
        assert_eq!(hex(&sha256(b"abc")), abc);
    }

    proptest! {
        /// Moving a byte over the border of two parts, or over the purpose, changes the internal key.
        #[test]
        fn the_internal_key_knows_its_borders(
            left in "[a-c]{0,6}", right in "[a-c]{0,6}", other_left in "[a-c]{0,6}", other_right in "[a-c]{0,6}",
        ) {
            let one = of_parts("p", [left.as_bytes(), right.as_bytes()]);
            let other = of_parts("p", [other_left.as_bytes(), other_right.as_bytes()]);
            prop_assert_eq!(one == other, (&left, &right) == (&other_left, &other_right));
            prop_assert_ne!(one, of_parts("q", [left.as_bytes(), right.as_bytes()]));
            prop_assert_ne!(one, of_parts("p", [left.as_bytes(), right.as_bytes(), b""]));
        }
    }
}
