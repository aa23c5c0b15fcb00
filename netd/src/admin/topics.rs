//! Who wants to hear of what, and one message by hand.

use std::sync::Arc;

use axum::extract::State;
use proto::publish::{Headers, Message};
use proto::topic::Topic;

use super::answer::{self, Answer, Body, document};
use crate::api;
use crate::error::{Exit, Problem};
use crate::node::Node;

/// `GET /v1/topics`.
pub(super) async fn list(State(node): State<Arc<Node>>) -> Answer<api::Items<api::TopicItem>> {
    let routes = node.routes();
    let mut all = Vec::new();
    for (namespace, pattern, wanted) in routes.topics().all() {
        for wants in wanted.iter() {
            let known = routes.node(&wants.node);
            all.push(api::TopicItem {
                pattern: pattern.to_string(),
                namespace: namespace.to_owned(),
                group: wants.group.as_ref().map(|group| group.as_str().to_owned()),
                node: known.map_or_else(|| wants.node.to_string(), |node| node.name.clone()),
                region: known.map(|node| node.region.clone()).unwrap_or_default(),
                subscribers: wants.count,
                reachable: known.is_some_and(|node| node.cost.is_finite()),
            });
        }
    }
    answer::list("TopicList", all)
}

/// `POST /v1/publish`.
pub(super) async fn publish(
    State(node): State<Arc<Node>>,
    Body(ask): Body<api::PublishRequest>,
) -> Answer<api::Published> {
    let topic = Topic::new(ask.topic.clone()).map_err(|why| bad(&ask.topic, &why.to_string()))?;
    let pairs = ask.headers.iter().map(|(name, value)| (&**name, value.as_bytes()));
    let headers = Headers::of(pairs).map_err(|why| {
        Problem::new("M4001", Exit::Usage, "the headers cannot be sent").why(why.to_string())
    })?;
    let payload = ask.body.into();
    let message = Message { namespace: "".into(), topic, reply: None, headers, payload };
    let published = node.proxy.broker().publish(message, None).await;
    let receivers = published.map_err(|why| bad(&ask.topic, &why.to_string()))?;
    document("Published", api::Published { topic: ask.topic, receivers })
}

pub(super) fn bad(topic: &str, why: &str) -> Problem {
    Problem::new("M4001", Exit::Usage, format!("nothing can be published to {topic:?}"))
        .why(why)
        .attempt("micro publish orders.created '{\"id\":\"o-17\"}'", "")
}
