//! The request path, a file per stage, in the order that a request passes them: [`listen`], [`tls`],
//! [`http`], [`answer`] through [`guard`] and [`route`] ([`recent`] is what it still knows), the mount (see
//! `crate::mount`), [`refusal`]. [`ticket`] goes with a request from its head to the end of its answer.
//!
//! Where proxies stand before us, [`haproxy`] and [`proxies`] are what they say of a connection and of a
//! request. Around them: [`worker`], one thread with everything that requests need; [`sweep`], which ends
//! what is overdue by the marks that [`stream`] and [`body`] leave; [`websocket`], which it has in common
//! with the app that speaks in it; [`frames`], what was said there; [`limits`], what clients may take;
//! [`mounted`], what answers for a mount on a worker; [`front`], routing within the layers around all
//! mounts; [`grpc`], what is different for calls of gRPC.

pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod frames;
pub(crate) mod front;
pub(crate) mod grpc;
pub(crate) mod guard;
pub(crate) mod haproxy;
pub(crate) mod http;
pub(crate) mod limits;
pub(crate) mod listen;
pub(crate) mod mounted;
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
