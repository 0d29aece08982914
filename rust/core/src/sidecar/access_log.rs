//! Lines of the access log, collected until there are enough of them to write.
//!
//! Belongs here: the bytes of a line, which has the form of all log lines of the sidecar (one JSON object), and how
//! many lines are written at once. Does not belong here: where they go, and which requests have one.

use std::time::Duration;

use crate::jose::json::write_string;
use crate::sidecar::contract::Endpoint;
use crate::sidecar::http_date::{Moment, digits, seconds_of, write_digits};

/// Maximum number of bytes that are written at once: what a pipe usually holds. Larger pieces mean fewer writes.
const PIECE_BYTES: usize = 65_536;

/// The same where several processes share the log: a pipe takes this many bytes as a whole, so that their lines are
/// never mixed (`PIPE_BUF` of Linux; POSIX, `write`).
const SHARED_PIECE_BYTES: usize = 4096;

/// Longer methods are cut: an unknown one may be as long as a head.
const METHOD_BYTES: usize = 16;

/// One request.
#[derive(Debug, Clone, Copy)]
pub struct Line<'l> {
    /// When it was answered, in seconds since the epoch.
    pub unix: f64,
    /// Its method.
    pub method: &'l str,
    /// Its path, where it is a known one: never bytes of an attacker.
    pub path: &'l str,
    /// The answer's status.
    pub status: u16,
    /// How long it took.
    pub duration: Duration,
}

/// Lines that wait.
#[derive(Debug)]
pub struct Lines {
    /// The part of each line between its time and its request.
    middle: Vec<u8>,
    piece_bytes: usize,
    waiting: Vec<u8>,
    last: Head,
}

/// A line up to its duration. Usually it equals the previous one, except for the milliseconds of its time.
#[derive(Debug, Default)]
struct Head {
    second: u64,
    method: String,
    path: String,
    status: u16,
    text: Vec<u8>,
}

/// Where the milliseconds stand in a line.
const MILLISECOND_AT: usize = r#"{"time":"2026-11-21T08:00:00."#.len();

