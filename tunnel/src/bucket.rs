//! A token bucket that holds no tokens: all it knows is when it will be full again (the "virtual
//! scheduling" of ATM Forum TM 4.0, known as GCRA). No clock: time comes in by the door.

use std::time::Duration;

use proto::Time;

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// Nanoseconds in which one token comes.
    each: u64,
    /// Nanoseconds in which an empty bucket is full.
    depth: u64,
}

impl Rate {
    /// `per_second` tokens in the long run, `burst` of them at once.
    pub(crate) const fn new(per_second: u64, burst: u64) -> Self {
        let each = 1_000_000_000 / per_second;
        Self { each, depth: each * burst }
    }
}

/// A bucket; new ones are full. Its rate is given with each use, for it is a constant.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    /// Nanoseconds since [`Time::ZERO`] at which it is full.
    full_at: u64,
}

impl Bucket {
    /// Takes `tokens`, into debt where there are not as many.
    pub(crate) fn take(&mut self, tokens: u64, rate: Rate, now: Time) {
        let from = self.full_at.max(nanos(now));
        self.full_at = from.saturating_add(tokens.saturating_mul(rate.each));
    }

    /// Takes one token if there is one.
    pub(crate) fn try_take(&mut self, rate: Rate, now: Time) -> bool {
        let mut after = *self;
        after.take(1, rate, now);
        let taken = after.wait(rate, now).is_zero();
        if taken {
            *self = after;
        }
        taken
    }

    /// Gives `tokens` back.
    pub(crate) fn give(&mut self, tokens: u64, rate: Rate) {
        self.full_at = self.full_at.saturating_sub(tokens.saturating_mul(rate.each));
    }

    /// How long until it holds `tokens`; all of them, if that is more.
    pub(crate) fn wait_for(&self, tokens: u64, rate: Rate, now: Time) -> Duration {
        let missing = self.full_at.saturating_sub(nanos(now));
        let depth = rate.depth.saturating_sub(tokens.saturating_mul(rate.each));
        Duration::from_nanos(missing.saturating_sub(depth))
    }

    /// How long until it is out of debt.
    pub(crate) fn wait(&self, rate: Rate, now: Time) -> Duration {
        self.wait_for(0, rate, now)
    }

    /// Whether nothing is missing.
    pub(crate) fn is_full(&self, now: Time) -> bool {
        self.full_at <= nanos(now)
    }
}

fn nanos(time: Time) -> u64 {
    time.as_micros().saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate::new(10, 5);

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn a_burst_passes_and_what_follows_comes_at_the_rate() {
        let mut bucket = Bucket::default();
        let passed =
            |bucket: &mut Bucket, now| (0..100).filter(|_| bucket.try_take(RATE, now)).count();
        assert_eq!(passed(&mut bucket, at(0)), 5);
        assert_eq!(passed(&mut bucket, at(99)), 0);
        assert_eq!(passed(&mut bucket, at(100)), 1);
        assert_eq!(passed(&mut bucket, at(300)), 2);
        assert_eq!(passed(&mut bucket, at(60_000)), 5, "it holds no more than its burst");
    }

    #[test]
    fn a_debt_is_waited_out_and_what_is_given_back_shortens_it() {
        let mut bucket = Bucket::default();
        bucket.take(15, RATE, at(0));
        assert_eq!(bucket.wait(RATE, at(0)), Duration::from_secs(1));
        assert_eq!(bucket.wait(RATE, at(400)), Duration::from_millis(600));
        bucket.give(6, RATE);
        assert_eq!(bucket.wait(RATE, at(400)), Duration::ZERO);
        assert!(!bucket.is_full(at(400)) && bucket.is_full(at(900)));
    }
}
