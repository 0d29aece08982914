//! `AccessLog` for Python: collects lines in `entra_core::sidecar::access_log`, and writes pieces of them to standard error.

use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use entra_core::sidecar::access_log::{Line, Lines};
use entra_core::sidecar::http1::Endpoint;
use pyo3::prelude::*;

use crate::wall_clock;

/// The access log of one process.
#[pyclass(frozen, module = "entra_fast._native")]
pub(crate) struct AccessLog(Mutex<Lines>);

impl AccessLog {
    /// A line for each request that the fast lane answered.
    pub(crate) fn add_answered(&self, unix: f64, by_endpoint: [u64; 3], duration: Duration) {
        for (endpoint, count) in Endpoint::ALL.into_iter().zip(by_endpoint) {
            for _ in 0..count {
                self.add_line(Line { unix, method: "POST", path: endpoint.path(), status: 200, duration });
            }
        }
    }

    fn add_line(&self, line: Line<'_>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(line, write);
    }
}

/// Directly: what Python has for this copies each piece twice.
fn write(piece: &[u8]) {
    // Nobody who asks for a token shall suffer because nobody reads the log.
    let _ = std::io::stderr().write_all(piece);
}

#[pymethods]
impl AccessLog {
    #[new]
    #[pyo3(signature = (*, worker = None))]
    fn new(worker: Option<u32>) -> Self {
        Self(Mutex::new(Lines::new(worker)))
    }

    /// A line for one request, as of now.
    fn add(&self, method: &str, path: &str, status: u16, seconds: f64) {
        let duration = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        self.add_line(Line { unix: wall_clock(), method, path, status, duration });
    }

    /// Write what waits.
    fn flush(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush(write);
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<AccessLog>()
}
