//! One public key: a JWK (RFC 7517; RFC 7518, section 6; RFC 8037; RFC 9964) becomes a key prepared for verification.
//!
//! Every property of a key is checked here, once, so that verifying a token is only the public operation. A key
//! that is weak, made for another use or ambiguous never gets into a set.

use crate::digest::{Digest, sha256};
use crate::jose::algorithm::{Accepted, Algorithm, AlgorithmSet};
use crate::jose::base64url;
use crate::jose::json::{Kind, Value};
use crate::jose::signature::{Material, PreparedKey, Signatures, VerifiedBy};

/// Longest `kid` that is accepted, in a key and in a token, in bytes. Entra ID's have 27.
pub const MAX_KID_BYTES: usize = 512;

const MIN_MODULUS_BITS: usize = 2048;
const MAX_MODULUS_BITS: usize = 8192;

const WRONG_ALG: &str = "has an alg that is not offered or does not fit the key";

/// Prepares a key's numbers for verifying signatures of one algorithm.
pub(crate) type Prepare = fn(&Material, Algorithm) -> Result<PreparedKey, &'static str>;

/// A public key, prepared for every algorithm that it may verify.
#[derive(Debug)]
pub struct PublicKey {
    kid: Option<String>,
    /// Sorted, each once.
    issuers: Vec<String>,
    thumbprint: Digest,
    algorithms: AlgorithmSet,
    /// What any entry of the set allows for the same key, under whatever `kid`.
    of_same_key: AlgorithmSet,
    prepared: Vec<(Algorithm, PreparedKey)>,
}

