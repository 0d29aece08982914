//! Public keys prepared for verifying signatures, and which library verifies with them.
//!
//! AWS-LC is the reference: it prepares every key and verifies every algorithm. RS256, which Entra ID signs with, and
//! PS256 take most of the time for a token never seen before; there rind may verify, which is faster by a sixth to a
//! quarter. It is a public operation, so there is no secret to protect, but a wrong answer must not go unnoticed.
//! Therefore rind
//! - gets a key only after AWS-LC has accepted it,
//! - must pass a known-answer test of the algorithm in this process before it is used,
//! - has a sample of its answers confirmed by AWS-LC, and is not used after the first disagreement ([`confirmation`]),
//! - is compared with AWS-LC by the vectors and by a differential fuzz target,
//! - can be turned off for a policy ([`Signatures::AwsLc`]) and left out of the build (feature `rind`).
//!
//! [`confirmation`]: crate::jose::confirmation

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ML_DSA_44, ML_DSA_65, ML_DSA_87, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, VerificationAlgorithm,
};

use crate::jose::algorithm::Algorithm;
use crate::jose::confirmation::{self, Confirmation};

/// Which libraries may verify signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Signatures {
    /// rind for RS256 and PS256 where it may be used, confirmed by AWS-LC; AWS-LC for everything else.
    #[default]
    Fast,
    /// AWS-LC alone.
    AwsLc,
}

impl Signatures {
    /// Both, in the order in which they are offered.
    pub const ALL: [Self; 2] = [Self::Fast, Self::AwsLc];

    /// Its name in settings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::AwsLc => "aws-lc",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signatures| signatures.name() == name)
    }
}

/// The library that verified a signature.
#[derive(Debug, Clone, Copy)]
pub enum VerifiedBy {
    /// AWS-LC, alone or after the fast library.
    AwsLc,
    /// The fast library alone.
    FastAlone(&'static Confirmation),
}

impl VerifiedBy {
    /// Does the verification still count? Not if only the fast library made it, and that is no longer trusted.
    #[must_use]
    #[inline]
    pub fn stands(self) -> bool {
        match self {
            Self::AwsLc => true,
            Self::FastAlone(confirmation) => confirmation.is_trusted(),
        }
    }
}

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
    /// ML-DSA: the encoded public key (FIPS 204, algorithm 22).
    MlDsa(Vec<u8>),
}

/// One key, ready to verify, in a library that is faster than AWS-LC.
pub(crate) trait FastKey: fmt::Debug + Send + Sync {
    /// Does the signature verify?
    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool;
}

/// A key of the fast library, whose answers are confirmed.
#[derive(Debug)]
struct Fast {
    key: Box<dyn FastKey>,
    /// Has AWS-LC confirmed an acceptance with this key?
    confirmed: AtomicBool,
    confirmation: &'static Confirmation,
}

impl Fast {
    fn verify(&self, reference: &ParsedPublicKey, message: &[u8], signature: &[u8]) -> Option<VerifiedBy> {
        let accepted = self.key.verifies(message, signature);
        let to_confirm = if accepted {
            !self.confirmed.load(Relaxed) || confirmation::is_drawn(confirmation::ACCEPTANCES)
        } else {
            confirmation::is_drawn(confirmation::REJECTIONS)
        };
        if !to_confirm {
            return accepted.then_some(VerifiedBy::FastAlone(self.confirmation));
        }
        let agreed = accepted == reference.verify_sig(message, signature).is_ok();
        self.confirmation.record(agreed);
        if !(accepted && agreed) {
            return None;
        }
        self.confirmed.store(true, Relaxed);
        Some(VerifiedBy::AwsLc)
    }
}

/// A key that is ready to verify signatures of one algorithm.
#[derive(Debug)]
pub struct PreparedKey {
    reference: ParsedPublicKey,
    fast: Option<Fast>,
}

