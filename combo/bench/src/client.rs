//! A client as plain as can be, on blocking connections: it takes a port of 127.0.0.1 and paths, gives
//! answers that are whole or an error, and turns a connection into a websocket. It knows of HTTP and of
//! websockets only as much as the apps here answer with.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use rustix::net::{self, AddressFamily, SocketType, bind, socket};

/// Long enough for anything but a server that does not answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two requests of [`waits`].
const PAUSE: Duration = Duration::from_millis(1);

/// The most bytes of a websocket's message here: longer ones have another head.
pub const LONGEST_MESSAGE: usize = 125;

const FINAL_BINARY: u8 = 0x82;
const MASKED: u8 = 0x80;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Opens a connection.
///
/// # Errors
///
/// If nobody accepts it.
pub fn connect(port: u16) -> io::Result<TcpStream> {
    ready(TcpStream::connect((Ipv4Addr::LOCALHOST, port))?)
}

/// The same as the nth client of many: no more than 500 have the same address.
///
/// # Errors
///
/// If nobody accepts it.
pub fn connect_as(nth: usize, port: u16) -> io::Result<TcpStream> {
    let other = u8::try_from(nth / 500 % 250).unwrap_or_default() + 2;
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::from((Ipv4Addr::new(127, 0, 0, other), 0)))?;
    net::connect(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    ready(socket.into())
}

fn ready(connection: TcpStream) -> io::Result<TcpStream> {
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    Ok(connection)
}

/// Asks once, and keeps the connection open for the next time. The answer is 200, and a text that ends
/// with a newline.
///
/// # Errors
///
/// If there is another answer or none.
pub fn ask(connection: &mut TcpStream, path: &str) -> io::Result<()> {
    request(connection, path)?;
    let answer = read_until(connection, |answer| {
        head_of(answer).is_some_and(|head| answer.ends_with(b"\n") && answer.len() > head + 4)
    })?;
    expect(&answer, "200")
}

/// Asks once and takes the head of the answer, which is 200, and no more of the body than comes with it.
///
/// # Errors
///
/// If there is another answer or none.
pub fn begin(connection: &mut TcpStream, path: &str) -> io::Result<()> {
    request(connection, path)?;
    let answer = read_until(connection, |answer| head_of(answer).is_some())?;
    expect(&answer, "200")
}

fn request(connection: &mut TcpStream, path: &str) -> io::Result<()> {
    connection.write_all(format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").as_bytes())
}

/// Where the empty line after the head is, less its own line's end.
fn head_of(answer: &[u8]) -> Option<usize> {
    answer.windows(4).position(|end| end == b"\r\n\r\n")
}

/// Asks for as long as said, one request after another over one connection with 1 ms between them, and
/// gives how many milliseconds each took.
///
/// # Errors
///
/// If there is an answer that is not 200, or none.
pub fn waits(port: u16, path: &str, long: Duration) -> io::Result<Vec<f64>> {
    let until = Instant::now() + long;
    let mut connection = connect(port)?;
    let mut waits = Vec::new();
    while Instant::now() < until {
        waits.push(wait(&mut connection, path)?);
    }
    Ok(waits)
}

/// Asks once, gives how many milliseconds it took, and waits for 1 ms.
///
/// # Errors
///
/// If there is an answer that is not 200, or none.
pub fn wait(connection: &mut TcpStream, path: &str) -> io::Result<f64> {
    let asked = Instant::now();
    ask(connection, path)?;
    let waited = asked.elapsed().as_secs_f64() * 1e3;
    thread::sleep(PAUSE);
    Ok(waited)
}

/// Turns a connection into a websocket.
///
/// # Errors
///
/// If the server does not want to.
pub fn upgrade(connection: &mut TcpStream, path: &str) -> io::Result<()> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    connection.write_all(request.as_bytes())?;
    let answer = read_until(connection, |answer| answer.ends_with(b"\r\n\r\n"))?;
    expect(&answer, "101")
}

/// A binary message as a client sends it.
///
/// # Panics
///
/// If it is longer than [`LONGEST_MESSAGE`].
#[must_use]
pub fn said(message: &[u8]) -> Vec<u8> {
    let masked = message.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [FINAL_BINARY, MASKED | length(message)].into_iter().chain(MASK).chain(masked).collect()
}

/// A binary message as a server sends it.
///
/// # Panics
///
/// If it is longer than [`LONGEST_MESSAGE`].
#[must_use]
pub fn heard(message: &[u8]) -> Vec<u8> {
    [&[FINAL_BINARY, length(message)], message].concat()
}

fn length(message: &[u8]) -> u8 {
    assert!(message.len() <= LONGEST_MESSAGE, "a message of {} bytes", message.len());
    message.len() as u8
}

fn read_until(connection: &mut TcpStream, whole: impl Fn(&[u8]) -> bool) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    while !whole(&answer) {
        match connection.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => answer.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(answer)
}

fn expect(answer: &[u8], status: &str) -> io::Result<()> {
    let first = String::from_utf8_lossy(answer.split(|byte| *byte == b'\r').next().unwrap_or_default());
    if first.split(' ').nth(1) == Some(status) {
        return Ok(());
    }
    Err(io::Error::other(format!("it answered `{first}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455, section 5.7, with another type of message.
    #[test]
    fn a_message_is_masked_on_its_way_to_the_server() {
        assert_eq!(said(b"Hello"), [0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
        assert_eq!(heard(b"Hello"), *b"\x82\x05Hello");
    }

    #[test]
    fn a_status_is_the_second_word() {
        assert!(expect(b"HTTP/1.1 200 OK\r\n\r\n", "200").is_ok());
        assert!(expect(b"HTTP/1.1 503 Service Unavailable\r\nx: 200 \r\n\r\n", "200").is_err());
        assert!(expect(b"", "200").is_err());
    }
}
