//! What to tell whom.
//!
//! News gathers for a few milliseconds, then goes to every neighbour that is not known to have it
//! already: not back where it came from, nor to who told the same meanwhile. A leaf carries what it
//! heard from a relay to no relay that hears the same relays, and to no leaf that does: they pass
//! it on themselves (see [`crate::backbone`]).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use proto::record::Kind;
use proto::{LinkId, RecordId, Verified};

/// How long news gathers, at least and at most.
pub(crate) const GATHER: (Duration, Duration) =
    (Duration::from_millis(2), Duration::from_millis(6));
/// Bytes of records sent on one link before the next wait.
pub(crate) const AT_ONCE: usize = 256 * 1024;

/// What was learnt since the last telling.
#[derive(Debug, Default)]
pub(crate) struct Flood {
    /// Node records first: what else a node writes is believed only once it is known.
    news: BTreeMap<(bool, RecordId), News>,
}

#[derive(Debug)]
struct News {
    record: Arc<Verified>,
    /// Links whose other end has it.
    known: Vec<LinkId>,
}

impl Flood {
    /// Adds what was learnt from `from`, or written here.
    pub(crate) fn add(&mut self, record: Arc<Verified>, from: Option<LinkId>) {
        let known = from.into_iter().collect();
        self.news.insert(key(record.id()), News { record, known });
    }

    /// Notes that the other end of `link` has this very version as well.
    pub(crate) fn known(&mut self, record: &Verified, link: LinkId) {
        if let Some(news) = self.news.get_mut(&key(record.id()))
            && news.record.version() == record.version()
            && !news.known.contains(&link)
        {
            news.known.push(link);
        }
    }

    /// Takes what there is to tell now.
    pub(crate) fn take(&mut self) -> Taken {
        Taken(std::mem::take(&mut self.news).into_values().collect())
    }
}

/// News about to be told. Nothing of it has been superseded.
#[derive(Debug)]
pub(crate) struct Taken(Vec<News>);

impl Taken {
    /// What the other end of a link is not known to have, nor to hear where the ends of other
    /// links have it that are `alike`.
    pub(crate) fn for_link(
        &self,
        link: LinkId,
        alike: impl Fn(LinkId) -> bool,
    ) -> impl Iterator<Item = &Arc<Verified>> {
        let has = move |known: &LinkId| *known == link || alike(*known);
        let unknown = self.0.iter().filter(move |news| !news.known.iter().any(&has));
        unknown.map(|news| &news.record)
    }
}

fn key(id: &RecordId) -> (bool, RecordId) {
    (id.kind != Kind::NODE, id.clone())
}

/// Records waiting to be sent on one link.
#[derive(Debug)]
pub(crate) struct Backlog {
    waiting: VecDeque<Arc<Verified>>,
    limit: usize,
    /// Something was dropped: what the other end misses is to be found by a digest.
    pub(crate) lossy: bool,
}

impl Backlog {
    pub(crate) fn new(limit: usize) -> Self {
        Self { waiting: VecDeque::new(), limit, lossy: false }
    }

    pub(crate) fn push(&mut self, record: Arc<Verified>) {
        if self.waiting.len() < self.limit {
            self.waiting.push_back(record);
        } else {
            self.lossy = true;
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Arc<Verified>> {
        self.waiting.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
