//! Private keys and compact JWS (RFC 7515): the sidecar signs its client assertions with them.
//!
//! Belongs here: reading a private JWK (RFC 7517, RFC 7518 section 6, RFC 8037, RFC 9964), and signing bytes that the caller has
//! put together. Does not belong here: what a header or a claim set should say, verification (`validate::verify`),
//! public key sets (`keyset`), files and environment variables; generating keys and writing them down, which only the
//! local Entra ID and tests do, in Python.
//!
//! No error, `Debug` or `Display` of this module ever contains key material.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair, ML_DSA_44_SIGNING, ML_DSA_65_SIGNING, ML_DSA_87_SIGNING, PqdsaKeyPair, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use zeroize::Zeroizing;

use crate::jose::algorithm::Algorithm;
use crate::jose::base64url;
use crate::jose::json::{self, Kind, Value};

/// The longest JWK that is read, in bytes. A 8192-bit RSA key with a certificate chain stays far below.
pub const MAX_JWK_BYTES: usize = 64 * 1024;

/// The longest `kid` that is accepted in a JWK, in bytes: it is part of every token's header.
pub const MAX_KID_BYTES: usize = 1024;

/// Smallest RSA modulus that may sign, in bits (RFC 7518, section 3.3).
const MIN_RSA_BITS: usize = 2048;

/// Largest RSA modulus that AWS-LC handles, in bits.
const MAX_RSA_BITS: usize = 8192;

/// Why a key was refused, or something was not signed.
///
/// The code is stable and for programs; the sentence is for people. Neither contains key material.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignError {
    /// The private JWK cannot be used; the sentence says which member and what was expected.
    InvalidKey(String),
    /// The header handed in for signing is not a JSON object with the key's `alg`.
    InvalidHeader(String),
    /// The cryptographic library failed; it deliberately gives no reason.
    Failed,
}

impl SignError {
    /// Stable, machine-readable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InvalidKey(_) => "signing_key_invalid",
            Self::InvalidHeader(_) => "signing_header_invalid",
            Self::Failed => "signing_failed",
        }
    }
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidKey(reason) => write!(f, "private JWK cannot be used: {reason}"),
            Self::InvalidHeader(reason) => write!(f, "JWS header cannot be signed: {reason}"),
            Self::Failed => f.write_str("the cryptographic library could not complete the operation"),
        }
    }
}

impl std::error::Error for SignError {}

