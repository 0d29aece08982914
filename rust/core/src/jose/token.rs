//! The compact form of a signed token (RFC 7515, section 7.1): size, three segments, header.
//!
//! Everything here happens before a signature is verified. So sizes are checked first, no allocation grows with
//! an attacker's input, and only the part of the header that selects a key is used.

use memchr::{memchr, memchr_iter, memrchr};

use crate::error::Error;
use crate::jose::algorithm::Algorithm;
use crate::jose::base64url;
use crate::jose::json::{Document, Kind, Value};
use crate::jose::jwk::MAX_KID_BYTES;

/// Default limit of a token's size in bytes. Entra ID's tokens stay below 10 KiB even with 200 groups.
pub const MAX_TOKEN_BYTES: usize = 64 * 1024;

/// Registered names that are not offered but worth repeating in an error (RFC 7518, RFC 8812, RFC 9864).
/// Other names are untrusted text and are not repeated.
const NAMED_IN_ERRORS: [&str; 8] = ["none", "HS256", "HS384", "HS512", "ES512", "ES256K", "Ed448", "dir"];

/// A token's three segments, each still encoded.
#[derive(Debug, Clone, Copy)]
pub struct Compact<'t> {
    /// The header segment.
    pub header: &'t [u8],
    /// The payload segment.
    pub payload: &'t [u8],
    /// The signature segment.
    pub signature: &'t [u8],
    /// What is signed: header, a dot, payload (RFC 7515, section 5.2).
    pub signed: &'t [u8],
}

impl<'t> Compact<'t> {
    /// Cut a token into its segments.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Encrypted`] for five segments, [`Error::NotAJwt`] for any other number
    /// than three.
    #[inline]
    pub fn split(token: &'t [u8], limit: usize) -> Result<Self, Error> {
        if token.len() > limit {
            return Err(Error::TooLarge { size: token.len(), limit });
        }
        if let (Some(first), Some(last)) = (memchr(b'.', token), memrchr(b'.', token)) {
            let between = first + 1..last;
            // Another dot inside would also fail as base64, but a separate error is clearer.
            if first < last && memchr(b'.', &token[between.clone()]).is_none() {
                return Ok(Self {
                    header: &token[..first],
                    payload: &token[between],
                    signature: &token[last + 1..],
                    signed: &token[..last],
                });
            }
        }
        Err(match memchr_iter(b'.', token).take(6).count() {
            0 => not_a_jwt("three segments", if token.is_empty() { "an empty text" } else { "one segment" }),
            1 => not_a_jwt("three segments", "two segments"),
            3 => not_a_jwt("three segments", "four segments"),
            4 => Error::Encrypted,
            _ => not_a_jwt("three segments", "more than five segments"),
        })
    }
}

const fn not_a_jwt(expected: &'static str, found: &'static str) -> Error {
    Error::NotAJwt { expected, found }
}

/// The parts of a header that matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The algorithm it names.
    pub algorithm: NamedAlgorithm,
    /// The id of the key that it names.
    pub kid: Option<String>,
}

/// The value of `alg`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedAlgorithm {
    /// One that this crate offers.
    Offered(Algorithm),
    /// One that it does not; the name where it is a registered one.
    Other(Option<&'static str>),
}

/// Decode a header segment to its JSON.
///
/// # Errors
/// [`Error::NotAJwt`] if it is not base64url of a strict JSON object.
pub fn decode_header(segment: &[u8]) -> Result<Document, Error> {
    let text = base64url::decode(segment).map_err(|_| not_a_jwt("a base64url header", "other characters"))?;
    let document = Document::parse(text).map_err(|error| not_a_jwt("a JSON header", error.reason()))?;
    if document.root().kind() == Kind::Object {
        Ok(document)
    } else {
        Err(not_a_jwt("a JSON object as header", "another kind of value"))
    }
}

impl Header {
    /// Read a header segment. `jwk`, `jku`, `x5u` and `x5c` are ignored: a token does not choose the key that
    /// verifies it (CVE-2018-0114).
    ///
    /// # Errors
    /// [`Error::NotAJwt`], [`Error::TypeNotAccepted`], [`Error::HeaderNotAccepted`].
    pub fn parse(segment: &[u8]) -> Result<Self, Error> {
        let document = decode_header(segment)?;
        let root = document.root();
        // No extension is understood, so any `crit` must be refused (RFC 7515, section 4.1.11).
        for parameter in ["crit", "zip", "enc"] {
            if root.get(parameter).is_some() {
                return Err(Error::HeaderNotAccepted { parameter });
            }
        }
        if root.get("b64").is_some_and(|b64| b64.kind() != Kind::Bool(true)) {
            return Err(Error::HeaderNotAccepted { parameter: "b64" }); // RFC 7797, section 3
        }
        // A content type announces a nested token (RFC 7519, section 5.2).
        if root.get("cty").is_some() {
            return Err(Error::HeaderNotAccepted { parameter: "cty" });
        }
        if root.get("typ").is_some_and(|typ| !is_access_token_type(typ)) {
            return Err(Error::TypeNotAccepted);
        }
        let name = root.get("alg").and_then(Value::as_str);
        let name = name.ok_or(not_a_jwt("an algorithm name in the header", "none that is a string"))?;
        let algorithm = Algorithm::from_name(&name).map_or_else(
            || {
                let known = |known: &&str| known.eq_ignore_ascii_case(&name);
                NamedAlgorithm::Other(NAMED_IN_ERRORS.into_iter().find(known))
            },
            NamedAlgorithm::Offered,
        );
        let kid = match root.get("kid") {
            None => None,
            Some(kid) => match kid.as_str() {
                Some(kid) if kid.len() <= MAX_KID_BYTES => Some(kid.into_owned()),
                Some(_) => return Err(not_a_jwt("a kid of at most 512 bytes", "a longer one")),
                None => return Err(not_a_jwt("a kid that is a string", "another kind of value")),
            },
        };
        Ok(Self { algorithm, kid })
    }
}

