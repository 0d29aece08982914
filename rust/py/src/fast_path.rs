//! `FastPath` and `FastPathReceiver` for Python: convert in, call `entra_core::sidecar`, convert out.
//!
//! The server is one thread, and an answer takes microseconds, so the GIL is kept.

use std::cell::Cell;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use entra_core::cache::token_cache::Now;
use entra_core::sidecar::contract::Endpoint;
use entra_core::sidecar::fast_path::{
    CoolDowns, FastPath as CoreFastPath, Outcome, ProviderFigures, Renewal as CoreRenewal, Stop as CoreStop, Tracing,
};
use entra_core::sidecar::turn::Turn;
use pyo3::exceptions::PyIndexError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::access_log::AccessLog;
use crate::clock::MonotonicClock;
use crate::contract::{CallerCheck, Providers};
use crate::spans::SpanRecorder;
use crate::token_cache::TokenCache;
use crate::validator::Validator;
use crate::{random_seed, wall_clock};

thread_local! {
    /// A buffer for answers that is used again: the fast path stops at `MAX_ANSWERS_BYTES`, so it stays small.
    static OUT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Answers plain requests of one sidecar from its caches.
#[pyclass(frozen, module = "entra_fast._native")]
pub(crate) struct FastPath {
    core: CoreFastPath,
    tokens: Py<TokenCache>,
    access_log: Option<Py<AccessLog>>,
    recorder: OnceLock<Py<SpanRecorder>>,
    clocks: Clocks,
}

/// Where the time comes from.
enum Clocks {
    /// The system's, read without a step of Python.
    System(MonotonicClock),
    /// Those of a test: (wall, monotonic).
    Given(Py<PyAny>, Py<PyAny>),
}

impl Clocks {
    fn new(py: Python<'_>, given: Option<(Py<PyAny>, Py<PyAny>)>) -> PyResult<Self> {
        Ok(match given {
            Some((wall, monotonic)) => Self::Given(wall, monotonic),
            None => Self::System(MonotonicClock::new(py)?),
        })
    }

    fn now(&self, py: Python<'_>) -> PyResult<Now> {
        Ok(match self {
            Self::System(monotonic) => Now { unix: wall_clock(), monotonic: monotonic.now() },
            Self::Given(wall, monotonic) => {
                Now { unix: wall.call0(py)?.extract(py)?, monotonic: monotonic.call0(py)?.extract(py)? }
            }
        })
    }
}

/// Why a call stopped.
#[pyclass(frozen, eq, hash, rename_all = "SCREAMING_SNAKE_CASE", module = "entra_fast._native")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stop {
    Done,
    Partial,
    Framed,
    KeyNeeded,
    Unknown,
    Full,
}

/// (position of the provider, target, the user's token, resources, authorization details).
type Renewal = (usize, String, Option<String>, Vec<String>, Option<String>);

/// What a call did.
#[pyclass(frozen, get_all, module = "entra_fast._native")]
pub(crate) struct Served {
    answers: Py<PyBytes>,
    answered: u64,
    consumed: usize,
    stop: Stop,
    length: usize,
    provider: usize,
    renewals: Vec<Renewal>,
    turn_due: bool,
}

impl Served {
    fn new(answers: Bound<'_, PyBytes>, outcome: Outcome) -> Self {
        let (stop, length, provider) = match outcome.stop {
            CoreStop::Done => (Stop::Done, 0, 0),
            CoreStop::Partial(length) => (Stop::Partial, length, 0),
            CoreStop::Framed(length) => (Stop::Framed, length, 0),
            CoreStop::KeyNeeded { length, provider } => (Stop::KeyNeeded, length, provider),
            CoreStop::Unknown => (Stop::Unknown, 0, 0),
            CoreStop::Full => (Stop::Full, 0, 0),
        };
        let renewals = outcome.renewals.into_iter().map(in_python).collect();
        let Outcome { answered, consumed, turn_due, .. } = outcome;
        Self { answers: answers.unbind(), answered, consumed, stop, length, provider, renewals, turn_due }
    }
}