impl PreparedKey {
    /// Prepare a key in AWS-LC, and in rind where that may verify this algorithm on this processor.
    ///
    /// # Errors
    /// A sentence that says why the key cannot be used.
    pub fn new(material: &Material, algorithm: Algorithm) -> Result<Self, &'static str> {
        // AWS-LC must accept a key before rind gets it, so acceptance never depends on the processor. AWS-LC also
        // accepts keys that are weak but well-formed: jwk.rs refuses those before.
        #[cfg_attr(not(feature = "rind"), expect(unused_mut, reason = "nothing is faster than AWS-LC then"))]
        let mut prepared = Self::with_aws_lc(material, algorithm)?;
        #[cfg(feature = "rind")]
        if let Some(key) = fast::prepare(material, algorithm) {
            prepared = prepared.with_fast(key, Confirmation::of_process());
        }
        Ok(prepared)
    }

    /// Prepare a key in AWS-LC alone.
    ///
    /// # Errors
    /// Those of [`Self::new`].
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
            // An empty context, as RFC 9964, section 5, demands: AWS-LC has no other in this interface.
            Material::MlDsa(public) => {
                let scheme = match algorithm {
                    Algorithm::MlDsa44 => &ML_DSA_44,
                    Algorithm::MlDsa65 => &ML_DSA_65,
                    _ => &ML_DSA_87,
                };
                ParsedPublicKey::new(scheme, public)
            }
        };
        prepared
            .map(|reference| Self { reference, fast: None })
            .map_err(|_| "has a value that AWS-LC does not accept (a point off its curve, say)")
    }

    /// The same key with a fast library in addition to AWS-LC.
    #[cfg(any(test, feature = "rind"))]
    pub(crate) fn with_fast(self, key: Box<dyn FastKey>, confirmation: &'static Confirmation) -> Self {
        Self { fast: Some(Fast { key, confirmed: AtomicBool::new(false), confirmation }), ..self }
    }

    /// Verify a signature. None means that it is not valid.
    #[must_use]
    #[inline]
    pub fn verify(&self, signatures: Signatures, message: &[u8], signature: &[u8]) -> Option<VerifiedBy> {
        match &self.fast {
            Some(fast) if signatures == Signatures::Fast && fast.confirmation.is_trusted() => {
                fast.verify(&self.reference, message, signature)
            }
            _ => self.reference.verify_sig(message, signature).is_ok().then_some(VerifiedBy::AwsLc),
        }
    }

    /// The answer of the fast library alone; None if only AWS-LC is used. For comparing the two, never for a decision.
    #[must_use]
    pub fn unconfirmed(&self, message: &[u8], signature: &[u8]) -> Option<bool> {
        self.fast.as_ref().map(|fast| fast.key.verifies(message, signature))
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

/// Can rind verify signatures of this algorithm on this processor?
#[must_use]
pub fn has_fast_library(algorithm: Algorithm) -> bool {
    #[cfg(feature = "rind")]
    return fast::Scheme::of(algorithm).is_some_and(fast::Scheme::is_usable);
    #[cfg(not(feature = "rind"))]
    {
        let _ = algorithm;
        false
    }
}

#[cfg(feature = "rind")]
mod fast {
    use std::sync::OnceLock;

    use rind::signature::{PublicKey, RsaPublicKeyComponents, verify};

    use super::{FastKey, Material};
    use crate::jose::algorithm::Algorithm;
    use crate::jose::base64url;

    impl FastKey for PublicKey {
        #[inline]
        fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
            self.verify(message, signature).is_ok()
        }
    }

    /// The key in rind, where rind may verify this algorithm on this processor.
    pub(super) fn prepare(material: &Material, algorithm: Algorithm) -> Option<Box<dyn FastKey>> {
        let Material::Rsa { n, e } = material else { return None };
        let scheme = Scheme::of(algorithm).filter(|scheme| scheme.is_usable())?;
        Some(Box::new(scheme.prepare(n, e)?))
    }

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

        fn prepare(self, n: &[u8], e: &[u8]) -> Option<PublicKey> {
            let algorithm = match self {
                Self::Pkcs1 => &verify::RSA_PKCS1_SHA256,
                Self::Pss => &verify::RSA_PSS_SHA256,
            };
            RsaPublicKeyComponents { n, e }.to_public_key(algorithm).ok()
        }

        /// May rind be used? Checks the processor, and rind itself with a known answer, once per process.
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::jose::confirmation::Figures;

    #[cfg(all(feature = "rind", any(target_arch = "x86_64", target_arch = "aarch64")))]
    #[test]
    fn rind_passes_its_known_answer_tests() {
        for algorithm in Algorithm::ALL {
            // On a processor without the instructions that rind needs, AWS-LC verifies, which is also correct.
            let expected = matches!(algorithm, Algorithm::Rs256 | Algorithm::Ps256) && rind::cpu::check().is_ok();
            assert_eq!(has_fast_library(algorithm), expected, "{algorithm:?}");
        }
    }

    #[test]
    fn the_names_of_settings_are_read_back() {
        for signatures in Signatures::ALL {
            assert_eq!(Signatures::from_name(signatures.name()), Some(signatures));
        }
        for name in ["", "rind", "AWS-LC", "aws_lc", "fast "] {
            assert_eq!(Signatures::from_name(name), None, "{name:?}");
        }
        assert_eq!(Signatures::default(), Signatures::Fast);
    }

    const MESSAGE: &[u8] = b"message";

    /// A library that gives a fixed answer, whatever the signature.
    #[derive(Debug)]
    struct Fixed(Arc<AtomicBool>);

    impl FastKey for Fixed {
        fn verifies(&self, _message: &[u8], _signature: &[u8]) -> bool {
            self.0.load(Relaxed)
        }
    }

    /// A key with a library that answers `answer`, its confirmation, a switch for its answers, and a valid signature of
    /// [`MESSAGE`].
    fn key(answer: bool) -> (PreparedKey, &'static Confirmation, Arc<AtomicBool>, Vec<u8>) {
        use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let material = Material::Point(pair.public_key().as_ref().to_vec());
        let confirmation: &'static Confirmation = Box::leak(Box::new(Confirmation::new()));
        let answers = Arc::new(AtomicBool::new(answer));
        let prepared = PreparedKey::with_aws_lc(&material, Algorithm::EdDsa).unwrap();
        let prepared = prepared.with_fast(Box::new(Fixed(Arc::clone(&answers))), confirmation);
        (prepared, confirmation, answers, pair.sign(MESSAGE).as_ref().to_vec())
    }

    #[test]
    fn the_first_acceptance_of_a_key_is_confirmed() {
        let (key, confirmation, _, valid) = key(true);
        assert!(matches!(key.verify(Signatures::Fast, MESSAGE, &valid), Some(VerifiedBy::AwsLc)));
        assert_eq!(confirmation.figures(), Figures { agreed: 1, disagreed: 0, trusted: true });
    }

    #[test]
    fn a_library_that_accepts_everything_is_stopped_at_its_first_answer() {
        let (key, confirmation, _, valid) = key(true);
        let mut forged = valid.clone();
        forged[0] ^= 1;
        assert!(key.verify(Signatures::Fast, MESSAGE, &forged).is_none());
        assert_eq!(confirmation.figures(), Figures { agreed: 0, disagreed: 1, trusted: false });
        // AWS-LC decides from here on.
        assert!(key.verify(Signatures::Fast, MESSAGE, &forged).is_none());
        assert!(matches!(key.verify(Signatures::Fast, MESSAGE, &valid), Some(VerifiedBy::AwsLc)));
        assert_eq!(confirmation.figures().disagreed, 1);
    }

    #[test]
    fn a_library_that_begins_to_accept_forgeries_is_stopped_and_its_acceptances_no_longer_stand() {
        let (key, confirmation, _, valid) = key(true);
        assert!(key.verify(Signatures::Fast, MESSAGE, &valid).is_some());
        // (63/64)^4000 is below 10^-27: it cannot pass by chance that often.
        let accepted: Vec<_> = (0..4000).map_while(|_| key.verify(Signatures::Fast, MESSAGE, b"forged")).collect();
        assert!(accepted.len() < 4000, "the fault went unnoticed");
        assert_eq!(confirmation.figures(), Figures { agreed: 1, disagreed: 1, trusted: false });
        assert!(accepted.iter().all(|by| !by.stands()), "what it accepted alone must not count any longer");
        assert!(key.verify(Signatures::Fast, MESSAGE, b"forged").is_none());
    }

    #[test]
    fn a_library_that_rejects_everything_is_stopped() {
        let (key, confirmation, _, valid) = key(false);
        // (15/16)^1000 is below 10^-28. The answer that finds it out is a rejection, too.
        let answers: Vec<_> = (0..1000)
            .take_while(|_| confirmation.is_trusted())
            .map(|_| key.verify(Signatures::Fast, MESSAGE, &valid))
            .collect();
        assert!(answers.len() < 1000 && answers.iter().all(Option::is_none), "the fault went unnoticed");
        assert_eq!(confirmation.figures(), Figures { agreed: 0, disagreed: 1, trusted: false });
        assert!(matches!(key.verify(Signatures::Fast, MESSAGE, &valid), Some(VerifiedBy::AwsLc)));
    }

    #[test]
    fn an_honest_library_stays_trusted_and_is_confirmed_in_samples() {
        let (key, confirmation, answers, valid) = key(true);
        let mut confirmed = 0;
        for _ in 0..4000 {
            match key.verify(Signatures::Fast, MESSAGE, &valid) {
                Some(VerifiedBy::AwsLc) => confirmed += 1,
                Some(by @ VerifiedBy::FastAlone(_)) => assert!(by.stands()),
                None => panic!("a valid signature was rejected"),
            }
        }
        assert!((2..400).contains(&confirmed), "{confirmed} of 4000");
        assert_eq!(confirmation.figures(), Figures { agreed: confirmed, disagreed: 0, trusted: true });
        answers.store(false, Relaxed);
        assert!((0..1000).all(|_| key.verify(Signatures::Fast, MESSAGE, b"forged").is_none()));
        assert!(confirmation.is_trusted());
        assert!(confirmation.figures().agreed > confirmed);
    }

    #[test]
    fn aws_lc_alone_never_asks_the_fast_library() {
        let (key, confirmation, _, valid) = key(true);
        assert!(key.verify(Signatures::AwsLc, MESSAGE, b"forged").is_none());
        assert!(matches!(key.verify(Signatures::AwsLc, MESSAGE, &valid), Some(VerifiedBy::AwsLc)));
        assert_eq!(confirmation.figures(), Figures { agreed: 0, disagreed: 0, trusted: true });
    }
}
