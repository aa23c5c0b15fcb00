//! What this node knows of the instances it calls: how many calls, how long they take, whether
//! they refused lately. Of two chosen at random, the call goes to the one that will answer sooner.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Instances that are remembered. Beyond it those without calls are forgotten: they begin anew.
const MAX_SLOTS: usize = 65_536;
/// How long an instance that took no call is passed over when there are others; doubles with each
/// further refusal, up to [`MAX_SHUN`].
const SHUN: Duration = Duration::from_millis(500);
const MAX_SHUN: Duration = Duration::from_secs(16);
/// The latency an instance is believed to have before it has shown one, in microseconds.
const UNKNOWN: u32 = 1_000;

/// What this node knows of the instances it calls, by their key.
pub(crate) struct Balance {
    slots: Mutex<HashMap<u64, Arc<Slot>, foldhash::fast::RandomState>>,
    start: Instant,
    chance: AtomicU64,
}

/// One instance, as calls from here see it.
#[derive(Default)]
pub(crate) struct Slot {
    in_flight: AtomicU32,
    /// Smoothed time to the head of the response, in microseconds; 0: none seen.
    latency: AtomicU32,
    /// Milliseconds since [`Balance::start`] until which it is passed over.
    shunned_until: AtomicU64,
    refusals: AtomicU32,
}

/// A call at an instance; counted until dropped.
pub(crate) struct AtInstance {
    slot: Arc<Slot>,
    since: Instant,
}

impl Balance {
    pub(crate) fn new() -> Self {
        let seed = std::hash::BuildHasher::hash_one(&foldhash::fast::RandomState::default(), 7);
        Self { slots: Mutex::default(), start: Instant::now(), chance: AtomicU64::new(seed) }
    }

    /// What is known of the instance with this key.
    pub(crate) fn slot(&self, key: u64) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(&key) {
            return Arc::clone(slot);
        }
        if slots.len() >= MAX_SLOTS {
            slots.retain(|_, slot| slot.in_flight.load(Ordering::Relaxed) > 0);
        }
        Arc::clone(slots.entry(key).or_default())
    }

    /// The one that will answer sooner.
    pub(crate) fn is_better(&self, a: &Slot, b: &Slot) -> bool {
        match (self.is_shunned(a), self.is_shunned(b)) {
            (true, false) => false,
            (false, true) => true,
            _ => a.load() < b.load(),
        }
    }

    /// Takes note that the instance took no call.
    pub(crate) fn refused(&self, slot: &Slot) {
        let times = slot.refusals.fetch_add(1, Ordering::Relaxed).min(5);
        let until = self.start.elapsed() + (SHUN * (1 << times)).min(MAX_SHUN);
        slot.shunned_until.store(millis(until), Ordering::Relaxed);
    }

    pub(crate) fn is_shunned(&self, slot: &Slot) -> bool {
        let until = slot.shunned_until.load(Ordering::Relaxed);
        until > 0 && until > millis(self.start.elapsed())
    }

    /// SplitMix64: enough chance to spread calls, without a lock.
    pub(crate) fn chance(&self) -> u64 {
        let mut z = self.chance.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Slot {
    /// Expected wait: the calls before this one, each as long as calls were.
    fn load(&self) -> u64 {
        let latency = match self.latency.load(Ordering::Relaxed) {
            0 => UNKNOWN,
            latency => latency,
        };
        u64::from(latency) * (u64::from(self.in_flight.load(Ordering::Relaxed)) + 1)
    }

    /// Counts a call, unless there are `limit` already.
    pub(crate) fn enter(self: &Arc<Self>, limit: u32) -> Option<AtInstance> {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) >= limit {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(AtInstance { slot: Arc::clone(self), since: Instant::now() })
    }
}

impl AtInstance {
    /// Takes note that the response has begun.
    pub(crate) fn answered(&self) {
        let seen = u32::try_from(self.since.elapsed().as_micros()).unwrap_or(u32::MAX).max(1);
        let new = match self.slot.latency.load(Ordering::Relaxed) {
            0 => seen,
            // One eighth of the new, as TCP smooths its round trip (RFC 6298 §2.3).
            old => old - old / 8 + seen / 8,
        };
        self.slot.latency.store(new.max(1), Ordering::Relaxed);
        if self.slot.refusals.load(Ordering::Relaxed) > 0 {
            self.slot.refusals.store(0, Ordering::Relaxed);
            self.slot.shunned_until.store(0, Ordering::Relaxed);
        }
    }
}

impl Drop for AtInstance {
    fn drop(&mut self) {
        self.slot.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_calls_and_shorter_ones_are_better() {
        let balance = Balance::new();
        let (busy, idle) = (balance.slot(1), balance.slot(2));
        let _call = busy.enter(u32::MAX).unwrap();
        assert!(balance.is_better(&idle, &busy));
        idle.latency.store(50 * UNKNOWN, Ordering::Relaxed);
        assert!(balance.is_better(&busy, &idle));
    }

    #[test]
    fn an_instance_that_refused_is_worse_than_any_that_did_not() {
        let balance = Balance::new();
        let (refused, slow) = (balance.slot(1), balance.slot(2));
        slow.latency.store(u32::MAX, Ordering::Relaxed);
        balance.refused(&refused);
        assert!(balance.is_better(&slow, &refused));
    }

    #[test]
    fn an_instance_at_its_limit_takes_no_more() {
        let slot = Arc::new(Slot::default());
        let one = slot.enter(1).unwrap();
        assert!(slot.enter(1).is_none());
        drop(one);
        assert!(slot.enter(1).is_some());
    }
}
