//! Which side handles a connection's next bytes: the fast path or the protocol. Without I/O.
//!
//! Belongs here: the flag that says so, and the counts of requests answered without the protocol. Does not belong here:
//! the bytes, the transport, and why a connection is at rest or not; the protocol knows that.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::fast_path::Outcome;

/// The state of one connection. One thread at a time uses it, so no step needs to be atomic as a whole.
#[derive(Debug, Default)]
pub struct Turn {
    at_rest: AtomicBool,
    answered: AtomicU64,
    /// On the monotonic clock, as bits of a float.
    answered_at: AtomicU64,
}

impl Turn {
    /// Whether no request is in progress on the connection, so that arriving bytes start a new request.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.at_rest.load(Relaxed)
    }

    /// The protocol says whether a request is in progress.
    pub fn set_at_rest(&self, at_rest: bool) {
        self.at_rest.store(at_rest, Relaxed);
    }

    /// Whether these bytes are for the fast path.
    #[must_use]
    pub fn is_fast_paths(&self, bytes: &[u8]) -> bool {
        self.is_at_rest() && !bytes.is_empty()
    }

    /// Whether the outcome is complete: it is counted here, and the protocol need not know. The protocol handles all
    /// other outcomes.
    #[must_use]
    pub fn completes(&self, outcome: &Outcome, monotonic: f64) -> bool {
        let complete = outcome.is_one_whole_answer();
        if complete {
            self.answered_at.store(monotonic.to_bits(), Relaxed);
            self.answered.store(self.answered() + 1, Relaxed);
        }
        complete
    }

    /// How many requests were answered without the protocol.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    /// When the last of them was, in seconds of the monotonic clock; 0 before the first.
    #[must_use]
    pub fn answered_at(&self) -> f64 {
        f64::from_bits(self.answered_at.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sidecar::fast_path::{Renewal, Stop};

    fn outcome(answered: u64, stop: Stop) -> Outcome {
        let (renewals, spans) = (Vec::new(), Vec::new());
        Outcome { consumed: 100, answered, by_endpoint: [answered, 0, 0], stop, renewals, spans, turn_due: false }
    }

    #[test]
    fn bytes_are_the_fast_paths_only_on_a_connection_at_rest() {
        let turn = Turn::default();
        assert!(!turn.is_fast_paths(b"POST"));
        turn.set_at_rest(true);
        assert!(turn.is_fast_paths(b"POST"));
        assert!(!turn.is_fast_paths(b""));
        turn.set_at_rest(false);
        assert!(!turn.is_fast_paths(b"POST"));
    }

    #[test]
    fn only_one_whole_answer_is_complete_without_the_protocol() {
        let turn = Turn::default();
        let renewal = Renewal {
            provider: 0,
            target: "c:n:a".into(),
            subject_token: None,
            resources: Vec::new(),
            authorization_details: None,
        };
        for other in [
            outcome(0, Stop::Framed(100)),
            outcome(0, Stop::Partial(0)),
            outcome(1, Stop::Partial(0)),
            outcome(2, Stop::Done),
            outcome(1, Stop::Full),
            Outcome { renewals: vec![renewal], ..outcome(1, Stop::Done) },
            Outcome { turn_due: true, ..outcome(1, Stop::Done) },
        ] {
            assert!(!turn.completes(&other, 1.0), "{other:?}");
        }
        assert_eq!((turn.answered(), turn.answered_at().to_bits()), (0, 0));
        assert!(turn.completes(&outcome(1, Stop::Done), 7.5));
        assert!(turn.completes(&outcome(1, Stop::Done), 8.5));
        assert_eq!((turn.answered(), turn.answered_at().to_bits()), (2, 8.5_f64.to_bits()));
    }
}
