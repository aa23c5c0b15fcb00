//! The clock of one tunnel.

use std::time::Duration;

use proto::Time;
use tokio::time::Instant;

/// Turns moments of the runtime into [`Time`] and back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Time {
        Time::ZERO + self.0.elapsed()
    }

    pub(crate) fn instant(self, time: Time) -> Instant {
        self.0 + time.since(Time::ZERO)
    }

    /// The moment `seconds` from now. What a grant has left is counted by this clock, which
    /// nobody sets, from when it was checked by the clock on the wall.
    pub(crate) fn after(self, seconds: u64) -> Time {
        self.now() + Duration::from_secs(seconds)
    }
}
