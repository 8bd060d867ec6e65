//! Headers that a client has written and to which a proxy that is trusted has added: what it says is believed,
//! whatever was there before.
#![no_main]

use combo::fuzzing::{Said, proxies};
use http::{HeaderMap, HeaderName, HeaderValue, uri::Scheme};
use libfuzzer_sys::fuzz_target;

const PEER: &str = "203.0.113.9:0";

fuzz_target!(|bytes: &[u8]| {
    let bytes = [bytes, b"\n\n"].concat();
    let mut space = [httparse::EMPTY_HEADER; 32];
    let Ok(httparse::Status::Complete((_, lines))) = httparse::parse_headers(&bytes, &mut space) else {
        return;
    };
    let mut headers = HeaderMap::new();
    for line in lines {
        let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(line.name.as_bytes()), HeaderValue::from_bytes(line.value))
        else {
            continue;
        };
        let _ = headers.append(name, value);
    }
    let x = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-prefix"];
    let said = [proxies(&x, &headers), proxies(&["forwarded"], &headers)];
    said.iter().for_each(check);

    for (name, adds) in [("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=203.0.113.9;proto=https")] {
        let mut line = headers.clone();
        let _ = line.append(name, HeaderValue::from_static(adds));
        heard(&proxies(&[name], &line));
        let mut element = headers.clone();
        let Some(last) = element.get_all(name).iter().next_back() else { continue };
        let value = [last.as_bytes(), b", ", adds.as_bytes()].concat();
        let all = element.get_all(name).iter().count();
        let before: Vec<_> = element.get_all(name).iter().take(all - 1).cloned().collect();
        let _ = element.remove(name);
        for value in before {
            let _ = element.append(name, value);
        }
        let _ = element.append(name, HeaderValue::from_bytes(&value).expect("a value"));
        heard(&proxies(&[name], &element));
    }
});

fn heard(said: &Said) {
    assert_eq!(said.peer.map(|peer| peer.to_string()).as_deref(), Some(PEER));
    assert!(said.scheme.as_ref().is_none_or(|scheme| *scheme == Scheme::HTTPS));
}

fn check(said: &Said) {
    let Some(prefix) = &said.prefix else { return };
    assert!(prefix.starts_with('/') && !prefix.contains("//") && !prefix.contains('\\'), "{prefix}");
    assert!(prefix.split('/').all(|segment| segment != ".."), "{prefix}");
}
