//! Who may sign grants.

use bytes::{Bytes, BytesMut};

use super::{Credential, Grant, signed};
use crate::error::DecodeError;
use crate::id::{NetworkId, PublicKey, Signature};
use crate::sign::{Sign, Verify};
use crate::time::UnixTime;
use crate::wire::{self, Fields};

const DOMAIN: &[u8] = b"micro network 2026 issuer\0";

/// An issuer, as the root of the network signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    pub(super) root: PublicKey,
    pub(super) key: PublicKey,
    pub(super) not_after: UnixTime,
    bytes: Bytes,
    signature: Signature,
}

impl Issuer {
    /// Lets the root appoint the holder of `key` as an issuer until `not_after`.
    #[must_use]
    pub fn appoint(root: &dyn Sign, key: PublicKey, not_after: UnixTime) -> Self {
        let mut out = BytesMut::new();
        wire::put_bytes(&mut out, 1, key.as_bytes());
        wire::put_int(&mut out, 2, not_after.0);
        let bytes = out.freeze();
        let signature = root.sign(&signed(DOMAIN, &bytes));
        Self { root: root.public_key(), key, not_after, bytes, signature }
    }

    /// The network it issues for: the hash of the root that appointed it.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        NetworkId::of(&self.root)
    }

    /// The key that signs grants.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// The end of its appointment.
    #[must_use]
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// As bytes, to be kept with the issuer's key.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        wire::put_bytes(&mut out, 1, self.root.as_bytes());
        wire::put_bytes(&mut out, 2, &self.bytes);
        wire::put_bytes(&mut out, 3, self.signature.as_bytes());
        out.freeze()
    }

    /// From [`Issuer::encode`]. The signature is not checked here: [`Credential::check`] does.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not an appointment.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let (mut root, mut body, mut signature) = (None, Bytes::new(), None);
        let mut fields = Fields::new(bytes);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => root = Some(PublicKey::from_bytes(value.array("root")?)),
                2 => body = value.bytes("issuer", 1024)?,
                3 => signature = Some(Signature::from_bytes(value.array("signature")?)),
                tag => wire::unknown(tag)?,
            }
        }
        let (mut key, mut not_after) = (None, 0);
        let mut fields = Fields::new(body.clone());
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => key = Some(PublicKey::from_bytes(value.array("issuer key")?)),
                2 => not_after = value.int("not after")?,
                tag => wire::unknown(tag)?,
            }
        }
        Ok(Self {
            root: root.ok_or(DecodeError::Missing("root"))?,
            key: key.ok_or(DecodeError::Missing("issuer key"))?,
            not_after: UnixTime(not_after),
            bytes: body,
            signature: signature.ok_or(DecodeError::Missing("signature"))?,
        })
    }

    /// Whether the root has appointed it.
    pub(super) fn is_appointed(&self, with: &dyn Verify) -> bool {
        with.verify(&self.root, &signed(DOMAIN, &self.bytes), &self.signature)
    }

    /// Signs `grant` with this issuer's private key.
    #[must_use]
    pub fn issue(&self, key: &dyn Sign, grant: &Grant) -> Credential {
        Credential::sign(self.clone(), key, grant)
    }
}
