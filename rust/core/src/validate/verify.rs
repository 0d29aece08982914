//! Verify a token: its signature with a key of the set, its claims against the policy, at a given time.
//!
//! The order matters. The signature comes before the claims are even decoded, so that what an attacker sends reaches the
//! bounds and the header's parser, and nothing more. The exceptions are [`unverified_could_pass`] and
//! [`unverified_issuer`], which decide nothing about a token.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::error::{Error, shown};
use crate::jose::base64url;
use crate::jose::json::{Kind, Value};
use crate::jose::jwk::PublicKey;
use crate::jose::keyset::{KeySet, Selected};
use crate::jose::signature::VerifiedBy;
use crate::jose::token::{Compact, Header, NamedAlgorithm};
use crate::validate::claims::{Claims, numeric_date};
use crate::validate::policy::{Issuer, Policy, Tenants, is_guid};

/// Room for the longest signature but ML-DSA's: RSA with 8192 bits.
const MAX_SIGNATURE_BYTES: usize = 1024 + 2;

/// Room for the longest signature of all: ML-DSA-87 (FIPS 204, table 2).
const MAX_ML_DSA_SIGNATURE_BYTES: usize = 4627 + 2;

/// A token that was verified against one policy.
#[derive(Debug)]
pub struct Verified {
    claims: Claims,
    key: Arc<PublicKey>,
    by: VerifiedBy,
    times: Times,
    /// Generation of the last key set in which the key was seen.
    generation: AtomicU64,
}

impl Verified {
    /// The claims.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The key that signed it.
    #[must_use]
    pub fn key(&self) -> &Arc<PublicKey> {
        &self.key
    }

    /// When it expires, in seconds since the epoch.
    #[must_use]
    pub fn expires_at(&self) -> f64 {
        self.times.exp
    }

    /// When it was issued, in seconds since the epoch, if it says so.
    #[must_use]
    pub fn issued_at(&self) -> Option<f64> {
        self.times.iat
    }

    /// Check the times again: nothing else about a verified token can change while its key is valid.
    ///
    /// # Errors
    /// Those of [`verify`] that concern times.
    #[inline]
    pub fn check_times(&self, policy: &Policy, now: f64) -> Result<(), Error> {
        self.times.check(policy, now)
    }

    /// Does the verification of its signature still count? Not if only the fast library made it, and that is no longer
    /// trusted.
    #[inline]
    #[must_use]
    pub fn signature_stands(&self) -> bool {
        self.by.stands()
    }

    /// Is the key that signed it in this set? The set is searched once per generation.
    #[inline]
    pub fn key_is_in(&self, keys: &KeySet) -> bool {
        if self.generation.load(Relaxed) == keys.generation() {
            return true;
        }
        let found = keys.has(&self.key);
        if found {
            self.generation.store(keys.generation(), Relaxed);
        }
        found
    }

    /// How many bytes it occupies on the heap, the shared key left out.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        size_of::<Self>() + self.claims.heap_bytes()
    }
}

/// Verify a token.
///
/// `now` is in seconds since the epoch.
///
/// # Errors
/// [`Error`] says which check failed, and with which values.
pub fn verify(token: &[u8], keys: &KeySet, policy: &Policy, now: f64) -> Result<Verified, Error> {
    let compact = Compact::split(token, policy.max_token_bytes)?;
    let (selected, by) = verify_signature(&compact, keys, policy)?;
    let claims = Claims::decode(compact.payload)?;
    let times = check_claims(&claims, &selected.key, policy, now)?;
    let generation = AtomicU64::new(keys.generation());
    Ok(Verified { claims, key: selected.key, by, times, generation })
}

/// Could this token pass if its signature were valid? Looks at `iss`, `aud` and `exp`. Only such a token may cause keys
/// to be fetched: it costs an attacker nothing to make one up, but a token for somebody else, or one that has expired,
/// would be rejected with any key.
#[must_use]
pub fn unverified_could_pass(token: &[u8], policy: &Policy, now: f64) -> bool {
    let Ok(compact) = Compact::split(token, policy.max_token_bytes) else { return false };
    let Ok(claims) = Claims::dangerous_unverified(compact.payload) else { return false };
    let checked = Checked::of(&claims);
    check_issuer(&checked, None, policy).is_ok()
        && check_audience(&checked, policy).is_ok()
        && checked.exp().is_ok_and(|exp| check_expiry(exp, policy, now).is_ok())
}

