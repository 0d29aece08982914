//! Strict JSON (RFC 8259) into a flat tape over its own text.
//!
//! One parse feeds both what is checked and what is returned: a [`Document`] keeps the original text, and the
//! tape only points into it, so the two cannot differ. The parser rejects duplicate members at any depth (also
//! if one is spelled with escapes), lone surrogates, invalid UTF-8, a byte order mark, trailing bytes, and
//! nesting beyond [`MAX_DEPTH`]. Numbers stay text until their value is requested.

use std::borrow::Cow;
use std::collections::HashSet;

/// How deep arrays and objects may nest. Entra ID's tokens need 3.
pub const MAX_DEPTH: usize = 64;

/// How many characters a number may have, so that no number of 60,000 digits is ever converted.
pub const MAX_NUMBER_LENGTH: usize = 256;

/// Why a text is not acceptable JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonError {
    /// Not UTF-8 (RFC 8259, section 8.1).
    NotUtf8,
    /// Longer than a tape can address.
    TooLarge,
    /// Against the grammar, at this byte offset.
    Syntax(usize),
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// A number longer than [`MAX_NUMBER_LENGTH`].
    NumberTooLong,
    /// An escape of half a surrogate pair (RFC 8259, section 8.2).
    LoneSurrogate,
    /// An object with two members of one name (RFC 7519, section 4).
    DuplicateMember,
    /// More bytes after the value.
    TrailingBytes,
}

impl JsonError {
    /// What was wrong, in a sentence that repeats nothing of the text.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotUtf8 => "text that is not UTF-8",
            Self::TooLarge => "too large a text",
            Self::Syntax(_) => "text that is not JSON",
            Self::TooDeep => "too deep a nesting",
            Self::NumberTooLong => "too long a number",
            Self::LoneSurrogate => "a lone surrogate",
            Self::DuplicateMember => "a duplicate member",
            Self::TrailingBytes => "bytes after the value",
        }
    }
}

/// The kind of a JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// One entry of the tape: a value, or a member's name directly before its value.
#[derive(Debug, Clone, Copy)]
struct Node {
    /// Byte offsets: of the content without quotes for a string, of the whole text for everything else.
    start: u32,
    end: u32,
    /// For arrays and objects, the index after their last descendant; for names, their fingerprint.
    link: u32,
    kind: Kind,
    /// Does the string contain escapes?
    escaped: bool,
}

/// A parsed text.
#[derive(Debug, Clone)]
pub struct Document {
    text: String,
    nodes: Vec<Node>,
}

impl Document {
    /// Parse, taking the text over without copying it.
    ///
    /// # Errors
    /// [`JsonError`] if the text is not strict JSON.
    pub fn parse(text: impl Into<Vec<u8>>) -> Result<Self, JsonError> {
        Self::parse_with(text.into(), false)
    }

    /// Like [`Self::parse`], but the outermost object may have several members of one name: the caller decides which
    /// of them may be repeated.
    ///
    /// # Errors
    /// [`JsonError`] if the text is not strict JSON.
    pub fn parse_with_repeated_members(text: impl Into<Vec<u8>>) -> Result<Self, JsonError> {
        Self::parse_with(text.into(), true)
    }

    fn parse_with(text: Vec<u8>, may_repeat: bool) -> Result<Self, JsonError> {
        let text = String::from_utf8(text).map_err(|_| JsonError::NotUtf8)?;
        if u32::try_from(text.len()).is_err() {
            return Err(JsonError::TooLarge);
        }
        // Entra ID's claims have about one node for 25 bytes.
        let nodes = Vec::with_capacity(text.len() / 24 + 4);
        let mut parser = Parser { text: text.as_bytes(), source: &text, at: 0, nodes, may_repeat };
        parser.skip_space();
        parser.value(0)?;
        parser.skip_space();
        if parser.at != parser.text.len() {
            return Err(JsonError::TrailingBytes);
        }
        let nodes = parser.nodes;
        Ok(Self { text, nodes })
    }

