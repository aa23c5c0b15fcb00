//! What a node says about itself.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};

use crate::error::DecodeError;
use crate::grant::{Credential, MAX_CREDENTIAL};
use crate::label::{LabelReader, LabelSet};
use crate::wire::{self, Fields};

/// Addresses one node may announce.
pub const MAX_ADDRESSES: usize = 16;

/// A node: how it is called, where it is, what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// For people; not unique, decides nothing.
    pub name: String,
    /// Where it is: free text with `/`, as `eu/fra`.
    pub region: String,
    /// Its labels; instances inherit them.
    pub labels: LabelSet,
    /// UDP addresses it may be reached at, best first.
    pub addresses: Vec<SocketAddr>,
    /// The release it runs, for people.
    pub release: String,
    /// Lowest and highest protocol version it speaks.
    pub protocol: (u32, u32),
    /// Its membership; boxed, for it is most of the size.
    pub credential: Box<Credential>,
}

impl Node {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        wire::put_bytes(&mut out, 1, self.name.as_bytes());
        wire::put_bytes(&mut out, 2, self.region.as_bytes());
        self.labels.put(&mut out, 3);
        for address in &self.addresses {
            wire::put_item(&mut out, 5, address.to_string().as_bytes());
        }
        wire::put_bytes(&mut out, 6, self.release.as_bytes());
        wire::put_int(&mut out, 7, u64::from(self.protocol.0));
        wire::put_int(&mut out, 8, u64::from(self.protocol.1));
        wire::put_bytes(&mut out, 9, &self.credential.encode());
        out.freeze()
    }

    pub(super) fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let (mut name, mut region, mut release) = (String::new(), String::new(), String::new());
        let (mut labels, mut addresses) = (LabelReader::default(), Vec::new());
        let (mut lowest, mut highest, mut credential) = (0, 0, None);
        let mut fields = Fields::new(body);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => name = value.text("node name", 128)?,
                2 => region = value.text("region", 128)?,
                3 => labels.key(value)?,
                4 => labels.value(value)?,
                5 if addresses.len() == MAX_ADDRESSES => {
                    return Err(DecodeError::TooLarge("addresses"));
                }
                5 => {
                    let text = value.text("address", 64)?;
                    addresses.push(text.parse().map_err(|_| DecodeError::Invalid("address"))?);
                }
                6 => release = value.text("release", 64)?,
                7 => lowest = version(value)?,
                8 => highest = version(value)?,
                9 => credential = Some(value.bytes("credential", MAX_CREDENTIAL)?),
                tag => wire::unknown(tag)?,
            }
        }
        let credential = credential.ok_or(DecodeError::Missing("credential"))?;
        Ok(Self {
            name,
            region,
            labels: labels.done()?,
            addresses,
            release,
            protocol: (lowest, highest),
            credential: Box::new(Credential::decode(credential)?),
        })
    }
}

fn version(value: wire::Value) -> Result<u32, DecodeError> {
    u32::try_from(value.int("protocol")?).map_err(|_| DecodeError::Invalid("protocol"))
}
