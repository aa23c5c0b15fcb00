//! One gRPC connection of the load tool: unary calls, many at a time, on the `h2` crate.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{self, SendRequest};
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::Error;
use crate::echo::framed;

/// How much a peer may send before it has to wait for us, in bytes, per stream and connection.
const WINDOW: u32 = 8 << 20;

/// Why a call failed, in the words of the report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No connection could be made.
    #[error("connect")]
    Connect,
    /// The stream was reset.
    #[error("reset {0:?}")]
    Reset(Reason),
    /// The connection ended under the call.
    #[error("connection lost")]
    Lost,
    /// The HTTP status is not 200.
    #[error("http {0}")]
    Http(StatusCode),
    /// The gRPC status is not 0.
    #[error("grpc {0}")]
    Grpc(String),
    /// The answer is well but not what was sent.
    #[error("wrong answer")]
    Wrong,
}

impl From<h2::Error> for Failure {
    fn from(error: h2::Error) -> Self {
        match error.reason() {
            Some(reason) if error.is_reset() => Self::Reset(reason),
            _ => Self::Lost,
        }
    }
}

/// A connection, made on first use and again when it was lost, and the one call it makes.
pub struct Client {
    at: SocketAddr,
    uri: Uri,
    headers: HeaderMap,
    message: Bytes,
    sender: Mutex<Slot>,
}

/// The connection calls go over, if there is one, and how many there were.
#[derive(Default)]
struct Slot {
    made: u64,
    sender: Option<SendRequest<Bytes>>,
}

impl Client {
    /// Calls `path` at `at` under the name `authority`, with `size` bytes of message.
    pub fn new(at: SocketAddr, authority: &str, path: &str, size: usize) -> Result<Self, Error> {
        let uri = Uri::builder().scheme("http").authority(authority).path_and_query(path);
        let uri = uri.build().map_err(Error::at("authority or path"))?;
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        let message: Vec<u8> = (0_u8..=250).cycle().take(size).collect();
        Ok(Self { at, uri, headers, message: framed(&message), sender: Mutex::default() })
    }

    /// One call: the answer has to be the message that was sent.
    pub async fn call(&self) -> Result<(), Failure> {
        let mut sender = self.ready().await?;
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers.clone();
        let (response, mut body) = sender.send_request(request, false)?;
        body.send_data(self.message.clone(), true)?;
        let response = response.await?;
        if response.status() != StatusCode::OK {
            return Err(Failure::Http(response.status()));
        }
        // A call that failed at once has its status in the only header block there is.
        if let Some(status) = response.headers().get("grpc-status").filter(|status| *status != "0")
        {
            return Err(grpc(status));
        }
        self.check(response.into_body()).await
    }

    async fn check(&self, mut body: RecvStream) -> Result<(), Failure> {
        let mut left = &self.message[..];
        let mut same = true;
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            match left.split_at_checked(chunk.len()) {
                Some((head, tail)) if head == chunk => left = tail,
                Some(_) | None => same = false,
            }
        }
        match body.trailers().await?.as_ref().and_then(|trailers| trailers.get("grpc-status")) {
            Some(status) if status == "0" && same && left.is_empty() => Ok(()),
            Some(status) if status == "0" => Err(Failure::Wrong),
            Some(status) => Err(grpc(status)),
            None => Err(Failure::Grpc("missing".to_owned())),
        }
    }

    /// A sender that takes a request now; connects when there is none or the last one has ended.
    async fn ready(&self) -> Result<SendRequest<Bytes>, Failure> {
        let (made, kept) = {
            let slot = self.sender.lock().await;
            (slot.made, slot.sender.clone())
        };
        if let Some(sender) = kept
            && let Ok(sender) = sender.ready().await
        {
            return Ok(sender);
        }
        // One call connects; those that waited for it find what it made.
        let mut slot = self.sender.lock().await;
        if slot.made == made || slot.sender.is_none() {
            slot.sender = None;
            slot.sender = Some(self.connect().await?);
            slot.made += 1;
        }
        let sender = slot.sender.clone().ok_or(Failure::Connect)?;
        drop(slot);
        Ok(sender.ready().await?)
    }

    async fn connect(&self) -> Result<SendRequest<Bytes>, Failure> {
        let socket = TcpStream::connect(self.at).await.map_err(|_| Failure::Connect)?;
        let _ = socket.set_nodelay(true);
        let mut builder = client::Builder::new();
        builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
        builder.enable_push(false);
        let (sender, connection) = builder.handshake(socket).await?;
        tokio::spawn(async move {
            // The calls on it learn of its end; there is nobody else to tell.
            let _ = connection.await;
        });
        Ok(sender)
    }
}

fn grpc(status: &HeaderValue) -> Failure {
    Failure::Grpc(String::from_utf8_lossy(status.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn nobody_there_is_a_failed_call() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        drop(listener);
        let client = Client::new(at, "echo", "/a.B/C", 1).unwrap();
        assert_eq!(client.call().await, Err(Failure::Connect));
    }

    #[tokio::test]
    async fn a_lost_connection_is_made_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let client = Client::new(at, "echo", "/a.B/C", 1).unwrap();
        let first = async {
            let (socket, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(socket).await.unwrap();
            let _ = connection.accept().await;
        };
        let (called, ()) = tokio::join!(client.call(), first);
        assert!(called.is_err());
        tokio::spawn(crate::echo::serve(listener));
        assert_eq!(client.call().await, Ok(()));
    }
}
