//! Messages of topics on their way between nodes: one stream a direction and lane, of frames.
//!
//! ```text
//! +---------------+-----------------+--------------------+
//! | kind (varint) | length (varint) | body, length bytes |
//! +---------------+-----------------+--------------------+
//!
//! WHOLE 1   head length (varint) | head | payload            a message of at most CHUNK bytes
//! BEGIN 2   slot (1 byte) | payload length (varint) | head   a longer one begins
//! PART  3   slot (1 byte) | payload, at most CHUNK bytes     more of it; its last part ends it
//! ```
//!
//! Long messages are cut, so that what is published to other topics need not wait for their end.
//! A frame of a newer release is skipped. See [`head`] for what stands before a payload.

pub mod head;
mod headers;

use bytes::{BufMut, Bytes, BytesMut};

pub use head::{Delivery, Head, Known, Onward};
pub use headers::{Headers, MAX_HEADERS};

use crate::error::DecodeError;
use crate::topic::Topic;
use crate::varint;

/// Bytes of a payload.
pub const MAX_PAYLOAD: usize = 8 * 1024 * 1024;
/// Bytes of a payload that one frame carries.
pub const CHUNK: usize = 64 * 1024;
/// Long messages that may be under way on one stream at a time.
pub const SLOTS: u8 = 4;
/// Bytes of a frame: the longest head, and a chunk.
pub const MAX_FRAME: usize = head::MAX_HEAD + CHUNK + 16;

/// One published message. Cheap to clone: everything in it is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The namespace of the topic; empty for the default one.
    pub namespace: std::sync::Arc<str>,
    /// What it was published to.
    pub topic: Topic,
    /// Where an answer is waited for.
    pub reply: Option<Topic>,
    /// Its headers, with case and order.
    pub headers: Headers,
    /// Its payload, at most [`MAX_PAYLOAD`] bytes.
    pub payload: Bytes,
}

impl Message {
    /// What it counts in queues: its bytes, and what holding it costs.
    #[must_use]
    pub fn weight(&self) -> usize {
        let reply = self.reply.as_ref().map_or(0, |reply| reply.bytes().len());
        128 + self.topic.bytes().len() + reply + self.headers.bytes().len() + self.payload.len()
    }
}

const WHOLE: u64 = 1;
const BEGIN: u64 = 2;
const PART: u64 = 3;

/// One frame, as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message.
    Whole(Head, Bytes),
    /// A message whose payload follows in parts.
    Begin {
        /// Which of those under way.
        slot: u8,
        /// Bytes of its payload, more than [`CHUNK`].
        length: usize,
        /// What stands before it.
        head: Head,
    },
    /// More of a payload.
    Part {
        /// Of which message.
        slot: u8,
        /// Never empty.
        bytes: Bytes,
    },
}

/// What a whole message begins with: everything but its payload, which follows uncopied.
#[must_use]
pub fn whole(head: &Head, payload: &[u8], known: &mut Known) -> Bytes {
    let mut inner = BytesMut::with_capacity(256);
    head.encode(&mut inner, known);
    let length = varint::len(inner.len() as u64) + inner.len() + payload.len();
    let mut out = BytesMut::with_capacity(inner.len() + 16);
    put(&mut out, WHOLE, length);
    varint::put(&mut out, inner.len() as u64);
    out.extend_from_slice(&inner);
    out.freeze()
}

/// The frame that begins a message of more than [`CHUNK`] bytes.
#[must_use]
pub fn begin(slot: u8, length: usize, head: &Head, known: &mut Known) -> Bytes {
    let mut inner = BytesMut::with_capacity(256);
    inner.put_u8(slot);
    varint::put(&mut inner, length as u64);
    head.encode(&mut inner, known);
    let mut out = BytesMut::with_capacity(inner.len() + 16);
    put(&mut out, BEGIN, inner.len());
    out.extend_from_slice(&inner);
    out.freeze()
}

/// What a part of `length` bytes begins with; the bytes follow uncopied.
#[must_use]
pub fn part(slot: u8, length: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(16);
    put(&mut out, PART, length + 1);
    out.put_u8(slot);
    out.freeze()
}

fn put(out: &mut BytesMut, kind: u64, length: usize) {
    varint::put(out, kind);
    varint::put(out, length as u64);
}

/// Reads the frames of one stream, however its bytes are cut.
#[derive(Debug, Default)]
pub struct Reader {
    come: BytesMut,
    known: Known,
}

impl Reader {
    /// More bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.come.extend_from_slice(bytes);
    }

    /// The next frame; `None` while it is incomplete. What it holds is in memory of its own, so
    /// that a message which is kept keeps no others.
    ///
    /// # Errors
    /// [`DecodeError`]: final, the stream is none of ours.
    #[expect(clippy::should_implement_trait, reason = "the error ends it, so `?` stands first")]
    pub fn next(&mut self) -> Result<Option<Frame>, DecodeError> {
        loop {
            let mut rest = &self.come[..];
            let (Some(kind), Some(length)) = (varint::take(&mut rest), varint::take(&mut rest))
            else {
                return Ok(None);
            };
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if length > MAX_FRAME {
                return Err(DecodeError::TooLarge("frame"));
            }
            let Some(body) = rest.get(..length) else { return Ok(None) };
            let body = Bytes::copy_from_slice(body);
            let read = self.come.len() - rest.len() + length;
            bytes::Buf::advance(&mut self.come, read);
            if let Some(frame) = self.parse(kind, body)? {
                return Ok(Some(frame));
            }
        }
    }

    fn parse(&mut self, kind: u64, mut body: Bytes) -> Result<Option<Frame>, DecodeError> {
        match kind {
            WHOLE => {
                let length = usize::try_from(take(&mut body)?).unwrap_or(usize::MAX);
                if length > body.len() {
                    return Err(DecodeError::Truncated("head"));
                }
                let head = Head::decode(body.split_to(length), &mut self.known)?;
                if body.len() > CHUNK {
                    return Err(DecodeError::TooLarge("payload"));
                }
                Ok(Some(Frame::Whole(head, body)))
            }
            BEGIN => {
                let slot = slot(&mut body)?;
                let length = usize::try_from(take(&mut body)?).unwrap_or(usize::MAX);
                if length <= CHUNK || length > MAX_PAYLOAD {
                    return Err(DecodeError::Invalid("payload length"));
                }
                let head = Head::decode(body, &mut self.known)?;
                Ok(Some(Frame::Begin { slot, length, head }))
            }
            PART => {
                let slot = slot(&mut body)?;
                if body.is_empty() || body.len() > CHUNK {
                    return Err(DecodeError::Invalid("part"));
                }
                Ok(Some(Frame::Part { slot, bytes: body }))
            }
            _ => Ok(None),
        }
    }
}

