//! The core of `entra_fast`: parse, verify, cache and sign tokens of Microsoft Entra ID.
//!
//! Rules of this crate: no Python, no I/O, no clock, no environment, no logging, no unsafe code. Time is
//! always an argument, so that every expiry can be tested without sleeping. All input is taken to be
//! crafted by an attacker: sizes are bounded before anything is parsed, and nothing that has not been
//! verified decides anything.
#![forbid(unsafe_code)]

pub mod access_log;
pub mod algorithm;
pub mod base64url;
pub mod bounded;
mod calendar;
pub mod claims;
pub mod digest;
pub mod error;
pub mod explain;
pub mod fastlane;
pub mod fingerprint;
pub mod grants;
pub mod http1;
pub mod introspection;
pub mod json;
pub mod jwk;
pub mod keyset;
pub mod policy;
pub mod sign;
pub mod signature;
pub mod token;
pub mod validator;
pub mod verify;