/// The issuer that a token names, not verified: it only chooses the policy and the key set that verify the token.
///
/// # Errors
/// It is not a JWT of at most `limit` bytes, or its claims have no `iss` that is a string.
pub fn unverified_issuer(token: &[u8], limit: usize) -> Result<String, Error> {
    let compact = Compact::split(token, limit)?;
    let claims = Claims::dangerous_unverified(compact.payload)?;
    let iss = claims.get("iss").ok_or_else(|| missing("iss"))?;
    let iss = iss.as_str().ok_or(Error::ClaimMalformed { name: "iss", expected: "a string" })?;
    Ok(iss.into_owned())
}

/// Verify only the signature, and return the key that made it and who verified it. What is signed may be anything.
///
/// # Errors
/// Those of [`verify`] that concern the header and the signature.
pub fn verify_signature(
    compact: &Compact<'_>,
    keys: &KeySet,
    policy: &Policy,
) -> Result<(Selected, VerifiedBy), Error> {
    if let Some(selected) = keys.remembered(compact.header) {
        // The set may serve other policies as well, so these checks are never skipped.
        let served = selected.key.serves(selected.algorithm, &policy.algorithms);
        if served && (selected.named || !policy.kid_required) {
            let by = check_signature(compact, selected, policy)?;
            return Ok((selected.clone(), by));
        }
    }
    let header = Header::parse(compact.header)?;
    let selected = select(&header, keys, policy)?;
    let by = check_signature(compact, &selected, policy)?;
    keys.remember(compact.header, &selected);
    Ok((selected, by))
}

/// Choose the key and the algorithm. The policy decides; the header only selects among what it allows.
pub(crate) fn select(header: &Header, keys: &KeySet, policy: &Policy) -> Result<Selected, Error> {
    let algorithm = match header.algorithm {
        NamedAlgorithm::Offered(algorithm) if policy.algorithms.contains(algorithm) => algorithm,
        NamedAlgorithm::Offered(algorithm) => {
            return Err(Error::AlgorithmNotAllowed {
                name: Some(algorithm.name()),
                allowed: policy.algorithms.to_string(),
            });
        }
        NamedAlgorithm::Other(name) => {
            return Err(Error::AlgorithmNotAllowed { name, allowed: policy.algorithms.to_string() });
        }
    };
    let named = header.kid.is_some();
    let Some(key) = keys.find(header.kid.as_deref()).filter(|_| named || !policy.kid_required) else {
        return Err(Error::UnknownKey { kid: header.kid.as_deref().map(shown), known: keys.keys().len() });
    };
    if key.serves(algorithm, &policy.algorithms) {
        return Ok(Selected { key: Arc::clone(key), algorithm, named });
    }
    let served = key.served(&policy.algorithms);
    let allowed = if served.is_empty() { key.algorithms() } else { served };
    Err(Error::AlgorithmNotAllowed { name: Some(algorithm.name()), allowed: allowed.to_string() })
}

pub(crate) fn check_signature(
    compact: &Compact<'_>,
    selected: &Selected,
    policy: &Policy,
) -> Result<VerifiedBy, Error> {
    if selected.algorithm.is_ml_dsa() {
        // On the heap: clearing so much of the stack for every RSA signature would take measurable time.
        return check_decoded(compact, selected, policy, &mut vec![0; MAX_ML_DSA_SIGNATURE_BYTES]);
    }
    check_decoded(compact, selected, policy, &mut [0; MAX_SIGNATURE_BYTES])
}

#[inline]
fn check_decoded(
    compact: &Compact<'_>,
    selected: &Selected,
    policy: &Policy,
    buffer: &mut [u8],
) -> Result<VerifiedBy, Error> {
    let not_base64 = Error::NotAJwt { expected: "a base64url signature", found: "other characters or too many" };
    let signature = base64url::decode_into(compact.signature, buffer).map_err(|_| not_base64)?;
    let Selected { key, algorithm, .. } = selected;
    key.verify(*algorithm, policy.signatures, compact.signed, signature).ok_or(Error::SignatureInvalid)
}

