//! The work: unary calls and bulk.

use std::fmt;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::Plan;
use super::child::output;
use super::contestant::{Backend, Contestant, ECHO, Entry, FILES, Kind};
use crate::Error;
use crate::outcome::{BulkOutcome, CallsOutcome};

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
    /// One download of so many bytes.
    Bulk(u64),
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
            Self::Bulk(bytes) => write!(f, "one HTTP download of {} MiB", bytes >> 20),
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
                match self {
                    Self::InFlight(calls) => command.args(["--in-flight", &calls.to_string()]),
                    Self::Rate(rate) => command.args(["--rate", &rate.to_string()]),
                    Self::Bulk(_) => return Ok(None),
                };
            }
            (Self::Bulk(bytes), Entry::Proxy { http, .. }) => {
                let url = format!("http://127.0.0.1:{http}/bytes/{bytes}");
                command.args(["download", "--url", &url, "--host", FILES]);
            }
            (Self::Bulk(bytes), Entry::Quic { at, key }) => {
                command.args(["quic-download", "--target", at, "--key", key]);
                command.args(["--bytes", &bytes.to_string(), "--mtu", &plan.mtu.to_string()]);
            }
            (Self::InFlight(_) | Self::Rate(_), Entry::Quic { .. }) => return Ok(None),
        }
        for watched in contestant.watched(backend) {
            command.args(["--pid", &format!("{}={}", watched.name, watched.pid)]);
        }
        let printed = output(&mut command)?;
        let found = match self {
            Self::InFlight(_) | Self::Rate(_) => serde_json::from_str(&printed).map(Found::Calls),
            Self::Bulk(_) => serde_json::from_str(&printed).map(Found::Bulk),
        };
        found.map(Some).map_err(Error::at("result of the load tool"))
    }

    fn file(self, kind: Kind, round: usize) -> String {
        let work = match self {
            Self::InFlight(calls) => format!("in-flight-{calls}"),
            Self::Rate(rate) => format!("rate-{rate}"),
            Self::Bulk(bytes) => format!("bulk-{bytes}"),
        };
        let who = format!("{kind:?}").to_ascii_lowercase();
        format!("latency-{work}-{who}-{}.hgrm", round + 1)
    }
}
