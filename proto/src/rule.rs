//! Rules: what operators decide about the calls of one service.
//!
//! A [`RuleSet`] is the whole of what is decided about one service; it replaces the one before and
//! says which one that was, so that two who edit the same set do not overwrite each other unseen.
//! Of the rules of a set the first that matches a call decides, alone.

mod check;
mod history;
mod wire;

use std::fmt;
use std::str::FromStr;

use crate::error::DecodeError;
use crate::grant::Pattern;
use crate::id::NodeId;
use crate::selector::Selector;
use crate::target::Target;
use crate::time::UnixTime;

use check::{is_header, is_name};
pub use history::{Change, MAX_HISTORY, MAX_NAMED};

/// Rules of one service.
pub const MAX_RULES: usize = 100;
/// Patterns, headers or subsets of one rule, of each kind.
pub const MAX_PARTS: usize = 32;
/// Bytes of the name of a rule, a header or a cookie.
pub const MAX_NAME: usize = 64;
/// Bytes of a whole set as it travels: a record has as many, and its frame takes some.
pub const MAX_SET: usize = crate::record::MAX_RECORD - 1024;
/// The longest timeout or delay, in milliseconds: an hour.
pub const MAX_WAIT: u32 = 3_600_000;
/// The most further attempts.
pub const MAX_RETRIES: u8 = 10;

/// All rules of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSet {
    /// Counts the sets of the service: the one that replaces this has one more. Sets begin at 1.
    pub revision: u64,
    /// In the order in which they are tried.
    pub rules: Vec<Rule>,
    /// The changes that led to it, oldest first, the one that made it last. For people; what is
    /// decided does not depend on it.
    pub history: Vec<Change>,
}

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Unique in its set; part of the hash that decides who is in a share.
    pub name: String,
    /// Which calls it is for.
    pub when: Condition,
    /// What is done with them.
    pub then: Actions,
}

/// Which calls a rule is for: all that is said must hold. Empty lists ask for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// One of these covers the endpoint: `Orders.Place`, or the path of an HTTP request.
    pub endpoints: Vec<Pattern>,
    /// All of these hold.
    pub headers: Vec<HeaderTest>,
    /// One of these covers the name of the calling service, as it says it.
    pub callers: Vec<Pattern>,
    /// One of these covers the name or the id of the caller's node.
    pub nodes: Vec<Pattern>,
    /// What the labels of the caller's node must be.
    pub labels: Selector,
    /// Only some of them.
    pub share: Option<Share>,
}

/// What one header must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderTest {
    /// Its name, in lower case.
    pub name: String,
    /// What of it.
    pub test: Test,
}

/// What is asked of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// There is one.
    Present,
    /// There is none.
    Absent,
    /// It is this.
    Is(String),
    /// It is not this, or there is none.
    IsNot(String),
    /// It begins with this.
    Prefix(String),
}

impl Test {
    /// Whether a value, or that there is none, is what is asked.
    #[must_use]
    pub fn accepts(&self, found: Option<&str>) -> bool {
        match (self, found) {
            (Self::Present, found) => found.is_some(),
            (Self::Absent, found) => found.is_none(),
            (Self::Is(wanted), found) => found == Some(wanted),
            (Self::IsNot(wanted), found) => found != Some(wanted),
            (Self::Prefix(prefix), found) => found.is_some_and(|found| found.starts_with(prefix)),
        }
    }
}

/// A part of all calls, in hundredths of a percent: 0 to [`Part::WHOLE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part(u16);

impl Part {
    /// All of them.
    pub const WHOLE: Self = Self(10_000);

    /// Of a number of hundredths of a percent; `None` above 100 %.
    #[must_use]
    pub fn of(hundredths: u16) -> Option<Self> {
        (hundredths <= Self::WHOLE.0).then_some(Self(hundredths))
    }

    /// In hundredths of a percent.
    #[must_use]
    pub fn hundredths(self) -> u16 {
        self.0
    }

    /// Whether a number that is even among all 64-bit numbers falls into it.
    #[must_use]
    pub fn has(self, number: u64) -> bool {
        (u128::from(number) * u128::from(Self::WHOLE.0)) >> 64 < u128::from(self.0)
    }
}

/// A part of the calls, always the same ones where there is a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// How many.
    pub part: Part,
    /// What decides which; `None`: chance, for each call anew.
    pub by: Option<Key>,
}

/// What of a call is hashed, so that like calls are treated alike. A call that lacks it is left to
/// chance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// The value of a header, by its name in lower case.
    Header(String),
    /// The value of a cookie.
    Cookie(String),
    /// The name of the calling service.
    Caller,
    /// The caller's node.
    Node,
}

