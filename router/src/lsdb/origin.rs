//! Everything held of one origin.

use std::sync::Arc;
use std::time::Duration;

use proto::record::{Body, Kind, Node};
use proto::{Epoch, Time, Verified};

/// Changes an origin may make at once to records it has, before those beyond wait for a digest.
const BURST: u32 = 2_000;
/// Changes it may make in the long run: one each so often.
const PACE: Duration = Duration::from_millis(20);

/// What is held of one origin.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    /// By kind and key.
    pub(super) held: Vec<Held>,
    /// Over its live records.
    pub(super) hash: u64,
    /// Whether somebody alive is linked with it; only then is it told of to new neighbours.
    pub(super) reachable: bool,
    /// When `reachable` changed last.
    pub(super) since: Time,
    pub(super) services: usize,
    pub(super) changes: Changes,
}

#[derive(Debug)]
pub(super) struct Held {
    /// See [`tag`].
    tag: u64,
    /// See [`hash`]; 0 for a tombstone.
    hash: u64,
    pub(super) record: Arc<Verified>,
    pub(super) since: Time,
}

/// How often an origin has changed its mind lately.
#[derive(Debug, Default)]
pub(super) struct Changes {
    spent: u32,
    counted_to: Time,
}

impl Origin {
    fn find(&self, kind: Kind, key: &[u8]) -> Result<usize, usize> {
        let wanted = tag(kind, key);
        self.held.binary_search_by(|held| {
            held.tag.cmp(&wanted).then_with(|| {
                let id = held.record.id();
                (id.kind, &id.key[..]).cmp(&(kind, key))
            })
        })
    }

    pub(crate) fn get(&self, kind: Kind, key: &[u8]) -> Option<&Arc<Verified>> {
        self.find(kind, key).ok().map(|at| &self.held[at].record)
    }

    /// Its own record, or the tombstone of that: first of all, as its kind is the lowest.
    pub(super) fn own(&self) -> Option<&Arc<Verified>> {
        let first = self.held.first().filter(|held| held.tag == tag(Kind::NODE, b""))?;
        (first.record.id().kind == Kind::NODE).then_some(&first.record)
    }

    pub(crate) fn node(&self) -> Option<&Node> {
        match self.own()?.body() {
            Body::Node(node) => Some(node),
            Body::Adjacency(..)
            | Body::Service(..)
            | Body::Rules(..)
            | Body::Interest(..)
            | Body::Gone
            | Body::Unknown => None,
        }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.own().map_or(Epoch(0), |node| node.version().epoch)
    }

    /// By kind and key, tombstones included.
    pub(crate) fn records(&self) -> impl ExactSizeIterator<Item = &Arc<Verified>> {
        self.held.iter().map(|held| &held.record)
    }

    /// How many records, tombstones included.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// How many services it offers.
    pub(crate) fn services(&self) -> usize {
        self.services
    }

    pub(crate) fn is_reachable(&self) -> bool {
        self.reachable
    }

    /// Holds a record; returns that which it takes the place of.
    pub(super) fn put(&mut self, record: Arc<Verified>, now: Time) -> Option<Arc<Verified>> {
        let id = record.id();
        let hash = if is_tombstone(&record) { 0 } else { hash(&record) };
        let place = self.find(id.kind, &id.key);
        let held = Held { tag: tag(id.kind, &id.key), hash, record, since: now };
        self.count(&held, true);
        match place {
            Ok(at) => {
                let old = std::mem::replace(&mut self.held[at], held);
                self.count(&old, false);
                Some(old.record)
            }
            Err(at) => {
                self.held.insert(at, held);
                None
            }
        }
    }

    /// Since when it has been reachable, or not.
    pub(crate) fn since(&self) -> Time {
        self.since
    }

    /// Drops records of lives before `epoch`; all but the node's own when it has `left`.
    pub(super) fn purge(&mut self, epoch: Epoch, left: bool) -> Vec<Arc<Verified>> {
        let stale = |held: &mut Held| {
            held.record.id().kind != Kind::NODE && (left || held.record.version().epoch < epoch)
        };
        let purged: Vec<_> = self.held.extract_if(.., stale).collect();
        for held in &purged {
            self.count(held, false);
        }
        purged.into_iter().map(|held| held.record).collect()
    }

    fn count(&mut self, held: &Held, added: bool) {
        self.hash ^= held.hash;
        if held.record.id().kind == Kind::SERVICE && !is_tombstone(&held.record) {
            self.services = if added { self.services + 1 } else { self.services - 1 };
        }
    }
}

impl Changes {
    pub(super) fn allow(&mut self, now: Time) -> bool {
        let earned = now.since(self.counted_to).as_micros() / PACE.as_micros();
        if earned > 0 {
            self.spent = self.spent.saturating_sub(u32::try_from(earned).unwrap_or(u32::MAX));
            self.counted_to = now;
        }
        let allowed = self.spent < BURST;
        self.spent += u32::from(allowed);
        allowed
    }
}

/// The beginning of what records are ordered by: the kind, then seven bytes of the key. Tells most
/// records apart without looking at them, which for an origin with hundreds is what takes the time.
fn tag(kind: Kind, key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes[0] = kind.0;
    let shown = key.len().min(7);
    bytes[1..=shown].copy_from_slice(&key[..shown]);
    u64::from_be_bytes(bytes)
}

/// Whether a record says that the thing is no more.
pub(crate) fn is_tombstone(record: &Verified) -> bool {
    record.record().is_tombstone()
}

/// The same on every node: part of the protocol.
///
/// ```text
/// first 8 bytes, big-endian, of BLAKE3 over: origin (32) | kind (1) | epoch (8) | seq (8) | key
/// ```
fn hash(record: &Verified) -> u64 {
    let (id, version) = (record.id(), record.version());
    let mut hash = blake3::Hasher::new();
    hash.update(id.origin.as_bytes());
    hash.update(&[id.kind.0]);
    hash.update(&version.epoch.0.to_be_bytes());
    hash.update(&version.seq.0.to_be_bytes());
    hash.update(&id.key);
    let [a, b, c, d, e, f, g, h, ..] = *hash.finalize().as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}
