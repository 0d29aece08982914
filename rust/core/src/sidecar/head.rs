//! Header fields of HTTP that the server's full parser accepts and RFC 9112 forbids: Host and Transfer-Encoding.
//!
//! Belongs here: which values are refused, with which status and sentence. Does not belong here: who may call
//! (`contract`), where a request ends.
//!
//! No sentence repeats anything that was sent.

use std::fmt;
use std::net::Ipv6Addr;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadRefusal {
    /// There are several Host headers, or the value is not a host with an optional port (RFC 9112, section 3.2).
    Host,
    /// A Transfer-Encoding header names no coding.
    NoTransferCoding,
    /// A transfer coding compresses the body.
    Compressed,
    /// A transfer coding other than `chunked` (RFC 9112, section 6.1).
    UnknownTransferCoding,
}

impl HeadRefusal {
    /// The status of the answer.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Host | Self::NoTransferCoding => 400,
            Self::Compressed => 415,
            Self::UnknownTransferCoding => 501,
        }
    }
}

impl fmt::Display for HeadRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "the Host header must be given once: a host name or address, with an optional port",
            Self::NoTransferCoding => "the Transfer-Encoding header must not be empty: expected 'chunked'",
            Self::Compressed => "compressed request bodies are not accepted",
            Self::UnknownTransferCoding => "the only accepted transfer coding is 'chunked'",
        })
    }
}

/// Check the values of all Host and Transfer-Encoding headers of a request. Whether Host may be absent depends on the
/// version of HTTP, and the full parser has checked that.
///
/// # Errors
/// A [`HeadRefusal`].
pub fn check(hosts: &[&str], transfer_encodings: &[&str]) -> Result<(), HeadRefusal> {
    match hosts {
        [] => {}
        [host] if is_host(host.trim_ascii()) => {}
        _ => return Err(HeadRefusal::Host),
    }
    check_transfer_codings(transfer_encodings)
}

/// Check the Transfer-Encoding headers in the bytes of a head that the full parser has refused because of them.
///
/// # Errors
/// A [`HeadRefusal`].
pub fn check_refused(head: &[u8]) -> Result<(), HeadRefusal> {
    let value_of = |line: &[u8]| {
        let colon = memchr::memchr(b':', line)?;
        let is_wanted = line[..colon].trim_ascii().eq_ignore_ascii_case(b"transfer-encoding");
        is_wanted.then(|| String::from_utf8_lossy(&line[colon + 1..]).into_owned())
    };
    let values: Vec<String> = head.split(|byte| *byte == b'\n').filter_map(value_of).collect();
    check_transfer_codings(&values.iter().map(String::as_str).collect::<Vec<_>>())
}

fn check_transfer_codings(values: &[&str]) -> Result<(), HeadRefusal> {
    let codings = || values.iter().flat_map(|value| value.split(',')).map(str::trim_ascii).filter(|c| !c.is_empty());
    if values.is_empty() {
        return Ok(());
    }
    if codings().next().is_none() {
        return Err(HeadRefusal::NoTransferCoding);
    }
    if codings().any(is_compression) {
        return Err(HeadRefusal::Compressed);
    }
    let chunked_only = codings().all(|coding| coding.eq_ignore_ascii_case("chunked"));
    if chunked_only { Ok(()) } else { Err(HeadRefusal::UnknownTransferCoding) }
}

