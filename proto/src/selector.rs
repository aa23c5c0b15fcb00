//! What a caller asks of the instance that is to answer: requirements on its labels.
//!
//! ```text
//! selector     requirement ("," requirement)*              every one must hold; "&" reads as ","
//! requirement  key "=" value | key "!=" value              equal, or not
//!              key "in" "(" value ("," value)* ")"         one of these
//!              key "notin" "(" value ("," value)* ")"      none of these
//!              key | "!" key                               has the label, or has not
//!              any of these and "?"                        prefer, do not require
//! value        plain text, or "text in quotes" where \" and \\ stand for themselves
//! ```
//!
//! As in Kubernetes, what says *not* also holds where the label is missing. Two keys read values in
//! their own way: `region=eu` holds in `eu` and in everything under it (`eu/fra`), and `version`
//! takes ranges ([`range`]). Preferences narrow the choice, each in its turn, where that leaves
//! something; they never make a call fail.

mod parse;
pub mod range;
mod requirement;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::label::LabelSet;

pub use range::Range;
pub use requirement::{Requirement, UNDER, Value, regions};

/// Requirements of one selector.
pub const MAX_REQUIREMENTS: usize = 64;
/// Those of them that only prefer: each may cost a look at the whole service.
pub const MAX_PREFERENCES: usize = 8;
/// Values of one requirement.
pub const MAX_VALUES: usize = 256;
/// Bytes of the text of a selector, and so of a header that has one.
pub const MAX_TEXT: usize = 8 * 1024;

/// The key whose values are versions.
pub const VERSION: &str = "version";
/// The key whose values are regions.
pub const REGION: &str = "region";

/// Requirements on labels, all of which must hold. Empty asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector(Arc<[Requirement]>);

/// Why a text asks for nothing that could be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSelector {
    /// A key is missing, too long, or has characters that mean something else.
    #[error("{0:?} is no key of a label; write key=value, with commas between")]
    Key(String),
    /// What stands after a key is none of the operators.
    #[error("{0:?} is no operator; there are =, !=, in (a,b), notin (a,b), key and !key")]
    Operator(String),
    /// A list does not open and close, or has nothing in it.
    #[error("{0:?} is no list; write key in (a,b)")]
    List(String),
    /// A quote does not close, or something follows it.
    #[error("{0:?} is no value; a quote is closed by another, \\\" is one within")]
    Quote(String),
    /// A value has a control character or is longer than a label's may be.
    #[error("a value has at most {} bytes and no control characters", crate::label::MAX_VALUE)]
    Value,
    /// It looks like a range of versions and is none.
    #[error("{0:?} is no range of versions; write 1.4.0, ^1.2, ~1.2, 1.x or >=1,<2")]
    Range(String),
    /// A range that no version is in.
    #[error("no version is in the range {0:?}")]
    EmptyRange(String),
    /// A region of no name.
    #[error("a region has a name, as eu or eu/fra")]
    Region,
    /// More than a bound allows.
    #[error("a selector has at most {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The bound.
        max: usize,
    },
}

impl Selector {
    /// Whether `labels` satisfy all that is required. What is only preferred is not asked.
    #[must_use]
    pub fn matches(&self, labels: &LabelSet) -> bool {
        self.required().all(|one| one.accepts(labels.get(one.key())))
    }

    /// Whether it asks for nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything it asks for, in the order in which it was asked.
    pub fn iter(&self) -> std::slice::Iter<'_, Requirement> {
        self.0.iter()
    }

    /// What must hold.
    pub fn required(&self) -> impl Iterator<Item = &Requirement> {
        self.0.iter().filter(|one| !one.is_preferred())
    }

    /// What is only preferred, the most important first.
    pub fn preferred(&self) -> impl Iterator<Item = &Requirement> {
        self.0.iter().filter(|one| one.is_preferred())
    }

    /// What `parts` ask for, all of it.
    ///
    /// # Errors
    /// [`BadSelector::TooMany`] above [`MAX_REQUIREMENTS`] or [`MAX_PREFERENCES`].
    pub fn of(parts: impl IntoIterator<Item = Requirement>) -> Result<Self, BadSelector> {
        let all: Vec<_> = parts.into_iter().take(MAX_REQUIREMENTS + 1).collect();
        if all.len() > MAX_REQUIREMENTS {
            return Err(BadSelector::TooMany { what: "requirements", max: MAX_REQUIREMENTS });
        }
        if all.iter().filter(|one| one.is_preferred()).count() > MAX_PREFERENCES {
            return Err(BadSelector::TooMany { what: "preferences", max: MAX_PREFERENCES });
        }
        Ok(Self(all.into()))
    }
}

impl<'a> IntoIterator for &'a Selector {
    type Item = &'a Requirement;
    type IntoIter = std::slice::Iter<'a, Requirement>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl FromStr for Selector {
    type Err = BadSelector;

