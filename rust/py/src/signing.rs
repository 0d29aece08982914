//! `SigningKey` for Python: converts in, calls `entra_core::jose::signing_key`, converts out.

use entra_core::jose::signing_key::{self, SignError};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::text_argument;

pyo3::import_exception!(entra_fast.errors, ConfigurationError);

/// A private key that signs client assertions and, in the emulator, tokens.
#[pyclass(frozen, module = "entra_fast._native")]
pub(crate) struct SigningKey(signing_key::SigningKey);

#[pymethods]
impl SigningKey {
    /// A new RSA key for RS256; its kid is the RFC 7638 thumbprint. `bits`: 2048, 3072 or 4096.
    #[staticmethod]
    #[pyo3(signature = (bits = 2048))]
    fn generate(py: Python<'_>, bits: u32) -> PyResult<Self> {
        // Searching for primes takes a tenth of a second and more.
        py.detach(|| signing_key::SigningKey::generate(bits)).map(Self).map_err(|error| raised(&error))
    }

    /// A private JWK (RSA, EC P-256/P-384, OKP Ed25519), as str or bytes.
    #[staticmethod]
    fn from_jwk(py: Python<'_>, jwk: &Bound<'_, PyAny>) -> PyResult<Self> {
        // Said like this, because the UnicodeEncodeError of Python would carry the whole key along.
        let lone_surrogate = || SignError::InvalidKey("expected a JSON object, found a lone surrogate".to_owned());
        let text = text_argument("jwk", jwk)?.ok_or_else(|| raised(&lone_surrogate()))?;
        py.detach(|| signing_key::SigningKey::from_jwk(text)).map(Self).map_err(|error| raised(&error))
    }

    /// The JWK's `kid`; of a generated key its thumbprint.
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

    /// RFC 7638 SHA-256 thumbprint, base64url.
    #[getter]
    fn thumbprint(&self) -> &str {
        self.0.thumbprint()
    }

    /// The public half as JWK text: kty, use, kid, and the key's parameters; no alg, as Entra ID does.
    fn public_jwk(&self) -> PyResult<String> {
        self.0.public_jwk().map_err(|error| raised(&error))
    }

    /// The whole key as JWK text. Handle with care.
    fn private_jwk<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        let text = self.0.private_jwk().map_err(|error| raised(&error))?;
        Ok(PyString::new(py, &text))
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
