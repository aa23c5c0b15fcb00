//! A set of rules as it is written.

use proto::grant::Pattern;
use proto::rule::{self, HeaderTest, Key, Part};
use proto::{NodeId, Selector, ServiceName, Target, UnixTime};
use serde::{Deserialize, Serialize};

use super::words::{Millis, Word};

/// The whole of what is decided about one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Set {
    /// The service.
    pub service: Word<ServiceName>,
    /// The revision that this was made from; absent: it was made from none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// In the order in which they are tried.
    #[serde(default, rename = "rule", skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Unique in its set.
    pub name: String,
    /// Which calls it is for; absent: all.
    #[serde(default, skip_serializing_if = "When::is_empty")]
    pub when: When,
    /// What is done with them.
    #[serde(default)]
    pub then: Then,
}

/// Which calls a rule is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct When {
    /// One of these is the endpoint.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Word<Pattern>>,
    /// All of these hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Word<HeaderTest>>,
    /// One of these is the calling service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<Word<Pattern>>,
    /// One of these is the name or id of the caller's node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Word<Pattern>>,
    /// What the labels of the caller's node must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Word<Selector>>,
    /// Only some of the calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
}

impl When {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Some of the calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// How many.
    pub part: Word<Part>,
    /// What decides which; absent: chance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Word<Key>>,
}

/// What is done with the calls a rule is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Then {
    /// What decides between the subsets; absent: chance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_by: Option<Word<Key>>,
    /// What the instance must be, or would better be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub select: Option<Word<Selector>>,
    /// The most that a call may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Word<Millis>>,
    /// How many further attempts there may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u8>,
    /// Calls of the same key go to the same instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Word<Key>>,
    /// All go to one node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub divert: Option<Divert>,
    /// Some are sent elsewhere as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// Some are held up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
    /// Some are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,
    /// No more than so many are let through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// When calls go beyond the nearest instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spill: Option<Spill>,
    /// Kinds of instances, of which one is chosen by weight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subsets: Vec<Subset>,
}

/// Some of the instances, and their weight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subset {
    /// Its name.
    pub name: String,
    /// What its instances are.
    pub select: Word<Selector>,
    /// Its share, against the sum of all weights.
    pub weight: u16,
}

/// All go to one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Divert {
    /// The node, by name or id.
    pub to: String,
    /// Not from this moment on.
    pub until: Word<UnixTime>,
}

/// A copy goes elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// Where to.
    pub to: Word<Target>,
    /// Of how many; absent: all.
    #[serde(default = "whole", skip_serializing_if = "is_whole")]
    pub part: Word<Part>,
}

/// Calls are held up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delay {
    /// How long.
    pub time: Word<Millis>,
    /// How many of them; absent: all.
    #[serde(default = "whole", skip_serializing_if = "is_whole")]
    pub part: Word<Part>,
}

/// Calls are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Abort {
    /// The HTTP status.
    pub status: u16,
    /// How many of them; absent: all.
    #[serde(default = "whole", skip_serializing_if = "is_whole")]
    pub part: Word<Part>,
}

/// So many are let through by each node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// In a second.
    pub per_second: u32,
    /// At once; absent: as many as in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// Counted for each value of this; absent: all together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Word<Key>>,
}

/// Loads in percent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spill {
    /// From this on calls go beyond the nearest instances.
    pub above: u8,
    /// Below this they come back.
    pub below: u8,
}

fn whole() -> Word<Part> {
    Word(Part::WHOLE)
}

fn is_whole(part: &Word<Part>) -> bool {
    part.0 == Part::WHOLE
}

impl Rule {
    /// What it means. `node` knows nodes by name or id.
    ///
    /// # Errors
    /// That of `node`.
    pub fn meaning<E>(&self, node: impl Fn(&str) -> Result<NodeId, E>) -> Result<rule::Rule, E> {
        let divert = self
            .then
            .divert
            .as_ref()
            .map(|divert| Ok(rule::Divert { node: node(&divert.to)?, until: divert.until.0 }));
        Ok(rule::Rule {
            name: self.name.clone(),
            when: self.when.meaning(),
            then: rule::Actions { divert: divert.transpose()?, ..self.then.meaning() },
        })
    }

    /// The form of a rule.
    #[must_use]
    pub fn of(rule: &rule::Rule) -> Self {
        Self { name: rule.name.clone(), when: When::of(&rule.when), then: Then::of(&rule.then) }
    }
}

