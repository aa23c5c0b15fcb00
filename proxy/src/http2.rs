//! The HTTP/2 face: gRPC, and HTTP by authority.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Ping, PingPong, RecvStream};
use http::{Method, Request, Response, StatusCode};
use tokio::time::Sleep;

use crate::answer::{self, Form};
use crate::begin::{Beside, check_line, expects_continue};
use crate::body::Body;
use crate::carry::Reply;
use crate::detect::{Captured, From};
use crate::error::Error;
use crate::heads::RequestHead;
use crate::load::InFlight;
use crate::metrics::{Face, Outcome};
use crate::proxy::{Shared, drained};
use crate::pump::Pump;
use crate::relay;
use crate::sink::{self, Sink};
use crate::source::Source;
use crate::target::is_grpc;

/// Bytes of request bodies that a caller may send ahead, per stream and per connection.
const STREAM_WINDOW: u32 = 512 << 10;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// What small frames may cost before the connection is closed, a few hundred bytes each: no single
/// stream of tiny messages can come near it within its window, a flood on many can.
const FRAME_BUDGET: usize = 32 << 20;
/// Largest frame of a caller.
const FRAME: u32 = 64 * 1024;
/// Streams that a caller reset and that are remembered, at most and for how long; those it resets
/// before we looked at them; and errors of its own. Beyond them it is told to calm down
/// (CVE-2023-44487, CVE-2025-8671).
const RESETS: usize = 64;
const RESET_MEMORY: Duration = Duration::from_secs(1);
const UNSEEN_RESETS: usize = 64;
const ERRORS: usize = 256;
/// How often a caller with open streams is asked whether it is there: one that does not answer by
/// the next time is gone.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// A connection without streams is closed after this many times of [`KEEPALIVE`]: clients open
/// another when they need it.
const IDLE_TICKS: u32 = 40;

/// Serves one connection until it ends.
pub(crate) async fn serve(shared: &Arc<Shared>, io: Captured) {
    let from = io.from;
    let handshake = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .data_frame_budget(FRAME_BUDGET)
        .max_header_list_size(shared.limits.head)
        .max_concurrent_streams(shared.limits.streams)
        .max_concurrent_reset_streams(RESETS)
        .reset_stream_duration(RESET_MEMORY)
        .max_pending_accept_reset_streams(UNSEEN_RESETS)
        .max_local_error_reset_streams(Some(ERRORS))
        .max_send_buffer_size(256 * 1024)
        .handshake::<_, Bytes>(io);
    let mut connection = match tokio::time::timeout(shared.limits.first_bytes, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%error, "no HTTP/2 with a program"),
        Err(_) => return,
    };
    let mut draining = shared.draining.subscribe();
    let mut drain = Box::pin(drained(&mut draining));
    let mut leaving = false;
    let mut keepalive = Keepalive::new(&mut connection);
    loop {
        let event = poll_fn(|cx| {
            if let Poll::Ready(accepted) = connection.poll_accept(cx) {
                return Poll::Ready(Event::Accepted(accepted));
            }
            if !leaving && drain.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Drain);
            }
            keepalive.poll(cx, &connection).map(Event::Keepalive)
        })
        .await;
        match event {
            Event::Accepted(Some(Ok((request, respond)))) => {
                tokio::spawn(call(Arc::clone(shared), request, respond, from));
            }
            Event::Accepted(Some(Err(error))) => {
                return tracing::debug!(%error, "connection of a program ended");
            }
            Event::Accepted(None) => return,
            Event::Drain | Event::Keepalive(Verdict::Idle) => {
                leaving = true;
                connection.graceful_shutdown();
            }
            Event::Keepalive(Verdict::Gone) => {
                return tracing::debug!("a program does not answer any more");
            }
        }
    }
}

#[expect(
    clippy::large_enum_variant,
    reason = "made and taken apart at once, and mostly the large one"
)]
enum Event {
    Accepted(Option<Result<Accepted, h2::Error>>),
    Drain,
    Keepalive(Verdict),
}

type Accepted = (Request<RecvStream>, SendResponse<Bytes>);

enum Verdict {
    Idle,
    Gone,
}

/// Asks a silent caller whether it is there, as long as it has calls open.
struct Keepalive {
    ping: Option<PingPong>,
    tick: Pin<Box<Sleep>>,
    asked: bool,
    idle: u32,
}

impl Keepalive {
    fn new(connection: &mut Connection<Captured, Bytes>) -> Self {
        let tick = Box::pin(tokio::time::sleep(KEEPALIVE));
        Self { ping: connection.ping_pong(), tick, asked: false, idle: 0 }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        connection: &Connection<Captured, Bytes>,
    ) -> Poll<Verdict> {
        while self.tick.as_mut().poll(cx).is_ready() {
            self.tick.as_mut().reset(tokio::time::Instant::now() + KEEPALIVE);
            if let (true, Some(ping)) = (self.asked, &mut self.ping) {
                if ping.poll_pong(cx).is_pending() {
                    return Poll::Ready(Verdict::Gone);
                }
                self.asked = false;
            }
            if connection.has_streams() {
                self.idle = 0;
                let ping = self.ping.as_mut();
                self.asked = ping.is_some_and(|ping| ping.send_ping(Ping::opaque()).is_ok());
            } else {
                self.idle += 1;
                if self.idle == IDLE_TICKS {
                    return Poll::Ready(Verdict::Idle);
                }
            }
        }
        Poll::Pending
    }
}

