//! What is known of one instance.

use std::time::Duration;

use proto::Time;

use super::breaker::Breaker;
use super::latency::{PeakEwma, decay, micros};
use super::settle::Report;

/// How long a new instance, or one that came back, takes to get its whole share: caches, pools and
/// compilers get warm. Envoy and HAProxy users set 10 to 60 s; the short end, for we also see load.
pub(super) const SLOW_START: Duration = Duration::from_secs(10);
/// The share with which it begins. Less would leave it without a call among many.
const FIRST_SHARE: f32 = 0.1;
/// A reported load is believed for about as long as the call took that brought it: by then the calls
/// it counted have ended. Older ones are worse than none, for they send everybody the same way
/// (Mitzenmacher, "How Useful Is Old Information"). At least this long, to be of any use.
const REPORT: Duration = Duration::from_millis(10);
/// How long a refusal for having too much to do is believed.
const BUSY: Duration = Duration::from_millis(250);
/// One part of a failure, and of a success, in the smoothed success. With many callers each sees few
/// calls of an instance, and has to learn from one or two failures. It trusts again more slowly, or
/// an instance that fails every other call would look well half of the time.
const FAILURE_PART: f32 = 0.5;
const SUCCESS_PART: f32 = 0.25;
/// An instance that always fails is as bad as 1/0.05² = 400 times as slow.
const LEAST_SUCCESS: f32 = 0.05;
/// A failure is forgiven after about this long.
const FORGIVEN: Duration = Duration::from_secs(10);
/// Outcomes are counted over about this long: some calls must come together to judge by.
const COUNTED: Duration = Duration::from_secs(30);

/// One instance, as calls from here see it.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) key: u64,
    /// Place of its service.
    pub(super) service: u32,
    pub(super) group: u32,
    /// It is in its service's table; if not, it is forgotten with its last call.
    pub(super) listed: bool,
    pub(super) in_flight: u32,
    /// Failures since the last success.
    pub(super) consecutive: u32,
    /// The run of failures of its service in which it failed last.
    pub(super) run: u32,
    pub(super) breaker: Breaker,
    pub(super) latency: PeakEwma,
    pub(super) outcomes: Outcomes,
    /// Smoothed share of calls that succeed, as of its last failure or success.
    success: f32,
    success_at: Time,
    /// Calls that wait for their answer, and since when none came.
    pub(super) waiting: u32,
    silent_since: Time,
    ramp_until: Time,
    /// Calls there that are not ours, when that was reported, and the limit (0: none known).
    others: f32,
    reported_at: Time,
    believed: Duration,
    limit: u32,
}

impl Slot {
    pub(super) fn new(key: u64, service: u32, group: u32, now: Time) -> Self {
        Self {
            key,
            service,
            group,
            listed: true,
            in_flight: 0,
            consecutive: 0,
            run: 0,
            breaker: Breaker::new(now),
            latency: PeakEwma::default(),
            outcomes: Outcomes::default(),
            success: 1.0,
            success_at: now,
            waiting: 0,
            silent_since: now,
            ramp_until: Time::ZERO,
            others: 0.0,
            reported_at: Time::ZERO,
            believed: REPORT,
            limit: 0,
        }
    }

    /// Begins slowly from now on.
    pub(super) fn warm_up(&mut self, now: Time) {
        self.ramp_until = now + SLOW_START;
        self.success = 1.0;
    }

    /// The share of its calls that it gets while it begins slowly; 1 afterwards.
    pub(super) fn share(&self, now: Time) -> f32 {
        if self.ramp_until <= now {
            return 1.0;
        }
        let left = self.ramp_until.since(now);
        1.0 - (1.0 - FIRST_SHARE) * left.as_secs_f32() / SLOW_START.as_secs_f32()
    }

    /// The wait to expect, in microseconds: the calls before this one, each as long as calls were;
    /// more if calls fail, by the square of how many are needed for a success: once for trying
    /// again, once for the harm.
    pub(super) fn cost(&self, typical: f32, now: Time) -> f32 {
        let before = self.in_flight as f32 + self.others(now);
        let mut latency = self.latency.value(typical, now);
        if self.waiting > 0 {
            // Longer than this it takes: an instance that hangs is found out before it answers.
            latency = latency.max(micros(now.since(self.silent_since)));
        }
        let success = self.success(now);
        latency * (before + 1.0) / (success * success)
    }

    /// A call goes there.
    pub(super) fn enter(&mut self, now: Time) {
        self.in_flight += 1;
        self.waiting += 1;
        if self.waiting == 1 {
            self.silent_since = now;
        }
    }

    /// A call there waits no more.
    pub(super) fn heard(&mut self, now: Time) {
        self.waiting -= 1;
        self.silent_since = now;
    }

    pub(super) fn success(&self, now: Time) -> f32 {
        if self.success > 0.99 {
            return 1.0;
        }
        1.0 - (1.0 - self.success) * decay(now.since(self.success_at), FORGIVEN)
    }

