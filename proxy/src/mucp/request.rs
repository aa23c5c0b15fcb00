//! What a message of a MUCP caller asks for, in the one form that everything behind it knows: a
//! gRPC request. It is made before anything is decided, and what is decided about is what is sent.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use std::time::Duration;

use super::content::{Content, X_CONTENT_TYPE};
use super::failure::END_OF_STREAM;
use super::message::{Line, Message};
use crate::deadline::{self, GRPC_TIMEOUT, TIMEOUT};
use crate::error::Error;
use crate::headers::MICRO_FROM_SERVICE;

const SERVICE: HeaderName = HeaderName::from_static("micro-service");
const ENDPOINT: HeaderName = HeaderName::from_static("micro-endpoint");
const METHOD: HeaderName = HeaderName::from_static("micro-method");
const ID: HeaderName = HeaderName::from_static("micro-id");
const STREAM: HeaderName = HeaderName::from_static("micro-stream");
const ERROR: HeaderName = HeaderName::from_static("micro-error");
pub(super) const TOPIC: HeaderName = HeaderName::from_static("micro-topic");

/// What tells a MUCP message from any other `POST /` (contract, headers 4.4).
pub(crate) const MARKS: [HeaderName; 3] = [SERVICE, TOPIC, STREAM];

/// Fields that say what a message is: there twice, two readers could take two (go-micro takes the
/// first).
const ONCE: [HeaderName; 12] = [
    SERVICE,
    ENDPOINT,
    METHOD,
    ID,
    STREAM,
    ERROR,
    TOPIC,
    MICRO_FROM_SERVICE,
    TIMEOUT,
    header::CONTENT_TYPE,
    header::HOST,
    header::AUTHORIZATION,
];

/// Fields that are used up here: they say of a message what gRPC says in its own way, and a program
/// that hands on what it was sent would say it of another call.
const USED_UP: [HeaderName; 15] = [
    SERVICE,
    ENDPOINT,
    METHOD,
    ID,
    STREAM,
    ERROR,
    TOPIC,
    HeaderName::from_static("micro-protocol"),
    HeaderName::from_static("micro-target"),
    TIMEOUT,
    X_CONTENT_TYPE,
    header::ACCEPT,
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
];

/// A message of a caller.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is called, as gRPC names it: `/greeter.Say/Hello`.
    pub(crate) path: PathAndQuery,
    pub(crate) content: Content,
    /// What travels with the call, deadline included.
    pub(crate) headers: HeaderMap,
    pub(crate) echo: Echo,
}

/// What an answer repeats of its request, so that its caller knows it again.
#[derive(Clone, Debug)]
pub(crate) struct Echo {
    pub(crate) service: HeaderValue,
    pub(crate) endpoint: HeaderValue,
    pub(crate) id: Option<HeaderValue>,
    pub(crate) stream: Option<HeaderValue>,
}

/// What one message is on a stream that has begun.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OnStream {
    Data,
    End,
    /// The caller says that it failed.
    Failed,
}

/// Whether a message is one of MUCP.
#[must_use]
pub fn is_mucp(message: &Message) -> bool {
    let Line::Request { method, target } = &message.line else { return false };
    method == "POST" && target == "/" && MARKS.iter().any(|name| message.headers.contains_key(name))
}

impl Request {
    /// Reads a message that begins a call.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it names nothing that can be called, or could be read in two ways.
    pub fn read(message: &Message) -> Result<Self, Error> {
        let headers = &message.headers;
        once(headers)?;
        let service = name(headers, &SERVICE)?;
        let endpoint = match (name(headers, &ENDPOINT)?, name(headers, &METHOD)?) {
            (Some((_, endpoint)), Some((_, method))) if endpoint != method => {
                return Err(Error::Malformed("Micro-Endpoint and Micro-Method differ"));
            }
            (endpoint, method) => endpoint.or(method),
        };
        let (Some((service, named)), Some((endpoint, called))) = (service, endpoint) else {
            return Err(Error::Malformed("a MUCP request names Micro-Service and Micro-Endpoint"));
        };
        let Some((structure, method)) = called.rsplit_once('.') else {
            return Err(Error::Malformed("Micro-Endpoint is not Struct.Method"));
        };
        let path = PathAndQuery::try_from(format!("/{named}.{structure}/{method}"));
        let path = path.map_err(|_| Error::Malformed("Micro-Service is not a name"))?;
        let content = Content::of_mucp(headers)?;
        let echo = Echo {
            service: service.clone(),
            endpoint: endpoint.clone(),
            id: headers.get(ID).cloned(),
            stream: headers.get(STREAM).cloned(),
        };
        let headers = metadata(headers, &content);
        Ok(Self { path, content, headers, echo })
    }

