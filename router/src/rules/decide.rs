//! What becomes of one call.

use proto::grant::Pattern;
use proto::rule::{self, Abort, Delay, Key, Mirror, Rate, Rule, Spill, Subset};
use proto::{LabelSet, Selector, UnixTime};

use super::{Glance, NAMES, Ready, Rules, hash};
use crate::routes::{Lookup, Query, Routes, ServiceRoutes};

/// The headers of a request.
pub trait Headers {
    /// The first value of the header of this name, given in lower case.
    fn get(&self, name: &str) -> Option<&str>;
}

/// A call, as far as rules look at it.
#[derive(Clone, Copy)]
pub struct RequestView<'a> {
    /// `Struct.Method` of gRPC, else the path.
    pub endpoint: &'a str,
    /// Its headers.
    pub headers: &'a dyn Headers,
    /// The calling service, as it says it; empty when it does not.
    pub caller: &'a str,
    /// The name of the caller's node.
    pub node_name: &'a str,
    /// The id of the caller's node, as text.
    pub node_id: &'a str,
    /// The labels of the caller's node.
    pub node_labels: &'a LabelSet,
    /// What the caller asks of the instance.
    pub selector: &'a Selector,
    /// A number for this call alone, even among all: what is left to chance depends on it.
    pub chance: u64,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'a> {
    /// The instances that may take it.
    pub lookup: Lookup<'a>,
    /// The rule that decided, and the revision of its set.
    pub rule: Option<(&'a Rule, u64)>,
    /// The subset that was chosen.
    pub subset: Option<&'a Subset>,
    /// It is diverted to a node that offers the service.
    pub diverted: bool,
    /// A copy of it goes there.
    pub mirror: Option<&'a Mirror>,
    /// It is held up first.
    pub delay: Option<Delay>,
    /// It is refused.
    pub abort: Option<Abort>,
    /// It counts against this, together with those of the same number.
    pub rate: Option<(&'a Rate, u64)>,
    /// Calls of the same number go to the same instance.
    pub affinity: Option<u64>,
    pub(super) query: Query<'a>,
}

/// What chance is needed for, so that one call's throws do not depend on each other.
#[derive(Clone, Copy)]
enum Throw {
    Share = 1,
    Split,
    Mirror,
    Delay,
    Abort,
}

impl Decision<'_> {
    /// The most that the call may take, in milliseconds.
    #[must_use]
    pub fn timeout(&self) -> Option<u32> {
        self.rule.and_then(|(rule, _)| rule.then.timeout)
    }

    /// How many further attempts there may be.
    #[must_use]
    pub fn retries(&self) -> Option<u8> {
        self.rule.and_then(|(rule, _)| rule.then.retries)
    }

    /// When calls go beyond the nearest instances.
    #[must_use]
    pub fn spill(&self) -> Option<Spill> {
        self.rule.and_then(|(rule, _)| rule.then.spill)
    }
}

impl Routes {
    /// What becomes of a call to `service` at `now`. Allocates nothing.
    ///
    /// The first rule that matches decides; one that diverts only matches until its time is over
    /// and where its node can take the call. What the caller itself requires always holds: a subset
    /// that has no such instance is left aside, so that a canary cannot take the only version
    /// somebody asked for away. What the rule requires holds as well.
    #[must_use]
    pub fn decide<'a>(
        &'a self,
        service: &str,
        request: &RequestView<'a>,
        now: UnixTime,
    ) -> Decision<'a> {
        let mut decision = Decision::plain(Query::of(request.selector));
        let Some(found) = self.service(service) else {
            // Rules may be there before the first instance is.
            if let Some((found, rules)) = self.waiting(service).and_then(ServiceRoutes::ruled) {
                decision.apply(rules, found, request, now);
            }
            return decision;
        };
        if let Some(rules) = found.rules() {
            decision.apply(rules, found, request, now);
        }
        Decision { lookup: found.lookup(decision.query), ..decision }
    }
}

impl<'a> Decision<'a> {
    fn plain(query: Query<'a>) -> Self {
        let lookup = Lookup::Unknown;
        let (mirror, delay, abort, rate, affinity) = (None, None, None, None, None);
        let (rule, subset, diverted) = (None, None, false);
        Self { lookup, rule, subset, diverted, mirror, delay, abort, rate, affinity, query }
    }

