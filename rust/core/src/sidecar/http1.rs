//! Recognise one plain HTTP/1.1 request at the start of some bytes (RFC 9112). Without I/O.
//!
//! This is not an HTTP parser and must never become one. It recognises the plainest form of a request, whose end is
//! unambiguous. Everything else is "unknown" and goes to the server's full parser with none of its bytes consumed.
//! Request smuggling exploits differences between two parsers, so what is accepted here is a small subset of what every
//! parser reads in the same way: one spelling of line ends, no folding, no control characters, at most one length, no
//! transfer coding.

use memchr::memchr;

use super::contract::{ContentType, Endpoint, MAX_BODY_BYTES};
use super::trace_context::TraceHeaders;

/// Maximum length of all header lines together, with their ends. The server has the same limit, but does not count white
/// space around a value: what is accepted here is accepted there.
pub const MAX_FIELDS_BYTES: usize = 32 * 1024;

/// Maximum length of a head. The server allows 8190 bytes for the request line.
pub const MAX_HEAD_BYTES: usize = 8190 + MAX_FIELDS_BYTES;

/// Maximum number of header lines.
pub const MAX_HEADERS: usize = 64;

/// A request that the fast path may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'b> {
    /// The endpoint it is for.
    pub endpoint: Endpoint,
    /// How its body is written.
    pub content_type: ContentType,
    /// The value of its Host header.
    pub host: &'b str,
    /// The trace that it belongs to, as it was sent.
    pub trace: TraceHeaders<'b>,
    /// Its body, whole.
    pub body: &'b [u8],
}

/// What some bytes begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recognised<'b> {
    /// A whole plain request, and how many bytes it has.
    Request(Request<'b>, usize),
    /// The beginning of a plain request; `needed` bytes in total, if that is already known, else 0.
    Partial {
        /// How many bytes the whole request has.
        needed: usize,
    },
    /// A request that is not for the fast path, but is framed so plainly that its end is unambiguous:
    /// after this many bytes, which need not all have arrived yet.
    Framed(usize),
    /// Anything else: only the full parser can say where it ends.
    Unknown,
}

/// Look at the start of `bytes`.
#[must_use]
pub fn recognise(bytes: &[u8]) -> Recognised<'_> {
    let mut head = Head::default();
    let mut at = 0;
    let mut fields_at = 0;
    let mut lines = 0;
    loop {
        let rest = &bytes[at..];
        let Some(length) = memchr(b'\n', rest) else {
            // Every byte so far must be possible in a plain head; one CR may be waiting for its LF.
            let line = rest.strip_suffix(b"\r").unwrap_or(rest);
            let plausible = bytes.len() <= MAX_HEAD_BYTES && is_plain(line) && starts_like_a_method(bytes);
            return if plausible { Recognised::Partial { needed: 0 } } else { Recognised::Unknown };
        };
        at += length + 1;
        let Some(line) = rest[..length].strip_suffix(b"\r") else { return Recognised::Unknown };
        // The request line counts as well.
        if at > MAX_HEAD_BYTES || lines > 1 + MAX_HEADERS || !is_plain(line) {
            return Recognised::Unknown;
        }
        if line.is_empty() {
            break;
        }
        let understood = if lines == 0 {
            fields_at = at;
            head.request_line(line)
        } else {
            head.header(line).filter(|()| at - fields_at <= MAX_FIELDS_BYTES)
        };
        if understood.is_none() {
            return Recognised::Unknown;
        }
        lines += 1;
    }
    if lines == 0 {
        return Recognised::Unknown; // an empty line before a request
    }
    head.conclude(bytes, at)
}

/// What the lines of a head have said so far.
#[derive(Default)]
struct Head<'b> {
    /// None if the request is not for the fast path.
    endpoint: Option<Endpoint>,
    host: Option<&'b str>,
    content_length: Option<usize>,
    content_type: Option<ContentType>,
    /// Whether something in it is for the slow path.
    declined: bool,
    trace: TraceHeaders<'b>,
    /// Which of the headers that may stand once were seen, a bit each.
    seen: u8,
}

