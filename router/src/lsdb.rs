//! Every record known.
//!
//! What is held is a function of the newest records alone, whatever way and in whatever order they
//! came, so that nodes that heard the same hold the same:
//!
//! - of each record the highest version; a tombstone is a version too;
//! - of an origin only what belongs to the life its node record names, or to a later one;
//! - nothing of an origin that is not known to be a member: without a node record, with its
//!   tombstone, or past its grant.

mod origin;
mod table;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proto::frame::MAX_BUCKETS;
use proto::record::{Kind, Node};
use proto::{NodeId, RecordId, Time, Verified};

pub(crate) use self::origin::{Origin, is_tombstone};

use self::origin::Held;
use self::table::{Table, bucket};
use crate::limits::Limits;
use crate::output::Reject;

/// How long records of unreachable nodes, and tombstones, are kept.
pub(crate) const MEMORY: Duration = Duration::from_secs(24 * 3600);

/// Everything held, by origin.
#[derive(Debug)]
pub(crate) struct Lsdb {
    origins: Table,
    /// Of origins that can be reached: one hash over their records, by the first byte of their id.
    buckets: Box<[u64; MAX_BUCKETS]>,
    records: usize,
    bytes: usize,
    limits: Limits,
}

/// What became of a record.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is held now. With it went these, of the same origin.
    New { gone: Vec<RecordId> },
    /// It was held already.
    Same,
    /// This is newer, or is why it cannot be held: the sender should know.
    Stale(Arc<Verified>),
    /// It is not taken in.
    Refused(Reject),
}

impl Lsdb {
    pub(crate) fn new(limits: Limits) -> Self {
        let buckets = Box::new([0; MAX_BUCKETS]);
        Self { origins: Table::new(), buckets, records: 0, bytes: 0, limits }
    }

    /// Takes in a record of another node.
    pub(crate) fn accept(&mut self, record: &Arc<Verified>, now: Time) -> Outcome {
        let id = record.id();
        let origin = self.origins.get_mut(&id.origin);
        let held = origin.as_ref().and_then(|origin| origin.get(id.kind, &id.key));
        if let Some(held) = held {
            match record.version().cmp(&held.version()) {
                std::cmp::Ordering::Less => return Outcome::Stale(held.clone()),
                std::cmp::Ordering::Equal => return Outcome::Same,
                std::cmp::Ordering::Greater => {}
            }
        }
        let is_update = held.is_some();
        let is_service = id.kind == Kind::SERVICE && !is_tombstone(record);
        let adds_service = is_service && held.is_none_or(|held| is_tombstone(held));
        if id.kind == Kind::NODE {
            // Who was never a member has nothing to withdraw.
            if held.is_none() && is_tombstone(record) {
                return Outcome::Refused(Reject::NotAMember);
            }
        } else {
            let Some(node) = origin.as_ref().and_then(|origin| origin.own()) else {
                return Outcome::Refused(Reject::NotAMember);
            };
            if record.version().epoch < node.version().epoch {
                return Outcome::Stale(node.clone());
            }
            if is_tombstone(node) {
                return Outcome::Refused(Reject::NotAMember);
            }
        }
        if let Some(origin) = origin {
            if is_update && !origin.changes.allow(now) {
                return Outcome::Refused(Reject::TooOften);
            }
            let full = !is_update && origin.held.len() >= self.limits.records_per_origin
                || adds_service && origin.services >= self.limits.services_per_origin;
            if full {
                return Outcome::Refused(Reject::OriginFull);
            }
        }
        let mut gone = Vec::new();
        if !is_update && !self.has_room(record) {
            gone = self.make_room(id.origin);
            if !self.has_room(record) {
                return Outcome::Refused(Reject::Full);
            }
        }
        gone.extend(self.put(record.clone(), now));
        Outcome::New { gone }
    }

    /// Holds a record, whatever the limits; returns what had to go with it.
    pub(crate) fn put(&mut self, record: Arc<Verified>, now: Time) -> Vec<RecordId> {
        let id = record.id().clone();
        let origin =
            self.origins.get_or_insert(&id.origin, || Origin { since: now, ..Origin::default() });
        let before = origin.hash;
        self.bytes += record.record().bytes().len();
        match origin.put(record.clone(), now) {
            Some(old) => self.bytes -= old.record().bytes().len(),
            None => self.records += 1,
        }
        let purged = if id.kind == Kind::NODE {
            origin.purge(record.version().epoch, is_tombstone(&record))
        } else {
            Vec::new()
        };
        self.records -= purged.len();
        for record in &purged {
            self.bytes -= record.record().bytes().len();
        }
        if origin.reachable {
            self.buckets[bucket(&id.origin)] ^= before ^ origin.hash;
        }
        purged.into_iter().map(|record| record.id().clone()).collect()
    }

    /// Says whether `origin` can be reached; true if that is news.
    pub(crate) fn set_reachable(&mut self, origin: &NodeId, reachable: bool, now: Time) -> bool {
        let Some(held) = self.origins.get_mut(origin) else { return false };
        let news = held.reachable != reachable;
        if news {
            held.reachable = reachable;
            held.since = now;
            self.buckets[bucket(origin)] ^= held.hash;
        }
        news
    }

