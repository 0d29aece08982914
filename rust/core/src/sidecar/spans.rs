//! The server spans of requests that the fast path answers: which requests get one, and the bounded queue in which they
//! wait to be exported.
//!
//! Belongs here: the sampler's decision, the ids of spans, and the queue. Does not belong here: the bytes of an export
//! (`otlp`), and when there is one (Python's `telemetry.py`).
//!
//! A span costs the fast path two locks that nobody else holds for longer than it takes to move one batch. Both sides
//! hold the GIL, too, so the locks never wait for each other.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::rand;

use super::contract::Endpoint;
use super::trace_context::{Parent, TraceHeaders, state};

/// Characters of a target in a span, as on the slow path.
pub const MAX_TARGET: usize = 256;

/// Random bytes from one call of the generator.
const RANDOM_BYTES: usize = 512;

/// Which requests get a span. Every sampler of OpenTelemetry's environment variables is one of these:
/// `TraceIdRatioBased` decides, with 1 for "always on" and 0 for "always off".
#[derive(Debug, Clone, Copy)]
pub struct Sampler {
    /// Whether the caller's decision holds where there is one.
    pub parent_based: bool,
    /// A trace is sampled if the last eight bytes of its id are less than this: the ratio times 2^64.
    pub bound: u128,
}

impl Sampler {
    fn samples(self, parent: Option<&Parent>, trace_id: [u8; 16]) -> bool {
        match parent {
            Some(parent) if self.parent_based => parent.sampled,
            _ => u128::from_be_bytes(trace_id) & u128::from(u64::MAX) < self.bound,
        }
    }
}

/// Which span a request gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// None.
    Unsampled,
    /// One that is recorded if the request is answered here.
    Sampled(Span),
    /// The slow path decides.
    Left,
}

/// A span. Its times are set when it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The trace that it belongs to.
    pub trace_id: [u8; 16],
    /// Its own id.
    pub span_id: [u8; 8],
    /// The id of the caller's span; None begins a trace.
    pub parent: Option<[u8; 8]>,
    /// What else the caller's `tracestate` says.
    pub state: Option<Box<str>>,
    /// Of the request.
    pub endpoint: Endpoint,
    /// The position of the provider.
    pub provider: usize,
    /// The target of the token that was handed out, at most [`MAX_TARGET`] characters of it; None at an introspection.
    pub target: Option<Box<str>>,
    /// Unix time in nanoseconds.
    pub start: u64,
    /// The same.
    pub end: u64,
}

impl Span {
    pub(super) fn set_target(&mut self, target: &str) {
        let end = target.char_indices().nth(MAX_TARGET).map_or(target.len(), |(at, _)| at);
        self.target = Some(target[..end].into());
    }
}

/// Decides about spans, and keeps them until they are exported.
pub struct Recorder {
    sampler: Sampler,
    /// Whether the headers of a request count.
    propagates: bool,
    limit: usize,
    batch: usize,
    random: Mutex<Random>,
    waiting: Mutex<VecDeque<Span>>,
    dropped: AtomicU64,
}

impl Recorder {
    /// One without spans. `propagates`: whether `traceparent` is read. At most `limit` spans wait, and `batch` of them
    /// are exported at once; both are at least 1.
    #[must_use]
    pub fn new(sampler: Sampler, propagates: bool, limit: usize, batch: usize) -> Self {
        Self {
            sampler,
            propagates,
            limit,
            batch: batch.max(1),
            random: Mutex::new(Random { bytes: [0; RANDOM_BYTES], used: RANDOM_BYTES }),
            waiting: Mutex::new(VecDeque::new()),
            dropped: AtomicU64::new(0),
        }
    }

    pub(super) fn begin(&self, headers: &TraceHeaders<'_>, endpoint: Endpoint) -> Begun {
        if self.propagates && headers.repeated {
            return Begun::Left; // it reads them all
        }
        let parent = headers.traceparent.filter(|_| self.propagates).and_then(Parent::of);
        self.sampled(parent, headers, endpoint).map_or(Begun::Unsampled, Begun::Sampled)
    }

    fn sampled(&self, parent: Option<Parent>, headers: &TraceHeaders<'_>, endpoint: Endpoint) -> Option<Span> {
        // Most requests with a parent need no random number before the decision.
        let trace_id = match &parent {
            Some(parent) => parent.trace_id,
            None => lock(&self.random).draw()?,
        };
        if !self.sampler.samples(parent.as_ref(), trace_id) {
            return None;
        }
        Some(Span {
            trace_id,
            span_id: lock(&self.random).draw()?,
            parent: parent.map(|parent| parent.span_id),
            state: parent.and(headers.tracestate).and_then(state),
            endpoint,
            provider: 0,
            target: None,
            start: 0,
            end: 0,
        })
    }

