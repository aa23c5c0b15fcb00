//! Rules are decided, kept, and carried on for authors that are gone.
//!
//! ```text
//! edit, here            kept ─▶ told as a record of this node
//! heard, newer          kept; told if this node is one of those that carry the service's rules
//! nobody tells them     told after a while by whoever keeps them, so that those can
//! an older one heard    the newer one is kept, and told by those that carry it: it holds
//! ```
//!
//! The author stands in the set. Whoever carries it says with its own signature that it holds, and
//! must have the right to write it: a member without that right is not believed, and can have
//! nothing carried.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proto::record::{Body, Kind};
use proto::rule::RuleSet;
use proto::{DecodeError, NodeId, Role, ServiceName, Time};

use super::Router;
use crate::kept::{self, Keeping};
use crate::lsdb::record_id;
use crate::output::{Note, Refusal};
use crate::rules::{self, Ruling};
use crate::services;
use crate::timer::Timer;

/// What is heard, and who comes and goes, gathers for about so long before it is looked at whether
/// this node is to carry rules.
const GATHER: Duration = Duration::from_millis(250);
/// So long who keeps rules waits for those that are to carry them: they may have to hear of it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The services whose carriers are to be looked at.
#[derive(Debug, Default)]
pub(super) struct Due {
    some: BTreeSet<ServiceName>,
    all: bool,
}

impl Router {
    /// Writes the rules of a service in place of those one revision below.
    pub(super) fn rule(
        &mut self,
        service: &ServiceName,
        set: RuleSet,
        now: Time,
    ) -> Result<(), Refusal> {
        self.may_rule(service, now)?;
        let held = self.rules_of(service).map_or(0, |(held, _)| held.set.revision);
        if held.checked_add(1) != Some(set.revision) {
            return Err(Refusal::StaleRules(held));
        }
        self.keep_own(service, set, now)?;
        self.tell_rules(service, now);
        // Who is answered may stop this node at once, and others are to hold what was decided.
        self.tell_at_once(Kind::RULE, service.as_str().as_bytes());
        Ok(())
    }

    /// Keeps rules of an earlier life, and tells them if that one did. They are kept also while this
    /// node may not decide about the service: its grant may be renewed.
    pub(super) fn restore(
        &mut self,
        service: &ServiceName,
        set: RuleSet,
        told: bool,
        now: Time,
    ) -> Result<(), Refusal> {
        if self.leaving {
            return Err(Refusal::Leaving);
        }
        let kept = self.keep_own(service, set, now)?;
        if kept == Keeping::New && told && self.may_rule(service, now).is_ok() {
            self.tell_rules(service, now);
        }
        self.review_rules_of(service, now);
        Ok(())
    }

    fn keep_own(
        &mut self,
        service: &ServiceName,
        set: RuleSet,
        now: Time,
    ) -> Result<Keeping, Refusal> {
        set.check().map_err(|_| DecodeError::Invalid("rules"))?;
        let set = Arc::new(set);
        // No tombstone when all are taken away: it would let older sets of others hold again.
        self.readable(&Body::Rules(service.clone(), Arc::clone(&set)), now)?;
        match self.kept.keep(service, Ruling::of(self.me, set)) {
            Keeping::Full => Err(Refusal::TooManyRules),
            kept @ (Keeping::New | Keeping::Known) => {
                self.stale.services.entry(service.clone()).or_default();
                Ok(kept)
            }
        }
    }

    /// Whether this node may decide about the calls of a service now.
    fn may_rule(&self, service: &ServiceName, now: Time) -> Result<(), Refusal> {
        if self.leaving {
            return Err(Refusal::Leaving);
        }
        if self.node.credential.expires() <= self.wall(now) {
            return Err(Refusal::Expired);
        }
        if !rules::may_rule(self.node.credential.grant(), service) {
            return Err(Refusal::NotGranted);
        }
        Ok(())
    }

    /// The rules that hold for a service, and the nodes in reach that tell them. They hold while
    /// those are out of reach: what is decided does not end because a laptop sleeps.
    pub(super) fn rules_of(&self, service: &ServiceName) -> Option<(Ruling, Vec<NodeId>)> {
        let keeps = rules::may_rule(self.node.credential.grant(), service);
        let kept = self.kept.get(service).filter(|_| keeps).cloned();
        let told = self.told_rules(service).map(|(_, ruling)| ruling);
        let holds = told.chain(kept).reduce(|a, b| if b.is_above(&a) { b } else { a })?;
        let carriers = self.told_rules(service);
        let carriers = carriers.filter(|(node, told)| *told == holds && self.is_in_reach(node));
        let carriers = carriers.map(|(node, _)| node).collect();
        Some((holds, carriers))
    }

    /// What nodes that may decide about a service tell, in reach or not.
    fn told_rules(&self, service: &ServiceName) -> impl Iterator<Item = (NodeId, Ruling)> {
        self.ruled.of(service).filter_map(|origin| {
            let grant = self.lsdb.node(origin)?.credential.grant();
            let told = self.told_by(origin, service)?;
            rules::may_rule(grant, service)
                .then(|| (*origin, Ruling::of(*origin, Arc::clone(told))))
        })
    }

    fn told_by(&self, origin: &NodeId, service: &ServiceName) -> Option<&Arc<RuleSet>> {
        let id = record_id(*origin, Kind::RULE, service.as_str().as_bytes());
        services::rules(self.lsdb.get(&id)?).map(|(_, set)| set)
    }