    /// Drops all of an origin, and says what that was.
    pub(crate) fn forget(&mut self, origin: &NodeId) -> Vec<RecordId> {
        let Some(held) = self.origins.remove(origin) else { return Vec::new() };
        if held.reachable {
            self.buckets[bucket(origin)] ^= held.hash;
        }
        self.records -= held.held.len();
        let records = held.held.into_iter().map(|held| held.record);
        records
            .map(|record| {
                self.bytes -= record.record().bytes().len();
                record.id().clone()
            })
            .collect()
    }

    /// Drops what has been of no use for [`MEMORY`]: origins that nobody could reach, except `me`,
    /// and tombstones. Returns what was more than a tombstone.
    pub(crate) fn sweep(&mut self, me: &NodeId, now: Time) -> Vec<RecordId> {
        let old = |since: Time| now.since(since) >= MEMORY;
        let silent = |(id, origin): (&NodeId, &Origin)| {
            (id != me && !origin.reachable && old(origin.since)).then_some(*id)
        };
        let silent: Vec<_> = self.origins.iter().filter_map(silent).collect();
        let gone = silent.iter().flat_map(|origin| self.forget(origin)).collect();
        for origin in self.origins.iter_mut() {
            // The tombstone of a node goes with all of it, above.
            let keep = |held: &Held| {
                let id = held.record.id();
                id.kind == Kind::NODE || !is_tombstone(&held.record) || !old(held.since)
            };
            for held in origin.held.extract_if(.., |held| !keep(held)) {
                self.records -= 1;
                self.bytes -= held.record.record().bytes().len();
            }
        }
        gone
    }

    fn has_room(&self, record: &Verified) -> bool {
        let bytes = self.bytes + record.record().bytes().len();
        self.records < self.limits.records && bytes <= self.limits.bytes
    }

    /// Forgets the origin that could not be reached for the longest time.
    fn make_room(&mut self, except: NodeId) -> Vec<RecordId> {
        let lost = self.origins.iter().filter(|(id, origin)| **id != except && !origin.reachable);
        let longest = lost.min_by_key(|(id, origin)| (origin.since, **id)).map(|(id, _)| *id);
        longest.map(|origin| self.forget(&origin)).unwrap_or_default()
    }

    pub(crate) fn origin(&self, id: &NodeId) -> Option<&Origin> {
        self.origins.get(id)
    }

    pub(crate) fn origins(&self) -> impl DoubleEndedIterator<Item = (&NodeId, &Origin)> {
        self.origins.iter()
    }

    /// All but `from`, once around the ring of ids, from there on.
    pub(crate) fn around(
        &self,
        from: &NodeId,
    ) -> impl DoubleEndedIterator<Item = (&NodeId, &Origin)> + Clone {
        self.origins.around(from)
    }

    /// Those whose ids begin with `first`.
    pub(crate) fn in_bucket(&self, first: u8) -> impl Iterator<Item = (&NodeId, &Origin)> {
        self.origins.in_bucket(first)
    }

    pub(crate) fn get(&self, id: &RecordId) -> Option<&Arc<Verified>> {
        self.origins.get(&id.origin)?.get(id.kind, &id.key)
    }

    /// What a node says about itself, if it is a member.
    pub(crate) fn node(&self, id: &NodeId) -> Option<&Node> {
        self.origins.get(id)?.node()
    }

    pub(crate) fn buckets(&self) -> &[u64; MAX_BUCKETS] {
        &self.buckets
    }

    pub(crate) fn len(&self) -> usize {
        self.records
    }
}

