//! The instances of this node, and until when they are offered.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::label::MAX_LABELS;
use proto::record::{Endpoint, Instance, MAX_INSTANCES, MAX_VERSIONS, Service, VersionOf};
use proto::{LabelSet, ServiceName, Time};

use crate::input::Registration;
use crate::output::Refusal;

/// The longest a program may ask its instance to be kept: longer is as good as for ever.
const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// All instances of this node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leases {
    services: BTreeMap<ServiceName, Offer>,
    /// What is said of services here over what their programs say.
    labels: BTreeMap<ServiceName, LabelSet>,
}

/// One service of this node, by version.
pub(crate) type Offer = BTreeMap<String, Version>;

/// One version of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Version {
    metadata: LabelSet,
    endpoints: Vec<Endpoint>,
    instances: BTreeMap<String, Lease>,
}

#[derive(Clone, Debug)]
struct Lease {
    instance: Instance,
    ends: Option<Time>,
}

/// An instance whose lease ran out.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) service: ServiceName,
    pub(crate) instance: String,
}

impl Leases {
    pub(crate) fn len(&self) -> usize {
        self.services.len()
    }

    /// What is offered of one service.
    pub(crate) fn offer(&self, service: &ServiceName) -> Option<&Offer> {
        self.services.get(service)
    }

    /// What is said of a service over what its programs say.
    pub(crate) fn labels(&self, service: &ServiceName) -> Option<&LabelSet> {
        self.labels.get(service)
    }

    /// Sets that; gives what was said before.
    pub(crate) fn label(&mut self, service: &ServiceName, labels: LabelSet) -> LabelSet {
        let before = if labels.is_empty() {
            self.labels.remove(service)
        } else {
            self.labels.insert(service.clone(), labels)
        };
        before.unwrap_or_default()
    }

    /// The names of all services offered.
    pub(crate) fn names(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.keys()
    }

    /// Sets what is offered of one service; nothing when it is empty.
    pub(crate) fn set(&mut self, service: ServiceName, offer: Offer) {
        if offer.is_empty() {
            self.services.remove(&service);
        } else {
            self.services.insert(service, offer);
        }
    }

    /// When the next lease ends.
    pub(crate) fn next_end(&self) -> Option<Time> {
        let versions = self.services.values().flat_map(BTreeMap::values);
        versions.flat_map(|version| version.instances.values()).filter_map(|l| l.ends).min()
    }

    /// Takes away what has ended at `now`.
    pub(crate) fn end(&mut self, now: Time) -> Vec<Ended> {
        let mut ended = Vec::new();
        for (service, offer) in &mut self.services {
            for version in offer.values_mut() {
                let over = version
                    .instances
                    .extract_if(.., |_, lease| lease.ends.is_some_and(|ends| ends <= now));
                ended
                    .extend(over.map(|(instance, _)| Ended { service: service.clone(), instance }));
            }
            offer.retain(|_, version| !version.instances.is_empty());
        }
        self.services.retain(|_, offer| !offer.is_empty());
        ended
    }
}

/// `offer` with one registration more, or renewed.
///
/// # Errors
/// [`Refusal::TooManyInstances`].
pub(crate) fn with(offer: Option<&Offer>, new: Registration, now: Time) -> Result<Offer, Refusal> {
    let mut offer = offer.cloned().unwrap_or_default();
    put(&mut offer, new, now)?;
    Ok(offer)
}

/// Adds a registration to `offer`, or renews it.
///
/// # Errors
/// [`Refusal::TooManyInstances`]; it is there all the same.
pub(crate) fn put(offer: &mut Offer, new: Registration, now: Time) -> Result<(), Refusal> {
    // An instance is of one version: registering it as another moves it.
    for (_, version) in offer.iter_mut().filter(|(name, _)| **name != new.version) {
        version.instances.remove(&new.instance.id);
    }
    offer.retain(|name, version| *name == new.version || !version.instances.is_empty());
    let version = offer.entry(new.version).or_default();
    (version.metadata, version.endpoints) = (new.metadata, new.endpoints);
    let ends = new.ttl.map(|ttl| now + ttl.min(MAX_TTL));
    version.instances.insert(new.instance.id.clone(), Lease { instance: new.instance, ends });
    if version.instances.len() > MAX_INSTANCES || offer.len() > MAX_VERSIONS {
        return Err(Refusal::TooManyInstances);
    }
    Ok(())
}

