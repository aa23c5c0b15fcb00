//! Bodies: whatever they come from, pieces of bytes and perhaps trailers.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use proto::Fault;

use crate::deliver::http1::Lent;
use crate::frames::PartReader;
use crate::source::{Ended, Source};

/// Any error, for bodies of our own services.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request or response. Bytes are never decoded; whoever sends is allowed to send
/// more only as bytes are taken from here.
pub struct Body(Kind);

enum Kind {
    Empty,
    Full(Bytes),
    Http2(Http2Body),
    Http1(hyper::body::Incoming),
    /// From an instance: the connection goes back to its pool at the end.
    Lent(Box<Lent>),
    Stream(Box<PartReader>),
    /// A request that was begun elsewhere.
    Source(Box<Source>),
    Other(UnsyncBoxBody<Bytes, BodyError>),
}

/// One piece of a body.
#[derive(Debug)]
pub enum Part {
    /// Bytes, never empty.
    Data(Bytes),
    /// Trailers: nothing follows.
    Trailers(HeaderMap),
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Its sender gave it up, or went away.
    #[error("the sender gave the body up")]
    Cancelled,
    /// The service's own end reset it.
    #[error("the sender reset the body: {0}")]
    Reset(h2::Reason),
    /// A node could not go on.
    #[error("{}", .0.what)]
    Fault(Fault),
    /// The link or connection it came on is gone.
    #[error("the connection broke: {0}")]
    Lost(String),
    /// What arrived is not a body.
    #[error("the body does not follow its protocol: {0}")]
    Protocol(String),
    /// A service of our own failed.
    #[error(transparent)]
    Other(BoxError),
}

impl Body {
    /// No bytes, no trailers.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// These bytes.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self(if bytes.is_empty() { Kind::Empty } else { Kind::Full(bytes) })
    }

    /// Any other body.
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(Kind::Other(body.map_err(|error| BodyError::Other(error.into())).boxed_unsync()))
    }

    pub(crate) fn http2(recv: h2::RecvStream) -> Self {
        if recv.is_end_stream() {
            return Self::empty();
        }
        Self(Kind::Http2(Http2Body::new(recv)))
    }

    pub(crate) fn http1(incoming: hyper::body::Incoming) -> Self {
        if http_body::Body::is_end_stream(&incoming) {
            return Self::empty();
        }
        Self(Kind::Http1(incoming))
    }

    pub(crate) fn lent(lent: Lent) -> Self {
        Self(Kind::Lent(Box::new(lent)))
    }

    pub(crate) fn source(source: Box<Source>) -> Self {
        Self(Kind::Source(source))
    }

    /// The source this was made of by [`Body::source`].
    pub(crate) fn into_source(self) -> Option<Box<Source>> {
        if let Kind::Source(source) = self.0 { Some(source) } else { None }
    }

    /// The bytes of [`Body::full`].
    pub(crate) fn into_full(self) -> Option<Bytes> {
        if let Kind::Full(bytes) = self.0 { Some(bytes) } else { None }
    }

    pub(crate) fn stream(reader: Box<PartReader>) -> Self {
        Self(Kind::Stream(reader))
    }

    /// What the other node told of its instance with the head.
    pub(crate) fn load(&self) -> Option<proto::exchange::Load> {
        if let Kind::Stream(reader) = &self.0 { reader.load() } else { None }
    }

    /// The next part; `None` at the end.
    pub(crate) fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Part, BodyError>>> {
        let polled = match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Kind::Empty;
                return Poll::Ready(Some(Ok(Part::Data(bytes))));
            }
            Kind::Http2(body) => body.poll_part(cx),
            Kind::Http1(incoming) => poll_frames(incoming, cx, |error| {
                if error.is_incomplete_message() || error.is_canceled() {
                    BodyError::Cancelled
                } else if error.is_parse() {
                    BodyError::Protocol(error.to_string())
                } else {
                    BodyError::Lost(error.to_string())
                }
            }),
            Kind::Lent(lent) => lent.poll_part(cx),
            Kind::Stream(reader) => reader.poll_part(cx),
            // Kept until it is dropped: it may be asked to begin again.
            Kind::Source(source) => {
                return source.poll_part(cx).map_err(|ended| match ended {
                    Ended::Body(error) => error,
                    Ended::TooLong(error) => BodyError::Other(Box::new(error)),
                });
            }
            Kind::Other(body) => poll_frames(body, cx, |error| error),
        };
        if let Poll::Ready(None | Some(Err(_) | Ok(Part::Trailers(_)))) = polled {
            // What a body came from is let go as soon as it has ended.
            self.0 = Kind::Empty;
        }
        polled
    }

    /// Whether a service of ours made it: its own bounds hold for it.
    pub(crate) fn is_own(&self) -> bool {
        matches!(self.0, Kind::Other(_))
    }

    /// Whether it is known that nothing follows, not even trailers.
    #[must_use]
    pub fn is_end(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Full(_) => false,
            Kind::Http2(body) => body.failed.is_none() && body.recv.is_end_stream(),
            Kind::Http1(incoming) => http_body::Body::is_end_stream(incoming),
            Kind::Lent(lent) => lent.is_end(),
            Kind::Stream(reader) => reader.is_end(),
            Kind::Source(source) => source.is_end(),
            Kind::Other(body) => http_body::Body::is_end_stream(body),
        }
    }
}

