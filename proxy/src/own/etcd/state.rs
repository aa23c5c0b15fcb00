//! The table as the routes make it: every instance of the default namespace that can be reached is a
//! key.
//!
//! Nothing follows the routes while nobody asks: whoever asks brings the table up to date first, from
//! the snapshot it saw last to the newest, and a watch asks when routes change. So changes that were
//! undone in between are not seen, and an idle node pays nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use proto::name::{DEFAULT_NAMESPACE, WILDCARD};
use proto::{NodeId, ServiceName};
use router::{Instance, Registration, Routes, ServiceRoutes};

use super::super::changes::{self, View};
use super::keys;
use super::leases::Leases;
use super::table::{Full, Table};
use super::value;

/// Values kept as programs wrote them; of those beyond it the ones that are not offered go first.
const MAX_OFFERS: usize = 100_000;

/// A key as a program on this node wrote it.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    /// What it registers, without its lease.
    pub(super) registration: Registration,
    pub(super) value: Bytes,
    pub(super) lease: i64,
}

impl Offer {
    /// Whether an instance is what was registered.
    pub(super) fn is(&self, instance: &Instance) -> bool {
        let said = &self.registration;
        instance.here
            && *instance.id == *said.instance.id
            && *instance.address == *said.instance.address
            && *instance.version == *said.version
            && instance.protocol == said.instance.protocol
            && instance.metadata == said.instance.metadata
    }
}

/// Everything that the face keeps.
pub(super) struct State {
    seen: Arc<Routes>,
    pub(super) table: Table,
    pub(super) leases: Leases,
    offers: BTreeMap<Bytes, Offer>,
}

impl State {
    /// Of node `me`; its first change has the revision after `first`.
    pub(super) fn new(me: NodeId, first: i64) -> Self {
        Self {
            seen: Arc::new(Routes::empty(me)),
            table: Table::new(first),
            leases: Leases::default(),
            offers: BTreeMap::new(),
        }
    }

    /// Brings the table up to date.
    pub(super) fn follow(&mut self, routes: &Arc<Routes>) {
        if Arc::ptr_eq(routes, &self.seen) || routes.generation() < self.seen.generation() {
            return;
        }
        let old = std::mem::replace(&mut self.seen, Arc::clone(routes));
        for name in changes::services(&old, routes) {
            if is_shown(&name) {
                self.follow_service(&name, old.service(name.as_str()));
            }
        }
    }

    fn follow_service(&mut self, name: &ServiceName, old: Option<&ServiceRoutes>) {
        let routes = Arc::clone(&self.seen);
        let new = routes.service(name.as_str());
        let known: BTreeMap<_, _> = reachable(old).map(|one| (identity(one), one)).collect();
        let mut same_versions = BTreeMap::new();
        let mut left_out = 0_usize;
        let mut now = BTreeSet::new();
        for (key, instance) in keyed(new) {
            now.insert(key.clone());
            let version = &*instance.version;
            let info = changes::info(new, version);
            let said_same = *same_versions
                .entry(version)
                .or_insert_with(|| changes::same_info(changes::info(old, version), info));
            let unchanged = said_same
                && self.table.get(&key).is_some()
                && known
                    .get(&identity(instance))
                    .is_some_and(|known| changes::same(known, instance, View::Registry));
            if unchanged {
                continue;
            }
            let offer = self.offers.get(&key).filter(|offer| offer.is(instance));
            let (value, lease) = match offer {
                Some(offer) => (offer.value.clone(), offer.lease),
                None => (value::write(name.name(), instance, info), 0),
            };
            let same = |entry: &super::table::Entry| entry.value == value && entry.lease == lease;
            if !self.table.get(&key).is_some_and(same) && self.table.put(key, value, lease).is_err()
            {
                left_out += 1;
            }
        }
        if left_out > 0 {
            tracing::warn!(service = %name, left_out, "etcd: the table is full, keys are left out");
        }
        let all = keys::of_service(name.name());
        let gone = self.table.range(&all).map(|(key, _)| key);
        let gone: Vec<_> = gone.filter(|key| !now.contains(*key)).cloned().collect();
        for key in &gone {
            self.table.delete(key);
        }
    }

    /// Notes what a program is about to register under a key; gives what was noted before.
    ///
    /// # Errors
    /// [`Full`].
    pub(super) fn offer(&mut self, key: &Bytes, offer: Offer) -> Result<Option<Offer>, Full> {
        if self.offers.len() >= MAX_OFFERS && !self.offers.contains_key(key) {
            let table = &self.table;
            self.offers.retain(|key, _| table.get(key).is_some());
            if self.offers.len() >= MAX_OFFERS {
                return Err(Full);
            }
        }
        let before = self.offers.insert(key.clone(), offer);
        Ok(before)
    }

    /// Puts back what was noted before.
    pub(super) fn restore(&mut self, key: &Bytes, before: Option<Offer>) {
        match before {
            Some(before) => drop(self.offers.insert(key.clone(), before)),
            None => drop(self.offers.remove(key)),
        }
    }

    /// What a program wrote under a key that is there.
    pub(super) fn offered(&self, key: &Bytes) -> Option<&Offer> {
        self.offers.get(key).filter(|_| self.table.get(key).is_some())
    }

    /// Forgets what was written under these keys.
    pub(super) fn forget(&mut self, keys: impl IntoIterator<Item = Bytes>) {
        for key in keys {
            if let Some(offer) = self.offers.remove(&key) {
                self.leases.attach(&key, offer.lease, 0);
            }
        }
    }

    /// The instance of this node that a key is of: its service and id. `None` for one of another node.
    pub(super) fn ours(&self, key: &Bytes) -> Option<(ServiceName, String)> {
        let (service, _) = keys::parts(key)?;
        let service = self.seen.service(service)?;
        let (_, instance) = keyed(Some(service)).into_iter().find(|(known, _)| known == key)?;
        instance.here.then(|| (service.name.clone(), instance.id.to_string()))
    }
}

/// Only the default namespace is shown: go-micro's keys have room for no other.
fn is_shown(name: &ServiceName) -> bool {
    name.namespace() == DEFAULT_NAMESPACE && name.name() != WILDCARD
}

fn reachable(service: Option<&ServiceRoutes>) -> impl Iterator<Item = &Instance> {
    service.into_iter().flat_map(ServiceRoutes::reachable)
}

fn identity(instance: &Instance) -> (NodeId, &str, &str) {
    (instance.node, &instance.id, &instance.version)
}

/// The instances of a service that can be reached, with their keys. Ids are unique on a node, keys
/// on the network: of several instances that would have the same, one of this node keeps it, else
/// that of the first node by id, and the others have the node and version added.
fn keyed(service: Option<&ServiceRoutes>) -> Vec<(Bytes, &Instance)> {
    let Some(service) = service else { return Vec::new() };
    let mut all: Vec<_> = service.reachable().iter().collect();
    all.sort_unstable_by(|a, b| b.here.cmp(&a.here).then_with(|| identity(a).cmp(&identity(b))));
    let name = service.name.name();
    let mut taken = BTreeSet::new();
    all.into_iter()
        .map(|instance| {
            let mut key = keys::key(name, &instance.id);
            if taken.contains(&key) {
                let id = &instance.id;
                key = keys::key(name, &format!("{id}-{}-{}", instance.node, instance.version));
            }
            taken.insert(key.clone());
            (key, instance)
        })
        .collect()
}
