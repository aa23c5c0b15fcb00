//! One half of a connection: its bytes, as messages.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf, ReuniteError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::message::{Decoder, Malformed, Message, Side};
use crate::limits::Limits;

/// Bytes of larger messages that may be gathered at a time over all connections: sixteen of the
/// largest. A call beyond is refused: waiting would be for others that wait in turn.
pub(crate) const ROOM: usize = 64 * 1024 * 1024;
/// Bytes of a message for which no room is asked: most are far smaller.
const SMALL: usize = 64 * 1024;
/// Bytes read while nobody asks for a message, so that a caller that goes is noticed.
const AHEAD: usize = 16 * 1024;

/// A message, and the room it takes until dropped.
pub(crate) struct Received {
    pub(crate) message: Message,
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

/// Where a byte of a stream of messages is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Between,
    Head,
    Body,
}

/// Why no message came.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The other end is gone, perhaps in the middle of a message.
    Gone(Option<io::Error>),
    Malformed(Malformed),
    NoRoom,
}

/// Room for large messages, shared by all connections. Cheap to clone: a handle.
#[derive(Clone)]
pub(crate) struct Room(Arc<Semaphore>);

impl Room {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(ROOM)))
    }

    /// Room for `bytes`; nothing is counted where they are few.
    pub(crate) fn take(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, NoRoom> {
        if bytes <= SMALL {
            return Ok(None);
        }
        let permits = u32::try_from(bytes).map_err(|_| NoRoom)?;
        Arc::clone(&self.0).try_acquire_many_owned(permits).map(Some).map_err(|_| NoRoom)
    }
}

/// There is no room for one more large message now.
#[derive(Debug)]
pub(crate) struct NoRoom;

/// Reads messages.
pub(crate) struct Reader {
    half: OwnedReadHalf,
    input: BytesMut,
    decoder: Decoder,
    room: Room,
    held: Option<OwnedSemaphorePermit>,
    most: usize,
}

impl Reader {
    /// Reads what comes after `seen`.
    pub(crate) fn new(
        half: OwnedReadHalf,
        seen: BytesMut,
        side: Side,
        limits: &Limits,
        room: Room,
    ) -> Self {
        let most = limits.message as usize;
        // A frame of gRPC around the largest message is still one.
        let decoder = Decoder::new(side, limits.head as usize, most + super::frames::PREFIX);
        Self { half, input: seen, decoder, room, held: None, most }
    }

    /// The message that is there whole, if one is. What is read but not whole stays.
    pub(crate) fn take(&mut self) -> Result<Option<Received>, Broken> {
        let message = self.decoder.decode(&mut self.input).map_err(Broken::Malformed)?;
        if message.is_none() && self.held.is_none() && self.input.len() > SMALL {
            self.held = self.room.take(self.most).map_err(|NoRoom| Broken::NoRoom)?;
        }
        Ok(message.map(|message| Received { message, room: self.held.take() }))
    }

    /// The next message; `None` when the other end closed between two. Nothing is lost when the
    /// future is dropped.
    pub(crate) async fn next(&mut self) -> Result<Option<Received>, Broken> {
        loop {
            if let Some(received) = self.take()? {
                return Ok(Some(received));
            }
            if self.more().await? == 0 {
                return if self.at() == Place::Between {
                    Ok(None)
                } else {
                    Err(Broken::Gone(None))
                };
            }
        }
    }

    /// Reads more bytes; 0 at the end.
    pub(crate) async fn more(&mut self) -> Result<usize, Broken> {
        self.half.read_buf(&mut self.input).await.map_err(|error| Broken::Gone(Some(error)))
    }

    /// Whether the sender waits for a word before it sends the body; says so once.
    pub(crate) fn take_expectation(&mut self) -> bool {
        self.decoder.take_expectation()
    }

    /// Where in a message the next byte is.
    pub(crate) fn at(&self) -> Place {
        match self.decoder.is_between() {
            true if self.input.is_empty() => Place::Between,
            true => Place::Head,
            false => Place::Body,
        }
    }

    /// Waits until the other end is gone. Reads on meanwhile, as far as there is room.
    pub(crate) async fn gone(&mut self) {
        while self.input.len() < AHEAD {
            if !matches!(self.more().await, Ok(1..)) {
                return;
            }
        }
        std::future::pending().await
    }

    /// The whole connection again.
    pub(crate) fn reunite(self, write: OwnedWriteHalf) -> Result<TcpStream, ReuniteError> {
        self.half.reunite(write)
    }

    /// Whether the connection is open and nothing was read from it that nobody asked for.
    pub(crate) fn is_idle(&self) -> bool {
        let mut one = [0];
        let nothing = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        self.at() == Place::Between
            && self.half.try_read(&mut one).is_err_and(|error| nothing(&error))
    }
}
