//! A representation and what a request asks of it -> the response: preconditions, then ranges (RFC 9110, 13.2.2). No
//! file is read here.

use std::hash::{BuildHasher, RandomState};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{
        ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
        LAST_MODIFIED, VARY, X_CONTENT_TYPE_OPTIONS,
    },
};

use super::{
    FilesBody, NOSNIFF,
    conditions::{Lines, Validators, Verdict, Wants, is_over, judge, range_holds},
    memory::Kept,
    parts::Envelope,
    range::{Asked, Part, asked},
    representation::{Choice, Chosen, Contents},
};

/// What most requests for a kept file are answered with, to be copied: that costs less than to make it.
#[derive(Debug)]
pub(super) struct Heads {
    whole: HeaderMap,
    not_modified: HeaderMap,
}

impl Heads {
    fn of(kept: &Kept, now: Option<u64>) -> Self {
        // Copies, for they take no more room than they need.
        let whole = whole(StatusCode::OK, kept.chosen(), now).headers().clone();
        let not_modified = bare(StatusCode::NOT_MODIFIED, kept.chosen(), now).headers().clone();
        Self { whole, not_modified }
    }
}

/// The answer to a GET or HEAD.
pub(super) fn render(
    method: &Method,
    wants: &Wants<'_>,
    choice: Choice,
    now: Option<u64>,
) -> Response<FilesBody> {
    let prepared = match &choice {
        Choice::Kept(kept) => prepared(wants, kept, now),
        Choice::Other(_) => None,
    };
    prepared.unwrap_or_else(|| rendered(method, wants, choice.chosen(), now))
}

fn prepared(wants: &Wants<'_>, kept: &Kept, now: Option<u64>) -> Option<Response<FilesBody>> {
    let modified = kept.stamp.second();
    let is_dated = modified.is_none_or(|modified| is_over(modified, now));
    if !is_dated || !wants.range.is_none() {
        return None;
    }
    let verdict = judge(wants, &Validators { tag: Some(&kept.tag), modified }, now);
    let heads = kept.heads.get_or_init(|| Heads::of(kept, now));
    let (status, head, contents) = match verdict {
        Verdict::Failed => return None,
        Verdict::NotModified => (StatusCode::NOT_MODIFIED, &heads.not_modified, FilesBody::empty()),
        Verdict::Proceed => (StatusCode::OK, &heads.whole, FilesBody::empty().and(kept.contents.clone())),
    };
    let mut response = Response::new(contents);
    *response.status_mut() = status;
    *response.headers_mut() = head.clone();
    Some(response)
}

fn rendered(method: &Method, wants: &Wants<'_>, chosen: Chosen, now: Option<u64>) -> Response<FilesBody> {
    let current = Validators { tag: chosen.tag.as_ref(), modified: chosen.modified };
    // A date that several representations have is a weak one (RFC 9110, 8.8.1).
    let strong = Validators { modified: current.modified.filter(|_| chosen.is_sole), ..current };
    match judge(wants, &current, now) {
        Verdict::Failed => bare(StatusCode::PRECONDITION_FAILED, chosen, now),
        Verdict::NotModified => bare(StatusCode::NOT_MODIFIED, chosen, now),
        Verdict::Proceed => {
            // Several lines are no list that could be read.
            let range = match wants.range {
                // `Range` is defined for GET alone (RFC 9110, 14.2).
                Lines::One(range) if *method == Method::GET && range_holds(wants, &strong, now) => {
                    range.to_str().map_or(Asked::Whole, |range| asked(range, chosen.len))
                }
                _ => Asked::Whole,
            };
            match range {
                Asked::Whole => whole(StatusCode::OK, chosen, now),
                Asked::Unsatisfiable => {
                    let len = chosen.len;
                    let mut response = bare(StatusCode::RANGE_NOT_SATISFIABLE, chosen, now);
                    set(&mut response, CONTENT_RANGE, said(format!("bytes */{len}")));
                    set(&mut response, CONTENT_LENGTH, HeaderValue::from_static("0"));
                    response
                }
                Asked::One(part) => one(chosen, part, now),
                // Clients may take the coding for one of all parts together (RFC 9110, 15.3.7.2 does not say).
                Asked::Several(_) if chosen.coding.is_some() => whole(StatusCode::OK, chosen, now),
                Asked::Several(parts) => several(chosen, &parts, now),
            }
        }
    }
}

