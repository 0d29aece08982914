//! Key sets: nothing is lost, nothing is ambiguous, and the order of the entries does not matter.

use std::collections::{BTreeMap, BTreeSet};

use entra_core::jose::algorithm::{Accepted, Algorithm, AlgorithmSet};
use entra_core::jose::keyset::{KeySet, KeySetError, MAX_KEYS};
use entra_core::jose::signature::Signatures;
use serde_json::{Value, json};

use crate::fixture::JWKS;
use crate::{Outcome, strict_json};

/// See the module's description.
pub fn run(text: &[u8]) -> Outcome {
    match KeySet::parse(text, 1) {
        Err(error) => {
            assert!(error.to_string().len() < 1024, "the reason is bounded");
            assert_refusal(text, &error);
            Outcome::Refused
        }
        Ok(set) => {
            assert_consistent(&set);
            // A member that is not read may hold a number that serde_json cannot read.
            if let Ok(read) = strict_json::read(text) {
                assert_complete(&set, &read.value);
            }
            Outcome::Accepted
        }
    }
}

fn assert_refusal(text: &[u8], error: &KeySetError) {
    let Ok(read) = strict_json::read(text) else { return };
    let keys = read.value.get("keys").and_then(Value::as_array);
    match error {
        KeySetError::NoKeysMember => assert!(keys.is_none()),
        KeySetError::TooManyKeys => assert!(keys.is_some_and(|keys| keys.len() > MAX_KEYS)),
        KeySetError::NoUsableKey(reason) => assert_eq!(reason.is_none(), keys.is_some_and(Vec::is_empty)),
        KeySetError::TooLarge | KeySetError::NotJson(_) => {}
    }
}

/// What can be said of a set without knowing its text.
fn assert_consistent(set: &KeySet) {
    assert!(!set.keys().is_empty() && set.keys().len() <= MAX_KEYS);
    let mut kids = BTreeSet::new();
    for key in set.keys() {
        assert!(set.has(key), "a set has its own keys");
        assert!(!key.algorithms().is_empty());
        if let Some(kid) = key.kid() {
            assert!(kids.insert(kid), "one kid, two keys");
            assert_eq!(set.find(Some(kid)).map(|found| found.thumbprint()), Some(key.thumbprint()));
        }
        for algorithm in Algorithm::ALL {
            for signatures in Signatures::ALL {
                assert!(key.verify(algorithm, signatures, b"", b"").is_none(), "an empty signature verifies");
            }
        }
    }
    // One key, one algorithm, under however many ids (draft-ietf-oauth-rfc8725bis, section 3.1).
    for accepted in [Accepted::new(Algorithm::ALL.to_vec()), Accepted::new(Algorithm::ALL.into_iter().rev().collect())]
    {
        let mut served: BTreeMap<[u8; 32], AlgorithmSet> = BTreeMap::new();
        for key in set.keys() {
            let all = served.entry(*key.thumbprint()).or_default();
            *all = all.union(key.served(&accepted));
        }
        for all in served.into_values() {
            assert!(all.iter().all(|algorithm| all.iter().all(|other| algorithm.names().contains(other))), "{all}");
        }
    }
    assert_eq!(set.find(None).is_some(), set.keys().len() == 1, "without kid only an only key is meant");
    for dropped in set.dropped() {
        assert!(!dropped.reason.is_empty());
        let kid = dropped.kid.as_deref().unwrap_or_default();
        assert!(!kid.chars().any(char::is_control) && kid.len() < 2048, "{kid:?}");
    }
}

