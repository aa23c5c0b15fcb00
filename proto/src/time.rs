//! Time as the cores know it, and the versions it gives to records.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// Microseconds since the node began. Monotonic: comes in by the door, never read from a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The moment the node began.
    pub const ZERO: Self = Self(0);

    /// A moment by its distance from the beginning.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the beginning.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Time> for Time {
    type Output = Duration;

    fn sub(self, earlier: Time) -> Duration {
        self.since(earlier)
    }
}

/// Seconds since 1970 (UTC), for what must mean the same on every node: expiry of grants and
/// tickets. Everything else uses [`Time`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// This moment plus whole seconds.
    #[must_use]
    pub const fn plus(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// Seconds from now until this moment; 0 if it has passed.
    #[must_use]
    pub const fn seconds_after(self, now: Self) -> u64 {
        self.0.saturating_sub(now.0)
    }
}

/// Which life of a node: the wall-clock milliseconds at which it started, or one more than the
/// highest the network remembers of it, whichever is larger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// Counts the versions of one record within one life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// The version of a record: a later life beats any number of changes in an earlier one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The life of the origin in which it was written.
    pub epoch: Epoch,
    /// Its number within that life.
    pub seq: Seq,
}

impl Version {
    /// The next version of the same life.
    #[must_use]
    pub const fn next(self) -> Self {
        Self { epoch: self.epoch, seq: Seq(self.seq.0.saturating_add(1)) }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch.0, self.seq.0)
    }
}
