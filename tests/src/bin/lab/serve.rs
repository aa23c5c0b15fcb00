//! The service `lab.echo`: prints the name of every call it gets, so that a test sees one that was made twice.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};

use crate::wire::{self, Messages, Outcome};

/// Between two messages of `Ticks`.
const TICK: Duration = Duration::from_millis(100);
/// `Paced` sends one chunk of this size each [`PACE`]: 1.6 MB a second.
const CHUNK: usize = 16 * 1024;
const PACE: Duration = Duration::from_millis(10);

struct Service {
    name: String,
}

pub(crate) async fn run(name: &str, address: &str) -> Outcome {
    let listener = TcpListener::bind(address).await?;
    let service = Arc::new(Service { name: name.to_owned() });
    println!("listening");
    loop {
        let (socket, _) = listener.accept().await?;
        let service = Arc::clone(&service);
        // A connection that fails is its client's affair; the service goes on, and says why.
        tokio::spawn(async move {
            if let Err(error) = service.connection(socket).await {
                eprintln!("lab: a connection ended: {error}");
            }
        });
    }
}

impl Service {
    async fn connection(self: Arc<Self>, socket: TcpStream) -> Outcome {
        socket.set_nodelay(true)?;
        let mut connection =
            h2::server::Builder::new().max_concurrent_streams(10_000).handshake(socket).await?;
        while let Some(accepted) = connection.accept().await {
            let (request, respond) = accepted?;
            let service = Arc::clone(&self);
            tokio::spawn(async move { service.call(request, respond).await });
        }
        Ok(())
    }

    async fn call(
        &self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) -> Outcome {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let mut messages = Messages::new(request.into_body());
        let message = messages.next().await?.unwrap_or_default();
        let head = Response::builder()
            .header("content-type", "application/grpc")
            .header("instance", &self.name);
        let mut body = respond.send_response(head.body(())?, false)?;
        match method.as_str() {
            "Unary" => {
                // The test reads these lines: it knows which calls may be here twice.
                println!("call {}", String::from_utf8_lossy(&message));
                wire::write(&mut body, wire::framed(&message)).await?;
            }
            "Ticks" => return ticks(&mut body).await,
            "Flood" => return flood(&mut body, Duration::ZERO).await,
            "Paced" => return flood(&mut body, PACE).await,
            _ => return finish(&mut body, "12"),
        }
        finish(&mut body, "0")
    }
}

/// Numbers, until the caller has gone.
async fn ticks(body: &mut SendStream<Bytes>) -> Outcome {
    for number in 0u64.. {
        wire::write(body, wire::framed(&number.to_be_bytes())).await?;
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            // Errors and resets both mean that nobody listens any more.
            _ = std::future::poll_fn(|cx| body.poll_reset(cx)) => return Ok(()),
        }
    }
    Ok(())
}

/// Sends chunks until the caller has gone, as fast as it reads or one each `pace`.
async fn flood(body: &mut SendStream<Bytes>, pace: Duration) -> Outcome {
    let chunk = wire::framed(&[b'f'; CHUNK]);
    let mut ticker = (!pace.is_zero()).then(|| tokio::time::interval(pace));
    loop {
        if let Some(ticker) = &mut ticker {
            ticker.tick().await;
        }
        wire::write(body, chunk.clone()).await?;
    }
}

fn finish(body: &mut SendStream<Bytes>, status: &'static str) -> Outcome {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    Ok(body.send_trailers(trailers)?)
}