/// `offer` without an instance; `None` if it was not there.
pub(crate) fn without(offer: &Offer, version: Option<&str>, instance: &str) -> Option<Offer> {
    let mut left = offer.clone();
    take(&mut left, version, instance).then_some(left)
}

/// Takes an instance out of `offer`; `false` if it was not there.
pub(crate) fn take(offer: &mut Offer, version: Option<&str>, instance: &str) -> bool {
    let mut found = false;
    for (name, of) in offer.iter_mut() {
        if version.is_none_or(|version| version == name) {
            found |= of.instances.remove(instance).is_some();
        }
    }
    offer.retain(|_, version| !version.instances.is_empty());
    found
}

/// What the network is told of an offer, with `labels` over those of its programs.
pub(crate) fn service(offer: &Offer, labels: Option<&LabelSet>) -> Service {
    let versions = offer.iter().map(|(version, of)| VersionOf {
        version: version.clone(),
        metadata: labelled(&of.metadata, labels),
        endpoints: of.endpoints.clone(),
        instances: of.instances.values().map(|lease| lease.instance.clone()).collect(),
    });
    Service { versions: versions.collect() }
}

/// What programs say of a version with `labels` over it. Where that is more than a version may
/// carry, as the programs say: they are not to be refused for what an operator added.
fn labelled(said: &LabelSet, labels: Option<&LabelSet>) -> LabelSet {
    let with = labels.map(|over| said.overlaid(over));
    with.filter(|all| all.len() <= MAX_LABELS).unwrap_or_else(|| said.clone())
}

/// Whether all versions of an offer have room for `labels`.
pub(crate) fn have_room(offer: &Offer, labels: &LabelSet) -> bool {
    offer.values().all(|of| of.metadata.overlaid(labels).len() <= MAX_LABELS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::record::Protocol;

    fn registration(version: &str, id: &str, ttl: Option<u64>) -> Registration {
        Registration {
            service: "s".parse().unwrap(),
            version: version.into(),
            metadata: LabelSet::default(),
            endpoints: Vec::new(),
            instance: Instance {
                id: id.into(),
                address: "127.0.0.1:1".into(),
                protocol: Protocol::Grpc,
                metadata: LabelSet::default(),
            },
            ttl: ttl.map(Duration::from_secs),
        }
    }

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_lease_ends_unless_renewed() {
        let mut leases = Leases::default();
        let name: ServiceName = "s".parse().unwrap();
        for (version, id, ttl, now) in [
            ("1", "a", Some(10), 0),
            ("1", "b", Some(10), 0),
            ("1", "c", None, 0),
            ("1", "a", Some(10), 5),
        ] {
            let offer = with(leases.offer(&name), registration(version, id, ttl), at(now)).unwrap();
            leases.set(name.clone(), offer);
        }
        assert_eq!(leases.next_end(), Some(at(10)));
        let ended: Vec<_> = leases.end(at(10)).into_iter().map(|ended| ended.instance).collect();
        assert_eq!(ended, ["b"]);
        assert_eq!(leases.next_end(), Some(at(15)));
        leases.end(at(15));
        assert_eq!((leases.next_end(), leases.len()), (None, 1));
    }

    #[test]
    fn an_instance_is_of_one_version() {
        let first = with(None, registration("1", "a", None), at(0)).unwrap();
        let second = with(Some(&first), registration("2", "a", None), at(0)).unwrap();
        let versions: Vec<_> = second.keys().collect();
        assert_eq!(versions, ["2"]);
        assert!(without(&second, Some("1"), "a").is_none());
        assert!(without(&second, None, "a").unwrap().is_empty());
    }
}
