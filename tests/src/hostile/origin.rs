//! A service that takes requests down to the letter: what it sees is what the node let through.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What it answers, always.
pub const BODY: &str = "fine";
/// Bytes of one connection that are looked at.
const MOST: usize = 1 << 20;

/// A service for HTTP/1.1 that remembers each request as it came.
#[derive(Debug)]
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which of the connections it came by, counted from 0.
    pub connection: usize,
    /// Its head, without the empty line.
    pub head: String,
    /// Its body, with the sizes of its chunks if it has some.
    pub body: Vec<u8>,
}

impl Request {
    /// The target in its first line.
    #[must_use]
    pub fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// All values of a field; names have no case.
    #[must_use]
    pub fn fields(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim()).collect()
    }
}

impl Origin {
    /// Starts one that answers with `more` fields in its head (each ended with CR LF).
    ///
    /// # Panics
    /// If there is no port.
    #[must_use]
    pub fn start(more: &'static str) -> Self {
        Self::start_with(more, "")
    }

    /// As [`Origin::start`], with bytes after each response that belong to none.
    ///
    /// # Panics
    /// As [`Origin::start`].
    #[must_use]
    pub fn start_with(more: &'static str, after: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback has ports");
        let address = listener.local_addr().expect("it is bound");
        let seen = Arc::<Mutex<Vec<Request>>>::default();
        let all = Arc::clone(&seen);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                let all = Arc::clone(&all);
                std::thread::spawn(move || serve(stream, number, (more, after), &all));
            }
        });
        Self { address, seen }
    }

    /// The requests that were no beats, since this was asked last.
    #[must_use]
    pub fn take(&self) -> Vec<Request> {
        let mut seen = lock(&self.seen);
        let taken = std::mem::take(&mut *seen);
        taken.into_iter().filter(|request| request.target() != "/beat").collect()
    }
}

fn lock(seen: &Mutex<Vec<Request>>) -> MutexGuard<'_, Vec<Request>> {
    // Requests are pushed whole.
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads requests as strictly as the standard has them; whatever else comes is a request of its own, so that nothing
/// that was smuggled goes unseen.
fn serve(
    mut stream: TcpStream,
    connection: usize,
    (more, after): (&str, &str),
    all: &Mutex<Vec<Request>>,
) {
    let mut input = Vec::new();
    loop {
        let Some(end) = read_until(&mut stream, &mut input, |all| position(all, b"\r\n\r\n"))
        else {
            if !input.is_empty() {
                let head = String::from_utf8_lossy(&input).into_owned();
                lock(all).push(Request { connection, head, body: Vec::new() });
            }
            return;
        };
        let head = String::from_utf8_lossy(&input[..end]).into_owned();
        input.drain(..end + 4);
        let mut request = Request { connection, head, body: Vec::new() };
        let chunked = !request.fields("transfer-encoding").is_empty();
        let length = request.fields("content-length").first().and_then(|n| n.parse().ok());
        let whole = |all: &[u8]| {
            let end = if chunked { end_of_chunks(all) } else { Some(length.unwrap_or(0)) };
            end.filter(|end| all.len() >= *end)
        };
        let Some(end) = read_until(&mut stream, &mut input, whole) else {
            request.body = input;
            lock(all).push(request);
            return;
        };
        request.body = input.drain(..end).collect();
        lock(all).push(request);
        let length = BODY.len();
        let answer =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{more}\r\n{BODY}{after}");
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// Reads until `end` finds one.
fn read_until(
    stream: &mut TcpStream,
    input: &mut Vec<u8>,
    end: impl Fn(&[u8]) -> Option<usize>,
) -> Option<usize> {
    let mut piece = [0; 4096];
    loop {
        if let Some(end) = end(input) {
            return Some(end);
        }
        let read = stream.read(&mut piece).ok().filter(|read| *read > 0 && input.len() < MOST)?;
        input.extend_from_slice(&piece[..read]);
    }
}

fn position(all: &[u8], wanted: &[u8]) -> Option<usize> {
    all.windows(wanted.len()).position(|window| window == wanted)
}

/// Where a body in chunks ends (RFC 9112 §7.1).
fn end_of_chunks(all: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = position(&all[at..], b"\r\n")?;
        let text = std::str::from_utf8(&all[at..at + line]).ok()?;
        let size = usize::from_str_radix(text.split(';').next()?.trim(), 16).ok()?;
        at += line + 2;
        if size == 0 {
            // Trailers, and the empty line.
            return position(&all[at - 2..], b"\r\n\r\n").map(|end| at + 2 + end);
        }
        at += size + 2;
        if at > all.len() {
            return None;
        }
    }
}