/// The key pair itself. AWS-LC owns the private numbers and wipes them when they are dropped.
enum Pair {
    Rsa { pair: RsaKeyPair, padding: &'static dyn RsaEncoding },
    Ec(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    MlDsa(PqdsaKeyPair),
}

/// What JOSE and AWS-LC call one elliptic curve.
struct Curve {
    name: &'static str,
    /// Size in bytes of a coordinate, and of the private number (RFC 7518, sections 6.2.1.2 and 6.2.2.1).
    width: usize,
    algorithm: Algorithm,
    signing: &'static EcdsaSigningAlgorithm,
}

static CURVES: [Curve; 2] = [
    Curve { name: "P-256", width: 32, algorithm: Algorithm::Es256, signing: &ECDSA_P256_SHA256_FIXED_SIGNING },
    Curve { name: "P-384", width: 48, algorithm: Algorithm::Es384, signing: &ECDSA_P384_SHA384_FIXED_SIGNING },
];

/// A private key that signs, with what its JWK says about it. Immutable; may be shared between threads.
pub struct SigningKey {
    pair: Pair,
    algorithm: Algorithm,
    kid: Option<String>,
    x5t: Option<String>,
    x5t_s256: Option<String>,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("algorithm", &self.algorithm.name())
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Read a private JWK: RSA with all its CRT members, EC on P-256 or P-384, OKP with Ed25519, or AKP with ML-DSA.
    ///
    /// The public members must belong to the private ones; `use`, `key_ops` and `alg` must allow signing. For RSA,
    /// `alg` chooses among RS256 (default), RS384, RS512, PS256, PS384 and PS512; for OKP, between the two names of one
    /// algorithm, `EdDSA` (default) and `Ed25519`.
    ///
    /// # Errors
    /// `InvalidKey` with a sentence that names the member and what was expected.
    pub fn from_jwk(text: &[u8]) -> Result<Self, SignError> {
        if text.len() > MAX_JWK_BYTES {
            return Err(invalid(format!("it has {} bytes, expected at most {MAX_JWK_BYTES}", text.len())));
        }
        if text.trim_ascii_start().starts_with(b"-----BEGIN") {
            return Err(invalid("it is PEM, expected a JSON object (RFC 7517)"));
        }
        let document = json::Document::parse(text)
            .map_err(|error| invalid(format!("expected a JSON object (RFC 7517), found {}", error.reason())))?;
        Self::from_members(&Jwk(document.root()))
    }

    fn from_members(jwk: &Jwk<'_>) -> Result<Self, SignError> {
        if jwk.0.kind() != Kind::Object {
            return Err(invalid("expected a JSON object (RFC 7517), found another JSON value"));
        }
        if jwk.0.get("keys").is_some() {
            return Err(invalid("it is a key set, expected one key (a single element of 'keys')"));
        }
        jwk.refuse_unless_for_signing()?;
        let kty = jwk.required_text("kty")?;
        let (pair, algorithm) = match kty.as_str() {
            "RSA" => rsa_from_jwk(jwk)?,
            "EC" => ec_from_jwk(jwk)?,
            "OKP" => ed25519_from_jwk(jwk)?,
            "AKP" => ml_dsa_from_jwk(jwk)?,
            "oct" => return Err(invalid("'kty' is 'oct', a symmetric key; expected RSA, EC, OKP or AKP")),
            _ => return Err(invalid("'kty' is unknown, expected RSA, EC, OKP or AKP")),
        };
        let kid = jwk.text("kid")?;
        if let Some(kid) = &kid
            && (kid.is_empty() || kid.len() > MAX_KID_BYTES)
        {
            return Err(invalid(format!("'kid' has {} bytes, expected 1 to {MAX_KID_BYTES}", kid.len())));
        }
        // A thumbprint of the wrong length is only noticed by the provider, as an assertion that it refuses.
        let (x5t, x5t_s256) = (jwk.digest_text("x5t", 20)?, jwk.digest_text("x5t#S256", 32)?);
        Ok(Self { pair, algorithm, kid, x5t, x5t_s256 })
    }

    /// The algorithm that this key signs with.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The JWK's `kid`.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The JWK's `x5t`: SHA-1 thumbprint of the key's certificate, base64url (RFC 7517, section 4.8).
    #[must_use]
    pub fn x5t(&self) -> Option<&str> {
        self.x5t.as_deref()
    }

    /// The JWK's `x5t#S256`: SHA-256 thumbprint of the key's certificate, base64url (RFC 7517, section 4.9).
    #[must_use]
    pub fn x5t_s256(&self) -> Option<&str> {
        self.x5t_s256.as_deref()
    }

    /// Sign exactly these bytes and give the compact serialization (RFC 7515, section 7.1).
    ///
    /// # Errors
    /// `InvalidHeader` when `header` is not a JSON object whose `alg` is this key's: a token that names an algorithm
    /// other than the one that signed it can never be verified, and the mistake would surface far away from here.
    pub fn sign(&self, header: &[u8], payload: &[u8]) -> Result<String, SignError> {
        self.check_header(header)?;
        let mut token = base64url::encode(header);
        token.reserve(2 + payload.len().div_ceil(3) * 4 + MAX_RSA_BITS / 6 + 2);
        token.push('.');
        token.push_str(&base64url::encode(payload));
        let signature = self.signature(token.as_bytes())?;
        token.push('.');
        token.push_str(&base64url::encode(&signature));
        Ok(token)
    }

    fn check_header(&self, header: &[u8]) -> Result<(), SignError> {
        let expected = self.algorithm.name();
        let refused = |reason: String| Err(SignError::InvalidHeader(reason));
        let document = match json::Document::parse(header) {
            Ok(document) => document,
            Err(error) => return refused(format!("expected a JSON object, found {}", error.reason())),
        };
        let root = document.root();
        // RFC 7797: the payload would have to be signed without being encoded, which is not done here.
        if root.get("b64").is_some() {
            return refused("'b64' is not supported".to_owned());
        }
        if root.get("alg").is_some_and(|alg| alg.is_str(expected)) {
            Ok(())
        } else {
            refused(format!("expected a JSON object whose 'alg' is '{expected}', the algorithm of the key"))
        }
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa { pair, padding } => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*padding, &random, message, &mut signature).map_err(|_| SignError::Failed)?;
                Ok(signature)
            }
            Pair::Ec(pair) => {
                let signature = pair.sign(&random, message).map_err(|_| SignError::Failed)?;
                Ok(signature.as_ref().to_vec())
            }
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::MlDsa(pair) => {
                let mut signature = vec![0; pair.algorithm().signature_len()];
                pair.sign(message, &mut signature).map_err(|_| SignError::Failed)?;
                Ok(signature)
            }
        }
    }
}

fn invalid(reason: impl Into<String>) -> SignError {
    SignError::InvalidKey(reason.into())
}

/// The members of a JWK that is being read. Errors never repeat values of members: a malformed JWK may hold private
/// bytes anywhere.
struct Jwk<'a>(Value<'a>);

