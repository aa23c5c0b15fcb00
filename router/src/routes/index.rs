//! Which instances carry a label, for services with many: a selector then looks at few.

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use proto::Selector;

use super::service::Instance;

/// Below this many instances looking at each is as quick.
const WORTH_IT: usize = 16;

/// Places of instances by a hash of the label they carry. Two labels may share a hash: the places
/// are of those that *can* match, and the selector is still asked.
#[derive(Clone, Debug)]
pub(super) struct Index {
    /// By `key=value`.
    pairs: HashMap<u64, Vec<u32>, FixedState>,
    /// By key, of keys that not all instances carry; of the others an empty list that is not used.
    keys: HashMap<u64, Option<Vec<u32>>, FixedState>,
}

impl Index {
    /// `None` when there are too few instances for it to be of use.
    pub(super) fn of(instances: &[Instance]) -> Option<Self> {
        if instances.len() < WORTH_IT {
            return None;
        }
        let mut pairs: HashMap<u64, Vec<u32>, FixedState> = HashMap::default();
        let mut keys: HashMap<u64, Option<Vec<u32>>, FixedState> = HashMap::default();
        for (at, instance) in (0u32..).zip(instances) {
            for (key, value) in instance.labels.iter() {
                list(pairs.entry(pair_hash(key, value)).or_default(), at);
                list(keys.entry(key_hash(key)).or_default().get_or_insert_default(), at);
            }
        }
        let keys = keys
            .into_iter()
            .map(|(key, listed)| (key, listed.filter(|listed| listed.len() < instances.len())))
            .collect();
        Some(Self { pairs, keys })
    }

    /// The shortest list that holds all that can match; `None` when nothing narrows it down.
    pub(super) fn narrowest(&self, selector: &Selector) -> Option<&[u32]> {
        selector
            .iter()
            .filter_map(|(key, value)| match value {
                Some(value) => {
                    Some(self.pairs.get(&pair_hash(key, value)).map_or(&[][..], Vec::as_slice))
                }
                None => match self.keys.get(&key_hash(key)) {
                    Some(listed) => listed.as_deref(),
                    None => Some(&[]),
                },
            })
            .min_by_key(|listed| listed.len())
    }
}

fn list(listed: &mut Vec<u32>, at: u32) {
    if listed.last() != Some(&at) {
        listed.push(at);
    }
}

fn pair_hash(key: &str, value: &str) -> u64 {
    FixedState::default().hash_one((key, value))
}

fn key_hash(key: &str) -> u64 {
    FixedState::default().hash_one(key)
}
