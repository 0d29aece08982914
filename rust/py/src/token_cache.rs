//! `CachedToken` and `TokenCache` for Python: converts in, calls `entra_core::cache::token_cache`, converts out.
//!
//! Every call except a sweep takes about a microsecond at most, so the GIL is kept.

use entra_core::cache::s3_fifo::Limits;
use entra_core::cache::token_cache::{self, Now, Terms};
use entra_core::digest::Digest;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::random_seed;

/// A cached token that may be handed out.
#[pyclass(frozen, module = "entra_fast._native")]
pub(crate) struct CachedToken(token_cache::CachedToken);

#[pymethods]
impl CachedToken {
    /// The token.
    #[getter]
    fn access_token(&self) -> &str {
        self.0.access_token()
    }

    /// Always `Bearer` (RFC 6750): Entra ID issues nothing else to a confidential client.
    #[getter]
    #[allow(clippy::unused_self, reason = "an attribute of the object, as Python sees it")]
    fn token_type(&self) -> &'static str {
        "Bearer"
    }

    /// Whole seconds that the token had left, rounded down, at the time of the call that found it.
    #[getter]
    fn expires_in(&self) -> u64 {
        self.0.expires_in()
    }

    /// True for the one caller that is to renew the token.
    #[getter]
    fn renewal_due(&self) -> bool {
        self.0.renewal_due()
    }

    fn __repr__(&self) -> String {
        let renewal_due = if self.0.renewal_due() { ", renewal due" } else { "" };
        format!("<CachedToken: {} s left{renewal_due}>", self.0.expires_in())
    }
}

/// Bounded cache of acquired and exchanged tokens, by entries and by bytes. Thread-safe.
#[pyclass(frozen, module = "entra_fast._native")]
pub(crate) struct TokenCache(token_cache::TokenCache);

impl TokenCache {
    pub(crate) fn core(&self) -> &token_cache::TokenCache {
        &self.0
    }
}

#[pymethods]
impl TokenCache {
    #[new]
    #[pyo3(signature = (*, max_entries = 100_000, max_bytes = 268_435_456))]
    fn new(max_entries: usize, max_bytes: usize) -> Self {
        let limits = Limits { entries: max_entries, bytes: max_bytes };
        Self(token_cache::TokenCache::new(limits, [random_seed(), random_seed()]))
    }

    /// Remember a token that lives `expires_in` seconds from `monotonic`.
    #[pyo3(signature = (key, access_token, expires_in, *, monotonic, renew_in = None, subject_expires_at = None))]
    fn put(
        &self,
        key: &[u8],
        access_token: &str,
        expires_in: f64,
        monotonic: f64,
        renew_in: Option<f64>,
        subject_expires_at: Option<f64>,
    ) -> PyResult<()> {
        let terms = Terms { expires_in, renew_in, subject_expires_at };
        self.0.put(digest(key)?, access_token, terms, monotonic);
        Ok(())
    }

    /// The token, unless it is within its safety margin or its subject token has expired.
    #[pyo3(signature = (key, *, monotonic, now))]
    fn get(&self, key: &[u8], monotonic: f64, now: f64) -> PyResult<Option<CachedToken>> {
        Ok(self.0.get(digest(key)?, Now { unix: now, monotonic }).map(CachedToken))
    }

    /// Like get, but inside the safety margin too, and without asking for a renewal.
    #[pyo3(signature = (key, *, monotonic, now))]
    fn get_stale(&self, key: &[u8], monotonic: f64, now: f64) -> PyResult<Option<CachedToken>> {
        Ok(self.0.get_stale(digest(key)?, Now { unix: now, monotonic }).map(CachedToken))
    }

    /// Make the renewal due again, `retry_in` seconds from `monotonic`.
    #[pyo3(signature = (key, *, monotonic, retry_in))]
    fn renewal_failed(&self, key: &[u8], monotonic: f64, retry_in: f64) -> PyResult<()> {
        self.0.renewal_failed(digest(key)?, monotonic, retry_in);
        Ok(())
    }

    /// Remove expired tokens from one of `parts` parts of the cache, each time from the next one; returns how many.
    #[pyo3(signature = (*, monotonic, now, parts))]
    fn sweep(&self, py: Python<'_>, monotonic: f64, now: f64, parts: usize) -> usize {
        py.detach(|| self.0.sweep(Now { unix: now, monotonic }, parts))
    }

    /// Forget the token.
    fn remove(&self, key: &[u8]) -> PyResult<()> {
        self.0.remove(digest(key)?);
        Ok(())
    }

    /// entries, exchanged (of the entries), bytes, hits, misses, evictions, expired.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = self.0.stats();
        let dict = PyDict::new(py);
        dict.set_item("entries", stats.entries)?;
        dict.set_item("exchanged", stats.exchanged)?;
        dict.set_item("bytes", stats.bytes)?;
        dict.set_item("hits", stats.hits)?;
        dict.set_item("misses", stats.misses)?;
        dict.set_item("evictions", stats.evictions)?;
        dict.set_item("expired", stats.expired)?;
        Ok(dict)
    }

    fn __repr__(&self) -> String {
        let stats = self.0.stats();
        format!("<TokenCache: {} tokens, {} bytes>", stats.entries, stats.bytes)
    }
}

fn digest(key: &[u8]) -> PyResult<&Digest> {
    key.try_into().map_err(|_| {
        PyValueError::new_err(format!("key must be a digest of 32 bytes (see token_cache_key), not {}", key.len()))
    })
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<CachedToken>()?;
    module.add_class::<TokenCache>()
}
