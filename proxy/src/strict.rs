//! Requests whose length, or whose lines, can be read in two ways are no requests.
//!
//! RFC 9112 §6.3 lets a server choose one of several lengths; two servers in a row that choose
//! differently see different requests in the same bytes (request smuggling). The HTTP library
//! chooses silently, so what it reads passes through here first: a head with both
//! `Transfer-Encoding` and `Content-Length`, or with either twice, is spoiled before its last byte
//! is handed on, and the library answers 400 and closes. So is a line that ends without a carriage
//! return, which some servers take for a line and others for a part of one (RFC 9112 §2.2).
//!
//! Behind a request that asks for an upgrade nothing is handed on before that is answered: it may not
//! be HTTP (pingora read on as if it were, CVE-2026-2833).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::upgrade::Gate;

/// Bytes of a line that are looked at. Longer values of the two fields that matter are refused.
const LINE: usize = 256;

/// A connection of which no ambiguous head is read.
pub(crate) struct Strict<T> {
    io: T,
    scan: Scan,
    gate: Arc<Gate>,
    /// Read, and not yet to be handed on.
    waiting: Bytes,
}

/// Where in a stream of requests the next byte is.
struct Scan {
    at: At,
    line: SmallVec<[u8; LINE]>,
    truncated: bool,
    /// The last byte of the line until here, kept or not.
    last: u8,
    head: Head,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    Head,
    Body(u64),
    ChunkSize,
    Chunk(u64),
    Trailers,
    /// Spoiled: nothing that follows is a request.
    Dead,
}

/// What the head until here says of the length of the body.
#[derive(Default)]
struct Head {
    begun: bool,
    lengths: u32,
    length: u64,
    encodings: u32,
    upgrade: bool,
    bad: bool,
}

impl<T> Strict<T> {
    /// Behind a request that asks for an upgrade it closes `gate`, and waits until that is open.
    pub(crate) fn new(io: T, gate: Arc<Gate>) -> Self {
        Self { io, scan: Scan::new(), gate, waiting: Bytes::new() }
    }

    /// The connection, and what was read of it and not handed on.
    pub(crate) fn into_parts(self) -> (T, Bytes) {
        (self.io, self.waiting)
    }
}

impl Scan {
    fn new() -> Self {
        let (at, line) = (At::Head, SmallVec::new());
        Self { at, line, truncated: false, last: 0, head: Head::default() }
    }

    /// Looks at what was read, and spoils it where it is ambiguous. Gives how much of it is to be
    /// handed on now, if what follows has to wait.
    fn see(&mut self, bytes: &mut [u8]) -> Option<usize> {
        let mut from = 0;
        while from < bytes.len() {
            let left = bytes.len() - from;
            match self.at {
                At::Body(length) | At::Chunk(length) => {
                    let skip = usize::try_from(length).unwrap_or(usize::MAX).min(left);
                    from += skip;
                    self.at = match (self.at, length - skip as u64) {
                        (At::Body(_), 0) => At::Head,
                        (At::Body(_), rest) => At::Body(rest),
                        (_, 0) => At::ChunkSize,
                        (_, rest) => At::Chunk(rest),
                    };
                }
                At::Head | At::ChunkSize | At::Trailers => {
                    let rest = &bytes[from..];
                    let end = rest.iter().position(|byte| *byte == b'\n');
                    self.keep(&rest[..end.unwrap_or(rest.len())]);
                    let end = end?;
                    from += end + 1;
                    match self.line_ends() {
                        Line::Ends => {}
                        Line::AsksToUpgrade => return Some(from),
                        Line::IsAmbiguous => {
                            // Without its last byte the head is none.
                            bytes[from - 1] = 0;
                            self.at = At::Dead;
                        }
                    }
                }
                At::Dead => return None,
            }
        }
        None
    }

    fn keep(&mut self, piece: &[u8]) {
        let room = LINE - self.line.len();
        self.line.extend_from_slice(&piece[..piece.len().min(room)]);
        self.truncated |= piece.len() > room;
        self.last = piece.last().copied().unwrap_or(self.last);
    }

    /// A line is whole.
    fn line_ends(&mut self) -> Line {
        let line = std::mem::take(&mut self.line);
        let truncated = std::mem::take(&mut self.truncated);
        if std::mem::take(&mut self.last) != b'\r' {
            return Line::IsAmbiguous;
        }
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        match self.at {
            At::Head if !line.is_empty() && !self.head.begun => self.head.begun = true,
            At::Head if !line.is_empty() => self.head.field(line, truncated),
            // Empty lines before a request are allowed (RFC 9112 §2.2).
            At::Head if !self.head.begun => {}
            At::Head => {
                let head = std::mem::take(&mut self.head);
                if head.is_ambiguous() {
                    return Line::IsAmbiguous;
                }
                self.at = match head.length {
                    _ if head.encodings > 0 => At::ChunkSize,
                    0 => At::Head,
                    length => At::Body(length),
                };
                if head.upgrade && self.at == At::Head {
                    return Line::AsksToUpgrade;
                }
            }
            At::ChunkSize => self.at = chunk(line),
            At::Trailers if line.is_empty() => self.at = At::Head,
            At::Trailers | At::Body(_) | At::Chunk(_) | At::Dead => {}
        }
        Line::Ends
    }
}

