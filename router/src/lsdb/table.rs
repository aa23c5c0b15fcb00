//! All origins, in the order of their ids.
//!
//! Most of what a router does begins with the origin of a record, so finding one is quick: the
//! first byte of an id, which is even, leads to the few that share it.

use proto::NodeId;
use proto::frame::MAX_BUCKETS;

use super::origin::Origin;

/// Origins by the first byte of their id, which is the bucket of a digest as well.
#[derive(Debug)]
pub(super) struct Table(Vec<Vec<(NodeId, Origin)>>);

/// The bucket of a digest that an origin belongs to.
pub(super) fn bucket(origin: &NodeId) -> usize {
    usize::from(origin.as_bytes()[0])
}

impl Table {
    pub(super) fn new() -> Self {
        Self((0..MAX_BUCKETS).map(|_| Vec::new()).collect())
    }

    pub(super) fn get(&self, id: &NodeId) -> Option<&Origin> {
        let at = self.find(id).ok()?;
        Some(&self.0[bucket(id)][at].1)
    }

    pub(super) fn get_mut(&mut self, id: &NodeId) -> Option<&mut Origin> {
        let at = self.find(id).ok()?;
        Some(&mut self.0[bucket(id)][at].1)
    }

    /// That of `id`, which `new` makes where there is none.
    pub(super) fn get_or_insert(
        &mut self,
        id: &NodeId,
        new: impl FnOnce() -> Origin,
    ) -> &mut Origin {
        let found = self.find(id);
        let bucket = &mut self.0[bucket(id)];
        let at = found.unwrap_or_else(|at| {
            bucket.insert(at, (*id, new()));
            at
        });
        &mut bucket[at].1
    }

    pub(super) fn remove(&mut self, id: &NodeId) -> Option<Origin> {
        let at = self.find(id).ok()?;
        Some(self.0[bucket(id)].remove(at).1)
    }

    /// All, by id.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&NodeId, &Origin)> + Clone {
        self.0.iter().flatten().map(|(id, origin)| (id, origin))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Origin> {
        self.0.iter_mut().flatten().map(|(_, origin)| origin)
    }

    /// Those whose ids begin with `first`, by id.
    pub(super) fn in_bucket(&self, first: u8) -> impl Iterator<Item = (&NodeId, &Origin)> {
        self.0[usize::from(first)].iter().map(|(id, origin)| (id, origin))
    }

    /// All but `from`, once around the ring of ids, from there on.
    pub(super) fn around(
        &self,
        from: &NodeId,
    ) -> impl DoubleEndedIterator<Item = (&NodeId, &Origin)> + Clone {
        let (before, rest) = self.0.split_at(bucket(from));
        let (here, after) = rest.split_first().expect("there is a bucket for each first byte");
        let (lower, upper) = here.split_at(here.partition_point(|(id, _)| id < from));
        let upper = match upper.split_first() {
            Some(((id, _), others)) if id == from => others,
            Some(_) | None => upper,
        };
        let all = upper.iter().chain(after.iter().flatten());
        all.chain(before.iter().flatten()).chain(lower).map(|(id, origin)| (id, origin))
    }

    fn find(&self, id: &NodeId) -> Result<usize, usize> {
        self.0[bucket(id)].binary_search_by(|(other, _)| other.cmp(id))
    }
}
