//! Patterns, looked up by topic.
//!
//! A pattern has a shape: where its wildcards are. All patterns of one shape that may match a topic
//! are one, the topic with wildcards put in at those places; so a lookup asks a hash table once for
//! each shape there is. Programs use few shapes (literal, `_INBOX.x.*`, `orders.>`), and a change
//! copies a 256th of the table, however many patterns share a beginning; see
//! `docs/decisions/0025-topics-by-shape.md`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use proto::name::MAX_NAME;
use proto::topic::{MAX_TOKENS, MAX_TOPIC, Shape, Topic, TopicPattern, tokens};

/// Shards: a change copies one of them, where it is shared.
const SHARDS: usize = 256;
/// Different shapes of patterns. Each costs a lookup a fraction of a microsecond; patterns of more
/// shapes are refused.
pub const MAX_SHAPES: usize = 512;
/// Bytes of the longest key: namespace, NUL, pattern.
const MAX_KEY: usize = MAX_NAME + 1 + MAX_TOPIC;

type Shard<V> = HashMap<Box<[u8]>, Entry<V>, FixedState>;

#[derive(Clone)]
struct Entry<V> {
    pattern: TopicPattern,
    value: V,
}

/// A value for each pattern. Clones share all that is not changed afterwards.
#[derive(Clone)]
pub struct Table<V> {
    shapes: Arc<BTreeMap<Shape, usize>>,
    shards: Vec<Arc<Shard<V>>>,
    len: usize,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        let empty = Arc::new(Shard::default());
        Self { shapes: Arc::default(), shards: vec![empty; SHARDS], len: 0 }
    }
}

impl<V> Table<V> {
    /// How many patterns there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of exactly this pattern.
    #[must_use]
    pub fn get(&self, namespace: &str, pattern: &TopicPattern) -> Option<&V> {
        let key = key(namespace, pattern);
        self.shards[shard(&key)].get(&key[..]).map(|entry| &entry.value)
    }

    /// The values of all patterns that match, in the order of their shapes. Allocates nothing.
    pub fn matches<'a>(&'a self, namespace: &str, topic: &Topic, mut each: impl FnMut(&'a V)) {
        if self.len == 0 || namespace.len() > MAX_NAME {
            return;
        }
        let mut parts: [&[u8]; MAX_TOKENS] = [&[]; MAX_TOKENS];
        let mut count = 0;
        for token in tokens(topic.bytes()) {
            parts[count] = token;
            count += 1;
        }
        let mut key = [0; MAX_KEY];
        key[..namespace.len()].copy_from_slice(namespace.as_bytes());
        for shape in self.shapes.keys() {
            let fits = usize::from(shape.tokens) == count
                || (shape.open && usize::from(shape.tokens) < count);
            if !fits || (shape.open && usize::from(shape.tokens) == count) {
                continue;
            }
            let mut at = namespace.len() + 1;
            for (n, part) in parts[..usize::from(shape.tokens)].iter().enumerate() {
                let part: &[u8] = if shape.stars & (1 << n) == 0 { part } else { b"*" };
                if n > 0 {
                    key[at] = b'.';
                    at += 1;
                }
                key[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            }
            if shape.open {
                let end: &[u8] = if shape.tokens > 0 { b".>" } else { b">" };
                key[at..at + end.len()].copy_from_slice(end);
                at += end.len();
            }
            if let Some(entry) = self.shards[shard(&key[..at])].get(&key[..at]) {
                each(&entry.value);
            }
        }
    }

    /// Every pattern with its namespace and value, by namespace and text. Sorts: for people.
    pub fn all(&self) -> impl Iterator<Item = (&str, &TopicPattern, &V)> {
        let mut all: Vec<_> = self.shards.iter().flat_map(|shard| shard.iter()).collect();
        all.sort_unstable_by(|a, b| a.0.cmp(b.0));
        all.into_iter().map(|(key, entry)| {
            let namespace = key.split(|byte| *byte == 0).next().unwrap_or_default();
            (std::str::from_utf8(namespace).unwrap_or_default(), &entry.pattern, &entry.value)
        })
    }
}

impl<V: Clone + Default> Table<V> {
    /// Changes the value of a pattern, beginning with the default one; it is kept where `change`
    /// says so. False, with nothing changed, for a pattern of a new shape where there are
    /// [`MAX_SHAPES`].
    pub fn update(
        &mut self,
        namespace: &str,
        pattern: &TopicPattern,
        change: impl FnOnce(&mut V) -> bool,
    ) -> bool {
        let (key, shape) = (key(namespace, pattern), pattern.shape());
        let shards = &mut self.shards[shard(&key)];
        let known = shards.contains_key(&key[..]);
        let full = self.shapes.len() >= MAX_SHAPES && !self.shapes.contains_key(&shape);
        if !known && full {
            return false;
        }
        let shard = Arc::make_mut(shards);
        let fresh = || Entry { pattern: pattern.clone(), value: V::default() };
        let entry = shard.entry(key.clone()).or_insert_with(fresh);
        let kept = change(&mut entry.value);
        if !kept {
            shard.remove(&key);
        }
        match (known, kept) {
            (false, true) => {
                self.len += 1;
                *Arc::make_mut(&mut self.shapes).entry(shape).or_default() += 1;
            }
            (true, false) => {
                self.len -= 1;
                let shapes = Arc::make_mut(&mut self.shapes);
                let left = shapes.get_mut(&shape).map_or(0, |count| {
                    *count -= 1;
                    *count
                });
                if left == 0 {
                    shapes.remove(&shape);
                }
            }
            (_, _) => {}
        }
        true
    }
}

impl<V> fmt::Debug for Table<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({} patterns of {} shapes)", self.len, self.shapes.len())
    }
}

