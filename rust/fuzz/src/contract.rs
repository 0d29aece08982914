//! The fields of a request, with one provider and with several, against a model that reads them with `serde_json` or
//! with a form decoder of its own.
//!
//! An input is a byte that chooses endpoint, content type and providers, and a body. Core and model accept the same
//! bodies, with equal results. JSON that is read without the parser is read as the parser reads it. The fast path hands
//! out the token under the key that the model computes, and never another provider's.

use std::collections::BTreeMap;

use entra_core::cache::s3_fifo::Limits;
use entra_core::cache::token_cache::{Now, Terms, TokenCache};
use entra_core::digest::of_parts;
use entra_core::sidecar::contract::{
    CallerCheck, ContentType, Endpoint, MAX_BODY_BYTES, MAX_CLAIMS_BYTES, MAX_DETAILS_BYTES, MAX_FIELDS,
    MAX_RESOURCE_BYTES, MAX_RESOURCES, scope_for, with_fields,
};
use entra_core::sidecar::fast_path::FastPath;
use entra_core::sidecar::providers::{Names, Provider, Providers};
use serde_json::Value;

use crate::{Outcome, strict_json};

/// What a body asks for, in values that both sides can make.
#[derive(Debug, Default, PartialEq)]
struct Asked {
    provider: usize,
    /// The target, or the token to introspect.
    subject: String,
    user_token: Option<String>,
    skip_cache: bool,
    claims: Option<String>,
    resources: Vec<String>,
    details: Option<Value>,
}

const KNOWN: [&str; 8] =
    ["identity_provider", "target", "token", "user_token", "skip_cache", "claims", "resource", "authorization_details"];

/// See the module's description.
///
/// # Panics
/// If a promise is broken.
pub fn run(data: &[u8]) -> Outcome {
    let Some((choice, body)) = data.split_first() else { return Outcome::Refused };
    let endpoint = Endpoint::ALL[usize::from(choice % 3)];
    let content_type = if choice & 4 == 0 { ContentType::Json } else { ContentType::Form };
    let providers = if choice & 8 == 0 { several() } else { one() };
    let asked = read(endpoint, content_type, body, &providers);
    match content_type {
        ContentType::Json => {
            // Behind a space only the parser reads it.
            assert_eq!(asked, read(endpoint, content_type, &[body, b" "].concat(), &providers), "two readings");
            if let Ok(json) = strict_json::read(body)
                && !json.duplicates
                && readable(&json.value, body)
            {
                assert_eq!(asked, model(endpoint, &json.value, &providers), "{:?}", json.value);
            }
        }
        ContentType::Form => {
            let expected = form_value(body).and_then(|value| model(endpoint, &value, &providers));
            assert_eq!(asked, expected);
        }
    }
    if let Some(asked) = &asked {
        hand_out(endpoint, content_type, body, &providers, asked);
    }
    asked.is_some().into()
}

fn row(name: &str, facts: [bool; 5]) -> Provider {
    let [issues, exchanges, rewrites_targets, accepts_claims, accepts_details] = facts;
    Provider {
        name: name.to_owned(),
        issues,
        exchanges,
        rewrites_targets,
        accepts_claims,
        accepts_details,
        client_id: "same".to_owned(),
        ..Provider::default()
    }
}

fn several() -> Providers {
    let entra = Provider { aliases: vec!["azuread".to_owned()], ..row("entra_id", [true, true, true, true, false]) };
    let enabled = vec![
        entra,
        row("maskinporten", [true, false, false, false, true]),
        row("tokenx", [false, true, false, false, false]),
        row("idporten", [false, false, false, false, false]),
        row("partner", [true, true, false, false, false]),
    ];
    let mut known: Vec<Names> =
        enabled.iter().map(|row| Names { name: row.name.clone(), aliases: row.aliases.clone() }).collect();
    known.push(Names { name: "other".to_owned(), aliases: vec!["older".to_owned()] });
    Providers::new(enabled, known)
}

fn one() -> Providers {
    Providers::new(vec![row("only", [true, true, true, true, true])], Vec::new())
}

/// What the core reads; None if it refuses.
fn read(endpoint: Endpoint, content_type: ContentType, body: &[u8], providers: &Providers) -> Option<Asked> {
    let asked = with_fields(content_type, body, |fields| {
        if endpoint == Endpoint::Introspect {
            let (provider, token) = fields.introspected_token(providers)?;
            return Ok(Asked { provider, subject: token.to_owned(), ..Asked::default() });
        }
        let request = match endpoint {
            Endpoint::Exchange => fields.exchange_request(providers),
            _ => fields.token_request(providers),
        }?;
        Ok(Asked {
            provider: request.provider,
            subject: request.target.to_owned(),
            user_token: request.user_token.map(str::to_owned),
            skip_cache: request.skip_cache,
            claims: request.claims.map(str::to_owned),
            resources: request.resources.iter().map(|resource| resource.clone().into_owned()).collect(),
            details: request.authorization_details.map(|text| {
                assert!(text.len() <= MAX_DETAILS_BYTES);
                // Numbers beyond the range of floats: only the core keeps them.
                strict_json::read(text.as_bytes()).map_or(Value::Null, |read| read.value)
            }),
        })
    });
    asked.and_then(|asked: Result<Asked, _>| asked).ok()
}

