//! The rules that this node keeps for the network: of each service the newest set it has heard of,
//! whoever wrote it.
//!
//! Every node that may decide about a service keeps its rules, and a few of them tell them as
//! records of their own (see `router/rules`). So rules hold on when their author is gone, and an
//! older set that somebody brings back finds a newer one. Sets without rules are kept as well: they
//! are what takes older ones away.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::rule::RuleSet;
use proto::{NodeId, ServiceName, Time};

use crate::limits::Limits;
use crate::rules::Ruling;

/// How many nodes tell the rules of a service, of all that may: two of them may go at once.
pub const CARRIERS: usize = 3;

/// One set that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSet {
    /// The rules.
    pub set: Arc<RuleSet>,
    /// Whether this node tells them to others; it does so again in its next life.
    pub told: bool,
}

/// All that is kept, by service; for the disk.
pub type KeptSets = BTreeMap<ServiceName, KeptSet>;

/// What became of a set that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// It is kept now.
    New,
    /// This or a newer one was kept already.
    Known,
    /// There is no room for it, and none is kept of the service.
    Full,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Kept {
    sets: BTreeMap<ServiceName, Entry>,
    bytes: usize,
    of_author: BTreeMap<NodeId, usize>,
    limits: Limits,
    changed: bool,
}

#[derive(Debug)]
struct Entry {
    ruling: Ruling,
    bytes: usize,
    told: bool,
    /// Since when no other node in reach has told it.
    lacking: Option<Time>,
}

impl Kept {
    pub(crate) fn new(limits: Limits) -> Self {
        let (sets, of_author) = (BTreeMap::new(), BTreeMap::new());
        Self { sets, bytes: 0, of_author, limits, changed: false }
    }

    /// Keeps a set, unless a newer one is kept.
    pub(crate) fn keep(&mut self, service: &ServiceName, ruling: Ruling) -> Keeping {
        if self.sets.get(service).is_some_and(|kept| !ruling.is_above(&kept.ruling)) {
            return Keeping::Known;
        }
        let was_told = self.remove(service);
        let bytes = ruling.set.encode().len() + service.as_str().len();
        let of_author = self.of_author.get(&ruling.author).copied().unwrap_or(0) + bytes;
        if self.bytes + bytes > self.limits.rules || of_author > self.limits.rules_per_author {
            return Keeping::Full;
        }
        self.bytes += bytes;
        self.of_author.insert(ruling.author, of_author);
        let entry = Entry { ruling, bytes, told: was_told, lacking: None };
        self.sets.insert(service.clone(), entry);
        self.changed = true;
        Keeping::New
    }

    /// Drops what is kept of a service; says whether that was told.
    fn remove(&mut self, service: &ServiceName) -> bool {
        let Some(old) = self.sets.remove(service) else { return false };
        self.changed = true;
        self.bytes -= old.bytes;
        if let Some(left) = self.of_author.get_mut(&old.ruling.author) {
            *left -= old.bytes;
            if *left == 0 {
                self.of_author.remove(&old.ruling.author);
            }
        }
        old.told
    }

    pub(crate) fn get(&self, service: &ServiceName) -> Option<&Ruling> {
        self.sets.get(service).map(|kept| &kept.ruling)
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.sets.keys()
    }

    /// Says whether this node tells the rules of a service.
    pub(crate) fn set_told(&mut self, service: &ServiceName, told: bool) {
        if let Some(kept) = self.sets.get_mut(service) {
            self.changed |= kept.told != told;
            (kept.told, kept.lacking) = (told, None);
        }
    }

    /// Somebody else tells them, or nobody: since when.
    pub(crate) fn lacking(&mut self, service: &ServiceName, lacks: bool, now: Time) -> Time {
        let Some(kept) = self.sets.get_mut(service) else { return now };
        kept.lacking = lacks.then(|| kept.lacking.unwrap_or(now));
        kept.lacking.unwrap_or(now)
    }

    /// All of them, if that has changed since this was asked last.
    pub(crate) fn take_news(&mut self) -> Option<Arc<KeptSets>> {
        let all = self.sets.iter().map(|(service, kept)| {
            let set = Arc::clone(&kept.ruling.set);
            (service.clone(), KeptSet { set, told: kept.told })
        });
        std::mem::take(&mut self.changed).then(|| Arc::new(all.collect()))
    }
}

