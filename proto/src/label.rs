//! Labels, and the selectors that ask for them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::error::DecodeError;
use crate::wire;

/// Labels one thing may carry.
pub const MAX_LABELS: usize = 64;
/// Bytes of a key.
pub const MAX_KEY: usize = 128;
/// Bytes of a value. go-micro puts its metadata here, which is wordier than labels are.
pub const MAX_VALUE: usize = 1024;

/// `key=value` pairs, sorted by key, each key once.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelSet(Arc<[(Arc<str>, Arc<str>)]>);

impl LabelSet {
    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    /// All pairs, by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// How many pairs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These labels with those of `over` laid on top: where both have a key, `over` wins.
    #[must_use]
    pub fn overlaid(&self, over: &Self) -> Self {
        if over.is_empty() {
            return self.clone();
        }
        let all = self.0.iter().chain(over.0.iter());
        Self(all.cloned().collect::<std::collections::BTreeMap<_, _>>().into_iter().collect())
    }

    /// Writes the pairs as two lists: keys under `tag`, values under `tag + 1`.
    pub fn put(&self, out: &mut BytesMut, tag: u64) {
        for (key, value) in self.iter() {
            wire::put_item(out, tag, key.as_bytes());
            wire::put_item(out, tag + 1, value.as_bytes());
        }
    }
}

impl<K: Into<Arc<str>>, V: Into<Arc<str>>> FromIterator<(K, V)> for LabelSet {
    /// Of a key given twice, the last value wins.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let sorted: std::collections::BTreeMap<Arc<str>, Arc<str>> =
            pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        Self(sorted.into_iter().collect())
    }
}

impl fmt::Display for LabelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (key, value)) in self.iter().enumerate() {
            write!(f, "{}{key}={value}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Gathers the two lists that [`LabelSet::put`] writes.
#[derive(Debug, Default)]
pub struct LabelReader {
    keys: Vec<String>,
    values: Vec<String>,
}

impl LabelReader {
    /// Takes a key.
    ///
    /// # Errors
    /// [`DecodeError`] when it is longer than [`MAX_KEY`], or one of too many.
    pub fn key(&mut self, value: wire::Value) -> Result<(), DecodeError> {
        Self::push(&mut self.keys, value, MAX_KEY)
    }

    /// Takes a value.
    ///
    /// # Errors
    /// [`DecodeError`] when it is longer than [`MAX_VALUE`], or one of too many.
    pub fn value(&mut self, value: wire::Value) -> Result<(), DecodeError> {
        Self::push(&mut self.values, value, MAX_VALUE)
    }

    /// The pairs.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] when keys and values are not equally many.
    pub fn done(self) -> Result<LabelSet, DecodeError> {
        if self.keys.len() != self.values.len() {
            return Err(DecodeError::Invalid("labels"));
        }
        Ok(self.keys.into_iter().zip(self.values).collect())
    }

    fn push(list: &mut Vec<String>, value: wire::Value, max: usize) -> Result<(), DecodeError> {
        if list.len() == MAX_LABELS {
            return Err(DecodeError::TooLarge("labels"));
        }
        list.push(value.text("label", max)?);
        Ok(())
    }
}

/// A key, and the value it must have; `None` for any.
type Requirement = (Arc<str>, Option<Arc<str>>);

/// What the labels of an instance must be: every requirement must hold. Empty asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector(Arc<[Requirement]>);

/// Why a text is not a selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a selector: {0:?}; write key=value, or key for any value, with commas between")]
pub struct BadSelector(pub String);

impl Selector {
    /// Whether `labels` satisfy every requirement.
    #[must_use]
    pub fn matches(&self, labels: &LabelSet) -> bool {
        self.0.iter().all(|(key, wanted)| match (labels.get(key), wanted) {
            (Some(found), Some(wanted)) => found == &**wanted,
            (found, None) => found.is_some(),
            (None, Some(_)) => false,
        })
    }

    /// Whether it asks for nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Requirements: a key, and the value it must have or `None` for any.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, Option<&str>)> {
        self.0.iter().map(|(key, value)| (&**key, value.as_deref()))
    }

    /// This and one more requirement.
    #[must_use]
    pub fn and(&self, key: &str, value: Option<&str>) -> Self {
        let more = std::iter::once((Arc::from(key), value.map(Arc::from)));
        Self(self.0.iter().cloned().chain(more).collect())
    }
}

impl FromStr for Selector {
    type Err = BadSelector;

    fn from_str(text: &str) -> Result<Self, BadSelector> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let one = |part: &str| {
            let (key, value) = part.split_once('=').map_or((part, None), |(k, v)| (k, Some(v)));
            let key_fits = !key.is_empty()
                && key.len() <= MAX_KEY
                && key.chars().all(|c| !c.is_control() && !"!=<> ()".contains(c));
            let value_fits = value.is_none_or(|v| v.len() <= MAX_VALUE && !v.starts_with('='));
            (key_fits && value_fits)
                .then(|| (Arc::from(key), value.map(Arc::from)))
                .ok_or_else(|| BadSelector(part.to_owned()))
        };
        let all: Vec<_> = parts.map(one).collect::<Result<_, _>>()?;
        if all.len() > MAX_LABELS {
            return Err(BadSelector(text.chars().take(40).collect()));
        }
        Ok(Self(all.into()))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (key, value)) in self.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { "," })?;
            match value {
                Some(value) => write!(f, "{key}={value}")?,
                None => f.write_str(key)?,
            }
        }
        Ok(())
    }
}

/// Reads a whole [`LabelSet`] from a nested message with keys under 1 and values under 2.
///
/// # Errors
/// As [`LabelReader`].
pub fn read(message: Bytes) -> Result<LabelSet, DecodeError> {
    let mut labels = LabelReader::default();
    let mut fields = wire::Fields::new(message);
    while let Some((tag, value)) = fields.next()? {
        match tag {
            1 => labels.key(value)?,
            2 => labels.value(value)?,
            tag => wire::unknown(tag)?,
        }
    }
    labels.done()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_labels_win_and_order_is_by_key() {
        let node: LabelSet = [("region", "eu"), ("tier", "gate")].into_iter().collect();
        let instance: LabelSet = [("version", "v2"), ("tier", "edge")].into_iter().collect();
        assert_eq!(node.overlaid(&instance).to_string(), "region=eu,tier=edge,version=v2");
    }

    #[test]
    fn a_selector_asks_for_values_or_for_presence() {
        let labels: LabelSet = [("version", "v2"), ("region", "eu")].into_iter().collect();
        for (selector, verdict) in [
            ("", true),
            ("version=v2", true),
            ("version=v2,region", true),
            ("version=v1", false),
            ("zone", false),
        ] {
            assert_eq!(selector.parse::<Selector>().unwrap().matches(&labels), verdict);
        }
        assert!("=x".parse::<Selector>().is_err());
        assert!("a!=b".parse::<Selector>().is_err(), "operators come with label rules");
    }

    #[test]
    fn labels_travel_as_two_lists() {
        let labels: LabelSet = [("a", "1"), ("b", "")].into_iter().collect();
        let mut out = BytesMut::new();
        labels.put(&mut out, 1);
        assert_eq!(read(out.freeze()), Ok(labels));
    }
}