fn slot(body: &mut Bytes) -> Result<u8, DecodeError> {
    match body.first().copied() {
        Some(slot) if slot < SLOTS => {
            bytes::Buf::advance(body, 1);
            Ok(slot)
        }
        Some(_) => Err(DecodeError::Invalid("slot")),
        None => Err(DecodeError::Truncated("slot")),
    }
}

fn take(body: &mut Bytes) -> Result<u64, DecodeError> {
    let mut rest = &body[..];
    let value = varint::take(&mut rest).ok_or(DecodeError::Truncated("frame"))?;
    let read = body.len() - rest.len();
    bytes::Buf::advance(body, read);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Epoch;
    use crate::topic::QueueGroup;
    use crate::{NodeId, Topic};

    /// One that is to be passed on to `nodes`; with none of them, one that is passed on.
    fn head(topic: &str, nodes: &[u8]) -> Head {
        let mut headers = Headers::default();
        headers.push("Micro-Topic", b"x").unwrap();
        headers.push("micro-topic", b"").unwrap();
        let to = |plain| Delivery { plain, groups: vec![QueueGroup::new("q").unwrap()] };
        Head {
            origin: nodes.is_empty().then(|| NodeId::from_bytes([9; 32])),
            epoch: Epoch(77),
            way: 3,
            to: to(true),
            onward: nodes
                .iter()
                .map(|n| Onward { node: NodeId::from_bytes([*n; 32]), way: 5, to: to(false) })
                .collect(),
            namespace: "pay".into(),
            topic: Topic::new(topic.to_owned()).unwrap(),
            reply: Some(Topic::new("_INBOX.1").unwrap()),
            headers,
        }
    }

    #[test]
    fn frames_come_back_however_they_are_cut_and_nodes_are_named_once() {
        let mut known = Known::default();
        let mut wire = BytesMut::new();
        wire.extend_from_slice(&whole(&head("a", &[1, 2]), b"hello", &mut known));
        wire.extend_from_slice(b"hello");
        let first = wire.len();
        wire.extend_from_slice(&whole(&head("a", &[2, 1]), b"hello", &mut known));
        wire.extend_from_slice(b"hello");
        assert!(wire.len() - first < first - 60, "two ids of 32 bytes are not sent again");
        wire.extend_from_slice(&begin(3, CHUNK + 1, &head("b", &[3]), &mut known));
        wire.extend_from_slice(&part(3, 2));
        wire.extend_from_slice(b"xy");
        wire.extend_from_slice(&whole(&head("c", &[]), b"", &mut known));
        for size in [1, 7, wire.len()] {
            let (mut reader, mut frames) = (Reader::default(), Vec::new());
            for piece in wire.chunks(size) {
                reader.push(piece);
                while let Some(frame) = reader.next().unwrap() {
                    frames.push(frame);
                }
            }
            let hello = Bytes::from_static(b"hello");
            let expected = [
                Frame::Whole(head("a", &[1, 2]), hello.clone()),
                Frame::Whole(head("a", &[2, 1]), hello),
                Frame::Begin { slot: 3, length: CHUNK + 1, head: head("b", &[3]) },
                Frame::Part { slot: 3, bytes: Bytes::from_static(b"xy") },
                Frame::Whole(head("c", &[]), Bytes::new()),
            ];
            assert_eq!(frames, expected);
        }
    }

    #[test]
    fn lengths_are_checked_before_anything_is_held() {
        let mut out = BytesMut::new();
        put(&mut out, WHOLE, MAX_FRAME + 1);
        let mut reader = Reader::default();
        reader.push(&out);
        assert_eq!(reader.next(), Err(DecodeError::TooLarge("frame")));
        let mut reader = Reader::default();
        let begun = begin(0, MAX_PAYLOAD + 1, &head("a", &[]), &mut Known::default());
        reader.push(&begun);
        assert_eq!(reader.next(), Err(DecodeError::Invalid("payload length")));
    }

    #[test]
    fn kinds_of_newer_releases_are_skipped() {
        let mut out = BytesMut::new();
        put(&mut out, 9, 3);
        out.extend_from_slice(b"???");
        out.extend_from_slice(&part(0, 1));
        out.extend_from_slice(b"x");
        let mut reader = Reader::default();
        reader.push(&out);
        let part = Frame::Part { slot: 0, bytes: Bytes::from_static(b"x") };
        assert_eq!(reader.next(), Ok(Some(part)));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let mut reader = Reader::default();
            reader.push(&bytes);
            while let Ok(Some(_)) = reader.next() {}
        }
    }
}
