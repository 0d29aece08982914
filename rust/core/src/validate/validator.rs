//! A validator: one policy, the current key set, and the verification cache.
//!
//! A token seen before costs one keyed fingerprint instead of a signature. Its verification is cached under the
//! fingerprint, never under the token itself. A hit checks everything again that can have changed: the times, that
//! the signing key is still published, and that the library that verified the signature is still trusted
//! ([`crate::jose::confirmation`]). A validator has one policy, so a cached verification never serves another.
//!
//! No thread waits for another: if the same part of the cache is in use, the token is verified again instead.
//! Does not belong here: the checks (`verify`), fetching keys, clocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use arc_swap::ArcSwapOption;

use crate::cache::fingerprint::{Fingerprint, Fingerprinter};
use crate::cache::s3_fifo::{Limits, S3Fifo, Stats};
use crate::error::Error;
use crate::jose::keyset::KeySet;
use crate::validate::policy::Policy;
use crate::validate::verify::{self, Verified, verify};

/// Minimum number of tokens for which another thread is started.
const WORTH_A_THREAD: usize = 8;

/// What is known about a token without verifying it.
#[derive(Debug)]
pub enum Recalled {
    /// The result, without a signature to compute.
    Known(Result<Arc<Verified>, Error>),
    /// The token has to be verified. The fingerprint is the key to cache the verification under.
    Unknown(Fingerprint),
}

/// See the module's description. Every method can be called from any thread.
#[derive(Debug)]
pub struct Validator {
    policy: Policy,
    keys: ArcSwapOption<KeySet>,
    fingerprinter: Fingerprinter,
    verified: S3Fifo<Fingerprint, Arc<Verified>>,
    /// Is there room for any entry? If not, no token needs a fingerprint, and no thread needs the cache's lock.
    caches: bool,
}

impl Validator {
    /// A validator without keys. `limits` bound the cache of verified tokens; `seed` is random.
    #[must_use]
    pub fn new(policy: Policy, limits: Limits, seed: [u64; 2]) -> Self {
        Self {
            policy,
            keys: ArcSwapOption::empty(),
            fingerprinter: Fingerprinter::new(),
            verified: S3Fifo::new(limits, seed),
            caches: limits.entries > 0,
        }
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The current key set.
    #[must_use]
    pub fn keys(&self) -> Option<Arc<KeySet>> {
        self.keys.load_full()
    }

    /// Swap the key set. Cached verifications by keys that are gone are dropped at their next use.
    pub fn set_keys(&self, keys: Option<Arc<KeySet>>) {
        self.keys.store(keys);
    }

    /// As [`verify::unverified_could_pass`], with this policy.
    #[must_use]
    pub fn unverified_could_pass(&self, token: &[u8], now: f64) -> bool {
        verify::unverified_could_pass(token, &self.policy, now)
    }

    /// Figures of the cache of verified tokens.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.verified.stats()
    }

    /// Remove from one of `parts` parts of the cache ([`S3Fifo::sweep`]) what no longer counts: expired tokens, those
    /// whose key is gone, and those that only a library has verified that is no longer trusted. So their claims do not
    /// stay in memory because no one presents them. Returns how many.
    pub fn sweep(&self, now: f64, parts: usize) -> usize {
        let keys = self.keys.load();
        self.verified.sweep(parts, |verified| {
            verified.check_times(&self.policy, now).is_err()
                || !verified.signature_stands()
                || keys.as_ref().is_some_and(|keys| !verified.key_is_in(keys))
        })
    }

    /// The cheap half of [`Self::validate`]: no signature is computed.
    #[inline]
    #[must_use]
    pub fn recall(&self, token: &[u8], now: f64) -> Recalled {
        let limit = self.policy.max_token_bytes;
        if token.len() > limit {
            return Recalled::Known(Err(Error::TooLarge { size: token.len(), limit }));
        }
        if !self.caches {
            return Recalled::Unknown(Fingerprint::default());
        }
        let fingerprint = self.fingerprinter.of(token);
        let Some(verified) = self.verified.get_unless_busy(&fingerprint) else { return Recalled::Unknown(fingerprint) };
        let keys = self.keys.load();
        match keys.as_ref() {
            None => Recalled::Known(Err(Error::KeysUnavailable)),
            Some(keys) if verified.signature_stands() && verified.key_is_in(keys) => {
                Recalled::Known(match verified.check_times(&self.policy, now) {
                    Ok(()) => Ok(verified),
                    Err(error) => {
                        self.verified.remove_unless_busy(&fingerprint);
                        Err(error)
                    }
                })
            }
            Some(_) => {
                self.verified.remove_unless_busy(&fingerprint);
                Recalled::Unknown(fingerprint)
            }
        }
    }

