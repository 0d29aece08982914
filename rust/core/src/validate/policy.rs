//! The conditions for accepting a token. A policy is complete when constructed and immutable afterwards.
//!
//! Asking for a check makes its claim required: a policy always has an issuer, so a token without `iss` is refused, and
//! so is one without `aud` unless the policy says that the audience is not checked; `exp` is always required.

use crate::jose::algorithm::{Accepted, Algorithm};
use crate::jose::signature::Signatures;
use crate::jose::token::MAX_TOKEN_BYTES;

/// The part of an issuer that stands for the tenant, in Microsoft's metadata.
pub const TENANT_PLACEHOLDER: &str = "{tenantid}";

/// Longest leeway that is accepted, in seconds: more than that is not clock skew.
pub const MAX_LEEWAY: f64 = 600.0;

/// An invalid policy: which setting, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    /// The setting's name, as in the library's arguments.
    pub setting: &'static str,
    /// What is wrong and what was expected.
    pub message: &'static str,
}

impl std::fmt::Display for PolicyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.setting, self.message)
    }
}

impl std::error::Error for PolicyError {}

/// Which tenants may have issued a token, in addition to the check of the issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tenants {
    /// Whatever the accepted issuers imply.
    ByIssuer,
    /// Any tenant: the application does its own sign-up check.
    Any,
    /// Only these, by id (lower case).
    Listed(Vec<String>),
}

/// An accepted issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Issuer {
    /// `iss` must equal it.
    Exact(String),
    /// `iss` must equal it with the token's own `tid` between the two parts.
    Template(String, String),
}

impl Issuer {
    /// Read an issuer: a template where it holds [`TENANT_PLACEHOLDER`].
    #[must_use]
    pub fn parse(issuer: &str) -> Self {
        match issuer.split_once(TENANT_PLACEHOLDER) {
            Some((before, after)) => Self::Template(before.to_owned(), after.to_owned()),
            None => Self::Exact(issuer.to_owned()),
        }
    }

    /// Does it accept this `iss` of a token of this tenant? Exact comparison only.
    #[must_use]
    pub fn accepts(&self, iss: &str, tid: Option<&str>) -> bool {
        match self {
            Self::Exact(issuer) => issuer == iss,
            Self::Template(before, after) => tid.is_some_and(|tid| {
                iss.strip_prefix(before.as_str()).and_then(|rest| rest.strip_suffix(after.as_str())) == Some(tid)
            }),
        }
    }

    /// Does a key that is published for this issuer verify tokens with this `iss`, of this tenant? Of the issuer itself,
    /// and where it is Entra ID's v2.0 issuer, of the v1.0 issuer of the same tenant: Entra ID signs both with the same
    /// keys, and Microsoft's own libraries accept that on purpose.
    #[must_use]
    pub fn covers(&self, iss: &str, tid: Option<&str>) -> bool {
        self.accepts(iss, tid) || self.v1().is_some_and(|v1| v1.accepts(iss, tid))
    }

    /// The v1.0 issuer of the same tenant, where this is Entra ID's v2.0 issuer.
    fn v1(&self) -> Option<Self> {
        const V2: (&str, &str) = ("https://login.microsoftonline.com/", "/v2.0");
        const V1: (&str, &str) = ("https://sts.windows.net/", "/");
        match self {
            Self::Template(before, after) => {
                ((before.as_str(), after.as_str()) == V2).then(|| Self::Template(V1.0.to_owned(), V1.1.to_owned()))
            }
            Self::Exact(issuer) => {
                let tenant = issuer.strip_prefix(V2.0)?.strip_suffix(V2.1)?;
                is_guid(tenant).then(|| Self::Exact(format!("{}{tenant}{}", V1.0, V1.1)))
            }
        }
    }
}

/// What to build a [`Policy`] from.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Accepted issuers; templates hold [`TENANT_PLACEHOLDER`].
    pub issuers: Vec<String>,
    /// Accepted audiences; None if `aud` is not checked, because the provider names none (Maskinporten).
    pub audiences: Option<Vec<String>>,
    /// Accepted algorithms, the preferred ones first: a key without `alg` serves the first one of its type.
    pub algorithms: Vec<Algorithm>,
    /// Which libraries may verify signatures.
    pub signatures: Signatures,
    /// Accepted tenants.
    pub tenants: Tenants,
    /// Allowed clock skew in seconds.
    pub leeway: f64,
    /// Claims that must be there, besides `iss`, `aud` and `exp`.
    pub required_claims: Vec<String>,
    /// Largest age since `iat` in seconds.
    pub max_age: Option<f64>,
    /// Largest token in bytes.
    pub max_token_bytes: usize,
    /// Whether a token must name its key. Otherwise a set of one key verifies tokens without `kid`.
    pub kid_required: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            issuers: Vec::new(),
            audiences: Some(Vec::new()),
            algorithms: vec![Algorithm::Rs256],
            signatures: Signatures::default(),
            tenants: Tenants::ByIssuer,
            leeway: 60.0,
            required_claims: vec!["iat".to_owned()],
            max_age: None,
            max_token_bytes: MAX_TOKEN_BYTES,
            kid_required: false,
        }
    }
}

