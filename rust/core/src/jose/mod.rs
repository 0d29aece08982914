//! JOSE: compact JWS, JSON, algorithms, public and private keys, signatures.
//!
//! Belongs here: what RFC 7515 to 7518 and RFC 8037 describe, and the readers of base64url and JSON that it needs.
//! Does not belong here: which tokens are accepted (`validate`), what is cached (`cache`), HTTP (`sidecar`).

pub mod algorithm;
pub mod base64url;
pub mod confirmation;
pub mod json;
pub mod jwk;
pub mod keyset;
pub mod signature;
pub mod signing_key;
pub mod token;
