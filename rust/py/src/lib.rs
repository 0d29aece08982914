//! The binding of `entra-core` to Python: converts in, calls the core, converts out. Nothing else.
//!
//! Belongs here: Python types, the GIL, what the core takes as arguments (the clock, a random seed, the number of
//! cores), and where lines of the access log go. Does not belong here: any decision.

mod access_log;
mod claims;
mod clock;
mod contract;
mod fast_path;
mod recurring;
mod signatures;
mod signing;
mod spans;
mod token_cache;
mod validator;

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use entra_core::digest;
use entra_core::error::{CODES, Error};
use entra_core::jose::algorithm::Algorithm;
use entra_core::jose::json;
use entra_core::jose::token::MAX_TOKEN_BYTES;
use pyo3::exceptions::{PyImportError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};

pyo3::import_exception!(entra_fast.errors, InvalidToken);
pyo3::import_exception!(entra_fast.errors, KeysUnavailable);

/// Seconds since the epoch, by the wall clock.
fn wall_clock() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

/// A random number, new for every map.
fn random_seed() -> u64 {
    RandomState::new().hash_one(0)
}

/// The bytes of a `str` or `bytes` argument; None where a `str` has no UTF-8 form (a lone surrogate).
fn text_argument<'a>(name: &str, value: &'a Bound<'_, PyAny>) -> PyResult<Option<&'a [u8]>> {
    if let Ok(text) = value.cast::<PyString>() {
        Ok(text.to_str().ok().map(str::as_bytes))
    } else if let Ok(bytes) = value.cast::<PyBytes>() {
        Ok(Some(bytes.as_bytes()))
    } else {
        Err(PyTypeError::new_err(format!("{name} must be str or bytes, not {}", value.get_type().name()?)))
    }
}

/// A token argument. A text that cannot be encoded is refused like any other text that is not a token.
fn token_argument<'a>(token: &'a Bound<'_, PyAny>) -> PyResult<Result<&'a [u8], Error>> {
    let not_text = Error::NotAJwt { expected: "base64url characters", found: "a lone surrogate" };
    Ok(text_argument("token", token)?.ok_or(not_text))
}

/// The exception for a refused token.
fn refusal(error: &Error) -> PyErr {
    if *error == Error::KeysUnavailable {
        return KeysUnavailable::new_err((error.code(), error.to_string()));
    }
    InvalidToken::new_err((error.code(), error.to_string(), error.expected(), error.actual()))
}

/// `sha256(subject_token + scope)` in lower-case hex: for programs that keep a token cache of their own.
#[pyfunction]
fn cache_key(subject_token: &str, scope: &str) -> String {
    digest::cache_key(subject_token, scope)
}

/// SHA-256 over a purpose and length-prefixed parts: the internal cache key.
#[pyfunction]
#[allow(clippy::needless_pass_by_value, reason = "PyO3 makes the vector for this call")]
fn token_cache_key<'py>(py: Python<'py>, purpose: &str, parts: Vec<String>) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &digest::of_parts(purpose, parts.iter().map(String::as_bytes)))
}

/// SHA-256 of bytes.
#[pyfunction]
fn sha256<'py>(py: Python<'py>, data: &[u8]) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &digest::sha256(data))
}

/// Parse strict JSON: no duplicate members, no lone surrogates, no NaN, bounded depth.
#[pyfunction]
fn parse_json<'py>(py: Python<'py>, text: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let refused = |error: json::JsonError| PyValueError::new_err(error.reason());
    let text = text_argument("text", text)?.ok_or_else(|| refused(json::JsonError::LoneSurrogate))?;
    let document = json::Document::parse(text).map_err(refused)?;
    claims::to_python(py, document.root())
}

/// Refuse every interpreter of the process but the first that imports this module.
///
/// The types of this module and the exceptions that it raises exist once per process. In a second interpreter,
/// `except InvalidToken` would not match them. `CPython` refuses interpreters with a GIL of their own by itself, in
/// these words; `entra_fast/__init__.py` names the remedy.
fn refuse_further_interpreters(_py: Python<'_>) -> PyResult<()> {
    static FIRST: OnceLock<i64> = OnceLock::new();
    // SAFETY: this thread is attached to an interpreter (`_py`), so there is a current one, and it is valid.
    let current = unsafe { pyo3::ffi::PyInterpreterState_GetID(pyo3::ffi::PyInterpreterState_Get()) };
    if *FIRST.get_or_init(|| current) == current {
        return Ok(());
    }
    Err(PyImportError::new_err("module entra_fast._native does not support loading in subinterpreters"))
}

#[pymodule(gil_used = true)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    refuse_further_interpreters(py)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("RUST_VERSION", env!("ENTRA_FAST_RUST_VERSION"))?;
    let codes = PyDict::new(py);
    for (code, sentence) in CODES {
        codes.set_item(code, sentence)?;
    }
    module.add("ERROR_CODES", codes)?;
    module.add("ALGORITHMS", PyTuple::new(py, Algorithm::ALL.map(Algorithm::name))?)?;
    module.add("MAX_TOKEN_BYTES", MAX_TOKEN_BYTES)?;
    module.add_function(wrap_pyfunction!(cache_key, module)?)?;
    module.add_function(wrap_pyfunction!(token_cache_key, module)?)?;
    module.add_function(wrap_pyfunction!(sha256, module)?)?;
    module.add_function(wrap_pyfunction!(parse_json, module)?)?;
    access_log::register(module)?;
    claims::register(module)?;
    clock::register(module)?;
    contract::register(module)?;
    validator::register(module)?;
    token_cache::register(module)?;
    fast_path::register(module)?;
    signatures::register(module)?;
    spans::register(module)?;
    signing::register(module)
}
