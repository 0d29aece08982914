//! `KeySet`, `Policy` and `Validator` for Python.
//!
//! On the cached path a call takes about a microsecond, so the GIL is kept; it is released where a signature
//! is computed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use entra_core::cache::s3_fifo::Limits;
use entra_core::error::Error;
use entra_core::jose::algorithm::Algorithm;
use entra_core::jose::keyset::{KeySet as CoreKeySet, KeySetError};
use entra_core::jose::signature::Signatures;
use entra_core::validate::explain::explain;
use entra_core::validate::introspection;
use entra_core::validate::policy::{Policy as CorePolicy, PolicyError, Settings, Tenants};
use entra_core::validate::validator::{Recalled, Validator as CoreValidator};
use entra_core::validate::verify::Verified;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use crate::claims::Claims;
use crate::{random_seed, refusal, text_argument, token_argument, wall_clock};

pyo3::import_exception!(entra_fast.errors, ConfigurationError);
pyo3::import_exception!(entra_fast.errors, KeysUnavailable);

/// An immutable set of public keys, from the text of a JWKS (RFC 7517).
#[pyclass(frozen, module = "entra_fast._native")]
pub(crate) struct KeySet(Arc<CoreKeySet>);

#[pymethods]
impl KeySet {
    #[new]
    fn new(jwks: &Bound<'_, PyAny>) -> PyResult<Self> {
        static GENERATION: AtomicU64 = AtomicU64::new(1);
        let not_utf8 = KeySetError::NotJson(entra_core::jose::json::JsonError::NotUtf8);
        text_argument("jwks", jwks)?
            .ok_or(not_utf8)
            .and_then(|jwks| CoreKeySet::parse(jwks, GENERATION.fetch_add(1, Relaxed)))
            .map(|keys| Self(Arc::new(keys)))
            .map_err(|error| KeysUnavailable::new_err(("key_set_invalid", error.to_string())))
    }

    /// The keys' ids, in the order of the text.
    #[getter]
    fn kids<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.0.keys().iter().map(|key| key.kid()))
    }

    /// (kid, reason) of each entry that was not taken.
    #[getter]
    fn dropped<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.0.dropped().iter().map(|dropped| (dropped.kid.as_deref(), dropped.reason)))
    }

    /// How many entries were not taken because a different key has the same `kid`.
    #[getter]
    fn ambiguous(&self) -> usize {
        self.0.ambiguous()
    }

    /// Whether another set has the same key, or none as well, under that id.
    fn agrees_with(&self, other: &Self, kid: Option<&str>) -> bool {
        self.0.agrees_with(&other.0, kid)
    }

    fn __len__(&self) -> usize {
        self.0.keys().len()
    }

    fn __repr__(&self) -> String {
        format!("<KeySet: {} keys, {} dropped>", self.0.keys().len(), self.0.dropped().len())
    }
}

/// What a token must be to be accepted; complete when constructed, and immutable.
#[pyclass(frozen, module = "entra_fast._native")]
pub(crate) struct Policy(CorePolicy);

#[pymethods]
impl Policy {
    #[new]
    #[pyo3(signature = (*, issuers, audiences, algorithms = None, tenants = None, leeway = 60.0,
                        required_claims = None, max_age = None, max_token_bytes = 65536, signatures = "fast",
                        kid_required = false))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of one immutable value")]
    fn new(
        issuers: Vec<String>,
        audiences: Option<Vec<String>>,
        algorithms: Option<Vec<String>>,
        tenants: Option<Vec<String>>,
        leeway: f64,
        required_claims: Option<Vec<String>>,
        max_age: Option<f64>,
        max_token_bytes: usize,
        signatures: &str,
        kid_required: bool,
    ) -> PyResult<Self> {
        let defaults = Settings::default();
        let algorithms = match algorithms {
            None => defaults.algorithms,
            Some(names) => {
                let offered = names.iter().map(|name| Algorithm::from_name(name));
                offered.collect::<Option<_>>().ok_or_else(|| {
                    let names = Algorithm::ALL.map(Algorithm::name).join(", ");
                    misconfigured("algorithms", &format!("must be among {names}"))
                })?
            }
        };
        let tenants = match tenants {
            None => Tenants::ByIssuer,
            Some(tenants) if tenants == ["*"] => Tenants::Any,
            Some(tenants) => Tenants::Listed(tenants),
        };
        let required_claims = required_claims.unwrap_or(defaults.required_claims);
        let signatures = Signatures::from_name(signatures).ok_or_else(|| {
            let names = Signatures::ALL.map(Signatures::name).join(" or ");
            misconfigured("signatures", &format!("must be {names}"))
        })?;
        CorePolicy::new(Settings {
            issuers,
            audiences,
            algorithms,
            signatures,
            tenants,
            leeway,
            required_claims,
            max_age,
            max_token_bytes,
            kid_required,
        })
        .map(Self)
        .map_err(|PolicyError { setting, message }| misconfigured(setting, message))
    }
}

fn misconfigured(setting: &'static str, message: &str) -> PyErr {
    ConfigurationError::new_err(("setting_invalid", format!("{setting} {message}"), setting))
}

/// One policy, the current key set and the bounded cache of tokens already verified. Thread-safe.
#[pyclass(frozen, module = "entra_fast._native")]
pub(crate) struct Validator(Arc<CoreValidator>);

impl Validator {
    pub(crate) fn core(&self) -> &Arc<CoreValidator> {
        &self.0
    }

