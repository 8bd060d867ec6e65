//! An unmodified actix-web 4 `App` as a tower service over `http` 1.
//!
//! [`ActixService`] lives on one thread, as actix does, and answers there; its futures and bodies are
//! not `Send`. [`ActixThreads`] owns threads with one such service each and is `Send` itself, for use
//! from a multi-threaded runtime. Neither listens, parses HTTP or keeps time: that is for whoever
//! calls.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod glossary;
mod request;
mod response;
mod service;
mod threads;
mod upgrade;

pub use response::Body;
pub use service::{ActixService, Arrival, BoxError, BuildError, ResponseFuture};
pub use threads::{ActixThreads, SendBody, ThreadsFuture, Unavailable};
