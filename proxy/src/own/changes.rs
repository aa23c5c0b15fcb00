//! What differs between two snapshots, in the words of go-micro's watchers.
//!
//! A watcher is told the difference between what it was told last and what is now, however many
//! snapshots passed between: one that falls behind skips what was undone meanwhile and ends up
//! with the whole truth, and nothing has to be kept for it but the snapshot it knows.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use proto::{NodeId, ServiceName};
use router::{Instance, Routes, ServiceRoutes, VersionInfo};

/// What happened to a version, or to instances of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The version is new.
    Create,
    /// Instances came or changed.
    Update,
    /// Instances went.
    Delete,
}

/// One thing that happened.
#[derive(Debug)]
pub(super) struct Change<'a> {
    pub(super) kind: Kind,
    pub(super) version: &'a str,
    /// What is said of the version; `None` when a snapshot has instances of a version it does not
    /// describe.
    pub(super) info: Option<&'a VersionInfo>,
    /// Those it happened to, never empty.
    pub(super) instances: Vec<&'a Instance>,
}

/// What a watcher looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// Instances that can be reached, and what their programs say of them.
    Registry,
    /// All instances, and what the way to them costs.
    Routes,
}

/// The services that are not the same in both, by name.
pub(super) fn services(old: &Routes, new: &Routes) -> Vec<ServiceName> {
    let (mut olds, mut news) = (old.services().peekable(), new.services().peekable());
    let mut changed = Vec::new();
    loop {
        let order = match (olds.peek(), news.peek()) {
            (None, None) => return changed,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.name.cmp(&new.name),
        };
        let before = if order.is_le() { olds.next() } else { None };
        let after = if order.is_ge() { news.next() } else { None };
        match (before, after) {
            (Some(before), Some(after)) if Arc::ptr_eq(before, after) => {}
            (Some(one), _) | (None, Some(one)) => changed.push(one.name.clone()),
            (None, None) => {}
        }
    }
}

/// What happened to one service. What came is told before what went, so that nobody who follows
/// is ever without an instance while there is one.
pub(super) fn of<'a>(
    old: Option<&'a ServiceRoutes>,
    new: Option<&'a ServiceRoutes>,
    view: View,
) -> Vec<Change<'a>> {
    let (before, after) = (versions(old, view), versions(new, view));
    let mut came = Vec::new();
    let mut went = Vec::new();
    for (version, instances) in &after {
        let info = info(new, version);
        let change = |kind, instances| Change { kind, version, info, instances };
        let Some(known) = before.get(version) else {
            came.push(change(Kind::Create, instances.values().copied().collect()));
            continue;
        };
        let described = view == View::Routes || same_info(self::info(old, version), info);
        let changed = instances.iter().filter(|(id, instance)| {
            !described || known.get(*id).is_none_or(|known| !same(known, instance, view))
        });
        let changed: Vec<_> = changed.map(|(_, instance)| *instance).collect();
        if !changed.is_empty() {
            came.push(change(Kind::Update, changed));
        }
    }
    for (version, instances) in &before {
        let known = after.get(version);
        let gone = instances
            .iter()
            .filter(|(id, _)| known.is_none_or(|known| !known.contains_key(*id)))
            .map(|(_, instance)| *instance);
        let gone: Vec<_> = gone.collect();
        if !gone.is_empty() {
            went.push(Change {
                kind: Kind::Delete,
                version,
                info: info(old, version),
                instances: gone,
            });
        }
    }
    came.append(&mut went);
    came
}

/// The instances of a service by version, and within it by who they are.
type Versions<'a> = BTreeMap<&'a str, BTreeMap<(NodeId, &'a str), &'a Instance>>;

fn versions(service: Option<&ServiceRoutes>, view: View) -> Versions<'_> {
    let mut versions = Versions::new();
    for instance in service.into_iter().flat_map(|service| service.instances.iter()) {
        if view == View::Routes || instance.cost.is_finite() {
            let of = versions.entry(&*instance.version).or_default();
            of.insert((instance.node, &*instance.id), instance);
        }
    }
    versions
}

/// What is said of a version.
pub(super) fn info<'a>(
    service: Option<&'a ServiceRoutes>,
    version: &str,
) -> Option<&'a VersionInfo> {
    service?.versions.iter().find(|info| *info.version == *version)
}

pub(super) fn same_info(old: Option<&VersionInfo>, new: Option<&VersionInfo>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => old.metadata == new.metadata && old.endpoints == new.endpoints,
        (old, new) => old.is_none() == new.is_none(),
    }
}

pub(super) fn same(old: &Instance, new: &Instance, view: View) -> bool {
    let program =
        old.address == new.address && old.protocol == new.protocol && old.metadata == new.metadata;
    program && (view == View::Registry || old.cost == new.cost)
}
