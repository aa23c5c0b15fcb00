//! Credit: how far the other end may go on each of its streams.
//!
//! A stream between nodes begins with [`INITIAL`] bytes of credit each way. Whoever reads it gives
//! more as it reads, in grants on one stream per direction of a link ([`crate::open::OpenKind`]
//! `Credit`):
//!
//! ```text
//! +-----------------+----------------+
//! | stream (varint) | total (varint) |   again and again, until the link ends
//! +-----------------+----------------+
//! ```
//!
//! `stream` is the number of the stream in the transport (RFC 9000 §2.1), the same at both ends.
//! `total` counts all bytes of the stream from its beginning, its `Open` included; a lower one than
//! before, or one for a stream that is over, means nothing.

use bytes::BytesMut;

use crate::varint;

/// Bytes that may be sent on a stream before anything was granted. Part of the protocol: both ends
/// must mean the same.
pub const INITIAL: u64 = 64 << 10;

/// The sender of `stream` may send up to `total` bytes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// Which stream.
    pub stream: u64,
    /// Bytes from its beginning.
    pub total: u64,
}

impl Credit {
    /// Appends the two integers.
    pub fn encode(self, out: &mut BytesMut) {
        varint::put(out, self.stream);
        varint::put(out, self.total);
    }

    /// Takes one grant off the front of `input`; `None` while it is incomplete, `input` is then as
    /// it was. Any bytes are some grant, so this cannot fail.
    pub fn take(input: &mut BytesMut) -> Option<Self> {
        let mut rest = &input[..];
        let (stream, total) = (varint::take(&mut rest)?, varint::take(&mut rest)?);
        let length = input.len() - rest.len();
        let _ = input.split_to(length);
        Some(Self { stream, total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_read_as_they_were_written_and_a_part_of_one_waits_for_its_rest() {
        let grants = [(0, INITIAL), (4, varint::MAX), (1 << 40, 0)];
        let mut whole = BytesMut::new();
        for (stream, total) in grants {
            Credit { stream, total }.encode(&mut whole);
        }
        for end in 0..=whole.len() {
            let mut input = BytesMut::from(&whole[..end]);
            let mut read = Vec::new();
            while let Some(grant) = Credit::take(&mut input) {
                read.push((grant.stream, grant.total));
            }
            assert_eq!(read[..], grants[..read.len()]);
            input.extend_from_slice(&whole[end..]);
            while let Some(grant) = Credit::take(&mut input) {
                read.push((grant.stream, grant.total));
            }
            assert_eq!(read, grants);
        }
    }
}
