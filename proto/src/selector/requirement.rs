//! One requirement on one label.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::range::{self, Range};
use super::{BadSelector, MAX_VALUES, REGION, VERSION};
use crate::label::{self, MAX_KEY, MAX_VALUE};

/// What the value of one label must be. Hashes for finding it in an index are worked out once,
/// when it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: Arc<str>,
    hash: u64,
    not: bool,
    prefer: bool,
    wanted: Wanted,
}

/// Nearly always there is one value: it lies in the requirement itself.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    Present,
    One(Value),
    AnyOf(Box<[Value]>),
}

/// One value that a requirement names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// This text.
    Exact {
        /// The text.
        text: Arc<str>,
        /// [`label::hash`] of the key and it.
        hash: u64,
    },
    /// This region, and what lies in it.
    Under {
        /// The region.
        text: Arc<str>,
        /// [`label::hash`] of [`UNDER`] and it.
        hash: u64,
    },
    /// A version in this range; boxed, for it is large and rare.
    In(Box<Range>),
}

/// The key under which an index keeps every region that something lies in: of `eu/fra` that is
/// `eu/fra` and `eu`. No label that a selector can ask for.
pub const UNDER: &str = "region?";

/// The regions that `region` lies in, itself first.
pub fn regions(region: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(region), |within| Some(within.rsplit_once('/')?.0))
}

impl Value {
    /// Whether the value of a label is, or is in, this.
    #[must_use]
    pub fn accepts(&self, found: &str) -> bool {
        match self {
            Self::Exact { text, .. } => found == &**text,
            Self::Under { text, .. } => found
                .strip_prefix(&**text)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            Self::In(range) => range.contains(found),
        }
    }

    /// The key, the value and the hash by which an index finds exactly what this accepts of the
    /// label `key`; `None` for a range, which is asked of each value.
    #[must_use]
    pub fn probe<'a>(&'a self, key: &'a str) -> Option<(&'a str, &'a str, u64)> {
        match self {
            Self::Exact { text, hash } => Some((key, text, *hash)),
            Self::Under { text, hash } => Some((UNDER, text, *hash)),
            Self::In(_) => None,
        }
    }

    /// As it is written.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Exact { text, .. } | Self::Under { text, .. } => text,
            Self::In(range) => range.text(),
        }
    }
}

impl Requirement {
    /// `key` has one of `values`, or `not` one of them; without values, `key` is there, or not.
    /// With each value comes whether it is meant literally: else `version` takes it for a range
    /// where it is one. Of versions, an upper bound directly after a lower one joins it to an
    /// interval.
    ///
    /// # Errors
    /// [`BadSelector`] says what is wrong.
    pub fn new<'a>(
        key: &str,
        not: bool,
        values: impl IntoIterator<Item = (&'a str, bool)>,
    ) -> Result<Self, BadSelector> {
        let fits = !key.is_empty() && key.len() <= MAX_KEY && key.chars().all(is_of_key);
        if !fits {
            return Err(BadSelector::Key(key.chars().take(40).collect()));
        }
        let mut all = Vec::new();
        let mut values = values.into_iter().peekable();
        while let Some((text, literal)) = values.next() {
            if all.len() == MAX_VALUES {
                return Err(BadSelector::TooMany { what: "values of one key", max: MAX_VALUES });
            }
            if text.len() > MAX_VALUE || text.chars().any(char::is_control) {
                return Err(BadSelector::Value);
            }
            let range = match key {
                VERSION if !literal => {
                    let more = |next: &(&str, bool)| !next.1 && next.0.starts_with('<');
                    let upper = if text.starts_with('>') { values.next_if(more) } else { None };
                    range::read(text, upper.map(|(text, _)| text))?
                }
                _ => None,
            };
            all.push(match range {
                Some(range) => Value::In(Box::new(range)),
                None if key == REGION => {
                    let text = region(text)?;
                    Value::Under { hash: label::hash(UNDER, Some(text)), text: text.into() }
                }
                None => Value::Exact { text: text.into(), hash: label::hash(key, Some(text)) },
            });
        }
        let wanted = match all.len() {
            0 => Wanted::Present,
            1 => all.pop().map_or(Wanted::Present, Wanted::One),
            _ => Wanted::AnyOf(all.into()),
        };
        let hash = label::hash(key, None);
        Ok(Self { key: key.into(), hash, not, prefer: false, wanted })
    }

