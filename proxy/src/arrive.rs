//! Calls of other nodes: checked, given to an instance here, answered on the same stream.

mod packets;
mod raw;
mod upgrade;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::header;
use proto::fault::Code;
use proto::open::OpenKind;
use proto::record::Protocol;
use proto::{Credential, Open, ServiceName};
use tunnel::{Arrival, Incoming};

use crate::balance::shell::AtInstance;
use crate::balance::{NoChoice, Report};
use crate::body::Body;
use crate::carry::{self, Failed, Form, Reply, delivers, leg, outcome};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::explain::AtNode;
use crate::explain::State;
use crate::frames::{FrameSink, HeadError, PartReader};
use crate::metrics::{Face, Outcome};
use crate::proxy::Shared;
use crate::pump::Pump;
use crate::sink::Sink;
use crate::source::Source;
use crate::statics::is_static;
use crate::target::is_grpc;
use crate::{headers, heads, relay};

/// How long the last word of a failed call may take to be sent.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Takes calls until the tunnel is closed.
pub(crate) async fn serve(shared: &Arc<Shared>, mut incoming: Incoming) {
    while let Some(arrival) = incoming.accept().await {
        tokio::spawn(call(Arc::clone(shared), arrival));
    }
}

async fn call(shared: Arc<Shared>, arrival: Arrival) {
    let began = Instant::now();
    if arrival.open.kind == OpenKind::Topics {
        let broker = shared.broker.clone();
        return Box::pin(async move { broker.arrived(arrival).await }).await;
    }
    let Arrival { grant, open, stream, .. } = arrival;
    if open.kind == OpenKind::Bytes {
        // Boxed, for the common road is the other one.
        return Box::pin(raw::serve(&shared, &grant, &open, stream)).await;
    }
    if open.kind == OpenKind::Packets {
        return Box::pin(packets::serve(&shared, &grant, &open, stream)).await;
    }
    let mut sink = Box::new(FrameSink::new(stream.send));
    let reader = Box::new(PartReader::new(stream.recv));
    let budget = (open.budget > 0).then(|| Duration::from_micros(open.budget));
    let mut deadline = Deadline::after(budget);
    let counted = shared.arrivals.enter(shared.limits.arrivals);
    let begun = if counted.is_some() {
        let begin = begin(&shared, &grant, &open, reader, &mut deadline, began);
        unless_stopped(&mut sink, pin!(begin)).await
    } else {
        let limit = shared.limits.arrivals;
        Err(Error::Overloaded { what: "the node of the service is", limit })
    };
    let ended = match begun {
        Ok(Begun { mut reply, load, reader: Some(reader), .. }) if reply.upgraded.is_some() => {
            let upgraded = reply.upgraded.take();
            Box::pin(upgrade::serve(&shared, reply, upgraded, load, *sink, *reader)).await
        }
        Ok(begun) => respond(&shared, begun, sink, &mut deadline).await,
        Err(error) => {
            fail(&shared, &error, &mut sink).await;
            Err(error)
        }
    };
    let outcome = ended.as_ref().map_or_else(Outcome::from, |()| Outcome::Answered);
    shared.metrics.call(Face::Link, outcome, began.elapsed());
}

/// A call whose instance has begun to answer.
struct Begun {
    reply: Reply,
    grpc: bool,
    load: Report,
    /// What else the caller's node sends, where that is no body.
    reader: Option<Box<PartReader>>,
}

