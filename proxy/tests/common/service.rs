//! A gRPC service on the `h2` crate. What it does is in the method; what it saw is told.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Mutex;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::grpc::{Reader, message};

/// Races that have begun.
static RACES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// What happened at a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Request(HeaderMap),
    Message(Bytes),
    HalfClosed,
    Reset,
    /// Bytes the window let through since the last one.
    Sent(usize),
}

pub struct Service {
    pub address: SocketAddr,
    pub seen: mpsc::UnboundedReceiver<Seen>,
}

impl Service {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                socket.set_nodelay(true).unwrap();
                let tell = tell.clone();
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(socket).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(serve(request, respond, tell.clone()));
                    }
                });
            }
        });
        Self { address, seen }
    }

    /// The next thing that happened.
    pub async fn next(&mut self) -> Seen {
        super::soon(self.seen.recv()).await.unwrap()
    }

    /// Waits for what is wanted.
    pub async fn saw(&mut self, wanted: &Seen) {
        while self.next().await != *wanted {}
    }
}

async fn serve(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    tell: mpsc::UnboundedSender<Seen>,
) {
    let (parts, mut body) = request.into_parts();
    let tell = |seen| drop(tell.send(seen));
    tell(Seen::Request(parts.headers.clone()));
    let head = Response::builder()
        .header("content-type", "application/grpc")
        .header("x-head", "1")
        .header("micro-node", "liar");
    let method = parts.uri.path().rsplit('/').next().unwrap().to_owned();
    let mut reader = Reader::default();
    match method.as_str() {
        // One message, mirrored; trailers with a detail.
        "Echo" | "Hello" | "Raw" => {
            let text = reader.next(&mut body).await.unwrap_or_default();
            let mut send = respond.send_response(head.body(()).unwrap(), false).unwrap();
            send_all(&mut send, message(&text)).await;
            let _ = send.send_trailers(trailers("0"));
        }
        "Fail" => {
            let head = head
                .header("grpc-status", "9")
                .header("grpc-message", "no")
                .header("grpc-status-details-bin", "CAkSAm5v")
                .header("micro-error", "M9999");
            respond.send_response(head.body(()).unwrap(), true).unwrap();
        }
        // As that of go-micro: three answers to the first message, whose caller does not half-close.
        "Count" => {
            let first = reader.next(&mut body).await.unwrap();
            let mut send = respond.send_response(head.body(()).unwrap(), false).unwrap();
            for _ in 0..3 {
                send_all(&mut send, message(&first)).await;
            }
            send.send_trailers(trailers("0")).unwrap();
        }
        // Answers the first message with as many as it says, then mirrors until half-close.
        "Stream" => {
            let first = reader.next(&mut body).await.unwrap();
            let count: usize = std::str::from_utf8(&first).unwrap().parse().unwrap();
            let mut send = respond.send_response(head.body(()).unwrap(), false).unwrap();
            for n in 0..count {
                send_all(&mut send, message(n.to_string().as_bytes())).await;
            }
            send.send_trailers(trailers("0")).unwrap();
        }
        "Mirror" => {
            let mut send = respond.send_response(head.body(()).unwrap(), false).unwrap();
            while let Some(text) = reader.next(&mut body).await {
                send_all(&mut send, message(&text)).await;
                tell(Seen::Message(text));
            }
            tell(Seen::HalfClosed);
            let _ = send.send_trailers(trailers("0"));
        }
        // The first that is asked with this `x-race` never answers, the others mirror.
        "Race" => {
            let race = parts.headers["x-race"].to_str().unwrap().to_owned();
            if RACES.lock().unwrap().insert(race) {
                let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
                return tell(Seen::Reset);
            }
            let text = reader.next(&mut body).await.unwrap_or_default();
            let mut send = respond.send_response(head.body(()).unwrap(), false).unwrap();
            send_all(&mut send, message(&text)).await;
            let _ = send.send_trailers(trailers("0"));
        }
        // Never answers; tells when it is given up.
        "Wait" | "Slow" => {
            let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            tell(Seen::Reset);
        }
        // Begins an answer and never ends it.
        "Hang" => {
            let mut send = respond.send_response(head.body(()).unwrap(), false).unwrap();
            send_all(&mut send, message(b"one")).await;
            let _ = std::future::poll_fn(|cx| send.poll_reset(cx)).await;
            tell(Seen::Reset);
        }
        // Sends as much as it may.
        "Flood" => {
            let mut send = respond.send_response(head.body(()).unwrap(), false).unwrap();
            let block = message(&[7; 16 * 1024]);
            loop {
                if !send_all(&mut send, block.clone()).await {
                    return tell(Seen::Reset);
                }
                tell(Seen::Sent(block.len()));
            }
        }
        // Takes one byte of the window of the caller and no more.
        "Clogged" => {
            let _body = body;
            let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            tell(Seen::Reset);
        }
        "Break" => {
            let mut send = respond.send_response(head.body(()).unwrap(), false).unwrap();
            send_all(&mut send, message(b"one")).await;
            let mut tail = [0, 0, 0, 0, 9].to_vec();
            tail.extend_from_slice(b"half");
            send_all(&mut send, tail.into()).await;
            let _ = reader.next(&mut body).await;
            let _ = reader.next(&mut body).await;
            send.send_reset(h2::Reason::INTERNAL_ERROR);
        }
        "Refuse" => respond.send_reset(h2::Reason::REFUSED_STREAM),
        method => panic!("no method {method}"),
    }
}

fn trailers(status: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static(status));
    trailers.insert("x-trailer", http::HeaderValue::from_static("2"));
    trailers
}

/// Sends within the window; `false` when the stream is gone.
pub async fn send_all(send: &mut h2::SendStream<Bytes>, mut data: Bytes) -> bool {
    while !data.is_empty() {
        send.reserve_capacity(data.len());
        match std::future::poll_fn(|cx| send.poll_capacity(cx)).await {
            Some(Ok(room)) => {
                let piece = data.split_to(room.min(data.len()));
                if send.send_data(piece, false).is_err() {
                    return false;
                }
            }
            Some(Err(_)) | None => return false,
        }
    }
    true
}
