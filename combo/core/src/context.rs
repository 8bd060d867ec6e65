//! What travels with a request, for apps that want all of it: a [`Context`] in its extensions.

use std::{net::SocketAddr, sync::Arc};

use http::{Uri, uri::Scheme};

/// Where a request came from and how it got to the app.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Context {
    /// The connection that it came over.
    pub connection: Arc<Connection>,
    /// The pattern of the mount, as it was said: `/blog`, `admin.example.com/`.
    pub mount: Arc<str>,
    /// The path prefix that the app does not see: `/blog`, or nothing.
    pub prefix: Arc<str>,
    /// The request's URI before the prefix was taken off. Over TLS it has scheme and authority.
    pub original: Uri,
}

impl Context {
    /// A context from its parts.
    #[must_use]
    pub fn new(connection: Arc<Connection>, mount: Arc<str>, prefix: Arc<str>, original: Uri) -> Self {
        Self { connection, mount, prefix, original }
    }
}

/// One accepted connection, as apps may know it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Connection {
    /// The other side.
    pub peer: Peer,
    /// `https` over TLS, `http` otherwise: from the socket, never from the client.
    pub scheme: Scheme,
}

impl Connection {
    /// A connection from its parts.
    #[must_use]
    pub fn new(peer: Peer, scheme: Scheme) -> Self {
        Self { peer, scheme }
    }
}

/// The other side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Peer {
    /// An address and a port.
    Inet(SocketAddr),
    /// A unix socket; its clients have no address.
    Unix,
}

impl Peer {
    /// The address, if the other side has one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Inet(address) => Some(*address),
            Self::Unix => None,
        }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}
