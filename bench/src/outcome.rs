//! What one measurement found, as JSON says it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cpu::CpuUse;
use crate::latency::Percentiles;

/// Calls made, answered and failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CallsOutcome {
    /// `closed` or `open`.
    pub load: String,
    /// Calls in flight (closed), or 0.
    pub in_flight: usize,
    /// Calls per second asked for (open), or 0.
    pub asked_rate: f64,
    /// Message size in bytes.
    pub size: usize,
    /// Seconds measured, after the warm-up.
    pub seconds: f64,
    /// Seconds of warm-up cut off.
    pub warm_up: f64,
    /// Calls answered well.
    pub calls: u64,
    /// Calls answered well per second.
    pub rate: f64,
    /// Calls that failed, by kind; empty is good.
    pub errors: BTreeMap<String, u64>,
    /// Latency in microseconds; open load counts from the moment a call was due.
    pub latency_us: Percentiles,
    /// Open load: how late calls left this tool, in microseconds (already part of the latency).
    pub behind_us: Option<Percentiles>,
    /// CPU seconds of every watched process; `per_unit` is per 1 000 calls.
    pub cpu: Vec<CpuUse>,
}

/// Bytes fetched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BulkOutcome {
    /// Bytes received.
    pub bytes: u64,
    /// Seconds from the first request to the last byte.
    pub seconds: f64,
    /// GiB per second.
    pub gib_per_second: f64,
    /// Downloads that failed, by kind; empty is good.
    pub errors: BTreeMap<String, u64>,
    /// CPU seconds of every watched process; `per_unit` is per GiB.
    pub cpu: Vec<CpuUse>,
}

/// What a server of this tool prints when it is ready: one line of JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Where gRPC over h2c is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<String>,
    /// Where HTTP/1.1 is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// Where bytes are echoed over TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<String>,
    /// Where QUIC is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quic: Option<String>,
    /// The raw public key (SubjectPublicKeyInfo, hexadecimal) the QUIC server proves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}