    /// The text, exactly as it was given.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The outermost value.
    #[must_use]
    pub fn root(&self) -> Value<'_> {
        Value { document: self, index: 0 }
    }

    /// How many bytes the document occupies on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.text.capacity() + self.nodes.capacity() * size_of::<Node>()
    }
}

/// A value within a [`Document`].
#[derive(Debug, Clone, Copy)]
pub struct Value<'d> {
    document: &'d Document,
    index: usize,
}

impl<'d> Value<'d> {
    fn node(self) -> Node {
        self.document.nodes[self.index]
    }

    /// Index of the entry after this value on the tape.
    fn after(self) -> usize {
        let node = self.node();
        match node.kind {
            Kind::Array | Kind::Object => node.link as usize,
            _ => self.index + 1,
        }
    }

    /// What kind of value it is.
    #[must_use]
    pub fn kind(self) -> Kind {
        self.node().kind
    }

    /// The value's own text; for a string the content between its quotes, escapes as they were written.
    #[must_use]
    pub fn text(self) -> &'d str {
        let node = self.node();
        &self.document.text[node.start as usize..node.end as usize]
    }

    /// The string, or None if it is something else. Borrowed unless it was written with escapes.
    #[must_use]
    pub fn as_str(self) -> Option<Cow<'d, str>> {
        let node = self.node();
        match node.kind {
            Kind::String if node.escaped => Some(Cow::Owned(unescape(self.text()))),
            Kind::String => Some(Cow::Borrowed(self.text())),
            _ => None,
        }
    }

    /// Is it exactly this string?
    #[must_use]
    pub fn is_str(self, expected: &str) -> bool {
        self.as_str().is_some_and(|text| text == expected)
    }

    /// The number as a float, or None if it is something else or beyond the range of finite floats.
    #[must_use]
    pub fn as_f64(self) -> Option<f64> {
        if self.kind() != Kind::Number {
            return None;
        }
        let text = self.text();
        // Up to 15 digits a float is exact, and reading them by hand is the common, fast case.
        if text.len() <= 15 && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let integer = text.bytes().fold(0_u64, |sum, byte| sum * 10 + u64::from(byte - b'0'));
            #[allow(clippy::cast_precision_loss, reason = "below 10^15 every integer is a float")]
            return Some(integer as f64);
        }
        text.parse().ok().filter(|number: &f64| number.is_finite())
    }

    /// The elements of an array; nothing for other kinds.
    #[must_use]
    pub fn elements(self) -> Elements<'d> {
        let end = if self.kind() == Kind::Array { self.after() } else { self.index + 1 };
        Elements { document: self.document, at: self.index + 1, end }
    }

    /// The members of an object in the order they were written; nothing for other kinds.
    #[must_use]
    pub fn members(self) -> Members<'d> {
        let end = if self.kind() == Kind::Object { self.after() } else { self.index + 1 };
        Members { document: self.document, at: self.index + 1, end }
    }

    /// The member of that name, where this is an object that has it.
    #[must_use]
    pub fn get(self, name: &str) -> Option<Value<'d>> {
        if self.kind() != Kind::Object {
            return None;
        }
        let wanted = fingerprint(name.as_bytes());
        let end = self.after();
        let mut at = self.index + 1;
        while at < end {
            let node = self.document.nodes[at];
            let value = Value { document: self.document, index: at + 1 };
            if node.link == wanted && (Value { document: self.document, index: at }).is_str(name) {
                return Some(value);
            }
            at = value.after();
        }
        None
    }
}

/// Iterator over the elements of an array.
#[derive(Debug, Clone)]
pub struct Elements<'d> {
    document: &'d Document,
    at: usize,
    end: usize,
}

impl<'d> Iterator for Elements<'d> {
    type Item = Value<'d>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let value = Value { document: self.document, index: self.at };
        self.at = value.after();
        Some(value)
    }
}

/// Iterator over the members of an object: (name, value).
#[derive(Debug, Clone)]
pub struct Members<'d> {
    document: &'d Document,
    at: usize,
    end: usize,
}

