//! A stream of what changes, made from one snapshot after another.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use proto::ServiceName;
use router::{Routes, ServiceRoutes};
use tokio::sync::watch;
use tokio::time::Instant;

use super::changes;
use super::failure::Failure;
use super::scope::Scope;
use crate::routes::Published;

/// How often one watcher compares whole snapshots at most: in a large network something changes
/// all the time, and a comparison looks at every service.
const PACE: Duration = Duration::from_millis(50);

/// Which services a watcher is told of.
pub(super) enum Which {
    /// Every one that the caller sees.
    Seen(Scope),
    /// These.
    Named(Vec<ServiceName>),
}

/// Makes the messages for what happened to one service, from before and after.
pub(super) type Tell =
    fn(&Teller, Option<&ServiceRoutes>, Option<&ServiceRoutes>, &Routes) -> Vec<Bytes>;

/// What messages are made with.
#[derive(Clone, Debug)]
pub(super) struct Teller {
    /// The name of the network.
    pub(super) network: String,
    /// Only of what nodes signed, not of routes that local programs made.
    pub(super) signed: bool,
}

struct Watcher {
    routes: Arc<Published>,
    changed: watch::Receiver<u64>,
    which: Which,
    teller: Teller,
    tell: Tell,
    /// What the caller has been told of, but for what waits below.
    old: Arc<Routes>,
    new: Arc<Routes>,
    /// Services that are different in `new`, not told yet.
    services: VecDeque<ServiceName>,
    /// Messages about the service told last.
    messages: VecDeque<Bytes>,
    compared: Option<Instant>,
}

/// Tells what changes from now on. Works only when polled: a caller that reads slowly makes it skip
/// snapshots, never what they come to.
pub(super) fn watch(
    routes: &Arc<Published>,
    which: Which,
    teller: Teller,
    tell: Tell,
) -> BoxStream<'static, Result<Bytes, Failure>> {
    // Subscribed before loaded: a snapshot published between the two is compared in vain, not lost.
    let changed = routes.changed();
    let now = newest(routes, &teller);
    let watcher = Watcher {
        routes: Arc::clone(routes),
        changed,
        which,
        teller,
        tell,
        old: Arc::clone(&now),
        new: now,
        services: VecDeque::new(),
        messages: VecDeque::new(),
        compared: None,
    };
    Box::pin(stream::unfold(watcher, |mut watcher| async move {
        let message = watcher.next().await?;
        Some((Ok(message), watcher))
    }))
}

fn newest(routes: &Published, teller: &Teller) -> Arc<Routes> {
    if teller.signed { routes.signed() } else { routes.load_full() }
}

impl Watcher {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                return Some(message);
            }
            if let Some(name) = self.services.pop_front() {
                let name = name.as_str();
                let (old, new) = (self.old.service(name), self.new.service(name));
                self.messages = (self.tell)(&self.teller, old, new, &self.new).into();
                continue;
            }
            self.old = Arc::clone(&self.new);
            self.changed.changed().await.ok()?;
            self.compare().await;
        }
    }

    async fn compare(&mut self) {
        match &self.which {
            Which::Named(names) => {
                self.new = newest(&self.routes, &self.teller);
                self.services = names.iter().cloned().collect();
            }
            Which::Seen(scope) => {
                if let Some(compared) = self.compared {
                    tokio::time::sleep_until(compared + PACE).await;
                }
                self.changed.mark_unchanged();
                self.new = newest(&self.routes, &self.teller);
                self.services = changes::services(&self.old, &self.new).into();
                self.services.retain(|name| scope.sees(name));
                self.compared = Some(Instant::now());
            }
        }
    }
}
