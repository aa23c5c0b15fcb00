//! A stream of a MUCP caller: messages each way at any time, not paired, on a connection that
//! carries nothing else meanwhile (contract, headers 4.2).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::StreamBody;
use proto::open::Messages;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::answers::{Answers, End, told};
use super::encode;
use super::failure::END_OF_STREAM;
use super::request::{self, OnStream, Request};
use super::serve::{Caller, framed, head, say, unframed, unreadable};
use super::socket::{Reader, Received};
use crate::begin::Beside;
use crate::body::{Body, BoxError};
use crate::error::Error;
use crate::metrics::{Face, Outcome};
use crate::proxy::Shared;

/// Messages that wait to be handed on; their sender waits with more.
const AHEAD: usize = 4;
/// How long a call goes on whose caller has ended its half and is gone: go-micro closes the
/// connection at once, and what it said before is still to arrive.
const LAST_WORD: Duration = Duration::from_secs(5);

type Sent = Result<Frame<Bytes>, BoxError>;

/// Serves one stream, of which the first message was read. `false`: the caller is gone.
///
/// # Errors
/// [`Error`], to be told as the last thing on the connection.
pub(super) async fn serve(caller: &mut Caller, first: Received) -> Result<bool, Error> {
    let began = Instant::now();
    let request = Request::read(&first.message)?;
    let Some(id) = request.echo.stream.clone() else {
        return Err(Error::Malformed("a stream has a name"));
    };
    let shared = Arc::clone(&caller.shared);
    let (sender, receiver) = mpsc::channel::<Sent>(AHEAD);
    let body = Body::new(StreamBody::new(ReceiverStream::new(receiver)));
    // The body of the first message only describes the call: servers of go-micro do not read it.
    drop(first);
    let mut beside = Beside { from: caller.from, messages: Messages::Many, ..Beside::default() };
    let write = &mut caller.write;
    let ended = {
        let mut down = Box::pin(down(&shared, &request, body, write, &mut beside));
        let up = up(&mut caller.reader, &request, &id, sender);
        tokio::select! {
            biased;
            ended = &mut down => ended,
            gone = up => match gone {
                // It may have closed by ending: what it said is still to be heard.
                Ok(Gone::AfterEnd) => {
                    let last = tokio::time::timeout(LAST_WORD, down).await;
                    last.unwrap_or(Err(Error::Cancelled))
                }
                Ok(Gone::Early) => Err(Error::Cancelled),
                Err(error) => Err(error),
            },
        }
    };
    let outcome = ended.as_ref().map_or_else(Outcome::from, |_| Outcome::Answered);
    shared.metrics.call(Face::Mucp, outcome, began.elapsed());
    caller.ended = Some(id);
    match ended {
        Ok(is_open) => Ok(is_open),
        Err(Error::Cancelled) => Ok(false),
        Err(error) => Err(error),
    }
}

/// How a caller went.
enum Gone {
    /// It had said that it ends.
    AfterEnd,
    /// In the middle.
    Early,
}

/// Hands on what the caller sends, until it is gone.
async fn up(
    reader: &mut Reader,
    request: &Request,
    id: &HeaderValue,
    sender: mpsc::Sender<Sent>,
) -> Result<Gone, Error> {
    let mut sender = Some(sender);
    loop {
        let next = match reader.next().await {
            Ok(next) => next,
            Err(broken) => unreadable(broken)?,
        };
        let Some(Received { message, room }) = next else {
            return Ok(if sender.is_some() { Gone::Early } else { Gone::AfterEnd });
        };
        match request::on_stream(&message, id)? {
            OnStream::Data => {
                let frame = framed(request, message.body)?;
                let Some(sender) = &sender else {
                    return Err(Error::Malformed("a message after the end of its stream"));
                };
                // When nobody takes it, the call has ended, and its end is on the way.
                let _ = sender.send(Ok(Frame::data(frame))).await;
            }
            OnStream::End => sender = None,
            OnStream::Failed => return Ok(Gone::Early),
        }
        drop(room);
    }
}

/// Carries the call and hands back what it is answered. `false`: the caller is gone.
async fn down(
    shared: &Arc<Shared>,
    request: &Request,
    body: Body,
    write: &mut OwnedWriteHalf,
    beside: &mut Beside,
) -> Result<bool, Error> {
    let Some(_counted) = shared.calls.enter(shared.limits.calls) else {
        let limit = shared.limits.calls;
        let error = Error::Overloaded { what: "this node is", limit };
        return Ok(fail(shared, request, write, beside, &error).await);
    };
    let reply = match shared.begin(head(request), body, true, beside).await {
        Ok(reply) => reply,
        Err(error @ (Error::Malformed(_) | Error::Cancelled)) => return Err(error),
        Err(error) => return Ok(fail(shared, request, write, beside, &error).await),
    };
    let mut answers = Answers::new(shared, reply);
    let content = &request.content.mucp;
    loop {
        let (metadata, error, body) = match answers.next(&mut beside.deadline).await {
            Ok(Some(gathered)) => {
                let mut metadata = std::mem::take(&mut answers.metadata);
                beside.tell(&mut metadata);
                (metadata, None, unframed(request, gathered.message))
            }
            Ok(None) => {
                let end = match answers.end() {
                    End::Well => HeaderValue::from_static(END_OF_STREAM),
                    End::Failed(error) => error,
                };
                let mut metadata = std::mem::take(&mut answers.metadata);
                beside.tell(&mut metadata);
                (metadata, Some(end), Bytes::new())
            }
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            Err(error) => return Ok(fail(shared, request, write, beside, &error).await),
        };
        let out = encode::response(&request.echo, content, &metadata, error.as_ref(), &body);
        if !say(write, &out).await {
            return Ok(false);
        }
        if error.is_some() {
            return Ok(true);
        }
    }
}

/// Ends the stream with an error of ours. `false`: the caller is gone.
async fn fail(
    shared: &Shared,
    request: &Request,
    write: &mut OwnedWriteHalf,
    beside: &mut Beside,
    error: &Error,
) -> bool {
    let (said, mut metadata): (_, HeaderMap) = told(shared, error);
    beside.tell(&mut metadata);
    let content = &request.content.mucp;
    let out = encode::response(&request.echo, content, &metadata, Some(&said), &[]);
    say(write, &out).await
}
