//! How much one stream may have on its way.
//!
//! QUIC gives every stream of a connection the same window for good. A small one makes long paths
//! slow, a large one lets a few readers that have stopped fill the memory meant for all. So the
//! windows of QUIC are wide here, and a sender keeps to credit besides: [`INITIAL`] bytes to begin
//! with, then what the reader grants as it reads ([`proto::credit`]). The window of a stream that
//! is read quickly doubles each time it proves too small for the path, from what its link has to
//! spare; the window of one that is read slowly shrinks, and that of one that is not read does not
//! move. A thousand stalled streams hold a thousand times [`INITIAL`], and what is spare.
//!
//! Calls that say less than a quarter of [`INITIAL`] each way, nearly all of them, cost nothing of
//! this but a counter.

mod give;
mod take;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use proto::credit::INITIAL;
use tokio::sync::Notify;

pub(crate) use give::{listen, tell};
pub(crate) use take::{Inbound, Outbound};

/// The window of one stream, at most: a path of 80 ms is filled at 50 MiB/s.
pub(crate) const LARGEST: u64 = 4 << 20;
/// What the streams of one link may have beyond [`INITIAL`] each, all together: eight of the
/// largest windows.
pub(crate) const SPARE: u64 = 32 << 20;

/// The credit of the streams of one link, both ways.
#[derive(Debug)]
pub(crate) struct Credits {
    /// What windows of streams read here may still grow by.
    spare: AtomicU64,
    /// What the other end is to be told, by stream: one entry for a stream that is being read.
    grants: Mutex<BTreeMap<u64, u64>>,
    told: Notify,
    /// There is a stream on which to tell.
    telling: AtomicBool,
    /// Streams written here that have used a good part of what they began with.
    senders: Mutex<HashMap<u64, Arc<Allowance>, foldhash::fast::RandomState>>,
}

impl Default for Credits {
    fn default() -> Self {
        Self {
            spare: AtomicU64::new(SPARE),
            grants: Mutex::default(),
            told: Notify::new(),
            telling: AtomicBool::new(false),
            senders: Mutex::default(),
        }
    }
}

impl Credits {
    /// Takes `more` from what is spare; `false`, and nothing taken, when there is less.
    fn borrow(&self, more: u64) -> bool {
        let take = |spare: u64| spare.checked_sub(more);
        self.spare.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn give_back(&self, less: u64) {
        self.spare.fetch_add(less, Ordering::Relaxed);
    }

    /// Has the other end told; `true` if there is no stream to tell it on yet, and the caller is to
    /// make one.
    pub(crate) fn grant(&self, stream: u64, total: u64) -> bool {
        self.grants.lock().insert(stream, total);
        self.told.notify_one();
        !self.telling.swap(true, Ordering::Relaxed)
    }

    fn register(&self, stream: u64) -> Arc<Allowance> {
        let allowance = Arc::new(Allowance::default());
        self.senders.lock().insert(stream, Arc::clone(&allowance));
        allowance
    }
}

/// How far a sender may go, as the reader has granted.
#[derive(Debug)]
struct Allowance {
    total: AtomicU64,
    /// The sender, while it waits for more.
    waiting: AtomicWaker,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { total: AtomicU64::new(INITIAL), waiting: AtomicWaker::new() }
    }
}

impl Allowance {
    fn total(&self) -> u64 {
        self.total.load(Ordering::Acquire)
    }

    fn raise(&self, total: u64) {
        if self.total.fetch_max(total, Ordering::AcqRel) < total {
            self.waiting.wake();
        }
    }
}