/// All of it, with a status, whatever was asked. Where it stands for what is not there, nobody can ask whether it has
/// changed (RFC 9110, 13.2.1), so that is not offered.
pub(super) fn whole(status: StatusCode, mut chosen: Chosen, now: Option<u64>) -> Response<FilesBody> {
    if status != StatusCode::OK {
        (chosen.tag, chosen.dated) = (None, None);
    }
    let (media, length, len) = (chosen.media.clone(), chosen.length.clone(), chosen.len);
    let (mut response, contents) = with_head(status, chosen, now);
    set(&mut response, CONTENT_TYPE, media);
    set(&mut response, CONTENT_LENGTH, length);
    if status == StatusCode::OK {
        set(&mut response, ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
    *response.body_mut() = part_of(FilesBody::empty(), &contents, 0, len);
    response
}

fn one(chosen: Chosen, part: Part, now: Option<u64>) -> Response<FilesBody> {
    let (media, len) = (chosen.media.clone(), chosen.len);
    let (mut response, contents) = with_head(StatusCode::PARTIAL_CONTENT, chosen, now);
    set(&mut response, CONTENT_TYPE, media);
    set(&mut response, CONTENT_LENGTH, part.len().into());
    set(&mut response, CONTENT_RANGE, said(format!("bytes {}-{}/{len}", part.first, part.last)));
    set(&mut response, ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    *response.body_mut() = part_of(FilesBody::empty(), &contents, part.first, part.len());
    response
}

fn several(chosen: Chosen, parts: &[Part], now: Option<u64>) -> Response<FilesBody> {
    let envelope = Envelope::new(boundary(), chosen.media.clone(), chosen.len);
    if envelope.length(parts) >= chosen.len {
        return whole(StatusCode::OK, chosen, now);
    }
    let (mut response, contents) = with_head(StatusCode::PARTIAL_CONTENT, chosen, now);
    let mut body = FilesBody::empty();
    for (at, part) in parts.iter().enumerate() {
        body = part_of(body.and(envelope.head(*part, at == 0)), &contents, part.first, part.len());
    }
    set(&mut response, CONTENT_TYPE, envelope.media());
    set(&mut response, CONTENT_LENGTH, envelope.length(parts).into());
    set(&mut response, ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    *response.body_mut() = body.and(envelope.end());
    response
}

/// What is said of a representation without sending any of it.
fn bare(status: StatusCode, mut chosen: Chosen, now: Option<u64>) -> Response<FilesBody> {
    if status != StatusCode::NOT_MODIFIED {
        // How long the file may be kept is not how long that there was a mistake.
        chosen.caching = HeaderValue::from_static("no-cache");
    }
    with_head(status, chosen, now).0
}

/// What is said of a representation, whatever is sent of it.
fn with_head(status: StatusCode, chosen: Chosen, now: Option<u64>) -> (Response<FilesBody>, Contents) {
    let Chosen { contents, tag, modified, dated, coding, vary, caching, .. } = chosen;
    let mut response = Response::new(FilesBody::empty());
    *response.status_mut() = status;
    *response.headers_mut() = HeaderMap::with_capacity(12);
    // Who has it is told what makes it known again, and nothing that it has (RFC 9110, 15.4.5).
    let known = status == StatusCode::NOT_MODIFIED;
    set(&mut response, CACHE_CONTROL, caching);
    if !known {
        set(&mut response, X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    }
    // RFC 9110, 8.8.2.1: never later than now; nor of now, for whoever asks by it would not see the next change. The
    // entity tag stays as it is.
    if let Some(dated) = dated.filter(|_| !known || tag.is_none())
        && modified.is_some_and(|modified| is_over(modified, now))
    {
        set(&mut response, LAST_MODIFIED, dated);
    }
    if let Some(tag) = tag {
        set(&mut response, ETAG, tag);
    }
    if let Some(coding) = coding
        && !known
        && status != StatusCode::RANGE_NOT_SATISFIABLE
        && status != StatusCode::PRECONDITION_FAILED
    {
        set(&mut response, CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    }
    if let Some(vary) = vary {
        set(&mut response, VARY, vary);
    }
    (response, contents)
}

fn part_of(body: FilesBody, contents: &Contents, at: u64, len: u64) -> FilesBody {
    match contents {
        Contents::Memory(bytes) => {
            let (first, end) = (index(at, bytes.len()), index(at + len, bytes.len()));
            body.and(bytes.slice(first..end))
        }
        Contents::Disk(opened) => body.and_file(opened.clone(), at, len),
    }
}

/// Nobody who writes into files knows it beforehand, so none has it in it.
fn boundary() -> String {
    let random = RandomState::new();
    format!("{:016x}{:016x}", random.hash_one(0), random.hash_one(1))
}

fn index(at: u64, len: usize) -> usize {
    usize::try_from(at).unwrap_or(len).min(len)
}

fn set(response: &mut Response<FilesBody>, name: HeaderName, value: HeaderValue) {
    let _ = response.headers_mut().insert(name, value);
}

fn said(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("digits and a few words are visible ASCII")
}
