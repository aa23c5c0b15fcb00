//! Streams, as the admin socket says them.

use serde::{Deserialize, Serialize};

/// One of `GET /v1/streams`, kind `StreamList`: topics that a node of the network keeps.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamItem {
    /// Its name.
    pub name: String,
    /// The node that keeps it; several where it is misconfigured.
    pub nodes: Vec<String>,
    /// What it keeps, as patterns.
    pub topics: Vec<String>,
    /// Whether it has answered; what follows is 0 where not.
    pub reachable: bool,
    /// Messages that it keeps.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The number of the first of them.
    pub first: u64,
    /// The number of the last message.
    pub last: u64,
    /// When that was stored: RFC 3339.
    pub last_at: String,
    /// How many consumers it has.
    pub consumers: u64,
}

/// One of `GET /v1/streams/NAME`, kind `ConsumerList`: who is given the messages of a stream.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsumerItem {
    /// Its name.
    pub name: String,
    /// Whether it is kept when nobody asks.
    pub durable: bool,
    /// What it wants of the stream, as patterns; empty: all.
    pub filters: Vec<String>,
    /// All up to this number are acknowledged.
    pub done: u64,
    /// Messages given and not acknowledged.
    pub on_the_way: u64,
    /// Those of them that were given more than once.
    pub again: u64,
    /// Messages that were not given yet.
    pub ahead: u64,
    /// Questions that wait for messages.
    pub waiting: u64,
}
