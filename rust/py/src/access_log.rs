//! `AccessLog` for Python: collects lines in `entra_core::access_log`, and hands pieces of them to be written.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use entra_core::access_log::{Line, Lines};
use entra_core::http1::Endpoint;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::wall_clock;

/// The access log of one process.
#[pyclass(frozen, module = "entra_fast._native")]
pub(crate) struct AccessLog {
    lines: Mutex<Lines>,
    write: Py<PyAny>,
}

impl AccessLog {
    /// A line for each request that the fast lane answered.
    pub(crate) fn add_answered(
        &self,
        py: Python<'_>,
        unix: f64,
        by_endpoint: [u64; 3],
        duration: Duration,
    ) -> PyResult<()> {
        for (endpoint, count) in Endpoint::ALL.into_iter().zip(by_endpoint) {
            for _ in 0..count {
                self.add_line(py, Line { unix, method: "POST", path: endpoint.path(), status: 200, duration })?;
            }
        }
        Ok(())
    }

    fn add_line(&self, py: Python<'_>, line: Line<'_>) -> PyResult<()> {
        let piece = self.lines.lock().unwrap_or_else(PoisonError::into_inner).add(line);
        piece.map_or(Ok(()), |piece| self.write(py, &piece))
    }

    fn write(&self, py: Python<'_>, piece: &[u8]) -> PyResult<()> {
        self.write.call1(py, (PyBytes::new(py, piece),)).map(drop)
    }
}

#[pymethods]
impl AccessLog {
    #[new]
    #[pyo3(signature = (write, *, worker = None))]
    fn new(write: Py<PyAny>, worker: Option<u32>) -> Self {
        Self { lines: Mutex::new(Lines::new(worker)), write }
    }

    /// A line for one request, as of now.
    fn add(&self, py: Python<'_>, method: &str, path: &str, status: u16, seconds: f64) -> PyResult<()> {
        let duration = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        self.add_line(py, Line { unix: wall_clock(), method, path, status, duration })
    }

    /// Write what waits.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        let waiting = self.lines.lock().unwrap_or_else(PoisonError::into_inner).take();
        if waiting.is_empty() { Ok(()) } else { self.write(py, &waiting) }
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<AccessLog>()
}
