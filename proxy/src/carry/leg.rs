//! One attempt: the request on its way, until the response begins.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use proto::fault::Code;
use proto::open::Messages;
use proto::record::Protocol;
use proto::{NodeId, Open};
use tunnel::{StreamError, Tunnel};

use super::{Failed, Held, Reply};
use crate::body::{Body, BodyError};
use crate::deadline::{self, Deadline};
use crate::deliver::http1::NotSent;
use crate::deliver::{Deliver, Host, host_of, http2};
use crate::error::Error;
use crate::frames::{FrameSink, HeadError, PartReader};
use crate::heads::{self, RequestHead};
use crate::pump::{Pump, Stopped};
use crate::sink::Sink;
use crate::source::{Ended, Source};

/// How long a link may be suspected before a call that waits for its answer on it is given up: a
/// short loss costs nothing, and nobody waits out a deadline for a node that is gone.
pub(super) const DOUBT: Duration = Duration::from_millis(300);

/// Sends the request to an instance of this node.
pub(crate) async fn local(
    deliver: &Deliver,
    address: &Arc<str>,
    protocol: Protocol,
    mut head: Box<RequestHead>,
    source: Box<Source>,
    messages: Messages,
    deadline: &mut Deadline,
) -> Result<Reply, Failed> {
    let host = deliver.host(address);
    if let Some(left) = deadline.left() {
        deadline::rewrite(&mut head.headers, left);
    }
    if protocol == Protocol::Http1 {
        // Boxed, for it is the rarer road and much the larger future.
        return Box::pin(over_http1(deliver, &host, head, source, deadline)).await;
    }
    if protocol == Protocol::Mucp {
        return Box::pin(deliver.mucp(&host, head, source, messages, deadline)).await;
    }
    let (mut send, lease) = match deadline.race(pin!(deliver.http2(&host))).await {
        Ok(ready) => ready,
        Err(error) => return Err(Failed { error, source: Some(source) }),
    };
    let request = match http_request(*head, address) {
        Ok(request) => request,
        Err(error) => return Err(Failed { error, source: None }),
    };
    let (whole, bodiless) = (source.is_end(), request.method() == Method::HEAD);
    let (mut response, stream) = match send.send_request(request, whole) {
        Ok(sent) => sent,
        Err(error) => {
            let source = Some(source);
            return Err(Failed { error: not_sent(&error, address), source });
        }
    };
    let mut upload = Upload::new(source, Sink::http2_request(stream), whole);
    let begun = upload
        .drive(deadline, |cx| {
            let polled = Pin::new(&mut response).poll(cx);
            polled.map_err(|error| http2::blame(&error, address))
        })
        .await;
    match begun {
        Ok(response) => {
            let (parts, recv) = response.into_parts();
            Ok(Reply {
                status: parts.status,
                headers: parts.headers,
                // An instance that sends one all the same (RFC 9110 §9.3.2) is not heard.
                body: if bodiless { Body::empty() } else { Body::http2(recv) },
                upload: upload.rest(),
                held: Held { instance: None, stream: Some(lease) },
                upgraded: None,
            })
        }
        Err(error) => Err(upload.failed(error)),
    }
}

/// Nothing left this node.
fn not_sent(error: &h2::Error, address: &str) -> Error {
    if error.is_io() || error.is_go_away() {
        return Error::TurnedAway(address.to_owned());
    }
    Error::InstanceProtocol { instance: address.to_owned(), why: error.to_string() }
}