    /// The expensive half: verify, and cache under `fingerprint` (as given by [`Self::recall`] for this token).
    ///
    /// # Errors
    /// Those of [`verify`], and [`Error::KeysUnavailable`].
    pub fn verify_and_cache(&self, token: &[u8], fingerprint: Fingerprint, now: f64) -> Result<Arc<Verified>, Error> {
        let keys = self.keys.load();
        let keys = keys.as_ref().ok_or(Error::KeysUnavailable)?;
        let verified = Arc::new(verify(token, keys, &self.policy, now)?);
        if self.caches {
            self.verified.insert_unless_busy(&fingerprint, Arc::clone(&verified), verified.heap_bytes());
        }
        Ok(verified)
    }

    /// Is this token acceptable now? `now` is in seconds since the epoch.
    ///
    /// # Errors
    /// Those of [`Self::verify_and_cache`].
    #[inline]
    pub fn validate(&self, token: &[u8], now: f64) -> Result<Arc<Verified>, Error> {
        match self.recall(token, now) {
            Recalled::Known(result) => result,
            Recalled::Unknown(fingerprint) => self.verify_and_cache(token, fingerprint, now),
        }
    }

    /// [`Self::validate`] for many tokens, on as many of `cores` threads as are worth starting; results are in the
    /// order of the tokens. An item that is already an error stays one.
    #[must_use]
    pub fn validate_many(
        &self,
        tokens: &[Result<&[u8], Error>],
        now: f64,
        cores: usize,
    ) -> Vec<Result<Arc<Verified>, Error>> {
        let threads = threads_for(tokens.len(), cores);
        let next = AtomicUsize::new(0);
        // Threads take small runs of tokens from a shared counter, so that a slow core delays no other.
        let work = || {
            let mut done = Vec::new();
            loop {
                let start = next.fetch_add(WORTH_A_THREAD, Relaxed);
                let Some(run) = tokens.get(start..tokens.len().min(start + WORTH_A_THREAD)) else { return done };
                if run.is_empty() {
                    return done;
                }
                let results = run.iter().map(|token| self.validate(token.as_ref().map_err(Clone::clone)?, now));
                done.push((start, results.collect::<Vec<_>>()));
            }
        };
        let mut runs = std::thread::scope(|scope| {
            let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut runs = work();
            for helper in helpers {
                match helper.join() {
                    Ok(done) => runs.extend(done),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            runs
        });
        runs.sort_unstable_by_key(|(start, _)| *start);
        runs.into_iter().flat_map(|(_, results)| results).collect()
    }
}

/// How many threads validate so many tokens, the caller's included.
fn threads_for(tokens: usize, cores: usize) -> usize {
    cores.min(tokens / WORTH_A_THREAD).max(1)
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use serde_json::json;

    use super::*;
    use crate::jose::algorithm::Algorithm;
    use crate::jose::confirmation::Confirmation;
    use crate::jose::signature::{FastKey, Material, PreparedKey, Signatures};
    use crate::jose::signing_key::SigningKey;
    use crate::validate::policy::Settings;

    const PRIVATE: &str = include_str!("../../tests/keys/rfc7515_a_2.json");
    const LIMITS: Limits = Limits { entries: 100, bytes: 1 << 20 };
    const NOW: f64 = 1_000_000.0;

    static TRUST: Confirmation = Confirmation::new();
    static ACCEPTS_EVERYTHING: AtomicBool = AtomicBool::new(false);

    /// A fast library that is right until it is told to accept everything.
    #[derive(Debug)]
    struct Suspect(PreparedKey);

    impl FastKey for Suspect {
        fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
            ACCEPTS_EVERYTHING.load(Relaxed) || self.0.verify(Signatures::AwsLc, message, signature).is_some()
        }
    }

    fn prepare(material: &Material, algorithm: Algorithm) -> Result<PreparedKey, &'static str> {
        let suspect = Suspect(PreparedKey::with_aws_lc(material, algorithm)?);
        Ok(PreparedKey::with_aws_lc(material, algorithm)?.with_fast(Box::new(suspect), &TRUST))
    }

    fn public_set(private: &str, generation: u64) -> Arc<KeySet> {
        let jwk: serde_json::Value = serde_json::from_str(private).unwrap();
        let public = json!({"keys": [{"kty": "RSA", "kid": "1", "n": jwk["n"], "e": jwk["e"]}]});
        Arc::new(KeySet::prepared_by(public.to_string().as_bytes(), generation, prepare).unwrap())
    }

    fn key_set() -> Arc<KeySet> {
        static KEYS: OnceLock<Arc<KeySet>> = OnceLock::new();
        Arc::clone(KEYS.get_or_init(|| public_set(PRIVATE, 1)))
    }

