//! Records are taken in, or written; everything else is derived from them here.

use std::sync::Arc;
use std::time::Duration;

use proto::record::{Body, Kind};
use proto::{Epoch, LinkId, NodeId, RecordId, Role, ServiceName, Time, Verified};

use super::Router;
use crate::graph::Standing;
use crate::lsdb::{Outcome, is_tombstone, record_id};
use crate::output::{Note, Reject};
use crate::timer::Timer;

/// How often the database is looked through for what is no longer of use.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// Own records are not written anew, above what the network remembers, more often than this: two
/// machines with one key would otherwise never stop.
const REISSUE_EVERY: Duration = Duration::from_secs(1);

/// What a record that came was to this node.
enum Was {
    News,
    Known,
    Stale,
    Rejected,
    /// Looked at again once its origin may be known.
    Early,
}

impl Router {
    /// Takes in what a neighbour sent.
    pub(super) fn take_in(&mut self, records: Vec<Arc<Verified>>, link: LinkId, now: Time) {
        self.came(link, records.len());
        let (mut news, mut known, mut stale) = ((0, 0), 0, 0);
        for record in records {
            let bytes = record.record().bytes().len() as u64;
            let was = if record.id().origin == self.me {
                self.see_own(&record, link, now)
            } else {
                self.accept(record, link, now)
            };
            match was {
                Was::News => news = (news.0 + 1, news.1 + bytes),
                Was::Known => known += 1,
                Was::Stale => stale += 1,
                Was::Rejected | Was::Early => {}
            }
        }
        if news.0 + known + stale > 0 {
            self.note(Note::Taken { link, news, known, stale });
        }
    }

    fn accept(&mut self, record: Arc<Verified>, link: LinkId, now: Time) -> Was {
        if let Body::Node(node) = record.body()
            && node.credential.expires() <= self.wall(now)
        {
            return self.reject(link, &record, Reject::Expired);
        }
        let is_node = record.id().kind == Kind::NODE;
        let before = if is_node { self.lsdb.node(&record.id().origin) } else { None };
        let before = before.map(|node| node.name.clone());
        match self.lsdb.accept(&record, now) {
            Outcome::New { gone } => {
                for id in gone {
                    self.derive(&id, now);
                }
                self.derive(record.id(), now);
                if is_node {
                    self.note_membership(&record, before);
                }
                self.news(record, Some(link), now);
                Was::News
            }
            Outcome::Same => {
                self.flood.known(&record, link);
                Was::Known
            }
            Outcome::Stale(newer) => {
                self.push(link, newer, now);
                Was::Stale
            }
            Outcome::Refused(why) => {
                let unknown = self.lsdb.origin(&record.id().origin).is_none();
                if unknown && self.keep_early(link, &record) {
                    return Was::Early;
                }
                if unknown {
                    self.compare_over(link, now);
                }
                self.reject(link, &record, why)
            }
        }
    }

    fn reject(&mut self, link: LinkId, record: &Verified, why: Reject) -> Was {
        self.note(Note::Rejected { link, record: record.id().clone(), why });
        Was::Rejected
    }

    fn note_membership(&mut self, record: &Verified, before: Option<String>) {
        let node = record.id().origin;
        match (record.body(), before) {
            (Body::Node(now), None) => self.note(Note::Joined { node, name: now.name.clone() }),
            (Body::Gone, Some(name)) => {
                self.note(Note::Left { node, name });
            }
            (_, _) => {}
        }
    }

    /// Gathers what is to be told to the neighbours.
    pub(super) fn news(&mut self, record: Arc<Verified>, from: Option<LinkId>, now: Time) {
        self.learnt = now;
        self.flood.add(record, from);
        self.arm_flood(now);
    }

