//! Rate limits by key, in a table that cannot grow.

use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::fast::FixedState;
use proto::Time;

/// Cells a key may lie in; the last of them is shared by keys that find no other.
const WAYS: usize = 8;

/// So many calls, at that pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds between two calls at the pace allowed.
    interval: u64,
    /// Nanoseconds by which calls may be ahead of the pace.
    ahead: u64,
}

impl Rate {
    /// `calls` in each `period`, of which `burst` may come at once (at least one).
    #[must_use]
    pub fn new(calls: u32, period: Duration, burst: u32) -> Self {
        let nanos = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        let interval = (nanos / u64::from(calls.max(1))).max(1);
        Self { interval, ahead: interval.saturating_mul(u64::from(burst.max(1) - 1)) }
    }
}

/// What each key used of its rate: GCRA (ITU-T I.371, annex A), one number a key.
///
/// The table has a fixed size. A key whose pace has caught up gives its cell up, for it is as if it
/// had never called. Keys that find all of their cells taken share one: what gives way is the
/// generosity towards new keys, never a limit.
#[derive(Debug)]
pub struct RateTable {
    cells: Box<[Cell]>,
    hasher: FixedState,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    key: u64,
    /// When the next call would be at the pace exactly, in nanoseconds.
    due: u64,
}

impl RateTable {
    /// A table for about `keys` keys that are limited at the same time.
    #[must_use]
    pub fn new(keys: usize, seed: u64) -> Self {
        let sets = (keys / (WAYS / 2)).max(1).next_power_of_two();
        let cells = vec![Cell::default(); sets * WAYS].into_boxed_slice();
        Self { cells, hasher: FixedState::with_seed(seed) }
    }

    /// Counts a call of `key`, the number of whatever calls are counted together.
    ///
    /// # Errors
    /// How long to wait, if the call is above the rate; it is not counted then.
    pub fn check(&mut self, key: u64, rate: Rate, now: Time) -> Result<(), Duration> {
        let now = now.as_micros().saturating_mul(1_000);
        let cell = self.cell(self.hasher.hash_one(key), now);
        let due = cell.due.max(now);
        let early = (due - now).saturating_sub(rate.ahead);
        if early > 0 {
            return Err(Duration::from_nanos(early));
        }
        cell.due = due.saturating_add(rate.interval);
        Ok(())
    }

    fn cell(&mut self, key: u64, now: u64) -> &mut Cell {
        let sets = self.cells.len() / WAYS;
        let start = (key as usize & (sets - 1)) * WAYS;
        let set = &mut self.cells[start..start + WAYS];
        let own = WAYS - 1;
        let found = set[..own].iter().position(|cell| cell.key == key && cell.due > now);
        let at = found.or_else(|| set[..own].iter().position(|cell| cell.due <= now));
        let at = at.unwrap_or(own);
        set[at].key = key;
        &mut set[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(caller: &str) -> u64 {
        proto::rule::stable_hash("shop", caller)
    }

    fn at(millis: u64) -> Time {
        Time::from_micros(millis * 1_000)
    }

    #[test]
    fn a_burst_passes_then_the_pace_and_the_wait_is_exact() {
        let mut table = RateTable::new(100, 1);
        let rate = Rate::new(10, Duration::from_secs(1), 3);
        for _ in 0..3 {
            assert_eq!(table.check(key("ada"), rate, at(1_000)), Ok(()));
        }
        let wait = table.check(key("ada"), rate, at(1_000)).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert_eq!(table.check(key("bob"), rate, at(1_000)), Ok(()), "each key for itself");
        assert!(table.check(key("ada"), rate, at(1_099)).is_err());
        assert_eq!(table.check(key("ada"), rate, at(1_100)), Ok(()));
        let passed = (0..10_000).filter(|ms| table.check(key("ada"), rate, at(2_000 + ms)).is_ok());
        assert_eq!(passed.count(), 3 + 99);
    }

    #[test]
    fn more_keys_than_cells_never_lift_a_limit() {
        let mut table = RateTable::new(64, 1);
        let rate = Rate::new(1, Duration::from_secs(1), 1);
        let names: Vec<String> = (0..10_000).map(|n| format!("caller-{n}")).collect();
        for name in &names {
            // Refused or not, nobody gets two.
            let _ = table.check(key(name), rate, at(0));
            assert!(table.check(key(name), rate, at(0)).is_err());
        }
        assert!(table.check(key("later"), rate, at(1_000)).is_ok(), "and all is free again");
    }
}
