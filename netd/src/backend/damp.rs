//! How often something has come and gone of late: what flaps is not told to the network each time.
//!
//! ```text
//! each change      weight + 1
//! with time        weight halves every HALF_LIFE
//! SUPPRESS reached held back, until the weight is below REUSE (RFC 2439 §4.2 does so with routes)
//! ```

use std::time::Duration;

use proto::Time;

/// In which the weight of what happened halves.
const HALF_LIFE: Duration = Duration::from_secs(15);
/// From here on an entry is held back: a program that is started anew twice is well below.
const SUPPRESS: f64 = 3.0;
/// Below it is offered again.
const REUSE: f64 = 1.0;
/// No weight is above: what flapped for a day is held back no longer than what did for a minute,
/// which is 39 seconds.
const CEILING: f64 = 6.0;
/// Below it nothing is worth remembering.
const FORGOTTEN: f64 = 0.1;

/// The flaps of one entry.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Flaps {
    weight: f64,
    at: Time,
    held: bool,
}

impl Flaps {
    /// Takes note of a change.
    pub(super) fn hit(&mut self, now: Time) {
        self.weight = (self.decayed(now) + 1.0).min(CEILING);
        self.at = now;
        self.held |= self.weight >= SUPPRESS;
    }

    /// Whether the entry is held back.
    pub(super) fn holds(&mut self, now: Time) -> bool {
        self.held &= self.decayed(now) >= REUSE;
        self.held
    }

    /// When it will not be any more, if nothing happens; `None` if it is not.
    pub(super) fn calm_at(&self) -> Option<Time> {
        let halvings = (self.weight / REUSE).log2().max(0.0);
        // A little more, so that it is certainly below.
        let wait = HALF_LIFE.mul_f64(halvings) + Duration::from_millis(1);
        self.held.then(|| self.at + wait)
    }

    /// Whether nothing is worth remembering.
    pub(super) fn is_nothing(&self, now: Time) -> bool {
        self.decayed(now) < FORGOTTEN
    }

    fn decayed(&self, now: Time) -> f64 {
        let passed = now.as_micros().saturating_sub(self.at.as_micros()) as f64 / 1e6;
        self.weight * 0.5_f64.powf(passed / HALF_LIFE.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_micros(millis * 1000)
    }

    #[test]
    fn what_flaps_is_held_back_until_it_is_calm_and_two_restarts_are_no_flaps() {
        let mut flaps = Flaps::default();
        // Gone and there again, twice in a minute.
        for millis in [0, 2_000, 60_000, 62_000] {
            flaps.hit(at(millis));
            assert!(!flaps.holds(at(millis)), "at {millis} ms");
        }
        let mut flaps = Flaps::default();
        for n in 0..600 {
            flaps.hit(at(n * 100));
            assert_eq!(flaps.holds(at(n * 100)), n >= 3, "change {n}");
        }
        let calm = flaps.calm_at().unwrap();
        assert!(flaps.holds(Time::from_micros(calm.as_micros() - 10_000)));
        assert!(!flaps.holds(calm));
        let held_for = calm.as_micros() - at(599 * 100).as_micros();
        assert!((38_000_000..40_000_000).contains(&held_for), "{held_for}");
        assert!(flaps.calm_at().is_none() && !flaps.is_nothing(calm));
        assert!(flaps.is_nothing(calm + HALF_LIFE * 4));
    }
}
