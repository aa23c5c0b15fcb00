//! What a program at an address speaks, found out by asking: HTTP/2 with prior knowledge first,
//! then gRPC on top of it; else HTTP/1.1.

use std::time::Duration;

use bytes::Bytes;
use proto::record::Protocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::error::{Exit, Problem};

/// Time for the program to take a connection, and again for each answer.
const WAIT: Duration = Duration::from_secs(2);
/// The client's side of an HTTP/2 connection as it begins (RFC 9113 §3.4): the preface, and
/// settings that ask for nothing.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The type of a SETTINGS frame, in the fourth byte of its head (RFC 9113 §4.1, §6.5).
const SETTINGS: u8 = 4;

/// What the program at `address` speaks.
///
/// # Errors
/// M1004 when nothing listens there, M7004 when what it says is none of the three.
pub(super) async fn protocol(address: &str) -> Result<Protocol, Problem> {
    let mut head = [0; 9];
    let mut stream = connect(address).await?;
    let asked = async {
        stream.write_all(PREFACE).await?;
        stream.read_exact(&mut head).await
    };
    match tokio::time::timeout(WAIT, asked).await {
        Ok(Ok(_)) if head.starts_with(b"HTTP/1.") => Ok(Protocol::Http1),
        Ok(Ok(_)) if head[3] == SETTINGS => Ok(grpc_or_http2(address).await),
        // Some HTTP/1 servers close without a word, or wait for the rest of a request that never
        // comes: asked in their own language they answer.
        Ok(Ok(_) | Err(_)) | Err(_) => http1(address).await,
    }
}

async fn connect(address: &str) -> Result<TcpStream, Problem> {
    let refused = |why: String| {
        Problem::new("M1004", Exit::Unreachable, format!("nothing listens on {address}"))
            .why(why)
            .attempt("ss -ltn", "shows what listens on this machine")
    };
    match tokio::time::timeout(WAIT, proxy::dial(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(why)) => Err(refused(why.to_string())),
        Err(_elapsed) => Err(refused(format!("no answer within {}s", WAIT.as_secs()))),
    }
}

/// A gRPC server says so in every answer, an unknown method included.
async fn grpc_or_http2(address: &str) -> Protocol {
    let asked = async {
        let stream = connect(address).await.ok()?;
        let (client, connection) = h2::client::handshake(stream).await.ok()?;
        let request = http::Request::post("http://localhost/micro.Probe/Ask")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .ok()?;
        let answered = async {
            let mut client = client.ready().await.ok()?;
            let (response, mut body) = client.send_request(request, false).ok()?;
            // An empty message: five bytes of length prefix.
            body.send_data(Bytes::from_static(&[0; 5]), true).ok()?;
            response.await.ok()
        };
        let response = tokio::select! {
            response = answered => response?,
            _ended = connection => return None,
        };
        let kind = response.headers().get("content-type")?.to_str().ok()?;
        Some(kind.starts_with("application/grpc"))
    };
    match tokio::time::timeout(WAIT, asked).await {
        Ok(Some(true)) => Protocol::Grpc,
        Ok(Some(false) | None) | Err(_) => Protocol::Http2,
    }
}

async fn http1(address: &str) -> Result<Protocol, Problem> {
    let mut head = [0; 7];
    let mut stream = connect(address).await?;
    let asked = async {
        let host = if address.starts_with("unix:") { "localhost" } else { address };
        let request = format!("OPTIONS * HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.read_exact(&mut head).await
    };
    match tokio::time::timeout(WAIT, asked).await {
        Ok(Ok(_)) if head.starts_with(b"HTTP/1.") => Ok(Protocol::Http1),
        Ok(Ok(_) | Err(_)) | Err(_) => {
            Err(Problem::new("M7004", Exit::Failed, format!("cannot tell what {address} speaks"))
                .why("it takes connections but answers neither HTTP/2 nor HTTP/1.1")
                .attempt(
                    "micro expose NAME PORT --protocol tcp",
                    "says it: grpc, http, http2, tcp or tls",
                ))
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::serve::{self, Builtin};

    #[tokio::test]
    async fn a_grpc_server_is_recognised() {
        let echo = serve::start(Builtin::Echo, "").await.unwrap();
        assert_eq!(protocol(&echo.address.to_string()).await.unwrap(), Protocol::Grpc);
    }

    #[tokio::test]
    async fn an_http1_server_is_recognised() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            }
        });
        assert_eq!(protocol(&address).await.unwrap(), Protocol::Http1);
        server.abort();
    }

    #[tokio::test]
    async fn an_address_where_nobody_listens_is_an_error_that_says_so() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        assert_eq!(protocol(&address).await.unwrap_err().code, "M1004");
    }
}
