//! Takes header names and values of `http` 1 and gives those of actix's `http` 0.2, and back.
//!
//! Both crates keep their representation private, so a plain translation parses every name and copies
//! every value. Here the names both sides commonly use are looked up in one table, and the value that
//! such a name had last is remembered: clients repeat themselves. Never remembers secrets.

use std::sync::LazyLock;

use actix_web::http::header as old;
use bytes::{Bytes, BytesMut};
use http::header as new;

/// The longest value worth remembering, in bytes.
const LONGEST: usize = 256;
/// A value is replaced at every so-manieth miss, so that clients that alternate cost no allocations.
const PATIENCE: u8 = 8;
/// Bytes taken from the allocator at once for values that are not remembered.
const CHUNK: usize = 8 * 1024;

/// A place in the table of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u8);

pub(crate) const HOST: Place = Place(0);
pub(crate) const CONNECTION: Place = Place(1);
pub(crate) const UPGRADE: Place = Place(2);
pub(crate) const CONTENT_LENGTH: Place = Place(3);
pub(crate) const TRANSFER_ENCODING: Place = Place(4);
pub(crate) const KEEP_ALIVE: Place = Place(5);
pub(crate) const PROXY_CONNECTION: Place = Place(6);

/// The names in the table. The first ones are those with a constant of their own above.
const NAMES: &[&str] = &[
    "host",
    "connection",
    "upgrade",
    "content-length",
    "transfer-encoding",
    "keep-alive",
    "proxy-connection",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
    "access-control-request-headers",
    "access-control-request-method",
    "age",
    "allow",
    "alt-svc",
    "authorization",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-location",
    "content-range",
    "content-security-policy",
    "content-type",
    "cookie",
    "cross-origin-embedder-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "date",
    "dnt",
    "etag",
    "expect",
    "expires",
    "forwarded",
    "from",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "link",
    "location",
    "max-forwards",
    "origin",
    "permissions-policy",
    "pragma",
    "priority",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "referrer-policy",
    "retry-after",
    "sec-ch-ua",
    "sec-ch-ua-mobile",
    "sec-ch-ua-platform",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "sec-fetch-user",
    "sec-gpc",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "server",
    "server-timing",
    "set-cookie",
    "strict-transport-security",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "upgrade-insecure-requests",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
    "x-content-type-options",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-frame-options",
    "x-request-id",
    "x-requested-with",
    "x-xss-protection",
];

/// Names whose values are secret, or differ from one message to the next.
const FORGOTTEN: &[&str] = &[
    "authorization",
    "content-length",
    "content-range",
    "cookie",
    "date",
    "etag",
    "expires",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "proxy-authorization",
    "range",
    "sec-websocket-accept",
    "sec-websocket-key",
    "server-timing",
    "set-cookie",
    "traceparent",
    "tracestate",
    "www-authenticate",
    "x-request-id",
];

const SLOTS: usize = 512;

struct Table {
    entries: Vec<Entry>,
    /// One more than a place, or 0; found by [`slot`], then the next ones.
    slots: [u8; SLOTS],
}

struct Entry {
    text: &'static str,
    old: old::HeaderName,
    new: new::HeaderName,
    remembered: bool,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table { entries: Vec::with_capacity(NAMES.len()), slots: [0; SLOTS] };
    for (place, &text) in (1..).zip(NAMES) {
        table.entries.push(Entry {
            text,
            old: old::HeaderName::from_static(text),
            new: new::HeaderName::from_static(text),
            remembered: !FORGOTTEN.contains(&text),
        });
        let mut slot = slot(text.as_bytes());
        while table.slots[slot] != 0 {
            slot = (slot + 1) % SLOTS;
        }
        table.slots[slot] = place;
    }
    table
});

/// Names of the same length rarely share their first, middle and last letter.
fn slot(text: &[u8]) -> usize {
    let length = text.len();
    if length == 0 {
        return 0;
    }
    let letter = |at: usize| usize::from(text[at]);
    (length * 37 + letter(0) * 5 + letter(length / 2) * 17 + letter(length - 1) * 101) % SLOTS
}

impl Table {
    fn find(&self, text: &str) -> Option<Place> {
        let mut slot = slot(text.as_bytes());
        loop {
            let place = self.slots[slot].checked_sub(1)?;
            if self.entries[usize::from(place)].text == text {
                return Some(Place(place));
            }
            slot = (slot + 1) % SLOTS;
        }
    }
}

/// One direction's last value.
struct Last<V> {
    value: Option<V>,
    misses: u8,
}

impl<V> Default for Last<V> {
    fn default() -> Self {
        Self { value: None, misses: 0 }
    }
}

