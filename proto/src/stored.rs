//! Messages of a stream as they lie on a disk: [`Record`]s in files, one behind the other.
//!
//! ```text
//! 0   MICROLOG    8 bytes
//! 8   version     u32, 1
//! 12  nothing     u32, 0
//! 16  records
//! ```

pub mod record;

pub use record::{Fault, Look, MAX_RECORD, Record};

/// Bytes before the records.
pub const HEADER: usize = 16;
/// What a file begins with.
pub const FIRST: [u8; HEADER] = *b"MICROLOG\x01\0\0\0\0\0\0\0";
/// The longest file that is read: what is written, and one record more.
pub const MAX_FILE: u64 = 64 * 1024 * 1024 + MAX_RECORD as u64;
/// In place of the offset of a record that is not there.
pub const MISSING: u32 = u32::MAX;

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Where each record begins, by its number less the first; `u32::MAX` for one that is lost.
    pub offsets: Vec<u32>,
    /// Where the last one ends.
    pub end: usize,
    /// Where something else stood than a record, with the numbers that are lost by it: from, to.
    pub damage: Vec<(usize, (u64, u64))>,
    /// Bytes behind the last record which are none: one whose writer was stopped.
    pub torn: usize,
}

/// Finds the records of a file whose numbers are `first` and above, and below `below`.
#[must_use]
pub fn scan(bytes: &[u8], first: u64, below: u64) -> Scan {
    let mut found = Scan { end: HEADER.min(bytes.len()), ..Scan::default() };
    let mut at = found.end;
    if bytes.len() >= HEADER && bytes[..HEADER] != FIRST {
        found.damage.push((0, (first, first)));
    }
    while at < bytes.len() {
        let next = first + found.offsets.len() as u64;
        let fits = |number: u64| (next..below).contains(&number);
        match record::look(&bytes[at..]) {
            Ok(look) if fits(look.number) && look.number - next < MAX_FILE => {
                if look.number > next {
                    found.damage.push((at, (next, look.number - 1)));
                }
                let count = usize::try_from(look.number - first).unwrap_or(usize::MAX);
                found.offsets.resize(count, MISSING);
                found.offsets.push(u32::try_from(at).unwrap_or(MISSING));
                at += look.size;
                found.end = at;
            }
            Ok(_) | Err(Fault::Cut | Fault::Damaged) => match record::seek(bytes, at + 1, next) {
                // What is there has a number above, and is looked at next.
                Some(behind) => at = behind,
                None => break,
            },
        }
    }
    found.torn = bytes.len() - found.end;
    // A header alone says nothing of numbers.
    if let Some((0, lost)) = found.damage.first_mut() {
        lost.1 = lost.0;
    }
    found
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use proptest::prelude::*;

    use super::*;
    use crate::publish::Headers;
    use crate::topic::Topic;

    fn file(first: u64, payloads: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
        let mut out = BytesMut::from(&FIRST[..]);
        let mut begins = Vec::new();
        for (number, payload) in (first..).zip(payloads) {
            begins.push(out.len());
            let record = Record {
                number,
                time: number,
                topic: Topic::new("orders.new").unwrap(),
                headers: Headers::default(),
                payload: Bytes::copy_from_slice(payload),
            };
            record.put(&mut out);
        }
        (out.to_vec(), begins)
    }

    proptest! {
        #[test]
        fn one_byte_costs_the_record_it_is_in_and_no_other(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..8),
            at: prop::sample::Index,
            bits in 1..=u8::MAX,
        ) {
            let (mut bytes, begins) = file(9, &payloads);
            let at = HEADER + at.index(bytes.len() - HEADER);
            bytes[at] ^= bits;
            let hit = begins.iter().rposition(|begin| *begin <= at).unwrap();
            let found = scan(&bytes, 9, u64::MAX);
            let last = begins.len() - 1;
            for (place, begin) in begins.iter().enumerate().filter(|(place, _)| *place != hit) {
                let offset = found.offsets.get(place).copied();
                prop_assert_eq!(offset, Some(u32::try_from(*begin).unwrap()), "{}", place);
            }
            let lost = 9 + hit as u64;
            if hit < last {
                prop_assert_eq!(&found.damage[..], &[(begins[hit + 1], (lost, lost))][..]);
            } else {
                // Whether it was cut by a crash or damaged since cannot be told of the last.
                prop_assert!(found.damage.is_empty() && found.torn > 0);
            }
        }

        #[test]
        fn any_bytes_are_scanned(bytes: Vec<u8>, first in 1..9_u64) {
            let found = scan(&bytes, first, first + 3);
            prop_assert!(found.end + found.torn == bytes.len() && found.offsets.len() <= 3);
        }
    }
}
