//! Calls to instances that speak MUCP: a gRPC exchange, as messages of theirs.
//!
//! ```text
//! one message each way    a connection of the pool, one request, one answer
//! many                    a connection of its own: messages as they come, until it is ended
//! ```

mod stream;

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use parking_lot::Mutex;
use proto::open::Messages;
use tokio::io::AsyncWriteExt as _;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::Instant;

use super::{Deliver, Host};
use crate::body::{Body, BoxError};
use crate::carry::leg::ended_early;
use crate::carry::{Failed, Held, Reply};
use crate::deadline::{Deadline, GRPC_TIMEOUT, TIMEOUT};
use crate::error::Error;
use crate::heads::RequestHead;
use crate::mucp::answers::no_room;
use crate::mucp::content::Content;
use crate::mucp::frames::{Frames, Gathered, Stopped, frame};
use crate::mucp::request::{self, Echo};
use crate::mucp::socket::{Broken, Place, Reader, Received};
use crate::mucp::{Line, Message, Side, encode, failure};
use crate::source::Source;

/// How long after its first message a request may end and still count as one that has no other:
/// gRPC does not say how many there are. Callers of unary methods end with the message itself.
const GRACE: Duration = Duration::from_millis(100);
/// The number of the first request on a connection. go-micro v4 and v5 answer every later one with it
/// too, for they repeat the headers of the first.
const FIRST: &str = "0";

/// The idle connections to one instance, the one used last at the back.
#[derive(Default)]
pub(crate) struct Pool {
    idle: Mutex<VecDeque<Connection>>,
}

/// A connection to an instance.
struct Connection {
    reader: Reader,
    write: OwnedWriteHalf,
    /// The number of the next request: no two on one connection are the same, for instances take
    /// what has the number of one that they still work on as a part of that.
    next: u64,
    since: Instant,
}

/// A call, in the words of MUCP.
pub(super) struct Outgoing {
    echo: Echo,
    content: Content,
    headers: HeaderMap,
}

impl Pool {
    pub(crate) fn is_empty(&self) -> bool {
        self.idle.lock().is_empty()
    }

    /// A connection that is certainly idle, as far as can be known.
    fn take(&self, host: &Host) -> Option<Connection> {
        let mut idle = self.idle.lock();
        let now = Instant::now();
        while idle.front().is_some_and(|one| now - one.since > host.limits.idle) {
            idle.pop_front();
        }
        while let Some(connection) = idle.pop_back() {
            if connection.reader.is_idle() {
                return Some(connection);
            }
        }
        None
    }

    fn put(&self, mut connection: Connection, most: usize) {
        connection.since = Instant::now();
        let mut idle = self.idle.lock();
        if idle.len() >= most {
            idle.pop_front();
        }
        idle.push_back(connection);
    }
}

impl Deliver {
    /// Carries a gRPC exchange to an instance that speaks MUCP, and gives its response as gRPC.
    ///
    /// # Errors
    /// [`Failed`], with the request when the instance has certainly not seen it.
    pub(crate) async fn mucp(
        &self,
        host: &Arc<Host>,
        head: Box<RequestHead>,
        source: Box<Source>,
        messages: Messages,
        deadline: &mut Deadline,
    ) -> Result<Reply, Failed> {
        let outgoing = match Outgoing::of(*head, deadline) {
            Ok(outgoing) => outgoing,
            Err(error) => return Err(Failed { error, source: Some(source) }),
        };
        let mut frames = Frames::new(source, self.room.clone());
        let gathered = deadline.race(pin!(gather(&mut frames, messages))).await;
        match gathered {
            Ok(Request::One(message)) => {
                let called = self.unary(host, &outgoing, message);
                match deadline.race(pin!(called)).await {
                    Ok(reply) => Ok(reply),
                    Err(error) => Err(Failed { error, source: Some(frames.into_source()) }),
                }
            }
            Ok(Request::Many(first)) => {
                let connected = self.connect_mucp(host);
                match deadline.race(pin!(connected)).await {
                    Ok(connection) => {
                        frames.source().commit();
                        Ok(stream::begin(connection, host, outgoing, first, frames))
                    }
                    Err(error) => Err(Failed { error, source: Some(frames.into_source()) }),
                }
            }
            Err(error) => Err(Failed { error, source: Some(frames.into_source()) }),
        }
    }