    fn validator(signatures: Signatures) -> Validator {
        let settings = Settings {
            issuers: vec!["issuer".to_owned()],
            audiences: Some(vec!["audience".to_owned()]),
            signatures,
            ..Settings::default()
        };
        let validator = Validator::new(Policy::new(settings).unwrap(), LIMITS, [1, 2]);
        validator.set_keys(Some(key_set()));
        validator
    }

    fn token(serial: u32) -> String {
        let key = SigningKey::from_jwk(PRIVATE.as_bytes()).unwrap();
        let claims = json!({"iss": "issuer", "aud": "audience", "iat": NOW, "exp": NOW + 60.0, "jti": serial});
        key.sign(br#"{"alg":"RS256","kid":"1"}"#, claims.to_string().as_bytes()).unwrap()
    }

    /// The same token with another payload.
    fn forged(serial: u32) -> String {
        let (valid, other) = (token(serial), token(serial + 1));
        let [header, payload] = other.splitn(3, '.').take(2).collect::<Vec<_>>()[..] else { unreachable!() };
        format!("{header}.{payload}.{}", valid.rsplit('.').next().unwrap())
    }

    #[test]
    fn a_disagreement_drops_what_the_fast_library_alone_has_verified() {
        let validator = validator(Signatures::Fast);
        let reference = self::validator(Signatures::AwsLc);
        let tokens: Vec<String> = (0..20).map(token).collect();
        for token in &tokens {
            validator.validate(token.as_bytes(), NOW).unwrap();
            reference.validate(token.as_bytes(), NOW).unwrap();
        }
        let cached = |validator: &Validator| {
            let recalled = tokens.iter().map(|token| validator.recall(token.as_bytes(), NOW));
            recalled.filter(|recalled| matches!(recalled, Recalled::Known(Ok(_)))).count()
        };
        assert_eq!((cached(&validator), cached(&reference)), (20, 20));

        ACCEPTS_EVERYTHING.store(true, Relaxed);
        // Without a cache, so that each attempt is verified. (63/64)^4000 is below 10^-27: it cannot pass by chance that
        // often.
        let uncached = Validator::new(validator.policy().clone(), Limits { entries: 0, bytes: 0 }, [1, 2]);
        uncached.set_keys(Some(key_set()));
        let forged = forged(1000);
        assert!((0..4000).any(|_| uncached.validate(forged.as_bytes(), NOW).is_err()), "the forgery went unnoticed");
        assert!(!TRUST.is_trusted());
        assert_eq!(validator.validate(forged.as_bytes(), NOW).unwrap_err(), Error::SignatureInvalid);

        // Entries that AWS-LC has confirmed or verified stay; (1/64)^19 is the chance that it confirmed all.
        assert!(cached(&validator) < 20, "an unconfirmed acceptance is still in use");
        assert_eq!(cached(&reference), 20);
        // Valid tokens are verified once more, by AWS-LC, and cached again.
        for token in &tokens {
            validator.validate(token.as_bytes(), NOW).unwrap();
        }
        assert_eq!(cached(&validator), 20);
    }

    #[test]
    fn a_sweep_removes_what_no_longer_counts_and_nothing_else() {
        let swept = |validator: &Validator, now| (0..60).map(|_| validator.sweep(now, 60)).sum::<usize>();
        let validator = validator(Signatures::AwsLc);
        for serial in 0..50 {
            validator.validate(token(serial).as_bytes(), NOW).unwrap();
        }
        // The tokens live for 60 s, and the policy allows 60 s more.
        assert_eq!((swept(&validator, NOW + 119.0), validator.stats().entries), (0, 50));
        validator.set_keys(None);
        assert_eq!(swept(&validator, NOW), 0, "without keys, nothing is known about the key");
        validator.set_keys(Some(key_set()));
        assert_eq!((swept(&validator, NOW + 121.0), validator.stats().entries), (50, 0));
        for serial in 0..50 {
            validator.validate(token(serial).as_bytes(), NOW).unwrap();
        }
        validator.set_keys(Some(public_set(include_str!("../../tests/keys/rfc7520_3_4.json"), 2)));
        assert_eq!((swept(&validator, NOW), validator.stats().entries), (50, 0), "their key was withdrawn");
    }

    #[test]
    fn without_keys_nothing_is_known_about_any_token() {
        let validator = validator(Signatures::AwsLc);
        let token = token(1);
        assert_eq!(validator.keys().unwrap().generation(), 1);
        assert!(validator.validate(token.as_bytes(), NOW).is_ok());
        validator.set_keys(None);
        assert!(validator.keys().is_none());
        assert!(matches!(validator.recall(token.as_bytes(), NOW), Recalled::Known(Err(Error::KeysUnavailable))));
        assert_eq!(validator.validate(forged(1).as_bytes(), NOW).unwrap_err(), Error::KeysUnavailable);
        // Keys that come back find the token verified.
        validator.set_keys(Some(key_set()));
        assert!(matches!(validator.recall(token.as_bytes(), NOW), Recalled::Known(Ok(_))));
    }

    #[test]
    fn a_hit_checks_the_times_and_the_key_again() {
        let validator = validator(Signatures::AwsLc);
        let (one, two) = (token(1), token(2));
        validator.validate(one.as_bytes(), NOW).unwrap();
        validator.validate(two.as_bytes(), NOW).unwrap();
        assert_eq!((validator.stats().entries, validator.stats().hits), (2, 0));
        assert!(validator.validate(one.as_bytes(), NOW + 119.0).is_ok());
        assert_eq!(validator.stats().hits, 1);
        assert!(matches!(validator.validate(one.as_bytes(), NOW + 120.0), Err(Error::Expired { .. })));
        assert_eq!(validator.stats().entries, 1, "an expired token is dropped");
        validator.set_keys(Some(public_set(include_str!("../../tests/keys/rfc7520_3_4.json"), 2)));
        assert!(matches!(validator.recall(two.as_bytes(), NOW), Recalled::Unknown(_)));
        assert_eq!(validator.stats().entries, 0, "and so is one whose key was withdrawn");
        assert_eq!(validator.validate(two.as_bytes(), NOW).unwrap_err(), Error::SignatureInvalid);
    }

    #[test]
    fn the_limit_of_bytes_is_that_of_the_policy() {
        let (token, longer) = (token(1), token(1000));
        let settings = Settings {
            issuers: vec!["issuer".to_owned()],
            audiences: Some(vec!["audience".to_owned()]),
            max_token_bytes: token.len(),
            ..Settings::default()
        };
        let validator = Validator::new(Policy::new(settings).unwrap(), LIMITS, [1, 2]);
        validator.set_keys(Some(key_set()));
        assert!(validator.validate(token.as_bytes(), NOW).is_ok());
        let error = Error::TooLarge { size: longer.len(), limit: token.len() };
        assert_eq!(validator.validate(longer.as_bytes(), NOW).unwrap_err(), error);
        assert!(matches!(validator.recall(longer.as_bytes(), NOW), Recalled::Known(Err(Error::TooLarge { .. }))));
        assert!(matches!(validator.validate(b"a.b", NOW), Err(Error::NotAJwt { .. })));
    }

    #[test]
    fn a_cache_without_room_remembers_nothing() {
        let none =
            Validator::new(validator(Signatures::AwsLc).policy().clone(), Limits { entries: 0, bytes: 0 }, [1, 2]);
        none.set_keys(Some(key_set()));
        let token = token(1);
        for _ in 0..2 {
            assert!(none.validate(token.as_bytes(), NOW).is_ok());
            assert!(matches!(none.recall(token.as_bytes(), NOW), Recalled::Unknown(none) if none == [0; 16]));
        }
        // It was not even asked.
        assert_eq!(none.stats(), Stats::default());
    }

    #[test]
    fn whether_keys_may_be_fetched_for_a_token_is_the_policys_question() {
        let validator = validator(Signatures::AwsLc);
        assert!(validator.unverified_could_pass(forged(1).as_bytes(), NOW));
        assert!(!validator.unverified_could_pass(forged(1).as_bytes(), NOW + 120.0));
    }

    #[test]
    fn a_thread_is_worth_eight_tokens_and_a_core() {
        for (tokens, cores, threads) in [(0, 4, 1), (15, 4, 1), (16, 4, 2), (25, 4, 3), (1000, 4, 4), (1000, 0, 1)] {
            assert_eq!(threads_for(tokens, cores), threads, "{tokens} tokens on {cores} cores");
        }
    }

    #[test]
    fn many_tokens_get_their_results_in_their_own_order() {
        let validator = validator(Signatures::AwsLc);
        let tokens: Vec<String> =
            (0..50).map(|serial| if serial % 7 == 3 { forged(serial) } else { token(serial) }).collect();
        let refused = Error::Encrypted;
        let mut items: Vec<Result<&[u8], Error>> = tokens.iter().map(|token| Ok(token.as_bytes())).collect();
        items[20] = Err(refused.clone());
        for (count, cores) in [(0, 4), (1, 4), (7, 4), (8, 4), (9, 1), (17, 2), (50, 1), (50, 3), (50, 100)] {
            let results = validator.validate_many(&items[..count], NOW, cores);
            assert_eq!(results.len(), count);
            for (serial, result) in results.into_iter().enumerate() {
                match result {
                    Ok(verified) => {
                        let jti = verified.claims().get("jti").unwrap().as_f64();
                        assert_eq!(jti, u32::try_from(serial).ok().map(f64::from), "{count} tokens on {cores} cores");
                    }
                    Err(error) if serial == 20 => assert_eq!(error, refused),
                    Err(error) => assert_eq!((error, serial % 7), (Error::SignatureInvalid, 3)),
                }
            }
        }
    }
}
