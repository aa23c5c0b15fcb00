//! A gRPC client of bare HTTP/2, so that a test sees what is on the wire.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use prost::Message;

/// How long anything may take before a test is called hung.
const HUNG: Duration = Duration::from_secs(20);

pub(crate) struct Client(SendRequest<Bytes>);

pub(crate) struct Call {
    send: SendStream<Bytes>,
    response: Option<ResponseFuture>,
    recv: Option<RecvStream>,
    pub(crate) headers: HeaderMap,
    pub(crate) status: u16,
    buffer: BytesMut,
}

impl Client {
    pub(crate) async fn connect(to: SocketAddr) -> Self {
        let socket = tokio::net::TcpStream::connect(to).await.unwrap();
        // A small window, so that a caller that does not read is one soon.
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(16 * 1024).initial_connection_window_size(1024 * 1024);
        let (send, connection) = builder.handshake(socket).await.unwrap();
        tokio::spawn(connection);
        Self(send)
    }

    /// Sends the head of a request and nothing else.
    pub(crate) async fn open(&self, path: &str, headers: &[(&str, &str)]) -> Call {
        let mut send = self.0.clone().ready().await.unwrap();
        let mut request = Request::post(format!("http://127.0.0.1{path}")).header("te", "trailers");
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/grpc+proto");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (response, send) = send.send_request(request.body(()).unwrap(), false).unwrap();
        Call {
            send,
            response: Some(response),
            recv: None,
            headers: HeaderMap::new(),
            status: 0,
            buffer: BytesMut::new(),
        }
    }

    /// One message there and one back; the request stays open.
    pub(crate) async fn unary<M: Message + Default>(
        &self,
        path: &str,
        request: impl Message,
    ) -> Result<M, HeaderMap> {
        self.unary_with(path, &[], request).await
    }

    pub(crate) async fn unary_with<M: Message + Default>(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        request: impl Message,
    ) -> Result<M, HeaderMap> {
        let mut call = self.open(path, headers).await;
        call.send(&request.encode_to_vec());
        call.only().await.map(|message| M::decode(&message[..]).unwrap())
    }

    /// The same in JSON.
    pub(crate) async fn json(
        &self,
        path: &str,
        request: &serde_json::Value,
    ) -> Result<serde_json::Value, HeaderMap> {
        let mut call = self.open(path, &[("content-type", "application/grpc+json")]).await;
        call.send(request.to_string().as_bytes());
        let message = call.only().await?;
        assert_eq!(call.headers["content-type"], "application/grpc+json");
        Ok(serde_json::from_slice(&message).unwrap())
    }
}

impl Call {
    pub(crate) fn send(&mut self, message: &[u8]) {
        self.send_raw(0, u32::try_from(message.len()).unwrap(), message);
    }

    pub(crate) fn send_raw(&mut self, flag: u8, length: u32, message: &[u8]) {
        let mut out = BytesMut::new();
        out.put_u8(flag);
        out.put_u32(length);
        out.put(message);
        self.send.send_data(out.freeze(), false).unwrap();
    }

    pub(crate) fn half_close(&mut self) {
        self.send.send_data(Bytes::new(), true).unwrap();
    }

    pub(crate) fn reset(&mut self) {
        self.send.send_reset(h2::Reason::CANCEL);
    }

    /// Waits for the head of the response.
    pub(crate) async fn head(&mut self) {
        if let Some(response) = self.response.take() {
            let response = within(response).await.unwrap();
            self.status = response.status().as_u16();
            self.headers = response.headers().clone();
            self.recv = Some(response.into_body());
        }
    }

    /// The next message; `None` at the end of them.
    pub(crate) async fn message(&mut self) -> Option<Bytes> {
        self.head().await;
        let recv = self.recv.as_mut().unwrap();
        loop {
            if self.buffer.len() >= 5 {
                let length = u32::from_be_bytes(self.buffer[1..5].try_into().unwrap()) as usize;
                if self.buffer.len() >= 5 + length {
                    assert_eq!(self.buffer[0], 0, "compressed");
                    let mut message = self.buffer.split_to(5 + length);
                    return Some(message.split_off(5).freeze());
                }
            }
            let Some(data) = within(recv.data()).await else {
                assert!(self.buffer.is_empty(), "ended within a message");
                return None;
            };
            let data = data.unwrap();
            recv.flow_control().release_capacity(data.len()).unwrap();
            self.buffer.extend_from_slice(&data);
        }
    }

    pub(crate) async fn next<M: Message + Default>(&mut self) -> M {
        M::decode(self.message().await.expect("one more message")).unwrap()
    }

    /// Whatever says how the call went: the trailers, or the head when there is nothing else.
    pub(crate) async fn end(&mut self) -> HeaderMap {
        assert_eq!(self.message().await, None, "messages are left");
        let trailers = within(self.recv.as_mut().unwrap().trailers()).await.unwrap();
        trailers.unwrap_or_else(|| self.headers.clone())
    }

    /// The one message of a call that went well, or how it did not.
    pub(crate) async fn only(&mut self) -> Result<Bytes, HeaderMap> {
        let message = self.message().await;
        let Some(message) = message else { return Err(self.end().await) };
        let end = self.end().await;
        assert_eq!(end["grpc-status"], "0");
        Ok(message)
    }
}

pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(HUNG, work).await.expect("hung")
}

/// The micro error in `grpc-message`.
pub(crate) fn micro_error(headers: &HeaderMap) -> serde_json::Value {
    let text = headers["grpc-message"].to_str().unwrap();
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let hex = std::str::from_utf8(&tail[..2]).unwrap();
            bytes.push(u8::from_str_radix(hex, 16).unwrap());
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    serde_json::from_slice(&bytes).unwrap()
}