impl PublicKey {
    /// Prepare the key that a JWK describes.
    ///
    /// # Errors
    /// A sentence that says why the key cannot be used.
    pub fn from_jwk(jwk: Value<'_>) -> Result<Self, &'static str> {
        Self::prepared_by(jwk, PreparedKey::new)
    }

    /// Like [`Self::from_jwk`], with a function that prepares keys: tests use their own fast library.
    pub(crate) fn prepared_by(jwk: Value<'_>, prepare: Prepare) -> Result<Self, &'static str> {
        if jwk.kind() != Kind::Object {
            return Err("is not an object");
        }
        let kid = kid_of(jwk)?;
        if !jwk.get("use").is_none_or(|usage| usage.is_str("sig")) {
            return Err("is not for signatures (use)"); // RFC 7517, section 4.2
        }
        if !jwk.get("key_ops").is_none_or(|ops| ops.elements().any(|op| op.is_str("verify"))) {
            return Err("is not for verifying (key_ops)"); // RFC 7517, section 4.3
        }
        // `priv` is the private part of an AKP key (RFC 9964, section 3), `d` that of all other types.
        if jwk.get("d").is_some() || jwk.get("priv").is_some() {
            return Err("contains a private key, so anyone who reads it can sign");
        }
        let issuers = match jwk.get("issuer") {
            None => Vec::new(),
            Some(issuer) => vec![issuer.as_str().ok_or("has an issuer that is not a string")?.into_owned()],
        };
        let (material, thumbprint, possible) = match jwk.get("kty").and_then(Value::as_str).as_deref() {
            Some("RSA") => rsa(jwk)?,
            Some("EC") => ec(jwk)?,
            Some("OKP") => okp(jwk)?,
            Some("AKP") => akp(jwk)?,
            Some("oct") => return Err("is symmetric, and symmetric algorithms do not exist here"),
            _ => return Err("has no known key type (kty)"),
        };
        let algorithms = narrowed(jwk, possible)?;
        let prepared = algorithms
            .iter()
            .map(|algorithm| prepare(&material, algorithm).map(|key| (algorithm, key)))
            .collect::<Result<_, _>>()?;
        Ok(Self { kid, issuers, thumbprint, algorithms, of_same_key: algorithms, prepared })
    }

    /// The key's id, where it has one.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The issuers that the key is bound to: concrete, or templates with `{tenantid}` (Microsoft's extension). Without
    /// any, the key is bound to none.
    #[must_use]
    pub fn issuers(&self) -> &[String] {
        &self.issuers
    }

    /// Take in another entry of the same key. Its issuers unite; an entry without an issuer adds none. Of the
    /// algorithms, those that both entries allow remain, which may be none. So the order of the entries does not matter.
    pub(crate) fn unite(&mut self, other: Self) {
        self.issuers.extend(other.issuers);
        self.issuers.sort();
        self.issuers.dedup();
        self.algorithms = self.algorithms.intersection(other.algorithms);
        self.of_same_key = self.algorithms;
        self.prepared.retain(|(algorithm, _)| other.algorithms.contains(*algorithm));
    }

    /// Another entry of the set has the same key under another `kid`, and allows these algorithms.
    pub(crate) fn share_with(&mut self, algorithms: AlgorithmSet) {
        self.of_same_key = self.of_same_key.union(algorithms);
    }

    /// SHA-256 thumbprint (RFC 7638): keys with the same thumbprint are the same key.
    #[must_use]
    pub fn thumbprint(&self) -> &Digest {
        &self.thumbprint
    }

    /// Is it the same key, and is it published for the same purpose? A provider may bind a key to another issuer, or
    /// narrow it to an algorithm, under the same `kid`: tokens that it verified must then be verified again.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.thumbprint == other.thumbprint
            && self.kid == other.kid
            && self.issuers == other.issuers
            && self.algorithms == other.algorithms
            && self.of_same_key == other.of_same_key
    }

    /// What the key can do, by its type and its `alg`. Which of them it serves is decided by the policy: [`Self::serves`].
    #[must_use]
    pub fn algorithms(&self) -> AlgorithmSet {
        self.algorithms
    }

    /// Does it verify this algorithm where these are accepted? A key serves one algorithm, even if several entries of
    /// its set have it under different ids and for different algorithms.
    #[must_use]
    #[inline]
    pub fn serves(&self, algorithm: Algorithm, accepted: &Accepted) -> bool {
        self.algorithms.contains(algorithm) && accepted.serves(algorithm, self.of_same_key)
    }

    /// The names under which it serves its one algorithm where these are accepted; none if it serves none of them.
    #[must_use]
    pub fn served(&self, accepted: &Accepted) -> AlgorithmSet {
        accepted.of_key(self.of_same_key).intersection(self.algorithms)
    }

    /// Verify a signature. None means that it is not valid, or that the key cannot do that algorithm.
    #[must_use]
    #[inline]
    pub fn verify(
        &self,
        algorithm: Algorithm,
        signatures: Signatures,
        message: &[u8],
        signature: &[u8],
    ) -> Option<VerifiedBy> {
        let (_, key) = self.prepared.iter().find(|(able, _)| *able == algorithm)?;
        key.verify(signatures, message, signature)
    }
}

/// The `kid` of a JWK.
///
/// # Errors
/// Where it is there but not a string of acceptable length.
pub fn kid_of(jwk: Value<'_>) -> Result<Option<String>, &'static str> {
    match jwk.get("kid") {
        None => Ok(None),
        Some(kid) => match kid.as_str() {
            Some(kid) if kid.len() <= MAX_KID_BYTES => Ok(Some(kid.into_owned())),
            Some(_) => Err("has too long a kid"),
            None => Err("has a kid that is not a string"),
        },
    }
}

/// The algorithms that remain when the JWK has an `alg`.
fn narrowed(jwk: Value<'_>, possible: AlgorithmSet) -> Result<AlgorithmSet, &'static str> {
    let Some(alg) = jwk.get("alg") else { return Ok(possible) };
    alg.as_str()
        .and_then(|name| Algorithm::from_name(&name))
        .filter(|algorithm| possible.contains(*algorithm))
        .map(Algorithm::names)
        .ok_or(WRONG_ALG)
}

/// A key's numbers, its thumbprint, and what it could verify.
type Read = (Material, Digest, AlgorithmSet);

fn rsa(jwk: Value<'_>) -> Result<Read, &'static str> {
    let n = without_leading_zeros(parameter(jwk, "n")?);
    let e = without_leading_zeros(parameter(jwk, "e")?);
    let bits = n.first().map_or(0, |top| n.len() * 8 - top.leading_zeros() as usize);
    if bits < MIN_MODULUS_BITS {
        return Err("has a modulus of fewer than 2048 bits"); // RFC 7518, section 3.3
    }
    if bits > MAX_MODULUS_BITS {
        return Err("has a modulus of more than 8192 bits"); // a verification would take too long
    }
    if n.last().is_none_or(|low| low & 1 == 0) {
        return Err("has an even modulus");
    }
    // Exponent 1 makes every message its own signature; huge ones make verification slow.
    if e.len() > 5 || e.last().is_none_or(|low| low & 1 == 0) || e == [1] {
        return Err("has an unacceptable public exponent");
    }
    if is_roca(&n) {
        return Err("has the weak structure of ROCA (CVE-2017-15361)");
    }
    let canonical = format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, base64url::encode(&e), base64url::encode(&n));
    let algorithms = Algorithm::ALL.into_iter().filter(|algorithm| algorithm.is_rsa()).collect();
    Ok((Material::Rsa { n, e }, sha256(canonical.as_bytes()), algorithms))
}

fn ec(jwk: Value<'_>) -> Result<Read, &'static str> {
    let (curve, length, algorithm) = match jwk.get("crv").and_then(Value::as_str).as_deref() {
        Some("P-256") => ("P-256", 32, Algorithm::Es256),
        Some("P-384") => ("P-384", 48, Algorithm::Es384),
        _ => return Err("has a curve that is not offered"),
    };
    let (x, y) = (parameter(jwk, "x")?, parameter(jwk, "y")?);
    if x.len() != length || y.len() != length {
        return Err("has a coordinate of the wrong length"); // RFC 7518, section 6.2.1.2
    }
    let canonical =
        format!(r#"{{"crv":"{curve}","kty":"EC","x":"{}","y":"{}"}}"#, base64url::encode(&x), base64url::encode(&y));
    let point = [&[4], &x[..], &y[..]].concat(); // uncompressed (SEC 1, section 2.3.3)
    Ok((Material::Point(point), sha256(canonical.as_bytes()), AlgorithmSet::of(algorithm)))
}

fn okp(jwk: Value<'_>) -> Result<Read, &'static str> {
    if !jwk.get("crv").is_some_and(|curve| curve.is_str("Ed25519")) {
        return Err("has a curve that is not offered");
    }
    let x = parameter(jwk, "x")?;
    if x.len() != 32 {
        return Err("has a coordinate of the wrong length");
    }
    if has_small_order(&x) {
        return Err("is a point of small order, for which anybody can sign");
    }
    let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, base64url::encode(&x));
    Ok((Material::Point(x), sha256(canonical.as_bytes()), Algorithm::Ed25519.names()))
}

/// RFC 9964, sections 3 to 6. The type is not ML-DSA's alone: what `pub` holds follows from `alg`.
fn akp(jwk: Value<'_>) -> Result<Read, &'static str> {
    let algorithm = jwk.get("alg").ok_or("lacks an alg, which its key type demands")?.as_str();
    let algorithm = algorithm.and_then(|name| Algorithm::from_name(&name));
    let (length, algorithm) = match algorithm {
        Some(algorithm @ Algorithm::MlDsa44) => (1312, algorithm),
        Some(algorithm @ Algorithm::MlDsa65) => (1952, algorithm),
        Some(algorithm @ Algorithm::MlDsa87) => (2592, algorithm),
        _ => return Err(WRONG_ALG),
    };
    let public = parameter(jwk, "pub")?;
    if public.len() != length {
        return Err("has a public key of the wrong length"); // FIPS 204, table 2
    }
    let canonical = format!(r#"{{"alg":"{}","kty":"AKP","pub":"{}"}}"#, algorithm.name(), base64url::encode(&public));
    Ok((Material::MlDsa(public), sha256(canonical.as_bytes()), AlgorithmSet::of(algorithm)))
}

/// Is this encoded point of Ed25519 one of the eight of small order? With such a key S = 0 and R the
/// neutral point are a signature of every eighth message at least: as bad as an exponent of 1. AWS-LC takes them, as
/// RFC 8032 allows. The y coordinate is compared, which need not be reduced.
fn has_small_order(point: &[u8]) -> bool {
    /// The y of the four points of order 8, little-endian.
    const ORDER_8: [[u8; 32]; 2] = [
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
            0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
            0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    let Ok(mut y) = <[u8; 32]>::try_from(point) else { return false };
    y[31] &= 0x7f; // the sign of x
    let (low, middle, top) = (y[0], &y[1..31], y[31]);
    let zero_or_one = low <= 1 && top == 0 && middle.iter().all(|byte| *byte == 0);
    // p - 1, and p and p + 1, which are 0 and 1 once more.
    let near_p = (0xec..=0xee).contains(&low) && top == 0x7f && middle.iter().all(|byte| *byte == 0xff);
    zero_or_one || near_p || ORDER_8.contains(&y)
}

fn parameter(jwk: Value<'_>, name: &str) -> Result<Vec<u8>, &'static str> {
    jwk.get(name)
        .and_then(Value::as_str)
        .and_then(|text| base64url::decode(text.as_bytes()).ok())
        .ok_or("lacks a parameter, or has one that is not base64url")
}

/// RFC 7518, section 6.3.1.1 forbids leading zeros, yet some issuers write them; they change nothing.
fn without_leading_zeros(bytes: Vec<u8>) -> Vec<u8> {
    match bytes.iter().position(|byte| *byte != 0) {
        Some(0) => bytes,
        Some(first) => bytes[first..].to_vec(),
        None => Vec::new(),
    }
}

/// The fingerprint of keys made by a flawed Infineon library: modulo each of these primes the modulus is a
/// power of 65537 (Nemec et al., "The Return of Coppersmith's Attack", CCS 2017, section 3.2). For a
/// random modulus the chance is about 2^-28.
fn is_roca(modulus: &[u8]) -> bool {
    const PRIMES: [u32; 17] = [11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157];
    PRIMES.into_iter().all(|prime| {
        let residue = modulus.iter().fold(0, |rest, byte| (rest << 8 | u32::from(*byte)) % prime);
        let mut power = 1;
        (0..prime).any(|_| {
            power = power * 65537 % prime;
            power == residue
        })
    })
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{KeyPair as _, ML_DSA_44_SIGNING, PqdsaKeyPair, PqdsaSigningAlgorithm};

    use super::*;
    use crate::jose::json::Document;

    fn key(text: &str) -> Result<PublicKey, &'static str> {
        PublicKey::from_jwk(Document::parse(text).unwrap().root())
    }

    /// RFC 7638, section 3.1.
    const RFC7638: &str = r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}"#;

    #[test]
    fn the_thumbprint_is_that_of_rfc_7638() {
        let key = key(RFC7638).unwrap();
        assert_eq!(base64url::encode(key.thumbprint()), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        assert_eq!((key.kid(), key.algorithms()), (Some("2011-04-29"), AlgorithmSet::of(Algorithm::Rs256)));
    }

    #[test]
    fn keys_for_something_else_are_refused() {
        let with = |member: &str| key(&RFC7638.replace(r#""alg":"RS256""#, member)).map(|_| ());
        assert_eq!(with(r#""use":"sig","key_ops":["sign","verify"]"#), Ok(()));
        assert!(with(r#""use":"enc""#).unwrap_err().contains("use"));
        assert!(with(r#""use":null"#).unwrap_err().contains("use"));
        assert!(with(r#""key_ops":["sign"]"#).unwrap_err().contains("key_ops"));
        assert!(with(r#""key_ops":"verify""#).unwrap_err().contains("key_ops"));
        assert!(with(r#""alg":"ES256""#).unwrap_err().contains("alg"));
        assert!(with(r#""alg":"none""#).unwrap_err().contains("alg"));
        assert!(with(r#""d":"AQAB""#).unwrap_err().contains("private"));
        assert!(key(r#"{"kty":"oct","k":"AAAA"}"#).unwrap_err().contains("symmetric"));
        assert!(key("[]").unwrap_err().contains("object"));
    }

    #[test]
    fn the_id_of_a_key_is_a_string_of_at_most_512_bytes() {
        let with = |kid: &str| key(&RFC7638.replace(r#""kid":"2011-04-29""#, kid)).map(|key| key.kid().map(str::len));
        let long = |length: usize| with(&format!(r#""kid":"{}""#, "k".repeat(length)));
        assert_eq!(with(r#""x":1"#), Ok(None));
        assert_eq!(long(512), Ok(Some(512)));
        assert_eq!(long(513), Err("has too long a kid"));
        assert_eq!(with(r#""kid":7"#), Err("has a kid that is not a string"));
    }

    #[test]
    fn weak_rsa_keys_are_refused() {
        let exponent = |e: &str| key(&RFC7638.replace("AQAB", e)).map(|_| ());
        for weak in ["AQ", "AA", "Ag", "", "AQAAAAAAAAE"] {
            assert!(exponent(weak).unwrap_err().contains("exponent"), "{weak}");
        }
        assert_eq!(exponent("Aw"), Ok(()));
        assert_eq!(exponent("AAEAAQ"), Ok(()), "a leading zero changes nothing");
        let five_bytes = exponent("AQAAAAE").err().unwrap_or_default();
        assert!(!five_bytes.contains("unacceptable public exponent"), "{five_bytes}");
        assert!(key(r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#).unwrap_err().contains("2048"));
        let even = format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, base64url::encode(&[0xfe; 256]));
        assert!(key(&even).unwrap_err().contains("even modulus"));
    }

    #[test]
    fn the_length_of_an_rsa_modulus_is_counted_in_bits() {
        let refused = |top: u8, bytes: usize| {
            let mut n = vec![0xff; bytes];
            n[0] = top;
            key(&format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, base64url::encode(&n))).err().unwrap_or_default()
        };
        assert!(refused(0x7f, 256).contains("fewer than 2048"), "2047 bits");
        assert!(!refused(0x80, 256).contains("fewer"), "2048 bits");
        assert!(!refused(0xff, 1024).contains("more"), "8192 bits");
        assert!(refused(0x01, 1025).contains("more than 8192"), "8193 bits");
    }

    #[test]
    fn rsa_keys_with_the_structure_of_roca_are_refused() {
        // Modulo every prime, a power of 65537 is one: 65537^128, in which n * 65537 is n << 16 + n.
        let mut n = vec![1_u8];
        for _ in 0..128 {
            let (high, low) = ([&[0], &n[..], &[0, 0]].concat(), [&[0, 0, 0], &n[..]].concat());
            let mut carry = 0;
            n = high;
            for (byte, low) in n.iter_mut().zip(low).rev() {
                let sum = u16::from(*byte) + u16::from(low) + carry;
                let [over, rest] = sum.to_be_bytes();
                (carry, *byte) = (over.into(), rest);
            }
        }
        let refused = |n: &[u8]| {
            let text = format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, base64url::encode(n));
            key(&text).err().unwrap_or_default()
        };
        assert!(refused(&n).contains("ROCA"));
        n[130] ^= 1;
        assert!(!refused(&n).contains("ROCA"), "the last byte alone does not decide");
    }

    #[test]
    fn ed25519_keys_of_small_order_are_refused() {
        let x = |low: u8, middle: u8, top: u8| {
            let mut point = [middle; 32];
            (point[0], point[31]) = (low, top);
            key(&format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, base64url::encode(&point))).map(|_| ())
        };
        for (low, middle, top) in [(0, 0, 0), (1, 0, 0), (0xec, 0xff, 0x7f), (0xed, 0xff, 0x7f), (0xee, 0xff, 0x7f)] {
            assert!(x(low, middle, top).unwrap_err().contains("small order"), "{low}");
            assert!(x(low, middle, top | 0x80).unwrap_err().contains("small order"), "{low}, negative");
        }
        assert_eq!(x(0x58, 0x66, 0x66), Ok(()), "the base point");
        // One byte away from such a point is another one, or none of the curve.
        for (low, middle, top) in [
            (0, 1, 0),
            (1, 0, 1),
            (2, 0, 0),
            (0xeb, 0xff, 0x7f),
            (0xef, 0xff, 0x7f),
            (0xed, 0xfe, 0x7f),
            (0xed, 0xff, 0x7e),
        ] {
            let refused = x(low, middle, top).err().unwrap_or_default();
            assert!(!refused.contains("small order"), "{low} {middle} {top}");
        }
    }

    fn ml_dsa(algorithm: &'static PqdsaSigningAlgorithm) -> String {
        let pair = PqdsaKeyPair::from_seed(algorithm, &[0; 32]).unwrap();
        base64url::encode(pair.public_key().as_ref())
    }

    #[test]
    fn the_thumbprint_of_an_ml_dsa_key_is_that_of_rfc_9964() {
        let text = format!(r#"{{"kty":"AKP","alg":"ML-DSA-44","pub":"{}"}}"#, ml_dsa(&ML_DSA_44_SIGNING));
        let key = key(&text).unwrap();
        assert_eq!(base64url::encode(key.thumbprint()), "T4xl70S7MT6Zeq6r9V9fPJGVn76wfnXJ21-gyo0Gu6o"); // appendix A
        assert_eq!(key.algorithms(), AlgorithmSet::of(Algorithm::MlDsa44));
    }

    #[test]
    fn an_akp_key_says_what_it_is_for_and_has_the_size_of_that() {
        let public = ml_dsa(&ML_DSA_44_SIGNING);
        let refused = |members: &str| key(&format!(r#"{{"kty":"AKP",{members}}}"#)).unwrap_err();
        assert!(refused(&format!(r#""pub":"{public}""#)).contains("lacks an alg"));
        for larger in ["ML-DSA-65", "ML-DSA-87"] {
            assert!(refused(&format!(r#""alg":"{larger}","pub":"{public}""#)).contains("wrong length"));
        }
        assert!(refused(&format!(r#""alg":"ML-DSA-44","pub":"{}AAAA""#, &public)).contains("wrong length"));
        assert!(refused(&format!(r#""alg":"EdDSA","pub":"{public}""#)).contains("alg"));
        assert!(refused(&format!(r#""alg":"SLH-DSA-SHA2-128s","pub":"{public}""#)).contains("alg"));
        assert!(refused(&format!(r#""alg":44,"pub":"{public}""#)).contains("alg"));
        assert!(refused(r#""alg":"ML-DSA-44""#).contains("parameter"));
        let private = format!(r#""alg":"ML-DSA-44","pub":"{public}","priv":"{}""#, base64url::encode(&[0; 32]));
        assert!(refused(&private).contains("private"));
    }

    #[test]
    fn an_ed25519_key_serves_both_of_its_names_and_never_ed448() {
        let with = |members: &str| {
            let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"; // RFC 8037, appendix A.2
            key(&format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"{members}}}"#))
        };
        for members in ["", r#","alg":"EdDSA""#, r#","alg":"Ed25519""#] {
            assert_eq!(with(members).unwrap().algorithms().to_string(), "EdDSA, Ed25519", "{members}");
        }
        assert!(with(r#","alg":"Ed448""#).unwrap_err().contains("alg"));
        let x = base64url::encode(&[9; 57]);
        for alg in ["EdDSA", "Ed448", "Ed25519"] {
            let text = format!(r#"{{"kty":"OKP","crv":"Ed448","alg":"{alg}","x":"{x}"}}"#);
            assert!(key(&text).unwrap_err().contains("curve"), "{alg}");
        }
    }

    #[test]
    fn points_must_lie_on_their_curve() {
        let x = base64url::encode(&[1; 32]);
        let off = format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{x}"}}"#);
        assert!(key(&off).unwrap_err().contains("AWS-LC"));
        assert!(key(&off.replace("P-256", "P-384")).unwrap_err().contains("length"));
        for coordinate in ["x", "y"] {
            let short = off.replace(&format!(r#""{coordinate}":"AQEB"#), &format!(r#""{coordinate}":""#));
            assert_ne!(short, off);
            assert!(key(&short).unwrap_err().contains("length"), "{coordinate}");
        }
        assert!(key(&off.replace("P-256", "P-521")).unwrap_err().contains("curve"));
    }
}
