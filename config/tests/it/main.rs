//! The whole thing over real sockets, and the real binary: one file per subject.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

/// The real binary, as a process of its own.
mod child;
/// An HTTP/2 client.
mod http2;
/// Logs, and waiting for a line.
mod lines;
/// Apps that tell what they see.
mod mirror;
/// A running deployment for one test.
mod site;
/// A client that sends any bytes.
mod wire;

/// Certificates ordered from a real authority.
#[cfg(feature = "outside")]
mod acme;
/// What apps are made of, behind a prefix.
mod apps;
/// An authority that says when to renew, and when to come again.
mod authority;
/// Files that are mounted from elsewhere.
mod bound;
/// Certificates of a folder, and handshakes with them.
mod certs;
/// Clients that are slow, rude or gone.
mod clients;
/// Jobs that are commands, block, or wait for files.
mod commands;
/// One mount at a time: maintenance, pauses, swaps, and what is counted of each.
mod control;
/// Where servers differ.
mod corners;
/// Running out of file descriptors.
mod descriptors;
/// Apps that are told of a drain, and what is neither request nor answer in one.
mod drain;
/// Calls of gRPC.
mod grpc;
/// What no app may see.
mod guard;
/// A real HAProxy in front.
#[cfg(feature = "outside")]
mod haproxy;
/// What leads to https, and what is said there.
mod https;
/// Sockets that the process is started with.
mod inherited;
/// Jobs and the files that they write.
mod jobs;
/// A process that is killed with -9.
mod killed;
/// The commands about jobs, and the ledger.
mod ledger;
/// How much one client may have, and how slowly.
mod limits;
/// Apps that misbehave.
mod misbehaving;
/// What the service manager is told.
mod notify;
/// What is said of a mount.
mod options;
/// Programs from outside.
#[cfg(feature = "outside")]
mod outside;
/// Mounts on threads of their own.
mod own_threads;
/// Apps that panic.
mod panics;
/// Which app answers what, and what it sees of it.
mod prefix;
/// What proxies say of others, and whom they are believed.
mod proxies;
/// What a lint of HTTP says of files.
#[cfg(feature = "outside")]
mod redbot;
/// Services of other frameworks, as the examples mount them.
mod services;
/// A disk that does not answer.
#[cfg(feature = "outside")]
mod stalled;
/// Starting, or not; endpoints; the command line.
mod start;
/// Stopping, by signals and by command.
mod stop;
/// Bodies that come bit by bit.
mod streaming;
/// What the test suites of other servers of files hold.
mod suites;
/// System calls.
#[cfg(feature = "outside")]
mod syscalls;
/// What clients and a scanner from outside say of TLS.
#[cfg(feature = "outside")]
mod tls;
/// Connections that become something else.
mod upgrades;
/// Root that becomes a user.
mod user;
/// Websockets.
mod websocket;
/// Threads that serve.
mod workers;
