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

/// `POST /v1/subscribe`: messages for as long as the answer is read. Its first line is a
/// [`Subscribed`], every further one a [`TopicMessage`] of the kind `Message`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SubscribeRequest {
    /// The topics, as a pattern.
    pub topic: String,
    /// The queue group, of which one member gets each message.
    pub group: Option<String>,
}

/// What is subscribed to now.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Subscribed {
    /// The topics, as a pattern.
    pub topic: String,
    /// The queue group.
    pub group: Option<String>,
}

/// `POST /v1/request`: one message that wants an answer, which is a [`TopicMessage`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopicRequest {
    /// Where to.
    pub topic: String,
    /// Its headers.
    pub headers: BTreeMap<String, String>,
    /// Its payload.
    pub body: String,
    /// How long the answer is waited for, in milliseconds.
    pub timeout_ms: u64,
}

/// A message, kind `Message`: as events over HTTP have it.
pub type TopicMessage = proxy::Event<'static>;
