//! What a client may take: every deadline and cap of the request path, with its default.

use std::time::Duration;

/// Deadlines and caps, one field each. Deadlines are held by one sweep per worker and second, so a
/// client may have up to two seconds more.
///
/// | field | default | why |
/// | --- | --- | --- |
/// | `handshake` | 10 s | a TLS handshake is two round trips |
/// | `head` | 10 s | from the first byte of a request to the end of its head; and from accepting to the first byte |
/// | `idle` | 75 s | between requests, as nginx; not while a websocket or another tunnel is open |
/// | `body` | 60 s | without a byte of a request body that the app waits for (HTTP/1) |
/// | `write` | 60 s | without a byte of what we have to say taken; a single HTTP/2 stream may wait longer |
/// | `head_size` | 64 KiB | request line and headers (HTTP/1), header list (HTTP/2); a larger head is answered 431 |
/// | `connections` | 16,384 | beyond, accepting waits until one closes |
/// | `streams` | 128 | concurrent per HTTP/2 connection |
/// | `resets` | 20 | streams reset by the client before they were accepted, per HTTP/2 connection |
/// | `own_resets` | 1,024 | streams that we had to reset, per HTTP/2 connection |
/// | `send_buffer` | 256 KiB | unsent bytes kept per HTTP/2 stream |
///
/// A client that has sent its request and closes its sending side waits for the answer and gets it, so
/// over HTTP/1 an app is told that a client has gone only when it writes.
///
/// At most 100 headers are accepted over HTTP/1; more are answered 431.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// For a TLS handshake.
    pub handshake: Duration,
    /// For a request head, and for the first byte after accepting.
    pub head: Duration,
    /// Between requests.
    pub idle: Duration,
    /// Without a byte of a body that is waited for.
    pub body: Duration,
    /// Without a byte of the answer taken.
    pub write: Duration,
    /// Bytes of a request head.
    pub head_size: u32,
    /// Open connections, of all endpoints together.
    pub connections: usize,
    /// Concurrent streams of one HTTP/2 connection.
    pub streams: u32,
    /// Resets by the client that have not been accepted yet.
    pub resets: usize,
    /// Resets by us.
    pub own_resets: usize,
    /// Bytes kept for one HTTP/2 stream whose client does not read.
    pub send_buffer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            body: Duration::from_secs(60),
            write: Duration::from_secs(60),
            head_size: 64 << 10,
            connections: 16_384,
            streams: 128,
            resets: 20,
            own_resets: 1_024,
            send_buffer: 256 << 10,
        }
    }
}

impl Limits {
    /// What is out of its range: its name, as it was said, what it has to be.
    pub(crate) fn faults(&self) -> Vec<(&'static str, String, &'static str)> {
        let Self { head_size, connections, streams, send_buffer, .. } = *self;
        let largest = u32::MAX as usize;
        let counts = [
            ("limits.head_size", u64::from(head_size), u64::from(head_size) >= 512, "at least 512 bytes"),
            ("limits.connections", connections as u64, connections > 0, "at least 1"),
            ("limits.streams", u64::from(streams), streams > 0, "at least 1"),
            (
                "limits.send_buffer",
                send_buffer as u64,
                (1..=largest).contains(&send_buffer),
                "1 to 4294967295 bytes",
            ),
        ];
        let Self { handshake, head, idle, body, write, .. } = *self;
        let times = [
            ("limits.handshake", handshake),
            ("limits.head", head),
            ("limits.idle", idle),
            ("limits.body", body),
            ("limits.write", write),
        ];
        let counts = counts.into_iter().filter(|(_, _, good, _)| !good);
        let times = times.into_iter().filter(|(_, time)| time.is_zero());
        counts
            .map(|(name, said, _, must)| (name, said.to_string(), must))
            .chain(times.map(|(name, time)| (name, format!("{time:?}"), "longer than nothing")))
            .collect()
    }
}
