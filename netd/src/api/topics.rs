//! Topics, as the admin socket says them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One of `GET /v1/topics`, kind `TopicList`: what one node wants to hear of.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TopicItem {
    /// The topics, as a pattern: `orders.*`, `orders.>`.
    pub pattern: String,
    /// The namespace; empty for the default one.
    pub namespace: String,
    /// The queue group that shares the messages; absent: each subscriber gets all.
    pub group: Option<String>,
    /// The node whose programs subscribe.
    pub node: String,
    /// Its region.
    pub region: String,
    /// How many subscribers, rounded up to a power of two.
    pub subscribers: u32,
    /// Whether the node can be reached now.
    pub reachable: bool,
}

/// `POST /v1/publish`: one message.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PublishRequest {
    /// Where to.
    pub topic: String,
    /// Its headers.
    pub headers: BTreeMap<String, String>,
    /// Its payload.
    pub body: String,
}

/// The answer to [`PublishRequest`], kind `Published`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Published {
    /// Where to.
    pub topic: String,
    /// Subscribers on this node and other nodes it was sent to.
    pub receivers: usize,
}