impl<'b> Head<'b> {
    /// None if it is not plain.
    fn request_line(&mut self, line: &'b [u8]) -> Option<()> {
        let (method, rest) = split(line, b' ')?;
        let (target, version) = split(rest, b' ')?;
        let known: [&[u8]; 7] = [b"POST", b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"];
        let plain = known.contains(&method)
            && version == b"HTTP/1.1"
            && target.first() == Some(&b'/')
            && target.iter().all(u8::is_ascii_graphic);
        self.endpoint = Endpoint::of_path(target).filter(|_| method == b"POST");
        plain.then_some(())
    }

    /// None if it is not plain, or if the framing is not by length alone.
    fn header(&mut self, line: &'b [u8]) -> Option<()> {
        let (name, value) = split(line, b':')?;
        if name.is_empty() || !name.iter().all(|byte| is_token_character(*byte)) {
            return None; // also a space before the colon (RFC 9112, section 5.1) and folded lines (5.2)
        }
        let value = value.trim_ascii();
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        match name.len() {
            4 if is(b"etag") => self.once(1)?,
            4 if is(b"host") => {
                if self.host.is_some() {
                    return None;
                }
                self.host = Some(str::from_utf8(value).ok()?);
            }
            6 if is(b"expect") => return None, // the client waits for an interim answer
            6 if is(b"origin") => self.declined = true,
            6 if is(b"server") => self.once(2)?,
            // Java's HTTP client offers this with every request; it may be ignored (RFC 9110, section 7.8).
            7 if is(b"upgrade") => value.eq_ignore_ascii_case(b"h2c").then_some(())?,
            7 if is(b"trailer") => return None,
            9 if is(b"forwarded") => self.declined = true,
            10 if is(b"connection") => {
                // Only values that change nothing; `close` and all others are for the slow path.
                let is = |other: &[u8]| value.eq_ignore_ascii_case(other);
                self.declined |= is(b"close");
                if !(is(b"close") || is(b"keep-alive") || is(b"upgrade, http2-settings")) {
                    return None;
                }
            }
            10 if is(b"user-agent") => self.once(4)?,
            10 if is(b"tracestate") => self.trace.add_tracestate(value),
            11 if is(b"traceparent") => self.trace.add_traceparent(value),
            12 if is(b"content-type") => {
                self.once(8)?;
                self.content_type = ContentType::of_header(value);
            }
            12 if is(b"max-forwards") => self.once(16)?,
            13 if is(b"content-range") => self.once(32)?,
            14 if is(b"content-length") => {
                if self.content_length.is_some() {
                    return None; // even if equal (RFC 9110, section 8.6)
                }
                self.content_length = Some(length(value)?);
            }
            14 if is(b"sec-fetch-site") => self.declined = true,
            15 if is(b"x-forwarded-for") => self.declined = true,
            16 if is(b"content-encoding") => self.declined = true,
            16 if is(b"content-location") => self.once(64)?,
            16 if is(b"proxy-connection") => return None,
            17 if is(b"transfer-encoding") => return None,
            18 if is(b"sec-websocket-key1") => return None, // aiohttp refuses it
            _ => {}
        }
        Some(())
    }

    /// None for the second of a header that may stand once: aiohttp refuses such a request.
    fn once(&mut self, bit: u8) -> Option<()> {
        let first = self.seen & bit == 0;
        self.seen |= bit;
        first.then_some(())
    }

    fn conclude(self, bytes: &'b [u8], head_length: usize) -> Recognised<'b> {
        let body_length = self.content_length.unwrap_or(0);
        let whole = head_length + body_length;
        match (self.endpoint, self.host, self.content_type) {
            (Some(endpoint), Some(host), Some(content_type))
                if !self.declined && (1..=MAX_BODY_BYTES).contains(&body_length) =>
            {
                match bytes.get(head_length..whole) {
                    Some(body) => {
                        let trace = self.trace;
                        Recognised::Request(Request { endpoint, content_type, host, trace, body }, whole)
                    }
                    None => Recognised::Partial { needed: whole },
                }
            }
            _ => Recognised::Framed(whole),
        }
    }
}

/// No control characters, no bytes beyond ASCII. Without leaving early: that way many are looked at in one step.
fn is_plain(line: &[u8]) -> bool {
    line.iter().fold(true, |plain, byte| plain & (0x20..0x7f).contains(byte))
}

/// Do not wait for the rest of garbage, of a TLS greeting or of an HTTP/2 preface. (`PRI` is not one of our methods.)
fn starts_like_a_method(bytes: &[u8]) -> bool {
    let word = &bytes[..memchr(b' ', bytes).unwrap_or(bytes.len())];
    word.len() <= 7 && word.iter().all(u8::is_ascii_uppercase)
}

fn split(line: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = memchr(at, line)?;
    Some((&line[..position], &line[position + 1..]))
}

/// RFC 9110, section 5.6.2. `matches!` becomes a table of bits, `contains` a loop.
const fn is_token_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

/// Digits and nothing else: no sign, no white space, no list, no leading zero.
fn length(value: &[u8]) -> Option<usize> {
    let plain = (1..=9).contains(&value.len())
        && value.iter().all(u8::is_ascii_digit)
        && (value.len() == 1 || value[0] != b'0');
    plain.then(|| value.iter().fold(0, |sum, byte| sum * 10 + usize::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLAIN: &str = "POST /api/v1/introspect HTTP/1.1\r\nHost: 127.0.0.1:7164\r\nUser-Agent: x/1\r\n\
        Accept: */*\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 5\r\n\r\n{\"a\"}";

    fn with(header: &str) -> String {
        PLAIN.replace("Accept: */*", header)
    }

    #[test]
    fn a_plain_request_is_recognised_and_leaves_the_next_one_alone() {
        let two = format!("{PLAIN}GET / HTTP/1.1\r\n");
        let Recognised::Request(request, length) = recognise(two.as_bytes()) else { panic!("not recognised") };
        assert_eq!(length, PLAIN.len());
        assert_eq!((request.endpoint, request.content_type), (Endpoint::Introspect, ContentType::Json));
        assert_eq!((request.host, request.body), ("127.0.0.1:7164", &b"{\"a\"}"[..]));
    }

    #[test]
    fn every_beginning_of_a_plain_request_is_partial() {
        for length in 0..PLAIN.len() {
            let partial = recognise(&PLAIN.as_bytes()[..length]);
            assert!(matches!(partial, Recognised::Partial { .. }), "{length}: {partial:?}");
        }
        let head = PLAIN.len() - 5;
        assert_eq!(recognise(&PLAIN.as_bytes()[..head]), Recognised::Partial { needed: PLAIN.len() });
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_unknown() {
        for header in [
            "Transfer-Encoding: chunked",
            "transfer-encoding: identity",
            "Content-Length: 5",
            "Content-Length: 6",
            "Expect: 100-continue",
            "Upgrade: websocket",
            "Upgrade: h2c, websocket",
            "Upgrade: h2c\r\nUpgrade: websocket",
            "Connection: keep-alive, Upgrade",
            "Connection: Upgrade",
            "Connection: Upgrade, HTTP2-Settings, close",
            "Connection: Content-Length",
            "Trailer: X",
            "Proxy-Connection: keep-alive",
            "Host: evil",
            "Content-Type: application/json",
            "User-Agent: y",
            "ETag: a\r\nEtag: a",
            "Server: a\r\nServer: a",
            "Max-Forwards: 1\r\nMax-Forwards: 1",
            "Content-Range: a\r\nContent-Range: a",
            "Content-Location: /\r\nContent-Location: /",
            "Sec-WebSocket-Key1: x",
            " folded: line",
            "\tfolded",
            "Name : value",
            ": nothing",
            "no colon",
            "N\u{e9}: x",
            "X: \u{e9}",
            "X: a\0b",
            "X: a\tb",
            "X: a\rb",
            "X: a\nY: b",
        ] {
            assert_eq!(recognise(with(header).as_bytes()), Recognised::Unknown, "{header:?}");
        }
        for length in ["+5", "-5", "5 5", "5,5", "0x5", "05", "", "5a", "1234567890", "\u{665}"] {
            let text = PLAIN.replace("Content-Length: 5", &format!("Content-Length: {length}"));
            assert_eq!(recognise(text.as_bytes()), Recognised::Unknown, "{length:?}");
        }
        for line in [
            "POST  /api/v1/introspect HTTP/1.1",
            "POST /api/v1/introspect HTTP/1.0",
            "POST /api/v1/introspect HTTP/2.0",
            "POST /api/v1/introspect",
            "POST /api/v1/introspect HTTP/1.1 x",
            "post /api/v1/introspect HTTP/1.1",
            "POST http://127.0.0.1/api/v1/introspect HTTP/1.1",
            "POST * HTTP/1.1",
            "CONNECT /api/v1/introspect HTTP/1.1",
            "PRI * HTTP/2.0",
        ] {
            let text = PLAIN.replace("POST /api/v1/introspect HTTP/1.1", line);
            assert_eq!(recognise(text.as_bytes()), Recognised::Unknown, "{line:?}");
        }
        assert_eq!(recognise(format!("\r\n{PLAIN}").as_bytes()), Recognised::Unknown);
        assert_eq!(recognise(PLAIN.replace("\r\n", "\n").as_bytes()), Recognised::Unknown);
        assert_eq!(recognise(b"\x16\x03\x01\x02\x00"), Recognised::Unknown);
        assert_eq!(recognise(b"GARBAGE\r\n"), Recognised::Unknown);
        assert_eq!(recognise(&[b'A'; 8]), Recognised::Unknown);
        assert_eq!(recognise(format!("POST /{}", "a".repeat(MAX_HEAD_BYTES)).as_bytes()), Recognised::Unknown);
        let many = "X: y\r\n".repeat(MAX_HEADERS);
        assert_eq!(recognise(with(&format!("{many}X: y")).as_bytes()), Recognised::Unknown);
    }

    #[test]
    fn header_lines_may_have_32_kib_together() {
        assert_eq!(MAX_FIELDS_BYTES, 32_768);
        let fields = PLAIN.find("\r\n\r\n").unwrap() - PLAIN.find("Host").unwrap() + 2;
        let spare = MAX_FIELDS_BYTES - fields - "Cookie: \r\n".len();
        let request = |length: usize| with(&format!("Accept: */*\r\nCookie: {}", "c".repeat(length)));
        assert!(matches!(recognise(request(spare).as_bytes()), Recognised::Request(..)));
        assert_eq!(recognise(request(spare + 1).as_bytes()), Recognised::Unknown);
        let (one, two) = (spare / 2, spare - spare / 2 - "Baggage: \r\n".len());
        let split = |two: usize| with(&format!("A: {}\r\nB: {}", "c".repeat(one), "d".repeat(two)));
        assert!(matches!(recognise(split(two).as_bytes()), Recognised::Request(..)));
        assert_eq!(recognise(split(two + 64).as_bytes()), Recognised::Unknown);
        let beginning = &request(spare)[..MAX_FIELDS_BYTES];
        assert_eq!(recognise(beginning.as_bytes()), Recognised::Partial { needed: 0 });
    }

    #[test]
    fn what_the_slow_path_must_answer_is_framed_exactly() {
        for header in [
            "Origin: https://evil.example",
            "Sec-Fetch-Site: cross-site",
            "X-Forwarded-For: 10.0.0.1",
            "Forwarded: for=10.0.0.1",
            "Content-Encoding: gzip",
            "Connection: close",
            "Connection: close\r\nConnection: keep-alive",
        ] {
            let text = with(header);
            assert_eq!(recognise(text.as_bytes()), Recognised::Framed(text.len()), "{header:?}");
        }
        for (from, to) in [
            ("Content-Type: application/json", "Content-Type: text/plain"),
            ("/api/v1/introspect", "/api/v1/introspect?x=1"),
            ("/api/v1/introspect", "/metrics"),
            ("POST", "PUT"),
            ("application/json", "text/plain"),
            ("Host: 127.0.0.1:7164\r\n", ""),
        ] {
            let text = PLAIN.replacen(from, to, 1);
            assert_eq!(recognise(text.as_bytes()), Recognised::Framed(text.len()), "{to:?}");
        }
        let get = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
        assert_eq!(recognise(get.as_bytes()), Recognised::Framed(get.len()));
        let large = PLAIN.replace("Content-Length: 5", "Content-Length: 131073");
        assert_eq!(recognise(large.as_bytes()), Recognised::Framed(large.len() - 5 + 131_073));
        let largest = PLAIN.replace("Content-Length: 5", "Content-Length: 131072");
        assert_eq!(recognise(largest.as_bytes()), Recognised::Partial { needed: largest.len() - 5 + 131_072 });
        let empty = PLAIN.replace("Content-Length: 5", "Content-Length: 0");
        assert_eq!(recognise(empty.as_bytes()), Recognised::Framed(empty.len() - 5));
    }

    #[test]
    fn headers_that_mean_nothing_here_are_ignored_however_long_their_names_are() {
        for length in 1..40 {
            let name = "x".repeat(length);
            let text = with(&format!("{name}: 1\r\n{name}: 2"));
            assert!(matches!(recognise(text.as_bytes()), Recognised::Request(..)), "{length}");
        }
    }

    #[test]
    fn a_request_has_at_most_64_header_lines() {
        // Four besides these.
        let request = |others: usize| with(&format!("Accept: */*{}", "\r\nX: y".repeat(others - 1)));
        assert!(matches!(recognise(request(60).as_bytes()), Recognised::Request(..)));
        assert_eq!(recognise(request(61).as_bytes()), Recognised::Unknown);
    }

    #[test]
    fn a_head_has_at_most_40_kib() {
        let longest = 8190 + 32 * 1024;
        let begun = |length: usize| format!("POST /{}", "a".repeat(length - 6));
        assert_eq!(recognise(begun(longest).as_bytes()), Recognised::Partial { needed: 0 });
        assert_eq!(recognise(begun(longest + 1).as_bytes()), Recognised::Unknown);
        let whole = |length: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(length - 18));
        assert_eq!(recognise(whole(longest).as_bytes()), Recognised::Framed(longest));
        assert_eq!(recognise(whole(longest + 1).as_bytes()), Recognised::Unknown);
    }

    #[test]
    fn the_beginning_of_anything_else_is_not_waited_for() {
        for begun in [
            &b"post"[..],
            b"P0ST",
            b"POST /\0",
            b"POST /\xc3",
            b"POST / HTTP/1.1\r\nX: \t",
            b"POST /\r\r",
            b"DELETIONS ",
        ] {
            assert_eq!(recognise(begun), Recognised::Unknown, "{begun:?}");
        }
        for begun in [&b""[..], b"P", b"DELETED", b"POST /\r"] {
            assert_eq!(recognise(begun), Recognised::Partial { needed: 0 }, "{begun:?}");
        }
    }

    #[test]
    fn an_offer_of_http_2_is_ignored() {
        let offer = "Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nUpgrade: h2c";
        let text = with(offer);
        assert!(matches!(recognise(text.as_bytes()), Recognised::Request(_, length) if length == text.len()));
        let text = with(&format!("{offer}\r\nConnection: close"));
        assert_eq!(recognise(text.as_bytes()), Recognised::Framed(text.len()));
    }

    #[test]
    fn the_headers_of_a_trace_are_kept_as_they_were_sent() {
        let trace = |headers: &str| {
            let text = with(headers).leak();
            let Recognised::Request(request, _) = recognise(text.as_bytes()) else { panic!("{headers}") };
            request.trace
        };
        let none = TraceHeaders::default();
        assert_eq!(trace("Accept: */*"), none);
        for name in ["x-trace-id1", "tracestat1", "traceparents", "tracestates", "X-B3-Sampled"] {
            assert_eq!(trace(&format!("{name}: 1")), none, "{name}");
        }
        let (parent, state) = (Some(&b"p"[..]), Some(&b"s"[..]));
        assert_eq!(trace("TraceParent:  p "), TraceHeaders { traceparent: parent, ..none });
        assert_eq!(trace("TraceState: s"), TraceHeaders { tracestate: state, ..none });
        let both = TraceHeaders { traceparent: parent, tracestate: state, repeated: false };
        assert_eq!(trace("tracestate: s\r\ntraceparent: p"), both);
        let twice = trace("tracestate: s\r\ntraceparent: p\r\ntracestate: t");
        assert_eq!(twice, TraceHeaders { repeated: true, ..both });
    }

    proptest! {
        /// Junk never panics, and a length is never shorter than what was looked at to find it.
        #[test]
        fn junk_is_harmless(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = recognise(&bytes);
        }

        /// Changing one byte of a head never moves the end of the request: the recognised length stays the same, or the
        /// length itself was what changed, or the request is no longer recognised.
        #[test]
        fn one_changed_byte(position in 0..PLAIN.len(), byte in any::<u8>()) {
            let mut bytes = PLAIN.as_bytes().to_vec();
            bytes[position] = byte;
            if let Recognised::Request(request, length) = recognise(&bytes) {
                prop_assert_eq!(length, bytes.len() - 5 + request.body.len());
            }
        }
    }
}
