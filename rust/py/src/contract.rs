//! The contract of the endpoints for Python: converts in, calls `entra_core::sidecar`'s `contract` and `head`, converts out.

use entra_core::sidecar::contract::{
    self, CallerCheck as CoreCallerCheck, CallerHeaders, ContentType, Endpoint, FormError, MAX_BODY_BYTES,
    MAX_CLAIMS_BYTES, MAX_DETAILS_BYTES, MAX_RESOURCE_BYTES, MAX_RESOURCES, Refusal,
};
use entra_core::sidecar::head;
use entra_core::sidecar::providers::{MAX_PROVIDERS, Names, Provider as CoreProvider, Providers as CoreProviders};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

pyo3::import_exception!(entra_fast.errors, EntraFastError);

/// (position of the provider, target, `skip_cache`, the user's token, the claims challenge, resources, authorization
/// details).
type TokenRequest = (usize, String, bool, Option<String>, Option<String>, Vec<String>, Option<String>);

/// The text; where it has no UTF-8 form (a lone surrogate), one that no rule accepts.
fn text<'a>(value: &'a Bound<'_, PyString>) -> &'a str {
    value.to_str().unwrap_or("\u{fffd}")
}

fn refused(refusal: &Refusal) -> PyErr {
    EntraFastError::new_err((refusal.code(), refusal.to_string()))
}

const fn content_type(form: bool) -> ContentType {
    if form { ContentType::Form } else { ContentType::Json }
}

/// The scope that a target means at a provider.
#[pyfunction]
#[pyo3(signature = (target, *, rewrites = true))]
fn scope_for(target: &Bound<'_, PyString>, rewrites: bool) -> PyResult<String> {
    contract::scope_for(text(target), rewrites).map(Into::into).map_err(|refusal| refused(&refusal))
}

/// Whether the body is a form, else it is JSON.
#[pyfunction]
#[allow(clippy::needless_pass_by_value, reason = "PyO3 makes the vector for this call")]
fn is_form(content_types: Vec<Bound<'_, PyString>>) -> PyResult<bool> {
    let values: Vec<&str> = content_types.iter().map(text).collect();
    let content_type = ContentType::of_headers(&values).map_err(|refusal| refused(&refusal))?;
    Ok(content_type == ContentType::Form)
}

/// An enabled provider.
#[pyclass(frozen, module = "entra_fast._native")]
pub(crate) struct Provider(CoreProvider);

#[pymethods]
impl Provider {
    #[new]
    #[allow(clippy::fn_params_excessive_bools, clippy::too_many_arguments, reason = "named ones in Python")]
    #[pyo3(signature = (
        name, *, aliases, issues, exchanges, rewrites_targets, accepts_claims, accepts_details, tenant, client_id
    ))]
    fn new(
        name: String,
        aliases: Vec<String>,
        issues: bool,
        exchanges: bool,
        rewrites_targets: bool,
        accepts_claims: bool,
        accepts_details: bool,
        tenant: String,
        client_id: String,
    ) -> Self {
        Self(CoreProvider {
            name,
            aliases,
            issues,
            exchanges,
            rewrites_targets,
            accepts_claims,
            accepts_details,
            tenant,
            client_id,
        })
    }
}

/// The enabled providers, and all known names.
#[pyclass(frozen, module = "entra_fast._native")]
pub(crate) struct Providers(CoreProviders);

impl Providers {
    pub(crate) fn core(&self) -> &CoreProviders {
        &self.0
    }
}

#[pymethods]
impl Providers {
    #[new]
    #[allow(clippy::needless_pass_by_value, reason = "PyO3 makes the vector for this call")]
    fn new(enabled: Vec<PyRef<'_, Provider>>, known: Vec<(String, Vec<String>)>) -> Self {
        let enabled = enabled.iter().map(|provider| provider.0.clone()).collect();
        let known = known.into_iter().map(|(name, aliases)| Names { name, aliases }).collect();
        Self(CoreProviders::new(enabled, known))
    }

