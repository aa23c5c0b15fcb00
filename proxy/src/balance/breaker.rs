//! Whether an instance gets calls: the circuit of one instance.
//!
//! ```text
//!            failures                   time is over, one call
//! Closed ───────────────▶ Out(until) ───────────────────────▶ Probing
//!    ▲                        ▲                                  │ │
//!    │  (slow start follows)  └──────── it failed: longer ───────┘ │
//!    └───────────────────────────────── it succeeded ──────────────┘
//! ```

use std::time::Duration;

use proto::Time;

/// The first time out of an instance that took no call: as long as a restart takes. Doubles.
const REFUSED: Duration = Duration::from_millis(500);
const REFUSED_MAX: Duration = Duration::from_secs(16);
/// The first time out of one that failed calls; a probe risks a call, so it is longer. Doubles.
const FAILED: Duration = Duration::from_secs(2);
const FAILED_MAX: Duration = Duration::from_secs(64);
/// After this long without trouble the past is forgotten; until then each time out is longer than
/// the one before, which is what ends flapping.
const FORGIVEN: Duration = Duration::from_secs(30);

/// Why an instance is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It took no call: refused, unreachable, turned away unread.
    Refused,
    /// It failed several calls in a row.
    Consecutive,
    /// It failed far more calls than the others did.
    SuccessRate,
}

impl Why {
    /// Whether it is a judgement: bounded in number, and set aside when too few are left. That an
    /// instance took no call is a fact.
    #[must_use]
    pub fn is_ejection(self) -> bool {
        self != Self::Refused
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    Closed,
    Out { since: Time, until: Time, why: Why },
    Probing { why: Why },
}

/// The circuit of one instance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Breaker {
    state: State,
    /// Times out without a quiet while between them.
    times: u8,
    /// When it was closed last.
    closed_at: Time,
}

impl Breaker {
    pub(super) fn new(now: Time) -> Self {
        Self { state: State::Closed, times: 0, closed_at: now }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Why it is out or being probed.
    pub(super) fn why(&self) -> Option<Why> {
        match self.state {
            State::Closed => None,
            State::Out { why, .. } | State::Probing { why } => Some(why),
        }
    }

    /// Opens: no calls for a while. `spread` 0 to 1 lengthens the while by up to a tenth, so that
    /// many nodes that saw the same do not come back together.
    pub(super) fn open(&mut self, why: Why, spread: f32, now: Time) {
        if self.is_closed() && now.since(self.closed_at) > FORGIVEN {
            self.times = 0;
        }
        let (first, most) =
            if why.is_ejection() { (FAILED, FAILED_MAX) } else { (REFUSED, REFUSED_MAX) };
        let length = (first * (1 << self.times.min(8))).min(most);
        self.times = self.times.saturating_add(1);
        let until = now + length + length.mul_f32(0.1 * spread);
        self.state = State::Out { since: now, until, why };
    }

    /// The next call is the probe.
    pub(super) fn begin_probe(&mut self) {
        if let State::Out { why, .. } = self.state {
            self.state = State::Probing { why };
        }
    }

    /// The probe ended without saying anything: another may be sent at once.
    pub(super) fn lose_probe(&mut self, now: Time) {
        if let State::Probing { why } = self.state {
            self.state = State::Out { since: now, until: now, why };
        }
    }

    pub(super) fn close(&mut self, now: Time) {
        self.state = State::Closed;
        self.closed_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(breaker: &Breaker) -> Duration {
        match breaker.state {
            State::Out { since, until, .. } => until.since(since),
            State::Closed | State::Probing { .. } => panic!("it is out"),
        }
    }

    #[test]
    fn each_time_out_is_longer_until_there_was_peace_for_a_while() {
        let mut now = Time::ZERO;
        let mut breaker = Breaker::new(now);
        let mut lengths = Vec::new();
        for _ in 0..8 {
            breaker.open(Why::Consecutive, 0.0, now);
            lengths.push(length(&breaker).as_secs());
            now = now + length(&breaker);
            breaker.begin_probe();
            breaker.close(now);
            now = now + Duration::from_secs(3);
        }
        assert_eq!(lengths, [2, 4, 8, 16, 32, 64, 64, 64]);
        now = now + FORGIVEN;
        breaker.open(Why::Refused, 0.0, now);
        assert_eq!(length(&breaker), REFUSED);
    }
}
