//! The links there are, by number and by node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use proto::{LinkId, NodeId};
use smallvec::SmallVec;
use tokio::sync::Notify;

use crate::close::Close;
use crate::link::{Shared, State};

/// Two nodes that dial each other at the same time do so within this. What comes later is a new
/// link because one of them gave the old one up, and replaces it.
const AT_ONCE: Duration = Duration::from_secs(10);

type Hasher = foldhash::fast::RandomState;

/// All links. Reading takes the lock of one shard for a few instructions.
#[derive(Debug, Default)]
pub(crate) struct Links {
    by_id: DashMap<LinkId, Arc<Shared>, Hasher>,
    by_node: DashMap<NodeId, SmallVec<[Arc<Shared>; 2]>, Hasher>,
    last: AtomicU64,
    /// Yields when the last link is gone.
    emptied: Notify,
}

/// What a new link means for those there were.
#[derive(Debug)]
pub(crate) struct Placed {
    /// To be ended at once, or as soon as their calls have ended.
    pub(crate) others: SmallVec<[(Arc<Shared>, Close); 2]>,
    /// The same for the new one.
    pub(crate) new: Option<Close>,
}

/// Which link a call to a node goes over.
#[derive(Debug)]
pub(crate) enum Best {
    /// This one.
    Live(Arc<Shared>),
    /// There is one, and nothing is heard on it.
    Suspected,
    /// There is none.
    None,
}

impl Links {
    pub(crate) fn number(&self) -> LinkId {
        LinkId(self.last.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn get(&self, link: LinkId) -> Option<Arc<Shared>> {
        self.by_id.get(&link).map(|link| Arc::clone(&link))
    }

    /// All of them, in the order in which they began.
    pub(crate) fn all(&self) -> Vec<Arc<Shared>> {
        let mut all: Vec<_> = self.by_id.iter().map(|link| Arc::clone(&link)).collect();
        all.sort_unstable_by_key(|link| link.id);
        all
    }

    pub(crate) fn best(&self, node: &NodeId) -> Best {
        let Some(links) = self.by_node.get(node) else { return Best::None };
        let mut best = Best::None;
        // The newest is last.
        for link in links.iter().rev() {
            match link.state() {
                State::Live => return Best::Live(Arc::clone(link)),
                State::Suspected => best = Best::Suspected,
                State::Draining => {}
            }
        }
        best
    }

    pub(crate) fn has_neighbour(&self, node: &NodeId) -> bool {
        let is_one = |link: &Arc<Shared>| link.neighbour && link.state() != State::Draining;
        self.by_node.get(node).is_some_and(|links| links.iter().any(is_one))
    }

    /// The live neighbour link with `node`.
    pub(crate) fn neighbour(&self, node: &NodeId) -> Option<Arc<Shared>> {
        let is_one = |link: &&Arc<Shared>| link.neighbour && link.state() == State::Live;
        self.by_node.get(node)?.iter().find(is_one).map(Arc::clone)
    }

    /// Adds a link, and says which of the links with this node are to go: those of an older life
    /// of it, and of two neighbour links one.
    pub(crate) fn place(&self, me: NodeId, new: &Arc<Shared>) -> Placed {
        let mut placed = Placed { others: SmallVec::new(), new: None };
        let mut links = self.by_node.entry(new.peer).or_default();
        for old in links.iter() {
            if old.epoch < new.epoch {
                placed.others.push((Arc::clone(old), Close::Stale));
            } else if old.epoch > new.epoch {
                placed.new = Some(Close::Stale);
            } else if old.neighbour && new.neighbour && old.state() != State::Draining {
                let at_once = new.since.duration_since(old.since) < AT_ONCE;
                // Both ends decide alike: the link that the smaller of them dialled stays.
                let old_stays = old.dialled == (me < new.peer);
                if at_once && old.dialled != new.dialled && old_stays {
                    placed.new = placed.new.or(Some(Close::Duplicate));
                } else {
                    placed.others.push((Arc::clone(old), Close::Duplicate));
                }
            }
        }
        links.push(Arc::clone(new));
        drop(links);
        self.by_id.insert(new.id, Arc::clone(new));
        placed
    }

    pub(crate) fn remove(&self, link: &Shared) {
        self.by_id.remove(&link.id);
        if let Some(mut links) = self.by_node.get_mut(&link.peer) {
            links.retain(|other| other.id != link.id);
        }
        self.by_node.remove_if(&link.peer, |_, links| links.is_empty());
        if self.by_id.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// Waits until there is no link.
    pub(crate) async fn none(&self) {
        loop {
            // Made before the table is looked at: it hears of what is removed afterwards.
            let emptied = self.emptied.notified();
            if self.by_id.is_empty() {
                return;
            }
            emptied.await;
        }
    }
}
