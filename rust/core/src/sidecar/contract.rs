//! The contract of the three endpoints: the one implementation that all parts of the product call.
//!
//! Belongs here: the endpoints, the fields of a request in JSON and in a form, what a target means, which callers are
//! allowed, and the sentence of each refusal. The fast path, the slow path, the emulator and the token generator must
//! agree, so none of them has its own rules. Does not belong here: the handling of an accepted request,
//! HTTP framing (`http1`), tokens.
//!
//! No sentence repeats anything that was sent.

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use memchr::{memchr, memchr2};

use super::providers::Providers;
use crate::jose::json::{Document, JsonError, Kind, Value};

/// A larger body is refused before it is parsed.
pub const MAX_BODY_BYTES: usize = 128 * 1024;

/// Maximum number of fields in a form.
pub const MAX_FIELDS: usize = 256;

/// Maximum length of a target.
pub const MAX_TARGET_BYTES: usize = 4096;

/// Maximum length of a claims challenge.
pub const MAX_CLAIMS_BYTES: usize = 8192;

/// Maximum number of values of `resource`.
pub const MAX_RESOURCES: usize = 16;

/// Maximum length of all values of `resource` together.
pub const MAX_RESOURCE_BYTES: usize = 4096;

/// Maximum length of `authorization_details`.
pub const MAX_DETAILS_BYTES: usize = 8192;

/// `urn:a:b` and `https:a:b` look like `<cluster>:<namespace>:<app>`, but are URIs.
const NOT_CLUSTERS: [&str; 4] = ["urn", "api", "http", "https"];

/// The endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `/api/v1/token`
    Token,
    /// `/api/v1/token/exchange`
    Exchange,
    /// `/api/v1/introspect`
    Introspect,
}

impl Endpoint {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Token, Self::Exchange, Self::Introspect];

    /// The name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Exchange => "exchange",
            Self::Introspect => "introspect",
        }
    }

    /// The path.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Token => "/api/v1/token",
            Self::Exchange => "/api/v1/token/exchange",
            Self::Introspect => "/api/v1/introspect",
        }
    }

    /// The endpoint at a path.
    #[must_use]
    pub fn of_path(path: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| path == endpoint.path().as_bytes())
    }
}

/// The two content types of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentType {
    /// `application/json`
    Json,
    /// `application/x-www-form-urlencoded`
    Form,
}

impl ContentType {
    /// The content type that the value of a Content-Type header names; its parameters are ignored.
    #[must_use]
    pub fn of_header(value: &[u8]) -> Option<Self> {
        let media_type = value[..memchr(b';', value).unwrap_or(value.len())].trim_ascii();
        if media_type.eq_ignore_ascii_case(b"application/json") {
            Some(Self::Json)
        } else if media_type.eq_ignore_ascii_case(b"application/x-www-form-urlencoded") {
            Some(Self::Form)
        } else {
            None
        }
    }

    /// The content type of a request with these Content-Type headers.
    ///
    /// # Errors
    /// [`Refusal::ContentType`] unless there is exactly one, and it is one of the two.
    pub fn of_headers(values: &[&str]) -> Result<Self, Refusal> {
        match values {
            [value] => Self::of_header(value.as_bytes()).ok_or(Refusal::ContentType),
            _ => Err(Refusal::ContentType),
        }
    }
}

/// The fields that the contract knows; all others are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Which provider.
    IdentityProvider,
    /// The API that the token is for.
    Target,
    /// The token to introspect.
    Token,
    /// The token of the user on whose behalf a token is wanted.
    UserToken,
    /// Whether to fetch a new token.
    SkipCache,
    /// The claims challenge that a new token has to meet.
    Claims,
    /// The services that the token is for (RFC 8707).
    Resource,
    /// What the token is to allow, in detail (RFC 9396).
    AuthorizationDetails,
}

impl Field {
    /// The name, as it is written in a request.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::IdentityProvider => "identity_provider",
            Self::Target => "target",
            Self::Token => "token",
            Self::UserToken => "user_token",
            Self::SkipCache => "skip_cache",
            Self::Claims => "claims",
            Self::Resource => "resource",
            Self::AuthorizationDetails => "authorization_details",
        }
    }

    fn of_name(name: &[u8]) -> Option<Self> {
        match name {
            b"identity_provider" => Some(Self::IdentityProvider),
            b"target" => Some(Self::Target),
            b"token" => Some(Self::Token),
            b"user_token" => Some(Self::UserToken),
            b"skip_cache" => Some(Self::SkipCache),
            b"claims" => Some(Self::Claims),
            b"resource" => Some(Self::Resource),
            b"authorization_details" => Some(Self::AuthorizationDetails),
            _ => None,
        }
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Not exactly one Content-Type, or another one.
    ContentType,
    /// The body is not strict JSON.
    NotJson(JsonError),
    /// The body is JSON, but not an object.
    NotAnObject,
    /// The body has too many fields.
    Form(FormError),
    /// The field is there more than once.
    Repeated(Field),
    /// The field's value in a form is not percent-encoded UTF-8.
    NotDecodable(Field),
    /// The field is not there, or is `null`.
    Missing(Field),
    /// The field is not a string.
    NotAString(Field),
    /// The field is an empty string.
    Empty(Field),
    /// `skip_cache` is not a flag.
    NotAFlag(ContentType),
    /// `claims` is not the text of a JSON object, or too long.
    Claims,
    /// `resource` is neither a text nor an array of texts, or too long.
    Resource,
    /// `authorization_details` is no array of objects, or too long.
    AuthorizationDetails,
    /// The provider is not known.
    UnknownProvider {
        /// The names that are.
        known: String,
    },
    /// The provider is known, and not enabled.
    NotEnabled {
        /// Its name.
        provider: String,
    },
    /// No provider is named, and several are enabled.
    WhichProvider {
        /// Their names.
        enabled: String,
    },
    /// The provider is enabled, and does not have what the endpoint needs.
    NotSupported {
        /// Its name.
        provider: String,
        /// The endpoint.
        endpoint: Endpoint,
    },
    /// The target is no scope, or too long.
    Target,
    /// The Host header names another host.
    Host,
    /// The request has an Origin header.
    Origin,
    /// A browser says that the request comes from a page of another site.
    CrossSite,
    /// The request was forwarded by a proxy.
    Forwarded,
}

