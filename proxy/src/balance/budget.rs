//! How many further attempts a service gets from this node.

use std::time::Duration;

use proto::Time;

use super::latency::decay;

/// What one call earns, in thousandths of an attempt: retries add at most a fifth to the load, and
/// a little less, for an attempt may fall into a second with fewer calls than the one that earned it.
const EARNED: f32 = 190.0;
/// Seldom calls earn by time instead, this much a second, or a service that is called once a
/// minute could never be tried again. Of the two the larger counts, not the sum: whoever calls five
/// times a second or more is bound by their number alone.
const EARNED_A_SECOND: f32 = 1_000.0;
/// What is there at the start, and what time alone can earn.
const FLOOR: f32 = 10_000.0;
/// How long savings last. With it the reserve is two seconds' worth of calls: enough when a node
/// with some instances dies with calls in flight.
const KEPT: Duration = Duration::from_secs(10);
/// What one attempt costs.
const COST: f32 = 1_000.0;
/// Different instances that fail one after another, without one success between, before the
/// service counts as failing altogether (fewer when it has fewer).
const STORM: u32 = 5;

/// A bucket of further attempts: retries and hedges. Savings help when *some* instances fail; once
/// all seem to, they are forfeited with what the first of the storm took, so that at no time more
/// than a fifth is added to the load.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    thousandths: f32,
    at: Time,
    /// Different instances that failed since the last success.
    failing: u32,
    /// What was spent since the last success.
    spent: f32,
}

impl RetryBudget {
    /// A bucket with the floor in it.
    #[must_use]
    pub const fn new(now: Time) -> Self {
        Self { thousandths: FLOOR, at: now, failing: 0, spent: 0.0 }
    }

    /// Takes note of a call (not of its further attempts).
    pub fn call(&mut self, now: Time) {
        let passed = now.since(self.at);
        self.at = now;
        if self.thousandths > 0.0 {
            self.thousandths *= decay(passed, KEPT);
        }
        let by_time = (EARNED_A_SECOND * passed.as_secs_f32()).min(FLOOR);
        self.thousandths += EARNED.max(by_time);
    }

    /// Takes one further attempt out; `false`: there is none.
    pub fn spend(&mut self) -> bool {
        let enough = self.thousandths >= COST;
        if enough {
            self.thousandths -= COST;
            self.spent += COST;
        }
        enough
    }

    /// Takes note of a success.
    pub fn success(&mut self) {
        self.failing = 0;
        self.spent = 0.0;
    }

    /// Takes note that a further instance failed, one that had not since the last success; the
    /// service has `instances`.
    pub fn further_failure(&mut self, instances: u32) {
        self.failing = self.failing.saturating_add(1);
        if self.failing == STORM.min(instances) {
            self.thousandths = self.thousandths.min(0.0) - self.spent;
        }
    }

    /// Further attempts that could be made now.
    #[must_use]
    pub fn left(&self) -> u32 {
        (self.thousandths / COST).max(0.0) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_micros(millis * 1_000)
    }

    #[test]
    fn when_all_fails_never_more_than_a_fifth_is_added() {
        let mut budget = RetryBudget::new(at(0));
        for milli in 0..10_000 {
            budget.call(at(milli));
            budget.success();
        }
        let mut extra = 0;
        for milli in 10_000..20_000_u64 {
            budget.call(at(milli));
            budget.further_failure(200);
            extra += u64::from(budget.spend());
            let calls = milli - 9_999;
            assert!(extra <= calls / 5 + 5, "{extra} after {calls}");
        }
        assert!(extra > 1_800, "and the fifth is there: {extra}");
    }

    #[test]
    fn when_one_instance_dies_its_calls_in_flight_are_all_tried_again() {
        let mut budget = RetryBudget::new(at(0));
        for milli in 0..20_000 {
            budget.call(at(milli));
            budget.success();
        }
        budget.further_failure(4);
        for _ in 0..1_000 {
            assert!(budget.spend(), "a second's worth of calls");
        }
    }

    #[test]
    fn seldom_calls_can_always_be_tried_again() {
        let mut budget = RetryBudget::new(at(0));
        for minute in 1..100 {
            budget.call(at(minute * 60_000));
            assert!(budget.spend() && budget.spend());
        }
    }
}