fn in_python(renewal: CoreRenewal) -> Renewal {
    let CoreRenewal { provider, target, subject_token, resources, authorization_details } = renewal;
    (provider, target, subject_token, resources, authorization_details)
}

impl FastPath {
    fn figures_of(&self, provider: usize) -> PyResult<&ProviderFigures> {
        self.core.figures_of(provider).ok_or_else(|| PyIndexError::new_err("no provider has this position"))
    }

    /// The answers, the outcome, and the time of the call on the monotonic clock.
    fn answer<'py>(&self, py: Python<'py>, data: &[u8], waited: f64) -> PyResult<(Bound<'py, PyBytes>, Outcome, f64)> {
        let started = Instant::now();
        let now = self.clocks.now(py)?;
        let mut out = OUT.take();
        out.clear();
        let mut outcome = self.core.serve(data, self.tokens.get().core(), now, &mut out);
        let answers = PyBytes::new(py, &out);
        OUT.set(out);
        let each = self.core.figures().record(&outcome, waited, started.elapsed());
        if let Some(log) = &self.access_log {
            log.get().add_answered(now.unix, outcome.by_endpoint, each);
        }
        if !outcome.spans.is_empty()
            && let Some(recorder) = self.recorder.get()
        {
            recorder.get().record(py, std::mem::take(&mut outcome.spans), now.unix - waited, each);
        }
        Ok((answers, outcome, now.monotonic))
    }
}

#[pymethods]
impl FastPath {
    #[new]
    #[allow(clippy::too_many_arguments, reason = "named ones in Python")]
    #[pyo3(signature = (
        tokens, callers, providers, *, bounds, access_log = None, clocks = None
    ))]
    fn new(
        py: Python<'_>,
        tokens: Py<TokenCache>,
        callers: &CallerCheck,
        providers: &Providers,
        bounds: Vec<f64>,
        access_log: Option<Py<AccessLog>>,
        clocks: Option<(Py<PyAny>, Py<PyAny>)>,
    ) -> PyResult<Self> {
        let (providers, callers) = (providers.core().clone(), callers.core().clone());
        let core = CoreFastPath::new(providers, callers, bounds, [random_seed(), random_seed()]);
        Ok(Self { core, tokens, access_log, recorder: OnceLock::new(), clocks: Clocks::new(py, clocks)? })
    }

    /// Introspect tokens of a provider with this validator from now on. The first one stays.
    fn attach(&self, provider: usize, validator: &Validator) {
        self.core.attach(provider, Arc::clone(validator.core()));
    }

    /// Until then tokens that the known keys do not verify are answered here, because no keys are fetched for them.
    #[pyo3(signature = (provider, *, unknown_key, failed_signature))]
    fn set_cool_downs(&self, provider: usize, unknown_key: f64, failed_signature: f64) {
        self.core.set_cool_downs(provider, CoolDowns { unknown_key, failed_signature });
    }

    /// Record the spans of requests from now on. The first recorder stays.
    fn record_spans(&self, recorder: Py<SpanRecorder>) {
        let core = Arc::clone(recorder.get().core());
        let _ = self.recorder.set(recorder);
        self.core.trace(Tracing::Recorded(core));
    }

    /// Leave requests that may need a span to the slow path from now on.
    fn leave_spans(&self, propagates: bool) {
        self.core.trace(Tracing::Left { propagates });
    }

    /// A new turn begins: the event loop has been through its other work.
    fn begin_turn(&self) {
        self.core.begin_turn();
    }

    /// Whether the turn's verifications are used up, so that tokens not seen before have to wait for the next one.
    #[getter]
    fn turn_is_over(&self) -> bool {
        self.core.turn_is_over()
    }

    /// Answer what can be answered of the bytes that a connection has.
    #[pyo3(signature = (data, waited = 0.0))]
    fn serve(&self, py: Python<'_>, data: &[u8], waited: f64) -> PyResult<Served> {
        self.answer(py, data, waited).map(|(answers, outcome, _)| Served::new(answers, outcome))
    }

    /// By endpoint (counts in the buckets of `bounds` and one more, seconds in all).
    fn durations<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for endpoint in Endpoint::ALL {
            dict.set_item(endpoint.name(), self.core.figures().durations(endpoint))?;
        }
        Ok(dict)
    }

    /// By endpoint: how many requests for a provider were answered.
    fn answered<'py>(&self, py: Python<'py>, provider: usize) -> PyResult<Bound<'py, PyDict>> {
        let (figures, dict) = (self.figures_of(provider)?, PyDict::new(py));
        for endpoint in Endpoint::ALL {
            dict.set_item(endpoint.name(), figures.answered(endpoint))?;
        }
        Ok(dict)
    }

    /// How many introspections for a provider were answered with an active token.
    fn active(&self, provider: usize) -> PyResult<u64> {
        self.figures_of(provider).map(ProviderFigures::active)
    }

    /// By error code: how many introspections were answered with an inactive token.
    fn rejections<'py>(&self, py: Python<'py>, provider: usize) -> PyResult<Bound<'py, PyDict>> {
        let (figures, dict) = (self.figures_of(provider)?, PyDict::new(py));
        for (code, count) in figures.rejections().filter(|(_, count)| *count > 0) {
            dict.set_item(code, count)?;
        }
        Ok(dict)
    }

    /// By error code: (what was expected, what came) of one token that was rejected since the last call.
    fn take_examples<'py>(&self, py: Python<'py>, provider: usize) -> PyResult<Bound<'py, PyDict>> {
        let (figures, dict) = (self.figures_of(provider)?, PyDict::new(py));
        for error in figures.take_examples() {
            dict.set_item(error.code(), (error.expected(), error.actual()))?;
        }
        Ok(dict)
    }
}

