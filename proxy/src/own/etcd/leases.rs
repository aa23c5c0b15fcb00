//! Leases: how long the keys of programs last unless they say again that they are there. Pure: the
//! time comes in by the door.
//!
//! A lease lives on this node alone and in memory: after a restart none is known, and programs
//! register again, as they do with etcd when their lease ran out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

/// Leases at a time; more are refused.
const MAX_LEASES: usize = 200_000;
/// Seconds: shorter ones are this. etcd has 2 with its usual settings.
const MIN_TTL: i64 = 1;
/// Seconds; etcd's own bound.
const MAX_TTL: i64 = 9_000_000_000;

/// Why there is no such lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Exists,
    TooLong,
    TooMany,
}

/// One lease.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    /// Seconds.
    pub(super) granted: i64,
    ends: Instant,
    pub(super) keys: BTreeSet<Bytes>,
}

impl Lease {
    /// How long it lasts from now.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.ends.saturating_duration_since(now)
    }

    /// The time it is granted for.
    pub(super) fn whole(&self) -> Duration {
        Duration::from_secs(self.granted.unsigned_abs())
    }
}

/// All leases of this node.
#[derive(Debug, Default)]
pub(super) struct Leases {
    all: BTreeMap<i64, Lease>,
    ends: BTreeSet<(Instant, i64)>,
}

impl Leases {
    /// Makes a lease of so many seconds and gives those it has. `id` is not 0.
    pub(super) fn grant(&mut self, id: i64, ttl: i64, now: Instant) -> Result<i64, Refused> {
        if ttl > MAX_TTL {
            return Err(Refused::TooLong);
        }
        if self.all.contains_key(&id) {
            return Err(Refused::Exists);
        }
        if self.all.len() >= MAX_LEASES {
            return Err(Refused::TooMany);
        }
        let granted = ttl.max(MIN_TTL);
        let ends = now + Duration::from_secs(granted.unsigned_abs());
        self.ends.insert((ends, id));
        self.all.insert(id, Lease { granted, ends, keys: BTreeSet::new() });
        Ok(granted)
    }

    pub(super) fn get(&self, id: i64) -> Option<&Lease> {
        self.all.get(&id)
    }

    /// Lets it begin again.
    pub(super) fn renew(&mut self, id: i64, now: Instant) -> Option<&Lease> {
        let lease = self.all.get_mut(&id)?;
        self.ends.remove(&(lease.ends, id));
        lease.ends = now + lease.whole();
        self.ends.insert((lease.ends, id));
        Some(lease)
    }

    /// Takes it away, and gives its keys.
    pub(super) fn remove(&mut self, id: i64) -> Option<BTreeSet<Bytes>> {
        let lease = self.all.remove(&id)?;
        self.ends.remove(&(lease.ends, id));
        Some(lease.keys)
    }

    /// Takes those away that have run out, and gives their keys.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Bytes> {
        let mut keys = Vec::new();
        while let Some(&(ends, id)) = self.ends.first()
            && ends <= now
        {
            keys.extend(self.remove(id).unwrap_or_default());
        }
        keys
    }

    /// Moves a key from one lease to another; 0 and what is not there are none.
    pub(super) fn attach(&mut self, key: &Bytes, from: i64, to: i64) {
        if let Some(lease) = self.all.get_mut(&from) {
            lease.keys.remove(key);
        }
        if let Some(lease) = self.all.get_mut(&to) {
            lease.keys.insert(key.clone());
        }
    }

    /// All of them.
    pub(super) fn ids(&self) -> impl Iterator<Item = i64> {
        self.all.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_lasts_from_the_last_word_and_takes_its_keys_along() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(leases.grant(7, 10, now), Ok(10));
        assert_eq!(leases.grant(7, 10, now), Err(Refused::Exists));
        assert_eq!(leases.grant(8, -5, now), Ok(MIN_TTL));
        assert_eq!(leases.grant(9, i64::MAX, now), Err(Refused::TooLong));
        let key = Bytes::from_static(b"k");
        leases.attach(&key, 0, 8);
        leases.attach(&key, 8, 7);
        leases.renew(7, after(5));
        assert!(leases.expire(after(14)).is_empty(), "8 ran out without a key");
        assert_eq!(leases.get(7).unwrap().left(after(14)), Duration::from_secs(1));
        assert_eq!(leases.expire(after(15)), [key]);
        assert!(leases.renew(7, after(15)).is_none() && leases.ids().next().is_none());
    }
}
