//! What a node says about its link with one neighbour.

use bytes::{Bytes, BytesMut};

use crate::cost::Cost;
use crate::error::DecodeError;
use crate::wire::{self, Fields};

/// How the packets of a link travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathKind {
    /// UDP between the two.
    #[default]
    Direct,
    /// Through a relay.
    Relay,
    /// A kind of a newer release.
    Other(u64),
}

/// A link, as one end sees it. Used only when the other end says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adjacency {
    /// What a round trip costs; [`Cost::INFINITE`] while the link is suspected of being dead.
    pub cost: Cost,
    /// How its packets travel.
    pub path: PathKind,
}

impl Adjacency {
    pub(super) fn encode(self) -> Bytes {
        let mut out = BytesMut::new();
        wire::put_int(&mut out, 1, u64::from(self.cost.as_micros()));
        let path = match self.path {
            PathKind::Direct => 0,
            PathKind::Relay => 1,
            PathKind::Other(code) => code,
        };
        wire::put_int(&mut out, 2, path);
        out.freeze()
    }

    pub(super) fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let (mut cost, mut path) = (0, PathKind::Direct);
        let mut fields = Fields::new(body);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => {
                    cost = u32::try_from(value.int("cost")?)
                        .map_err(|_| DecodeError::Invalid("cost"))?;
                }
                2 => {
                    path = match value.int("path")? {
                        0 => PathKind::Direct,
                        1 => PathKind::Relay,
                        code => PathKind::Other(code),
                    }
                }
                tag => wire::unknown(tag)?,
            }
        }
        Ok(Self { cost: Cost::from_micros(cost), path })
    }
}
