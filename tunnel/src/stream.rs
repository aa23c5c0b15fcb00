//! Streams: one call each, bytes both ways, each direction with its own end.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use proto::fault::Code;
use smallvec::SmallVec;

use crate::close::Gone;
use crate::credit::{self, Inbound, Outbound};
use crate::link::InUse;
use crate::packets::Packets;
use crate::transport;

/// A stream that was opened or accepted. The halves are independent: give them away, or drop one.
#[derive(Debug)]
pub struct Stream {
    /// What this node says.
    pub send: SendHalf,
    /// What the other says.
    pub recv: RecvHalf,
}

/// Why a stream gives or takes nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The other end gave it up: it reset what it was sending, or stopped what this node sends.
    #[error("the other node gave the stream up ({0:?})")]
    Reset(Code),
    /// The link is gone.
    #[error("{0}")]
    Lost(Gone),
    /// This half was finished or reset here before.
    #[error("the stream was already ended here")]
    Ended,
}

impl StreamError {
    /// The code under which this ends the rest of the call.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::Reset(code) => code,
            Self::Lost(Gone::ByPeer(close)) if close.is_without_calls() => Code::Unseen,
            Self::Lost(_) | Self::Ended => Code::Broken,
        }
    }
}

/// The sending half. Dropping it unfinished resets it as cancelled.
#[derive(Debug)]
pub struct SendHalf {
    inner: transport::Sender,
    /// The `Open`, until the first write takes it along: a call begins with one packet.
    first: Option<Bytes>,
    ended: bool,
    /// The wait of [`SendHalf::poll_stopped`], which must outlive one poll.
    stopping: Option<Stopping>,
    credit: Outbound,
    link: InUse,
}

/// Waits until the other side wants nothing more.
struct Stopping(Pin<Box<dyn Future<Output = Code> + Send + Sync>>);

impl std::fmt::Debug for Stopping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stopping")
    }
}

/// The receiving half. Dropping it before its end stops the other side as cancelled.
#[derive(Debug)]
pub struct RecvHalf {
    inner: transport::Receiver,
    /// What was read together with the `Open`.
    first: Option<Bytes>,
    ended: bool,
    /// `None` for a stream that is none of a call.
    credit: Option<Inbound>,
    link: InUse,
}

impl Stream {
    /// Makes it a stream of the link itself: no call, and not held to credit.
    pub(crate) fn uncount(&mut self) {
        self.send.link.uncount();
        self.recv.link.uncount();
        self.recv.credit = None;
    }
}

/// Chunks of one write that fit on the stack, besides the `Open`.
const CHUNKS: usize = 8;

impl SendHalf {
    pub(crate) fn new(inner: transport::Sender, first: Option<Bytes>, link: InUse) -> Self {
        Self { inner, first, ended: false, stopping: None, credit: Outbound::default(), link }
    }

    /// Writes all of `chunks`, without copying them; waits while the other side reads too slowly.
    /// Chunks are emptied as they are taken, so a write that was cancelled can be gone on with.
    ///
    /// # Errors
    /// [`StreamError`] when the other side wants nothing more, or the link is gone.
    pub async fn write(&mut self, chunks: &mut [Bytes]) -> Result<(), StreamError> {
        poll_fn(|cx| self.poll_write(cx, chunks)).await
    }

