//! gRPC messages out of a request body (gRPC over HTTP/2, "Length-Prefixed-Message").

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use std::sync::Arc;

use crate::body::Body;

/// Bytes of one message, as go-micro and gRPC libraries have it by default.
pub(super) const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// Bytes of a message for which no room is asked: any registration fits.
const SMALL: usize = 64 * 1024;
/// Bytes of larger messages that may be gathered at a time, over all calls: sixteen of the largest.
pub(super) const ROOM: usize = 16 * MAX_MESSAGE;
/// Flag and length.
const PREFIX: usize = 5;

/// Why no message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("a message of {0} bytes is larger than the limit of {MAX_MESSAGE}")]
    TooLong(usize),
    #[error("too many large messages at a time")]
    NoRoom,
    #[error("compressed messages are not taken here; send grpc-encoding identity")]
    Compressed,
    #[error("the request ended within a message")]
    Truncated,
    #[error("the request was given up")]
    Gone,
}

/// The messages of one request.
pub(super) struct Messages {
    body: Body,
    buffer: BytesMut,
    room: Arc<Semaphore>,
}

/// One message, and the room it takes until dropped.
pub(super) struct Gathered {
    pub(super) message: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl Messages {
    /// `room` holds [`ROOM`] permits and is shared by all calls.
    pub(super) fn new(body: Body, room: Arc<Semaphore>) -> Self {
        Self { body, buffer: BytesMut::new(), room }
    }

    /// The next message; `None` when the caller half-closed after a whole one.
    ///
    /// # Errors
    /// [`Broken`] says what is wrong; the request is of no use then.
    pub(super) async fn next(&mut self) -> Result<Option<Gathered>, Broken> {
        while self.buffer.len() < PREFIX {
            if !self.more().await? {
                return if self.buffer.is_empty() { Ok(None) } else { Err(Broken::Truncated) };
            }
        }
        let compressed = self.buffer[0] != 0;
        let length = (&self.buffer[1..PREFIX]).get_u32() as usize;
        if compressed {
            return Err(Broken::Compressed);
        }
        if length > MAX_MESSAGE {
            return Err(Broken::TooLong(length));
        }
        let room = self.room_for(length)?;
        while self.buffer.len() < PREFIX + length {
            if !self.more().await? {
                return Err(Broken::Truncated);
            }
        }
        self.buffer.advance(PREFIX);
        Ok(Some(Gathered { message: self.buffer.split_to(length).freeze(), _room: room }))
    }

    /// Waits until the caller half-closes or goes; what it sends meanwhile is let fall.
    pub(super) async fn ended(&mut self) -> Result<(), Broken> {
        self.buffer.clear();
        while self.more().await? {
            self.buffer.clear();
        }
        Ok(())
    }

    fn room_for(&self, length: usize) -> Result<Option<OwnedSemaphorePermit>, Broken> {
        if length <= SMALL {
            return Ok(None);
        }
        let permits = u32::try_from(length).map_err(|_| Broken::TooLong(length))?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(permits);
        room.map(Some).map_err(|_| Broken::NoRoom)
    }

    /// Adds what comes next to the buffer; false at the end.
    async fn more(&mut self) -> Result<bool, Broken> {
        loop {
            match self.body.frame().await {
                None => return Ok(false),
                Some(Err(_)) => return Err(Broken::Gone),
                Some(Ok(frame)) => {
                    // Trailers of a request say nothing that is of use here.
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                        return Ok(true);
                    }
                }
            }
        }
    }
}