impl<'d> Iterator for Members<'d> {
    /// The name as a string value, and the member's value.
    type Item = (Value<'d>, Value<'d>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let name = Value { document: self.document, index: self.at };
        let value = Value { document: self.document, index: self.at + 1 };
        self.at = value.after();
        Some((name, value))
    }
}

/// Write `text` as a JSON string, quotes included.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(crate::digest::hex(&[byte]).as_bytes());
            }
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// A cheap number that differs for nearly all different names; it is compared before the bytes.
#[inline]
fn fingerprint(name: &[u8]) -> u32 {
    let head = name.first_chunk::<4>().map_or_else(
        || name.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)),
        |chunk| u32::from_le_bytes(*chunk),
    );
    let tail = name.last_chunk::<4>().map_or(0, |chunk| u32::from_le_bytes(*chunk));
    let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
    head.wrapping_mul(0x9E37_79B1) ^ tail.rotate_left(13) ^ length
}

/// Decode the escapes of a string that the parser has accepted.
fn unescape(content: &str) -> String {
    let mut out = String::with_capacity(content.len());
    let mut rest = content;
    while let Some(position) = rest.find('\\') {
        out.push_str(&rest[..position]);
        let escape = rest.as_bytes()[position + 1];
        rest = &rest[position + 2..];
        out.push(match escape {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let (character, length) = unicode_escape(rest.as_bytes()).unwrap_or(('\u{fffd}', 4));
                rest = &rest[length..];
                character
            }
            other => char::from(other),
        });
    }
    out.push_str(rest);
    out
}

/// The character that `XXXX` or `XXXX\uXXXX` (behind `\u`) stands for, and how many bytes it takes.
fn unicode_escape(text: &[u8]) -> Option<(char, usize)> {
    let first = hex4(text)?;
    if let Some(character) = char::from_u32(first) {
        return Some((character, 4));
    }
    // RFC 8259, section 7: beyond the basic plane, a pair of surrogates, the high one first.
    if !(0xD800..0xDC00).contains(&first) || text.get(4..6)? != b"\\u" {
        return None;
    }
    let second = hex4(text.get(6..)?)?;
    if !(0xDC00..0xE000).contains(&second) {
        return None;
    }
    let combined = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
    Some((char::from_u32(combined)?, 10))
}

fn hex4(text: &[u8]) -> Option<u32> {
    text.get(..4)?.iter().try_fold(0, |sum, byte| Some(sum << 4 | char::from(*byte).to_digit(16)?))
}

/// The number of names beyond which duplicates are looked up in a hash set. Entra ID's tokens stay below it;
/// above it, comparing each name with each other would let an attacker choose how long parsing takes.
const FEW_NAMES: usize = 32;

/// The names of one object while it is parsed.
struct Names {
    count: usize,
    /// Fingerprints of the first names, and where on the tape they are.
    prints: [u32; FEW_NAMES],
    nodes: [u32; FEW_NAMES],
    many: HashSet<String>,
}

struct Parser<'t> {
    text: &'t [u8],
    /// The same text, for cutting strings out of it.
    source: &'t str,
    at: usize,
    nodes: Vec<Node>,
    /// Whether the outermost object may have several members of one name.
    may_repeat: bool,
}

