//! What operators decide about calls, from records to a decision.
//!
//! Whose set of rules holds for a service is the same on every node that has heard the same: of
//! the sets whose authors may write them, that of the highest revision; of equal ones, that of the
//! lowest node id. It is prepared when the table changes; a call only compares.

mod decide;
mod explain;
mod lint;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use proto::rule::{Rule, RuleSet, Test};
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
    /// The headers that rules look at, the first [`NAMES`] of them: each is looked up once a call.
    names: Box<[String]>,
    ready: Box<[Ready]>,
}

/// Headers of which a call remembers what they are.
const NAMES: usize = 16;

/// What of one rule depends on the instances there are.
#[derive(Clone, Debug)]
struct Ready {
    /// Of which of the names there must be a header, the first in the lowest bit: most calls have
    /// none of the headers that rules ask for, and pass by without a look at the rule.
    needs: u16,
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
        let ready = set.rules.iter().map(|rule| Ready::of(rule, &names, service)).collect();
        Self { set, author, names: names.into(), ready }
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

    /// Whether the same is decided by the same author.
    pub(crate) fn is_of(&self, set: &RuleSet, author: NodeId) -> bool {
        *self.set == *set && self.author == author
    }
}

impl Ready {
    fn of(rule: &Rule, names: &[String], service: &ServiceRoutes) -> Self {
        let needed = rule.when.headers.iter().filter(|one| match one.test {
            Test::Present | Test::Is(_) | Test::Prefix(_) => true,
            Test::Absent | Test::IsNot(_) => false,
        });
        let places = needed.filter_map(|one| names.iter().position(|name| *name == one.name));
        let needs = places.fold(0, |needs, at| needs | 1 << at);
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
        Self { needs, divert, weights: weights.collect() }
    }
}

/// Whether a member may decide about the calls of `service`.
#[must_use]
pub fn may_rule(grant: &Grant, service: &ServiceName) -> bool {
    grant.roles.has(Role::Operator) && grant.may_call(service.namespace())
}

/// Of sets with their authors the one that holds.
pub(crate) fn winner<'a>(
    sets: impl Iterator<Item = (NodeId, &'a Arc<RuleSet>)>,
) -> Option<(NodeId, &'a Arc<RuleSet>)> {
    sets.max_by_key(|(author, set)| (set.revision, std::cmp::Reverse(*author)))
}
