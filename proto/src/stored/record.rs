//! One message on disk.
//!
//! ```text
//! 0   marker        u32   0x4C474F4D
//! 4   length        u32   bytes behind the checksum
//! 8   checksum      u32   CRC-32 of the length and of all behind this
//! 12  number        u64   of the message in its stream, from 1 on
//! 20  time          u64   microseconds since 1970, UTC
//! 28  topic         u16   its length
//! 30  headers       u32   their length
//! 34  topic | headers | payload
//! ```
//!
//! Numbers are little-endian. The marker is what is searched for where a record is damaged, so that those behind
//! it are found again.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::publish::{Headers, MAX_HEADERS, MAX_PAYLOAD};
use crate::topic::{MAX_TOPIC, Topic};

const MARKER: [u8; 4] = *b"MOGL";
/// What stands before the number.
const FRAME: usize = 12;
/// Before the topic.
const HEAD: usize = 34;
/// The longest record.
pub const MAX_RECORD: usize = HEAD + MAX_TOPIC + MAX_HEADERS + MAX_PAYLOAD;

/// A message with its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which one of its stream.
    pub number: u64,
    /// When it was stored: microseconds since 1970, UTC.
    pub time: u64,
    /// What it was published to.
    pub topic: Topic,
    /// Its headers.
    pub headers: Headers,
    /// Its payload.
    pub payload: Bytes,
}

/// What stands in place of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not all there, as when its writer was stopped.
    Cut,
    /// It is not what was written.
    Damaged,
}

impl Record {
    /// Bytes on disk.
    #[must_use]
    pub fn size(&self) -> usize {
        HEAD + self.topic.bytes().len() + self.headers.bytes().len() + self.payload.len()
    }

    /// Appends it as it is on disk.
    pub fn put(&self, out: &mut BytesMut) {
        let (topic, headers) = (self.topic.bytes(), self.headers.bytes());
        let began = out.len();
        out.reserve(self.size());
        out.extend_from_slice(&MARKER);
        // The bounds of messages are far below those of the fields.
        out.put_u32_le(u32::try_from(self.size() - FRAME).unwrap_or(u32::MAX));
        out.put_u32_le(0);
        out.put_u64_le(self.number);
        out.put_u64_le(self.time);
        out.put_u16_le(u16::try_from(topic.len()).unwrap_or(u16::MAX));
        out.put_u32_le(u32::try_from(headers.len()).unwrap_or(u32::MAX));
        for part in [topic, headers, &self.payload] {
            out.extend_from_slice(part);
        }
        let sum = checksum(&out[began..]);
        out[began + 8..began + FRAME].copy_from_slice(&sum.to_le_bytes());
    }
}

/// The record that `bytes` begin with. What it holds is in memory of its own.
///
/// # Errors
/// [`Fault`], where it is none.
pub fn read(bytes: &[u8]) -> Result<Record, Fault> {
    let found = look(bytes)?;
    let (topic, rest) = bytes[HEAD..found.size].split_at(found.topic);
    let (headers, payload) = rest.split_at(found.headers);
    let topic = Topic::new(Bytes::copy_from_slice(topic)).map_err(|_| Fault::Damaged)?;
    let headers = Headers::decode(Bytes::copy_from_slice(headers)).map_err(|_| Fault::Damaged)?;
    let payload = Bytes::copy_from_slice(payload);
    Ok(Record { number: found.number, time: found.time, topic, headers, payload })
}

/// What is known of a record without taking it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Its number.
    pub number: u64,
    /// Its time.
    pub time: u64,
    /// Its bytes on disk.
    pub size: usize,
    topic: usize,
    headers: usize,
}

/// Checks the record that `bytes` begin with.
///
/// # Errors
/// [`Fault`], where it is none.
pub fn look(bytes: &[u8]) -> Result<Look, Fault> {
    let marker = bytes.len().min(MARKER.len());
    if bytes[..marker] != MARKER[..marker] {
        return Err(Fault::Damaged);
    }
    let field = |at: usize| bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    let length = u32::from_le_bytes(field(4).ok_or(Fault::Cut)?) as usize;
    if !(HEAD - FRAME..=MAX_RECORD - FRAME).contains(&length) {
        return Err(Fault::Damaged);
    }
    let size = FRAME + length;
    let whole = bytes.get(..size).ok_or(Fault::Cut)?;
    if checksum(whole).to_le_bytes() != whole[8..FRAME] {
        return Err(Fault::Damaged);
    }
    let eight = |at: usize| whole[at..at + 8].try_into().map(u64::from_le_bytes);
    let (Ok(number), Ok(time)) = (eight(12), eight(20)) else { return Err(Fault::Damaged) };
    let topic = usize::from(u16::from_le_bytes([whole[28], whole[29]]));
    let headers = u32::from_le_bytes([whole[30], whole[31], whole[32], whole[33]]) as usize;
    if HEAD + topic + headers > size {
        return Err(Fault::Damaged);
    }
    Ok(Look { number, time, size, topic, headers })
}

/// Where the next record begins at or behind `from` whose number is at least `least`.
#[must_use]
pub fn seek(bytes: &[u8], mut from: usize, least: u64) -> Option<usize> {
    loop {
        let rest = bytes.get(from..)?;
        from += rest.windows(MARKER.len()).position(|four| four == MARKER)?;
        if look(&bytes[from..]).is_ok_and(|found| found.number >= least) {
            return Some(from);
        }
        from += 1;
    }
}

/// Of a whole record: all but marker and checksum.
fn checksum(record: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&record[MARKER.len()..8]);
    sum.update(&record[FRAME..]);
    sum.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u64, payload: &[u8]) -> Record {
        Record {
            number,
            time: 1_700_000_000_000_000 + number,
            topic: Topic::new("orders.new").unwrap(),
            headers: Headers::of([("X-Case", &b"Kept"[..])]).unwrap(),
            payload: Bytes::copy_from_slice(payload),
        }
    }

    fn written(records: &[Record]) -> BytesMut {
        let mut out = BytesMut::new();
        for record in records {
            let before = out.len();
            record.put(&mut out);
            assert_eq!(out.len() - before, record.size());
        }
        out
    }

    #[test]
    fn what_is_written_is_read() {
        let one = record(7, b"hi");
        let bytes = written(std::slice::from_ref(&one));
        assert_eq!(read(&bytes), Ok(one.clone()));
        assert_eq!(look(&bytes).map(|look| (look.number, look.size)), Ok((7, one.size())));
    }

    #[test]
    fn what_is_cut_is_told_from_what_is_damaged() {
        let bytes = written(&[record(1, b"payload")]);
        for end in 0..bytes.len() {
            assert_eq!(look(&bytes[..end]), Err(Fault::Cut), "{end}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bent = bytes.clone();
                bent[at] ^= 1 << bit;
                assert!(look(&bent).is_err(), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn what_stands_behind_damage_is_found() {
        let all = [record(1, b"a"), record(2, &MARKER), record(3, b"c")];
        let mut bytes = written(&all);
        let (second, third) = (all[0].size(), all[0].size() + all[1].size());
        bytes[second + 5] ^= 1;
        assert_eq!(seek(&bytes, second, 2), Some(third));
        assert_eq!(seek(&bytes, 0, 1), Some(0));
        assert_eq!(seek(&bytes, 0, 4), None);
        assert_eq!(seek(&bytes, bytes.len() + 1, 1), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = (look(&bytes), read(&bytes), seek(&bytes, 0, 1));
        }
    }
}
