//! What to tell whom.
//!
//! News gathers for a few milliseconds, then goes to every neighbour that is not known to have it
//! already: not back where it came from, nor to who told the same meanwhile. A leaf carries what it
//! heard from a relay to no relay that hears the same relays, and to no leaf that does: they pass
//! it on themselves; and of its relays the two nearest do (see [`crate::backbone`]).

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use proto::record::Kind;
use proto::{LinkId, RecordId, Verified};

/// How long news gathers, at least and at most.
pub(crate) const GATHER: (Duration, Duration) =
    (Duration::from_millis(2), Duration::from_millis(6));
/// The wait between two tellings while there is more and more to tell: a node hears of many changes
/// in few frames, for a delay that is small beside those of the ways between nodes.
pub(crate) const TELL_EVERY: Duration = Duration::from_millis(25);
/// Bytes of records sent on one link before the next wait.
pub(crate) const AT_ONCE: usize = 256 * 1024;

/// What was learnt since the last telling.
#[derive(Debug, Default)]
pub(crate) struct Flood {
    /// In the order it was learnt.
    news: Vec<News>,
    places: HashMap<RecordId, usize, FixedState>,
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
        match self.places.entry(record.id().clone()) {
            Entry::Occupied(place) => self.news[*place.get()] = News { record, known },
            Entry::Vacant(place) => {
                place.insert(self.news.len());
                self.news.push(News { record, known });
            }
        }
    }

    /// Notes that the other end of `link` has this very version as well.
    pub(crate) fn known(&mut self, record: &Verified, link: LinkId) {
        let place = self.places.get(record.id()).copied();
        if let Some(news) = place.and_then(|place| self.news.get_mut(place))
            && news.record.version() == record.version()
            && !news.known.contains(&link)
        {
            news.known.push(link);
        }
    }

    /// Takes what there is to tell now. Node records come first: what else a node writes is
    /// believed only once it is known.
    pub(crate) fn take(&mut self) -> Taken {
        self.places.clear();
        let mut news = std::mem::take(&mut self.news);
        news.sort_by_key(|news| news.record.id().kind != Kind::NODE);
        Taken(news)
    }
}

/// News about to be told. Nothing of it has been superseded.
#[derive(Debug, Default)]
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