impl Jwk<'_> {
    fn text(&self, name: &str) -> Result<Option<String>, SignError> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        match value.as_str() {
            Some(text) => Ok(Some(text.into_owned())),
            None => Err(invalid(format!("'{name}' is not a string"))),
        }
    }

    fn required_text(&self, name: &str) -> Result<String, SignError> {
        self.text(name)?.ok_or_else(|| invalid(format!("'{name}' is missing")))
    }

    /// The bytes of a base64url member; wiped when dropped, as most of them are private.
    fn bytes(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, SignError> {
        let text = Zeroizing::new(self.required_text(name)?);
        match base64url::decode(text.as_bytes()) {
            Ok(bytes) if !bytes.is_empty() => Ok(Zeroizing::new(bytes)),
            Ok(_) => Err(invalid(format!("'{name}' is empty"))),
            Err(_) => Err(invalid(format!("'{name}' is not base64url without padding (RFC 7515, section 2)"))),
        }
    }

    fn bytes_of_width(&self, name: &str, width: usize) -> Result<Zeroizing<Vec<u8>>, SignError> {
        let bytes = self.bytes(name)?;
        if bytes.len() == width {
            Ok(bytes)
        } else {
            Err(invalid(format!("'{name}' has {} bytes, expected {width}", bytes.len())))
        }
    }

    fn digest_text(&self, name: &str, width: usize) -> Result<Option<String>, SignError> {
        let text = self.text(name)?;
        if text.is_some() {
            self.bytes_of_width(name, width)?;
        }
        Ok(text)
    }

    /// RFC 7517, sections 4.2 and 4.3: what the key is for.
    fn refuse_unless_for_signing(&self) -> Result<(), SignError> {
        if self.text("use")?.is_some_and(|purpose| purpose != "sig") {
            return Err(invalid("'use' does not allow signing, expected 'sig'"));
        }
        if let Some(operations) = self.0.get("key_ops") {
            if operations.kind() != Kind::Array {
                return Err(invalid("'key_ops' is not an array"));
            }
            if !operations.elements().any(|operation| operation.is_str("sign")) {
                return Err(invalid("'key_ops' does not allow signing, expected it to contain 'sign'"));
            }
        }
        Ok(())
    }

    /// The algorithm that `alg` names, if it is among those the key can do; without `alg`, the first of them.
    fn algorithm(&self, possible: &[Algorithm]) -> Result<Algorithm, SignError> {
        let Some(name) = self.text("alg")? else { return Ok(possible[0]) };
        possible.iter().copied().find(|algorithm| algorithm.name() == name).ok_or_else(|| {
            let names: Vec<_> = possible.iter().map(|algorithm| algorithm.name()).collect();
            invalid(format!("'alg' does not fit the key, expected {}", names.join(" or ")))
        })
    }
}

fn rsa_padding(algorithm: Algorithm) -> Option<&'static dyn RsaEncoding> {
    Some(match algorithm {
        Algorithm::Rs256 => &RSA_PKCS1_SHA256,
        Algorithm::Rs384 => &RSA_PKCS1_SHA384,
        Algorithm::Rs512 => &RSA_PKCS1_SHA512,
        Algorithm::Ps256 => &RSA_PSS_SHA256,
        Algorithm::Ps384 => &RSA_PSS_SHA384,
        Algorithm::Ps512 => &RSA_PSS_SHA512,
        _ => return None,
    })
}

fn rsa_from_jwk(jwk: &Jwk<'_>) -> Result<(Pair, Algorithm), SignError> {
    let algorithm = jwk.algorithm(&[
        Algorithm::Rs256,
        Algorithm::Rs384,
        Algorithm::Rs512,
        Algorithm::Ps256,
        Algorithm::Ps384,
        Algorithm::Ps512,
    ])?;
    let padding = rsa_padding(algorithm).ok_or(SignError::Failed)?;
    let modulus = jwk.bytes("n")?;
    let n = without_leading_zeros(&modulus);
    let bits = bit_length(n);
    if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
        return Err(invalid(format!("the RSA modulus 'n' has {bits} bits, expected {MIN_RSA_BITS} to {MAX_RSA_BITS}")));
    }
    let exponent = jwk.bytes("e")?;
    if jwk.0.get("d").is_none() {
        return Err(invalid("'d' is missing: it is a public key, expected a private one"));
    }
    // RFC 7518, section 6.3.2.7: more than two primes.
    if jwk.0.get("oth").is_some() {
        return Err(invalid("'oth' is present: RSA keys of more than two primes are not supported"));
    }
    // The RFC lets a JWK leave out all of these. They could be computed from n, e and d, but that is arithmetic
    // on secrets which the cryptographic library does not offer, and every producer known to us writes them.
    if let Some(missing) = ["p", "q", "dp", "dq", "qi"].iter().find(|name| jwk.0.get(name).is_none()) {
        return Err(invalid(format!(
            "'{missing}' is missing: an RSA key needs its prime factors (p, q, dp, dq, qi; RFC 7518, section 6.3.2)"
        )));
    }
    let components = KeyPairComponents {
        public_key: PublicKeyComponents { n, e: without_leading_zeros(&exponent) },
        d: jwk.bytes("d")?,
        p: jwk.bytes("p")?,
        q: jwk.bytes("q")?,
        dP: jwk.bytes("dp")?,
        dQ: jwk.bytes("dq")?,
        qInv: jwk.bytes("qi")?,
    };
    let components = KeyPairComponents {
        public_key: components.public_key,
        d: components.d.as_slice(),
        p: components.p.as_slice(),
        q: components.q.as_slice(),
        dP: components.dP.as_slice(),
        dQ: components.dQ.as_slice(),
        qInv: components.qInv.as_slice(),
    };
    let pair = RsaKeyPair::from_components(&components)
        .map_err(|_| invalid("the members of the RSA key do not belong together"))?;
    Ok((Pair::Rsa { pair, padding }, algorithm))
}