fn key(namespace: &str, pattern: &TopicPattern) -> Box<[u8]> {
    [namespace.as_bytes(), &[0], pattern.bytes()].concat().into()
}

fn shard(key: &[u8]) -> usize {
    // Another seed than the shards' own tables have, or each would use a 256th of its buckets.
    FixedState::with_seed(0x74_6f70_6963).hash_one(key) as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn token() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just("a"), Just("b"), Just("c"), Just("*")]
    }

    fn pattern() -> impl Strategy<Value = TopicPattern> {
        let text = (proptest::collection::vec(token(), 0..5), any::<bool>());
        text.prop_filter_map("empty", |(mut tokens, open)| {
            tokens.extend(open.then_some(">"));
            TopicPattern::new(tokens.join(".")).ok()
        })
    }

    fn topic() -> impl Strategy<Value = Topic> {
        let token = prop_oneof![Just("a"), Just("b"), Just("c")];
        proptest::collection::vec(token, 1..6).prop_map(|all| Topic::new(all.join(".")).unwrap())
    }

    fn set(table: &mut Table<u32>, pattern: &TopicPattern, value: u32) {
        let change = |held: &mut u32| {
            *held = value;
            value > 0
        };
        assert!(table.update("", pattern, change));
    }

    proptest! {
        #[test]
        fn a_lookup_finds_what_matches_and_nothing_else(
            patterns in proptest::collection::vec((pattern(), any::<bool>()), 0..40),
            topics in proptest::collection::vec(topic(), 1..10),
        ) {
            let (mut table, mut held) = (Table::default(), BTreeSet::new());
            for (pattern, add) in &patterns {
                set(&mut table, pattern, u32::from(*add));
                if *add { held.insert(pattern.clone()); } else { held.remove(pattern); }
            }
            prop_assert_eq!(table.len(), held.len());
            for topic in &topics {
                let mut found = 0;
                table.matches("", topic, |_| found += 1);
                let expected = held.iter().filter(|pattern| pattern.matches(topic)).count();
                prop_assert_eq!(found, expected, "{}", topic);
                table.matches("other", topic, |_| panic!("of another namespace"));
            }
            for pattern in &held {
                set(&mut table, pattern, 0);
            }
            prop_assert!(table.is_empty() && table.shapes.is_empty());
        }
    }

    #[test]
    fn a_clone_does_not_see_what_is_changed_later() {
        let mut table = Table::default();
        let pattern = TopicPattern::new("a.*").unwrap();
        set(&mut table, &pattern, 1);
        let before = table.clone();
        set(&mut table, &pattern, 2);
        assert_eq!((before.get("", &pattern), table.get("", &pattern)), (Some(&1), Some(&2)));
    }

    #[test]
    fn patterns_of_more_shapes_than_allowed_are_refused() {
        let mut table: Table<u32> = Table::default();
        let of = |n: usize| {
            let token = |bit: u32| if n & (1 << bit) == 0 { "a" } else { "*" };
            TopicPattern::new((0..10).map(token).collect::<Vec<_>>().join(".")).unwrap()
        };
        let taken = (0..1024).filter(|n| table.update("", &of(*n), |_| true)).count();
        assert_eq!((taken, table.len()), (MAX_SHAPES, MAX_SHAPES));
        assert!(table.update("", &of(0), |_| false), "what is there can be taken away");
        assert!(table.update("", &of(1023), |_| true), "and leaves room");
    }
}
