//! `FastPath` and `FastPathReceiver` for Python: convert in, call `entra_core::sidecar::fast_path`, convert out.
//!
//! The server is one thread, and an answer takes microseconds, so the GIL is kept.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use entra_core::cache::token_cache::Now;
use entra_core::sidecar::fast_path::{Caches, FastPath as CoreFastPath, Identity, Stop};
use entra_core::sidecar::http1::Endpoint;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::access_log::AccessLog;
use crate::token_cache::TokenCache;
use crate::validator::Validator;
use crate::{random_seed, wall_clock};

thread_local! {
    /// Room for answers that is used again: the lane stops at `MAX_ANSWERS_BYTES`, so it stays small.
    static OUT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Answers plain requests of one sidecar from its caches.
#[pyclass(frozen, name = "FastLane", module = "entra_fast._native")]
pub(crate) struct FastPath {
    lane: CoreFastPath,
    grants: Py<TokenCache>,
    verifier: OnceLock<Py<Validator>>,
    access_log: Option<Py<AccessLog>>,
    clocks: Clocks,
}

/// Where the lane's time comes from.
enum Clocks {
    /// The system's, read without a step of Python. Python's monotonic clock showed `monotonic` at `origin`, and both
    /// are the same clock of the system.
    System { origin: Instant, monotonic: f64 },
    /// Those of a test: (wall, monotonic).
    Given(Py<PyAny>, Py<PyAny>),
}

impl Clocks {
    fn system(py: Python<'_>) -> PyResult<Self> {
        let monotonic = py.import("time")?.call_method0("monotonic")?.extract()?;
        Ok(Self::System { origin: Instant::now(), monotonic })
    }

    fn now(&self, py: Python<'_>, at: Instant) -> PyResult<Now> {
        Ok(match self {
            Self::System { origin, monotonic } => {
                Now { unix: wall_clock(), monotonic: monotonic + at.duration_since(*origin).as_secs_f64() }
            }
            Self::Given(wall, monotonic) => {
                Now { unix: wall.call0(py)?.extract(py)?, monotonic: monotonic.call0(py)?.extract(py)? }
            }
        })
    }
}

/// (answers, how many requests, bytes consumed, why it stopped, its number, renewals).
type InPart<'py> = (Bound<'py, PyBytes>, u64, usize, &'static str, usize, Vec<(String, Option<String>)>);

/// What a call gives: the plainest outcome is the plainest object.
#[derive(IntoPyObject)]
enum Served<'py> {
    Whole(Bound<'py, PyBytes>),
    InPart(InPart<'py>),
}

impl FastPath {
    /// What was answered, and when it was, on the monotonic clock.
    fn answer<'py>(&self, py: Python<'py>, data: &[u8], waited: f64) -> PyResult<(Served<'py>, f64)> {
        let started = Instant::now();
        let now = self.clocks.now(py, started)?;
        let caches = Caches {
            validator: self.verifier.get().map(|verifier| verifier.get().validator()),
            grants: self.grants.get().cache(),
        };
        let mut out = OUT.take();
        out.clear();
        let outcome = self.lane.serve(data, caches, now, &mut out);
        let answers = PyBytes::new(py, &out);
        OUT.set(out);
        if let Some(count) = u32::try_from(outcome.answered).ok().filter(|count| *count > 0) {
            let each = Duration::try_from_secs_f64(waited).unwrap_or_default() + started.elapsed() / count;
            self.lane.figures().record(&outcome, each);
            if let Some(log) = &self.access_log {
                log.get().add_answered(now.unix, outcome.by_endpoint, each);
            }
        }
        if outcome.answered == 1 && outcome.stop == Stop::Done && outcome.renewals.is_empty() {
            return Ok((Served::Whole(answers), now.monotonic));
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
        let in_part = (answers, outcome.answered, outcome.consumed, stop, number, renewals);
        Ok((Served::InPart(in_part), now.monotonic))
    }
}

#[pymethods]
impl FastPath {
    #[new]
    #[allow(clippy::too_many_arguments, reason = "named ones in Python")]
    #[pyo3(signature = (
        grants, *, tenant, client_id, allowed_hosts, bounds, access_log = None, tracing = false, clocks = None
    ))]
    fn new(
        py: Python<'_>,
        grants: Py<TokenCache>,
        tenant: String,
        client_id: String,
        allowed_hosts: Vec<String>,
        bounds: Vec<f64>,
        access_log: Option<Py<AccessLog>>,
        tracing: bool,
        clocks: Option<(Py<PyAny>, Py<PyAny>)>,
    ) -> PyResult<Self> {
        let identity = Identity { tenant, client_id, allowed_hosts };
        let lane = CoreFastPath::new(identity, bounds, tracing, [random_seed(), random_seed()]);
        let clocks = match clocks {
            Some((wall, monotonic)) => Clocks::Given(wall, monotonic),
            None => Clocks::system(py)?,
        };
        Ok(Self { lane, grants, verifier: OnceLock::new(), access_log, clocks })
    }

    /// Introspect with this verifier from now on. The first one stays.
    fn attach(&self, verifier: Py<Validator>) {
        let _ = self.verifier.set(verifier);
    }

    /// Until then tokens of unknown keys are answered here, because nothing fetches keys for them.
    fn refuse_unknown_keys_until(&self, monotonic: f64) {
        self.lane.refuse_unknown_keys_until(monotonic);
    }

    /// Answer what can be answered of the bytes that a connection has.
    #[pyo3(signature = (data, waited = 0.0))]
    fn serve<'py>(&self, py: Python<'py>, data: &[u8], waited: f64) -> PyResult<Served<'py>> {
        Ok(self.answer(py, data, waited)?.0)
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

