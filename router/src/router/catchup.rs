//! A node that was told that it lacks much is told the rest before it speaks of it.
//!
//! Until then it does not know who hears whom: it would tell all of it to neighbours that know it,
//! and refuse what it hears of nodes that it is about to be told of.

use std::sync::Arc;
use std::time::Duration;

use proto::{LinkId, Time, Verified};

use super::Router;
use crate::timer::Timer;

/// So long it takes at most: what was asked for may never come.
const PATIENCE: Duration = Duration::from_secs(1);
/// Fewer records than this are not waited for.
const MUCH: usize = 64;
/// Bytes of what is heard too early, at most; for the rest neighbours are asked.
const MAX_EARLY: usize = 4 << 20;

/// What a node is waiting for.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    since: Option<Time>,
    /// Records of nodes that are not known yet.
    early: Vec<(LinkId, Arc<Verified>)>,
    early_bytes: usize,
}

impl Router {
    /// Knows nobody, and has just sent a digest over `link`: much will be asked for.
    pub(super) fn begins(&mut self, link: LinkId, now: Time) {
        if let Some(link) = self.links.get_mut(link) {
            link.asked = true;
            self.catch_up.since.get_or_insert(now);
        }
    }

    /// So many records were asked for over `link`.
    pub(super) fn awaits(&mut self, link: LinkId, records: usize, now: Time) {
        let Some(link) = self.links.get_mut(link) else { return };
        link.asked = false;
        if records >= MUCH {
            link.awaited += records;
            self.catch_up.since.get_or_insert(now);
        }
    }

    /// So many came.
    pub(super) fn came(&mut self, link: LinkId, records: usize) {
        if let Some(link) = self.links.get_mut(link) {
            link.awaited = link.awaited.saturating_sub(records);
        }
    }

    /// Keeps a record of a node that is not known, if that may soon be; true if it does.
    pub(super) fn keep_early(&mut self, link: LinkId, record: &Arc<Verified>) -> bool {
        let bytes = self.catch_up.early_bytes + record.record().bytes().len();
        let kept = self.catch_up.since.is_some() && bytes <= MAX_EARLY;
        if kept {
            self.catch_up.early_bytes = bytes;
            self.catch_up.early.push((link, record.clone()));
        }
        kept
    }

    /// Whether much of what the network knows is still to come.
    pub(super) fn is_catching_up(&self) -> bool {
        self.catch_up.since.is_some()
    }

    /// Whether news is to be kept back. Relays tell everybody, and keep nothing back.
    pub(super) fn keeps_back(&self) -> bool {
        self.catch_up.since.is_some() && !self.is_relay()
    }

    /// Looks whether everything has come, and been thought about.
    pub(super) fn review_catch_up(&mut self, now: Time) {
        let Some(since) = self.catch_up.since else { return };
        let late = now.since(since) >= PATIENCE;
        let awaiting = self.links.iter().any(|(_, link)| link.asked || link.awaited > 0);
        if !late && (awaiting || self.paths.is_stale()) {
            return;
        }
        (self.catch_up.since, self.catch_up.early_bytes) = (None, 0);
        for (_, link) in self.links.iter_mut() {
            (link.asked, link.awaited) = (false, 0);
        }
        self.timers.arm(Timer::Dial, now);
        for (link, record) in std::mem::take(&mut self.catch_up.early) {
            self.take_in(vec![record], link, now);
        }
        self.arm_flood(now);
    }
}