/// What is done with the calls a rule is for. What is not said stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// Kinds of instances, of which one is chosen by weight.
    pub subsets: Vec<Subset>,
    /// What decides between the subsets; `None`: chance.
    pub split_by: Option<Key>,
    /// What the instance must be, or would better be, beside what the caller asks.
    pub select: Selector,
    /// The most that a call may take, in milliseconds.
    pub timeout: Option<u32>,
    /// How many further attempts there may be.
    pub retries: Option<u8>,
    /// Some are sent elsewhere as well; what comes back is thrown away.
    pub mirror: Option<Mirror>,
    /// All go to one node, as long as it offers the service.
    pub divert: Option<Divert>,
    /// Some are held up.
    pub delay: Option<Delay>,
    /// Some are refused.
    pub abort: Option<Abort>,
    /// No more than so many are let through.
    pub rate: Option<Rate>,
    /// Calls of the same key go to the same instance while it is there.
    pub affinity: Option<Key>,
    /// When calls go beyond the nearest instances.
    pub spill: Option<Spill>,
}

/// Some of the instances, and how many of the calls they get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subset {
    /// Its name, for people.
    pub name: String,
    /// What its instances are.
    pub select: Selector,
    /// Its share, against the sum of all weights.
    pub weight: u16,
}

/// A copy of some calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Where to.
    pub target: Target,
    /// Of how many.
    pub part: Part,
}

/// Calls go to one node for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Divert {
    /// The node.
    pub node: NodeId,
    /// Not from this second on, by the clock of the caller's node.
    pub until: UnixTime,
}

/// Calls are held up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// How long, in milliseconds.
    pub millis: u32,
    /// How many of them.
    pub part: Part,
}

/// Calls are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort {
    /// The HTTP status; gRPC has the one that stands for it.
    pub status: u16,
    /// How many of them.
    pub part: Part,
}

/// How many calls are let through by each node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In a second, in the long run.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
    /// Counted for each value of this; `None`: all together.
    pub by: Option<Key>,
}

/// When calls go beyond the nearest instances, in percent of their load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spill {
    /// From this load on.
    pub above: u8,
    /// And back below this one, which is lower.
    pub below: u8,
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule {rule:?}: {why}")]
pub struct BadRule {
    /// The rule.
    pub rule: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl RuleSet {
    /// Who wrote it, whoever tells it; `None` where it does not say.
    #[must_use]
    pub fn author(&self) -> Option<NodeId> {
        let last = self.history.last().filter(|last| last.revision == self.revision);
        last.and_then(|last| last.author)
    }

    /// Whether two sets decide alike, whatever their revisions.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.rules == other.rules
    }
}

impl Test {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Present | Self::Absent => None,
            Self::Is(text) | Self::IsNot(text) | Self::Prefix(text) => Some(text),
        }
    }
}

impl Key {
    fn is_valid(&self) -> bool {
        match self {
            Self::Header(name) => is_header(name),
            Self::Cookie(name) => is_name(name),
            Self::Caller | Self::Node => true,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Caller => f.write_str("caller"),
            Self::Node => f.write_str("node"),
        }
    }
}

impl FromStr for Key {
    type Err = DecodeError;

    /// From `header:x-user`, `cookie:session`, `caller` or `node`.
    fn from_str(text: &str) -> Result<Self, DecodeError> {
        let key = match (text, text.split_once(':')) {
            ("caller", _) => Self::Caller,
            ("node", _) => Self::Node,
            (_, Some(("header", name))) => Self::Header(name.to_ascii_lowercase()),
            (_, Some(("cookie", name))) => Self::Cookie(name.to_owned()),
            (_, _) => return Err(DecodeError::Invalid("key of a rule")),
        };
        if key.is_valid() { Ok(key) } else { Err(DecodeError::Invalid("key of a rule")) }
    }
}