    /// Keep these spans, all of which began and ended at these times (Unix time in nanoseconds). Those for which there
    /// is no room are dropped and counted. True if a batch has become full: it should be exported soon.
    pub fn record(&self, spans: Vec<Span>, start: u64, end: u64) -> bool {
        let mut waiting = lock(&self.waiting);
        let before = waiting.len();
        let room = self.limit.saturating_sub(before).min(spans.len());
        self.dropped.fetch_add((spans.len() - room) as u64, Relaxed);
        waiting.extend(spans.into_iter().take(room).map(|span| Span { start, end, ..span }));
        before / self.batch < waiting.len() / self.batch
    }

    /// The oldest ones that wait, one batch at most.
    #[must_use]
    pub fn take(&self) -> Vec<Span> {
        let mut waiting = lock(&self.waiting);
        let count = waiting.len().min(self.batch);
        waiting.drain(..count).collect()
    }

    /// How many spans were dropped because too many waited.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("sampler", &self.sampler).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Random bytes, some hundred from each call of the generator.
struct Random {
    bytes: [u8; RANDOM_BYTES],
    used: usize,
}

impl Random {
    /// An id, which is never all zeros (W3C Trace Context, sections 3.2.2.3 and 3.2.2.4). None if the operating system
    /// gives no random numbers.
    fn draw<const N: usize>(&mut self) -> Option<[u8; N]> {
        loop {
            if self.used + N > RANDOM_BYTES {
                rand::fill(&mut self.bytes).ok()?;
                self.used = 0;
            }
            let mut id = [0; N];
            id.copy_from_slice(&self.bytes[self.used..self.used + N]);
            self.used += N;
            if id != [0; N] {
                return Some(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const ALWAYS: u128 = 1 << 64;
    const PARENT: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const UNSAMPLED: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    fn recorder(parent_based: bool, bound: u128) -> Recorder {
        Recorder::new(Sampler { parent_based, bound }, true, 10, 4)
    }

    fn headers<'b>(traceparent: &'b [u8], tracestate: &'b [u8]) -> TraceHeaders<'b> {
        TraceHeaders { traceparent: Some(traceparent), tracestate: Some(tracestate), repeated: false }
    }

    fn span(recorder: &Recorder, headers: &TraceHeaders<'_>) -> Option<Span> {
        match recorder.begin(headers, Endpoint::Exchange) {
            Begun::Sampled(span) => Some(span),
            Begun::Unsampled => None,
            Begun::Left => panic!("left"),
        }
    }

    #[test]
    fn each_sampler_decides_as_opentelemetry_does() {
        // Parent-based or not, the bound, and who is sampled: without a parent, and with each.
        for (parent_based, bound, expected) in [
            (true, ALWAYS, [true, true, false]),
            (true, 0, [false, true, false]),
            (false, ALWAYS, [true, true, true]),
            (false, 0, [false, false, false]),
        ] {
            let recorder = recorder(parent_based, bound);
            let none = TraceHeaders::default();
            let found = [none, headers(PARENT, b""), headers(UNSAMPLED, b"")]
                .map(|headers| span(&recorder, &headers).is_some());
            assert_eq!(found, expected, "{parent_based} {bound}");
        }
        // The ratio looks at the last eight bytes of the trace id, the caller's or our own.
        let low = 0xa3ce_929d_0e0e_4736_u128;
        for (bound, expected) in [(low, false), (low + 1, true)] {
            for traceparent in [PARENT, UNSAMPLED] {
                assert_eq!(span(&recorder(false, bound), &headers(traceparent, b"")).is_some(), expected);
            }
        }
        let quarter = recorder(true, ALWAYS / 4);
        let sampled = (0..10_000).filter(|_| span(&quarter, &TraceHeaders::default()).is_some()).count();
        assert!((2200..2800).contains(&sampled), "{sampled}"); // 7 standard deviations
    }

    #[test]
    fn a_span_is_a_child_of_the_callers_or_the_root_of_a_new_trace() {
        let recorder = recorder(true, ALWAYS);
        let child = span(&recorder, &headers(PARENT, b"a=1, b=2")).unwrap();
        let parent = Parent::of(PARENT).unwrap();
        assert_eq!((child.trace_id, child.parent), (parent.trace_id, Some(parent.span_id)));
        assert_eq!((child.state.as_deref(), child.endpoint), (Some("a=1,b=2"), Endpoint::Exchange));
        // What is not valid is no context, and then its state means nothing either.
        for traceparent in [None, Some(&b"junk"[..])] {
            let headers = TraceHeaders { traceparent, tracestate: Some(b"a=1"), repeated: false };
            let root = span(&recorder, &headers).unwrap();
            assert_eq!((root.parent, root.state), (None, None));
            assert_ne!(root.trace_id, parent.trace_id);
        }
    }

    #[test]
    fn a_header_that_stands_twice_is_for_the_slow_path() {
        let repeated = TraceHeaders { repeated: true, ..headers(PARENT, b"") };
        assert_eq!(recorder(true, 0).begin(&repeated, Endpoint::Token), Begun::Left);
    }

    #[test]
    fn without_propagation_headers_mean_nothing() {
        let recorder = Recorder::new(Sampler { parent_based: true, bound: ALWAYS }, false, 1, 1);
        for repeated in [false, true] {
            let root = span(&recorder, &TraceHeaders { repeated, ..headers(UNSAMPLED, b"a=1") }).unwrap();
            assert_eq!((root.parent, root.state), (None, None));
        }
    }

    #[test]
    fn ids_are_random_and_distinct() {
        let recorder = recorder(true, ALWAYS);
        let spans: Vec<Span> = (0..1000).map(|_| span(&recorder, &TraceHeaders::default()).unwrap()).collect();
        assert_eq!(spans.iter().map(|span| span.trace_id).collect::<HashSet<_>>().len(), 1000);
        assert_eq!(spans.iter().map(|span| span.span_id).collect::<HashSet<_>>().len(), 1000);
        // Every byte of an id is random: each bit is set in about half of them, within 9 standard deviations.
        for bit in 0..128 {
            let set = spans.iter().filter(|span| u128::from_be_bytes(span.trace_id) >> bit & 1 == 1).count();
            assert!((358..642).contains(&set), "bit {bit}: {set}");
        }
        for bit in 0..64 {
            let set = spans.iter().filter(|span| u64::from_be_bytes(span.span_id) >> bit & 1 == 1).count();
            assert!((358..642).contains(&set), "bit {bit}: {set}");
        }
    }

    #[test]
    fn an_id_is_never_all_zeros_and_no_byte_is_used_twice() {
        let mut random = Random { bytes: [0; RANDOM_BYTES], used: 0 };
        random.bytes[RANDOM_BYTES - 1] = 7;
        assert_eq!(random.draw(), Some([0, 0, 0, 0, 0, 0, 0, 7]));
        assert_eq!(random.used, RANDOM_BYTES);
        assert_ne!(random.draw::<8>(), Some([0, 0, 0, 0, 0, 0, 0, 7]));
        assert_eq!(random.used, 8);
        random.used = RANDOM_BYTES - 8;
        random.draw::<16>();
        assert_eq!(random.used, 16);
    }

    #[test]
    fn spans_wait_in_order_and_those_without_room_are_dropped_and_counted() {
        let recorder = recorder(true, ALWAYS);
        let spans = |count: usize| (0..count).map(|_| span(&recorder, &headers(PARENT, b"")).unwrap()).collect();
        let (first, second): (Vec<Span>, Vec<Span>) = (spans(3), spans(4));
        assert!(!recorder.record(first.clone(), 1, 2));
        assert!(recorder.record(second.clone(), 3, 4)); // 7 with a batch of 4
        assert!(!recorder.record(Vec::new(), 5, 6));
        assert!(recorder.record(spans(5), 7, 8)); // only 3 of them have room
        assert_eq!(recorder.dropped(), 2);
        assert!(!recorder.record(spans(6), 9, 10));
        assert_eq!(recorder.dropped(), 8);
        let batch = recorder.take();
        let ids = |spans: &[Span]| spans.iter().map(|span| span.span_id).collect::<Vec<_>>();
        assert_eq!(ids(&batch), ids(&[&first[..], &second[..1]].concat()));
        let times = |spans: &[Span]| spans.iter().map(|span| (span.start, span.end)).collect::<Vec<_>>();
        assert_eq!(times(&batch), [(1, 2), (1, 2), (1, 2), (3, 4)]);
        assert_eq!(times(&recorder.take()), [(3, 4), (3, 4), (3, 4), (7, 8)]);
        assert_eq!(recorder.take().len(), 2);
        assert_eq!(recorder.take(), []);
        assert_eq!(Recorder::new(recorder.sampler, true, 1, 0).take(), []);
        assert!(format!("{recorder:?}").starts_with("Recorder { sampler: Sampler"));
    }

    #[test]
    fn a_target_is_cut_at_a_character() {
        let mut span = span(&recorder(true, ALWAYS), &TraceHeaders::default()).unwrap();
        for (target, expected) in
            [("c:n:a".to_owned(), "c:n:a".to_owned()), ("\u{e9}".repeat(300), "\u{e9}".repeat(256))]
        {
            span.set_target(&target);
            assert_eq!(span.target.as_deref(), Some(&*expected));
        }
    }
}
