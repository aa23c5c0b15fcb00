//! Small sets of places in one block of instances.

/// Instances of one block.
pub(super) const BLOCK: usize = 256;
/// Words of one set.
pub(super) const WORDS: usize = BLOCK / 64;

/// Places within a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits(pub(super) [u64; WORDS]);

impl Bits {
    /// The places before `end`.
    pub(super) fn below(end: usize) -> Self {
        Self(std::array::from_fn(|word| match end.saturating_sub(word * 64) {
            0 => 0,
            left => u64::MAX >> 64_usize.saturating_sub(left),
        }))
    }

    /// The places from `start` to before `end`.
    pub(super) fn range(start: usize, end: usize) -> Self {
        let below = Self::below(end);
        if start == 0 { below } else { below.without(Self::below(start)) }
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & !other.0[word]))
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    pub(super) fn has(self, place: usize) -> bool {
        self.0[place / 64] >> (place % 64) & 1 == 1
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == [0; WORDS]
    }

    pub(super) fn len(self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The lowest place.
    pub(super) fn first(self) -> Option<usize> {
        let word = self.0.iter().position(|word| *word != 0)?;
        Some(word * 64 + self.0[word].trailing_zeros() as usize)
    }

    /// Takes the lowest place out.
    pub(super) fn take(&mut self) -> Option<usize> {
        let first = self.first()?;
        self.0[first / 64] &= self.0[first / 64] - 1;
        Some(first)
    }

    /// The place before which there are `n` others.
    pub(super) fn nth(self, mut n: usize) -> Option<usize> {
        for (at, &word) in self.0.iter().enumerate() {
            let here = word.count_ones() as usize;
            if n < here {
                let mut left = word;
                for _ in 0..n {
                    left &= left - 1;
                }
                return Some(at * 64 + left.trailing_zeros() as usize);
            }
            n -= here;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_where_they_are_told_and_places_come_in_order() {
        for (start, end) in [(0, 0), (0, 1), (3, 64), (63, 65), (64, 128), (5, 256), (200, 100)] {
            let bits = Bits::range(start, end);
            let wanted: Vec<usize> = (start..end).collect();
            let nth: Vec<_> = (0..).map_while(|n| bits.nth(n)).collect();
            assert!((0..BLOCK).all(|place| bits.has(place) == wanted.contains(&place)));
            let mut left = bits;
            let taken: Vec<_> = std::iter::from_fn(|| left.take()).collect();
            assert_eq!((nth, taken, bits.len()), (wanted.clone(), wanted.clone(), wanted.len()));
        }
    }
}