/// RFC 9112, section 7.2.
fn is_compression(coding: &str) -> bool {
    let name = coding.split(';').next().unwrap_or_default().trim_ascii();
    ["gzip", "x-gzip", "deflate", "compress", "x-compress"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// RFC 3986, section 3.2: `host [ ":" port ]`. Userinfo, a path, a list and an empty name are none. A comma may stand in
/// a name by that grammar, but separates the values of headers that were joined (RFC 9110, section 5.3).
fn is_host(value: &str) -> bool {
    let (is_name, port) = match value.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else { return false };
            (address.parse::<Ipv6Addr>().is_ok(), port)
        }
        None => {
            let (name, port) = value.split_at(value.find(':').unwrap_or(value.len()));
            (is_registered_name(name), port)
        }
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    is_name && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

fn is_registered_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        let valid = match byte {
            b'%' => [bytes.next(), bytes.next()].iter().all(|digit| digit.is_some_and(|d| d.is_ascii_hexdigit())),
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=' => true,
            other => other.is_ascii_alphanumeric(),
        };
        if !valid {
            return false;
        }
    }
    !name.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for host in [
            "localhost",
            "LOCALHOST:3000",
            "localhost.",
            "localhost:",
            "a-b.c_d~e",
            "10.0.0.1:80",
            "127.1",
            "[::1]",
            "[::1]:80",
            "[::ffff:10.0.0.1]:",
            "a%2Db",
            "xn--bcher-kva.example",
            " localhost\t",
            "localhost:123456",
        ] {
            assert_eq!(check(&[host], &[]), Ok(()), "{host}");
        }
        for host in [
            "",
            " ",
            ":80",
            "user@localhost",
            "localhost:80@evil",
            "localhost/",
            "localhost/x",
            "localhost?x",
            "localhost#x",
            "http://localhost",
            "localhost, evil",
            "localhost,evil",
            "localhost evil",
            "localhost:x",
            "localhost:-1",
            "localhost:8:0",
            "::1",
            "[::1",
            "[::1]x",
            "[]",
            "[",
            "[127.0.0.1]",
            "[localhost]",
            "[::1%lo]",
            "a%2",
            "a%zz",
            "a\\b",
            "a\"b",
            "b\u{fc}cher",
            "a\u{0}",
        ] {
            assert_eq!(check(&[host], &[]), Err(HeadRefusal::Host), "{host}");
        }
        assert_eq!(check(&[], &[]), Ok(()));
        assert_eq!(check(&["localhost", "localhost"], &[]), Err(HeadRefusal::Host));
    }

    #[test]
    fn transfer_codings() {
        for (values, expected) in [
            (&[][..], Ok(())),
            (&["chunked"], Ok(())),
            (&[" Chunked "], Ok(())),
            (&[", chunked,"], Ok(())),
            (&[""], Err(HeadRefusal::NoTransferCoding)),
            (&[" , "], Err(HeadRefusal::NoTransferCoding)),
            (&["gzip"], Err(HeadRefusal::Compressed)),
            (&["GZIP, chunked"], Err(HeadRefusal::Compressed)),
            (&["x-compress;q=1", "chunked"], Err(HeadRefusal::Compressed)),
            (&["foo, chunked"], Err(HeadRefusal::UnknownTransferCoding)),
            (&["identity"], Err(HeadRefusal::UnknownTransferCoding)),
            (&["chunked;q=1"], Err(HeadRefusal::UnknownTransferCoding)),
            (&["chunked", "foo"], Err(HeadRefusal::UnknownTransferCoding)),
        ] {
            assert_eq!(check(&["localhost"], values), expected, "{values:?}");
        }
    }

    #[test]
    fn heads_that_were_refused() {
        for (head, expected) in [
            (&b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n"[..], Err(HeadRefusal::Compressed)),
            (b"transfer-encoding:\xff", Err(HeadRefusal::UnknownTransferCoding)),
            (b"X: y\nTRANSFER-ENCODING: chunked\r\n", Ok(())),
            (b"X-Transfer-Encoding: gzip\r\n", Ok(())),
            (b"", Ok(())),
        ] {
            assert_eq!(check_refused(head), expected, "{}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn every_refusal_has_a_status_and_a_sentence() {
        for (refusal, status) in [
            (HeadRefusal::Host, 400),
            (HeadRefusal::NoTransferCoding, 400),
            (HeadRefusal::Compressed, 415),
            (HeadRefusal::UnknownTransferCoding, 501),
        ] {
            assert_eq!(refusal.status(), status);
            assert!(!refusal.to_string().is_empty());
        }
    }
}