/// Checks the call, gives it to its instance, and waits until the response begins.
async fn begin(
    shared: &Shared,
    grant: &Credential,
    open: &Open,
    mut reader: Box<PartReader>,
    deadline: &mut Deadline,
    began: Instant,
) -> Result<Begun, Error> {
    if open.kind != OpenKind::Exchange {
        return Err(Error::Malformed("this node does not serve calls of this kind"));
    }
    let (service, instance) = asked_for(shared, grant, open, deadline)?;
    let head = deadline.race(pin!(head(shared, &mut reader))).await?;
    let head = heads::read_request(head).map_err(|_| Error::Malformed("not a head"))?;
    let mut head = Box::new(head);
    // The caller's node did this; a node that did not is not believed.
    // What asks for labels is here only where its caller's node was told to let it pass.
    let upgrade = head.headers.remove(header::UPGRADE);
    let sticky = headers::clean_request(&mut head.headers)?;
    head.headers.extend(sticky);
    let grpc = is_grpc(&head.headers);
    let form = match (&upgrade, grpc) {
        (Some(_), _) => Form::Upgrade,
        (None, true) => Form::Grpc,
        (None, false) => Form::Http,
    };
    spoken(&service, &instance, form)?;
    let mut at = shared.take(&service, instance.key)?;
    let before = open.explain.then(|| began.elapsed());
    let (deliver, address, protocol) = (&shared.deliver, &instance.address, instance.protocol);
    let (sent, reader) = match upgrade {
        Some(upgrade) => {
            head.headers.insert(header::UPGRADE, upgrade);
            let sent = Box::pin(carry::upgrade::here(deliver, address, head, deadline)).await;
            (sent, Some(reader))
        }
        None => {
            let message = grpc.then_some(shared.limits.message);
            let source = Source::new(Body::stream(reader), message, &shared.metrics.up);
            let source = Box::new(source);
            let messages = if protocol == Protocol::Mucp {
                shared.messages(service.as_str(), &head, open.messages)
            } else {
                open.messages
            };
            let sent = leg::local(deliver, address, protocol, head, source, messages, deadline);
            (sent.await.map_err(|Failed { error, .. }| error), None)
        }
    };
    let mut reply = match sent {
        Ok(reply) => reply,
        Err(error) => {
            if let Some(outcome) = outcome::of_error(&error) {
                at.settle(outcome, None);
            }
            return Err(error);
        }
    };
    let load = at.settle(outcome::of_reply(reply.status, &reply.headers), None);
    reply.held.instance = Some(at);
    headers::clean_response(&mut reply.headers);
    if let Some(part) = before.and_then(|before| at_node(before, began.elapsed()).to_header()) {
        reply.headers.insert(headers::MICRO_ROUTE, part);
    }
    Ok(Begun { reply, grpc, load, reader })
}

/// What a call is for, once it is known that it may be made and that there is time for it.
fn asked_for(
    shared: &Shared,
    grant: &Credential,
    open: &Open,
    deadline: &Deadline,
) -> Result<(ServiceName, Found), Error> {
    if shared.is_draining() {
        return Err(Error::Draining);
    }
    shared.balance.measure();
    shared.balance.admit(|| deadline.left())?;
    if open.hops == 0 {
        return Err(Error::TooManyHops);
    }
    let service = std::str::from_utf8(&open.service).ok().and_then(|name| name.parse().ok());
    let service: ServiceName = service.ok_or(Error::Malformed("the service is not a name"))?;
    if !grant.grant().may_call(service.namespace()) {
        return Err(Error::NotAllowed(
            "the grant of the caller's node does not cover this service",
        ));
    }
    let instance = instance(shared, &service, &open.instance)?;
    Ok((service, instance))
}

/// That an instance takes what comes. A caller's node has looked; one that did not is not believed.
fn spoken(service: &ServiceName, instance: &Found, form: Form) -> Result<(), Error> {
    if delivers(instance.protocol, form) {
        return Ok(());
    }
    let (service, selector) = (service.to_string(), form.needs().to_owned());
    Err(Error::NoMatch { service, selector, state: State::Protocol, mismatch: None })
}

/// What this node says of its part of a call.
fn at_node(before: Duration, whole: Duration) -> AtNode {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    AtNode { before_us: micros(before), instance_us: micros(whole.saturating_sub(before)) }
}

impl Shared {
    /// Counts a call that another node sends to the instance with this key.
    fn take(&self, service: &ServiceName, key: u64) -> Result<AtInstance, Error> {
        let taken = self.balance.take(key, |learn| {
            if let Some(table) = self.routes.load().service(service.as_str()) {
                learn(table);
            }
        });
        taken.map_err(|none| match none {
            NoChoice::Full(limit) => Error::Overloaded { what: "the instance is", limit },
            NoChoice::None => Error::TurnedAway(service.to_string()),
        })
    }
}

