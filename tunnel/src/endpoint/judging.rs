//! What an endpoint makes of how its neighbours behave: counted, said once, and in the end expelled.

use proto::{LinkId, NodeId};

use super::Endpoint;
use crate::close::Close;
use crate::conduct::Rejected;
use crate::counters::Taken;
use crate::link::Shared;

impl Endpoint {
    /// What is left to be said of the conduct of a link that has ended.
    pub(super) fn judge_last(&self, link: &Shared) {
        let mut conduct = link.conduct.lock();
        let before = conduct.is_slow();
        for (reason, count) in conduct.end() {
            let (link, peer) = (link.id, link.peer.short());
            tracing::warn!(event = "record rejected", %link, peer, ?reason, count, "network");
        }
        self.slowed(before, false);
    }

    /// A neighbour is being read slower than it speaks, or no longer.
    pub(crate) fn slowed(&self, before: bool, now: bool) {
        match (before, now) {
            (false, true) => {
                self.counters.neighbours_slowed.add();
                self.counters.slowdowns.add();
            }
            (true, false) => self.counters.neighbours_slowed.sub(),
            (true, true) | (false, false) => {}
        }
    }

    /// Records of a neighbour were believed.
    pub(crate) fn taken(&self, link: LinkId, counts: [(Taken, u64); 3], bytes_of_news: u64) {
        let mut news = 0;
        for (taken, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            self.counters.records_received.add_by(taken, count);
            news += if taken == Taken::News { count } else { 0 };
        }
        if news > 0
            && let Some(link) = self.links.get(link)
        {
            link.conduct.lock().give_back(news, bytes_of_news);
            link.given_back.notify_one();
        }
    }

    /// Records of a neighbour were turned away.
    pub(crate) fn rejected(&self, link: LinkId, rejected: &Rejected) {
        let link = self.links.get(link);
        for (reason, count, record) in rejected.iter() {
            self.counters.records_rejected.add_by(reason, count);
            // Of a link that is gone all was said.
            let Some(link) = &link else { continue };
            let now = self.clock.now();
            let (say, judged) = link.conduct.lock().rejected(reason, count, now);
            if let Some(count) = say {
                let (link, peer) = (link.id, link.peer.short());
                tracing::warn!(event = "record rejected", %link, peer, ?reason, count, ?record, "network");
            }
            if let Err(close) = judged {
                self.expel(link, close);
            }
        }
    }

    /// Ends the link with a node that misbehaves; it may not come back for a while.
    pub(crate) fn expel(&self, link: &Shared, close: Close) {
        let away = self.penalties.lock().add(link.peer, close, self.clock.now());
        if link.close_once(close) {
            let (link, peer, away) = (link.id, link.peer.short(), away.as_secs());
            tracing::warn!(event = "neighbour expelled", %link, peer, why = %close, away, "network");
        }
    }

    /// Why `node` may not come back yet.
    pub(crate) fn penalty_of(&self, node: &NodeId) -> Option<Close> {
        self.penalties.lock().of(node, self.clock.now())
    }
}