fn ec_from_jwk(jwk: &Jwk<'_>) -> Result<(Pair, Algorithm), SignError> {
    let name = jwk.required_text("crv")?;
    let curve = CURVES
        .iter()
        .find(|curve| curve.name == name)
        .ok_or_else(|| invalid("'crv' is not supported, expected P-256 or P-384"))?;
    let algorithm = jwk.algorithm(&[curve.algorithm])?;
    let x = jwk.bytes_of_width("x", curve.width)?;
    let y = jwk.bytes_of_width("y", curve.width)?;
    if jwk.0.get("d").is_none() {
        return Err(invalid("'d' is missing: it is a public key, expected a private one"));
    }
    let d = jwk.bytes_of_width("d", curve.width)?;
    // SEC 1, section 2.3.3: an uncompressed point.
    let point = [&[0x04], x.as_slice(), y.as_slice()].concat();
    let pair = EcdsaKeyPair::from_private_key_and_public_key(curve.signing, &d, &point)
        .map_err(|_| invalid("'x' and 'y' do not belong to 'd', or are not a point of the curve"))?;
    Ok((Pair::Ec(pair), algorithm))
}

fn ed25519_from_jwk(jwk: &Jwk<'_>) -> Result<(Pair, Algorithm), SignError> {
    if jwk.required_text("crv")? != "Ed25519" {
        return Err(invalid("'crv' is not supported, expected Ed25519"));
    }
    let algorithm = jwk.algorithm(&[Algorithm::EdDsa, Algorithm::Ed25519])?;
    let x = jwk.bytes_of_width("x", 32)?;
    if jwk.0.get("d").is_none() {
        return Err(invalid("'d' is missing: it is a public key, expected a private one"));
    }
    let d = jwk.bytes_of_width("d", 32)?;
    let pair = Ed25519KeyPair::from_seed_and_public_key(&d, &x).map_err(|_| invalid("'x' does not belong to 'd'"))?;
    Ok((Pair::Ed25519(pair), algorithm))
}

/// RFC 9964, sections 3 and 4: `alg` is required, and the private key is the seed.
fn ml_dsa_from_jwk(jwk: &Jwk<'_>) -> Result<(Pair, Algorithm), SignError> {
    jwk.required_text("alg")?;
    let algorithm = jwk.algorithm(&[Algorithm::MlDsa44, Algorithm::MlDsa65, Algorithm::MlDsa87])?;
    let signing = match algorithm {
        Algorithm::MlDsa44 => &ML_DSA_44_SIGNING,
        Algorithm::MlDsa65 => &ML_DSA_65_SIGNING,
        _ => &ML_DSA_87_SIGNING,
    };
    let public = jwk.bytes_of_width("pub", signing.public_key_len())?;
    if jwk.0.get("priv").is_none() {
        return Err(invalid("'priv' is missing: it is a public key, expected a private one"));
    }
    let seed = jwk.bytes_of_width("priv", signing.seed_len())?;
    let pair = PqdsaKeyPair::from_seed(signing, &seed).map_err(|_| SignError::Failed)?;
    if pair.public_key().as_ref() != public.as_slice() {
        return Err(invalid("'pub' does not belong to 'priv'")); // RFC 9964, section 7.4
    }
    Ok((Pair::MlDsa(pair), algorithm))
}

/// RFC 7518, section 2 forbids leading zeros in a `Base64urlUInt`, but there are producers that write one.
fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}

