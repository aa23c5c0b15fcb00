//! Chance from a seed.

/// SplitMix64 (Steele, Lea, Flood 2014): enough chance to spread calls. One seed gives one sequence.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The sequence of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// True in `share` of all cases, 0 to 1.
    pub fn hits(&mut self, share: f32) -> bool {
        // The upper 24 bits: as many as a float of 32 bits holds.
        ((self.draw() >> 40) as f32) < share * (1_u32 << 24) as f32
    }
}
