//! What the runs print, and how one that fails is seen again.

use crate::world::{MILLI, Micros, SECOND, Seen};

/// Seeds that every build tries.
pub(crate) const KEPT: [u64; 2] = [1, 2];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs `one` for each seed.
pub(crate) fn try_all(test: &str, one: impl Fn(u64) -> Result<(), String>) {
    let seeds: Vec<u64> = match number("MICRO_SIM_SEED") {
        Some(seed) => vec![seed],
        None => KEPT.into_iter().chain(number("MICRO_SIM_FRESH")).collect(),
    };
    for seed in seeds {
        if let Err(wrong) = one(seed) {
            panic!(
                "seed {seed}: {wrong}\nagain: MICRO_SIM_SEED={seed} cargo test -p tests --test choice {test}"
            );
        }
    }
}

/// `Err` with what was expected, unless it holds.
pub(crate) fn expect(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

impl Seen {
    /// Share of the calls that succeeded, percent.
    pub(crate) fn success(&self) -> f64 {
        100.0 * (1.0 - self.failed as f64 / self.calls as f64)
    }

    /// Milliseconds below which `part` of a hundred calls stayed.
    pub(crate) fn percentile(&mut self, part: usize) -> f64 {
        self.latencies.sort_unstable();
        let at = (self.latencies.len() - 1) * part / 100;
        f64::from(self.latencies[at]) / MILLI as f64
    }

    /// What instance `at` got of all attempts between these seconds.
    pub(crate) fn share(&self, at: usize, from: usize, to: usize) -> f64 {
        let of = |second: &Vec<u32>| f64::from(second[at]);
        let all = |second: &Vec<u32>| f64::from(second.iter().sum::<u32>());
        let window = &self.shares[from..to.min(self.shares.len())];
        window.iter().map(of).sum::<f64>() / window.iter().map(all).sum::<f64>().max(1.0)
    }

    /// Variance by mean of what instance `at` got from second to second: 1 by pure chance.
    pub(crate) fn dispersion(&self, at: usize, from: usize, to: usize) -> f64 {
        let counts: Vec<f64> = self.shares[from..to].iter().map(|s| f64::from(s[at])).collect();
        let mean = counts.iter().sum::<f64>() / counts.len() as f64;
        let variance = counts.iter().map(|n| (n - mean).powi(2)).sum::<f64>();
        variance / (counts.len() - 1) as f64 / mean.max(1.0)
    }

    /// Seconds from `from` on until instance `at` gets less (or, with `more`, at least) `bound` of
    /// all attempts.
    pub(crate) fn until(&self, at: usize, from: Micros, bound: f64, more: bool) -> Option<usize> {
        let from = (from / SECOND) as usize;
        (from..self.shares.len())
            .position(|second| (self.share(at, second, second + 1) >= bound) == more)
    }
}