impl<V> Last<V> {
    /// Whether the value now seen is to take the place of the one remembered.
    fn worn(&mut self) -> bool {
        self.misses = (self.misses + 1) % PATIENCE;
        self.value.is_none() || self.misses == 0
    }
}

/// What one service remembers.
pub(crate) struct Glossary {
    table: &'static Table,
    inward: Vec<Last<old::HeaderValue>>,
    outward: Vec<Last<new::HeaderValue>>,
    chunk: BytesMut,
}

impl Glossary {
    pub(crate) fn new() -> Self {
        let table = &*TABLE;
        let places = table.entries.len();
        Self {
            table,
            inward: (0..places).map(|_| Last::default()).collect(),
            outward: (0..places).map(|_| Last::default()).collect(),
            chunk: BytesMut::new(),
        }
    }

    /// The bytes of `text`, shared with what was kept before and after it.
    pub(crate) fn keep(&mut self, text: &[u8]) -> Bytes {
        if self.chunk.capacity() - self.chunk.len() < text.len() {
            self.chunk = BytesMut::with_capacity(CHUNK.max(text.len()));
        }
        self.chunk.extend_from_slice(text);
        self.chunk.split().freeze()
    }

    pub(crate) fn place_of_new(&self, name: &new::HeaderName) -> Option<Place> {
        self.table.find(name.as_str())
    }

    pub(crate) fn place_of_old(&self, name: &old::HeaderName) -> Option<Place> {
        self.table.find(name.as_str())
    }

    pub(crate) fn old_name(&mut self, name: &new::HeaderName, place: Option<Place>) -> old::HeaderName {
        match place {
            Some(place) => self.table.entries[usize::from(place.0)].old.clone(),
            None => old::HeaderName::from_bytes(name.as_str().as_bytes())
                .expect("both versions of http take the same names"),
        }
    }

    pub(crate) fn new_name(&mut self, name: &old::HeaderName, place: Option<Place>) -> new::HeaderName {
        match place {
            Some(place) => self.table.entries[usize::from(place.0)].new.clone(),
            None => new::HeaderName::from_bytes(name.as_str().as_bytes())
                .expect("both versions of http take the same names"),
        }
    }

    pub(crate) fn old_value(&mut self, value: &new::HeaderValue, place: Option<Place>) -> old::HeaderValue {
        if let Some(index) = self.remembers(place, value.len(), value.is_sensitive()) {
            let last = &mut self.inward[index];
            if let Some(known) = &last.value
                && known.as_bytes() == value.as_bytes()
            {
                return known.clone();
            }
            if last.worn() {
                let fresh = old_value(Bytes::copy_from_slice(value.as_bytes()));
                last.value = Some(fresh.clone());
                return fresh;
            }
        }
        let mut copy = old_value(self.keep(value.as_bytes()));
        copy.set_sensitive(value.is_sensitive());
        copy
    }

    pub(crate) fn new_value(&mut self, value: &old::HeaderValue, place: Option<Place>) -> new::HeaderValue {
        if let Some(index) = self.remembers(place, value.len(), value.is_sensitive()) {
            let last = &mut self.outward[index];
            if let Some(known) = &last.value
                && known.as_bytes() == value.as_bytes()
            {
                return known.clone();
            }
            if last.worn() {
                let fresh = new_value(Bytes::copy_from_slice(value.as_bytes()));
                last.value = Some(fresh.clone());
                return fresh;
            }
        }
        let mut copy = new_value(self.keep(value.as_bytes()));
        copy.set_sensitive(value.is_sensitive());
        copy
    }

    fn remembers(&self, place: Option<Place>, length: usize, sensitive: bool) -> Option<usize> {
        let index = usize::from(place?.0);
        (self.table.entries[index].remembered && length <= LONGEST && !sensitive).then_some(index)
    }
}

fn old_value(bytes: Bytes) -> old::HeaderValue {
    old::HeaderValue::from_maybe_shared(bytes).expect("both versions of http take the same values")
}

fn new_value(bytes: Bytes) -> new::HeaderValue {
    new::HeaderValue::from_maybe_shared(bytes).expect("both versions of http take the same values")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_a_constant_are_in_its_place() {
        for (place, name) in [
            (HOST, "host"),
            (CONNECTION, "connection"),
            (UPGRADE, "upgrade"),
            (CONTENT_LENGTH, "content-length"),
            (TRANSFER_ENCODING, "transfer-encoding"),
            (KEEP_ALIVE, "keep-alive"),
            (PROXY_CONNECTION, "proxy-connection"),
        ] {
            assert_eq!(TABLE.find(name), Some(place), "{name}");
        }
    }
}
