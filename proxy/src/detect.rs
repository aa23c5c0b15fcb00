//! What a connection speaks, by its first bytes; none of them is lost.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use proto::client_hello;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use crate::socks;

/// The connection preface of HTTP/2 with prior knowledge (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The longest method that is looked for: longer ones exist in no registry (RFC 9110 §16.1).
const MAX_METHOD: usize = 24;
/// Bytes read before it is decided.
const FIRST: usize = 4096;
/// What is said to who speaks something else.
const REFUSAL: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\
    content-type: text/plain\r\ncontent-length: 46\r\n\r\n\
    error[M1009]: not HTTP/1, HTTP/2 or gRPC here\n";
/// How long the refusal may take to be sent.
const REFUSAL_WAIT: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
    /// A `CONNECT` of HTTP/1.
    Connect,
    /// SOCKS 5.
    Socks,
    /// TLS.
    Tls,
    Unknown,
}

/// Reads until the protocol is known; `seen` was read already. The caller bounds the time.
pub(crate) async fn protocol(
    socket: &mut TcpStream,
    mut seen: BytesMut,
) -> io::Result<(Protocol, Bytes)> {
    seen.reserve(FIRST);
    if let Some(protocol) = recognise(&seen).filter(|_| !seen.is_empty()) {
        return Ok((protocol, seen.freeze()));
    }
    loop {
        if socket.read_buf(&mut seen).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(protocol) = recognise(&seen) {
            return Ok((protocol, seen.freeze()));
        }
    }
}

/// The protocol, as soon as these first bytes tell.
fn recognise(seen: &[u8]) -> Option<Protocol> {
    if seen.starts_with(PREFACE) {
        return Some(Protocol::Http2);
    }
    if PREFACE.starts_with(seen) {
        return None;
    }
    // `PRI` is nobody's method: a preface that goes wrong is no request (RFC 9113 §3.4).
    if seen.starts_with(b"PRI ") {
        return Some(Protocol::Unknown);
    }
    if seen.first() == Some(&socks::VERSION) {
        return Some(Protocol::Socks);
    }
    if seen.first() == Some(&client_hello::HANDSHAKE) {
        return Some(Protocol::Tls);
    }
    if seen.starts_with(b"CONNECT ") {
        return Some(Protocol::Connect);
    }
    let method = seen.iter().take(MAX_METHOD).take_while(|byte| byte.is_ascii_uppercase()).count();
    match seen.get(method) {
        None => None,
        // Nothing but a method may come first, apart from empty lines (RFC 9112 §2.2).
        Some(b' ' | b'-' | b'_') if method > 0 => Some(Protocol::Http1),
        Some(b'\r' | b'\n') if method == 0 => Some(Protocol::Http1),
        Some(_) => Some(Protocol::Unknown),
    }
}

/// Tells who speaks something else that this is not the port for it.
pub(crate) async fn refuse(socket: &mut TcpStream) {
    let said = async {
        let _ = socket.write_all(REFUSAL).await;
        let _ = socket.shutdown().await;
    };
    let _ = tokio::time::timeout(REFUSAL_WAIT, said).await;
}

/// A socket whose first bytes were read already.
#[derive(Debug)]
pub(crate) struct Captured {
    seen: Bytes,
    socket: TcpStream,
    /// Who connected.
    pub(crate) from: From,
    /// Set while nothing is wanted but to write.
    one_way: Option<Arc<AtomicBool>>,
}

/// What is known of who connected.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct From {
    /// The other end is on this machine, and came over the loopback.
    pub(crate) local: bool,
    /// It is a program of the user who runs the node, or of root.
    pub(crate) owner: bool,
}

impl Captured {
    pub(crate) fn new(socket: TcpStream, seen: Bytes, from: From) -> Self {
        Self { seen, socket, from, one_way: None }
    }

    /// While `one_way` is set, writing fails as soon as the program has closed its half. Nobody reads
    /// then who would find out, and a write alone would tell only when there is something to write.
    pub(crate) fn ends_with_reader(&mut self, one_way: Arc<AtomicBool>) {
        self.one_way = Some(one_way);
    }

    /// Whether the program is known to say nothing more. Has the task woken when it is.
    fn is_at_end(&self, cx: &mut Context<'_>) -> bool {
        let mut byte = [0];
        matches!(
            self.socket.poll_peek(cx, &mut ReadBuf::new(&mut byte)),
            Poll::Ready(Ok(0) | Err(_))
        )
    }

    /// The socket, and what was read of it and nobody has taken.
    pub(crate) fn into_parts(self) -> (TcpStream, Bytes) {
        (self.socket, self.seen)
    }

    /// Where the program connected to.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl AsyncRead for Captured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.seen.is_empty() {
            return Pin::new(&mut self.socket).poll_read(cx, out);
        }
        let take = self.seen.len().min(out.remaining());
        out.put_slice(&self.seen[..take]);
        self.seen.advance(take);
        if self.seen.is_empty() {
            self.seen = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Captured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let one_way = self.one_way.as_ref().is_some_and(|set| set.load(Ordering::Relaxed));
        if one_way && self.is_at_end(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_the_protocol() {
        for (seen, protocol) in [
            (PREFACE, Some(Protocol::Http2)),
            (b"GET / HTTP/1.1", Some(Protocol::Http1)),
            (b"POST /", Some(Protocol::Http1)),
            (b"M-SEARCH *", Some(Protocol::Http1)),
            (b"\r\nGET /", Some(Protocol::Http1)),
            (b"P", None),
            (b"PRI", None),
            (b"PO", None),
            (b"PRI * HTTP/2.0\r\n\r\nXX", Some(Protocol::Unknown)),
            (b"\x16", Some(Protocol::Tls)),
            (b"SSH-2.0-x\r\n", Some(Protocol::Http1)),
            (b"hello", Some(Protocol::Unknown)),
            (&[b'A'; 40], Some(Protocol::Unknown)),
        ] {
            assert_eq!(recognise(seen), protocol, "{:?}", String::from_utf8_lossy(seen));
        }
    }

    #[test]
    fn the_refusal_is_as_long_as_it_says() {
        let text = std::str::from_utf8(REFUSAL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{}", body.len());
    }
}
