//! Whole tokens against jsonwebtoken, which has parsers and checks of its own.
//!
//! Whatever the core accepts, jsonwebtoken accepts, with equal claims, unless the header holds parameters that the core
//! ignores and jsonwebtoken does not, or names an algorithm that it does not have (`Ed25519`, ML-DSA). The other way around the core may be
//! stricter, but never about the signature: a good signature that it calls bad would be an outage.
//!
//! jsonwebtoken reads the clock itself, so times are written relative to it: `@` and a decimal number with a
//! sign in the payload becomes a time that many seconds from now.

use std::sync::LazyLock;

use entra_core::jose::base64url;
use entra_core::jose::token::{Compact, decode_header};
use entra_core::validate::verify::verify;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};

use crate::fixture::{AUDIENCE, ED25519, ISSUER, KEYS, P256, POLICY, sign};
use crate::roots::MODULI;
use crate::{Outcome, strict_json};

/// How long a run may take on a busy machine, in seconds. Both clocks agree on whatever stays valid that long.
const PATIENCE: f64 = 30.0;

static THEIR_KEYS: LazyLock<[(&str, Algorithm, DecodingKey); 3]> = LazyLock::new(|| {
    let n = base64url::encode(&MODULI[0].n.to_bytes_be());
    [
        ("rsa", Algorithm::RS256, DecodingKey::from_rsa_components(&n, "AQAB").expect("numbers")),
        ("ec", Algorithm::ES256, DecodingKey::from_ec_components(P256[0], P256[1]).expect("numbers")),
        ("ed", Algorithm::EdDSA, DecodingKey::from_ed_components(ED25519[0]).expect("numbers")),
    ]
});

/// See the module's description.
pub fn run(data: &[u8]) -> Outcome {
    #[allow(clippy::cast_precision_loss, reason = "seconds since 1970")]
    let now = jsonwebtoken::get_current_timestamp() as f64;
    let Some((kid, token)) = token_of(data, now) else { return Outcome::Refused };
    let own = verify(&token, &KEYS, &POLICY, now);
    let theirs = checked_by_other(kid, &token);
    match (&own, &theirs) {
        (Ok(own), Ok(theirs)) => {
            let read = strict_json::read(own.claims().text().as_bytes()).expect("they could read it too");
            assert_eq!(read.value, *theirs, "other claims");
        }
        (Ok(verified), Err(error)) => {
            let lasts = verify(&token, &KEYS, &POLICY, now + PATIENCE).is_ok();
            // `serde_json`, which they use, has no numbers beyond the range of floats. The core keeps them as text.
            let readable = strict_json::read(verified.claims().text().as_bytes()).is_ok();
            let excepted = has_ignored_parameters(&token) || has_newer_algorithm(&token);
            assert!(!lasts || !readable || excepted, "only the core accepts this: {error}");
        }
        (Err(error), Ok(_)) => {
            let code = error.code();
            assert!(!matches!(code, "signature_invalid" | "token_too_large" | "token_encrypted"), "refused as {code}");
        }
        (Err(_), Err(_)) => {}
    }
    own.is_ok().into()
}

/// Does the header hold more than the core looks at? They demand types of such parameters as well (`jku`, `x5c`), while
/// the core ignores all that is in them (CVE-2018-0114).
fn has_ignored_parameters(token: &[u8]) -> bool {
    let header = Compact::split(token, token.len()).ok().and_then(|compact| decode_header(compact.header).ok());
    let known = |name: &str| ["alg", "kid", "typ"].contains(&name);
    header
        .is_some_and(|header| header.root().members().any(|(name, _)| !name.as_str().is_some_and(|name| known(&name))))
}

/// Does the header name an algorithm that they do not have?
fn has_newer_algorithm(token: &[u8]) -> bool {
    let header = Compact::split(token, token.len()).ok().and_then(|compact| decode_header(compact.header).ok());
    header.is_some_and(|header| {
        header.root().get("alg").is_some_and(|alg| ["Ed25519", "ML-DSA-44"].iter().any(|newer| alg.is_str(newer)))
    })
}

