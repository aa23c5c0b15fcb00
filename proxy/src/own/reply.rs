//! What a method answers, and the response made of it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::Stream;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use prost::Message;
use tokio::sync::OwnedSemaphorePermit;

use super::codec::Codec;
use super::failure::{Failure, Kind};
use crate::body::Body;

/// What a method answers, as protobuf.
pub(super) enum Reply {
    /// One message, or why there is none.
    Once(BoxFuture<'static, Result<Bytes, Failure>>),
    /// Any number of messages; the first failure is the last item.
    Many(BoxStream<'static, Result<Bytes, Failure>>),
}

impl Reply {
    /// An answer that is known at once.
    pub(super) fn now<M: Message>(answer: Result<M, Failure>) -> Self {
        let answer = answer.map(|message| Bytes::from(message.encode_to_vec()));
        Self::Once(Box::pin(std::future::ready(answer)))
    }

    /// An answer that has to be waited for.
    pub(super) fn later<M: Message>(
        answer: impl Future<Output = Result<M, Failure>> + Send + 'static,
    ) -> Self {
        Self::Once(Box::pin(async move {
            answer.await.map(|message| Bytes::from(message.encode_to_vec()))
        }))
    }
}

/// How to answer one call.
#[derive(Clone)]
pub(super) struct Answerer {
    /// What the caller said it sends, which is what it is sent (go-micro v2 looks at it).
    pub(super) content_type: HeaderValue,
    /// As callers name it, for failures.
    pub(super) service: &'static str,
    /// The name of this node.
    pub(super) node: HeaderValue,
    /// Bytes of one message of an answer, at most.
    pub(super) most: usize,
    /// The id of errors, where it is not that of the service.
    pub(super) id: Option<Arc<str>>,
}

impl Answerer {
    /// A response that is only a failure: everything in one block of headers.
    pub(super) fn failed(&self, failure: &Failure) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        self.begin(response.headers_mut());
        self.named(failure).put(response.headers_mut());
        response.headers_mut().insert(HeaderName::from_static("micro-node"), self.node.clone());
        response
    }

    fn named(&self, failure: &Failure) -> Failure {
        self.id.as_ref().map_or_else(|| failure.clone(), |id| failure.named(id))
    }

    /// A response of one message; `held` until it is sent.
    pub(super) fn once(
        &self,
        codec: &Codec,
        message: Bytes,
        held: Option<OwnedSemaphorePermit>,
    ) -> Response<Body> {
        match self.framed(codec, message) {
            Err(failure) => self.failed(&failure),
            Ok(framed) => {
                let frames = [Frame::data(framed), Frame::trailers(ok())];
                let frames = frames.into_iter().map(move |frame| {
                    let _held = &held;
                    Ok::<_, std::convert::Infallible>(frame)
                });
                self.whole(Body::new(http_body_util::StreamBody::new(futures_util::stream::iter(
                    frames,
                ))))
            }
        }
    }

    /// A response of many messages, until they or `until` end; `until` yields why, if not well.
    pub(super) fn many(
        &self,
        codec: Codec,
        messages: BoxStream<'static, Result<Bytes, Failure>>,
        until: BoxFuture<'static, Result<(), Failure>>,
    ) -> Response<Body> {
        let answerer = self.clone();
        self.whole(Body::new(Many { codec, answerer, messages, until, done: false }))
    }

    fn whole(&self, body: Body) -> Response<Body> {
        let mut response = Response::new(body);
        self.begin(response.headers_mut());
        response
    }

    /// `message` as the caller reads it, with its prefix.
    fn framed(&self, codec: &Codec, message: Bytes) -> Result<Bytes, Failure> {
        let failed = |kind, why: String| Failure::new(self.service, kind, why);
        let message = codec.write(message).map_err(|why| failed(Kind::Internal, why))?;
        let length = u32::try_from(message.len()).ok().filter(|_| message.len() <= self.most);
        let Some(length) = length else {
            let why = format!(
                "the answer has {} bytes, more than the {} that fit a message: ask for less",
                message.len(),
                self.most
            );
            return Err(failed(Kind::TooLarge, why));
        };
        let mut out = BytesMut::with_capacity(5 + message.len());
        out.put_u8(0);
        out.put_u32(length);
        out.put(message);
        Ok(out.freeze())
    }

    fn begin(&self, headers: &mut HeaderMap) {
        headers.insert(CONTENT_TYPE, self.content_type.clone());
        let identity = HeaderValue::from_static("identity");
        headers.insert(HeaderName::from_static("grpc-accept-encoding"), identity);
    }
}

/// The trailers of a call that went well.
fn ok() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
    trailers
}

/// The body of a response of many messages. It is polled only as the caller takes bytes, so a slow
/// caller slows whoever makes the messages.
struct Many {
    codec: Codec,
    answerer: Answerer,
    messages: BoxStream<'static, Result<Bytes, Failure>>,
    until: BoxFuture<'static, Result<(), Failure>>,
    done: bool,
}

impl http_body::Body for Many {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if this.done {
            return Poll::Ready(None);
        }
        let last = match this.until.as_mut().poll(cx) {
            Poll::Ready(how) => how,
            Poll::Pending => match Pin::new(&mut this.messages).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => Ok(()),
                Poll::Ready(Some(message)) => {
                    match message.and_then(|message| this.answerer.framed(&this.codec, message)) {
                        Ok(framed) => return Poll::Ready(Some(Ok(Frame::data(framed)))),
                        Err(failure) => Err(failure),
                    }
                }
            },
        };
        this.done = true;
        let mut trailers = HeaderMap::new();
        match last {
            Ok(()) => trailers = ok(),
            Err(failure) => this.answerer.named(&failure).put(&mut trailers),
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }
}
