//! Readiness, liveness and metrics: for supervisors and scrapers, on a TCP port of the loopback.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api::{Component, Readiness};
use crate::httpd::{self, Slots};
use crate::metrics::Metrics;
use crate::node::{Node, Phase};

/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 512;
/// What scrapers of OpenMetrics ask for.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether the node takes calls, and each part with its reason.
#[must_use]
pub fn readiness(node: &Node) -> Readiness {
    let phase = *node.phase.borrow();
    let links = *node.shared.links.borrow();
    let trouble = node.shared.trouble.borrow().clone();
    let proxy = match phase {
        Phase::Starting => (false, "not listening yet".to_owned()),
        Phase::Serving => (true, format!("listens on {}", addresses(node))),
        Phase::Draining => (false, "draining: no new calls".to_owned()),
    };
    let network = match (links, node.has_network()) {
        (1.., false) => (false, "a link is up, and the way over it not known yet".to_owned()),
        (1, true) => (true, "1 link is up".to_owned()),
        (2.., true) => (true, format!("{links} links are up")),
        (0, true) => (true, "no link now; services of this node answer".to_owned()),
        (0, false) => {
            let why = trouble.unwrap_or_else(|| "looking for a member".to_owned());
            (false, format!("no link yet: {why}"))
        }
    };
    let component =
        |name: &str, (ready, reason)| Component { name: name.to_owned(), ready, reason };
    let components = vec![component("proxy", proxy), component("network", network)];
    Readiness { ready: components.iter().all(|part| part.ready), components }
}

fn addresses(node: &Node) -> String {
    let all: Vec<_> = node.proxy_at.iter().map(ToString::to_string).collect();
    all.join(" and ")
}

/// Serves the health port until `stop`.
pub async fn serve(
    listener: TcpListener,
    node: Arc<Node>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let service = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/startupz", get(startupz))
        .route("/metrics", get(scrape))
        .with_state((node, metrics));
    let slots = Slots::new(CONNECTIONS);
    loop {
        let slot = slots.take().await;
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                tokio::spawn(httpd::serve(stream, service.clone(), slot));
            }
            Err(error) => httpd::accept_failed("observe", &error).await,
        }
    }
}

type Parts = State<(Arc<Node>, Arc<Metrics>)>;

/// 200 while both runtimes turn; never depends on peers.
async fn livez(State((node, _)): Parts) -> impl IntoResponse {
    if node.beats.are_fresh(node.began) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "an event loop has not turned for 5 s\n")
    }
}

/// 200 when calls are taken; lists each part with its reason.
async fn readyz(State((node, _)): Parts) -> impl IntoResponse {
    let readiness = readiness(&node);
    let mut text = String::new();
    for part in &readiness.components {
        let word = if part.ready { "ok" } else { "not ready" };
        let _ = writeln!(text, "{}: {word}: {}", part.name, part.reason);
    }
    (status(readiness.ready), text)
}

/// 200 once everything listens.
async fn startupz(State((node, _)): Parts) -> impl IntoResponse {
    let started = *node.phase.borrow() >= Phase::Serving;
    (status(started), if started { "started\n" } else { "starting\n" })
}

async fn scrape(State((node, metrics)): Parts) -> impl IntoResponse {
    match metrics.text(&node) {
        Ok(text) => (StatusCode::OK, [("content-type", OPENMETRICS)], text),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            (StatusCode::INTERNAL_SERVER_ERROR, [("content-type", "text/plain")], String::new())
        }
    }
}

const fn status(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
