//! The request path, a file per stage, in the order that a request passes them: [`listen`] with [`gate`] and what is
//! [`inherited`], [`tls`] on `sealed`, [`http`], [`answer`] through [`guard`] and [`route`] ([`recent`] is what it still knows), the mount (see
//! `crate::mount`), [`framing`] or [`refusal`]; [`ticket`] goes with a request to the end of its answer. [`haproxy`]
//! and [`proxies`] are what proxies say; for its calls [`grpc`], for theirs [`websocket`] and [`frames`] are there.
//!
//! Around them: [`worker`], one thread with all that requests need; [`mounted`], what answers for a mount there, and
//! [`front`], routing within layers around all mounts; [`sweep`], which ends what is overdue by the marks that
//! [`stream`] and [`body`] leave. What clients may do is in [`limits`]: [`pace`] says who is too slow, over HTTP/2 of
//! each [`exchange`]; [`http2`] sees torn heads, `outgoing` what is not taken, [`memory`] what is left; [`evictions`]
//! counts.

pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod evictions;
pub(crate) mod exchange;
pub(crate) mod frames;
pub(crate) mod framing;
pub(crate) mod front;
pub(crate) mod gate;
pub(crate) mod grpc;
pub(crate) mod guard;
pub(crate) mod haproxy;
pub(crate) mod hsts;
pub(crate) mod http;
pub(crate) mod http2;
pub(crate) mod inherited;
pub(crate) mod limits;
pub(crate) mod listen;
pub(crate) mod memory;
pub(crate) mod mounted;
mod outgoing;
pub(crate) mod pace;
pub(crate) mod proxies;
pub(crate) mod recent;
pub(crate) mod redirecting;
pub(crate) mod refusal;
pub(crate) mod route;
#[cfg(feature = "tls")]
pub(crate) mod sealed;
pub(crate) mod stream;
pub(crate) mod sweep;
pub(crate) mod ticket;
#[cfg(feature = "tls")]
pub(crate) mod tls;
pub(crate) mod websocket;
pub(crate) mod worker;
