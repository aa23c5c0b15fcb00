//! Topics over plain HTTP: server-sent events, for browsers, scripts and `curl`.
//!
//! ```text
//! GET /orders.%3E?group=audit          Host: go.micro.broker.localhost    Accept: text/event-stream
//! 200   : subscribed                   from here on nothing is missed
//!       data: {"topic":"orders.created","headers":[["X-Case","Kept"]],"bytes":2,"body":"hi","dropped":0}
//!       :                              now and then, where nothing is said
//! ```
//!
//! An event is one line of JSON, for it has to hold headers in their order, and payloads that are no
//! text. Messages wait in a mailbox that forgets the oldest when it is full, and are made into text only
//! as the client takes them: one that does not read costs its mailbox, and nobody else anything.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use data_encoding::BASE64;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body::Frame;
use http_body_util::StreamBody;
use proto::publish::Message;
use proto::topic::{QueueGroup, TopicPattern};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::body::Body;
use crate::broker::{Broker, MAX_INTERESTS, Mailbox, Overflow, Subscription};
use crate::carry::{Held, Reply};
use crate::error::Error;
use crate::heads::RequestHead;
use crate::proxy::drained;
use crate::target;

/// The service whose topics these are, as the host names it.
const NAME: &str = "go.micro.broker";
/// What is asked for, and what is answered.
const KIND: &str = "text/event-stream";
/// Feeds of one node: a quarter of the calls it has room for, which they take from.
const MAX_FEEDS: u32 = 256;
/// Messages made into text at a time.
const BATCH: usize = 32;
/// How long nothing is said at most: what stands between would take a longer silence for an end, and a
/// client that is gone is noticed when it is written to.
const QUIET: Duration = Duration::from_secs(15);

/// How many feeds there may still be.
pub(crate) struct Feeds(Arc<Semaphore>);

impl Feeds {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_FEEDS as usize)))
    }

    /// Answers a request that [`is_asked`] for one.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a path that is no topic, [`Error::Overloaded`] at a bound.
    pub(crate) fn answer(
        &self,
        broker: &Broker,
        draining: watch::Receiver<bool>,
        head: &RequestHead,
    ) -> Result<Reply, Error> {
        let full = |what, limit| Error::Overloaded { what, limit };
        let (pattern, group) = wanted(&head.path)?;
        let room = Arc::clone(&self.0).try_acquire_owned();
        let room = room.map_err(|_| full("feeds of topics are", MAX_FEEDS))?;
        let mailbox = Mailbox::new(Overflow::DropOldest);
        let held = broker.subscribe(&mailbox, 0, crate::broker::interest(pattern, group));
        let held = held.map_err(|_| full("the table of topics is", MAX_INTERESTS))?;
        let feed = Feed { mailbox, draining, begun: false, _held: held, _room: room };
        let frames = stream::unfold(feed, |mut feed| async move {
            let said = feed.next().await?;
            Some((Ok::<_, Infallible>(Frame::data(said)), feed))
        });
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(KIND));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let body = Body::new(StreamBody::new(frames));
        let (status, held) = (StatusCode::OK, Held::default());
        Ok(Reply { status, headers, body, upload: None, held, upgraded: None })
    }
}

/// Whether a request that is not gRPC asks for a feed.
pub(crate) fn is_asked(head: &RequestHead) -> bool {
    let accepts = |value: &HeaderValue| {
        let kinds = value.to_str().unwrap_or_default().split(',');
        kinds.map(|kind| kind.split(';').next().unwrap_or_default().trim()).any(|kind| kind == KIND)
    };
    head.method == Method::GET
        && head.headers.get_all(header::ACCEPT).iter().any(accepts)
        && target::names(head, false).next().is_some_and(|name| name.eq_ignore_ascii_case(NAME))
}

/// The topics of a path, and the queue group of its query.
fn wanted(path: &http::uri::PathAndQuery) -> Result<(TopicPattern, Option<QueueGroup>), Error> {
    const NO_TOPIC: Error =
        Error::Malformed("the path is not a topic: /orders.created, /orders.%3E");
    const NO_GROUP: Error = Error::Malformed("the query is not a queue group: ?group=audit");
    let topic = decoded(path.path().strip_prefix('/').unwrap_or_default()).ok_or(NO_TOPIC)?;
    let pattern = TopicPattern::new(topic).map_err(|_| NO_TOPIC)?;
    let group = match path.query() {
        None | Some("") => None,
        Some(query) => {
            let group = query.strip_prefix("group=").and_then(decoded).ok_or(NO_GROUP)?;
            Some(QueueGroup::new(group).map_err(|_| NO_GROUP)?)
        }
    };
    Ok((pattern, group))
}

