//! Bytes both ways between two connections, each way with its own end.
//!
//! ```text
//! program ── TCP ──┬─ up ──▶ the end of a stream, or a TCP connection to an instance
//!                  └◀ down ─
//! ```
//!
//! A half that has ended is passed on as that (FIN, end of stream), a connection that was given up as
//! that (RST, reset). What one side does not read the other is not asked for, so nothing piles up; a
//! connection on which nothing moves holds no buffer.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::IoSlice;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use prometheus_client::metrics::counter::Counter;
use proto::fault::Code;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tunnel::{RecvHalf, SendHalf, StreamError};

/// The first buffer for what a socket has: a small question or answer.
const LEAST: usize = 4 * 1024;
/// The largest, for a socket that always has more.
const MOST: usize = 128 * 1024;
/// Bytes taken from a stream before they are written on: one vectored write.
const GATHERED: usize = 128 * 1024;
/// Pieces of one write: packets of a train, and some.
const PIECES: usize = 64;
/// Bytes moved in one turn before others get theirs.
const TURN: usize = 512 * 1024;

/// Where the bytes of a program go.
pub(crate) enum Peer {
    /// To an instance of this node, with what it said already.
    Near(TcpStream, Bytes),
    /// To another node.
    Far(Box<Far>),
}

/// The stream to another node.
pub(crate) struct Far {
    pub(crate) send: SendHalf,
    pub(crate) recv: RecvHalf,
    /// What it said already.
    pub(crate) first: Bytes,
}

/// Why no more bytes move although neither way has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The program gave its connection up.
    Program,
    /// The other end did, or the way to it is gone.
    Peer,
}

/// Moves bytes, first those of the program that were `seen`, until both ways have ended. If one
/// breaks, both ends are told.
///
/// # Errors
/// [`Broken`] says who began it.
pub(crate) async fn both_ways(
    mut program: TcpStream,
    seen: Bytes,
    peer: Peer,
    up: &Counter,
    down: &Counter,
) -> Result<(), Broken> {
    let (mut upward, mut downward) = (Lane::default(), Lane::default());
    up.inc_by(seen.len() as u64);
    upward.queue.extend(Some(seen).filter(|seen| !seen.is_empty()));
    let (mut reads, mut writes) = program.split();
    let ended = match peer {
        Peer::Near(mut instance, first) => {
            downward.queue.extend(Some(first).filter(|first| !first.is_empty()));
            let (mut answers, mut asks) = instance.split();
            let ended = poll_fn(|cx| {
                let sent = upward.poll(cx, &mut reads, &mut asks, up);
                let received = downward.poll(cx, &mut answers, &mut writes, down);
                both(sent, received)
            })
            .await;
            if ended.is_err() {
                abort(&instance);
            }
            ended
        }
        Peer::Far(far) => {
            let Far { mut send, mut recv, first } = *far;
            downward.queue.extend(Some(first).filter(|first| !first.is_empty()));
            let ended = poll_fn(|cx| {
                let sent = upward.poll(cx, &mut reads, &mut send, up);
                let received = downward.poll(cx, &mut recv, &mut writes, down);
                both(sent, received)
            })
            .await;
            if ended.is_err() {
                send.reset(Code::ServiceReset);
                recv.stop(Code::ServiceReset);
            }
            ended
        }
    };
    if ended.is_err() {
        abort(&program);
    }
    ended
}

/// Has the other end of `socket` see a reset when it is dropped, not an end.
pub(crate) fn abort(socket: &TcpStream) {
    // Of a socket that is broken already the other end knows.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

fn both(up: Poll<Result<(), Side>>, down: Poll<Result<(), Side>>) -> Poll<Result<(), Broken>> {
    match (up, down) {
        (Poll::Ready(Err(Side::From)), _) | (_, Poll::Ready(Err(Side::To))) => {
            Poll::Ready(Err(Broken::Program))
        }
        (Poll::Ready(Err(Side::To)), _) | (_, Poll::Ready(Err(Side::From))) => {
            Poll::Ready(Err(Broken::Peer))
        }
        (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
        (_, _) => Poll::Pending,
    }
}

/// Which end of a lane broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    From,
    To,
}

/// One way.
#[derive(Default)]
struct Lane {
    /// Read and not yet written.
    queue: VecDeque<Bytes>,
    /// Nothing more is read.
    ended: bool,
    /// And that was passed on.
    done: bool,
}

impl Lane {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Read,
        to: &mut impl Write,
        count: &Counter,
    ) -> Poll<Result<(), Side>> {
        let mut moved = 0;
        loop {
            if self.done {
                return Poll::Ready(Ok(()));
            }
            if !self.queue.is_empty() {
                ready!(to.poll_write(cx, &mut self.queue)).map_err(|Gone| Side::To)?;
            }
            if self.ended {
                to.finish();
                self.done = true;
                continue;
            }
            if moved >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let read = ready!(from.poll_read(cx, &mut self.queue)).map_err(|Gone| Side::From)?;
            match read {
                Some(bytes) => {
                    count.inc_by(bytes as u64);
                    moved += bytes;
                }
                None => self.ended = true,
            }
        }
    }
}

