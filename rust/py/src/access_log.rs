//! `AccessLog` for Python: collects lines in `entra_core::sidecar::access_log`, and writes pieces of them to standard
//! error.

use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use entra_core::sidecar::access_log::{Line, Lines};
use pyo3::prelude::*;

use crate::wall_clock;

/// The access log of one process.
#[pyclass(frozen, module = "entra_fast._native")]
pub(crate) struct AccessLog(Mutex<Lines>);

impl AccessLog {
    pub(crate) fn add_answered(&self, unix: f64, by_endpoint: [u64; 3], duration: Duration) {
        self.lines().add_answered(unix, by_endpoint, duration, write);
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Directly: what Python has for this copies each piece twice.
fn write(piece: &[u8]) {
    // A log that cannot be written must not fail a request.
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
        self.lines().add(Line { unix: wall_clock(), method, path, status, duration }, write);
    }

    /// Write the lines that wait.
    fn flush(&self) {
        self.lines().flush(write);
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<AccessLog>()
}