/// What the fields of an object ask for; None if they are to be refused.
fn model(endpoint: Endpoint, value: &Value, providers: &Providers) -> Option<Asked> {
    let fields = value.as_object()?;
    let field = |name: &str| fields.get(name).filter(|value| !value.is_null());
    let text = |name: &str| field(name)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let enabled = providers.enabled();
    let provider = match field("identity_provider") {
        None if enabled.len() == 1 => 0,
        None => return None,
        Some(_) => {
            let name = text("identity_provider")?;
            enabled.iter().position(|row| row.name == name || row.aliases.contains(&name))?
        }
    };
    let row = &enabled[provider];
    if endpoint == Endpoint::Introspect {
        return Some(Asked { provider, subject: text("token")?, ..Asked::default() });
    }
    if !(if endpoint == Endpoint::Token { row.issues } else { row.exchanges }) {
        return None;
    }
    let mut asked = Asked { provider, subject: text("target")?, ..Asked::default() };
    if let Some(flag) = field("skip_cache") {
        asked.skip_cache = flag.as_bool()?;
    }
    if row.accepts_claims && field("claims").is_some() {
        let claims = text("claims")?;
        let read = strict_json::read(claims.as_bytes()).ok()?;
        if claims.len() > MAX_CLAIMS_BYTES || read.duplicates || !read.value.is_object() {
            return None;
        }
        asked.claims = Some(claims);
    }
    if endpoint == Endpoint::Exchange {
        asked.user_token = Some(text("user_token")?);
        return Some(asked);
    }
    if !row.accepts_details {
        return Some(asked);
    }
    match field("resource") {
        None => {}
        Some(Value::String(one)) => asked.resources.push(one.clone()),
        Some(Value::Array(several)) => {
            for one in several {
                asked.resources.push(one.as_str()?.to_owned());
            }
        }
        Some(_) => return None,
    }
    let bytes: usize = asked.resources.iter().map(String::len).sum();
    if asked.resources.len() > MAX_RESOURCES || bytes > MAX_RESOURCE_BYTES || asked.resources.contains(&String::new()) {
        return None;
    }
    asked.details = match field("authorization_details") {
        None => None,
        Some(Value::String(text)) => {
            let read = strict_json::read(text.as_bytes()).ok()?;
            (text.len() <= MAX_DETAILS_BYTES && !read.duplicates).then_some(Some(read.value))?
        }
        Some(value) => Some(value.clone()),
    };
    let are_objects = |details: &Value| details.as_array().is_some_and(|all| all.iter().all(Value::is_object));
    asked.details.as_ref().is_none_or(are_objects).then_some(asked)
}

/// Do the limits that the model cannot see hold? `serde_json` has neither the core's limits of depth and of numbers, nor
/// the length of an array as it was written.
fn readable(value: &Value, body: &[u8]) -> bool {
    let mut texts = vec![body.to_vec()];
    let nested = ["claims", "authorization_details"].map(|name| value.get(name).and_then(Value::as_str));
    texts.extend(nested.into_iter().flatten().map(|text| text.as_bytes().to_vec()));
    body.len() <= MAX_DETAILS_BYTES
        && texts.iter().all(|text| {
            let opens = text.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
            let numeric = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
            let huge = text
                .split(|byte| !numeric(byte))
                .any(|run| run.len() > 200 || run.contains(&b'e') || run.contains(&b'E'));
            opens <= 60 && !huge
        })
}

/// The known fields of a form as the members of an object; None if the form is to be refused.
fn form_value(body: &[u8]) -> Option<Value> {
    let mut fields: BTreeMap<String, Value> = BTreeMap::new();
    let mut count = 0;
    for pair in body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        count += 1;
        if count > MAX_FIELDS {
            return None;
        }
        let equals = pair.iter().position(|byte| *byte == b'=');
        let (name, value) = equals.map_or((pair, &b""[..]), |at| (&pair[..at], &pair[at + 1..]));
        let Some(name) = decoded(name).filter(|name| KNOWN.contains(&name.as_str())) else { continue };
        if fields.contains_key(&name) {
            return None;
        }
        let value = decoded(value)?;
        let value = match (name.as_str(), value.as_str()) {
            ("skip_cache", "true") => Value::Bool(true),
            ("skip_cache", "false") => Value::Bool(false),
            ("skip_cache", _) => Value::Array(Vec::new()), // no flag
            _ => Value::String(value),
        };
        fields.insert(name, value);
    }
    Some(Value::Object(fields.into_iter().collect()))
}

