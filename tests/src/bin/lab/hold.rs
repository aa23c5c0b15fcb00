//! Callers that misbehave: they do not read, do not speak, or vanish.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::wire::{self, Messages, Outcome};

/// Streams on one connection of [`stall`]; proxies allow about so many.
const STREAMS_PER_CONNECTION: usize = 50;

/// A full backlog drops connects silently; the rest is still to be tried.
const CONNECT_WAIT: Duration = Duration::from_millis(50);

/// Opens streams that send without end, takes their heads, and reads nothing more.
pub(crate) async fn stall(proxy: &str, count: &str) -> Outcome {
    let count: usize = count.parse()?;
    let mut held = Vec::new();
    let mut refused = 0;
    for first in (0..count).step_by(STREAMS_PER_CONNECTION) {
        let client = wire::connect(proxy).await?;
        for _ in first..count.min(first + STREAMS_PER_CONNECTION) {
            let (answer, body) = wire::call(&client, proxy, "Flood", &[], b"").await?;
            let answer = answer.await?;
            // A refusal comes at once and with a status; it is allowed, and counted.
            match wire::status(answer.headers()) {
                Some(_) => refused += 1,
                None => held.push((answer, body)),
            }
        }
    }
    println!("stalled {} refused {refused}", held.len());
    wire::input_closed().await;
    Ok(())
}

/// Reads one paced stream for a time and prints the bytes that came.
pub(crate) async fn paced(proxy: &str, seconds: &str) -> Outcome {
    let client = wire::connect(proxy).await?;
    let (answer, _body) = wire::call(&client, proxy, "Paced", &[], b"").await?;
    let mut messages = Messages::new(answer.await?.into_body());
    let until = Instant::now() + Duration::from_secs(seconds.parse()?);
    let mut bytes = 0;
    while let Ok(next) =
        tokio::time::timeout(until.saturating_duration_since(Instant::now()), messages.next()).await
    {
        bytes += next?.ok_or("the stream ended")?.len();
    }
    println!("{bytes}");
    Ok(())
}

/// Opens connections and says nothing on them. Those that are refused or closed count as well.
pub(crate) async fn idle(address: &str, count: &str) -> Outcome {
    let mut open = Vec::new();
    for _ in 0..count.parse::<u32>()? {
        let connected = tokio::time::timeout(CONNECT_WAIT, TcpStream::connect(address)).await;
        open.extend(connected.ok().and_then(Result::ok));
    }
    println!("open {}", open.len());
    wire::input_closed().await;
    Ok(())
}

/// Asks for a path over HTTP/1.1, closes its half of the connection at once, and prints how many bytes come.
pub(crate) async fn half_close(address: &str, host: &str, path: &str) -> Outcome {
    let mut socket = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    socket.shutdown().await?;
    println!("{}", tokio::io::copy(&mut socket, &mut tokio::io::sink()).await?);
    Ok(())
}

/// Opens one connection in each of five states and keeps them: silent; inside an HTTP/1.1 head; waiting for an HTTP/1.1
/// answer's body; an idle HTTP/2 session; an HTTP/2 session with an open stream.
pub(crate) async fn vanish(address: &str) -> Outcome {
    let silent = TcpStream::connect(address).await?;
    let mut head = TcpStream::connect(address).await?;
    head.write_all(b"GET /small HTTP/1.1\r\nHost: ").await?;
    let mut body = TcpStream::connect(address).await?;
    body.write_all(b"POST /upload/x HTTP/1.1\r\nHost: web\r\nContent-Length: 1000\r\n\r\nsome")
        .await?;
    let idle = wire::connect(address).await?;
    let busy = wire::connect(address).await?;
    let (answer, _stream) = wire::call(&busy, address, "Ticks", &[], b"").await?;
    let mut messages = Messages::new(answer.await?.into_body());
    messages.next().await?.ok_or("no tick")?;
    println!("five open");
    // The stream is read, so that only the loss of the network can hold it up.
    let reading = async { while matches!(messages.next().await, Ok(Some(_))) {} };
    tokio::select! {
        // Lost is as good as told: the connections stay as they are until then.
        () = reading => wire::input_closed().await,
        () = wire::input_closed() => {}
    }
    drop((silent, head, body, idle));
    Ok(())
}