impl Refusal {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Target => "target_invalid",
            _ => "request_invalid",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ContentType => {
                f.write_str("content-type must be 'application/json' or 'application/x-www-form-urlencoded'")
            }
            Self::NotJson(error) => write!(f, "request body is not valid JSON: {}", error.reason()),
            Self::NotAnObject => f.write_str("request body must be a JSON object"),
            Self::Form(error) => error.fmt(f),
            Self::Repeated(field) => write!(f, "{} must be given once", field.name()),
            Self::NotDecodable(field) => write!(f, "{} must be percent-encoded UTF-8", field.name()),
            Self::Missing(field) => write!(f, "{} is missing: expected a string", field.name()),
            Self::NotAString(field) => write!(f, "{} must be a string", field.name()),
            Self::Empty(field) => write!(f, "{} must not be empty", field.name()),
            Self::NotAFlag(ContentType::Json) => f.write_str("skip_cache must be true or false, as a JSON boolean"),
            Self::NotAFlag(ContentType::Form) => f.write_str("skip_cache must be 'true' or 'false'"),
            Self::Claims => write!(
                f,
                "claims must be the text of a JSON object of at most {MAX_CLAIMS_BYTES} bytes: the claims challenge of \
                 an API, decoded from base64"
            ),
            Self::Resource => write!(
                f,
                "resource must be a string or an array of at most {MAX_RESOURCES} strings, none of them empty, of at \
                 most {MAX_RESOURCE_BYTES} bytes together"
            ),
            Self::AuthorizationDetails => write!(
                f,
                "authorization_details must be a JSON array of objects, or a string with the text of one, of at most \
                 {MAX_DETAILS_BYTES} bytes"
            ),
            Self::UnknownProvider { known } => write!(f, "identity_provider must be {known}"),
            Self::NotEnabled { provider } => write!(f, "identity provider '{provider}' is not enabled"),
            Self::WhichProvider { enabled } => write!(f, "identity_provider is missing: expected {enabled}"),
            Self::NotSupported { provider, endpoint } => {
                let what = match endpoint {
                    Endpoint::Token => "token requests",
                    Endpoint::Exchange => "token exchange",
                    Endpoint::Introspect => "introspection",
                };
                write!(f, "identity provider '{provider}' does not support {what}")
            }
            Self::Target => f.write_str(
                "target must be 'api://<cluster>.<namespace>.<app>/.default', 'api://<client id>/.default', \
                 '<cluster>:<namespace>:<app>' or another scope (RFC 6749, section 3.3)",
            ),
            Self::Host => {
                f.write_str("the Host header must be a loopback address or an allowed host (ENTRA_FAST_ALLOWED_HOSTS)")
            }
            Self::Origin => f.write_str("requests with an Origin header come from a browser and are refused"),
            Self::CrossSite => f.write_str("cross-site requests of a browser are refused"),
            Self::Forwarded => f.write_str("forwarded requests are refused"),
        }
    }
}

// --- targets -------------------------------------------------------------------------------------------------------

/// The scope that a target means at a provider. Where that `rewrites` targets, `<cluster>:<namespace>:<app>` becomes
/// `api://<cluster>.<namespace>.<app>/.default`; any other target stays as it is.
///
/// # Errors
/// [`Refusal::Target`] if it is not a scope.
pub fn scope_for(target: &str, rewrites: bool) -> Result<Cow<'_, str>, Refusal> {
    if target.len() > MAX_TARGET_BYTES || !is_scope(target) {
        return Err(Refusal::Target);
    }
    if !rewrites {
        return Ok(Cow::Borrowed(target));
    }
    let mut parts = target.split(':');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(cluster), Some(namespace), Some(app), None)
            if [cluster, namespace, app].into_iter().all(is_application_part)
                && !NOT_CLUSTERS.iter().any(|other| cluster.eq_ignore_ascii_case(other)) =>
        {
            Ok(Cow::Owned(format!("api://{cluster}.{namespace}.{app}/.default")))
        }
        _ => Ok(Cow::Borrowed(target)),
    }
}

/// RFC 6749, section 3.3: scope-tokens with single spaces between them.
fn is_scope(text: &str) -> bool {
    let is_token = |token: &str| {
        !token.is_empty()
            && all_bytes(token.as_bytes(), |byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
    };
    text.split(' ').all(is_token)
}

fn is_application_part(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

// --- fields --------------------------------------------------------------------------------------------------------

/// The value of a field that holds text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Text<'b> {
    /// Not there, or `null`.
    #[default]
    Missing,
    Given(Cow<'b, str>),
    /// Another JSON type.
    NotAString,
}

impl Text<'_> {
    fn checked(&self, field: Field) -> Result<&str, Refusal> {
        match self {
            Self::Given(text) if text.is_empty() => Err(Refusal::Empty(field)),
            Self::Given(text) => Ok(text),
            Self::Missing => Err(Refusal::Missing(field)),
            Self::NotAString => Err(Refusal::NotAString(field)),
        }
    }
}

/// The known fields of a body, not yet checked: which of them must be there depends on the endpoint.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fields<'b> {
    identity_provider: Text<'b>,
    target: Text<'b>,
    token: Text<'b>,
    user_token: Text<'b>,
    claims: Text<'b>,
    /// The values; none if it is not there.
    resource: Vec<Cow<'b, str>>,
    /// Whether it is there, and is no text and no array of texts.
    wrong_resource: bool,
    /// Its text, whether it came as JSON or as a string.
    authorization_details: Text<'b>,
    skip_cache: bool,
    /// What is wrong with `skip_cache`, for the endpoints that look at it.
    wrong_flag: Option<ContentType>,
}

/// A request to one of the two token endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenRequest<'f> {
    /// The position of the provider.
    pub provider: usize,
    /// The API that the token is for, as it was written: see [`scope_for`].
    pub target: &'f str,
    /// The user's token; None if the application asks for itself.
    pub user_token: Option<&'f str>,
    /// Whether to fetch a new token.
    pub skip_cache: bool,
    /// The claims challenge that a new token has to meet: the text of a JSON object. No cached token answers it.
    pub claims: Option<&'f str>,
    /// The services that the token is for (RFC 8707); none where nothing is said about them.
    pub resources: &'f [Cow<'f, str>],
    /// What the token is to allow: the text of a JSON array of objects (RFC 9396).
    pub authorization_details: Option<&'f str>,
}

