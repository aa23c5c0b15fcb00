//! An exchange on a stream between nodes: parts read off one half, frames written to the other.

use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use proto::exchange::{self, FrameKind, Reader, put_header};
use proto::fault::Code;
use proto::{DecodeError, Fault};
use smallvec::SmallVec;
use tunnel::{RecvHalf, SendHalf, StreamError};

use crate::body::{BodyError, Part};
use crate::heads;

/// Bytes asked of the stream at a time.
const READ: usize = 64 * 1024;
/// Small pieces that are there already are gathered up to this many bytes: one write to the socket
/// of a program costs more than the copy.
const GATHER: usize = 16 * 1024;
/// Bytes that wait in a [`FrameSink`] before they are written.
const QUEUE: usize = 32 * 1024;
/// Chunks that wait in a [`FrameSink`] before they are written.
const CHUNKS: usize = 8;

/// The receiving half of an exchange.
pub(crate) struct PartReader {
    recv: RecvHalf,
    reader: Reader,
    /// Read while gathering, to be given out next.
    ahead: Option<Result<exchange::Part, Raw>>,
    ended: bool,
    /// What was told of the instance's load.
    load: Option<exchange::Load>,
}

impl PartReader {
    pub(crate) fn new(recv: RecvHalf) -> Self {
        Self { recv, reader: Reader::default(), ahead: None, ended: false, load: None }
    }

    /// The load that was told before the head.
    pub(crate) fn load(&self) -> Option<exchange::Load> {
        self.load
    }

    /// The head with which a request or response begins.
    ///
    /// # Errors
    /// [`HeadError`] when the other node sent a fault instead, or gave the stream up.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, HeadError>> {
        Poll::Ready(match ready!(self.poll_raw(cx)) {
            Some(Ok(exchange::Part::Head(head))) => Ok(head),
            Some(Ok(exchange::Part::Fault(fault))) => {
                Err(Fault::decode(fault).map_or_else(HeadError::Protocol, HeadError::Fault))
            }
            Some(Ok(
                exchange::Part::Data(_) | exchange::Part::Trailers(_) | exchange::Part::Load(_),
            )) => Err(HeadError::Protocol(DecodeError::Invalid("order of frames"))),
            Some(Err(Raw::Decode(error))) => Err(HeadError::Protocol(error)),
            Some(Err(Raw::Stream(error))) => Err(HeadError::Stream(error)),
            None => Err(HeadError::Protocol(DecodeError::Truncated("exchange"))),
        })
    }

    pub(crate) fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Part, BodyError>>> {
        let part = match ready!(self.poll_raw(cx)) {
            None => return Poll::Ready(None),
            Some(Ok(part)) => part,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
        };
        Poll::Ready(Some(match part {
            exchange::Part::Data(data) => Ok(Part::Data(self.gather(cx, data))),
            exchange::Part::Trailers(bytes) => {
                // Nothing may follow; usually the end is there already and the stream is done.
                if let Poll::Ready(Some(more)) = self.poll_raw(cx) {
                    self.ahead = Some(more);
                    return Poll::Ready(Some(Err(self.misordered())));
                }
                heads::read_fields(bytes)
                    .map(Part::Trailers)
                    .map_err(|error| BodyError::Protocol(error.to_string()))
            }
            exchange::Part::Fault(bytes) => Err(Fault::decode(bytes)
                .map_or_else(|error| BodyError::Protocol(error.to_string()), BodyError::Fault)),
            exchange::Part::Head(_) | exchange::Part::Load(_) => Err(self.misordered()),
        }))
    }

    fn misordered(&mut self) -> BodyError {
        self.recv.stop(Code::Protocol);
        BodyError::Protocol("frames out of order".to_owned())
    }

    /// Whether it is known that nothing follows.
    pub(crate) fn is_end(&self) -> bool {
        self.ended && self.ahead.is_none()
    }

    /// Adds the pieces that are there already to `first`, while that makes it a better piece.
    fn gather(&mut self, cx: &mut Context<'_>, first: Bytes) -> Bytes {
        if first.len() >= GATHER {
            return first;
        }
        let mut gathered: Option<BytesMut> = None;
        let mut length = first.len();
        while length < GATHER && !self.ended {
            match self.poll_raw(cx) {
                Poll::Ready(Some(Ok(exchange::Part::Data(more)))) => {
                    length += more.len();
                    let all = gathered.get_or_insert_with(|| {
                        let mut all = BytesMut::with_capacity(GATHER + more.len());
                        all.extend_from_slice(&first);
                        all
                    });
                    all.extend_from_slice(&more);
                }
                Poll::Ready(Some(other)) => {
                    self.ahead = Some(other);
                    break;
                }
                Poll::Pending => break,
                Poll::Ready(None) => {}
            }
        }
        gathered.map_or(first, BytesMut::freeze)
    }

    fn poll_raw(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<exchange::Part, Raw>>> {
        if let Some(part) = self.ahead.take() {
            return Poll::Ready(Some(part));
        }
        loop {
            match self.reader.next() {
                Ok(Some(exchange::Part::Data(data))) if data.is_empty() => continue,
                Ok(Some(exchange::Part::Load(load))) => {
                    self.load = exchange::Load::read(&load);
                    continue;
                }
                Ok(Some(part)) => return Poll::Ready(Some(Ok(part))),
                Ok(None) if self.ended => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => {
                    self.recv.stop(Code::Protocol);
                    return Poll::Ready(Some(Err(Raw::Decode(error))));
                }
            }
            match ready!(self.recv.poll_read(cx, READ)) {
                Ok(Some(chunk)) => self.reader.push(chunk),
                Ok(None) if self.reader.is_between_frames() => self.ended = true,
                Ok(None) => {
                    self.ended = true;
                    let error = DecodeError::Truncated("frame");
                    return Poll::Ready(Some(Err(Raw::Decode(error))));
                }
                Err(error) => return Poll::Ready(Some(Err(Raw::Stream(error)))),
            }
        }
    }

    /// The half and what was read of it, where nothing but a head was taken: what follows is not
    /// framed.
    pub(crate) fn into_half(self) -> (RecvHalf, Bytes) {
        debug_assert!(self.ahead.is_none(), "only bodies are read ahead");
        (self.recv, self.reader.into_rest())
    }

    /// Wants nothing more.
    pub(crate) fn stop(&mut self, code: Code) {
        self.recv.stop(code);
    }
}

