//! Every check of a token in turn, passed or not, with its values: the explanation of a rejection.
//!
//! Uses the same checks as [`mod@crate::validate::verify`], but continues after a failure, so it also examines claims
//! whose signature did not verify. The result is for display, never for decisions.

use crate::error::{Error, shown};
use crate::jose::json::{Kind, Value};
use crate::jose::keyset::{KeySet, Selected};
use crate::jose::token::{Compact, Header};
use crate::validate::claims::Claims;
use crate::validate::policy::Policy;
use crate::validate::verify::{
    Checked, check_age, check_audience, check_expiry, check_issued_at, check_issuer, check_not_before, check_required,
    check_signature, select,
};

/// One check.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// Ok, why it failed, or None if an earlier failure made the check impossible.
    pub outcome: Option<Result<(), Error>>,
    /// The value that passed, or what was expected, in words.
    pub value: String,
}

struct Report(Vec<Check>);

impl Report {
    fn passed(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.push(Check { name, outcome: Some(Ok(())), value: value.into() });
    }

    fn failed(&mut self, name: &'static str, error: Error) {
        self.0.push(Check { name, outcome: Some(Err(error)), value: String::new() });
    }

    fn impossible(&mut self, names: &[&'static str]) {
        self.0.extend(names.iter().map(|name| Check { name, outcome: None, value: String::new() }));
    }

    fn add(&mut self, name: &'static str, result: Result<(), Error>, value: impl Into<String>) {
        match result {
            Ok(()) => self.passed(name, value),
            Err(error) => self.failed(name, error),
        }
    }
}

/// Run all checks of [`crate::validate::verify::verify`]. `keys` None means that there is no key set.
#[must_use]
pub fn explain(token: &[u8], keys: Option<&KeySet>, policy: &Policy, now: f64) -> Vec<Check> {
    let mut report = Report(Vec::new());
    match Compact::split(token, policy.max_token_bytes) {
        Err(error) => {
            report.failed("form", error);
            report.impossible(&["header", "key", "signature"]);
            report.impossible(&CLAIM_CHECKS);
        }
        Ok(compact) => {
            report.passed("form", format!("three segments, {} bytes", token.len()));
            explain_signature(&mut report, &compact, keys, policy);
            match Claims::decode(compact.payload) {
                Err(error) => {
                    report.failed("claims", error);
                    report.impossible(&CLAIM_CHECKS[1..]);
                }
                Ok(claims) => explain_claims(&mut report, &compact, &claims, keys, policy, now),
            }
        }
    }
    report.0
}

const CLAIM_CHECKS: [&str; 8] =
    ["claims", "issuer", "audience", "required claims", "expiry", "not before", "issued at", "age"];

fn explain_signature(report: &mut Report, compact: &Compact<'_>, keys: Option<&KeySet>, policy: &Policy) {
    let header = match Header::parse(compact.header) {
        Ok(header) => header,
        Err(error) => {
            report.failed("header", error);
            report.impossible(&["key", "signature"]);
            return;
        }
    };
    report.passed("header", "readable, nothing in it that is not accepted");
    let selected = keys.ok_or(Error::KeysUnavailable).and_then(|keys| select(&header, keys, policy));
    match selected {
        Err(error) => {
            report.failed("key", error);
            report.impossible(&["signature"]);
        }
        Ok(selected) => {
            report.passed("key", key_in_words(&selected));
            let result = check_signature(compact, &selected, policy).map(|_| ());
            report.add("signature", result, selected.algorithm.name());
        }
    }
}

fn key_in_words(selected: &Selected) -> String {
    let kid = selected.key.kid().map_or_else(|| "the only key".to_owned(), |kid| format!("kid {}", shown(kid)));
    format!("{kid}, allowed for {}", selected.algorithm.name())
}

fn explain_claims(
    report: &mut Report,
    compact: &Compact<'_>,
    claims: &Claims,
    keys: Option<&KeySet>,
    policy: &Policy,
    now: f64,
) {
    let checked = Checked::of(claims);
    report.passed("claims", format!("{} members", claims.root().members().count()));
    let key = Header::parse(compact.header).ok().and_then(|header| keys?.find(header.kid.as_deref()));
    match key {
        Some(key) => report.add("issuer", check_issuer(&checked, Some(key), policy), in_words(checked.iss)),
        None => report.impossible(&["issuer"]), // the issuer is bound to the key
    }
    let audience = if policy.audiences.is_none() { "not checked".to_owned() } else { in_words(checked.aud) };
    report.add("audience", check_audience(&checked, policy), audience);
    let required = if policy.required_claims.is_empty() {
        "none but iss, aud and exp".to_owned()
    } else {
        policy.required_claims.join(", ")
    };
    report.add("required claims", check_required(claims, policy), required);
    let (exp, nbf, iat) = (checked.exp(), checked.nbf(), checked.iat());
    report.add("expiry", exp.and_then(|exp| check_expiry(exp, policy, now)), in_words(claims.get("exp")));
    report.add("not before", nbf.and_then(|nbf| check_not_before(nbf, policy, now)), in_words(claims.get("nbf")));
    let age = iat.as_ref().ok().map(|iat| check_age(*iat, policy, now));
    report.add("issued at", iat.and_then(|iat| check_issued_at(iat, policy, now)), in_words(claims.get("iat")));
    let limit = policy.max_age.map_or_else(|| "no limit".to_owned(), |limit| format!("at most {limit} s"));
    match age {
        Some(age) => report.add("age", age, limit),
        None => report.impossible(&["age"]),
    }
}

fn in_words(value: Option<Value<'_>>) -> String {
    match value {
        None => "absent".to_owned(),
        Some(value) if matches!(value.kind(), Kind::Array | Kind::Object) => shown(value.text()),
        Some(value) => value.as_str().map_or_else(|| shown(value.text()), |text| shown(&text)),
    }
}
