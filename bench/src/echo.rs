//! The service at the end of the road: gRPC over cleartext HTTP/2, whatever is sent comes back.
//!
//! Lean on purpose, straight on the `h2` crate, so that what is measured is the road.

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::server::{self, SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};

/// The largest message echoed, in bytes, without its gRPC prefix.
pub const LARGEST_MESSAGE: usize = 4 << 20;
/// Bytes in front of a gRPC message: compressed flag and length.
pub const PREFIX: usize = 5;
/// Streams one connection may have open.
const STREAMS: u32 = 4096;
/// How much a stream may send before it has to wait for us, in bytes.
const WINDOW: u32 = 1 << 20;
/// gRPC status of an answer that is well.
const OK: HeaderValue = HeaderValue::from_static("0");
/// gRPC status `INVALID_ARGUMENT`.
const INVALID: HeaderValue = HeaderValue::from_static("3");

/// Puts the gRPC prefix of an uncompressed message before `message`.
pub fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("messages are far below 4 GiB");
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.extend_from_slice(&[0]);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    framed.freeze()
}

/// Answers every connection of `listener` until the process ends.
pub async fn serve(listener: TcpListener) {
    loop {
        // Out of descriptors is the peer's load to lower; the next accept may do.
        let Ok((socket, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        tokio::spawn(connection(socket));
    }
}

/// Answers the calls of one connection.
pub(crate) async fn connection(socket: TcpStream) {
    let _ = socket.set_nodelay(true);
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW * 8);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(socket).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request, respond));
    }
}

/// One call. A caller that went away needs no answer, so errors of the stream end here.
async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let Ok(message) = whole(request.into_body()).await else { return };
    let mut trailers = HeaderMap::with_capacity(1);
    let response = Response::builder().header("content-type", "application/grpc");
    let response = response.body(()).expect("the header is a constant");
    let Ok(mut stream) = respond.send_response(response, false) else { return };
    match message {
        Some(message) if is_one_message(&message) => {
            trailers.insert("grpc-status", OK);
            let _ = stream.send_data(message, false);
        }
        Some(_) | None => {
            trailers.insert("grpc-status", INVALID);
        }
    }
    let _ = stream.send_trailers(trailers);
}

/// The whole body, in one piece; `None` when it is longer than any message may be.
async fn whole(mut body: RecvStream) -> Result<Option<Bytes>, h2::Error> {
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        if first.len() + joined.len() + chunk.len() > PREFIX + LARGEST_MESSAGE {
            return Ok(None);
        }
        if first.is_empty() && joined.is_empty() {
            first = chunk;
        } else {
            joined.extend_from_slice(&first);
            joined.extend_from_slice(&chunk);
            first = Bytes::new();
        }
    }
    Ok(Some(if joined.is_empty() { first } else { joined.freeze() }))
}

fn is_one_message(body: &[u8]) -> bool {
    let Some((prefix, message)) = body.split_first_chunk::<PREFIX>() else { return false };
    let [_, a, b, c, d] = *prefix;
    usize::try_from(u32::from_be_bytes([a, b, c, d])) == Ok(message.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Client, Failure};

    #[test]
    fn only_exactly_one_message_is_one() {
        assert!(is_one_message(&framed(b"hello")));
        assert!(is_one_message(&framed(b"")));
        assert!(!is_one_message(b""));
        assert!(!is_one_message(&framed(b"hello")[..7]));
        assert!(!is_one_message(&[framed(b"a"), framed(b"b")].concat()));
    }

    #[tokio::test]
    async fn what_is_sent_comes_back_small_and_large() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(serve(listener));
        for size in [0, 128, 100_000, LARGEST_MESSAGE] {
            let client = Client::new(at, "echo", "/bench.echo.Echo/Call", size).unwrap();
            assert_eq!(client.call().await, Ok(()), "{size} bytes");
        }
        let client = Client::new(at, "echo", "/x/Y", LARGEST_MESSAGE + 1).unwrap();
        assert_eq!(client.call().await, Err(Failure::Grpc("3".to_owned())));
    }
}
