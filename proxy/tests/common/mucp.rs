//! A MUCP caller and a MUCP service that show everything. The service does as go-micro's: it repeats
//! the headers of the first request on its connection, pairs nothing, and says nothing of a stream
//! whose end its handler has read.

use std::net::SocketAddr;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use proxy::mucp::{Decoder, Line, Message, Side};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::soon;

/// What real programs sent: go-micro v2.9.1 with `MICRO_CLIENT=mucp` and `MICRO_SERVER=mucp`.
pub fn captured(name: &str) -> Vec<u8> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captured/mucp");
    std::fs::read(dir.join(name)).unwrap()
}

/// Messages out of bytes.
pub fn messages(side: Side, bytes: &[u8]) -> Vec<Message> {
    let (mut decoder, mut input) = (decoder(side), BytesMut::from(bytes));
    let mut all = Vec::new();
    while let Some(message) = decoder.decode(&mut input).unwrap() {
        all.push(message);
    }
    assert!(input.is_empty(), "bytes are left over");
    all
}

fn decoder(side: Side) -> Decoder {
    Decoder::new(side, 64 * 1024, 8 * 1024 * 1024)
}

/// A request for `endpoint` of `service`; `more` are whole lines.
pub fn request(service: &str, endpoint: &str, more: &str, body: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nHost: 127.0.0.1:8081\r\nUser-Agent: Go-http-client/1.1\r\n\
         Content-Length: {}\r\nAccept: application/json\r\nContent-Type: application/json\r\n\
         Micro-Endpoint: {endpoint}\r\nMicro-Id: 7\r\nMicro-Method: {endpoint}\r\n\
         Micro-Service: {service}\r\n{more}\r\n{body}",
        body.len()
    )
}

/// A connection of a caller.
pub struct Caller {
    socket: TcpStream,
    decoder: Decoder,
    input: BytesMut,
}

impl Caller {
    pub async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket, decoder: decoder(Side::Responses), input: BytesMut::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).await.unwrap();
    }

    /// The next message.
    pub async fn answer(&mut self) -> Message {
        soon(self.read()).await.expect("an answer")
    }

    /// `None` when the other end closed.
    async fn read(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.decoder.decode(&mut self.input).unwrap() {
                return Some(message);
            }
            if !matches!(self.socket.read_buf(&mut self.input).await, Ok(1..)) {
                return None;
            }
        }
    }

    /// Everything until the other end closes.
    pub async fn rest(mut self) -> Vec<Message> {
        let mut all = Vec::new();
        while let Some(message) = soon(self.read()).await {
            all.push(message);
        }
        all
    }
}

/// What a header of a message says.
pub fn says<'a>(message: &'a Message, name: &str) -> &'a str {
    message.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

/// The error of an answer, as JSON.
pub fn error(answer: &Message) -> serde_json::Value {
    serde_json::from_slice(answer.headers["micro-error"].as_bytes()).unwrap()
}

/// What happened at a service.
#[derive(Debug)]
pub enum Seen {
    /// A message, and on which connection.
    Message(usize, Message),
    /// A connection was closed.
    Closed,
}

/// A service. What it does is in the method that is called.
pub struct Instance {
    pub address: SocketAddr,
    seen: mpsc::UnboundedReceiver<Seen>,
}

impl Instance {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut number = 0;
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, number, tell.clone()));
                number += 1;
            }
        });
        Self { address, seen }
    }

    /// The next thing that happened.
    pub async fn next(&mut self) -> Seen {
        soon(self.seen.recv()).await.unwrap()
    }

    /// The next message, and on which connection.
    pub async fn message(&mut self) -> (usize, Message) {
        loop {
            if let Seen::Message(number, message) = self.next().await {
                return (number, message);
            }
        }
    }

    /// Waits until a connection is closed.
    pub async fn closed(&mut self) {
        while !matches!(self.next().await, Seen::Closed) {}
    }

    /// Whether nothing happened until now.
    pub fn is_untouched(&mut self) -> bool {
        self.seen.try_recv().is_err()
    }
}

