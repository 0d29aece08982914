//! Why a token was rejected: one enum with stable codes, each failure with the values that were compared.
//!
//! The code is the interface (docs/reference/errors.md); the sentence is for people and is the `error` of an
//! introspection response. Sentences never repeat bytes of the token. [`Error::actual`] comes from claims whose
//! signature has been verified, or is shortened and escaped for a log line ([`shown`]).

use std::fmt;

/// A token was rejected.
#[derive(Debug, Clone, PartialEq)]
pub enum Error {
    /// Longer than the policy's limit; nothing of it was parsed.
    TooLarge {
        /// Bytes of the token.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not a signed JWT in compact form (RFC 7515, section 7.1).
    NotAJwt {
        /// What belongs there.
        expected: &'static str,
        /// What was found instead, in words.
        found: &'static str,
    },
    /// Five segments: a JWE (RFC 7516). It is rejected before anything is decoded.
    Encrypted,
    /// The header asks for something that is not accepted: `crit`, `b64`, `zip`, `enc`, `cty` (RFC 7515,
    /// sections 4.1.10 and 4.1.11; RFC 7797).
    HeaderNotAccepted {
        /// Name of the header parameter.
        parameter: &'static str,
    },
    /// `typ` names another kind of token (RFC 8725, section 3.11).
    TypeNotAccepted,
    /// `alg` is not one that the policy allows, or not one that the key can do.
    AlgorithmNotAllowed {
        /// The name in the header where it is a registered one; otherwise it is not repeated.
        name: Option<&'static str>,
        /// What would have been accepted.
        allowed: String,
    },
    /// No key of that `kid`. A refresh of the key set may help, nothing else does.
    UnknownKey {
        /// The `kid`, cut and made safe; None if the header has none.
        kid: Option<String>,
        /// How many keys there are.
        known: usize,
    },
    /// The signature does not verify.
    SignatureInvalid,
    /// The payload is not a JSON object, strictly read.
    ClaimsNotAnObject {
        /// What was found instead, in words.
        found: &'static str,
    },
    /// A claim that the policy needs is absent.
    ClaimMissing {
        /// Name of the claim.
        name: String,
    },
    /// A claim is of the wrong type or out of range. Malformed is not the same as absent.
    ClaimMalformed {
        /// Name of the claim.
        name: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// `iss` is not an accepted issuer.
    WrongIssuer {
        /// Accepted issuers.
        expected: String,
        /// The token's issuer.
        actual: String,
    },
    /// `tid` is not an allowed tenant.
    TenantNotAllowed {
        /// Allowed tenants.
        expected: String,
        /// The token's tenant.
        actual: String,
    },
    /// `aud` holds no accepted audience.
    WrongAudience {
        /// Accepted audiences.
        expected: String,
        /// The token's audiences.
        actual: String,
    },
    /// `exp` has passed (RFC 7519, section 4.1.4).
    Expired {
        /// When it expired, seconds since the epoch.
        expires_at: f64,
        /// When it was checked.
        now: f64,
        /// Seconds of clock skew allowed.
        leeway: f64,
    },
    /// `nbf` has not been reached (RFC 7519, section 4.1.5).
    NotYetValid {
        /// When it becomes valid, seconds since the epoch.
        not_before: f64,
        /// When it was checked.
        now: f64,
        /// Seconds of clock skew allowed.
        leeway: f64,
    },
    /// `iat` lies in the future.
    IssuedInTheFuture {
        /// When it says that it was issued, seconds since the epoch.
        issued_at: f64,
        /// When it was checked.
        now: f64,
        /// Seconds of clock skew allowed.
        leeway: f64,
    },
    /// Issued longer ago than the policy's maximum age.
    TooOld {
        /// Seconds since it was issued.
        age: f64,
        /// Seconds allowed.
        limit: f64,
    },
    /// There is no key set to verify with. This says nothing about the token.
    KeysUnavailable,
}

/// Every code with the sentence that it stands for; `{}` is filled in. Compared with docs/reference/errors.md by a test.
pub const CODES: [(&str, &str); 19] = [
    ("token_too_large", "token is too large"),
    ("not_a_jwt", "token is not a JWT"),
    ("token_encrypted", "token is encrypted, which is not accepted"),
    ("header_not_accepted", "token header parameter '{}' is not accepted"),
    ("type_not_accepted", "token type is not accepted"),
    ("algorithm_not_allowed", "token algorithm '{}' is not allowed"),
    ("unknown_key", "token was signed with an unknown key"),
    ("signature_invalid", "token signature is invalid"),
    ("claims_not_an_object", "token claims are not a valid JSON object"),
    ("claim_missing", "token is missing the required claim '{}'"),
    ("claim_malformed", "token has a malformed claim '{}'"),
    ("wrong_issuer", "token has the wrong issuer"),
    ("tenant_not_allowed", "token is from a tenant that is not allowed"),
    ("wrong_audience", "token has the wrong audience"),
    ("token_expired", "token is expired"),
    ("token_not_yet_valid", "token is not yet valid"),
    ("issued_in_the_future", "token was issued in the future"),
    ("token_too_old", "token was issued too long ago"),
    ("keys_unavailable", "keys of the token issuer are not available"),
];

impl Error {
    /// The position of its code in [`CODES`].
    #[must_use]
    pub const fn index(&self) -> usize {
        match self {
            Self::TooLarge { .. } => 0,
            Self::NotAJwt { .. } => 1,
            Self::Encrypted => 2,
            Self::HeaderNotAccepted { .. } => 3,
            Self::TypeNotAccepted => 4,
            Self::AlgorithmNotAllowed { .. } => 5,
            Self::UnknownKey { .. } => 6,
            Self::SignatureInvalid => 7,
            Self::ClaimsNotAnObject { .. } => 8,
            Self::ClaimMissing { .. } => 9,
            Self::ClaimMalformed { .. } => 10,
            Self::WrongIssuer { .. } => 11,
            Self::TenantNotAllowed { .. } => 12,
            Self::WrongAudience { .. } => 13,
            Self::Expired { .. } => 14,
            Self::NotYetValid { .. } => 15,
            Self::IssuedInTheFuture { .. } => 16,
            Self::TooOld { .. } => 17,
            Self::KeysUnavailable => 18,
        }
    }

    const fn entry(&self) -> (&'static str, &'static str) {
        CODES[self.index()]
    }

    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.entry().0
    }

    /// What would have been accepted, where two values were compared.
    #[must_use]
    pub fn expected(&self) -> Option<String> {
        Some(match self {
            Self::TooLarge { limit, .. } => format!("at most {limit} bytes"),
            Self::NotAJwt { expected, .. } | Self::ClaimMalformed { expected, .. } => (*expected).to_owned(),
            Self::Encrypted => "three segments".to_owned(),
            Self::TypeNotAccepted => "typ absent, 'JWT' or 'at+jwt'".to_owned(),
            Self::AlgorithmNotAllowed { allowed, .. } => allowed.clone(),
            Self::UnknownKey { known, .. } => format!("one of {known} known keys"),
            Self::ClaimsNotAnObject { .. } => "a JSON object without duplicate members".to_owned(),
            Self::WrongIssuer { expected, .. }
            | Self::WrongAudience { expected, .. }
            | Self::TenantNotAllowed { expected, .. } => expected.clone(),
            Self::Expired { now, leeway, .. } => format!("exp after {now}, with {leeway} s of leeway"),
            Self::NotYetValid { now, leeway, .. } => format!("nbf not after {now}, with {leeway} s of leeway"),
            Self::IssuedInTheFuture { now, leeway, .. } => {
                format!("iat not after {now}, with {leeway} s of leeway")
            }
            Self::TooOld { limit, .. } => format!("at most {limit} s old"),
            Self::HeaderNotAccepted { .. }
            | Self::SignatureInvalid
            | Self::ClaimMissing { .. }
            | Self::KeysUnavailable => return None,
        })
    }

    /// What the token has instead, where two values were compared.
    #[must_use]
    pub fn actual(&self) -> Option<String> {
        Some(match self {
            Self::TooLarge { size, .. } => format!("{size} bytes"),
            Self::NotAJwt { found, .. } | Self::ClaimsNotAnObject { found } => (*found).to_owned(),
            Self::Encrypted => "five segments".to_owned(),
            Self::AlgorithmNotAllowed { name, .. } => (*name)?.to_owned(),
            Self::UnknownKey { kid, .. } => kid.clone().unwrap_or_else(|| "no kid".to_owned()),
            Self::WrongIssuer { actual, .. }
            | Self::WrongAudience { actual, .. }
            | Self::TenantNotAllowed { actual, .. } => actual.clone(),
            Self::Expired { expires_at, .. } => format!("{expires_at}"),
            Self::NotYetValid { not_before, .. } => format!("{not_before}"),
            Self::IssuedInTheFuture { issued_at, .. } => format!("{issued_at}"),
            Self::TooOld { age, .. } => format!("{age} s"),
            _ => return None,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value: &str = match self {
            Self::HeaderNotAccepted { parameter } => parameter,
            Self::AlgorithmNotAllowed { name: Some(name), .. } | Self::ClaimMalformed { name, .. } => name,
            Self::AlgorithmNotAllowed { name: None, .. } => return f.write_str("token algorithm is not allowed"),
            Self::ClaimMissing { name } => name,
            _ => return f.write_str(self.entry().1),
        };
        let (before, after) = self.entry().1.split_once("{}").unwrap_or((self.entry().1, ""));
        write!(f, "{before}{value}{after}")
    }
}

impl std::error::Error for Error {}

/// A value cut to a bounded length and escaped, so that it is safe in a log line, a header and a terminal.
#[must_use]
pub fn shown(value: &str) -> String {
    const LIMIT: usize = 120;
    let mut out: String = value.chars().take(LIMIT).flat_map(char::escape_debug).collect();
    if value.chars().nth(LIMIT).is_some() {
        out.push_str("...");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_those_of_the_contract() {
        let missing = Error::ClaimMissing { name: "iat".into() };
        assert_eq!(missing.to_string(), "token is missing the required claim 'iat'");
        let none = Error::AlgorithmNotAllowed { name: Some("none"), allowed: String::new() };
        assert_eq!(none.to_string(), "token algorithm 'none' is not allowed");
        assert_eq!(Error::Encrypted.to_string(), "token is encrypted, which is not accepted");
        assert_eq!(Error::SignatureInvalid.code(), "signature_invalid");
        assert_eq!(Error::TooOld { age: 9.0, limit: 5.0 }.to_string(), "token was issued too long ago");
    }

    #[test]
    fn shown_values_are_cut_and_safe() {
        assert_eq!(shown("a\n\u{1b}[31mb"), "a\\n\\u{1b}[31mb");
        assert_eq!(shown(&"x".repeat(100_000)).len(), 123);
    }
}