/// Read the fields of a body and hand them to `answer`; they may point into a document that does not outlive the call.
///
/// # Errors
/// A [`Refusal`] if the body cannot be read, or has a known field more than once.
pub fn with_fields<R>(
    content_type: ContentType,
    body: &[u8],
    answer: impl FnOnce(&Fields<'_>) -> R,
) -> Result<R, Refusal> {
    match content_type {
        ContentType::Json => {
            if let Some(fields) = Fields::of_plain_json(body) {
                return Ok(answer(&fields));
            }
            let document = Document::parse_with_repeated_members(body).map_err(Refusal::NotJson)?;
            Fields::of_json(document.root()).map(|fields| answer(&fields))
        }
        ContentType::Form => Fields::of_form(body).map(|fields| answer(&fields)),
    }
}

impl<'b> Fields<'b> {
    /// The request to `/api/v1/token`, for one of `providers`.
    ///
    /// # Errors
    /// A [`Refusal`] that names the first field that is wrong.
    pub fn token_request(&self, providers: &Providers) -> Result<TokenRequest<'_>, Refusal> {
        let request = self.request(providers, Endpoint::Token)?;
        if !providers.enabled()[request.provider].accepts_details {
            return Ok(request);
        }
        Ok(TokenRequest { resources: self.resources()?, authorization_details: self.details()?, ..request })
    }

    /// The request to `/api/v1/token/exchange`. It has neither `resource` nor `authorization_details`.
    ///
    /// # Errors
    /// A [`Refusal`] that names the first field that is wrong.
    pub fn exchange_request(&self, providers: &Providers) -> Result<TokenRequest<'_>, Refusal> {
        let request = self.request(providers, Endpoint::Exchange)?;
        Ok(TokenRequest { user_token: Some(self.user_token.checked(Field::UserToken)?), ..request })
    }

    /// The position of the provider and the token in a request to `/api/v1/introspect`.
    ///
    /// # Errors
    /// A [`Refusal`] that names the first field that is wrong.
    #[inline]
    pub fn introspected_token(&self, providers: &Providers) -> Result<(usize, &str), Refusal> {
        let provider = self.provider(providers, Endpoint::Introspect)?;
        Ok((provider, self.token.checked(Field::Token)?))
    }

    /// The position of the provider that the request means, even where it means nothing else that is right.
    ///
    /// # Errors
    /// A [`Refusal`] if it means none of them.
    pub fn provider(&self, providers: &Providers, endpoint: Endpoint) -> Result<usize, Refusal> {
        let name = match &self.identity_provider {
            Text::Missing => None,
            given => Some(given.checked(Field::IdentityProvider)?),
        };
        providers.resolve(name, endpoint)
    }

    /// What the requests for a token have in common.
    fn request(&self, providers: &Providers, endpoint: Endpoint) -> Result<TokenRequest<'_>, Refusal> {
        let provider = self.provider(providers, endpoint)?;
        let target = self.target.checked(Field::Target)?;
        let skip_cache = self.flag()?;
        // To a provider that does not know them, they are unknown fields, whatever is in them.
        let claims = if providers.enabled()[provider].accepts_claims { self.challenge()? } else { None };
        Ok(TokenRequest {
            provider,
            target,
            user_token: None,
            skip_cache,
            claims,
            resources: &[],
            authorization_details: None,
        })
    }

    fn flag(&self) -> Result<bool, Refusal> {
        self.wrong_flag.map_or(Ok(self.skip_cache), |content_type| Err(Refusal::NotAFlag(content_type)))
    }

    /// A claims challenge: the `claims` parameter of `OpenID` Connect Core 1.0, section 5.5, as Microsoft uses it.
    fn challenge(&self) -> Result<Option<&str>, Refusal> {
        if self.claims == Text::Missing {
            return Ok(None);
        }
        let text = self.claims.checked(Field::Claims)?;
        let is_object = || Document::parse(text).is_ok_and(|document| document.root().kind() == Kind::Object);
        if text.len() <= MAX_CLAIMS_BYTES && is_object() { Ok(Some(text)) } else { Err(Refusal::Claims) }
    }

    /// RFC 8707, section 2. The values are the provider's business: Maskinporten takes more than URIs.
    fn resources(&self) -> Result<&[Cow<'b, str>], Refusal> {
        let bytes: usize = self.resource.iter().map(|resource| resource.len()).sum();
        let fits = self.resource.len() <= MAX_RESOURCES && bytes <= MAX_RESOURCE_BYTES;
        if !self.wrong_resource && fits && !self.resource.iter().any(|resource| resource.is_empty()) {
            Ok(&self.resource)
        } else {
            Err(Refusal::Resource)
        }
    }

    /// RFC 9396, section 2.
    fn details(&self) -> Result<Option<&str>, Refusal> {
        let text = match &self.authorization_details {
            Text::Missing => return Ok(None),
            Text::Given(text) if text.len() <= MAX_DETAILS_BYTES => text,
            Text::Given(_) | Text::NotAString => return Err(Refusal::AuthorizationDetails),
        };
        let is_objects = |document: Document| {
            let root = document.root();
            root.kind() == Kind::Array && root.elements().all(|element| element.kind() == Kind::Object)
        };
        if Document::parse(&**text).is_ok_and(is_objects) { Ok(Some(text)) } else { Err(Refusal::AuthorizationDetails) }
    }

    fn set_text(&mut self, field: Field, text: Text<'b>) {
        match field {
            Field::IdentityProvider => self.identity_provider = text,
            Field::Target => self.target = text,
            Field::Token => self.token = text,
            Field::UserToken => self.user_token = text,
            Field::Claims => self.claims = text,
            Field::AuthorizationDetails => self.authorization_details = text,
            Field::Resource => match text {
                Text::Given(text) => self.resource = vec![text],
                Text::Missing => {}
                Text::NotAString => self.wrong_resource = true,
            },
            Field::SkipCache => {}
        }
    }

    /// The fields of an object in its plainest spelling, without a copy of it and without a tape: strings of
    /// ASCII without escapes, `true` and `false`, and single spaces. None if it is spelled in any other way,
    /// or is not JSON at all: then it is parsed. Every parser reads what is accepted here in the same way.
    fn of_plain_json(body: &'b [u8]) -> Option<Self> {
        let mut fields = Self::default();
        let mut seen = Seen::default();
        let mut rest = body.strip_prefix(b"{")?;
        loop {
            let (name, after) = plain_string(rest)?;
            let field = Field::of_name(name.as_bytes());
            if let Some(field) = field
                && !seen.is_first(field)
            {
                return None;
            }
            let value = after.strip_prefix(b":")?;
            let value = value.strip_prefix(b" ").unwrap_or(value);
            let after = if field == Some(Field::SkipCache) {
                fields.skip_cache = value.starts_with(b"true");
                value.strip_prefix(b"true").or_else(|| value.strip_prefix(b"false"))?
            } else {
                let (text, after) = plain_string(value)?;
                if let Some(field) = field {
                    fields.set_text(field, Text::Given(Cow::Borrowed(text)));
                }
                after
            };
            match after.split_first()? {
                (b'}', []) => return Some(fields),
                (b',', next) => rest = next.strip_prefix(b" ").unwrap_or(next),
                _ => return None,
            }
        }
    }

    fn of_json(root: Value<'b>) -> Result<Self, Refusal> {
        if root.kind() != Kind::Object {
            return Err(Refusal::NotAnObject);
        }
        let mut fields = Self::default();
        let mut seen = Seen::default();
        for (name, value) in root.members() {
            let Some(field) = name.as_str().and_then(|name| Field::of_name(name.as_bytes())) else { continue };
            if !seen.is_first(field) {
                return Err(Refusal::Repeated(field));
            }
            match (field, value.kind()) {
                (Field::SkipCache, Kind::Bool(flag)) => fields.skip_cache = flag,
                (_, Kind::Null) => {}
                (Field::SkipCache, _) => fields.wrong_flag = Some(ContentType::Json),
                (Field::Resource, Kind::Array) => {
                    // One more than are allowed, so that too many are noticed.
                    let texts = value.elements().take(MAX_RESOURCES + 1).map(Value::as_str).collect();
                    fields.wrong_resource = Option::is_none(&texts);
                    fields.resource = texts.unwrap_or_default();
                }
                (Field::AuthorizationDetails, Kind::Array) => {
                    fields.authorization_details = Text::Given(Cow::Borrowed(value.text()));
                }
                (_, _) => fields.set_text(field, value.as_str().map_or(Text::NotAString, Text::Given)),
            }
        }
        Ok(fields)
    }

    fn of_form(body: &'b [u8]) -> Result<Self, Refusal> {
        let mut fields = Self::default();
        let mut seen = Seen::default();
        for pair in Pairs::of(body) {
            let (name, value) = pair.map_err(Refusal::Form)?;
            // A name that cannot be decoded is not one of ours.
            let Some(field) = form_text(name).and_then(|name| Field::of_name(name.as_bytes())) else { continue };
            if !seen.is_first(field) {
                return Err(Refusal::Repeated(field));
            }
            let value = form_text(value).ok_or(Refusal::NotDecodable(field))?;
            if field == Field::SkipCache {
                fields.skip_cache = value == "true";
                fields.wrong_flag = (value != "true" && value != "false").then_some(ContentType::Form);
            } else {
                fields.set_text(field, Text::Given(value));
            }
        }
        Ok(fields)
    }
}

/// Which known fields a body has had so far, a bit each.
#[derive(Default)]
struct Seen(u8);

impl Seen {
    fn is_first(&mut self, field: Field) -> bool {
        let bit = 1 << field as u8;
        let first = self.0 & bit == 0;
        self.0 |= bit;
        first
    }
}

/// The string at the start of some JSON, if it is plain: ASCII without escapes or control characters.
fn plain_string(text: &[u8]) -> Option<(&str, &[u8])> {
    let text = text.strip_prefix(b"\"")?;
    let (content, rest) = text.split_at(memchr(b'"', text)?);
    let plain = all_bytes(content, |byte| (0x20..0x7f).contains(&byte) && byte != b'\\');
    if plain { Some((str::from_utf8(content).ok()?, &rest[1..])) } else { None }
}

