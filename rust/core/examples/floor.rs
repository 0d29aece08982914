//! The floors that the library is measured against, without Python: `floor JWKS TOKENS`.
//!
//! Reads a key set and a file with one token a line. Then it obeys lines on standard input, each the name of a
//! work, does that work once for every token, and answers with a line when it is done: `raw` is AWS-LC's
//! verification with a prepared key, hash included; `confirmed` is the same by the library that the core chooses, with
//! its confirmations, and `unconfirmed` by that library alone; `sha256` is the digest of the token; `verify` is this
//! crate's whole verification, claims checked; `counting` is what the fast path does for its metrics, once for each
//! request, clocks included. The clock that measures is on the other side of the pipe, so that floors and subjects are
//! measured by the same one.

use std::hint::black_box;
use std::io::{BufRead, Write};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256;
use entra_core::digest::sha256;
use entra_core::jose::algorithm::Algorithm;
use entra_core::jose::base64url;
use entra_core::jose::json::{Document, Value};
use entra_core::jose::keyset::KeySet;
use entra_core::jose::signature::{Material, PreparedKey, Signatures};
use entra_core::jose::token::Compact;
use entra_core::sidecar::contract::CallerCheck;
use entra_core::sidecar::fast_path::{FastPath, Outcome, Stop};
use entra_core::sidecar::providers::Providers;
use entra_core::validate::policy::{Policy, Settings};
use entra_core::validate::verify::verify;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [jwks, tokens] = &arguments[..] else { return Err("usage: floor JWKS TOKENS".into()) };
    let jwks = std::fs::read(jwks)?;
    let text = std::fs::read_to_string(tokens)?;
    let tokens: Vec<&[u8]> = text.lines().map(str::as_bytes).collect();

    let first = Compact::split(tokens.first().ok_or("no tokens")?, usize::MAX).map_err(|error| error.to_string())?;
    let claims = Document::parse(base64url::decode(first.payload).map_err(|_| "payload")?).map_err(|_| "claims")?;
    let claim = |name| claims.root().get(name).and_then(Value::as_str).unwrap_or_default().into_owned();
    let settings = Settings { issuers: vec![claim("iss")], audiences: Some(vec![claim("aud")]), ..Settings::default() };
    let policy = Policy::new(settings)?;
    let keys = KeySet::parse(&jwks, 1)?;

    // The prepared key for the raw floor, made without this crate's own key handling.
    let document = Document::parse(jwks).map_err(|_| "key set")?;
    let key = document.root().get("keys").and_then(|keys| keys.elements().next()).ok_or("no key")?;
    let number = |name| {
        let text = key.get(name).and_then(Value::as_str).unwrap_or_default();
        base64url::decode(text.as_bytes()).unwrap_or_default()
    };
    let prepared =
        PublicKeyComponents { n: number("n"), e: number("e") }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)?;
    let signed: Vec<(&[u8], Vec<u8>)> = tokens
        .iter()
        .filter_map(|token| Compact::split(token, usize::MAX).ok())
        .filter_map(|token| Some((token.signed, base64url::decode(token.signature).ok()?)))
        .collect();
    // The key as the core prepares it, and the same with the fast library within reach.
    let [key_of_the_set] = keys.keys() else { return Err("one key is expected".into()) };
    let fast = PreparedKey::new(&Material::Rsa { n: number("n"), e: number("e") }, Algorithm::Rs256)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();

    let fast_path =
        FastPath::new(Providers::default(), CallerCheck::new([]), vec![0.0001, 0.001, 0.01, 0.1, 1.0], [1, 2]);
    let answered = Outcome {
        consumed: 1,
        answered: 1,
        by_endpoint: [0, 0, 1],
        stop: Stop::Done,
        renewals: Vec::new(),
        spans: Vec::new(),
        turn_due: false,
    };

    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        match line?.as_str() {
            "raw" => {
                for (message, signature) in &signed {
                    assert!(black_box(prepared.verify_sig(message, signature)).is_ok(), "a signature does not verify");
                }
            }
            "confirmed" => {
                for (message, signature) in &signed {
                    let by = key_of_the_set.verify(Algorithm::Rs256, Signatures::Fast, message, signature);
                    assert!(black_box(by).is_some(), "a signature does not verify");
                }
            }
            "unconfirmed" => {
                for (message, signature) in &signed {
                    // None on a processor on which AWS-LC alone verifies.
                    assert_ne!(black_box(fast.unconfirmed(message, signature)), Some(false), "it does not verify");
                }
            }
            "sha256" => {
                for token in &tokens {
                    black_box(sha256(black_box(token)));
                }
            }
            "verify" => {
                for token in &tokens {
                    assert!(black_box(verify(token, &keys, &policy, now)).is_ok(), "a token does not verify");
                }
            }
            "counting" => {
                for _ in &tokens {
                    let started = Instant::now();
                    let outcome = black_box(&answered);
                    black_box(fast_path.figures().record(outcome, 0.0, started.elapsed()));
                }
            }
            other => return Err(format!("unknown work: {other}").into()),
        }
        writeln!(out, "done")?;
        out.flush()?;
    }
    Ok(())
}