    fn from_str(text: &str) -> Result<Self, BadSelector> {
        Self::of(parse::requirements(text)?)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, one) in self.iter().enumerate() {
            write!(f, "{}{one}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// The version that the path of a request begins with: `v2` of `/v2/orders`.
#[must_use]
pub fn version_of_path(path: &str) -> Option<&str> {
    let segment = path.strip_prefix('/')?.split(['/', '?']).next()?;
    let digits = segment.strip_prefix('v')?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && segment.len() <= 8).then_some(segment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels() -> LabelSet {
        [("version", "1.4.0"), ("region", "eu/fra"), ("tier", "gold"), ("note", "a, b (c)?")]
            .into_iter()
            .collect()
    }

    #[test]
    fn every_operator_has_its_meaning() {
        for (text, verdict) in [
            ("", true),
            ("tier=gold", true),
            ("tier = gold , region", true),
            ("tier=gold&region=eu", true),
            ("tier=silver", false),
            ("tier!=silver", true),
            ("tier!=gold", false),
            ("zone!=a", true),
            ("tier in (gold,silver)", true),
            ("tier in (silver)", false),
            ("tier notin (silver, iron)", true),
            ("zone notin (a)", true),
            ("tier notin (gold)", false),
            ("zone", false),
            ("!zone", true),
            ("!tier", false),
            ("tier=silver?", true),
            ("zone?", true),
            ("region=eu", true),
            ("region=eu/fra", true),
            ("region=e", false),
            ("region=eu/fra/a", false),
            ("region!=eu", false),
            ("region in (us,eu/)", true),
            ("version=^1.2", true),
            ("version=1.4.0", true),
            ("version in (>=1,<1.4)", false),
            ("version in (>=2,1.4.0)", true),
            ("version!=1.x", false),
            ("version=\"^1.2\"", false),
            ("note=\"a, b (c)?\"", true),
        ] {
            let selector: Selector = text.parse().unwrap_or_else(|bad| panic!("{text}: {bad}"));
            assert_eq!(selector.matches(&labels()), verdict, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_said_with_the_reason() {
        use BadSelector as B;
        for (text, why) in [
            ("=x", B::Key("=x".into())),
            ("a b", B::Operator("b".into())),
            ("a>=1", B::Operator(">=1".into())),
            ("a==b", B::Operator("==b".into())),
            ("a~b", B::Key("a~b".into())),
            ("a in b", B::List("b".into())),
            ("a in (b", B::List("(b".into())),
            ("a in ()", B::List("()".into())),
            ("a=\"b", B::Quote("\"b".into())),
            ("a=\"b\"c", B::Quote("c".into())),
            ("a=b\u{7}", B::Value),
            ("version=^x", B::Range("^x".into())),
            ("version in (>=2,<1)", B::EmptyRange(">=2,<1".into())),
            ("version=<0", B::EmptyRange("<0".into())),
            ("region=", B::Region),
        ] {
            assert_eq!(text.parse::<Selector>(), Err(why), "{text}");
        }
    }

    #[test]
    fn there_is_a_bound_for_everything() {
        let many = |count: usize, one: &str| vec![one; count].join(",");
        assert!(many(MAX_REQUIREMENTS, "a=1").parse::<Selector>().is_ok());
        let most = BadSelector::TooMany { what: "requirements", max: MAX_REQUIREMENTS };
        assert_eq!(many(MAX_REQUIREMENTS + 1, "a=1").parse::<Selector>(), Err(most));
        let most = BadSelector::TooMany { what: "preferences", max: MAX_PREFERENCES };
        assert_eq!(many(MAX_PREFERENCES + 1, "a?").parse::<Selector>(), Err(most));
        let most = BadSelector::TooMany { what: "values of one key", max: MAX_VALUES };
        let list = format!("a in ({})", many(MAX_VALUES + 1, "b"));
        assert_eq!(list.parse::<Selector>(), Err(most));
        let most = BadSelector::TooMany { what: "bytes", max: MAX_TEXT };
        assert_eq!("x".repeat(MAX_TEXT + 1).parse::<Selector>(), Err(most));
    }

    #[test]
    fn paths_may_begin_with_a_version() {
        for (path, version) in [
            ("/v2/orders", Some("v2")),
            ("/v2", Some("v2")),
            ("/v12?x", Some("v12")),
            ("/video/1", None),
            ("/v", None),
            ("/api/v2", None),
        ] {
            assert_eq!(version_of_path(path), version, "{path}");
        }
    }

    fn a_value() -> impl Strategy<Value = String> {
        prop_oneof!["[a-z0-9.]{0,6}", "[^\\p{Cc}]{0,12}", Just("^1.2".to_owned())]
    }

    fn a_version() -> impl Strategy<Value = String> {
        prop_oneof!["v?[0-9]{1,2}(\\.[0-9x]){0,2}", "[\\^~]|>=?[0-9](\\.[0-9]){0,2}", "<=?[1-9]"]
    }

    fn a_requirement() -> impl Strategy<Value = Option<Requirement>> {
        let key = prop_oneof!["[a-z][a-z0-9./_-]{0,8}", Just(VERSION.to_owned())];
        let exact = (key, proptest::collection::vec(a_value(), 0..4), any::<(bool, bool)>())
            .prop_map(|(key, values, (not, prefer))| {
                let values = values.iter().map(|text| (&**text, true));
                Requirement::new(&key, not, values).ok().map(|one| one.preferred(prefer))
            });
        let version = (proptest::collection::vec(a_version(), 1..4), any::<bool>()).prop_map(
            |(values, not)| {
                let values = values.iter().map(|text| (&**text, false));
                Requirement::new(VERSION, not, values).ok()
            },
        );
        let region = "[a-z]{1,3}(/[a-z]{1,3})?"
            .prop_map(|text| Requirement::new(REGION, false, [(&*text, false)]).ok());
        prop_oneof![exact, version, region]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            parts in proptest::collection::vec(a_requirement(), 0..6)
        ) {
            let selector = Selector::of(parts.into_iter().flatten()).unwrap();
            let text = selector.to_string();
            prop_assert_eq!(text.parse::<Selector>(), Ok(selector), "{}", text);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[ -~]{0,40}") {
            if let Ok(selector) = text.parse::<Selector>() {
                let again = selector.to_string();
                prop_assert_eq!(again.parse::<Selector>(), Ok(selector), "{} {}", text, again);
            }
        }
    }
}
