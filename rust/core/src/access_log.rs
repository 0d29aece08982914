//! Lines of the access log, collected until there is a piece of them to write.
//!
//! Belongs here: the bytes of a line, which has the form of all log lines of the sidecar (one JSON object), and how many lines
//! leave together. Does not belong here: where they go, and which requests have one.

use std::time::Duration;

use crate::calendar::{Moment, write_digits};
use crate::json::write_string;

/// The most bytes that leave in one piece: a quarter of what a pipe usually holds, so that whoever reads it can keep up.
const PIECE_BYTES: usize = 16_384;

/// The same where several processes share the log: so many bytes a pipe takes as a whole, so that their lines are never
/// mixed (`PIPE_BUF` of Linux; POSIX, `write`).
const SHARED_PIECE_BYTES: usize = 4096;

/// Methods are shown up to here: what is none may be as long as a head.
const METHOD_BYTES: usize = 16;

/// One request.
#[derive(Debug, Clone, Copy)]
pub struct Line<'l> {
    /// When it was answered, in seconds since the epoch.
    pub unix: f64,
    /// Its method.
    pub method: &'l str,
    /// Its path, where it is a known one: never what a stranger sent.
    pub path: &'l str,
    /// The answer's status.
    pub status: u16,
    /// How long it took.
    pub duration: Duration,
}

/// Lines that wait.
#[derive(Debug)]
pub struct Lines {
    /// What each line has between its time and its request.
    middle: Vec<u8>,
    piece_bytes: usize,
    waiting: Vec<u8>,
}

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
        Self { middle, piece_bytes, waiting: Vec::new() }
    }

    /// Add a line. Lines beside which it has no room are given back, and have to be written now.
    #[must_use]
    pub fn add(&mut self, line: Line<'_>) -> Option<Vec<u8>> {
        let start = self.waiting.len();
        self.append(line);
        if self.waiting.len() <= self.piece_bytes {
            return None;
        }
        let mut next = Vec::with_capacity(self.piece_bytes);
        next.extend_from_slice(&self.waiting[start..]);
        self.waiting.truncate(start);
        Some(std::mem::replace(&mut self.waiting, next))
    }

    /// Take all that wait.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.waiting)
    }

    fn append(&mut self, line: Line<'_>) {
        let out = &mut self.waiting;
        let moment = Moment::of(line.unix);
        out.extend_from_slice(br#"{"time":""#);
        write_digits::<4>(out, moment.year);
        out.push(b'-');
        write_digits::<2>(out, moment.month + 1);
        out.push(b'-');
        write_digits::<2>(out, moment.day);
        out.push(b'T');
        write_digits::<2>(out, moment.hour);
        out.push(b':');
        write_digits::<2>(out, moment.minute);
        out.push(b':');
        write_digits::<2>(out, moment.second);
        out.push(b'.');
        write_digits::<3>(out, moment.millisecond);
        out.extend_from_slice(b"+00:00");
        out.extend_from_slice(&self.middle);
        let method = line.method.get(..METHOD_BYTES).unwrap_or(line.method);
        write_string(out, method);
        out.extend_from_slice(br#","path":"#);
        write_string(out, line.path);
        out.extend_from_slice(br#","status":"#);
        write_digits::<3>(out, u64::from(line.status));
        out.extend_from_slice(br#","milliseconds":"#);
        let microseconds = u64::try_from(line.duration.as_micros()).unwrap_or(u64::MAX);
        write_whole(out, microseconds / 1000);
        out.push(b'.');
        write_digits::<3>(out, microseconds % 1000);
        out.extend_from_slice(b"}\n");
    }
}

/// Most numbers of milliseconds have one digit.
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
        let of = |worker, line| {
            let mut lines = Lines::new(worker);
            assert_eq!(lines.add(line), None);
            String::from_utf8(lines.take()).unwrap()
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
            let mut pieces = Vec::new();
            for _ in 0..1000 {
                pieces.extend(lines.add(LINE));
            }
            assert!(pieces.len() > 1);
            let length = pieces[0].split_inclusive(|byte| *byte == b'\n').next().unwrap().len();
            for piece in &pieces {
                assert!(piece.len() <= most && piece.len() > most - length);
                assert!(piece.ends_with(b"}\n"));
            }
            pieces.push(lines.take());
            assert_eq!(pieces.concat().len(), 1000 * length);
            assert!(lines.take().is_empty());
        }
    }
}
