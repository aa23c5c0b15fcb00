//! EndpointSlices of Kubernetes, listed in pages and watched at the API server.
//!
//! ```text
//! GET …/endpointslices?limit=500&continue=…                        all there is, as of one version
//! GET …/endpointslices?watch=1&resourceVersion=…                   what changes from there on, a line each
//! ```
//!
//! A watch that the server ends goes on where it was; one that fell behind what the server remembers
//! begins with a list again. Any other end is trouble, and what was known is kept.

mod server;

use std::collections::HashMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use proxy::foreign::kubernetes::{Event, Slice, Wanted};
use tokio::time::{Instant, timeout_at};

use self::server::Server;
use super::http::{deepest, escaped};
use super::session::Feed;
use super::standing::Trouble;
use super::table::MAX_ENTRIES;
use crate::config::kubernetes::Cluster;

/// Slices of one page.
const PAGE: usize = 500;
/// How long the server is asked to hold a watch, seconds. It marks how far it is more often.
const HELD: u64 = 300;
/// For the end of a watch beyond that, and for an answer that need not wait.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two watches or lists: a server that ends each at once is not asked without a pause.
const PAUSE: Duration = Duration::from_secs(1);
/// Endpoints of one list, with what the page has that is the last: more than a back end may have.
const MAX_LISTED: usize = 2 * MAX_ENTRIES;
/// Slices that are remembered for their endpoints.
const MAX_SLICES: usize = 2 * MAX_ENTRIES;
/// Bytes of one page: 500 slices of 100 endpoints each.
const MAX_PAGE: usize = 64 << 20;
/// Bytes of one event. A slice has at most 1000 endpoints.
const MAX_LINE: usize = 4 << 20;

/// A cluster that is watched.
#[derive(Debug)]
pub(super) struct Source {
    cluster: Cluster,
    wanted: Wanted,
}

/// The entries of each slice, to tell which have gone.
type Known = HashMap<String, Vec<String>>;

impl Source {
    /// The cluster; `protocol` is that of ports which do not say.
    pub(super) fn new(cluster: Cluster, protocol: proto::record::Protocol) -> Self {
        let wanted =
            Wanted { protocol, port: cluster.port.clone(), of_all: cluster.namespace.is_none() };
        Self { cluster, wanted }
    }

    /// Lists and watches.
    pub(super) async fn watch(&mut self, feed: &mut Feed) -> Result<(), Trouble> {
        let server = &self.cluster.server;
        let said =
            |trouble: Trouble| Trouble { why: format!("{server}: {}", trouble.why), ..trouble };
        self.follow(feed).await.map_err(said)
    }

    async fn follow(&self, feed: &mut Feed) -> Result<(), Trouble> {
        let mut server = Server::of(&self.cluster)?;
        loop {
            let mut began = Instant::now();
            let listed = self.list(&mut server, feed).await?;
            let (mut from, mut known) =
                listed.map_or_else(Default::default, |(version, known)| (Some(version), known));
            while let Some(version) = from {
                from = self.changes(&mut server, feed, version, &mut known).await?;
                if from.is_some() {
                    tokio::time::sleep_until(began + PAUSE).await;
                    began = Instant::now();
                }
            }
            tokio::time::sleep_until(began + PAUSE).await;
        }
    }

    /// Tells all there is; gives the version it was of. `None`: it took so long that the server has
    /// forgotten its beginning (Kubernetes, "410 Gone responses").
    async fn list(
        &self,
        server: &mut Server,
        feed: &mut Feed,
    ) -> Result<Option<(String, Known)>, Trouble> {
        let (mut all, mut known) = (Vec::new(), Known::new());
        let mut path = self.path(&[("limit", &PAGE.to_string())]);
        let version = loop {
            let Some(body) = server.get(&path, PATIENCE).await? else { return Ok(None) };
            let bytes = http_body_util::Limited::new(body, MAX_PAGE).collect();
            let bytes = tokio::time::timeout(PATIENCE, bytes).await;
            let bytes = bytes.map_err(|_| Trouble::new("a list does not end"))?;
            let bytes = bytes.map_err(|why| Trouble::new(format!("a list: {why}")))?.to_bytes();
            let page = self.wanted.page(&bytes).map_err(Trouble::new)?;
            for slice in page.slices {
                remember(&mut known, &slice)?;
                all.extend(slice.entries);
            }
            match page.more {
                Some(more) if all.len() <= MAX_LISTED => {
                    path = self.path(&[("limit", &PAGE.to_string()), ("continue", &more)]);
                }
                _ => break page.version,
            }
        };
        feed.all(all).await?;
        Ok(Some((version, known)))
    }

