//! The first bytes of a connection that a proxy made -> whom it made it for, by the PROXY protocol.
//!
//! Exactly the header is read and nothing after it, and no more is held than has come. Who sends none, or none that can be understood, is
//! not served: the endpoint says that there is one.

use std::{io, net::SocketAddr};

use http::uri::Scheme;
use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest header of version 1, with its end (section 2.1 of the specification).
const LONGEST_V1: usize = 107;

/// Of version 2, what comes before addresses. The rest may be as long as 16 bits can say: beside
/// addresses some balancers send whole certificates.
const FIXED: usize = 16;

/// What both versions can be told apart by.
const BEGINNING: usize = v2::PROTOCOL_PREFIX.len();

/// What a proxy said. Of what it did not say, the socket tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) peer: Option<SocketAddr>,
    /// How the client spoke to the proxy.
    pub(crate) scheme: Option<Scheme>,
}

/// Reads a header.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Said> {
    let mut header = vec![0; BEGINNING];
    let _ = stream.read_exact(&mut header).await?;
    if header == v2::PROTOCOL_PREFIX {
        header.resize(FIXED, 0);
        let _ = stream.read_exact(&mut header[BEGINNING..]).await?;
        let rest = u16::from_be_bytes([header[14], header[15]]);
        more(stream, &mut header, rest).await?;
        return second(&header);
    }
    while !header.ends_with(b"\r\n") {
        if !header.starts_with(b"PROXY ") || header.len() == LONGEST_V1 {
            return Err(invalid("there is none"));
        }
        header.push(stream.read_u8().await?);
    }
    first(&header)
}

/// Reads so many bytes more. Only what has come takes room, whatever was announced.
async fn more(stream: &mut (impl AsyncRead + Unpin), header: &mut Vec<u8>, length: u16) -> io::Result<()> {
    let read = stream.take(length.into()).read_to_end(header).await?;
    if read < usize::from(length) { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

fn invalid(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("cannot understand a PROXY header: {why}"))
}

fn first(header: &[u8]) -> io::Result<Said> {
    let header = v1::Header::try_from(header).map_err(invalid)?;
    let peer = match header.addresses {
        v1::Addresses::Tcp4(tcp) => Some((tcp.source_address, tcp.source_port).into()),
        v1::Addresses::Tcp6(tcp) => Some((tcp.source_address, tcp.source_port).into()),
        v1::Addresses::Unknown => None,
    };
    Ok(Said { peer, scheme: None })
}

fn second(header: &[u8]) -> io::Result<Said> {
    let header = v2::Header::try_from(header).map_err(invalid)?;
    if header.command == v2::Command::Local {
        // The proxy itself asks, whether we are well for instance.
        return Ok(Said::default());
    }
    let peer = match header.addresses {
        v2::Addresses::IPv4(ip) => Some((ip.source_address, ip.source_port).into()),
        v2::Addresses::IPv6(ip) => Some((ip.source_address, ip.source_port).into()),
        v2::Addresses::Unix(_) | v2::Addresses::Unspecified => None,
    };
    let secure = header.tlvs().flatten().any(|tlv| {
        // PP2_TYPE_SSL and PP2_CLIENT_SSL (section 2.2.6).
        tlv.kind == 0x20 && tlv.value.first().is_some_and(|client| client & 1 == 1)
    });
    Ok(Said { peer, scheme: secure.then_some(Scheme::HTTPS) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(bytes: &[u8]) -> Result<(Option<String>, bool, Vec<u8>), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut rest = bytes;
        let said = runtime.block_on(read(&mut rest)).map_err(|error| error.to_string())?;
        Ok((said.peer.map(|peer| peer.to_string()), said.scheme == Some(Scheme::HTTPS), rest.to_vec()))
    }

    fn check(bytes: &[u8], peer: Option<&str>, secure: bool) {
        let with_more = [bytes, b"GET / HTTP/1.1\r\n"].concat();
        let expected = (peer.map(ToOwned::to_owned), secure, b"GET / HTTP/1.1\r\n".to_vec());
        assert_eq!(said(&with_more), Ok(expected), "{bytes:?}");
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("it is short").to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[0x20 | command, family], &length, rest].concat()
    }

    #[test]
    fn a_header_says_whom_a_connection_is_for_and_nothing_more_is_read() {
        check(b"PROXY TCP4 192.0.2.1 198.51.100.1 5000 80\r\n", Some("192.0.2.1:5000"), false);
        check(b"PROXY TCP6 2001:db8::1 ::1 5000 80\r\n", Some("[2001:db8::1]:5000"), false);
        check(b"PROXY UNKNOWN\r\n", None, false);
        check(b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None, false);
        let v4 = [192, 0, 2, 1, 198, 51, 100, 1, 0x13, 0x88, 0, 80];
        check(&v2(1, 0x11, &v4), Some("192.0.2.1:5000"), false);
        let tls = [&v4[..], &[0x20, 0, 5, 1, 0, 0, 0, 0]].concat();
        check(&v2(1, 0x11, &tls), Some("192.0.2.1:5000"), true);
        let clear = [&v4[..], &[0x20, 0, 5, 0, 0, 0, 0, 0]].concat();
        check(&v2(1, 0x11, &clear), Some("192.0.2.1:5000"), false);
        check(&v2(0, 0, &[]), None, false);
        check(&v2(1, 0x31, &[0; 216]), None, false);
    }

    #[test]
    fn what_is_beside_addresses_may_be_as_long_as_a_header_can_be() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 1, 0x13, 0x88, 0, 80];
        for length in [2_000_u16, 16_384, u16::MAX - 12 - 8 - 3] {
            // A certificate after what says that there was one.
            let tlv = [&[0x20, 0, 5, 1, 0, 0, 0, 0, 0x28][..], &length.to_be_bytes()].concat();
            let rest = [&v4[..], &tlv, &vec![0x30; length.into()]].concat();
            check(&v2(1, 0x11, &rest), Some("192.0.2.1:5000"), true);
        }
    }

    #[test]
    fn what_is_announced_takes_no_room_before_it_comes() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (mut come, mut header) = (&[0; 40][..], Vec::new());
        assert!(runtime.block_on(more(&mut come, &mut header, u16::MAX)).is_err());
        assert!(header.len() == 40 && header.capacity() < 1_024, "{}", header.capacity());
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for bytes in [
            &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"PROXY TCP4 192.0.2.1\r\n",
            b"PROXY TCP4 192.0.2.999 198.51.100.1 5000 80\r\n",
            b"PROXY",
            b"",
            &[b"PROXY UNKNOWN ", &[b'x'; 200][..], b"\r\n"].concat(),
            &v2(1, 0x11, &[0; 4]),
            &v2(1, 0x11, &[0; 12])[..20],
        ] {
            assert!(said(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_understood_or_refused(
            start in prop_oneof![Just(b"PROXY TCP4 ".to_vec()), Just(v2::PROTOCOL_PREFIX.to_vec()), Just(vec![])],
            rest in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let _ = said(&[start, rest].concat());
        }
    }
}
