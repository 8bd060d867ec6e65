//! What a client may take: every deadline and cap of the request path, with its default.

use std::time::Duration;

/// Deadlines and caps, one field each:
///
/// ```
/// # use combo::{Deployment, Limits, secs};
/// let deployment = Deployment::new("example").limits(Limits { idle: secs(20), ..Limits::default() });
/// ```
///
/// Deadlines are held by one sweep per worker and second, so a client may have up to two seconds more.
///
/// | field | default | why |
/// | --- | --- | --- |
/// | `handshake` | 10 s | a TLS handshake is two round trips |
/// | `head` | 10 s | from the first byte of a request to the end of its head, at less than `rate`; and from accepting to the first byte |
/// | `idle` | 75 s | between requests, as nginx; not while a websocket or another tunnel is open |
/// | `body` | 60 s | that an app waits for a request body which comes at less than `rate`; not over HTTP/2 once the answer has begun, nor in a call of gRPC: there both sides may be quiet |
/// | `write` | 60 s | that we wait for an answer to be taken, which is at less than `rate`; and as long again for a client that has taken much at once before, as its system does for one that reads slowly |
/// | `rate` | 240 B/s | less than any line that is in use, and more than dripping is worth; as Kestrel and http.sys |
/// | `head_size` | 64 KiB | request line and headers (HTTP/1), header list (HTTP/2); a larger head is answered 431 |
/// | `connections` | 16,384 | beyond, accepting waits until one closes |
/// | `connections_per_peer` | 1,024 | of one IPv4 address or one /64 of IPv6, so that one cannot have them all; more are closed at once. Not of unix sockets and trusted proxies, which stand for many |
/// | `handshakes` | 2,048 | TLS handshakes at once: what costs us most and a client least; for one more the one that has taken longest is closed, and where there are half as many, a peer that has an eighth begins no other |
/// | `requests` | 10,000 | over one connection, so that what it holds is given back some day; then it is ended politely |
/// | `streams` | 128 | concurrent per HTTP/2 connection |
/// | `resets` | 20 | streams reset by the client before they were accepted, per HTTP/2 connection |
/// | `own_resets` | 1,024 | streams that we had to reset, per HTTP/2 connection |
/// | `send_buffer` | 256 KiB | unsent bytes kept per HTTP/2 stream |
/// | `memory` | 90 % of what the control group may have, or the machine has | above it nothing new is begun, because what would come next is the end of the process: 503, and nobody is let in |
///
/// How much of an answer a peer has taken is asked of the kernel, which holds some megabytes that it has not.
/// Over HTTP/2 the bodies that move on a connection count for each of its requests, and only the request that waits is
/// ended. A tunnel in a stream of HTTP/2 has no deadline of its own. A peer that is not there any more, while nobody waits for anything, is found by TCP (keep-alive probes
/// after a minute of silence), by a ping of HTTP/2 after 30 s, which has 20 s to be answered, and because it takes
/// nothing of what was sent for twice `write`, be that a few bytes.
///
/// A body may be as long as it likes: it is streamed, so it takes no memory here. An app that keeps bodies has
/// [`Target::body_limit`](crate::mount::Target::body_limit).
///
/// A client that has sent its request and closes its sending side waits for the answer and gets it, so
/// over HTTP/1 an app is told that such a client has gone when it writes; of one that has reset its connection,
/// within some seconds.
///
/// At most 100 headers are accepted over HTTP/1; more are answered 431.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For a TLS handshake.
    pub handshake: Duration,
    /// For a request head, and for the first byte after accepting.
    pub head: Duration,
    /// Between requests.
    pub idle: Duration,
    /// For a body that comes too slowly.
    pub body: Duration,
    /// For an answer that is taken too slowly.
    pub write: Duration,
    /// Bytes a second that are not too slow.
    pub rate: u32,
    /// Bytes of a request head.
    pub head_size: u32,
    /// Open connections, of all endpoints together.
    pub connections: usize,
    /// Those of one peer.
    pub connections_per_peer: usize,
    /// TLS handshakes at once, of all endpoints together.
    pub handshakes: usize,
    /// Requests over one connection.
    pub requests: u32,
    /// Concurrent streams of one HTTP/2 connection.
    pub streams: u32,
    /// Resets by the client that have not been accepted yet.
    pub resets: usize,
    /// Resets by us.
    pub own_resets: usize,
    /// Bytes kept for one HTTP/2 stream whose client does not read.
    pub send_buffer: usize,
    /// Bytes that the process may have resident, files that it maps not counted. `None` for 90 % of what the
    /// machine has; or, where its control group or one above it may have less than that, for 90 % of what that group
    /// may have. Then all that is charged to the group counts, as it does for the kernel, which ends somebody when
    /// that is at the limit: each of its processes, what sockets hold; but not cached files, which the kernel takes back
    /// before that.
    pub memory: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            body: Duration::from_secs(60),
            write: Duration::from_secs(60),
            rate: 240,
            head_size: 64 << 10,
            connections: 16_384,
            connections_per_peer: 1_024,
            handshakes: 2_048,
            requests: 10_000,
            streams: 128,
            resets: 20,
            own_resets: 1_024,
            send_buffer: 256 << 10,
            memory: None,
        }
    }
}

impl Limits {
    /// What is out of its range: its name, as it was said, what it has to be.
    pub(crate) fn faults(&self) -> Vec<(&'static str, String, &'static str)> {
        let Self { rate, head_size, connections, streams, send_buffer, .. } = *self;
        let Self { connections_per_peer, handshakes, requests, memory, .. } = *self;
        let largest = u32::MAX as usize;
        let one = |name, count: u64| (name, count, count > 0, "at least 1");
        let counts = [
            ("limits.rate", rate.into(), rate > 0, "at least 1 byte a second"),
            ("limits.head_size", u64::from(head_size), u64::from(head_size) >= 512, "at least 512 bytes"),
            one("limits.connections", connections as u64),
            one("limits.connections_per_peer", connections_per_peer as u64),
            one("limits.handshakes", handshakes as u64),
            one("limits.requests", requests.into()),
            one("limits.streams", streams.into()),
            one("limits.memory", memory.unwrap_or(1)),
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