/// Every entry was kept, dropped, or is a second copy of a kept one; no kept kid is ambiguous.
fn assert_complete(set: &KeySet, document: &Value) {
    let entries = document["keys"].as_array().expect("it was accepted");
    // Each entry for itself: without the others, is it usable?
    let mut usable: BTreeMap<Option<&str>, Vec<[u8; 32]>> = BTreeMap::new();
    let mut unusable = 0;
    for entry in entries {
        match KeySet::parse(json!({ "keys": [entry] }).to_string().as_bytes(), 1) {
            Ok(alone) => {
                let [key] = alone.keys() else { panic!("one entry, {} keys", alone.keys().len()) };
                usable.entry(entry.get("kid").and_then(Value::as_str)).or_default().push(*key.thumbprint());
                assert_strong(entry);
            }
            Err(_) => unusable += 1,
        }
    }
    let mut expected = BTreeSet::new();
    let (mut kept, mut dropped) = (0, unusable);
    for (kid, thumbprints) in &usable {
        let distinct: BTreeSet<_> = thumbprints.iter().copied().collect();
        match kid {
            Some(_) if distinct.len() > 1 => dropped += thumbprints.len(),
            // The same key twice is one key, also without an id.
            _ => kept += distinct.len(),
        }
        if kid.is_none() || distinct.len() == 1 {
            expected.extend(distinct.into_iter().map(|thumbprint| (*kid, thumbprint)));
        }
    }
    let found: BTreeSet<_> = set.keys().iter().map(|key| (key.kid(), *key.thumbprint())).collect();
    assert_eq!(found, expected, "other keys than each entry for itself");
    assert_eq!((set.keys().len(), set.dropped().len()), (kept, dropped), "kept and dropped");

    let mut reversed = entries.clone();
    reversed.reverse();
    let reversed = KeySet::parse(json!({ "keys": reversed }).to_string().as_bytes(), 2).expect("the same keys");
    let again: BTreeSet<_> = reversed.keys().iter().map(|key| (key.kid(), *key.thumbprint())).collect();
    assert_eq!(again, found, "the order matters");
}

/// What every usable entry must be, read by other software.
fn assert_strong(entry: &Value) {
    assert!(entry.get("d").is_none() && entry.get("priv").is_none(), "a private key was taken");
    assert!(entry.get("use").is_none_or(|usage| usage == "sig"));
    match entry["kty"].as_str().expect("a key type") {
        // 2048 bits are 342 characters of base64url, leading zeros left out.
        "RSA" => assert!(entry["n"].as_str().is_some_and(|n| n.trim_start_matches('A').len() >= 341)),
        "EC" => assert!(entry["crv"] == "P-256" || entry["crv"] == "P-384"),
        "OKP" => assert!(entry["crv"] == "Ed25519"),
        "AKP" => assert!(entry["alg"].as_str().is_some_and(|alg| alg.starts_with("ML-DSA-"))),
        other => panic!("a key of type {other}"),
    }
}

/// Sets with good and bad entries.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let good: Value = serde_json::from_str(&JWKS).expect("JSON");
    let keys = good["keys"].as_array().expect("an array");
    let with = |index: usize, name: &str, value: Value| {
        let mut key = keys[index].clone();
        key[name] = value;
        key
    };
    let sets = [
        good.clone(),
        json!({ "keys": [keys[1], keys[1], keys[2]] }),
        json!({ "keys": [keys[1], with(2, "kid", json!("ec")), keys[0]] }),
        json!({ "keys": [with(1, "use", json!("enc")), keys[2], 7, null, {}] }),
        json!({ "keys": [with(2, "d", json!("AQAB")), with(0, "e", json!("AQ")), keys[1]] }),
        json!({ "keys": [with(0, "alg", json!("PS256")), with(1, "alg", json!("RS256")), with(2, "kid", json!(7))] }),
        json!({ "keys": [with(0, "issuer", json!("https://issuer.example/{tenantid}/v2.0"))] }),
        json!({ "keys": [with(1, "key_ops", json!(["verify"])), with(2, "key_ops", json!(["sign"]))] }),
        json!({ "keys": [with(2, "alg", json!("Ed25519")), with(2, "alg", json!("Ed448")), keys[3]] }),
        json!({ "keys": [with(3, "alg", json!("ML-DSA-65")), with(3, "priv", json!("AAAA")), with(3, "pub", json!("AAAA"))] }),
        json!({ "keys": [with(0, "alg", json!("RS256")), { "kty": "RSA", "kid": "again", "alg": "PS256", "n": keys[0]["n"], "e": "AQAB" }] }),
        json!({ "keys": [{ "kty": "oct", "k": "AAAA" }] }),
        json!({ "keys": [] }),
        json!({ "keys": {} }),
        json!([]),
    ];
    let mut seeds: Vec<Vec<u8>> = sets.iter().map(|set| set.to_string().into_bytes()).collect();
    // Keys without id.
    seeds.push(JWKS.replace(r#""kid""#, r#""dik""#).into_bytes());
    seeds
}