    fn apply(
        &mut self,
        rules: &'a Rules,
        service: &ServiceRoutes,
        request: &RequestView<'a>,
        now: UnixTime,
    ) {
        let seen = Seen::of(rules, request.headers);
        let mut places = seen.places(&rules.glances);
        let found = places.find_map(|at| {
            let (rule, ready) = (&rules.set.rules[at], &rules.ready[at]);
            let header = |n: usize| match seen.values.get(usize::from(ready.headers[n])) {
                Some(value) => *value,
                None => request.headers.get(&rule.when.headers[n].name),
            };
            let query = self.query.and(&rule.then.select);
            let is_for = obstacle(rule, request, header).is_none()
                && idle(rule, ready, service, query, now).is_none();
            is_for.then_some((rule, ready, query))
        });
        let Some((rule, ready, query)) = found else { return };
        self.rule = Some((rule, rules.set.revision));
        let then = &rule.then;
        self.query = query;
        if let Some(places) = ready.divert {
            self.query = self.query.at(places);
            self.diverted = true;
        } else if let Some(sum) = ready.weights.last().filter(|sum| **sum > 0) {
            let number = number(rule, then.split_by.as_ref(), Throw::Split, request);
            let drawn = ((u128::from(number) * u128::from(*sum)) >> 64) as u32;
            let subset = &then.subsets[ready.weights.partition_point(|upto| *upto <= drawn)];
            self.query = self.query.within(&subset.select);
            self.subset = Some(subset);
        }
        let throw = |throw| number(rule, None, throw, request);
        self.mirror = then.mirror.as_ref().filter(|mirror| mirror.part.has(throw(Throw::Mirror)));
        self.delay = then.delay.filter(|delay| delay.part.has(throw(Throw::Delay)));
        self.abort = then.abort.filter(|abort| abort.part.has(throw(Throw::Abort)));
        self.rate = then.rate.as_ref().map(|rate| {
            let key = rate.by.as_ref().and_then(|by| value(by, request));
            (rate, rule::stable_hash(&rule.name, key.unwrap_or("")))
        });
        let key = then.affinity.as_ref().and_then(|by| value(by, request));
        self.affinity = key.map(|key| rule::stable_hash(&rule.name, key));
    }
}

/// What a call has of the headers that rules look at.
struct Seen<'a> {
    values: [Option<&'a str>; NAMES],
    hashes: [u64; NAMES],
    /// Of which there is none, the first in the lowest bit.
    lacking: u16,
}

impl<'a> Seen<'a> {
    fn of(rules: &Rules, headers: &'a dyn Headers) -> Self {
        let mut seen = Self { values: [None; NAMES], hashes: [0; NAMES], lacking: 0 };
        for (at, name) in rules.names.iter().enumerate() {
            match headers.get(name) {
                Some(value) => {
                    seen.values[at] = Some(value);
                    if rules.hashed >> at & 1 == 1 {
                        seen.hashes[at] = hash(value);
                    }
                }
                None => seen.lacking |= 1 << at,
            }
        }
        seen
    }

    /// The places of the rules that may be for the call.
    fn places(&self, glances: &[Glance]) -> impl Iterator<Item = usize> {
        let may_be = |glance: &Glance| {
            glance.needs & self.lacking == 0
                && self.hashes.get(usize::from(glance.name)).is_none_or(|one| *one == glance.hash)
        };
        let all = glances.iter().enumerate();
        all.filter(move |(_, glance)| may_be(glance)).map(|(at, _)| at)
    }
}

/// What keeps a rule that diverts from doing so; `None` for one that does not divert at all.
pub(super) fn idle(
    rule: &Rule,
    ready: &Ready,
    service: &ServiceRoutes,
    query: Query<'_>,
    now: UnixTime,
) -> Option<&'static str> {
    let divert = rule.then.divert?;
    if now >= divert.until {
        return Some("divert, which has ended");
    }
    let can_serve = ready.divert.is_some_and(|places| service.has_match(&query, places));
    if can_serve { None } else { Some("divert, whose node has no instance for it") }
}

/// What keeps a rule from being for a call; `None` when it is for it. The values of the headers it
/// tests are those that `header` gives for their places in the rule.
pub(super) fn obstacle<'a>(
    rule: &Rule,
    request: &RequestView<'_>,
    header: impl Fn(usize) -> Option<&'a str>,
) -> Option<&'static str> {
    let when = &rule.when;
    let covered = |patterns: &[Pattern], names: &[&str]| {
        patterns.is_empty()
            || patterns.iter().any(|pattern| names.iter().any(|name| pattern.covers(name)))
    };
    if !covered(&when.endpoints, &[request.endpoint]) {
        return Some("endpoint");
    }
    if !when.headers.iter().enumerate().all(|(at, one)| one.test.accepts(header(at))) {
        return Some("header");
    }
    if !covered(&when.callers, &[request.caller]) {
        return Some("caller");
    }
    if !covered(&when.nodes, &[request.node_name, request.node_id]) {
        return Some("node");
    }
    if !when.labels.matches(request.node_labels) {
        return Some("labels of the caller's node");
    }
    let share = when.share.as_ref()?;
    let number = number(rule, share.by.as_ref(), Throw::Share, request);
    if share.part.has(number) { None } else { Some("share") }
}

/// The number that decides a throw: of the key the same for all its calls, else of chance.
fn number(rule: &Rule, by: Option<&Key>, throw: Throw, request: &RequestView<'_>) -> u64 {
    match by.and_then(|by| value(by, request)) {
        Some(key) => rule::stable_hash(&rule.name, key),
        None => rule::mix(request.chance ^ throw as u64),
    }
}

/// What of a call a key stands for.
fn value<'a>(key: &Key, request: &RequestView<'a>) -> Option<&'a str> {
    match key {
        Key::Header(name) => request.headers.get(name),
        Key::Cookie(name) => request.headers.get("cookie").and_then(|all| cookie(all, name)),
        Key::Caller => Some(request.caller).filter(|caller| !caller.is_empty()),
        Key::Node => Some(request.node_id),
    }
}

/// The cookie of this name (RFC 6265 §5.4).
fn cookie<'a>(all: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = all.split(';').filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}
