//! `Claims` for Python: a read-only mapping over the claims of a verified token.
//!
//! Values are converted each time they are asked for: nothing that a caller does to a list or a dict can reach the
//! cached verification, which other callers share.

use std::sync::Arc;

use entra_core::error::Error;
use entra_core::jose::json::{Kind, Value};
use entra_core::jose::token::{Compact, MAX_TOKEN_BYTES, decode_header};
use entra_core::validate::claims::{Agent as CoreAgent, Claims as CoreClaims};
use entra_core::validate::verify::{Verified, unverified_issuer as issuer_of};
use pyo3::exceptions::{PyKeyError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyFloat, PyInt, PyIterator, PyList, PyMapping, PyString, PyTuple};

use crate::recurring::claims_to_dict;
use crate::{refusal, token_argument};

/// The claims of a verified token: a read-only mapping, with typed helpers.
#[pyclass(frozen, mapping, module = "entra_fast._native")]
pub(crate) struct Claims(pub(crate) Arc<Verified>);

impl Claims {
    fn claims(&self) -> &CoreClaims {
        self.0.claims()
    }

    fn find(&self, name: &Bound<'_, PyAny>) -> Option<Value<'_>> {
        let name = name.cast::<PyString>().ok()?;
        self.claims().get(name.to_str().ok()?)
    }

    fn string<'py>(&self, py: Python<'py>, name: &str) -> Option<Bound<'py, PyString>> {
        self.claims().string(name).map(|text| PyString::new(py, &text))
    }

    fn strings<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.claims().strings(name).collect::<Vec<_>>())
    }
}

/// What a token says about the agent identity behind it.
#[pyclass(frozen, eq, module = "entra_fast._native")]
#[derive(PartialEq, Eq)]
pub(crate) struct Agent(CoreAgent);

#[pymethods]
impl Agent {
    /// Client id of the blueprint that the agent identity was made from (`xms_par_app_azp`).
    #[getter]
    fn blueprint_id(&self) -> Option<&str> {
        self.0.blueprint.as_deref()
    }

    /// Kinds of the actor (`xms_act_fct`).
    #[getter]
    fn actor_kinds<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.0.actor_kinds)
    }

    /// Kinds of the subject (`xms_sub_fct`).
    #[getter]
    fn subject_kinds<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.0.subject_kinds)
    }

    /// Whether the agent acts for itself, without a user.
    #[getter]
    fn is_subject(&self) -> bool {
        self.0.is_subject()
    }

    /// Whether the user of the token is the agent's own user account, not a person.
    #[getter]
    fn is_user(&self) -> bool {
        self.0.is_user()
    }

    fn __repr__(&self) -> String {
        format!("<Agent: actor {:?}, subject {:?}>", self.0.actor_kinds, self.0.subject_kinds)
    }
}

#[pymethods]
impl Claims {
    /// Whether the token is an application's own, without a user: Entra ID writes `idtyp` `app` if and only if it
    /// is. False also where it cannot be told: neither `is_app` nor `is_user` is true then.
    #[getter]
    fn is_app(&self) -> bool {
        self.claims().is_app()
    }

    /// Whether the token is an application's on behalf of a user: it has delegated permissions (`scp`), and `idtyp` is
    /// not `app`. False also where it cannot be told, as in tokens of other providers than Entra ID.
    #[getter]
    fn is_user(&self) -> bool {
        self.claims().is_user()
    }

