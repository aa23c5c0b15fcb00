//! gRPC as frames on HTTP/2: only what the lab's caller and service need.

use std::error::Error;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use tokio::net::TcpStream;

/// How every part of this program ends.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// The path of the service's methods; the network calls it `lab.echo`.
pub(crate) const PREFIX: &str = "/lab.echo.Echo/";

/// The longest message that is taken; far above what the lab sends.
const MESSAGE_LIMIT: usize = 1 << 20;

/// A message with its five-byte head, uncompressed.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut all = BytesMut::with_capacity(5 + message.len());
    all.put_u8(0);
    all.put_u32(u32::try_from(message.len()).expect("the lab's messages are short"));
    all.put_slice(message);
    all.freeze()
}

/// Messages read off one HTTP/2 stream.
pub(crate) struct Messages {
    stream: RecvStream,
    held: BytesMut,
}

impl Messages {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self { stream, held: BytesMut::new() }
    }

    /// The next message, or `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Outcome<Option<Bytes>> {
        loop {
            if let Some(mut head) = self.held.get(..5) {
                head.advance(1);
                let length = head.get_u32() as usize;
                if length > MESSAGE_LIMIT {
                    return Err("a message above the limit".into());
                }
                if self.held.len() >= 5 + length {
                    self.held.advance(5);
                    return Ok(Some(self.held.split_to(length).freeze()));
                }
            }
            match self.stream.data().await {
                None if self.held.is_empty() => return Ok(None),
                None => return Err("the stream ended inside a message".into()),
                Some(chunk) => {
                    let chunk = chunk?;
                    self.stream.flow_control().release_capacity(chunk.len())?;
                    self.held.put(chunk);
                }
            }
        }
    }

    pub(crate) async fn trailers(&mut self) -> Outcome<HeaderMap> {
        Ok(self.stream.trailers().await?.unwrap_or_default())
    }
}

/// Writes all bytes as the peer's window allows.
pub(crate) async fn write(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> Outcome {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let granted = match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(granted) => granted?,
            None => return Err("the stream was closed".into()),
        };
        let part = bytes.split_to(granted.min(bytes.len()));
        stream.send_data(part, false)?;
    }
    Ok(())
}

/// A connection to the proxy. It is driven by a task of its own and ends with it.
pub(crate) async fn connect(address: &str) -> Outcome<SendRequest<Bytes>> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let (client, connection) =
        h2::client::Builder::new().max_concurrent_streams(10_000).handshake(socket).await?;
    // Whoever holds a stream of it sees its error.
    tokio::spawn(connection);
    Ok(client)
}

/// Opens a call with its one request message and, unless `open` is set, half-closes it.
pub(crate) async fn call(
    client: &SendRequest<Bytes>,
    authority: &str,
    method: &str,
    headers: &[(&str, String)],
    message: &[u8],
) -> Outcome<(ResponseFuture, SendStream<Bytes>)> {
    let mut request = Request::post(format!("http://{authority}{PREFIX}{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let mut client = client.clone().ready().await?;
    let (answer, mut body) = client.send_request(request.body(())?, false)?;
    // The lab's requests are far below the initial window, so this does not wait.
    body.send_data(framed(message), true)?;
    Ok((answer, body))
}

/// The gRPC status in a header block, and what the network says when it made the error: number and reason.
pub(crate) fn status(headers: &HeaderMap) -> Option<(i32, Option<String>)> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let code = text("grpc-status")?.parse().ok()?;
    let reason = text("grpc-message").unwrap_or_default();
    Some((code, text("micro-error").map(|number| format!("{number} {reason}"))))
}

/// Waits until whoever started this program closes its input.
pub(crate) async fn input_closed() {
    let (told, closed) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = told.send(());
    });
    // The thread ends only after it has told.
    let _ = closed.await;
}
