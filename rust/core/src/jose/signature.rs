//! Public keys prepared for verifying signatures, and which library does the arithmetic.
//!
//! AWS-LC does everything, except where a faster implementation earns its place: RS256, which is what Entra ID
//! signs with, and PS256 run on rind's formally verified s2n-bignum kernels where the processor has what they need;
//! both take four fifths of AWS-LC's time. It is a public operation, so no secret is at stake; a wrong answer would
//! be. Therefore rind must pass a known-answer test of each algorithm before it is used, is compared with AWS-LC by
//! the vectors and by a differential fuzz target, and can be left out of the build (feature `rind`).

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters, VerificationAlgorithm,
};

use crate::jose::algorithm::Algorithm;

/// A public key in numbers.
#[derive(Debug, Clone)]
pub enum Material {
    /// RSA: big-endian modulus and exponent, without leading zeros.
    Rsa {
        /// The modulus.
        n: Vec<u8>,
        /// The public exponent.
        e: Vec<u8>,
    },
    /// An uncompressed point (SEC 1, section 2.3.3), or the 32 bytes of an Ed25519 key.
    Point(Vec<u8>),
}

/// A key that is ready to verify signatures of one algorithm.
#[derive(Debug)]
pub enum PreparedKey {
    /// AWS-LC does the arithmetic.
    AwsLc(ParsedPublicKey),
    /// rind does.
    #[cfg(feature = "rind")]
    Rind(Box<rind::signature::PublicKey>),
}

impl PreparedKey {
    /// Prepare a key with whichever library is the fastest that may be used here.
    ///
    /// # Errors
    /// A sentence that says why the key cannot be used.
    pub fn new(material: &Material, algorithm: Algorithm) -> Result<Self, &'static str> {
        // AWS-LC must take a key before rind may have it, so what is acceptable never depends on the processor.
        // What is weak but well-formed, AWS-LC takes too: that is judged before, in jwk.rs.
        let prepared = Self::with_aws_lc(material, algorithm)?;
        #[cfg(feature = "rind")]
        if let Material::Rsa { n, e } = material
            && let Some(scheme) = fast::Scheme::of(algorithm)
            && scheme.is_usable()
            && let Some(key) = scheme.prepare(n, e)
        {
            return Ok(Self::Rind(Box::new(key)));
        }
        Ok(prepared)
    }

    /// Prepare a key with AWS-LC: the reference.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_aws_lc(material: &Material, algorithm: Algorithm) -> Result<Self, &'static str> {
        let prepared = match material {
            Material::Rsa { n, e } => {
                let components = PublicKeyComponents { n: n.as_slice(), e: e.as_slice() };
                components.to_parsed_public_key(rsa_parameters(algorithm))
            }
            Material::Point(point) => {
                let scheme: &'static dyn VerificationAlgorithm = match algorithm {
                    Algorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
                    Algorithm::Es384 => &ECDSA_P384_SHA384_FIXED,
                    _ => &ED25519,
                };
                ParsedPublicKey::new(scheme, point)
            }
        };
        prepared.map(Self::AwsLc).map_err(|_| "has a value that AWS-LC does not accept (a point off its curve, say)")
    }

    /// Does the signature verify?
    #[must_use]
    #[inline]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::AwsLc(key) => key.verify_sig(message, signature).is_ok(),
            #[cfg(feature = "rind")]
            Self::Rind(key) => key.verify(message, signature).is_ok(),
        }
    }
}

const fn rsa_parameters(algorithm: Algorithm) -> &'static RsaParameters {
    match algorithm {
        Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &RSA_PSS_2048_8192_SHA512,
        _ => &RSA_PKCS1_2048_8192_SHA256,
    }
}

/// The name of the library that verifies signatures of this algorithm in this process.
#[must_use]
pub fn library(algorithm: Algorithm) -> &'static str {
    #[cfg(feature = "rind")]
    if fast::Scheme::of(algorithm).is_some_and(fast::Scheme::is_usable) {
        return "rind";
    }
    let _ = algorithm;
    "aws-lc"
}

#[cfg(feature = "rind")]
mod fast {
    use std::sync::OnceLock;

    use rind::signature::{PublicKey, RsaPublicKeyComponents, verify};

    use crate::jose::algorithm::Algorithm;
    use crate::jose::base64url;