/// The times of a token, read once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Times {
    exp: f64,
    nbf: Option<f64>,
    iat: Option<f64>,
}

impl Times {
    #[inline]
    fn check(&self, policy: &Policy, now: f64) -> Result<(), Error> {
        check_expiry(self.exp, policy, now)?;
        check_not_before(self.nbf, policy, now)?;
        check_issued_at(self.iat, policy, now)?;
        check_age(self.iat, policy, now)
    }
}

// Each comparison states what is accepted, so that a NaN, should a clock ever return one, rejects the token.

#[inline]
pub(crate) fn check_expiry(expires_at: f64, policy: &Policy, now: f64) -> Result<(), Error> {
    let leeway = policy.leeway;
    if now < expires_at + leeway { Ok(()) } else { Err(Error::Expired { expires_at, now, leeway }) }
}

#[inline]
pub(crate) fn check_not_before(not_before: Option<f64>, policy: &Policy, now: f64) -> Result<(), Error> {
    let leeway = policy.leeway;
    let Some(not_before) = not_before else { return Ok(()) };
    if not_before <= now + leeway { Ok(()) } else { Err(Error::NotYetValid { not_before, now, leeway }) }
}

#[inline]
pub(crate) fn check_issued_at(issued_at: Option<f64>, policy: &Policy, now: f64) -> Result<(), Error> {
    let leeway = policy.leeway;
    let Some(issued_at) = issued_at else { return Ok(()) };
    if issued_at <= now + leeway { Ok(()) } else { Err(Error::IssuedInTheFuture { issued_at, now, leeway }) }
}

#[inline]
pub(crate) fn check_age(issued_at: Option<f64>, policy: &Policy, now: f64) -> Result<(), Error> {
    let (Some(limit), Some(issued_at)) = (policy.max_age, issued_at) else { return Ok(()) };
    let age = now - issued_at;
    if age <= limit + policy.leeway { Ok(()) } else { Err(Error::TooOld { age, limit }) }
}

/// The claims that are checked, found in one pass.
#[derive(Default)]
pub(crate) struct Checked<'c> {
    pub(crate) iss: Option<Value<'c>>,
    pub(crate) aud: Option<Value<'c>>,
    pub(crate) tid: Option<Value<'c>>,
    exp: Option<Value<'c>>,
    nbf: Option<Value<'c>>,
    iat: Option<Value<'c>>,
}

impl<'c> Checked<'c> {
    pub(crate) fn of(claims: &'c Claims) -> Self {
        let mut checked = Self::default();
        for (name, value) in claims.root().members() {
            let place = match name.as_str().as_deref() {
                Some("iss") => &mut checked.iss,
                Some("aud") => &mut checked.aud,
                Some("tid") => &mut checked.tid,
                Some("exp") => &mut checked.exp,
                Some("nbf") => &mut checked.nbf,
                Some("iat") => &mut checked.iat,
                _ => continue,
            };
            *place = Some(value);
        }
        checked
    }

    pub(crate) fn times(&self) -> Result<Times, Error> {
        Ok(Times { exp: self.exp()?, nbf: self.nbf()?, iat: self.iat()? })
    }

    pub(crate) fn exp(&self) -> Result<f64, Error> {
        numeric_date("exp", self.exp.ok_or_else(|| missing("exp"))?)
    }

    pub(crate) fn nbf(&self) -> Result<Option<f64>, Error> {
        self.nbf.map(|nbf| numeric_date("nbf", nbf)).transpose()
    }

    pub(crate) fn iat(&self) -> Result<Option<f64>, Error> {
        self.iat.map(|iat| numeric_date("iat", iat)).transpose()
    }
}

fn missing(name: &str) -> Error {
    Error::ClaimMissing { name: name.to_owned() }
}

fn check_claims(claims: &Claims, key: &PublicKey, policy: &Policy, now: f64) -> Result<Times, Error> {
    let checked = Checked::of(claims);
    check_issuer(&checked, Some(key), policy)?;
    check_audience(&checked, policy)?;
    check_required(claims, policy)?;
    let times = checked.times()?;
    times.check(policy, now)?;
    Ok(times)
}

