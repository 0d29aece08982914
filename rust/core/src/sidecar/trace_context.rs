//! The trace that a request belongs to: `traceparent` and `tracestate` (W3C Trace Context, section 3).
//!
//! Belongs here: which values are valid, exactly as OpenTelemetry's SDK for Python reads them on the slow path. Does not
//! belong here: which requests get a span (`spans`).

/// Longer values of `traceparent` are no context.
const MAX_TRACEPARENT_BYTES: usize = 512;

/// Longer values of `tracestate` are dropped.
const MAX_TRACESTATE_BYTES: usize = 8192;

/// More members of `tracestate` are dropped, all of them (section 3.3.1.1).
const MAX_MEMBERS: usize = 32;

/// The two headers as they were sent, without white space around them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TraceHeaders<'b> {
    /// The first `traceparent`.
    pub traceparent: Option<&'b [u8]>,
    /// The first `tracestate`.
    pub tracestate: Option<&'b [u8]>,
    /// Whether one of the two stands more than once.
    pub repeated: bool,
}

impl<'b> TraceHeaders<'b> {
    pub(super) fn add_traceparent(&mut self, value: &'b [u8]) {
        self.repeated |= self.traceparent.is_some();
        self.traceparent = Some(self.traceparent.unwrap_or(value));
    }

    pub(super) fn add_tracestate(&mut self, value: &'b [u8]) {
        self.repeated |= self.tracestate.is_some();
        self.tracestate = Some(self.tracestate.unwrap_or(value));
    }
}

/// The caller's span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// The id of the trace.
    pub trace_id: [u8; 16],
    /// The id of the span in it.
    pub span_id: [u8; 8],
    /// Whether the caller records it.
    pub sampled: bool,
}

impl Parent {
    /// The span that a `traceparent` names; None if it is not valid (section 3.2).
    #[must_use]
    pub fn of(value: &[u8]) -> Option<Self> {
        // 00-<32 hex>-<16 hex>-<2 hex>; later versions may go on after another hyphen.
        let (fixed, rest) = value.split_at_checked(55)?;
        let separated = [2, 35, 52].iter().all(|at| fixed[*at] == b'-');
        let [version] = lower_hex(&fixed[..2])?;
        let (trace_id, span_id) = (lower_hex(&fixed[3..35])?, lower_hex(&fixed[36..52])?);
        let [flags] = lower_hex(&fixed[53..])?;
        let ended = rest.is_empty() || (rest[0] == b'-' && version != 0);
        let valid = separated
            && ended
            && value.len() <= MAX_TRACEPARENT_BYTES
            && version != 0xff
            && trace_id != [0; 16]
            && span_id != [0; 8];
        valid.then_some(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }
}

/// Bytes from twice as many lower-case hexadecimal digits.
fn lower_hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? * 16 + digit(pair[1])?;
    }
    Some(out)
}

const fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// The members of a `tracestate` (section 3.3), without white space between them; None if there are none, or if one of
/// them is not valid: then all are dropped.
#[must_use]
pub fn state(value: &[u8]) -> Option<Box<str>> {
    let text = str::from_utf8(value).ok().filter(|text| text.len() <= MAX_TRACESTATE_BYTES)?;
    let mut members: Vec<(&str, &str)> = Vec::new();
    for member in text.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|member| !member.is_empty()) {
        let (key, value) = member.split_once('=')?;
        let valid = is_key(key.as_bytes()) && is_value(value.as_bytes());
        if !valid || members.len() == MAX_MEMBERS || members.iter().any(|(other, _)| *other == key) {
            return None;
        }
        members.push((key, value));
    }
    let members: Vec<String> = members.iter().map(|(key, value)| format!("{key}={value}")).collect();
    (!members.is_empty()).then(|| members.join(",").into())
}

/// Section 3.3.1.3.1, of level 1: `key` or `tenant@system`.
fn is_key(key: &[u8]) -> bool {
    let rest = |bytes: &[u8], most: usize| {
        bytes.len() <= most
            && bytes.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/'))
    };
    match key.iter().position(|byte| *byte == b'@') {
        None => key.first().is_some_and(u8::is_ascii_lowercase) && rest(&key[1..], 255),
        Some(at) => {
            let (tenant, system) = (&key[..at], &key[at + 1..]);
            tenant.first().is_some_and(|first| first.is_ascii_lowercase() || first.is_ascii_digit())
                && rest(&tenant[1..], 240)
                && system.first().is_some_and(u8::is_ascii_lowercase)
                && rest(&system[1..], 13)
        }
    }
}

