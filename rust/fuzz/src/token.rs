//! Compact tokens, raw and signed.
//!
//! An input that begins with `sign:` is a recipe, so that claims behind a good signature are reached: the id of
//! a key, the header and the payload, a line each. Everything else is a token as it came.

use std::sync::Arc;

use entra_core::cache::s3_fifo::Limits;
use entra_core::jose::algorithm::Algorithm;
use entra_core::jose::base64url;
use entra_core::jose::keyset::KeySet;
use entra_core::jose::token::{Compact, Header, MAX_TOKEN_BYTES};
use entra_core::validate::claims::Claims;
use entra_core::validate::explain::explain;
use entra_core::validate::introspection;
use entra_core::validate::validator::{Recalled, Validator};
use entra_core::validate::verify::{Verified, verify};

use crate::fixture::{ALGORITHMS, AUDIENCE, ISSUER, JWKS, KEYS, LEEWAY, POLICY, sign};
use crate::{Outcome, strict_json};

/// The time of every check: 2026-01-01.
const NOW: f64 = 1_767_225_600.0;

/// See the module's description.
pub fn run(data: &[u8]) -> Outcome {
    let (signer, token) = token_of(data);
    if let Ok(compact) = Compact::split(&token, MAX_TOKEN_BYTES) {
        let rejoined = [compact.header, compact.payload, compact.signature].join(&b'.');
        assert_eq!(rejoined, token, "the segments are the token");
        assert_eq!(compact.signed, &token[..token.len() - compact.signature.len() - 1]);
        let _ = Header::parse(compact.header);
        if let Ok(claims) = Claims::dangerous_unverified(compact.payload) {
            assert_eq!(base64url::encode(claims.text().as_bytes()).as_bytes(), compact.payload);
        }
    }
    let result = verify(&token, &KEYS, &POLICY, NOW);
    if let Ok(verified) = &result {
        assert_rightly_accepted(&token, signer, verified);
    }
    let accepted = result.is_ok();
    let expires_at = result.as_ref().ok().map(Verified::expires_at);

    // Other ways to the same question must give the same answer.
    let checks = explain(&token, Some(&KEYS), &POLICY, NOW);
    let explained = checks.iter().all(|check| matches!(check.outcome, Some(Ok(()))));
    assert_eq!(explained, accepted, "{checks:?}\n{result:?}");
    let error = result.err();
    if let Some(error) = &error {
        let known = checks.iter().any(|check| matches!(&check.outcome, Some(Err(found)) if found == error));
        assert!(known, "{error:?} is not among {checks:?}");
        assert_safe_to_show(&[Some(error.to_string()), error.expected(), error.actual()]);
    }
    assert_cache_agrees(&token, expires_at);
    accepted.into()
}

