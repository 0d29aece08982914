//! What the fuzz targets promise, one module a target: `run` panics when the promise is broken.
//!
//! Each `run` says how the input ended, so that the program `seeds` can show that a target's seeds reach both
//! ends: a target that only ever refuses tests little. Other modules hold what targets share. Nothing here
//! depends on earlier inputs or on chance, or else a crash could not be reproduced.

pub mod claims_json;
pub mod contract;
pub mod fixture;
pub mod key_set;
pub mod roots;
pub mod rsa_differential;
pub mod signing_key;
pub mod strict_json;
pub mod token;
pub mod token_differential;

/// What the core decided about an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was taken.
    Accepted,
    /// It was refused.
    Refused,
}

impl From<bool> for Outcome {
    fn from(accepted: bool) -> Self {
        if accepted { Self::Accepted } else { Self::Refused }
    }
}