/// Section 3.3.1.3.2. The member was trimmed, so the value does not end with a space.
fn is_value(value: &[u8]) -> bool {
    (1..=256).contains(&value.len()) && value.iter().all(|byte| (0x20..0x7f).contains(byte) && *byte != b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn parent(value: &str) -> Option<Parent> {
        Parent::of(value.as_bytes())
    }

    #[test]
    fn a_traceparent_names_a_span() {
        let expected = Parent {
            trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes(),
            span_id: 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes(),
            sampled: true,
        };
        for (version, flags, sampled) in [
            ("00", "01", true),
            ("00", "03", true),
            ("00", "00", false),
            ("00", "02", false),
            ("00", "ff", true),
            ("01", "01", true),
            ("fe", "10", false),
        ] {
            let found = parent(&format!("{version}-{TRACE}-{SPAN}-{flags}"));
            assert_eq!(found, Some(Parent { sampled, ..expected }), "{version} {flags}");
        }
        assert_eq!(parent(&format!("cc-{TRACE}-{SPAN}-01-what follows")), Some(expected));
        let most = format!("cc-{TRACE}-{SPAN}-01-{}", "x".repeat(512 - 56));
        assert_eq!(parent(&most), Some(expected));
        assert_eq!(parent(&format!("{most}x")), None);
        for half in ["0".repeat(15) + "1", "1".to_owned() + &"0".repeat(15)] {
            assert!(parent(&format!("00-{TRACE}-{half}-01")).is_some(), "{half}");
            assert!(parent(&format!("00-{}{half}-{SPAN}-01", "0".repeat(16))).is_some(), "{half}");
        }
    }

    #[test]
    fn what_names_no_span() {
        for value in [
            String::new(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-"),
            format!("00-{TRACE}-{SPAN}-0"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("00-{TRACE}-{SPAN}-01-x"),
            format!("01-{TRACE}-{SPAN}-01x"),
            format!("01-{TRACE}-{SPAN}-011"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0g-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-0g"),
            format!("00-{TRACE}-{SPAN}-0A"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{}-01", SPAN.to_uppercase()),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00_{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}_{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}_01"),
            format!("00-{TRACE}{SPAN}--01"),
            format!(" 00-{TRACE}-{SPAN}-01"),
        ] {
            assert_eq!(parent(&value), None, "{value}");
        }
        for byte in [b'/', b':', b'`', b'g', b'A', b'F', b'@', b'G', b' '] {
            assert_eq!(digit(byte), None);
        }
        let digits: Vec<u8> = (b'0'..=b'9').chain(b'a'..=b'f').filter_map(digit).collect();
        assert_eq!(digits, (0..16).collect::<Vec<u8>>());
        assert_eq!(lower_hex(b"a50f"), Some([0xa5, 0x0f]));
    }

    #[test]
    fn a_tracestate_is_carried_without_white_space() {
        for (value, expected) in [
            ("a=1", Some("a=1")),
            ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", Some("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")),
            (" a=1 ,\tb_-*/9=x y ,, ", Some("a=1,b_-*/9=x y")),
            ("0t@s=1,t@s_-*/0=2", Some("0t@s=1,t@s_-*/0=2")),
            ("a= 1", Some("a= 1")),
            ("a=!~+", Some("a=!~+")),
            ("", None),
            (" ,", None),
            ("a", None),
            ("a=", None),
            ("=1", None),
            ("a=1,b", None),
            ("a=1,a=2", None),
            ("a=1=2", None),
            ("A=1", None),
            ("aA=1", None),
            ("0a=1", None),
            ("_=1", None),
            ("a b=1", None),
            ("@s=1", None),
            ("t@=1", None),
            ("t@0=1", None),
            ("T@s=1", None),
            ("tT@s=1", None),
            ("_t@s=1", None),
            ("t@S=1", None),
            ("t@sS=1", None),
            ("t@s@s=1", None),
            ("a=\u{e9}", None),
            ("a=\u{7f}", None),
            ("a=\u{1f}x", None),
        ] {
            assert_eq!(state(value.as_bytes()).as_deref(), expected, "{value:?}");
        }
        assert_eq!(state(b"a=\xff"), None);
    }

    #[test]
    fn a_tracestate_has_limits() {
        let fits = |value: &str| state(value.as_bytes()).is_some();
        for (most, key) in [(256, "k"), (241 + 2, "@s"), (14 + 2, "t@")] {
            let long = |length: usize| {
                let filling = "x".repeat(length - key.len());
                if key == "@s" { format!("{filling}{key}=1") } else { format!("{key}{filling}=1") }
            };
            assert!(fits(&long(most)), "{key}");
            assert!(!fits(&long(most + 1)), "{key}");
        }
        assert!(fits(&format!("a={}", "x".repeat(256))));
        assert!(!fits(&format!("a={}", "x".repeat(257))));
        let members = |count: usize| (0..count).map(|n| format!("k{n}=1")).collect::<Vec<_>>().join(",");
        assert!(fits(&members(32)));
        assert!(!fits(&members(33)));
        let spaced = |length: usize| format!("a=1{}b=1", ",".repeat(length - 6));
        assert!(fits(&spaced(8192)));
        assert!(!fits(&spaced(8193)));
    }

    #[test]
    fn the_first_of_each_header_counts_and_a_second_is_noticed() {
        let mut headers = TraceHeaders::default();
        headers.add_traceparent(b"p");
        headers.add_tracestate(b"s");
        assert_eq!(headers, TraceHeaders { traceparent: Some(b"p"), tracestate: Some(b"s"), repeated: false });
        let (mut other, mut another) = (headers, headers);
        other.add_traceparent(b"q");
        another.add_tracestate(b"t");
        for found in [other, another] {
            assert_eq!(found, TraceHeaders { repeated: true, ..headers });
        }
    }
}
