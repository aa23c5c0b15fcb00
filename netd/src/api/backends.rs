//! Back ends, as the admin socket tells of them.

use serde::{Deserialize, Serialize};

/// One of `GET /v1/backends`, kind `BackendList`: a registry of others that this node watches.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BackendItem {
    /// What it is called.
    pub name: String,
    /// `file`, `etcd`, `mdns`, `consul` or `kubernetes`.
    pub kind: String,
    /// Where it is.
    pub address: String,
    /// `starting`, `watching`, `stale` (silent; what it said is kept) or `refused`.
    pub state: String,
    /// For how long, in milliseconds.
    pub since_ms: u64,
    /// Why it is not watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// All of why, where that is more than a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Instances it has.
    pub entries: u64,
    /// Of those, offered by this node.
    pub offered: u64,
    /// Of those, held back because they come and go.
    pub held: u64,
    /// What it has that is no instance, is refused, or is beyond the limit.
    pub skipped: u64,
    /// Some of those skipped.
    pub examples: Vec<Skipped>,
}

/// An entry of a back end that is not offered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Skipped {
    /// How the back end calls it.
    pub key: String,
    /// Why.
    pub why: String,
}
