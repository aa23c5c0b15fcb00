//! Bulk over HTTP/1.1, the asking side: whole bodies fetched, checked by length and dropped.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::{Buf as _, Bytes};
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Error;
use crate::cpu::{Meter, Watched, share};
use crate::files::asked;
use crate::outcome::BulkOutcome;
use crate::units::GIB;

/// Bytes read from the socket at a time, at most.
const READ: usize = 512 << 10;

/// Fetches `uri` `times` times on each of `connections` connections, and counts.
pub async fn run(
    uri: &Uri,
    host: Option<&str>,
    connections: usize,
    times: usize,
    watched: &[Watched],
) -> Result<BulkOutcome, Error> {
    let meter = Meter::start(watched)?;
    let begun = Instant::now();
    let mut downloads = JoinSet::new();
    for _ in 0..connections.max(1) {
        let (uri, host) = (uri.clone(), host.map(str::to_owned));
        downloads.spawn(async move {
            let mut fetched = Vec::new();
            for _ in 0..times.max(1) {
                fetched.push(fetch(&uri, host.as_deref()).await);
            }
            fetched
        });
    }
    let mut outcome = BulkOutcome { errors: BTreeMap::new(), ..BulkOutcome::default() };
    for fetched in downloads.join_all().await.into_iter().flatten() {
        match fetched {
            Ok(bytes) => outcome.bytes += bytes,
            Err(error) => *outcome.errors.entry(error.to_string()).or_default() += 1,
        }
    }
    outcome.seconds = begun.elapsed().as_secs_f64();
    let gib = outcome.bytes as f64 / GIB;
    outcome.gib_per_second = gib / outcome.seconds;
    outcome.cpu = share(meter.stop()?, gib);
    Ok(outcome)
}

/// One download over a connection of its own; how many bytes came. A path of the form
/// `/bytes/N` has to bring exactly N.
pub async fn fetch(uri: &Uri, host: Option<&str>) -> Result<u64, Error> {
    let authority = uri.authority().ok_or_else(|| Error::Wrong(format!("{uri} has no host")))?;
    let at = (authority.host(), authority.port_u16().unwrap_or(80));
    let socket = TcpStream::connect(at).await.map_err(Error::io("connect"))?;
    let _ = socket.set_nodelay(true);
    let mut builder = http1::Builder::new();
    builder.max_buf_size(READ);
    let (mut sender, connection) =
        builder.handshake(TokioIo::new(socket)).await.map_err(Error::at("connect"))?;
    let connection = tokio::spawn(connection);

    let host =
        HeaderValue::from_str(host.unwrap_or(authority.as_str())).map_err(Error::at("host"))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path).header(header::HOST, host).body(Empty::<Bytes>::new());
    let request = request.map_err(Error::at("request"))?;
    let response = sender.send_request(request).await.map_err(Error::at("request"))?;
    if response.status() != StatusCode::OK {
        return Err(Error::Wrong(format!("http {}", response.status())));
    }
    let mut body = response.into_body();
    let mut bytes = 0_u64;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(Error::at("body"))?;
        bytes += frame.data_ref().map_or(0, |data| data.remaining() as u64);
    }
    connection.abort();
    match asked(uri.path()) {
        Some(wanted) if wanted != bytes => {
            Err(Error::Wrong(format!("{bytes} of {wanted} bytes came")))
        }
        Some(_) | None => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// A server that answers one connection with `answer` and ends it.
    async fn server(answer: &'static [u8]) -> Uri {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let _ = socket.read(&mut head).await;
            let _ = socket.write_all(answer).await;
        });
        format!("http://{at}/bytes/10").parse().unwrap()
    }

    #[tokio::test]
    async fn short_and_refused_downloads_are_errors() {
        let short = server(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc").await;
        let error = fetch(&short, None).await.unwrap_err().to_string();
        assert_eq!(error, "3 of 10 bytes came");
        let cut = server(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await;
        assert!(fetch(&cut, None).await.is_err());
        let refused = server(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").await;
        let error = fetch(&refused, None).await.unwrap_err().to_string();
        assert_eq!(error, "http 502 Bad Gateway");
    }

    #[tokio::test]
    async fn failures_are_counted_by_kind() {
        let refused = server(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").await;
        let outcome = run(&refused, Some("files"), 1, 1, &[]).await.unwrap();
        assert_eq!(outcome.errors.get("http 502 Bad Gateway"), Some(&1));
        assert_eq!(outcome.bytes, 0);
    }
}
