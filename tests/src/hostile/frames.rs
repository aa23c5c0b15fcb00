//! HTTP/2 by hand: frames as bytes, so that a client can say what no library would.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{connect, is_timeout, until};

/// What an HTTP/2 client says first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The last ping of a client: its answer says that everything before it was read.
const LAST: &[u8] = b"the last";

/// Types of frames (RFC 9113 §6).
#[expect(missing_docs, reason = "the names are those of the RFC")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Data = 0,
    Headers = 1,
    Priority = 2,
    Reset = 3,
    Settings = 4,
    Ping = 6,
    GoAway = 7,
    WindowUpdate = 8,
    Continuation = 9,
}

/// `END_STREAM`, and `ACK` of settings and pings.
pub const END_STREAM: u8 = 1;
/// `END_HEADERS`.
pub const END_HEADERS: u8 = 4;

/// One frame (RFC 9113 §4.1).
///
/// # Panics
/// If the payload is longer than a frame can say.
#[must_use]
pub fn frame(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("frames are short");
    let mut out = length.to_be_bytes()[1..].to_vec();
    out.extend_from_slice(&[kind as u8, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// The fields of a `GET` of `web`, without Huffman coding (RFC 7541 §6).
#[must_use]
pub fn get_web() -> Vec<u8> {
    // :method GET, :scheme http, :path / are in the static table; :authority is its entry 1.
    let mut block = vec![0x82, 0x86, 0x84, 0x01, 3];
    block.extend_from_slice(b"web");
    block
}

/// A field that is put into the dynamic table (RFC 7541 §6.2.1).
///
/// # Panics
/// If it is too long for this writer.
#[must_use]
pub fn indexed(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = vec![0x40, u8::try_from(name.len()).expect("a short name")];
    out.extend_from_slice(name);
    // A length in seven bits and more (RFC 7541 §5.1).
    let mut rest = value.len();
    if rest < 127 {
        out.push(u8::try_from(rest).expect("just looked at"));
    } else {
        out.push(127);
        rest -= 127;
        while rest >= 128 {
            out.push(u8::try_from(rest % 128).expect("a remainder") | 0x80);
            rest /= 128;
        }
        out.push(u8::try_from(rest).expect("a remainder"));
    }
    out.extend_from_slice(value);
    out
}

/// How a connection with a flood ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With `GOAWAY` of this error code.
    GoAway(u32),
    /// Closed or reset without a word.
    Closed,
    /// Still open when everything was said.
    Open,
}

/// A client that writes frames by hand. What the server says is read and counted by a thread of its own, so that
/// neither side waits for the other.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    heard: Arc<Mutex<Heard>>,
}

/// What the server said.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heard {
    /// The code of its last `GOAWAY`.
    pub goaway: Option<u32>,
    /// Streams it reset.
    pub resets: usize,
    /// Heads of responses.
    pub heads: usize,
    /// It has closed the connection.
    pub closed: bool,
    /// It has answered [`LAST`].
    lasts: bool,
}

impl Client {
    /// Connects and says the preface and empty settings.
    ///
    /// # Panics
    /// If nobody listens.
    #[must_use]
    pub fn connect(to: SocketAddr) -> Self {
        let stream = connect(to);
        let mut read = stream.try_clone().expect("a descriptor is left");
        let heard = Arc::<Mutex<Heard>>::default();
        let hears = Arc::clone(&heard);
        // Ends with the connection.
        std::thread::spawn(move || {
            listen(&mut read, &hears);
            lock(&hears).closed = true;
        });
        let mut client = Self { stream, heard };
        let mut first = PREFACE.to_vec();
        first.extend(frame(Kind::Settings, 0, 0, b""));
        assert!(client.say(&first), "a new connection takes what is said");
        client
    }

    /// Says something; false once the server has closed.
    ///
    /// # Panics
    /// If the server neither reads nor closes: a flood must not hold it, nor it the flood, for ever.
    pub fn say(&mut self, bytes: &[u8]) -> bool {
        match self.stream.write_all(bytes) {
            Ok(()) => true,
            Err(error) => {
                assert!(!is_timeout(&error), "the server neither reads nor closes");
                false
            }
        }
    }

    /// Says the same up to so many times; how often it went out before the server closed.
    pub fn flood(&mut self, bytes: &[u8], times: usize) -> usize {
        (0..times).take_while(|_| self.say(bytes)).count()
    }

    /// What the server has said so far.
    #[must_use]
    pub fn heard(&self) -> Heard {
        *lock(&self.heard)
    }

    /// Tells how it ended and what the server had said, once everything said to it was read or it has closed.
    ///
    /// # Panics
    /// If neither comes about.
    #[must_use]
    pub fn end(mut self) -> (End, Heard) {
        let _ = self.say(&frame(Kind::Ping, 0, 0, LAST));
        until("an end of the connection", || {
            let heard = self.heard();
            heard.closed || heard.lasts
        });
        let heard = self.heard();
        // A goodbye may be followed by a close.
        if heard.goaway.is_some() {
            until("a close after the goodbye", || self.heard().closed);
        }
        let end = match heard.goaway {
            Some(code) => End::GoAway(code),
            None if heard.closed => End::Closed,
            None => End::Open,
        };
        (end, heard)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Ends the thread that reads.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    // Numbers are whole whoever panics.
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listen(stream: &mut TcpStream, heard: &Mutex<Heard>) {
    let mut head = [0; 9];
    let mut body = Vec::new();
    loop {
        match stream.read_exact(&mut head) {
            Ok(()) => {}
            // Nothing for a while is no end, and the one who waits has a limit of its own.
            Err(error) if is_timeout(&error) => continue,
            Err(_) => return,
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        body.resize(length as usize, 0);
        if stream.read_exact(&mut body).is_err() {
            return;
        }
        let mut heard = lock(heard);
        match head[3] {
            1 => heard.heads += 1,
            3 => heard.resets += 1,
            6 => heard.lasts |= body == LAST,
            7 if body.len() >= 8 => {
                heard.goaway = Some(u32::from_be_bytes([body[4], body[5], body[6], body[7]]));
            }
            _ => {}
        }
    }
}
