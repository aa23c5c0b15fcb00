//! Streams of the network and their consumers, as these say themselves.

use std::sync::Arc;

use axum::extract::{Path, State};
use serde_json::Value;

use super::answer::{self, Answer};
use crate::api;
use crate::error::{Exit, Problem};
use crate::node::Node;
use crate::streams;

/// Streams asked for one list.
const MOST: usize = 256;

/// `GET /v1/streams`.
pub(super) async fn list(State(node): State<Arc<Node>>) -> Answer<api::Items<api::StreamItem>> {
    let known = streams::interests::known(&node.routes());
    let asked = known.into_iter().take(MOST).map(|(name, known)| {
        let node = Arc::clone(&node);
        async move { item(&node, name, known).await }
    });
    answer::list("StreamList", futures_util::future::join_all(asked).await)
}

async fn item(node: &Node, name: String, known: streams::interests::Known) -> api::StreamItem {
    let info = streams::ask(node.proxy.broker(), &format!("STREAM.INFO.{name}")).await;
    let routes = node.routes();
    let called = |node: &proto::NodeId| {
        routes.node(node).map_or_else(|| node.to_string(), |node| node.name.clone())
    };
    let state = info.as_ref().map_or(&Value::Null, |info| &info["state"]);
    let number = |key: &str| state[key].as_u64().unwrap_or(0);
    api::StreamItem {
        name,
        nodes: known.nodes.iter().map(called).collect(),
        topics: known.topics.iter().map(ToString::to_string).collect(),
        reachable: info.is_some(),
        messages: number("messages"),
        bytes: number("bytes"),
        first: number("first_seq"),
        last: number("last_seq"),
        last_at: state["last_ts"].as_str().unwrap_or_default().to_owned(),
        consumers: number("consumer_count"),
    }
}

/// `GET /v1/streams/NAME`.
pub(super) async fn consumers(
    State(node): State<Arc<Node>>,
    Path(name): Path<String>,
) -> Answer<api::Items<api::ConsumerItem>> {
    if !streams::interests::known(&node.routes()).contains_key(&name) {
        return Err(Problem::new("M1209", Exit::NotFound, format!("no stream is called {name:?}"))
            .why("streams are in the configuration of their node, [broker.stream.NAME]")
            .attempt("micro streams", "those that there are"));
    }
    let answer = streams::ask(node.proxy.broker(), &format!("CONSUMER.LIST.{name}")).await;
    let Some(answer) = answer else {
        return Err(Problem::new("M8004", Exit::Unreachable, format!("{name} does not answer"))
            .why("its node cannot be reached now")
            .attempt("micro streams", "which node keeps it"));
    };
    let all = answer["consumers"].as_array().map(Vec::as_slice).unwrap_or_default();
    answer::list("ConsumerList", all.iter().map(consumer).collect())
}

fn consumer(info: &Value) -> api::ConsumerItem {
    let config = &info["config"];
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let one = config["filter_subject"].as_str().filter(|text| !text.is_empty());
    let more = config["filter_subjects"].as_array().map(Vec::as_slice).unwrap_or_default();
    let filters = one.into_iter().chain(more.iter().filter_map(Value::as_str));
    api::ConsumerItem {
        name: info["name"].as_str().unwrap_or_default().to_owned(),
        durable: config["durable_name"].is_string(),
        filters: filters.map(ToOwned::to_owned).collect(),
        done: number(&info["ack_floor"]["stream_seq"]),
        on_the_way: number(&info["num_ack_pending"]),
        again: number(&info["num_redelivered"]),
        ahead: number(&info["num_pending"]),
        waiting: number(&info["num_waiting"]),
    }
}
