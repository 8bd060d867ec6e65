//! What a proxy sends before a connection: nothing after the header is taken, however it comes, and no more
//! than a header may be long.
#![no_main]

use combo::fuzzing::haproxy;
use libfuzzer_sys::fuzz_target;

const SECOND: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

fuzz_target!(|bytes: &[u8]| {
    let (said, taken) = haproxy([bytes, b""]);
    let second = bytes.starts_with(SECOND);
    // What a header says of its length, or what its version allows.
    let longest = match bytes.get(14..16) {
        Some(length) if second => 16 + usize::from(u16::from_be_bytes([length[0], length[1]])),
        _ => 107,
    };
    assert!(taken <= longest.min(bytes.len()), "{taken} of {longest}");
    for cut in
        [1, 11, 12, 15, 16, taken.saturating_sub(1), taken].into_iter().filter(|cut| *cut < bytes.len())
    {
        let (again, and_taken) = haproxy([&bytes[..cut], &bytes[cut..]]);
        assert_eq!((again.ok(), and_taken), (said.as_ref().ok().cloned(), taken), "cut at {cut}");
    }
    let Ok((peer, scheme)) = said else { return };
    let header = &bytes[..taken];
    assert!(haproxy([&header[..taken - 1], b""]).0.is_err(), "without its end");
    assert_eq!(haproxy([header, b"GET / HTTP/1.1"]).0.ok(), Some((peer, scheme.clone())));
    if second {
        assert_eq!(taken, longest);
        let (version, command) = (header[12] >> 4, header[12] & 15);
        assert!(version == 2 && command <= 1);
        match (command, header[13] >> 4) {
            (1, 1) => {
                let peer = peer.expect("a peer");
                assert_eq!(
                    peer.ip(),
                    std::net::IpAddr::from([header[16], header[17], header[18], header[19]])
                );
                assert_eq!(peer.port(), u16::from_be_bytes([header[24], header[25]]));
            }
            (1, 2) => assert!(peer.is_some_and(|peer| peer.is_ipv6())),
            _ => assert_eq!(peer, None),
        }
    } else {
        assert_eq!(header.windows(2).position(|two| two == b"\r\n"), Some(taken - 2));
        assert_eq!(scheme, None);
        // What is behind it is of no account (section 2.1 of the specification).
        if header.starts_with(b"PROXY UNKNOWN") {
            return assert_eq!(peer, None);
        }
        let text = std::str::from_utf8(&header[..taken - 2]).expect("text");
        let words: Vec<&str> = text.split(' ').collect();
        let [_, _, source, _, port, _] = *words else { panic!("{text:?}") };
        let peer = peer.expect("a peer");
        assert_eq!((Ok(peer.ip()), Ok(peer.port())), (source.parse(), port.parse()));
    }
});