    /// `key` has exactly this value; of `region` one in it.
    ///
    /// # Errors
    /// [`BadSelector`] says what is wrong.
    pub fn equals(key: &str, value: &str) -> Result<Self, BadSelector> {
        Self::new(key, false, [(value, true)])
    }

    /// What a header with nothing but values asks of `key`: one of those between the commas, and a
    /// `?` at the end prefers. As `Micro-Version: ^1.2,2.0.0` and `Micro-Region: eu?` have it.
    ///
    /// # Errors
    /// [`BadSelector`] says what is wrong.
    pub fn any_of(key: &str, text: &str) -> Result<Self, BadSelector> {
        if text.len() > super::MAX_TEXT {
            return Err(BadSelector::TooMany { what: "bytes", max: super::MAX_TEXT });
        }
        let bare = text.trim_end().strip_suffix('?');
        let values = bare.unwrap_or(text).split(',').map(str::trim);
        if values.clone().any(str::is_empty) {
            return Err(BadSelector::List(text.chars().take(40).collect()));
        }
        Ok(Self::new(key, false, values.map(|value| (value, false)))?.preferred(bare.is_some()))
    }

    /// The same, only preferred if `prefer`.
    #[must_use]
    pub fn preferred(self, prefer: bool) -> Self {
        Self { prefer, ..self }
    }

    /// The key of the label.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// [`label::hash`] of the key.
    #[must_use]
    pub fn key_hash(&self) -> u64 {
        self.hash
    }

    /// The values, any of which will do; none when the label need only be there.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        match &self.wanted {
            Wanted::Present => &[],
            Wanted::One(one) => std::slice::from_ref(one),
            Wanted::AnyOf(all) => all,
        }
    }

    /// Whether it holds where the label is *not* so.
    #[must_use]
    pub fn is_negated(&self) -> bool {
        self.not
    }

    /// Whether it is only preferred.
    #[must_use]
    pub fn is_preferred(&self) -> bool {
        self.prefer
    }

    /// Whether one of the values is, or is in, `found`: what is negated is not yet negated here.
    #[must_use]
    pub fn names(&self, found: &str) -> bool {
        match self.values() {
            [] => true,
            values => values.iter().any(|value| value.accepts(found)),
        }
    }

    /// Whether it holds for a thing whose label has this value, or that has no such label.
    #[must_use]
    pub fn accepts(&self, found: Option<&str>) -> bool {
        found.is_some_and(|found| self.names(found)) != self.not
    }
}

impl Hash for Requirement {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.key, self.not, self.prefer).hash(state);
        self.values().iter().for_each(|value| value.text().hash(state));
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.values(), self.not) {
            ([], not) => write!(f, "{}{}", if not { "!" } else { "" }, self.key)?,
            ([one], not) if !one.text().contains(',') || !matches!(one, Value::In(_)) => {
                write!(f, "{}{}", self.key, if not { "!=" } else { "=" })?;
                self.write(f, one)?;
            }
            (all, not) => {
                write!(f, "{} {} (", self.key, if not { "notin" } else { "in" })?;
                for (at, value) in all.iter().enumerate() {
                    f.write_str(if at == 0 { "" } else { "," })?;
                    self.write(f, value)?;
                }
                f.write_str(")")?;
            }
        }
        f.write_str(if self.prefer { "?" } else { "" })
    }
}

impl Requirement {
    fn write(&self, f: &mut fmt::Formatter<'_>, value: &Value) -> fmt::Result {
        let text = value.text();
        let looks_like_range = || !matches!(range::read(text, None), Ok(None));
        let quoted = match value {
            Value::In(_) => false,
            Value::Under { .. } | Value::Exact { .. } => {
                text.is_empty()
                    || text.ends_with('?')
                    || text.starts_with('=')
                    || text.contains(|c: char| c.is_whitespace() || ",&()\"\\".contains(c))
                    || &*self.key == VERSION && looks_like_range()
            }
        };
        if !quoted {
            return f.write_str(text);
        }
        f.write_str("\"")?;
        for c in text.chars() {
            write!(f, "{}{c}", if matches!(c, '"' | '\\') { "\\" } else { "" })?;
        }
        f.write_str("\"")
    }
}

/// Whether a key may have `c`: nothing that means something else in a selector.
pub(super) fn is_of_key(c: char) -> bool {
    !c.is_control() && !c.is_whitespace() && !"!=<>()?,&\"~^\\".contains(c)
}

fn region(text: &str) -> Result<&str, BadSelector> {
    let name = text.trim_end_matches('/');
    if name.is_empty() { Err(BadSelector::Region) } else { Ok(name) }
}
