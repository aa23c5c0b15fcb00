//! Turns away a program that may not use a listener, in its own protocol: a 403, PERMISSION_DENIED,
//! an alert of TLS, or nothing at all where it speaks none of them.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Response;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::answer::{self, Form};
use crate::body::Body;
use crate::detect::{self, Captured, From, Protocol};
use crate::error::Error;
use crate::metrics::Turned;
use crate::proxy::{Shared, Stranger};
use crate::target::is_grpc;
use crate::tls;

/// How long a stranger may take to say what it speaks and to read the refusal: less than others,
/// so that their places are not held by it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// Streams of one stranger that are answered at once.
const STREAMS: u32 = 8;
/// Bytes of a request that are read and dropped, so that the refusal is not lost with them.
const DROPPED: usize = 64 * 1024;

/// Tells the program at the other end that it is not served, and lets the connection end.
pub(crate) async fn turn_away(shared: &Arc<Shared>, stream: TcpStream, stranger: Stranger) {
    shared.metrics.turned(Turned::NotOwner);
    tracing::debug!(uid = stranger.uid, "a connection of another user was turned away");
    // Whoever takes longer is told nothing.
    let _ = tokio::time::timeout(PATIENCE, tell(stream, &stranger.into(), &shared.node_name)).await;
}

async fn tell(mut stream: TcpStream, error: &Error, node: &str) {
    match detect::protocol(&mut stream, BytesMut::new()).await {
        Ok((Protocol::Http1 | Protocol::Connect, _)) => {
            http1(stream, error, node, &Form::Text).await
        }
        Ok((Protocol::Http2, seen)) => {
            http2(Captured::new(stream, seen, From::default()), error, node).await
        }
        Ok((Protocol::Tls, _)) => tls::turn_away(stream).await,
        Ok((Protocol::Socks | Protocol::Unknown, _)) | Err(_) => {}
    }
}

/// Says `error` as the answer to a request that need not have been read whole.
pub(crate) async fn http1(mut stream: TcpStream, error: &Error, node: &str, form: &Form) {
    let (head, body) = whole(error, node, form).await;
    let mut out = format!("HTTP/1.1 {}\r\nconnection: close\r\n", head.status());
    for (name, value) in head.headers() {
        // Ours are text.
        let _ = write!(out, "{name}: {}\r\n", value.to_str().unwrap_or_default());
    }
    out.push_str("\r\n");
    if stream.write_all(&[out.as_bytes(), &body].concat()).await.is_err() {
        return;
    }
    // Closed with bytes unread, the connection would be reset and the refusal lost with it.
    let _ = stream.shutdown().await;
    let mut rest = stream.take(DROPPED as u64);
    let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
}

async fn http2(io: Captured, error: &Error, node: &str) {
    let handshake =
        h2::server::Builder::new().max_concurrent_streams(STREAMS).handshake::<_, Bytes>(io);
    let Ok(mut connection) = handshake.await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let form = Form::of(request.headers(), is_grpc(request.headers()));
        let (head, body) = whole(error, node, &form).await;
        if let Ok(mut send) = respond.send_response(head, body.is_empty())
            && !body.is_empty()
        {
            let _ = send.send_data(body, true);
        }
        connection.graceful_shutdown();
    }
}

async fn whole(error: &Error, node: &str, form: &Form) -> (Response<()>, Bytes) {
    let (head, body): (_, Body) = answer::response(error, node, form).into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    (Response::from_parts(head, ()), body)
}