    /// What is called: `/greeter.Say/Hello`.
    #[must_use]
    pub fn path(&self) -> &str {
        self.path.as_str()
    }

    /// What travels with the call.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }
}

/// What a further message of the stream named `stream` is.
///
/// # Errors
/// [`Error::Malformed`] when it is none of that stream.
pub(crate) fn on_stream(message: &Message, stream: &HeaderValue) -> Result<OnStream, Error> {
    once(&message.headers)?;
    if !is_mucp(message) || message.headers.get(STREAM) != Some(stream) {
        return Err(Error::Malformed("one stream at a time, and nothing beside it"));
    }
    Ok(match message.headers.get(ERROR) {
        None => OnStream::Data,
        Some(error) if error.is_empty() => OnStream::Data,
        Some(error) if error == END_OF_STREAM => OnStream::End,
        Some(_) => OnStream::Failed,
    })
}

/// Whether a message publishes an event instead of calling (contract, headers 4.3).
pub(crate) fn is_event(message: &Message) -> bool {
    message.headers.contains_key(TOPIC) && !message.headers.contains_key(SERVICE)
}

/// Whether it ends a stream, whichever.
pub(crate) fn ends_stream(message: &Message) -> bool {
    message.headers.get(ERROR).is_some_and(|error| error == END_OF_STREAM)
}

/// The stream that a message is of.
pub(crate) fn stream_of(message: &Message) -> Option<&HeaderValue> {
    message.headers.get(STREAM)
}

/// The error that an answer says; an empty one is none.
pub(crate) fn error_of(message: &Message) -> Option<&HeaderValue> {
    message.headers.get(ERROR).filter(|error| !error.is_empty())
}

/// The number of the request that an answer is for.
pub(crate) fn id_of(message: &Message) -> Option<&HeaderValue> {
    message.headers.get(ID)
}

/// Refuses what could be read in two ways.
///
/// # Errors
/// [`Error::Malformed`] when a header that decides is there twice.
pub(super) fn once(headers: &HeaderMap) -> Result<(), Error> {
    // As many names as values: none is there twice.
    if headers.len() == headers.keys_len() {
        return Ok(());
    }
    match ONCE.iter().find(|name| headers.get_all(*name).iter().nth(1).is_some()) {
        Some(_) => Err(Error::Malformed("a header that decides is there twice")),
        None => Ok(()),
    }
}

/// The value of a header that names something, and its text; `None` where it is not there or empty.
fn name<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<(&'a HeaderValue, &'a str)>, Error> {
    let Some(value) = headers.get(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:@+$".contains(byte);
    let text = value.to_str().ok().filter(|text| text.as_bytes().iter().all(is_part));
    let text = text.filter(|text| !text.split('.').any(str::is_empty));
    let text = text.ok_or(Error::Malformed("the service or endpoint is not a name"))?;
    Ok(Some((value, text)))
}

/// What of the headers travels with the call, in gRPC's words.
fn metadata(headers: &HeaderMap, content: &Content) -> HeaderMap {
    let mut out = HeaderMap::with_capacity(headers.len() + 4);
    for (name, value) in headers {
        // What gRPC says of a call, nobody else may.
        if !USED_UP.contains(name) && !name.as_str().starts_with("grpc-") {
            out.append(name, value.clone());
        }
    }
    out.insert(header::CONTENT_TYPE, content.grpc.clone());
    out.insert(header::TE, HeaderValue::from_static("trailers"));
    if !content.is_framed {
        out.insert(X_CONTENT_TYPE, content.mucp.clone());
    }
    let timeout = headers.get(TIMEOUT).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if let Some(timeout) = timeout.filter(|nanos| *nanos > 0) {
        // Both words for it, as go-micro's own gRPC client says them.
        out.insert(GRPC_TIMEOUT, deadline::grpc_value(Duration::from_nanos(timeout)));
        out.insert(TIMEOUT, HeaderValue::from(timeout));
    }
    out
}
