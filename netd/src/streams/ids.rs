//! Ids of messages that were stored of late: one that is published again is stored once.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

/// For how long an id is remembered.
pub const WINDOW: Duration = Duration::from_secs(120);
/// Ids that are remembered; the oldest gives way.
pub const MAX_IDS: usize = 65_536;
/// The longest id.
pub const MAX_ID: usize = 256;

/// Ids, with the numbers they were stored under.
#[derive(Debug, Default)]
pub struct Ids {
    numbers: HashMap<Bytes, u64, foldhash::fast::RandomState>,
    order: VecDeque<(u64, Bytes)>,
}

impl Ids {
    /// The number that this id was stored under.
    #[must_use]
    pub fn number(&self, id: &[u8]) -> Option<u64> {
        self.numbers.get(id).copied()
    }

    /// The last id.
    #[must_use]
    pub fn last(&self) -> Option<&Bytes> {
        self.order.back().map(|(_, id)| id)
    }

    /// It is stored at `time`, microseconds since 1970.
    pub fn insert(&mut self, id: Bytes, number: u64, time: u64) {
        self.numbers.insert(id.clone(), number);
        self.order.push_back((time, id));
        self.forget(time);
    }

    /// Those are forgotten that are too old at `now`.
    pub fn forget(&mut self, now: u64) {
        let oldest = now.saturating_sub(WINDOW.as_micros() as u64);
        while let Some((time, _)) = self.order.front() {
            if *time >= oldest && self.order.len() <= MAX_IDS {
                return;
            }
            if let Some((_, id)) = self.order.pop_front() {
                self.numbers.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_remembered_for_a_while_and_so_many() {
        let (mut ids, window) = (Ids::default(), WINDOW.as_micros() as u64);
        ids.insert(Bytes::from_static(b"a"), 1, 5);
        ids.insert(Bytes::from_static(b"b"), 2, 6);
        assert_eq!((ids.number(b"a"), ids.number(b"c")), (Some(1), None));
        assert_eq!(ids.last().map(|id| &id[..]), Some(&b"b"[..]));
        ids.forget(window + 6);
        assert_eq!((ids.number(b"a"), ids.number(b"b")), (None, Some(2)));
        for n in 0..MAX_IDS {
            ids.insert(Bytes::from(n.to_string()), 9, window);
        }
        assert_eq!((ids.number(b"b"), ids.number(b"0"), ids.order.len()), (None, Some(9), MAX_IDS));
    }
}
