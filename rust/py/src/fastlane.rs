//! `FastLane` for Python: converts in, calls `entra_core::fastlane`, converts out.
//!
//! The server is one thread, and an answer takes microseconds, so the GIL is kept.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use entra_core::fastlane::{Caches, FastLane as CoreFastLane, Identity, Stop};
use entra_core::grants::Now;
use entra_core::http1::Endpoint;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::grants::GrantCache;
use crate::random_seed;
use crate::verifier::Verifier;

thread_local! {
    /// Room for answers that is used again: the lane stops at `MAX_ANSWERS_BYTES`, so it stays small.
    static OUT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Answers plain requests of one sidecar from its caches.
#[pyclass(frozen, module = "entra_fast._native")]
pub(crate) struct FastLane {
    lane: CoreFastLane,
    grants: Py<GrantCache>,
    verifier: OnceLock<Py<Verifier>>,
    detailed: bool,
}

/// (answers, how many by endpoint, bytes consumed, why it stopped, its number, renewals).
type InPart<'py> = (Bound<'py, PyBytes>, [u64; 3], usize, &'static str, usize, Vec<(String, Option<String>)>);

/// What a call gives: the plainest outcome is the plainest object.
#[derive(IntoPyObject)]
enum Served<'py> {
    Whole(Bound<'py, PyBytes>),
    InPart(InPart<'py>),
}

#[pymethods]
impl FastLane {
    #[new]
    #[allow(clippy::too_many_arguments, reason = "named ones in Python")]
    #[pyo3(signature = (grants, *, tenant, client_id, allowed_hosts, bounds, detailed = false, tracing = false))]
    fn new(
        grants: Py<GrantCache>,
        tenant: String,
        client_id: String,
        allowed_hosts: Vec<String>,
        bounds: Vec<f64>,
        detailed: bool,
        tracing: bool,
    ) -> Self {
        let identity = Identity { tenant, client_id, allowed_hosts };
        let lane = CoreFastLane::new(identity, bounds, tracing, [random_seed(), random_seed()]);
        Self { lane, grants, verifier: OnceLock::new(), detailed }
    }

    /// Introspect with this verifier from now on. The first one stays.
    fn attach(&self, verifier: Py<Verifier>) {
        let _ = self.verifier.set(verifier);
    }

    /// Until then tokens of unknown keys are answered here, because nothing fetches keys for them.
    fn refuse_unknown_keys_until(&self, monotonic: f64) {
        self.lane.refuse_unknown_keys_until(monotonic);
    }

    /// Answer what can be answered of the bytes that a connection has.
    #[pyo3(signature = (data, now, monotonic, waited = 0.0))]
    fn serve<'py>(&self, py: Python<'py>, data: &[u8], now: f64, monotonic: f64, waited: f64) -> Served<'py> {
        let started = Instant::now();
        let caches = Caches {
            validator: self.verifier.get().map(|verifier| verifier.get().validator()),
            grants: self.grants.get().cache(),
        };
        let mut out = OUT.take();
        out.clear();
        let outcome = self.lane.serve(data, caches, Now { unix: now, monotonic }, &mut out);
        let answers = PyBytes::new(py, &out);
        OUT.set(out);
        if let Some(count) = u32::try_from(outcome.answered).ok().filter(|count| *count > 0) {
            let waited = Duration::try_from_secs_f64(waited).unwrap_or_default();
            self.lane.figures().record(&outcome, waited + started.elapsed() / count);
        }
        let plain = outcome.answered == 1 && outcome.stop == Stop::Done && outcome.renewals.is_empty();
        if plain && !self.detailed {
            return Served::Whole(answers);
        }
        let (stop, number) = match outcome.stop {
            Stop::Done => ("done", 0),
            Stop::Partial(needed) => ("partial", needed),
            Stop::Framed(length) => ("framed", length),
            Stop::KeyNeeded(length) => ("key_needed", length),
            Stop::Unknown => ("unknown", 0),
            Stop::Full => ("full", 0),
        };
        let renewals = outcome.renewals.into_iter().map(|renewal| (renewal.target, renewal.subject_token)).collect();
        Served::InPart((answers, outcome.by_endpoint, outcome.consumed, stop, number, renewals))
    }

    /// By endpoint (counts in the buckets of `bounds` and one more, seconds in all).
    fn durations<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for endpoint in Endpoint::ALL {
            dict.set_item(endpoint.name(), self.lane.figures().durations(endpoint))?;
        }
        Ok(dict)
    }

    /// How many introspections were answered with an active, and with an inactive token.
    fn introspections(&self) -> (u64, u64) {
        self.lane.figures().introspections()
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<FastLane>()
}
