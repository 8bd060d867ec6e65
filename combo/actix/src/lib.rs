//! An unmodified actix-web 4 `App` as a tower service over `http` 1.
//!
//! [`ActixService`] lives on one thread, as actix does, and answers there; its futures and bodies are
//! not `Send`. [`ActixThreads`] owns threads with one such service each and is `Send` itself, for use
//! from a multi-threaded runtime. Neither listens, parses HTTP or keeps time: that is for whoever
//! calls.
//!
//! ```
//! use actix_web::{App, web};
//! use combo_actix::ActixService;
//! use http_body_util::{BodyExt, Empty};
//! use tower::ServiceExt;
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//!     let app = || App::new().route("/hello", web::get().to(|| async { "Hello, world!" }));
//!     let service = ActixService::new(app).await?;
//!
//!     let request = http::Request::get("/hello").body(Empty::<bytes::Bytes>::new())?;
//!     let response = service.oneshot(request).await?;
//!     assert_eq!(response.into_body().collect().await?.to_bytes(), "Hello, world!");
//!     Ok(())
//! }
//! ```
//!
//! `examples/hyper.rs` serves an app to a browser.
//!
//! # What travels in extensions
//!
//! | in the extensions of | of type | is |
//! | --- | --- | --- |
//! | the request, for this crate | [`Arrival`] | all that the host knows; taken out |
//! | the request, for this crate | `std::net::SocketAddr` | the peer, if there is no `Arrival` |
//! | the request, for this crate | `hyper::upgrade::OnUpgrade` | the connection, taken out if the request asks for an upgrade |
//! | the app's request | `actix_web::http::Uri` | the URI as it arrived |
//! | the app's request | `http::Extensions` | whatever else the request had, if anything |
//!
//! The app reads its own with `web::ReqData`, or with `HttpRequest::extensions`.
//!
//! # What differs from actix's own server
//!
//! - Whoever parses the HTTP sets its limits and deadlines, answers `Expect` and writes `Date`.
//!   `RequestHead::expect` is always false, `conn_data` and `AppConfig::local_addr` are not known, and
//!   reason phrases and the case of header names are not kept.
//! - `Host` is there in HTTP/2 too.
//! - A response that may have no body has none, though the app gave one. An upgrade is announced only
//!   where there is one. Chunks are not announced to a HEAD, nor sent to a client of HTTP/1.0.
//! - `url_for` and redirects do not know what was stripped from the path.
//! - An app is taken to be ready always: a middleware whose `poll_ready` waits is not waited for.
//! - Websockets need HTTP/1.1, since actix's handshake does.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod glossary;
mod request;
mod response;
mod service;
mod threads;
mod upgrade;

pub use response::Body;
pub use service::{ActixService, Answer, Arrival, BoxError, BuildError, ResponseFuture};
pub use threads::{ActixThreads, SendBody, ThreadsFuture, Unavailable};