    /// Tells what changes, until the watch ends; gives where it goes on. `None`: nowhere, and a list is
    /// read first.
    async fn changes(
        &self,
        server: &mut Server,
        feed: &mut Feed,
        mut version: String,
        known: &mut Known,
    ) -> Result<Option<String>, Trouble> {
        let path = self.path(&[
            ("watch", "1"),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", &HELD.to_string()),
            ("resourceVersion", &version),
        ]);
        let until = Instant::now() + Duration::from_secs(HELD) + PATIENCE;
        let Some(body) = server.get(&path, PATIENCE).await? else { return Ok(None) };
        let mut lines = Lines { body, read: BytesMut::new(), looked: 0 };
        loop {
            let line = timeout_at(until, lines.next()).await;
            let Some(line) = line.map_err(|_| Trouble::new("the watch does not end"))?? else {
                return Ok(Some(version));
            };
            match self.wanted.event(&line).map_err(Trouble::new)? {
                Event::Put(slice, at) => {
                    version = at;
                    put(feed, known, slice).await?;
                }
                Event::Gone(slice, at) => {
                    version = at;
                    for key in known.remove(&slice).unwrap_or_default() {
                        feed.gone(key).await?;
                    }
                }
                Event::Mark(at) => version = at,
                Event::Relist => return Ok(None),
            }
        }
    }

    fn path(&self, query: &[(&str, &str)]) -> String {
        let mut path = "/apis/discovery.k8s.io/v1/".to_owned();
        if let Some(namespace) = &self.cluster.namespace {
            path += &format!("namespaces/{namespace}/");
        }
        path += "endpointslices?";
        let selector = self.cluster.selector.as_deref().map(|selector| ("labelSelector", selector));
        let all = query.iter().copied().chain(selector);
        path + &all
            .map(|(key, value)| format!("{key}={}", escaped(value)))
            .collect::<Vec<_>>()
            .join("&")
    }
}

/// Tells a slice as it is now, and which of its endpoints have gone.
async fn put(feed: &mut Feed, known: &mut Known, slice: Slice) -> Result<(), Trouble> {
    let before = remember(known, &slice)?;
    let there = |key: &String| slice.entries.iter().any(|(one, _)| one == key);
    // Those gone first: a pod that has another address has the name of the one that is gone.
    for gone in before.into_iter().filter(|key| !there(key)) {
        feed.gone(gone).await?;
    }
    for (key, read) in slice.entries {
        feed.put(key, read).await?;
    }
    Ok(())
}

/// Takes note of the endpoints of a slice; gives those it had before.
fn remember(known: &mut Known, slice: &Slice) -> Result<Vec<String>, Trouble> {
    if slice.entries.is_empty() {
        return Ok(known.remove(&slice.key).unwrap_or_default());
    }
    let keys = slice.entries.iter().map(|(key, _)| key.clone()).collect();
    let before = known.insert(slice.key.clone(), keys).unwrap_or_default();
    if known.len() > MAX_SLICES {
        return Err(Trouble::new(format!("it has more than {MAX_SLICES} slices")));
    }
    Ok(before)
}

/// The lines of an answer.
struct Lines {
    body: Incoming,
    read: BytesMut,
    /// How far there is no end of a line.
    looked: usize,
}

impl Lines {
    /// The next one, without its end; `None` after the last.
    async fn next(&mut self) -> Result<Option<Bytes>, Trouble> {
        loop {
            if let Some(end) = self.read[self.looked..].iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(self.looked + end + 1).freeze();
                self.looked = 0;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return Ok(Some(line));
            }
            self.looked = self.read.len();
            if self.looked > MAX_LINE {
                return Err(Trouble::new(format!("an event is longer than {MAX_LINE} bytes")));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.read.extend(frame.into_data().unwrap_or_default()),
                Some(Err(why)) => return Err(Trouble::new(deepest(&why))),
                None if self.read.is_empty() => return Ok(None),
                None => return Err(Trouble::new("the watch ends in the middle of an event")),
            }
        }
    }
}

#[cfg(test)]
mod tests;
