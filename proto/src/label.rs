//! Labels. What asks for them is a [`selector`](crate::selector).

use std::fmt;
use std::hash::{DefaultHasher, Hasher};
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

/// What a label is found by in an index: the hash of its key, or of its key and value. SipHash,
/// for labels are chosen by strangers, and whoever finds many that share a hash slows all down; of
/// no fixed form beyond this process.
#[must_use]
pub fn hash(key: &str, value: Option<&str>) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(key.as_bytes());
    if let Some(value) = value {
        // No byte of UTF-8, so that no key and value run into another key.
        hasher.write_u8(0xff);
        hasher.write(value.as_bytes());
    }
    hasher.finish()
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
    fn labels_travel_as_two_lists() {
        let labels: LabelSet = [("a", "1"), ("b", "")].into_iter().collect();
        let mut out = BytesMut::new();
        labels.put(&mut out, 1);
        assert_eq!(read(out.freeze()), Ok(labels));
    }
}