enum Raw {
    Decode(DecodeError),
    Stream(StreamError),
}

impl From<Raw> for BodyError {
    fn from(raw: Raw) -> Self {
        match raw {
            Raw::Decode(error) => Self::Protocol(error.to_string()),
            Raw::Stream(error) => match error.code() {
                Code::Cancelled => Self::Cancelled,
                Code::ServiceReset => Self::Reset(h2::Reason::INTERNAL_ERROR),
                Code::Unseen
                | Code::Broken
                | Code::Protocol
                | Code::TooMuch
                | Code::Deadline
                | Code::Other(_) => Self::Lost(error.to_string()),
            },
        }
    }
}

/// Why a stream did not begin with a head.
#[derive(Debug)]
pub(crate) enum HeadError {
    Fault(Fault),
    Protocol(DecodeError),
    Stream(StreamError),
}

/// The sending half of an exchange. Frames are queued, then written together.
pub(crate) struct FrameSink {
    send: SendHalf,
    queue: SmallVec<[Bytes; CHUNKS]>,
    queued: usize,
}

impl FrameSink {
    pub(crate) fn new(send: SendHalf) -> Self {
        Self { send, queue: SmallVec::new(), queued: 0 }
    }

    /// Queues a whole frame, as [`heads`] makes them.
    pub(crate) fn queue_frame(&mut self, frame: Bytes) {
        self.queued += frame.len();
        self.queue.push(frame);
    }

    /// Queues body bytes.
    pub(crate) fn queue_data(&mut self, mut data: Bytes) {
        while data.len() > exchange::MAX_DATA {
            let piece = data.split_to(exchange::MAX_DATA);
            self.queue_data(piece);
        }
        let mut header = BytesMut::with_capacity(9);
        put_header(&mut header, FrameKind::Data, data.len());
        self.queue_frame(header.freeze());
        self.queue_frame(data);
    }

    /// Queues a fault.
    pub(crate) fn queue_fault(&mut self, fault: &Fault) {
        let mut body = BytesMut::with_capacity(128);
        fault.encode(&mut body);
        let mut frame = BytesMut::with_capacity(9 + body.len());
        put_header(&mut frame, FrameKind::Fault, body.len());
        frame.extend_from_slice(&body);
        self.queue_frame(frame.freeze());
    }

    /// Queues trailers; those above the bound are replaced by none, for they are the last thing and
    /// nothing better can be said.
    pub(crate) fn queue_trailers(&mut self, trailers: &HeaderMap) {
        if let Ok(frame) = heads::trailers(trailers) {
            self.queue_frame(frame);
        }
    }

    /// Whether it should be flushed before more is queued.
    pub(crate) fn is_full(&self) -> bool {
        self.queued >= QUEUE || self.queue.len() >= CHUNKS - 2
    }

    /// Writes what is queued; ready when the stream has taken all of it.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        if self.queue.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let polled = self.send.poll_write(cx, &mut self.queue);
        if polled.is_ready() {
            self.queue.clear();
            self.queued = 0;
        }
        polled
    }

    /// Says that nothing follows what was flushed.
    pub(crate) fn finish(&mut self) {
        self.send.finish();
    }

    /// Gives the exchange up.
    pub(crate) fn reset(&mut self, code: Code) {
        self.send.reset(code);
    }

    /// The half, where all that was queued is flushed: what follows is not framed.
    pub(crate) fn into_half(self) -> SendHalf {
        self.send
    }

    /// The half, for what only it can do.
    pub(crate) fn half(&mut self) -> &mut SendHalf {
        &mut self.send
    }
}