fn bit_length(magnitude: &[u8]) -> usize {
    magnitude.first().map_or(0, |first| magnitude.len() * 8 - first.leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use aws_lc_rs::encoding::AsBigEndian as _;
    use aws_lc_rs::signature::{
        self, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RsaParameters, RsaPublicKeyComponents,
        UnparsedPublicKey,
    };
    use serde_json::{Value as Json, json};

    use super::*;

    const PAYLOAD: &[u8] = br#"{"iss":"https://issuer.example","exp":1}"#;

    /// RFC 7515, appendix A.3.1.
    fn p256() -> Json {
        json!({
            "kty": "EC", "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
            "d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI",
        })
    }

    fn p384() -> Json {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let point = pair.public_key().as_ref();
        json!({
            "kty": "EC", "crv": "P-384",
            "x": base64url::encode(&point[1..49]),
            "y": base64url::encode(&point[49..]),
            "d": base64url::encode(pair.private_key().as_be_bytes().unwrap().as_ref()),
        })
    }

    /// RFC 8037, appendix A.1.
    fn ed25519() -> Json {
        json!({
            "kty": "OKP", "crv": "Ed25519",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
            "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
        })
    }

    /// The key of the seed that is all zeros, as in RFC 9964, appendix A.
    fn ml_dsa(name: &str) -> Json {
        let signing = match name {
            "ML-DSA-44" => &ML_DSA_44_SIGNING,
            "ML-DSA-65" => &ML_DSA_65_SIGNING,
            _ => &ML_DSA_87_SIGNING,
        };
        let pair = PqdsaKeyPair::from_seed(signing, &[0; 32]).unwrap();
        let public = base64url::encode(pair.public_key().as_ref());
        json!({"kty": "AKP", "alg": name, "pub": public, "priv": base64url::encode(&[0; 32])})
    }

    /// RFC 7515, appendix A.2.1.
    fn rsa() -> Json {
        serde_json::from_str(include_str!("../../tests/keys/rfc7515_a_2.json")).unwrap()
    }

    /// RFC 7520, section 3.4.
    fn another_rsa() -> Json {
        serde_json::from_str(include_str!("../../tests/keys/rfc7520_3_4.json")).unwrap()
    }

    fn load(jwk: &Json) -> Result<SigningKey, SignError> {
        SigningKey::from_jwk(jwk.to_string().as_bytes())
    }

    /// The sentence that refuses this key.
    fn refusal(jwk: &Json) -> String {
        let error = load(jwk).unwrap_err();
        assert_eq!(error.code(), "signing_key_invalid");
        error.to_string()
    }

    fn changed(jwk: &Json, name: &str, value: Json) -> Json {
        let mut jwk = jwk.clone();
        jwk[name] = value;
        jwk
    }

    fn without(jwk: &Json, name: &str) -> Json {
        let mut jwk = jwk.clone();
        jwk.as_object_mut().unwrap().remove(name).unwrap();
        jwk
    }

    fn header(key: &SigningKey) -> Vec<u8> {
        json!({"typ": "JWT", "alg": key.algorithm().name()}).to_string().into_bytes()
    }

    /// Verify with AWS-LC alone, by the key's public members: nothing of this crate is trusted here.
    fn verify(jwk: &Json, alg: &str, token: &str) -> bool {
        let decode = |text: &str| base64_simd::URL_SAFE_NO_PAD.decode_to_vec(text).unwrap();
        let member = |name: &str| decode(jwk[name].as_str().unwrap());
        let (message, signature) = token.rsplit_once('.').unwrap();
        let (message, signature) = (message.as_bytes(), decode(signature));
        let rsa = |parameters: &RsaParameters| {
            let key = RsaPublicKeyComponents { n: member("n"), e: member("e") };
            key.verify(parameters, message, &signature).is_ok()
        };
        let ec = |algorithm| {
            let point = [&[4], member("x").as_slice(), member("y").as_slice()].concat();
            UnparsedPublicKey::new(algorithm, point).verify(message, &signature).is_ok()
        };
        match alg {
            "RS256" => rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            "RS384" => rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            "RS512" => rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            "PS256" => rsa(&signature::RSA_PSS_2048_8192_SHA256),
            "PS384" => rsa(&signature::RSA_PSS_2048_8192_SHA384),
            "PS512" => rsa(&signature::RSA_PSS_2048_8192_SHA512),
            "ES256" => ec(&ECDSA_P256_SHA256_FIXED),
            "ES384" => ec(&ECDSA_P384_SHA384_FIXED),
            "EdDSA" | "Ed25519" => UnparsedPublicKey::new(&ED25519, member("x")).verify(message, &signature).is_ok(),
            "ML-DSA-44" => {
                UnparsedPublicKey::new(&signature::ML_DSA_44, member("pub")).verify(message, &signature).is_ok()
            }
            "ML-DSA-65" => {
                UnparsedPublicKey::new(&signature::ML_DSA_65, member("pub")).verify(message, &signature).is_ok()
            }
            "ML-DSA-87" => {
                UnparsedPublicKey::new(&signature::ML_DSA_87, member("pub")).verify(message, &signature).is_ok()
            }
            _ => unreachable!("{alg}"),
        }
    }

    #[test]
    fn what_each_algorithm_signs_verifies_with_the_public_half() {
        let rsa = rsa();
        for algorithm in Algorithm::ALL {
            let jwk = match algorithm {
                Algorithm::Es256 => p256(),
                Algorithm::Es384 => p384(),
                Algorithm::EdDsa => ed25519(),
                Algorithm::Ed25519 => changed(&ed25519(), "alg", json!("Ed25519")),
                ml_dsa_algorithm if ml_dsa_algorithm.is_ml_dsa() => ml_dsa(ml_dsa_algorithm.name()),
                rsa_algorithm => changed(&rsa, "alg", json!(rsa_algorithm.name())),
            };
            let key = load(&jwk).unwrap();
            assert_eq!(key.algorithm(), algorithm);
            let token = key.sign(&header(&key), PAYLOAD).unwrap();
            assert!(verify(&jwk, algorithm.name(), &token), "{}", algorithm.name());

            let segments: Vec<&str> = token.split('.').collect();
            assert_eq!(base64url::decode(segments[0].as_bytes()).unwrap(), header(&key));
            assert_eq!(base64url::decode(segments[1].as_bytes()).unwrap(), PAYLOAD);
            // A changed payload must not verify, or the check above proves nothing.
            let forged = format!("{}.{}.{}", segments[0], base64url::encode(b"{}"), segments[2]);
            assert!(!verify(&jwk, algorithm.name(), &forged), "{}", algorithm.name());
        }
    }

    #[test]
    fn a_key_of_ml_dsa_says_which_and_belongs_together() {
        let key = ml_dsa("ML-DSA-44");
        assert!(refusal(&without(&key, "alg")).contains("'alg' is missing"));
        assert!(refusal(&changed(&key, "alg", json!("ML-DSA-65"))).contains("'pub' has 1312 bytes, expected 1952"));
        assert!(refusal(&changed(&key, "alg", json!("EdDSA"))).contains("'alg' does not fit the key"));
        assert!(refusal(&without(&key, "priv")).contains("'priv' is missing"));
        assert!(refusal(&changed(&key, "priv", json!(base64url::encode(&[0; 64])))).contains("expected 32"));
        assert!(refusal(&changed(&key, "priv", json!(base64url::encode(&[1; 32])))).contains("does not belong"));
    }

    #[test]
    fn what_a_jwk_says_about_its_key_is_kept() {
        let kid = "a \"quoted\" \u{1} kid";
        let (x5t, x5t_s256) = (base64url::encode(&[1; 20]), base64url::encode(&[2; 32]));
        for (jwk, alg) in [(p256(), "ES256"), (p384(), "ES384"), (ed25519(), "EdDSA"), (rsa(), "PS384")] {
            let mut jwk = changed(&jwk, "alg", json!(alg));
            jwk["use"] = json!("sig");
            let bare = load(&jwk).unwrap();
            assert_eq!((bare.kid(), bare.x5t(), bare.x5t_s256()), (None, None, None));
            jwk["kid"] = json!(kid);
            jwk["x5t"] = json!(x5t);
            jwk["x5t#S256"] = json!(x5t_s256);
            let key = load(&jwk).unwrap();
            assert_eq!(key.algorithm().name(), alg);
            assert_eq!((key.kid(), key.x5t(), key.x5t_s256()), (Some(kid), Some(&*x5t), Some(&*x5t_s256)));
        }
    }

    /// RFC 8037, appendix A.4: Ed25519 is deterministic, so the whole token can be compared.
    #[test]
    fn the_token_of_rfc_8037_is_reproduced() {
        let token = load(&ed25519()).unwrap().sign(br#"{"alg":"EdDSA"}"#, b"Example of Ed25519 signing").unwrap();
        assert_eq!(
            token,
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhij\
             cNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
        );
    }

    /// A file of the JOSE cookbook (RFC 7520), or `None` with a printed reason.
    fn cookbook(path: &str) -> Option<Json> {
        let root = std::env::var_os("ENTRA_FAST_VECTORS")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"), PathBuf::from);
        let file = root.join("jose-cookbook").join(path);
        let Ok(text) = std::fs::read(&file) else {
            println!("skipped: {} is absent; set ENTRA_FAST_VECTORS to the folder of vectors", file.display());
            return None;
        };
        Some(serde_json::from_slice(&text).unwrap())
    }

    /// RFC 7520, sections 3.4 and 4.1: PKCS #1 v1.5 is deterministic, so the whole token can be compared.
    #[test]
    fn the_token_of_the_jose_cookbook_is_reproduced() {
        let (Some(jwk), Some(example)) =
            (cookbook("jwk/3_4.rsa_private_key.json"), cookbook("jws/4_1.rsa_v15_signature.json"))
        else {
            return;
        };
        let key = load(&jwk).unwrap();
        assert_eq!(key.kid(), Some("bilbo.baggins@hobbiton.example"));
        let header = base64url::decode(example["signing"]["protected_b64u"].as_str().unwrap().as_bytes()).unwrap();
        let token = key.sign(&header, example["input"]["payload"].as_str().unwrap().as_bytes()).unwrap();
        assert_eq!(token, example["output"]["compact"].as_str().unwrap());
    }

    /// RFC 7520, sections 3.1 to 3.3, 3.5 and 3.6: public keys, P-521 and symmetric keys do not sign here.
    #[test]
    fn the_other_keys_of_the_jose_cookbook_are_refused() {
        for (file, expected) in [
            ("3_1.ec_public_key.json", "'crv' is not supported, expected P-256 or P-384"),
            ("3_2.ec_private_key.json", "'crv' is not supported, expected P-256 or P-384"),
            ("3_3.rsa_public_key.json", "'d' is missing: it is a public key"),
            ("3_5.symmetric_key_mac_computation.json", "symmetric"),
            ("3_6.symmetric_key_encryption.json", "'use' does not allow signing"),
        ] {
            let Some(jwk) = cookbook(&format!("jwk/{file}")) else { return };
            assert!(refusal(&jwk).contains(expected), "{file}: {}", refusal(&jwk));
        }
    }

    #[test]
    fn a_public_half_of_another_key_is_refused() {
        let other = p384();
        let mut mixed = p384();
        mixed["x"] = other["x"].clone();
        mixed["y"] = other["y"].clone();
        assert!(refusal(&mixed).contains("do not belong to 'd'"));

        let not_on_curve = changed(&p256(), "y", p256()["x"].clone());
        assert!(refusal(&not_on_curve).contains("not a point of the curve"));

        let mixed = changed(&ed25519(), "x", json!(base64url::encode(&[7; 32])));
        assert!(refusal(&mixed).contains("'x' does not belong to 'd'"));

        let (one, two) = (rsa(), another_rsa());
        for member in ["n", "d", "p", "q", "dp", "dq", "qi"] {
            let mixed = changed(&one, member, two[member].clone());
            assert!(refusal(&mixed).contains("do not belong together"), "{member}");
        }
        assert!(refusal(&changed(&one, "e", json!("Aw"))).contains("do not belong together"));
    }

    #[test]
    fn private_numbers_outside_the_curve_are_refused() {
        for d in [[0_u8; 32], [0xff; 32]] {
            load(&changed(&p256(), "d", json!(base64url::encode(&d)))).unwrap_err();
        }
        for (member, length) in [("d", 31), ("d", 33), ("x", 31), ("y", 33)] {
            let jwk = changed(&p256(), member, json!(base64url::encode(&vec![1; length])));
            assert!(refusal(&jwk).contains(&format!("'{member}' has {length} bytes, expected 32")));
        }
    }

    #[test]
    fn a_modulus_under_2048_bits_is_refused() {
        let jwk = rsa();
        for bytes in [64, 128, 255] {
            let n = json!(base64url::encode(&vec![0xff; bytes]));
            let sentence = refusal(&changed(&jwk, "n", n));
            assert!(sentence.contains(&format!("{} bits, expected 2048 to 8192", bytes * 8)), "{sentence}");
        }
        let n = json!(base64url::encode(&vec![0x7f; 256]));
        assert!(refusal(&changed(&jwk, "n", n)).contains("2047 bits"));
        let n = json!(base64url::encode(&vec![0xff; 1025]));
        assert!(refusal(&changed(&jwk, "n", n)).contains("8200 bits"));
    }

    #[test]
    fn leading_zeros_of_rsa_numbers_do_not_matter() {
        let jwk = rsa();
        let mut padded = jwk.clone();
        for member in ["n", "e", "d", "p", "q", "dp", "dq", "qi"] {
            let bytes = base64url::decode(jwk[member].as_str().unwrap().as_bytes()).unwrap();
            padded[member] = json!(base64url::encode(&[vec![0], bytes].concat()));
        }
        // PKCS #1 v1.5 is deterministic, so the same key gives the same token.
        let (key, padded) = (load(&jwk).unwrap(), load(&padded).unwrap());
        assert_eq!(padded.sign(&header(&key), PAYLOAD), key.sign(&header(&key), PAYLOAD));
    }

    #[test]
    fn every_missing_member_is_named() {
        for member in ["kty", "n", "e", "d", "p", "q", "dp", "dq", "qi"] {
            assert!(refusal(&without(&rsa(), member)).contains(&format!("'{member}' is missing")), "{member}");
        }
        for member in ["kty", "crv", "x", "y", "d"] {
            assert!(refusal(&without(&p256(), member)).contains(&format!("'{member}' is missing")), "{member}");
        }
        for member in ["kty", "crv", "x", "d"] {
            assert!(refusal(&without(&ed25519(), member)).contains(&format!("'{member}' is missing")), "{member}");
        }
    }

    #[test]
    fn what_is_no_signing_key_is_refused_with_its_reason() {
        for (name, value, expected) in [
            ("use", json!("enc"), "'use' does not allow signing, expected 'sig'"),
            ("use", json!(null), "'use' is not a string"),
            ("key_ops", json!(["verify"]), "'key_ops' does not allow signing"),
            ("key_ops", json!([]), "'key_ops' does not allow signing"),
            ("key_ops", json!("sign"), "'key_ops' is not an array"),
            ("alg", json!("ES384"), "'alg' does not fit the key, expected ES256"),
            ("alg", json!("none"), "'alg' does not fit the key"),
            ("alg", json!("HS256"), "'alg' does not fit the key"),
            ("kty", json!("oct"), "symmetric"),
            ("kty", json!("ec"), "'kty' is unknown"),
            ("crv", json!("secp256k1"), "'crv' is not supported"),
            ("d", json!(7), "'d' is not a string"),
            ("d", json!(""), "'d' is empty"),
            ("d", json!("jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI="), "'d' is not base64url"),
            ("kid", json!(7), "'kid' is not a string"),
            ("kid", json!(""), "'kid' has 0 bytes"),
            ("kid", json!("k".repeat(1025)), "'kid' has 1025 bytes"),
            ("x5t", json!("AAAA"), "'x5t' has 3 bytes, expected 20"),
            ("x5t#S256", json!("AAAA"), "'x5t#S256' has 3 bytes, expected 32"),
            ("keys", json!([]), "it is a key set"),
        ] {
            let sentence = refusal(&changed(&p256(), name, value));
            assert!(sentence.contains(expected), "{name}: {sentence}");
        }
        assert!(load(&changed(&p256(), "key_ops", json!(["sign", "verify"]))).is_ok());
        assert!(refusal(&changed(&rsa(), "oth", json!([]))).contains("'oth' is present"));
        assert!(refusal(&changed(&rsa(), "alg", json!("RSA-OAEP"))).contains("expected RS256 or RS384"));
    }

    #[test]
    fn what_is_no_jwk_is_refused_with_its_reason() {
        let p256 = p256().to_string();
        let duplicate = p256.replacen('{', r#"{"kty":"EC","#, 1);
        let too_long = format!("{p256}{}", " ".repeat(MAX_JWK_BYTES));
        for (text, expected) in [
            ("", "expected a JSON object (RFC 7517), found text that is not JSON"),
            ("not json", "expected a JSON object (RFC 7517), found text that is not JSON"),
            ("[]", "found another JSON value"),
            ("\"text\"", "found another JSON value"),
            (&p256[..p256.len() - 1], "found text that is not JSON"),
            ("-----BEGIN PRIVATE KEY-----\n", "it is PEM"),
            (&duplicate, "found a duplicate member"),
            (&too_long, "expected at most 65536"),
        ] {
            let error = SigningKey::from_jwk(text.as_bytes()).unwrap_err();
            assert_eq!(error.code(), "signing_key_invalid");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn no_error_and_no_debug_contains_key_material() {
        const CANARY: &str = "CANARYcanaryCANARYcanaryCANARYcanaryCANARY_";
        let good = [rsa(), p256(), ed25519()];
        let mut texts = Vec::new();
        for jwk in &good {
            texts.push(format!("{:?}", load(jwk).unwrap()));
            let members: Vec<String> = jwk.as_object().unwrap().keys().cloned().collect();
            for name in members.iter().map(String::as_str).chain(["use", "alg", "x5t", "x5t#S256", "key_ops"]) {
                for value in [json!(CANARY), json!(format!("{CANARY}=")), json!([CANARY]), json!({CANARY: CANARY})] {
                    if let Err(error) = load(&changed(jwk, name, value)) {
                        texts.push(format!("{error} {error:?}"));
                    }
                }
            }
            let broken = changed(jwk, "d", json!(CANARY)).to_string();
            for end in 0..broken.len() {
                let error = SigningKey::from_jwk(&broken.as_bytes()[..end]).unwrap_err();
                texts.push(format!("{error} {error:?}"));
            }
        }
        for text in texts {
            assert!(!text.to_ascii_lowercase().contains("canary"), "{text}");
            for jwk in &good {
                let d = jwk["d"].as_str().unwrap();
                assert!(!text.contains(&d[..12]), "{text}");
            }
        }
    }

    #[test]
    fn a_header_that_names_another_algorithm_is_not_signed() {
        let key = load(&ed25519()).unwrap();
        for header in [
            r#"{"alg":"RS256"}"#,
            r#"{"alg":"eddsa"}"#,
            r#"{"alg":null}"#,
            r#"{"typ":"JWT"}"#,
            r#"{"ALG":"EdDSA"}"#,
            r#"{"alg":"none","alg":"EdDSA"}"#,
            r#"{"alg":"EdDSA","b64":false,"crit":["b64"]}"#,
            r#"["EdDSA"]"#,
            r#""EdDSA""#,
            "",
            "{",
        ] {
            let error = key.sign(header.as_bytes(), PAYLOAD).unwrap_err();
            assert_eq!(error.code(), "signing_header_invalid", "{header}");
        }
        assert!(key.sign(br#" { "alg" : "EdDSA" } "#, b"").is_ok());
    }
}
