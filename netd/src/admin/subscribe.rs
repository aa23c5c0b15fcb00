//! Messages of topics for who holds the answer, and one question with its answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body as Stream;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use proto::publish::{Headers, Message};
use proto::record::Interest;
use proto::topic::{QueueGroup, Topic, TopicPattern};
use proxy::Event;
use proxy::broker::{Mailbox, Overflow, Subscription};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use super::answer::{Body, document};
use super::forward::MAX_HELD;
use super::topics::bad;
use crate::api;
use crate::error::{Exit, Problem};
use crate::node::Node;

/// Messages taken from the queue at a time.
const AT_ONCE: usize = 64;
/// The longest that an answer is waited for.
const LONGEST: Duration = Duration::from_secs(3600);
/// What addresses of answers begin with, as clients of NATS make them.
const INBOX: &str = "_INBOX.";

/// `POST /v1/subscribe`: one line, a `Subscribed`; then a `Message` a line for as long as it is read.
pub(super) async fn subscribe(
    State(node): State<Arc<Node>>,
    Body(ask): Body<api::SubscribeRequest>,
) -> Result<Response, Problem> {
    let interest = interest(&ask.topic, ask.group.as_deref())?;
    let Ok(place) = Arc::clone(&node.forwards).try_acquire_owned() else {
        let what = format!("{MAX_HELD} ports and subscriptions are held already");
        return Err(Problem::new("M1305", Exit::Failed, what)
            .why("each holds a place at the admin socket, and others need some too")
            .attempt("micro topics", "who subscribes; clients of NATS have a port of their own"));
    };
    // Who watches wants to know how things are now; what is left out is counted.
    let mailbox = Mailbox::new(Overflow::DropOldest);
    let subscription = taken(&node, &mailbox, interest)?;
    let line = line("Subscribed", &api::Subscribed { topic: ask.topic, group: ask.group })?;
    let held = Held { first: Some(line), mailbox, _subscription: subscription, _place: place };
    let body = futures_util::stream::unfold(held, next);
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Stream::from_stream(body))
        .into_response())
}

/// A subscription, which ends when nobody reads any more.
struct Held {
    first: Option<Vec<u8>>,
    mailbox: Mailbox,
    _subscription: Subscription,
    _place: OwnedSemaphorePermit,
}

async fn next(mut held: Held) -> Option<(Result<Bytes, Infallible>, Held)> {
    if let Some(first) = held.first.take() {
        return Some((Ok(first.into()), held));
    }
    let messages = held.mailbox.take(AT_ONCE).await.ok()?;
    let dropped = held.mailbox.dropped();
    let mut lines = Vec::new();
    for item in messages {
        // A message is text and numbers: it can be written.
        lines.extend(line("Message", &Event::of(&item.message, dropped)).unwrap_or_default());
    }
    Some((Ok(lines.into()), held))
}

/// `POST /v1/request`: one message, and the first answer to it.
pub(super) async fn request(
    State(node): State<Arc<Node>>,
    Body(ask): Body<api::TopicRequest>,
) -> Result<Response, Problem> {
    let topic = Topic::new(ask.topic.clone()).map_err(|why| bad(&ask.topic, &why.to_string()))?;
    let pairs = ask.headers.iter().map(|(name, value)| (&**name, value.as_bytes()));
    let headers = Headers::of(pairs).map_err(|why| {
        Problem::new("M4001", Exit::Usage, "the headers cannot be sent").why(why.to_string())
    })?;
    let secret = tunnel::identity::random::<16>();
    let inbox = format!("{INBOX}{}", data_encoding::HEXLOWER.encode(&secret));
    let reply = Topic::new(inbox.clone()).map_err(|why| bad(&inbox, &why.to_string()))?;
    let mailbox = Mailbox::new(Overflow::DropNewest);
    let _subscription = taken(&node, &mailbox, interest(&inbox, None)?)?;
    let message = Message {
        namespace: "".into(),
        topic,
        reply: Some(reply),
        headers,
        payload: ask.body.into(),
    };
    let asked = node.proxy.broker().publish(message, None).await;
    let asked = asked.map_err(|why| bad(&ask.topic, &why.to_string()))?;
    if asked == 0 {
        let what = format!("nobody subscribes to {}", ask.topic);
        return Err(Problem::new("M1208", Exit::NotFound, what)
            .why("a question is answered by who subscribes to its topic")
            .attempt("micro topics", "who subscribes to what"));
    }
    let patience = Duration::from_millis(ask.timeout_ms).min(LONGEST);
    let answered = tokio::time::timeout(patience, mailbox.take(1)).await;
    match answered.ok().and_then(Result::ok).and_then(|all| all.into_iter().next()) {
        Some(item) => Ok(document("Message", Event::of(&item.message, 0))?.into_response()),
        None => {
            let waited = crate::config::duration::show(patience);
            let what = format!("no answer to {} within {waited}", ask.topic);
            Err(Problem::new("M8004", Exit::Unreachable, what)
                .why(format!("{asked} got the question: subscribers here, and nodes"))
                .attempt(format!("micro request {} --timeout 60s", ask.topic), "waits longer"))
        }
    }
}

fn interest(topic: &str, group: Option<&str>) -> Result<Interest, Problem> {
    let wrong = |text: &str, why: &dyn std::fmt::Display| {
        Problem::new("M4001", Exit::Usage, format!("nothing can be subscribed to as {text:?}"))
            .why(why.to_string())
            .attempt("micro subscribe 'orders.>'", "")
    };
    let pattern = TopicPattern::new(topic.to_owned()).map_err(|why| wrong(topic, &why))?;
    let group =
        group.map(|group| QueueGroup::new(group.to_owned()).map_err(|why| wrong(group, &why)));
    Ok(Interest { namespace: "".into(), pattern, group: group.transpose()? })
}

fn taken(node: &Node, mailbox: &Mailbox, interest: Interest) -> Result<Subscription, Problem> {
    node.proxy.broker().subscribe(mailbox, 0, interest).map_err(|why| {
        Problem::new("M1305", Exit::Failed, "no subscription is taken")
            .why(why.to_string())
            .attempt("micro topics", "who subscribes to what")
    })
}

fn line<T: Serialize>(kind: &str, body: &T) -> Result<Vec<u8>, Problem> {
    let mut line = serde_json::to_vec(&api::Document::new(kind, body))
        .map_err(|error| Problem::bug(format!("an answer cannot be written: {error}")))?;
    line.push(b'\n');
    Ok(line)
}
