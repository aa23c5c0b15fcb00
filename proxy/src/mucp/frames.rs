//! Messages of gRPC out of a body and into one (gRPC over HTTP/2, "Length-Prefixed-Message").

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::HeaderMap;
use tokio::sync::OwnedSemaphorePermit;

use super::socket::{NoRoom, Room};
use crate::body::{BodyError, Part};
use crate::source::{Ended, Source};

/// Bytes before each message: a compression flag and a length.
pub(crate) const PREFIX: usize = 5;

/// The messages of one body.
pub(crate) struct Frames {
    source: Box<Source>,
    buffer: BytesMut,
    room: Room,
    /// For the message that is being gathered.
    held: Option<OwnedSemaphorePermit>,
    trailers: Option<HeaderMap>,
    ended: bool,
}

/// One message, and the room it takes until dropped.
pub(crate) struct Gathered {
    pub(crate) message: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// Why no message came.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// The body ended early.
    Ended(Ended),
    NoRoom,
}

impl Frames {
    /// Takes the messages out of `source`, which bounds each.
    pub(crate) fn new(source: Box<Source>, room: Room) -> Self {
        let buffer = BytesMut::new();
        Self { source, buffer, room, held: None, trailers: None, ended: false }
    }

    /// The next message; `None` at the end. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<Option<Gathered>, Stopped> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Gathered>, Stopped>> {
        loop {
            if let Some(gathered) = self.take()? {
                return Poll::Ready(Ok(Some(gathered)));
            }
            if self.ended {
                return Poll::Ready(match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(broken("it ends within a message")),
                });
            }
            match ready!(self.source.poll_part(cx)) {
                None => self.ended = true,
                Some(Ok(Part::Data(data))) => self.buffer.extend_from_slice(&data),
                Some(Ok(Part::Trailers(trailers))) => {
                    self.trailers = Some(trailers);
                    self.ended = true;
                }
                Some(Err(ended)) => return Poll::Ready(Err(Stopped::Ended(ended))),
            }
        }
    }

    fn take(&mut self) -> Result<Option<Gathered>, Stopped> {
        let Some(prefix) = self.buffer.get(..PREFIX) else { return Ok(None) };
        if prefix[0] != 0 {
            return Err(broken("a compressed message cannot be translated"));
        }
        let length = (&prefix[1..]).get_u32() as usize;
        if self.held.is_none() {
            self.held = self.room.take(length).map_err(|NoRoom| Stopped::NoRoom)?;
        }
        if self.buffer.len() < PREFIX + length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        let message = self.buffer.split_to(length).freeze();
        Ok(Some(Gathered { message, _room: self.held.take() }))
    }

    /// The trailers, once the end was reached.
    pub(crate) fn take_trailers(&mut self) -> HeaderMap {
        self.trailers.take().unwrap_or_default()
    }

    pub(crate) fn source(&mut self) -> &mut Source {
        &mut self.source
    }

    /// Gives the body back, to be sent elsewhere from its start.
    pub(crate) fn into_source(self) -> Box<Source> {
        self.source
    }
}

fn broken(why: &str) -> Stopped {
    Stopped::Ended(Ended::Body(BodyError::Protocol(why.to_owned())))
}

/// A message as gRPC sends it.
pub(crate) fn frame(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX + message.len());
    out.put_u8(0);
    // Every message is read with a bound far below.
    out.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    out.put_slice(message);
    out.freeze()
}

/// Whether `bytes` are one message as gRPC sends it, and nothing more.
pub(crate) fn is_one(bytes: &[u8]) -> bool {
    bytes.len() >= PREFIX
        && bytes[0] == 0
        && (&bytes[1..PREFIX]).get_u32() as usize == bytes.len() - PREFIX
}