    async fn unary(
        &self,
        host: &Arc<Host>,
        outgoing: &Outgoing,
        message: Gathered,
    ) -> Result<Reply, Error> {
        loop {
            let idle = host.mucp.take(host);
            let fresh = idle.is_none();
            let mut connection = match idle {
                Some(connection) => connection,
                None => self.connect_mucp(host).await?,
            };
            let id = HeaderValue::from(connection.next);
            connection.next += 1;
            let out = outgoing.message(host, Some(&id), None, None, &message.message);
            if let Err(error) = connection.write.write_all(&out).await {
                // Not all of it left: who reads messages whole has read none.
                if fresh {
                    return Err(lost(host, &error.to_string()));
                }
                continue;
            }
            let Received { message: answer, room: _room } = connection.answer(host).await?;
            if request::id_of(&answer).is_some_and(|of| *of != id && *of != FIRST) {
                return Err(protocol(host, "it answered another request"));
            }
            let reply = outgoing.reply(host, answer)?;
            if connection.reader.at() == Place::Between {
                host.mucp.put(connection, host.limits.idle_per_instance);
            }
            return Ok(reply);
        }
    }

    async fn connect_mucp(&self, host: &Host) -> Result<Connection, Error> {
        let (read, write) = self.dial(host).await?.into_split();
        let (limits, room) = (&host.limits, self.room.clone());
        let reader = Reader::new(read, BytesMut::new(), Side::Responses, limits, room);
        Ok(Connection { reader, write, next: 0, since: Instant::now() })
    }
}

/// What there is of a request when it is known what it is.
enum Request {
    One(Gathered),
    Many(Vec<Gathered>),
}

/// Reads a request as far as needed to know whether it has one message or many.
async fn gather(frames: &mut Frames, messages: Messages) -> Result<Request, Error> {
    if messages == Messages::Many {
        return Ok(Request::Many(Vec::new()));
    }
    let none = || Error::Malformed("a call without a message");
    let first = frames.next().await.map_err(stopped)?.ok_or_else(none)?;
    if messages == Messages::One {
        return Ok(Request::One(first));
    }
    match tokio::time::timeout(GRACE, frames.next()).await {
        Ok(Ok(None)) => Ok(Request::One(first)),
        Ok(Ok(Some(second))) => Ok(Request::Many(vec![first, second])),
        Ok(Err(error)) => Err(stopped(error)),
        Err(_) => Ok(Request::Many(vec![first])),
    }
}

fn stopped(stopped: Stopped) -> Error {
    match stopped {
        Stopped::Ended(ended) => ended_early(ended).0,
        Stopped::NoRoom => no_room(),
    }
}

impl Connection {
    /// The next message of the instance.
    async fn answer(&mut self, host: &Host) -> Result<Received, Error> {
        match self.reader.next().await {
            Ok(Some(received)) => Ok(received),
            Ok(None) => Err(lost(host, "it closed the connection")),
            Err(broken) => Err(unreadable(host, &broken)),
        }
    }
}

impl Outgoing {
    /// The call that a gRPC request is. Its path alone says what is called, whatever else its headers
    /// hold.
    fn of(head: RequestHead, deadline: &Deadline) -> Result<Self, Error> {
        let RequestHead { path, mut headers, .. } = head;
        let malformed = || Error::Malformed("the path is not /service.Struct/Method");
        let (segment, method) =
            path.path().trim_start_matches('/').split_once('/').ok_or_else(malformed)?;
        let (service, structure) = segment.rsplit_once('.').unwrap_or(("", segment));
        if structure.is_empty() || method.is_empty() || method.contains('/') {
            return Err(malformed());
        }
        let value = |text: &str| HeaderValue::try_from(text).map_err(|_| malformed());
        let endpoint = value(&format!("{structure}.{method}"))?;
        let echo = Echo { service: value(service)?, endpoint, id: None, stream: None };
        let content = Content::of_grpc(&headers);
        headers.remove(GRPC_TIMEOUT);
        headers.remove(TIMEOUT);
        if let Some(left) = deadline.left() {
            let nanos = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
            headers.insert(TIMEOUT, HeaderValue::from(nanos));
        }
        Ok(Self { echo, content, headers })
    }

