//! `Debug`, which every go-micro service answers under its own name: ours too, under each of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::HeaderMap;
use parking_lot::Mutex;
use proto::micro::debug as pb;

use super::dispatch::{Call, decode};
use super::logs::Logs;
use super::reply::Reply;

/// As failures name it.
const NAME: &str = "go.micro.debug";
/// Calls kept for `Trace`; the oldest go first.
const MAX_SPANS: usize = 256;
/// Bytes of an id that a caller gives.
const MAX_ID: usize = 128;
/// The ids that go-micro's tracing sends along.
const TRACE_ID: &str = "micro-trace-id";
const SPAN_ID: &str = "micro-span-id";

/// The service, and what it counts.
pub(super) struct Debug {
    started: u64,
    requests: AtomicU64,
    errors: AtomicU64,
    spans: Mutex<VecDeque<pb::Span>>,
    logs: Arc<Logs>,
}

/// A call that has begun.
pub(super) struct Begun {
    span: pb::Span,
    at: std::time::Instant,
}

impl Begun {
    /// A call of `path`, in the trace that its headers name or in one of its own.
    pub(super) fn now(path: &str, headers: &HeaderMap) -> Self {
        let given = |name| {
            let id = headers.get(name).and_then(|id| id.to_str().ok());
            id.filter(|id| id.len() <= MAX_ID).map(str::to_owned)
        };
        let fresh = || data_encoding::HEXLOWER.encode(&tunnel::identity::random::<16>());
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let span = pb::Span {
            trace: given(TRACE_ID).unwrap_or_else(fresh),
            id: fresh(),
            parent: given(SPAN_ID).unwrap_or_default(),
            name: path.chars().take(MAX_ID).collect(),
            started: nanos(started),
            r#type: pb::SpanType::Inbound.into(),
            ..pb::Span::default()
        };
        Self { span, at: std::time::Instant::now() }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Debug {
    pub(super) fn new(logs: Arc<Logs>) -> Self {
        Self {
            started: unix_seconds(),
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            spans: Mutex::default(),
            logs,
        }
    }

    /// A call has been answered; a stream, begun.
    pub(super) fn answered(&self, Begun { mut span, at }: Begun) {
        span.duration = nanos(at.elapsed());
        let mut spans = self.spans.lock();
        if spans.len() >= MAX_SPANS {
            spans.pop_front();
        }
        spans.push_back(span);
    }

    /// One more call of our services.
    pub(super) fn count(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// One more of them that failed.
    pub(super) fn count_error(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    pub(super) fn call(&self, call: &Call, message: Bytes) -> Reply {
        match call.method.as_str() {
            "Log" => match decode(NAME, message) {
                Ok(request) => Reply::Many(self.logs.read(&request)),
                Err(failure) => Reply::Once(Box::pin(std::future::ready(Err(failure)))),
            },
            "Trace" => Reply::now(decode(NAME, message).map(|request| self.trace(&request))),
            // No answer of ours is kept for the next who asks.
            "Cache" => Reply::now(Ok(pb::CacheResponse::default())),
            "Stats" => Reply::now(Ok(self.stats())),
            // Whoever answers is well: draining is told by grpc.health.v1.
            _ => Reply::now(Ok(pb::HealthResponse { status: "ok".to_owned() })),
        }
    }

    fn trace(&self, request: &pb::TraceRequest) -> pb::TraceResponse {
        let spans = self.spans.lock();
        let meant = |span: &&pb::Span| request.id.is_empty() || span.trace == request.id;
        pb::TraceResponse { spans: spans.iter().filter(meant).cloned().collect() }
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
