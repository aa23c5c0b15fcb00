//! The road of a call on its caller's node: choose an instance, open the way to it, send the
//! request, wait for the head of the response. Again, elsewhere, when that is certainly safe.

mod choose;
mod hedge;
pub(crate) mod leg;
pub(crate) mod outcome;
pub(crate) mod raw;
pub(crate) mod upgrade;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use proto::open::{Messages, OpenKind};
use proto::record::Protocol;
use proto::{Open, Selector};
use smallvec::SmallVec;

use crate::balance::Report;
use crate::balance::shell::AtInstance;
use crate::body::Body;
use crate::deadline::Deadline;
use crate::deliver::http2::Lease;
use crate::error::Error;
use crate::explain::Trace;
use crate::headers::{MICRO_FROM_SERVICE, TRACEPARENT};
use crate::heads::RequestHead;
use crate::proxy::Shared;
use crate::pump::Pump;
use crate::ruled::Ruled;
use crate::source::Source;
use crate::via::Via;
pub(crate) use choose::{Chosen, delivers};
pub(crate) use upgrade::Upgraded;

/// A request with all that is known about it.
pub(crate) struct Call {
    pub(crate) head: Box<RequestHead>,
    pub(crate) source: Source,
    pub(crate) service: String,
    pub(crate) selector: Selector,
    pub(crate) form: Form,
    /// Its caller said that doing it twice does no harm.
    pub(crate) idempotent: bool,
    /// How many messages it has, where that is known.
    pub(crate) messages: Messages,
    /// What a rule says of it.
    pub(crate) ruled: Option<Box<Ruled>>,
    /// Which routes it may take, where its caller says so.
    pub(crate) via: Option<Box<Via>>,
    /// The name that was called, where `service` is the one under which ways to all others are.
    pub(crate) named: Option<Box<str>>,
    /// Its caller wants to know which way it took.
    pub(crate) trace: Option<Box<Trace>>,
}

impl Call {
    /// The name that was called.
    pub(crate) fn name(&self) -> &str {
        self.named.as_deref().unwrap_or(&self.service)
    }
}

/// What a call is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A gRPC exchange.
    Grpc,
    /// Any other HTTP exchange.
    Http,
    /// An HTTP exchange that may end in bytes both ways.
    Upgrade,
    /// Bytes both ways.
    Bytes,
    /// The same, of which it is known that they are TLS.
    Tls,
    /// Packets both ways, each for itself.
    Packets,
}

/// A response that has begun.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
    /// The rest of the request, if it is not sent whole yet.
    pub(crate) upload: Option<Box<Pump>>,
    /// Counted as long as the call lasts.
    pub(crate) held: Held,
    /// What the connection is from now on, after a `101`. Boxed, for it is rare.
    pub(crate) upgraded: Option<Box<Upgraded>>,
}

/// What a call occupies while it lasts.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) instance: Option<AtInstance>,
    pub(crate) stream: Option<Lease>,
}

impl Held {
    /// The call has ended as it should: nothing of it has to be given up.
    pub(crate) fn ended(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.ended();
        }
    }
}

/// An attempt that came to nothing. With the request, if it can be sent again from its start.
pub(crate) struct Failed {
    pub(crate) error: Error,
    pub(crate) source: Option<Box<Source>>,
}

/// The same, with the instance that was asked: its service's budget decides whether to go on.
struct Fell {
    failed: Failed,
    at: AtInstance,
}

/// Keys of the instances that were tried.
type Tried = SmallVec<[u64; 4]>;

impl Shared {
    /// Carries `call` to an instance and gives its response, once that has begun. Dropping the
    /// future, or the reply, cancels the call at the service.
    ///
    /// # Errors
    /// The [`Error`] of the first attempt: further ones only say what else did not work.
    pub(crate) async fn carry(
        &self,
        call: &mut Call,
        deadline: &mut Deadline,
    ) -> Result<Reply, Error> {
        let attempts = call.ruled.as_ref().and_then(|ruled| ruled.attempts);
        let attempts = attempts.unwrap_or(self.limits.attempts) as usize;
        let mut tried = Tried::new();
        let mut first = None;
        loop {
            let chosen = match self.choose(call, &tried) {
                Ok(chosen) => chosen,
                Err(error) => return Err(first.unwrap_or(error)),
            };
            tried.push(chosen.key);
            let last = tried.len() >= attempts;
            if let Some(trace) = &mut call.trace {
                trace.asks(&chosen, &self.routes.load());
            }
            // Of a call that is traced one thing happens after the other.
            let hedged = call.idempotent && call.trace.is_none();
            let ended = if hedged && first.is_none() && !last {
                // Boxed, for it is the rarer road and holds two attempts.
                Box::pin(self.first_attempt(call, chosen, deadline, &mut tried)).await
            } else {
                self.attempt(call, chosen, !last, deadline).await
            };
            let Fell { failed: Failed { error, source }, at } = match ended {
                Ok(reply) => {
                    if let Some(trace) = &mut call.trace {
                        trace.answered(&reply);
                    }
                    return Ok(reply);
                }
                Err(fell) => fell,
            };
            if let Some(trace) = &mut call.trace {
                trace.failed(&error);
            }
            let again = error.is_unseen() || call.idempotent && is_worth_repeating(&error);
            let last = tried.len() >= attempts;
            let source = source.filter(|_| again && !last);
            let error = first.get_or_insert(error);
            let Some(mut source) = source else { return Err(error.clone()) };
            if !source.rewind() {
                return Err(error.clone());
            }
            if !at.may_try_again() {
                tracing::debug!(%error, service = call.service, "no retry left in the budget");
                self.metrics.denied();
                return Err(error.clone());
            }
            tracing::debug!(%error, service = call.service, "trying another instance");
            self.metrics.retry();
            call.source = *source;
        }
    }

