//! `FastLane` for Python: converts in, calls `entra_core::fastlane`, converts out.
//!
//! The server is one thread, and an answer takes microseconds, so the GIL is kept.

use std::sync::OnceLock;

use entra_core::fastlane::{Caches, FastLane as CoreFastLane, Identity, Stop};
use entra_core::grants::Now;
use entra_core::http1::Endpoint;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::grants::GrantCache;
use crate::verifier::Verifier;

/// Answers plain requests of one sidecar from its caches.
#[pyclass(frozen, module = "entra_fast._native")]
pub(crate) struct FastLane {
    lane: CoreFastLane,
    grants: Py<GrantCache>,
    verifier: OnceLock<Py<Verifier>>,
}

/// (answers, how many, bytes consumed, why it stopped, its number, renewals) for all but the plainest outcome.
type InPart<'py> = (Bound<'py, PyBytes>, usize, usize, &'static str, usize, Vec<(String, Option<String>)>);

#[derive(IntoPyObject)]
enum Served<'py> {
    Whole(Bound<'py, PyBytes>),
    InPart(InPart<'py>),
}

#[pymethods]
impl FastLane {
    #[new]
    #[pyo3(signature = (grants, *, tenant, client_id, allowed_hosts))]
    fn new(grants: Py<GrantCache>, tenant: String, client_id: String, allowed_hosts: Vec<String>) -> Self {
        let lane = CoreFastLane::new(Identity { tenant, client_id, allowed_hosts });
        Self { lane, grants, verifier: OnceLock::new() }
    }

    /// Introspect with this verifier from now on. The first one stays.
    fn attach(&self, verifier: Py<Verifier>) {
        let _ = self.verifier.set(verifier);
    }

    /// Answer what can be answered of the bytes that a connection has.
    #[pyo3(signature = (data, now, monotonic))]
    fn serve<'py>(&self, py: Python<'py>, data: &[u8], now: f64, monotonic: f64) -> Served<'py> {
        let caches = Caches {
            validator: self.verifier.get().map(|verifier| verifier.get().validator()),
            grants: self.grants.get().cache(),
        };
        let mut out = Vec::new();
        let outcome = self.lane.serve(data, caches, Now { unix: now, monotonic }, &mut out);
        let answers = PyBytes::new(py, &out);
        if outcome.answered == 1 && outcome.stop == Stop::Done && outcome.renewals.is_empty() {
            return Served::Whole(answers);
        }
        let (stop, number) = match outcome.stop {
            Stop::Done => ("done", 0),
            Stop::Partial(needed) => ("partial", needed),
            Stop::Framed(length) => ("framed", length),
            Stop::Unknown => ("unknown", 0),
        };
        let renewals = outcome.renewals.into_iter().map(|renewal| (renewal.target, renewal.subject_token)).collect();
        Served::InPart((answers, outcome.answered, outcome.consumed, stop, number, renewals))
    }

    /// Counts: token, exchange, introspect (requests answered), active, inactive (introspections).
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let figures = self.lane.figures();
        let dict = PyDict::new(py);
        for endpoint in Endpoint::ALL {
            dict.set_item(endpoint.name(), figures.requests(endpoint))?;
        }
        let (active, inactive) = figures.introspections();
        dict.set_item("active", active)?;
        dict.set_item("inactive", inactive)?;
        Ok(dict)
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<FastLane>()
}
