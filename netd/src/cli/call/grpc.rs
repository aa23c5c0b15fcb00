//! A small gRPC client over HTTP/2, for one call at a time through the local proxy
//! (gRPC over HTTP2, PROTOCOL-HTTP2.md).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE, USER_AGENT};
use http::{Method, StatusCode, Version};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::failure::{self, Failed};
use super::place::Place;
use crate::error::{Exit, Problem};

/// The largest message that is taken: the proxy passes at most 4 MiB.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;
/// Bytes before each message: a flag and the length.
const PREFIX: usize = 5;
/// What may be on its way to us unread, in one call.
const WINDOW: u32 = 4 * 1024 * 1024;

/// How a message is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Protobuf.
    Proto,
    /// JSON, as go-micro programs read it.
    Json,
}

/// One call to be made.
#[derive(Debug)]
pub struct Request<'a> {
    /// The service.
    pub place: &'a Place,
    /// `/package.Service/Method`.
    pub path: &'a str,
    /// How messages are written.
    pub codec: Codec,
    /// Metadata.
    pub headers: &'a HeaderMap,
    /// How long it may take altogether.
    pub deadline: Option<Duration>,
}

/// An HTTP/2 connection to the proxy; it ends when dropped.
pub struct Connection {
    sender: SendRequest<Bytes>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Connects to the proxy at `address`.
    ///
    /// # Errors
    /// M6010 when nothing answers there.
    pub async fn open(address: &str, timeout: Duration) -> Result<Self, Problem> {
        let stream = connect(address, timeout).await?;
        let handshake = h2::client::Builder::new()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .enable_push(false)
            .handshake(stream);
        let (sender, connection) =
            handshake.await.map_err(|error| no_proxy(address, &error.to_string()))?;
        let driver = tokio::spawn(async move {
            // Its end is seen by the call that is open.
            let _ = connection.await;
        });
        Ok(Self { sender, driver })
    }

    /// Begins a call.
    ///
    /// # Errors
    /// M1007 when the connection is gone.
    pub async fn call(&self, request: Request<'_>) -> Result<Call, Problem> {
        let mut sender = self.sender.clone().ready().await.map_err(|error| lost(&error))?;
        let deadline = request.deadline.map(|limit| (Instant::now() + limit, limit));
        let (response, body) =
            sender.send_request(head(&request)?, false).map_err(|error| lost(&error))?;
        Ok(Call {
            sending: Sending { body },
            receiving: Receiving {
                state: State::Waiting(response),
                buffer: BytesMut::new(),
                head: HeaderMap::new(),
                status: StatusCode::OK,
                place: request.place.clone(),
                deadline,
            },
        })
    }
}

/// A call under way: two halves that wait for different things, so that neither holds up the other.
pub struct Call {
    /// What goes to the service.
    pub sending: Sending,
    /// What comes from it.
    pub receiving: Receiving,
}

/// The way to the service.
pub struct Sending {
    body: SendStream<Bytes>,
}

