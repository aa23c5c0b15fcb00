//! Events: messages that name a topic in place of a service are published (contract, headers 4.3).

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use proto::Topic;
use proto::publish::{self, Headers};

use super::message::Message;
use super::request::{self, Echo, TOPIC};
use crate::error::Error;
use crate::heads::RequestHead;
use crate::{headers, target};

/// Fields that say how the message came and what its sender may, and nothing of the event: subscribers are others.
const OF_THE_WAY: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::HOST,
    header::CONTENT_LENGTH,
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::EXPECT,
    header::USER_AGENT,
];

/// An event, and what its answer repeats.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) echo: Echo,
    pub(super) content: HeaderValue,
    /// What is published, or why it cannot be: that is told, and the connection goes on.
    pub(super) message: Result<publish::Message, String>,
}

impl Event {
    /// Reads a message that [is one](request::is_event).
    ///
    /// # Errors
    /// [`Error`] when it could be read in two ways.
    pub(super) fn read(message: &Message) -> Result<Self, Error> {
        request::once(&message.headers)?;
        let nobody = HeaderValue::from_static("");
        let id = request::id_of(message).cloned();
        let echo = Echo { service: nobody.clone(), endpoint: nobody, id, stream: None };
        let content = message.headers.get(header::CONTENT_TYPE).cloned();
        let content = content.unwrap_or_else(|| HeaderValue::from_static("application/json"));
        let mut headers = message.headers.clone();
        headers::clean_request(&mut headers)?;
        Ok(Self { echo, content, message: published(message, &headers) })
    }
}

/// Whether a web page of another site sent it. A name that leads here on its second look-up makes
/// a page's requests its own to a browser, custom headers and all: its `Origin` remains.
pub(super) fn is_of_a_page(message: &Message) -> bool {
    target::is_cross_site(&RequestHead {
        method: http::Method::POST,
        path: http::uri::PathAndQuery::from_static("/"),
        // Host names this node, whatever a page calls it.
        authority: None,
        headers: message.headers.clone(),
    })
}

fn published(message: &Message, headers: &HeaderMap) -> Result<publish::Message, String> {
    let topic = message.headers.get(TOPIC).and_then(|topic| topic.to_str().ok());
    let topic = topic.ok_or("Micro-Topic is not a topic")?;
    let topic = Topic::new(topic.to_owned()).map_err(|why| format!("topic {topic:?}: {why}"))?;
    let kept = headers.iter().filter(|(name, _)| !OF_THE_WAY.contains(name));
    let named: Vec<_> = kept.map(|(name, value)| (titled(name), value)).collect();
    let pairs = named.iter().map(|(name, value)| (&**name, value.as_bytes()));
    let headers = Headers::of(pairs).map_err(|why| why.to_string())?;
    // In memory of its own: what it came in may be larger.
    let payload = Bytes::copy_from_slice(&message.body);
    Ok(publish::Message { namespace: "".into(), topic, reply: None, headers, payload })
}

/// A name in Title-Case: subscribers look for it as HTTP in Go would show it, and names have no case
/// of their own on this road.
fn titled(name: &HeaderName) -> String {
    let mut upper = true;
    let letters = name.as_str().chars().map(|letter| {
        let shown = if upper { letter.to_ascii_uppercase() } else { letter };
        upper = letter == '-';
        shown
    });
    letters.collect()
}
