//! Public keys prepared for verifying signatures, and which library does the arithmetic.
//!
//! AWS-LC does everything, except where a faster implementation earns its place: RS256, which is what Entra ID
//! signs with, runs on rind's formally verified s2n-bignum kernels where the processor has what they need. It
//! is a public operation, so no secret is at stake; a wrong answer would be. Therefore rind must pass a
//! known-answer test before it is used, is compared with AWS-LC by the vectors and by a differential fuzz target, and can
//! be left out of the build (feature `rind`).

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters, VerificationAlgorithm,
};

use crate::algorithm::Algorithm;

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
        // AWS-LC judges every key, so that what is acceptable never depends on the processor.
        let prepared = Self::with_aws_lc(material, algorithm)?;
        #[cfg(feature = "rind")]
        if algorithm == Algorithm::Rs256
            && fast::is_usable()
            && let Material::Rsa { n, e } = material
            && let Some(key) = fast::prepare(n, e)
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

/// The name of the library that verifies RS256 in this process.
#[must_use]
pub fn rs256_library() -> &'static str {
    #[cfg(feature = "rind")]
    if fast::is_usable() {
        return "rind";
    }
    "aws-lc"
}

#[cfg(feature = "rind")]
mod fast {
    use std::sync::OnceLock;

    use rind::signature::{PublicKey, RsaPublicKeyComponents, verify::RSA_PKCS1_SHA256};

    use crate::base64url;

    pub(super) fn prepare(n: &[u8], e: &[u8]) -> Option<PublicKey> {
        RsaPublicKeyComponents { n, e }.to_public_key(&RSA_PKCS1_SHA256).ok()
    }

    /// May rind be used? Asked of the processor, and of rind itself with a known answer, once per process.
    pub(super) fn is_usable() -> bool {
        static USABLE: OnceLock<bool> = OnceLock::new();
        *USABLE.get_or_init(|| rind::cpu::check().is_ok() && knows_the_answer().unwrap_or(false))
    }

    /// The example of RFC 7515, appendix A.2: must verify, and must not with any of its parts changed.
    fn knows_the_answer() -> Option<bool> {
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
        const SIGNATURE: &str = concat!(
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9",
            "uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB",
            "_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rq",
            "Vt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        );
        let key = prepare(&base64url::decode(N.as_bytes()).ok()?, &[1, 0, 1])?;
        let signature = base64url::decode(SIGNATURE.as_bytes()).ok()?;
        let verifies = |message: &[u8], signature: &[u8]| key.verify(message, signature).is_ok();
        let mut changed = signature.clone();
        *changed.last_mut()? ^= 1;
        let signed = SIGNED.as_bytes();
        Some(
            verifies(signed, &signature)
                && !verifies(&signed[1..], &signature)
                && !verifies(signed, &changed)
                && !verifies(signed, &signature[1..])
                && !verifies(signed, &[]),
        )
    }
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(all(feature = "rind", any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn the_fast_library_passes_its_known_answer_test() {
        // On a processor that lacks what rind needs this says aws-lc, and that is right as well.
        assert_eq!(super::rs256_library() == "rind", rind::cpu::check().is_ok());
    }
}