/// The id of a record of this kind.
pub(crate) fn record_id(origin: NodeId, kind: Kind, key: &[u8]) -> RecordId {
    RecordId { origin, kind, key: Bytes::copy_from_slice(key) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::testing::{Toy, network, node};
    use proptest::prelude::*;
    use proto::record::Body;
    use proto::{Epoch, Seq, Version};

    /// What a record of the naive model is: origin, which one (0: the node), version, tombstone.
    type Model = (u32, u8, (u64, u64), bool);

    fn record(&(origin, which, (epoch, seq), gone): &Model) -> Arc<Verified> {
        let who = Toy(origin);
        let version = Version { epoch: Epoch(epoch), seq: Seq(seq) };
        let body = match which {
            0 => Body::Node(Box::new(node(who, "*", 1000))),
            which => Body::Service(format!("s{which}").parse().unwrap(), Box::default()),
        };
        let live = Verified::own(network(), &who, version, body);
        Arc::new(if gone { Verified::tombstone(network(), &who, live.id(), version) } else { live })
    }

    /// What is to be held of what was heard, said as plainly as it can be.
    fn model(heard: &[Model]) -> BTreeMap<(u32, u8), (u64, u64)> {
        let mut held = BTreeMap::new();
        for &(origin, which, version, _) in heard {
            let newest = held.entry((origin, which)).or_insert(version);
            *newest = (*newest).max(version);
        }
        let is_gone = |key: (u32, u8), version| {
            heard.iter().any(|&(o, w, v, gone)| (o, w) == key && v == version && gone)
        };
        let was_member =
            |origin| heard.iter().any(|&(o, w, _, gone)| o == origin && w == 0 && !gone);
        let all = held.clone();
        held.retain(|&(origin, which), version| match all.get(&(origin, 0)) {
            _ if !was_member(origin) => false,
            None => false,
            Some(_) if which == 0 => true,
            Some(node) => !is_gone((origin, 0), *node) && version.0 >= node.0,
        });
        held
    }

    fn held(lsdb: &Lsdb) -> BTreeMap<(u32, u8), (u64, u64)> {
        let records = lsdb.origins().flat_map(|(_, origin)| origin.records());
        records
            .map(|record| {
                let origin = (0..8).find(|n| Toy(*n).id() == record.id().origin).unwrap();
                let key = record.id().key.get(1).map_or(0, |digit| digit - b'0');
                ((origin, key), (record.version().epoch.0, record.version().seq.0))
            })
            .collect()
    }

    /// One version says one thing: the same origin does not sign two.
    fn heard() -> impl Strategy<Value = Vec<Model>> {
        let one = (0..3u32, 0..4u8, (0..3u64, 0..4u64), any::<bool>());
        prop::collection::vec(one, 0..40).prop_map(|mut all| {
            let mut said = BTreeMap::new();
            for (origin, which, version, gone) in &mut all {
                *gone = *said.entry((*origin, *which, *version)).or_insert(*gone);
            }
            all
        })
    }

    proptest! {
        #[test]
        fn whatever_the_order_the_same_is_held(
            (first, second) in heard().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle()))
        ) {
            let hear = |all: &[Model]| {
                let mut lsdb = Lsdb::new(Limits::default());
                // What was refused for want of the node's own record is asked for again.
                for record in all.iter().map(record).cycle().take(all.len() * 4) {
                    lsdb.accept(&record, Time::ZERO);
                }
                for toy in 0..3 {
                    lsdb.set_reachable(&Toy(toy).id(), true, Time::ZERO);
                }
                lsdb
            };
            let (one, other) = (hear(&first), hear(&second));
            prop_assert_eq!(held(&one), model(&first));
            prop_assert_eq!(held(&other), model(&first));
            prop_assert_eq!(one.buckets(), other.buckets());
            // The counters say what is there.
            prop_assert_eq!(one.records, held(&one).len());
            let bytes = one.origins().flat_map(|(_, o)| o.records()).map(|r| r.record().bytes().len());
            prop_assert_eq!(one.bytes, bytes.sum::<usize>());
            for (_, origin) in one.origins() {
                let live = |r: &&Arc<Verified>| r.id().kind == Kind::SERVICE && !is_tombstone(r);
                prop_assert_eq!(origin.services(), origin.records().filter(live).count());
            }
            // And a digest over nothing is a digest of nothing.
            let mut one = one;
            for toy in 0..3 {
                one.forget(&Toy(toy).id());
            }
            prop_assert_eq!(one.buckets(), &[0; MAX_BUCKETS]);
            prop_assert_eq!((one.records, one.bytes), (0, 0));
        }
    }

    #[test]
    fn a_full_database_lets_go_of_the_longest_lost_first() {
        let limits = Limits { records: 2, ..Limits::default() };
        let mut lsdb = Lsdb::new(limits);
        for (n, at) in [(0, 5), (1, 3)] {
            let at = Time::from_micros(at);
            assert!(matches!(
                lsdb.accept(&record(&(n, 0, (1, 1), false)), at),
                Outcome::New { .. }
            ));
        }
        let third = record(&(2, 0, (1, 1), false));
        assert!(matches!(lsdb.accept(&third, Time::from_micros(9)), Outcome::New { .. }));
        assert!(lsdb.node(&Toy(1).id()).is_none() && lsdb.node(&Toy(0).id()).is_some());
        for n in [0, 2] {
            lsdb.set_reachable(&Toy(n).id(), true, Time::ZERO);
        }
        let fourth = lsdb.accept(&record(&(3, 0, (1, 1), false)), Time::ZERO);
        assert!(matches!(fourth, Outcome::Refused(Reject::Full)));
    }

    #[test]
    fn around_the_ring_comes_everybody_else_once_in_either_direction() {
        let mut lsdb = Lsdb::new(Limits::default());
        for n in 0..40 {
            lsdb.put(record(&(n, 0, (1, 1), false)), Time::ZERO);
        }
        let all: Vec<_> = lsdb.origins().map(|(id, _)| *id).collect();
        assert!(all.is_sorted() && all.len() == 40);
        for (at, from) in all.iter().enumerate() {
            let ring = || lsdb.around(from).map(|(id, _)| *id);
            let expected = [&all[at + 1..], &all[..at]].concat();
            assert_eq!(ring().collect::<Vec<_>>(), expected);
            let back: Vec<_> = ring().rev().collect();
            assert!(back.iter().rev().eq(&expected));
        }
    }
}