    /// Whether it takes no call more: by our own limit, or by what it reported.
    pub(super) fn is_full(&self, limit: u32, now: Time) -> bool {
        if self.in_flight >= limit {
            return true;
        }
        // That it is full is believed a little longer than how busy it is: asking costs a refusal.
        let left = decay(now.since(self.reported_at), self.believed.max(BUSY));
        self.limit > 0 && self.in_flight as f32 + self.others * left >= self.limit as f32
    }

    /// Calls there that are not ours, as far as a report is still believed.
    pub(super) fn others(&self, now: Time) -> f32 {
        if self.others == 0.0 {
            return 0.0;
        }
        self.others * decay(now.since(self.reported_at), self.believed)
    }

    /// Takes note of what an answer told after `took`.
    pub(super) fn report(&mut self, report: Report, took: Duration, now: Time) {
        self.believed = took.max(REPORT);
        self.others = report.in_flight.saturating_sub(self.in_flight) as f32;
        self.limit = report.limit;
        self.reported_at = now;
    }

    /// Takes note that it was full, without being told by how much.
    pub(super) fn busy(&mut self, now: Time) {
        let limit = if self.limit > 0 { self.limit } else { self.in_flight.max(1) };
        let in_flight = limit.saturating_add(limit / 4).saturating_add(1);
        self.report(Report { in_flight: self.in_flight.max(in_flight), limit }, BUSY, now);
    }

    pub(super) fn succeeded(&mut self, now: Time) {
        self.consecutive = 0;
        let success = self.success(now);
        self.success = success + (1.0 - success) * SUCCESS_PART;
        self.success_at = now;
    }

    pub(super) fn failed(&mut self, now: Time) {
        self.consecutive = self.consecutive.saturating_add(1);
        self.success = (self.success(now) * (1.0 - FAILURE_PART)).max(LEAST_SUCCESS);
        self.success_at = now;
    }
}

/// How many calls succeeded and failed lately; both fade.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcomes {
    calls: f32,
    failures: f32,
    at: Time,
}

impl Outcomes {
    pub(super) fn count(&mut self, failed: bool, now: Time) {
        self.fade(now);
        self.calls += 1.0;
        self.failures += f32::from(u8::from(failed));
    }

    pub(super) fn clear(&mut self) {
        (self.calls, self.failures) = (0.0, 0.0);
    }

    fn fade(&mut self, now: Time) {
        let left = decay(now.since(self.at), COUNTED);
        self.at = now;
        self.calls *= left;
        self.failures *= left;
    }

    /// The share of failures among the rest of `all`; `None` when there are too few to say.
    pub(super) fn share_of_others(&self, all: &Self) -> Option<f32> {
        let (calls, failures) = (all.calls - self.calls, all.failures - self.failures);
        (calls >= 20.0).then(|| (failures / calls).clamp(0.0, 1.0))
    }

    /// Whether these are far worse than the rest of `all`: by three standard deviations of what the
    /// others' share of failures makes likely, and by two failures at least, whatever the volume.
    pub(super) fn are_far_worse(&self, all: &Self) -> bool {
        let (calls, failures) = (all.calls - self.calls, all.failures - self.failures);
        if calls < self.calls {
            // There is too little to compare with.
            return false;
        }
        let share = (failures.max(0.0) / calls.max(1.0)).min(1.0);
        let expected = self.calls * share;
        let deviation = (expected * (1.0 - share)).max(0.0).sqrt();
        self.failures > expected + 3.0 * deviation + 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(calls: u32, failures: u32) -> Outcomes {
        Outcomes { calls: calls as f32, failures: failures as f32, at: Time::ZERO }
    }

    #[test]
    fn only_what_the_others_make_unlikely_is_far_worse() {
        let all = outcomes(1_000, 10);
        assert!(outcomes(10, 4).are_far_worse(&all));
        assert!(!outcomes(10, 2).are_far_worse(&all));
        assert!(!outcomes(100, 4).are_far_worse(&outcomes(1_000, 40)));
        assert!(!outcomes(100, 50).are_far_worse(&outcomes(1_000, 500)), "all are as bad");
        assert!(!outcomes(100, 90).are_far_worse(&outcomes(150, 90)), "too few others");
    }

    #[test]
    fn a_report_counts_the_calls_of_others_and_fades() {
        let now = Time::from_micros(1);
        let mut slot = Slot::new(1, 0, 0, now);
        slot.in_flight = 2;
        slot.report(Report { in_flight: 10, limit: 10 }, Duration::from_secs(2), now);
        assert!(slot.is_full(100, now));
        assert!((slot.cost(1_000.0, now) - 11_000.0).abs() < 1.0);
        let later = now + Duration::from_secs(10);
        assert!(!slot.is_full(100, later));
        assert!(slot.cost(1_000.0, later) < 3_200.0);
    }

    #[test]
    fn a_new_instance_gets_its_share_by_and_by() {
        let now = Time::from_micros(1);
        let mut slot = Slot::new(1, 0, 0, now);
        assert_eq!(slot.share(now), 1.0);
        slot.warm_up(now);
        assert!((slot.share(now) - 0.1).abs() < 1e-6);
        assert!((slot.share(now + SLOW_START / 2) - 0.55).abs() < 1e-3);
        assert_eq!(slot.share(now + SLOW_START), 1.0);
    }
}
