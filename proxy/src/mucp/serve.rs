//! The MUCP face: connections of callers, one message after another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use proto::open::Messages;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

use super::answers::{Answers, End, no_room, told};
use super::event::{self, Event};
use super::failure;
use super::frames::{frame, is_one};
use super::message::{Malformed, Side};
use super::request::{self, MARKS, Request};
use super::socket::{Broken, Place, Reader, Received};
use super::{encode, stream};
use crate::answer::Form;
use crate::begin::Beside;
use crate::body::Body;
use crate::detect::From;
use crate::error::Error;
use crate::headers::has_token;
use crate::heads::RequestHead;
use crate::metrics::{Face, Outcome};
use crate::proxy::{Shared, drained};
use crate::turn_away;

/// The only first line of a MUCP message (contract, headers 4.1).
const LINE: &[u8] = b"POST / HTTP/1.1\r\n";
/// How long a connection may be silent between two calls: twice what go-micro keeps one in its pool,
/// so that it is never we who close one that is about to be used.
const IDLE: Duration = Duration::from_secs(120);
/// How long an answer may take to be written.
const SLOW: Duration = Duration::from_secs(60);
/// What is said to a message of MUCP on a connection that began as ordinary HTTP, and the other way
/// round: the two are framed differently.
pub(crate) const MISPLACED: &str = "MUCP and other HTTP do not mix on one connection: open another";
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Whether a connection that begins with `seen` speaks MUCP; reads on until that is known, as far as
/// the first head. What was read is given back.
pub(crate) async fn recognise(
    stream: &mut TcpStream,
    seen: Bytes,
    most: usize,
) -> std::io::Result<(bool, Bytes)> {
    let common = seen.len().min(LINE.len());
    if seen[..common] != LINE[..common] {
        return Ok((false, seen));
    }
    let mut read = BytesMut::from(seen);
    loop {
        let end = read.windows(4).position(|four| four == b"\r\n\r\n");
        let common = read.len().min(LINE.len());
        // What this cannot read, the other face refuses.
        if let Some(end) = end {
            return Ok((has_marks_in(&read[..end + 4]), read.freeze()));
        }
        let lone = read.windows(2).any(|two| two[1] == b'\n' && two[0] != b'\r');
        if lone || read.len() >= most || read[..common] != LINE[..common] {
            return Ok((false, read.freeze()));
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Ok((false, read.freeze()));
        }
    }
}

/// Whether a head has a header that only MUCP has, by its lines: what makes it no head is found out
/// by whoever reads it whole.
fn has_marks_in(head: &[u8]) -> bool {
    head.split(|byte| *byte == b'\n').skip(1).any(|line| {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        line.len() > name.len()
            && MARKS.iter().any(|mark| mark.as_str().as_bytes().eq_ignore_ascii_case(name))
    })
}

/// Whether a request that arrived as ordinary HTTP is one of MUCP.
pub(crate) fn has_marks(path: &str, headers: &HeaderMap) -> bool {
    path == "/" && MARKS.iter().any(|name| headers.contains_key(name))
}

/// Serves one connection, of which `seen` was read already, until it ends.
pub(crate) async fn serve(shared: &Arc<Shared>, socket: TcpStream, seen: Bytes, from: From) {
    let (read, write) = socket.into_split();
    let room = shared.room.clone();
    let reader = Reader::new(read, BytesMut::from(seen), Side::Requests, &shared.limits, room);
    let mut caller = Caller { shared: Arc::clone(shared), reader, write, from, ended: None };
    let ended = caller.serve().await;
    if let Err(error) = ended {
        caller.refuse(&error).await;
    }
}

/// One connection of a caller.
pub(super) struct Caller {
    pub(super) shared: Arc<Shared>,
    pub(super) reader: Reader,
    pub(super) write: OwnedWriteHalf,
    pub(super) from: From,
    /// The stream that ended last: its caller may not know yet, and sends on.
    pub(super) ended: Option<HeaderValue>,
}