    /// Works out anew what depends on one record, from what is held of it now.
    fn derive(&mut self, id: &RecordId, now: Time) {
        let origin = id.origin;
        let held = self.lsdb.get(id).cloned();
        match id.kind {
            Kind::NODE => self.derive_node(origin, now),
            Kind::ADJACENCY => {
                let Ok(far) = <[u8; 32]>::try_from(&id.key[..]) else { return };
                let far = NodeId::from_bytes(far);
                let cost = held.and_then(|record| match record.body() {
                    Body::Adjacency(_, adjacency) => Some(adjacency.cost),
                    Body::Node(_)
                    | Body::Service(..)
                    | Body::Rules(..)
                    | Body::Interest(..)
                    | Body::Gone
                    | Body::Unknown => None,
                });
                if self.graph.claim(origin, far, cost) {
                    self.paths.link_changed(&self.graph, origin, far);
                    self.stale.links.extend([origin, far]);
                    self.arm_paths(now);
                }
                if far == self.me && cost.is_some() {
                    self.adjacency(origin, now);
                }
            }
            Kind::SERVICE => {
                let name = std::str::from_utf8(&id.key).ok().and_then(|name| name.parse().ok());
                let Some(name): Option<ServiceName> = name else { return };
                let offered = held.is_some_and(|record| !is_tombstone(&record));
                self.offers.set(&name, origin, offered);
                self.stale.services.entry(name).or_default().insert(origin);
                self.stale.nodes.insert(origin);
                self.arm_paths(now);
            }
            Kind::RULE => {
                let name = std::str::from_utf8(&id.key).ok().and_then(|name| name.parse().ok());
                let Some(name): Option<ServiceName> = name else { return };
                self.ruled.set(&name, origin, held.is_some_and(|record| !is_tombstone(&record)));
                // No instance is to be worked out anew, but what is decided about them.
                self.stale.services.entry(name.clone()).or_default();
                self.arm_paths(now);
                self.hear_rules(&name, now);
            }
            Kind::INTEREST => {
                let [bucket] = id.key[..] else { return };
                self.stale.interests.insert((origin, bucket));
                self.arm_paths(now);
            }
            Kind(_) => {}
        }
    }

    fn derive_node(&mut self, origin: NodeId, now: Time) {
        let node = self.lsdb.node(&origin);
        let standing = node.map_or(Standing::Stranger, |node| {
            let relay = node.credential.grant().roles.has(Role::Relay);
            if relay { Standing::Relay } else { Standing::Leaf }
        });
        let expires = node.map(|node| node.credential.expires());
        self.terms.set(origin, expires);
        self.arm_grants();
        if standing == Standing::Relay {
            self.relays.insert(origin);
        } else {
            self.relays.remove(&origin);
        }
        if let Some(before) = self.graph.set_standing(origin, standing) {
            self.paths.standing_changed(origin, before, standing);
        }
        self.stale.nodes.insert(origin);
        self.stale_services_of(origin);
        self.hear_operator(origin, now);
        self.stale_interests_of(origin);
        self.arm_paths(now);
    }

    /// What a node wants is to be believed anew: its grant may be another.
    fn stale_interests_of(&mut self, node: NodeId) {
        let records = self.lsdb.origin(&node).into_iter().flat_map(|origin| origin.records());
        let said = records.filter_map(|record| match record.body() {
            Body::Interest(bucket, _) => Some(*bucket),
            Body::Node(_)
            | Body::Adjacency(..)
            | Body::Service(..)
            | Body::Rules(..)
            | Body::Gone
            | Body::Unknown => None,
        });
        let buckets = said.chain(self.interests.of(node));
        self.stale.interests.extend(buckets.map(|bucket| (node, bucket)));
    }

    /// All services of a node are to be worked out anew.
    pub(super) fn stale_services_of(&mut self, node: NodeId) {
        let records = self.lsdb.origin(&node).into_iter().flat_map(|origin| origin.records());
        for record in records {
            if let Some((name, _)) = crate::services::body(record) {
                self.stale.services.entry(name.clone()).or_default().insert(node);
            } else if let Some((name, _)) = crate::services::rules(record) {
                self.stale.services.entry(name.clone()).or_default();
            }
        }
    }

    /// Writes a record of this node's own, above all before it.
    pub(super) fn write(&mut self, body: Body, now: Time) {
        let version = self.next_version();
        let record = Verified::own(self.config.network, &*self.signer, version, body);
        self.hold_own(record, now);
    }

    /// Withdraws a record of this node's own, if it is there.
    pub(super) fn withdraw(&mut self, kind: Kind, key: &[u8], now: Time) {
        let id = record_id(self.me, kind, key);
        if self.lsdb.get(&id).is_some_and(|held| !is_tombstone(held)) {
            self.write_tombstone(&id, now);
        }
    }