impl Lines {
    /// None yet. `worker`: the number of the process, where several serve as one.
    #[must_use]
    pub fn new(worker: Option<u32>) -> Self {
        let mut middle = br#"","level":"info","logger":"entra_fast","message":"request","#.to_vec();
        if let Some(worker) = worker {
            middle.extend_from_slice(format!(r#""worker":{worker},"#).as_bytes());
        }
        middle.extend_from_slice(br#""method":"#);
        let piece_bytes = if worker.is_some() { SHARED_PIECE_BYTES } else { PIECE_BYTES };
        Self { middle, piece_bytes, waiting: Vec::new(), last: Head::default() }
    }

    /// Add a line. If it does not fit, the waiting lines are given to `write` first.
    pub fn add(&mut self, line: Line<'_>, write: impl FnOnce(&[u8])) {
        let start = self.waiting.len();
        self.append(line);
        if self.waiting.len() > self.piece_bytes {
            write(&self.waiting[..start]);
            self.waiting.drain(..start);
        }
    }

    /// Add a line for each request that the fast path answered, by endpoint in the order of [`Endpoint::ALL`]. Each
    /// took `duration`.
    pub fn add_answered(&mut self, unix: f64, by_endpoint: [u64; 3], duration: Duration, mut write: impl FnMut(&[u8])) {
        for (endpoint, count) in Endpoint::ALL.into_iter().zip(by_endpoint) {
            for _ in 0..count {
                self.add(Line { unix, method: "POST", path: endpoint.path(), status: 200, duration }, &mut write);
            }
        }
    }

    /// Give all that wait to `write`.
    pub fn flush(&mut self, write: impl FnOnce(&[u8])) {
        if !self.waiting.is_empty() {
            write(&self.waiting);
            self.waiting.clear();
        }
    }

    fn append(&mut self, line: Line<'_>) {
        let (second, millisecond) = seconds_of(line.unix);
        let method = line.method.get(..METHOD_BYTES).unwrap_or(line.method);
        let last = &self.last;
        if (last.second, &*last.method, &*last.path, last.status) != (second, method, line.path, line.status) {
            self.last = Head {
                second,
                method: method.to_owned(),
                path: line.path.to_owned(),
                status: line.status,
                text: self.head(method, line),
            };
        }
        let out = &mut self.waiting;
        let start = out.len();
        out.extend_from_slice(&self.last.text);
        let milliseconds_at = start + MILLISECOND_AT;
        out[milliseconds_at..milliseconds_at + 3].copy_from_slice(&digits::<3>(millisecond));
        let microseconds = u64::try_from(line.duration.as_micros()).unwrap_or(u64::MAX);
        write_whole(out, microseconds / 1000);
        out.push(b'.');
        write_digits::<3>(out, microseconds % 1000);
        out.extend_from_slice(b"}\n");
    }

    fn head(&self, method: &str, line: Line<'_>) -> Vec<u8> {
        let moment = Moment::of(line.unix);
        let mut text = br#"{"time":""#.to_vec();
        write_digits::<4>(&mut text, moment.year);
        for (before, value) in [
            (b'-', moment.month + 1),
            (b'-', moment.day),
            (b'T', moment.hour),
            (b':', moment.minute),
            (b':', moment.second),
        ] {
            text.push(before);
            write_digits::<2>(&mut text, value);
        }
        text.extend_from_slice(b".000+00:00");
        text.extend_from_slice(&self.middle);
        write_string(&mut text, method);
        text.extend_from_slice(br#","path":"#);
        write_string(&mut text, line.path);
        text.extend_from_slice(br#","status":"#);
        write_digits::<3>(&mut text, u64::from(line.status));
        text.extend_from_slice(br#","milliseconds":"#);
        text
    }
}

/// Milliseconds usually have one digit.
fn write_whole(out: &mut Vec<u8>, value: u64) {
    if value < 10 {
        write_digits::<1>(out, value);
    } else {
        out.extend_from_slice(value.to_string().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Line<'_> = Line {
        unix: 1_795_248_000.25,
        method: "POST",
        path: "/api/v1/token",
        status: 200,
        duration: Duration::from_nanos(12_345_678),
    };

    #[test]
    fn a_line_has_the_form_of_all_log_lines() {
        let of = |worker, line: Line<'_>| {
            let mut lines = Lines::new(worker);
            let mut text = Vec::new();
            for line in [line, Line { unix: line.unix + 0.5, ..line }, Line { status: 404, ..line }] {
                lines.add(line, |_| panic!("there is room"));
            }
            lines.flush(|piece| text.extend_from_slice(piece));
            let text = String::from_utf8(text).unwrap();
            let first = text.lines().next().unwrap();
            let others = [first.replace(".250+", ".750+"), first.replace("200", "404")];
            assert_eq!(text, format!("{first}\n{}\n{}\n", others[0], others[1]));
            format!("{first}\n")
        };
        let expected = "{\"time\":\"2026-11-21T08:00:00.250+00:00\",\"level\":\"info\",\"logger\":\"entra_fast\",\
            \"message\":\"request\",\"method\":\"POST\",\"path\":\"/api/v1/token\",\"status\":200,\
            \"milliseconds\":12.345}\n";
        assert_eq!(of(None, LINE), expected);
        let numbered = expected.replace("\"request\",", "\"request\",\"worker\":12,");
        assert_eq!(of(Some(12), LINE), numbered);
        let odd = of(None, Line { method: "\"\\\u{1}ABCDEFGHIJKLMNOP", ..LINE });
        assert_eq!(odd, expected.replace("POST", "\\\"\\\\\\u0001ABCDEFGHIJKLM"));
        let quick = of(None, Line { duration: Duration::from_nanos(9_999), ..LINE });
        assert_eq!(quick, expected.replace("12.345", "0.009"));
    }

    #[test]
    fn a_piece_is_whole_lines_and_fits_into_a_pipe() {
        for (worker, most) in [(Some(1), SHARED_PIECE_BYTES), (None, PIECE_BYTES)] {
            let mut lines = Lines::new(worker);
            let mut pieces: Vec<Vec<u8>> = Vec::new();
            for _ in 0..1000 {
                lines.add(LINE, |piece| pieces.push(piece.to_vec()));
            }
            assert!(pieces.len() > 1);
            let length = pieces[0].split_inclusive(|byte| *byte == b'\n').next().unwrap().len();
            for piece in &pieces {
                assert!(piece.len() <= most && piece.len() > most - length);
                assert!(piece.ends_with(b"}\n"));
            }
            lines.flush(|piece| pieces.push(piece.to_vec()));
            assert_eq!(pieces.concat().len(), 1000 * length);
            lines.flush(|_| panic!("nothing waits"));
        }
    }
}
