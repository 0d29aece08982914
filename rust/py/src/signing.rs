//! `SigningKey` for Python: converts in, calls `entra_core::jose::signing_key`, converts out.

use entra_core::jose::signing_key::{self, SignError};
use pyo3::prelude::*;

use crate::text_argument;

pyo3::import_exception!(entra_fast.errors, ConfigurationError);

/// A private key that signs: client assertions in the sidecar, tokens in the local Entra ID.
#[pyclass(frozen, module = "entra_fast._native")]
pub(crate) struct SigningKey(signing_key::SigningKey);

#[pymethods]
impl SigningKey {
    /// A private JWK (RSA, EC P-256/P-384, OKP Ed25519), as str or bytes.
    #[staticmethod]
    fn from_jwk(py: Python<'_>, jwk: &Bound<'_, PyAny>) -> PyResult<Self> {
        // Python's UnicodeEncodeError would contain the whole key.
        let lone_surrogate = || SignError::InvalidKey("expected a JSON object, found a lone surrogate".to_owned());
        let text = text_argument("jwk", jwk)?.ok_or_else(|| raised(&lone_surrogate()))?;
        py.detach(|| signing_key::SigningKey::from_jwk(text)).map(Self).map_err(|error| raised(&error))
    }

    /// The JWK's `kid`.
    #[getter]
    fn kid(&self) -> Option<&str> {
        self.0.kid()
    }

    /// Name of the algorithm that the key signs with.
    #[getter]
    fn algorithm(&self) -> &'static str {
        self.0.algorithm().name()
    }

    /// The JWK's `x5t` (RFC 7517, section 4.8).
    #[getter]
    fn x5t(&self) -> Option<&str> {
        self.0.x5t()
    }

    /// The JWK's `x5t#S256` (RFC 7517, section 4.9).
    #[getter]
    fn x5t_s256(&self) -> Option<&str> {
        self.0.x5t_s256()
    }

    /// Compact JWS over exactly these bytes; `header` must be JSON whose `alg` is `self.algorithm`.
    fn sign(&self, py: Python<'_>, header: &[u8], payload: &[u8]) -> PyResult<String> {
        // An RSA signature takes most of a millisecond: other threads must not wait for it.
        py.detach(|| self.0.sign(header, payload)).map_err(|error| raised(&error))
    }

    fn __repr__(&self) -> String {
        match self.0.kid() {
            Some(kid) => format!("<SigningKey {} kid={kid:?}>", self.algorithm()),
            None => format!("<SigningKey {}>", self.algorithm()),
        }
    }
}

fn raised(error: &SignError) -> PyErr {
    ConfigurationError::new_err((error.code(), error.to_string()))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<SigningKey>()
}
