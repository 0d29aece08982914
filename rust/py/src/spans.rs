//! `SpanRecorder` for Python: keeps the spans of the fast path in `entra_core::sidecar::spans`, and gives them out as the
//! bytes of an export.
//!
//! The GIL is held while spans move in and out of the queue, so its lock never waits, and is released while they are
//! encoded.

use std::sync::Arc;
use std::time::Duration;

use entra_core::sidecar::otlp::Encoder;
use entra_core::sidecar::spans::{Recorder, Sampler, Span};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// The spans of one fast path.
#[pyclass(frozen, module = "entra_fast._native")]
pub(crate) struct SpanRecorder {
    core: Arc<Recorder>,
    encoder: Encoder,
    batch_is_full: Py<PyAny>,
}

impl SpanRecorder {
    pub(crate) fn core(&self) -> &Arc<Recorder> {
        &self.core
    }

    /// `unix`: when the requests of these spans began, in seconds. Each took `duration`.
    pub(crate) fn record(&self, py: Python<'_>, spans: Vec<Span>, unix: f64, duration: Duration) {
        let start = Duration::try_from_secs_f64(unix).unwrap_or_default();
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if self.core.record(spans, nanoseconds(start), nanoseconds(start + duration)) {
            // A thread that is not woken must not fail a request.
            let _ = self.batch_is_full.call0(py);
        }
    }
}

#[pymethods]
impl SpanRecorder {
    #[new]
    #[allow(clippy::too_many_arguments, reason = "named ones in Python")]
    #[pyo3(signature = (
        providers, *, parent_based, bound, propagates, queue, batch, resource, scope, max_attributes, max_characters,
        batch_is_full
    ))]
    fn new(
        providers: Vec<String>,
        parent_based: bool,
        bound: u128,
        propagates: bool,
        queue: usize,
        batch: usize,
        resource: Vec<u8>,
        scope: Vec<u8>,
        max_attributes: Option<usize>,
        max_characters: Option<usize>,
        batch_is_full: Py<PyAny>,
    ) -> Self {
        let max_attributes = max_attributes.unwrap_or(usize::MAX);
        let max_characters = max_characters.unwrap_or(usize::MAX);
        Self {
            core: Arc::new(Recorder::new(Sampler { parent_based, bound }, propagates, queue, batch)),
            encoder: Encoder { resource, scope, providers, max_attributes, max_characters },
            batch_is_full,
        }
    }

    /// The next export and how many spans it has; None if none wait.
    fn take<'py>(&self, py: Python<'py>) -> Option<(Bound<'py, PyBytes>, usize)> {
        let spans = self.core.take();
        let message = (!spans.is_empty()).then(|| py.detach(|| self.encoder.encode(&spans)))?;
        Some((PyBytes::new(py, &message), spans.len()))
    }

    #[getter]
    fn dropped(&self) -> u64 {
        self.core.dropped()
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<SpanRecorder>()
}