    /// Application roles (`roles`).
    #[getter]
    fn roles<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        self.strings(py, "roles")
    }

    /// Delegated permissions (the words of `scp`). In tokens of other providers, which have no `tid`, the words of
    /// `scope` where there is no `scp`.
    #[getter]
    fn scopes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.claims().scopes())
    }

    /// Object ids of the user's groups (`groups`). Empty also where there were too many: see
    /// `has_groups_overage`.
    #[getter]
    fn groups<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        self.strings(py, "groups")
    }

    /// True where Entra ID left the groups out because there are too many: then a missing group means nothing, and
    /// Microsoft Graph has to be asked.
    #[getter]
    fn has_groups_overage(&self) -> bool {
        self.claims().has_groups_overage()
    }

    /// `exp`, in seconds since the epoch.
    #[getter]
    fn expires_at(&self) -> f64 {
        self.0.expires_at()
    }

    /// `iat`, in seconds since the epoch.
    #[getter]
    fn issued_at(&self) -> Option<f64> {
        self.0.issued_at()
    }

    /// The tenant (`tid`).
    #[getter]
    fn tenant_id<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyString>> {
        self.string(py, "tid")
    }

    /// The user or service principal (`oid`).
    #[getter]
    fn object_id<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyString>> {
        self.string(py, "oid")
    }

    /// Client id of the application that asked for the token: `azp`, in v1.0 tokens of Entra ID `appid`, else
    /// `client_id`. From TokenX it is `<cluster>:<namespace>:<app>`. From ID-porten it is the platform that signed the
    /// user in, the same for all its applications: authorize nothing by it.
    #[expect(clippy::doc_markdown, reason = "`help` shows it, in the form of Python's docstrings")]
    #[getter]
    fn authorized_party<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyString>> {
        self.claims().authorized_party().map(|text| PyString::new(py, &text))
    }

    /// The person's national identity number (`pid`), from ID-porten and TokenX. Some sign-ins have none: eIDAS, e-mail.
    #[expect(clippy::doc_markdown, reason = "`help` shows it, in the form of Python's docstrings")]
    #[getter]
    fn pid<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyString>> {
        self.string(py, "pid")
    }

    /// The level of assurance of the sign-in (`acr`), as the token spells it. To compare it, use `acr_at_least`.
    #[getter]
    fn acr<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyString>> {
        self.string(py, "acr")
    }

    /// Whether the user signed in at this level of assurance or a higher one. Both spellings of a level are equal:
    /// `Level3` is `idporten-loa-substantial`, `Level4` is `idporten-loa-high`.
    ///
    /// Args:
    ///     level: a level of ID-porten, eIDAS or Ansattporten. Levels of one are not comparable with another's.
    ///
    /// Raises:
    ///     ValueError: there is no such level.
    #[expect(clippy::doc_markdown, reason = "`help` shows it, in the form of Python's docstrings")]
    #[pyo3(signature = (level, /))]
    fn acr_at_least(slf: &Bound<'_, Self>, level: &Bound<'_, PyAny>) -> PyResult<bool> {
        static REACHES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let reaches = REACHES.import(slf.py(), "entra_fast.require", "acr_at_least")?;
        reaches.call1((slf, level))?.extract()
    }

    /// Number of the organization that calls (`consumer`), from Maskinporten: nine digits. In a delegated token, the
    /// organization on whose behalf `supplier_orgno` calls. From ID-porten it is the owner of the client.
    #[getter]
    fn consumer_orgno(&self) -> Option<String> {
        self.claims().organization_number("consumer")
    }

    /// Number of the organization that calls on behalf of the consumer (`supplier`), from Maskinporten; None where
    /// nothing is delegated.
    #[getter]
    fn supplier_orgno(&self) -> Option<String> {
        self.claims().organization_number("supplier")
    }

    /// The objects in `authorization_details` (RFC 9396, section 9.1), such as the system user of Maskinporten.
    #[getter]
    fn authorization_details<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let details = self.claims().get("authorization_details").into_iter().flat_map(Value::elements);
        let objects = details.filter(|detail| detail.kind() == Kind::Object);
        PyTuple::new(py, objects.map(|detail| to_python(py, detail)).collect::<PyResult<Vec<_>>>()?)
    }

    /// The user's display name (`name`). For display, never for decisions.
    #[getter]
    fn name<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyString>> {
        self.string(py, "name")
    }

    /// The agent identity behind the token; None if there is none. Entra ID writes kinds of actors and subjects into
    /// other tokens, too, so only those of agents, or a blueprint, count.
    #[getter]
    fn agent(&self) -> Option<Agent> {
        self.claims().agent().map(Agent)
    }

    /// Raise Forbidden unless the token has what is required: a `Require`, or the conditions of one, as `role="reader"`
    /// or `any_of=[...]`. Naming none, or a value that is None because a setting is missing, is a `TypeError`: it must
    /// not admit every token.
    #[pyo3(signature = (requirement = None, /, **conditions))]
    fn require(
        slf: &Bound<'_, Self>,
        requirement: Option<&Bound<'_, PyAny>>,
        conditions: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        static CHECK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let check = CHECK.import(slf.py(), "entra_fast.require", "check_claims")?;
        check.call((slf, requirement), conditions).map(drop)
    }

    /// The ids of all groups of the user. If the token leaves them out because there are too many
    /// (`has_groups_overage`), Microsoft Graph is asked, on behalf of the user; else these are `groups`, and
    /// nothing is requested.
    ///
    ///     groups = claims.groups_complete(tokens.for_user(users_token))           # a TokenClient
    ///     groups = await claims.groups_complete(tokens.for_user(users_token))     # an AsyncTokenClient
    ///
    /// Graph lists the groups of which the user is a direct or indirect member, also those that are not
    /// assigned to the application. The address in `_claim_sources` is never called.
    ///
    /// Args:
    ///     tokens: the tokens of the user whose claims these are.
    ///     graph: scheme and host of Microsoft Graph; by default that of the issuer: the public or a national
    ///         cloud's, or the local Entra ID's own. `http://host:port` is for a local one elsewhere.
    ///     security_enabled_only: leave out groups that are not security groups (distribution lists...),
    ///         directory roles and administrative units.
    ///     max_age: seconds for which a user's groups are remembered, 300 by default, at most 3600; 0: not at
    ///         all.
    ///     http: how Graph is asked.
    ///
    /// Raises:
    ///     EntraFastError: code `groups_need_user`.
    ///     ProviderError: no token for Graph was issued; or codes `graph_refused`, `graph_unavailable`,
    ///         `graph_response_invalid` and `groups_too_many`.
    ///     ConfigurationError: an argument cannot be used; `graph` is required for this issuer.
    ///     TypeError: these are not the tokens of a user.
    #[expect(clippy::doc_markdown, reason = "`help` shows it, in the form of Python's docstrings")]
    #[pyo3(signature = (tokens, /, **options))]
    fn groups_complete<'py>(
        slf: &Bound<'py, Self>,
        tokens: &Bound<'py, PyAny>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        static RESOLVE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let resolve = RESOLVE.import(slf.py(), "entra_fast._groups", "groups_complete")?;
        resolve.call((slf, tokens), options)
    }

    /// All claims as a new dict.
    fn as_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        claims_to_dict(py, self.claims().root())
    }

    /// The claims' JSON text, exactly as it was signed.
    fn as_json(&self) -> &str {
        self.claims().text()
    }

    /// Immutable, so a copy is the same (for `dataclasses.asdict` and the like).
    fn __copy__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __deepcopy__(slf: Py<Self>, _memo: &Bound<'_, PyAny>) -> Py<Self> {
        slf
    }

    fn __reduce__(_slf: &Bound<'_, Self>) -> PyResult<()> {
        Err(PyTypeError::new_err(
            "claims cannot be pickled, because what is loaded was not verified; pass on as_dict(), or the token",
        ))
    }

    fn __getitem__<'py>(&self, name: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match self.find(name) {
            Some(value) => to_python(name.py(), value),
            None => Err(PyKeyError::new_err(name.clone().unbind())),
        }
    }

    fn __contains__(&self, name: &Bound<'_, PyAny>) -> bool {
        self.find(name).is_some()
    }

    fn __len__(&self) -> usize {
        self.claims().root().members().count()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        let names = self.claims().root().members().map(|(name, _)| claim_name(py, name));
        PyList::new(py, names.collect::<Vec<_>>())?.try_iter()
    }

    /// The claim, or `default` where it is absent.
    #[pyo3(signature = (name, default = None, /))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        name: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match self.find(name) {
            Some(value) => to_python(py, value),
            None => Ok(default.unwrap_or_else(|| py.None().into_bound(py))),
        }
    }

    /// The names of the claims.
    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.as_dict(py)?.call_method0(intern!(py, "keys"))
    }

    /// The values of the claims.
    fn values<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.as_dict(py)?.call_method0(intern!(py, "values"))
    }

    /// The claims as (name, value) pairs.
    fn items<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.as_dict(py)?.call_method0(intern!(py, "items"))
    }

    fn __eq__<'py>(&self, py: Python<'py>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let other = match other.cast::<Self>() {
            Ok(other) => other.get().as_dict(py)?,
            Err(_) => match other.cast::<PyMapping>() {
                Ok(other) => other.clone().into_any(),
                Err(_) => return Ok(py.NotImplemented().into_bound(py)),
            },
        };
        self.as_dict(py)?.rich_compare(other, pyo3::basic::CompareOp::Eq)
    }

    /// Names only: values are personal data, and reprs end in logs.
    fn __repr__(&self) -> String {
        let names: Vec<_> = self.claims().root().members().filter_map(|(name, _)| name.as_str()).collect();
        format!("<Claims: {}>", entra_core::error::shown(&names.join(", ")))
    }
}