async fn serve(mut socket: TcpStream, number: usize, tell: mpsc::UnboundedSender<Seen>) {
    let (mut decoder, mut input) = (decoder(Side::Requests), BytesMut::new());
    let (mut first, mut opened) = (None, false);
    loop {
        while let Some(message) = decoder.decode(&mut input).unwrap() {
            let headers = first.get_or_insert_with(|| message.headers.clone()).clone();
            drop(tell.send(Seen::Message(number, message.clone())));
            let out = answer(&headers, &message, &mut opened);
            if socket.write_all(&out).await.is_err() {
                break;
            }
        }
        if !matches!(socket.read_buf(&mut input).await, Ok(1..)) {
            drop(tell.send(Seen::Closed));
            return;
        }
    }
}

fn answer(first: &HeaderMap, message: &Message, opened: &mut bool) -> Bytes {
    let method = message.headers["micro-endpoint"].to_str().unwrap().rsplit('.').next().unwrap();
    let stream = message.headers.contains_key("micro-stream");
    let begins = stream && !std::mem::replace(opened, true);
    let ends = message.headers.contains_key("micro-error");
    let mut out = Vec::new();
    match method {
        _ if begins || ends => {}
        // What real services answered.
        "Hello" if message.body.windows(5).any(|w| w == b"error") => {
            out.extend(replay("unary-error.response", message));
        }
        "Hello" => out.extend(replay("unary-json.response", message)),
        "Raw" => out.extend(replay("unary-protobuf.response", message)),
        "Count" => out.extend(replay("stream-count.response", message)),
        "Mirror" | "Echo" => out.extend(say(first, message, "", &message.body)),
        // So do v4 and v5: also the number is the first one's.
        "Numberless" => out.extend(numbered(first, "0", &message.body)),
        "Misnumbered" => out.extend(numbered(first, "9999", &message.body)),
        "Unreadable" => out.extend(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 11\r\n\r\nUnsupported",
        ),
        "Other" => out.extend(b"HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nbusy"),
        "Garbage" => out.extend(b"\x00\x01 garbage\r\n\r\n"),
        "Wait" | "Slow" => {}
        method => panic!("no method {method}"),
    }
    out.into()
}

/// What a real service answered, with the number that this request has.
fn replay(name: &str, message: &Message) -> Vec<u8> {
    let (text, id) = (captured(name), message.headers["micro-id"].as_bytes());
    let mut out = Vec::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        match line {
            b"Micro-Id: 0\r\n" => out.extend([b"Micro-Id: ", id, b"\r\n"].concat()),
            line => out.extend(line),
        }
    }
    out
}

fn numbered(first: &HeaderMap, number: &'static str, body: &[u8]) -> Vec<u8> {
    let mut message =
        Message { line: Line::Response(200), headers: HeaderMap::new(), body: Bytes::new() };
    message.headers.insert("micro-id", http::HeaderValue::from_static(number));
    say(first, &message, "", body)
}

fn say(first: &HeaderMap, message: &Message, error: &str, body: &[u8]) -> Vec<u8> {
    let mut out = b"HTTP/1.1 200 OK\r\n".to_vec();
    let mut headers = first.clone();
    for name in ["micro-id", "content-type"] {
        if let Some(value) = message.headers.get(name) {
            headers.insert(name, value.clone());
        }
    }
    headers.remove("content-length");
    headers.remove("transfer-encoding");
    for (name, value) in &headers {
        out.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    if !error.is_empty() {
        out.extend(format!("Micro-Error: {error}\r\n").into_bytes());
    }
    out.extend(format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes());
    out.extend(body);
    out
}

/// The status of an answer.
pub fn status(message: &Message) -> u16 {
    match message.line {
        Line::Response(status) => status,
        Line::Request { .. } => panic!("a request where an answer was expected"),
    }
}
