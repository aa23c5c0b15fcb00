//! What a node says of a call that it could not carry: always distinguishable from what a service
//! says.

use bytes::{Bytes, BytesMut};

use crate::error::DecodeError;
use crate::id::NodeId;
use crate::wire::{self, Fields};

/// The codes with which a stream between nodes is reset or stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// The other end is no longer interested: the caller went away or cancelled.
    Cancelled,
    /// The service has certainly not seen the request: another instance may be tried.
    Unseen,
    /// The service may have seen the request.
    Broken,
    /// The service's own end reset the exchange.
    ServiceReset,
    /// What was sent does not follow the protocol.
    Protocol,
    /// A bound was reached.
    TooMuch,
    /// The deadline passed.
    Deadline,
    /// A code of a newer release: read as [`Code::Broken`].
    Other(u64),
}

impl Code {
    /// The number of the wire: an application error code of QUIC (RFC 9000 §20.2).
    #[must_use]
    pub const fn to_wire(self) -> u64 {
        match self {
            Self::Cancelled => 0x10,
            Self::Unseen => 0x11,
            Self::Broken => 0x12,
            Self::ServiceReset => 0x13,
            Self::Protocol => 0x14,
            Self::TooMuch => 0x15,
            Self::Deadline => 0x16,
            Self::Other(code) => code,
        }
    }

    /// From the number of the wire.
    #[must_use]
    pub const fn from_wire(code: u64) -> Self {
        match code {
            0x10 => Self::Cancelled,
            0x11 => Self::Unseen,
            0x12 => Self::Broken,
            0x13 => Self::ServiceReset,
            0x14 => Self::Protocol,
            0x15 => Self::TooMuch,
            0x16 => Self::Deadline,
            code => Self::Other(code),
        }
    }

    /// Whether the service has certainly not seen the request.
    #[must_use]
    pub const fn is_unseen(self) -> bool {
        matches!(self, Self::Unseen)
    }
}

/// Why a call was not carried to its end, in a form that travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The number behind the `M`: 1203 for `M1203`. Never reused.
    pub code: u16,
    /// One line for people: what happened.
    pub what: String,
    /// The node where it was first known.
    pub node: NodeId,
    /// The service has certainly not seen the request.
    pub unseen: bool,
    /// Milliseconds after which trying again makes sense; 0: no hint.
    pub retry_after: u32,
}

/// Bytes of an encoded fault.
pub const MAX_FAULT: usize = 4096;

impl Fault {
    /// Appends the fields.
    pub fn encode(&self, out: &mut BytesMut) {
        let end = self.what.floor_char_boundary(1024);
        wire::put_int(out, 1, u64::from(self.code));
        wire::put_bytes(out, 2, &self.what.as_bytes()[..end]);
        wire::put_bytes(out, 3, self.node.as_bytes());
        wire::put_int(out, 4, u64::from(self.unseen));
        wire::put_int(out, 5, u64::from(self.retry_after));
    }

    /// From [`Fault::encode`].
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not a fault.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let (mut code, mut what, mut node, mut unseen, mut retry_after) =
            (None, String::new(), None, false, 0);
        let mut fields = Fields::new(bytes);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => code = u16::try_from(value.int("code")?).ok(),
                2 => what = value.text("what", 1024)?,
                3 => node = Some(NodeId::from_bytes(value.array("node")?)),
                4 => unseen = value.int("unseen")? != 0,
                5 => retry_after = u32::try_from(value.int("retry after")?).unwrap_or(u32::MAX),
                tag => wire::unknown(tag)?,
            }
        }
        Ok(Self {
            code: code.ok_or(DecodeError::Missing("code"))?,
            what,
            node: node.ok_or(DecodeError::Missing("node"))?,
            unseen,
            retry_after,
        })
    }
}
