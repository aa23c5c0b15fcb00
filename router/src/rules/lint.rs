//! What a set of rules says that its author can hardly mean: told when it is applied.

use std::collections::BTreeSet;
use std::fmt;

use proto::rule::{Condition, Part, Rule, RuleSet};
use proto::selector::{Requirement, Value};
use proto::{Selector, ServiceName, UnixTime};

use crate::routes::{Lookup, Query, Routes, ServiceRoutes};

/// Something odd about one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The rule.
    pub rule: String,
    /// What is odd.
    pub what: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {}: {}", self.rule, self.what)
    }
}

/// Diverts that last longer are forgotten by people before they end: `micro network divert` makes none.
const LONG: u64 = 24 * 3600;

/// What is odd about `set` as the rules of `service`, as things are now: rules that cannot match or
/// do nothing, that contradict themselves, name labels that no instance carries, or copy calls in a
/// circle. Diverts cannot form one: the caller's node decides, and nobody decides again.
#[must_use]
pub fn lint(set: &RuleSet, service: &ServiceName, routes: &Routes, now: UnixTime) -> Vec<Warning> {
    let found = routes.service(service.as_str());
    let mut all = Vec::new();
    let mut taken: Option<&str> = None;
    for (at, rule) in set.rules.iter().enumerate() {
        let mut warn = |what: String| all.push(Warning { rule: rule.name.clone(), what });
        if let Some(before) = taken {
            warn(format!("cannot match: {before} before it takes every call"));
        } else if let Some(before) = set.rules[..at].iter().find(|one| is_same(one, rule)) {
            warn(format!("cannot match: {} before it has the same conditions", before.name));
        }
        if rule.when.share.as_ref().is_some_and(|share| share.part == Part::default()) {
            warn("cannot match: its share is 0 %".to_owned());
        }
        if rule.then.divert.is_some_and(|divert| divert.until <= now) {
            warn("its divert has ended".to_owned());
        }
        let lasts = rule.then.divert.map_or(0, |divert| divert.until.seconds_after(now));
        if lasts > LONG {
            warn(format!("its divert ends only in {} days", lasts.div_ceil(24 * 3600)));
        }
        for (what, selector) in selectors(rule) {
            if let Some((one, other)) = contradiction(selector) {
                warn(format!("{what} can never hold: {one} and {other}"));
            }
        }
        if contradicts(&rule.when) {
            warn("cannot match: a header is asked to be two things at once".to_owned());
        }
        if let Some(found) = found {
            unknown(rule, found).into_iter().for_each(&mut warn);
        }
        if let Some(mirror) = &rule.then.mirror
            && mirrors_back(&mirror.target.service, service, routes)
        {
            warn(format!("copies go round in a circle by way of {}", mirror.target.service));
        }
        // A divert ends, and leaves its calls to what is behind it.
        if rule.when == Condition::default() && rule.then.divert.is_none() {
            taken = taken.or(Some(&rule.name));
        }
    }
    all
}

/// Whether `later` asks for exactly what `before` does. What is left to chance may fall otherwise,
/// and a divert may have ended.
fn is_same(before: &Rule, later: &Rule) -> bool {
    let leaves_some = before.when.share.is_some() || before.then.divert.is_some();
    before.when == later.when && !leaves_some
}

fn selectors(rule: &Rule) -> impl Iterator<Item = (String, &Selector)> {
    let subsets = rule.then.subsets.iter();
    let subsets = subsets.map(|subset| (format!("subset {}", subset.name), &subset.select));
    let own =
        [("its labels".to_owned(), &rule.when.labels), ("select".to_owned(), &rule.then.select)];
    own.into_iter().chain(subsets)
}

/// Two requirements that no labels can hold at once, of those that plainly exclude each other.
fn contradiction(selector: &Selector) -> Option<(String, String)> {
    let all: Vec<_> = selector.required().collect();
    let pairs = all.iter().flat_map(|one| all.iter().map(move |other| (one, other)));
    let mut excluding = pairs.filter(|(one, other)| excludes(one, other));
    excluding.next().map(|(one, other)| (one.to_string(), other.to_string()))
}

/// Whether `one`, which asks for something, leaves nothing that `other` would take.
fn excludes(one: &Requirement, other: &Requirement) -> bool {
    if one.key() != other.key() || one.is_negated() {
        return false;
    }
    if other.is_negated() && other.values().is_empty() {
        return true;
    }
    let exact = one.values().iter().map(|value| match value {
        Value::Exact { text, .. } => Some(&**text),
        Value::Under { .. } | Value::In(_) => None,
    });
    let exact: Option<Vec<&str>> = exact.collect();
    exact.is_some_and(|all| !all.is_empty() && !all.iter().any(|text| other.accepts(Some(text))))
}

/// Whether a header is asked for twice in ways that exclude each other.
fn contradicts(when: &Condition) -> bool {
    use proto::rule::Test as T;
    let all = &when.headers;
    all.iter().enumerate().any(|(at, one)| {
        all[at + 1..].iter().filter(|other| other.name == one.name).any(|other| {
            match (&one.test, &other.test) {
                (T::Absent, T::Present | T::Is(_) | T::Prefix(_))
                | (T::Present | T::Is(_) | T::Prefix(_), T::Absent) => true,
                (T::Is(a), T::Is(b)) => a != b,
                (T::Is(a), T::IsNot(b)) | (T::IsNot(b), T::Is(a)) => a == b,
                (T::Is(a), T::Prefix(b)) | (T::Prefix(b), T::Is(a)) => !a.starts_with(b.as_str()),
                (_, _) => false,
            }
        })
    })
}

/// Labels that no instance carries, and subsets that have none.
fn unknown(rule: &Rule, service: &ServiceRoutes) -> Vec<String> {
    let mut all = Vec::new();
    let mut keys = BTreeSet::new();
    let of_instances = selectors(rule).filter(|(what, _)| what != "its labels");
    for (what, selector) in of_instances {
        let missing = selector.iter().filter(|one| service.label_key(one.key()) != Some(one.key()));
        let before = all.len();
        for one in missing.filter(|one| keys.insert(one.key().to_owned())) {
            all.push(format!("{what}: no instance carries the label {}", one.key()));
        }
        let none = matches!(service.lookup(Query::of(selector)), Lookup::NoMatch(_));
        if none && all.len() == before {
            all.push(format!("{what}: no instance is {selector}"));
        }
    }
    all
}

/// Whether the calls that `from` gets copied come, copied on, to `back`.
fn mirrors_back(from: &ServiceName, back: &ServiceName, routes: &Routes) -> bool {
    let mut seen = BTreeSet::new();
    let mut next = vec![from.clone()];
    while let Some(name) = next.pop() {
        if name == *back {
            return true;
        }
        let rules = routes.service(name.as_str()).and_then(|service| service.rules());
        if seen.insert(name.clone()) {
            let rules = rules.into_iter().flat_map(|rules| &rules.set().rules);
            let mirrors = rules.filter_map(|rule| rule.then.mirror.as_ref());
            next.extend(mirrors.map(|mirror| mirror.target.service.clone()));
        }
    }
    false
}
