//! The control stream of a link: the first stream its dialler opens, framed.
//!
//! Both ends begin with [`Hello`]; nothing else is read, and no other stream is accepted, before
//! the other's hello has proven its membership. Then, between neighbours, records flow.

mod hello;
mod sync;

use bytes::{Bytes, BytesMut};

pub use hello::Hello;
pub use sync::{Digest, MAX_BUCKETS, OriginDigest, Summary, Want};

use crate::error::DecodeError;
use crate::record::{MAX_RECORD, Record};
use crate::varint;
use crate::wire;

/// Bytes of one frame's body: a batch of records, or a digest.
pub const MAX_FRAME: usize = 256 * 1024;
/// Bytes of a frame read before membership is proven.
pub const MAX_FIRST_FRAME: usize = 64 * 1024;

/// One frame of the control stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Who I am, and the proof. The first frame of each side.
    Hello(Box<Hello>),
    /// Records, in the order to be applied; not yet believed.
    Records(Vec<Record>),
    /// What I hold, hashed: to find out cheaply whether anything differs.
    Digest(Digest),
    /// What I hold of some origins, by version: sent where digests differ.
    Summary(Summary),
    /// Send me these.
    Want(Want),
    /// I am leaving this link, on purpose: do not count it as a fault, do not dial again at once.
    Bye,
}

const HELLO: u64 = 1;
const RECORDS: u64 = 2;
const DIGEST: u64 = 3;
const SUMMARY: u64 = 4;
const WANT: u64 = 5;
const BYE: u64 = 6;
/// Kinds from here on must be understood or the link closed.
const CRITICAL: u64 = 64;

impl Frame {
    /// Appends the frame.
    ///
    /// ```text
    /// +---------------+-----------------+--------------------+
    /// | kind (varint) | length (varint) | body, length bytes |
    /// +---------------+-----------------+--------------------+
    /// ```
    ///
    /// A frame of records above [`MAX_FRAME`] is written as several frames.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut body = BytesMut::new();
        let kind = match self {
            Self::Hello(hello) => {
                hello.encode(&mut body);
                HELLO
            }
            Self::Records(records) => {
                for record in records {
                    if body.len() + record.bytes().len() + 16 > MAX_FRAME {
                        put(out, RECORDS, &body);
                        body.clear();
                    }
                    wire::put_item(&mut body, 1, record.bytes());
                }
                RECORDS
            }
            Self::Digest(digest) => {
                digest.encode(&mut body);
                DIGEST
            }
            Self::Summary(summary) => {
                summary.encode(&mut body);
                SUMMARY
            }
            Self::Want(want) => {
                want.encode(&mut body);
                WANT
            }
            Self::Bye => BYE,
        };
        put(out, kind, &body);
    }

    /// Takes one frame off the front of `input`; `max` bounds its body. While the frame is
    /// incomplete, returns `None` and leaves `input` as it was. Frames of unknown kinds are
    /// skipped.
    ///
    /// # Errors
    /// Every [`DecodeError`] is final: the other side does not speak this protocol.
    pub fn decode(input: &mut BytesMut, max: usize) -> Result<Option<Self>, DecodeError> {
        loop {
            let mut rest = &input[..];
            let (Some(kind), Some(length)) = (varint::take(&mut rest), varint::take(&mut rest))
            else {
                return Ok(None);
            };
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if length > max {
                return Err(DecodeError::TooLarge("frame"));
            }
            if rest.len() < length {
                return Ok(None);
            }
            let prefix = input.len() - rest.len();
            let _ = input.split_to(prefix);
            let body = input.split_to(length).freeze();
            if let Some(frame) = Self::parse(kind, body)? {
                return Ok(Some(frame));
            }
        }
    }

    fn parse(kind: u64, body: Bytes) -> Result<Option<Self>, DecodeError> {
        Ok(Some(match kind {
            HELLO => Self::Hello(Box::new(Hello::decode(body)?)),
            RECORDS => Self::Records(records(body)?),
            DIGEST => Self::Digest(Digest::decode(body)?),
            SUMMARY => Self::Summary(Summary::decode(body)?),
            WANT => Self::Want(Want::decode(body)?),
            BYE => Self::Bye,
            kind if kind >= CRITICAL => return Err(DecodeError::UnknownCritical(kind)),
            _ => return Ok(None),
        }))
    }
}

fn put(out: &mut BytesMut, kind: u64, body: &[u8]) {
    varint::put(out, kind);
    varint::put(out, body.len() as u64);
    out.extend_from_slice(body);
}

fn records(body: Bytes) -> Result<Vec<Record>, DecodeError> {
    let mut records = Vec::new();
    let mut fields = wire::Fields::new(body);
    while let Some((tag, value)) = fields.next()? {
        match tag {
            1 => records.push(Record::decode(value.bytes("record", MAX_RECORD)?)?),
            tag => wire::unknown(tag)?,
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_frames_are_skipped_and_critical_ones_are_not() {
        let mut input = BytesMut::new();
        put(&mut input, 40, b"from the future");
        Frame::Bye.encode(&mut input);
        assert_eq!(Frame::decode(&mut input, MAX_FRAME), Ok(Some(Frame::Bye)));
        put(&mut input, CRITICAL, b"");
        let refused = Frame::decode(&mut input, MAX_FRAME);
        assert_eq!(refused, Err(DecodeError::UnknownCritical(CRITICAL)));
    }

    #[test]
    fn a_claimed_length_above_the_bound_is_refused_before_it_is_waited_for() {
        let mut input = BytesMut::new();
        varint::put(&mut input, RECORDS);
        varint::put(&mut input, MAX_FRAME as u64 + 1);
        assert_eq!(Frame::decode(&mut input, MAX_FRAME), Err(DecodeError::TooLarge("frame")));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_end_and_leave_no_panic(bytes: Vec<u8>) {
            let mut input = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = Frame::decode(&mut input, MAX_FRAME) {}
        }
    }
}
