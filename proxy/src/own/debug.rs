//! `Debug`, which every go-micro service answers under its own name: ours too, under each of them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use proto::micro::debug as pb;

use super::dispatch::Call;
use super::reply::Reply;

/// The service, and what it counts.
pub(super) struct Debug {
    started: u64,
    requests: AtomicU64,
    errors: AtomicU64,
}

impl Debug {
    pub(super) fn new() -> Self {
        Self { started: unix_seconds(), requests: AtomicU64::new(0), errors: AtomicU64::new(0) }
    }

    /// One more call of our services.
    pub(super) fn count(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// One more of them that failed.
    pub(super) fn count_error(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    pub(super) fn call(&self, call: &Call) -> Reply {
        match call.method.as_str() {
            "Stats" => Reply::now(Ok(self.stats())),
            // Whoever answers is well: draining is told by grpc.health.v1.
            _ => Reply::now(Ok(pb::HealthResponse { status: "ok".to_owned() })),
        }
    }

    fn stats(&self) -> pb::StatsResponse {
        let timestamp = unix_seconds();
        let (threads, memory) = process();
        pb::StatsResponse {
            timestamp,
            started: self.started,
            uptime: timestamp.saturating_sub(self.started),
            memory,
            threads,
            gc: 0,
            requests: self.requests.load(Relaxed),
            errors: self.errors.load(Relaxed),
        }
    }
}

/// Threads and resident bytes of this process; zero where the system does not say (proc(5)).
fn process() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let number = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    (number("Threads:").unwrap_or(0), number("VmRSS:").unwrap_or(0) * 1024)
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Now, in nanoseconds since 1970, as go-micro stamps events.
pub(super) fn unix_nanos() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