/// One call, from its head to its end.
async fn call(
    shared: Arc<Shared>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    from: From,
) {
    let began = Instant::now();
    let (parts, recv) = request.into_parts();
    let grpc = is_grpc(&parts.headers);
    let face = if grpc { Face::Grpc } else { Face::Http2 };
    let form = Form::of(&parts.headers, grpc);
    let bodiless = parts.method == Method::HEAD;
    let mut beside = Beside { from, ..Beside::default() };
    let _counted: Option<InFlight>;
    let begun = match shared.calls.enter(shared.limits.calls) {
        Some(counted) => {
            _counted = Some(counted);
            if expects_continue(&parts.headers) {
                let mut interim = Response::new(());
                *interim.status_mut() = StatusCode::CONTINUE;
                // Fails only when the stream is gone, which is noticed below.
                let _ = respond.send_informational(interim);
            }
            match head_of(parts) {
                Ok(head) => {
                    let begin = shared.begin(head, Body::http2(recv), grpc, &mut beside);
                    unless_reset(&mut respond, pin!(begin)).await
                }
                Err(error) => Err(error),
            }
        }
        None => Err(Error::Overloaded { what: "this node is", limit: shared.limits.calls }),
    };
    let ended = match begun {
        Ok(reply) => respond_with(&shared, reply, &mut beside, respond, grpc).await,
        Err(error) => {
            refuse(&shared, &error, &form, bodiless, &mut beside, respond);
            Err(error)
        }
    };
    let outcome = ended.as_ref().map_or_else(Outcome::from, |()| Outcome::Answered);
    shared.metrics.call(face, outcome, began.elapsed());
}

/// The head of a request. Takes all of it, so that nothing of it is copied with the call.
fn head_of(parts: http::request::Parts) -> Result<Box<RequestHead>, Error> {
    let path = check_line(&parts.method, &parts.uri)?;
    let authority = parts.uri.into_parts().authority;
    let (method, headers) = (parts.method, parts.headers);
    Ok(Box::new(RequestHead { method, path, authority, headers }))
}

/// What `begin` gives, unless the caller resets the stream first.
async fn unless_reset(
    respond: &mut SendResponse<Bytes>,
    mut begin: Pin<&mut impl Future<Output = Result<Reply, Error>>>,
) -> Result<Reply, Error> {
    poll_fn(|cx| {
        // First: what was given up already is not to be begun, or an instance sees its reset at once.
        if respond.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(Error::Cancelled));
        }
        begin.as_mut().poll(cx)
    })
    .await
}

/// Hands the response on until it ends.
async fn respond_with(
    shared: &Shared,
    reply: Reply,
    beside: &mut Beside,
    mut respond: SendResponse<Bytes>,
    grpc: bool,
) -> Result<(), Error> {
    let Reply { status, headers, body, mut upload, mut held, upgraded: _ } = reply;
    let mut response = Response::new(());
    *response.status_mut() = status;
    // A gRPC response whose head has a status is that head and nothing more ("Trailers-Only"), and
    // clients believe the status only if the head ends the stream. Over a link the end comes later.
    let whole = body.is_end() || (grpc && headers.contains_key("grpc-status"));
    *response.headers_mut() = headers;
    beside.tell(response.headers_mut());
    let send = respond.send_response(response, whole).map_err(|_| Error::Cancelled)?;
    let message = (grpc && !body.is_own()).then_some(shared.limits.message);
    let source = Source::new(body, message, &shared.metrics.down);
    let source = source.of_service();
    let mut download = Pump::new(Box::new(source), Sink::http2(send));
    let moved = if whole {
        Ok(())
    } else {
        relay::both_ways(&mut download, &mut upload, &mut beside.deadline).await
    };
    match &moved {
        Ok(()) if upload.is_none() => held.ended(),
        Ok(()) => {}
        Err(error) => break_off(shared, error, grpc, &mut download),
    }
    drop(held);
    moved
}

/// Ends a response that cannot be whole, so that nobody takes it for whole.
fn break_off(shared: &Shared, error: &Error, grpc: bool, download: &mut Pump) {
    if matches!(error, Error::Cancelled) {
        return download.sink().reset(proto::fault::Code::Cancelled);
    }
    if grpc {
        let trailers = answer::trailers(error, &shared.node_of(error));
        if download.sink().queue_trailers(trailers).is_ok() {
            return;
        }
    }
    download.sink().reset(proto::fault::Code::Broken);
}

/// Answers with an error instead of a response.
fn refuse(
    shared: &Shared,
    error: &Error,
    form: &Form,
    bodiless: bool,
    beside: &mut Beside,
    mut respond: SendResponse<Bytes>,
) {
    if matches!(error, Error::Cancelled) {
        return respond.send_reset(sink::reason(proto::fault::Code::Cancelled));
    }
    let (mut parts, body) = answer::response(error, &shared.node_of(error), form).into_parts();
    beside.tell(&mut parts.headers);
    // The answer to HEAD is a head, whatever it says (RFC 9110 §9.3.2).
    let whole = body.is_end() || bodiless;
    let Ok(mut send) = respond.send_response(Response::from_parts(parts, ()), whole) else {
        return;
    };
    if let Some(text) = body.into_full().filter(|_| !whole) {
        // A line or two: within any window worth the name, and buffered by the connection else.
        let _ = send.send_data(text, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_small_where_it_is_spawned() {
        fn size<A, B, C, D, F: Future>(_: impl Fn(A, B, C, D) -> F) -> usize {
            size_of::<F>()
        }
        let size = size(call);
        assert!(size <= 4096, "{size} bytes are copied with each call");
    }
}
