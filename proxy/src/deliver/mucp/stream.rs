//! A stream to an instance that speaks MUCP, on a connection of its own.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::io::AsyncWriteExt as _;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::{Connection, Meaning, Outgoing, lost, stopped, unreadable, well};
use crate::body::{Body, BoxError};
use crate::carry::{Held, Reply};
use crate::deliver::Host;
use crate::error::Error;
use crate::mucp::failure::END_OF_STREAM;
use crate::mucp::frames::{Frames, Gathered, frame};
use crate::mucp::socket::Reader;

/// Messages that wait to be handed on; the instance waits with more.
const AHEAD: usize = 4;
/// How long an instance may be silent once its caller has ended: a handler of go-micro that reads to
/// the end and returns says nothing of it, so silence is its end.
const QUIET: Duration = Duration::from_secs(1);

type Sent = Result<Frame<bytes::Bytes>, BoxError>;

/// Begins a stream of which `first` was read already; its response has begun, as gRPC has it.
/// Dropping its body ends the connection, which is how an instance is told of a call given up.
pub(super) fn begin(
    connection: Connection,
    host: &Arc<Host>,
    outgoing: Outgoing,
    first: Vec<Gathered>,
    frames: Frames,
) -> Reply {
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(http::header::CONTENT_TYPE, outgoing.content.grpc.clone());
    let (sender, receiver) = mpsc::channel(AHEAD);
    let host = Arc::clone(host);
    tokio::spawn(async move {
        let given_up = sender.clone();
        tokio::select! {
            () = run(connection, &host, &outgoing, first, frames, sender) => {}
            () = given_up.closed() => {}
        }
    });
    let body = Body::new(StreamBody::new(ReceiverStream::new(receiver)));
    Reply {
        status: StatusCode::OK,
        headers,
        body,
        upload: None,
        held: Held::default(),
        upgraded: None,
    }
}

async fn run(
    connection: Connection,
    host: &Host,
    outgoing: &Outgoing,
    first: Vec<Gathered>,
    frames: Frames,
    sender: mpsc::Sender<Sent>,
) {
    let Connection { mut reader, write, .. } = connection;
    let (tell, ended) = watch::channel(false);
    let up = async {
        let sent = up(write, host, outgoing, first, frames, &tell).await;
        match sent {
            // Kept until the other half is done.
            Ok(write) => {
                let _write = write;
                std::future::pending().await
            }
            Err(error) => error,
        }
    };
    let down = down(&mut reader, host, outgoing, &sender, ended);
    let error = tokio::select! {
        down = down => down.err(),
        error = up => Some(error),
    };
    if let Some(error) = error {
        let _ = sender.send(Err(error.into())).await;
    }
}

/// Sends what the caller sends, and its end.
async fn up(
    mut write: OwnedWriteHalf,
    host: &Host,
    outgoing: &Outgoing,
    first: Vec<Gathered>,
    mut frames: Frames,
    tell: &watch::Sender<bool>,
) -> Result<OwnedWriteHalf, Error> {
    let name = HeaderValue::from_static("0");
    let message = |error: Option<&HeaderValue>, body: &[u8]| {
        outgoing.message(host, Some(&name), Some(&name), error, body)
    };
    let broken = |error: std::io::Error| lost(host, &error.to_string());
    // It describes the call; servers of go-micro do not read its body.
    write.write_all(&message(None, &[])).await.map_err(broken)?;
    for one in first {
        write.write_all(&message(None, &one.message)).await.map_err(broken)?;
    }
    while let Some(one) = frames.next().await.map_err(stopped)? {
        write.write_all(&message(None, &one.message)).await.map_err(broken)?;
    }
    let end = HeaderValue::from_static(END_OF_STREAM);
    write.write_all(&message(Some(&end), &[])).await.map_err(broken)?;
    tell.send_replace(true);
    Ok(write)
}

/// Hands on what the instance sends, until it ends.
async fn down(
    reader: &mut Reader,
    host: &Host,
    outgoing: &Outgoing,
    sender: &mpsc::Sender<Sent>,
    mut ended: watch::Receiver<bool>,
) -> Result<(), Error> {
    let trailers = loop {
        let next = tokio::select! {
            next = reader.next() => next,
            () = quiet(&mut ended) => break well(),
        };
        let received = match next {
            Ok(Some(received)) => received,
            Ok(None) if *ended.borrow() => break well(),
            Ok(None) => return Err(lost(host, "it closed the connection within a stream")),
            Err(broken) => return Err(unreadable(host, &broken)),
        };
        match outgoing.meaning(host, received.message)? {
            Meaning::Message(message) => {
                if sender.send(Ok(Frame::data(frame(&message)))).await.is_err() {
                    return Ok(());
                }
            }
            Meaning::End => break well(),
            Meaning::Failed(trailers) => break trailers,
        }
    };
    let _ = sender.send(Ok(Frame::trailers(trailers))).await;
    Ok(())
}

/// Waits until the caller has ended and then some.
async fn quiet(ended: &mut watch::Receiver<bool>) {
    if ended.wait_for(|ended| *ended).await.is_err() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(QUIET).await;
}
