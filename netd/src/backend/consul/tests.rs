//! Against a small agent: it holds questions as the real one does.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::super::entry::Rules;
use super::super::table::Heard;
use super::*;

#[derive(Clone, Debug, Default)]
struct Catalog {
    index: u64,
    services: BTreeMap<String, Vec<Value>>,
    token: Option<String>,
    garbage: bool,
}

struct Agent {
    catalog: watch::Sender<Catalog>,
    address: String,
}

type Shared = Arc<watch::Receiver<Catalog>>;

impl Agent {
    async fn start() -> Self {
        let (catalog, seen) = watch::channel(Catalog { index: 7, ..Catalog::default() });
        let app = Router::new()
            .route(CATALOG, get(names))
            .route(CHECKS, get(checks))
            .route("/v1/health/service/{name}", get(instances))
            .with_state(Arc::new(seen));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { catalog, address }
    }

    fn put(&self, service: &str, id: &str, port: u16) {
        self.catalog.send_modify(|catalog| {
            catalog.index += 1;
            catalog.services.entry(service.to_owned()).or_default().push(json!({
                "Node": { "Node": "n1", "Address": "10.0.0.1" },
                "Service": { "ID": id, "Port": port, "Meta": { "protocol": "grpc" } },
            }));
        });
    }
}

/// Holds the question until there is another index, as `wait` allows.
async fn held(catalog: &Shared, query: &BTreeMap<String, String>) -> Catalog {
    let mut catalog = catalog.as_ref().clone();
    if let Some(known) = query.get("index") {
        let known: u64 = known.parse().unwrap();
        assert!(query["wait"].ends_with('s'));
        catalog.wait_for(|now| now.index != known).await.unwrap();
    }
    catalog.borrow().clone()
}

fn said(catalog: &Catalog, body: &Value) -> impl IntoResponse {
    let body = if catalog.garbage { "<html>".to_owned() } else { body.to_string() };
    ([(INDEX, catalog.index.to_string())], body)
}

async fn names(
    State(catalog): State<Shared>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: http::HeaderMap,
) -> axum::response::Response {
    let now = held(&catalog, &query).await;
    let token = headers.get(TOKEN).map(|token| token.to_str().unwrap().to_owned());
    if now.token.is_some() && token != now.token {
        return (StatusCode::FORBIDDEN, "ACL not found").into_response();
    }
    let all: BTreeMap<_, Vec<&str>> = now.services.keys().map(|name| (name, vec![])).collect();
    said(&now, &json!(all)).into_response()
}

use http::StatusCode;

async fn checks(
    State(catalog): State<Shared>,
    Query(query): Query<BTreeMap<String, String>>,
) -> axum::response::Response {
    said(&held(&catalog, &query).await, &json!([])).into_response()
}

async fn instances(
    State(catalog): State<Shared>,
    Path(name): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> axum::response::Response {
    assert_eq!(query["passing"], "1");
    let now = catalog.borrow().clone();
    said(&now, &json!(now.services.get(&name))).into_response()
}

fn source(agent: &Agent, token: Option<&str>) -> Source {
    let token = token.map(|token| crate::config::secret::read(token).unwrap());
    Source::new(agent.address.clone(), token, Protocol::Http1)
}

fn feed() -> (Feed, mpsc::Receiver<Heard>) {
    let (to, heard) = mpsc::channel(16);
    (Feed::new(to, Rules { loopback: false, own: Vec::new() }), heard)
}

/// The keys of the next listing, and how many of them can be offered.
async fn listing(heard: &mut mpsc::Receiver<Heard>) -> (Vec<String>, usize) {
    match heard.recv().await {
        Some(Heard::All(all)) => {
            let fine = all.iter().filter(|(_, read)| read.is_ok()).count();
            (all.into_iter().map(|(key, _)| key).collect(), fine)
        }
        other => panic!("a listing is expected: {other:?}"),
    }
}

#[tokio::test]
async fn a_change_of_the_catalog_is_a_listing() {
    let agent = Agent::start().await;
    agent.put("orders", "o-1", 4000);
    agent.put("a b", "x", 4000);
    let (mut feed, mut heard) = feed();
    let mut source = source(&agent, None);
    let watching = tokio::spawn(async move { source.watch(&mut feed).await });
    assert_eq!(listing(&mut heard).await, (vec!["a b/n1/x".into(), "orders/n1/o-1".into()], 1));
    agent.put("orders", "o-2", 4001);
    assert_eq!(listing(&mut heard).await.1, 2);
    // Restored servers begin with a lower index.
    agent.catalog.send_modify(|catalog| {
        catalog.index = 1;
        catalog.services.clear();
    });
    assert_eq!(listing(&mut heard).await.0, Vec::<String>::new());
    agent.catalog.send_modify(|catalog| {
        catalog.index = 2;
        catalog.garbage = true;
    });
    let trouble = watching.await.unwrap().unwrap_err();
    assert!(
        trouble.why.contains(&agent.address) && trouble.why.contains("no catalog"),
        "{trouble:?}"
    );
}

#[tokio::test]
async fn a_token_is_sent_and_missed() {
    let agent = Agent::start().await;
    agent.put("orders", "o-1", 4000);
    agent.catalog.send_modify(|catalog| catalog.token = Some("t0p".to_owned()));
    let (mut feed, mut heard) = feed();
    let refused = source(&agent, None).watch(&mut feed).await.unwrap_err();
    assert!(refused.why.contains("403") && refused.why.contains("ACL not found"), "{refused:?}");
    let mut source = source(&agent, Some("t0p"));
    let watching = tokio::spawn(async move { source.watch(&mut feed).await });
    assert_eq!(listing(&mut heard).await.1, 1);
    watching.abort();
}

#[tokio::test]
async fn what_is_no_agent_is_said() {
    let (mut feed, _heard) = feed();
    let app = Router::new().fallback(async || "hello");
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let mut source = Source::new(address, None, Protocol::Http1);
    let trouble = source.watch(&mut feed).await.unwrap_err();
    assert!(trouble.why.contains("no agent of Consul"), "{trouble:?}");
}

#[test]
fn names_are_parts_of_a_path() {
    assert_eq!(escaped("go.micro-srv_x~1"), "go.micro-srv_x~1");
    assert_eq!(escaped("a b/../ü"), "a%20b%2F..%2F%C3%BC");
}