    /// What a token endpoint is asked for.
    #[pyo3(signature = (body, *, form, exchange))]
    fn parse_token_request(&self, body: &[u8], form: bool, exchange: bool) -> PyResult<TokenRequest> {
        contract::with_fields(content_type(form), body, |fields| {
            let request = if exchange { fields.exchange_request(&self.0) } else { fields.token_request(&self.0) }?;
            let owned = |text: Option<&str>| text.map(str::to_owned);
            Ok((
                request.provider,
                request.target.to_owned(),
                request.skip_cache,
                owned(request.user_token),
                owned(request.claims),
                request.resources.iter().map(|resource| resource.clone().into_owned()).collect(),
                owned(request.authorization_details),
            ))
        })
        .flatten()
        .map_err(|refusal| refused(&refusal))
    }

    /// The name of the provider because of which a request to an endpoint is refused, and whether it is enabled; None if
    /// the request is refused for another reason.
    #[pyo3(signature = (body, *, form, endpoint))]
    fn refused_provider(&self, body: &[u8], form: bool, endpoint: &str) -> Option<(String, bool)> {
        let endpoint = Endpoint::ALL.into_iter().find(|known| known.name() == endpoint)?;
        let means = contract::with_fields(content_type(form), body, |fields| fields.provider(&self.0, endpoint));
        match means.flatten() {
            Err(Refusal::NotEnabled { provider }) => Some((provider, false)),
            Err(Refusal::NotSupported { provider, .. }) => Some((provider, true)),
            _ => None,
        }
    }

    /// The position of the provider, and the token that the introspection endpoint is asked about.
    #[pyo3(signature = (body, *, form))]
    fn parse_introspection_request(&self, body: &[u8], form: bool) -> PyResult<(usize, String)> {
        contract::with_fields(content_type(form), body, |fields| {
            fields.introspected_token(&self.0).map(|(provider, token)| (provider, token.to_owned()))
        })
        .flatten()
        .map_err(|refusal| refused(&refusal))
    }
}