/// A hash that is the same on every node and in every release, so that a call is in the same share
/// wherever it is made: FNV-1a over the name of the rule, a byte that no name has, and the key;
/// then mixed, for FNV leaves its upper bits alike.
#[must_use]
pub fn stable_hash(rule: &str, key: &str) -> u64 {
    let bytes = rule.bytes().chain([0xff]).chain(key.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(hash)
}

/// Spreads a number over all 64 bits (the finaliser of SplitMix64).
#[must_use]
pub fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str) -> Rule {
        Rule { name: name.into(), ..Rule::default() }
    }

    fn all_of_it() -> RuleSet {
        let key = Some(Key::Header("x-user".into()));
        let pattern = |text: &str| vec![Pattern::new(text).unwrap()];
        let part = Part::of(1_250).unwrap();
        let one = |name: &str, test| HeaderTest { name: name.into(), test };
        let subset = |name: &str, select: &str, weight| Subset {
            name: name.into(),
            select: select.parse().unwrap(),
            weight,
        };
        let everything = Rule {
            name: "canary".into(),
            when: Condition {
                endpoints: pattern("Orders.*"),
                headers: vec![
                    one("a", Test::Present),
                    one("b", Test::Absent),
                    one("c", Test::Is(String::new())),
                    one("d", Test::IsNot("x".into())),
                    one("e", Test::Prefix("y".into())),
                ],
                callers: pattern("web"),
                nodes: pattern("fra-*"),
                labels: "region=eu,!test".parse().unwrap(),
                share: Some(Share { part, by: key.clone() }),
            },
            then: Actions {
                subsets: vec![subset("old", "version=^1", 90), subset("new", "version=v2", 10)],
                split_by: Some(Key::Cookie("Sid".into())),
                select: "tier=gold?".parse().unwrap(),
                timeout: Some(250),
                retries: Some(0),
                mirror: Some(Mirror { target: "shop?version=v3".parse().unwrap(), part }),
                divert: Some(Divert {
                    node: NodeId::from_bytes([7; 32]),
                    until: UnixTime(1_800_000_000),
                }),
                delay: Some(Delay { millis: 10, part }),
                abort: Some(Abort { status: 503, part: Part::WHOLE }),
                rate: Some(Rate { per_second: 5, burst: 10, by: Some(Key::Caller) }),
                affinity: Some(Key::Node),
                spill: Some(Spill { above: 80, below: 0 }),
            },
        };
        RuleSet { revision: 7, rules: vec![everything, rule("nothing")], ..RuleSet::default() }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let set = all_of_it();
        assert_eq!(set.check(), Ok(()));
        assert_eq!(RuleSet::decode(set.encode()), Ok(set));
    }

    #[test]
    fn what_means_nothing_is_refused_with_the_rule_at_fault() {
        let with = |change: &dyn Fn(&mut Rule)| {
            let mut rule = rule("x");
            change(&mut rule);
            RuleSet { revision: 1, rules: vec![rule], ..RuleSet::default() }
                .check()
                .unwrap_err()
                .why
        };
        let part = Part::WHOLE;
        assert!(with(&|r| r.name = "a b".into()).contains("letters"));
        assert!(with(&|r| r.then.timeout = Some(0)).contains("timeout"));
        assert!(with(&|r| r.then.retries = Some(99)).contains("retries"));
        assert!(with(&|r| r.then.abort = Some(Abort { status: 200, part })).contains("status"));
        assert!(with(&|r| r.then.spill = Some(Spill { above: 5, below: 5 })).contains("lower"));
        assert!(with(&|r| r.when.labels = "a?".parse().unwrap()).contains("prefer"));
        let twice = RuleSet { rules: vec![rule("x"), rule("x")], ..RuleSet::default() };
        assert!(twice.check().unwrap_err().to_string().starts_with("rule \"x\": another"));
        let many = (0..101).map(|n| rule(&n.to_string())).collect();
        let many = RuleSet { rules: many, ..RuleSet::default() };
        assert!(many.check().is_err());
        assert!(RuleSet::decode(many.encode()).is_err());
    }

    #[test]
    fn a_share_is_as_large_as_it_says_and_grows_without_moving_anyone() {
        let small = Part::of(1_000).unwrap();
        let large = Part::of(2_000).unwrap();
        let hashes = || (0..20_000).map(|n| stable_hash("canary", &format!("user-{n}")));
        let count = hashes().filter(|hash| small.has(*hash)).count();
        assert!((1_900..=2_100).contains(&count), "{count}");
        assert!(hashes().all(|hash| !small.has(hash) || large.has(hash)));
        assert!(hashes().all(|hash| Part::WHOLE.has(hash) && !Part::default().has(hash)));
    }

    #[test]
    fn the_stable_hash_never_changes() {
        // Part of the protocol: nodes of different releases must put a user into the same share.
        assert_eq!(stable_hash("canary", "ada"), stable_hash("canary", "ada"));
        assert_ne!(stable_hash("canary", "ada"), stable_hash("canar", "yada"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Ok(set) = RuleSet::decode(bytes.into()) {
                assert_eq!(RuleSet::decode(set.encode()), Ok(set));
            }
        }
    }
}
