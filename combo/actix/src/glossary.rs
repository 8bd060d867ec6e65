//! Takes header names and values of `http` 1 and gives those of actix's `http` 0.2, and back.
//!
//! Both crates keep their representation private, so a plain translation parses every name and copies
//! and checks every value. Here the names both sides commonly use are looked up in one table, and what
//! such names had as values is remembered once it has been seen twice, as are paths: clients repeat
//! themselves, and each other. Never remembers what is meant to be secret, nor more than a quarter of a
//! megabyte.

use std::{convert::Infallible, sync::LazyLock};

use actix_web::http::{
    header as old,
    uri::{InvalidUri, PathAndQuery},
};
use bytes::{Bytes, BytesMut};
use http::header as new;

/// The longest text worth remembering, in bytes.
const LONGEST: usize = 256;
/// How many texts of each kind are remembered.
const VALUES_INWARD: usize = 512;
const VALUES_OUTWARD: usize = 64;
const PATHS: usize = 64;
/// Bytes taken from the allocator at once for what is not remembered.
const CHUNK: usize = 8 * 1024;
/// Why a translation cannot fail.
const SAME: &str = "both versions of http take the same names and values";

/// A place in the table of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u8);

impl Place {
    fn index(self) -> usize {
        self.0.into()
    }
}

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
    "referer",
    "sec-websocket-accept",
    "sec-websocket-key",
    // Where browsers that cannot set a header put their token.
    "sec-websocket-protocol",
    "server-timing",
    "set-cookie",
    "traceparent",
    "tracestate",
    "www-authenticate",
    "x-request-id",
];

/// Where each name is in `NAMES`: one more than its place, or 0; found by its hash, then the next ones.
static PLACES: LazyLock<[u8; 512]> = LazyLock::new(|| {
    let mut places = [0; 512];
    for (place, name) in (1..).zip(NAMES) {
        let mut slot = hash(name.as_bytes()) % places.len();
        while places[slot] != 0 {
            slot = (slot + 1) % places.len();
        }
        places[slot] = place;
    }
    places
});

fn find(name: &str, same: impl Fn(usize) -> bool) -> Option<Place> {
    let places = &*PLACES;
    let mut slot = hash(name.as_bytes()) % places.len();
    loop {
        let place = places[slot].checked_sub(1)?;
        if same(usize::from(place)) {
            return Some(Place(place));
        }
        slot = (slot + 1) % places.len();
    }
}