/// A JSON value as the Python value that the json module would give.
pub(crate) fn to_python<'py>(py: Python<'py>, value: Value<'_>) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value.kind() {
        Kind::Null => py.None().into_bound(py),
        Kind::Bool(bool) => bool.into_pyobject(py)?.to_owned().into_any(),
        Kind::Number => number(py, value.text())?,
        Kind::String => PyString::new(py, &value.as_str().unwrap_or_default()).into_any(),
        Kind::Array => {
            let list = PyList::empty(py);
            for element in value.elements() {
                list.append(to_python(py, element)?)?;
            }
            list.into_any()
        }
        Kind::Object => {
            let dict = PyDict::new(py);
            for (name, member) in value.members() {
                dict.set_item(claim_name(py, name), to_python(py, member)?)?;
            }
            dict.into_any()
        }
    })
}

fn number<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    if let Ok(integer) = text.parse::<i64>() {
        return Ok(PyInt::new(py, integer).into_any());
    }
    if text.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
        // Beyond the range of floats this is infinity, as in the json module.
        return Ok(PyFloat::new(py, text.parse().unwrap_or(f64::INFINITY)).into_any());
    }
    py.get_type::<PyInt>().call1((text,)) // its length was bounded by the parser
}

/// The names that Entra ID writes in nearly every token are made once per process.
pub(crate) fn claim_name<'py>(py: Python<'py>, name: Value<'_>) -> Bound<'py, PyString> {
    // Patterns of bytes become a decision tree; patterns of str would be compared one after the other.
    macro_rules! interned {
        ($($bytes:literal $known:literal),* $(,)?) => {
            match name.text().as_bytes() {
                $($bytes => intern!(py, $known).clone(),)*
                _ => PyString::new(py, &name.as_str().unwrap_or_default()),
            }
        };
    }
    interned!(
        b"aud" "aud", b"iss" "iss", b"iat" "iat", b"nbf" "nbf", b"exp" "exp", b"aio" "aio", b"azp" "azp",
        b"azp_name" "azp_name", b"azpacr" "azpacr", b"appid" "appid", b"appidacr" "appidacr", b"email" "email",
        b"groups" "groups", b"idtyp" "idtyp", b"name" "name", b"NAVident" "NAVident", b"oid" "oid",
        b"preferred_username" "preferred_username", b"rh" "rh", b"roles" "roles", b"scp" "scp", b"sid" "sid",
        b"sub" "sub", b"tid" "tid", b"upn" "upn", b"uti" "uti", b"ver" "ver", b"jti" "jti", b"acr" "acr", b"amr" "amr",
    )
}