async fn over_http1(
    deliver: &Deliver,
    host: &Arc<Host>,
    head: Box<RequestHead>,
    source: Box<Source>,
    deadline: &mut Deadline,
) -> Result<Reply, Failed> {
    let request = match http1_request(*head, host, Body::source(source)) {
        Ok(request) => request,
        Err(error) => return Err(Failed { error, source: None }),
    };
    let sent = async {
        let sent = deliver.http1(host, request).await;
        sent.map_or_else(|not| Ok(Err(not)), |response| Ok(Ok(response)))
    };
    match deadline.race(pin!(sent)).await {
        Ok(Ok(response)) => {
            let (parts, body) = response.into_parts();
            let (status, headers) = (parts.status, parts.headers);
            let held = Held::default();
            Ok(Reply { status, headers, body, upload: None, held, upgraded: None })
        }
        Ok(Err(NotSent { error, request })) => {
            let source = request.and_then(|request| request.into_body().into_source());
            Err(Failed { error, source })
        }
        Err(error) => Err(Failed { error, source: None }),
    }
}

/// The request as an instance at `host` is sent it over HTTP/1.1.
///
/// # Errors
/// [`Error::Malformed`] for a host that is none.
pub(super) fn http1_request(
    mut head: RequestHead,
    host: &Host,
    body: Body,
) -> Result<Request<Body>, Error> {
    let authority = head.authority.take();
    let name = authority.as_ref().map_or(host_of(&host.address), Authority::as_str);
    let name = HeaderValue::try_from(name);
    let name = name.map_err(|_| Error::Malformed("the host is not one"))?;
    head.headers.insert(header::HOST, name);
    if head.headers.contains_key(header::TE) {
        // TE concerns one connection, and says so (RFC 9110 §10.1.4).
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = Uri::from(head.path);
    *request.headers_mut() = head.headers;
    Ok(request)
}

fn http_request(head: RequestHead, address: &str) -> Result<Request<()>, Error> {
    let authority = match head.authority {
        Some(authority) => authority,
        None => Authority::try_from(host_of(address))
            .map_err(|_| Error::Malformed("the address of the instance is not one"))?,
    };
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority);
    parts.path_and_query = Some(head.path);
    let uri = Uri::from_parts(parts).map_err(|_| Error::Malformed("the target is not one"))?;
    let mut request = Request::new(());
    *request.method_mut() = head.method;
    *request.uri_mut() = uri;
    *request.headers_mut() = head.headers;
    *request.version_mut() = http::Version::HTTP_2;
    Ok(request)
}

/// Sends the request to another node, as one stream: `Open`, head and what is there of the body in
/// one write.
pub(crate) async fn remote(
    tunnel: &Tunnel,
    node: NodeId,
    open: &Open,
    head: &RequestHead,
    source: Box<Source>,
    deadline: &mut Deadline,
) -> Result<Reply, Failed> {
    let Ok(frame) = heads::request(head) else {
        let error = Error::HeadTooLarge(proto::exchange::MAX_HEAD);
        return Err(Failed { error, source: None });
    };
    let opened = async {
        let opened = tunnel.open(node, open).await;
        opened.map_err(|error| Error::Unreachable { node, why: error.to_string() })
    };
    let stream = match deadline.race(pin!(opened)).await {
        Ok(stream) => stream,
        Err(error) => return Err(Failed { error, source: Some(source) }),
    };
    let grace = if open.idempotent { Duration::ZERO } else { DOUBT };
    let mut doubted = std::pin::pin!(stream.recv.doubted(grace));
    let mut sink = FrameSink::new(stream.send);
    sink.queue_frame(frame);
    let mut reader = Box::new(PartReader::new(stream.recv));
    let mut upload = Upload::new(source, Sink::Stream(Box::new(sink)), false);
    let begun = upload
        .drive(deadline, |cx| {
            let Poll::Ready(head) = reader.poll_head(cx) else {
                return doubted.as_mut().poll(cx).map(|()| Err(Error::LinkLost(node)));
            };
            let head = head.map_err(|error| blame(error, node));
            Poll::Ready(head.and_then(|head| response(head, node)).and_then(|(status, headers)| {
                if status == StatusCode::SWITCHING_PROTOCOLS {
                    let why = "it upgraded what nobody asked it to".to_owned();
                    return Err(Error::InstanceProtocol { instance: node.to_string(), why });
                }
                Ok((status, headers))
            }))
        })
        .await;
    match begun {
        Ok((status, headers)) => Ok(Reply {
            status,
            headers,
            body: Body::stream(reader),
            upload: upload.rest(),
            held: Held::default(),
            upgraded: None,
        }),
        Err(error) => {
            let late = matches!(error, Error::Deadline);
            let code = if late { Code::Deadline } else { Code::Cancelled };
            reader.stop(code);
            // Whatever is still on its way must not reach the service once the path is back.
            upload.pump.sink().abandon(code);
            Err(upload.failed(error))
        }
    }
}

