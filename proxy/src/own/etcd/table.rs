//! Keys with their values and revisions, and what happened to them lately. Pure: told of changes, it
//! only counts and keeps.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::keys::Span;

/// Keys at a time. More are left out, and counted.
const MAX_KEYS: usize = 200_000;
/// Bytes of all keys and values. The same gives way.
const MAX_BYTES: usize = 256 << 20;
/// Changes kept for watches that begin in the past, and for reading it. The oldest go first.
const MAX_HISTORY: usize = 65_536;
/// Bytes of those changes. The same gives way.
const MAX_HISTORY_BYTES: usize = 64 << 20;

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) value: Bytes,
    /// 0: none.
    pub(super) lease: i64,
    pub(super) created: i64,
    pub(super) modified: i64,
    /// Counts from 1 since it was created.
    pub(super) version: i64,
}

/// What happened to a key; one revision each.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) revision: i64,
    pub(super) key: Bytes,
    pub(super) before: Option<Entry>,
    pub(super) after: Option<Entry>,
}

impl Change {
    fn bytes(&self) -> usize {
        let of = |entry: &Option<Entry>| entry.as_ref().map_or(0, |entry| entry.value.len());
        self.key.len() + of(&self.before) + of(&self.after)
    }
}

/// There are as many keys as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// The table.
#[derive(Debug)]
pub(super) struct Table {
    revision: i64,
    /// Everything up to this is forgotten.
    compacted: i64,
    entries: BTreeMap<Bytes, Entry>,
    bytes: usize,
    history: VecDeque<Change>,
    history_bytes: usize,
}

impl Table {
    /// An empty table whose first change has the revision after `first`.
    pub(super) fn new(first: i64) -> Self {
        Self {
            revision: first,
            compacted: first,
            entries: BTreeMap::new(),
            bytes: 0,
            history: VecDeque::new(),
            history_bytes: 0,
        }
    }

    /// That of the last change.
    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    /// What happened up to this revision is forgotten.
    pub(super) fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Bytes of keys and values.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// The keys of a range, in their order.
    pub(super) fn range(&self, span: &Span) -> impl Iterator<Item = (&Bytes, &Entry)> {
        span.bounds().into_iter().flat_map(|bounds| self.entries.range::<[u8], _>(bounds))
    }

    /// Sets a key.
    ///
    /// # Errors
    /// [`Full`]: it is as it was.
    pub(super) fn put(&mut self, key: Bytes, value: Bytes, lease: i64) -> Result<(), Full> {
        let before = self.entries.get(&key);
        let added = value.len() + if before.is_some() { 0 } else { key.len() };
        let freed = before.map_or(0, |before| before.value.len());
        let bytes = self.bytes - freed + added;
        if bytes > MAX_BYTES || before.is_none() && self.entries.len() >= MAX_KEYS {
            return Err(Full);
        }
        let revision = self.revision + 1;
        let (created, version) =
            before.map_or((revision, 1), |before| (before.created, before.version + 1));
        let after = Entry { value, lease, created, modified: revision, version };
        let before = self.entries.insert(key.clone(), after.clone());
        self.bytes = bytes;
        self.note(Change { revision, key, before, after: Some(after) });
        Ok(())
    }

    /// Takes a key away, if it is there.
    pub(super) fn delete(&mut self, key: &Bytes) {
        let Some(before) = self.entries.remove(key) else { return };
        self.bytes -= key.len() + before.value.len();
        let revision = self.revision + 1;
        self.note(Change { revision, key: key.clone(), before: Some(before), after: None });
    }

    /// What happened from this revision on, oldest first; what is forgotten is left out.
    pub(super) fn since(&self, revision: i64) -> impl Iterator<Item = &Change> {
        let at = self.history.partition_point(|change| change.revision < revision);
        self.history.range(at..)
    }

