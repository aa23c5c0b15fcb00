//! `go.micro.broker`, and `broker` of micro v3: publish and subscribe, as programs of both do.
//!
//! v3 keeps the topics of one issuer of accounts from those of another, by a prefix. Accounts decide
//! nothing here (see `own::auth`), so a topic is the same whichever version it is published by.

use bytes::Bytes;
use futures_util::stream;
use prost::Message as _;
use proto::micro::broker as pb;
use proto::publish::{Headers, Message};
use proto::topic::{BadTopic, QueueGroup, Topic, TopicPattern};

use super::dispatch::{Call, decode};
use super::failure::{Failure, Kind};
use super::reply::Reply;
use crate::broker::{Broker, Mailbox, Overflow};

pub(super) const NAME: &str = "go.micro.broker";

/// Answers one call; `broker` is missing only before there is a proxy.
pub(super) fn call(broker: Option<&Broker>, call: &Call, message: Bytes) -> Reply {
    let Some(broker) = broker.cloned() else {
        return Reply::now::<pb::Empty>(Err(failed(Kind::Unavailable, "topics are not served")));
    };
    match call.method.as_str() {
        "Publish" => Reply::later(async move {
            let message = published(decode(NAME, message)?)?;
            let published = broker.publish(message, None).await;
            published.map_err(|why| failed(Kind::TooLarge, why))?;
            Ok(pb::Empty {})
        }),
        "Subscribe" => match decode(NAME, message).and_then(|ask| subscribe(&broker, ask)) {
            Ok(reply) => reply,
            Err(failure) => Reply::now::<pb::Empty>(Err(failure)),
        },
        _ => Reply::now::<pb::Empty>(Err(failed(Kind::NotImplemented, "not offered"))),
    }
}

fn failed(kind: Kind, why: impl ToString) -> Failure {
    Failure::new(NAME, kind, why.to_string())
}

fn bad_topic(topic: &str) -> impl Fn(BadTopic) -> Failure {
    move |why| failed(Kind::BadRequest, format!("topic {topic:?}: {why}"))
}

fn published(ask: pb::PublishRequest) -> Result<Message, Failure> {
    let topic = Topic::new(ask.topic.clone()).map_err(bad_topic(&ask.topic))?;
    let message = ask.message.ok_or_else(|| failed(Kind::BadRequest, "Missing message"))?;
    let pairs = message.header.iter().map(|(name, value)| (&**name, value.as_bytes()));
    let headers = Headers::of(pairs).map_err(|why| failed(Kind::BadRequest, why))?;
    // In memory of its own: the message it came in is larger.
    let payload = Bytes::copy_from_slice(&message.body);
    Ok(Message { namespace: "".into(), topic, reply: None, headers, payload })
}

/// An empty queue is none: every such subscriber gets every message.
fn subscribe(broker: &Broker, ask: pb::SubscribeRequest) -> Result<Reply, Failure> {
    let pattern = TopicPattern::new(ask.topic.clone()).map_err(bad_topic(&ask.topic))?;
    let group = match &*ask.queue {
        "" => None,
        queue => Some(QueueGroup::new(queue.to_owned()).map_err(bad_topic(queue))?),
    };
    // go-micro programs have no word for what is to give way; what is new is worth more to most.
    let mailbox = Mailbox::new(Overflow::DropOldest);
    let interest = crate::broker::interest(pattern, group);
    let held = broker.subscribe(&mailbox, 0, interest);
    let held = held.map_err(|why| failed(Kind::TooMany, why))?;
    Ok(Reply::Many(Box::pin(stream::unfold((mailbox, held), |(mailbox, held)| async move {
        let item = mailbox.take(1).await.ok()?.pop()?;
        Some((Ok(written(&item.message)), (mailbox, held)))
    }))))
}

fn written(message: &Message) -> Bytes {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let header = message.headers.iter().map(|(name, value)| (name.to_owned(), text(value)));
    let message = pb::Message { header: header.collect(), body: message.payload.clone() };
    Bytes::from(message.encode_to_vec())
}
