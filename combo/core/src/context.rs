//! What travels with a request, for apps that want all of it: a [`Context`] in its extensions.

use std::{net::SocketAddr, sync::Arc};

use http::{Method, Uri, uri::Scheme};

use crate::{draining::Draining, pattern::Pattern};

/// Where a request came from and how it got to the app. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connection: Arc<Connection>,
    site: Arc<Site>,
    method: Method,
    original: Uri,
    draining: Draining,
}

impl Context {
    /// A context from its parts.
    #[must_use]
    pub fn new(
        connection: Arc<Connection>,
        site: Arc<Site>,
        method: Method,
        original: Uri,
        draining: Draining,
    ) -> Self {
        Self(Arc::new(Inner { connection, site, method, original, draining }))
    }

    /// The connection that the request came over.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.0.connection
    }

    /// Where the app is mounted.
    #[must_use]
    pub fn site(&self) -> &Site {
        &self.0.site
    }

    /// The request's method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.0.method
    }

    /// The request's URI before the prefix was taken off. Over TLS it has scheme and authority.
    #[must_use]
    pub fn original(&self) -> &Uri {
        &self.0.original
    }

    /// The drain of the combo that serves it: to be waited for by what goes on after its head.
    #[must_use]
    pub fn draining(&self) -> &Draining {
        &self.0.draining
    }
}

/// Where a target is mounted. The default is nowhere: before all mounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Site {
    /// The pattern in normal form: `/blog`, `admin.example.com/`.
    pub pattern: String,
    /// The path prefix that belongs to the mount: `/blog`, or nothing.
    pub prefix: String,
}

impl Site {
    /// The site of a pattern.
    #[must_use]
    pub fn new(pattern: &Pattern) -> Self {
        Self { pattern: pattern.to_string(), prefix: pattern.prefix() }
    }
}

/// One accepted connection, as apps may know it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Connection {
    /// The other side.
    pub peer: Peer,
    /// `https` over TLS, `http` otherwise: from the socket, or from a trusted proxy, never from the
    /// client.
    pub scheme: Scheme,
    /// What was agreed upon with TLS, where the combo itself ends it.
    pub tls: Option<Tls>,
    /// Who is at the other end of a unix socket.
    pub credentials: Option<Credentials>,
    /// Where it arrived, if that has an address.
    pub local: Option<SocketAddr>,
}

impl Connection {
    /// A connection from its parts.
    #[must_use]
    pub fn new(peer: Peer, scheme: Scheme) -> Self {
        Self { peer, scheme, tls: None, credentials: None, local: None }
    }
}

/// What was agreed upon in a TLS handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tls {
    /// The host that the client asked for (SNI, RFC 6066, section 3).
    pub server_name: Option<String>,
    /// The protocol that was agreed upon (ALPN, RFC 7301): `h2`, `http/1.1`.
    pub alpn: Option<String>,
    /// `TLSv1_2` or `TLSv1_3`.
    pub version: Option<String>,
    /// The cipher suite, as `TLS13_AES_256_GCM_SHA384`.
    pub cipher_suite: Option<String>,
    /// The subject of the certificate that the client has shown, if it has: verified, as RFC 4514 writes it, the most
    /// specific part first: `CN=Ann,O=Example`.
    pub client_subject: Option<String>,
    /// The other names in that certificate: mail addresses, hosts, URIs, IP addresses.
    pub client_names: Vec<String>,
    /// The client's certificate and its chain, DER, if it has shown one.
    pub client_certificates: Vec<Vec<u8>>,
}

/// The process at the other end of a unix socket, as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Its number, if it is in sight.
    pub process: Option<i32>,
    /// Its user.
    pub user: u32,
    /// Its group.
    pub group: u32,
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
