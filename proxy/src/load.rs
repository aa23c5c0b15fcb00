//! How many calls there are, and the wait until there are none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Notify;

/// Counts what is in flight.
pub(crate) struct Load {
    count: AtomicU32,
    /// The same, for the metrics; shared with others that are added to it.
    gauge: Gauge,
    idle: Notify,
}

/// One thing in flight, until dropped.
pub(crate) struct InFlight(Arc<Load>);

impl Load {
    pub(crate) fn new(gauge: Gauge) -> Self {
        Self { count: AtomicU32::new(0), gauge, idle: Notify::new() }
    }

    /// Counts one more, unless there are `limit` already.
    pub(crate) fn enter(self: &Arc<Self>, limit: u32) -> Option<InFlight> {
        if self.count.fetch_add(1, Ordering::AcqRel) >= limit {
            self.count_down();
            return None;
        }
        self.gauge.inc();
        Some(InFlight(Arc::clone(self)))
    }

    pub(crate) fn count(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    /// Waits until nothing is in flight.
    pub(crate) async fn idle(&self) {
        loop {
            let notified = self.idle.notified();
            if self.count() == 0 {
                return;
            }
            notified.await;
        }
    }

    fn leave(&self) {
        self.gauge.dec();
        self.count_down();
    }

    fn count_down(&self) {
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.idle.notify_waiters();
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.leave();
    }
}
