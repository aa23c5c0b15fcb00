//! Variable-length integers of QUIC (RFC 9000 §16): the two top bits of the first byte give the
//! length, 1, 2, 4 or 8 bytes; the rest is the value, big-endian. Largest value 2^62 - 1.

use bytes::BufMut;

/// The largest value that can be written.
pub const MAX: u64 = (1 << 62) - 1;

/// Bytes that [`put`] writes for `value`.
#[must_use]
pub const fn len(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// Appends `value` in its shortest form; values above [`MAX`] are written as [`MAX`].
pub fn put(out: &mut impl BufMut, value: u64) {
    let value = if value > MAX { MAX } else { value };
    #[expect(clippy::cast_possible_truncation, reason = "each arm holds only what fits")]
    match len(value) {
        1 => out.put_u8(value as u8),
        2 => out.put_u16(value as u16 | 0x4000),
        4 => out.put_u32(value as u32 | 0x8000_0000),
        _ => out.put_u64(value | 0xc000_0000_0000_0000),
    }
}

/// Takes one integer off the front of `input`; `None` leaves `input` as it was, for it is too
/// short. Longer forms than needed are accepted, as RFC 9000 §16 asks.
pub fn take(input: &mut &[u8]) -> Option<u64> {
    let first = *input.first()?;
    let length = 1usize << (first >> 6);
    let (bytes, rest) = input.split_at_checked(length)?;
    let value = bytes[1..]
        .iter()
        .fold(u64::from(first & 0x3f), |value, byte| (value << 8) | u64::from(*byte));
    *input = rest;
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_9000_a_1_decode() {
        for (bytes, value) in [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d][..], 494_878_333),
            (&[0x7b, 0xbd][..], 15_293),
            (&[0x25][..], 37),
            (&[0x40, 0x25][..], 37),
        ] {
            let mut input = bytes;
            assert_eq!(take(&mut input), Some(value));
            assert!(input.is_empty());
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_put_is_taken(value in 0..=MAX, tail in 0u8..) {
            let mut out = Vec::new();
            put(&mut out, value);
            proptest::prop_assert_eq!(out.len(), len(value));
            out.push(tail);
            let mut input = &out[..];
            proptest::prop_assert_eq!(take(&mut input), Some(value));
            proptest::prop_assert_eq!(input, &[tail][..]);
        }

        #[test]
        fn a_short_input_is_left_alone(value in 0x40..=MAX) {
            let mut out = Vec::new();
            put(&mut out, value);
            out.pop();
            let mut input = &out[..];
            proptest::prop_assert_eq!(take(&mut input), None);
            proptest::prop_assert_eq!(input, &out[..]);
        }
    }
}