    fn message(
        &self,
        host: &Host,
        id: Option<&HeaderValue>,
        stream: Option<&HeaderValue>,
        error: Option<&HeaderValue>,
        body: &[u8],
    ) -> BytesMut {
        let echo = Echo { id: id.cloned(), stream: stream.cloned(), ..self.echo.clone() };
        encode::request(&host.address, &echo, &self.content.mucp, &self.headers, error, body)
    }

    /// The response of gRPC that the answer of an instance is.
    ///
    /// Of its headers nothing is handed on: they repeat those of a request, and with go-micro that is
    /// the first on the connection, perhaps of another caller.
    fn reply(&self, host: &Host, answer: Message) -> Result<Reply, Error> {
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(http::header::CONTENT_TYPE, self.content.grpc.clone());
        let body = match self.meaning(host, answer)? {
            Meaning::Message(message) => {
                let parts = [Frame::data(frame(&message)), Frame::trailers(well())];
                let parts = parts.map(Ok::<_, BoxError>);
                Body::new(StreamBody::new(tokio_stream::iter(parts)))
            }
            Meaning::Failed(trailers) => {
                headers.extend(trailers);
                Body::empty()
            }
            Meaning::End => return Err(protocol(host, "it ended a stream that there is not")),
        };
        Ok(Reply {
            status: StatusCode::OK,
            headers,
            body,
            upload: None,
            held: Held::default(),
            upgraded: None,
        })
    }

    /// What a message of the instance means.
    fn meaning(&self, host: &Host, answer: Message) -> Result<Meaning, Error> {
        if answer.line != Line::Response(200) {
            let status = match answer.line {
                Line::Response(status) => status,
                Line::Request { .. } => 0,
            };
            let said = String::from_utf8_lossy(&answer.body[..answer.body.len().min(200)]);
            return Err(protocol(host, &format!("status {status}: {}", said.trim())));
        }
        if let Some(error) = request::error_of(&answer) {
            return Ok(match error.as_bytes() == failure::END_OF_STREAM.as_bytes() {
                true => Meaning::End,
                false => Meaning::Failed(failure::to_grpc(error.as_bytes())),
            });
        }
        // How go-micro says that it cannot read a content type: without any mark of an error.
        let kind = answer.headers.get(http::header::CONTENT_TYPE);
        if kind.is_some_and(|kind| kind == "text/plain") && self.content.mucp != "text/plain" {
            return Ok(Meaning::Failed(failure::to_grpc(&answer.body)));
        }
        Ok(Meaning::Message(answer.body))
    }
}

enum Meaning {
    Message(Bytes),
    Failed(HeaderMap),
    End,
}

/// The trailers of a call that did not fail.
fn well() -> HeaderMap {
    let name = http::HeaderName::from_static("grpc-status");
    HeaderMap::from_iter([(name, HeaderValue::from_static("0"))])
}

fn lost(host: &Host, why: &str) -> Error {
    Error::InstanceLost { instance: host.address.to_string(), why: why.to_owned() }
}

fn protocol(host: &Host, why: &str) -> Error {
    Error::InstanceProtocol { instance: host.address.to_string(), why: why.to_owned() }
}

fn unreadable(host: &Host, broken: &Broken) -> Error {
    match broken {
        Broken::Gone(None) => lost(host, "it closed the connection within a message"),
        Broken::Gone(Some(error)) => lost(host, &error.to_string()),
        Broken::Malformed(why) => protocol(host, &why.to_string()),
        Broken::NoRoom => no_room(),
    }
}
