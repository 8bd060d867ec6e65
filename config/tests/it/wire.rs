//! A client that sends the bytes that it is told to, and reads what comes back, with a deadline.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::{linux::net::SocketAddrExt, unix::net::UnixStream},
    path::Path,
    sync::Arc,
    time::Instant,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::site::{PATIENCE, eventually, pair};

/// One connection.
pub(crate) struct Wire {
    io: Io,
    /// What has been read and not been asked for yet.
    ahead: Vec<u8>,
}

enum Io {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// What a TLS client offers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Alpn {
    Http1,
    Http2,
}

/// How a connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Closed,
    Reset,
}

/// A response.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The body came to its own end, not to that of the connection or stream.
    pub(crate) whole: bool,
}

/// A request without a body.
pub(crate) fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n")
}

/// A request with one.
pub(crate) fn post(target: &str, body: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Trusts the certificate of the sites.
pub(crate) fn tls(alpn: Alpn) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let cert = CertificateDer::from_pem_slice(pair().1.as_bytes()).expect("a certificate");
    roots.add(cert).expect("a certificate that can be trusted");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.expect("versions").with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = match alpn {
        Alpn::Http1 => vec![b"http/1.1".to_vec()],
        Alpn::Http2 => vec![b"h2".to_vec()],
    };
    config
}

impl Wire {
    pub(crate) fn tcp(address: SocketAddr) -> Self {
        let socket = TcpStream::connect_timeout(&address, PATIENCE).expect("a connection");
        socket.set_nodelay(true).expect("an open socket");
        Self::new(Io::Tcp(socket))
    }

    pub(crate) fn unix(path: &Path) -> Self {
        Self::new(Io::Unix(UnixStream::connect(path).expect("a connection")))
    }

    /// A unix socket that is no file.
    pub(crate) fn abstract_unix(name: &str) -> Self {
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name).expect("a name");
        Self::new(Io::Unix(UnixStream::connect_addr(&address).expect("a connection")))
    }

    pub(crate) fn tls(address: SocketAddr, alpn: Alpn) -> Self {
        let name = "localhost".try_into().expect("a name");
        let connection = ClientConnection::new(Arc::new(tls(alpn)), name).expect("a client");
        let socket = TcpStream::connect_timeout(&address, PATIENCE).expect("a connection");
        Self::new(Io::Tls(Box::new(StreamOwned::new(connection, socket))))
    }

    fn new(io: Io) -> Self {
        let wire = Self { io, ahead: Vec::new() };
        match &wire.io {
            Io::Unix(socket) => socket.set_write_timeout(Some(PATIENCE)),
            Io::Tcp(_) | Io::Tls(_) => wire.socket().set_write_timeout(Some(PATIENCE)),
        }
        .expect("an open socket");
        wire
    }

    /// The socket under it.
    pub(crate) fn socket(&self) -> &TcpStream {
        match &self.io {
            Io::Tcp(socket) => socket,
            Io::Tls(stream) => &stream.sock,
            Io::Unix(_) => panic!("it is a unix socket"),
        }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("it can be sent");
    }

    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        match &mut self.io {
            Io::Tcp(socket) => socket.write_all(bytes.as_ref()),
            Io::Unix(socket) => socket.write_all(bytes.as_ref()),
            Io::Tls(stream) => stream.write_all(bytes.as_ref()).and_then(|()| stream.flush()),
        }
    }

    /// Sends a request and reads its answer.
    pub(crate) fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request);
        self.answer()
    }

    /// Sends no more, and says so.
    pub(crate) fn finish(&mut self) {
        match &mut self.io {
            Io::Tcp(socket) => socket.shutdown(Shutdown::Write),
            Io::Unix(socket) => socket.shutdown(Shutdown::Write),
            Io::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.flush().and_then(|()| stream.sock.shutdown(Shutdown::Write))
            }
        }
        .expect("an open socket");
    }

    /// Goes away without a word: the other side gets a reset.
    pub(crate) fn abort(self) {
        let socket = socket2::SockRef::from(self.socket());
        socket.set_linger(Some(std::time::Duration::ZERO)).expect("an open socket");
    }

    /// Reads some more; 0 at the end.
    fn more(&mut self, until: Instant) -> io::Result<usize> {
        let left = until.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "nothing more comes; so far {:?}", String::from_utf8_lossy(&self.ahead));
        let mut bytes = [0; 1 << 16];
        let read = match &mut self.io {
            Io::Tcp(socket) => {
                socket.set_read_timeout(Some(left))?;
                socket.read(&mut bytes)
            }
            Io::Unix(socket) => {
                socket.set_read_timeout(Some(left))?;
                socket.read(&mut bytes)
            }
            Io::Tls(stream) => {
                stream.sock.set_read_timeout(Some(left))?;
                stream.read(&mut bytes)
            }
        };
        match read {
            Ok(read) => {
                self.ahead.extend_from_slice(&bytes[..read]);
                Ok(read)
            }
            // The deadline is looked at above.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.more(until),
            // Over TLS this is an end without its alert.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Reads until these bytes have come. What was read stays to be read.
    pub(crate) fn until(&mut self, wanted: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.ahead.windows(wanted.len()).any(|bytes| bytes == wanted.as_bytes()) {
            let read = self.more(until).expect("the connection goes on");
            assert!(read > 0, "no {wanted:?} before the end: {:?}", String::from_utf8_lossy(&self.ahead));
        }
    }

    /// Reads until at least so many bytes have come, and forgets them.
    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        let until = Instant::now() + PATIENCE;
        while self.ahead.len() < count {
            assert!(self.more(until).expect("the connection goes on") > 0, "no {count} bytes before the end");
        }
        self.ahead.drain(..count).collect()
    }

    /// Waits for a head, and leaves it to be read. Nothing if the connection ends before.
    pub(crate) fn coming(&mut self) -> Option<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(end) = self.ahead.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                return Some(String::from_utf8(self.ahead[..end + 4].to_vec()).expect("a head in text"));
            }
            if !matches!(self.more(until), Ok(1..)) {
                return None;
            }
        }
    }

    /// Reads a head and no more.
    pub(crate) fn head(&mut self) -> String {
        self.until("\r\n\r\n");
        let end = self.ahead.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("it has come") + 4;
        String::from_utf8(self.ahead.drain(..end).collect()).expect("a head in text")
    }

    /// Reads to the end of the connection.
    pub(crate) fn rest(&mut self) -> (Vec<u8>, End) {
        let until = Instant::now() + PATIENCE;
        let end = loop {
            match self.more(until) {
                Ok(0) => break End::Closed,
                Ok(_) => {}
                Err(_) => break End::Reset,
            }
        };
        (std::mem::take(&mut self.ahead), end)
    }

    /// Reads to the end of the connection, and keeps nothing of it.
    pub(crate) fn end(&mut self) -> End {
        let until = Instant::now() + PATIENCE;
        loop {
            self.ahead.clear();
            match self.more(until) {
                Ok(0) => return End::Closed,
                Ok(_) => {}
                Err(_) => return End::Reset,
            }
        }
    }

    /// Reads one response.
    pub(crate) fn answer(&mut self) -> Answer {
        self.try_answer().unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&self.ahead)))
    }

    /// Reads one response, or `None` if the connection ends before its head has come.
    pub(crate) fn try_answer(&mut self) -> Option<Answer> {
        let until = Instant::now() + PATIENCE;
        let mut ended = false;
        loop {
            if let Some((answer, length)) = parsed(&self.ahead, ended) {
                drop(self.ahead.drain(..length));
                return Some(answer);
            }
            if ended {
                return None;
            }
            ended = !matches!(self.more(until), Ok(1..));
        }
    }

    /// Waits until the other side has read everything that was sent.
    pub(crate) fn until_read(&self) {
        let (client, server) = (self.socket().local_addr(), self.socket().peer_addr());
        let (client, server) = (client.expect("an address"), server.expect("an address"));
        eventually("the server reads", || (unread(server, client) == 0).then_some(()));
    }
}