struct Found {
    key: u64,
    address: Arc<str>,
    protocol: Protocol,
}

/// The instance of this node that the caller's node chose; any, if it chose none.
fn instance(shared: &Shared, service: &ServiceName, id: &[u8]) -> Result<Found, Error> {
    let routes = shared.routes.load();
    let name = service.as_str();
    let Some(known) = routes.service(name) else {
        // Not gone from the caller's routes yet: it may try another node.
        return Err(Error::TurnedAway(name.to_owned()));
    };
    // Those here are the nearest.
    let here = known.reachable().iter().take_while(|instance| instance.here);
    // What local programs made is for local programs.
    let mut here = here.filter(|instance| !is_static(instance));
    let found = here.find(|instance| id.is_empty() || instance.id.as_bytes() == id);
    let found = found.ok_or_else(|| Error::TurnedAway(name.to_owned()))?;
    let address = Arc::clone(&found.address);
    Ok(Found { key: found.key.0, address, protocol: found.protocol })
}

/// The head of the request; it comes with the `Open`, or soon after.
async fn head(shared: &Shared, reader: &mut PartReader) -> Result<bytes::Bytes, Error> {
    let head = poll_fn(|cx| reader.poll_head(cx));
    match tokio::time::timeout(shared.limits.first_bytes, head).await {
        Ok(Ok(head)) => Ok(head),
        Ok(Err(HeadError::Stream(_))) => Err(Error::Cancelled),
        Ok(Err(HeadError::Fault(_) | HeadError::Protocol(_))) => {
            Err(Error::Malformed("a call begins with a head"))
        }
        Err(_) => Err(Error::Malformed("a call without a head")),
    }
}

/// What `begin` gives, unless the caller's node gives the call up first.
async fn unless_stopped<T>(
    sink: &mut FrameSink,
    mut begin: Pin<&mut impl Future<Output = Result<T, Error>>>,
) -> Result<T, Error> {
    poll_fn(|cx| {
        // First: what was given up already is not to be begun, or an instance sees its reset at once.
        if sink.half().poll_stopped(cx).is_ready() {
            return Poll::Ready(Err(Error::Cancelled));
        }
        begin.as_mut().poll(cx)
    })
    .await
}

async fn respond(
    shared: &Shared,
    begun: Begun,
    mut sink: Box<FrameSink>,
    deadline: &mut Deadline,
) -> Result<(), Error> {
    let Begun { reply, grpc, load, reader: _reader } = begun;
    let Reply { status, headers, body, mut upload, mut held, upgraded: _ } = reply;
    let Ok(frame) = heads::response(status, &headers, Some(load.into())) else {
        let error = Error::HeadTooLarge(proto::exchange::MAX_HEAD);
        fail(shared, &error, &mut sink).await;
        return Err(error);
    };
    sink.queue_frame(frame);
    let source = Source::new(body, grpc.then_some(shared.limits.message), &shared.metrics.down);
    let source = source.of_service();
    let mut download = Pump::new(Box::new(source), Sink::Stream(sink));
    let moved = relay::both_ways(&mut download, &mut upload, deadline).await;
    match (&moved, download.sink()) {
        (Ok(()), _) if upload.is_none() => held.ended(),
        (Err(error), Sink::Stream(sink)) => fail(shared, error, sink).await,
        (_, _) => {}
    }
    drop(held);
    moved
}

/// Tells the caller's node what happened, as the last thing on the stream.
async fn fail(shared: &Shared, error: &Error, sink: &mut FrameSink) {
    if matches!(error, Error::Cancelled) {
        return sink.reset(Code::Cancelled);
    }
    sink.queue_fault(&error.to_fault(shared.me));
    match tokio::time::timeout(LAST_WORD, poll_fn(|cx| sink.poll_flush(cx))).await {
        Ok(Ok(())) => sink.finish(),
        Ok(Err(_)) | Err(_) => sink.reset(Code::Broken),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_small_where_it_is_spawned() {
        fn size<A, B, F: Future>(_: impl Fn(A, B) -> F) -> usize {
            size_of::<F>()
        }
        let size = size(call);
        assert!(size <= 4096, "{size} bytes are copied with each call");
    }
}