/// The connection does not give or take any more.
struct Gone;

trait Read {
    /// Adds what there is to `queue` and gives its length; `None` at the end.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut VecDeque<Bytes>,
    ) -> Poll<Result<Option<usize>, Gone>>;
}

trait Write {
    /// Ready when all of `queue` is taken.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut VecDeque<Bytes>,
    ) -> Poll<Result<(), Gone>>;

    /// Passes the end on.
    fn finish(&mut self);
}

impl Read for ReadHalf<'_> {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut VecDeque<Bytes>,
    ) -> Poll<Result<Option<usize>, Gone>> {
        let (mut room, mut total) = (LEAST, 0);
        loop {
            // Asked first, so that no buffer is made for nothing.
            match self.as_ref().poll_read_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Gone)),
                Poll::Pending if total > 0 => return Poll::Ready(Ok(Some(total))),
                Poll::Pending => return Poll::Pending,
            }
            let mut buffer = BytesMut::with_capacity(room);
            let mut reading = std::pin::pin!(self.read_buf(&mut buffer));
            match reading.as_mut().poll(cx) {
                // The end is read again by the next call.
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok((total > 0).then_some(total))),
                Poll::Ready(Ok(length)) => {
                    total += length;
                    queue.push_back(buffer.freeze());
                    if length < room || total >= GATHERED {
                        return Poll::Ready(Ok(Some(total)));
                    }
                    room = (room * 4).min(MOST);
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Gone)),
                // It was ready for nothing: now it is not.
                Poll::Pending => {}
            }
        }
    }
}

impl Write for WriteHalf<'_> {
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut VecDeque<Bytes>,
    ) -> Poll<Result<(), Gone>> {
        while !queue.is_empty() {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let mut count = 0;
            for (piece, bytes) in pieces.iter_mut().zip(queue.iter()) {
                *piece = IoSlice::new(bytes);
                count += 1;
            }
            let written = Pin::new(&mut *self).poll_write_vectored(cx, &pieces[..count]);
            match ready!(written) {
                Ok(0) | Err(_) => return Poll::Ready(Err(Gone)),
                Ok(taken) => drop_first(queue, taken),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn finish(&mut self) {
        // Of a socket that the other end has closed whole nobody is to be told.
        let _ = SockRef::from(self.as_ref()).shutdown(Shutdown::Write);
    }
}

/// Drops the first `count` bytes of `queue`.
fn drop_first(queue: &mut VecDeque<Bytes>, mut count: usize) {
    while let Some(first) = queue.front_mut()
        && count > 0
    {
        let part = count.min(first.len());
        first.advance(part);
        count -= part;
        if first.is_empty() {
            queue.pop_front();
        }
    }
}

impl Read for RecvHalf {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut VecDeque<Bytes>,
    ) -> Poll<Result<Option<usize>, Gone>> {
        let mut total = 0;
        loop {
            match RecvHalf::poll_read(self, cx, GATHERED - total) {
                Poll::Ready(Ok(Some(bytes))) => {
                    total += bytes.len();
                    queue.push_back(bytes);
                    if total >= GATHERED || queue.len() >= PIECES {
                        return Poll::Ready(Ok(Some(total)));
                    }
                }
                // A loss is told once, and must not look like an end; an end is read again.
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Gone)),
                Poll::Ready(Ok(None)) | Poll::Pending if total > 0 => {
                    return Poll::Ready(Ok(Some(total)));
                }
                Poll::Ready(Ok(None)) => return Poll::Ready(Ok(None)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Write for SendHalf {
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut VecDeque<Bytes>,
    ) -> Poll<Result<(), Gone>> {
        let polled = SendHalf::poll_write(self, cx, queue.make_contiguous());
        queue.retain(|bytes| !bytes.is_empty());
        polled.map_err(|_: StreamError| Gone)
    }

    fn finish(&mut self) {
        SendHalf::finish(self);
    }
}
