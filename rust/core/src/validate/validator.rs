//! A validator: one policy, the current key set, and the tokens that were verified before.
//!
//! A token seen before costs one keyed fingerprint instead of a signature. Its verdict is cached under that,
//! never under the token itself, and a hit checks again everything that can have changed: the times, and
//! that the signing key is still published. One validator has one policy, so a verdict never serves
//! another one.
//!
//! Nobody waits for anybody: where another thread is busy in the same part of the cache, a token is verified once
//! more instead.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::cache::fingerprint::{Fingerprint, Fingerprinter};
use crate::cache::s3_fifo::{Limits, S3Fifo, Stats};
use crate::jose::keyset::KeySet;
use crate::validate::error::Error;
use crate::validate::policy::Policy;
use crate::validate::verify::{Verified, verify};

/// What is known about a token without verifying it.
#[derive(Debug)]
pub enum Recalled {
    /// It was verified before, and this is the verdict for now.
    Verdict(Result<Arc<Verified>, Error>),
    /// Nothing. The fingerprint is what to remember it under.
    Nothing(Fingerprint),
}

/// See the module's description. Every method can be called from any thread.
#[derive(Debug)]
pub struct Validator {
    policy: Policy,
    keys: ArcSwapOption<KeySet>,
    fingerprinter: Fingerprinter,
    verdicts: S3Fifo<Fingerprint, Arc<Verified>>,
    /// Is there room for any verdict? If not, no token needs a fingerprint, and no thread the cache's lock.
    remembers: bool,
}

impl Validator {
    /// A validator without keys. `limits` bound the cache of verified tokens; `seed` is random.
    #[must_use]
    pub fn new(policy: Policy, limits: Limits, seed: [u64; 2]) -> Self {
        Self {
            policy,
            keys: ArcSwapOption::empty(),
            fingerprinter: Fingerprinter::new(),
            verdicts: S3Fifo::new(limits, seed),
            remembers: limits.entries > 0,
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

    /// Swap the key set. Verdicts of keys that are gone die at their next use.
    pub fn set_keys(&self, keys: Option<Arc<KeySet>>) {
        self.keys.store(keys);
    }

    /// Figures of the cache of verified tokens.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.verdicts.stats()
    }

    /// The cheap half of [`Self::validate`]: no signature is computed.
    #[inline]
    #[must_use]
    pub fn recall(&self, token: &[u8], now: f64) -> Recalled {
        let limit = self.policy.max_token_bytes;
        if token.len() > limit {
            return Recalled::Verdict(Err(Error::TooLarge { size: token.len(), limit }));
        }
        if !self.remembers {
            return Recalled::Nothing(Fingerprint::default());
        }
        let fingerprint = self.fingerprinter.of(token);
        let Some(verified) = self.verdicts.get_unless_busy(&fingerprint) else { return Recalled::Nothing(fingerprint) };
        let keys = self.keys.load();
        match keys.as_ref() {
            None => Recalled::Verdict(Err(Error::KeysUnavailable)),
            Some(keys) if verified.key_is_in(keys) => {
                Recalled::Verdict(match verified.check_times(&self.policy, now) {
                    Ok(()) => Ok(verified),
                    Err(error) => {
                        self.verdicts.remove_unless_busy(&fingerprint);
                        Err(error)
                    }
                })
            }
            Some(_) => {
                self.verdicts.remove_unless_busy(&fingerprint);
                Recalled::Nothing(fingerprint)
            }
        }
    }

    /// The expensive half: verify, and remember under `fingerprint` (as given by [`Self::recall`] for this token).
    ///
    /// # Errors
    /// As [`verify`], and [`Error::KeysUnavailable`].
    pub fn judge(&self, token: &[u8], fingerprint: Fingerprint, now: f64) -> Result<Arc<Verified>, Error> {
        let keys = self.keys.load();
        let keys = keys.as_ref().ok_or(Error::KeysUnavailable)?;
        let verified = Arc::new(verify(token, keys, &self.policy, now)?);
        if self.remembers {
            self.verdicts.insert_unless_busy(&fingerprint, Arc::clone(&verified), verified.heap_bytes());
        }
        Ok(verified)
    }

    /// Is this token acceptable now? `now` is in seconds since the epoch.
    ///
    /// # Errors
    /// As [`Self::judge`].
    #[inline]
    pub fn validate(&self, token: &[u8], now: f64) -> Result<Arc<Verified>, Error> {
        match self.recall(token, now) {
            Recalled::Verdict(verdict) => verdict,
            Recalled::Nothing(fingerprint) => self.judge(token, fingerprint, now),
        }
    }
}
