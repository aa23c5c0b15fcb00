//! What operators decide about calls, from records to a decision.
//!
//! Whose set of rules holds for a service is the same on every node that has heard the same: of
//! the sets told by nodes that may write them, that of the highest revision; of equal ones, that of
//! the author with the lowest id. It is prepared when the table changes; a call only compares.

mod decide;
mod explain;
mod lint;
#[cfg(test)]
mod tests;

use std::cmp::{Ordering, Reverse};
use std::hash::BuildHasher as _;
use std::sync::Arc;

use foldhash::fast::FixedState;
use proto::rule::{HeaderTest, Rule, RuleSet, Test};
use proto::{Grant, NodeId, Role, ServiceName};

use crate::routes::{Lookup, Query, ServiceRoutes};

pub use decide::{Decision, Headers, RequestView};
pub use explain::{Candidate, Explanation, Passed, Verdict};
pub use lint::{Warning, lint};

/// The rules of one service, prepared for its instances.
#[derive(Clone, Debug)]
pub struct Rules {
    set: Arc<RuleSet>,
    author: NodeId,
    /// The nodes in reach that tell it, by id.
    carriers: Box<[NodeId]>,
    /// The headers that rules look at, the first [`NAMES`] of them: each is looked up once a call.
    names: Box<[String]>,
    /// Which of them are asked to be one value, the first in the lowest bit.
    hashed: u16,
    /// Apart from the rest, for this is gone through with every call.
    glances: Box<[Glance]>,
    ready: Box<[Ready]>,
}

/// Headers of which a call remembers what they are.
const NAMES: usize = 16;
/// The longest value that a header can be asked to be.
const LONGEST: usize = 1024;

/// What tells without a look at a rule that it is not for a call.
#[derive(Clone, Copy, Debug, Default)]
struct Glance {
    /// Of which of the names there must be a header, the first in the lowest bit: most calls have
    /// none of the headers that rules ask for.
    needs: u16,
    /// The one of the names whose value is hashed; [`NAMES`] for none.
    name: u8,
    /// What the hash of its value must be.
    hash: u64,
}

/// What of one rule depends on the instances there are, and where its headers are found.
#[derive(Clone, Debug)]
struct Ready {
    /// Of each header test its place among the names; [`NAMES`] for one beyond them.
    headers: Box<[u8]>,
    /// The instances of the node that calls are diverted to.
    divert: Option<(u32, u32)>,
    /// Of each subset the sum of the weights up to it. What has no instance in reach weighs
    /// nothing; when that is all, none is chosen.
    weights: Box<[u32]>,
}

impl Rules {
    /// Prepares `set`, which `author` wrote, for the instances of `service`.
    #[must_use]
    pub fn new(set: Arc<RuleSet>, author: NodeId, service: &ServiceRoutes) -> Self {
        let mut names: Vec<String> = Vec::new();
        for test in set.rules.iter().flat_map(|rule| &rule.when.headers) {
            if names.len() < NAMES && !names.contains(&test.name) {
                names.push(test.name.clone());
            }
        }
        let place = |test: &HeaderTest| {
            let at = names.iter().position(|name| *name == test.name);
            at.and_then(|at| u8::try_from(at).ok()).unwrap_or(NAMES as u8)
        };
        let glances: Box<[Glance]> = set.rules.iter().map(|rule| Glance::of(rule, place)).collect();
        let hashed = glances.iter().fold(0, |all, one| all | bit(one.name));
        let ready = set.rules.iter().map(|rule| Ready::of(rule, place, service)).collect();
        let carriers = Box::default();
        Self { set, author, carriers, names: names.into(), hashed, glances, ready }
    }

    /// The rules.
    #[must_use]
    pub fn set(&self) -> &Arc<RuleSet> {
        &self.set
    }

    /// Which node wrote them.
    #[must_use]
    pub fn author(&self) -> NodeId {
        self.author
    }

    /// The nodes in reach that tell them, by id; the author is among them while it does. Without
    /// any, they hold for as long as nodes remember what they heard.
    #[must_use]
    pub fn carriers(&self) -> &[NodeId] {
        &self.carriers
    }

    /// These, told by `carriers`.
    #[must_use]
    pub fn carried_by(self, carriers: Vec<NodeId>) -> Self {
        Self { carriers: carriers.into(), ..self }
    }

    /// Whether the same is decided by the same author, and told by the same nodes.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        let (one, other) = ((&*self.set, self.author, &self.carriers), other);
        one == (&*other.set, other.author, &other.carriers)
    }
}

impl Glance {
    fn of(rule: &Rule, place: impl Fn(&HeaderTest) -> u8) -> Self {
        let mut glance = Self { name: NAMES as u8, ..Self::default() };
        for (test, at) in rule.when.headers.iter().map(|test| (test, place(test))) {
            glance.needs |= match test.test {
                Test::Present | Test::Is(_) | Test::Prefix(_) => bit(at),
                Test::Absent | Test::IsNot(_) => 0,
            };
            if let Test::Is(value) = &test.test {
                (glance.name, glance.hash) = (at, hash(value));
            }
        }
        glance
    }
}

/// The bit of one of the names; none beyond them.
fn bit(name: u8) -> u16 {
    1_u16.checked_shl(name.into()).unwrap_or(0)
}

/// Tells values apart. Two that are not told apart cost a look at a rule, nothing else.
fn hash(value: &str) -> u64 {
    // What is longer is never asked for, and may be long.
    if value.len() > LONGEST { 0 } else { FixedState::with_seed(1).hash_one(value) }
}

impl Ready {
    fn of(rule: &Rule, place: impl Fn(&HeaderTest) -> u8, service: &ServiceRoutes) -> Self {
        let divert = rule.then.divert.and_then(|divert| {
            // All instances of a node have one cost: they stand side by side.
            let mut near = service.reachable().iter();
            let from = near.position(|instance| instance.node == divert.node)?;
            let more = near.take_while(|instance| instance.node == divert.node).count();
            Some((u32::try_from(from).ok()?, u32::try_from(from + 1 + more).ok()?))
        });
        let mut sum = 0;
        let weights = rule.then.subsets.iter().map(|subset| {
            let there = matches!(service.lookup(Query::of(&subset.select)), Lookup::Found(_));
            sum += if there { u32::from(subset.weight) } else { 0 };
            sum
        });
        let headers = rule.when.headers.iter().map(place).collect();
        Self { headers, divert, weights: weights.collect() }
    }
}

/// Whether a member may decide about the calls of `service`.
#[must_use]
pub fn may_rule(grant: &Grant, service: &ServiceName) -> bool {
    grant.roles.has(Role::Operator) && grant.may_call(service.namespace())
}

/// A set of rules and who wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ruling {
    pub(crate) author: NodeId,
    pub(crate) set: Arc<RuleSet>,
}

impl Ruling {
    /// What `teller` tells: its own, or what it carries for the author that the set names.
    pub(crate) fn of(teller: NodeId, set: Arc<RuleSet>) -> Self {
        Self { author: set.author().unwrap_or(teller), set }
    }

    /// Whether this holds where there are both. A total order, so that all nodes agree; its later
    /// parts tell apart what one author wrote twice, having forgotten the first.
    pub(crate) fn is_above(&self, other: &Self) -> bool {
        let rank = |one: &Self| {
            let written = one.set.history.last().map(|change| change.at);
            (one.set.revision, Reverse(one.author), written)
        };
        let order = rank(self).cmp(&rank(other));
        order.then_with(|| match self.set == other.set {
            true => Ordering::Equal,
            false => self.set.encode().cmp(&other.set.encode()),
        }) == Ordering::Greater
    }
}