    fn is_in_reach(&self, node: &NodeId) -> bool {
        *node == self.me || self.paths.to(node).is_some()
    }

    /// Something was heard of the rules of a service: the newest is kept.
    pub(super) fn hear_rules(&mut self, service: &ServiceName, now: Time) {
        if self.leaving || !rules::may_rule(self.node.credential.grant(), service) {
            return;
        }
        let told = self.told_rules(service).map(|(_, ruling)| ruling);
        let newest = told.reduce(|a, b| if b.is_above(&a) { b } else { a });
        if let Some(newest) = newest {
            let author = newest.author;
            if self.kept.keep(service, newest) == Keeping::Full {
                self.note(Note::NotKept { author, service: service.clone() });
            }
        }
        self.review_rules_of(service, now);
    }

    /// Something changed of a node: whether it may decide, or what it is believed.
    pub(super) fn hear_operator(&mut self, node: NodeId, now: Time) {
        let grant = self.lsdb.node(&node).map(|node| node.credential.grant());
        let is_operator = grant.is_some_and(|grant| grant.roles.has(Role::Operator));
        let was_operator = match is_operator {
            true => !self.operators.insert(node),
            false => self.operators.remove(&node),
        };
        if !is_operator && !was_operator {
            return;
        }
        let named: Vec<ServiceName> = if node == self.me {
            self.ruled.services().cloned().collect()
        } else {
            let told = self.lsdb.origin(&node).into_iter().flat_map(|origin| origin.records());
            told.filter_map(|one| Some(services::rules(one)?.0.clone())).collect()
        };
        for service in &named {
            self.hear_rules(service, now);
        }
        self.review_all_rules(now);
    }

    fn review_rules_of(&mut self, service: &ServiceName, now: Time) {
        if !self.due.all {
            self.due.some.insert(service.clone());
        }
        self.arm_carry(now);
    }

    /// Who carries rules is looked at anew: a node that may has come or gone.
    pub(super) fn review_all_rules(&mut self, now: Time) {
        self.due = Due { some: BTreeSet::new(), all: true };
        self.arm_carry(now);
    }

    fn arm_carry(&mut self, now: Time) {
        let gathered = now + self.chance.around(GATHER);
        self.timers.arm(Timer::Carry, gathered);
    }

    /// Begins and ends to tell rules, as this node is to carry them.
    pub(super) fn carry_rules(&mut self, now: Time) {
        if self.leaving {
            return;
        }
        let due = std::mem::take(&mut self.due);
        let all: Vec<ServiceName> = match due.all {
            true => self.kept.services().cloned().collect(),
            false => due.some.into_iter().collect(),
        };
        for service in all {
            self.carry(&service, now);
        }
        self.publish();
    }

    fn carry(&mut self, service: &ServiceName, now: Time) {
        if self.may_rule(service, now).is_err() {
            return;
        }
        let mine = self.told_by(&self.me, service).cloned();
        let Some(kept) = self.kept.get(service).map(|kept| Arc::clone(&kept.set)) else {
            // There is no room for what took its place, and that is what holds.
            return self.end_telling(service, now);
        };
        if mine.as_ref() == Some(&kept) {
            return;
        }
        let others = self.others_telling(service, &kept);
        if self.carriers(service).contains(&self.me) {
            return self.tell_rules(service, now);
        }
        let since = self.kept.lacking(service, others.is_empty(), now);
        if !others.is_empty() {
            self.end_telling(service, now);
        } else if now.since(since) >= PATIENCE {
            self.tell_rules(service, now);
        } else {
            self.due.some.insert(service.clone());
            self.timers.arm(Timer::Carry, since + PATIENCE);
        }
    }

    /// Ends telling what others carry: those that are to do it all do, and this node is none.
    pub(super) fn end_spare_telling(&mut self, now: Time) {
        let told = |service: &&ServiceName| self.told_by(&self.me, service).is_some();
        let all: Vec<ServiceName> = self.kept.services().filter(told).cloned().collect();
        for service in all {
            let Some(kept) = self.kept.get(&service).map(|kept| Arc::clone(&kept.set)) else {
                continue;
            };
            let (carriers, others) =
                (self.carriers(&service), self.others_telling(&service, &kept));
            if carriers.iter().all(|node| others.contains(node)) {
                self.end_telling(&service, now);
            }
        }
        self.publish();
    }

    /// Of the nodes in reach that may decide about a service those that carry its rules.
    fn carriers(&self, service: &ServiceName) -> Vec<NodeId> {
        let able = self.operators.iter().copied().filter(|node| {
            let grant = self.lsdb.node(node).map(|node| node.credential.grant());
            self.is_in_reach(node) && grant.is_some_and(|grant| rules::may_rule(grant, service))
        });
        kept::carriers(service, able)
    }

    fn others_telling(&self, service: &ServiceName, set: &Arc<RuleSet>) -> Vec<NodeId> {
        let told = self.told_rules(service).filter(|(_, ruling)| ruling.set == *set);
        let others = told.map(|(node, _)| node);
        others.filter(|node| *node != self.me && self.is_in_reach(node)).collect()
    }

    fn tell_rules(&mut self, service: &ServiceName, now: Time) {
        let Some(kept) = self.kept.get(service) else { return };
        let body = Body::Rules(service.clone(), Arc::clone(&kept.set));
        self.kept.set_told(service, true);
        self.write(body, now);
    }

    fn end_telling(&mut self, service: &ServiceName, now: Time) {
        self.kept.set_told(service, false);
        self.withdraw(Kind::RULE, service.as_str().as_bytes(), now);
    }
}
