//! How two neighbours find out what only one of them knows.
//!
//! Three steps, each sent only where the one before found a difference: hashes of the whole
//! database in buckets by origin ([`Digest`]), versions of what is held of the origins in the
//! buckets that differ ([`Summary`]), and the records that turn out to be missing, sent or asked
//! for ([`Want`]).

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::DecodeError;
use crate::id::NodeId;
use crate::record::{Kind, MAX_KEY, RecordId};
use crate::time::{Epoch, Seq, Version};
use crate::varint;
use crate::wire::{self, Fields};

/// Buckets of a digest: origins are spread over them by the first byte of their id.
pub const MAX_BUCKETS: usize = 256;

/// A hash of everything held, by bucket; 0 for an empty bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Exactly [`MAX_BUCKETS`] hashes.
    pub buckets: Vec<u64>,
}

/// What is held of some origins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The buckets this is complete for: an origin of theirs that is not named is not held.
    pub buckets: Vec<u8>,
    /// By origin.
    pub origins: Vec<OriginDigest>,
    /// It answers a summary: do not answer with one again.
    pub reply: bool,
}

/// What is held of one origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginDigest {
    /// The origin.
    pub origin: NodeId,
    /// Kind, key and version of each record held, tombstones included.
    pub records: Vec<(Kind, Bytes, Version)>,
}

/// A request for records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Those that are asked for.
    pub records: Vec<RecordId>,
}

impl Digest {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        let mut hashes = BytesMut::with_capacity(self.buckets.len() * 8);
        for bucket in &self.buckets {
            hashes.put_u64(*bucket);
        }
        wire::put_bytes(out, 1, &hashes);
    }

    pub(super) fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut buckets = Vec::new();
        let mut fields = Fields::new(body);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => {
                    let hashes = value.bytes("digest", MAX_BUCKETS * 8)?;
                    let (chunks, _) = hashes.as_chunks::<8>();
                    buckets = chunks.iter().map(|hash| u64::from_be_bytes(*hash)).collect();
                }
                tag => wire::unknown(tag)?,
            }
        }
        if buckets.len() != MAX_BUCKETS {
            return Err(DecodeError::Invalid("digest"));
        }
        Ok(Self { buckets })
    }
}

impl Summary {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        wire::put_bytes(out, 1, &self.buckets);
        for origin in &self.origins {
            wire::put_message(out, 2, |out| origin.encode(out));
        }
        wire::put_int(out, 3, u64::from(self.reply));
    }

    pub(super) fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut summary = Self::default();
        let mut fields = Fields::new(body);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => summary.buckets = value.bytes("buckets", MAX_BUCKETS)?.to_vec(),
                2 => {
                    let bytes = value.bytes("origin", super::MAX_FRAME)?;
                    summary.origins.push(OriginDigest::decode(&bytes)?);
                }
                3 => summary.reply = value.int("reply")? != 0,
                tag => wire::unknown(tag)?,
            }
        }
        Ok(summary)
    }
}

impl OriginDigest {
    /// ```text
    /// origin (32) | then for each record:
    /// kind (varint) | key length (varint) | key | epoch (varint) | seq (varint)
    /// ```
    fn encode(&self, out: &mut BytesMut) {
        out.put_slice(self.origin.as_bytes());
        for (kind, key, version) in &self.records {
            varint::put(out, u64::from(kind.0));
            varint::put(out, key.len() as u64);
            out.put_slice(key);
            varint::put(out, version.epoch.0);
            varint::put(out, version.seq.0);
        }
    }

    fn decode(body: &Bytes) -> Result<Self, DecodeError> {
        let (origin, mut rest) =
            body.split_first_chunk::<32>().ok_or(DecodeError::Truncated("origin"))?;
        let mut records = Vec::new();
        while !rest.is_empty() {
            let kind = take(&mut rest)?;
            let kind = Kind(u8::try_from(kind).map_err(|_| DecodeError::Invalid("kind"))?);
            let length = usize::try_from(take(&mut rest)?).unwrap_or(usize::MAX);
            if length > MAX_KEY {
                return Err(DecodeError::TooLarge("key"));
            }
            let (key, after) =
                rest.split_at_checked(length).ok_or(DecodeError::Truncated("key"))?;
            rest = after;
            let key = body.slice_ref(key);
            let version = Version { epoch: Epoch(take(&mut rest)?), seq: Seq(take(&mut rest)?) };
            records.push((kind, key, version));
        }
        Ok(Self { origin: NodeId::from_bytes(*origin), records })
    }
}

impl Want {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        for id in &self.records {
            wire::put_message(out, 1, |out| {
                out.put_slice(id.origin.as_bytes());
                out.put_u8(id.kind.0);
                out.put_slice(&id.key);
            });
        }
    }

    pub(super) fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut records = Vec::new();
        let mut fields = Fields::new(body);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => {
                    let mut bytes = value.bytes("wanted", 33 + MAX_KEY)?;
                    let origin = bytes
                        .first_chunk::<32>()
                        .map(|origin| NodeId::from_bytes(*origin))
                        .ok_or(DecodeError::Truncated("wanted"))?;
                    let kind = *bytes.get(32).ok_or(DecodeError::Truncated("wanted"))?;
                    let key = bytes.split_off(33);
                    records.push(RecordId { origin, kind: Kind(kind), key });
                }
                tag => wire::unknown(tag)?,
            }
        }
        Ok(Self { records })
    }
}

fn take(rest: &mut &[u8]) -> Result<u64, DecodeError> {
    varint::take(rest).ok_or(DecodeError::Truncated("summary"))
}
