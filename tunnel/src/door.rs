//! The door: where records from neighbours are checked before the router sees them.
//!
//! A signature costs as much as thousands of lookups, so it is checked on threads that nobody
//! waits for, and not twice: floods bring the same record from every neighbour.

use std::sync::Arc;

use parking_lot::Mutex;
use proto::frame::{Digest, Frame, Summary, Want};
use proto::record::Verified;
use proto::{NetworkId, Record, UnixTime};
use tokio::sync::Semaphore;

use crate::conduct::{Reason, Rejected};
use crate::counters::Counter;
use crate::identity::Ed25519;

/// Frames checked at once.
const AT_ONCE: usize = 4;
/// Records whose check is remembered, by the hash of their bytes.
const REMEMBERED: usize = 16 * 1024;

/// What came through the door.
#[derive(Clone, Debug)]
pub enum Passed {
    /// Those of the records that their origins certainly wrote, in order.
    Records(Vec<Verified>),
    /// As it came.
    Digest(Digest),
    /// As it came.
    Summary(Summary),
    /// As it came.
    Want(Want),
    /// Nothing for the router.
    Nothing,
}

/// What a check comes to.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What is for the router.
    pub passed: Passed,
    /// Records that were turned away: for [`crate::Control::rejected`].
    pub rejected: Rejected,
}

/// Checks records for one network. Clones are the same door.
#[derive(Clone, Debug)]
pub struct Door {
    network: NetworkId,
    wall: fn() -> UnixTime,
    seats: Arc<Semaphore>,
    seen: Arc<Mutex<Seen>>,
    counts: Arc<Counts>,
}

/// What a door has done since it was made.
#[derive(Debug, Default)]
pub struct Counts {
    /// Records let through.
    pub passed: Counter,
    /// Those of them whose signature had been checked before.
    pub known: Counter,
    /// Records turned away.
    pub rejected: Counter,
}

impl Counts {
    /// Shows all of them, below `door`. Those turned away are shown by reason elsewhere:
    /// [`crate::Counters::records_rejected`].
    pub fn register(&self, registry: &mut prometheus_client::registry::Registry) {
        let registry = registry.sub_registry_with_prefix("door");
        let passed = "Records whose signature is their origin's";
        self.passed.register(registry, "records_passed", passed);
        let known = "Records passed whose signature had been checked before";
        self.known.register(registry, "records_known", known);
    }
}

/// The hashes of records that were found to be good, in two generations: when the newer is full
/// it becomes the older, and what nobody asked for since is forgotten.
#[derive(Debug, Default)]
struct Seen {
    newer: Generation,
    older: Generation,
}

type Generation = std::collections::HashSet<[u8; 32], foldhash::fast::RandomState>;

impl Seen {
    fn has(&mut self, hash: &[u8; 32]) -> bool {
        if self.newer.contains(hash) {
            return true;
        }
        let old = self.older.contains(hash);
        if old {
            self.add(*hash);
        }
        old
    }

    fn add(&mut self, hash: [u8; 32]) {
        if self.newer.len() >= REMEMBERED / 2 {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(hash);
    }
}

/// Trusts: for records whose bytes were checked before.
struct Known;

impl proto::sign::Verify for Known {
    fn verify(&self, _: &proto::PublicKey, _: &[u8], _: &proto::Signature) -> bool {
        true
    }
}

impl Door {
    /// A door of `network`.
    #[must_use]
    pub fn new(network: NetworkId) -> Self {
        let seats = Arc::new(Semaphore::new(AT_ONCE));
        let wall = crate::config::wall;
        Self { network, wall, seats, seen: Arc::default(), counts: Arc::default() }
    }

    /// What it has done so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Checks what came from a neighbour. Frames of one neighbour are to be passed in their
    /// order, one after the other; those of different ones may pass at once.
    pub async fn check(&self, frame: Frame) -> Checked {
        let passed = match frame {
            Frame::Records(records) => {
                let (records, rejected) = self.records(records).await;
                return Checked { passed: Passed::Records(records), rejected };
            }
            Frame::Digest(digest) => Passed::Digest(digest),
            Frame::Summary(summary) => Passed::Summary(summary),
            Frame::Want(want) => Passed::Want(want),
            Frame::Hello(_) | Frame::Bye => Passed::Nothing,
        };
        Checked { passed, rejected: Rejected::default() }
    }

    async fn records(&self, records: Vec<Record>) -> (Vec<Verified>, Rejected) {
        let seat = Arc::clone(&self.seats).acquire_owned().await;
        let door = self.clone();
        let checked = tokio::task::spawn_blocking(move || {
            let (_seat, mut rejected) = (seat, Rejected::default());
            let passed = records.into_iter().filter_map(|record| door.one(record, &mut rejected));
            (passed.collect(), rejected)
        });
        checked.await.unwrap_or_default()
    }

    fn one(&self, record: Record, rejected: &mut Rejected) -> Option<Verified> {
        let id = record.id().clone();
        let now = (self.wall)();
        let hash = *blake3::hash(record.bytes()).as_bytes();
        // What was signed stays signed; what the time of day decides is asked again.
        let known = self.seen.lock().has(&hash);
        let checked = if known {
            Verified::check(record, self.network, now, &Known)
        } else {
            Verified::check(record, self.network, now, &Ed25519)
        };
        match checked {
            Ok(verified) => {
                self.counts.passed.add();
                if known {
                    self.counts.known.add();
                } else {
                    self.seen.lock().add(hash);
                }
                Some(verified)
            }
            Err(why) => {
                self.counts.rejected.add();
                tracing::debug!(record = ?id, %why, "a record was turned away");
                rejected.add(Reason::from(why), id);
                None
            }
        }
    }
}
