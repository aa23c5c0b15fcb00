//! One direction of a stream: a queue with a window, an end, and codes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;
use proto::fault::Code;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::connection::{Closed, seen_from};
use crate::close::Close;
use crate::stream::StreamError;

/// Bytes that may wait to be read: wide, as the window of a QUIC stream is here.
const WINDOW: usize = 4 << 20;

#[derive(Debug, Default)]
struct Pipe {
    bytes: VecDeque<Bytes>,
    held: usize,
    finished: bool,
    reset: Option<Code>,
    stopped: Option<Code>,
    closed: Closed,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

/// What ends both ends of a connection, and every pipe of it.
#[derive(Debug, Default)]
pub(super) struct Line {
    closed: watch::Sender<Closed>,
    pipes: Mutex<Vec<Weak<Mutex<Pipe>>>>,
    streams: AtomicU64,
}

impl Line {
    /// A number for a new stream.
    pub(super) fn number(&self) -> u64 {
        self.streams.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn close(&self, by: usize, close: Close) {
        self.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            closed.get_or_insert((by, close));
            first
        });
        let closed = *self.closed.borrow();
        for pipe in self.pipes.lock().drain(..).filter_map(|pipe| pipe.upgrade()) {
            let mut pipe = pipe.lock();
            pipe.closed = closed;
            pipe.wake();
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Closed> {
        self.closed.subscribe()
    }

    pub(super) fn closed(&self) -> Closed {
        *self.closed.borrow()
    }

    /// A pipe from the end `index` to the other, of the stream with this number.
    pub(super) fn pipe(&self, index: usize, stream: u64) -> (Sender, Receiver) {
        let mut pipes = self.pipes.lock();
        pipes.retain(|pipe| pipe.strong_count() > 0);
        let pipe = Pipe { closed: self.closed(), ..Pipe::default() };
        let pipe = Arc::new(Mutex::new(pipe));
        pipes.push(Arc::downgrade(&pipe));
        let far = Arc::clone(&pipe);
        let receiver = Receiver { pipe: far, stream, index: 1 - index, counted: None };
        (Sender { pipe, stream, index }, receiver)
    }
}

#[derive(Debug)]
pub(crate) struct Sender {
    pipe: Arc<Mutex<Pipe>>,
    stream: u64,
    index: usize,
}

#[derive(Debug)]
pub(crate) struct Receiver {
    pipe: Arc<Mutex<Pipe>>,
    stream: u64,
    index: usize,
    /// Held as long as the stream counts.
    counted: Option<OwnedSemaphorePermit>,
}

impl Sender {
    pub(crate) fn id(&self) -> u64 {
        self.stream
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<Result<(), StreamError>> {
        let mut pipe = self.pipe.lock();
        if let Some(gone) = seen_from(self.index, pipe.closed) {
            return Poll::Ready(Err(StreamError::Lost(gone)));
        }
        if pipe.finished || pipe.reset.is_some() {
            return Poll::Ready(Err(StreamError::Ended));
        }
        if let Some(code) = pipe.stopped {
            return Poll::Ready(Err(StreamError::Reset(code)));
        }
        for chunk in chunks.iter_mut().filter(|chunk| !chunk.is_empty()) {
            let room = WINDOW - pipe.held;
            let piece = chunk.split_to(room.min(chunk.len()));
            if !piece.is_empty() {
                pipe.held += piece.len();
                pipe.bytes.push_back(piece);
            }
            if !chunk.is_empty() {
                pipe.writer = Some(cx.waker().clone());
                if let Some(reader) = pipe.reader.take() {
                    reader.wake();
                }
                return Poll::Pending;
            }
        }
        if let Some(reader) = pipe.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn finish(&mut self) {
        let mut pipe = self.pipe.lock();
        pipe.finished = true;
        pipe.wake();
    }

    pub(crate) fn reset(&mut self, code: Code) {
        let mut pipe = self.pipe.lock();
        if pipe.stopped.is_none() {
            pipe.reset.get_or_insert(code);
        }
        (pipe.held, pipe.bytes) = (0, VecDeque::new());
        pipe.wake();
    }

    /// Waits until the other side wants nothing more.
    pub(crate) fn stopped(&self) -> Pin<Box<dyn Future<Output = Code> + Send + Sync>> {
        let pipe = Arc::clone(&self.pipe);
        Box::pin(std::future::poll_fn(move |cx| {
            let mut pipe = pipe.lock();
            match (pipe.stopped, pipe.closed) {
                (Some(code), _) => Poll::Ready(code),
                (None, Some(_)) => Poll::Ready(Code::Broken),
                (None, None) => {
                    pipe.writer = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        }))
    }
}

impl Receiver {
    pub(crate) fn id(&self) -> u64 {
        self.stream
    }

    pub(super) fn counted(mut self, permit: OwnedSemaphorePermit) -> Self {
        self.counted = Some(permit);
        self
    }

    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        let mut pipe = self.pipe.lock();
        if let Some(gone) = seen_from(self.index, pipe.closed) {
            return Poll::Ready(Err(StreamError::Lost(gone)));
        }
        if let Some(code) = pipe.reset {
            return Poll::Ready(Err(StreamError::Reset(code)));
        }
        if let Some(chunk) = pipe.bytes.front_mut() {
            let piece = chunk.split_to(max.min(chunk.len()));
            if chunk.is_empty() {
                pipe.bytes.pop_front();
            }
            pipe.held -= piece.len();
            if let Some(writer) = pipe.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Ok(Some(piece)));
        }
        if pipe.finished {
            return Poll::Ready(Ok(None));
        }
        pipe.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(crate) fn stop(&mut self, code: Code) {
        let mut pipe = self.pipe.lock();
        if !pipe.finished {
            pipe.stopped.get_or_insert(code);
        }
        (pipe.held, pipe.bytes) = (0, VecDeque::new());
        pipe.wake();
    }
}