/// Of the length and of samples: texts that differ elsewhere only keep each other from being remembered.
fn hash(text: &[u8]) -> usize {
    let word = |at: usize| {
        let word = text.get(at..).and_then(|rest| rest.first_chunk());
        word.map_or(0, |word| u64::from_le_bytes(*word))
    };
    let mixed = match text.len().checked_sub(8) {
        Some(last) => word(0).rotate_left(11) ^ word(last / 2).rotate_left(37) ^ word(last),
        None => text.iter().fold(0, |mixed: u64, &byte| (mixed << 8) | u64::from(byte)),
    };
    let mixed = (mixed ^ text.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // The upper half is the mixed one.
    (mixed >> 32) as usize
}

/// Texts that were seen twice, and what they are on the other side.
struct Memory<V>(Vec<Slot<V>>);

struct Slot<V> {
    value: Option<V>,
    /// The hash of the text that was not found here last.
    missed: usize,
}

impl<V> Slot<V> {
    const EMPTY: Self = Self { value: None, missed: 0 };
}

impl<V> Memory<V> {
    fn new(slots: usize) -> Self {
        Self((0..slots).map(|_| Slot::EMPTY).collect())
    }

    fn recall<E>(
        &mut self,
        text: &[u8],
        hash: usize,
        same: impl Fn(&V) -> bool,
        make: impl FnOnce(Bytes) -> Result<V, E>,
    ) -> Result<Option<&V>, E> {
        let slots = self.0.len();
        let slot = &mut self.0[hash % slots];
        if slot.value.as_ref().is_some_and(same) {
            return Ok(slot.value.as_ref());
        }
        if slot.missed != hash {
            slot.missed = hash;
            return Ok(None);
        }
        // In an allocation of its own: what is remembered must not hold a chunk.
        let value = make(Bytes::copy_from_slice(text))?;
        Ok(Some(slot.value.insert(value)))
    }
}

/// What both sides' values have in common.
trait Value: Clone + AsRef<[u8]> {
    fn checked(bytes: Bytes) -> Self;
    fn kept_secret(self, secret: bool) -> Self;
}

impl Value for old::HeaderValue {
    fn checked(bytes: Bytes) -> Self {
        Self::from_maybe_shared(bytes).expect(SAME)
    }

    fn kept_secret(mut self, secret: bool) -> Self {
        self.set_sensitive(secret);
        self
    }
}

impl Value for new::HeaderValue {
    fn checked(bytes: Bytes) -> Self {
        Self::from_maybe_shared(bytes).expect(SAME)
    }

    fn kept_secret(mut self, secret: bool) -> Self {
        self.set_sensitive(secret);
        self
    }
}

/// A name, and what it had twice in a row last, as it is on the other side.
struct Entry {
    new: new::HeaderName,
    old: old::HeaderName,
    forgotten: bool,
    inward: Slot<old::HeaderValue>,
    outward: Slot<new::HeaderValue>,
}

/// A value that its name did not have last.
#[cold]
fn recall<V: Value>(last: &mut Slot<V>, memory: &mut Memory<V>, text: &[u8], chunk: &mut Chunk) -> V {
    if text.len() > LONGEST {
        return V::checked(chunk.keep(text));
    }
    let hash = hash(text);
    let make = |text| Ok::<_, Infallible>(V::checked(text));
    let Ok(known) = memory.recall(text, hash, |known| known.as_ref() == text, make);
    let value = match known {
        Some(known) => known.clone(),
        None if last.missed == hash => V::checked(Bytes::copy_from_slice(text)),
        None => V::checked(chunk.keep(text)),
    };
    if last.missed == hash {
        last.value = Some(value.clone());
    }
    last.missed = hash;
    value
}

#[cold]
fn forget<V: Value>(text: &[u8], secret: bool, chunk: &mut Chunk) -> V {
    V::checked(chunk.keep(text)).kept_secret(secret)
}

/// Where copies go that are not remembered.
struct Chunk(BytesMut);

impl Chunk {
    fn keep(&mut self, text: &[u8]) -> Bytes {
        self.0.extend_from_slice(text);
        self.0.split().freeze()
    }
}

/// The target of a request, for the app and as it arrived.
pub(crate) struct Target {
    pub(crate) seen: PathAndQuery,
    pub(crate) arrived: PathAndQuery,
    strip: usize,
}

impl Target {
    fn cut(text: &Bytes, path: usize, strip: usize) -> Result<Self, InvalidUri> {
        let arrived = PathAndQuery::from_maybe_shared(text.clone())?;
        let rest = text.get(strip.min(path)..).unwrap_or_default();
        let seen = match rest.first() {
            _ if strip == 0 || text == "*" => arrived.clone(),
            None => PathAndQuery::from_static("/"),
            Some(b'/') => PathAndQuery::from_maybe_shared(text.slice_ref(rest))?,
            Some(_) => PathAndQuery::from_maybe_shared(Bytes::from([b"/", rest].concat()))?,
        };
        Ok(Self { seen, arrived, strip })
    }
}

/// The names both sides use, and what one service remembers.
pub(crate) struct Glossary {
    entries: Vec<Entry>,
    /// The places of the last request's headers, in their order, and of the last response's.
    order_inward: [Place; 32],
    order_outward: [Place; 8],
    inward: Memory<old::HeaderValue>,
    outward: Memory<new::HeaderValue>,
    paths: Memory<Target>,
    /// A target that is not remembered, on its way to the request.
    passing: Option<Target>,
    chunk: Chunk,
}

impl Glossary {
    pub(crate) fn new() -> Self {
        let entry = |&name: &&'static str| Entry {
            new: new::HeaderName::from_static(name),
            old: old::HeaderName::from_static(name),
            forgotten: FORGOTTEN.contains(&name),
            inward: Slot::EMPTY,
            outward: Slot::EMPTY,
        };
        Self {
            entries: NAMES.iter().map(entry).collect(),
            order_inward: [HOST; 32],
            order_outward: [HOST; 8],
            inward: Memory::new(VALUES_INWARD),
            outward: Memory::new(VALUES_OUTWARD),
            paths: Memory::new(PATHS),
            passing: None,
            chunk: Chunk(BytesMut::with_capacity(CHUNK)),
        }
    }

    /// A copy of `text` that shares its allocation with others.
    pub(crate) fn keep(&mut self, text: &[u8]) -> Bytes {
        self.chunk.keep(text)
    }

    /// What the app sees of a target whose path has `path` bytes and loses `strip` of them.
    pub(crate) fn target(&mut self, text: &str, path: usize, strip: usize) -> Result<&Target, InvalidUri> {
        // Queries differ, and may be secret.
        if path == text.len() && path <= LONGEST {
            let same = |known: &Target| known.arrived.as_str() == text && known.strip == strip;
            let make = |text: Bytes| Target::cut(&text, path, strip);
            if let Some(known) = self.paths.recall(text.as_bytes(), hash(text.as_bytes()), same, make)? {
                return Ok(known);
            }
        }
        let target = Target::cut(&self.chunk.keep(text.as_bytes()), path, strip)?;
        Ok(self.passing.insert(target))
    }

    /// Adds the request's header at `position` of its map to those that the app sees.
    // Inlined because it does little more than a call does.
    #[inline(always)]
    pub(crate) fn inward(
        &mut self,
        position: usize,
        name: &new::HeaderName,
        value: &new::HeaderValue,
        headers: &mut old::HeaderMap,
    ) -> Option<Place> {
        // Clients send the same headers in the same order: the last request is the best guess.
        let place = match self.order_inward.get(position) {
            Some(&place) if self.entries[place.index()].new == *name => Some(place),
            _ => self.find_new(position, name),
        };
        let (text, secret) = (value.as_bytes(), value.is_sensitive());
        let Some(place) = place else {
            let name = old::HeaderName::from_bytes(name.as_str().as_bytes()).expect(SAME);
            headers.append(name, forget(text, secret, &mut self.chunk));
            return None;
        };
        let entry = &mut self.entries[place.index()];
        let value = match &entry.inward.value {
            _ if secret || entry.forgotten => forget(text, secret, &mut self.chunk),
            Some(last) if last.as_bytes() == text => last.clone(),
            _ => recall(&mut entry.inward, &mut self.inward, text, &mut self.chunk),
        };
        headers.append(entry.old.clone(), value);
        Some(place)
    }

    #[cold]
    fn find_new(&mut self, position: usize, name: &new::HeaderName) -> Option<Place> {
        let place = find(name.as_str(), |place| self.entries[place].new == *name)?;
        if let Some(guess) = self.order_inward.get_mut(position) {
            *guess = place;
        }
        Some(place)
    }

    /// Where the response's header of this name is, the one at `position` of its map.
    pub(crate) fn place(&mut self, position: usize, name: &old::HeaderName) -> Option<Place> {
        if let Some(&place) = self.order_outward.get(position)
            && self.entries[place.index()].old == *name
        {
            return Some(place);
        }
        let place = find(name.as_str(), |place| self.entries[place].old == *name)?;
        if let Some(guess) = self.order_outward.get_mut(position) {
            *guess = place;
        }
        Some(place)
    }

    /// Adds a header of the app's response to those that the client sees.
    pub(crate) fn outward(
        &mut self,
        place: Option<Place>,
        name: &old::HeaderName,
        value: &old::HeaderValue,
        headers: &mut new::HeaderMap,
    ) {
        let (text, secret) = (value.as_bytes(), value.is_sensitive());
        let Some(place) = place else {
            let name = new::HeaderName::from_bytes(name.as_str().as_bytes()).expect(SAME);
            let _ = headers.append(name, forget(text, secret, &mut self.chunk));
            return;
        };
        let entry = &mut self.entries[place.index()];
        let value = match &entry.outward.value {
            _ if secret || entry.forgotten => forget(text, secret, &mut self.chunk),
            Some(last) if last.as_bytes() == text => last.clone(),
            _ => recall(&mut entry.outward, &mut self.outward, text, &mut self.chunk),
        };
        let _ = headers.append(&entry.new, value);
    }
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
            assert_eq!(Glossary::new().place(0, &old::HeaderName::from_static(name)), Some(place), "{name}");
        }
    }

    #[test]
    fn every_name_is_found() {
        let mut glossary = Glossary::new();
        for (place, &name) in (0..).zip(NAMES) {
            assert_eq!(glossary.place(0, &old::HeaderName::from_static(name)), Some(Place(place)), "{name}");
            let name = new::HeaderName::from_static(name);
            assert_eq!(glossary.find_new(0, &name), Some(Place(place)), "{name}");
        }
        assert_eq!(glossary.place(0, &old::HeaderName::from_static("x-own")), None);
        assert!(FORGOTTEN.iter().all(|name| NAMES.contains(name)));
    }
}