/// `typ` compares as a media type: without regard to case and with an optional `application/` (RFC 7515,
/// section 4.1.9). ID tokens also have `JWT` and are rejected by their audience; `dpop+jwt`, `logout+jwt`
/// and the like are rejected here (RFC 8725, section 3.11).
fn is_access_token_type(typ: Value<'_>) -> bool {
    typ.as_str().is_some_and(|typ| {
        let typ = typ.to_ascii_lowercase();
        matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(json: &str) -> Result<Header, Error> {
        Header::parse(base64url::encode(json.as_bytes()).as_bytes())
    }

    #[test]
    fn exactly_three_segments() {
        let split = Compact::split(b"a.b.c", 100).unwrap();
        assert_eq!((split.header, split.payload, split.signature), (&b"a"[..], &b"b"[..], &b"c"[..]));
        assert_eq!(split.signed, b"a.b");
        for (token, found) in [
            ("", "an empty text"),
            ("a", "one segment"),
            ("a.b", "two segments"),
            ("a.b.c.d", "four segments"),
            ("a.b.c.d.e.f", "more than five segments"),
            ("a.b.c.d.e.f.g.h", "more than five segments"),
        ] {
            let refused = Compact::split(token.as_bytes(), 100).unwrap_err();
            assert_eq!(refused, Error::NotAJwt { expected: "three segments", found }, "{token}");
        }
        assert!(Compact::split(b"..", 100).is_ok(), "empty segments fail later, as what they are");
        assert_eq!(Compact::split(b"a.b.c.d.e", 100).unwrap_err(), Error::Encrypted);
        assert_eq!(Compact::split(b"a.b.c", 4).unwrap_err(), Error::TooLarge { size: 5, limit: 4 });
    }

    #[test]
    fn a_header_is_read_strictly() {
        let plain = header(r#"{"typ":"JWT","alg":"RS256","kid":"k"}"#).unwrap();
        assert_eq!(plain.algorithm, NamedAlgorithm::Offered(Algorithm::Rs256));
        assert_eq!(plain.kid.as_deref(), Some("k"));
        for (json, code) in [
            (r#"{"alg":"RS256","crit":["exp"]}"#, "header_not_accepted"),
            (r#"{"alg":"RS256","crit":[]}"#, "header_not_accepted"),
            (r#"{"alg":"RS256","crit":null}"#, "header_not_accepted"),
            (r#"{"alg":"RS256","b64":false}"#, "header_not_accepted"),
            (r#"{"alg":"RS256","b64":"true"}"#, "header_not_accepted"),
            (r#"{"alg":"RS256","zip":"DEF"}"#, "header_not_accepted"),
            (r#"{"alg":"RS256","cty":"JWT"}"#, "header_not_accepted"),
            (r#"{"alg":"RS256","typ":"dpop+jwt"}"#, "type_not_accepted"),
            (r#"{"alg":"RS256","typ":"logout+jwt"}"#, "type_not_accepted"),
            (r#"{"alg":"RS256","typ":1}"#, "type_not_accepted"),
            (r#"{"alg":["RS256"]}"#, "not_a_jwt"),
            (r#"{"typ":"JWT"}"#, "not_a_jwt"),
            (r#"{"alg":"RS256","alg":"none"}"#, "not_a_jwt"),
            (r#"{"alg":"RS256","kid":7}"#, "not_a_jwt"),
            (r#"{"alg":"RS256","kid":null}"#, "not_a_jwt"),
            (r#"["alg"]"#, "not_a_jwt"),
        ] {
            assert_eq!(header(json).unwrap_err().code(), code, "{json}");
        }
        assert!(header(&format!(r#"{{"alg":"RS256","kid":"{}"}}"#, "k".repeat(1 << 20))).is_err());
        for typ in ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"] {
            assert!(header(&format!(r#"{{"alg":"RS256","typ":"{typ}"}}"#)).is_ok(), "{typ}");
        }
    }

    #[test]
    fn unknown_algorithm_names_are_not_repeated() {
        let named = |alg: &str| header(&format!(r#"{{"alg":"{alg}"}}"#)).unwrap().algorithm;
        assert_eq!(named("nOnE"), NamedAlgorithm::Other(Some("none")));
        assert_eq!(named("HS256"), NamedAlgorithm::Other(Some("HS256")));
        assert_eq!(named("<script>"), NamedAlgorithm::Other(None));
    }
}
