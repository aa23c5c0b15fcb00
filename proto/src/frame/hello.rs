//! Who is at the other end.

use bytes::{Bytes, BytesMut};

use crate::error::DecodeError;
use crate::grant::{Credential, MAX_CREDENTIAL};
use crate::time::Epoch;
use crate::wire::{self, Fields};

/// The first frame of each side of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Lowest and highest protocol version spoken.
    pub protocol: (u32, u32),
    /// Membership. `None` from a node that is about to join: it may only open a join stream.
    pub credential: Option<Box<Credential>>,
    /// Which life of the node: a link of an older life is closed when a newer one appears.
    pub epoch: Epoch,
    /// The dialler wants to be neighbours: records flow over this link.
    pub neighbour: bool,
}

impl Hello {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        wire::put_int(out, 1, u64::from(self.protocol.0));
        wire::put_int(out, 2, u64::from(self.protocol.1));
        if let Some(credential) = &self.credential {
            wire::put_bytes(out, 3, &credential.encode());
        }
        wire::put_int(out, 4, self.epoch.0);
        wire::put_int(out, 5, u64::from(self.neighbour));
    }

    pub(super) fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let (mut lowest, mut highest, mut credential) = (0, 0, None);
        let (mut epoch, mut neighbour) = (0, false);
        let mut fields = Fields::new(body);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => lowest = value.int("protocol")?,
                2 => highest = value.int("protocol")?,
                3 => {
                    let bytes = value.bytes("credential", MAX_CREDENTIAL)?;
                    credential = Some(Box::new(Credential::decode(bytes)?));
                }
                4 => epoch = value.int("epoch")?,
                5 => neighbour = value.int("neighbour")? != 0,
                tag => wire::unknown(tag)?,
            }
        }
        let version = |v| u32::try_from(v).map_err(|_| DecodeError::Invalid("protocol"));
        let protocol = (version(lowest)?, version(highest)?);
        if protocol.0 == 0 || protocol.1 < protocol.0 {
            return Err(DecodeError::Invalid("protocol"));
        }
        Ok(Self { protocol, credential, epoch: Epoch(epoch), neighbour })
    }

    /// The highest version both ends speak.
    #[must_use]
    pub fn agreed(&self, ours: (u32, u32)) -> Option<u32> {
        let highest = self.protocol.1.min(ours.1);
        (highest >= self.protocol.0.max(ours.0)).then_some(highest)
    }
}