/// `bytes().all(...)`, but without leaving early: that way many bytes are looked at in one step.
pub(crate) fn all_bytes(bytes: &[u8], fits: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(true, |all, byte| all & fits(*byte))
}

// --- forms ---------------------------------------------------------------------------------------------------------

/// Why a body is not an acceptable form (`application/x-www-form-urlencoded`: WHATWG URL, section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormError {
    /// More than [`MAX_FIELDS`] fields.
    TooManyFields,
    /// A known field is there more than once.
    Repeated,
    /// A known field's value is not percent-encoded UTF-8.
    NotDecodable,
}

impl fmt::Display for FormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyFields => write!(f, "request body has more than {MAX_FIELDS} fields"),
            Self::Repeated => f.write_str("request body has a field twice"),
            Self::NotDecodable => f.write_str("request body has a field that is not percent-encoded UTF-8"),
        }
    }
}

/// Name and value of a field.
pub type FormField<'b> = (Cow<'b, str>, Cow<'b, str>);

/// The known fields of any form, in their order, by the rules that hold for the fields of the contract: names compare
/// after decoding, and unknown fields are ignored, whatever is in them.
///
/// # Errors
/// A [`FormError`].
pub fn form_fields(body: &[u8], is_known: impl Fn(&str) -> bool) -> Result<Vec<FormField<'_>>, FormError> {
    let mut fields: Vec<FormField<'_>> = Vec::new();
    for pair in Pairs::of(body) {
        let (name, value) = pair?;
        let Some(name) = form_text(name).filter(|name| is_known(name)) else { continue };
        if fields.iter().any(|(known, _)| *known == name) {
            return Err(FormError::Repeated);
        }
        fields.push((name, form_text(value).ok_or(FormError::NotDecodable)?));
    }
    Ok(fields)
}

/// Names and values of a form, not decoded. Empty fields, as between `&&`, are none; a field without `=` has an empty
/// value.
struct Pairs<'b> {
    rest: &'b [u8],
    left: usize,
}

impl<'b> Pairs<'b> {
    fn of(body: &'b [u8]) -> Self {
        Self { rest: body, left: MAX_FIELDS }
    }
}

impl<'b> Iterator for Pairs<'b> {
    type Item = Result<(&'b [u8], &'b [u8]), FormError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut pair = &b""[..];
        while pair.is_empty() {
            if self.rest.is_empty() {
                return None;
            }
            (pair, self.rest) = cut(self.rest, b'&').unwrap_or((self.rest, b""));
        }
        let Some(left) = self.left.checked_sub(1) else { return Some(Err(FormError::TooManyFields)) };
        self.left = left;
        Some(Ok(cut(pair, b'=').unwrap_or((pair, b""))))
    }
}

fn cut(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = memchr(at, bytes)?;
    Some((&bytes[..position], &bytes[position + 1..]))
}

/// Decode a name or a value of a form; None if an escape is not one, or the bytes are not UTF-8.
fn form_text(bytes: &[u8]) -> Option<Cow<'_, str>> {
    if memchr2(b'%', b'+', bytes).is_none() {
        return str::from_utf8(bytes).ok().map(Cow::Borrowed);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut bytes = bytes.iter();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let (high, low) = (char::from(*bytes.next()?), char::from(*bytes.next()?));
                let value = high.to_digit(16)? << 4 | low.to_digit(16)?;
                u8::try_from(value).ok()?
            }
            other => *other,
        });
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

// --- callers -------------------------------------------------------------------------------------------------------

/// The headers that identify the kind of caller.
#[derive(Debug, Clone, Copy, Default)]
pub struct CallerHeaders<'h> {
    /// The values of all Host headers.
    pub hosts: &'h [&'h str],
    /// Whether there is an Origin header.
    pub has_origin: bool,
    /// The values of all Sec-Fetch-Site headers.
    pub fetch_sites: &'h [&'h str],
    /// Whether there is an X-Forwarded-For header.
    pub is_forwarded: bool,
}

/// The caller check: a sidecar trusts its pod, not a page in the browser of a developer.
#[derive(Debug, Clone)]
pub struct CallerCheck {
    /// Host names in lower case.
    allowed_hosts: Vec<String>,
}

impl CallerCheck {
    /// A check that accepts these hosts (names or addresses without port and brackets) in addition to loopback ones.
    #[must_use]
    pub fn new(allowed_hosts: impl IntoIterator<Item = String>) -> Self {
        Self { allowed_hosts: allowed_hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect() }
    }

    /// Check a request to the main listener.
    ///
    /// # Errors
    /// A [`Refusal`] of the caller.
    pub fn check(&self, headers: CallerHeaders<'_>) -> Result<(), Refusal> {
        // DNS rebinding: a page's own name may now resolve to 127.0.0.1.
        match headers.hosts {
            [host] if self.allows_host(host) => {}
            _ => return Err(Refusal::Host),
        }
        Self::check_probe(headers)?;
        if headers.is_forwarded { Err(Refusal::Forwarded) } else { Ok(()) }
    }

    /// Check a request to the probe listener, which the kubelet and Prometheus call by the address of the pod.
    ///
    /// # Errors
    /// A [`Refusal`] of the caller.
    pub fn check_probe(headers: CallerHeaders<'_>) -> Result<(), Refusal> {
        if headers.has_origin {
            return Err(Refusal::Origin);
        }
        if headers.fetch_sites.iter().any(|site| site.trim_ascii().eq_ignore_ascii_case("cross-site")) {
            return Err(Refusal::CrossSite);
        }
        Ok(())
    }

    /// Whether the value of a Host header is a loopback host or an allowed one.
    #[must_use]
    pub fn allows_host(&self, host: &str) -> bool {
        host_name(host).is_some_and(|name| {
            is_loopback_host(name) || self.allowed_hosts.iter().any(|allowed| name.eq_ignore_ascii_case(allowed))
        })
    }
}

/// The name or address in a Host header (RFC 9110, section 7.2), without port and brackets; None if it is malformed.
#[must_use]
pub fn host_name(host: &str) -> Option<&str> {
    let host = host.trim_ascii();
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').filter(|(name, _)| name.contains(':'))?,
        None => host.split_at(memchr(b':', host.as_bytes()).unwrap_or(host.len())),
    };
    let is_port = |port: &str| (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    let well_formed = !name.is_empty() && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    well_formed.then_some(name)
}

/// Whether a host name or address, without port and brackets, is the loopback of this machine.
#[must_use]
pub fn is_loopback_host(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || host.parse::<Ipv6Addr>().is_ok_and(|address| {
            address.is_loopback() || address.to_ipv4_mapped().is_some_and(|address| address.is_loopback())
        })
}

