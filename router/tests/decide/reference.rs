//! The reference.

use std::collections::BTreeMap;

/// An instance.
#[derive(Clone, Debug)]
pub(crate) struct Thing {
    pub(crate) id: String,
    pub(crate) node: u8,
    /// `None`: out of reach.
    pub(crate) group: Option<u32>,
    pub(crate) labels: BTreeMap<String, String>,
}

/// One requirement.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) key: &'static str,
    pub(crate) kind: Kind,
    pub(crate) not: bool,
    pub(crate) prefer: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Any of these, or with none that it is there.
    Label(Vec<&'static str>),
    Region(&'static str),
    Range(&'static str),
}

impl Ask {
    fn of(key: &'static str, kind: Kind) -> Self {
        Self { key, kind, not: false, prefer: false }
    }

    pub(crate) fn label(key: &'static str, values: &[&'static str]) -> Self {
        Self::of(key, Kind::Label(values.to_vec()))
    }

    pub(crate) fn version(text: &'static str) -> Self {
        Self::of("version", Kind::Label(vec![text]))
    }

    pub(crate) fn region(text: &'static str) -> Self {
        Self::of("region", Kind::Region(text))
    }

    pub(crate) fn range(text: &'static str) -> Self {
        Self::of("version", Kind::Range(text))
    }

    fn holds(&self, thing: &Thing) -> bool {
        let named = thing.labels.get(self.key).is_some_and(|found| match &self.kind {
            Kind::Label(values) => values.is_empty() || values.contains(&found.as_str()),
            Kind::Region(region) => found == region || found.starts_with(&format!("{region}/")),
            Kind::Range(range) => within(found, range),
        });
        named != self.not
    }

    fn text(&self) -> String {
        let list = |values: &[&str]| {
            format!(
                "{} {} ({})",
                self.key,
                if self.not { "notin" } else { "in" },
                values.join(", ")
            )
        };
        let text = match &self.kind {
            Kind::Label(values) if values.is_empty() && self.not => format!("!{}", self.key),
            Kind::Label(values) if values.is_empty() => self.key.to_owned(),
            Kind::Label(values) => list(values),
            Kind::Region(value) => {
                format!("{}{}{value}", self.key, if self.not { "!=" } else { "=" })
            }
            Kind::Range(range) => list(&[range]),
        };
        format!("{text}{}", if self.prefer { "?" } else { "" })
    }
}

/// As it is written.
pub(crate) fn text(all: &[Ask]) -> String {
    all.iter().map(Ask::text).collect::<Vec<_>>().join(",")
}

/// The versions of the test, as numbers in their order: major, minor, patch, and 0 before release.
fn number(version: &str) -> Option<[u32; 4]> {
    Some(match version {
        "v1" => [1, 0, 0, 1],
        "v2" | "2.0.0" => [2, 0, 0, 1],
        "1.2.0" => [1, 2, 0, 1],
        "1.2.9" => [1, 2, 9, 1],
        "1.4.1" => [1, 4, 1, 1],
        "1.5.0-rc.1" => [1, 5, 0, 0],
        "latest" => return None,
        other => panic!("{other} is a version of the test"),
    })
}

/// What the ranges of the test mean, written out.
fn within(version: &str, range: &str) -> bool {
    let Some(n) = number(version) else { return false };
    // No range of the test names a version before a release.
    if n[3] == 0 {
        return false;
    }
    match range {
        "^1" | "1.x" => n[0] == 1,
        "^1.3" => n[0] == 1 && n[1] >= 3,
        "~1.2" => n[0] == 1 && n[1] == 2,
        ">=1.2,<1.4" => ([1, 2, 0, 1]..[1, 4, 0, 0]).contains(&n),
        ">1" => n[0] >= 2,
        "<=1.2" => n[0] < 1 || n[0] == 1 && n[1] <= 2,
        "<2" => n[0] < 2,
        "^9" => n[0] == 9,
        other => panic!("{other} is a range of the test"),
    }
}

/// A rule.
#[derive(Clone, Debug)]
pub(crate) struct RuleModel {
    pub(crate) name: String,
    pub(crate) endpoint: Option<String>,
    pub(crate) user: Option<String>,
    /// In hundredths of a percent, by user.
    pub(crate) share: Option<u16>,
    pub(crate) subsets: Vec<(Vec<Ask>, u16)>,
    pub(crate) select: Vec<Ask>,
    pub(crate) divert: Option<(u8, u64)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) rule: Option<String>,
    pub(crate) subset: Option<String>,
    pub(crate) diverted: bool,
    pub(crate) found: Found,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Found {
    NoMatch,
    Unreachable,
    These { nearest: Vec<String>, all: Vec<String> },
}

/// FNV-1a over rule, 0xff and key, finished as SplitMix64 is.
fn hash(rule: &str, key: &str) -> u64 {
    let mut hash: u64 = 14_695_981_039_346_656_037;
    for byte in [rule.as_bytes(), &[255], key.as_bytes()].concat() {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(1_099_511_628_211);
    }
    hash ^= hash >> 30;
    hash = hash.wrapping_mul(13_787_848_793_156_543_929);
    hash ^= hash >> 27;
    hash = hash.wrapping_mul(10_723_151_780_598_845_931);
    hash ^ (hash >> 31)
}

/// Which share of `whole` a hash falls into.
fn slice(hash: u64, whole: u64) -> u64 {
    (u128::from(hash) * u128::from(whole) / (1 << 64)) as u64
}

/// Every outcome that may be; several where something is left to chance.
pub(crate) fn decide(
    things: &[Thing],
    rules: &[RuleModel],
    asked: &[Ask],
    user: Option<&str>,
    endpoint: &str,
    now: u64,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for rule in rules {
        let endpoint_fits =
            rule.endpoint.as_ref().is_none_or(|pattern| match pattern.strip_suffix('*') {
                Some(start) => endpoint.starts_with(start),
                None => endpoint == pattern,
            });
        if !endpoint_fits || rule.user.as_ref().is_some_and(|wanted| user != Some(wanted)) {
            continue;
        }
        // A divert that is over, or whose node cannot take the call, is no rule for it.
        let can_take = |thing: &Thing| {
            let must = asked.iter().chain(&rule.select).filter(|ask| !ask.prefer);
            thing.group.is_some() && must.clone().all(|ask| ask.holds(thing))
        };
        if let Some((node, until)) = rule.divert
            && (now >= until || !things.iter().any(|thing| thing.node == node && can_take(thing)))
        {
            continue;
        }
        match (rule.share, user) {
            (None, _) => {}
            (Some(share), Some(user)) => {
                if slice(hash(&rule.name, user), 10_000) >= u64::from(share) {
                    continue;
                }
            }
            // By chance: it may be for the call, or not.
            (Some(0), None) => continue,
            (Some(10_000), None) => {}
            (Some(_), None) => {
                outcomes.extend(by_rule(things, rule, asked, user));
                continue;
            }
        }
        outcomes.extend(by_rule(things, rule, asked, user));
        return outcomes;
    }
    let found = find(things, asked, &[], None, None);
    outcomes.push(Outcome { rule: None, subset: None, diverted: false, found });
    outcomes
}

fn by_rule(things: &[Thing], rule: &RuleModel, asked: &[Ask], user: Option<&str>) -> Vec<Outcome> {
    let name = Some(rule.name.clone());
    if let Some((node, _)) = rule.divert {
        let found = find(things, asked, &rule.select, Some(node), None);
        return vec![Outcome { rule: name, subset: None, diverted: true, found }];
    }
    // Subsets that nothing in reach belongs to have no weight.
    let weight = |(select, weight): &(Vec<Ask>, u16)| {
        let there = things
            .iter()
            .any(|thing| thing.group.is_some() && select.iter().all(|ask| ask.holds(thing)));
        if there { u64::from(*weight) } else { 0 }
    };
    let weights: Vec<u64> = rule.subsets.iter().map(weight).collect();
    let sum: u64 = weights.iter().sum();
    if sum == 0 {
        let found = find(things, asked, &rule.select, None, None);
        return vec![Outcome { rule: name, subset: None, diverted: false, found }];
    }
    let mut tickets: Vec<usize> = Vec::new();
    for (at, weight) in weights.iter().enumerate() {
        tickets.extend(std::iter::repeat_n(at, *weight as usize));
    }
    let drawn: Vec<usize> = match user {
        Some(user) => vec![tickets[slice(hash(&rule.name, user), sum) as usize]],
        None => tickets,
    };
    drawn
        .into_iter()
        .map(|at| Outcome {
            rule: name.clone(),
            subset: Some(format!("s{at}")),
            diverted: false,
            found: find(things, asked, &rule.select, None, Some(&rule.subsets[at].0)),
        })
        .collect()
}

fn find(
    things: &[Thing],
    asked: &[Ask],
    by_rule: &[Ask],
    node: Option<u8>,
    subset: Option<&Vec<Ask>>,
) -> Found {
    let all: Vec<&Ask> = asked.iter().chain(by_rule).collect();
    let mut matching: Vec<&Thing> = things
        .iter()
        .filter(|thing| all.iter().all(|ask| ask.prefer || ask.holds(thing)))
        .collect();
    if matching.is_empty() {
        return Found::NoMatch;
    }
    matching.retain(|thing| thing.group.is_some());
    if matching.is_empty() {
        return Found::Unreachable;
    }
    matching.sort_by_key(|thing| (thing.group, thing.node % 5, thing.node, thing.id.clone()));
    let mut preferred = matching.clone();
    let mut narrow = |holds: &dyn Fn(&Thing) -> bool| {
        let fewer: Vec<&Thing> = preferred.iter().copied().filter(|thing| holds(thing)).collect();
        if !fewer.is_empty() {
            preferred = fewer;
        }
    };
    if let Some(node) = node {
        narrow(&|thing| thing.node == node);
    }
    if let Some(subset) = subset {
        narrow(&|thing| subset.iter().all(|ask| ask.holds(thing)));
    }
    for ask in all.iter().filter(|ask| ask.prefer) {
        narrow(&|thing| ask.holds(thing));
    }
    let id = |thing: &&Thing| thing.id.clone();
    let nearest = preferred.iter().filter(|thing| thing.group == preferred[0].group).map(id);
    let is_preferred = |thing: &&&Thing| preferred.iter().any(|one| one.id == thing.id);
    let others = matching.iter().filter(|thing| !is_preferred(thing)).map(id);
    Found::These {
        nearest: nearest.collect(),
        all: preferred.iter().map(id).chain(others).collect(),
    }
}