pub(crate) fn check_required(claims: &Claims, policy: &Policy) -> Result<(), Error> {
    match policy.required_claims.iter().find(|name| claims.get(name).is_none()) {
        Some(name) => Err(missing(name)),
        None => Ok(()),
    }
}

/// The issuer, bound to the key, where it is known, and to the tenant.
pub(crate) fn check_issuer(checked: &Checked<'_>, key: Option<&PublicKey>, policy: &Policy) -> Result<(), Error> {
    let iss = checked.iss.ok_or_else(|| missing("iss"))?;
    let iss = iss.as_str().ok_or(Error::ClaimMalformed { name: "iss", expected: "a string" })?;
    let multi_tenant = policy.looks_at_tenant();
    let tid = checked.tid.and_then(Value::as_str);
    let tid = tid.as_deref();
    if multi_tenant {
        checked.tid.ok_or_else(|| missing("tid"))?;
        if !tid.is_some_and(is_guid) {
            return Err(Error::ClaimMalformed { name: "tid", expected: "a tenant id (GUID)" });
        }
    }
    if !policy.issuers.iter().any(|issuer| issuer.accepts(&iss, tid)) {
        return Err(wrong_issuer(policy.issuers.iter(), &iss));
    }
    // A key that the provider binds to issuers verifies tokens of no other. A template binds nothing within one
    // tenant; across tenants it is what keeps them apart (Microsoft, "Access tokens: validate the issuer").
    let bound: Vec<_> = key.map_or(&[][..], PublicKey::issuers).iter().map(|issuer| Issuer::parse(issuer)).collect();
    let binds = |issuer: &Issuer| multi_tenant || matches!(issuer, Issuer::Exact(_));
    if !bound.is_empty() && bound.iter().all(|issuer| binds(issuer) && !issuer.covers(&iss, tid)) {
        return Err(wrong_issuer(bound.iter(), &iss));
    }
    // An issuer that the policy names in full does not itself say which tenant it belongs to.
    if let Some(tid) = tid.filter(|tid| multi_tenant && !iss.split('/').any(|segment| segment == *tid)) {
        let expected = format!("an issuer with the tenant {} in its path", shown(tid));
        return Err(Error::WrongIssuer { expected, actual: shown(&iss) });
    }
    match (&policy.tenants, tid) {
        (Tenants::Listed(tenants), Some(tid)) if !tenants.contains(&tid.to_ascii_lowercase()) => {
            Err(Error::TenantNotAllowed { expected: tenants.join(" or "), actual: shown(tid) })
        }
        _ => Ok(()),
    }
}

fn wrong_issuer<'p>(accepted: impl Iterator<Item = &'p Issuer>, actual: &str) -> Error {
    let accepted = accepted.map(|issuer| match issuer {
        Issuer::Exact(issuer) => issuer.clone(),
        Issuer::Template(before, after) => format!("{before}{{tenantid}}{after}"),
    });
    Error::WrongIssuer { expected: accepted.collect::<Vec<_>>().join(" or "), actual: shown(actual) }
}

/// The audience: a string, or an array of strings (RFC 7519, section 4.1.3).
pub(crate) fn check_audience(checked: &Checked<'_>, policy: &Policy) -> Result<(), Error> {
    const MALFORMED: Error = Error::ClaimMalformed { name: "aud", expected: "a string or an array of strings" };
    let aud = checked.aud.ok_or_else(|| missing("aud"))?;
    let accepted = |value: Value<'_>| policy.audiences.iter().any(|audience| value.is_str(audience));
    let found = match aud.kind() {
        Kind::String => accepted(aud),
        Kind::Array if aud.elements().all(|element| element.kind() == Kind::String) => aud.elements().any(accepted),
        _ => return Err(MALFORMED),
    };
    if found {
        return Ok(());
    }
    let audiences = if aud.kind() == Kind::String { vec![aud] } else { aud.elements().collect() };
    let actual: Vec<_> = audiences.iter().filter_map(|value| value.as_str()).collect();
    Err(Error::WrongAudience { expected: policy.audiences.join(" or "), actual: shown(&actual.join(" ")) })
}
