//! The HTTP/1.1 face: HTTP by Host.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::AbortHandle;

use crate::answer::{self, Form};
use crate::begin::{Beside, check_line};
use crate::body::{Body, BoxError, Part};
use crate::carry::{Held, Reply};
use crate::detect::{Captured, From};
use crate::error::Error;
use crate::heads::RequestHead;
use crate::load::InFlight;
use crate::metrics::{Face, Outcome};
use crate::mucp;
use crate::outside;
use crate::proxy::{Shared, drained};
use crate::pump::Pump;
use crate::relay::broke_off;
use crate::source::Source;
use crate::splice::Broken;
use crate::strict::Strict;
use crate::upgrade::{self, Agreed, Handover};

/// Fields of a head.
const FIELDS: usize = proto::head::MAX_FIELDS;
/// Room for the request line and the field separators beside the bytes that [`Limits::head`]
/// counts.
///
/// [`Limits::head`]: crate::Limits::head
const LINE: usize = 8 * 1024;

/// Serves one connection until it ends.
pub(crate) async fn serve(shared: &Arc<Shared>, mut io: Captured) {
    let from = io.from;
    let leaves = io.local_addr().is_ok_and(outside::may_leave);
    let handover = Arc::new(Handover::new());
    io.ends_with_reader(Arc::clone(&handover.one_way));
    let service = service_fn(|request| {
        let (shared, handover) = (Arc::clone(shared), Arc::clone(&handover));
        async move {
            let response = call(shared, request, from, leaves, &handover).await;
            handover.answered(response.status());
            Ok::<_, Infallible>(response)
        }
    });
    let strict = Strict::new(io, Arc::clone(&handover.gate));
    let connection = Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.limits.head_wait)
        .max_buf_size(shared.limits.head as usize + LINE)
        .max_headers(FIELDS)
        // A caller that has said all may close its half and still wait for the answer (RFC 9112 §9.6
        // lets it). One that is gone is noticed when it is written to.
        .half_close(true)
        .serve_connection(TokioIo::new(strict), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let mut draining = shared.draining.subscribe();
    let mut drain = std::pin::pin!(drained(&mut draining));
    let mut leaving = false;
    let ended = poll_fn(|cx| {
        if !leaving && drain.as_mut().poll(cx).is_ready() {
            leaving = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    })
    .await;
    if let Err(error) = ended {
        tracing::debug!(%error, "connection of a program ended");
    }
    if let Some(agreed) = handover.take() {
        // Boxed, for few connections need it.
        let (mut call, ended) = Box::pin(upgrade::carry(shared, agreed)).await;
        call.outcome = match ended {
            Some(Ok(())) => Outcome::Answered,
            Some(Err(Broken::Peer)) => Outcome::Broken,
            Some(Err(Broken::Program)) | None => Outcome::Cancelled,
        };
    }
}

/// One call, from its head to the head of its response; the body of that carries the rest.
async fn call(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    from: From,
    leaves: bool,
    handover: &Handover<Box<Ongoing>>,
) -> Response<Carried> {
    let began = Instant::now();
    let (mut parts, incoming) = request.into_parts();
    let form = Form::of(&parts.headers, false);
    let upgrades = incoming.is_end_stream() && upgrade::is_asked(&parts);
    let connection = parts.extensions.remove::<OnUpgrade>().filter(|_| upgrades);
    let mut beside = Beside { from, upgrades: connection.is_some(), ..Beside::default() };
    let begun = match shared.calls.enter(shared.limits.calls) {
        Some(counted) => match check(&parts, shared.limits.head as usize) {
            Ok(path) => {
                let uri = std::mem::take(&mut parts.uri).into_parts();
                let absolute = uri.authority.is_some();
                if absolute {
                    // An absolute target replaces the Host field (RFC 9112 §3.2.2).
                    parts.headers.remove(header::HOST);
                }
                let head = Box::new(RequestHead {
                    method: parts.method,
                    path,
                    authority: uri.authority,
                    headers: parts.headers,
                });
                let body = Body::http1(incoming);
                let begun = if absolute && leaves && shared.names_outside(&head) {
                    // Boxed, for it is the rare road.
                    Box::pin(shared.begin_outside(head, body)).await
                } else {
                    shared.begin(head, body, false, &mut beside).await
                };
                begun.map(|reply| (reply, counted))
            }
            Err(error) => Err(error),
        },
        None => Err(Error::Overloaded { what: "this node is", limit: shared.limits.calls }),
    };
    match begun {
        Ok((mut reply, counted)) => {
            beside.tell(&mut reply.headers);
            handover.one_way.store(beside.one_way, Ordering::Relaxed);
            let upgraded = reply.upgraded.take();
            let (mut response, call) = respond(shared, reply, counted, began);
            match (upgraded, connection) {
                (Some(upgraded), Some(connection)) => {
                    upgrade::say(response.headers_mut(), upgraded.protocol.clone());
                    let upgraded = *upgraded;
                    handover.agree(Agreed { connection, upgraded, call });
                }
                (_, _) => response.body_mut().call = Some(call),
            }
            response
        }
        Err(error) => {
            shared.metrics.call(Face::Http1, Outcome::from(&error), began.elapsed());
            let mut response = answer::response(&error, &shared.node_of(&error), &form);
            if matches!(error, Error::Malformed(_) | Error::HeadTooLarge(_)) {
                // What follows on this connection may not be what it seems.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            beside.tell(response.headers_mut());
            let down = &shared.metrics.down;
            response.map(|body| Carried { source: Source::new(body, None, down), call: None })
        }
    }
}

fn check(parts: &http::request::Parts, most: usize) -> Result<http::uri::PathAndQuery, Error> {
    // The library's own bound is one of buffers, which grow in steps. Counted as HTTP/2 does
    // (RFC 9113 §6.5.2).
    let size =
        |(name, value): (&http::HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 32;
    if parts.headers.iter().map(size).sum::<usize>() > most {
        return Err(Error::HeadTooLarge(most));
    }
    if mucp::has_marks(parts.uri.path(), &parts.headers) && parts.method == http::Method::POST {
        return Err(Error::Malformed(mucp::MISPLACED));
    }
    let hosts = parts.headers.get_all(header::HOST).iter().count();
    // Exactly one, unless the target names it (RFC 9112 §3.2).
    if hosts > 1 || hosts == 0 && parts.version == Version::HTTP_11 {
        return Err(Error::Malformed("a request has one Host field"));
    }
    check_line(&parts.method, &parts.uri)
}

fn respond(
    shared: Arc<Shared>,
    reply: Reply,
    counted: InFlight,
    began: Instant,
) -> (Response<Carried>, Box<Ongoing>) {
    let Reply { status, headers, body, upload, held, upgraded: _ } = reply;
    let source = Source::new(body, None, &shared.metrics.down).of_service();
    let call = Ongoing {
        shared,
        began,
        outcome: Outcome::Cancelled,
        _upload: upload.map(Uploading::start),
        held,
        _counted: counted,
    };
    let mut call = Box::new(call);
    if source.is_end() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        // Nobody will ask for a body.
        call.outcome = Outcome::Answered;
    }
    let mut response = Response::new(Carried { source, call: None });
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    (response, call)
}

/// A response body, and with it the call, which lasts as long as the body.
struct Carried {
    source: Source,
    call: Option<Box<Ongoing>>,
}

/// A call whose response has begun; counted when it ends.
struct Ongoing {
    shared: Arc<Shared>,
    began: Instant,
    outcome: Outcome,
    _upload: Option<Uploading>,
    held: Held,
    _counted: InFlight,
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        if self.outcome == Outcome::Answered {
            self.held.ended();
        }
        self.shared.metrics.call(Face::Http1, self.outcome, self.began.elapsed());
    }
}

/// The rest of a request body, moved by a task of its own: a client that does not read its response
/// yet must still be able to send. Ends with the call.
struct Uploading(AbortHandle);

impl Uploading {
    fn start(mut pump: Box<Pump>) -> Self {
        let task = tokio::spawn(async move {
            // However it ends, the response tells.
            let _ = poll_fn(|cx| pump.poll(cx)).await;
        });
        Self(task.abort_handle())
    }
}

impl Drop for Uploading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl http_body::Body for Carried {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let Poll::Ready(part) = this.source.poll_part(cx) else { return Poll::Pending };
        let part = part.map(|part| part.map_err(broke_off));
        if let Some(call) = &mut this.call {
            match &part {
                Some(Ok(Part::Data(_))) if !this.source.is_end() => {}
                Some(Ok(_)) | None => call.outcome = Outcome::Answered,
                Some(Err(error)) => call.outcome = Outcome::from(error),
            }
        }
        Poll::Ready(part.map(|part| match part {
            Ok(Part::Data(data)) => Ok(Frame::data(data)),
            Ok(Part::Trailers(trailers)) => Ok(Frame::trailers(trailers)),
            Err(error) => Err(error.into()),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(self.source.body())
    }
}