    /// [`SendHalf::write`] as a poll: ready when all of `chunks` are taken.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<Result<(), StreamError>> {
        if let Some(first) = self.first.take() {
            let mut all: SmallVec<[Bytes; CHUNKS + 1]> = SmallVec::with_capacity(chunks.len() + 1);
            all.push(first);
            all.extend(chunks.iter_mut().map(std::mem::take));
            let polled = self.poll_write_credited(cx, &mut all);
            let mut all = all.into_iter();
            self.first = all.next().filter(|first| !first.is_empty());
            for (chunk, left) in chunks.iter_mut().zip(all) {
                *chunk = left;
            }
            return polled;
        }
        self.poll_write_credited(cx, chunks)
    }

    /// Writes as far as the other side has granted, and waits for more.
    fn poll_write_credited(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<Result<(), StreamError>> {
        loop {
            let wanted = total(chunks);
            let link = self.link.link();
            let room = self.credit.room(wanted, self.inner.id(), &link.credits);
            if room == wanted {
                let polled = self.inner.poll_write(cx, chunks);
                self.credit.sent(wanted - total(chunks));
                return polled;
            }
            if room > 0 {
                ready!(self.poll_write_part(cx, chunks, room))?;
            } else if self.credit.poll_room(cx).is_pending() {
                // It may be that the other side wants nothing more, or that it is gone.
                let code = ready!(self.poll_stopped(cx));
                return Poll::Ready(Err(match self.inner.poll_write(cx, chunks) {
                    Poll::Ready(Err(error)) => error,
                    Poll::Ready(Ok(())) | Poll::Pending => StreamError::Reset(code),
                }));
            }
        }
    }

    /// Writes the first `room` bytes of `chunks`, which have more.
    fn poll_write_part(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut [Bytes],
        room: usize,
    ) -> Poll<Result<(), StreamError>> {
        let (mut at, mut before) = (0, 0);
        while before + chunks[at].len() <= room {
            before += chunks[at].len();
            at += 1;
        }
        let mut whole = chunks[at].clone();
        chunks[at].truncate(room - before);
        let polled = self.inner.poll_write(cx, &mut chunks[..=at]);
        let left = total(&chunks[..=at]);
        self.credit.sent(room - left);
        // What was cut off follows what is left of this chunk.
        whole.advance(room - before - chunks[at].len());
        chunks[at] = whole;
        polled
    }

    /// Datagrams that belong to this stream, in both directions.
    #[must_use]
    pub fn packets(&self) -> Packets {
        Packets::new(Arc::clone(self.link.link()), self.inner.id())
    }

    /// Sends the `Open` now, for a call in which the other side speaks first.
    ///
    /// # Errors
    /// As [`SendHalf::write`].
    pub async fn flush(&mut self) -> Result<(), StreamError> {
        self.write(&mut []).await
    }

    /// Says that nothing more comes. What was written is still delivered.
    pub fn finish(&mut self) {
        if self.first.is_some() {
            // Nothing was written: the `Open` alone. A fresh stream has room for it; without the
            // room there is no one to wait here, so the call is given up instead.
            let mut cx = Context::from_waker(std::task::Waker::noop());
            if self.poll_write(&mut cx, &mut []).is_pending() {
                return self.reset(Code::Unseen);
            }
        }
        if !self.ended {
            self.ended = true;
            self.inner.finish();
        }
    }

    /// Gives up what was not delivered yet; the other side reads `code`.
    pub fn reset(&mut self, code: Code) {
        if !self.ended {
            self.ended = true;
            self.inner.reset(code);
        }
    }

    /// [`SendHalf::reset`], also after [`SendHalf::finish`]: what was written and did not arrive is
    /// not sent again. For a call that was given up while the path was silent: the other side must
    /// not begin with it when the path is back.
    pub fn abandon(&mut self, code: Code) {
        self.ended = true;
        self.inner.reset(code);
    }

    /// Waits until the other side wants nothing more, and gives its code. Pends for ever when it
    /// took everything there was. Safe to cancel.
    pub async fn stopped(&mut self) -> Code {
        poll_fn(|cx| self.poll_stopped(cx)).await
    }

    /// [`SendHalf::stopped`] as a poll.
    pub fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<Code> {
        let stopping = self.stopping.get_or_insert_with(|| Stopping(self.inner.stopped()));
        let polled = stopping.0.as_mut().poll(cx);
        if polled.is_ready() {
            self.stopping = None;
        }
        polled
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        self.reset(Code::Cancelled);
        self.credit.end(self.inner.id(), &self.link.link().credits);
    }
}

fn total(chunks: &[Bytes]) -> usize {
    chunks.iter().map(Bytes::len).sum()
}

impl RecvHalf {
    pub(crate) fn new(inner: transport::Receiver, link: InUse) -> Self {
        Self { inner, first: None, ended: false, credit: Some(Inbound::default()), link }
    }

