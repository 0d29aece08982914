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
    let Some(audiences) = &policy.audiences else { return Ok(()) };
    let aud = checked.aud.ok_or_else(|| missing("aud"))?;
    let accepted = |value: Value<'_>| audiences.iter().any(|audience| value.is_str(audience));
    let found = match aud.kind() {
        Kind::String => accepted(aud),
        Kind::Array if aud.elements().all(|element| element.kind() == Kind::String) => aud.elements().any(accepted),
        _ => return Err(MALFORMED),
    };
    if found {
        return Ok(());
    }
    let found = if aud.kind() == Kind::String { vec![aud] } else { aud.elements().collect() };
    let actual: Vec<_> = found.iter().filter_map(|value| value.as_str()).collect();
    Err(Error::WrongAudience { expected: audiences.join(" or "), actual: shown(&actual.join(" ")) })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::jose::algorithm::Algorithm;
    use crate::jose::signing_key::SigningKey;
    use crate::validate::policy::Settings;

    const PRIVATE: &str = include_str!("../../tests/keys/rfc7515_a_2.json");
    const OTHER: &str = include_str!("../../tests/keys/rfc7520_3_4.json");
    const NOW: f64 = 1_000_000.0;
    const TID: &str = "11111111-2222-3333-4444-555555555555";
    const OTHER_TID: &str = "99999999-2222-3333-4444-555555555555";

    fn policy(change: impl FnOnce(&mut Settings)) -> Policy {
        let mut settings = Settings {
            issuers: vec!["https://issuer".into()],
            audiences: Some(vec!["api".into(), "api://other".into()]),
            ..Settings::default()
        };
        change(&mut settings);
        Policy::new(settings).unwrap()
    }

    /// The public half of a private key, as an entry of a key set.
    #[allow(clippy::needless_pass_by_value, reason = "so that the members stand in the call")]
    fn public(private: &str, members: Json) -> Json {
        let jwk: Json = serde_json::from_str(private).unwrap();
        let mut entry = json!({"kty": "RSA", "n": jwk["n"], "e": jwk["e"]});
        entry.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        entry
    }

    fn key_set(entries: &[Json], generation: u64) -> KeySet {
        KeySet::parse(json!({ "keys": entries }).to_string().as_bytes(), generation).unwrap()
    }

    fn keys() -> KeySet {
        key_set(&[public(PRIVATE, json!({"kid": "1"}))], 1)
    }

    fn signed(header: &str, claims: &Json) -> Vec<u8> {
        let key = SigningKey::from_jwk(PRIVATE.as_bytes()).unwrap();
        key.sign(header.as_bytes(), claims.to_string().as_bytes()).unwrap().into_bytes()
    }

    fn token(claims: &Json) -> Vec<u8> {
        signed(r#"{"alg":"RS256","kid":"1"}"#, claims)
    }

    /// The claims of a good token, with these members instead; a `null` takes one away.
    #[allow(clippy::needless_pass_by_value, reason = "so that the members stand in the call")]
    fn claims(members: Json) -> Json {
        let mut claims = json!({"iss": "https://issuer", "aud": "api", "iat": NOW, "exp": NOW + 600.0});
        for (name, value) in members.as_object().unwrap().clone() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(&name);
            } else {
                claims[name] = value;
            }
        }
        claims
    }

    fn result(members: Json, policy: &Policy) -> Result<Verified, Error> {
        verify(&token(&claims(members)), &keys(), policy, NOW)
    }

    fn refused(members: Json, policy: &Policy) -> Error {
        result(members, policy).unwrap_err()
    }

    fn missing_claim(name: &str) -> Error {
        Error::ClaimMissing { name: name.to_owned() }
    }

    #[test]
    fn a_verified_token_tells_what_it_says_and_which_key_signed_it() {
        let (policy, keys) = (policy(|_| ()), keys());
        let verified = verify(&token(&claims(json!({"sub": "ada"}))), &keys, &policy, NOW).unwrap();
        assert_eq!(verified.claims().string("sub").as_deref(), Some("ada"));
        assert!(Arc::ptr_eq(verified.key(), keys.find(Some("1")).unwrap()));
        assert_eq!((verified.expires_at(), verified.issued_at()), (NOW + 600.0, Some(NOW)));
        assert!(verified.signature_stands());
        let optional = self::policy(|settings| settings.required_claims.clear());
        assert_eq!(result(json!({"iat": null}), &optional).unwrap().issued_at(), None);
    }

    #[test]
    fn the_claims_and_what_surrounds_them_are_charged() {
        let small = result(json!({}), &policy(|_| ())).unwrap();
        let large = result(json!({"roles": "r".repeat(5000)}), &policy(|_| ())).unwrap();
        assert_eq!(small.heap_bytes(), size_of::<Verified>() + small.claims().heap_bytes());
        assert!(large.heap_bytes() >= small.heap_bytes() + 5000);
    }

    #[test]
    fn a_verified_token_counts_while_its_very_key_is_published() {
        let verified = result(json!({}), &policy(|_| ())).unwrap();
        let same = public(PRIVATE, json!({"kid": "1"}));
        assert!(verified.key_is_in(&key_set(std::slice::from_ref(&same), 1)));
        assert!(!verified.key_is_in(&key_set(&[public(OTHER, json!({"kid": "1"}))], 2)));
        assert!(!verified.key_is_in(&key_set(&[public(OTHER, json!({"kid": "1"}))], 2)), "asked a second time");
        assert!(verified.key_is_in(&key_set(&[public(OTHER, json!({"kid": "2"})), same], 3)));
        // The set of this generation has been searched.
        assert_eq!(verified.generation.load(Relaxed), 3);
    }

    #[test]
    fn times_are_bounded_by_the_leeway_exactly() {
        let policy = policy(|settings| settings.leeway = 30.0);
        let leeway = 30.0;
        assert!(result(json!({"exp": NOW - 29.0}), &policy).is_ok());
        assert_eq!(
            refused(json!({"exp": NOW - 30.0}), &policy),
            Error::Expired { expires_at: NOW - 30.0, now: NOW, leeway },
        );
        assert!(result(json!({"nbf": NOW + 30.0}), &policy).is_ok());
        assert_eq!(
            refused(json!({"nbf": NOW + 31.0}), &policy),
            Error::NotYetValid { not_before: NOW + 31.0, now: NOW, leeway },
        );
        assert!(result(json!({"iat": NOW + 30.0}), &policy).is_ok());
        assert_eq!(
            refused(json!({"iat": NOW + 31.0}), &policy),
            Error::IssuedInTheFuture { issued_at: NOW + 31.0, now: NOW, leeway },
        );
        let young = self::policy(|settings| (settings.leeway, settings.max_age) = (30.0, Some(100.0)));
        assert!(result(json!({"iat": NOW - 130.0}), &young).is_ok());
        assert_eq!(refused(json!({"iat": NOW - 131.0}), &young), Error::TooOld { age: 131.0, limit: 100.0 });
    }

    #[test]
    fn a_clock_that_returns_no_number_accepts_nothing() {
        let policy = policy(|settings| settings.max_age = Some(100.0));
        let nan = f64::NAN;
        assert!(check_expiry(NOW, &policy, nan).is_err());
        assert!(check_not_before(Some(NOW), &policy, nan).is_err());
        assert!(check_issued_at(Some(NOW), &policy, nan).is_err());
        assert!(check_age(Some(NOW), &policy, nan).is_err());
    }

    #[test]
    fn the_times_of_a_verified_token_are_checked_again() {
        let policy = policy(|settings| settings.leeway = 0.0);
        let verified = result(json!({"nbf": NOW - 10.0}), &policy).unwrap();
        assert_eq!(verified.check_times(&policy, NOW + 599.0), Ok(()));
        assert!(matches!(verified.check_times(&policy, NOW + 600.0), Err(Error::Expired { .. })));
        assert!(matches!(verified.check_times(&policy, NOW - 11.0), Err(Error::NotYetValid { .. })));
        assert!(matches!(verified.check_times(&policy, NOW - 1.0), Err(Error::IssuedInTheFuture { .. })));
    }

    #[test]
    fn a_claim_that_is_required_is_missing_and_not_malformed() {
        let policy = policy(|settings| settings.required_claims.push("sub".into()));
        assert!(result(json!({"sub": ""}), &policy).is_ok());
        for name in ["iss", "aud", "exp", "iat", "sub"] {
            let members = json!({"sub": "ada", name: null});
            assert_eq!(refused(members, &policy), missing_claim(name), "{name}");
        }
    }

    #[test]
    fn a_claim_of_the_wrong_type_is_malformed() {
        for (name, value) in [
            ("iss", json!(1)),
            ("aud", json!(1)),
            ("aud", json!({"api": "api"})),
            ("aud", json!(["api", 1])),
            ("exp", json!("1000600")),
            ("exp", json!(-1)),
            ("nbf", json!(true)),
            ("iat", json!([NOW])),
            ("iat", json!(1e12)),
        ] {
            let error = refused(json!({name: value}), &policy(|_| ()));
            assert!(matches!(error, Error::ClaimMalformed { name: named, .. } if named == name), "{name}: {error:?}");
        }
    }

    #[test]
    fn one_of_the_accepted_audiences_is_enough() {
        let policy = policy(|_| ());
        for aud in [json!("api"), json!("api://other"), json!(["stranger", "api"])] {
            assert!(result(json!({"aud": aud}), &policy).is_ok(), "{aud}");
        }
        for (aud, actual) in [
            (json!("stranger"), "stranger"),
            (json!("API"), "API"),
            (json!(["one", "two"]), "one two"),
            (json!([]), ""),
        ] {
            let expected = "api or api://other".to_owned();
            let error = Error::WrongAudience { expected, actual: actual.to_owned() };
            assert_eq!(refused(json!({"aud": aud}), &policy), error);
        }
    }

    #[test]
    fn a_policy_without_audiences_accepts_any_and_none() {
        let unchecked = policy(|settings| settings.audiences = None);
        for aud in [json!("stranger"), json!("unspecified"), json!(["one", "two"]), json!([]), json!(7), json!(null)] {
            assert!(result(json!({"aud": aud}), &unchecked).is_ok(), "{aud}");
        }
    }

    #[test]
    fn one_of_the_accepted_issuers_is_enough() {
        let policy = policy(|settings| settings.issuers.push("https://second".into()));
        assert!(result(json!({"iss": "https://second"}), &policy).is_ok());
        let expected = "https://issuer or https://second".to_owned();
        let error = Error::WrongIssuer { expected, actual: "https://issuer/".to_owned() };
        assert_eq!(refused(json!({"iss": "https://issuer/"}), &policy), error);
    }

    fn multi_tenant(tenants: Tenants) -> Policy {
        policy(|settings| {
            settings.issuers = vec!["https://login/{tenantid}/v2.0".into(), "https://exact".into()];
            settings.tenants = tenants;
        })
    }

    fn of_tenant(tid: &str) -> Json {
        json!({"iss": format!("https://login/{tid}/v2.0"), "tid": tid})
    }

    #[test]
    fn where_tenants_are_checked_the_issuer_names_the_tenant_of_the_token() {
        let any = multi_tenant(Tenants::Any);
        assert!(result(of_tenant(TID), &any).is_ok());
        assert_eq!(refused(json!({"iss": format!("https://login/{TID}/v2.0")}), &any), missing_claim("tid"));
        for tid in [json!("common"), json!(1)] {
            let error = refused(json!({"iss": "https://login/common/v2.0", "tid": tid}), &any);
            assert!(matches!(error, Error::ClaimMalformed { name: "tid", .. }), "{error:?}");
        }
        let crossed = json!({"iss": format!("https://login/{TID}/v2.0"), "tid": OTHER_TID});
        let expected = "https://login/{tenantid}/v2.0 or https://exact".to_owned();
        let actual = format!("https://login/{TID}/v2.0");
        assert_eq!(refused(crossed, &any), Error::WrongIssuer { expected, actual });
        // An accepted issuer without any tenant in it proves none.
        let expected = format!("an issuer with the tenant {TID} in its path");
        let error = Error::WrongIssuer { expected, actual: "https://exact".into() };
        assert_eq!(refused(json!({"iss": "https://exact", "tid": TID}), &any), error);
    }

    #[test]
    fn only_listed_tenants_pass() {
        let listed = multi_tenant(Tenants::Listed(vec![TID.into()]));
        assert!(result(of_tenant(TID), &listed).is_ok());
        let error = Error::TenantNotAllowed { expected: TID.to_owned(), actual: OTHER_TID.to_owned() };
        assert_eq!(refused(of_tenant(OTHER_TID), &listed), error);
        // The case of hexadecimal digits means nothing.
        let (lower, upper) = ("aaaaaaaa-2222-3333-4444-555555555555", "AAAAAAAA-2222-3333-4444-555555555555");
        assert!(result(of_tenant(upper), &multi_tenant(Tenants::Listed(vec![lower.into()]))).is_ok());
    }

    #[test]
    fn without_a_check_of_tenants_the_claim_means_nothing() {
        let policy = policy(|_| ());
        for tid in [json!(null), json!(TID), json!("common"), json!(1)] {
            assert!(result(json!({"tid": tid}), &policy).is_ok(), "{tid}");
        }
    }

    #[test]
    fn a_key_that_is_bound_to_an_issuer_verifies_no_other() {
        let policy = policy(|settings| settings.issuers.push("https://second".into()));
        let token = token(&claims(json!({})));
        let bound = |issuer: &str| {
            let keys = key_set(&[public(PRIVATE, json!({"kid": "1", "issuer": issuer}))], 1);
            verify(&token, &keys, &policy, NOW)
        };
        assert!(bound("https://issuer").is_ok());
        let error = Error::WrongIssuer { expected: "https://second".into(), actual: "https://issuer".into() };
        assert_eq!(bound("https://second").unwrap_err(), error);
        // A template binds nothing within one tenant.
        assert!(bound("https://elsewhere/{tenantid}/").is_ok());
        let both = [json!({"kid": "1", "issuer": "https://issuer"}), json!({"kid": "1", "issuer": "https://third"})];
        let both = key_set(&both.map(|members| public(PRIVATE, members)), 1);
        assert!(verify(&token, &both, &policy, NOW).is_ok(), "one of its issuers is enough");
    }

    #[test]
    fn across_tenants_a_template_binds_a_key() {
        let any = multi_tenant(Tenants::Any);
        let token = token(&claims(of_tenant(TID)));
        let bound = |issuer: &str| {
            let keys = key_set(&[public(PRIVATE, json!({"kid": "1", "issuer": issuer}))], 1);
            verify(&token, &keys, &any, NOW)
        };
        assert!(bound("https://login/{tenantid}/v2.0").is_ok());
        let expected = "https://elsewhere/{tenantid}/".to_owned();
        let error = Error::WrongIssuer { expected, actual: format!("https://login/{TID}/v2.0") };
        assert_eq!(bound("https://elsewhere/{tenantid}/").unwrap_err(), error);
    }

    #[test]
    fn only_a_token_that_could_pass_may_cause_keys_to_be_fetched() {
        let policy = policy(|settings| settings.leeway = 0.0);
        let could = |members: Json| unverified_could_pass(&token(&claims(members)), &policy, NOW);
        assert!(could(json!({})));
        assert!(could(json!({"nbf": NOW + 1e6, "iat": null})), "only issuer, audience and expiry are looked at");
        for members in [
            json!({"iss": "https://stranger"}),
            json!({"aud": "stranger"}),
            json!({"exp": NOW}),
            json!({"exp": null}),
            json!({"iss": "https://stranger", "exp": NOW}),
            json!({"aud": "stranger", "exp": NOW}),
        ] {
            assert!(!could(members.clone()), "{members}");
        }
        assert!(!unverified_could_pass(b"a.b", &policy, NOW));
        assert!(!unverified_could_pass(b"a.!.b", &policy, NOW));
    }

    #[test]
    fn the_issuer_of_a_token_is_read_without_verifying_it() {
        let issuer = |members: Json| unverified_issuer(&token(&claims(members)), 10_000);
        assert_eq!(issuer(json!({"iss": "https://stranger"})).unwrap(), "https://stranger");
        assert_eq!(issuer(json!({"iss": null})), Err(missing_claim("iss")));
        assert!(matches!(issuer(json!({"iss": 1})), Err(Error::ClaimMalformed { name: "iss", .. })));
        assert!(matches!(unverified_issuer(b"a.b.c", 4), Err(Error::TooLarge { size: 5, limit: 4 })));
    }

    const NAMED: &str = r#"{"alg":"RS256","kid":"1"}"#;
    const UNNAMED: &str = r#"{"alg":"RS256"}"#;

    /// Both are asked twice: the second time, the header is remembered where it verified.
    fn signature_of(header: &str, keys: &KeySet, policy: &Policy) -> Result<(), Error> {
        let token = signed(header, &claims(json!({})));
        let compact = Compact::split(&token, 10_000).unwrap();
        let first = verify_signature(&compact, keys, policy).map(|_| ());
        assert_eq!(verify_signature(&compact, keys, policy).map(|_| ()), first);
        first
    }

    #[test]
    fn a_token_that_names_no_key_is_verified_by_the_only_one_unless_names_are_required() {
        let (lenient, strict) = (policy(|_| ()), policy(|settings| settings.kid_required = true));
        let unknown = Error::UnknownKey { kid: None, known: 1 };
        for strict_first in [true, false] {
            let keys = keys();
            if strict_first {
                assert_eq!(signature_of(UNNAMED, &keys, &strict), Err(unknown.clone()));
            }
            assert_eq!(signature_of(UNNAMED, &keys, &lenient), Ok(()));
            // The set serves both policies: what one of them has verified opens nothing for the other.
            assert_eq!(signature_of(UNNAMED, &keys, &strict), Err(unknown.clone()));
            assert_eq!(signature_of(NAMED, &keys, &strict), Ok(()));
        }
        let two = key_set(&[public(PRIVATE, json!({"kid": "1"})), public(OTHER, json!({"kid": "2"}))], 1);
        assert_eq!(signature_of(UNNAMED, &two, &lenient), Err(Error::UnknownKey { kid: None, known: 2 }));
        let absent = signature_of(r#"{"alg":"RS256","kid":"3\n"}"#, &two, &lenient);
        assert_eq!(absent, Err(Error::UnknownKey { kid: Some("3\\n".into()), known: 2 }));
    }

    #[test]
    fn a_header_that_one_policy_accepted_is_still_checked_by_the_next() {
        let (rs, ps) = (policy(|_| ()), policy(|settings| settings.algorithms = vec![Algorithm::Ps256]));
        let keys = keys();
        assert_eq!(signature_of(NAMED, &keys, &rs), Ok(()));
        let error = Error::AlgorithmNotAllowed { name: Some("RS256"), allowed: "PS256".into() };
        assert_eq!(signature_of(NAMED, &keys, &ps), Err(error));
    }

    #[test]
    fn the_policy_chooses_the_algorithm_and_the_key_serves_one() {
        let both = policy(|settings| settings.algorithms = vec![Algorithm::Ps256, Algorithm::Rs256]);
        let refused = |header: &str, keys: &KeySet, policy: &Policy| {
            let header = Header::parse(base64url::encode(header.as_bytes()).as_bytes()).unwrap();
            select(&header, keys, policy).map(|selected| selected.algorithm)
        };
        let not_allowed =
            |name, allowed: &str| Err(Error::AlgorithmNotAllowed { name: Some(name), allowed: allowed.to_owned() });
        let keys = keys();
        assert_eq!(refused(r#"{"alg":"PS256","kid":"1"}"#, &keys, &both), Ok(Algorithm::Ps256));
        assert_eq!(refused(NAMED, &keys, &both), not_allowed("RS256", "PS256"));
        assert_eq!(refused(r#"{"alg":"none","kid":"1"}"#, &keys, &both), not_allowed("none", "RS256, PS256"));
        assert_eq!(refused(r#"{"alg":"RS512","kid":"1"}"#, &keys, &both), not_allowed("RS512", "RS256, PS256"));
        let only = key_set(&[public(PRIVATE, json!({"kid": "1", "alg": "RS512"}))], 1);
        assert_eq!(refused(NAMED, &only, &both), not_allowed("RS256", "RS512"));
    }

    #[test]
    fn signatures_may_be_as_long_as_the_largest_key_makes_them_and_no_longer() {
        let keys = keys();
        let checked = |algorithm, bytes: usize| {
            let signature = base64url::encode(&vec![7; bytes]);
            let token = format!("a.b.{signature}");
            let compact = Compact::split(token.as_bytes(), 100_000).unwrap();
            let selected = Selected { key: Arc::clone(keys.find(Some("1")).unwrap()), algorithm, named: true };
            check_signature(&compact, &selected, &policy(|_| ())).unwrap_err()
        };
        for (algorithm, longest) in [(Algorithm::Rs256, 1024), (Algorithm::MlDsa87, 4627)] {
            assert_eq!(checked(algorithm, longest), Error::SignatureInvalid);
            assert!(matches!(checked(algorithm, longest + 8), Error::NotAJwt { .. }), "{algorithm:?}");
        }
    }
}
