//! How a ticket becomes a grant, and a grant a newer one: one question and one answer on a stream.

use bytes::{Bytes, BytesMut};

use crate::error::DecodeError;
use crate::grant::{Credential, MAX_CREDENTIAL};
use crate::ticket::{Secret, TicketId};
use crate::wire::{self, Fields};

/// Bytes of a question or answer.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// Bytes of keying material exported from the TLS session (RFC 8446 §7.5) that a proof is bound to.
pub const BINDING: usize = 32;
/// The exporter label.
pub const BINDING_LABEL: &[u8] = b"EXPORTER-micro-join";

/// The proof of a ticket: keyed BLAKE3 of the session's binding under the secret, so that it is
/// worth nothing in any other session and the secret itself never travels.
#[must_use]
pub fn proof(secret: &Secret, binding: &[u8; BINDING]) -> [u8; 32] {
    *blake3::keyed_hash(&secret.0, binding).as_bytes()
}

/// "Make me a member": what a joiner asks the issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// The ticket.
    pub ticket: TicketId,
    /// See [`proof`].
    pub proof: [u8; 32],
    /// The name the node would like to go by.
    pub name: String,
}

/// The issuer's answer, to a join or a renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A grant, signed.
    Granted(Box<Credential>),
    /// No grant, and why.
    Refused(Refusal),
}

/// Why there is no grant. Codes travel; texts are the reader's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No ticket with this id was ever made here, or its proof is wrong.
    #[error("the ticket is not known to its issuer")]
    Unknown,
    /// Used as often as it may be.
    #[error("the ticket has been used")]
    Spent,
    /// Past its end.
    #[error("the ticket has expired")]
    Expired,
    /// The node asked does not issue grants.
    #[error("this node does not issue grants")]
    NotAnIssuer,
    /// The issuer could not make it durable, or is asked too often.
    #[error("the issuer cannot do it now")]
    Unavailable,
    /// The member may not renew: revoked, or unknown to this issuer.
    #[error("the issuer does not renew this grant")]
    NotRenewed,
    /// A reason of a newer release.
    #[error("refused (reason {0})")]
    Other(u64),
}

impl Refusal {
    /// The number of the wire.
    #[must_use]
    pub const fn code(self) -> u64 {
        match self {
            Self::Unknown => 1,
            Self::Spent => 2,
            Self::Expired => 3,
            Self::NotAnIssuer => 4,
            Self::Unavailable => 5,
            Self::NotRenewed => 6,
            Self::Other(code) => code,
        }
    }

    /// From the number of the wire.
    #[must_use]
    pub const fn from_code(code: u64) -> Self {
        match code {
            1 => Self::Unknown,
            2 => Self::Spent,
            3 => Self::Expired,
            4 => Self::NotAnIssuer,
            5 => Self::Unavailable,
            6 => Self::NotRenewed,
            code => Self::Other(code),
        }
    }
}

impl JoinRequest {
    /// As it travels.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        wire::put_bytes(&mut out, 1, &self.ticket.0);
        wire::put_bytes(&mut out, 2, &self.proof);
        wire::put_bytes(&mut out, 3, self.name.as_bytes());
        out.freeze()
    }

    /// From [`JoinRequest::encode`].
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not a request.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let (mut ticket, mut proof, mut name) = (None, None, String::new());
        let mut fields = Fields::new(bytes);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => ticket = Some(TicketId(value.array("ticket id")?)),
                2 => proof = Some(value.array("proof")?),
                3 => name = value.text("node name", 128)?,
                tag => wire::unknown(tag)?,
            }
        }
        Ok(Self {
            ticket: ticket.ok_or(DecodeError::Missing("ticket id"))?,
            proof: proof.ok_or(DecodeError::Missing("proof"))?,
            name,
        })
    }
}

impl Answer {
    /// As it travels.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Granted(credential) => wire::put_bytes(&mut out, 1, &credential.encode()),
            Self::Refused(refusal) => wire::put_int(&mut out, 2, refusal.code()),
        }
        out.freeze()
    }

    /// From [`Answer::encode`].
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not an answer.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(bytes);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => {
                    let bytes = value.bytes("credential", MAX_CREDENTIAL)?;
                    return Ok(Self::Granted(Box::new(Credential::decode(bytes)?)));
                }
                2 => return Ok(Self::Refused(Refusal::from_code(value.int("refusal")?))),
                tag => wire::unknown(tag)?,
            }
        }
        Err(DecodeError::Missing("answer"))
    }
}
