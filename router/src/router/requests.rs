//! Programs register, the node changes or leaves.

use std::collections::BTreeSet;
use std::sync::Arc;

use proto::frame::Frame;
use proto::record::{Body, Interest, Kind, Node, Rejected};
use proto::sign::Verify;
use proto::{LabelSet, NodeId, PublicKey, ServiceName, Signature, Time, Verified, Version};

use super::Router;
use crate::input::{Registration, Request, RequestId};
use crate::interest::Full;
use crate::lease::{self, Offer};
use crate::lsdb::record_id;
use crate::output::{Note, Output, Refusal};
use crate::timer::Timer;

impl Router {
    pub(super) fn request(&mut self, id: RequestId, request: Request, now: Time) {
        let answer = match request {
            Request::Register(registration) => self.register(registration, now),
            Request::Deregister { service, version, instance } => {
                self.deregister(&service, version.as_deref(), &instance, now)
            }
            Request::Change { service, put, away } => self.change(service, put, &away, now),
            Request::Label { service, labels } => self.label(service, labels, now),
            Request::Describe(node) => self.describe(node, now),
            Request::Rule { service, set } => self.rule(&service, set, now),
            Request::Restore { service, set, told } => self.restore(&service, set, told, now),
            Request::Interest(counts) => self.interest(counts, now),
            Request::Dialled { node, outcome } => {
                if outcome.is_err() {
                    self.neighbours.dialled(node, false, now, &mut self.chance);
                    self.timers.arm(Timer::Dial, now);
                }
                return;
            }
            Request::Leave => {
                self.leave(now);
                self.outputs.push_back(Output::Answer(id, Ok(())));
                return self.outputs.push_back(Output::Left);
            }
        };
        // Whoever is answered finds what it registered.
        self.publish();
        self.outputs.push_back(Output::Answer(id, answer));
    }

    fn register(&mut self, registration: Registration, now: Time) -> Result<(), Refusal> {
        let service = registration.service.clone();
        self.may_offer(&service, now)?;
        let offer = lease::with(self.leases.offer(&service), registration, now)?;
        self.offer(service, offer, now)
    }

    /// Whether one more instance of `service` may be offered, for all that is not of the instance.
    fn may_offer(&self, service: &ServiceName, now: Time) -> Result<(), Refusal> {
        if self.leaving {
            return Err(Refusal::Leaving);
        }
        if self.node.credential.expires() <= self.wall(now) {
            return Err(Refusal::Expired);
        }
        if !self.node.credential.grant().may_offer(service) {
            return Err(Refusal::NotGranted);
        }
        let is_new = self.leases.offer(service).is_none();
        if is_new && self.leases.len() >= self.config.limits.services_per_origin {
            return Err(Refusal::TooManyServices);
        }
        Ok(())
    }

    fn change(
        &mut self,
        service: ServiceName,
        put: Vec<Registration>,
        away: &[String],
        now: Time,
    ) -> Result<(), Refusal> {
        if !put.is_empty() {
            self.may_offer(&service, now)?;
        }
        let mut offer = self.leases.offer(&service).cloned().unwrap_or_default();
        let mut found = false;
        for instance in away {
            found |= lease::take(&mut offer, None, instance);
        }
        if put.is_empty() && !found {
            return Ok(());
        }
        for registration in put.into_iter().filter(|one| one.service == service) {
            lease::put(&mut offer, registration, now)?;
        }
        self.offer(service, offer, now)
    }

    fn deregister(
        &mut self,
        service: &ServiceName,
        version: Option<&str>,
        instance: &str,
        now: Time,
    ) -> Result<(), Refusal> {
        let offer = self.leases.offer(service);
        match offer.and_then(|offer| lease::without(offer, version, instance)) {
            Some(left) => self.offer(service.clone(), left, now),
            None => Ok(()),
        }
    }

    /// Offers this of a service, and writes its record if that says something new.
    fn offer(&mut self, name: ServiceName, offer: Offer, now: Time) -> Result<(), Refusal> {
        let key = record_id(self.me, Kind::SERVICE, name.as_str().as_bytes());
        if offer.is_empty() {
            self.withdraw(Kind::SERVICE, &key.key, now);
        } else {
            let said = lease::service(&offer, self.leases.labels(&name));
            let body = Body::Service(name.clone(), Box::new(said));
            let before = self.lsdb.get(&key).map(|record| record.body());
            if before != Some(&body) {
                self.readable(&body, now)?;
                self.write(body, now);
            }
        }
        self.leases.set(name, offer);
        self.timers.put(Timer::Lease, self.leases.next_end());
        Ok(())
    }

