//! The first bytes of every stream that a node opens after the control stream.
//!
//! ```text
//! +-----------------+----------------------+
//! | length (varint) | fields, see wire     |   then, by kind: frames of an exchange, or raw bytes
//! +-----------------+----------------------+
//! ```

use bytes::{Bytes, BytesMut};

use crate::error::DecodeError;
use crate::varint;
use crate::wire::{self, Fields};

/// Bytes of an `Open`.
pub const MAX_OPEN: usize = 16 * 1024;
/// Nodes a call may pass.
pub const MAX_HOPS: u8 = 16;

/// What follows on the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenKind {
    /// One HTTP exchange: gRPC, HTTP/1.1 or HTTP/2, as frames of [`crate::exchange`].
    Exchange,
    /// Bytes both ways, each with its own end. The node of the service begins with one frame of
    /// [`crate::exchange`]: `LOAD` once the instance has taken the connection, `FAULT` if none has.
    /// Nothing is sent to it before.
    Bytes,
    /// [`crate::join::JoinRequest`], then its answer; allowed before membership is proven.
    Join,
    /// An empty question for a newer grant; [`crate::join::Answer`] comes back.
    Renew,
    /// Bytes that are sent back as they are: `micro network ping`.
    Echo,
    /// What the other end may send on its streams: see [`crate::credit`].
    Credit,
    /// Messages of topics, one way: see [`crate::publish`].
    Topics,
    /// Packets both ways, each for itself: as [`OpenKind::Bytes`], but what follows are packets, each
    /// behind its length (16 bits, big-endian). Those that fit go as datagrams that name the stream
    /// instead.
    Packets,
    /// A kind of a newer release.
    Other(u64),
}

/// Who asks for what, until when, and how it may be treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// What follows.
    pub kind: OpenKind,
    /// The service: the text of a [`crate::ServiceName`]. Empty for kinds that call none.
    pub service: Bytes,
    /// The instance that the caller's node chose; empty: any of the service on that node.
    pub instance: Bytes,
    /// Microseconds the caller still waits, from when this is sent; 0: no deadline.
    pub budget: u64,
    /// Nodes it may still pass; a node that reads 0 refuses.
    pub hops: u8,
    /// The calling service, as it named itself; for logs and the application, never for policy.
    pub caller: Bytes,
    /// W3C `traceparent`, as text; empty when there is none.
    pub trace: Bytes,
    /// The caller said that doing it twice does no harm.
    pub idempotent: bool,
    /// The caller wants to know where the time goes: the response says it.
    pub explain: bool,
    /// How many messages the call has, where the caller's protocol says so.
    pub messages: Messages,
}

/// How many messages of a gRPC exchange go each way. gRPC itself does not say; MUCP does, and needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Messages {
    /// Nobody said.
    #[default]
    Unknown,
    /// One each way.
    One,
    /// Any number each way, at any time.
    Many,
}

impl Open {
    /// A call of `kind` with everything else at its default.
    #[must_use]
    pub fn new(kind: OpenKind) -> Self {
        Self {
            kind,
            service: Bytes::new(),
            instance: Bytes::new(),
            budget: 0,
            hops: MAX_HOPS,
            caller: Bytes::new(),
            trace: Bytes::new(),
            idempotent: false,
            explain: false,
            messages: Messages::Unknown,
        }
    }