/// As in `token`: a recipe, or `raw:` and the id of the key that they must use and a token.
fn token_of(data: &[u8], now: f64) -> Option<(&str, Vec<u8>)> {
    if let Some(raw) = data.strip_prefix(b"raw:") {
        let (kid, token) = raw.split_at_checked(2)?;
        return Some((std::str::from_utf8(kid).ok()?, token.to_vec()));
    }
    let mut lines = data.splitn(3, |byte| *byte == b'\n');
    let (kid, header, payload) = (lines.next()?, lines.next()?, lines.next()?);
    let kid = std::str::from_utf8(kid).ok()?;
    Some((kid, sign(kid, header, &with_times(payload, now))))
}

fn with_times(payload: &[u8], now: f64) -> Vec<u8> {
    let mut parts = payload.split(|byte| *byte == b'@');
    let mut out = parts.next().unwrap_or_default().to_vec();
    for part in parts {
        let length = part.iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+')).count();
        let (offset, rest) = part.split_at(length.min(12));
        let offset: f64 = std::str::from_utf8(offset).unwrap_or_default().parse().unwrap_or_default();
        out.extend_from_slice(format!("{}", now + offset).as_bytes());
        out.extend_from_slice(rest);
    }
    out
}

fn checked_by_other(kid: &str, token: &[u8]) -> Result<serde_json::Value, String> {
    let header = jsonwebtoken::decode_header(token).map_err(|error| error.to_string())?;
    // A caller of theirs finds the key by the header's `kid`, as the core does.
    if header.kid.as_deref() != Some(kid) {
        return Err("another key".to_owned());
    }
    let (_, algorithm, key) = THEIR_KEYS.iter().find(|(own, ..)| *own == kid).ok_or("an unknown key")?;
    let mut validation = Validation::new(*algorithm);
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&[AUDIENCE, "another"]);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    validation.validate_nbf = true;
    jsonwebtoken::decode(token, key, &validation).map(|data| data.claims).map_err(|error| error.to_string())
}

/// Recipes, and one raw token that has expired.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (kid, alg) in [("rsa", "RS256"), ("ec", "ES256"), ("ed", "EdDSA")] {
        for rest in [
            "",
            r#","nbf":@-5,"roles":["a"]"#,
            r#","nbf":@61"#,
            r#","nbf":"now""#,
            r#","nbf":null"#,
            r#","exp":@9"#,
            r#","x":1e400"#,
            r#","x":-0.0,"y":12345678901234567890,"z":"\u00e9\ud83d\ude00","w":[{}]"#,
        ] {
            let header = format!(r#"{{"typ":"JWT","alg":"{alg}","kid":"{kid}"}}"#);
            seeds.push(
                format!(
                    r#"{kid}
{header}
{{"iss":"{ISSUER}","aud":["x","{AUDIENCE}"],"exp":@3600,"iat":@-1{rest}}}"#
                )
                .into_bytes(),
            );
        }
    }
    for payload in [
        r#"{"iss":"https://issuer.example/v2.0","aud":"audience","exp":@-59.5,"iat":@-3600}"#,
        r#"{"iss":"https://issuer.example/v2.0","aud":"another","exp":@-61,"iat":@-3600}"#,
        r#"{"iss":["https://issuer.example/v2.0"],"aud":"audience","exp":@60,"iat":@0}"#,
        r#"{"iss":"https://issuer.example/v2.0","aud":{"audience":1},"exp":@60,"iat":@60}"#,
    ] {
        seeds.push(format!("ed\n{{\"alg\":\"EdDSA\",\"kid\":\"ed\"}}\n{payload}").into_bytes());
    }
    for ignored in [r#""jku":1"#, r#""jwk":{"kty":1e400}"#, r#""x":"y""#] {
        let header = format!(r#"{{"alg":"EdDSA","kid":"ed",{ignored}}}"#);
        let payload = format!(r#"{{"iss":"{ISSUER}","aud":"{AUDIENCE}","exp":@60,"iat":@0}}"#);
        seeds.push(format!("ed\n{header}\n{payload}").into_bytes());
    }
    seeds.push([b"raw:ed", &sign("ed", br#"{"alg":"EdDSA","kid":"ed"}"#, b"{}")[..]].concat());
    seeds
}
