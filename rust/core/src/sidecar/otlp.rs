//! Spans as bytes of OTLP: a message `ExportTraceServiceRequest` of opentelemetry-proto.
//!
//! Belongs here: the fields of the messages and their encoding, a small part of Protocol Buffers. The message equals the
//! one that OpenTelemetry's SDK for Python makes for the same spans; tests compare the two field by field. Does not
//! belong here: which spans there are (`spans`), and sending them (Python's `span_export.py`).
//!
//! Written by hand, because the messages of a library would first have to be built, with some twenty allocations for
//! each span.

use super::spans::Span;

/// Fields that are the same for all spans, and the limits of attributes.
#[derive(Debug)]
pub struct Encoder {
    /// A `ResourceSpans` without `scope_spans`, encoded.
    pub resource: Vec<u8>,
    /// A `ScopeSpans` without `spans`, encoded.
    pub scope: Vec<u8>,
    /// The names of the providers, by position.
    pub providers: Vec<String>,
    /// Maximum number of attributes of a span; the first ones are dropped, as the SDK does.
    pub max_attributes: usize,
    /// Maximum number of characters of an attribute's value.
    pub max_characters: usize,
}

/// Wire types (Protocol Buffers, "Encoding").
const VARINT: u32 = 0;
const FIXED_64: u32 = 1;
const LENGTH_DELIMITED: u32 = 2;
const FIXED_32: u32 = 5;

/// `Span.SpanKind.SPAN_KIND_SERVER`.
const SERVER: u64 = 2;

/// `SpanFlags`: it is known whether the parent is remote, and for a child also that it is.
const FLAGS_OF_ROOT: u32 = 0x100;
const FLAGS_OF_CHILD: u32 = 0x300;

/// The value of an attribute.
enum Value<'v> {
    Text(&'v str),
    True,
    Whole(u64),
}

/// Buffers that are used again for each message within a message, whose length comes before it.
#[derive(Default)]
struct Buffers {
    span: Vec<u8>,
    pair: Vec<u8>,
    value: Vec<u8>,
}

impl Encoder {
    /// The message with these spans.
    #[must_use]
    pub fn encode(&self, spans: &[Span]) -> Vec<u8> {
        let mut buffers = Buffers::default();
        let mut in_scope = self.scope.clone();
        for span in spans {
            self.write(span, &mut buffers);
            bytes(&mut in_scope, 2, &buffers.span);
        }
        let mut in_resource = self.resource.clone();
        bytes(&mut in_resource, 2, &in_scope);
        let mut message = Vec::with_capacity(in_resource.len() + 8);
        bytes(&mut message, 1, &in_resource);
        message
    }

    fn write(&self, span: &Span, buffers: &mut Buffers) {
        let route = span.endpoint.path();
        buffers.span.clear();
        let out = &mut buffers.span;
        bytes(out, 1, &span.trace_id);
        bytes(out, 2, &span.span_id);
        if let Some(state) = &span.state {
            bytes(out, 3, state.as_bytes());
        }
        if let Some(parent) = &span.parent {
            bytes(out, 4, parent);
        }
        bytes(out, 5, format!("POST {route}").as_bytes());
        whole(out, 6, SERVER);
        fixed_64(out, 7, span.start);
        fixed_64(out, 8, span.end);
        let dropped = self.write_attributes(span, route, buffers);
        let out = &mut buffers.span;
        if dropped > 0 {
            whole(out, 10, dropped as u64);
        }
        bytes(out, 15, b""); // a status that is not set
        fixed_32(out, 16, if span.parent.is_some() { FLAGS_OF_CHILD } else { FLAGS_OF_ROOT });
    }

    /// Returns how many were dropped.
    fn write_attributes(&self, span: &Span, route: &str, buffers: &mut Buffers) -> usize {
        let provider = self.providers.get(span.provider).map(String::as_str);
        let target = span.target.as_deref();
        // In the order in which the slow path sets them. Whatever is answered here is a success, and every token is
        // from the cache.
        let attributes = [
            Some(("http.request.method", Value::Text("POST"))),
            Some(("http.route", Value::Text(route))),
            Some(("url.path", Value::Text(route))),
            Some(("url.scheme", Value::Text("http"))),
            provider.map(|name| ("entra_fast.identity_provider", Value::Text(name))),
            target.map(|target| ("entra_fast.target", Value::Text(target))),
            target.map(|_| ("entra_fast.cache_hit", Value::True)),
            Some(("http.response.status_code", Value::Whole(200))),
        ];
        let dropped = attributes.iter().flatten().count().saturating_sub(self.max_attributes);
        for (key, value) in attributes.into_iter().flatten().skip(dropped) {
            let Buffers { span, pair, value: any } = buffers;
            any.clear();
            match value {
                Value::Text(text) => bytes(any, 1, first(text, self.max_characters).as_bytes()),
                Value::True => whole(any, 2, 1),
                Value::Whole(number) => whole(any, 3, number),
            }
            pair.clear();
            bytes(pair, 1, key.as_bytes());
            bytes(pair, 2, any);
            bytes(span, 9, pair);
        }
        dropped
    }
}

