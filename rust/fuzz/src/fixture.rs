//! The fixed issuer of the token targets: keys, their key set, a policy, and how to sign.
//!
//! The keys are examples that RFCs have published, and an RSA key of `roots`: worthless on purpose. The clock
//! stands still.

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, ML_DSA_44_SIGNING, PqdsaKeyPair,
};
use entra_core::jose::algorithm::Algorithm;
use entra_core::jose::base64url;
use entra_core::jose::keyset::KeySet;
use entra_core::validate::policy::{Policy, Settings};

use crate::roots::{MODULI, to_bytes};
use crate::rsa_differential::encoding;

/// The accepted issuer.
pub const ISSUER: &str = "https://issuer.example/v2.0";
/// The accepted audience.
pub const AUDIENCE: &str = "audience";
/// Clock skew allowed, in seconds.
pub const LEEWAY: f64 = 60.0;

/// RFC 7515, appendix A.3.1: x, y, d.
pub const P256: [&str; 3] = [
    "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI",
];
/// RFC 8037, appendix A.1: x, d.
pub const ED25519: [&str; 2] =
    ["11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"];

/// RFC 9964, appendix A: the seed that is all zeros.
pub const ML_DSA_SEED: [u8; 32] = [0; 32];

/// RSA's exponent.
const EXPONENT: u64 = 65_537;

static EC_PAIR: LazyLock<EcdsaKeyPair> = LazyLock::new(|| {
    let [x, y, d] = P256.map(decoded);
    let point = [&[4], &x[..], &y[..]].concat();
    EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_FIXED_SIGNING, &d, &point).expect("an example")
});
static ED_PAIR: LazyLock<Ed25519KeyPair> = LazyLock::new(|| {
    let [x, d] = ED25519.map(decoded);
    Ed25519KeyPair::from_seed_and_public_key(&d, &x).expect("an example")
});

static ML_PAIR: LazyLock<PqdsaKeyPair> =
    LazyLock::new(|| PqdsaKeyPair::from_seed(&ML_DSA_44_SIGNING, &ML_DSA_SEED).expect("an example"));

/// The public key of [`ML_DSA_SEED`] for ML-DSA-44.
pub static ML_DSA_44: LazyLock<String> = LazyLock::new(|| base64url::encode(ML_PAIR.public_key().as_ref()));

/// The public keys, as the issuer publishes them: `rsa`, `ec`, `ed` and `ml`.
pub static JWKS: LazyLock<String> = LazyLock::new(|| {
    let n = base64url::encode(&MODULI[0].n.to_bytes_be());
    let ([x, y, _], [ed, _]) = (P256, ED25519);
    [
        format!(r#"{{"keys":[{{"kty":"RSA","use":"sig","kid":"rsa","n":"{n}","e":"AQAB"}},"#),
        format!(r#"{{"kty":"EC","use":"sig","kid":"ec","crv":"P-256","x":"{x}","y":"{y}"}},"#),
        format!(r#"{{"kty":"OKP","use":"sig","kid":"ed","crv":"Ed25519","x":"{ed}"}},"#),
        format!(r#"{{"kty":"AKP","use":"sig","kid":"ml","alg":"ML-DSA-44","pub":"{}"}}]}}"#, *ML_DSA_44),
    ]
    .concat()
});

/// The same, prepared. It remembers headers of tokens that verified, as in a running process.
pub static KEYS: LazyLock<KeySet> = LazyLock::new(|| KeySet::parse(JWKS.as_bytes(), 1).expect("usable keys"));

/// What the policy accepts. The RSA key has no `alg`, so it serves RS256 and never PS256.
pub const ALGORITHMS: [Algorithm; 6] =
    [Algorithm::Rs256, Algorithm::Ps256, Algorithm::Es256, Algorithm::EdDsa, Algorithm::Ed25519, Algorithm::MlDsa44];

/// What the tokens must be.
pub static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    Policy::new(Settings {
        issuers: vec![ISSUER.to_owned()],
        audiences: Some(vec![AUDIENCE.to_owned(), "another".to_owned()]),
        algorithms: ALGORITHMS.to_vec(),
        leeway: LEEWAY,
        ..Settings::default()
    })
    .expect("a policy")
});

/// Sign these bytes, whatever they are, with the key of that id; with an unknown id, badly.
#[must_use]
pub fn sign(kid: &str, header: &[u8], payload: &[u8]) -> Vec<u8> {
    let signed = format!("{}.{}", base64url::encode(header), base64url::encode(payload));
    let signature = match kid {
        "rsa" => {
            let modulus = &MODULI[0];
            let encoded = num_bigint::BigUint::from_bytes_be(&encoding(signed.as_bytes(), modulus.width()));
            let signature = modulus.root(&encoded, EXPONENT).expect("the exponent suits the modulus");
            base64url::encode(&to_bytes(&signature, modulus.width()))
        }
        "ec" => {
            let signature = EC_PAIR.sign(&SystemRandom::new(), signed.as_bytes()).expect("AWS-LC signs");
            base64url::encode(signature.as_ref())
        }
        "ed" => base64url::encode(ED_PAIR.sign(signed.as_bytes()).as_ref()),
        "ml" => {
            let mut signature = vec![0; ML_DSA_44_SIGNING.signature_len()];
            ML_PAIR.sign(signed.as_bytes(), &mut signature).expect("AWS-LC signs");
            base64url::encode(&signature)
        }
        _ => base64url::encode(b"signature"),
    };
    format!("{signed}.{signature}").into_bytes()
}

fn decoded(text: &str) -> Vec<u8> {
    base64url::decode(text.as_bytes()).expect("an example")
}