/// A complete policy.
#[derive(Debug, Clone)]
pub struct Policy {
    pub(crate) issuers: Vec<Issuer>,
    pub(crate) audiences: Option<Vec<String>>,
    pub(crate) algorithms: Accepted,
    pub(crate) signatures: Signatures,
    pub(crate) tenants: Tenants,
    pub(crate) leeway: f64,
    pub(crate) required_claims: Vec<String>,
    pub(crate) max_age: Option<f64>,
    pub(crate) max_token_bytes: usize,
    pub(crate) kid_required: bool,
}

impl Policy {
    /// Check the settings and complete them.
    ///
    /// # Errors
    /// [`PolicyError`] naming the setting.
    pub fn new(settings: Settings) -> Result<Self, PolicyError> {
        let refuse = |setting, message| Err(PolicyError { setting, message });
        if settings.issuers.is_empty() || settings.issuers.iter().any(String::is_empty) {
            return refuse("issuer", "must name at least one issuer, none of them empty");
        }
        let names_audiences = |names: &Vec<String>| !names.is_empty() && !names.iter().any(String::is_empty);
        if !settings.audiences.as_ref().is_none_or(names_audiences) {
            return refuse("audience", "must name at least one audience, none of them empty");
        }
        if settings.algorithms.is_empty() {
            return refuse("algorithms", "must name at least one algorithm");
        }
        if !(0.0..=MAX_LEEWAY).contains(&settings.leeway) {
            return refuse("leeway", "must be between 0 and 600 seconds");
        }
        if settings.max_age.is_some_and(|age| !(age > 0.0 && age.is_finite())) {
            return refuse("max_age", "must be a positive number of seconds");
        }
        if !(64..=1 << 20).contains(&settings.max_token_bytes) {
            return refuse("max_token_bytes", "must be between 64 bytes and 1 MiB");
        }
        let issuers: Vec<_> = settings.issuers.iter().map(|issuer| Issuer::parse(issuer)).collect();
        let tenants = match settings.tenants {
            Tenants::Listed(tenants) => {
                if tenants.is_empty() || !tenants.iter().all(|tenant| is_guid(tenant)) {
                    return refuse("tenants", "must be tenant ids (GUIDs), at least one");
                }
                Tenants::Listed(tenants.iter().map(|tenant| tenant.to_ascii_lowercase()).collect())
            }
            // Leaving a setting out must not mean "every tenant in the world".
            Tenants::ByIssuer if issuers.iter().any(|issuer| matches!(issuer, Issuer::Template(..))) => {
                return refuse("tenants", "must be given when an issuer holds {tenantid}: tenant ids, or '*' for any");
            }
            tenants => tenants,
        };
        let mut required_claims = settings.required_claims;
        if settings.max_age.is_some() {
            required_claims.push("iat".to_owned());
        }
        required_claims.sort();
        required_claims.dedup();
        // These three have checks of their own, the audience unless it is not checked.
        let checks_audience = settings.audiences.is_some();
        required_claims.retain(|name| !matches!(name.as_str(), "iss" | "exp") && (name != "aud" || !checks_audience));
        Ok(Self {
            issuers,
            audiences: settings.audiences,
            algorithms: Accepted::new(settings.algorithms),
            signatures: settings.signatures,
            tenants,
            leeway: settings.leeway,
            required_claims,
            max_age: settings.max_age,
            max_token_bytes: settings.max_token_bytes,
            kid_required: settings.kid_required,
        })
    }

    /// Is the tenant of a token checked? Then it must be the one that its issuer names.
    pub(crate) fn looks_at_tenant(&self) -> bool {
        self.tenants != Tenants::ByIssuer
    }
}