impl Caller {
    /// Serves call after call.
    ///
    /// # Errors
    /// [`Error`], to be told as the last thing on the connection: what follows cannot be trusted.
    async fn serve(&mut self) -> Result<(), Error> {
        let mut draining = self.shared.draining.subscribe();
        let mut drain = Box::pin(drained(&mut draining));
        loop {
            let next = tokio::select! {
                next = self.next() => next?,
                // A call that was sent already is refused as one, which its caller understands.
                () = &mut drain, if self.reader.at() == Place::Between => return Ok(()),
            };
            let Some(received) = next else { return Ok(()) };
            let message = &received.message;
            if !request::is_mucp(message) {
                return Err(Error::Malformed(MISPLACED));
            }
            if self.ended.is_some() && request::stream_of(message) == self.ended.as_ref() {
                continue;
            }
            // Who says so waits for the end of the connection (RFC 9112 §9.6).
            let connection = message.headers.get(http::header::CONNECTION);
            let last = connection.is_some_and(|value| has_token(value, "close"));
            let is_open = if request::is_event(message) {
                self.event(received).await?
            } else if request::stream_of(message).is_none() {
                self.unary(received).await?
            } else if request::ends_stream(message) {
                // Of a stream that never began here: it has ended, as it wishes.
                true
            } else {
                Box::pin(stream::serve(self, received)).await?
            };
            if !is_open || last {
                return Ok(());
            }
        }
    }

    /// The next message; `None` when the caller is gone, or silent for too long.
    async fn next(&mut self) -> Result<Option<Received>, Error> {
        let mut head_by = None;
        loop {
            if let Some(received) = self.reader.take().or_else(unreadable)? {
                return Ok(Some(received));
            }
            if self.reader.take_expectation() && self.write.write_all(CONTINUE).await.is_err() {
                return Ok(None);
            }
            let (now, wait) = (tokio::time::Instant::now(), self.shared.limits.head_wait);
            let until = match self.reader.at() {
                Place::Between => now + IDLE,
                // All of it, or a byte now and then would hold the connection for ever.
                Place::Head => *head_by.get_or_insert(now + wait),
                Place::Body => now + wait,
            };
            match tokio::time::timeout_at(until, self.reader.more()).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(_) | Err(_)) | Err(_) => return Ok(None),
            }
        }
    }

    /// One call with one message each way. `false`: the caller is gone.
    async fn unary(&mut self, received: Received) -> Result<bool, Error> {
        let began = Instant::now();
        let request = Request::read(&received.message)?;
        let shared = Arc::clone(&self.shared);
        let mut beside = Beside { from: self.from, messages: Messages::One, ..Beside::default() };
        let answered = tokio::select! {
            biased;
            answered = answer(&shared, &request, received.message.body, &mut beside) => answered,
            // Who closes does not wait any more: go-micro does so when its deadline passes.
            () = self.reader.gone() => Err(Error::Cancelled),
        };
        let outcome = answered.as_ref().map_or_else(Outcome::from, |_| Outcome::Answered);
        shared.metrics.call(Face::Mucp, outcome, began.elapsed());
        let (end, mut metadata, body) = match answered {
            Ok(answered) => answered,
            Err(Error::Cancelled) => return Ok(false),
            Err(error @ Error::Malformed(_)) => return Err(error),
            Err(error) => {
                let (said, mark) = told(&shared, &error);
                (End::Failed(said), mark, Bytes::new())
            }
        };
        beside.tell(&mut metadata);
        let (error, body) = match &end {
            End::Well => (None, &body[..]),
            End::Failed(error) => (Some(error), &[][..]),
        };
        let content = &request.content.mucp;
        let out = encode::response(&request.echo, content, &metadata, error, body);
        drop(received.room);
        Ok(self.say(&out).await)
    }

    /// Publishes an event; its answer says that it was, not who got it. `false`: the caller is gone.
    async fn event(&mut self, received: Received) -> Result<bool, Error> {
        let began = Instant::now();
        let Event { echo, content, message } = Event::read(&received.message)?;
        let shared = Arc::clone(&self.shared);
        let published = match message {
            _ if event::is_of_a_page(&received.message) => {
                Err(Error::NotAllowed("a web page of another site made the request"))
            }
            Ok(message) => publish(&shared, message).await,
            Err(why) => {
                let id = format!("micro.{}", shared.node_name);
                Ok(Some(failure::new(&id, 400, &why)))
            }
        };
        let outcome = match &published {
            Ok(None) => Outcome::Answered,
            Ok(Some(_)) => Outcome::from(&Error::Malformed("the event cannot be published")),
            Err(error) => Outcome::from(error),
        };
        shared.metrics.call(Face::Mucp, outcome, began.elapsed());
        let (error, mark) = match published {
            Ok(error) => (error, HeaderMap::new()),
            Err(error) => {
                let (said, mark) = told(&shared, &error);
                (Some(said), mark)
            }
        };
        let out = encode::response(&echo, &content, &mark, error.as_ref(), &[]);
        drop(received.room);
        Ok(self.say(&out).await)
    }

    /// Writes a message. `false`: the caller is gone, or does not read.
    pub(super) async fn say(&mut self, out: &[u8]) -> bool {
        say(&mut self.write, out).await
    }

    /// Tells why the connection ends, as any HTTP client reads it: go-micro shows it whole.
    async fn refuse(self, error: &Error) {
        self.shared.metrics.call(Face::Mucp, Outcome::from(error), Duration::ZERO);
        let Ok(socket) = self.reader.reunite(self.write) else { return };
        let node = self.shared.node_of(error);
        let told = turn_away::http1(socket, error, &node, &Form::Text);
        let _ = tokio::time::timeout(turn_away::PATIENCE, told).await;
    }
}

