//! The HTTP interface of the sidecar, without sockets: bytes in, bytes out.
//!
//! Belongs here: the contract of the endpoints, recognising requests, the fast path that answers them from the caches,
//! which of them handles a connection's bytes, the access log, and the spans of a trace. Does not belong here: sockets, the slow path,
//! validation (`validate`), caching (`cache`).

pub mod access_log;
pub mod contract;
pub mod fast_path;
pub mod head;
pub mod http1;
mod http_date;
pub mod otlp;
pub mod providers;
pub mod spans;
pub mod trace_context;
pub mod turn;