    fn write_tombstone(&mut self, id: &RecordId, now: Time) {
        let version = self.next_version();
        let record = Verified::tombstone(self.config.network, &*self.signer, id, version);
        self.hold_own(record, now);
    }

    fn hold_own(&mut self, record: Verified, now: Time) {
        let record = Arc::new(record);
        let gone = self.lsdb.put(record.clone(), now);
        for id in gone {
            self.derive(&id, now);
        }
        self.derive(record.id(), now);
        self.news(record, None, now);
    }

    /// The network shows this node a record of its own. What is above ours is from an earlier life
    /// whose clock was ahead, or from another machine with the same key: it is overruled.
    fn see_own(&mut self, record: &Arc<Verified>, link: LinkId, now: Time) -> Was {
        let id = record.id();
        let held = self.lsdb.get(id).cloned();
        if held.as_ref().is_some_and(|held| held.version() == record.version()) {
            self.flood.known(record, link);
            return Was::Known;
        }
        if let Some(held) = held.filter(|held| held.version() > record.version()) {
            self.push(link, held, now);
            return Was::Stale;
        }
        if record.version().epoch < self.epoch {
            // Of an earlier life, and not held: the node record says that it is over.
            let node = self.lsdb.get(&record_id(self.me, Kind::NODE, b"")).cloned();
            node.into_iter().for_each(|node| self.push(link, node, now));
            return Was::Stale;
        }
        if self.leaving || self.ahead.len() >= self.config.limits.records_per_origin {
            return Was::Known;
        }
        let seen = self.ahead.entry((id.kind, id.key.clone())).or_default();
        *seen = (*seen).max(record.version());
        let due = self.reissued.map_or(now, |last| last + REISSUE_EVERY);
        self.timers.arm(Timer::Reissue, due.max(now));
        Was::News
    }

    /// Writes own records above what the network remembers of them.
    pub(super) fn reissue(&mut self, now: Time) {
        let ahead = std::mem::take(&mut self.ahead);
        let Some(highest) = ahead.values().max().copied() else { return };
        self.reissued = Some(now);
        self.note(Note::Overtaken);
        if highest.epoch > self.epoch {
            // A later life than this: begin one above it, in which all is said anew.
            (self.epoch, self.seq) = match highest.epoch.0.checked_add(1) {
                Some(next) => (Epoch(next), 0),
                None => (highest.epoch, highest.seq.0),
            };
            return self.rewrite_all(now);
        }
        self.seq = self.seq.max(highest.seq.0);
        for (kind, key) in ahead.into_keys() {
            let id = record_id(self.me, kind, &key);
            match self.lsdb.get(&id).filter(|held| !is_tombstone(held)) {
                Some(held) => self.write(held.body().clone(), now),
                None => self.write_tombstone(&id, now),
            }
        }
    }

    /// Writes everything that this node says now once more.
    pub(super) fn rewrite_all(&mut self, now: Time) {
        let own = self.lsdb.origin(&self.me).into_iter().flat_map(|origin| origin.records());
        let bodies: Vec<_> = own
            .filter(|record| !is_tombstone(record))
            .map(|record| record.body().clone())
            .collect();
        for body in bodies {
            self.write(body, now);
        }
    }

    /// Sets the timer of the next grant that ends.
    fn arm_grants(&mut self) {
        let next = self.terms.next().map(|end| self.time_of(end));
        self.timers.put(Timer::Grant, next);
    }

    /// Stops believing nodes whose grants have ended; keeps what this node itself says.
    pub(super) fn end_grants(&mut self, now: Time) {
        let wall = self.wall(now);
        while let Some(node) = self.terms.take_ended(wall) {
            self.note(Note::Expired(node));
            if node == self.me {
                self.stale_services_of(node);
                self.stale.nodes.insert(node);
                self.arm_paths(now);
            } else {
                for id in self.lsdb.forget(&node) {
                    self.derive(&id, now);
                }
            }
        }
        self.arm_grants();
    }

    /// Drops what has been of no use for a day.
    pub(super) fn sweep(&mut self, now: Time) {
        for id in self.lsdb.sweep(&self.me, now) {
            self.derive(&id, now);
        }
        self.links.tidy(now);
        self.end_spare_telling(now);
        let next = now + self.chance.around(SWEEP_EVERY);
        self.timers.set(Timer::Forget, next);
    }
}