    /// The keys of a range as they were at a revision that is not forgotten: what happened since is
    /// taken back.
    pub(super) fn at<'a>(&'a self, revision: i64, span: &Span) -> BTreeMap<&'a Bytes, &'a Entry> {
        let mut then: BTreeMap<_, _> = self.range(span).collect();
        for change in self.history.iter().rev().take_while(|change| change.revision > revision) {
            if span.contains(&change.key) {
                match &change.before {
                    Some(before) => then.insert(&change.key, before),
                    None => then.remove(&change.key),
                };
            }
        }
        then
    }

    fn note(&mut self, change: Change) {
        self.revision = change.revision;
        self.history_bytes += change.bytes();
        self.history.push_back(change);
        while self.history.len() > MAX_HISTORY || self.history_bytes > MAX_HISTORY_BYTES {
            let Some(oldest) = self.history.pop_front() else { break };
            self.history_bytes -= oldest.bytes();
            self.compacted = oldest.revision;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all() -> Span {
        Span::of(Bytes::from_static(b"\0"), Bytes::from_static(b"\0"))
    }

    #[test]
    fn revisions_count_changes_and_versions_count_those_of_a_key() {
        let mut table = Table::new(100);
        let key = Bytes::from_static(b"a");
        table.put(key.clone(), "1".into(), 7).unwrap();
        table.put(key.clone(), "2".into(), 0).unwrap();
        let entry = table.get(b"a").unwrap();
        assert_eq!((entry.created, entry.modified, entry.version, entry.lease), (101, 102, 2, 0));
        table.delete(&key);
        table.delete(&key);
        assert_eq!(
            (table.revision(), table.bytes()),
            (103, 0),
            "what is not there changes nothing"
        );
        table.put(key, "3".into(), 0).unwrap();
        assert_eq!(table.get(b"a").unwrap().version, 1, "it is another one");
    }

    #[test]
    fn what_is_forgotten_is_said_to_be() {
        let mut table = Table::new(0);
        for n in 0..MAX_HISTORY + 10 {
            table.put(Bytes::from_static(b"a"), n.to_string().into(), 0).unwrap();
        }
        assert_eq!(table.compacted(), 10);
        assert_eq!(table.since(0).next().unwrap().revision, 11);
        let large = Bytes::from(vec![b'x'; MAX_HISTORY_BYTES / 4]);
        for _ in 0..8 {
            table.put(Bytes::from_static(b"a"), large.clone(), 0).unwrap();
        }
        assert!(table.since(0).count() < 8, "bytes are a bound as well");
        assert_eq!(table.get(b"a").unwrap().value, large);
    }

    #[test]
    fn a_full_table_refuses_and_stays_as_it_is() {
        let mut table = Table::new(0);
        let large = Bytes::from(vec![b'x'; MAX_BYTES / 2]);
        table.put(Bytes::from_static(b"a"), large.clone(), 0).unwrap();
        assert_eq!(table.put(Bytes::from_static(b"b"), large, 0), Err(Full));
        assert_eq!((table.revision(), table.range(&all()).count()), (1, 1));
    }

    proptest! {
        /// Reading the past gives what was there then.
        #[test]
        fn the_past_is_as_it_was(changes in proptest::collection::vec((0u8..5, any::<bool>()), 1..40)) {
            let mut table = Table::new(10);
            let mut then = Vec::new();
            let copy = |table: &Table| -> Vec<(Bytes, Entry)> {
                table.range(&all()).map(|(key, entry)| (key.clone(), entry.clone())).collect()
            };
            for (key, put) in changes {
                let key = Bytes::from(vec![key]);
                if put {
                    table.put(key, "v".into(), 0).unwrap();
                } else {
                    table.delete(&key);
                }
                then.push((table.revision(), copy(&table)));
            }
            for (revision, was) in then {
                let is = table.at(revision, &all());
                let is: Vec<_> = is.into_iter().map(|(k, e)| (k.clone(), e.clone())).collect();
                prop_assert_eq!(is, was);
            }
        }
    }
}
