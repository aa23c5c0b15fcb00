//! What is taken of other nodes: from whom it is expected, once, and in order.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::publish::Head;
use proto::{Epoch, NodeId, Time};

use super::LANES;
use crate::routes::Routes;

/// Origins that are remembered; the one unheard for longest gives way. It may then be heard out of
/// order once, if it changes its way in that moment.
const MAX_ORIGINS: usize = 16_384;
/// How many are forgotten at once, so that a crowd of new ones costs little each.
const FORGET: usize = MAX_ORIGINS / 16;

/// Why a message is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dropped {
    /// This node published it.
    Own,
    /// Who passes it on is not of this node's region.
    Unexpected,
    /// It is of a life of its origin that is over.
    Stale,
    /// Its origin has chosen another way since, and messages of that one came first.
    Late,
}

/// The ways by which origins are heard.
#[derive(Debug, Default)]
pub struct Taken {
    origins: BTreeMap<NodeId, Heard>,
}

#[derive(Debug)]
struct Heard {
    epoch: Epoch,
    ways: [u64; LANES as usize],
    at: Time,
}

impl Taken {
    /// Whether a message that `from` sent is to be taken, and passed on where it says so.
    ///
    /// # Errors
    /// [`Dropped`] says why not.
    pub fn take(
        &mut self,
        routes: &Routes,
        from: NodeId,
        head: &Head,
        now: Time,
    ) -> Result<(), Dropped> {
        let me = routes.me();
        let origin = head.origin.unwrap_or(from);
        if origin == me {
            return Err(Dropped::Own);
        }
        // One step between regions, one inside: who passes on is one of us.
        if head.origin.is_some_and(|origin| origin == from || !together(routes, &me, &from)) {
            return Err(Dropped::Unexpected);
        }
        self.make_room(&origin);
        let fresh = || Heard { epoch: head.epoch, ways: [0; LANES as usize], at: now };
        let heard = self.origins.entry(origin).or_insert_with(fresh);
        if head.epoch < heard.epoch {
            return Err(Dropped::Stale);
        }
        if head.epoch > heard.epoch {
            *heard = fresh();
        }
        heard.at = now;
        let way = &mut heard.ways[usize::from(head.topic.lane(LANES))];
        if head.way < *way {
            return Err(Dropped::Late);
        }
        *way = head.way;
        Ok(())
    }

    fn make_room(&mut self, origin: &NodeId) {
        if self.origins.len() < MAX_ORIGINS || self.origins.contains_key(origin) {
            return;
        }
        let mut ages: Vec<_> = self.origins.iter().map(|(node, heard)| (heard.at, *node)).collect();
        ages.sort_unstable();
        for (_, node) in ages.into_iter().take(FORGET) {
            self.origins.remove(&node);
        }
    }

    /// Forgets origins unheard for `span`.
    pub fn tidy(&mut self, span: Duration, now: Time) {
        self.origins.retain(|_, heard| now.since(heard.at) < span);
    }
}

fn together(routes: &Routes, a: &NodeId, b: &NodeId) -> bool {
    let region = |node| routes.node(node).map(|node| &*node.region);
    region(a).is_some() && region(a) == region(b)
}