/// The fields of any form: all, or only the known ones.
#[pyfunction]
#[pyo3(signature = (body, known = None))]
#[allow(clippy::needless_pass_by_value, reason = "PyO3 makes the vector for this call")]
fn parse_form(body: &[u8], known: Option<Vec<String>>) -> PyResult<Vec<(String, String)>> {
    let is_known = |name: &str| known.as_ref().is_none_or(|known| known.iter().any(|known| known == name));
    contract::form_fields(body, is_known)
        .map(|fields| fields.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
        .map_err(|error: FormError| refused(&Refusal::Form(error)))
}

/// Whether a host name or address is the loopback of this machine.
#[pyfunction]
fn is_loopback_host(host: &Bound<'_, PyString>) -> bool {
    contract::is_loopback_host(text(host))
}

/// The name or address in a Host header, in lower case; None where it is malformed.
#[pyfunction]
fn host_name(host: &Bound<'_, PyString>) -> Option<String> {
    contract::host_name(text(host)).map(str::to_ascii_lowercase)
}

/// Whether a request comes from a page of the server's own, or not from a browser at all.
#[pyfunction]
#[pyo3(signature = (*, fetch_site, origin, own_origin, host))]
fn is_own_page(
    fetch_site: Option<&Bound<'_, PyString>>,
    origin: Option<&Bound<'_, PyString>>,
    own_origin: &str,
    host: &Bound<'_, PyString>,
) -> bool {
    contract::is_own_page(fetch_site.map(text), origin.map(text), own_origin, text(host))
}

/// Status and sentence of the refusal of a request with these Host and Transfer-Encoding headers, or None.
#[pyfunction]
#[pyo3(signature = (*, hosts, transfer_encodings))]
#[allow(clippy::needless_pass_by_value, reason = "PyO3 makes the vectors for this call")]
fn head_refusal(
    hosts: Vec<Bound<'_, PyString>>,
    transfer_encodings: Vec<Bound<'_, PyString>>,
) -> Option<(u16, String)> {
    let hosts: Vec<&str> = hosts.iter().map(text).collect();
    let transfer_encodings: Vec<&str> = transfer_encodings.iter().map(text).collect();
    head::check(&hosts, &transfer_encodings).err().map(|refusal| (refusal.status(), refusal.to_string()))
}

/// As `head_refusal`, for the bytes of a head whose Transfer-Encoding the full parser has refused.
#[pyfunction]
fn transfer_coding_refusal(head: &[u8]) -> Option<(u16, String)> {
    head::check_refused(head).err().map(|refusal| (refusal.status(), refusal.to_string()))
}

/// The caller check of one server.
#[pyclass(frozen, module = "entra_fast._native")]
pub(crate) struct CallerCheck(CoreCallerCheck);

impl CallerCheck {
    pub(crate) fn core(&self) -> &CoreCallerCheck {
        &self.0
    }
}

#[pymethods]
impl CallerCheck {
    #[new]
    fn new(allowed_hosts: &Bound<'_, PyAny>) -> PyResult<Self> {
        let hosts = allowed_hosts.try_iter()?.map(|host| host?.extract()).collect::<PyResult<Vec<String>>>()?;
        Ok(Self(CoreCallerCheck::new(hosts)))
    }

    /// Whether the value of a Host header is a loopback host or an allowed one.
    fn allows_host(&self, host: &Bound<'_, PyString>) -> bool {
        self.0.allows_host(text(host))
    }

    /// The sentence of the refusal, or None where the caller is allowed.
    #[pyo3(signature = (*, hosts, has_origin, fetch_sites, is_forwarded, probe = false))]
    #[allow(clippy::needless_pass_by_value, reason = "PyO3 makes the vectors for this call")]
    fn refusal(
        &self,
        hosts: Vec<Bound<'_, PyString>>,
        has_origin: bool,
        fetch_sites: Vec<Bound<'_, PyString>>,
        is_forwarded: bool,
        probe: bool,
    ) -> Option<String> {
        let hosts: Vec<&str> = hosts.iter().map(text).collect();
        let fetch_sites: Vec<&str> = fetch_sites.iter().map(text).collect();
        let headers = CallerHeaders { hosts: &hosts, has_origin, fetch_sites: &fetch_sites, is_forwarded };
        let checked = if probe { CoreCallerCheck::check_probe(headers) } else { self.0.check(headers) };
        checked.err().map(|refusal| refusal.to_string())
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let paths = PyDict::new(module.py());
    for endpoint in Endpoint::ALL {
        paths.set_item(endpoint.name(), endpoint.path())?;
    }
    module.add("ENDPOINT_PATHS", paths)?;
    module.add("MAX_BODY_BYTES", MAX_BODY_BYTES)?;
    module.add("MAX_CLAIMS_BYTES", MAX_CLAIMS_BYTES)?;
    module.add("MAX_DETAILS_BYTES", MAX_DETAILS_BYTES)?;
    module.add("MAX_PROVIDERS", MAX_PROVIDERS)?;
    module.add("MAX_RESOURCES", MAX_RESOURCES)?;
    module.add("MAX_RESOURCE_BYTES", MAX_RESOURCE_BYTES)?;
    module.add_class::<Provider>()?;
    module.add_class::<Providers>()?;
    module.add_class::<CallerCheck>()?;
    module.add_function(wrap_pyfunction!(scope_for, module)?)?;
    module.add_function(wrap_pyfunction!(is_form, module)?)?;
    module.add_function(wrap_pyfunction!(parse_form, module)?)?;
    module.add_function(wrap_pyfunction!(head_refusal, module)?)?;
    module.add_function(wrap_pyfunction!(transfer_coding_refusal, module)?)?;
    module.add_function(wrap_pyfunction!(is_loopback_host, module)?)?;
    module.add_function(wrap_pyfunction!(host_name, module)?)?;
    module.add_function(wrap_pyfunction!(is_own_page, module)?)
}