    /// Puts labels over those that programs give a service here.
    fn label(&mut self, service: ServiceName, labels: LabelSet, now: Time) -> Result<(), Refusal> {
        if self.leaving {
            return Err(Refusal::Leaving);
        }
        let offer = self.leases.offer(&service).cloned();
        if offer.as_ref().is_some_and(|offer| !lease::have_room(offer, &labels)) {
            return Err(Refusal::TooLarge);
        }
        let before = self.leases.label(&service, labels);
        let Some(offer) = offer else { return Ok(()) };
        let offered = self.offer(service.clone(), offer, now);
        if offered.is_err() {
            self.leases.label(&service, before);
        }
        offered
    }

    /// Takes away the instances whose leases have ended.
    pub(super) fn end_leases(&mut self, now: Time) {
        let mut names: Vec<ServiceName> = Vec::new();
        for ended in self.leases.end(now) {
            names.push(ended.service.clone());
            self.note(Note::LeaseEnded { service: ended.service, instance: ended.instance });
        }
        names.dedup();
        for name in names {
            let left = self.leases.offer(&name).cloned().unwrap_or_default();
            // Fewer instances were readable before with more.
            let _ = self.offer(name, left, now);
        }
        self.timers.put(Timer::Lease, self.leases.next_end());
        self.publish();
    }

    /// Says what the programs of this node want to hear of, in as few records as have changed.
    fn interest(&mut self, counts: Vec<(Interest, u32)>, now: Time) -> Result<(), Refusal> {
        if self.leaving {
            return Err(Refusal::Leaving);
        }
        let (mut changed, mut all) = (BTreeSet::new(), Ok(()));
        for (interest, count) in counts {
            match self.wanted.set(interest, count) {
                Ok(bucket) => changed.extend(bucket),
                Err(Full) => all = Err(Refusal::TooLarge),
            }
        }
        for bucket in changed {
            match self.wanted.said(bucket) {
                Some(said) => self.write(Body::Interest(bucket, Arc::new(said)), now),
                None => self.withdraw(Kind::INTEREST, &[bucket], now),
            }
        }
        all
    }

    fn describe(&mut self, node: Node, now: Time) -> Result<(), Refusal> {
        if self.leaving {
            return Err(Refusal::Leaving);
        }
        if node.credential.node() != self.me {
            return Err(Refusal::ForeignNode);
        }
        let body = Body::Node(Box::new(node.clone()));
        self.readable(&body, now)?;
        let lapsed = self.node.credential.expires() <= self.wall(now);
        self.node = node;
        self.write(body, now);
        if lapsed {
            // Others have dropped everything of this node meanwhile.
            self.rewrite_all(now);
        }
        // Where this node is decides how far others are from it.
        let nodes: Vec<NodeId> = self.lsdb.origins().map(|(id, _)| *id).collect();
        for node in nodes {
            self.stale_services_of(node);
        }
        Ok(())
    }

    /// Whether other nodes will be able to read what is about to be written.
    pub(super) fn readable(&self, body: &Body, now: Time) -> Result<(), Refusal> {
        struct Trusting;
        impl Verify for Trusting {
            fn verify(&self, _: &PublicKey, _: &[u8], _: &Signature) -> bool {
                true
            }
        }
        let network = self.config.network;
        let version = Version { epoch: self.epoch, seq: proto::Seq(u64::MAX) };
        let own = Verified::own(network, &*self.signer, version, body.clone());
        if own.record().bytes().len() > proto::record::MAX_RECORD {
            return Err(Refusal::TooLarge);
        }
        let read = proto::Record::decode(own.record().bytes().clone())?;
        match Verified::check(read, network, self.wall(now), &Trusting) {
            Ok(read) if read.body() == body => Ok(()),
            Ok(_) => Err(Refusal::Malformed(proto::DecodeError::Invalid("description"))),
            Err(Rejected::Unreadable(error)) => Err(Refusal::Malformed(error)),
            Err(Rejected::NotAMember(_)) => Err(Refusal::Expired),
            Err(Rejected::Forged) => Err(Refusal::ForeignNode),
        }
    }

    /// Withdraws everything: the tombstone of a node's own record takes all others with it.
    fn leave(&mut self, now: Time) {
        if self.leaving {
            return;
        }
        self.leaving = true;
        let services: Vec<_> = self.leases.names().cloned().collect();
        for name in services {
            self.leases.set(name, Offer::new());
        }
        self.timers.put(Timer::Lease, None);
        self.withdraw(Kind::NODE, b"", now);
        // Before what is waiting: nobody will ask this node again.
        self.tell_at_once(Kind::NODE, b"");
        self.publish();
    }

    /// Tells every neighbour a record of this node now, without the moment in which news gathers.
    pub(super) fn tell_at_once(&mut self, kind: Kind, key: &[u8]) {
        let Some(told) = self.lsdb.get(&record_id(self.me, kind, key)).cloned() else { return };
        let links: Vec<_> = self.links.iter().map(|(id, _)| id).collect();
        for link in links {
            let records = vec![told.record().clone()];
            self.outputs.push_back(Output::Send(link, Frame::Records(records)));
        }
    }
}
