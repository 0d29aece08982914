//! The JSON body of an introspection answer (RFC 7662, section 2.2; contract of the NAIS sidecar).
//!
//! An active answer is the claims' own text with `"active":true` in front: verbatim by construction.

use crate::jose::json::write_string;
use crate::validate::claims::Claims;

const ACTIVE: &[u8] = br#"{"active":true"#;

/// The answer for a token that is valid.
#[must_use]
pub fn active(claims: &Claims) -> Vec<u8> {
    let mut out = Vec::with_capacity(ACTIVE.len() + 1 + claims.text().len());
    active_into(claims, &mut out);
    out
}

/// Append the answer for a token that is valid.
pub fn active_into(claims: &Claims, out: &mut Vec<u8>) {
    out.extend_from_slice(ACTIVE);
    // With two members of one name, readers could disagree about which one counts, so a claim that is itself
    // called `active` is left out. Entra ID has none.
    if claims.has_active() {
        return without_active(claims, out);
    }
    let members = &claims.text().trim_ascii().as_bytes()[1..];
    if members.trim_ascii_start() != b"}" {
        out.push(b',');
    }
    out.extend_from_slice(members);
}

fn without_active(claims: &Claims, out: &mut Vec<u8>) {
    for (name, value) in claims.root().members().filter(|(name, _)| !name.is_str("active")) {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.text().as_bytes());
        out.extend_from_slice(b"\":");
        let quote: &[u8] = if value.kind() == crate::jose::json::Kind::String { b"\"" } else { b"" };
        out.extend_from_slice(quote);
        out.extend_from_slice(value.text().as_bytes());
        out.extend_from_slice(quote);
    }
    out.push(b'}');
}

/// The answer for a token that is not: `error` is a sentence.
#[must_use]
pub fn inactive(error: &str) -> Vec<u8> {
    let mut out = br#"{"active":false,"error":"#.to_vec();
    write_string(&mut out, error);
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jose::base64url::encode;

    fn rendered(claims: &str) -> String {
        let claims = Claims::dangerous_unverified(encode(claims.as_bytes()).as_bytes()).unwrap();
        String::from_utf8(active(&claims)).unwrap()
    }

    #[test]
    fn claims_are_copied_verbatim() {
        let claims = r#"{"n":1.50e2, "s":"\u00e9\/", "z" : [ {"a":null} ],"a":12345678901234567890}"#;
        assert_eq!(rendered(claims), format!(r#"{{"active":true,{}"#, &claims[1..]));
        assert_eq!(rendered(" {\"a\":1}\n"), r#"{"active":true,"a":1}"#);
        assert_eq!(rendered("{}"), r#"{"active":true}"#);
        assert_eq!(rendered("{ }"), r#"{"active":true }"#);
    }

    #[test]
    fn a_claim_called_active_cannot_contradict_the_answer() {
        assert_eq!(rendered(r#"{"a":"x\n","active":false,"b":[1, 2]}"#), r#"{"active":true,"a":"x\n","b":[1, 2]}"#);
        assert_eq!(rendered(r#"{"\u0061ctive":false}"#), r#"{"active":true}"#);
    }

    #[test]
    fn errors_are_escaped() {
        assert_eq!(inactive("a \"b\""), br#"{"active":false,"error":"a \"b\""}"#);
    }
}