/// Parts of any `http_body`, empty data skipped.
pub(crate) fn poll_frames<B>(
    body: &mut B,
    cx: &mut Context<'_>,
    blame: impl Fn(B::Error) -> BodyError,
) -> Poll<Option<Result<Part, BodyError>>>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    loop {
        let Some(frame) = ready!(Pin::new(&mut *body).poll_frame(cx)) else {
            return Poll::Ready(None);
        };
        match frame.map_err(&blame)?.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => return Poll::Ready(Some(Ok(Part::Data(data)))),
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return Poll::Ready(Some(Ok(Part::Trailers(trailers))));
                }
            }
        }
    }
}

/// A body of an HTTP/2 stream.
struct Http2Body {
    recv: h2::RecvStream,
    /// Bytes given out last: the sender may replace them when more is asked for here, which is when
    /// they have been handed on (RFC 9113 §5.2).
    unreleased: usize,
    data_done: bool,
    /// Met while gathering, to be told next.
    failed: Option<h2::Error>,
}

/// Pieces below this are gathered, while more are there already, up to [`GATHERED`] bytes: a stream
/// of tiny messages costs its next receiver per frame, not per byte.
const SMALL: usize = 1024;
const GATHERED: usize = 16 * 1024;

impl Http2Body {
    fn new(recv: h2::RecvStream) -> Self {
        Self { recv, unreleased: 0, data_done: false, failed: None }
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, BodyError>>> {
        if self.unreleased > 0 {
            // Fails only when the stream is gone, which the next poll tells.
            let _ = self.recv.flow_control().release_capacity(self.unreleased);
            self.unreleased = 0;
        }
        if let Some(error) = self.failed.take() {
            return Poll::Ready(ended(&error));
        }
        while !self.data_done {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    let data = self.gather(cx, data);
                    self.unreleased = data.len();
                    return Poll::Ready(Some(Ok(Part::Data(data))));
                }
                Some(Err(error)) => return Poll::Ready(ended(&error)),
                None => self.data_done = true,
            }
        }
        match ready!(self.recv.poll_trailers(cx)) {
            Ok(None) => Poll::Ready(None),
            Ok(Some(trailers)) => Poll::Ready(Some(Ok(Part::Trailers(trailers)))),
            Err(error) => Poll::Ready(ended(&error)),
        }
    }

    /// Adds the pieces that are there already to a small one.
    fn gather(&mut self, cx: &mut Context<'_>, first: Bytes) -> Bytes {
        if first.len() >= SMALL || self.recv.is_end_stream() {
            return first;
        }
        let mut all: Option<BytesMut> = None;
        while all.as_ref().map_or(first.len(), BytesMut::len) < GATHERED - SMALL {
            match self.recv.poll_data(cx) {
                Poll::Ready(Some(Ok(more))) => {
                    let all = all.get_or_insert_with(|| {
                        let mut all = BytesMut::with_capacity(GATHERED);
                        all.extend_from_slice(&first);
                        all
                    });
                    all.extend_from_slice(&more);
                }
                Poll::Ready(Some(Err(error))) => {
                    self.failed = Some(error);
                    break;
                }
                Poll::Ready(None) => {
                    self.data_done = true;
                    break;
                }
                Poll::Pending => break,
            }
        }
        all.map_or(first, BytesMut::freeze)
    }
}

fn ended(error: &h2::Error) -> Option<Result<Part, BodyError>> {
    match error.reason() {
        // A response may be complete before the request is: RFC 9113 §8.1.
        Some(h2::Reason::NO_ERROR) if error.is_reset() => None,
        Some(h2::Reason::CANCEL) if error.is_reset() => Some(Err(BodyError::Cancelled)),
        Some(reason) if error.is_reset() && error.is_remote() => {
            Some(Err(BodyError::Reset(reason)))
        }
        Some(_) if error.is_library() => Some(Err(BodyError::Protocol(error.to_string()))),
        _ => Some(Err(BodyError::Lost(error.to_string()))),
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.poll_part(cx).map_ok(|part| match part {
            Part::Data(data) => Frame::data(data),
            Part::Trailers(trailers) => Frame::trailers(trailers),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Http1(incoming) => http_body::Body::size_hint(incoming),
            Kind::Other(body) => http_body::Body::size_hint(body),
            Kind::Source(source) if source.is_end() => SizeHint::with_exact(0),
            Kind::Http2(_) | Kind::Lent(_) | Kind::Stream(_) | Kind::Source(_) => {
                SizeHint::default()
            }
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Empty => "Body::Empty",
            Kind::Full(_) => "Body::Full",
            Kind::Http2(_) => "Body::Http2",
            Kind::Http1(_) | Kind::Lent(_) => "Body::Http1",
            Kind::Stream(_) => "Body::Stream",
            Kind::Source(_) => "Body::Source",
            Kind::Other(_) => "Body::Other",
        })
    }
}
