//! Programs on the hosts: they offer services, renew their leases, and go.

use std::time::Duration;

use router::{Registration, Request};

use super::{Event, Micros, World};

impl World {
    pub(crate) fn offer(&mut self, at: usize, service: &str, id: &str, ttl: Option<Duration>) {
        if self.hosts[at].life.is_none() {
            return;
        }
        let key = (service.to_owned(), id.to_owned());
        self.hosts[at].history.insert(key.clone());
        self.hosts[at].offered.insert(key.clone(), ttl);
        self.renew(at, key);
    }

    pub(super) fn renew(&mut self, at: usize, key: (String, String)) {
        let Some(ttl) = self.hosts[at].offered.get(&key).copied() else { return };
        let instance = proto::record::Instance {
            id: key.1.clone(),
            address: "127.0.0.1:1".into(),
            protocol: proto::record::Protocol::Grpc,
            metadata: proto::LabelSet::default(),
        };
        let registration = Registration {
            service: key.0.parse().expect("a service name"),
            version: "latest".into(),
            metadata: proto::LabelSet::default(),
            endpoints: Vec::new(),
            instance,
            ttl,
        };
        self.request(at, Request::Register(registration));
        if let (Some(ttl), Some(life)) = (ttl, &self.hosts[at].life) {
            let life = life.number;
            let soon = self.now + ttl.as_micros() as Micros / 2;
            self.at(soon, Event::Renew { host: at, life, key });
        }
    }

    /// The program goes: in order, or, with a lease, without a word.
    pub(crate) fn withdraw(&mut self, at: usize, key: &(String, String), silently: bool) {
        let Some(ttl) = self.hosts[at].offered.remove(key) else { return };
        if !(silently && ttl.is_some()) {
            let service = key.0.parse().expect("a service name");
            let instance = key.1.clone();
            self.request(at, Request::Deregister { service, version: None, instance });
        }
    }
}
