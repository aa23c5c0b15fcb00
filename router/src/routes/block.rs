//! Which of up to 256 instances carry a label: one row of bits for each key, and for each pair of
//! key and value.
//!
//! ```text
//! slots     a power of two of them, more than twice as many as there are rows:
//!           0, or low half of the hash << 32 | place of the row; linear probing
//! rows      by key, and below each key by value:
//!           value length + 1, or 0 for the row of the key (u16) | key length (u16) |
//!           of a key: how many values it has (u32) | words of bits | key | value | padding to 8
//! ```
//!
//! All of it is one piece of memory, so that a lookup in a table that is in no cache waits for few
//! lines: of each requirement its slot and its row. Text is compared, so hashes decide nothing.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use proto::label;
use proto::selector::{REGION, Requirement, UNDER, Value, regions};

use super::bits::{BLOCK, Bits};
use super::service::Instance;

const HEAD: usize = 8;

/// The labels of up to [`BLOCK`] instances.
#[derive(Clone, Debug)]
pub(super) struct Block {
    bytes: Box<[u8]>,
    slots: u32,
    words: u8,
    /// Instances.
    count: u16,
}

/// A row, read.
#[derive(Clone, Copy)]
struct Row<'a> {
    key: &'a [u8],
    /// `None` for the row of the key.
    value: Option<&'a [u8]>,
    /// How many rows of values follow that of a key.
    values: u32,
    bits: Bits,
    next: usize,
}

impl Block {
    /// Of these instances, at most [`BLOCK`] of them.
    pub(super) fn of(instances: &[Instance]) -> Self {
        let count = instances.len().min(BLOCK);
        let words = count.div_ceil(64).max(1);
        let mut rows = gather(&instances[..count]);
        // The keys come before their values, for `None` comes before `Some`.
        rows.sort_unstable_by_key(|row| (row.key, row.value));
        let size = |row: &Gathered<'_>| {
            (HEAD + 8 * words + row.key.len() + row.value.map_or(0, str::len)).next_multiple_of(8)
        };
        let slots = (rows.len() * 2 + 1).next_power_of_two();
        let mut bytes = vec![0; slots * 8 + rows.iter().map(size).sum::<usize>()];
        let mut at = slots * 8;
        for (row, rest) in rows.iter().zip(1..) {
            let values = match row.value {
                Some(_) => 0,
                None => rows[rest..].iter().take_while(|next| next.key == row.key).count(),
            };
            let end = at + size(row);
            write(&mut bytes[at..end], row, values, words);
            let mut slot = row.hash as usize & (slots - 1);
            while read_u64(&bytes, slot * 8) != 0 {
                slot = (slot + 1) & (slots - 1);
            }
            let filled = u64::from(row.hash as u32) << 32 | at as u64;
            bytes[slot * 8..slot * 8 + 8].copy_from_slice(&filled.to_le_bytes());
            at = end;
        }
        let fits = "a block has at most 256 instances of 64 labels";
        Self {
            bytes: bytes.into(),
            slots: u32::try_from(slots).expect(fits),
            words: u8::try_from(words).expect(fits),
            count: u16::try_from(count).expect(fits),
        }
    }

    /// All instances of the block.
    pub(super) fn all(&self) -> Bits {
        Bits::below(usize::from(self.count))
    }

    /// Those for which `one` holds.
    pub(super) fn holding(&self, one: &Requirement) -> Bits {
        let named = match one.values() {
            [] => self.find(one.key_hash(), one.key(), None),
            [value] => self.named(one, value),
            values => values.iter().fold(Bits::default(), |all, v| all.or(self.named(one, v))),
        };
        if one.is_negated() { self.all().without(named) } else { named }
    }

    /// Those whose label is, or is in, `value`.
    fn named(&self, one: &Requirement, value: &Value) -> Bits {
        if let Some((key, text, hash)) = value.probe(one.key()) {
            return self.find(hash, key, Some(text));
        }
        let named = self.values(one.key_hash(), one.key()).filter(|(text, _)| value.accepts(text));
        named.fold(Bits::default(), |all, (_, bits)| all.or(bits))
    }

    /// The values that the label `key` has, each with those that carry it.
    pub(super) fn values<'a>(
        &'a self,
        hash: u64,
        key: &str,
    ) -> impl Iterator<Item = (&'a str, Bits)> + use<'a> {
        let of_key = self.place(hash, key, None).map(|at| self.row(at));
        let (mut left, mut at) = of_key.map_or((0, 0), |row| (row.values, row.next));
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let row = self.row(at);
            at = row.next;
            let text = std::str::from_utf8(row.value?).expect("rows are written from text");
            Some((text, row.bits))
        })
    }

    /// The keys of its rows.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        let mut at = self.slots as usize * 8;
        let rows = std::iter::from_fn(move || {
            (at < self.bytes.len()).then(|| {
                let row = self.row(at);
                at = row.next;
                row
            })
        });
        let keys = rows.filter(|row| row.value.is_none());
        keys.map(|row| std::str::from_utf8(row.key).expect("rows are written from text"))
    }

    pub(super) fn find(&self, hash: u64, key: &str, value: Option<&str>) -> Bits {
        self.place(hash, key, value).map_or(Bits::default(), |at| self.bits(at))
    }

    fn place(&self, hash: u64, key: &str, value: Option<&str>) -> Option<usize> {
        let mask = self.slots as usize - 1;
        let mut slot = hash as usize & mask;
        loop {
            let filled = read_u64(&self.bytes, slot * 8);
            if filled == 0 {
                return None;
            }
            let at = filled as u32 as usize;
            if filled >> 32 == hash & 0xffff_ffff && self.is_row(at, key, value) {
                return Some(at);
            }
            slot = (slot + 1) & mask;
        }
    }

    fn is_row(&self, at: usize, key: &str, value: Option<&str>) -> bool {
        let lengths = read_u64(&self.bytes, at) as u32;
        let wanted = value.map_or(0, |value| value.len() + 1) | key.len() << 16;
        let text = at + HEAD + 8 * usize::from(self.words);
        let value = value.unwrap_or("");
        let stored = self.bytes.get(text..text + key.len() + value.len());
        lengths as usize == wanted
            && stored.is_some_and(|stored| {
                let (one, other) = stored.split_at(key.len());
                one == key.as_bytes() && other == value.as_bytes()
            })
    }

    fn bits(&self, at: usize) -> Bits {
        let mut bits = Bits::default();
        let words = &self.bytes[at + HEAD..at + HEAD + 8 * usize::from(self.words)];
        for (word, out) in words.chunks_exact(8).zip(&mut bits.0) {
            *out = read_u64(word, 0);
        }
        bits
    }

    fn row(&self, at: usize) -> Row<'_> {
        let head = read_u64(&self.bytes, at);
        let (value, key) = (head as u16, usize::from((head >> 16) as u16));
        let text = at + HEAD + 8 * usize::from(self.words);
        let end = text + key + usize::from(value.saturating_sub(1));
        Row {
            key: &self.bytes[text..text + key],
            value: (value > 0).then(|| &self.bytes[text + key..end]),
            values: (head >> 32) as u32,
            bits: self.bits(at),
            next: end.next_multiple_of(8),
        }
    }
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

