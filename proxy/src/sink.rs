//! Where a body goes: an HTTP/2 stream or a stream between nodes.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use proto::fault::Code;

use crate::frames::FrameSink;

/// Takes the parts of one body.
pub(crate) enum Sink {
    Http2(Http2Sink),
    /// Boxed: it is handed from stop to stop with the body.
    Stream(Box<FrameSink>),
}

/// The other side wants nothing more, or is gone. Its own half of the exchange says why.
#[derive(Debug)]
pub(crate) struct Closed;

/// An HTTP/2 stream that is written to.
pub(crate) struct Http2Sink {
    send: h2::SendStream<Bytes>,
    /// Bytes that the peer's window has no room for yet, and whether they are the last.
    held: Option<(Bytes, bool)>,
    /// Bytes that may be queued before it is known that there is room for them.
    ahead: usize,
}

/// What of a request is queued together with its head. A stream that was just asked for has no
/// room before its connection has looked at it, and by then the head is on its way alone.
const AHEAD: usize = 16 * 1024;

impl Sink {
    pub(crate) fn http2(send: h2::SendStream<Bytes>) -> Self {
        Self::Http2(Http2Sink { send, held: None, ahead: 0 })
    }

    /// The body of a request whose head was queued a moment ago.
    pub(crate) fn http2_request(send: h2::SendStream<Bytes>) -> Self {
        Self::Http2(Http2Sink { send, held: None, ahead: AHEAD })
    }

    /// Takes bytes; `last` when it is known that nothing follows. Only after
    /// [`Sink::poll_ready`].
    pub(crate) fn queue(&mut self, data: Bytes, last: bool) -> Result<(), Closed> {
        match self {
            Self::Http2(sink) => sink.queue(data, last),
            Self::Stream(sink) => {
                sink.queue_data(data);
                Ok(())
            }
        }
    }

    /// Ready when there is room to queue another part.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        match self {
            Self::Http2(sink) => sink.poll_flush(cx),
            Self::Stream(sink) if sink.is_full() => sink.poll_flush(cx).map_err(|_| Closed),
            Self::Stream(_) => Poll::Ready(Ok(())),
        }
    }

    /// Ready when everything queued is on its way.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        match self {
            Self::Http2(sink) => sink.poll_flush(cx),
            Self::Stream(sink) => sink.poll_flush(cx).map_err(|_| Closed),
        }
    }

    /// Ends with these trailers. Only after [`Sink::poll_ready`]; to be flushed, then finished.
    pub(crate) fn queue_trailers(&mut self, trailers: HeaderMap) -> Result<(), Closed> {
        match self {
            Self::Http2(sink) => sink.send.send_trailers(trailers).map_err(|_| Closed),
            Self::Stream(sink) => {
                sink.queue_trailers(&trailers);
                Ok(())
            }
        }
    }

    /// Ends without trailers, after a flush; `said` when the last part told so already.
    pub(crate) fn finish(&mut self, said: bool) -> Result<(), Closed> {
        match self {
            Self::Http2(_) if said => Ok(()),
            Self::Http2(sink) => sink.send.send_data(Bytes::new(), true).map_err(|_| Closed),
            Self::Stream(sink) => {
                sink.finish();
                Ok(())
            }
        }
    }

    /// Gives the body up: what the other side reads is an error, never an end.
    pub(crate) fn reset(&mut self, code: Code) {
        match self {
            Self::Http2(sink) => sink.send.send_reset(reason(code)),
            Self::Stream(sink) => sink.reset(code),
        }
    }

    /// [`Sink::reset`], also of what was finished and may not have arrived yet.
    pub(crate) fn abandon(&mut self, code: Code) {
        match self {
            Self::Http2(sink) => sink.send.send_reset(reason(code)),
            Self::Stream(sink) => sink.half().abandon(code),
        }
    }

    /// Ready when the other side wants nothing more. Registers for a wake-up otherwise.
    pub(crate) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Http2(sink) => sink.send.poll_reset(cx).map(|_| ()),
            Self::Stream(sink) => sink.half().poll_stopped(cx).map(|_| ()),
        }
    }
}

impl Http2Sink {
    fn queue(&mut self, data: Bytes, last: bool) -> Result<(), Closed> {
        self.send.reserve_capacity(data.len());
        let ahead = data.len() <= std::mem::take(&mut self.ahead);
        if ahead || self.send.capacity() >= data.len() {
            return self.send.send_data(data, last).map_err(|_| Closed);
        }
        self.held = Some((data, last));
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        while let Some((data, last)) = &mut self.held {
            let room = self.send.capacity();
            if room == 0 {
                match ready!(self.send.poll_capacity(cx)) {
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None => return Poll::Ready(Err(Closed)),
                }
            }
            let piece = data.split_to(room.min(data.len()));
            let whole = data.is_empty();
            let last = whole && *last;
            if whole {
                self.held = None;
            }
            self.send.send_data(piece, last).map_err(|_| Closed)?;
        }
        Poll::Ready(Ok(()))
    }
}

/// The reason of HTTP/2 that says `code` (RFC 9113 §7).
pub(crate) fn reason(code: Code) -> h2::Reason {
    match code {
        Code::Cancelled | Code::Deadline => h2::Reason::CANCEL,
        Code::Unseen => h2::Reason::REFUSED_STREAM,
        Code::TooMuch => h2::Reason::ENHANCE_YOUR_CALM,
        Code::Protocol => h2::Reason::PROTOCOL_ERROR,
        Code::Broken | Code::ServiceReset | Code::Other(_) => h2::Reason::INTERNAL_ERROR,
    }
}
