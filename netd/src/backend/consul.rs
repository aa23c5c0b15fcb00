//! The catalog of Consul, asked of an agent: all instances that pass their checks, again whenever the
//! catalog or a check has changed.
//!
//! ```text
//! GET /v1/catalog/services?index=…&wait=60s         names; answered when there is another index
//! GET /v1/health/state/critical?index=…&wait=60s    the same for checks
//! GET /v1/health/service/NAME?passing=1             instances
//! ```
//!
//! Two questions wait, however many services there are: agents allow some 200 connections to one
//! program. A change is followed by a listing of all, at most one a second; what it changes is found
//! by comparing.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use proto::record::Protocol;
use proxy::foreign::consul as read;
use tokio::time::Instant;

use super::http::{Http, escaped};
use super::session::Feed;
use super::standing::Trouble;
use super::table::MAX_ENTRIES;
use crate::config::secret::Secret;

/// For an answer that need not wait.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an agent holds a question, seconds; it adds up to a sixteenth.
const WAIT: u64 = 60;
/// Between two listings.
const PAUSE: Duration = Duration::from_secs(1);
/// Services that are asked for.
const MAX_SERVICES: usize = 4096;
/// Carries the index of an answer.
const INDEX: &str = "x-consul-index";
const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");
const CATALOG: &str = "/v1/catalog/services";
const CHECKS: &str = "/v1/health/state/critical";

/// A Consul that is watched.
#[derive(Debug)]
pub(super) struct Source {
    address: String,
    token: Option<Secret>,
    protocol: Protocol,
}

impl Source {
    /// The agent at `address`; `protocol` is that of instances which do not say.
    pub(super) fn new(address: String, token: Option<Secret>, protocol: Protocol) -> Self {
        Self { address, token, protocol }
    }

    /// Lists, waits for a change, and lists again.
    pub(super) async fn watch(&mut self, feed: &mut Feed) -> Result<(), Trouble> {
        let said = |trouble: Trouble| Trouble {
            why: format!("{}: {}", self.address, trouble.why),
            ..trouble
        };
        self.follow(feed).await.map_err(said)
    }

    async fn follow(&self, feed: &mut Feed) -> Result<(), Trouble> {
        let token = self.token.as_ref().map(|token| HeaderValue::from_str(token.expose()));
        let token = token.transpose().map_err(|_| Trouble::refused("the token is no header"))?;
        let http = Http::new(&self.address, token.map(|token| (TOKEN, token)));
        loop {
            let began = Instant::now();
            // The index of checks first: what changes while it is listed is seen afterwards.
            let checks = index_of(&http, CHECKS).await?;
            let (headers, body) = http.get(CATALOG, PATIENCE).await?;
            let catalog = index(&headers)?;
            let mut all = Vec::new();
            for name in read::names(&body).map_err(Trouble::new)?.into_iter().take(MAX_SERVICES) {
                let path = format!("/v1/health/service/{}?passing=1", escaped(&name));
                let (_, body) = http.get(&path, PATIENCE).await?;
                let of = read::instances(&name, &body, self.protocol).map_err(Trouble::new)?;
                all.extend(of);
                if all.len() > 2 * MAX_ENTRIES {
                    break;
                }
            }
            feed.all(all).await?;
            tokio::select! {
                changed = change(&http, CATALOG, catalog) => changed?,
                changed = change(&http, CHECKS, checks) => changed?,
            }
            tokio::time::sleep_until(began + PAUSE).await;
        }
    }
}

async fn index_of(http: &Http, path: &str) -> Result<u64, Trouble> {
    index(&http.get(path, PATIENCE).await?.0)
}

/// Waits until the answer has another index. One that goes back is another as well: the servers were
/// restored (Consul, "Blocking Queries").
async fn change(http: &Http, path: &str, known: u64) -> Result<(), Trouble> {
    let path = format!("{path}?index={known}&wait={WAIT}s");
    let patience = Duration::from_secs(WAIT + WAIT / 16) + PATIENCE;
    loop {
        let began = Instant::now();
        let (headers, _) = http.get(&path, patience).await?;
        if index(&headers)? != known {
            return Ok(());
        }
        // One that does not hold a question is not asked without a pause.
        tokio::time::sleep_until(began + PAUSE).await;
    }
}

fn index(headers: &http::HeaderMap) -> Result<u64, Trouble> {
    let index = headers.get(INDEX).and_then(|value| value.to_str().ok()?.parse().ok());
    index.ok_or_else(|| Trouble::new("an answer has no index: that is no agent of Consul"))
}

#[cfg(test)]
#[path = "consul/tests.rs"]
mod tests;
