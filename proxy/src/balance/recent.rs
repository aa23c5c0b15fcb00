//! What changed last among the instances of a service.

use std::collections::VecDeque;

use proto::Time;

use super::breaker::Why;

/// Changes that are remembered of one service; the oldest gives way.
const KEPT: usize = 8;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The instance is out.
    Out {
        /// Why.
        why: Why,
        /// Failures in a row up to then.
        failures: u32,
    },
    /// It is back, and begins slowly.
    Back,
    /// It is new in the table.
    Came,
    /// It is gone from the table.
    Went,
}

/// Something that happened to one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub at: Time,
    /// The key of the instance.
    pub key: u64,
    /// What.
    pub what: What,
}

/// The last changes of one service. Holds no memory while there were none.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent(VecDeque<Change>);

impl Recent {
    pub(super) fn note(&mut self, key: u64, what: What, at: Time) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(Change { at, key, what });
    }

    /// The latest first.
    pub(super) fn latest(&self) -> impl Iterator<Item = Change> {
        self.0.iter().rev().copied()
    }
}

/// How many changes of each kind there were since somebody took note of it: for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fresh {
    /// Instances put out by a judgement.
    pub ejected: u32,
    /// Instances put out for taking no call.
    pub refusing: u32,
    /// Instances that came back.
    pub back: u32,
}

impl Fresh {
    pub(super) fn count(&mut self, what: What) {
        match what {
            What::Out { why, .. } if why.is_ejection() => self.ejected += 1,
            What::Out { .. } => self.refusing += 1,
            What::Back => self.back += 1,
            What::Came | What::Went => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_change_gives_way() {
        let mut recent = Recent::default();
        for key in 0..20 {
            recent.note(key, What::Back, Time::from_micros(key));
        }
        let keys: Vec<_> = recent.latest().map(|change| change.key).collect();
        assert_eq!(keys, [19, 18, 17, 16, 15, 14, 13, 12]);
    }
}