/// Of the nodes that may tell the rules of a service those that do: the nearest to it, as
/// Kademlia counts distance (Maymounkov and Mazières, 2002, §2.1). Services differ in who they are,
/// and of those that stay nobody begins or ends because another comes or goes far from it.
pub(crate) fn carriers(service: &ServiceName, able: impl Iterator<Item = NodeId>) -> Vec<NodeId> {
    let point = *blake3::hash(service.as_str().as_bytes()).as_bytes();
    let distance = |node: &NodeId| {
        let mut far = *node.as_bytes();
        far.iter_mut().zip(point).for_each(|(byte, of_service)| *byte ^= of_service);
        far
    };
    let mut able: Vec<NodeId> = able.collect();
    if able.len() > CARRIERS {
        able.select_nth_unstable_by_key(CARRIERS - 1, distance);
        able.truncate(CARRIERS);
    }
    able
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::UnixTime;
    use proto::rule::Rule;

    fn ruling(author: u8, revision: u64, name: &str) -> Ruling {
        let author = NodeId::from_bytes([author; 32]);
        let rule = Rule { name: name.into(), ..Rule::default() };
        let mut set = RuleSet::following(None, vec![rule], author, UnixTime(1));
        set.revision = revision;
        set.history[0].revision = revision;
        Ruling::of(author, Arc::new(set))
    }

    fn service(name: &str) -> ServiceName {
        name.parse().unwrap()
    }

    #[test]
    fn only_a_newer_set_takes_the_place_of_one_that_is_kept() {
        let mut kept = Kept::new(Limits::default());
        let s = service("s");
        assert_eq!(kept.keep(&s, ruling(1, 2, "a")), Keeping::New);
        assert!(kept.take_news().is_some() && kept.take_news().is_none());
        for known in [ruling(1, 1, "x"), ruling(2, 2, "x"), ruling(1, 2, "a")] {
            assert_eq!(kept.keep(&s, known), Keeping::Known);
        }
        assert!(kept.take_news().is_none());
        assert_eq!(kept.keep(&s, ruling(9, 3, "b")), Keeping::New);
        assert_eq!(kept.of_author.len(), 1);
    }

    #[test]
    fn no_author_has_more_kept_than_its_part_and_the_older_set_goes_all_the_same() {
        let one = ruling(1, 1, "a").set.encode().len() + 1;
        let limits = Limits { rules_per_author: 2 * one, rules: 3 * one, ..Limits::default() };
        let mut kept = Kept::new(limits);
        for name in ["a", "b"] {
            assert_eq!(kept.keep(&service(name), ruling(1, 1, "a")), Keeping::New);
        }
        assert_eq!(kept.keep(&service("c"), ruling(1, 1, "a")), Keeping::Full);
        assert_eq!(kept.keep(&service("c"), ruling(2, 1, "a")), Keeping::New);
        assert_eq!(kept.keep(&service("d"), ruling(3, 1, "a")), Keeping::Full, "of all");
        let longer = ruling(1, 2, &"a".repeat(60));
        assert_eq!(kept.keep(&service("a"), longer), Keeping::Full);
        assert!(kept.get(&service("a")).is_none(), "what is superseded is not kept");
        assert_eq!(kept.bytes, 2 * one);
    }

    #[test]
    fn carriers_are_few_and_stay_when_others_come_and_go() {
        let nodes: Vec<NodeId> =
            (0..40u8).map(|n| NodeId::from_bytes(*blake3::hash(&[n]).as_bytes())).collect();
        let of = |nodes: &[NodeId]| {
            let mut all = carriers(&service("orders"), nodes.iter().copied());
            all.sort_unstable();
            all
        };
        let all = of(&nodes);
        assert_eq!(all.len(), CARRIERS);
        for gone in &nodes {
            let left: Vec<_> = nodes.iter().copied().filter(|node| node != gone).collect();
            let stayed = of(&left).iter().filter(|node| all.contains(node)).count();
            assert_eq!(stayed, CARRIERS - usize::from(all.contains(gone)));
        }
        assert_eq!(of(&nodes[..2]).len(), 2);
    }
}
