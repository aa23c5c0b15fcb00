//! Instances that their own node has found not to be well: known to everybody, called by nobody.

use router::{Candidates, Instance};

use crate::carry::{Form, delivers};

/// What the node of an instance says in its metadata when it is not well: why.
pub const UNHEALTHY: &str = "micro.unhealthy";

/// Why an instance is not to be called, if its node says so.
#[must_use]
pub fn unhealthy(instance: &Instance) -> Option<&str> {
    // Most say nothing at all.
    if instance.metadata.is_empty() { None } else { instance.metadata.get(UNHEALTHY) }
}

/// Why the first of those that could take a call does not, where all are not well.
pub(crate) fn all_unhealthy(candidates: &Candidates<'_>, form: Form) -> Option<String> {
    let mut fit = candidates.all().filter(|one| delivers(one.protocol, form));
    let first = unhealthy(fit.next()?)?.to_owned();
    fit.all(|one| unhealthy(one).is_some()).then_some(first)
}
