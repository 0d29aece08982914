//! Strict base64url without padding (RFC 4648, section 5; RFC 7515, section 2).
//!
//! One spelling per value: padding, `+/`, white space and non-zero trailing bits are rejected, because a
//! second spelling of a token would be a second cache key for the same verification.

use base64_simd::{AsOut, URL_SAFE_NO_PAD};

/// The text is not base64url in its one accepted spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotBase64Url;

/// Decode into a new vector of exactly the decoded length.
///
/// # Errors
/// [`NotBase64Url`] when the text has any other than the one accepted spelling.
#[inline]
pub fn decode(text: &[u8]) -> Result<Vec<u8>, NotBase64Url> {
    URL_SAFE_NO_PAD.decode_to_vec(text).map_err(|_| NotBase64Url)
}

/// Decode into the front of `buffer` and return the decoded part.
///
/// # Errors
/// [`NotBase64Url`] as [`decode`], and also when the buffer is too small for the value.
#[inline]
pub fn decode_into<'b>(text: &[u8], buffer: &'b mut [u8]) -> Result<&'b [u8], NotBase64Url> {
    // An upper bound that cannot overflow: the text was bounded long before.
    if text.len() / 4 * 3 + 2 > buffer.len() {
        return Err(NotBase64Url);
    }
    match URL_SAFE_NO_PAD.decode(text, buffer.as_out()) {
        Ok(decoded) => Ok(decoded),
        Err(_) => Err(NotBase64Url),
    }
}

/// Encode to text without padding.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode_to_string(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rejects_every_second_spelling() {
        for text in ["YQ==", "YQ=", "YR", "YWJ", "Y", "YW J", "YQ\n", " YQ", "+w", "/w", "YQ.", "\u{e9}Q", "YWE="] {
            assert_eq!(decode(text.as_bytes()), Err(NotBase64Url), "{text:?}");
        }
        assert_eq!(decode(b"YQ"), Ok(b"a".to_vec()));
        assert_eq!(decode(b""), Ok(Vec::new()));
        assert_eq!(decode(b"-_-_"), Ok(vec![0xfb, 0xff, 0xbf]));
    }

    #[test]
    fn a_buffer_that_is_too_small_is_an_error_and_not_a_panic() {
        let mut small = [0_u8; 4];
        assert_eq!(decode_into(b"YWFhYWFhYWE", &mut small), Err(NotBase64Url));
        assert_eq!(decode_into(b"", &mut small), Ok(&[][..]));
        // Five bytes are the upper bound for four characters, although three are enough.
        assert_eq!(decode_into(b"YWFh", &mut small), Err(NotBase64Url));
        assert_eq!(decode_into(b"YWFh", &mut [0_u8; 5]), Ok(&b"aaa"[..]));
    }

    proptest! {
        /// What is accepted is exactly what the encoder writes.
        #[test]
        fn one_spelling(text in "[A-Za-z0-9_+/=-]{0,24}") {
            if let Ok(bytes) = decode(text.as_bytes()) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }

        /// Encoding round-trips, through both ways of decoding.
        #[test]
        fn round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let text = encode(&bytes);
            prop_assert_eq!(decode(text.as_bytes()), Ok(bytes.clone()));
            let mut buffer = [0_u8; 1024];
            prop_assert_eq!(decode_into(text.as_bytes(), &mut buffer), Ok(&bytes[..]));
        }
    }
}