fn write(out: &mut [u8], row: &Gathered<'_>, values: usize, words: usize) {
    let value = row.value.unwrap_or("");
    let length = row.value.map_or(0, |value| value.len() + 1);
    let head = length as u64 | (row.key.len() as u64) << 16 | (values as u64) << 32;
    out[..HEAD].copy_from_slice(&head.to_le_bytes());
    for (word, out) in row.bits.0[..words].iter().zip(out[HEAD..].chunks_exact_mut(8)) {
        out.copy_from_slice(&word.to_le_bytes());
    }
    let text = HEAD + 8 * words;
    out[text..text + row.key.len()].copy_from_slice(row.key.as_bytes());
    out[text + row.key.len()..][..value.len()].copy_from_slice(value.as_bytes());
}

/// A row, before it is laid out.
struct Gathered<'a> {
    hash: u64,
    key: &'a str,
    value: Option<&'a str>,
    bits: Bits,
}

/// Every key and every pair that the instances carry, once each.
fn gather(instances: &[Instance]) -> Vec<Gathered<'_>> {
    let mut rows: Vec<Gathered<'_>> = Vec::with_capacity(32);
    let mut found: HashMap<Hashed<'_>, usize, BuildHasherDefault<Given>> = HashMap::default();
    for (at, instance) in instances.iter().enumerate() {
        let mut carry = |key, value| {
            let hash = label::hash(key, value);
            let place = *found.entry(Hashed { hash, key, value }).or_insert_with(|| {
                rows.push(Gathered { hash, key, value, bits: Bits::default() });
                rows.len() - 1
            });
            rows[place].bits.0[at / 64] |= 1 << (at % 64);
        };
        for (key, value) in instance.labels.iter() {
            carry(key, None);
            carry(key, Some(value));
            if key == REGION {
                carry(UNDER, None);
                regions(value).for_each(|region| carry(UNDER, Some(region)));
            }
        }
    }
    rows
}

/// A label that brings its hash.
#[derive(PartialEq, Eq)]
struct Hashed<'a> {
    hash: u64,
    key: &'a str,
    value: Option<&'a str>,
}

impl std::hash::Hash for Hashed<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Takes the hash that is given.
#[derive(Default)]
struct Given(u64);

impl Hasher for Given {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        debug_assert!(false, "only hashes are hashed");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
