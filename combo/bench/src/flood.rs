//! Clients that send what costs a server much and themselves little, over one connection to 127.0.0.1 each: as
//! many frames, lines or requests as they may, whether or not anybody reads them. Beside each a bystander asks
//! on a connection of its own. They need the three apps at `/axum`, `/actix` and `/warp`, and files at `/`.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use crate::{client, median};

/// The most bytes of a flood.
const MOST_BYTES: usize = 64 << 20;

/// What is written at once.
const PIECE: usize = 64 << 10;

/// Who is not read for so long is held back.
const HELD: Duration = Duration::from_secs(2);

/// How long a connection stays open after the last of it.
const LINGER: Duration = Duration::from_secs(1);

/// What is sent, and how.
#[derive(Debug)]
pub struct Flood {
    /// A word or two for it.
    pub name: &'static str,
    begin: Vec<u8>,
    /// With a number from 0 on.
    each: fn(u32) -> Vec<u8>,
    reads: bool,
}

/// How it was met.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Met {
    /// How many of what it consists of were sent.
    pub sent: usize,
    /// How it ended.
    pub end: End,
    /// What the bystander waited for an answer meanwhile, in the middle and at most, in milliseconds.
    pub waits: (f64, f64),
}

/// How a flood ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All of it was taken.
    Taken,
    /// The server ended the connection.
    Ended,
    /// The server reads no more.
    Held,
}

