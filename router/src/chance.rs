//! The one generator of all chance in a router, seeded at birth. Not for secrets.

use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A moment from `low` to `high`, in microseconds, evenly.
    pub(crate) fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = high.saturating_sub(low).as_micros() + 1;
        let micros = (u128::from(self.draw()) * span) >> 64;
        low + Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }

    /// `about`, a quarter more or less.
    pub(crate) fn around(&mut self, about: Duration) -> Duration {
        self.between(about * 3 / 4, about * 5 / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence_within_its_bounds() {
        let (low, high) = (Duration::from_millis(2), Duration::from_millis(6));
        let draw = |seed| {
            let mut chance = Chance::new(seed);
            (0..100).map(|_| chance.between(low, high)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert!(draw(1).iter().all(|d| (low..=high).contains(d)));
    }
}