/// Whether a request that changes something comes from one of the server's own pages, or not from a browser at all.
///
/// For servers with pages; the sidecar has none and refuses every request from a page.
/// `own_origin` is the server's (scheme, host and port); `host` is the Host header of the request, by which the same
/// pages may be reached under another allowed name.
#[must_use]
pub fn is_own_page(fetch_site: Option<&str>, origin: Option<&str>, own_origin: &str, host: &str) -> bool {
    let is_own_site = |site: &str| {
        let site = site.trim_ascii();
        site.eq_ignore_ascii_case("same-origin") || site.eq_ignore_ascii_case("none")
    };
    let is_own_origin = |origin: &str| {
        let under_another_name = || {
            let (scheme, authority) = origin.split_once("://")?;
            let (own_scheme, _) = own_origin.split_once("://")?;
            Some(scheme == own_scheme && !host.is_empty() && authority.eq_ignore_ascii_case(host))
        };
        origin == own_origin || under_another_name().unwrap_or(false)
    };
    fetch_site.is_none_or(is_own_site) && origin.is_none_or(is_own_origin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sidecar::providers::{Names, Provider};

    const TOO_LONG: usize = MAX_TARGET_BYTES + 1;

    #[test]
    fn targets_and_their_scopes() {
        for (target, scope) in [
            ("dev-gcp:team:app", "api://dev-gcp.team.app/.default"),
            ("a.b:c_d:e-f", "api://a.b.c_d.e-f/.default"),
            ("apis:n:a", "api://apis.n.a/.default"),
            ("api://dev-gcp.team.app/.default", "api://dev-gcp.team.app/.default"),
            ("api://x/Some.Scope", "api://x/Some.Scope"),
            ("api://x:y:z", "api://x:y:z"),
            ("api://a/.default offline_access", "api://a/.default offline_access"),
            ("https://graph.microsoft.com/.default", "https://graph.microsoft.com/.default"),
            ("https://storage.azure.com//.default", "https://storage.azure.com//.default"),
            ("11111111-2222-3333-4444-555555555555/.default", "11111111-2222-3333-4444-555555555555/.default"),
        ] {
            assert_eq!(scope_for(target, true).as_deref(), Ok(scope), "{target}");
        }
        for scope in [
            "a",
            "User.Read",
            "openid profile",
            "11111111-2222-3333-4444-555555555555",
            "a:b",
            "a::c",
            ":b:c",
            "a:b:",
            "a:b:c:d",
            "a b:c:d",
            "a:b/x:c",
            "a:b:c~",
            "a:b:c%20",
            "urn:n:a",
            "URN:n:a",
            "api:n:a",
            "http:n:a",
            "HTTPS:n:a",
            "ftp://x",
            "nav:helse/sykepenger/afp.read",
        ] {
            assert_eq!(scope_for(scope, true).as_deref(), Ok(scope), "{scope}");
        }
        let long = format!("api://{}", "a".repeat(TOO_LONG));
        for target in [
            "",
            "a:b:\u{e9}",
            "api://x\n",
            "api://x  y",
            " api://x",
            "api://x ",
            "api://\"",
            "api://\\",
            "api://\u{e9}",
            &long,
        ] {
            assert_eq!(scope_for(target, true), Err(Refusal::Target), "{target}");
        }
    }

    /// Two providers, one of which knows everything.
    fn several() -> Providers {
        let mut both = one().enabled().to_vec();
        both.push(Provider { name: "other".into(), exchanges: true, ..Provider::default() });
        providers(both)
    }

    /// A provider that knows everything.
    fn one() -> Providers {
        providers(vec![Provider {
            name: "entra_id".into(),
            aliases: vec!["azuread".into()],
            issues: true,
            exchanges: true,
            accepts_claims: true,
            accepts_details: true,
            ..Provider::default()
        }])
    }

    fn providers(enabled: Vec<Provider>) -> Providers {
        let names = |provider: &Provider| Names { name: provider.name.clone(), aliases: provider.aliases.clone() };
        let known = enabled.iter().map(names).collect();
        Providers::new(enabled, known)
    }

    /// What a body asks of an endpoint, or the sentence of the refusal.
    fn asked(endpoint: Endpoint, content_type: ContentType, body: &[u8]) -> Result<String, String> {
        asked_of(endpoint, content_type, body, &several())
    }

    fn asked_of(
        endpoint: Endpoint,
        content_type: ContentType,
        body: &[u8],
        providers: &Providers,
    ) -> Result<String, String> {
        let shown = |request: TokenRequest<'_>| {
            format!("{} {} {}", request.target, request.user_token.unwrap_or("-"), request.skip_cache)
        };
        with_fields(content_type, body, |fields| match endpoint {
            Endpoint::Token => fields.token_request(providers).map(shown),
            Endpoint::Exchange => fields.exchange_request(providers).map(shown),
            Endpoint::Introspect => fields.introspected_token(providers).map(|(_, token)| token.to_owned()),
        })
        .flatten()
        .map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn fields_of_json() {
        for (endpoint, body, expected) in [
            (Endpoint::Token, r#"{"identity_provider":"entra_id","target":"t"}"#, Ok("t - false")),
            (Endpoint::Token, r#"{"identity_provider":"azuread","target":"t","user_token":"u"}"#, Ok("t - false")),
            (Endpoint::Token, r#" { "identity_provider" :"entra_id","target":"t","skip_cache":true}"#, Ok("t - true")),
            (Endpoint::Token, r#"{"identity_provider":"entra_id","target":"t","skip_cache":null}"#, Ok("t - false")),
            (Endpoint::Token, r#"{"identity_provider":"entra_id","t\u0061rget":"\u0074"}"#, Ok("t - false")),
            (Endpoint::Token, r#"{"identity_provider":"entra_id","target":"t","x":1,"x":[2]}"#, Ok("t - false")),
            (Endpoint::Token, r#"{"identity_provider":"entra_id","target":"t","x":"1","x":"2"}"#, Ok("t - false")),
            (Endpoint::Token, r#"{"identity_provider":"entra_id","target":"t","Target":"u"}"#, Ok("t - false")),
            (Endpoint::Exchange, r#"{"identity_provider":"entra_id","target":"t","user_token":"u"}"#, Ok("t u false")),
            (Endpoint::Introspect, r#"{"identity_provider":"entra_id","token":"a.b.c","skip_cache":1}"#, Ok("a.b.c")),
            (Endpoint::Token, r#"{"target":"t"}"#, Err("identity_provider is missing: expected 'entra_id' or 'other'")),
            (
                Endpoint::Token,
                r#"{"identity_provider":null,"target":"t"}"#,
                Err("identity_provider is missing: expected 'entra_id' or 'other'"),
            ),
            (Endpoint::Token, r#"{"identity_provider":5,"target":"t"}"#, Err("identity_provider must be a string")),
            (Endpoint::Token, r#"{"identity_provider":"","target":"t"}"#, Err("identity_provider must not be empty")),
            (
                Endpoint::Token,
                r#"{"identity_provider":"Entra_id","target":"t"}"#,
                Err("identity_provider must be 'entra_id' (or its older name 'azuread') or 'other'"),
            ),
            (Endpoint::Token, r#"{"identity_provider":"entra_id"}"#, Err("target is missing: expected a string")),
            (Endpoint::Token, r#"{"identity_provider":"entra_id","target":["t"]}"#, Err("target must be a string")),
            (
                Endpoint::Token,
                r#"{"identity_provider":"entra_id","target":"t","skip_cache":"true"}"#,
                Err("skip_cache must be true or false, as a JSON boolean"),
            ),
            (
                Endpoint::Exchange,
                r#"{"identity_provider":"entra_id","target":"t"}"#,
                Err("user_token is missing: expected a string"),
            ),
            (
                Endpoint::Token,
                r#"{"identity_provider":"entra_id","target":"t","target":"t"}"#,
                Err("target must be given once"),
            ),
            (
                Endpoint::Token,
                r#"{"identity_provider":"entra_id","target":null,"t\u0061rget":"t"}"#,
                Err("target must be given once"),
            ),
            (Endpoint::Token, "", Err("request body is not valid JSON: text that is not JSON")),
            (Endpoint::Token, "[]", Err("request body must be a JSON object")),
            (
                Endpoint::Token,
                r#"{"identity_provider":"entra_id","target":"t","x":{"y":1,"y":2}}"#,
                Err("request body is not valid JSON: a duplicate member"),
            ),
            (Endpoint::Token, r"{} x", Err("request body is not valid JSON: bytes after the value")),
        ] {
            let found = asked(endpoint, ContentType::Json, body.as_bytes());
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{body}");
        }
    }

    #[test]
    fn the_provider_may_be_left_out_where_there_is_one() {
        use ContentType::{Form, Json};
        for (endpoint, content_type, body, expected) in [
            (Endpoint::Token, Json, r#"{"target":"t"}"#, Ok("t - false")),
            (Endpoint::Token, Json, r#"{"identity_provider":null,"target":"t"}"#, Ok("t - false")),
            (Endpoint::Exchange, Json, r#"{"target":"t","user_token":"u"}"#, Ok("t u false")),
            (Endpoint::Introspect, Json, r#"{"token":"a.b.c"}"#, Ok("a.b.c")),
            (Endpoint::Token, Form, "target=t", Ok("t - false")),
            (Endpoint::Exchange, Form, "target=t&user_token=u", Ok("t u false")),
            (Endpoint::Introspect, Form, "token=a.b.c&token_type_hint=access_token", Ok("a.b.c")),
            (
                Endpoint::Token,
                Json,
                r#"{"identity_provider":"","target":"t"}"#,
                Err("identity_provider must not be empty"),
            ),
            (Endpoint::Introspect, Form, "identity_provider=&token=t", Err("identity_provider must not be empty")),
            (Endpoint::Introspect, Form, "identity_provider&token=t", Err("identity_provider must not be empty")),
            (
                Endpoint::Introspect,
                Json,
                r#"{"identity_provider":5,"token":"t"}"#,
                Err("identity_provider must be a string"),
            ),
            (
                Endpoint::Token,
                Form,
                "identity_provider=tokenx&target=t",
                Err("identity_provider must be 'entra_id' (or its older name 'azuread')"),
            ),
            (Endpoint::Token, Form, "", Err("target is missing: expected a string")),
        ] {
            let found = asked_of(endpoint, content_type, body.as_bytes(), &one());
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{body}");
        }
    }

    #[test]
    fn fields_of_forms() {
        let many = |count: usize| format!("identity_provider=entra_id&target=t{}", "&x=1".repeat(count - 2));
        let (most, too_many) = (many(MAX_FIELDS), many(MAX_FIELDS + 1));
        for (endpoint, body, expected) in [
            (Endpoint::Token, "identity_provider=entra_id&target=t", Ok("t - false")),
            (Endpoint::Token, "target=c%3An%3aa&identity_provider=azuread&skip_cache=true", Ok("c:n:a - true")),
            (Endpoint::Token, "identity_provider=entra_id&%74arget=t&x=&=y", Ok("t - false")),
            (Endpoint::Token, "identity_provider=entra_id&target=a+b%20c", Ok("a b c - false")),
            (Endpoint::Token, "identity_provider=entra_id&target=t&x=1&x=%zz&%zz=2&%ff=3", Ok("t - false")),
            (Endpoint::Token, "identity_provider=entra_id&target=t&Target=u&TARGET=v", Ok("t - false")),
            (Endpoint::Token, &most, Ok("t - false")),
            (Endpoint::Exchange, "identity_provider=entra_id&target=t&user_token=u=v", Ok("t u=v false")),
            (Endpoint::Introspect, "identity_provider=entra_id&token=%C3%A6\u{e6}", Ok("\u{e6}\u{e6}")),
            (Endpoint::Token, "", Err("identity_provider is missing: expected 'entra_id' or 'other'")),
            (Endpoint::Token, "identity_provider=entra_id&target=", Err("target must not be empty")),
            (Endpoint::Token, "identity_provider=entra_id&target=t&target=t", Err("target must be given once")),
            (Endpoint::Token, "identity_provider=entra_id&target=t&%74arget=t", Err("target must be given once")),
            (Endpoint::Token, "identity_provider=entra_id&target=%zz", Err("target must be percent-encoded UTF-8")),
            (Endpoint::Token, "identity_provider=entra_id&target=%ff", Err("target must be percent-encoded UTF-8")),
            (Endpoint::Token, "identity_provider=entra_id&target=a%2", Err("target must be percent-encoded UTF-8")),
            (Endpoint::Token, "identity_provider=entra_id&target=%+1", Err("target must be percent-encoded UTF-8")),
            (Endpoint::Token, "identity_provider=entra_id&target", Err("target must not be empty")),
            (Endpoint::Token, "&&identity_provider=entra_id&&target=t&x&&", Ok("t - false")),
            (Endpoint::Token, "identity_provider=entra_id&target=t&=", Ok("t - false")),
            (Endpoint::Token, "identity_provider=entra_id&target=t&target", Err("target must be given once")),
            (
                Endpoint::Token,
                "identity_provider=entra_id&target=t&skip_cache=1",
                Err("skip_cache must be 'true' or 'false'"),
            ),
            (Endpoint::Token, &too_many, Err("request body has more than 256 fields")),
        ] {
            let found = asked(endpoint, ContentType::Form, body.as_bytes());
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{body}");
        }
        let raw = b"identity_provider=entra_id&x=\xff&target=\xff";
        let sentence = "target must be percent-encoded UTF-8".to_owned();
        assert_eq!(asked(Endpoint::Token, ContentType::Form, raw), Err(sentence));
    }

    #[test]
    fn a_claims_challenge_is_the_text_of_an_object() {
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_CLAIMS_BYTES));
        let longest = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_CLAIMS_BYTES - 8));
        let wrong = || Err(Refusal::Claims);
        for (claims, expected) in [
            (
                r#""{\"access_token\":{\"nbf\":{\"value\":\"1\"}}}""#,
                Ok(Some(r#"{"access_token":{"nbf":{"value":"1"}}}"#)),
            ),
            ("\" {} \"", Ok(Some(" {} "))),
            ("null", Ok(None)),
            (r#""""#, Err(Refusal::Empty(Field::Claims))),
            (r#"{"access_token":{}}"#, Err(Refusal::NotAString(Field::Claims))),
            ("true", Err(Refusal::NotAString(Field::Claims))),
            (r#""[]""#, wrong()),
            (r#""eyJhY2Nlc3NfdG9rZW4iOnt9fQ""#, wrong()),
            (r#""{} x""#, wrong()),
            (r#""{\"a\":1,\"a\":2}""#, wrong()),
            (&json_string(&long), wrong()),
            (&json_string(&longest), Ok(Some(&*longest))),
        ] {
            let body = format!(r#"{{"identity_provider":"entra_id","target":"t","claims":{claims}}}"#);
            let found = with_fields(ContentType::Json, body.as_bytes(), |fields| {
                fields.token_request(&one()).map(|request| request.claims.map(str::to_owned))
            });
            assert_eq!(found.flatten(), expected.map(|claims| claims.map(str::to_owned)), "{claims}");
        }
        let form = b"target=t&user_token=u&claims=%7B%22a%22:1%7D";
        let found = with_fields(ContentType::Form, form, |fields| {
            let request = fields.exchange_request(&one())?;
            Ok((request.user_token.map(str::to_owned), request.claims.map(str::to_owned)))
        });
        assert_eq!(found.flatten(), Ok((Some("u".to_owned()), Some(r#"{"a":1}"#.to_owned()))));
        // The introspection endpoint has no such field, so whatever is in it is ignored.
        let ignored = b"token=a&claims=x&resource=&authorization_details=x";
        assert_eq!(asked_of(Endpoint::Introspect, ContentType::Form, ignored, &one()), Ok("a".to_owned()));
        // So has a provider without claims challenges.
        assert_eq!(
            asked(Endpoint::Exchange, ContentType::Form, b"identity_provider=other&target=t&user_token=u&claims=x"),
            Ok("t u false".to_owned())
        );
    }

    /// `resource` and `authorization_details` as a provider gets them, or the sentence of the refusal.
    fn details(content_type: ContentType, body: &str) -> Result<(Vec<String>, Option<String>), String> {
        with_fields(content_type, body.as_bytes(), |fields| {
            let request = fields.token_request(&one())?;
            let resources = request.resources.iter().map(|resource| resource.clone().into_owned()).collect();
            Ok((resources, request.authorization_details.map(str::to_owned)))
        })
        .flatten()
        .map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn resources_are_a_text_or_an_array_of_texts() {
        let json = |value: &str| details(ContentType::Json, &format!(r#"{{"target":"t","resource":{value}}}"#));
        let values = |values: &[&str]| Ok((values.iter().map(|value| (*value).to_owned()).collect(), None));
        assert_eq!(json("null"), values(&[]));
        assert_eq!(json("[]"), values(&[]));
        assert_eq!(json(r#""https://a""#), values(&["https://a"]));
        assert_eq!(json(r#"["https:\/\/a","b c"]"#), values(&["https://a", "b c"]));
        assert_eq!(details(ContentType::Form, "target=t&resource=https%3A//a"), values(&["https://a"]));
        let array = |count: usize| format!("[{}]", vec![r#""a""#; count].join(","));
        assert!(json(&array(MAX_RESOURCES)).is_ok());
        let long = |count: usize| json_string(&"x".repeat(count));
        assert!(json(&long(MAX_RESOURCE_BYTES)).is_ok());
        let sentence = "resource must be a string or an array of at most 16 strings, none of them empty, of at most 4096 \
                        bytes together";
        for value in [
            r#""""#,
            "1",
            "{}",
            "true",
            r#"["a",1]"#,
            r#"["a",""]"#,
            r#"["a",["b"]]"#,
            "[null]",
            &array(MAX_RESOURCES + 1),
            &long(MAX_RESOURCE_BYTES + 1),
        ] {
            assert_eq!(json(value), Err(sentence.to_owned()), "{value}");
        }
        assert_eq!(details(ContentType::Form, "target=t&resource="), Err(sentence.to_owned()));
        let twice = Err("resource must be given once".to_owned());
        assert_eq!(details(ContentType::Form, "target=t&resource=a&resource=b"), twice);
    }

    #[test]
    fn authorization_details_are_an_array_of_objects_or_its_text() {
        let json =
            |value: &str| details(ContentType::Json, &format!(r#"{{"target":"t","authorization_details":{value}}}"#));
        let text = |text: &str| Ok((Vec::new(), Some(text.to_owned())));
        assert_eq!(json("null"), Ok((Vec::new(), None)));
        assert_eq!(json(r#"[ {"type":"a"} ]"#), text(r#"[ {"type":"a"} ]"#));
        assert_eq!(json(r#""[{\"type\":\"a\"}]""#), text(r#"[{"type":"a"}]"#));
        let form = "target=t&authorization_details=%5B%7B%22type%22:%22a%22%7D%5D";
        assert_eq!(details(ContentType::Form, form), text(r#"[{"type":"a"}]"#));
        let of_length = |length: usize| format!(r#"[{{"type":"{}"}}]"#, "x".repeat(length - 13));
        assert!(json(&of_length(MAX_DETAILS_BYTES)).is_ok());
        let sentence = "authorization_details must be a JSON array of objects, or a string with the text of one, of at \
                        most 8192 bytes";
        for value in [
            "{}",
            "1",
            "[1]",
            r#"[{"type":"a"},null]"#,
            r#""""#,
            r#""x""#,
            r#""{}""#,
            r#""[1]""#,
            r#""[{\"a\":1,\"a\":2}]""#,
            &of_length(MAX_DETAILS_BYTES + 1),
        ] {
            assert_eq!(json(value), Err(sentence.to_owned()), "{value}");
        }
        assert_eq!(details(ContentType::Form, "target=t&authorization_details=x"), Err(sentence.to_owned()));
    }

    #[test]
    fn fields_that_a_provider_does_not_know_are_ignored_whatever_is_in_them() {
        let body = r#"{"identity_provider":"plain","target":"t","claims":1,"resource":{},"authorization_details":1}"#;
        let plain = Provider { name: "plain".into(), issues: true, ..Provider::default() };
        let found = with_fields(ContentType::Json, body.as_bytes(), |fields| {
            let request = fields.token_request(&providers(vec![plain.clone()]))?;
            Ok((request.claims.is_some(), request.resources.len(), request.authorization_details.is_some()))
        });
        assert_eq!(found.flatten(), Ok((false, 0, false)));
    }

    fn json_string(text: &str) -> String {
        let mut out = Vec::new();
        crate::jose::json::write_string(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn other_forms_are_read_by_the_same_rules() {
        let known = |name: &str| name == "aud" || name == "x";
        let fields = |body: &'static str| form_fields(body.as_bytes(), known);
        let expected = || Ok(vec![("aud".into(), "a b".into()), ("x".into(), "".into())]);
        assert_eq!(fields("y=1&a%75d=a+b&y=%zz&x="), expected());
        assert_eq!(fields("&&aud=a+b&y&x&"), expected());
        assert_eq!(fields(""), Ok(vec![]));
        for (body, error) in [("aud=1&x=2&%61ud=3", FormError::Repeated), ("aud=%ff", FormError::NotDecodable)] {
            assert_eq!(fields(body), Err(error), "{body}");
        }
        let many = "y=1&".repeat(MAX_FIELDS) + "y=1";
        assert_eq!(form_fields(many.as_bytes(), |_| false), Err(FormError::TooManyFields));
    }

    #[test]
    fn loopback_hosts() {
        for host in ["localhost", "LOCALHOST", "LocalHost", "127.0.0.1", "127.8.9.1", "::1", "0:0:0:0:0:0:0:1"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in ["::ffff:127.0.0.1", "::FFFF:127.1.2.3", "::ffff:7f00:1"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in [
            "",
            "localhost.",
            "localhost ",
            "localhost.evil.example",
            "127.1",
            "127.0.0.1.",
            "127.0.0.01",
            "0x7f.0.0.1",
            "2130706433",
            "10.0.0.1",
            "0.0.0.0",
            "::",
            "::2",
            "::127.0.0.1",
            "::ffff:10.0.0.1",
            "[::1]",
            "::1%lo",
            "evil",
        ] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }

    #[test]
    fn hosts_that_are_allowed() {
        let callers = CallerCheck::new(["Sidecar.Internal".to_owned(), "fd00::1".to_owned()]);
        for host in [
            "localhost",
            "LOCALHOST:3000",
            " localhost ",
            "127.0.0.1:7164",
            "[::1]",
            "[::1]:80",
            "[::ffff:127.0.0.1]:80",
            "sidecar.internal",
            "SIDECAR.internal:1",
            "[fd00::1]:65535",
        ] {
            assert!(callers.allows_host(host), "{host}");
        }
        for host in [
            "",
            ":80",
            "evil.example",
            "localhost.evil.example",
            "localhost:",
            "127.0.0.1:x",
            "localhost:123456",
            "10.0.0.1",
            "localhost:8:0",
            "::1",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[127.0.0.1]",
            "[localhost]",
            "[]",
            "[",
            "fd00::1",
            "[fd00::2]",
            "a@localhost",
            "localhost@evil",
            "localhost/",
            "local\u{212a}host",
        ] {
            assert!(!callers.allows_host(host), "{host}");
        }
    }

    #[test]
    fn callers_that_are_refused() {
        let callers = CallerCheck::new([]);
        let good = CallerHeaders { hosts: &["localhost:3000"], ..CallerHeaders::default() };
        let check =
            |headers: CallerHeaders<'_>| (callers.check(headers).err(), CallerCheck::check_probe(headers).err());
        assert_eq!(check(good), (None, None));
        let same = CallerHeaders { fetch_sites: &["same-origin", "none"], ..good };
        assert_eq!(check(same), (None, None));
        for hosts in [&[][..], &["10.1.2.3"], &["localhost", "localhost"]] {
            assert_eq!(check(CallerHeaders { hosts, ..good }), (Some(Refusal::Host), None), "{hosts:?}");
        }
        let origin = CallerHeaders { has_origin: true, ..good };
        assert_eq!(check(origin), (Some(Refusal::Origin), Some(Refusal::Origin)));
        for fetch_sites in [&["cross-site"][..], &["none", " Cross-Site "]] {
            let headers = CallerHeaders { fetch_sites, ..good };
            assert_eq!(check(headers), (Some(Refusal::CrossSite), Some(Refusal::CrossSite)), "{fetch_sites:?}");
        }
        let forwarded = CallerHeaders { is_forwarded: true, ..good };
        assert_eq!(check(forwarded), (Some(Refusal::Forwarded), None));
    }

    #[test]
    fn pages_that_are_the_servers_own() {
        let own = "http://entra:8080";
        for (site, origin, host) in [
            (None, None, ""),
            (Some("same-origin"), Some(own), "entra:8080"),
            (Some("none"), None, "entra:8080"),
            (None, Some(own), "localhost:8080"),
            (None, Some("http://localhost:8080"), "LOCALHOST:8080"),
        ] {
            assert!(is_own_page(site, origin, own, host), "{site:?} {origin:?} {host}");
        }
        for (site, origin, host) in [
            (Some("cross-site"), None, "entra:8080"),
            (Some("same-site"), Some(own), "entra:8080"),
            (Some(""), None, "entra:8080"),
            (None, Some("null"), "entra:8080"),
            (None, Some(""), ""),
            (None, Some("http://"), ""),
            (None, Some("http://["), "entra:8080"),
            (None, Some("http://evil.example"), "entra:8080"),
            (None, Some("https://localhost:8080"), "localhost:8080"),
            (None, Some("http://localhost:8081"), "localhost:8080"),
            (None, Some("localhost:8080"), "localhost:8080"),
        ] {
            assert!(!is_own_page(site, origin, own, host), "{site:?} {origin:?} {host}");
        }
    }

    proptest::proptest! {
        /// What is read without the parser is what the parser reads; and what it refuses is refused.
        #[test]
        fn plain_json_is_read_as_the_parser_reads_it(
            body in r#"\{("(token|target|skip_cache|claims|resource|authorization_details|x|)" ?: ?("[ab\\\\é]{0,2}"|true|false|null|1|\["a"\])(,|, |)){0,4}\}[ x]?"#,
        ) {
            if let Some(fields) = Fields::of_plain_json(body.as_bytes()) {
                let document = Document::parse_with_repeated_members(body.as_str()).unwrap();
                proptest::prop_assert_eq!(Ok(fields), Fields::of_json(document.root()));
            }
        }
    }

    #[test]
    fn plain_json_is_read_without_a_tape() {
        let fields = |body: &'static str| Fields::of_plain_json(body.as_bytes());
        for body in [
            r#"{"identity_provider":"entra_id","token":"a.b.c"}"#,
            r#"{"identity_provider": "entra_id", "token": "a.b.c"}"#,
            r#"{"identity_provider":"entra_id","other":"","token":"a.b.c","skip_cache":true}"#,
        ] {
            let found = fields(body).unwrap();
            assert_eq!(found.token, Text::Given("a.b.c".into()));
            assert_eq!(found.skip_cache, body.contains("true"));
        }
        for body in [
            "",
            "{}",
            r#"{"resource":["a"]}"#,
            r#"{"token":"a"} "#,
            r#"{"token":"a","x":1}"#,
            r#"{"token":"a","token":"a"}"#,
            r#"{"token":"a",}"#,
            r#"{"token":"\u0061"}"#,
            r#"{"token":"é"}"#,
            r#"{"token":1}"#,
            r#"{"skip_cache":"true"}"#,
            r#"{"skip_cache":null}"#,
            r#"{"skip_cache":truer}"#,
        ] {
            assert!(fields(body).is_none(), "{body}");
        }
    }

    #[test]
    fn endpoints_have_a_path_and_a_name() {
        for (endpoint, path, name) in [
            (Endpoint::Token, "/api/v1/token", "token"),
            (Endpoint::Exchange, "/api/v1/token/exchange", "exchange"),
            (Endpoint::Introspect, "/api/v1/introspect", "introspect"),
        ] {
            assert_eq!((endpoint.path(), endpoint.name()), (path, name));
            assert_eq!(Endpoint::of_path(path.as_bytes()), Some(endpoint));
        }
        for path in ["", "/", "/api/v1/token/", "/api/v1/Token", "/api/v1/token?x"] {
            assert_eq!(Endpoint::of_path(path.as_bytes()), None, "{path}");
        }
    }

    #[test]
    fn a_request_has_one_content_type_of_two() {
        for (values, expected) in [
            (&["application/json"][..], Ok(ContentType::Json)),
            (&[" Application/JSON ; charset=utf-8"], Ok(ContentType::Json)),
            (&["application/x-www-form-urlencoded;x"], Ok(ContentType::Form)),
            (&[], Err(Refusal::ContentType)),
            (&["application/json", "application/json"], Err(Refusal::ContentType)),
            (&["application/jsonp"], Err(Refusal::ContentType)),
            (&["text/plain; application/json"], Err(Refusal::ContentType)),
            (&[""], Err(Refusal::ContentType)),
        ] {
            assert_eq!(ContentType::of_headers(values), expected, "{values:?}");
        }
    }

    #[test]
    fn only_a_wrong_target_has_a_code_of_its_own() {
        assert_eq!(Refusal::Target.code(), "target_invalid");
        for other in
            [Refusal::Host, Refusal::Missing(Field::Target), Refusal::NotAnObject, Refusal::AuthorizationDetails]
        {
            assert_eq!(other.code(), "request_invalid");
        }
    }

    #[test]
    fn a_field_that_is_given_twice_is_named() {
        for name in [
            "identity_provider",
            "target",
            "token",
            "user_token",
            "skip_cache",
            "claims",
            "resource",
            "authorization_details",
        ] {
            let form = format!("{name}=true&{name}=true");
            let error = asked(Endpoint::Token, ContentType::Form, form.as_bytes());
            assert_eq!(error, Err(format!("{name} must be given once")));
        }
    }

    #[test]
    fn a_target_may_have_4096_bytes() {
        let longest = "a".repeat(4096);
        assert_eq!(scope_for(&longest, true).as_deref(), Ok(&*longest));
        assert_eq!(scope_for(&"a".repeat(4097), true), Err(Refusal::Target));
        assert_eq!(MAX_BODY_BYTES, 131_072);
    }
}