fn decoded(bytes: &[u8]) -> Option<String> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (byte, length) = match bytes[at] {
            b'+' => (b' ', 1),
            b'%' => {
                let digits = bytes.get(at + 1..at + 3)?;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                (u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?, 3)
            }
            other => (other, 1),
        };
        out.push(byte);
        at += length;
    }
    String::from_utf8(out).ok()
}

/// Ask a fast path whose cache has a token for the same request at every provider.
fn hand_out(endpoint: Endpoint, content_type: ContentType, body: &[u8], providers: &Providers, asked: &Asked) {
    if endpoint == Endpoint::Introspect || body.len() > MAX_BODY_BYTES {
        return;
    }
    // The text of the details is part of the key, and the model has only its value.
    let Ok(Ok(details)) = with_fields(content_type, body, |fields| match endpoint {
        Endpoint::Token => {
            fields.token_request(providers).map(|request| request.authorization_details.map(str::to_owned))
        }
        _ => Ok(None),
    }) else {
        panic!("it was read a moment ago")
    };
    let tokens = TokenCache::new(Limits { entries: 16, bytes: 1 << 20 }, [1, 2]);
    let terms = Terms { expires_in: 3600.0, renew_in: None, subject_expires_at: None };
    let mut acceptable = false;
    for (position, row) in providers.enabled().iter().enumerate() {
        let Ok(scope) = scope_for(&asked.subject, row.rewrites_targets) else { continue };
        acceptable |= position == asked.provider;
        let subject = asked.user_token.as_deref();
        let purpose = if subject.is_some() { "on_behalf_of" } else { "client_credentials" };
        let parts = [&*row.name, &*row.tenant, &*row.client_id, &*scope, subject.unwrap_or_default()];
        let parts = parts.into_iter().chain([details.as_deref().unwrap_or_default()]);
        let parts = parts.chain(asked.resources.iter().map(String::as_str));
        let key = of_parts(purpose, parts.map(str::as_bytes));
        assert!(tokens.put(&key, &format!("token-of-{position}-"), terms, 0.0));
    }
    let callers = CallerCheck::new([]);
    let fast_path = FastPath::new(providers.clone(), callers, vec![1.0], [1, 2]);
    let media_type = match content_type {
        ContentType::Json => "application/json",
        ContentType::Form => "application/x-www-form-urlencoded",
    };
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
        endpoint.path(),
        body.len()
    );
    let request = [head.as_bytes(), body].concat();
    let readable = asked.user_token.as_deref().is_none_or(|token| token.bytes().all(|byte| byte.is_ascii_graphic()));
    for _ in 0..2 {
        let mut out = Vec::new();
        let outcome = fast_path.serve(&request, &tokens, Now { unix: 0.0, monotonic: 0.0 }, &mut out);
        let expected = acceptable && readable && !asked.skip_cache && asked.claims.is_none();
        assert_eq!(outcome.answered, u64::from(expected), "the fast path answers what is in the cache");
        if expected {
            let text = String::from_utf8(out).expect("tokens are text");
            assert!(text.contains(&format!("\"token-of-{}-\"", asked.provider)), "another provider's token");
        }
    }
}

/// Bodies to begin with.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let json = [
        r#"{"identity_provider":"entra_id","target":"c:n:a"}"#,
        r#"{"identity_provider":"azuread","target":"api:\/\/a","user_token":"a.b.c","claims":"{\"a\":1}"}"#,
        r#"{"identity_provider":"maskinporten","target":"t","resource":["a","b"],"authorization_details":[{"type":"x"}]}"#,
        r#"{"identity_provider":"maskinporten","target":"t","resource":"a","authorization_details":"[{\"type\":\"x\"}]"}"#,
        r#"{"identity_provider": "tokenx", "target": "t", "user_token": "a.b.c", "skip_cache": true}"#,
        r#"{"identity_provider":"idporten","token":"a.b.c"}"#,
        r#"{"identity_provider":null,"target":"t","user_token":"u","token":"k","resource":[],"skip_cache":null}"#,
        r#"{"identity_provider":"older","target":"t"}"#,
        r#"{"identity_provider":"","target":"t","t\u0061rget":"t"}"#,
        r#"{"identity_provider":"partner","target":"a b","user_token":"u","resource":1,"claims":[],"other":{}}"#,
    ];
    let forms = [
        "identity_provider=entra_id&target=c%3An%3Aa&user_token=a.b.c&token=x",
        "&identity_provider=maskinporten&&target=t&resource=a&authorization_details=%5B%7B%7D%5D&skip_cache=false&",
        "identity_provider=tokenx&t%61rget=t&user_token=u&x=%zz&y",
        "target=t&user_token=u&token=a+b&claims=%7B%7D&skip_cache=1",
        "target=%ff&target=t",
    ];
    let mut seeds = Vec::new();
    for choice in 0..16u8 {
        let bodies: &[&str] = if choice & 4 == 0 { &json } else { &forms };
        seeds.extend(bodies.iter().map(|body| [&[choice], body.as_bytes()].concat()));
    }
    seeds
}
