//! Keyed fingerprints, which recognise a token that was seen before within one process.
//!
//! A fingerprint is a GMAC tag (NIST SP 800-38D: AES-128-GCM over data that is authenticated and not encrypted,
//! computed by AWS-LC) under a random key for each cache. It takes less than a third of the time of SHA-256, which was
//! nearly the whole cost of a cached verification.
//!
//! Why it is sufficient: two different texts share a fingerprint for at most b + 1 of the 2^128 possible hash keys,
//! where b is the number of 16-byte blocks of the **longer** one (the difference of the two is a polynomial of that
//! degree, and those keys are its roots). No one without the key can find such texts offline. Online, an attempt at
//! n cached tokens succeeds with a probability of n(b + 1) / 2^128 at most, and a stranger chooses b: with 20,000
//! tokens and attempts of 64 KiB, which are the defaults, that is below 2^-101; with a million tokens and the
//! largest limit, 1 MiB, below 2^-92. A billion attempts add 30 to the exponent, and their failure reveals next to
//! nothing about the key.
//!
//! The nonce is always the same: the tag is the hash plus a constant. So anyone who sees two fingerprints can compute
//! the hash key. They never leave the process, are never shown, and are keys of [`crate::cache::s3_fifo`] only. Keys
//! that several processes must agree on (the provider process's tokens, a shared cache) are SHA-256 digests
//! ([`crate::digest`]).

use std::fmt;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::rand;

/// As secret as its key: never show, store or send it.
pub type Fingerprint = [u8; 16];

/// The secret of one cache.
pub struct Fingerprinter(LessSafeKey);

impl Fingerprinter {
    /// One with a new random key.
    ///
    /// # Panics
    /// When the operating system has no random numbers.
    #[must_use]
    pub fn new() -> Self {
        let mut key = [0; 16];
        rand::fill(&mut key).expect("the operating system gives random numbers");
        Self(LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).expect("AES-128 has keys of 16 bytes")))
    }

    /// The fingerprint of one piece of data.
    #[must_use]
    #[inline]
    pub fn of(&self, data: &[u8]) -> Fingerprint {
        self.tag(data, &mut [])
    }

    /// The fingerprint of a pair. The tag covers both lengths, so no other split of the same bytes shares it.
    #[must_use]
    pub fn of_pair(&self, long: &[u8], mut short: Vec<u8>) -> Fingerprint {
        self.tag(long, &mut short)
    }

    /// `scratch` is authenticated, too, and is useless afterwards.
    #[inline]
    fn tag(&self, data: &[u8], scratch: &mut [u8]) -> Fingerprint {
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(data), scratch);
        let tag = tag.expect("GCM takes far more than a request can hold");
        tag.as_ref().try_into().expect("a tag has 16 bytes")
    }
}

impl Default for Fingerprinter {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Fingerprinter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprinter")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_the_tag_of_gcm() {
        // The GCM specification (McGrew and Viega), test case 1: AES-128, all zeros, nothing else.
        let zeros = Fingerprinter(LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[0; 16]).unwrap()));
        let tag = [0x58, 0xe2, 0xfc, 0xce, 0xfa, 0x7e, 0x30, 0x61, 0x36, 0x7f, 0x1d, 0x57, 0xa4, 0xe7, 0x45, 0x5a];
        assert_eq!(zeros.of(b""), tag);
    }

    #[test]
    fn each_cache_has_its_own() {
        assert_ne!(Fingerprinter::new().of(b"token"), Fingerprinter::new().of(b"token"));
    }

    #[test]
    fn every_bit_counts_at_every_length() {
        let fingerprinter = Fingerprinter::new();
        for length in [1, 15, 16, 17, 255, 1538, 65_536] {
            let data = vec![b'a'; length];
            let whole = fingerprinter.of(&data);
            assert_eq!(whole, fingerprinter.of(&data));
            for at in [0, length / 2, length - 1] {
                for bit in 0..8 {
                    let mut other = data.clone();
                    other[at] ^= 1 << bit;
                    assert_ne!(whole, fingerprinter.of(&other), "bit {bit} of byte {at} of {length}");
                }
            }
            // A polynomial hash without lengths ignores zeros at the end.
            assert_ne!(whole, fingerprinter.of(&[&data[..], b"\0"].concat()));
        }
    }

    proptest! {
        /// Two pairs share a fingerprint only if they are the same pair, wherever the border is.
        #[test]
        fn a_pair_knows_its_border(
            long in "[a-c]{0,40}", short in "[a-c]{0,40}", other_long in "[a-c]{0,40}", cut in 0..80_usize,
        ) {
            let fingerprinter = Fingerprinter::new();
            let pair = |long: &str, short: &str| fingerprinter.of_pair(long.as_bytes(), short.as_bytes().to_vec());
            let whole = format!("{long}{short}");
            let (left, right) = whole.split_at(cut.min(whole.len()));
            prop_assert_eq!(pair(&long, &short) == pair(left, right), long == left);
            prop_assert_eq!(pair(&long, &short) == pair(&other_long, &short), long == other_long);
        }
    }
}
