//! Takes header names and values of `http` 1 and gives those of actix's `http` 0.2, and back.
//!
//! Both crates keep their representation private, so a plain translation parses every name and copies
//! and checks every value. Here the names both sides commonly use are looked up in one table, and the
//! value that such a name had last is remembered, as are some paths: clients repeat themselves. Never
//! remembers secrets, nor more than some tens of kilobytes.

use std::sync::LazyLock;

use actix_web::http::{
    header as old,
    uri::{InvalidUri, PathAndQuery},
};
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

/// Places for paths.
const PATHS: usize = 64;
const SLOTS: usize = 512;

/// Where each name is in `NAMES`: one more than its place, or 0; found by `slot`, then the next ones.
static PLACES: LazyLock<[u8; SLOTS]> = LazyLock::new(|| {
    let mut places = [0; SLOTS];
    for (place, name) in (1..).zip(NAMES) {
        let mut slot = slot(name.as_bytes()) % SLOTS;
        while places[slot] != 0 {
            slot = (slot + 1) % SLOTS;
        }
        places[slot] = place;
    }
    places
});

/// Names of the same length rarely share their first, middle and last letter.
fn slot(text: &[u8]) -> usize {
    let length = text.len();
    let letter = |at: usize| usize::from(text.get(at).copied().unwrap_or_default());
    length * 37 + letter(0) * 5 + letter(length / 2) * 17 + letter(length.wrapping_sub(1)) * 101
}

/// A name, and the values it had last.
struct Entry {
    old: old::HeaderName,
    new: new::HeaderName,
    remembers: bool,
    inward: Last<old::HeaderValue>,
    outward: Last<new::HeaderValue>,
}

struct Last<V> {
    value: Option<V>,
    misses: u8,
}

impl<V> Last<V> {
    const NONE: Self = Self { value: None, misses: 0 };

