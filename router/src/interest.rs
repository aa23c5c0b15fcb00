//! Interest in topics: what this node says of its programs, and what is believed of others.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::record::interest::{MAX_INTERESTS, bucket, rounded};
use proto::record::{Interest, Interests, MAX_RECORD};
use proto::{Grant, NodeId};

use crate::topics::Topics;

/// Bytes of the interests of one record: what is left of it is for what stands around them.
const MAX_BYTES: usize = MAX_RECORD - 1024;

/// What the programs of this node want, by bucket.
#[derive(Debug, Default)]
pub(crate) struct Local {
    buckets: BTreeMap<u8, Bucket>,
}

#[derive(Debug, Default)]
struct Bucket {
    wanted: BTreeMap<Interest, u32>,
    bytes: usize,
}

impl Local {
    /// Says how many subscribers an interest has now. Gives its bucket where that is news to the
    /// network.
    ///
    /// # Errors
    /// When the record of the bucket holds no more; nothing has changed then.
    pub(crate) fn set(&mut self, interest: Interest, count: u32) -> Result<Option<u8>, Full> {
        let (at, size) = (bucket(&interest), Interests::size_of(&interest));
        let held = self.buckets.entry(at).or_default();
        let count = if count == 0 { 0 } else { rounded(count) };
        let before = held.wanted.get(&interest).copied().unwrap_or(0);
        if before == count {
            return Ok(None);
        }
        if count == 0 {
            held.wanted.remove(&interest);
            held.bytes -= size;
            return Ok(Some(at));
        }
        if before == 0 {
            if held.wanted.len() >= MAX_INTERESTS || held.bytes + size > MAX_BYTES {
                return Err(Full);
            }
            held.bytes += size;
        }
        held.wanted.insert(interest, count);
        Ok(Some(at))
    }

    /// What is to be said of a bucket; `None`: nothing any more.
    pub(crate) fn said(&self, at: u8) -> Option<Interests> {
        let held = self.buckets.get(&at).filter(|held| !held.wanted.is_empty())?;
        let all = held.wanted.iter().map(|(interest, count)| (interest.clone(), *count));
        Some(Interests(all.collect()))
    }
}

/// The record of a bucket is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// The interests of other nodes, as they are in the answers.
#[derive(Debug, Default)]
pub(crate) struct Believed {
    said: BTreeMap<(NodeId, u8), Vec<(Interest, u32)>>,
}

impl Believed {
    /// Puts into `topics` what `node` says of a bucket, as far as its grant lets it, in place of
    /// what it said before. True if that changes anything.
    pub(crate) fn set(
        &mut self,
        topics: &mut Arc<Topics>,
        (node, bucket): (NodeId, u8),
        says: Option<(&Interests, &Grant)>,
    ) -> bool {
        let now: Vec<(Interest, u32)> = says.map_or(Vec::new(), |(interests, grant)| {
            let granted = |(interest, _): &&(Interest, u32)| may_use(grant, &interest.namespace);
            interests.0.iter().filter(granted).cloned().collect()
        });
        let before = self.said.remove(&(node, bucket)).unwrap_or_default();
        if before != now {
            let topics = Arc::make_mut(topics);
            // Both are in one order; what is in both stays untouched.
            for (interest, _) in before.iter().filter(|one| now.binary_search(one).is_err()) {
                topics.set(node, interest, 0);
            }
            for (interest, count) in now.iter().filter(|one| before.binary_search(one).is_err()) {
                topics.set(node, interest, *count);
            }
        }
        let changed = before != now;
        if !now.is_empty() {
            self.said.insert((node, bucket), now);
        }
        changed
    }

    /// The buckets in which `node` is believed to say something.
    pub(crate) fn of(&self, node: NodeId) -> Vec<u8> {
        let buckets = self.said.range((node, 0)..=(node, u8::MAX));
        buckets.map(|((_, bucket), _)| *bucket).collect()
    }
}

/// Whether a member may publish and subscribe in a namespace, empty for the default one.
pub(crate) fn may_use(grant: &Grant, namespace: &str) -> bool {
    let namespace = if namespace.is_empty() { proto::name::DEFAULT_NAMESPACE } else { namespace };
    grant.may_call(namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Request;
    use crate::testing::{Net, Toy, operator, router};
    use proto::TopicPattern;

    fn interest(n: usize) -> Interest {
        let pattern = TopicPattern::new(format!("a.{n}")).unwrap();
        Interest { namespace: "".into(), pattern, group: None }
    }

    #[test]
    fn only_what_the_network_does_not_know_is_news() {
        let mut local = Local::default();
        let at = bucket(&interest(1));
        assert_eq!(local.set(interest(1), 3), Ok(Some(at)));
        assert_eq!(local.set(interest(1), 4), Ok(None));
        assert_eq!(local.set(interest(1), 5), Ok(Some(at)));
        assert_eq!(local.said(at).unwrap().0, [(interest(1), 8)]);
        assert_eq!(local.set(interest(1), 0), Ok(Some(at)));
        assert_eq!(local.said(at), None);
    }

    #[test]
    fn interest_reaches_every_node_and_goes_with_its_subscriber_or_its_node() {
        let mut net = Net::new(3);
        net.link(0, 1, 500);
        net.link(1, 2, 500);
        net.settle();
        let ask = |count| Request::Interest(vec![(interest(1), count), (interest(2), 1)]);
        net.request(0, ask(1)).unwrap();
        net.settle();
        let knows = |net: &Net, at: usize| net.routes[at].topics().len();
        assert_eq!((knows(&net, 0), knows(&net, 2)), (2, 2));
        net.request(0, ask(0)).unwrap();
        net.settle();
        let wanted = net.routes[2].topics().get("", &interest(2).pattern).cloned();
        assert_eq!(wanted.unwrap()[0].node, net.routers[0].me());
        assert_eq!(knows(&net, 2), 1);
        net.request(0, Request::Leave).unwrap();
        net.settle();
        assert_eq!((knows(&net, 1), knows(&net, 2)), (0, 0));
    }

    #[test]
    fn interest_in_a_namespace_that_the_grant_does_not_name_is_not_believed() {
        let routers = [operator(Toy(0), "pay"), operator(Toy(1), "*")];
        let routers = routers.into_iter().zip(0..).map(|(node, n)| router(Toy(n), 1, node));
        let mut net = Net::of(routers.collect());
        net.link(0, 1, 500);
        net.settle();
        let within = |namespace: &str| Interest { namespace: namespace.into(), ..interest(1) };
        let all = ["", "pay", "ship"].map(|namespace| (within(namespace), 1));
        net.request(0, Request::Interest(all.into())).unwrap();
        net.settle();
        let topics = net.routes[1].topics();
        let seen: Vec<_> = topics.all().map(|(namespace, _, _)| namespace.to_owned()).collect();
        assert_eq!(seen, ["pay"]);
    }

    #[test]
    fn a_bucket_holds_so_many_and_has_room_again() {
        let mut local = Local::default();
        let of_one = (0..).filter(|n| bucket(&interest(*n)) == 7);
        let all: Vec<usize> = of_one.take(MAX_INTERESTS + 1).collect();
        let (last, rest) = all.split_last().unwrap();
        for n in rest {
            local.set(interest(*n), 1).unwrap();
        }
        assert_eq!(local.set(interest(*last), 1), Err(Full));
        local.set(interest(rest[0]), 0).unwrap();
        assert_eq!(local.set(interest(*last), 1), Ok(Some(7)));
    }
}
