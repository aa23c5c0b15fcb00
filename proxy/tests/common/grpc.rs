//! A gRPC client that shows everything, on the `h2` crate.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::TcpStream;

use super::soon;

#[derive(Clone)]
pub struct Client {
    send: SendRequest<Bytes>,
    authority: String,
}

/// A call whose request is not ended yet.
pub struct Call {
    pub send: SendStream<Bytes>,
    pub response: ResponseFuture,
}

/// All of a response.
#[derive(Debug)]
pub struct Answer {
    pub head: HeaderMap,
    pub messages: Vec<Bytes>,
    pub trailers: HeaderMap,
}

impl Answer {
    /// The status, from trailers or a trailers-only head.
    pub fn status(&self) -> Option<&str> {
        let of = |map: &HeaderMap| map.contains_key("grpc-status");
        let map = if of(&self.trailers) { &self.trailers } else { &self.head };
        map.get("grpc-status")?.to_str().ok()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.trailers.get(name).or_else(|| self.head.get(name))?.to_str().ok()
    }
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::with_windows(address, 1 << 20).await
    }

    pub async fn with_windows(address: SocketAddr, window: u32) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(window)
            .initial_connection_window_size(window)
            .handshake(socket)
            .await
            .unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Self { send, authority: address.to_string() }
    }

    pub fn call(&self, path: &str, headers: &[(&'static str, &str)]) -> Call {
        let mut request = Request::post(format!("http://{}{path}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            if *name == "content-type" {
                request.headers_mut().unwrap().remove(*name);
            }
            request = request.header(*name, *value);
        }
        let (response, send) =
            self.send.clone().send_request(request.body(()).unwrap(), false).unwrap();
        Call { send, response }
    }

    /// One message each way.
    pub async fn unary(&self, path: &str, headers: &[(&'static str, &str)], text: &[u8]) -> Answer {
        let mut call = self.call(path, headers);
        call.send.send_data(message(text), true).unwrap();
        call.finish().await
    }
}

impl Call {
    pub fn say(&mut self, text: &[u8]) {
        self.send.send_data(message(text), false).unwrap();
    }

    pub fn half_close(&mut self) {
        self.send.send_data(Bytes::new(), true).unwrap();
    }

    /// Reads the response to its end.
    pub async fn finish(self) -> Answer {
        self.try_finish().await.unwrap()
    }

    pub async fn try_finish(self) -> Result<Answer, h2::Error> {
        // The request stays as it is until the response has ended.
        let Self { send: _send, response } = self;
        read(response).await
    }

    pub async fn head(self) -> (SendStream<Bytes>, Response<RecvStream>) {
        (self.send, soon(self.response).await.unwrap())
    }
}

/// Reads a response to its end.
pub async fn read(response: ResponseFuture) -> Result<Answer, h2::Error> {
    let response = soon(response).await?;
    let (parts, mut body) = response.into_parts();
    let mut bytes = BytesMut::new();
    while let Some(chunk) = soon(body.data()).await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        bytes.extend_from_slice(&chunk);
    }
    let trailers = soon(body.trailers()).await?.unwrap_or_default();
    let mut messages = Vec::new();
    while bytes.len() >= 5 {
        let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
        let _ = bytes.split_to(5);
        messages.push(bytes.split_to(length).freeze());
    }
    Ok(Answer { head: parts.headers, messages, trailers })
}

/// Takes messages off a body as they come.
#[derive(Default)]
pub struct Reader(BytesMut);

impl Reader {
    /// The next message; `None` at the end.
    pub async fn next(&mut self, body: &mut RecvStream) -> Option<Bytes> {
        loop {
            if self.0.len() >= 5 {
                let length = u32::from_be_bytes(self.0[1..5].try_into().unwrap()) as usize;
                if self.0.len() >= 5 + length {
                    let _ = self.0.split_to(5);
                    return Some(self.0.split_to(length).freeze());
                }
            }
            let chunk = soon(body.data()).await?.ok()?;
            let _ = body.flow_control().release_capacity(chunk.len());
            self.0.extend_from_slice(&chunk);
        }
    }
}

/// A gRPC message.
pub fn message(text: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(5 + text.len());
    out.put_u8(0);
    out.put_u32(text.len() as u32);
    out.put_slice(text);
    out.freeze()
}
