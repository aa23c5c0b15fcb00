//! The shell of one back end's [`Table`]: what is heard goes in, what changes goes to the router.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use proto::{ServiceName, Time};
use proxy::Published;
use router::{Refusal, Request};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Shown;
use super::entry::BACKEND;
use super::standing::Word;
use super::table::{Change, Heard, Put, Table};
use crate::drive::Asks;

/// What is heard at once before the router is asked.
const AT_ONCE: usize = 1024;
/// Instances of one service refused one by one as too many; then the rest is not asked for.
const TOO_MANY: u32 = 3;

/// What a keeper works with.
pub(super) struct Keeper {
    pub(super) name: Arc<str>,
    pub(super) heard: mpsc::Receiver<Heard>,
    pub(super) asks: Asks,
    pub(super) routes: Arc<Published>,
    pub(super) shown: Arc<ArcSwap<Shown>>,
}

impl Keeper {
    /// Keeps until what is heard ends.
    pub(super) async fn run(mut self) {
        let began = Instant::now();
        let time = |at: Instant| {
            let passed = at.duration_since(began).as_micros();
            Time::from_micros(u64::try_from(passed).unwrap_or(u64::MAX))
        };
        let mut table = Table::new(&self.name, time(began));
        loop {
            let due = began + Duration::from_micros(table.due().as_micros());
            tokio::select! {
                heard = self.heard.recv() => {
                    let Some(heard) = heard else { return };
                    table.heard(heard, time(Instant::now()));
                    for _ in 0..AT_ONCE {
                        let Ok(more) = self.heard.try_recv() else { break };
                        table.heard(more, time(Instant::now()));
                    }
                }
                () = tokio::time::sleep_until(due) => {}
            }
            let changes = {
                let is_ours = |service: &ServiceName, id: &str| {
                    matches!(self.holder(service, id), Holder::Ours)
                };
                table.changes(time(Instant::now()), is_ours)
            };
            for change in changes {
                self.tell(change, &mut table).await;
            }
            self.show(&table, began);
        }
    }

    /// Has the router do as a change says, as far as it may be.
    async fn tell(&self, change: Change, table: &mut Table) {
        let service = change.service;
        let (mut put, mut away) = (Vec::new(), Vec::new());
        for (key, id) in change.away {
            if matches!(self.holder(&service, &id), Holder::Ours) {
                away.push((key, id));
            } else {
                // Not ours any more: nobody's, or of a program that took its place.
                table.withdrawn(&key, &id);
            }
        }
        for one in change.put {
            match self.holder(&service, &one.said.instance.id) {
                Holder::Nobody | Holder::Ours => put.push(one),
                Holder::Other(who) => {
                    table.settled(&one, Err(format!("{who} offers this instance already")));
                }
            }
        }
        let ids = away.iter().map(|(_, id)| id.clone()).collect();
        if !away.is_empty() && self.ask(&service, &[], ids).await.is_ok() {
            away.iter().for_each(|(key, id)| table.withdrawn(key, id));
        }
        self.put(&service, put, table).await;
    }

    /// Offers as many as the router takes: all at once, else by halves until who is refused is known.
    async fn put(&self, service: &ServiceName, all: Vec<Put>, table: &mut Table) {
        let mut parts: VecDeque<Vec<Put>> = VecDeque::from([all]);
        let mut too_many = 0;
        while let Some(mut part) = parts.pop_front() {
            if part.is_empty() {
                continue;
            }
            match self.ask(service, &part, Vec::new()).await {
                Ok(()) => part.iter().for_each(|one| table.settled(one, Ok(()))),
                Err(refusal) if part.len() > 1 && is_of_one(&refusal) => {
                    let half = part.split_off(part.len() / 2);
                    parts.push_front(half);
                    parts.push_front(part);
                }
                Err(refusal) => {
                    let said = || Err(refusal.to_string());
                    part.iter().for_each(|one| table.settled(one, said()));
                    too_many += u32::from(is_of_one(&refusal));
                    if too_many >= TOO_MANY {
                        parts.drain(..).flatten().for_each(|one| table.settled(&one, said()));
                    }
                }
            }
        }
    }

    async fn ask(
        &self,
        service: &ServiceName,
        put: &[Put],
        away: Vec<String>,
    ) -> Result<(), Refusal> {
        let put = put.iter().map(|one| one.marked.clone()).collect();
        let change = Request::Change { service: service.clone(), put, away };
        self.asks.request(change).await.unwrap_or(Err(Refusal::Leaving))
    }

    /// Who offers an instance.
    fn holder(&self, service: &ServiceName, id: &str) -> Holder {
        let routes = self.routes.load();
        let of = routes.service(service.as_str());
        let same = of.into_iter().flat_map(|of| of.instances.iter()).filter(|one| &*one.id == id);
        let mut holder = Holder::Nobody;
        for one in same {
            let backend = one.metadata.get(BACKEND);
            match backend {
                Some(name) if one.here && *name == *self.name => return Holder::Ours,
                Some(name) if one.here => holder = Holder::Other(format!("the back end {name}")),
                None if one.here => holder = Holder::Other("a program of this node".to_owned()),
                // Two nodes that watch the same: two ways to it.
                Some(_) => {}
                None => {
                    let node = crate::node::Node::name_of(&routes, &one.node);
                    holder = Holder::Other(format!("the node {node} of this network"));
                }
            }
        }
        holder
    }

    /// Publishes how it is, and tells the log what is new about it.
    fn show(&self, table: &Table, began: Instant) {
        let before = self.shown.load();
        let (standing, counts) = (table.standing(), table.counts());
        let name = &*self.name;
        let why = standing.detail.as_deref().or(standing.why.as_deref()).unwrap_or_default();
        if before.word != standing.word {
            match standing.word {
                Word::Starting => {}
                Word::Watching => {
                    tracing::info!(
                        backend = name,
                        entries = counts.entries,
                        "a back end is watched"
                    );
                }
                Word::Stale => {
                    tracing::warn!(
                        code = "M5001",
                        backend = name,
                        why,
                        "a back end is stale: what it said is kept"
                    );
                }
                Word::Refused => {
                    tracing::warn!(
                        code = "M5001",
                        backend = name,
                        why,
                        "a back end is not watched"
                    );
                }
            }
        } else if before.why != standing.why && standing.word != Word::Watching {
            tracing::debug!(backend = name, why, "a back end is still not watched");
        }
        if let (0, Some((key, why))) = (before.counts.skipped, counts.examples.first()) {
            let skipped = counts.skipped;
            tracing::warn!(backend = name, skipped, key, why, "entries of a back end are skipped");
        }
        let since = began + Duration::from_micros(standing.since.as_micros());
        self.shown.store(Arc::new(Shown {
            word: standing.word,
            since: since.into_std(),
            why: standing.why.clone(),
            detail: standing.detail.clone(),
            counts,
        }));
    }
}

/// Whether fewer instances might be taken.
fn is_of_one(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::TooManyInstances | Refusal::TooLarge | Refusal::Malformed(_) => true,
        Refusal::NotGranted
        | Refusal::Expired
        | Refusal::TooManyServices
        | Refusal::StaleRules(_)
        | Refusal::TooManyRules
        | Refusal::ForeignNode
        | Refusal::Leaving => false,
    }
}

/// Who offers an instance, by service and id.
enum Holder {
    Nobody,
    /// This node, for this back end.
    Ours,
    /// Somebody else, in words.
    Other(String),
}