fn words<T: Clone>(all: &[T]) -> Vec<Word<T>> {
    all.iter().cloned().map(Word).collect()
}

fn meanings<T: Clone>(all: &[Word<T>]) -> Vec<T> {
    all.iter().map(|word| word.0.clone()).collect()
}

fn meaning<T: Clone>(word: &Option<Word<T>>) -> Option<T> {
    word.as_ref().map(|word| word.0.clone())
}

fn selector(selector: &Selector) -> Option<Word<Selector>> {
    (!selector.is_empty()).then(|| Word(selector.clone()))
}

impl When {
    fn meaning(&self) -> rule::Condition {
        rule::Condition {
            endpoints: meanings(&self.endpoints),
            headers: meanings(&self.headers),
            callers: meanings(&self.callers),
            nodes: meanings(&self.nodes),
            labels: meaning(&self.labels).unwrap_or_default(),
            share: self
                .share
                .as_ref()
                .map(|share| rule::Share { part: share.part.0, by: meaning(&share.by) }),
        }
    }

    fn of(when: &rule::Condition) -> Self {
        let share =
            |share: &rule::Share| Share { part: Word(share.part), by: share.by.clone().map(Word) };
        Self {
            endpoints: words(&when.endpoints),
            headers: words(&when.headers),
            callers: words(&when.callers),
            nodes: words(&when.nodes),
            labels: selector(&when.labels),
            share: when.share.as_ref().map(share),
        }
    }
}

impl Then {
    /// All but where calls are diverted to.
    fn meaning(&self) -> rule::Actions {
        let subset = |subset: &Subset| rule::Subset {
            name: subset.name.clone(),
            select: subset.select.0.clone(),
            weight: subset.weight,
        };
        let mirror =
            |mirror: &Mirror| rule::Mirror { target: mirror.to.0.clone(), part: mirror.part.0 };
        let delay = |delay: &Delay| rule::Delay { millis: delay.time.0.0, part: delay.part.0 };
        let rate = |rate: &Rate| rule::Rate {
            per_second: rate.per_second,
            burst: rate.burst.unwrap_or(rate.per_second),
            by: meaning(&rate.by),
        };
        rule::Actions {
            subsets: self.subsets.iter().map(subset).collect(),
            split_by: meaning(&self.split_by),
            select: meaning(&self.select).unwrap_or_default(),
            timeout: self.timeout.as_ref().map(|time| time.0.0),
            retries: self.retries,
            mirror: self.mirror.as_ref().map(mirror),
            divert: None,
            delay: self.delay.as_ref().map(delay),
            abort: self
                .abort
                .as_ref()
                .map(|abort| rule::Abort { status: abort.status, part: abort.part.0 }),
            rate: self.rate.as_ref().map(rate),
            affinity: meaning(&self.affinity),
            spill: self
                .spill
                .as_ref()
                .map(|spill| rule::Spill { above: spill.above, below: spill.below }),
        }
    }

    fn of(then: &rule::Actions) -> Self {
        let subset = |subset: &rule::Subset| Subset {
            name: subset.name.clone(),
            select: Word(subset.select.clone()),
            weight: subset.weight,
        };
        let rate = |rate: &rule::Rate| Rate {
            per_second: rate.per_second,
            burst: (rate.burst != rate.per_second).then_some(rate.burst),
            by: rate.by.clone().map(Word),
        };
        Self {
            split_by: then.split_by.clone().map(Word),
            select: selector(&then.select),
            timeout: then.timeout.map(|time| Word(Millis(time))),
            retries: then.retries,
            affinity: then.affinity.clone().map(Word),
            divert: then
                .divert
                .map(|divert| Divert { to: divert.node.to_string(), until: Word(divert.until) }),
            mirror: then
                .mirror
                .as_ref()
                .map(|mirror| Mirror { to: Word(mirror.target.clone()), part: Word(mirror.part) }),
            delay: then
                .delay
                .map(|delay| Delay { time: Word(Millis(delay.millis)), part: Word(delay.part) }),
            abort: then.abort.map(|abort| Abort { status: abort.status, part: Word(abort.part) }),
            rate: then.rate.as_ref().map(rate),
            spill: then.spill.map(|spill| Spill { above: spill.above, below: spill.below }),
            subsets: then.subsets.iter().map(subset).collect(),
        }
    }
}
