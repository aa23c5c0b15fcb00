//! The rule that no gRPC message is longer than a bound, without decoding any.

use bytes::Bytes;

/// Bytes before each message: a compression flag and a length (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX: usize = 5;

/// Watches the length prefixes of a stream of gRPC messages go by.
#[derive(Debug)]
pub(crate) struct Meter {
    limit: u32,
    /// Bytes of the current message that are still to come.
    left: u32,
    prefix: [u8; PREFIX],
    /// How many bytes of `prefix` are known.
    known: usize,
}

/// A message is longer than the bound: its length, and the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of {length} bytes is larger than the limit of {limit}")]
pub struct TooLong {
    /// Bytes the message claims.
    pub length: u32,
    /// Bytes a message may have.
    pub limit: u32,
}

impl Meter {
    /// A meter for messages of at most `limit` bytes.
    pub(crate) fn new(limit: u32) -> Self {
        Self { limit, left: 0, prefix: [0; PREFIX], known: 0 }
    }

    /// Looks at the next bytes of the body.
    ///
    /// # Errors
    /// [`TooLong`] as soon as a prefix claims more than the limit.
    pub(crate) fn see(&mut self, chunk: &Bytes) -> Result<(), TooLong> {
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            if self.left > 0 {
                let skip = rest.len().min(self.left as usize);
                #[expect(clippy::cast_possible_truncation, reason = "at most `left`, a u32")]
                let skipped = skip as u32;
                self.left -= skipped;
                rest = &rest[skip..];
                continue;
            }
            let take = rest.len().min(PREFIX - self.known);
            self.prefix[self.known..self.known + take].copy_from_slice(&rest[..take]);
            self.known += take;
            rest = &rest[take..];
            if self.known == PREFIX {
                let [_, a, b, c, d] = self.prefix;
                let length = u32::from_be_bytes([a, b, c, d]);
                if length > self.limit {
                    return Err(TooLong { length, limit: self.limit });
                }
                self.left = length;
                self.known = 0;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: u32) -> Vec<u8> {
        let mut out = vec![0];
        out.extend_from_slice(&length.to_be_bytes());
        out.resize(PREFIX + length as usize, b'x');
        out
    }

    #[test]
    fn a_message_at_the_limit_passes_and_one_above_does_not_however_it_is_cut() {
        for size in 1..40 {
            let mut meter = Meter::new(16);
            let good = [message(16), message(0), message(3)].concat();
            for chunk in good.chunks(size) {
                assert_eq!(meter.see(&Bytes::copy_from_slice(chunk)), Ok(()));
            }
            let bad = message(17);
            let verdict = bad.chunks(size).map(|c| meter.see(&Bytes::copy_from_slice(c)));
            let verdict = verdict.collect::<Result<Vec<_>, _>>();
            assert_eq!(verdict, Err(TooLong { length: 17, limit: 16 }), "cut every {size}");
        }
    }
}
