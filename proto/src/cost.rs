//! What a path costs.

use std::fmt;
use std::time::Duration;

/// The cost of a path: expected round trip with queues and penalties, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost(u32);

impl Cost {
    /// The cost of what is on this node.
    pub const ZERO: Self = Self(0);
    /// The cost of what cannot be reached.
    pub const INFINITE: Self = Self(u32::MAX);

    /// A cost from its microseconds; `u32::MAX` is [`Cost::INFINITE`].
    #[must_use]
    pub const fn from_micros(micros: u32) -> Self {
        Self(micros)
    }

    /// The cost of a round trip; saturates below [`Cost::INFINITE`].
    #[must_use]
    pub fn of(round_trip: Duration) -> Self {
        Self(u32::try_from(round_trip.as_micros()).unwrap_or(u32::MAX - 1).min(u32::MAX - 1))
    }

    /// Microseconds; `u32::MAX` for [`Cost::INFINITE`].
    #[must_use]
    pub const fn as_micros(self) -> u32 {
        self.0
    }

    /// The cost of this path with one more link in front; saturates at [`Cost::INFINITE`].
    #[must_use]
    pub const fn via(self, link: Self) -> Self {
        Self(self.0.saturating_add(link.0))
    }

    /// Whether there is a path at all.
    #[must_use]
    pub const fn is_finite(self) -> bool {
        self.0 != u32::MAX
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            u32::MAX => f.write_str("∞"),
            micros @ 0..10_000 => {
                write!(f, "{}.{}ms", micros / 1000, micros % 1000 / 100)
            }
            micros => write!(f, "{}ms", (micros + 500) / 1000),
        }
    }
}
