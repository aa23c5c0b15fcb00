//! A grant that proves itself.

use bytes::{Bytes, BytesMut};

use super::{Grant, Issuer, signed};
use crate::error::DecodeError;
use crate::id::{NetworkId, NodeId, PublicKey, Signature};
use crate::sign::{Sign, Verify};
use crate::time::UnixTime;
use crate::wire::{self, Fields};

/// Bytes of a whole credential.
pub const MAX_CREDENTIAL: usize = 16 * 1024;

const DOMAIN: &[u8] = b"micro network 2026 grant\0";

/// A grant with the proof that it holds. Not yet checked: see [`Credential::check`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    issuer: Issuer,
    grant: Grant,
    bytes: Bytes,
    signature: Signature,
}

/// Why a credential does not make its holder a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The bytes are not a credential.
    #[error("the grant cannot be read: {0}")]
    Unreadable(#[from] DecodeError),
    /// Signed under another root.
    #[error("the grant is for another network")]
    ForeignNetwork,
    /// For another key than the one proven.
    #[error("the grant is for another node")]
    ForeignNode,
    /// A signature of the chain does not match.
    #[error("the grant is not signed by this network")]
    Forged,
    /// Its time has not come.
    #[error("the grant is not valid yet; is the clock right?")]
    TooEarly,
    /// Its time is over.
    #[error("the grant has expired")]
    Expired,
}

impl Credential {
    /// What `issuer`, the holder of `key`, grants.
    pub(super) fn sign(issuer: Issuer, key: &dyn Sign, grant: &Grant) -> Self {
        let bytes = grant.encode();
        let signature = key.sign(&signed(DOMAIN, &bytes));
        Self { issuer, grant: grant.clone(), bytes, signature }
    }

    /// What it grants, if [`Credential::check`] passes.
    #[must_use]
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// The node it is for.
    #[must_use]
    pub fn node(&self) -> NodeId {
        NodeId::of(&self.grant.key)
    }

    /// The node whose issuer key signed it.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Checks the whole chain: root is the network, issuer by root, grant by issuer, key is
    /// `holder`, and that `now` is within both terms.
    ///
    /// # Errors
    /// [`Refused`] names the first link that does not hold.
    pub fn check(
        &self,
        network: NetworkId,
        holder: &PublicKey,
        now: UnixTime,
        with: &dyn Verify,
    ) -> Result<(), Refused> {
        if self.issuer.network() != network || self.grant.network != network {
            return Err(Refused::ForeignNetwork);
        }
        if self.grant.key != *holder {
            return Err(Refused::ForeignNode);
        }
        let grant = signed(DOMAIN, &self.bytes);
        if !self.issuer.is_appointed(with)
            || !with.verify(&self.issuer.key, &grant, &self.signature)
        {
            return Err(Refused::Forged);
        }
        if now < self.grant.not_before {
            return Err(Refused::TooEarly);
        }
        if now >= self.expires() {
            return Err(Refused::Expired);
        }
        Ok(())
    }

    /// The second from which it no longer holds: its own end or its issuer's, what is earlier.
    #[must_use]
    pub fn expires(&self) -> UnixTime {
        self.grant.not_after.min(self.issuer.not_after)
    }

    /// As it travels.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        wire::put_bytes(&mut out, 1, &self.issuer.encode());
        wire::put_bytes(&mut out, 2, &self.bytes);
        wire::put_bytes(&mut out, 3, self.signature.as_bytes());
        out.freeze()
    }

    /// From [`Credential::encode`].
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not a credential.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_CREDENTIAL {
            return Err(DecodeError::TooLarge("credential"));
        }
        let (mut issuer, mut body, mut signature) = (None, Bytes::new(), None);
        let mut fields = Fields::new(bytes);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => issuer = Some(Issuer::decode(value.bytes("issuer", 4096)?)?),
                2 => body = value.bytes("grant", MAX_CREDENTIAL)?,
                3 => signature = Some(Signature::from_bytes(value.array("signature")?)),
                tag => wire::unknown(tag)?,
            }
        }
        Ok(Self {
            issuer: issuer.ok_or(DecodeError::Missing("issuer"))?,
            grant: Grant::decode(body.clone())?,
            bytes: body,
            signature: signature.ok_or(DecodeError::Missing("signature"))?,
        })
    }
}
