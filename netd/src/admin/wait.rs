//! Answers that are waited for: readiness, conditions, and the round trip to a node.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use proto::NodeId;
use router::Routes;
use serde::Deserialize;

use super::answer::{Answer, document, malformed};
use super::read::link_item;
use crate::api;
use crate::error::{Exit, Problem};
use crate::health;
use crate::node::Node;

/// How long a condition is waited for unless the request says.
const WAIT: Duration = Duration::from_secs(30);
/// The longest wait a request may ask for.
const LONGEST: Duration = Duration::from_secs(3600);
/// How long a probe may take.
const PROBE: Duration = Duration::from_secs(5);

/// What `GET /v1/wait` is asked for.
#[derive(Debug, Deserialize)]
pub(super) struct Until {
    #[serde(rename = "for")]
    condition: String,
    timeout_ms: Option<u64>,
}

/// What can be waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Ready,
    Nodes(usize),
    Links(usize),
    Service(String),
}

impl Condition {
    fn parse(text: &str) -> Result<Self, Problem> {
        let number =
            |text: &str| text.parse().map_err(|_| malformed(&format!("{text:?} is not a number")));
        match text.split_once('=') {
            None if text == "ready" => Ok(Self::Ready),
            Some(("nodes", count)) => number(count).map(Self::Nodes),
            Some(("links", count)) => number(count).map(Self::Links),
            Some(("services" | "service", name)) if !name.is_empty() => {
                Ok(Self::Service(name.to_owned()))
            }
            _ => Err(malformed(&format!(
                "{text:?} cannot be waited for: ready, nodes=N, links=N, services=NAME can"
            ))),
        }
    }

    fn holds(&self, node: &Node, routes: &Routes) -> bool {
        match self {
            Self::Ready => node.is_ready(),
            Self::Nodes(wanted) => {
                routes.nodes().filter(|other| other.cost.is_finite()).count() >= *wanted
            }
            Self::Links(wanted) => *node.shared.links.borrow() >= *wanted,
            Self::Service(name) => routes
                .service(name)
                .is_some_and(|service| service.instances.iter().any(|i| i.cost.is_finite())),
        }
    }
}

/// `GET /v1/wait?for=CONDITION`: 200 when it holds, 408 when it did not in time.
pub(super) async fn wait(
    State(node): State<Arc<Node>>,
    Query(until): Query<Until>,
) -> Result<Json<serde_json::Value>, Problem> {
    let condition = Condition::parse(&until.condition)?;
    let limit = until.timeout_ms.map_or(WAIT, Duration::from_millis).min(LONGEST);
    match tokio::time::timeout(limit, hold(&node, &condition)).await {
        Ok(()) => Ok(Json(crate::cli::wait::fulfilled(&until.condition))),
        Err(_elapsed) => {
            let what = format!("{} is not true yet", until.condition);
            Err(Problem::new("M8004", Exit::Unreachable, what)
                .why(format!("waited {}", crate::config::duration::show(limit)))
                .attempt("micro status", "shows what is there"))
        }
    }
}

async fn hold(node: &Node, condition: &Condition) {
    let mut routes = node.routes_published().changed();
    let mut links = node.shared.links.subscribe();
    let mut phase = node.phase.subscribe();
    loop {
        // Marked as seen before looking: a change in between is not missed.
        routes.borrow_and_update();
        links.borrow_and_update();
        phase.borrow_and_update();
        if condition.holds(node, &node.routes()) {
            return;
        }
        // A sender lives as long as the node, which this borrows.
        tokio::select! {
            _ = routes.changed() => {}
            _ = links.changed() => {}
            _ = phase.changed() => {}
        }
    }
}

/// `GET /v1/ready`: 200 when ready, else 503 with the same document.
pub(super) async fn ready(
    State(node): State<Arc<Node>>,
) -> (StatusCode, Json<api::Document<api::Readiness>>) {
    let readiness = health::readiness(&node);
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(api::Document::new("Readiness", readiness)))
}

/// What `GET /v1/ping` is asked for.
#[derive(Debug, Deserialize)]
pub(super) struct Whom {
    node: String,
}

/// `GET /v1/ping?node=NODE`: one probe there and back, over the link that calls use.
pub(super) async fn ping(
    State(node): State<Arc<Node>>,
    Query(whom): Query<Whom>,
) -> Answer<api::Ping> {
    let routes = node.routes();
    let id = find_node(&routes, &whom.node)?;
    let name = Node::name_of(&routes, &id);
    let region = routes.node(&id).map(|other| other.region.clone()).unwrap_or_default();
    if id == node.me {
        let (path, remote) = ("local".to_owned(), String::new());
        let ping = api::Ping { node: name, region, path, rtt_ns: 0, remote };
        return document("Ping", ping);
    }
    let unreachable = |why: String| {
        Problem::new("M1003", Exit::Unreachable, format!("node {name} does not answer"))
            .why(why)
            .attempt("micro network nodes", "shows who is reachable")
    };
    let probe = node.tunnel.echo(id, bytes::Bytes::from_static(b"ping"));
    let rtt = match tokio::time::timeout(PROBE, probe).await {
        Ok(Ok(rtt)) => rtt,
        Ok(Err(why)) => return Err(unreachable(why.to_string())),
        Err(_elapsed) => return Err(unreachable(format!("waited {}s", PROBE.as_secs()))),
    };
    let link = node.tunnel.links().into_iter().find(|link| link.peer == id);
    let link = link.map(|link| link_item(&routes, &link)).unwrap_or_default();
    let rtt_ns = u64::try_from(rtt.as_nanos()).unwrap_or(u64::MAX);
    let ping = api::Ping { node: name, region, path: link.path, rtt_ns, remote: link.remote };
    document("Ping", ping)
}

/// A node by its name or the beginning of its id.
pub(super) fn find_node(routes: &Routes, text: &str) -> Result<NodeId, Problem> {
    let by_name: Vec<_> = routes.nodes().filter(|node| node.name == text).collect();
    let by_id = || routes.nodes().filter(|node| node.id.to_string().starts_with(text)).collect();
    let found: Vec<_> = if by_name.is_empty() { by_id() } else { by_name };
    match found[..] {
        [one] => Ok(one.id),
        [] => {
            let near = routes.nodes().min_by_key(|node| strsim::levenshtein(&node.name, text));
            let problem = Problem::new("M1205", Exit::NotFound, format!("no node named {text:?}"));
            let count = routes.nodes().count();
            Err(match near {
                Some(near) => problem
                    .why(format!("{count} nodes are known; the nearest name is {}", near.name))
                    .attempt(format!("micro network ping {}", near.name), ""),
                None => problem.why("no node is known"),
            })
        }
        [..] => Err(Problem::new("M1205", Exit::NotFound, format!("several nodes are {text:?}"))
            .why(format!("{} of them: names are not unique", found.len()))
            .attempt(
                "micro network nodes -o wide",
                "shows their ids: the beginning of one will do",
            )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_and_others_are_refused() {
        for (text, wanted) in [
            ("ready", Some(Condition::Ready)),
            ("nodes=3", Some(Condition::Nodes(3))),
            ("links=1", Some(Condition::Links(1))),
            ("services=greeter", Some(Condition::Service("greeter".into()))),
            ("services=", None),
            ("nodes=many", None),
            ("peace", None),
        ] {
            assert_eq!(Condition::parse(text).ok(), wanted, "{text}");
        }
    }
}