    #[inline]
    fn checked(
        &self,
        py: Python<'_>,
        token: &Bound<'_, PyAny>,
        now: Option<f64>,
    ) -> PyResult<Result<Arc<Verified>, Error>> {
        let now = now.unwrap_or_else(wall_clock);
        let token = match token_argument(token)? {
            Ok(token) => token,
            Err(error) => return Ok(Err(error)),
        };
        Ok(match self.0.recall(token, now) {
            Recalled::Known(result) => result,
            Recalled::Unknown(fingerprint) => py.detach(|| self.0.verify_and_cache(token, fingerprint, now)),
        })
    }
}

#[pymethods]
impl Validator {
    #[new]
    #[pyo3(signature = (policy, keys = None, *, cache_entries = 20_000, cache_bytes = 134_217_728))]
    fn new(policy: &Policy, keys: Option<&KeySet>, cache_entries: usize, cache_bytes: usize) -> Self {
        let limits = Limits { entries: cache_entries, bytes: cache_bytes };
        let validator = CoreValidator::new(policy.0.clone(), limits, [random_seed(), random_seed()]);
        validator.set_keys(keys.map(|keys| Arc::clone(&keys.0)));
        Self(Arc::new(validator))
    }

    /// The current key set.
    #[getter]
    fn keys(&self) -> Option<KeySet> {
        self.0.keys().map(KeySet)
    }

    /// Swap the key set atomically; verifications by a key that is gone are no longer used.
    #[pyo3(signature = (keys))]
    fn set_keys(&self, keys: Option<&KeySet>) {
        self.0.set_keys(keys.map(|keys| Arc::clone(&keys.0)));
    }

    /// The claims, or `InvalidToken`. Code `unknown_key` asks for a refresh of the key set.
    #[pyo3(signature = (token, now = None))]
    fn validate(&self, py: Python<'_>, token: &Bound<'_, PyAny>, now: Option<f64>) -> PyResult<Claims> {
        self.checked(py, token, now)?.map(Claims).map_err(|error| refusal(&error))
    }

    /// Whether a token could pass if its signature were valid: its `iss`, `aud` and `exp` are looked at.
    #[pyo3(signature = (token, now = None))]
    fn unverified_could_pass(&self, token: &Bound<'_, PyAny>, now: Option<f64>) -> PyResult<bool> {
        let now = now.unwrap_or_else(wall_clock);
        Ok(token_argument(token)?.is_ok_and(|token| self.0.unverified_could_pass(token, now)))
    }

    /// Validate on all cores with the GIL released; results in order, failures as values.
    #[pyo3(signature = (tokens, now = None))]
    #[allow(clippy::needless_pass_by_value, reason = "PyO3 makes the vector for this call")]
    fn validate_many<'py>(
        &self,
        py: Python<'py>,
        tokens: Vec<Bound<'py, PyAny>>,
        now: Option<f64>,
    ) -> PyResult<Bound<'py, PyList>> {
        let now = now.unwrap_or_else(wall_clock);
        let tokens = tokens.iter().map(token_argument).collect::<PyResult<Vec<_>>>()?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let results = PyList::empty(py);
        for result in py.detach(|| self.0.validate_many(&tokens, now, cores)) {
            match result {
                Ok(verified) => results.append(Claims(verified))?,
                Err(error) => results.append(refusal(&error).into_value(py))?,
            }
        }
        Ok(results)
    }

    /// The JSON body of an introspection answer, or `InvalidToken` as from validate.
    #[pyo3(signature = (token, now = None))]
    fn introspect<'py>(
        &self,
        py: Python<'py>,
        token: &Bound<'py, PyAny>,
        now: Option<f64>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        match self.checked(py, token, now)? {
            Ok(verified) => Ok(PyBytes::new(py, &introspection::active(verified.claims()))),
            Err(error) => Err(refusal(&error)),
        }
    }

    /// Each check in turn, for people.
    #[pyo3(signature = (token, now = None))]
    fn explain<'py>(
        &self,
        py: Python<'py>,
        token: &Bound<'py, PyAny>,
        now: Option<f64>,
    ) -> PyResult<Bound<'py, PyList>> {
        let token = token_argument(token)?.unwrap_or_default();
        let keys = self.0.keys();
        let report = PyList::empty(py);
        for check in explain(token, keys.as_deref(), self.0.policy(), now.unwrap_or_else(wall_clock)) {
            let row = PyDict::new(py);
            row.set_item("check", check.name)?;
            row.set_item("passed", check.outcome.as_ref().map(Result::is_ok))?;
            row.set_item("value", check.value)?;
            let failure = check.outcome.and_then(Result::err);
            row.set_item("code", failure.as_ref().map(Error::code))?;
            row.set_item("message", failure.as_ref().map(ToString::to_string))?;
            row.set_item("expected", failure.as_ref().and_then(Error::expected))?;
            row.set_item("actual", failure.as_ref().and_then(Error::actual))?;
            report.append(row)?;
        }
        Ok(report)
    }

    /// Remove what no longer counts from one of `parts` parts of the cache, each time from the next one; returns how
    /// many.
    #[pyo3(signature = (*, parts, now = None))]
    fn sweep(&self, py: Python<'_>, parts: usize, now: Option<f64>) -> usize {
        let now = now.unwrap_or_else(wall_clock);
        py.detach(|| self.0.sweep(now, parts))
    }

    /// Figures of the cache of verified tokens.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = self.0.stats();
        let dict = PyDict::new(py);
        dict.set_item("cache_entries", stats.entries)?;
        dict.set_item("cache_bytes", stats.bytes)?;
        dict.set_item("cache_hits", stats.hits)?;
        dict.set_item("cache_misses", stats.misses)?;
        dict.set_item("cache_evictions", stats.evictions)?;
        Ok(dict)
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<KeySet>()?;
    module.add_class::<Policy>()?;
    module.add_class::<Validator>()
}