    /// The first attempt of an idempotent call, with a second one beside it if that takes long.
    async fn first_attempt(
        &self,
        call: &mut Call,
        chosen: Chosen,
        deadline: &mut Deadline,
        tried: &mut Tried,
    ) -> Result<Reply, Fell> {
        if let (true, Some(after)) = (chosen.others, chosen.at.hedge_after()) {
            match self.twin(call).await {
                Ok(Some(twin)) => {
                    return self.hedged(call, twin, chosen, after, deadline, tried).await;
                }
                Ok(None) => {}
                Err(error) => {
                    return Err(Fell { failed: Failed { error, source: None }, at: chosen.at });
                }
            }
        }
        self.attempt(call, chosen, true, deadline).await
    }

    /// Asks one instance, and takes note of what that says about it.
    async fn attempt(
        &self,
        call: &mut Call,
        chosen: Chosen,
        may_repeat: bool,
        deadline: &mut Deadline,
    ) -> Result<Reply, Fell> {
        let source = Box::new(call.source.take());
        let answered = if call.form == Form::Upgrade {
            // Boxed, for it is the rarer road.
            let answered = Box::pin(self.upgrade(call, &chosen, deadline)).await;
            answered.map_err(|error| Failed { error, source: Some(source) })
        } else if chosen.here {
            // The head is only needed a second time if there is someone else to give it to, or who
            // asks what was decided by it.
            let head = if may_repeat && chosen.others || call.trace.is_some() {
                call.head.clone()
            } else {
                Box::new(call.head.take())
            };
            let messages = if chosen.protocol == Protocol::Mucp {
                self.messages(&call.service, &head, call.messages)
            } else {
                call.messages
            };
            let (address, protocol) = (&chosen.address, chosen.protocol);
            leg::local(&self.deliver, address, protocol, head, source, messages, deadline).await
        } else {
            let open = open(call, &chosen, deadline);
            leg::remote(&self.tunnel, chosen.node, &open, &call.head, source, deadline).await
        };
        let mut at = chosen.at;
        match answered {
            Ok(mut reply) => {
                let outcome = outcome::of_reply(reply.status, &reply.headers);
                at.settle(outcome, reply.body.load().map(Report::from));
                reply.held.instance = Some(at);
                Ok(reply)
            }
            Err(failed) => {
                if let Some(outcome) = outcome::of_error(&failed.error) {
                    at.settle(outcome, None);
                }
                Err(Fell { failed, at })
            }
        }
    }
}

/// Whether another attempt may succeed where this one was lost half-way.
fn is_worth_repeating(error: &Error) -> bool {
    error.code() == 1007
}

/// Boxed, for it would be copied with each call that is spawned.
fn open(call: &Call, chosen: &Chosen, deadline: &Deadline) -> Box<Open> {
    let text = |name| {
        let value = call.head.headers.get(name);
        value.map_or_else(Bytes::new, |value| Bytes::copy_from_slice(value.as_bytes()))
    };
    let budget = deadline.left().map_or(0, |left| u64::try_from(left.as_micros()).unwrap_or(0));
    let short = |text: Bytes, most: usize| if text.len() > most { Bytes::new() } else { text };
    Box::new(Open {
        service: Bytes::copy_from_slice(call.name().as_bytes()),
        instance: Bytes::copy_from_slice(chosen.id.as_bytes()),
        // A deadline that has just passed is the shortest there is, not none.
        budget: if deadline.is_set() { budget.max(1) } else { 0 },
        caller: short(text(MICRO_FROM_SERVICE), 512),
        trace: short(text(TRACEPARENT), 128),
        idempotent: call.idempotent,
        explain: call.trace.is_some(),
        messages: call.messages,
        ..Open::new(OpenKind::Exchange)
    })
}