    /// Waits until the link is suspected and has stayed so for `grace`: a stream outlives that, but
    /// whoever waits for its first word may rather ask elsewhere.
    pub fn doubted(&self, grace: Duration) -> impl Future<Output = ()> + Send + use<> {
        self.link.doubted(grace)
    }

    /// The next bytes, at most `max`; `None` at the end. What is not read slows the other side
    /// down. Safe to cancel.
    ///
    /// # Errors
    /// [`StreamError`] when the other side gave up, or the link is gone.
    pub async fn read(&mut self, max: usize) -> Result<Option<Bytes>, StreamError> {
        poll_fn(|cx| self.poll_read(cx, max)).await
    }

    /// Puts back what was read too much.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        debug_assert!(self.first.is_none(), "only what was just read is put back");
        if !bytes.is_empty() {
            self.first = Some(bytes);
        }
    }

    /// [`RecvHalf::read`] as a poll.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        if let Some(first) = &mut self.first {
            let piece = first.split_to(max.min(first.len()));
            if first.is_empty() {
                self.first = None;
            }
            return Poll::Ready(Ok(Some(piece)));
        }
        if self.ended {
            return Poll::Ready(Ok(None));
        }
        let polled = self.inner.poll_read(cx, max);
        match &polled {
            Poll::Ready(Ok(Some(read))) => self.grant(read.len()),
            Poll::Ready(Ok(None) | Err(_)) => self.ended = true,
            Poll::Pending => {}
        }
        polled
    }

    /// Lets the other side send more for what was read.
    fn grant(&mut self, read: usize) {
        let link = self.link.link();
        let Some(credit) = &mut self.credit else { return };
        let Some(total) = credit.read(read, &link.credits, || link.connection.rtt()) else {
            return;
        };
        if link.credits.grant(self.inner.id(), total) {
            tokio::spawn(credit::tell(Arc::clone(link)));
        }
    }

    /// Wants nothing more; the other side is told `code`.
    pub fn stop(&mut self, code: Code) {
        self.first = None;
        if !self.ended {
            self.ended = true;
            self.inner.stop(code);
        }
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        self.stop(Code::Cancelled);
        if let Some(credit) = &mut self.credit {
            credit.end(self.inner.id(), &self.link.link().credits);
        }
    }
}

/// Reads until the end, at most `max` bytes.
///
/// # Errors
/// [`StreamError`], or [`Code::TooMuch`] as if the other side had said so.
pub(crate) async fn read_to_end(recv: &mut RecvHalf, max: usize) -> Result<Bytes, StreamError> {
    let mut all = BytesMut::new();
    while let Some(chunk) = recv.read(max + 1 - all.len()).await? {
        all.extend_from_slice(&chunk);
        if all.len() > max {
            recv.stop(Code::TooMuch);
            return Err(StreamError::Reset(Code::TooMuch));
        }
    }
    Ok(all.freeze())
}

/// [`read_to_end`] for a stream that is not one of a link.
pub(crate) async fn read_all(
    recv: &mut transport::Receiver,
    max: usize,
) -> Result<BytesMut, StreamError> {
    let mut all = BytesMut::new();
    while let Some(chunk) = poll_fn(|cx| recv.poll_read(cx, max + 1 - all.len())).await? {
        all.extend_from_slice(&chunk);
        if all.len() > max {
            return Err(StreamError::Reset(Code::TooMuch));
        }
    }
    Ok(all)
}

/// Writes all of `bytes` to a stream that is not one of a link, and finishes it.
pub(crate) async fn write_all(
    send: &mut transport::Sender,
    bytes: Bytes,
) -> Result<(), StreamError> {
    let mut chunks = [bytes];
    poll_fn(|cx| send.poll_write(cx, &mut chunks)).await?;
    send.finish();
    Ok(())
}

/// Polls a future once: for the futures of a transport that hold nothing between polls.
pub(crate) fn poll_once<F: Future>(future: F, cx: &mut Context<'_>) -> Poll<F::Output> {
    let future = std::pin::pin!(future);
    let future: Pin<&mut F> = future;
    future.poll(cx)
}