/// The receiver of the bytes of one connection's transport.
#[pyclass(frozen, module = "entra_fast._native")]
pub(crate) struct FastPathReceiver {
    fast_path: Py<FastPath>,
    /// The protocol's method for everything that is not answered here.
    otherwise: Py<PyAny>,
    /// The transport's method, once there is a transport.
    write: OnceLock<Py<PyAny>>,
    turn: Turn,
}

#[pymethods]
impl FastPathReceiver {
    #[new]
    fn new(fast_path: Py<FastPath>, otherwise: Py<PyAny>) -> Self {
        Self { fast_path, otherwise, write: OnceLock::new(), turn: Turn::default() }
    }

    /// Write answers there from now on. The first one stays.
    fn connect(&self, write: Py<PyAny>) {
        let _ = self.write.set(write);
    }

    #[getter]
    fn at_rest(&self) -> bool {
        self.turn.is_at_rest()
    }

    #[setter]
    fn set_at_rest(&self, at_rest: bool) {
        self.turn.set_at_rest(at_rest);
    }

    #[getter]
    fn answered_at(&self) -> f64 {
        self.turn.answered_at()
    }

    #[getter]
    fn answered(&self) -> u64 {
        self.turn.answered()
    }

    fn data_received(&self, py: Python<'_>, data: &Bound<'_, PyBytes>) -> PyResult<()> {
        let write = self.write.get().filter(|_| self.turn.is_fast_paths(data.as_bytes()));
        let Some(write) = write else {
            return self.otherwise.call1(py, (data, py.None())).map(drop);
        };
        let (answers, outcome, monotonic) = self.fast_path.get().answer(py, data.as_bytes(), 0.0)?;
        if self.turn.completes(&outcome, monotonic) {
            return write.call1(py, (answers,)).map(drop);
        }
        self.otherwise.call1(py, (data, Served::new(answers, outcome))).map(drop)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.otherwise)?;
        self.write.get().map_or(Ok(()), |write| visit.call(write))
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<FastPath>()?;
    module.add_class::<FastPathReceiver>()?;
    module.add_class::<Served>()?;
    module.add_class::<Stop>()
}
