//! Which library verifies signatures in this process, for Python: `entra_core::jose::confirmation`.

use std::sync::OnceLock;

use entra_core::jose::algorithm::Algorithm;
use entra_core::jose::confirmation::Confirmation;
use entra_core::jose::signature::has_fast_library;
use pyo3::prelude::*;
use pyo3::types::PyDict;

static CALLBACK: OnceLock<Py<PyAny>> = OnceLock::new();

/// What AWS-LC has confirmed in this process.
#[pyfunction]
fn signature_figures(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let figures = Confirmation::of_process().figures();
    let dict = PyDict::new(py);
    dict.set_item("agreed", figures.agreed)?;
    dict.set_item("disagreed", figures.disagreed)?;
    dict.set_item("fast", figures.trusted && has_fast_library(Algorithm::Rs256))?;
    Ok(dict)
}

/// Verify with AWS-LC alone from now on, in this process.
#[pyfunction]
fn distrust_fast_signatures() {
    Confirmation::of_process().distrust();
}

/// Call this once when the fast library is no longer trusted, on the thread that found the disagreement. The first
/// callback stays.
#[pyfunction]
fn when_fast_signatures_are_distrusted(callback: Py<PyAny>) {
    if CALLBACK.set(callback).is_ok() {
        Confirmation::of_process().when_distrusted(tell);
    }
}

fn tell() {
    // Not while the interpreter shuts down: then there is no one left to notify.
    let _ = Python::try_attach(|py| {
        if let Some(Err(error)) = CALLBACK.get().map(|callback| callback.call0(py)) {
            error.write_unraisable(py, None);
        }
    });
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(signature_figures, module)?)?;
    module.add_function(wrap_pyfunction!(distrust_fast_signatures, module)?)?;
    module.add_function(wrap_pyfunction!(when_fast_signatures_are_distrusted, module)?)
}