    /// What rind verifies.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) enum Scheme {
        /// RS256.
        Pkcs1,
        /// PS256, with a salt of 32 bytes and no other.
        Pss,
    }

    impl Scheme {
        pub(super) const fn of(algorithm: Algorithm) -> Option<Self> {
            match algorithm {
                Algorithm::Rs256 => Some(Self::Pkcs1),
                Algorithm::Ps256 => Some(Self::Pss),
                _ => None,
            }
        }

        pub(super) fn prepare(self, n: &[u8], e: &[u8]) -> Option<PublicKey> {
            let algorithm = match self {
                Self::Pkcs1 => &verify::RSA_PKCS1_SHA256,
                Self::Pss => &verify::RSA_PSS_SHA256,
            };
            RsaPublicKeyComponents { n, e }.to_public_key(algorithm).ok()
        }

        /// May rind be used? Asked of the processor, and of rind itself with a known answer, once per process.
        pub(super) fn is_usable(self) -> bool {
            static USABLE: [OnceLock<bool>; 2] = [const { OnceLock::new() }; 2];
            *USABLE[self as usize].get_or_init(|| rind::cpu::check().is_ok() && knows_the_answer(self).unwrap_or(false))
        }
    }

    /// The example of RFC 7515, appendix A.2, which must verify, and must not with any of its parts changed. For PS256
    /// the same text was signed with the same key (its private half is printed there) by OpenSSL. Neither signature
    /// may verify as the other one's.
    fn knows_the_answer(scheme: Scheme) -> Option<bool> {
        const N: &str = concat!(
            "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yR",
            "T-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXB",
            "dQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9ia",
            "GNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
        );
        const SIGNED: &str = concat!(
            "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19y",
            "b290Ijp0cnVlfQ",
        );
        const PKCS1: &str = concat!(
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9",
            "uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB",
            "_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rq",
            "Vt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        );
        const PSS: &str = concat!(
            "oET1iOurmy407JGEIRiLThVVmJInQNt6U4H7cd2gC0ECjAqhXYlefG6VH_7OxPU8EzwuKRj6vD2sbDMdqlHsKPJ3prO9aXg7sThh0",
            "QIfDylLMMX1lwt2vHvcoMK3ydpykn-5vgk87NXsACxN0EkfvdRNwD0EF1Rt7FXdCtQB8PTk64sGJh9cjtB0RKxzIjRk1vMJX2wjFP",
            "DNIlci8fcl7Jreh4a3HphLJJv_mtAe_Wak_Rw7ou1wGyc_MYjznknPgvOh7aXByKxGuUHaMbut-lziCo_hZ4_ErnJ2--J_O-DWqHG",
            "ZhvJXdbxtzKNpsaEy2FoMRu8eN83NC_fTUIAR2g",
        );
        let (right, wrong) = match scheme {
            Scheme::Pkcs1 => (PKCS1, PSS),
            Scheme::Pss => (PSS, PKCS1),
        };
        let key = scheme.prepare(&base64url::decode(N.as_bytes()).ok()?, &[1, 0, 1])?;
        let signature = base64url::decode(right.as_bytes()).ok()?;
        let other = base64url::decode(wrong.as_bytes()).ok()?;
        let verifies = |message: &[u8], signature: &[u8]| key.verify(message, signature).is_ok();
        let mut changed = signature.clone();
        *changed.last_mut()? ^= 1;
        let signed = SIGNED.as_bytes();
        Some(
            verifies(signed, &signature)
                && !verifies(&signed[1..], &signature)
                && !verifies(signed, &changed)
                && !verifies(signed, &other)
                && !verifies(signed, &signature[1..])
                && !verifies(signed, &[]),
        )
    }
}

#[cfg(all(test, feature = "rind", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests {
    use super::*;

    #[test]
    fn the_fast_library_passes_its_known_answer_tests() {
        for algorithm in Algorithm::ALL {
            // On a processor that lacks what rind needs this says aws-lc, and that is right as well.
            let wanted = matches!(algorithm, Algorithm::Rs256 | Algorithm::Ps256) && rind::cpu::check().is_ok();
            assert_eq!(library(algorithm) == "rind", wanted, "{algorithm:?}");
        }
    }
}