/// The first characters of a text.
fn first(text: &str, characters: usize) -> &str {
    text.char_indices().nth(characters).map_or(text, |(at, _)| &text[..at])
}

// --- Protocol Buffers ---

fn tag(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    varint(out, u64::from(field * 8 + wire_type));
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// A whole number, a truth value or an element of an enumeration.
fn whole(out: &mut Vec<u8>, field: u32, value: u64) {
    tag(out, field, VARINT);
    varint(out, value);
}

fn fixed_32(out: &mut Vec<u8>, field: u32, value: u32) {
    tag(out, field, FIXED_32);
    out.extend_from_slice(&value.to_le_bytes());
}

fn fixed_64(out: &mut Vec<u8>, field: u32, value: u64) {
    tag(out, field, FIXED_64);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A text, bytes or a message.
fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    tag(out, field, LENGTH_DELIMITED);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sidecar::contract::Endpoint;

    /// What a field holds.
    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Field<'m> {
        Whole(u64),
        Fixed64(u64),
        Fixed32(u32),
        Bytes(&'m [u8]),
    }

    /// Reads a message: numbers of fields, and what they hold.
    fn fields(mut message: &[u8]) -> Vec<(u64, Field<'_>)> {
        fn number(message: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let (byte, rest) = message.split_first().unwrap();
                *message = rest;
                value |= u64::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            value
        }
        fn take<'m>(message: &mut &'m [u8], count: usize) -> &'m [u8] {
            let (taken, rest) = message.split_at(count);
            *message = rest;
            taken
        }
        let mut found = Vec::new();
        while !message.is_empty() {
            let tag = number(&mut message);
            let field = match tag & 7 {
                0 => Field::Whole(number(&mut message)),
                1 => Field::Fixed64(u64::from_le_bytes(take(&mut message, 8).try_into().unwrap())),
                2 => {
                    let length = number(&mut message);
                    Field::Bytes(take(&mut message, usize::try_from(length).unwrap()))
                }
                5 => Field::Fixed32(u32::from_le_bytes(take(&mut message, 4).try_into().unwrap())),
                other => panic!("wire type {other}"),
            };
            found.push((tag >> 3, field));
        }
        found
    }

    fn inner<'m>(fields: &[(u64, Field<'m>)], wanted: u64) -> Vec<&'m [u8]> {
        let of = |field: &Field<'m>| if let Field::Bytes(bytes) = field { *bytes } else { panic!("{field:?}") };
        fields.iter().filter(|(number, _)| *number == wanted).map(|(_, field)| of(field)).collect()
    }

    fn encoder(max_attributes: usize, max_characters: usize) -> Encoder {
        let (mut resource, mut scope) = (Vec::new(), Vec::new());
        bytes(&mut resource, 1, b"resource");
        bytes(&mut scope, 1, b"scope");
        let providers = vec!["entra_id".to_owned(), "tokenx".to_owned()];
        Encoder { resource, scope, providers, max_attributes, max_characters }
    }

    fn root() -> Span {
        Span {
            trace_id: [1; 16],
            span_id: [2; 8],
            parent: None,
            state: None,
            endpoint: Endpoint::Introspect,
            provider: 0,
            target: None,
            start: 1_795_248_000_000_000_001,
            end: u64::MAX,
        }
    }

    fn child() -> Span {
        Span {
            parent: Some([3; 8]),
            state: Some("a=1".into()),
            endpoint: Endpoint::Token,
            provider: 1,
            target: Some("c:n:\u{e9}a".into()),
            ..root()
        }
    }

    /// The spans of a message.
    fn spans(message: &[u8]) -> Vec<Vec<(u64, Field<'_>)>> {
        let request = fields(message);
        let [(1, Field::Bytes(in_resource))] = request[..] else { panic!("{request:?}") };
        let in_resource = fields(in_resource);
        assert_eq!(in_resource[0], (1, Field::Bytes(b"resource")));
        let [(2, Field::Bytes(in_scope))] = in_resource[1..] else { panic!("{in_resource:?}") };
        let in_scope = fields(in_scope);
        assert_eq!(in_scope[0], (1, Field::Bytes(b"scope")));
        let spans = inner(&in_scope, 2);
        assert_eq!(spans.len(), in_scope.len() - 1);
        spans.into_iter().map(fields).collect()
    }

    /// Keys and the bytes of their values.
    fn attributes<'m>(span: &[(u64, Field<'m>)]) -> Vec<(&'m str, Vec<(u64, Field<'m>)>)> {
        let of = |pair| {
            let pair = fields(pair);
            let [(1, Field::Bytes(key)), (2, Field::Bytes(value))] = pair[..] else { panic!("{pair:?}") };
            (str::from_utf8(key).unwrap(), fields(value))
        };
        inner(span, 9).into_iter().map(of).collect()
    }

    fn text(value: &str) -> Vec<(u64, Field<'_>)> {
        vec![(1, Field::Bytes(value.as_bytes()))]
    }

    #[test]
    fn a_message_has_every_field_of_a_span() {
        let message = encoder(128, usize::MAX).encode(&[root(), child()]);
        let spans = spans(&message);
        let [root, child] = &spans[..] else { panic!("{spans:?}") };
        let of_root: Vec<_> = root.iter().filter(|(number, _)| *number != 9).cloned().collect();
        let times = [(7, Field::Fixed64(1_795_248_000_000_000_001)), (8, Field::Fixed64(u64::MAX))];
        let ids = [(1, Field::Bytes(&[1; 16][..])), (2, Field::Bytes(&[2; 8]))];
        let expected = [
            &ids[..],
            &[(5, Field::Bytes(b"POST /api/v1/introspect")), (6, Field::Whole(2))],
            &times,
            &[(15, Field::Bytes(b"")), (16, Field::Fixed32(0x100))],
        ];
        assert_eq!(of_root, expected.concat());
        let of_child: Vec<_> = child.iter().filter(|(number, _)| *number != 9).cloned().collect();
        let expected = [
            &ids[..],
            &[(3, Field::Bytes(b"a=1")), (4, Field::Bytes(&[3; 8]))],
            &[(5, Field::Bytes(b"POST /api/v1/token")), (6, Field::Whole(2))],
            &times,
            &[(15, Field::Bytes(b"")), (16, Field::Fixed32(0x300))],
        ];
        assert_eq!(of_child, expected.concat());
        let request = |route| {
            let pairs = [("http.request.method", "POST"), ("http.route", route), ("url.path", route)];
            let mut all: Vec<_> = pairs.map(|(key, value)| (key, text(value))).into();
            all.push(("url.scheme", text("http")));
            all
        };
        let status = ("http.response.status_code", vec![(3, Field::Whole(200))]);
        let mut expected = request("/api/v1/introspect");
        expected.extend([("entra_fast.identity_provider", text("entra_id")), status.clone()]);
        assert_eq!(attributes(root), expected);
        let mut expected = request("/api/v1/token");
        expected.extend([
            ("entra_fast.identity_provider", text("tokenx")),
            ("entra_fast.target", text("c:n:\u{e9}a")),
            ("entra_fast.cache_hit", vec![(2, Field::Whole(1))]),
            status,
        ]);
        assert_eq!(attributes(child), expected);
    }

    #[test]
    fn attributes_have_limits() {
        let keys = |max_attributes| {
            let message = encoder(max_attributes, 5).encode(&[child()]);
            let spans = spans(&message);
            let dropped = spans[0].iter().find(|(number, _)| *number == 10);
            let dropped = dropped.map(|(_, field)| if let Field::Whole(count) = field { *count } else { panic!() });
            let attributes = attributes(&spans[0]);
            for (_, value) in &attributes {
                if let (1, Field::Bytes(text)) = value[0] {
                    assert!(str::from_utf8(text).unwrap().chars().count() <= 5);
                }
            }
            let target = attributes.iter().find(|(key, _)| *key == "entra_fast.target");
            assert!(target.is_none_or(|(_, value)| *value == text("c:n:\u{e9}")));
            (attributes.len(), attributes.first().map(|(key, _)| (*key).to_owned()), dropped)
        };
        assert_eq!(keys(9), (8, Some("http.request.method".to_owned()), None));
        assert_eq!(keys(8), (8, Some("http.request.method".to_owned()), None));
        assert_eq!(keys(7), (7, Some("http.route".to_owned()), Some(1)));
        assert_eq!(keys(0), (0, None, Some(8)));
    }

    #[test]
    fn an_export_without_spans_has_its_frame() {
        assert_eq!(spans(&encoder(1, 1).encode(&[])), Vec::<Vec<_>>::new());
    }

    #[test]
    fn numbers_take_as_many_bytes_as_they_need() {
        for (value, expected) in [
            (0, &[0][..]),
            (1, &[1]),
            (127, &[127]),
            (128, &[0x80, 1]),
            (300, &[0xac, 2]), // Protocol Buffers, "Encoding"
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            let mut out = Vec::new();
            varint(&mut out, value);
            assert_eq!(out, expected, "{value}");
        }
    }
}