/// How many bytes wait at the socket of this process or another that has these addresses.
pub(crate) fn unread(here: SocketAddr, there: SocketAddr) -> u64 {
    let hex = |address: SocketAddr| match address {
        SocketAddr::V4(v4) => format!("{:08X}:{:04X}", u32::from_le_bytes(v4.ip().octets()), v4.port()),
        SocketAddr::V6(_) => panic!("IPv4 only"),
    };
    let table = std::fs::read_to_string("/proc/net/tcp").expect("a table of sockets");
    let (here, there) = (hex(here), hex(there));
    let row = table
        .lines()
        .map(|row| row.split_whitespace().collect::<Vec<_>>())
        .find(|row| row[1..3] == [&*here, &*there]);
    let queues = row.map(|row| row[4].to_owned());
    queues.map_or(0, |queues| u64::from_str_radix(&queues[9..], 16).expect("a number"))
}

/// The response that the bytes begin with, and its length.
fn parsed(bytes: &[u8], ended: bool) -> Option<(Answer, usize)> {
    let head_length = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..head_length - 4]).expect("a head in text");
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    assert!(status_line.starts_with("HTTP/1.1 ") || status_line.starts_with("HTTP/1.0 "), "{status_line}");
    let status: u16 = status_line[9..12].parse().expect("a status");
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(':').expect("a name and a value"))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut answer = Answer { status, headers, body: Vec::new(), whole: true };
    let rest = &bytes[head_length..];
    let used = if status < 200 || status == 204 || status == 304 {
        Some(0)
    } else if let Some(length) = answer.header("content-length") {
        let length: usize = length.parse().expect("a length");
        answer.body = rest[..rest.len().min(length)].to_vec();
        (rest.len() >= length).then_some(length)
    } else if answer.header("transfer-encoding").is_some() {
        dechunked(rest, &mut answer.body)
    } else {
        answer.body = rest.to_vec();
        ended.then_some(rest.len())
    };
    match used {
        Some(used) => Some((answer, head_length + used)),
        None if ended => Some((Answer { whole: false, ..answer }, bytes.len())),
        None => None,
    }
}

/// The length of a whole chunked body, if it is.
fn dechunked(bytes: &[u8], body: &mut Vec<u8>) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = bytes[at..].windows(2).position(|end| end == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + line]).expect("a size in text");
        let size = usize::from_str_radix(size, 16).expect("a size");
        let from = at + line + 2;
        body.extend_from_slice(&bytes[from.min(bytes.len())..(from + size).min(bytes.len())]);
        if bytes.len() < from + size + 2 {
            return None;
        }
        assert_eq!(&bytes[from + size..from + size + 2], b"\r\n", "a chunk has an end");
        at = from + size + 2;
        if size == 0 {
            return Some(at);
        }
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in text")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.whole { "" } else { " (cut)" };
        let shown = String::from_utf8_lossy(&self.body[..self.body.len().min(2_000)]);
        write!(f, "{} {:?} {} bytes{end} {shown:?}", self.status, self.headers, self.body.len())
    }
}
