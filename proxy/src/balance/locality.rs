//! How much of what is meant for the nearest instances goes on to the next ones.

use std::time::Duration;

use proto::Time;

use super::latency::decay;

/// Above this load the share rises, unless a rule says otherwise: the threshold that `why` and the
/// documents name.
const ABOVE: f32 = 0.8;
/// Below this one it falls. Between, noise of the load moves nothing.
const BELOW: f32 = 0.6;
/// From the threshold to here the share goes from none to all. A ramp, so that all callers, who see
/// the same load, come to rest at the same share; a step would send all of them away together.
const RAMP: f32 = 0.2;
/// Some calls always try the nearest: else nobody would learn that there is room again.
const MOST: f32 = 0.95;
/// How the load is smoothed: over many calls, and slow beside them.
const SMOOTH: Duration = Duration::from_secs(1);
/// Share a second, at most: quick away from overload, slow back.
const AWAY: f32 = 0.3;
const BACK: f32 = 0.1;

/// The share of a locality's calls that goes on to the next.
#[derive(Clone, Copy, Debug)]
pub struct Spill {
    load: f32,
    share: f32,
    at: Time,
    above: f32,
    below: f32,
}

impl Default for Spill {
    fn default() -> Self {
        Self { load: 0.0, share: 0.0, at: Time::ZERO, above: ABOVE, below: BELOW }
    }
}

impl Spill {
    /// Sets the loads, in percent, above which the share rises and below which it falls; `None`:
    /// those of every service without a rule.
    pub(super) fn set(&mut self, thresholds: Option<(u8, u8)>) {
        let part = |percent: u8| f32::from(percent) / 100.0;
        let set = thresholds.map_or((ABOVE, BELOW), |(above, below)| (part(above), part(below)));
        (self.above, self.below) = set;
    }

    /// Takes note of the load that one answer told: calls at the instance by its limit.
    pub fn observe(&mut self, load: f32, now: Time) {
        let passed = now.since(self.at);
        self.at = now;
        let load = load.clamp(0.0, 1.0);
        self.load = load + (self.load - load) * decay(passed, SMOOTH);
        // The share may be anything between two ramps, and is moved only by the one it touches.
        let wanted = self.share.max(ramp(self.load, self.above));
        let wanted = wanted.min(ramp(self.load, self.below)).min(MOST);
        let seconds = passed.as_secs_f32().min(1.0);
        self.share = wanted.clamp(self.share - BACK * seconds, self.share + AWAY * seconds);
    }

    /// The share, 0 to 1.
    #[must_use]
    pub fn share(&self) -> f32 {
        self.share
    }

    /// The smoothed load, 0 to 1.
    #[must_use]
    pub fn load(&self) -> f32 {
        self.load
    }
}

fn ramp(load: f32, from: f32) -> f32 {
    ((load - from) / RAMP).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets a locality with room for 1 live under `demand`; gives the share after each 100 ms.
    fn live(spill: &mut Spill, demand: f32, from: u64, tenths: u64) -> Vec<f32> {
        let step = |tenth: u64| {
            let load = demand * (1.0 - spill.share());
            spill.observe(load, Time::from_micros((from + tenth) * 100_000));
            spill.share()
        };
        (1..=tenths).map(step).collect()
    }

    #[test]
    fn the_share_goes_up_smoothly_stays_and_comes_back() {
        let mut spill = Spill::default();
        assert!(live(&mut spill, 0.75, 0, 100).iter().all(|share| *share == 0.0));
        let up = live(&mut spill, 1.5, 100, 300);
        let last = *up.last().unwrap();
        assert!((0.35..0.55).contains(&last), "1.5 of what there is room for: {last}");
        assert!(up.windows(2).all(|two| (two[1] - two[0]).abs() <= 0.031), "no jump");
        let settled = &up[150..];
        let turns = settled.windows(3).filter(|w| (w[1] > w[0]) != (w[2] > w[1]) && w[0] != w[1]);
        assert_eq!(turns.count(), 0, "no oscillation: {settled:?}");
        let down = live(&mut spill, 0.5, 400, 300);
        assert_eq!(*down.last().unwrap(), 0.0);
        assert!(down.windows(2).all(|two| two[1] <= two[0]), "back without turning");
    }

    #[test]
    fn noise_within_the_hysteresis_moves_nothing() {
        let mut spill = Spill::default();
        live(&mut spill, 1.2, 0, 300);
        let share = spill.share();
        let load = spill.load();
        for tenth in 0..200 {
            let noise = if tenth % 2 == 0 { 0.05 } else { -0.05 };
            spill.observe(load - 0.06 + noise, Time::from_micros((301 + tenth) * 100_000));
            assert_eq!(spill.share(), share);
        }
    }
}