/// Text without its percent-encoding (RFC 3986 §2.1); `None` where it is none.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        out.push(match byte {
            b'%' => u8::try_from(digit()? << 4 | digit()?).ok()?,
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

/// One client's.
struct Feed {
    mailbox: Mailbox,
    draining: watch::Receiver<bool>,
    begun: bool,
    _held: Subscription,
    _room: OwnedSemaphorePermit,
}

impl Feed {
    /// What is said next; `None` when the node leaves, and the client may ask another.
    async fn next(&mut self) -> Option<Bytes> {
        if !std::mem::replace(&mut self.begun, true) {
            return Some(Bytes::from_static(b": subscribed\n\n"));
        }
        tokio::select! {
            () = drained(&mut self.draining) => None,
            items = self.mailbox.take(BATCH) => {
                let (items, dropped) = (items.ok()?, self.mailbox.dropped());
                let mut out = BytesMut::new();
                for item in items {
                    put(&mut out, &item.message, dropped);
                }
                Some(out.freeze())
            }
            () = tokio::time::sleep(QUIET) => Some(Bytes::from_static(b":\n\n")),
        }
    }
}

/// A message of a topic as JSON, for who reads text.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Event<'a> {
    /// What it was published to.
    pub topic: Cow<'a, str>,
    /// Where an answer is waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<Cow<'a, str>>,
    /// Its headers, in order: names may come twice.
    pub headers: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Bytes of its payload.
    pub bytes: usize,
    /// Its payload, where that is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Cow<'a, str>>,
    /// Its payload otherwise (RFC 4648 §4).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
    /// Messages that this subscriber has missed so far, for it was slower than they came.
    pub dropped: u64,
}

impl<'a> Event<'a> {
    /// `message`, for a subscriber that has missed so many.
    #[must_use]
    pub fn of(message: &'a Message, dropped: u64) -> Self {
        let body = std::str::from_utf8(&message.payload).ok();
        let header = |(name, value): (&'a str, &'a [u8])| {
            (Cow::Borrowed(name), String::from_utf8_lossy(value))
        };
        Self {
            topic: message.topic.as_str().into(),
            reply: message.reply.as_ref().map(|reply| reply.as_str().into()),
            headers: message.headers.iter().map(header).collect(),
            bytes: message.payload.len(),
            body: body.map(Cow::Borrowed),
            body_base64: body.is_none().then(|| BASE64.encode(&message.payload)),
            dropped,
        }
    }
}

fn put(out: &mut BytesMut, message: &Message, dropped: u64) {
    let event = Event::of(message, dropped);
    out.extend_from_slice(b"data: ");
    // JSON has no line ends but as escapes, so an event is one line whatever is in it.
    serde_json::to_writer(out.writer(), &event).expect("text goes into memory");
    out.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use proto::publish::Headers;
    use proto::topic::Topic;

    use super::*;

    fn read(path: &str) -> Option<(String, Option<String>)> {
        let (pattern, group) = wanted(&path.parse().unwrap()).ok()?;
        Some((pattern.as_str().to_owned(), group.map(|group| group.as_str().to_owned())))
    }

    #[test]
    fn a_path_is_a_topic_and_its_query_a_group() {
        let some =
            |topic: &str, group: Option<&str>| Some((topic.to_owned(), group.map(str::to_owned)));
        assert_eq!(read("/orders.created"), some("orders.created", None));
        assert_eq!(read("/orders.*?"), some("orders.*", None));
        assert_eq!(read("/orders.%3e?group=a%2Fb"), some("orders.>", Some("a/b")));
        for wrong in ["/", "/a..b", "/a/b%20c", "/a%", "/a%3", "/a%zz", "/%ff", "/a?b", "/a?group="]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_event_is_one_line_that_keeps_headers_and_bytes() {
        let mut message = Message {
            namespace: "".into(),
            topic: Topic::new("a.b").unwrap(),
            reply: None,
            headers: Headers::of([("X-A", &b"1"[..]), ("x-a", b"2")]).unwrap(),
            payload: Bytes::from_static(b"two\nlines"),
        };
        let written = |message: &Message| {
            let mut out = BytesMut::new();
            put(&mut out, message, 3);
            String::from_utf8(out.to_vec()).unwrap()
        };
        assert_eq!(
            written(&message),
            "data: {\"topic\":\"a.b\",\"headers\":[[\"X-A\",\"1\"],[\"x-a\",\"2\"]],\"bytes\":9,\
             \"body\":\"two\\nlines\",\"dropped\":3}\n\n"
        );
        message.payload = Bytes::from_static(&[0xff]);
        message.reply = Some(Topic::new("r").unwrap());
        let text = written(&message);
        assert!(
            text.contains("\"reply\":\"r\"") && text.contains("\"body_base64\":\"/w==\""),
            "{text}"
        );
    }
}