    /// Whether the value now seen is to take the place of the one remembered.
    fn is_worn(&mut self) -> bool {
        self.misses = (self.misses + 1) % PATIENCE;
        self.value.is_none() || self.misses == 0
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

/// What one service remembers.
pub(crate) struct Glossary {
    entries: Vec<Entry>,
    /// The places of the last request's headers, in their order.
    inward: [Place; 32],
    /// The same of the last response.
    outward: [Place; 8],
    /// Paths that were asked for.
    paths: Vec<Last<Target>>,
    /// A target that is not remembered, on its way to the request.
    passing: Option<Target>,
    /// Where copies go that are not remembered.
    chunk: BytesMut,
}

impl Glossary {
    pub(crate) fn new() -> Self {
        let entry = |&name: &&'static str| Entry {
            old: old::HeaderName::from_static(name),
            new: new::HeaderName::from_static(name),
            remembers: !FORGOTTEN.contains(&name),
            inward: Last::NONE,
            outward: Last::NONE,
        };
        Self {
            entries: NAMES.iter().map(entry).collect(),
            inward: [HOST; 32],
            outward: [HOST; 8],
            paths: (0..PATHS).map(|_| Last::NONE).collect(),
            passing: None,
            chunk: BytesMut::new(),
        }
    }

    /// A copy of `text` that shares its allocation with what was kept before and after it.
    pub(crate) fn keep(&mut self, text: &[u8]) -> Bytes {
        if self.chunk.capacity() - self.chunk.len() < text.len() {
            self.chunk = BytesMut::with_capacity(CHUNK.max(text.len()));
        }
        self.chunk.extend_from_slice(text);
        self.chunk.split().freeze()
    }

    /// What the app sees of a target whose path has `path` bytes and loses `strip` of them.
    pub(crate) fn target(&mut self, text: &str, path: usize, strip: usize) -> Result<&Target, InvalidUri> {
        // Queries differ, and may be secret.
        let slot = (path == text.len() && path <= LONGEST).then(|| slot(text.as_bytes()) % PATHS);
        let Some(slot) = slot else { return self.passing_target(text, path, strip) };
        let known = self.paths[slot].value.as_ref();
        if known.is_some_and(|known| known.strip == strip && known.arrived.as_str() == text) {
            return Ok(self.paths[slot].value.as_ref().expect("looked at a moment ago"));
        }
        if !self.paths[slot].is_worn() {
            return self.passing_target(text, path, strip);
        }
        // In an allocation of its own: what is remembered must not hold a chunk.
        let target = Target::cut(&Bytes::copy_from_slice(text.as_bytes()), path, strip)?;
        Ok(self.paths[slot].value.insert(target))
    }

    fn passing_target(&mut self, text: &str, path: usize, strip: usize) -> Result<&Target, InvalidUri> {
        let target = Target::cut(&self.keep(text.as_bytes()), path, strip)?;
        Ok(self.passing.insert(target))
    }

    /// Adds the request's header at `position` of its map to those that the app sees.
    #[inline(always)]
    pub(crate) fn inward(
        &mut self,
        position: usize,
        name: &new::HeaderName,
        value: &new::HeaderValue,
        headers: &mut old::HeaderMap,
    ) -> Option<Place> {
        // Clients send the same headers in the same order: the last request is the best guess.
        let place = match self.inward.get(position) {
            Some(&place) if self.entries[usize::from(place.0)].new == *name => Some(place),
            _ => self.find(position, name),
        };
        let Some(place) = place else {
            let name = old::HeaderName::from_bytes(name.as_str().as_bytes()).expect(SAME);
            headers.append(name, self.old_value(value));
            return None;
        };
        let entry = &self.entries[usize::from(place.0)];
        match &entry.inward.value {
            Some(known) if known.as_bytes() == value.as_bytes() && !value.is_sensitive() => {
                headers.append(entry.old.clone(), known.clone());
            }
            _ => {
                let name = entry.old.clone();
                headers.append(name, self.learn_inward(place, value));
            }
        }
        Some(place)
    }

    #[cold]
    fn find(&mut self, position: usize, name: &new::HeaderName) -> Option<Place> {
        let place = find(name.as_str(), |place| self.entries[place].new == *name)?;
        if let Some(guess) = self.inward.get_mut(position) {
            *guess = place;
        }
        Some(place)
    }

    #[cold]
    fn learn_inward(&mut self, place: Place, value: &new::HeaderValue) -> old::HeaderValue {
        let entry = &mut self.entries[usize::from(place.0)];
        if !entry.remembers || value.len() > LONGEST || value.is_sensitive() || !entry.inward.is_worn() {
            return self.old_value(value);
        }
        let bytes = Bytes::copy_from_slice(value.as_bytes());
        let value = old::HeaderValue::from_maybe_shared(bytes).expect(SAME);
        entry.inward.value = Some(value.clone());
        value
    }

    fn old_value(&mut self, value: &new::HeaderValue) -> old::HeaderValue {
        let mut copy = old::HeaderValue::from_maybe_shared(self.keep(value.as_bytes())).expect(SAME);
        copy.set_sensitive(value.is_sensitive());
        copy
    }

    /// Where the response's header of this name is, the one at `position` of its map.
    pub(crate) fn place(&mut self, position: usize, name: &old::HeaderName) -> Option<Place> {
        if let Some(&place) = self.outward.get(position)
            && self.entries[usize::from(place.0)].old == *name
        {
            return Some(place);
        }
        let place = find(name.as_str(), |place| self.entries[place].old == *name)?;
        if let Some(guess) = self.outward.get_mut(position) {
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
        let Some(place) = place else {
            let name = new::HeaderName::from_bytes(name.as_str().as_bytes()).expect(SAME);
            let _ = headers.append(name, self.new_value(value));
            return;
        };
        let entry = &self.entries[usize::from(place.0)];
        let _ = match &entry.outward.value {
            Some(known) if known.as_bytes() == value.as_bytes() && !value.is_sensitive() => {
                headers.append(&entry.new, known.clone())
            }
            _ => {
                let name = entry.new.clone();
                headers.append(name, self.learn_outward(place, value))
            }
        };
    }

    #[cold]
    fn learn_outward(&mut self, place: Place, value: &old::HeaderValue) -> new::HeaderValue {
        let entry = &mut self.entries[usize::from(place.0)];
        if !entry.remembers || value.len() > LONGEST || value.is_sensitive() || !entry.outward.is_worn() {
            return self.new_value(value);
        }
        let bytes = Bytes::copy_from_slice(value.as_bytes());
        let value = new::HeaderValue::from_maybe_shared(bytes).expect(SAME);
        entry.outward.value = Some(value.clone());
        value
    }

    fn new_value(&mut self, value: &old::HeaderValue) -> new::HeaderValue {
        let mut copy = new::HeaderValue::from_maybe_shared(self.keep(value.as_bytes())).expect(SAME);
        copy.set_sensitive(value.is_sensitive());
        copy
    }
}

/// Why a translation cannot fail.
const SAME: &str = "both versions of http take the same names and values";

fn find(name: &str, same: impl Fn(usize) -> bool) -> Option<Place> {
    let mut slot = slot(name.as_bytes()) % SLOTS;
    loop {
        let place = PLACES[slot].checked_sub(1)?;
        if same(usize::from(place)) {
            return Some(Place(place));
        }
        slot = (slot + 1) % SLOTS;
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
            assert_eq!(glossary.find(0, &name), Some(Place(place)), "{name}");
        }
        assert_eq!(glossary.place(0, &old::HeaderName::from_static("x-own")), None);
        assert!(FORGOTTEN.iter().all(|name| NAMES.contains(name)));
    }
}
