//! Decide whether a token is accepted, and say why.
//!
//! Belongs here: the policy, the checks and their order, the claims of a verified token, and the JSON of an
//! introspection. Does not belong here: error codes and sentences (`error`), keys and signatures (`jose`), eviction
//! (`cache`), HTTP (`sidecar`).

pub mod claims;
pub mod explain;
pub mod introspection;
pub mod policy;
pub mod validator;
pub mod verify;