/// What a line means that has just ended.
enum Line {
    /// Nothing for now.
    Ends,
    /// The end of a head without a body that has an `Upgrade` field.
    AsksToUpgrade,
    /// It, or the head that ends with it, can be read in two ways.
    IsAmbiguous,
}

impl Head {
    fn field(&mut self, line: &[u8], truncated: bool) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            self.lengths += 1;
            let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            self.bad |= truncated || !digits || length.is_none();
            self.length = length.unwrap_or(0);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.encodings += 1;
            // Any other coding would have to be undone here before it is done again.
            self.bad |= truncated || !value.eq_ignore_ascii_case(b"chunked");
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        }
    }

    fn is_ambiguous(&self) -> bool {
        self.bad || self.lengths > 1 || self.encodings > 1 || self.lengths + self.encodings > 1
    }
}

/// What follows a line with the size of a chunk (RFC 9112 §7.1).
fn chunk(line: &[u8]) -> At {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let size = std::str::from_utf8(&line[..digits]).ok();
    match size.and_then(|text| u64::from_str_radix(text, 16).ok()) {
        Some(0) => At::Trailers,
        // With the line end after the data.
        Some(size) => At::Chunk(size.saturating_add(2)),
        // The library refuses it too.
        None => At::Dead,
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Strict<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.gate.poll_open(cx));
        let before = out.filled().len();
        if this.waiting.is_empty() {
            ready!(Pin::new(&mut this.io).poll_read(cx, out))?;
        } else {
            let take = this.waiting.len().min(out.remaining());
            out.put_slice(&this.waiting.split_to(take));
        }
        if let Some(now) = this.scan.see(&mut out.filled_mut()[before..]) {
            let mut waiting = BytesMut::from(&out.filled()[before + now..]);
            waiting.extend_from_slice(&this.waiting);
            this.waiting = waiting.freeze();
            out.set_filled(before + now);
            this.gate.close();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Strict<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether `text` passes unchanged, however it is cut.
    fn passes(text: &str) -> bool {
        let mut verdicts = (1..=text.len()).map(|size| {
            let mut scan = Scan::new();
            let mut bytes = text.as_bytes().to_vec();
            bytes.chunks_mut(size).for_each(|chunk| assert_eq!(scan.see(chunk), None));
            bytes == text.as_bytes()
        });
        let first = verdicts.next().unwrap();
        assert!(verdicts.all(|verdict| verdict == first), "depends on the cut: {text:?}");
        first
    }

    #[test]
    fn requests_with_one_length_pass_one_after_another() {
        assert!(passes("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(passes(
            "\r\nPOST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloPOST / HTTP/1.1\r\n\
             transfer-encoding: Chunked\r\n\r\n5;x=1\r\nContent\r\n0\r\nX: y\r\n\r\n\
             GET / HTTP/1.1\r\n\r\n"
        ));
        assert!(passes("GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1\r\n\r\n"));
    }

    #[test]
    fn nothing_passes_behind_a_request_that_asks_for_an_upgrade() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\nupgrade : x\r\nUpgrade: websocket\r\n\r\n";
        let text = format!("{head}GET /2 HTTP/1.1\r\n\r\n");
        for size in 1..=text.len() {
            let mut scan = Scan::new();
            let mut passed = 0;
            let mut bytes = text.as_bytes().to_vec();
            for chunk in bytes.chunks_mut(size) {
                let now = scan.see(chunk);
                passed += now.unwrap_or(chunk.len());
                if now.is_some() {
                    break;
                }
            }
            assert_eq!(passed, head.len(), "cut at {size}");
        }
    }

    #[test]
    fn a_line_that_ends_without_a_carriage_return_is_spoiled_whatever_its_length() {
        let long = "x".repeat(2 * LINE);
        for lone in [
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\nHost: a\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: a\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: a\r\n\n".to_owned(),
            format!("GET / HTTP/1.1\r\nA: {long}\nHost: a\r\n\r\n"),
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n".to_owned(),
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\n\r\n".to_owned(),
        ] {
            assert!(!passes(&lone), "{lone:?}");
        }
        assert!(passes(&format!("GET / HTTP/1.1\r\nA: {long}\r\nHost: a\r\n\r\n")));
    }

    #[test]
    fn bodies_that_look_like_heads_pass() {
        let body = "Content-Length: 1\r\nContent-Length: 2\r\n\r\n";
        let head = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
        assert!(passes(&format!("{head}{body}GET / HTTP/1.1\r\n\r\n")));
    }

    #[test]
    fn requests_with_two_lengths_are_spoiled() {
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5\r\ncontent-length: 5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: \r\n",
            "Content-Length: 99999999999999999999999\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
        ] {
            assert!(!passes(&format!("POST / HTTP/1.1\r\n{fields}\r\n0\r\n\r\n")), "{fields:?}");
            assert!(!passes(&format!("POST / HTTP/1.1\n{fields}\nhello")), "{fields:?}");
        }
    }
}