/// What the transport of one connection gives its bytes to. While the connection is at rest, a plain request is
/// answered here, without a step of Python; everything else is told to the protocol.
#[pyclass(frozen, name = "LaneReceiver", module = "entra_fast._native")]
pub(crate) struct FastPathReceiver {
    lane: Py<FastPath>,
    /// The protocol's way for everything else: takes the bytes, and what the lane said where it was asked.
    otherwise: Py<PyAny>,
    /// The transport's way out, once there is one.
    write: OnceLock<Py<PyAny>>,
    at_rest: AtomicBool,
    answered: AtomicU64,
    /// On the monotonic clock, as bits of a float.
    answered_at: AtomicU64,
}

#[pymethods]
impl FastPathReceiver {
    #[new]
    fn new(lane: Py<FastPath>, otherwise: Py<PyAny>) -> Self {
        let (at_rest, answered, answered_at) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        Self { lane, otherwise, write: OnceLock::new(), at_rest, answered, answered_at }
    }

    /// Write answers there from now on. The first one stays.
    fn connect(&self, write: Py<PyAny>) {
        let _ = self.write.set(write);
    }

    #[getter]
    fn at_rest(&self) -> bool {
        self.at_rest.load(Relaxed)
    }

    #[setter]
    fn set_at_rest(&self, at_rest: bool) {
        self.at_rest.store(at_rest, Relaxed);
    }

    #[getter]
    fn answered_at(&self) -> f64 {
        f64::from_bits(self.answered_at.load(Relaxed))
    }

    #[getter]
    fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    fn data_received(&self, py: Python<'_>, data: &Bound<'_, PyBytes>) -> PyResult<()> {
        let write = self.write.get().filter(|_| self.at_rest.load(Relaxed) && !data.as_bytes().is_empty());
        let Some(write) = write else {
            return self.otherwise.call1(py, (data, py.None())).map(drop);
        };
        match self.lane.get().answer(py, data.as_bytes(), 0.0)? {
            (Served::Whole(answer), monotonic) => {
                write.call1(py, (answer,))?;
                self.answered_at.store(monotonic.to_bits(), Relaxed);
                // The one writer: whoever holds the GIL. So it need not be one step for the processor.
                self.answered.store(self.answered.load(Relaxed) + 1, Relaxed);
                Ok(())
            }
            (served, _) => self.otherwise.call1(py, (data, served)).map(drop),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.otherwise)?;
        self.write.get().map_or(Ok(()), |write| visit.call(write))
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<FastPath>()?;
    module.add_class::<FastPathReceiver>()
}