pub(super) async fn say(write: &mut OwnedWriteHalf, out: &[u8]) -> bool {
    matches!(tokio::time::timeout(SLOW, write.write_all(out)).await, Ok(Ok(())))
}

/// What it means that no message can be read; nothing where the caller is gone.
pub(super) fn unreadable<T>(broken: Broken) -> Result<Option<T>, Error> {
    match broken {
        Broken::Gone(_) => Ok(None),
        Broken::Malformed(Malformed::Head(why)) => Err(Error::Malformed(why)),
        Broken::Malformed(Malformed::HeadTooLarge(most)) => Err(Error::HeadTooLarge(most)),
        Broken::Malformed(Malformed::BodyTooLarge(most)) => Err(too_long(most)),
        Broken::NoRoom => Err(no_room()),
    }
}

/// A body that was not read, for it is longer than is read.
pub(crate) fn too_long(most: usize) -> Error {
    let limit = u32::try_from(most - super::frames::PREFIX).unwrap_or(u32::MAX);
    Error::TooLong(crate::message::TooLong { length: limit.saturating_add(1), limit })
}

/// The head of a call, for everything behind this face.
pub(super) fn head(request: &Request) -> Box<RequestHead> {
    Box::new(RequestHead {
        method: http::Method::POST,
        path: request.path.clone(),
        // Host names this node, not what is called.
        authority: None,
        headers: request.headers.clone(),
    })
}

/// The body of a call as gRPC has it.
///
/// # Errors
/// [`Error::Malformed`] when it says that it is framed and is not.
pub(super) fn framed(request: &Request, body: Bytes) -> Result<Bytes, Error> {
    match request.content.is_framed {
        false => Ok(frame(&body)),
        true if is_one(&body) => Ok(body),
        true => Err(Error::Malformed("the body is not one message of gRPC")),
    }
}

/// The message of an answer as MUCP has it.
pub(super) fn unframed(request: &Request, message: Bytes) -> Bytes {
    if request.content.is_framed { frame(&message) } else { message }
}

/// Publishes a message of a program, if it may be; the error to tell where it is none to publish.
async fn publish(
    shared: &Shared,
    message: proto::publish::Message,
) -> Result<Option<HeaderValue>, Error> {
    if shared.is_draining() {
        return Err(Error::Draining);
    }
    let Some(_counted) = shared.calls.enter(shared.limits.calls) else {
        return Err(Error::Overloaded { what: "this node is", limit: shared.limits.calls });
    };
    let id = format!("micro.{}", shared.node_name);
    let published = shared.broker.publish(message, None).await;
    Ok(published.err().map(|why| failure::new(&id, 413, &why.to_string())))
}

type Answered = (End, HeaderMap, Bytes);

async fn answer(
    shared: &Arc<Shared>,
    request: &Request,
    body: Bytes,
    beside: &mut Beside,
) -> Result<Answered, Error> {
    let Some(_counted) = shared.calls.enter(shared.limits.calls) else {
        return Err(Error::Overloaded { what: "this node is", limit: shared.limits.calls });
    };
    let body = Body::full(framed(request, body)?);
    let reply = shared.begin(head(request), body, true, beside).await?;
    let mut answers = Answers::new(shared, reply);
    let first = answers.next(&mut beside.deadline).await?;
    if first.is_some() && answers.next(&mut beside.deadline).await?.is_some() {
        let what = "the endpoint answers with a stream, and was called without one";
        let error = failure::new(&format!("micro.{}", shared.node_name), 501, what);
        return Ok((End::Failed(error), HeaderMap::new(), Bytes::new()));
    }
    let end = answers.end();
    let body = first.map_or_else(Bytes::new, |gathered| unframed(request, gathered.message));
    Ok((end, std::mem::take(&mut answers.metadata), body))
}
