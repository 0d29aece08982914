//! Bounded caches and the keys of their entries.
//!
//! Belongs here: limits and eviction, the cache of acquired tokens, fingerprints. Does not belong here:
//! whether a token is accepted (`validate`), how one is acquired, clocks.

pub mod fingerprint;
pub mod s3_fifo;
pub mod token_cache;