/// 8-4-4-4-12 hexadecimal digits.
#[must_use]
pub fn is_guid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings { issuers: vec!["https://i".into()], audiences: Some(vec!["a".into()]), ..Settings::default() }
    }

    fn refused(change: impl FnOnce(&mut Settings)) -> &'static str {
        let mut settings = settings();
        change(&mut settings);
        Policy::new(settings).unwrap_err().setting
    }

    #[test]
    fn an_incomplete_policy_cannot_be_built() {
        assert!(Policy::new(settings()).is_ok());
        assert_eq!(refused(|s| s.issuers.clear()), "issuer");
        assert_eq!(refused(|s| s.issuers.push(String::new())), "issuer");
        for audiences in [Vec::new(), vec![String::new()], vec!["a".into(), String::new()]] {
            assert_eq!(refused(|s| s.audiences = Some(audiences)), "audience");
        }
        assert_eq!(refused(|s| s.algorithms.clear()), "algorithms");
        for leeway in [-1.0, 601.0, f64::NAN, f64::INFINITY] {
            assert_eq!(refused(|s| s.leeway = leeway), "leeway");
        }
        for age in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(refused(|s| s.max_age = Some(age)), "max_age");
        }
        assert_eq!(refused(|s| s.max_token_bytes = 0), "max_token_bytes");
        assert_eq!(refused(|s| s.tenants = Tenants::Listed(vec!["common".into()])), "tenants");
        assert_eq!(refused(|s| s.issuers.push("https://i/{tenantid}/".into())), "tenants");
    }

    #[test]
    fn a_refusal_names_the_setting_and_what_was_expected() {
        let error = Policy::new(Settings { leeway: -1.0, ..settings() }).unwrap_err();
        assert_eq!(error.to_string(), "leeway must be between 0 and 600 seconds");
    }

    #[test]
    fn tenants_are_checked_only_where_the_policy_speaks_of_them() {
        let listed = Tenants::Listed(vec!["11111111-2222-3333-4444-555555555555".into()]);
        for (tenants, checked) in [(Tenants::ByIssuer, false), (Tenants::Any, true), (listed, true)] {
            let policy = Policy::new(Settings { tenants: tenants.clone(), ..settings() }).unwrap();
            assert_eq!(policy.looks_at_tenant(), checked, "{tenants:?}");
        }
    }

    #[test]
    fn an_audience_that_is_not_checked_can_still_be_required() {
        let required = |audiences| {
            let required_claims = vec!["aud".to_owned()];
            Policy::new(Settings { audiences, required_claims, ..settings() }).unwrap().required_claims
        };
        assert_eq!(required(None), ["aud"]);
        assert!(required(settings().audiences).is_empty());
    }

    #[test]
    fn a_maximum_age_needs_the_time_of_issue() {
        let policy = Policy::new(Settings { max_age: Some(1.0), required_claims: Vec::new(), ..settings() });
        assert_eq!(policy.unwrap().required_claims, ["iat"]);
    }

    #[test]
    fn a_template_accepts_exactly_its_tenant() {
        let tid = "11111111-2222-3333-4444-555555555555";
        let issuer = Issuer::parse("https://login/{tenantid}/v2.0");
        assert!(issuer.accepts(&format!("https://login/{tid}/v2.0"), Some(tid)));
        for iss in ["https://login//v2.0", "https://login/x/v2.0", "https://login/v2.0", ""] {
            assert!(!issuer.accepts(iss, Some(tid)), "{iss}");
        }
        assert!(!issuer.accepts(&format!("https://login/{tid}/v2.0"), None));
        assert!(!issuer.accepts(&format!("https://login/{tid}/v2.0/"), Some(tid)));
    }

    #[test]
    fn a_v2_key_covers_the_v1_issuer_of_the_same_tenant_and_nothing_else() {
        let (tid, other) = ("11111111-2222-3333-4444-555555555555", "99999999-2222-3333-4444-555555555555");
        let v1 = |tenant: &str| format!("https://sts.windows.net/{tenant}/");
        for key in [
            format!("https://login.microsoftonline.com/{tid}/v2.0"),
            "https://login.microsoftonline.com/{tenantid}/v2.0".to_owned(),
        ] {
            let key = Issuer::parse(&key);
            assert!(key.covers(&v1(tid), Some(tid)));
            assert!(!key.covers(&v1(other), Some(tid)));
            assert!(!key.covers(v1(tid).trim_end_matches('/'), Some(tid)));
        }
        for key in [
            format!("https://login.microsoftonline.us/{tid}/v2.0"),
            format!("https://login.microsoftonline.com/{tid}/v2.0/"),
            format!("https://login.microsoftonline.com/{tid}"),
            "https://login.microsoftonline.com/common/v2.0".to_owned(),
            format!("https://login.microsoftonline.com/x/{tid}/v2.0"),
        ] {
            assert!(!Issuer::parse(&key).covers(&v1(tid), Some(tid)), "{key}");
        }
        // Not the other way round: a v1.0 key verifies no v2.0 token.
        assert!(!Issuer::parse(&v1(tid)).covers(&format!("https://login.microsoftonline.com/{tid}/v2.0"), Some(tid)));
    }

    #[test]
    fn guids_are_recognised() {
        assert!(is_guid("11111111-2222-3333-4444-55555555555F"));
        for no in ["", "common", "11111111-2222-3333-4444-55555555555g", "11111111-2222-3333-4444-5555555555555"] {
            assert!(!is_guid(no), "{no}");
        }
        assert!(!is_guid("111111112222-3333-4444-5555555555555"));
    }
}