impl Sending {
    /// Sends one message, waiting for room.
    ///
    /// # Errors
    /// M1010 when it is too large for gRPC. A service that wants no more is not an error: its answer
    /// says why.
    pub async fn send(&mut self, message: Bytes, last: bool) -> Result<(), Problem> {
        let length = u32::try_from(message.len())
            .map_err(|_| Problem::new("M1010", Exit::Failed, "the message is too large"))?;
        let mut framed = BytesMut::with_capacity(PREFIX + message.len());
        framed.put_u8(0);
        framed.put_u32(length);
        framed.extend_from_slice(&message);
        let mut rest = framed.freeze();
        while !rest.is_empty() {
            self.body.reserve_capacity(rest.len());
            let room = std::future::poll_fn(|cx| self.body.poll_capacity(cx)).await;
            let Some(Ok(room)) = room else { return Ok(()) };
            if room == 0 {
                continue;
            }
            let part = rest.split_to(room.min(rest.len()));
            let end = last && rest.is_empty();
            if self.body.send_data(part, end).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Says that no more messages come.
    pub fn half_close(&mut self) {
        // Refused only where the other side has ended the call already.
        let _ = self.body.send_data(Bytes::new(), true);
    }

    /// Takes the call back.
    pub fn cancel(&mut self) {
        self.body.send_reset(h2::Reason::CANCEL);
    }
}

/// The way back.
pub struct Receiving {
    state: State,
    buffer: BytesMut,
    head: HeaderMap,
    status: StatusCode,
    place: Place,
    deadline: Option<(Instant, Duration)>,
}

enum State {
    Waiting(ResponseFuture),
    Reading(RecvStream),
}

impl Receiving {
    /// The next message; `None` when there are no more and [`Self::finish`] tells why.
    ///
    /// # Errors
    /// M1005 when the time is over, M1007 when the connection is gone, M7003 when what comes is no
    /// gRPC. Safe to cancel: nothing is lost.
    pub async fn message(&mut self) -> Result<Option<Bytes>, Problem> {
        match self.deadline {
            None => self.next().await,
            // The call is taken back when it is dropped.
            Some((at, limit)) => match tokio::time::timeout_at(at, self.next()).await {
                Ok(next) => next,
                Err(_) => Err(super::too_late(&self.place, limit)),
            },
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        if let State::Waiting(response) = &mut self.state {
            let response = response.await.map_err(|error| lost(&error))?;
            let (head, body) = response.into_parts();
            (self.head, self.status) = (head.headers, head.status);
            self.state = State::Reading(body);
        }
        let State::Reading(body) = &mut self.state else { return Ok(None) };
        if !is_grpc(self.status, &self.head) {
            return Ok(None);
        }
        loop {
            if let Some(message) = take_message(&mut self.buffer)? {
                return Ok(Some(message));
            }
            match body.data().await {
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(garbled("it ends in the middle of a message")),
                Some(Err(error)) => return Err(lost(&error)),
                Some(Ok(data)) => {
                    // Refused only where the connection is gone, which the next read tells.
                    let _ = body.flow_control().release_capacity(data.len());
                    self.buffer.extend_from_slice(&data);
                }
            }
        }
    }

    /// How the call ended, to be asked when there are no more messages.
    ///
    /// # Errors
    /// [`Failed`]: the service's own error, or why micro could not deliver.
    pub async fn finish(&mut self, place: &Place) -> Result<(), Failed> {
        let State::Reading(body) = &mut self.state else { return Ok(()) };
        let trailers = match body.trailers().await {
            Ok(trailers) => trailers,
            Err(error) => return Err(Failed::Micro(Box::new(lost(&error)))),
        };
        // Without trailers the head is the end (Trailers-Only).
        let end = trailers.as_ref().unwrap_or(&self.head);
        failure::of_grpc(place, self.status, &self.head, end)
    }
}

/// A connection to a listener of this machine; one on every address is reached on loopback.
///
/// # Errors
/// M6010 when nothing answers there.
pub async fn connect(address: &str, timeout: Duration) -> Result<TcpStream, Problem> {
    let mut at: SocketAddr =
        address.parse().map_err(|_| no_proxy(address, "the node told no address"))?;
    if at.ip().is_unspecified() {
        at.set_ip(match at {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    match tokio::time::timeout(timeout, TcpStream::connect(at)).await {
        Ok(Ok(stream)) => {
            // A message is small and waited for; without this it may be held back.
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(error)) => Err(no_proxy(address, &error.to_string())),
        Err(_) => Err(no_proxy(address, "no answer")),
    }
}

fn head(request: &Request<'_>) -> Result<http::Request<()>, Problem> {
    let uri = http::Uri::builder()
        .scheme("http")
        .authority(request.place.authority())
        .path_and_query(request.path)
        .build()
        .map_err(|error| {
            Problem::new("M4001", Exit::Usage, format!("{:?} is no method", request.path))
                .why(error.to_string())
        })?;
    let mut head = http::Request::new(());
    *head.method_mut() = Method::POST;
    *head.uri_mut() = uri;
    *head.version_mut() = Version::HTTP_2;
    let headers = head.headers_mut();
    let kind = match request.codec {
        Codec::Proto => "application/grpc+proto",
        Codec::Json => "application/grpc+json",
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers
        .insert(USER_AGENT, HeaderValue::from_static(concat!("micro/", env!("CARGO_PKG_VERSION"))));
    if let Some(limit) = request.deadline {
        // At most eight digits (PROTOCOL-HTTP2.md, TimeoutValue): milliseconds reach a day.
        let milliseconds = limit.as_millis().clamp(1, 99_999_999);
        if let Ok(value) = HeaderValue::from_str(&format!("{milliseconds}m")) {
            headers.insert("grpc-timeout", value);
        }
    }
    request.place.put(headers);
    for (name, value) in request.headers {
        headers.append(name, value.clone());
    }
    Ok(head)
}

fn is_grpc(status: StatusCode, head: &HeaderMap) -> bool {
    let kind = head.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    status == StatusCode::OK && kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
}

/// Takes one message off the front of `buffer`.
///
/// ```text
/// +----------+-----------------+----------------+
/// | flag (1) | length (4, BE)  | length bytes   |
/// +----------+-----------------+----------------+
/// ```
fn take_message(buffer: &mut BytesMut) -> Result<Option<Bytes>, Problem> {
    let Some(prefix) = buffer.get(..PREFIX) else { return Ok(None) };
    if prefix[0] != 0 {
        return Err(garbled("a message is compressed, and that was not asked for"));
    }
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    if length > MAX_MESSAGE {
        return Err(garbled(&format!("a message has {length} bytes")));
    }
    if buffer.len() < PREFIX + length {
        return Ok(None);
    }
    buffer.advance(PREFIX);
    Ok(Some(buffer.split_to(length).freeze()))
}

fn garbled(why: &str) -> Problem {
    Problem::new("M7003", Exit::Failed, "the answer is no gRPC").why(why)
}

fn lost(error: &h2::Error) -> Problem {
    Problem::new("M1007", Exit::Unreachable, "the connection to the proxy was lost")
        .why(error.to_string())
        .attempt("micro status", "whether the node still runs")
}

fn no_proxy(address: &str, why: &str) -> Problem {
    Problem::new("M6010", Exit::NoNode, "the proxy of the node cannot be reached")
        .why(format!("{address}: {why}"))
        .attempt("micro status", "where it listens")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_whole_and_in_order() {
        let mut buffer = BytesMut::from(&b"\0\0\0\0\x02hi\0\0\0\0\0\0\0\0"[..]);
        assert_eq!(take_message(&mut buffer).unwrap().as_deref(), Some(&b"hi"[..]));
        assert_eq!(take_message(&mut buffer).unwrap().as_deref(), Some(&b""[..]));
        assert_eq!(take_message(&mut buffer).unwrap(), None, "the third has not come whole");
        assert_eq!(buffer.len(), 3);
    }

    #[test]
    fn what_is_no_message_is_refused_before_room_is_made() {
        for bytes in [&b"\x01\0\0\0\0"[..], &b"\0\xff\xff\xff\xff"[..]] {
            let error = take_message(&mut BytesMut::from(bytes)).unwrap_err();
            assert_eq!(error.code, "M7003");
        }
    }
}