/// The head of a response of `node`.
///
/// # Errors
/// [`Error::InstanceProtocol`] when it is none.
pub(super) fn response(head: Bytes, node: NodeId) -> Result<(StatusCode, HeaderMap), Error> {
    heads::read_response(head).map_err(|error| Error::InstanceProtocol {
        instance: node.to_string(),
        why: error.to_string(),
    })
}

/// What it means for a call that its response has no head.
pub(super) fn blame(error: HeadError, node: NodeId) -> Error {
    match error {
        HeadError::Fault(fault) => Error::Fault(fault),
        HeadError::Protocol(error) => {
            Error::InstanceProtocol { instance: node.to_string(), why: error.to_string() }
        }
        HeadError::Stream(error) if error.code().is_unseen() => {
            Error::Unreachable { node, why: error.to_string() }
        }
        HeadError::Stream(StreamError::Reset(Code::Deadline)) => Error::Deadline,
        HeadError::Stream(StreamError::Reset(_) | StreamError::Lost(_) | StreamError::Ended) => {
            Error::LinkLost(node)
        }
    }
}

/// The request body on its way while the response is awaited.
struct Upload {
    pump: Box<Pump>,
    running: bool,
}

impl Upload {
    fn new(source: Box<Source>, sink: Sink, whole: bool) -> Self {
        Self { pump: Box::new(Pump::new(source, sink)), running: !whole }
    }

    /// Sends the body until `response` gives the head.
    async fn drive<T>(
        &mut self,
        deadline: &mut Deadline,
        mut response: impl FnMut(&mut Context<'_>) -> Poll<Result<T, Error>>,
    ) -> Result<T, Error> {
        poll_fn(|cx| {
            if self.running {
                match self.pump.poll(cx) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) => self.running = false,
                    // It wants no more of the request; what it says follows on its own half.
                    Poll::Ready(Err(Stopped::Closed)) => self.running = false,
                    Poll::Ready(Err(Stopped::Source(ended))) => {
                        let (error, code) = ended_early(ended);
                        self.pump.sink().reset(code);
                        return Poll::Ready(Err(error));
                    }
                }
            }
            if let Poll::Ready(head) = response(cx) {
                return Poll::Ready(head);
            }
            if deadline.poll(cx).is_ready() {
                self.pump.sink().reset(Code::Deadline);
                return Poll::Ready(Err(Error::Deadline));
            }
            Poll::Pending
        })
        .await
    }

    /// What is left to send once the response has begun.
    fn rest(mut self) -> Option<Box<Pump>> {
        self.pump.source().commit();
        self.running.then_some(self.pump)
    }

    fn failed(self, error: Error) -> Failed {
        Failed { error, source: Some(self.pump.into_source()) }
    }
}

/// What it means for a call that its request ended early, and how that is told to the service.
pub(crate) fn ended_early(ended: Ended) -> (Error, Code) {
    match ended {
        Ended::TooLong(error) => (Error::TooLong(error), Code::TooMuch),
        Ended::Body(BodyError::Protocol(_)) => {
            (Error::Malformed("the body does not follow its protocol"), Code::Cancelled)
        }
        Ended::Body(
            BodyError::Cancelled
            | BodyError::Reset(_)
            | BodyError::Lost(_)
            | BodyError::Fault(_)
            | BodyError::Other(_),
        ) => (Error::Cancelled, Code::Cancelled),
    }
}
