//! Nodes that had to go: for a while nobody links with them, from either end. Pure: the time comes
//! in with each question.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::{NodeId, Time};

use crate::close::Close;

/// How long the first time.
const FIRST: Duration = Duration::from_secs(60);
/// How long at most; each time is twice as long as the one before.
const LONGEST: Duration = Duration::from_secs(3600);
/// Without a new offence for this long, the next is a first one.
const FORGOTTEN: Duration = Duration::from_secs(6 * 3600);
/// Offenders remembered. They are members, so the issuer decides how many there can be; the one
/// that may soonest come back makes room.
const MOST: usize = 1024;

/// Who had to go, and until when.
#[derive(Debug, Default)]
pub(crate) struct Penalties(BTreeMap<NodeId, Penalty>);

#[derive(Clone, Copy, Debug)]
struct Penalty {
    close: Close,
    until: Time,
    last: Duration,
}

impl Penalties {
    /// `node` had to go for this; how long it has to stay away.
    pub(crate) fn add(&mut self, node: NodeId, close: Close, now: Time) -> Duration {
        self.0.retain(|_, penalty| now < penalty.until + FORGOTTEN);
        let known = self.0.get(&node).copied();
        // Two links that end for one reason are one offence.
        if let Some(penalty) = known.filter(|penalty| now < penalty.until) {
            return penalty.until.since(now);
        }
        let last = known.map_or(FIRST, |penalty| (penalty.last * 2).min(LONGEST));
        if known.is_none() && self.0.len() >= MOST {
            let soonest = self.0.iter().min_by_key(|(_, penalty)| penalty.until);
            if let Some(soonest) = soonest.map(|(node, _)| *node) {
                self.0.remove(&soonest);
            }
        }
        self.0.insert(node, Penalty { close, until: now + last, last });
        last
    }

    /// Why `node` may not come back yet.
    pub(crate) fn of(&self, node: &NodeId, now: Time) -> Option<Close> {
        self.0.get(node).filter(|penalty| now < penalty.until).map(|penalty| penalty.close)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u16) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        NodeId::from_bytes(bytes)
    }

    #[test]
    fn each_offence_costs_twice_the_time_of_the_one_before() {
        let mut penalties = Penalties::default();
        let mut now = Time::ZERO;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let wait = penalties.add(id(1), Close::Misbehaved, now);
            assert_eq!(penalties.of(&id(1), now), Some(Close::Misbehaved));
            now = now + wait;
            assert_eq!(penalties.of(&id(1), now), None);
            waits.push(wait.as_secs());
        }
        assert_eq!(waits, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
        let later = now + FORGOTTEN;
        assert_eq!(penalties.add(id(1), Close::Flooded, later), FIRST);
    }

    #[test]
    fn the_table_is_bounded_and_the_newest_is_in_it() {
        let mut penalties = Penalties::default();
        for n in 0..3_000 {
            let now = Time::ZERO + Duration::from_millis(u64::from(n));
            penalties.add(id(n), Close::Flooded, now);
            assert_eq!(penalties.of(&id(n), now), Some(Close::Flooded));
        }
        assert_eq!(penalties.0.len(), MOST);
    }
}
