//! The head of a request, as it is on the wire: what the guard lets through, an app may trust.
#![no_main]

use combo::fuzzing::{guard, has_length};
use http::{
    HeaderMap, HeaderValue, Method, Request,
    header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
    uri::{Authority, Scheme},
};
use libfuzzer_sys::fuzz_target;
use percent_encoding::percent_decode_str;

fuzz_target!(|bytes: &[u8]| {
    let Some(read) = read(bytes) else { return };
    for scheme in [Scheme::HTTP, Scheme::HTTPS] {
        let (mut request, mut known) = (read.clone(), None);
        let said = guard(&mut request, &scheme, &mut known, has_length(&[bytes]));

        // The HTTP library drops a length beside an encoding.
        let mut dropped = read.clone();
        if dropped.headers().contains_key(TRANSFER_ENCODING) {
            let _ = dropped.headers_mut().remove(CONTENT_LENGTH);
        }
        let again = guard(&mut dropped, &scheme, &mut None, has_length(&[bytes]));
        assert_eq!(again.is_ok(), said.is_ok(), "{said:?} and {again:?}");

        // What it knows from before makes no difference.
        let mut third = read.clone();
        assert_eq!(guard(&mut third, &scheme, &mut known, has_length(&[bytes])), said);
        if said.is_ok() {
            assert_eq!((third.uri(), third.headers()), (request.uri(), request.headers()));
            check(&request, &scheme);
        }
    }
});

fn read(bytes: &[u8]) -> Option<Request<()>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut headers);
    let _ = head.parse(bytes).ok().filter(httparse::Status::is_complete)?;
    let mut request = Request::builder().method(head.method?).uri(head.path?);
    for header in head.headers {
        request = request.header(header.name, header.value);
    }
    request.body(()).ok()
}

fn check(request: &Request<()>, scheme: &Scheme) {
    let (uri, headers) = (request.uri(), request.headers());
    let host = only(headers, HOST.as_str()).expect("exactly one host");
    let host = host.to_str().expect("text");
    let authority: Authority = host.parse().expect("an authority");
    assert!(!authority.host().is_empty() && !host.contains('@'), "{host}");
    assert!(host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b)), "{host}");
    if let Some(target) = uri.authority() {
        assert!(target.host().eq_ignore_ascii_case(authority.host()), "{target} and {host}");
        let default = if *scheme == Scheme::HTTPS { 443 } else { 80 };
        let port = |of: &Authority| of.port_u16().unwrap_or(default);
        assert_eq!(port(target), port(&authority), "{target} and {host}");
    }
    let encodings: Vec<_> = headers.get_all(TRANSFER_ENCODING).iter().collect();
    assert!(
        encodings.len() <= 1 && encodings.iter().all(|said| said.as_bytes().eq_ignore_ascii_case(b"chunked"))
    );
    assert!(encodings.is_empty() || !headers.contains_key(CONTENT_LENGTH));
    for segment in uri.path().split('/') {
        assert_ne!(*percent_decode_str(segment).collect::<Vec<_>>(), *b"..", "{uri}");
    }
    if request.method() != Method::CONNECT {
        assert!(uri.scheme().is_none_or(|said| said == scheme), "{uri}");
    }
    for name in headers.keys() {
        assert!(name != "forwarded" && !name.as_str().starts_with("x-forwarded-"), "{name}");
    }
}

fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a HeaderValue> {
    let mut all = headers.get_all(name).iter();
    all.next().filter(|_| all.next().is_none())
}
