//! The JSON parser against `serde_json`.
//!
//! What the core accepts, `serde_json` reads as the same values. What only `serde_json` accepts, the core refuses
//! for one of its documented stricter rules, and rightly. The one thing that only the core accepts is a number
//! beyond the range of floats: it keeps numbers as text, and `as_f64` has none for it.

use entra_core::jose::json::{Document, JsonError, Kind, MAX_DEPTH, MAX_NUMBER_LENGTH, Value, write_string};

use crate::{Outcome, strict_json};

/// See the module's description.
pub fn run(text: &[u8]) -> Outcome {
    let second_opinion = strict_json::read(text);
    match (Document::parse(text), second_opinion) {
        (Ok(document), Ok(read)) => {
            assert_eq!(document.text().as_bytes(), text, "the text is kept as it came");
            assert!(!read.duplicates, "a duplicate member was accepted");
            assert!(read.depth <= MAX_DEPTH, "too deep a nesting was accepted");
            assert_same(document.root(), &read.value);
            Outcome::Accepted
        }
        (Ok(document), Err(error)) => {
            assert!(strict_json::follows_grammar(text), "only the core accepts this: {error}");
            assert!(has_huge_number(document.root()), "only the core accepts this: {error}");
            Outcome::Accepted
        }
        (Err(error), Ok(read)) => {
            match error {
                JsonError::DuplicateMember => assert!(read.duplicates, "there is no duplicate member"),
                JsonError::TooDeep => assert!(read.depth > MAX_DEPTH, "it is not too deep"),
                JsonError::NumberTooLong => assert!(longest_number(text) > MAX_NUMBER_LENGTH, "no number is too long"),
                other => panic!("serde_json accepts this, the core says {other:?}"),
            }
            Outcome::Refused
        }
        (Err(_), Err(_)) => Outcome::Refused,
    }
}

fn assert_same(own: Value<'_>, other: &serde_json::Value) {
    match (own.kind(), other) {
        (Kind::Null, serde_json::Value::Null) => {}
        (Kind::Bool(own), serde_json::Value::Bool(other)) => assert_eq!(own, *other),
        (Kind::Number, serde_json::Value::Number(other)) => {
            let (own, other) = (own.as_f64().expect("in range for serde_json"), other.as_f64().expect("finite"));
            #[allow(clippy::float_cmp, reason = "both read the same text, and rounding has one right result")]
            let same = own == other;
            assert!(same, "{own} {other}");
        }
        (Kind::String, serde_json::Value::String(other)) => {
            assert_eq!(own.as_str().as_deref(), Some(other.as_str()));
            assert!(own.is_str(other));
            assert_string_round_trip(other);
        }
        (Kind::Array, serde_json::Value::Array(other)) => {
            assert_eq!(own.elements().count(), other.len());
            own.elements().zip(other).for_each(|(own, other)| assert_same(own, other));
        }
        (Kind::Object, serde_json::Value::Object(other)) => {
            assert_eq!(own.members().count(), other.len());
            for (name, value) in own.members() {
                let name = name.as_str().expect("a name is a string");
                assert_same(value, &other[name.as_ref()]);
                let found = own.get(&name).expect("a member is found by its name");
                assert_eq!(found.text().as_ptr(), value.text().as_ptr(), "another member was found");
            }
            assert!(own.get("\u{1}no such member").is_none() || other.contains_key("\u{1}no such member"));
        }
        (own, other) => panic!("{own:?} here, {other} there"),
    }
}

/// What is written can be read by both, and is what was written.
fn assert_string_round_trip(text: &str) {
    let mut written = Vec::new();
    write_string(&mut written, text);
    assert_eq!(serde_json::from_slice::<String>(&written).expect("serde_json reads it"), text);
    let document = Document::parse(written).expect("the core reads it");
    assert!(document.root().is_str(text));
}

fn has_huge_number(value: Value<'_>) -> bool {
    (value.kind() == Kind::Number && value.as_f64().is_none())
        || value.elements().any(has_huge_number)
        || value.members().any(|(_, value)| has_huge_number(value))
}

/// The longest run of characters that numbers are made of: at least as long as the longest number.
fn longest_number(text: &[u8]) -> usize {
    let other = |byte: &u8| !matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    text.split(other).map(<[u8]>::len).max().unwrap_or(0)
}

/// Texts to begin with.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"iss":"https://issuer.example","exp":1767229200,"iat":1.7672e9,"groups":["a","b"],"n":null,"t":true}"#,
        r#" [ 0 , -0 , 1E+2 , 0.5e-3 , "" , "\u00e9\ud83d\ude00\n\"\\\/" , { } , [ ] , false ] "#,
        r#"{"a":{"b":{"c":[[[{"d":[]}]]]}},"":1,"\u0061b":2}"#,
        r#"{"a":1,"\u0061":2}"#,
        r#"["\ud800"]"#,
        "1e400",
        "[18446744073709551616,-9223372036854775809,1.7976931348623157e308,5e-324,0.1]",
    ];
    let mut seeds: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    // Each limit, met and passed.
    for depth in [MAX_DEPTH, MAX_DEPTH + 1] {
        seeds.push(["[".repeat(depth), "]".repeat(depth)].concat().into_bytes());
    }
    for length in [MAX_NUMBER_LENGTH, MAX_NUMBER_LENGTH + 1] {
        seeds.push(["0.", &"1".repeat(length - 2)].concat().into_bytes());
    }
    // More names than are compared one by one.
    let members: Vec<String> = (0..40).map(|index| format!(r#""name{index}":{index}"#)).collect();
    seeds.push(format!("{{{}}}", members.join(",")).into_bytes());
    seeds.push(format!(r#"{{{},"name39":0}}"#, members.join(",")).into_bytes());
    seeds
}
