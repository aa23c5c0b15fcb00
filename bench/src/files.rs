//! Bulk over HTTP/1.1: `GET /bytes/N` sends N bytes, `POST` takes any number and says how many.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Bytes sent at a time.
const CHUNK: usize = 256 << 10;
/// What all downloads are made of.
static ZEROS: [u8; CHUNK] = [0; CHUNK];

type Answer = Response<Either<Zeros, Full<Bytes>>>;

/// A body of a known number of bytes, none of which is ever copied.
pub struct Zeros(u64);

impl Body for Zeros {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.0 == 0 {
            return Poll::Ready(None);
        }
        let size = usize::try_from(self.0).map_or(CHUNK, |left| left.min(CHUNK));
        self.0 -= size as u64;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&ZEROS[..size])))))
    }

    fn is_end_stream(&self) -> bool {
        self.0 == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0)
    }
}

/// The number of bytes a path like `/bytes/1024` asks for.
pub fn asked(path: &str) -> Option<u64> {
    path.strip_prefix("/bytes/")?.parse().ok()
}

/// Answers every connection of `listener` until the process ends.
pub async fn serve(listener: TcpListener) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let _ = socket.set_nodelay(true);
        let connection =
            http1::Builder::new().serve_connection(TokioIo::new(socket), service_fn(answer));
        tokio::spawn(async move {
            // The peer went away; it knows.
            let _ = connection.await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Answer, Infallible> {
    let path = request.uri().path();
    Ok(match (request.method(), asked(path)) {
        (&Method::GET, Some(size)) => Response::new(Either::Left(Zeros(size))),
        (&Method::POST, _) => said(StatusCode::OK, taken(request.into_body()).await),
        _ => said(StatusCode::NOT_FOUND, "GET /bytes/N, or POST".to_owned()),
    })
}

async fn taken(mut body: Incoming) -> String {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, |data| data.remaining());
    }
    bytes.to_string()
}

fn said(status: StatusCode, text: String) -> Answer {
    let mut response = Response::new(Either::Right(Full::from(text)));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::download;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    async fn start() -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(serve(listener));
        at
    }

    #[tokio::test]
    async fn every_byte_asked_for_arrives() {
        let at = start().await;
        for size in [0, 1, CHUNK as u64, 5_000_001] {
            let uri = format!("http://{at}/bytes/{size}").parse().unwrap();
            assert_eq!(download::fetch(&uri, None).await.unwrap(), size);
        }
    }

    #[tokio::test]
    async fn what_is_posted_is_counted_and_the_rest_not_found() {
        let at = start().await;
        for (request, wanted) in [
            (
                "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello",
                "5",
            ),
            ("GET /x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "404 Not Found"),
        ] {
            let mut socket = TcpStream::connect(at).await.unwrap();
            socket.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.unwrap();
            assert!(answer.contains(wanted), "{answer}");
        }
    }
}
