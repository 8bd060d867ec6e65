//! The request path, a file per stage, in the order that a request passes them: [`listen`], [`tls`],
//! [`http`], [`answer`] through [`guard`] and [`route`] ([`recent`] is what it still knows), the mount (see
//! `crate::mount`), [`refusal`]. [`ticket`] goes with a request from its head to the end of its answer.
//!
//! Where proxies stand before us, [`haproxy`] and [`proxies`] are what they say of a connection and of a
//! request. Around them: [`worker`], one thread with everything that requests need; [`sweep`], which ends
//! what is overdue by the marks that [`stream`] and [`body`] leave; [`websocket`], which it has in common
//! with the app that speaks in it; [`frames`], what was said there; [`mounted`], what answers for a mount on a worker; [`front`], routing within the layers around all
//! mounts; [`grpc`], what is different for calls of gRPC.
//!
//! What clients may do is in [`limits`]. It is held by [`gate`] before a worker knows of them, which has an eye
//! on [`memory`]; by the HTTP library; and by the sweep: [`pace`] says who is too slow, over HTTP/2 for each
//! [`exchange`] by itself, where [`http2`] knows whether a head is whole and `outgoing` what a peer has taken.
//! [`evictions`] counts them.

pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod evictions;
pub(crate) mod exchange;
pub(crate) mod frames;
pub(crate) mod front;
pub(crate) mod gate;
pub(crate) mod grpc;
pub(crate) mod guard;
pub(crate) mod haproxy;
pub(crate) mod http;
pub(crate) mod http2;
pub(crate) mod limits;
pub(crate) mod listen;
pub(crate) mod memory;
pub(crate) mod mounted;
mod outgoing;
pub(crate) mod pace;
pub(crate) mod proxies;
pub(crate) mod recent;
pub(crate) mod refusal;
pub(crate) mod route;
pub(crate) mod stream;
pub(crate) mod sweep;
pub(crate) mod ticket;
#[cfg(feature = "tls")]
pub(crate) mod tls;
pub(crate) mod websocket;
pub(crate) mod worker;