impl Parser<'_> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[inline]
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn syntax<T>(&self) -> Result<T, JsonError> {
        Err(JsonError::Syntax(self.at))
    }

    #[allow(clippy::cast_possible_truncation, reason = "Document::parse bounds the text to u32")]
    fn push(&mut self, kind: Kind, start: usize, end: usize, link: u32, escaped: bool) {
        self.nodes.push(Node { start: start as u32, end: end as u32, link, kind, escaped });
    }

    /// Expects white space before the value to be skipped; leaves it behind the value.
    fn value(&mut self, depth: usize) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'"') => {
                let (start, end, escaped) = self.string()?;
                self.push(Kind::String, start, end, 0, escaped);
                Ok(())
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b't') => self.literal(b"true", Kind::Bool(true)),
            Some(b'f') => self.literal(b"false", Kind::Bool(false)),
            Some(b'n') => self.literal(b"null", Kind::Null),
            _ => self.syntax(),
        }
    }

    fn literal(&mut self, literal: &[u8], kind: Kind) -> Result<(), JsonError> {
        if !self.text[self.at..].starts_with(literal) {
            return self.syntax();
        }
        let start = self.at;
        self.at += literal.len();
        self.push(kind, start, self.at, 0, false);
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { self.syntax() } else { Ok(()) }
    }

    fn number(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1; // no digit may follow a leading zero
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        if self.at - start > MAX_NUMBER_LENGTH {
            return Err(JsonError::NumberTooLong);
        }
        self.push(Kind::Number, start, self.at, 0, false);
        Ok(())
    }

    /// Reads a string with its quotes; returns the borders of its content and whether it holds escapes.
    #[inline]
    fn string(&mut self) -> Result<(usize, usize, bool), JsonError> {
        if self.peek() != Some(b'"') {
            return self.syntax();
        }
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += plain_length(&self.text[self.at..]);
            match self.peek() {
                Some(b'"') => {
                    let end = self.at;
                    self.at += 1;
                    return Ok((start, end, escaped));
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return self.syntax(), // a control character, or the end of the text
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => {
                let digits = &self.text[self.at + 2..];
                if hex4(digits).is_none() {
                    return self.syntax();
                }
                let (_, length) = unicode_escape(digits).ok_or(JsonError::LoneSurrogate)?;
                self.at += 2 + length;
                Ok(())
            }
            _ => self.syntax(),
        }
    }

    /// Opens an array or object: a node whose end is filled in by `close`.
    fn open(&mut self, kind: Kind, depth: usize) -> Result<usize, JsonError> {
        if depth >= MAX_DEPTH {
            return Err(JsonError::TooDeep);
        }
        let index = self.nodes.len();
        self.push(kind, self.at, self.at, 0, false);
        self.at += 1;
        self.skip_space();
        Ok(index)
    }

    #[allow(clippy::cast_possible_truncation, reason = "Document::parse bounds the text to u32")]
    fn close(&mut self, index: usize) {
        self.at += 1;
        self.nodes[index].end = self.at as u32;
        self.nodes[index].link = self.nodes.len() as u32;
    }

    fn array(&mut self, depth: usize) -> Result<(), JsonError> {
        let index = self.open(Kind::Array, depth)?;
        if self.peek() != Some(b']') {
            loop {
                self.value(depth + 1)?;
                self.skip_space();
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(b']') => break,
                    _ => return self.syntax(),
                }
                self.skip_space();
            }
        }
        self.close(index);
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Result<(), JsonError> {
        let index = self.open(Kind::Object, depth)?;
        if self.peek() != Some(b'}') {
            let mut names = Names { count: 0, prints: [0; FEW_NAMES], nodes: [0; FEW_NAMES], many: HashSet::new() };
            loop {
                self.name(&mut names, self.may_repeat && depth == 0)?;
                self.skip_space();
                if self.peek() != Some(b':') {
                    return self.syntax();
                }
                self.at += 1;
                self.skip_space();
                self.value(depth + 1)?;
                self.skip_space();
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(b'}') => break,
                    _ => return self.syntax(),
                }
                self.skip_space();
            }
        }
        self.close(index);
        Ok(())
    }

    /// Reads a member's name and refuses it where the object has it already, unless it may repeat.
    #[allow(clippy::cast_possible_truncation, reason = "Document::parse bounds the text to u32")]
    fn name(&mut self, names: &mut Names, may_repeat: bool) -> Result<(), JsonError> {
        let (start, end, escaped) = self.string()?;
        let decoded = self.decoded(start, end, escaped);
        let print = fingerprint(decoded.as_bytes());
        let node = self.nodes.len() as u32;
        if may_repeat {
            // The caller looks.
        } else if names.count < FEW_NAMES {
            let known = names.prints[..names.count].iter().zip(&names.nodes);
            if known.into_iter().any(|(other, node)| *other == print && self.name_at(*node) == decoded) {
                return Err(JsonError::DuplicateMember);
            }
            names.prints[names.count] = print;
            names.nodes[names.count] = node;
        } else {
            if names.count == FEW_NAMES {
                names.many = names.nodes.iter().map(|node| self.name_at(*node).into_owned()).collect();
            }
            if !names.many.insert(decoded.into_owned()) {
                return Err(JsonError::DuplicateMember);
            }
        }
        names.count += 1;
        self.push(Kind::String, start, end, print, escaped);
        Ok(())
    }

    fn name_at(&self, node: u32) -> Cow<'_, str> {
        let node = self.nodes[node as usize];
        self.decoded(node.start as usize, node.end as usize, node.escaped)
    }

    fn decoded(&self, start: usize, end: usize, escaped: bool) -> Cow<'_, str> {
        let content = &self.source[start..end];
        if escaped { Cow::Owned(unescape(content)) } else { Cow::Borrowed(content) }
    }
}

