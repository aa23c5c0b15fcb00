//! The work: unary calls, connections and bulk.

use std::fmt;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::Plan;
use super::child::output;
use super::contestant::{Backend, Contestant, ECHO, Entry, FILES, Kind, Raw};
use crate::outcome::{BulkOutcome, CallsOutcome};
use crate::{Error, connections};

/// Message size of unary calls, in bytes.
const SIZE: usize = 128;

/// One piece of work, the same for everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Workload {
    /// Unary gRPC calls, so many in flight.
    InFlight(usize),
    /// Unary gRPC calls, so many per second.
    Rate(u32),
    /// New TCP connections, so many at a time.
    Connections(usize),
    /// One download of so many bytes over HTTP.
    Bulk(u64),
    /// So many downloads at a time over TCP, of so many bytes together.
    Streams(usize, u64),
}

/// What a workload found.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// Of calls.
    Calls(CallsOutcome),
    /// Of bulk.
    Bulk(BulkOutcome),
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InFlight(calls) => write!(f, "unary gRPC {SIZE} B, {calls} in flight"),
            Self::Rate(rate) => write!(f, "unary gRPC {SIZE} B, {rate}/s open loop"),
            Self::Connections(at_once) => {
                write!(f, "new TCP connections, {} B each, {at_once} at a time", connections::SIZE)
            }
            Self::Bulk(bytes) => write!(f, "one HTTP download of {} MiB", bytes >> 20),
            Self::Streams(streams, bytes) => {
                write!(f, "TCP, {} MiB in {streams} streams", bytes >> 20)
            }
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Calls(calls) => {
                let at = calls.latency_us;
                write!(f, "{:.0}/s p50 {:.0} µs p99 {:.0} µs", calls.rate, at.p50, at.p99)?;
                errors(f, &calls.errors)
            }
            Self::Bulk(bulk) => {
                write!(f, "{:.2} GiB/s", bulk.gib_per_second)?;
                errors(f, &bulk.errors)
            }
        }
    }
}

fn errors(
    f: &mut fmt::Formatter<'_>,
    errors: &std::collections::BTreeMap<String, u64>,
) -> fmt::Result {
    if errors.is_empty() { Ok(()) } else { write!(f, " ERRORS {errors:?}") }
}

impl Workload {
    /// Runs it once, in a process of its own; nothing when the contestant has no such road.
    pub(super) fn run(
        self,
        contestant: &Contestant,
        plan: &Plan,
        backend: &Backend,
        out: &Path,
        round: usize,
    ) -> Result<Option<Found>, Error> {
        let mut command = Command::new(&plan.load);
        match (self, &contestant.entry) {
            (Self::InFlight(_) | Self::Rate(_), Entry::Proxy { grpc, .. }) => {
                let target = format!("127.0.0.1:{grpc}");
                command.args(["grpc", "--target", &target, "--authority", ECHO]);
                command.args(["--size", &SIZE.to_string()]);
                command.args(["--for", &format!("{}s", plan.length.as_secs_f64())]);
                command.args(["--warm", &format!("{}s", plan.warm_up.as_secs_f64())]);
                command.arg("--histogram").arg(out.join(self.file(contestant.kind, round)));
                if let Self::Rate(rate) = self {
                    command.args(["--rate", &rate.to_string()]);
                } else {
                    command.args(["--in-flight", &self.at_once().to_string()]);
                }
            }
            (Self::Connections(at_once), Entry::Proxy { raw: Some(Raw { echo, .. }), .. }) => {
                command.args(["connect", "--target", &format!("127.0.0.1:{echo}")]);
                command.args(["--for", &format!("{}s", plan.length.as_secs_f64())]);
                command.args(["--warm", &format!("{}s", plan.warm_up.as_secs_f64())]);
                command.args(["--in-flight", &at_once.to_string()]);
            }
            (Self::Streams(streams, bytes), Entry::Proxy { raw: Some(Raw { http, .. }), .. }) => {
                let each = bytes / u64::try_from(streams).unwrap_or(1).max(1);
                let url = format!("http://127.0.0.1:{http}/bytes/{each}");
                command.args(["download", "--url", &url, "--connections", &streams.to_string()]);
            }
            (Self::Bulk(bytes), Entry::Proxy { http, .. }) => {
                let url = format!("http://127.0.0.1:{http}/bytes/{bytes}");
                command.args(["download", "--url", &url, "--host", FILES]);
            }
            (Self::Bulk(bytes), Entry::Quic { at, key }) => {
                command.args(["quic-download", "--target", at, "--key", key]);
                command.args(["--bytes", &bytes.to_string(), "--mtu", &plan.mtu.to_string()]);
            }
            _ => return Ok(None),
        }
        for watched in contestant.watched(backend) {
            command.args(["--pid", &format!("{}={}", watched.name, watched.pid)]);
        }
        let printed = output(&mut command)?;
        let found = match self {
            Self::InFlight(_) | Self::Rate(_) | Self::Connections(_) => {
                serde_json::from_str(&printed).map(Found::Calls)
            }
            Self::Bulk(_) | Self::Streams(..) => serde_json::from_str(&printed).map(Found::Bulk),
        };
        found.map(Some).map_err(Error::at("result of the load tool"))
    }

    /// How much of it is under way at a time.
    fn at_once(self) -> usize {
        match self {
            Self::InFlight(count) | Self::Connections(count) | Self::Streams(count, _) => count,
            Self::Rate(_) | Self::Bulk(_) => 1,
        }
    }

    /// Whether it is about bytes, and not about how often.
    pub(super) fn is_bulk(self) -> bool {
        matches!(self, Self::Bulk(_) | Self::Streams(..))
    }

    fn file(self, kind: Kind, round: usize) -> String {
        let work = match self {
            Self::InFlight(calls) => format!("in-flight-{calls}"),
            Self::Rate(rate) => format!("rate-{rate}"),
            Self::Connections(at_once) => format!("connections-{at_once}"),
            Self::Bulk(bytes) => format!("bulk-{bytes}"),
            Self::Streams(streams, bytes) => format!("streams-{streams}-{bytes}"),
        };
        let who = format!("{kind:?}").to_ascii_lowercase();
        format!("latency-{work}-{who}-{}.hgrm", round + 1)
    }
}