/// The token, and of a recipe the id of the key that signs it.
fn token_of(data: &[u8]) -> (Option<&str>, Vec<u8>) {
    let Some(recipe) = data.strip_prefix(b"sign:") else { return (None, data.to_vec()) };
    let mut lines = recipe.splitn(3, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (kid, header, payload) = (std::str::from_utf8(line()).unwrap_or_default(), line(), line());
    (Some(kid), sign(kid, header, payload))
}

/// What was accepted has one spelling, and claims that fit when read by other software.
fn assert_rightly_accepted(token: &[u8], signer: Option<&str>, verified: &Verified) {
    let mut encoded = Vec::new();
    let mut decoded = Vec::new();
    for segment in token.split(|byte| *byte == b'.') {
        let bytes = base64url::decode(segment).expect("an accepted segment is base64url");
        encoded.push(base64url::encode(&bytes));
        decoded.push(bytes);
    }
    assert_eq!(encoded.join(".").as_bytes(), token, "a second spelling was accepted");
    let [header, payload, _] = &decoded[..] else { panic!("{} segments", decoded.len()) };
    assert_eq!(verified.claims().text().as_bytes(), payload, "other claims than were signed");

    // A number beyond the floats, in a member that is not read, is the one thing that `serde_json` cannot read.
    if let Ok(header) = strict_json::read(header) {
        assert!(!header.duplicates);
        let accepted = ALGORITHMS.into_iter().filter(|algorithm| *algorithm != Algorithm::Ps256);
        let names: Vec<_> = accepted.map(Algorithm::name).collect();
        assert!(names.iter().any(|alg| header.value["alg"] == *alg), "{}", header.value);
        assert!(header.value.get("crit").is_none(), "an extension was ignored");
        assert!(signer.is_none_or(|signer| header.value["kid"] == signer), "another key signed it");
    } else {
        assert!(strict_json::follows_grammar(header));
    }
    let Ok(claims) = strict_json::read(payload) else {
        assert!(strict_json::follows_grammar(payload));
        return;
    };
    assert!(!claims.duplicates);
    let claims = claims.value;
    assert_eq!(claims["iss"], ISSUER);
    let fits = |aud: &serde_json::Value| aud == AUDIENCE || aud == "another";
    assert!(fits(&claims["aud"]) || claims["aud"].as_array().is_some_and(|list| list.iter().any(fits)));
    let time = |name: &str| claims.get(name).map(|value| value.as_f64().expect("a time is a number"));
    assert!(time("exp").expect("exp is required") + LEEWAY > NOW);
    assert!(time("iat").expect("iat is required") <= NOW + LEEWAY);
    assert!(time("nbf").is_none_or(|nbf| nbf <= NOW + LEEWAY));

    let answer = introspection::active(verified.claims());
    let answer = strict_json::read(&answer).expect("an introspection answer is JSON");
    assert!(!answer.duplicates && answer.value["active"] == true);
    let serde_json::Value::Object(claims) = claims else { panic!("claims are an object") };
    for (name, value) in claims.iter().filter(|(name, _)| *name != "active") {
        assert_eq!(answer.value[name], *value);
    }
}

/// What is said about a token goes into logs: no control characters, no length of the stranger's choosing.
fn assert_safe_to_show(texts: &[Option<String>]) {
    for text in texts.iter().flatten() {
        assert!(!text.chars().any(char::is_control), "{text:?}");
        assert!(text.len() < 4096, "{} bytes", text.len());
    }
}

/// Through the cache: not remembered, remembered, and after the key set was replaced by an equal and an
/// emptier one.
fn assert_cache_agrees(token: &[u8], expires_at: Option<f64>) {
    let validator = Validator::new(POLICY.clone(), Limits { entries: 8, bytes: 1 << 20 }, [1, 2]);
    assert!(validator.validate(token, NOW).is_err(), "accepted without keys");
    let Some(expires_at) = expires_at else { return };
    let parse = |jwks: &str, generation| Some(Arc::new(KeySet::parse(jwks.as_bytes(), generation).expect("usable")));
    validator.set_keys(parse(&JWKS, 2));
    assert!(validator.validate(token, NOW).is_ok());
    assert!(matches!(validator.recall(token, NOW), Recalled::Known(Ok(_))), "it was not remembered");
    assert!(validator.validate(token, expires_at + LEEWAY).is_err(), "a cached verification outlived the token");
    assert!(validator.validate(token, NOW).is_ok());
    validator.set_keys(parse(&JWKS, 3));
    assert!(matches!(validator.recall(token, NOW), Recalled::Known(Ok(_))), "its key is still there");
    validator.set_keys(parse(&JWKS.replace(r#""kid":""#, r#""kid":"not "#), 4));
    assert!(matches!(validator.recall(token, NOW), Recalled::Unknown(_)));
    assert!(validator.validate(token, NOW).is_err(), "a cached verification outlived its key");
}

/// Recipes and raw tokens.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let claims =
        |rest: &str| format!(r#"{{"iss":"{ISSUER}","aud":"{AUDIENCE}","exp":1767229200,"iat":1767225600{rest}}}"#);
    let mut seeds = Vec::new();
    let signers =
        [("rsa", "RS256"), ("rsa", "PS256"), ("ec", "ES256"), ("ed", "EdDSA"), ("ed", "Ed25519"), ("ml", "ML-DSA-44")];
    for (kid, alg) in signers {
        let header = format!(r#"{{"typ":"JWT","alg":"{alg}","kid":"{kid}"}}"#);
        seeds.push(format!("sign:{kid}\n{header}\n{}", claims("")).into_bytes());
        seeds.push(sign(kid, header.as_bytes(), claims("").as_bytes()));
    }
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"Ed448","kid":"ed"}"#,
        r#"{"alg":"ML-DSA-65","kid":"ml"}"#,
        r#"{"alg":"HS256","kid":"rsa"}"#,
        r#"{"alg":"EdDSA","kid":"ed","crit":["exp"]}"#,
        r#"{"alg":"EdDSA","kid":"ed","b64":false}"#,
        r#"{"alg":"EdDSA","kid":"ed","typ":"dpop+jwt"}"#,
        r#"{"alg":"EdDSA","kid":"ed","jwk":{"kty":"OKP"},"jku":"https://x.example","x5c":[]}"#,
        r#"{"alg":"EdDSA","kid":"\u0065d"}"#,
        r#"{"alg":"EdDSA"}"#,
    ] {
        seeds.push(format!("sign:ed\n{header}\n{}", claims("")).into_bytes());
    }
    for rest in [
        r#","nbf":1767225600.5,"active":false,"roles":["a","b"],"groups":[]"#,
        r#","scp":"a b","n":1e400,"z":[{"a":null}],"s":"\ud83d\ude00""#,
        r#","exp":1"#,
        r#","nbf":1767225661"#,
        r#","nbf":"1""#,
        r#","tid":"11111111-2222-3333-4444-555555555555","idtyp":"app""#,
    ] {
        seeds.push(format!("sign:ed\n{{\"alg\":\"EdDSA\",\"kid\":\"ed\"}}\n{}", claims(rest)).into_bytes());
    }
    // The clock stands at 1767225600, and 60 seconds are allowed for.
    for (from, to) in [
        ("\"audience\"", "[\"x\",\"audience\"]"),
        ("\"audience\"", "\"audienc\""),
        ("issuer.example", "issuer.example.org"),
        ("1767229200", "1767225540"),
        ("1767229200", "1767225540.5"),
        ("\"iat\":1767225600", "\"iat\":1767225661"),
        ("iat", "Iat"),
    ] {
        let claims = claims("").replacen(from, to, 1);
        seeds.push(format!("sign:ed\n{{\"alg\":\"EdDSA\",\"kid\":\"ed\"}}\n{claims}").into_bytes());
    }
    // Signed by another key, and by none.
    for signer in ["ec", "nobody"] {
        seeds.push(format!("sign:{signer}\n{{\"alg\":\"EdDSA\",\"kid\":\"ed\"}}\n{}", claims("")).into_bytes());
    }
    seeds.push(b"a.b.c.d.e".to_vec());
    seeds.push(b"..".to_vec());
    seeds
}
