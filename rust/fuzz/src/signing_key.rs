//! Private JWKs: what is taken signs tokens that verify with its public half; what is said about one, taken or
//! not, holds nothing of it.

use entra_core::jose::base64url;
use entra_core::jose::keyset::KeySet;
use entra_core::jose::signature::Signatures;
use entra_core::jose::signing_key::SigningKey;
use serde_json::{Value, json};

use crate::fixture::{ED25519, ML_DSA_44, ML_DSA_SEED, P256};
use crate::{Outcome, strict_json};

/// Shortest run of base64url characters that counts as a leak: nine bytes of a key.
const LEAK: usize = 12;

/// All words that the core itself may say. What stands here is no leak even when an input holds it as well.
const VOCABULARY: [&str; 3] =
    [include_str!("../../core/src/jose/signing_key.rs"), include_str!("../../core/src/jose/json.rs"), "SigningKey"];

/// Members that may be shown.
const PUBLIC: [&str; 3] = ["kid", "x5t", "x5t#S256"];

/// See the module's description.
pub fn run(text: &[u8]) -> Outcome {
    let result = SigningKey::from_jwk(text);
    let said = match &result {
        Ok(key) => format!("{key:?}"),
        Err(error) => format!("{error} {error:?} {}", error.code()),
    };
    let jwk = strict_json::read(text).map(|read| read.value);
    // What is no JSON may be a key in any of its parts.
    let hidden = jwk.as_ref().map_or_else(|_| Value::String(String::from_utf8_lossy(text).into_owned()), Value::clone);
    assert_no_leak(&said, &hidden);
    match result {
        Err(_) => Outcome::Refused,
        Ok(key) => {
            assert_works(&key, &jwk.expect("the core accepts nothing but JSON"));
            Outcome::Accepted
        }
    }
}

fn assert_no_leak(said: &str, jwk: &Value) {
    let mut shown = String::new();
    let mut hidden = Vec::new();
    collect(None, jwk, &mut shown, &mut hidden);
    for run in said.split(|letter: char| !is_base64url(letter)).filter(|run| run.len() >= LEAK) {
        for start in 0..=run.len() - LEAK {
            let piece = &run[start..start + LEAK];
            let known = shown.contains(piece) || VOCABULARY.iter().any(|words| words.contains(piece));
            assert!(known || !hidden.iter().any(|text| text.contains(piece)), "{said:?} repeats {piece:?}");
        }
    }
}

fn is_base64url(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '-' || letter == '_'
}

fn collect(name: Option<&str>, value: &Value, shown: &mut String, hidden: &mut Vec<String>) {
    match value {
        // A space in front: what is shown must not become longer by what stands before it.
        Value::String(text) if name.is_some_and(|name| PUBLIC.contains(&name)) => {
            shown.push(' ');
            shown.push_str(text);
            // Debug escapes what it shows.
            shown.push(' ');
            shown.extend(text.escape_debug());
        }
        Value::String(text) => hidden.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| collect(None, value, shown, hidden)),
        Value::Object(members) => {
            for (name, value) in members {
                hidden.push(name.clone());
                collect(Some(name), value, shown, hidden);
            }
        }
        Value::Number(number) => hidden.push(number.to_string()),
        Value::Null | Value::Bool(_) => {}
    }
}

fn assert_works(key: &SigningKey, jwk: &Value) {
    let header = format!(r#"{{"alg":"{}"}}"#, key.algorithm().name());
    let token = key.sign(header.as_bytes(), b"payload").expect("it signs");
    let (signed, signature) = token.rsplit_once('.').expect("three segments");
    let signature = base64url::decode(signature.as_bytes()).expect("base64url");
    let public = ["kty", "crv", "x", "y", "n", "e", "pub"].into_iter().filter_map(|name| Some((name, jwk.get(name)?)));
    let mut public: serde_json::Map<_, _> = public.map(|(name, value)| (name.to_owned(), value.clone())).collect();
    if jwk["kty"] == "AKP" {
        public.insert("alg".to_owned(), jwk["alg"].clone()); // a part of such a key
    }
    // The verifying side is stricter: it accepts no weak exponents.
    if let Ok(set) = KeySet::parse(json!({ "keys": [public] }).to_string().as_bytes(), 1) {
        let [own] = set.keys() else { panic!("one key") };
        let by = own.verify(key.algorithm(), Signatures::Fast, signed.as_bytes(), &signature);
        assert!(by.is_some(), "its own signature does not verify");
    }
}

/// Keys of every type, whole and broken.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let rsa: Value = serde_json::from_str(include_str!("../../core/tests/keys/rfc7515_a_2.json")).expect("JSON");
    let ec = json!({ "kty": "EC", "crv": "P-256", "x": P256[0], "y": P256[1], "d": P256[2], "kid": "ec" });
    let ed = json!({ "kty": "OKP", "crv": "Ed25519", "x": ED25519[0], "d": ED25519[1], "use": "sig" });
    let seed = base64url::encode(&ML_DSA_SEED);
    let ml = json!({ "kty": "AKP", "alg": "ML-DSA-44", "pub": *ML_DSA_44, "priv": seed, "kid": "ml" });
    let changed = |key: &Value, name: &str, value: Value| {
        let mut key = key.clone();
        key[name] = value;
        key
    };
    let keys = [
        rsa.clone(),
        ec.clone(),
        ed.clone(),
        changed(&rsa, "alg", json!("PS512")),
        changed(&rsa, "p", json!("AQAB")),
        changed(&rsa, "qi", Value::Null),
        changed(&rsa, "oth", json!([])),
        changed(&ec, "crv", json!("P-384")),
        changed(&ec, "d", ec["x"].clone()),
        changed(&ec, "x5t", json!("AAAAAAAAAAAAAAAAAAAAAAAAAAA")),
        changed(&ed, "use", json!("enc")),
        changed(&ed, "key_ops", json!(["sign"])),
        changed(&ed, "alg", json!("Ed25519")),
        ml.clone(),
        changed(&ml, "alg", json!("ML-DSA-87")),
        changed(&ml, "priv", json!(ED25519[1])),
        json!({ "keys": [ed] }),
        json!({ "kty": "oct", "k": "c2VjcmV0IHNlY3JldCBzZWNyZXQ" }),
    ];
    let mut seeds: Vec<Vec<u8>> = keys.iter().map(|key| key.to_string().into_bytes()).collect();
    seeds.push(b"-----BEGIN PRIVATE KEY-----\nAAAA".to_vec());
    seeds
}