/// How many bytes from the start are neither a quote, a backslash nor a control character. Eight at a time:
/// the borrow of the classic zero-byte test only disturbs bytes above the first hit, and only that one counts.
#[inline]
fn plain_length(text: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut length = 0;
    let (chunks, tail) = text.as_chunks::<8>();
    for chunk in chunks {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ (ONES * u64::from(b'"'));
        let backslash = word ^ (ONES * u64::from(b'\\'));
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let hit = (quote.wrapping_sub(ONES) & !quote | backslash.wrapping_sub(ONES) & !backslash | control) & HIGH;
        if hit != 0 {
            return length + hit.trailing_zeros() as usize / 8;
        }
        length += 8;
    }
    length + tail.iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(text: &str) -> JsonError {
        Document::parse(text).expect_err(text)
    }

    #[test]
    fn keeps_the_text_and_finds_members() {
        let text = r#" {"a":1, "b" : [true,null,{"c":"d\u00e9\n"}] , "e":-0.5e3} "#;
        let document = Document::parse(text).unwrap();
        assert_eq!(document.text(), text);
        let root = document.root();
        assert_eq!(root.get("a").unwrap().as_f64(), Some(1.0));
        assert_eq!(root.get("e").unwrap().as_f64(), Some(-500.0));
        let elements: Vec<_> = root.get("b").unwrap().elements().collect();
        assert_eq!(elements.iter().map(|e| e.kind()).collect::<Vec<_>>(), [Kind::Bool(true), Kind::Null, Kind::Object]);
        assert_eq!(elements[2].get("c").unwrap().as_str().unwrap(), "dé\n");
        assert_eq!(root.members().map(|(name, _)| name.text()).collect::<Vec<_>>(), ["a", "b", "e"]);
        assert!(root.get("c").is_none() && root.get("A").is_none());
    }

    #[test]
    fn duplicate_members_are_refused_at_any_depth_and_in_any_spelling() {
        assert_eq!(error(r#"{"a":1,"a":1}"#), JsonError::DuplicateMember);
        assert_eq!(error(r#"{"exp":1,"\u0065xp":2}"#), JsonError::DuplicateMember);
        assert_eq!(error(r#"{"\u0065xp":1,"exp":2}"#), JsonError::DuplicateMember);
        assert_eq!(error(r#"[{"x":{"b":1,"c":2,"b":3}}]"#), JsonError::DuplicateMember);
        assert!(Document::parse(r#"{"a":{"a":1},"A":1}"#).is_ok(), "other objects and other cases are other names");
        let many: Vec<String> = (0..500).map(|n| format!(r#""n{n}":{n}"#)).collect();
        assert!(Document::parse(format!("{{{}}}", many.join(","))).is_ok());
        assert_eq!(error(&format!(r#"{{{},"n3":0}}"#, many.join(","))), JsonError::DuplicateMember);
        assert_eq!(error(&format!(r#"{{{},"n499":0}}"#, many.join(","))), JsonError::DuplicateMember);
    }

    #[test]
    fn bounds_hold() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Document::parse(nested(MAX_DEPTH)).is_ok());
        assert_eq!(error(&nested(MAX_DEPTH + 1)), JsonError::TooDeep);
        assert_eq!(error(&"[".repeat(100_000)), JsonError::TooDeep);
        assert_eq!(error(&r#"{"a":"#.repeat(100_000)), JsonError::TooDeep);
        assert!(Document::parse("1".repeat(MAX_NUMBER_LENGTH)).is_ok());
        assert_eq!(error(&"1".repeat(MAX_NUMBER_LENGTH + 1)), JsonError::NumberTooLong);
    }

    #[test]
    fn encodings_are_strict() {
        assert_eq!(Document::parse(b"\"\xff\"".to_vec()).unwrap_err(), JsonError::NotUtf8);
        assert_eq!(Document::parse(b"\"\xed\xa0\x80\"".to_vec()).unwrap_err(), JsonError::NotUtf8);
        assert!(matches!(error("\u{feff}{}"), JsonError::Syntax(0)));
        for lone in [r#""\ud800""#, r#""\udc00""#, r#""\ud800\ud800""#, r#""\ud800x""#, r#""\ud800\n""#] {
            assert_eq!(error(lone), JsonError::LoneSurrogate, "{lone}");
        }
        let pair = Document::parse(r#""\ud83d\ude00""#).unwrap();
        assert_eq!(pair.root().as_str().unwrap(), "\u{1f600}");
        for text in
            ["NaN", "Infinity", "-", "01", "1.", ".5", "+1", "1e", "'a'", "{a:1}", "[1,]", "{\"a\":1,}", "", " "]
        {
            assert!(matches!(error(text), JsonError::Syntax(_) | JsonError::TrailingBytes), "{text:?}");
        }
        assert_eq!(error("{}x"), JsonError::TrailingBytes);
        assert_eq!(error("{}\0"), JsonError::TrailingBytes);
    }

    #[test]
    fn a_written_string_reads_back() {
        let mut out = Vec::new();
        write_string(&mut out, "a\"b\\c\u{1}\n\té");
        assert_eq!(String::from_utf8(out.clone()).unwrap(), r#""a\"b\\c\u0001\n\té""#);
        assert_eq!(Document::parse(out).unwrap().root().as_str().unwrap(), "a\"b\\c\u{1}\n\té");
    }

    fn agrees(ours: Value<'_>, theirs: &serde_json::Value) -> bool {
        match (ours.kind(), theirs) {
            (Kind::Null, serde_json::Value::Null) => true,
            (Kind::Bool(a), serde_json::Value::Bool(b)) => a == *b,
            (Kind::Number, serde_json::Value::Number(b)) => ours.as_f64() == b.as_f64(),
            (Kind::String, serde_json::Value::String(b)) => ours.as_str().unwrap() == b.as_str(),
            (Kind::Array, serde_json::Value::Array(b)) => {
                ours.elements().count() == b.len() && ours.elements().zip(b).all(|(a, b)| agrees(a, b))
            }
            (Kind::Object, serde_json::Value::Object(b)) => {
                ours.members().count() == b.len() && b.iter().all(|(name, b)| agrees(ours.get(name).unwrap(), b))
            }
            _ => false,
        }
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(5, 60, 12, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..12).prop_map(serde_json::Value::Array),
                proptest::collection::btree_map(any::<String>(), inner, 0..50)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Whatever a well-known implementation writes is read as the same value.
        #[test]
        fn reads_what_serde_json_writes(value in any_json()) {
            let text = serde_json::to_string(&value).unwrap();
            let document = Document::parse(text).unwrap();
            prop_assert!(agrees(document.root(), &value));
        }

        /// Nothing is accepted that a well-known implementation rejects; junk never panics.
        #[test]
        fn stricter_than_serde_json(text in r#"[\[\]{}:,"\\ua0-9.eE+ \-ntrf]{0,40}"#) {
            if Document::parse(text.clone()).is_ok() {
                // serde_json refuses numbers beyond f64, which stay text here.
                let theirs = serde_json::from_str::<serde_json::Value>(&text);
                let out_of_range = theirs.as_ref().is_err_and(|e| e.to_string().contains("out of range"));
                prop_assert!(theirs.is_ok() || out_of_range, "{}", text);
            }
        }
    }
}