/// All there are.
#[must_use]
pub fn all() -> Vec<Flood> {
    let http2 = || [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[])].concat();
    let flood = |name, begin, each, reads| Flood { name, begin, each, reads };
    let post = frame(HEADERS, END_HEADERS, 1, &block(POST, "/axum/sink"));
    // A window of nothing, then an answer that is asked for.
    let window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let answer = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(GET, "/axum/fill?bytes=1000000"));
    let half = frame(HEADERS, END_STREAM, 1, &block(GET, "/axum/"));
    let entry = [&block(GET, "/axum/")[..], &[0x40, 1, b'a', 0x7f, 0xa1, 0x1e], &[b'a'; 4_000]].concat();
    let entry = frame(HEADERS, END_HEADERS | END_STREAM, 1, &entry);
    let upgrade = "GET /axum/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let chunked = "POST /axum/sink HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    vec![
        flood(
            "http2 rapid reset",
            http2(),
            |n| {
                let head = frame(HEADERS, END_HEADERS | END_STREAM, stream(n), &block(GET, "/axum/hello/x"));
                [head, frame(RST_STREAM, 0, stream(n), &[0, 0, 0, 8])].concat()
            },
            true,
        ),
        flood(
            "http2 made you reset",
            http2(),
            |n| {
                let head =
                    frame(HEADERS, END_HEADERS | END_STREAM, stream(n), &block(GET, "/axum/slow?ms=100"));
                [head, frame(WINDOW_UPDATE, 0, stream(n), &[0; 4])].concat()
            },
            true,
        ),
        flood(
            "http2 continuation, large",
            [http2(), half.clone()].concat(),
            |_| {
                let line = [&[0x40, 1, b'a', 0x7f, 0xfb, 0x7e], &[b'a'; 16_378][..]].concat();
                frame(CONTINUATION, 0, 1, &line)
            },
            true,
        ),
        flood(
            "http2 continuation, empty",
            [http2(), half].concat(),
            |_| frame(CONTINUATION, 0, 1, &[]),
            true,
        ),
        flood("http2 settings", http2(), |_| frame(SETTINGS, 0, 0, &[]), true),
        flood("http2 settings, unread", http2(), |_| frame(SETTINGS, 0, 0, &[]), false),
        flood("http2 ping", http2(), |_| frame(PING, 0, 0, &[0; 8]), true),
        flood("http2 ping, unread", http2(), |_| frame(PING, 0, 0, &[0; 8]), false),
        flood("http2 priority", http2(), |n| frame(PRIORITY, 0, stream(n % 1_000), &[0, 0, 0, 0, 9]), true),
        flood("http2 empty data", [http2(), post].concat(), |_| frame(CONTENT, 0, 1, &[]), true),
        flood(
            "http2 window, bit by bit",
            [http2(), window, answer].concat(),
            |_| frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
            true,
        ),
        flood(
            "http2 hpack bomb",
            [http2(), entry].concat(),
            |n| {
                frame(
                    HEADERS,
                    END_HEADERS | END_STREAM,
                    stream(n + 1),
                    &[&block(GET, "/axum/")[..], &[0xbe; 16_000]].concat(),
                )
            },
            true,
        ),
        flood(
            "endless head",
            b"GET /axum/ HTTP/1.1\r\nHost: a\r\n".to_vec(),
            |n| format!("X-{n}: y\r\n").into_bytes(),
            true,
        ),
        flood("endless line", b"GET /axum/ HTTP/1.1\r\nHost: a\r\nX: ".to_vec(), |_| vec![b'x'; 100], true),
        flood(
            "requests, unread",
            Vec::new(),
            |_| b"GET /axum/hello/x HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            false,
        ),
        flood("chunks of a byte", chunked.into(), |_| b"1\r\nx\r\n".to_vec(), true),
        flood("chunk extensions", chunked.into(), |_| b"1;x=yyyyyyyyyyyyyyyyyyyy\r\nx\r\n".to_vec(), true),
        flood(
            "trailers",
            [chunked.as_bytes(), b"0\r\n"].concat(),
            |n| format!("X-{n}: y\r\n").into_bytes(),
            true,
        ),
        flood(
            "ranges",
            Vec::new(),
            |_| {
                let ranges: String = (0..1_000).map(|n| format!("{n}-{n},")).collect();
                format!("GET / HTTP/1.1\r\nHost: a\r\nRange: bytes={ranges}0-0\r\n\r\n").into_bytes()
            },
            true,
        ),
        flood("websocket ping", upgrade.into(), |_| vec![0x89, 0x80, 0, 0, 0, 0], true),
        flood("websocket ping, unread", upgrade.into(), |_| vec![0x89, 0x80, 0, 0, 0, 0], false),
        flood(
            "websocket fragments",
            [upgrade.as_bytes(), &[0x02, 0x80, 0, 0, 0, 0]].concat(),
            |_| vec![0x00, 0x81, 0, 0, 0, 0, b'x'],
            true,
        ),
        flood(
            "websocket of 2^62 bytes",
            [upgrade.as_bytes(), &[0x82, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat(),
            |_| vec![b'x'; 1_024],
            true,
        ),
    ]
}

impl Flood {
    /// Lets it loose on a port of 127.0.0.1, with no more than so many of what it consists of, and waits until it
    /// has ended.
    ///
    /// # Errors
    ///
    /// If the bystander is not answered.
    pub fn meet(&self, port: u16, most: usize) -> io::Result<Met> {
        let over = AtomicBool::new(false);
        let mut bystander = client::connect(port)?;
        client::ask(&mut bystander, "/axum/hello/x")?;
        thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let mut waits = Vec::new();
                while !over.load(Relaxed) || waits.is_empty() {
                    waits.push(client::wait(&mut bystander, "/axum/hello/x")?);
                }
                io::Result::Ok(waits)
            });
            let sent = self.send(port, most);
            over.store(true, Relaxed);
            let waits = asking.join().unwrap_or_else(|_| Err(io::Error::other("the bystander panicked")))?;
            let (sent, end) = sent?;
            let longest = waits.iter().copied().fold(0.0, f64::max);
            Ok(Met { sent, end, waits: (median(waits), longest) })
        })
    }

    fn send(&self, port: u16, most: usize) -> io::Result<(usize, End)> {
        let mut connection = client::connect(port)?;
        connection.set_write_timeout(Some(HELD))?;
        let reading = connection.try_clone()?;
        thread::scope(|scope| {
            let reader = self.reads.then(|| scope.spawn(move || drain(reading)));
            let mut sent = 0;
            let end = self.write(&mut connection, most, &mut sent);
            // What was sent is not what was met yet.
            thread::sleep(LINGER);
            let end = end?;
            let ended = reader.as_ref().is_some_and(thread::ScopedJoinHandle::is_finished);
            let _ = connection.shutdown(Shutdown::Both);
            drop(reader.map(thread::ScopedJoinHandle::join));
            Ok((sent, if ended { End::Ended } else { end }))
        })
    }

    fn write(&self, connection: &mut TcpStream, most: usize, sent: &mut usize) -> io::Result<End> {
        let (mut piece, mut pieces, mut bytes) = (self.begin.clone(), 0, 0);
        for n in 0..u32::MAX {
            piece.extend((self.each)(n));
            pieces += 1;
            let all = *sent + pieces == most || bytes + piece.len() >= MOST_BYTES;
            if piece.len() < PIECE && !all {
                continue;
            }
            match connection.write_all(&piece) {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Ok(End::Held);
                }
                Err(_) => return Ok(End::Ended),
            }
            (*sent, bytes) = (*sent + pieces, bytes + piece.len());
            (piece, pieces) = (Vec::new(), 0);
            if all {
                break;
            }
        }
        Ok(End::Taken)
    }
}

/// Reads to the end and forgets it.
fn drain(mut connection: TcpStream) {
    let mut bytes = vec![0; PIECE];
    while let Ok(1..) = connection.read(&mut bytes) {}
}

/// `DATA`.
const CONTENT: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// RFC 7541, appendix A.
const GET: u8 = 0x82;
const POST: u8 = 0x83;

/// The id of a client's nth stream.
fn stream(n: u32) -> u32 {
    2 * n + 1
}

/// RFC 9113, section 4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of a request: its method, `http`, a path of less than 127 bytes, and a host.
fn block(method: u8, path: &str) -> Vec<u8> {
    let length = u8::try_from(path.len()).unwrap_or_default();
    [&[method, 0x86, 0x04, length], path.as_bytes(), &[0x01, 1, b'a']].concat()
}
