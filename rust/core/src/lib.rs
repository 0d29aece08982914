//! The core of `entra_fast`: parse, verify, cache and sign tokens of Microsoft Entra ID.
//!
//! Rules of this crate: no Python, no I/O, no clock, no environment, no logging, no unsafe code. Time is
//! always an argument, so that every expiry can be tested without sleeping. All input may be crafted by an
//! attacker: sizes are bounded before anything is parsed, and no decision depends on anything unverified.
//!
//! Modules depend on those before them only: `error` and `digest`, `jose`, `cache`, `validate`, `sidecar`.
#![forbid(unsafe_code)]

pub mod cache;
pub mod digest;
pub mod error;
pub mod jose;
pub mod sidecar;
pub mod validate;
