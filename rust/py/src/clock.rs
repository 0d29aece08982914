//! The clock on which lifetimes run, read without a step of Python.
//!
//! Belongs here: the same clock as that of `entra_fast._clock`, so that both may compare their times. Does not belong
//! here: the wall clock.

use pyo3::prelude::*;

/// Linux's `CLOCK_BOOTTIME`: it never jumps, and goes on while the machine is suspended. `std::time::Instant` stands
/// still then.
#[cfg(target_os = "linux")]
#[derive(Clone, Copy)]
pub(crate) struct MonotonicClock;

#[cfg(target_os = "linux")]
impl MonotonicClock {
    #[allow(clippy::unnecessary_wraps, reason = "other systems ask Python")]
    pub(crate) fn new(_: Python<'_>) -> PyResult<Self> {
        Ok(Self)
    }

    /// Seconds.
    #[allow(clippy::unused_self, reason = "other systems have an origin")]
    pub(crate) fn now(self) -> f64 {
        use rustix::time::{ClockId, clock_gettime};

        let time = clock_gettime(ClockId::Boottime);
        #[allow(clippy::cast_precision_loss, reason = "an uptime in seconds, and less than 10^9")]
        let (seconds, fraction) = (time.tv_sec as f64, time.tv_nsec as f64 / 1e9);
        seconds + fraction
    }
}

/// Where there is no such clock, Python's monotonic one. It showed `monotonic` at `origin`, and both are the same clock
/// of the system.
#[cfg(not(target_os = "linux"))]
#[derive(Clone, Copy)]
pub(crate) struct MonotonicClock {
    origin: std::time::Instant,
    monotonic: f64,
}

#[cfg(not(target_os = "linux"))]
impl MonotonicClock {
    pub(crate) fn new(py: Python<'_>) -> PyResult<Self> {
        let monotonic = py.import("time")?.call_method0("monotonic")?.extract()?;
        Ok(Self { origin: std::time::Instant::now(), monotonic })
    }

    /// Seconds.
    pub(crate) fn now(self) -> f64 {
        self.monotonic + self.origin.elapsed().as_secs_f64()
    }
}

/// Seconds, by the clock of the fast path: for comparing it with `entra_fast._clock.monotonic`.
#[pyfunction]
fn monotonic_clock(py: Python<'_>) -> PyResult<f64> {
    MonotonicClock::new(py).map(MonotonicClock::now)
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(monotonic_clock, module)?)
}
