//! How long calls take: the peak that an instance is judged by, and the 95th percentile of a service.

use std::time::Duration;

use proto::Time;

/// How long a peak is believed. A tenth of the usual half minute between deployments or collections,
/// and long beside the calls themselves, so that many calls share one judgement (Finagle, from
/// which the idea comes, uses the same ten seconds).
const TAU: Duration = Duration::from_secs(10);
/// Without a sample it is forgotten in twice that time, however bad it was. Doublings of it, at most:
/// one who is slow for ever is asked less and less often, every 80 s in the end.
const PATIENCE: u8 = 2;

/// A latency that jumps up to a worse sample at once and comes down with time, not with the number
/// of samples: an instance that stalls is avoided after one slow answer, however seldom it is called.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeakEwma {
    /// Microseconds; 0: nothing seen.
    micros: f32,
    at: Time,
    /// How often hope was in vain.
    patience: u8,
}

impl PeakEwma {
    /// Takes a sample; `typical` as for [`PeakEwma::value`].
    pub fn observe(&mut self, sample: Duration, typical: f32, now: Time) {
        let sample = micros(sample);
        let believed = self.value(typical, now);
        if sample > 1.5 * believed && believed < 0.5 * self.micros {
            self.patience = (self.patience + 1).min(PATIENCE);
        } else if sample < 2.0 * typical {
            self.patience = 0;
        }
        // From what is believed by now, not from what was: hope that came true is not taken back.
        self.micros = if sample >= believed || self.micros == 0.0 {
            sample
        } else {
            sample + (believed - sample) * decay(now.since(self.at), TAU)
        };
        self.at = now;
    }

    /// Takes note that a call took longer than `elapsed`, without its end being known.
    pub fn at_least(&mut self, elapsed: Duration, typical: f32, now: Time) {
        if micros(elapsed) > self.micros {
            self.observe(elapsed, typical, now);
        }
    }

    /// [`PeakEwma::value`], and 0 as long as there was no sample.
    pub(super) fn seen(&self, typical: f32, now: Time) -> f32 {
        if self.micros == 0.0 { 0.0 } else { self.value(typical, now) }
    }

    /// Microseconds. What is worse than `typical` fades towards it while no sample comes: an
    /// instance that nobody calls would otherwise be slow for ever.
    #[must_use]
    pub fn value(&self, typical: f32, now: Time) -> f32 {
        if self.micros == 0.0 {
            return typical;
        }
        let above = self.micros - typical;
        if above <= 0.0 {
            return self.micros;
        }
        let horizon = TAU.as_secs_f32() * f32::from(2_u8 << self.patience);
        let left = (1.0 - now.since(self.at).as_secs_f32() / horizon).max(0.0);
        typical + above * left * left
    }
}

/// An estimate of the 95th percentile that costs one number: up by 19 steps for each sample above
/// it, down by one for each below. At rest 19 times as many are below as above.
#[derive(Clone, Copy, Debug, Default)]
pub struct P95 {
    micros: f32,
    samples: u32,
}

/// The part of the estimate by which it moves: 1/256 follows a change within some hundred samples
/// and errs by a few percent when nothing changes.
const STEP: f32 = 1.0 / 256.0;
/// Samples until the estimate is believed.
const ENOUGH: u32 = 64;

impl P95 {
    /// Takes a sample.
    pub fn observe(&mut self, sample: Duration) {
        let sample = micros(sample);
        self.samples = self.samples.saturating_add(1);
        if self.samples == 1 {
            self.micros = sample;
            return;
        }
        // The first samples find the order of magnitude, the later ones the percentile.
        let step = self.micros * if self.samples < ENOUGH { STEP * 8.0 } else { STEP };
        self.micros =
            (self.micros + if sample > self.micros { 19.0 * step } else { -step }).max(1.0);
    }

    /// The estimate; `None` until there were enough samples.
    #[must_use]
    pub fn value(&self) -> Option<Duration> {
        (self.samples >= ENOUGH).then(|| Duration::from_micros(self.micros as u64))
    }
}

/// Microseconds of a duration, at least one.
pub(super) fn micros(duration: Duration) -> f32 {
    // By seconds: the library counts microseconds in 128 bits, whose way to a float is long.
    (duration.as_secs_f32() * 1e6).max(1.0)
}

/// What is left of something after `age`, when it falls by e in `tau`: the eighth power of a
/// quotient, which is the same on every machine (the library's `exp` need not be).
pub(super) fn decay(age: Duration, tau: Duration) -> f32 {
    let part = 1.0 / (1.0 + age.as_secs_f32() / (8.0 * tau.as_secs_f32()));
    let square = part * part;
    let fourth = square * square;
    fourth * fourth
}

#[cfg(test)]
mod tests {
    use super::super::Chance;
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn a_slow_answer_counts_at_once_and_fades_with_time() {
        let mut latency = PeakEwma::default();
        let at = |seconds: u64| Time::from_micros(seconds * 1_000_000);
        assert!((latency.value(1_000.0, at(0)) - 1_000.0).abs() < 1.0, "nothing seen is typical");
        latency.observe(10 * MILLI, 10_000.0, at(1));
        latency.observe(500 * MILLI, 10_000.0, at(1));
        assert!((latency.value(10_000.0, at(1)) - 500_000.0).abs() < 1.0);
        latency.observe(10 * MILLI, 10_000.0, at(2));
        let after = latency.value(10_000.0, at(2));
        assert!((400_000.0..500_000.0).contains(&after), "{after}");
        assert!(latency.value(10_000.0, at(62)) < 20_000.0, "ordinary again after a minute");
        assert!(latency.value(10_000.0, at(62)) > 9_999.0, "never better than typical by waiting");
    }

    #[test]
    fn one_quick_answer_after_a_long_while_makes_an_instance_ordinary() {
        let mut latency = PeakEwma::default();
        latency.observe(3_000 * MILLI, 10_000.0, Time::ZERO);
        let now = Time::from_micros(18_000_000);
        latency.observe(6 * MILLI, 10_000.0, now);
        let after = latency.value(10_000.0, now);
        assert!(after < 20_000.0, "{after}");
    }

    #[test]
    fn the_estimate_comes_near_the_95th_percentile() {
        let (mut p95, mut chance) = (P95::default(), Chance::new(1));
        for _ in 0..20_000 {
            p95.observe(Duration::from_micros(1_000 + chance.draw() % 10_000));
        }
        let found = p95.value().unwrap();
        assert!(
            (Duration::from_micros(9_700)..Duration::from_micros(11_300)).contains(&found),
            "{found:?}"
        );
    }
}