    /// Appends the length and the fields.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut body = BytesMut::with_capacity(
            32 + self.service.len() + self.instance.len() + self.caller.len() + self.trace.len(),
        );
        wire::put_int(&mut body, 1, self.kind.code());
        wire::put_bytes(&mut body, 2, &self.service);
        wire::put_bytes(&mut body, 3, &self.instance);
        wire::put_int(&mut body, 4, self.budget);
        wire::put_int(&mut body, 5, u64::from(self.hops));
        wire::put_bytes(&mut body, 6, &self.caller);
        wire::put_bytes(&mut body, 7, &self.trace);
        wire::put_int(&mut body, 8, u64::from(self.idempotent));
        wire::put_int(&mut body, 9, u64::from(self.explain));
        wire::put_int(&mut body, 10, self.messages.code());
        varint::put(out, body.len() as u64);
        out.extend_from_slice(&body);
    }

    /// Takes one `Open` off the front of `input`. `None` while it is incomplete; `input` is then
    /// as it was.
    ///
    /// # Errors
    /// [`DecodeError`] when it is longer than [`MAX_OPEN`] or not well formed. Final.
    pub fn decode(input: &mut BytesMut) -> Result<Option<Self>, DecodeError> {
        let mut rest = &input[..];
        let Some(length) = varint::take(&mut rest) else { return Ok(None) };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MAX_OPEN {
            return Err(DecodeError::TooLarge("open"));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let prefix = input.len() - rest.len();
        let _ = input.split_to(prefix);
        Self::parse(input.split_to(length).freeze()).map(Some)
    }

    /// [`Open::decode`] on bytes that are not to be copied: the common case, in which one packet
    /// brought all of it.
    ///
    /// # Errors
    /// As [`Open::decode`].
    pub fn take(input: &mut Bytes) -> Result<Option<Self>, DecodeError> {
        let mut rest = &input[..];
        let Some(length) = varint::take(&mut rest) else { return Ok(None) };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MAX_OPEN {
            return Err(DecodeError::TooLarge("open"));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let prefix = input.len() - rest.len();
        let _ = input.split_to(prefix);
        Self::parse(input.split_to(length)).map(Some)
    }

    fn parse(body: Bytes) -> Result<Self, DecodeError> {
        let mut open = Self::new(OpenKind::Other(0));
        open.hops = 0;
        let mut fields = Fields::new(body);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => open.kind = OpenKind::from_code(value.int("kind")?),
                2 => open.service = value.bytes("service", crate::name::MAX_NAME)?,
                3 => open.instance = value.bytes("instance", 512)?,
                4 => open.budget = value.int("budget")?,
                5 => {
                    let hops = u8::try_from(value.int("hops")?).unwrap_or(u8::MAX);
                    open.hops = hops.min(MAX_HOPS);
                }
                6 => open.caller = value.bytes("caller", 512)?,
                7 => open.trace = value.bytes("trace", 128)?,
                8 => open.idempotent = value.int("idempotent")? != 0,
                9 => open.explain = value.int("explain")? != 0,
                10 => open.messages = Messages::from_code(value.int("messages")?),
                tag => wire::unknown(tag)?,
            }
        }
        Ok(open)
    }
}

impl Messages {
    const fn code(self) -> u64 {
        match self {
            Self::Unknown => 0,
            Self::One => 1,
            Self::Many => 2,
        }
    }

    const fn from_code(code: u64) -> Self {
        match code {
            1 => Self::One,
            2 => Self::Many,
            _ => Self::Unknown,
        }
    }
}

impl OpenKind {
    const fn code(self) -> u64 {
        match self {
            Self::Exchange => 1,
            Self::Bytes => 2,
            Self::Join => 3,
            Self::Renew => 4,
            Self::Echo => 5,
            Self::Credit => 6,
            Self::Topics => 7,
            Self::Packets => 8,
            Self::Other(code) => code,
        }
    }

    const fn from_code(code: u64) -> Self {
        match code {
            1 => Self::Exchange,
            2 => Self::Bytes,
            3 => Self::Join,
            4 => Self::Renew,
            5 => Self::Echo,
            6 => Self::Credit,
            7 => Self::Topics,
            8 => Self::Packets,
            code => Self::Other(code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Open {
        Open {
            service: Bytes::from_static(b"go.micro.srv.greeter"),
            instance: Bytes::from_static(b"greeter-1"),
            budget: 4_998_687,
            idempotent: true,
            explain: true,
            messages: Messages::Many,
            ..Open::new(OpenKind::Exchange)
        }
    }

    #[test]
    fn an_open_is_taken_whole_and_what_follows_is_left() {
        let mut bytes = BytesMut::new();
        open().encode(&mut bytes);
        bytes.extend_from_slice(b"tail");
        assert_eq!(Open::decode(&mut bytes), Ok(Some(open())));
        assert_eq!(&bytes[..], b"tail");
    }

    #[test]
    fn every_prefix_of_an_open_is_incomplete_and_untouched() {
        let mut whole = BytesMut::new();
        open().encode(&mut whole);
        for end in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..end]);
            assert_eq!(Open::decode(&mut part), Ok(None));
            assert_eq!(part, whole[..end]);
        }
    }

    #[test]
    fn a_claimed_length_above_the_bound_is_refused_at_once() {
        let mut bytes = BytesMut::new();
        varint::put(&mut bytes, MAX_OPEN as u64 + 1);
        assert_eq!(Open::decode(&mut bytes), Err(DecodeError::TooLarge("open")));
    }
}