/// The header of a token, not verified. Never decide anything by it.
#[pyfunction]
fn unverified_header<'py>(py: Python<'py>, token: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let header = token_argument(token)?
        .and_then(|token| Compact::split(token, MAX_TOKEN_BYTES))
        .and_then(|compact| decode_header(compact.header));
    to_python(py, header.map_err(|error| refusal(&error))?.root())
}

/// The claims of a token, not verified. Never decide anything by them.
#[pyfunction]
fn unverified_claims<'py>(py: Python<'py>, token: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let claims = token_argument(token)?
        .and_then(|token| Compact::split(token, MAX_TOKEN_BYTES))
        .and_then(|compact| CoreClaims::dangerous_unverified(compact.payload));
    to_python(py, claims.map_err(|error: Error| refusal(&error))?.root())
}

/// The agent identity in claims that somebody else has verified, or nobody: their JSON text.
#[pyfunction]
fn unverified_agent(claims: &str) -> PyResult<Option<Agent>> {
    let claims = CoreClaims::dangerous_from_text(claims).map_err(|error| refusal(&error))?;
    Ok(claims.agent().map(Agent))
}

/// The issuer that a token names, not verified: it only chooses who verifies the token.
#[pyfunction]
fn unverified_issuer(token: &Bound<'_, PyAny>, max_token_bytes: usize) -> PyResult<String> {
    let issuer = token_argument(token)?.and_then(|token| issuer_of(token, max_token_bytes));
    issuer.map_err(|error| refusal(&error))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Agent>()?;
    module.add_class::<Claims>()?;
    PyMapping::register::<Claims>(module.py())?;
    module.add_function(wrap_pyfunction!(unverified_header, module)?)?;
    module.add_function(wrap_pyfunction!(unverified_claims, module)?)?;
    module.add_function(wrap_pyfunction!(unverified_agent, module)?)?;
    module.add_function(wrap_pyfunction!(unverified_issuer, module)?)
}
